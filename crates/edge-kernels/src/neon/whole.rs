//! Depthwise convolution on bytes in whole numbers, tap by tap: `usubl` takes the zero point off eight pixels, `smlal` multiplies
//! four of them with the filter in 16 bits and adds to sums in 32. Filters may be any whole numbers up to 255.

use super::Neon;
use crate::depthwise::{Source, body};
use crate::gemm8::Sink;
use crate::{Buffer, Depthwise};
use std::arch::aarch64::*;
use std::ops::Range;

/// A filter as the kernel reads it; `None` where a value is not a whole number up to 255.
pub(crate) fn whole_filter(filter: &[f32]) -> Option<Buffer<i16>> {
    let mut made = Buffer::new(filter.len());
    for (made, value) in made.iter_mut().zip(filter) {
        *made = Some(*value as i16).filter(|whole| f32::from(*whole) == *value && whole.abs() <= 255)?;
    }
    Some(made)
}

/// Computes the positions of a range.
///
/// # Safety
/// The lengths are those of the layer, which has a filter in whole numbers and does not limit what it reads.
#[inline(never)]
pub(crate) unsafe fn depthwise_whole<O: Sink>(layer: &Depthwise, input: &[u8], positions: Range<usize>, out: &mut [O]) {
    // SAFETY: the caller's promise; a `Whole` is a byte.
    unsafe {
        let input = std::slice::from_raw_parts(input.as_ptr().cast::<Whole>(), input.len());
        body(Neon::new(layer.isa), layer, input, positions, out);
    }
}

/// A byte.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Whole(u8);

// SAFETY of all that follows: every machine of this architecture has the instructions; pointers by the caller's promise.
impl Source<Neon> for Whole {
    const BYTES: bool = true;
    type Pixel = int16x8_t;
    type Tap = int16x8_t;
    type Sum = [int32x4_t; 2];
    type Zero = uint8x8_t;
    #[inline(always)]
    fn zero(_: Neon, layer: &Depthwise) -> uint8x8_t {
        // SAFETY: see above.
        unsafe { vdup_n_u8(layer.zeros[0] as u8) }
    }
    #[inline(always)]
    unsafe fn load(_: Neon, p: *const Whole, zero: uint8x8_t) -> int16x8_t {
        // SAFETY: see above.
        unsafe { vreinterpretq_s16_u16(vsubl_u8(vld1_u8(p.cast()), zero)) }
    }
    #[inline(always)]
    unsafe fn tap(_: Neon, layer: &Depthwise, at: usize) -> int16x8_t {
        // SAFETY: see above.
        unsafe { vld1q_s16(layer.whole.as_ptr().add(at)) }
    }
    #[inline(always)]
    fn limit(_: Neon, pixel: int16x8_t, _: [[float32x4_t; 2]; 2]) -> int16x8_t {
        pixel
    }
    #[inline(always)]
    fn add(_: Neon, pixel: int16x8_t, tap: int16x8_t, sum: [int32x4_t; 2]) -> [int32x4_t; 2] {
        // SAFETY: see above.
        unsafe {
            let low = vmlal_s16(sum[0], vget_low_s16(pixel), vget_low_s16(tap));
            [low, vmlal_high_s16(sum[1], pixel, tap)]
        }
    }
    #[inline(always)]
    unsafe fn begin(_: Neon, _: &Depthwise, _: usize) -> [int32x4_t; 2] {
        // SAFETY: see above.
        unsafe { [vdupq_n_s32(0); 2] }
    }
    #[inline(always)]
    fn float(_: Neon, sum: [int32x4_t; 2]) -> [float32x4_t; 2] {
        // SAFETY: see above.
        sum.map(|s| unsafe { vcvtq_f32_s32(s) })
    }
}
