//! The tiles of bytes, for processors without and with `sdot`, and with `usmmla`.
//!
//! A is unsigned and W signed, for which only `usmmla` is made. The other two take 128 off A, which turns one bit; where sums
//! begin makes up for it.

use super::{Neon, loops};
use crate::Isa;
use crate::simd::{Dot4, Runs};
use std::arch::aarch64::*;
use std::arch::asm;

type Sums<const M: usize, const N: usize> = [[[int32x4_t; 2]; N]; M];

macro_rules! sets {
    ($($(#[$doc:meta])* $name:ident($rows:literal, $($products:tt)*);)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy)]
            pub(crate) struct $name(Neon);

            impl $name {
                /// The set's vectors.
                ///
                /// # Safety
                /// The machine has the instructions.
                #[inline(always)]
                pub(crate) unsafe fn new(isa: Isa) -> $name {
                    // SAFETY: the caller's promise.
                    $name(unsafe { Neon::new(isa) })
                }
            }

            impl Dot4 for $name {
                type Set = Neon;
                const ROWS: usize = $rows;
                #[inline(always)]
                fn set(self) -> Neon {
                    self.0
                }
                #[inline(always)]
                unsafe fn sums(self, p: *const i32) -> [int32x4_t; 2] {
                    // SAFETY: the caller's promise.
                    unsafe { [vld1q_s32(p), vld1q_s32(p.add(4))] }
                }
                #[inline(always)]
                unsafe fn products<const M: usize, const N: usize>(
                    self,
                    a: [*const u8; M],
                    runs: Runs,
                    panel: *const i8,
                    step: usize,
                    sums: Sums<M, N>,
                ) -> Sums<M, N> {
                    // SAFETY: the caller's promise.
                    unsafe { $($products)*(self.0, a, runs, panel, step, sums) }
                }
            }
        )*
    };
}

sets! {
    /// `smull` and `smlal`: two products of bytes in 16 bits, which fit where no value of W is -128; then `sadalp` adds pairs.
    Twos(4, twos::<M, N, false>);
    /// The same, where some value is: `sadalp` after each product.
    Rails(4, twos::<M, N, true>);
    /// `sdot`: four products of bytes added to each sum.
    Dot(6, dot);
    /// `usmmla`: two rows with two columns, eight products added to each of four sums.
    I8mm(6, i8mm);
}

/// 128 off 16 bytes.
#[inline(always)]
pub(super) fn signed(v: uint8x16_t) -> int8x16_t {
    // SAFETY: every machine of this architecture has the instructions.
    unsafe { vreinterpretq_s8_u8(veorq_u8(v, vdupq_n_u8(128))) }
}

/// Four bytes, the others zero.
///
/// # Safety
/// `p` points to four values.
#[inline(always)]
unsafe fn four(p: *const u8) -> uint8x16_t {
    // SAFETY: the caller's promise.
    unsafe { vreinterpretq_u8_u32(vsetq_lane_u32::<0>(p.cast::<u32>().read_unaligned(), vdupq_n_u32(0))) }
}

/// Where a lane of pairs finds the first two of four bytes, four times over, and then the others.
static PAIRS: [[u8; 16]; 2] =
    [[0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3], [4, 5, 4, 5, 4, 5, 4, 5, 6, 7, 6, 7, 6, 7, 6, 7]];

/// Sixteen values of W are two rows of pairs in four columns.
#[inline(always)]
unsafe fn twos<const M: usize, const N: usize, const RAILS: bool>(
    s: Neon,
    a: [*const u8; M],
    runs: Runs,
    mut panel: *const i8,
    step: usize,
    mut sums: Sums<M, N>,
) -> Sums<M, N> {
    // SAFETY: the caller's promise.
    unsafe {
        let pairs = [vld1q_u8(PAIRS[0].as_ptr()), vld1q_u8(PAIRS[1].as_ptr())];
        macro_rules! multiply {
            ($x:ident, $four:literal) => {
                let x: [int8x16_t; M] = std::array::from_fn(|i| vqtbl1q_s8($x[i], pairs[$four]));
                for j in 0..2 * N {
                    let w = vld1q_s8(panel.add(j * 16));
                    for i in 0..M {
                        let sum = &mut sums[i][j / 2][j % 2];
                        let mut products = vmull_s8(vget_low_s8(w), vget_low_s8(x[i]));
                        if RAILS {
                            *sum = vpadalq_s16(*sum, products);
                            products = vmull_high_s8(w, x[i]);
                        } else {
                            products = vmlal_high_s8(products, w, x[i]);
                        }
                        *sum = vpadalq_s16(*sum, products);
                    }
                }
                panel = panel.add(step);
            };
        }
        for first in (0..runs.count).map(|r| r * runs.pitch) {
            let mut k = first;
            if M == 4 && N == 2 && !RAILS && runs.k >= 8 {
                let count = runs.k / 8;
                k += 8 * count;
                let ends = std::array::from_fn(|i| a.as_ptr().add(i).read().add(k));
                let sums = &mut *(&raw mut sums).cast();
                panel = match s.in_order() {
                    true => loops::twos::<true>(ends, count, panel, pairs, sums),
                    false => loops::twos::<false>(ends, count, panel, pairs, sums),
                };
            }
            while !(M == 4 && N == 2 && !RAILS) && k + 8 <= first + runs.k {
                let x: [int8x16_t; M] =
                    std::array::from_fn(|i| signed(vcombine_u8(vld1_u8(a[i].add(k)), vdup_n_u8(0))));
                multiply!(x, 0);
                multiply!(x, 1);
                k += 8;
            }
            if k < first + runs.k {
                let x: [int8x16_t; M] = std::array::from_fn(|i| signed(four(a[i].add(k))));
                multiply!(x, 0);
            }
        }
        let _ = panel;
    }
    sums
}

/// Adds to each of four sums the four products of `w` and a lane of `x`.
///
/// # Safety
/// The machine has the instruction.
#[inline(always)]
pub(super) unsafe fn sdot<const LANE: usize>(sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: the caller's promise. The intrinsic is not stable.
    unsafe {
        asm!("sdot {sum:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]", sum = inout(vreg) sum, w = in(vreg) w, x = in(vreg) x,
             lane = const LANE, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Sixteen values of W are four rows in four columns.
#[inline(always)]
unsafe fn dot<const M: usize, const N: usize>(
    _: Neon,
    a: [*const u8; M],
    runs: Runs,
    mut panel: *const i8,
    step: usize,
    mut sums: Sums<M, N>,
) -> Sums<M, N> {
    // SAFETY: the caller's promise.
    unsafe {
        macro_rules! multiply {
            ($x:ident, $lane:literal) => {
                for j in 0..2 * N {
                    let w = vld1q_s8(panel.add(j * 16));
                    for i in 0..M {
                        let sum = &mut sums[i][j / 2][j % 2];
                        *sum = sdot::<$lane>(*sum, w, $x[i]);
                    }
                }
                panel = panel.add(step);
            };
        }
        for first in (0..runs.count).map(|r| r * runs.pitch) {
            let mut k = first;
            if M == 6 && N == 2 && runs.k >= 16 {
                let count = runs.k / 16;
                k += 16 * count;
                let ends = std::array::from_fn(|i| a.as_ptr().add(i).read().add(k));
                panel = loops::dot(ends, count, panel, &mut *(&raw mut sums).cast());
            }
            while !(M == 6 && N == 2) && k + 16 <= first + runs.k {
                let x: [int8x16_t; M] = std::array::from_fn(|i| signed(vld1q_u8(a[i].add(k))));
                multiply!(x, 0);
                multiply!(x, 1);
                multiply!(x, 2);
                multiply!(x, 3);
                k += 16;
            }
            while k < first + runs.k {
                let x: [int8x16_t; M] = std::array::from_fn(|i| signed(four(a[i].add(k))));
                multiply!(x, 0);
                k += 4;
            }
        }
        let _ = panel;
    }
    sums
}

/// Adds the products of two rows of eight of `x`, unsigned, and two columns of eight of `w`, signed.
///
/// # Safety
/// The machine has the instruction.
#[inline(always)]
pub(super) unsafe fn usmmla(sum: int32x4_t, x: uint8x16_t, w: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: the caller's promise. The intrinsic is not stable.
    unsafe {
        asm!("usmmla {sum:v}.4s, {x:v}.16b, {w:v}.16b", sum = inout(vreg) sum, w = in(vreg) w, x = in(vreg) x,
             options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Sixteen values of W are eight rows in two columns. Sums of two rows and two columns share a register until the end.
#[inline(always)]
unsafe fn i8mm<const M: usize, const N: usize>(
    _: Neon,
    a: [*const u8; M],
    runs: Runs,
    mut panel: *const i8,
    step: usize,
    sums: Sums<M, N>,
) -> Sums<M, N> {
    // SAFETY: the caller's promise.
    unsafe {
        // The last of an odd number of rows is multiplied twice.
        let row = |i: usize| i.min(M - 1);
        let long = |v: int32x4_t| vreinterpretq_s64_s32(v);
        let short = |v: int64x2_t| vreinterpretq_s32_s64(v);
        // [pair of rows][vector][register of four columns][two columns]; not all pairs exist for every M.
        let mut tiles = [[[[vdupq_n_s32(0); 2]; 2]; N]; 3];
        for p in 0..M.div_ceil(2) {
            for j in 0..N {
                for h in 0..2 {
                    let (one, other) = (long(sums[row(2 * p)][j][h]), long(sums[row(2 * p + 1)][j][h]));
                    tiles[p][j][h] = [short(vzip1q_s64(one, other)), short(vzip2q_s64(one, other))];
                }
            }
        }
        macro_rules! multiply {
            ($x:ident) => {
                for j in 0..4 * N {
                    let w = vld1q_s8(panel.add(j * 16));
                    for p in 0..M.div_ceil(2) {
                        let tile = &mut tiles[p][j / 4][j / 2 % 2][j % 2];
                        *tile = usmmla(*tile, $x[p], w);
                    }
                }
                panel = panel.add(2 * step);
            };
        }
        for first in (0..runs.count).map(|r| r * runs.pitch) {
            let mut k = first;
            if M == 6 && N == 2 && runs.k >= 16 {
                let count = runs.k / 16;
                k += 16 * count;
                let ends = std::array::from_fn(|i| a.as_ptr().add(i).read().add(k));
                panel = loops::i8mm(ends, count, panel, &mut *(&raw mut tiles).cast());
            }
            while !(M == 6 && N == 2) && k + 16 <= first + runs.k {
                let mut low = [vdupq_n_u8(0); 3];
                let mut high = low;
                for p in 0..M.div_ceil(2) {
                    let load = |i: usize| vreinterpretq_u64_u8(vld1q_u8(a[row(i)].add(k)));
                    let (one, other) = (load(2 * p), load(2 * p + 1));
                    low[p] = vreinterpretq_u8_u64(vzip1q_u64(one, other));
                    high[p] = vreinterpretq_u8_u64(vzip2q_u64(one, other));
                }
                multiply!(low);
                multiply!(high);
                k += 16;
            }
            while k < first + runs.k {
                let whole = first + runs.k - k >= 8;
                let mut x = [vdupq_n_u8(0); 3];
                for (p, x) in x.iter_mut().enumerate().take(M.div_ceil(2)) {
                    let load = |i: usize| {
                        let from = a[row(i)].add(k);
                        if whole { vld1_u8(from) } else { vget_low_u8(four(from)) }
                    };
                    *x = vcombine_u8(load(2 * p), load(2 * p + 1));
                }
                multiply!(x);
                k += 8;
            }
        }
        let _ = panel;
        let mut sums = sums;
        for i in 0..M {
            for j in 0..N {
                for h in 0..2 {
                    let [one, other] = tiles[i / 2][j][h].map(long);
                    sums[i][j][h] = short(if i % 2 == 0 { vzip1q_s64(one, other) } else { vzip2q_s64(one, other) });
                }
            }
        }
        sums
    }
}
