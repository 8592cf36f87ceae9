//! Depthwise convolution on bytes by fours: `sdot`.

use crate::Window;
use crate::fours::Fours;
use crate::interleaved::{MOST_HALVES, Pixels, Tap, walk_fours};
use crate::neon::bytes::signed;
use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

const CHUNK: usize = <i8 as Tap>::CHUNK;

/// Computes the positions of a range.
///
/// # Safety
/// The machine has `sdot`; the layer was packed for the window; `input` holds its picture, `out` room for the positions.
#[target_feature(enable = "neon,dotprod")]
pub(crate) unsafe fn depthwise_fours(
    layer: &Fours,
    w: &Window,
    input: *const u8,
    positions: Range<usize>,
    out: *mut u8,
) {
    walk_fours!(layer, w, input, positions, out, block);
}

/// Adds to each of four sums four products.
///
/// # Safety
/// The machine has the instruction.
#[inline(always)]
unsafe fn sdot(sum: int32x4_t, x: int8x16_t, w: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: the caller's promise. The intrinsic is not stable.
    unsafe {
        asm!("sdot {sum:v}.4s, {x:v}.16b, {w:v}.16b", sum = inout(vreg) sum, w = in(vreg) w, x = in(vreg) x,
             options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// `count` positions of `P` pairs, `S` pixels apart, in each row of the window `Q` fours of pixels for a pair.
#[inline(always)]
unsafe fn block<const P: usize, const Q: usize, const S: usize>(
    layer: &Fours,
    rows: usize,
    pixels: &Pixels,
    count: usize,
    out: *mut u8,
) {
    let mut filter = layer.filter.as_ptr();
    for first in (0..layer.channels).step_by(CHUNK) {
        // Channels are whole eights.
        let all = layer.channels - first >= CHUNK;
        // SAFETY: pixels have as many channels as are read; everything packed has whole chunks.
        unsafe {
            let begin: [int32x4_t; 4] = std::array::from_fn(|v| vld1q_s32(layer.begin.as_ptr().add(first + 4 * v)));
            let mut sums = [[begin; 2]; P];
            for row in &pixels[..rows] {
                // Two pixels interleaved: the pairs of a block share them.
                let halves: [[int16x8_t; 2]; MOST_HALVES] = std::array::from_fn(|h| {
                    if h >= 2 * Q + (P - 1) * S {
                        return [vdupq_n_s16(0); 2];
                    }
                    let load = |i: usize| {
                        let from = row[i].add(first);
                        signed(if all { vld1q_u8(from) } else { vcombine_u8(vld1_u8(from), vdup_n_u8(0)) })
                    };
                    let (a, b) = (load(2 * h), load(2 * h + 1));
                    [vreinterpretq_s16_s8(vzip1q_s8(a, b)), vreinterpretq_s16_s8(vzip2q_s8(a, b))]
                });
                for q in 0..Q {
                    for v in 0..4 {
                        let taps = |s: usize| vld1q_s8(filter.add((s * 4 + v) * CHUNK));
                        let taps = [taps(0), taps(1)];
                        for p in 0..P {
                            let (ab, cd) = (halves[p * S + 2 * q][v / 2], halves[p * S + 2 * q + 1][v / 2]);
                            let seen = if v % 2 == 0 { vzip1q_s16(ab, cd) } else { vzip2q_s16(ab, cd) };
                            let seen = vreinterpretq_s8_s16(seen);
                            sums[p][0][v] = sdot(sums[p][0][v], seen, taps[0]);
                            sums[p][1][v] = sdot(sums[p][1][v], seen, taps[1]);
                        }
                    }
                    filter = filter.add(8 * CHUNK);
                }
            }
            let zero = vdupq_n_s16(layer.zero);
            let [low, high] = layer.limits.map(|l| vdupq_n_u8((l + layer.zero) as u8));
            let whole = |sum: int32x4_t, v: usize| {
                let real = |b: &crate::Buffer| vld1q_f32(b.as_ptr().add(first + 4 * v));
                // Rounded twice, as plain Rust does.
                let value = vaddq_f32(vmulq_f32(vcvtq_f32_s32(sum), real(&layer.factor)), real(&layer.offset));
                vcvtnq_s32_f32(value)
            };
            // Over constant bounds, so that all is unrolled and the sums stay in registers.
            #[expect(clippy::needless_range_loop)]
            for p in 0..P {
                for i in 0..2 {
                    if 2 * p + i >= count {
                        break;
                    }
                    let half = |v: usize| {
                        let (one, other) = (whole(sums[p][i][v], v), whole(sums[p][i][v + 1], v + 1));
                        vqaddq_s16(vqmovn_high_s32(vqmovn_s32(one), other), zero)
                    };
                    let bytes = vqmovun_high_s16(vqmovun_s16(half(0)), half(2));
                    let bytes = vminq_u8(high, vmaxq_u8(low, bytes));
                    let to = out.add((2 * p + i) * layer.channels + first);
                    match all {
                        true => vst1q_u8(to, bytes),
                        false => vst1_u8(to, vget_low_u8(bytes)),
                    }
                }
            }
        }
    }
}
