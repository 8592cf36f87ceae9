//! Matrix times matrix in bytes, four products at a time: `vpdpbusd`, where a machine has it, and what others have.
//!
//! A holds unsigned bytes as they are, zero point and all, and is read where it lies, by the offset of each row; W is packed
//! in fours of k as signed bytes. What the zero point adds to a column is the same for every row, so sums begin with its
//! negative: whole numbers, exact. The tile is 12 rows × 2 vectors; per four of k two loads of W, a broadcast per row and 24
//! multiplications of 64 products each. Sums stay in registers over all of k. AVX2 does it in [three steps](crate::narrow).

use crate::gemm::Places;
use crate::gemm8::{Scale, Sink, write};
use crate::isa::Kind;
#[cfg(target_arch = "x86_64")]
use crate::narrow::{self, Narrow, Panel};
use crate::simd::{Dot4, Portable, Runs, Simd};
use crate::threads::each;
use crate::{Buffer, Isa};

/// What others have is never packed so.
#[cfg(not(target_arch = "x86_64"))]
type Panel = std::convert::Infallible;

/// Vectors in a panel.
const WIDTH: usize = 2;
/// Weights that are packed by several threads.
const MANY: usize = 1 << 16;

/// W, packed.
#[derive(Clone)]
pub struct Quads {
    isa: Isa,
    /// Rows, runs padded to fours.
    k: usize,
    /// Runs that a row of A is made of.
    runs: usize,
    /// Columns, padded to whole vectors.
    n: usize,
    /// Rows in a panel.
    depth: usize,
    /// Panel by panel, in it the groups of rows of an [`Order`].
    panels: Buffer<i8>,
    /// Where sums begin, per column.
    begin: Buffer<i32>,
    /// The smallest value of W, which says whether two products of bytes fit 16 bits.
    #[cfg_attr(not(target_arch = "aarch64"), expect(dead_code))]
    least: i8,
    /// In place of panels, where pairs of products are added in 16 bits.
    #[cfg(target_arch = "x86_64")]
    narrow: Option<Narrow>,
}

/// How a panel's values follow each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Four by four of rows, in them column by column.
    Fours,
    /// Four by four of rows, in them four by four of columns, in them the first two rows of each column and then the others.
    #[cfg(target_arch = "aarch64")]
    Twos,
    /// Eight by eight of rows, runs padded to whole ones, in them column by column.
    #[cfg(target_arch = "aarch64")]
    Eights,
}

impl Order {
    /// What the kernel of a set reads, and what is taken off the bytes of A before they are multiplied.
    fn of(isa: Isa) -> (Order, i32) {
        match isa.kind() {
            #[cfg(target_arch = "aarch64")]
            Kind::InOrder | Kind::Neon => (Order::Twos, 128),
            #[cfg(target_arch = "aarch64")]
            Kind::Dot => (Order::Fours, 128),
            #[cfg(target_arch = "aarch64")]
            Kind::I8mm => (Order::Eights, 0),
            _ => (Order::Fours, 0),
        }
    }

    /// Rows in a panel for `runs` runs of `run` each, fours of them.
    fn depth(self, runs: usize, run: usize) -> usize {
        match self {
            #[cfg(target_arch = "aarch64")]
            Order::Eights => runs * run.next_multiple_of(8),
            _ => runs * run,
        }
    }

    /// Where in a panel of `width` columns the value of a row lies, of runs of `run`.
    #[cfg_attr(not(target_arch = "aarch64"), expect(unused_variables))]
    fn place(self, run: usize, row: usize, column: usize, width: usize) -> usize {
        match self {
            Order::Fours => row / 4 * 4 * width + 4 * column + row % 4,
            #[cfg(target_arch = "aarch64")]
            Order::Twos => row / 4 * 4 * width + column / 4 * 16 + row % 4 / 2 * 8 + column % 4 * 2 + row % 2,
            #[cfg(target_arch = "aarch64")]
            Order::Eights => {
                let eight = row / run * run.div_ceil(8) + row % run / 8;
                eight * 8 * width + 8 * column + row % run % 8
            }
        }
    }
}

impl Quads {
    /// Packs `w`, (k, n), to be multiplied with rows of `runs` runs of bytes whose zero point is `zero`. `None` where a value is
    /// not one of -128…127, or sums could overflow: 255 · 128 · k.
    ///
    /// # Panics
    /// Where k is not made of so many runs, or they are several and not of whole fours.
    pub fn pack(
        isa: Isa,
        k: usize,
        n: usize,
        runs: usize,
        zero: u8,
        w: impl Fn(usize, usize) -> i16 + Sync,
    ) -> Option<Quads> {
        assert!(runs == 1 || k.is_multiple_of(4 * runs));
        if k > i32::MAX as usize / (255 * 128) {
            return None;
        }
        #[cfg(target_arch = "x86_64")]
        let narrow = isa.kind() == Kind::Avx2;
        #[cfg(not(target_arch = "x86_64"))]
        let narrow = false;
        let (rows, columns, step) = (k.next_multiple_of(4), isa.padded(n), WIDTH * isa.lanes());
        let (order, shift) = Order::of(isa);
        let run = rows / runs;
        let depth = order.depth(runs, run);
        let (mut panels, mut begin) = (Buffer::new(if narrow { 0 } else { depth * columns }), Buffer::new(columns));
        // The smallest value, and what a panel becomes that is packed otherwise; `None` where a value does not fit.
        let fill = |at: usize, (begin, panel): (&mut [i32], &mut [i8])| -> Option<(i8, Option<Panel>)> {
            let width = begin.len();
            let mut room = vec![0; if narrow { width * depth } else { 0 }];
            let panel = if narrow { &mut room[..] } else { panel };
            let (mut line, mut least) = (vec![0; rows], 0);
            for (column, begin) in (at * step..n).zip(begin) {
                let mut fits = true;
                for (row, to) in line[..k].iter_mut().enumerate() {
                    let value = w(row, column);
                    *to = value as i8;
                    fits &= i16::from(*to) == value;
                }
                if !fits {
                    return None;
                }
                least = line.iter().fold(least, |least, value| least.min(*value));
                *begin = (shift - i32::from(zero)) * line.iter().map(|value| i32::from(*value)).sum::<i32>();
                let mut put = |row: usize, values: &[i8]| {
                    panel[order.place(run, row, column - at * step, width)..][..values.len()].copy_from_slice(values);
                };
                match order {
                    #[cfg(target_arch = "aarch64")]
                    Order::Twos => line.chunks_exact(2).enumerate().for_each(|(two, values)| put(2 * two, values)),
                    _ => line.chunks_exact(4).enumerate().for_each(|(four, values)| put(4 * four, values)),
                }
            }
            #[cfg(target_arch = "x86_64")]
            let packed = narrow.then(|| Panel::pack(room.as_chunks().0, run / 4, width));
            #[cfg(not(target_arch = "x86_64"))]
            let packed = None;
            Some((least, packed))
        };
        let mut targets = panels.chunks_mut((step * depth).max(1));
        let targets = begin.chunks_mut(step).map(|begin| (begin, targets.next().unwrap_or_default())).collect();
        let (mut least, mut packed) = (0, vec![]);
        for panel in each(targets, k * n >= MANY, fill) {
            let (smallest, panel) = panel?;
            least = least.min(smallest);
            packed.extend(panel);
        }
        Some(Quads {
            isa,
            k: rows,
            runs,
            n: columns,
            depth,
            panels,
            begin,
            least,
            #[cfg(target_arch = "x86_64")]
            narrow: narrow.then_some(Narrow(packed)),
        })
    }

    /// Whether these weights are multiplied faster so than as [`crate::Weights8`].
    pub fn is_faster(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if let Some(narrow) = &self.narrow {
            return narrow.is_faster(self.k / 4);
        }
        true
    }

    /// Rows, padded to fours.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns, padded to whole vectors.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Computes rows of C as bytes. `a` holds the rows of A at `rows`, [`Quads::k`] bytes each; C has as many rows, each of
    /// [`Quads::n`] values. What pads a row of A may be any bytes.
    ///
    /// # Panics
    /// Where the lengths do not belong together.
    pub fn multiply(&self, a: &[u8], rows: Places<'_>, scale: &Scale<'_>, c: &mut [u8]) {
        self.run(a, rows, scale, c);
    }

    /// As [`Quads::multiply`], as float32.
    ///
    /// # Panics
    /// Where the lengths do not belong together.
    pub fn multiply_float(&self, a: &[u8], rows: Places<'_>, scale: &Scale<'_>, c: &mut [f32]) {
        self.run(a, rows, scale, c);
    }

    fn run<C: Sink>(&self, a: &[u8], rows: Places<'_>, scale: &Scale<'_>, c: &mut [C]) {
        assert_eq!(c.len(), rows.starts.len() * self.n);
        assert!(scale.factor.len() == self.n && scale.offset.len() == self.n);
        rows.check(self.runs, self.k / self.runs, a.len());
        // SAFETY: every row of A lies within `a`; C, the scales and the panels have the lengths that the loops count to; an
        // Isa is of this machine.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            if let Some(narrow) = &self.narrow {
                return narrow::multiply(narrow, &self.begin, self.runs, a, rows, scale, c);
            }
            match self.isa.kind() {
                #[cfg(target_arch = "x86_64")]
                Kind::Vnni => vnni(a, rows, self, scale, c),
                #[cfg(target_arch = "aarch64")]
                Kind::InOrder | Kind::Neon if self.least == i8::MIN => {
                    neon(crate::neon::Rails::new(self.isa), a, rows, self, scale, c)
                }
                #[cfg(target_arch = "aarch64")]
                Kind::InOrder | Kind::Neon => neon(crate::neon::Twos::new(self.isa), a, rows, self, scale, c),
                #[cfg(target_arch = "aarch64")]
                Kind::Dot => dot(a, rows, self, scale, c),
                #[cfg(target_arch = "aarch64")]
                Kind::I8mm => i8mm(a, rows, self, scale, c),
                _ => body(Portable, a, rows, self, scale, c),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma")]
unsafe fn vnni<C: Sink>(a: &[u8], rows: Places<'_>, w: &Quads, scale: &Scale<'_>, c: &mut [C]) {
    // SAFETY: the features are enabled here; the rest is the caller's promise.
    unsafe { body(crate::simd::Vnni::new(), a, rows, w, scale, c) }
}

#[cfg(target_arch = "aarch64")]
#[inline(never)]
unsafe fn neon<D: Dot4, C: Sink>(d: D, a: &[u8], rows: Places<'_>, w: &Quads, scale: &Scale<'_>, c: &mut [C]) {
    // SAFETY: the caller's promise.
    unsafe { body(d, a, rows, w, scale, c) }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
unsafe fn dot<C: Sink>(a: &[u8], rows: Places<'_>, w: &Quads, scale: &Scale<'_>, c: &mut [C]) {
    // SAFETY: the features are enabled here; the rest is the caller's promise.
    unsafe { body(crate::neon::Dot::new(w.isa), a, rows, w, scale, c) }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn i8mm<C: Sink>(a: &[u8], rows: Places<'_>, w: &Quads, scale: &Scale<'_>, c: &mut [C]) {
    // SAFETY: the features are enabled here; the rest is the caller's promise.
    unsafe { body(crate::neon::I8mm::new(w.isa), a, rows, w, scale, c) }
}

#[inline(always)]
unsafe fn body<D: Dot4, C: Sink>(d: D, a: &[u8], rows: Places<'_>, w: &Quads, scale: &Scale<'_>, c: &mut [C]) {
    let lanes = D::Set::LANES;
    // Without a kernel of its own, an instruction set of longer vectors gets shorter ones; columns are whole ones of both.
    let step = WIDTH * w.isa.lanes();
    for panel in (0..w.n).step_by(step) {
        let width = (w.n - panel).min(step);
        let mut row = 0;
        macro_rules! take {
            ($($height:literal)*) => {
                $(while rows.starts.len() - row >= $height {
                    // SAFETY: so many rows are there; columns are whole vectors within C, W and the scales.
                    unsafe {
                        let mut column = 0;
                        while width - column >= 2 * lanes {
                            tile::<D, C, $height, 2>(d, a, rows, w, scale, c, row, panel, column, width);
                            column += 2 * lanes;
                        }
                        if column < width {
                            tile::<D, C, $height, 1>(d, a, rows, w, scale, c, row, panel, column, width);
                        }
                    }
                    row += $height;
                })*
            };
        }
        if D::ROWS >= 12 {
            take!(12);
        }
        if D::ROWS >= 6 {
            take!(6);
        }
        take!(4 2 1);
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn tile<D: Dot4, C: Sink, const M: usize, const V: usize>(
    d: D,
    a: &[u8],
    rows: Places<'_>,
    w: &Quads,
    scale: &Scale<'_>,
    c: &mut [C],
    row: usize,
    panel: usize,
    column: usize,
    width: usize,
) {
    let (s, lanes) = (d.set(), D::Set::LANES);
    // SAFETY: the caller's promise: M rows of A, M × V vectors of C, and the panel are there.
    unsafe {
        let a: [*const u8; M] = std::array::from_fn(|i| a.as_ptr().add(*rows.starts.get_unchecked(row + i) as usize));
        let c = c.as_mut_ptr();
        let at = panel + column;
        let out = |i: usize, j: usize| c.add((row + i) * w.n + at + j * lanes);
        for i in 0..M {
            s.fetch(out(i, 0));
        }
        // No closure: see [`Simd::splats`].
        let mut begin = [d.sums(w.begin.as_ptr().add(at)); V];
        for (j, begin) in begin.iter_mut().enumerate().skip(1) {
            *begin = d.sums(w.begin.as_ptr().add(at + j * lanes));
        }
        let runs = Runs { count: w.runs, pitch: rows.pitch, k: w.k / w.runs };
        let panel = w.panels.as_ptr().add(panel * w.depth + 4 * column);
        let sums = d.products(a, runs, panel, 4 * width, [begin; M]);
        write(s, sums, scale, at, out(0, 0), w.n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::{noise, scaled};
    use proptest::prelude::*;

    fn check_shape(m: usize, k: usize, n: usize, zeros: [u8; 2], spread: usize, seed: u64) {
        for runs in (1..=3).filter(|r| *r == 1 || k.is_multiple_of(4 * r)) {
            check_runs(m, k, n, runs, zeros, spread, seed);
        }
    }

    fn check_runs(m: usize, k: usize, n: usize, runs: usize, zeros: [u8; 2], spread: usize, seed: u64) {
        let (run, pitch) = (k / runs, k / runs / 8 * 4 + 1);
        let whole = |seed, len, most: f32| noise(seed, len).into_iter().map(move |v| (v * most) as i16);
        // As large as can be, and so small that AVX2 adds more of their products in 16 bits.
        let most = [128.9, 60.0, 20.0][seed as usize % 3];
        let w: Vec<i16> = whole(seed + 1, k * n, most).map(|v| v.min(127)).collect();
        for isa in Isa::available() {
            let weights = Quads::pack(isa, k, n, runs, zeros[0], |k, j| w[k * n + j]).unwrap();
            let (length, stride) = (weights.k(), weights.n());
            // What pads a row to fours counts for nothing, whatever it is.
            let a: Vec<u8> = whole(seed, m * (length + spread), 255.9).map(|v| v.unsigned_abs() as u8).collect();
            let starts: Vec<u32> = (0..m).rev().map(|i| (i * (length + spread)) as u32).collect();
            let factor: Vec<f32> = noise(seed + 2, stride).iter().map(|v| v / (k as f32).sqrt() / 100.0).collect();
            let offset: Vec<f32> = noise(seed + 3, stride).iter().map(|v| v * 20.0).collect();
            let zero = i32::from(zeros[1]);
            let limits = [-(zero as f32), 255.0 - zero as f32];
            let scale = Scale { factor: &factor, offset: &offset, limits, zero };
            let (mut bytes, mut floats) = (vec![7; m * stride], vec![f32::NAN; m * stride]);
            let rows = Places { starts: &starts, pitch };
            weights.multiply(&a, rows, &scale, &mut bytes);
            weights.multiply_float(&a, rows, &scale, &mut floats);
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let place = |k: usize| starts[i] as usize + k / run * pitch + k % run;
                let value = |k: usize| i32::from(a[place(k)]) - i32::from(zeros[0]);
                let sum: i32 = (0..k).map(|k| value(k) * i32::from(w[k * n + j])).sum();
                let at = i * stride + j;
                scaled(sum, &scale, j, (floats[at], bytes[at]), &format!("{isa} {m}x{k}x{n}"));
            }
        }
    }

    #[test]
    fn shapes_that_straddle_tiles() {
        let sizes = if cfg!(miri) { &[1, 7][..] } else { &[1, 2, 5, 6, 7, 11, 12, 13, 25, 37] };
        for &m in sizes {
            check_shape(m, 27, 32, [128, 128], 0, m as u64);
        }
        let sizes = if cfg!(miri) { &[1, 17][..] } else { &[1, 7, 8, 9, 16, 17, 24, 33, 40, 48, 728] };
        for &n in sizes {
            check_shape(14, 18, n, [0, 0], 5, n as u64);
        }
        let sizes = if cfg!(miri) { &[1, 5][..] } else { &[1, 2, 3, 4, 5, 36, 288, 727, 728, 2048, 4608] };
        for &k in sizes {
            check_shape(7, k, 24, [255, 255], 0, k as u64);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]
        #[test]
        fn any_shape(m in 1..40_usize, k in 1..70_usize, n in 1..70_usize, zeros: [u8; 2], spread in 0..9_usize, seed in 0..99_u64) {
            check_shape(m, k, n, zeros, spread, seed);
        }
    }

    #[test]
    fn the_rails_neither_overflow_nor_saturate() {
        for isa in Isa::available() {
            for (zero, byte) in [(0, 255), (255, 0)] {
                let k = 65_000;
                let weights = Quads::pack(isa, k, 1, 1, zero, |_, _| -128).unwrap();
                let (ones, zeros) = (vec![1.0; isa.lanes()], vec![0.0; isa.lanes()]);
                let scale =
                    Scale { factor: &ones, offset: &zeros, limits: [f32::NEG_INFINITY, f32::INFINITY], zero: 0 };
                let mut c = vec![0.0; isa.lanes()];
                weights.multiply_float(&vec![byte; weights.k()], Places { starts: &[0], pitch: 0 }, &scale, &mut c);
                assert_eq!(c[0], -128.0 * (f32::from(byte) - f32::from(zero)) * k as f32);
            }
            assert!(Quads::pack(isa, 70_000, 1, 1, 0, |_, _| 0).is_none());
            assert!(Quads::pack(isa, 4, 1, 1, 0, |_, _| 128).is_none());
        }
    }

    #[test]
    #[should_panic(expected = "a row of A ends")]
    fn a_row_outside_is_refused() {
        let packed = Quads::pack(Isa::PORTABLE, 4, 8, 1, 0, |_, _| 0).unwrap();
        let scale = Scale { factor: &[0.0; 8], offset: &[0.0; 8], limits: [0.0; 2], zero: 0 };
        packed.multiply(&[0; 7], Places { starts: &[4], pitch: 0 }, &scale, &mut [0; 8]);
    }
}
