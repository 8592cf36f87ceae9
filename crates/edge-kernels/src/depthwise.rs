//! Depthwise convolution in float32, (H,W,C): a filter per channel.
//!
//! Vectors run over channels. Away from the left and right border four positions of a row are computed together, so that
//! each filter value is loaded once for four results and each pixel of a 3×3 window with stride 1 for up to three;
//! borders go tap by tap. It writes whichever positions it is asked for, so that a convolution that follows can have
//! them strip by strip, still in the second-level cache.

use crate::simd::{Simd, kernel};
use crate::{Buffer, Isa, Window};
use std::ops::Range;

/// A depthwise convolution.
#[derive(Clone)]
pub struct Depthwise {
    isa: Isa,
    window: Window,
    /// Channels, padded to whole vectors.
    channels: usize,
    /// (taps, channels).
    filter: Buffer,
    bias: Buffer,
    /// Limits of what is read: a rectifier that stands before.
    read: [f32; 2],
    /// Limits of what is written.
    written: [f32; 2],
}

impl Depthwise {
    /// `filter(tap, channel)` with taps row by row, `bias(channel)`. `read` and `written` are the limits of what is
    /// read and written; infinities for none. Padding is zero after the limits of what is read.
    pub fn new(
        isa: Isa,
        window: Window,
        channels: usize,
        filter: impl Fn(usize, usize) -> f32,
        bias: impl Fn(usize) -> f32,
        read: [f32; 2],
        written: [f32; 2],
    ) -> Depthwise {
        let padded = isa.padded(channels);
        let taps = window.kernel[0] * window.kernel[1];
        let (mut filters, mut biases) = (Buffer::new(taps * padded), Buffer::new(padded));
        for channel in 0..channels {
            biases[channel] = bias(channel);
            for tap in 0..taps {
                filters[tap * padded + channel] = filter(tap, channel);
            }
        }
        Depthwise { isa, window, channels: padded, filter: filters, bias: biases, read, written }
    }

    /// The window.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Channels, padded to whole vectors.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Values of the picture that it reads.
    pub fn input_len(&self) -> usize {
        self.window.input[0] * self.window.input[1] * self.channels
    }

    /// Computes the positions of a range, counted row by row. `out` has [`Depthwise::channels`] values for each.
    ///
    /// # Panics
    /// Where the lengths do not belong together.
    pub fn run(&self, input: &[f32], positions: Range<usize>, out: &mut [f32]) {
        assert_eq!(input.len(), self.input_len());
        assert_eq!(out.len(), positions.len() * self.channels);
        assert!(positions.end <= self.window.positions());
        // SAFETY: input, filter, bias and output have the lengths that the loops count to.
        unsafe { run(self.isa, self, input, positions, out) }
    }
}

kernel! {
    fn run(layer: &Depthwise, input: &[f32], positions: Range<usize>, out: &mut [f32]) = body
}

#[inline(always)]
unsafe fn body<S: Simd>(s: S, layer: &Depthwise, input: &[f32], positions: Range<usize>, out: &mut [f32]) {
    let window = &layer.window;
    let width = window.output[1];
    let whole = window.whole(1);
    let limited = layer.read != [f32::NEG_INFINITY, f32::INFINITY];
    let square = (window.kernel[0] == window.kernel[1] && window.dilation == [1, 1]).then_some(window.kernel[0]);
    let size = square.filter(|k| matches!(k, 3 | 5 | 7) && window.stride[1] <= 2).unwrap_or(0);
    let mut at = positions.start;
    let mut out = out.as_mut_ptr();
    while at < positions.end {
        let (y, x) = (at / width, at % width);
        let row_end = (positions.end - at).min(width - x) + x;
        // Positions from here on whose taps lie inside the picture, to the left and to the right at least.
        let inside = if size > 0 && whole.contains(&x) { row_end.min(whole.end) - x } else { 0 };
        let mut together = 1;
        macro_rules! block {
            ($count:literal, $size:literal) => {{
                together = $count;
                // SAFETY: `run` asserted the lengths; so many positions lie inside.
                unsafe {
                    match (limited, window.stride[1]) {
                        (false, 1) => block::<S, $count, $size, 1, false>(s, layer, input, y, x, out),
                        (true, 1) => block::<S, $count, $size, 1, true>(s, layer, input, y, x, out),
                        (false, _) => block::<S, $count, $size, 2, false>(s, layer, input, y, x, out),
                        (true, _) => block::<S, $count, $size, 2, true>(s, layer, input, y, x, out),
                    }
                }
            }};
        }
        match (inside, size) {
            (4.., 3) => block!(4, 3),
            (2.., 3) => block!(2, 3),
            (4.., 5) => block!(4, 5),
            (2.., 5) => block!(2, 5),
            (4.., 7) => block!(4, 7),
            // SAFETY: `run` asserted the lengths.
            _ => unsafe { single(s, layer, input, y, x, out) },
        }
        // SAFETY: there is room for every position.
        out = unsafe { out.add(together * layer.channels) };
        at += together;
    }
}

/// `P` positions of a row, `STRIDE` pixels apart, with a K×K window whose columns are inside the picture.
#[inline(always)]
unsafe fn block<S: Simd, const P: usize, const K: usize, const STRIDE: usize, const LIMITED: bool>(
    s: S,
    layer: &Depthwise,
    input: &[f32],
    y: usize,
    x: usize,
    out: *mut f32,
) {
    let window = &layer.window;
    let channels = layer.channels;
    let rows = window.inside(0, y);
    let left = x * STRIDE - window.before[1];
    let (read, written) = (layer.read.map(|l| s.splat(l)), layer.written.map(|l| s.splat(l)));
    // SAFETY: the caller's promise: (P - 1) · STRIDE + K pixels of the rows lie inside the picture.
    unsafe {
        // Rows outside are not read.
        let row = |r: usize| {
            let from = (y * window.stride[0] + r).wrapping_sub(window.before[0]);
            input.as_ptr().wrapping_add(from.wrapping_mul(window.input[1]).wrapping_add(left).wrapping_mul(channels))
        };
        let last = row(rows.end.max(1) - 1);
        for channel in (0..channels).step_by(S::LANES) {
            // The lowest row is the one that has not been read for the positions above.
            for p in 0..P {
                s.fetch(last.wrapping_add((P * STRIDE + K - 1 + p) * channels + channel));
            }
            let mut sums = [s.load(layer.bias.as_ptr().add(channel)); P];
            for r in rows.clone() {
                let row = row(r);
                let filter: [S::V; K] =
                    std::array::from_fn(|t| s.load(layer.filter.as_ptr().add((r * K + t) * channels + channel)));
                // Not all of these exist for every P and STRIDE; the compiler unrolls and drops the others.
                for column in 0..(P - 1) * STRIDE + K {
                    let mut pixel = s.load(row.add(column * channels + channel));
                    if LIMITED {
                        pixel = s.min(read[1], s.max(read[0], pixel));
                    }
                    for (p, sum) in sums.iter_mut().enumerate() {
                        if column >= p * STRIDE && column - p * STRIDE < K {
                            *sum = s.fma(pixel, filter[column - p * STRIDE], *sum);
                        }
                    }
                }
            }
            for (p, sum) in sums.into_iter().enumerate() {
                s.store(out.add(p * channels + channel), s.min(written[1], s.max(written[0], sum)));
            }
        }
    }
}

/// One position, any window.
#[inline(always)]
unsafe fn single<S: Simd>(s: S, layer: &Depthwise, input: &[f32], y: usize, x: usize, out: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let several = layer.channels / (4 * S::LANES) * (4 * S::LANES);
        for channel in (0..several).step_by(4 * S::LANES) {
            vectors::<S, 4>(s, layer, input, y, x, channel, out);
        }
        for channel in (several..layer.channels).step_by(S::LANES) {
            vectors::<S, 1>(s, layer, input, y, x, channel, out);
        }
    }
}

/// `V` vectors of one position: several, so that their sums do not wait for each other.
#[inline(always)]
unsafe fn vectors<S: Simd, const V: usize>(
    s: S,
    layer: &Depthwise,
    input: &[f32],
    y: usize,
    x: usize,
    channel: usize,
    out: *mut f32,
) {
    let window = &layer.window;
    let channels = layer.channels;
    let (read, written) = (layer.read.map(|l| s.splat(l)), layer.written.map(|l| s.splat(l)));
    let (rows, columns) = (window.inside(0, y), window.inside(1, x));
    // SAFETY: the taps inside the picture have a source there; filter, bias and output have `channels` values each.
    unsafe {
        let mut sums: [S::V; V] = std::array::from_fn(|v| s.load(layer.bias.as_ptr().add(channel + v * S::LANES)));
        for row in rows {
            let from = y * window.stride[0] + row * window.dilation[0] - window.before[0];
            for column in columns.clone() {
                let at = x * window.stride[1] + column * window.dilation[1] - window.before[1];
                let pixel = input.as_ptr().add((from * window.input[1] + at) * channels + channel);
                let tap = layer.filter.as_ptr().add((row * window.kernel[1] + column) * channels + channel);
                for (v, sum) in sums.iter_mut().enumerate() {
                    let pixel = s.min(read[1], s.max(read[0], s.load(pixel.add(v * S::LANES))));
                    *sum = s.fma(pixel, s.load(tap.add(v * S::LANES)), *sum);
                }
            }
        }
        for (v, sum) in sums.into_iter().enumerate() {
            s.store(out.add(channel + v * S::LANES), s.min(written[1], s.max(written[0], sum)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::{close, noise};
    use proptest::prelude::*;

    fn naive(layer: &Depthwise, input: &[f32], positions: Range<usize>) -> Vec<f64> {
        let (w, channels) = (&layer.window, layer.channels);
        let mut out = vec![];
        for at in positions {
            let (y, x) = (at / w.output[1], at % w.output[1]);
            for c in 0..channels {
                let mut sum = f64::from(layer.bias[c]);
                for (i, j) in (0..w.kernel[0]).flat_map(|i| (0..w.kernel[1]).map(move |j| (i, j))) {
                    if let (Some(row), Some(column)) = (w.source(0, y, i), w.source(1, x, j)) {
                        let pixel = input[(row * w.input[1] + column) * channels + c];
                        let pixel = pixel.max(layer.read[0]).min(layer.read[1]);
                        sum += f64::from(pixel) * f64::from(layer.filter[(i * w.kernel[1] + j) * channels + c]);
                    }
                }
                out.push(sum.max(f64::from(layer.written[0])).min(f64::from(layer.written[1])));
            }
        }
        out
    }

    fn check(window: Window, channels: usize, limits: bool, seed: u64) {
        let taps = window.kernel[0] * window.kernel[1];
        let (filter, bias) = (noise(seed, taps * channels), noise(seed + 1, channels));
        let open = [f32::NEG_INFINITY, f32::INFINITY];
        let (read, written) = if limits { ([0.0, f32::INFINITY], [-0.5, 0.5]) } else { (open, open) };
        for isa in Isa::available() {
            let layer =
                Depthwise::new(isa, window, channels, |t, c| filter[t * channels + c], |c| bias[c], read, written);
            let input = noise(seed + 2, window.input[0] * window.input[1] * layer.channels());
            let all = window.positions();
            for positions in [0..all, all / 3..all - all / 4, all / 2..all / 2] {
                let mut out = vec![f32::NAN; positions.len() * layer.channels()];
                layer.run(&input, positions.clone(), &mut out);
                close(&out, &naive(&layer, &input, positions), taps, &format!("{isa} {window:?} {channels}"));
            }
        }
    }

    #[test]
    fn usual_windows() {
        let sides: &[usize] = if cfg!(miri) { &[5] } else { &[1, 2, 3, 4, 5, 7, 8, 10, 19, 37] };
        for &side in sides {
            for (kernel, stride, before, after) in
                [(3, 1, 1, 1), (3, 2, 0, 1), (3, 2, 1, 1), (5, 1, 2, 2), (5, 2, 1, 2), (1, 1, 0, 0), (7, 1, 3, 3)]
            {
                let window = Window::new([side; 2], [kernel; 2], [stride; 2], [1; 2], [before; 2], [after; 2]);
                for (channels, limits) in [(8, false), (20, true)] {
                    window.iter().for_each(|w| check(*w, channels, limits, side as u64));
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 128 }))]
        #[test]
        fn any_window(window in crate::window::any(), channels in 1..40_usize, limits: bool, seed in 0..99_u64) {
            check(window, channels, limits, seed);
        }
    }
}
