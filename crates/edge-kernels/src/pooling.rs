//! Pooling, sums and limits in float32, (H,W,C): what moves more memory than it computes.

use crate::simd::{Simd, kernel};
use crate::{Among, Isa, Window};
use std::ops::Range;

/// Maximum under a window at the positions of a range, counted row by row. Pixels outside the picture do not count;
/// a window that lies outside altogether gives `low`. `input` has the channels of `among` per pixel, alone; `out` has them
/// per position where that says.
///
/// # Panics
/// Where the lengths do not belong together.
pub fn max_pool(isa: Isa, window: &Window, among: Among, input: &[f32], positions: Range<usize>, out: &mut [f32]) {
    check(isa, window, among, input, &positions, out);
    // SAFETY: the lengths are those that the loops count to.
    unsafe { max_run(isa, window, among, input, positions, out) }
}

/// That the lengths of a pooling belong together.
fn check(isa: Isa, window: &Window, among: Among, input: &[f32], positions: &Range<usize>, out: &[f32]) {
    assert!(among.channels.is_multiple_of(isa.lanes()));
    assert_eq!(input.len(), window.input[0] * window.input[1] * among.channels);
    among.check(positions.len(), out.len());
    assert!(positions.end <= window.positions());
}

kernel! {
    fn max_run(window: &Window, among: Among, input: &[f32], positions: Range<usize>, out: &mut [f32]) = max_body
}

#[inline(always)]
unsafe fn max_body<S: Simd>(s: S, w: &Window, among: Among, input: &[f32], positions: Range<usize>, out: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe { pool_body(s, w, among, input, positions, out, f32::NEG_INFINITY, |a, b| s.max(a, b), |_| s.splat(1.0)) }
}

/// What a mean is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// The pixels of the picture that are under the window.
    Inside,
    /// All of the window; outside the picture there are zeros.
    All,
}

/// Mean under a window at the positions of a range, counted row by row, where [`max_pool`] would write. A window that lies
/// outside altogether gives zero.
///
/// # Panics
/// Where the lengths do not belong together.
pub fn mean_pool(
    isa: Isa,
    window: &Window,
    counted: Counted,
    among: Among,
    input: &[f32],
    positions: Range<usize>,
    out: &mut [f32],
) {
    check(isa, window, among, input, &positions, out);
    // SAFETY: the lengths are those that the loops count to.
    unsafe { mean_run(isa, window, counted, among, input, positions, out) }
}

kernel! {
    fn mean_run(
        window: &Window, counted: Counted, among: Among, input: &[f32], positions: Range<usize>, out: &mut [f32],
    ) = mean_body
}

#[inline(always)]
unsafe fn mean_body<S: Simd>(
    s: S,
    w: &Window,
    counted: Counted,
    among: Among,
    input: &[f32],
    positions: Range<usize>,
    out: &mut [f32],
) {
    let share = |inside: usize| {
        let count = if counted == Counted::All { w.kernel[0] * w.kernel[1] } else { inside.max(1) };
        s.splat(1.0 / count as f32)
    };
    // SAFETY: the caller's promise.
    unsafe { pool_body(s, w, among, input, positions, out, 0.0, |a, b| s.add(a, b), share) }
}

/// Folds what is under the window, from `start` on, and multiplies that by `share` of the number of pixels that it is of.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn pool_body<S: Simd>(
    s: S,
    w: &Window,
    among: Among,
    input: &[f32],
    positions: Range<usize>,
    out: &mut [f32],
    start: f32,
    fold: impl Fn(S::V, S::V) -> S::V,
    share: impl Fn(usize) -> S::V,
) {
    let channels = among.channels;
    for (at, out) in positions.zip(out.chunks_exact_mut(among.pitch)) {
        let (y, x) = (at / w.output[1], at % w.output[1]);
        let (rows, columns) = (w.inside(0, y), w.inside(1, x));
        let share = share(rows.len() * columns.len());
        let mut channel = 0;
        macro_rules! take {
            ($count:literal) => {
                while channels - channel >= $count * S::LANES {
                    // SAFETY: the callers asserted the lengths; the taps inside the picture have a source there.
                    unsafe {
                        let mut folded = [s.splat(start); $count];
                        for row in rows.clone() {
                            let from = y * w.stride[0] + row * w.dilation[0] - w.before[0];
                            for column in columns.clone() {
                                let at = x * w.stride[1] + column * w.dilation[1] - w.before[1];
                                let pixel = input.as_ptr().add((from * w.input[1] + at) * channels + channel);
                                for (v, folded) in folded.iter_mut().enumerate() {
                                    *folded = fold(*folded, s.load(pixel.add(v * S::LANES)));
                                }
                            }
                        }
                        for (v, folded) in folded.into_iter().enumerate() {
                            s.store(out.as_mut_ptr().add(among.first + channel + v * S::LANES), s.mul(folded, share));
                        }
                    }
                    channel += $count * S::LANES;
                }
            };
        }
        take!(8);
        take!(1);
    }
}

/// The mean of each channel over all pixels. `input` has `channels` values per pixel, whole vectors.
///
/// # Panics
/// Where the lengths do not belong together.
pub fn average(isa: Isa, channels: usize, input: &[f32], out: &mut [f32]) {
    assert!(channels.is_multiple_of(isa.lanes()) && out.len() == channels && input.len().is_multiple_of(channels));
    // SAFETY: the lengths are those that the loops count to.
    unsafe { average_run(isa, channels, input, out) }
}

kernel! {
    fn average_run(channels: usize, input: &[f32], out: &mut [f32]) = average_body
}

#[inline(always)]
unsafe fn average_body<S: Simd>(s: S, channels: usize, input: &[f32], out: &mut [f32]) {
    let pixels = input.len() / channels;
    let share = s.splat(1.0 / pixels as f32);
    for channel in (0..channels).step_by(S::LANES) {
        // SAFETY: `average` asserted the lengths.
        unsafe {
            let mut sum = s.splat(0.0);
            for pixel in 0..pixels {
                sum = s.add(sum, s.load(input.as_ptr().add(pixel * channels + channel)));
            }
            s.store(out.as_mut_ptr().add(channel), s.mul(sum, share));
        }
    }
}

/// out = limits(a + b), value by value; `b` is zero where it is not given.
///
/// # Panics
/// Where the lengths differ or are not whole vectors.
pub fn add(isa: Isa, a: &[f32], b: Option<&[f32]>, limits: [f32; 2], out: &mut [f32]) {
    assert!(a.len() == out.len() && b.is_none_or(|b| b.len() == a.len()) && a.len().is_multiple_of(isa.lanes()));
    // SAFETY: the lengths are those that the loops count to.
    unsafe { add_run(isa, a, b, limits, out) }
}

kernel! {
    fn add_run(a: &[f32], b: Option<&[f32]>, limits: [f32; 2], out: &mut [f32]) = add_body
}

#[inline(always)]
unsafe fn add_body<S: Simd>(s: S, a: &[f32], b: Option<&[f32]>, limits: [f32; 2], out: &mut [f32]) {
    let [low, high] = s.splats(limits);
    for at in (0..a.len()).step_by(S::LANES) {
        // SAFETY: `add` asserted the lengths.
        unsafe {
            let mut sum = s.load(a.as_ptr().add(at));
            if let Some(b) = b {
                sum = s.add(sum, s.load(b.as_ptr().add(at)));
            }
            s.store(out.as_mut_ptr().add(at), s.min(high, s.max(low, sum)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::{amongs, close, noise, taken};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 128 }))]
        #[test]
        fn maximum_of_any_window(w in crate::window::any(), vectors in 1..4_usize, seed in 0..99_u64) {
            for isa in Isa::available() {
                let channels = vectors * isa.lanes();
                let input = noise(seed, w.input[0] * w.input[1] * channels);
                let all = w.positions();
                for (positions, among) in [0..all, all / 3..all - all / 4].into_iter().zip(amongs(isa, channels)) {
                    let mut out = vec![f32::NAN; positions.len() * among.pitch];
                    max_pool(isa, &w, among, &input, positions.clone(), &mut out);
                    let out = taken(among, &out);
                    let mut wanted = vec![];
                    for at in positions {
                        for c in 0..channels {
                            let taps = (0..w.kernel[0]).flat_map(|i| (0..w.kernel[1]).map(move |j| (i, j)));
                            let source = |(i, j)| w.source(0, at / w.output[1], i).zip(w.source(1, at % w.output[1], j));
                            let values = taps.filter_map(source).map(|(y, x)| input[(y * w.input[1] + x) * channels + c]);
                            wanted.push(values.fold(f32::NEG_INFINITY, f32::max));
                        }
                    }
                    prop_assert_eq!(out, wanted);
                }
            }
        }

        #[test]
        fn mean_of_any_window(w in crate::window::any(), vectors in 1..4_usize, seed in 0..99_u64, all in any::<bool>()) {
            let counted = if all { Counted::All } else { Counted::Inside };
            for isa in Isa::available() {
                let channels = vectors * isa.lanes();
                let input = noise(seed, w.input[0] * w.input[1] * channels);
                let positions = w.positions() / 3..w.positions();
                let among = amongs(isa, channels)[(seed % 2) as usize];
                let mut out = vec![f32::NAN; positions.len() * among.pitch];
                mean_pool(isa, &w, counted, among, &input, positions.clone(), &mut out);
                let out = taken(among, &out);
                let mut wanted = vec![];
                for at in positions {
                    for c in 0..channels {
                        let taps = (0..w.kernel[0]).flat_map(|i| (0..w.kernel[1]).map(move |j| (i, j)));
                        let source = |(i, j)| w.source(0, at / w.output[1], i).zip(w.source(1, at % w.output[1], j));
                        let values = taps.filter_map(source).map(|(y, x)| f64::from(input[(y * w.input[1] + x) * channels + c]));
                        let values: Vec<f64> = values.collect();
                        let count = if all { w.kernel[0] * w.kernel[1] } else { values.len().max(1) };
                        wanted.push(values.iter().sum::<f64>() / count as f64);
                    }
                }
                close(&out, &wanted, w.kernel[0] * w.kernel[1], "mean");
            }
        }

        #[test]
        fn means_and_sums(pixels in 1..200_usize, vectors in 1..4_usize, seed in 0..99_u64) {
            for isa in Isa::available() {
                let channels = vectors * isa.lanes();
                let (a, b) = (noise(seed, pixels * channels), noise(seed + 1, pixels * channels));
                let mut mean = vec![f32::NAN; channels];
                average(isa, channels, &a, &mut mean);
                let exact = |c: usize| a.iter().skip(c).step_by(channels).map(|v| f64::from(*v)).sum::<f64>() / pixels as f64;
                close(&mean, &(0..channels).map(exact).collect::<Vec<_>>(), pixels, "mean");
                let mut sum = vec![f32::NAN; a.len()];
                add(isa, &a, Some(&b), [0.0, 1.0], &mut sum);
                prop_assert!(sum.iter().zip(a.iter().zip(&b)).all(|(s, (a, b))| *s == (a + b).clamp(0.0, 1.0)));
                add(isa, &a, None, [0.0, f32::INFINITY], &mut sum);
                prop_assert!(sum.iter().zip(&a).all(|(s, a)| *s == a.max(0.0)));
            }
        }
    }
}
