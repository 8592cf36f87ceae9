//! Products of float16 numbers: `fmla` of eight lanes, and what is made float16 or float32 for it.

use super::{Neon, loops};
use crate::gemm::{Epilogue, Places, Weights};
use crate::halves::{Halves, SHORT, TOGETHER, body};
use std::arch::aarch64::*;
use std::arch::asm;

/// Computes rows of C.
///
/// # Safety
/// The machine multiplies float16 numbers; else as for [`body`].
#[inline(never)]
#[target_feature(enable = "neon,fp16")]
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn gemm_halves(
    w: &Weights,
    top: i32,
    a: &[f32],
    rows: Places<'_>,
    first: usize,
    columns: usize,
    epilogue: &Epilogue<'_>,
    stride: usize,
    c: &mut [f32],
    done: &mut bool,
) {
    // SAFETY: the features are enabled here; the rest is the caller's promise.
    unsafe { body(Fp16(Neon::new(w.isa)), w, top, a, rows, first, columns, epilogue, stride, c, done) }
}

/// NEON with float16 arithmetic, whose intrinsics are not stable in every compiler that builds this.
#[derive(Clone, Copy)]
struct Fp16(Neon);

/// sum + a · b, rounded once.
///
/// # Safety
/// The machine has the instruction.
#[inline(always)]
unsafe fn fma(sum: uint16x8_t, a: uint16x8_t, b: uint16x8_t) -> uint16x8_t {
    let mut sum = sum;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("fmla {sum:v}.8h, {a:v}.8h, {b:v}.8h", sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
             options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Eight float16 numbers as float32.
#[inline(always)]
fn long(v: uint16x8_t) -> [float32x4_t; 2] {
    // SAFETY: every machine of this architecture has the instructions.
    unsafe {
        let (low, high);
        asm!("fcvtl {o:v}.4s, {v:v}.4h", o = out(vreg) low, v = in(vreg) v, options(pure, nomem, nostack, preserves_flags));
        asm!("fcvtl2 {o:v}.4s, {v:v}.8h", o = out(vreg) high, v = in(vreg) v, options(pure, nomem, nostack, preserves_flags));
        [low, high]
    }
}

/// Eight float32 numbers as float16, rounded half to even.
#[inline(always)]
fn short(v: [float32x4_t; 2]) -> uint16x8_t {
    let made: uint16x8_t;
    // SAFETY: every machine of this architecture has the instructions.
    unsafe {
        asm!("fcvtn {o:v}.4h, {low:v}.4s", "fcvtn2 {o:v}.8h, {high:v}.4s", o = out(vreg) made, low = in(vreg) v[0],
             high = in(vreg) v[1], options(pure, nomem, nostack, preserves_flags));
    }
    made
}

// SAFETY of all that follows: `gemm_halves` alone makes one; pointers by the caller's promise.
impl Halves for Fp16 {
    type Set = Neon;
    type Value = u16;
    #[inline(always)]
    fn set(self) -> Neon {
        self.0
    }
    #[inline(always)]
    unsafe fn pack(self, from: *const f32, scale: f32, to: *mut u16) {
        // SAFETY: see above.
        unsafe {
            let low = vmulq_n_f32(vld1q_f32(from), scale);
            let high = vmulq_n_f32(vld1q_f32(from.add(4)), scale);
            vst1q_u16(to, short([low, high]));
        }
    }
    #[inline(always)]
    unsafe fn products<const M: usize, const N: usize>(
        self,
        a: *const u16,
        k: usize,
        panel: *const u16,
    ) -> [[[float32x4_t; 2]; N]; M] {
        // SAFETY: see above.
        unsafe {
            let first = some::<M, N>(a, panel, 0, k.min(SHORT));
            let mut sums = std::array::from_fn(|i| std::array::from_fn(|j| long(first[i][j])));
            for first in (SHORT..k).step_by(SHORT) {
                let more = some::<M, N>(a, panel, first, k.min(first + SHORT));
                for i in 0..M {
                    for j in 0..N {
                        let [low, high] = long(more[i][j]);
                        sums[i][j] = [vaddq_f32(sums[i][j][0], low), vaddq_f32(sums[i][j][1], high)];
                    }
                }
            }
            sums
        }
    }
}

/// The sums of the products of some values of k, of a full tile eight of each row at a time.
///
/// # Safety
/// The machine multiplies float16 numbers; so many values are there.
#[inline(always)]
unsafe fn some<const M: usize, const N: usize>(
    a: *const u16,
    panel: *const u16,
    first: usize,
    end: usize,
) -> [[uint16x8_t; N]; M] {
    // SAFETY: the caller's promise.
    unsafe {
        let (mut sums, mut k) = ([[vdupq_n_u16(0); N]; M], first);
        if M == 6 && N == 2 && end - k >= TOGETHER {
            let turns = (end - k) / TOGETHER;
            loops::halves(a.add(k * M), turns, panel.add(k * N * 8), &mut *(&raw mut sums).cast());
            k += turns * TOGETHER;
        }
        while k < end {
            let w: [uint16x8_t; N] = std::array::from_fn(|j| vld1q_u16(panel.add((k * N + j) * 8)));
            for (i, sums) in sums.iter_mut().enumerate() {
                let x = vld1q_dup_u16(a.add((k / TOGETHER * M + i) * TOGETHER + k % TOGETHER));
                for j in 0..N {
                    sums[j] = fma(sums[j], w[j], x);
                }
            }
            k += 1;
        }
        sums
    }
}
