//! Matrix times matrix in integers: 8-bit values, 16-bit factors, 32-bit sums.
//!
//! A strip of A holds pixels as int16, zero point taken off, so that padding is zero and no correction is needed; W is
//! packed in pairs of k as int16, zero point taken off. `pmaddwd` multiplies and adds pairs without saturating; on AVX2
//! that is as many multiplications per instruction as `pmaddubsw` followed by `pmaddwd` gives, and exact. Sums stay in
//! registers over all of k and are brought to the output's scale before they are written: nothing else is stored.

use crate::simd::{Simd, kernel};
use crate::{Buffer, Isa};

/// Vectors in a panel.
const WIDTH: usize = 2;

/// W, packed.
#[derive(Clone)]
pub struct Weights8 {
    isa: Isa,
    /// Rows, padded to pairs.
    k: usize,
    /// Columns, padded to whole vectors.
    n: usize,
    /// Panel by panel, in it pair by pair of rows, in it column by column.
    panels: Buffer<i16>,
}

/// From a sum to what is written: limits(sum · factor + offset).
#[derive(Clone, Copy)]
pub struct Scale<'a> {
    /// One per padded column.
    pub factor: &'a [f32],
    /// One per padded column.
    pub offset: &'a [f32],
    /// The smallest and the largest value, before the zero point.
    pub limits: [f32; 2],
    /// Added after rounding, where bytes are written.
    pub zero: i32,
}

impl Weights8 {
    /// Packs `w`, (k, n) of -255…255. `None` where sums could overflow: 255 · 255 · k.
    pub fn pack(isa: Isa, k: usize, n: usize, w: impl Fn(usize, usize) -> i16) -> Option<Weights8> {
        if k > i32::MAX as usize / (255 * 255) {
            return None;
        }
        let lanes = isa.lanes();
        let (even, padded) = (k.next_multiple_of(2), isa.padded(n));
        let mut panels = Buffer::new(even * padded);
        let mut at = 0;
        for first in (0..padded).step_by(WIDTH * lanes) {
            let columns = (WIDTH * lanes).min(padded - first);
            for row in (0..even).step_by(2) {
                for column in first..(first + columns).min(n) {
                    for half in 0..(k - row).min(2) {
                        panels[at + 2 * (column - first) + half] = w(row + half, column);
                    }
                }
                at += 2 * columns;
            }
        }
        Some(Weights8 { isa, k: even, n: padded, panels })
    }

    /// Rows, padded to pairs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns, padded to whole vectors.
    pub fn n(&self) -> usize {
        self.n
    }
}

/// Computes the rows of C that `a` holds, [`Weights8::k`] values each, as bytes.
///
/// # Panics
/// Where the lengths do not belong together.
pub fn gemm8(a: &[i16], w: &Weights8, scale: &Scale<'_>, c: &mut [u8]) {
    check(a, w, scale, c.len());
    // SAFETY: A, C, the scales and the panels have the lengths that the loops count to, as checked.
    unsafe { bytes(w.isa, a, w, scale, c) }
}

/// As [`gemm8`], as float32.
///
/// # Panics
/// Where the lengths do not belong together.
pub fn gemm8_float(a: &[i16], w: &Weights8, scale: &Scale<'_>, c: &mut [f32]) {
    check(a, w, scale, c.len());
    // SAFETY: as above.
    unsafe { floats(w.isa, a, w, scale, c) }
}

fn check(a: &[i16], w: &Weights8, scale: &Scale<'_>, c: usize) {
    assert!(a.len().is_multiple_of(w.k) && c == a.len() / w.k * w.n, "{} values of A do not make {c} of C", a.len());
    assert!(scale.factor.len() == w.n && scale.offset.len() == w.n);
}

kernel! {
    fn bytes(a: &[i16], w: &Weights8, scale: &Scale<'_>, c: &mut [u8]) = body
}
kernel! {
    fn floats(a: &[i16], w: &Weights8, scale: &Scale<'_>, c: &mut [f32]) = body
}

/// What is written.
pub(crate) trait Sink: Copy {
    /// Writes a vector.
    ///
    /// # Safety
    /// `p` points to room for it.
    unsafe fn store<S: Simd>(s: S, p: *mut Self, v: S::V, zero: i32);
    /// Writes vectors, one after the other.
    ///
    /// # Safety
    /// `p` points to room for them.
    #[inline(always)]
    unsafe fn stores<S: Simd, const N: usize>(s: S, p: *mut Self, v: [S::V; N], zero: i32) {
        for (j, v) in v.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { Self::store(s, p.add(j * S::LANES), v, zero) }
        }
    }
}

impl Sink for f32 {
    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, p: *mut f32, v: S::V, _: i32) {
        // SAFETY: the caller's promise.
        unsafe { s.store(p, v) }
    }
}

impl Sink for u8 {
    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, p: *mut u8, v: S::V, zero: i32) {
        // SAFETY: the caller's promise.
        unsafe { s.store_u8(p, v, zero) }
    }
    #[inline(always)]
    unsafe fn stores<S: Simd, const N: usize>(s: S, p: *mut u8, v: [S::V; N], zero: i32) {
        // SAFETY: the caller's promise.
        unsafe { s.stores_u8(p, v, zero) }
    }
}

/// Zero point taken off: nothing is added.
impl Sink for i16 {
    #[inline(always)]
    unsafe fn store<S: Simd>(s: S, p: *mut i16, v: S::V, _: i32) {
        // SAFETY: the caller's promise.
        unsafe { s.store_i16(p, v) }
    }
}

#[inline(always)]
unsafe fn body<S: Simd, C: Sink>(s: S, a: &[i16], w: &Weights8, scale: &Scale<'_>, c: &mut [C]) {
    let rows = a.len() / w.k;
    let step = WIDTH * S::LANES;
    for column in (0..w.n).step_by(step) {
        let wide = (w.n - column).min(step);
        let mut row = 0;
        macro_rules! take {
            ($($height:literal)*) => {
                $(while rows - row >= $height {
                    // SAFETY: so many rows are there; columns are whole vectors within C, W and the scales.
                    unsafe {
                        match wide > S::LANES {
                            true => tile::<S, C, $height, 2>(s, a, w, scale, c, row, column),
                            false => tile::<S, C, $height, 1>(s, a, w, scale, c, row, column),
                        }
                    }
                    row += $height;
                })*
            };
        }
        if S::LANES == 16 {
            take!(12);
        }
        take!(6 4 2 1);
    }
}

#[inline(always)]
unsafe fn tile<S: Simd, C: Sink, const M: usize, const V: usize>(
    s: S,
    a: &[i16],
    w: &Weights8,
    scale: &Scale<'_>,
    c: &mut [C],
    row: usize,
    column: usize,
) {
    // SAFETY: the caller's promise: M rows of A, M × V vectors of C, and the panel are there.
    unsafe {
        let a: [*const i16; M] = std::array::from_fn(|i| a.as_ptr().add((row + i) * w.k));
        let c = c.as_mut_ptr();
        let out = |i: usize, j: usize| c.add((row + i) * w.n + column + j * S::LANES);
        for i in 0..M {
            s.fetch(out(i, 0));
        }
        let mut sums = [[s.zero(); V]; M];
        let mut panel = w.panels.as_ptr().add(column * w.k);
        for k in (0..w.k).step_by(2) {
            let w: [S::I; V] = std::array::from_fn(|j| s.pairs(panel.add(j * 2 * S::LANES)));
            for i in 0..M {
                let x = s.pair(a[i].add(k));
                for j in 0..V {
                    sums[i][j] = s.dot(x, w[j], sums[i][j]);
                }
            }
            panel = panel.add(V * 2 * S::LANES);
        }
        write(s, sums, scale, column, out(0, 0), w.n);
    }
}

/// Brings sums of a column and those after it to the output's scale, and writes them to `c`, rows `stride` values apart.
///
/// # Safety
/// There is room for them in C, and so many columns have scales.
#[inline(always)]
pub(crate) unsafe fn write<S: Simd, C: Sink, const M: usize, const V: usize>(
    s: S,
    sums: [[S::I; V]; M],
    scale: &Scale<'_>,
    column: usize,
    c: *mut C,
    stride: usize,
) {
    let [low, high] = s.splats(scale.limits);
    // SAFETY: the caller's promise.
    unsafe {
        let load = |values: &[f32], j: usize| s.load(values.as_ptr().add(column + j * S::LANES));
        let factors: [_; V] = std::array::from_fn(|j| load(scale.factor, j));
        let offsets: [_; V] = std::array::from_fn(|j| load(scale.offset, j));
        for (i, sums) in sums.iter().enumerate() {
            let value = |j: usize| s.min(high, s.max(low, s.scale(s.float(sums[j]), factors[j], offsets[j])));
            C::stores(s, c.add(i * stride), std::array::from_fn::<_, V, _>(value), scale.zero);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::{noise, scaled};
    use proptest::prelude::*;

    fn check_shape(m: usize, k: usize, n: usize, zero: i32, seed: u64) {
        let whole = |seed, len, most: f32| noise(seed, len).into_iter().map(|v| (v * most) as i16).collect::<Vec<_>>();
        let w = whole(seed + 1, k * n, 255.0);
        for isa in Isa::available() {
            let weights = Weights8::pack(isa, k, n, |k, j| w[k * n + j]).unwrap();
            let (even, stride) = (weights.k(), weights.n());
            // What pads a row to pairs counts for nothing, whatever it is.
            let a = whole(seed, m * even, 255.9);
            let factor: Vec<f32> = noise(seed + 2, stride).iter().map(|v| v / (k as f32).sqrt() / 100.0).collect();
            let offset: Vec<f32> = noise(seed + 3, stride).iter().map(|v| v * 20.0).collect();
            let limits = [-(zero as f32), 255.0 - zero as f32];
            let scale = Scale { factor: &factor, offset: &offset, limits, zero };
            let (mut bytes, mut floats) = (vec![7; m * stride], vec![f32::NAN; m * stride]);
            gemm8(&a, &weights, &scale, &mut bytes);
            gemm8_float(&a, &weights, &scale, &mut floats);
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let sum: i32 = (0..k).map(|k| i32::from(a[i * even + k]) * i32::from(w[k * n + j])).sum();
                let at = i * stride + j;
                scaled(sum, &scale, j, (floats[at], bytes[at]), &format!("{isa} {m}x{k}x{n}"));
            }
        }
    }

    #[test]
    fn shapes_that_straddle_tiles() {
        let sizes = if cfg!(miri) { &[1, 7][..] } else { &[1, 2, 5, 6, 7, 11, 12, 13, 25] };
        for &m in sizes {
            check_shape(m, 27, 32, 128, m as u64);
        }
        let sizes = if cfg!(miri) { &[1, 17][..] } else { &[1, 7, 8, 9, 16, 17, 24, 40, 728] };
        for &n in sizes {
            check_shape(7, 18, n, 0, n as u64);
        }
        let sizes = if cfg!(miri) { &[1, 3][..] } else { &[1, 2, 3, 727, 728, 2048, 4608] };
        for &k in sizes {
            check_shape(7, k, 24, 255, k as u64);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]
        #[test]
        fn any_shape(m in 1..30_usize, k in 1..70_usize, n in 1..70_usize, zero in 0..256_i32, seed in 0..99_u64) {
            check_shape(m, k, n, zero, seed);
        }
    }

    #[test]
    fn the_rails_do_not_overflow() {
        for isa in Isa::available() {
            let k = 33_000;
            let weights = Weights8::pack(isa, k, 1, |_, _| -255).unwrap();
            let ones = vec![1.0; isa.lanes()];
            let zeros = vec![0.0; isa.lanes()];
            let scale = Scale { factor: &ones, offset: &zeros, limits: [f32::NEG_INFINITY, f32::INFINITY], zero: 0 };
            let mut c = vec![0.0; isa.lanes()];
            gemm8_float(&vec![255; weights.k()], &weights, &scale, &mut c);
            assert_eq!(c[0], -255.0 * 255.0 * k as f32);
            assert!(Weights8::pack(isa, 40_000, 1, |_, _| 0).is_none());
        }
    }
}
