//! What happens to bytes between convolutions: to and from float32, sums, pooling. (H,W,C), a byte is (q - zero) · scale.

use crate::gemm8::Sink;
use crate::simd::{Simd, kernel};
use crate::{Isa, Window};
use std::ops::Range;

/// limits(a · factors\[0\] + b · factors\[1\] + offset), rounded half to even and `zero` added where it becomes bytes. This is
/// every change of scale: for a byte a the product with its scale, for the zero points their products, taken off in `offset`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    /// What the terms are multiplied with.
    pub factors: [f32; 2],
    /// What is added.
    pub offset: f32,
    /// The smallest and the largest value, before the zero point.
    pub limits: [f32; 2],
    /// Added after rounding.
    pub zero: i32,
}

/// Bytes from float32.
///
/// # Panics
/// Where the lengths differ or are not whole vectors.
pub fn quantize(isa: Isa, affine: &Affine, a: &[f32], out: &mut [u8]) {
    assert!(a.len() == out.len() && a.len().is_multiple_of(isa.lanes()));
    // SAFETY: the lengths are those that the loops count to.
    unsafe { quantize_run(isa, affine, a, out) }
}

/// Bytes from bytes, one term or two.
///
/// # Panics
/// Where the lengths differ or are not whole vectors.
pub fn requantize(isa: Isa, affine: &Affine, a: &[u8], b: Option<&[u8]>, out: &mut [u8]) {
    assert!(a.len() == out.len() && b.is_none_or(|b| b.len() == a.len()) && a.len().is_multiple_of(isa.lanes()));
    // SAFETY: the lengths are those that the loops count to.
    unsafe { requantize_run(isa, affine, a, b, out) }
}

/// Float32 from bytes, one term or two.
///
/// # Panics
/// Where the lengths differ or are not whole vectors.
pub fn dequantize(isa: Isa, affine: &Affine, a: &[u8], b: Option<&[u8]>, out: &mut [f32]) {
    assert!(a.len() == out.len() && b.is_none_or(|b| b.len() == a.len()) && a.len().is_multiple_of(isa.lanes()));
    // SAFETY: the lengths are those that the loops count to.
    unsafe { dequantize_run(isa, affine, a, b, out) }
}

/// The largest byte under a window at the positions of a range, counted row by row; 0 where it lies outside altogether.
///
/// # Panics
/// Where the lengths do not belong together.
pub fn max_pool_bytes(
    isa: Isa,
    window: &Window,
    channels: usize,
    input: &[u8],
    positions: Range<usize>,
    out: &mut [u8],
) {
    assert_eq!(input.len(), window.input[0] * window.input[1] * channels);
    assert!(out.len() == positions.len() * channels && positions.end <= window.positions());
    // SAFETY: plain Rust; only the features are the caller's to have, and an Isa has them.
    unsafe { max_run(isa, window, channels, input, positions, out) }
}

/// The sums of each channel over all pixels.
///
/// # Panics
/// Where the lengths do not belong together, or a sum could overflow.
pub fn sum_bytes(isa: Isa, input: &[u8], sums: &mut [f32]) {
    assert!(!sums.is_empty() && input.len().is_multiple_of(sums.len()) && input.len() / sums.len() < 1 << 16);
    // SAFETY: as above.
    unsafe { sum_run(isa, input, sums) }
}

kernel! {
    fn quantize_run(affine: &Affine, a: &[f32], out: &mut [u8]) = quantize_body
}
kernel! {
    fn requantize_run(affine: &Affine, a: &[u8], b: Option<&[u8]>, out: &mut [u8]) = body
}
kernel! {
    fn dequantize_run(affine: &Affine, a: &[u8], b: Option<&[u8]>, out: &mut [f32]) = body
}
kernel! {
    fn max_run(window: &Window, channels: usize, input: &[u8], positions: Range<usize>, out: &mut [u8]) = max_body
}
kernel! {
    fn sum_run(input: &[u8], sums: &mut [f32]) = sum_body
}

#[inline(always)]
unsafe fn quantize_body<S: Simd>(s: S, affine: &Affine, a: &[f32], out: &mut [u8]) {
    let (factor, offset) = (s.splat(affine.factors[0]), s.splat(affine.offset));
    let [low, high] = s.splats(affine.limits);
    for at in (0..a.len()).step_by(S::LANES) {
        // SAFETY: `quantize` asserted the lengths.
        unsafe {
            let value = s.scale(s.load(a.as_ptr().add(at)), factor, offset);
            s.store_u8(out.as_mut_ptr().add(at), s.min(high, s.max(low, value)), affine.zero);
        }
    }
}

#[inline(always)]
unsafe fn body<S: Simd, O: Sink>(s: S, affine: &Affine, a: &[u8], b: Option<&[u8]>, out: &mut [O]) {
    let (factors, offset) = (affine.factors.map(|f| s.splat(f)), s.splat(affine.offset));
    let [low, high] = s.splats(affine.limits);
    for at in (0..a.len()).step_by(S::LANES) {
        // SAFETY: the callers asserted the lengths.
        unsafe {
            let mut value = s.scale(s.load_u8(a.as_ptr().add(at)), factors[0], offset);
            if let Some(b) = b {
                value = s.scale(s.load_u8(b.as_ptr().add(at)), factors[1], value);
            }
            O::store(s, out.as_mut_ptr().add(at), s.min(high, s.max(low, value)), affine.zero);
        }
    }
}

#[inline(always)]
unsafe fn max_body<S: Simd>(_: S, w: &Window, channels: usize, input: &[u8], positions: Range<usize>, out: &mut [u8]) {
    for (at, out) in positions.zip(out.chunks_exact_mut(channels)) {
        let (y, x) = (at / w.output[1], at % w.output[1]);
        out.fill(0);
        for row in w.inside(0, y) {
            let from = y * w.stride[0] + row * w.dilation[0] - w.before[0];
            for column in w.inside(1, x) {
                let at = x * w.stride[1] + column * w.dilation[1] - w.before[1];
                let pixel = &input[(from * w.input[1] + at) * channels..][..channels];
                out.iter_mut().zip(pixel).for_each(|(o, p)| *o = (*o).max(*p));
            }
        }
    }
}

#[inline(always)]
unsafe fn sum_body<S: Simd>(_: S, input: &[u8], sums: &mut [f32]) {
    sums.fill(0.0);
    // Whole numbers below 2^24 are exact in float32.
    for pixel in input.chunks_exact(sums.len()) {
        sums.iter_mut().zip(pixel).for_each(|(s, p)| *s += f32::from(*p));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::noise;
    use proptest::prelude::*;

    fn bytes(seed: u64, len: usize) -> Vec<u8> {
        noise(seed, len).iter().map(|v| ((v + 1.0) * 127.99) as u8).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]
        #[test]
        fn scales_and_sums(vectors in 1..6_usize, zero in 0..256_i32, seed in 0..99_u64) {
            for isa in Isa::available() {
                let len = vectors * isa.lanes();
                let (a, b) = (bytes(seed, len), bytes(seed + 1, len));
                let limits = [-zero as f32, (255 - zero) as f32];
                let affine = Affine { factors: [0.37, 0.9], offset: -20.0, limits, zero };
                let exact = |i: usize, two: bool| {
                    let value = f64::from(a[i]) * 0.37 + if two { f64::from(b[i]) * 0.9 } else { 0.0 } - 20.0;
                    value.clamp(f64::from(limits[0]), f64::from(limits[1]))
                };
                for two in [false, true] {
                    let other = two.then_some(&b[..]);
                    let (mut whole, mut real) = (vec![7; len], vec![f32::NAN; len]);
                    requantize(isa, &affine, &a, other, &mut whole);
                    dequantize(isa, &affine, &a, other, &mut real);
                    for i in 0..len {
                        prop_assert!((f64::from(real[i]) - exact(i, two)).abs() < 1e-4);
                        prop_assert!((f64::from(i32::from(whole[i]) - zero) - exact(i, two)).abs() <= 0.5001);
                    }
                }
                let floats: Vec<f32> = a.iter().map(|v| f32::from(*v)).collect();
                let mut whole = vec![7; len];
                quantize(isa, &affine, &floats, &mut whole);
                for (i, byte) in whole.iter().enumerate() {
                    prop_assert!((f64::from(i32::from(*byte) - zero) - exact(i, false)).abs() <= 0.5001);
                }
                let mut sums = vec![f32::NAN; isa.lanes()];
                sum_bytes(isa, &a, &mut sums);
                for (c, sum) in sums.iter().enumerate() {
                    let exact: u32 = a.iter().skip(c).step_by(isa.lanes()).map(|v| u32::from(*v)).sum();
                    prop_assert_eq!(*sum, exact as f32);
                }
            }
        }

        #[test]
        fn largest_byte_of_any_window(w in crate::window::any(), channels in 1..20_usize, seed in 0..99_u64) {
            let input = bytes(seed, w.input[0] * w.input[1] * channels);
            for isa in Isa::available() {
                let all = w.positions();
                let mut out = vec![7; all * channels];
                max_pool_bytes(isa, &w, channels, &input, 0..all, &mut out);
                for at in 0..all {
                    for c in 0..channels {
                        let taps = (0..w.kernel[0]).flat_map(|i| (0..w.kernel[1]).map(move |j| (i, j)));
                        let source = |(i, j)| w.source(0, at / w.output[1], i).zip(w.source(1, at % w.output[1], j));
                        let values = taps.filter_map(source).map(|(y, x)| input[(y * w.input[1] + x) * channels + c]);
                        prop_assert_eq!(out[at * channels + c], values.max().unwrap_or(0));
                    }
                }
            }
        }
    }
}
