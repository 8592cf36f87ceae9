//! Vectors of NEON, and the float32 tile.

use super::{loops, packed, window};
use crate::Isa;
use crate::isa::Kind;
use crate::simd::{Runs, Simd};
use std::arch::aarch64::*;
use std::arch::asm;

/// NEON, which every processor of 64 bits has.
#[derive(Clone, Copy)]
pub(crate) struct Neon {
    in_order: bool,
}

impl Neon {
    /// The set's vectors.
    ///
    /// # Safety
    /// The machine has the instructions.
    #[inline(always)]
    pub(crate) unsafe fn new(isa: Isa) -> Neon {
        Neon { in_order: isa.kind() == Kind::InOrder }
    }

    /// Whether the loops are for processors that start instructions in their order.
    #[inline(always)]
    pub(crate) fn in_order(self) -> bool {
        self.in_order
    }
}

/// Two registers.
pub(super) type Floats = [float32x4_t; 2];
/// Two registers.
type Ints = [int32x4_t; 2];

/// Does the same with both registers.
#[inline(always)]
fn both<A: Copy, B: Copy, R>(a: [A; 2], b: [B; 2], f: impl Fn(A, B) -> R) -> [R; 2] {
    [f(a[0], b[0]), f(a[1], b[1])]
}

/// Rounds half to even; what does not fit becomes the nearest that does, NaN zero.
#[inline(always)]
fn whole(v: Floats) -> Ints {
    // SAFETY: every machine of this architecture has the instructions.
    v.map(|v| unsafe { vcvtnq_s32_f32(v) })
}

// SAFETY of all that follows: every machine of this architecture has the instructions; pointers by the caller's promise.
impl Simd for Neon {
    type V = Floats;
    const LANES: usize = 8;
    #[inline(always)]
    fn splat(self, x: f32) -> Floats {
        // SAFETY: see above.
        [unsafe { vdupq_n_f32(x) }; 2]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Floats {
        // SAFETY: see above.
        unsafe { [vld1q_f32(p), vld1q_f32(p.add(4))] }
    }
    /// One instruction loads both registers from an address in a register; left alone, the compiler computes the address of each.
    #[expect(clippy::pointers_in_nomem_asm_block, reason = "it does nothing")]
    #[inline(always)]
    unsafe fn load_apart(self, p: *const f32) -> Floats {
        let mut p = p;
        // SAFETY: nothing is done; the rest is the caller's promise.
        unsafe {
            asm!("/* {} */", inout(reg) p, options(pure, nomem, nostack, preserves_flags));
            self.load(p)
        }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Floats) {
        // SAFETY: see above.
        unsafe {
            vst1q_f32(p, v[0]);
            vst1q_f32(p.add(4), v[1]);
        }
    }
    #[inline(always)]
    fn fma(self, a: Floats, b: Floats, c: Floats) -> Floats {
        // SAFETY: see above.
        unsafe { [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])] }
    }
    /// Rounded twice, as plain Rust does.
    #[inline(always)]
    fn scale(self, a: Floats, b: Floats, c: Floats) -> Floats {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn add(self, a: Floats, b: Floats) -> Floats {
        // SAFETY: see above.
        both(a, b, |a, b| unsafe { vaddq_f32(a, b) })
    }
    #[inline(always)]
    fn mul(self, a: Floats, b: Floats) -> Floats {
        // SAFETY: see above.
        both(a, b, |a, b| unsafe { vmulq_f32(a, b) })
    }
    #[inline(always)]
    fn max(self, a: Floats, b: Floats) -> Floats {
        // SAFETY: see above.
        both(a, b, |a, b| unsafe { vmaxq_f32(a, b) })
    }
    #[inline(always)]
    fn min(self, a: Floats, b: Floats) -> Floats {
        // SAFETY: see above.
        both(a, b, |a, b| unsafe { vminq_f32(a, b) })
    }
    #[inline(always)]
    fn fetch<T>(self, p: *const T) {
        // SAFETY: a hint; it reads nothing.
        unsafe { asm!("prfm pldl1keep, [{}]", in(reg) p, options(nostack, readonly, preserves_flags)) }
    }

    type I = Ints;
    #[inline(always)]
    fn zero(self) -> Ints {
        // SAFETY: see above.
        [unsafe { vdupq_n_s32(0) }; 2]
    }
    /// The pair's first values in one register, its second ones in the other; so lie those of [`Simd::pairs`].
    #[inline(always)]
    unsafe fn pair(self, p: *const i16) -> Ints {
        // SAFETY: see above.
        let int16x8x2_t(first, second) = unsafe { vld2q_dup_s16(p) };
        // SAFETY: see above.
        [first, second].map(|v| unsafe { vreinterpretq_s32_s16(v) })
    }
    #[inline(always)]
    unsafe fn pairs(self, p: *const i16) -> Ints {
        // SAFETY: see above.
        let int16x8x2_t(first, second) = unsafe { vld2q_s16(p) };
        // SAFETY: see above.
        [first, second].map(|v| unsafe { vreinterpretq_s32_s16(v) })
    }
    #[inline(always)]
    fn dot(self, a: Ints, b: Ints, sum: Ints) -> Ints {
        // SAFETY: see above.
        unsafe {
            let ([a, c], [b, d]) = (a.map(|v| vreinterpretq_s16_s32(v)), b.map(|v| vreinterpretq_s16_s32(v)));
            let low = vmlal_s16(sum[0], vget_low_s16(a), vget_low_s16(b));
            let high = vmlal_high_s16(sum[1], a, b);
            [vmlal_s16(low, vget_low_s16(c), vget_low_s16(d)), vmlal_high_s16(high, c, d)]
        }
    }
    #[inline(always)]
    fn float(self, i: Ints) -> Floats {
        // SAFETY: see above.
        i.map(|i| unsafe { vcvtq_f32_s32(i) })
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> Floats {
        // SAFETY: see above.
        unsafe {
            let v = vmovl_u8(vld1_u8(p));
            [vcvtq_f32_u32(vmovl_u16(vget_low_u16(v))), vcvtq_f32_u32(vmovl_high_u16(v))]
        }
    }
    /// Every processor of this architecture converts, if not all multiply.
    #[inline(always)]
    unsafe fn load_half(self, p: *const u16) -> Floats {
        let (low, high);
        // SAFETY: see above.
        unsafe {
            let v = vld1q_u16(p);
            asm!("fcvtl {:v}.4s, {:v}.4h", out(vreg) low, in(vreg) v, options(pure, nomem, nostack, preserves_flags));
            asm!("fcvtl2 {:v}.4s, {:v}.8h", out(vreg) high, in(vreg) v, options(pure, nomem, nostack, preserves_flags));
        }
        [low, high]
    }
    #[inline(always)]
    unsafe fn store_u8(self, p: *mut u8, v: Floats, zero: i32) {
        let v = whole(v);
        // SAFETY: see above.
        unsafe {
            let zero = vdupq_n_s32(zero);
            let half = vqmovn_high_s32(vqmovn_s32(vqaddq_s32(v[0], zero)), vqaddq_s32(v[1], zero));
            vst1_u8(p, vqmovun_s16(half));
        }
    }
    #[inline(always)]
    unsafe fn store_i16(self, p: *mut i16, v: Floats) {
        let v = whole(v);
        // SAFETY: see above.
        unsafe { vst1q_s16(p, vqmovn_high_s32(vqmovn_s32(v[0]), v[1])) }
    }

    /// Four values of each row at a time.
    #[inline(always)]
    unsafe fn products<const M: usize, const N: usize>(
        self,
        a: [*const f32; M],
        runs: Runs,
        mut panel: *const f32,
        mut sums: [[Floats; N]; M],
    ) -> [[Floats; N]; M] {
        // SAFETY: see above.
        unsafe {
            macro_rules! multiply {
                ($x:ident, $lane:literal) => {
                    for j in 0..2 * N {
                        let w = vld1q_f32(panel.add(($lane * 2 * N + j) * 4));
                        for i in 0..M {
                            let sum = &mut sums[i][j / 2][j % 2];
                            *sum = vfmaq_laneq_f32::<$lane>(*sum, w, $x[i]);
                        }
                    }
                };
            }
            for first in (0..runs.count).map(|r| r * runs.pitch) {
                let mut k = first;
                let full = M == 6 && N == 2;
                if full && runs.k >= 4 {
                    let count = runs.k / 4;
                    k += 4 * count;
                    let ends = std::array::from_fn(|i| a.as_ptr().add(i).read().add(k));
                    let sums = &mut *(&raw mut sums).cast();
                    panel = match self.in_order {
                        true => loops::floats_in_order(ends, count, panel, sums),
                        false => loops::floats(ends, count, panel, sums),
                    };
                }
                while !full && k + 4 <= first + runs.k {
                    let x: [float32x4_t; M] = std::array::from_fn(|i| vld1q_f32(a[i].add(k)));
                    multiply!(x, 0);
                    multiply!(x, 1);
                    multiply!(x, 2);
                    multiply!(x, 3);
                    panel = panel.add(4 * N * 8);
                    k += 4;
                }
                while k < first + runs.k {
                    let x: [float32x4_t; M] = std::array::from_fn(|i| vld1q_dup_f32(a[i].add(k)));
                    multiply!(x, 0);
                    panel = panel.add(N * 8);
                    k += 1;
                }
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn window<const K: usize, const STRIDE: usize>(
        self,
        first: *const f32,
        apart: [usize; 2],
        outside: [usize; 2],
        filter: *const f32,
        rows: usize,
        sums: &mut [Floats; 4],
    ) -> bool {
        // SAFETY: the caller's promise.
        !self.in_order && unsafe { window::window::<K, STRIDE>(first, apart, outside, filter, rows, sums) }
    }
    /// A processor that starts instructions in their order waits for what several loads in one bring.
    #[inline(always)]
    fn lays(self) -> bool {
        !self.in_order
    }
    #[inline(always)]
    unsafe fn lay(self, a: [*const f32; 6], runs: Runs, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { packed::pack(a, runs, to) }
    }
    #[inline(always)]
    unsafe fn laid_products<const N: usize>(
        self,
        a: *const f32,
        k: usize,
        panel: *const f32,
        sums: &mut [[Floats; N]; 6],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match N {
                2 => packed::wide(a, k, panel, &mut *(&raw mut *sums).cast()),
                _ => packed::narrow(a, k, panel, &mut *(&raw mut *sums).cast()),
            }
        }
    }
}
