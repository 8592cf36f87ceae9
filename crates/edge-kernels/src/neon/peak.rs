//! How fast bytes could be multiplied: nothing but the instructions of the tiles.

use super::bytes::{sdot, usmmla};
use crate::Isa;
use crate::isa::Kind;
use crate::peak::SUMS;
use std::arch::aarch64::*;

/// Products that [`multiply`] adds to each of [`SUMS`] in a turn.
pub(crate) fn products(isa: Isa) -> usize {
    if isa.kind() == Kind::I8mm { 32 } else { 16 }
}

/// Adds so many products, as the tile of bytes of a set does.
///
/// # Safety
/// The set is one of NEON's.
pub(crate) unsafe fn multiply(isa: Isa, turns: usize, factor: [i8; 16], sum: &mut f32) {
    // SAFETY: an Isa is of this machine.
    *sum = unsafe {
        let x = vld1q_s8(factor.as_ptr());
        match isa.kind() {
            Kind::Dot => dot(turns, x),
            Kind::I8mm => i8mm(turns, x),
            _ => neon(turns, x),
        }
    } as f32;
}

#[target_feature(enable = "neon,dotprod")]
fn dot(turns: usize, x: int8x16_t) -> i32 {
    // SAFETY: the features are enabled here.
    repeat(turns, |sum| unsafe { sdot::<0>(sum, x, vreinterpretq_s8_s32(sum)) })
}

#[target_feature(enable = "neon,i8mm")]
fn i8mm(turns: usize, x: int8x16_t) -> i32 {
    // SAFETY: the features are enabled here.
    repeat(turns, |sum| unsafe { usmmla(sum, vreinterpretq_u8_s8(x), vreinterpretq_s8_s32(sum)) })
}

fn neon(turns: usize, x: int8x16_t) -> i32 {
    // SAFETY: every machine of this architecture has the instructions.
    repeat(turns, |sum| unsafe {
        let w = vreinterpretq_s8_s32(sum);
        vpadalq_s16(sum, vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(x)), w, x))
    })
}

/// Of the sums themselves: products that never change would be made once.
#[inline(always)]
fn repeat(turns: usize, turn: impl Fn(int32x4_t) -> int32x4_t) -> i32 {
    // SAFETY: every machine of this architecture has the instructions.
    unsafe {
        let mut sums = [vdupq_n_s32(1); SUMS];
        for _ in 0..turns {
            for sum in &mut sums {
                *sum = turn(*sum);
            }
        }
        sums.into_iter().fold(0_i32, |total, sum| total.wrapping_add(vaddvq_s32(sum)))
    }
}
