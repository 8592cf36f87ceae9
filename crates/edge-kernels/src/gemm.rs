//! Matrix times matrix in float32: pointwise convolutions, and the second half of every other convolution.
//!
//! C[m][n] = Σk A[m][k] · W[k][n], then bias, a residual, and limits. Rows of A are pixels, (H,W) of a picture in
//! (H,W,C), and are read where they lie, by the offset of each row: a stride costs nothing and nothing is packed, but on
//! aarch64 full tiles of rows that meet several panels are laid together first. A row may be several runs of values a pitch
//! apart, the rows of a window over a picture: a k×k convolution without im2col. W is packed once, in panels of two vectors
//! of columns. The tile is 6 rows × 2 vectors (AVX2: 12 accumulators of 16 registers) or 12 × 2 (AVX-512): per k two loads of
//! W, a broadcast per row, and as many fused multiply-adds as there are accumulators. k runs in blocks, outermost, so that a
//! panel stays in the first-level cache and the rows' part of a block in the second; between blocks the sums wait in C. Lines
//! of C are asked for when a tile begins and there when it ends.

mod tiles;

use crate::halves::{Float16, Halving};
use crate::simd::{Simd, kernel};
use crate::{Among, Buffer, Isa, Plain};
use std::mem::MaybeUninit;
use tiles::body;

#[cfg(target_arch = "aarch64")]
pub(crate) use tiles::SIX;
pub(crate) use tiles::{End, begin, finish, products};

/// Vectors in a panel.
pub(crate) const WIDTH: usize = 2;
/// Values of k in a block: a panel of 16 columns is then 24 kB of a first-level cache of 32.
pub(crate) const BLOCK: usize = 384;

/// W, packed.
#[derive(Clone)]
pub struct Weights {
    pub(crate) isa: Isa,
    pub(crate) k: usize,
    /// Runs that a row of A is made of.
    pub(crate) runs: usize,
    /// Values of k in a block; whole runs, where there are several.
    pub(crate) block: usize,
    /// Columns, padded to whole vectors.
    pub(crate) n: usize,
    /// Block of k by block, in it panel by panel, in it row by row.
    pub(crate) panels: Panels,
    /// Whether they were float16 and are no more.
    widened: bool,
    /// How they are multiplied in float16, where they are.
    pub(crate) halving: Option<Halving>,
}

/// How the panels are kept.
#[derive(Clone)]
pub(crate) enum Panels {
    /// As they are multiplied.
    Floats(Buffer),
    /// As float16, and a factor for each column.
    Halves(Buffer<u16>, Vec<f32>),
    /// As whole numbers, and a factor for each column.
    Bytes(Buffer<i8>, Vec<f32>),
}

/// Weights that are smaller than float32.
pub enum Small<'a> {
    /// Whole numbers.
    Bytes(&'a dyn Fn(usize, usize) -> i8),
    /// The bits of finite float16 numbers.
    Halves(&'a dyn Fn(usize, usize) -> u16),
}

/// Values of k in a block.
fn block(k: usize, runs: usize) -> usize {
    if runs == 1 { BLOCK } else { BLOCK / (k / runs) * (k / runs) }
}

/// Columns that pad n to whole vectors are zero.
fn panels<T: Plain>(isa: Isa, k: usize, n: usize, runs: usize, w: impl Fn(usize, usize) -> T) -> Buffer<T> {
    assert!(runs == 1 || k.is_multiple_of(runs) && run_fits(k / runs));
    let (padded, step, size) = (isa.padded(n), column_step(isa), block(k, runs));
    let mut panels = Buffer::new(k * padded);
    let mut at = 0;
    for block in (0..k).step_by(size) {
        for first in (0..padded).step_by(step) {
            let columns = step.min(padded - first);
            for row in block..(block + size).min(k) {
                for column in first..(first + columns).min(n) {
                    panels[at + column - first] = w(row, column);
                }
                at += columns;
            }
        }
    }
    panels
}

impl Panels {
    /// A panel of `columns` from column `at` on, as float32: where it lies, or in `room`.
    ///
    /// # Safety
    /// The panel is there, and there is room for it.
    #[inline(always)]
    unsafe fn floats<S: Simd>(
        &self,
        s: S,
        first: usize,
        len: usize,
        at: usize,
        columns: usize,
        room: *mut MaybeUninit<f32>,
    ) -> *const f32 {
        // SAFETY: the caller's promise.
        unsafe {
            let room = |len| std::slice::from_raw_parts_mut(room, len);
            match self {
                Panels::Floats(panels) => panels.as_ptr().add(first),
                Panels::Bytes(panels, factors) => {
                    let (out, factors) = (room(len), &factors[at..at + columns]);
                    let rows = panels[first..first + len].chunks_exact(columns);
                    for (out, row) in out.chunks_exact_mut(columns).zip(rows) {
                        out.iter_mut().zip(row).zip(factors).for_each(|((o, q), f)| _ = o.write(f32::from(*q) * f));
                    }
                    out.as_ptr().cast()
                }
                Panels::Halves(panels, factors) => {
                    let (panels, room) = (panels[first..first + len].as_ptr(), room(len).as_mut_ptr().cast::<f32>());
                    let factors = factors[at..at + columns].as_ptr();
                    match columns > S::LANES {
                        true => widen::<S, WIDTH>(s, panels, len, factors, room),
                        false => widen::<S, 1>(s, panels, len, factors, room),
                    }
                    room
                }
            }
        }
    }
}

/// Makes rows of N vectors of float16 numbers float32, each column multiplied by its factor.
///
/// # Safety
/// So many values are there, and room for them; they are whole rows.
#[inline(always)]
unsafe fn widen<S: Simd, const N: usize>(s: S, from: *const u16, len: usize, factors: *const f32, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let plain = std::slice::from_raw_parts(factors, N * S::LANES).iter().all(|factor| *factor == 1.0);
        let factors: [S::V; N] = std::array::from_fn(|j| s.load(factors.add(j * S::LANES)));
        // No closures, which a compiler may leave as functions that lack the set's instructions.
        macro_rules! row {
            ($at:expr, $scaled:literal) => {
                for j in 0..N {
                    let at = $at + j * S::LANES;
                    let value = s.load_half(from.add(at));
                    s.store(to.add(at), if $scaled { s.mul(value, factors[j]) } else { value });
                }
            };
        }
        macro_rules! rows {
            ($scaled:literal) => {
                let (step, mut at) = (N * S::LANES, 0);
                while at + 2 * step <= len {
                    row!(at, $scaled);
                    row!(at + step, $scaled);
                    at += 2 * step;
                }
                if at < len {
                    row!(at, $scaled);
                }
            };
        }
        // Those of a network whose scales are in its weights already.
        if plain {
            rows!(false);
        } else {
            rows!(true);
        }
    }
}

/// A finite float16 number of these bits. Its exponent becomes that of float32 by a multiplication, which is exact for numbers
/// that are not normal, too.
#[inline(always)]
pub(crate) fn half(bits: u16) -> f32 {
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * f32::from_bits(239 << 23);
    f32::from_bits(magnitude.to_bits() | u32::from(bits & 0x8000) << 16)
}

/// Where rows of A lie.
#[derive(Clone, Copy)]
pub struct Places<'a> {
    /// Where each begins.
    pub starts: &'a [u32],
    /// From a run of a row to its next.
    pub pitch: usize,
}

impl Places<'_> {
    /// That the rows, `runs` runs of `run` values each, lie within `length` values.
    ///
    /// # Panics
    /// Where they do not.
    pub(crate) fn check(&self, runs: usize, run: usize, length: usize) {
        let start = self.starts.iter().max().map_or(0, |s| *s as usize);
        let end = (runs - 1).checked_mul(self.pitch).and_then(|m| m.checked_add(start)?.checked_add(run));
        assert!(end.is_some_and(|end| end <= length), "a row of A ends at {end:?} of {length}");
    }
}

/// What happens to a sum before it is written.
#[derive(Clone, Copy)]
pub struct Epilogue<'a> {
    /// One value per padded column, added.
    pub bias: &'a [f32],
    /// Laid out as C, added.
    pub residual: Option<&'a [f32]>,
    /// The smallest value written; negative infinity for none.
    pub low: f32,
    /// The largest value written; infinity for none.
    pub high: f32,
}

impl Weights {
    /// Packs weights that stay small in memory and become float32 panel by panel, while they are in the cache: `w` as for
    /// [`Self::pack`], each column multiplied by its `factor`.
    ///
    /// # Panics
    /// As there, and where there is not one factor for each column.
    pub fn pack_small(isa: Isa, k: usize, factor: &[f32], runs: usize, w: Small<'_>) -> Weights {
        let n = factor.len();
        let mut factors = factor.to_vec();
        factors.resize(isa.padded(n), 0.0);
        let panels = match w {
            Small::Bytes(w) => Panels::Bytes(panels(isa, k, n, runs, w), factors),
            Small::Halves(w) => Panels::Halves(panels(isa, k, n, runs, w), factors),
        };
        Weights { isa, k, runs, block: block(k, runs), n: isa.padded(n), panels, widened: false, halving: None }
    }

    /// Packs `w`, (k, n) row-major, for rows of A of `runs` runs, as [`run_fits`] allows. Columns that pad n to whole vectors
    /// are zero.
    ///
    /// # Panics
    /// Where k is not made of so many runs, or they do not fit.
    pub fn pack(isa: Isa, k: usize, n: usize, runs: usize, w: impl Fn(usize, usize) -> f32) -> Weights {
        let panels = Panels::Floats(panels(isa, k, n, runs, w));
        Weights { isa, k, runs, block: block(k, runs), n: isa.padded(n), panels, widened: false, halving: None }
    }

    /// Has products computed in float16 arithmetic ([`Float16`]) where that can be: weights that are float16 on a processor
    /// that multiplies such numbers, or anywhere if it is simulated.
    pub fn in_float16(mut self, float16: Float16) -> Weights {
        self.halving = match &self.panels {
            Panels::Halves(panels, _) => Halving::of(self.isa, panels, float16),
            _ => None,
        };
        self
    }

    /// Whether products are computed in float16 arithmetic.
    pub fn is_in_float16(&self) -> bool {
        self.halving.is_some()
    }

    /// Whether they become float32 anew whenever rows are multiplied with them.
    pub fn are_decoded(&self) -> bool {
        self.halving.is_none() && !matches!(self.panels, Panels::Floats(_))
    }

    /// Says of weights that were made float32 for speed that they are float16 elsewhere.
    pub fn widened(mut self) -> Weights {
        self.widened = true;
        self
    }

    /// Whether they are float16, here or where memory is worth more.
    pub fn are_halves(&self) -> bool {
        self.widened || matches!(self.panels, Panels::Halves(..))
    }

    /// Rows.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Runs that a row of A is made of.
    pub fn runs(&self) -> usize {
        self.runs
    }

    /// Columns, padded to whole vectors.
    pub fn n(&self) -> usize {
        self.n
    }
}

/// Whether rows of A may be several runs of so many values.
pub fn run_fits(run: usize) -> bool {
    (1..=BLOCK).contains(&run)
}

/// Computes rows of C. `a` holds the rows of A at `rows`; C has as many rows, each of [`Weights::n`] values.
///
/// # Panics
/// Where the lengths do not belong together.
pub fn gemm(a: &[f32], rows: Places<'_>, w: &Weights, epilogue: &Epilogue<'_>, c: &mut [f32]) {
    gemm_among(a, rows, w, epilogue, Among::alone(w.n), c);
}

/// As [`gemm`], into channels of C that lie among others, which stay as they are; there is no residual then.
///
/// # Panics
/// Where the lengths do not belong together.
pub fn gemm_among(a: &[f32], rows: Places<'_>, w: &Weights, epilogue: &Epilogue<'_>, among: Among, c: &mut [f32]) {
    among.check(rows.starts.len(), c.len());
    assert!(among.channels == w.n && (epilogue.residual.is_none() || among.is_alone()));
    if !c.is_empty() {
        gemm_columns(a, rows, w, [0, w.n], epilogue, among.pitch, &mut c[among.first..]);
    }
}

/// Computes the columns of one row of C from `first`, a multiple of [`column_step`], for as many as `c` holds.
///
/// # Panics
/// Where the lengths do not belong together.
pub fn gemv(a: &[f32], w: &Weights, first: usize, epilogue: &Epilogue<'_>, c: &mut [f32]) {
    if !c.is_empty() {
        gemm_columns(a, Places { starts: &[0], pitch: 0 }, w, [first, c.len()], epilogue, c.len(), c);
    }
}

/// Columns that are computed together.
pub fn column_step(isa: Isa) -> usize {
    WIDTH * isa.lanes()
}

/// Rows that are computed together; on aarch64 of tiles of four and of six rows.
pub fn row_step(isa: Isa) -> usize {
    if isa.lanes() == 16 || (cfg!(target_arch = "aarch64") && isa != Isa::PORTABLE) { 12 } else { 6 }
}

/// Columns of C from `first` on, in rows that are `stride` values apart.
fn gemm_columns(
    a: &[f32],
    rows: Places<'_>,
    w: &Weights,
    [first, columns]: [usize; 2],
    epilogue: &Epilogue<'_>,
    stride: usize,
    c: &mut [f32],
) {
    assert!(columns.is_multiple_of(w.isa.lanes()) && c.len() + stride >= rows.starts.len() * stride + columns);
    assert!(first.is_multiple_of(column_step(w.isa)) && first + columns <= w.n);
    assert!(first + columns == w.n || columns.is_multiple_of(column_step(w.isa)));
    assert!(epilogue.bias.len() == w.n && epilogue.residual.is_none_or(|r| r.len() == c.len()));
    rows.check(w.runs, w.k / w.runs, a.len());
    // SAFETY: every row of A lies within `a`; C, the residual, the bias and the panels have the lengths that the loops
    // count to, as asserted.
    if w.halving.is_some_and(|halving| unsafe { halving.run(w, a, rows, first, columns, epilogue, stride, c) }) {
        return;
    }
    // SAFETY: as above.
    unsafe { run(w.isa, a, rows, w, first, columns, epilogue, stride, c) }
}

kernel! {
    fn run(
        a: &[f32], rows: Places<'_>, w: &Weights, first: usize, columns: usize, epilogue: &Epilogue<'_>, stride: usize,
        c: &mut [f32],
    ) = body
}

/// What [`gemm`] computes, one value after the other, in float64.
#[cfg(test)]
pub(crate) fn naive(
    a: &[f32],
    rows: Places<'_>,
    (k, n, runs): (usize, usize, usize),
    w: impl Fn(usize, usize) -> f32,
    epilogue: &Epilogue<'_>,
    stride: usize,
) -> Vec<f64> {
    let mut c = vec![0.0; rows.starts.len() * stride];
    for (i, row) in rows.starts.iter().enumerate() {
        for j in 0..stride {
            let place = |at: usize| *row as usize + at / (k / runs) * rows.pitch + at % (k / runs);
            let product = |k: usize| f64::from(a[place(k)]) * f64::from(w(k, j));
            let sum: f64 = if j < n { (0..k).map(product).sum() } else { 0.0 };
            let residual = epilogue.residual.map_or(0.0, |r| f64::from(r[i * stride + j]));
            let end = sum + f64::from(epilogue.bias[j]) + residual;
            c[i * stride + j] = end.max(f64::from(epilogue.low)).min(f64::from(epilogue.high));
        }
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::{amongs, close, noise, taken};
    use proptest::prelude::*;

    fn check(m: usize, k: usize, n: usize, spread: usize, residual: bool, limits: bool, seed: u64) {
        let a = noise(seed, m * (k + spread));
        let w = noise(seed + 1, k * n);
        let rows: Vec<u32> = (0..m).rev().map(|i| (i * (k + spread)) as u32).collect();
        for isa in Isa::available() {
            let stride = isa.padded(n);
            let packed = Weights::pack(isa, k, n, 1, |k, j| w[k * n + j]);
            let mut bias = noise(seed + 2, stride);
            bias[n..].fill(0.0);
            let added = noise(seed + 3, m * stride);
            let (low, high) = if limits { (0.0, 1.5) } else { (f32::NEG_INFINITY, f32::INFINITY) };
            let epilogue = Epilogue { bias: &bias, residual: residual.then_some(&added[..]), low, high };
            let mut c = vec![f32::NAN; m * stride];
            let places = Places { starts: &rows, pitch: 0 };
            gemm(&a, places, &packed, &epilogue, &mut c);
            let wanted = naive(&a, places, (k, n, 1), |k, j| w[k * n + j], &epilogue, stride);
            close(&c, &wanted, k, &format!("{isa} {m}x{k}x{n}"));
            // Among other channels, which stay as they are.
            let alone = Epilogue { residual: None, ..epilogue };
            gemm(&a, places, &packed, &alone, &mut c);
            let among = amongs(isa, stride)[1];
            let mut wide = vec![f32::NAN; m * among.pitch];
            gemm_among(&a, places, &packed, &alone, among, &mut wide);
            assert_eq!(taken(among, &wide), c, "{isa} {m}x{k}x{n} among others");
            // Rows of several runs, which overlap.
            for runs in [2, 3, 5].into_iter().filter(|r| k.is_multiple_of(*r) && run_fits(k / r)) {
                let packed = Weights::pack(isa, k, n, runs, |k, j| w[k * n + j]);
                let places = Places { starts: &rows, pitch: k / runs - (k / runs) / 2 };
                gemm(&a, places, &packed, &epilogue, &mut c);
                let wanted = naive(&a, places, (k, n, runs), |k, j| w[k * n + j], &epilogue, stride);
                close(&c, &wanted, k, &format!("{isa} {m}x{k}x{n} in {runs} runs"));
            }
            // One row, in pieces of columns.
            let mut one = vec![f32::NAN; stride];
            let part = Epilogue { residual: None, ..epilogue };
            let step = column_step(isa);
            for first in (0..stride).step_by(step) {
                let end = (first + step).min(stride);
                gemv(&a[rows[0] as usize..], &packed, first, &part, &mut one[first..end]);
            }
            let first = Places { starts: &rows[..1], pitch: 0 };
            close(&one, &naive(&a, first, (k, n, 1), |k, j| w[k * n + j], &part, stride), k, "gemv");
        }
    }

    #[test]
    fn shapes_that_straddle_tiles_and_blocks() {
        let sizes = if cfg!(miri) { &[1, 7, 13][..] } else { &[1, 2, 5, 6, 7, 11, 12, 13, 25, 61] };
        for &m in sizes {
            check(m, 27, 32, 0, true, true, m as u64);
        }
        let sizes = if cfg!(miri) { &[1, 17][..] } else { &[1, 2, 7, 8, 9, 16, 17, 24, 40, 100, 728, 1000] };
        for &n in sizes {
            check(7, 19, n, 3, false, true, n as u64);
        }
        let sizes = if cfg!(miri) { &[1, 385][..] } else { &[1, 2, 3, 288, 383, 384, 385, 576, 728, 769, 960, 2048] };
        for &k in sizes {
            check(7, k, 24, 0, true, false, k as u64);
        }
    }

    #[test]
    fn small_weights_are_what_they_stand_for() {
        // Every finite float16 number, by its own rule.
        for bits in (0..=u16::MAX).filter(|b| b & 0x7c00 != 0x7c00) {
            let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff) / 1024.0);
            let magnitude =
                if exponent == 0 { fraction * 2f64.powi(-14) } else { (1.0 + fraction) * 2f64.powi(exponent - 15) };
            let wanted = if bits & 0x8000 == 0 { magnitude } else { -magnitude };
            assert_eq!(f64::from(half(bits)), wanted, "{bits:#x}");
        }
        for isa in Isa::available() {
            for (m, k, n, runs) in [(1, 40, 70, 1), (13, 900, 33, 1), (7, 3 * 24, 16, 3)] {
                let a = noise(1, m * k);
                let rows: Vec<u32> = (0..m).map(|i| (i * k) as u32).collect();
                let places = Places { starts: &rows, pitch: k / runs };
                let factor: Vec<f32> = (0..n).map(|i| 0.001 * (i + 1) as f32).collect();
                let bytes = |k: usize, j: usize| ((k * 31 + j * 17) % 255) as u8 as i8;
                let halves = |k: usize, j: usize| ((k * 31 + j * 17) % 0x3c00) as u16 | ((j as u16 & 1) << 15);
                let stride = isa.padded(n);
                let (bias, mut c) = (vec![0.25; stride], vec![f32::NAN; m * stride]);
                let epilogue = Epilogue { bias: &bias, residual: None, low: f32::NEG_INFINITY, high: f32::INFINITY };
                let small = |w| Weights::pack_small(isa, k, &factor, runs, w);
                let byte = |k: usize, j: usize| f32::from(bytes(k, j)) * factor[j];
                gemm(&a, places, &small(Small::Bytes(&bytes)), &epilogue, &mut c);
                close(&c, &naive(&a, places, (k, n, runs), byte, &epilogue, stride), 9 * k, "bytes");
                let float = |k: usize, j: usize| half(halves(k, j)) * factor[j];
                gemm(&a, places, &small(Small::Halves(&halves)), &epilogue, &mut c);
                close(&c, &naive(&a, places, (k, n, runs), float, &epilogue, stride), k, "halves");
            }
        }
    }

    #[test]
    fn nan_is_not_hidden_by_limits() {
        for isa in Isa::available() {
            let packed = Weights::pack(isa, 1, 1, 1, |_, _| 1.0);
            let bias = vec![0.0; isa.lanes()];
            let epilogue = Epilogue { bias: &bias, residual: None, low: 0.0, high: 6.0 };
            let mut c = vec![0.0; isa.lanes()];
            gemm(&[f32::NAN], Places { starts: &[0], pitch: 0 }, &packed, &epilogue, &mut c);
            assert!(c[0].is_nan(), "{isa}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]
        #[test]
        fn any_shape(m in 1..30_usize, k in 1..70_usize, n in 1..70_usize, spread in 0..9_usize, residual: bool, limits: bool, seed in 0..99_u64) {
            check(m, k, n, spread, residual, limits, seed);
        }
    }

    #[test]
    #[should_panic(expected = "a row of A ends")]
    fn a_row_outside_is_refused() {
        let packed = Weights::pack(Isa::PORTABLE, 4, 8, 1, |_, _| 0.0);
        let epilogue = Epilogue { bias: &[0.0; 8], residual: None, low: 0.0, high: 1.0 };
        gemm(&[0.0; 7], Places { starts: &[4], pitch: 0 }, &packed, &epilogue, &mut [0.0; 8]);
    }
}
