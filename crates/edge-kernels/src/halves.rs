//! Matrix times matrix in float16 arithmetic: `fmla` of eight lanes does twice what one of four does in float32.
//!
//! Only for weights that are float16 already, which are multiplied as they are kept. Rows of A become float16 block by block of k, and
//! products are added in float16 over [`SHORT`] values of k; those sums are added in float32, and multiplied by their column's
//! factor, ended and written as [`crate::gemm`] does it.
//!
//! # What it may be off
//!
//! With u = 2⁻¹¹, half a step of float16: a value of A is off by u of itself at most, and each of up to [`SHORT`] additions by u of
//! the sum so far. So what is written is off by (SHORT + 1) · u · Σ|a·w| at most, 3 %, and what float32 does to it; roundings that
//! are not all the same way leave much less of it. Of the default model (EfficientNet-Lite0, chelsea.jpg) the logit that was furthest
//! off, of the largest, and additions and conversions for each multiplication:
//!
//! | values of k in a block | off | beside the multiplications |
//! |---|---|---|
//! | 32 | 0.00097 | 12.5 % |
//! | 64 | 0.00121 | 6.3 % |
//! | 128 | 0.00139 | 3.1 % |
//!
//! With 64 the bound is half of what it is with 128, for 3 % of the time.
//!
//! # No overflow
//!
//! float16 ends at 65504. Each row's block of k is multiplied by a power of two, which is exact and taken back in float32, so that
//! its largest value is as large as it can be while no sum of [`SHORT`] products reaches half of that: from 2⁸ on for weights up to
//! one. What then lies below float16's smallest normal number is 2⁻²² of the largest or less. A block with infinities, NaN, or
//! values too large or too small to be scaled is none for float16: then the whole product is computed in float32.

use crate::gemm::{BLOCK, End, Epilogue, Panels, Places, WIDTH, Weights, begin, finish, half};
use crate::simd::{Simd, kernel};
use crate::{Isa, Plain};
use std::mem::MaybeUninit;

/// Values of k whose products are added in float16.
pub(crate) const SHORT: usize = 64;
/// Rows of A that are made float16 together: a block of them stays in the first-level cache, beside a panel of W.
const ROWS: usize = 48;
/// Values of A that lie together.
pub(crate) const TOGETHER: usize = 8;

/// Whether products with float16 weights are computed in float16 arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Float16 {
    /// In float32.
    #[default]
    Never,
    /// Where the processor has it ([`Isa::has_float16`]).
    Native,
    /// Everywhere: in float32, whose sums are rounded to 11 bits after each addition. Slow; it tells what float16 arithmetic
    /// would make of a network. It knows no numbers below the normal ones, and differs where a sum lies halfway between two.
    Simulated,
}

/// How weights are multiplied in float16.
#[derive(Clone, Copy)]
pub(crate) struct Halving {
    /// Rows of A are scaled to less than two to the power of this.
    top: i32,
    simulated: bool,
}

impl Halving {
    /// For weights of these bits, if they can be.
    pub fn of(isa: Isa, panels: &[u16], float16: Float16) -> Option<Halving> {
        let simulated = match float16 {
            Float16::Never => return None,
            Float16::Native if !isa.has_float16() => return None,
            Float16::Native => false,
            Float16::Simulated => true,
        };
        let largest = panels.iter().map(|bits| bits & 0x7fff).max().map_or(0.0, half);
        // Two to this is not less than the largest.
        let power = if largest > 0.0 { largest.log2().ceil() as i32 } else { 0 };
        // What SHORT products of the largest reach is half of what float16 holds, so that rounding has room.
        Some(Halving { top: (15 - SHORT.ilog2() as i32 - power).min(15), simulated })
    }

    /// [`crate::gemm`] in float16 arithmetic; whether it could be done so. What it left in C is nothing where not.
    ///
    /// # Safety
    /// Every row of A lies within `a`; C, the residual, the bias and the panels have the lengths that are asked for.
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn run(
        self,
        w: &Weights,
        a: &[f32],
        rows: Places<'_>,
        first: usize,
        columns: usize,
        epilogue: &Epilogue<'_>,
        stride: usize,
        c: &mut [f32],
    ) -> bool {
        let mut done = false;
        // SAFETY: the caller's promise; there is a Halving that is not simulated only where the machine has the instructions.
        unsafe {
            match self.simulated {
                #[cfg(target_arch = "aarch64")]
                false => crate::neon::gemm_halves(w, self.top, a, rows, first, columns, epilogue, stride, c, &mut done),
                _ => simulated(w.isa, w, self.top, a, rows, first, columns, epilogue, stride, c, &mut done),
            }
        }
        done
    }
}

kernel! {
    fn simulated(
        w: &Weights, top: i32, a: &[f32], rows: Places<'_>, first: usize, columns: usize, epilogue: &Epilogue<'_>,
        stride: usize, c: &mut [f32], done: &mut bool,
    ) = simulated_body
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn simulated_body<S: Simd>(
    s: S,
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
    // SAFETY: the caller's promise.
    unsafe { body(Simulated(s), w, top, a, rows, first, columns, epilogue, stride, c, done) }
}

/// Sets that compute in float16.
pub(crate) trait Halves: Copy {
    /// The set's other instructions, whose vectors have as many float32 values as are multiplied at once in float16.
    type Set: Simd;
    /// What values of A become.
    type Value: Plain;
    /// Those.
    fn set(self) -> Self::Set;
    /// [`TOGETHER`] values of a row, multiplied by `scale`.
    ///
    /// # Safety
    /// So many are there, and room for them.
    unsafe fn pack(self, from: *const f32, scale: f32, to: *mut Self::Value);
    /// Sums of the products of `M` rows of A and a panel of `N` vectors of W. Values of A lie by eights, those of all rows beside
    /// each other, zeros after the last.
    ///
    /// # Safety
    /// There are so many rows, vectors, and values.
    unsafe fn products<const M: usize, const N: usize>(
        self,
        a: *const Self::Value,
        k: usize,
        panel: *const u16,
    ) -> [[<Self::Set as Simd>::V; N]; M];
}

/// A block of k of some rows.
struct Packed<T> {
    values: [MaybeUninit<T>; ROWS * BLOCK],
    /// What each row's sums are multiplied by to take the scale back.
    back: [f32; ROWS],
}

/// Where rows of A lie and what of them is a block.
#[derive(Clone, Copy)]
struct Source {
    a: *const f32,
    runs: usize,
    pitch: usize,
    /// Values of k in a run.
    run: usize,
}

/// Computes rows of C; `done` where all of it could be.
///
/// # Safety
/// As for [`Halving::run`].
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn body<H: Halves>(
    h: H,
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
    let Panels::Halves(panels, factors) = &w.panels else { return };
    let lanes = H::Set::LANES;
    let mut packed = Packed { values: [const { MaybeUninit::uninit() }; ROWS * BLOCK], back: [0.0; ROWS] };
    for block in (0..w.k).step_by(w.block) {
        let k = (w.k - block).min(w.block);
        // A block is a part of one run, or some whole runs.
        let run = if w.runs == 1 { k } else { w.k / w.runs };
        let from = if w.runs == 1 { block } else { block / run * rows.pitch };
        // SAFETY: as the caller says, rows lie within `a`.
        let source = Source { a: unsafe { a.as_ptr().add(from) }, runs: k / run, pitch: rows.pitch, run };
        for (group, rows) in rows.starts.chunks(ROWS).enumerate() {
            let row = group * ROWS;
            // SAFETY: the caller's promise.
            if !unsafe { pack(h, top, rows, source, &mut packed) } {
                return;
            }
            for column in (0..columns).step_by(WIDTH * lanes) {
                let (wide, at) = ((columns - column).min(WIDTH * lanes), first + column);
                // SAFETY: the caller's promise: columns are whole vectors within C, W and the bias.
                unsafe {
                    let residual =
                        epilogue.residual.map_or(std::ptr::null(), |r| r.as_ptr().add(row * stride + column));
                    let end = End { residual, low: epilogue.low, high: epilogue.high };
                    let place = Place {
                        panel: panels.as_ptr().add(block * w.n + at * k),
                        k,
                        factors: factors.as_ptr().add(at),
                        plain: factors[at..at + wide].iter().all(|factor| *factor == 1.0),
                        c: c.as_mut_ptr().add(row * stride + column),
                        stride,
                        bias: if block == 0 { epilogue.bias.as_ptr().add(at) } else { std::ptr::null() },
                        end: (block + k == w.k).then_some(end),
                    };
                    match wide > lanes {
                        true => tiles::<H, 2>(h, rows.len(), &packed, place),
                        false => tiles::<H, 1>(h, rows.len(), &packed, place),
                    }
                }
            }
        }
    }
    *done = true;
}

/// Makes a block of k of some rows float16, in the order of [`tiles`]; false where that cannot be.
#[inline(always)]
unsafe fn pack<H: Halves>(h: H, top: i32, rows: &[u32], source: Source, packed: &mut Packed<H::Value>) -> bool {
    /// Exponents, as float32 has them, that are scaled.
    const EXPONENTS: std::ops::RangeInclusive<u32> = 127 - 100..=127 + 100;
    let k = source.runs * source.run;
    let padded = k.next_multiple_of(TOGETHER);
    let mut line = [0.0_f32; BLOCK];
    let mut first = 0;
    while first < rows.len() {
        let height = height(H::Set::LANES, rows.len() - first);
        for (i, start) in rows.iter().enumerate().skip(first).take(height) {
            // SAFETY: the caller's promise.
            let part = |run: usize| unsafe {
                std::slice::from_raw_parts(source.a.add(*start as usize + run * source.pitch), source.run)
            };
            // Where it lies, if it is whole.
            let whole = source.runs == 1 && k == padded;
            if !whole {
                (0..source.runs).for_each(|run| line[run * source.run..][..source.run].copy_from_slice(part(run)));
            }
            let from = if whole { part(0) } else { &line[..padded] };
            // Of magnitudes, the order of bits is that of values; NaN comes last.
            let largest = from.iter().fold(0, |largest, value| (value.to_bits() & 0x7fff_ffff).max(largest));
            let mut scales = [1.0, 1.0];
            if largest > 0 {
                let exponent = largest >> 23;
                if !EXPONENTS.contains(&exponent) {
                    return false;
                }
                // The largest is less than two to the power of exponent - 126.
                let power = top + 126 - exponent as i32;
                scales = [127 + power, 127 - power].map(|biased| f32::from_bits((biased as u32) << 23));
            }
            packed.back[i] = scales[1];
            for at in (0..padded).step_by(TOGETHER) {
                // SAFETY: a tile's values are there, by eights.
                unsafe {
                    let to = packed.values.as_mut_ptr().cast::<H::Value>();
                    h.pack(
                        from.as_ptr().add(at),
                        scales[0],
                        to.add(first * padded + at * height + (i - first) * TOGETHER),
                    );
                }
            }
        }
        first += height;
    }
    true
}

/// Rows of the next tile.
#[inline(always)]
fn height(lanes: usize, rows: usize) -> usize {
    match rows {
        12.. if lanes == 16 => 12,
        6.. => 6,
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

/// Where tiles read and write.
#[derive(Clone, Copy)]
struct Place {
    panel: *const u16,
    k: usize,
    factors: *const f32,
    /// Whether all factors are one.
    plain: bool,
    c: *mut f32,
    /// Values from one row of C to the next.
    stride: usize,
    /// Where sums begin; null where they go on from what C holds.
    bias: *const f32,
    end: Option<End>,
}

/// All packed rows with a panel.
#[inline(always)]
unsafe fn tiles<H: Halves, const V: usize>(h: H, rows: usize, packed: &Packed<H::Value>, place: Place) {
    let mut row = 0;
    while row < rows {
        let height = height(H::Set::LANES, rows - row);
        // SAFETY: the rows are there.
        unsafe {
            match height {
                12 => tile::<H, 12, V>(h, packed, row, place),
                6 => tile::<H, 6, V>(h, packed, row, place),
                4 => tile::<H, 4, V>(h, packed, row, place),
                2 => tile::<H, 2, V>(h, packed, row, place),
                _ => tile::<H, 1, V>(h, packed, row, place),
            }
        }
        row += height;
    }
}

#[inline(always)]
unsafe fn tile<H: Halves, const M: usize, const V: usize>(h: H, packed: &Packed<H::Value>, row: usize, place: Place) {
    let s = h.set();
    // SAFETY: the caller's promise.
    unsafe {
        let c = place.c.add(row * place.stride);
        for i in 0..M {
            s.fetch(c.add(i * place.stride));
        }
        let a = packed.values.as_ptr().cast::<H::Value>().add(row * place.k.next_multiple_of(TOGETHER));
        let sums = h.products::<M, V>(a, place.k, place.panel);
        let factors: [_; V] = std::array::from_fn(|j| s.load(place.factors.add(j * H::Set::LANES)));
        // Row by row: all of them would be more than there are registers for.
        for (i, mut sums) in sums.into_iter().enumerate() {
            let (c, residual) = (c.add(i * place.stride), (row + i) * place.stride);
            let [from] = begin::<_, 1, V>(s, c, place.stride, place.bias);
            // A power of two: that product is exact.
            let back = s.splat(packed.back[row + i]);
            for j in 0..V {
                sums[j] = match place.plain {
                    true => s.fma(sums[j], back, from[j]),
                    false => s.fma(s.mul(sums[j], back), factors[j], from[j]),
                };
            }
            let end = place.end.map(|end| End {
                residual: if end.residual.is_null() { end.residual } else { end.residual.add(residual) },
                ..end
            });
            finish(s, c, place.stride, end, [sums]);
        }
    }
}

/// Any set, in float32.
#[derive(Clone, Copy)]
struct Simulated<S>(S);

/// To 11 bits, by Veltkamp's splitting: what remains of x · (2¹³ + 1) when the lower bits are taken off.
#[inline(always)]
fn rounded<S: Simd>(s: S, x: S::V) -> S::V {
    let far = s.mul(x, s.splat(8193.0));
    s.add(far, s.fma(far, s.splat(-1.0), x))
}

impl<S: Simd> Halves for Simulated<S> {
    type Set = S;
    type Value = f32;
    #[inline(always)]
    fn set(self) -> S {
        self.0
    }
    #[inline(always)]
    unsafe fn pack(self, from: *const f32, scale: f32, to: *mut f32) {
        for i in 0..TOGETHER {
            // SAFETY: the caller's promise.
            unsafe {
                let x = *from.add(i) * scale;
                let far = x * 8193.0;
                *to.add(i) = far - (far - x);
            }
        }
    }
    #[inline(always)]
    unsafe fn products<const M: usize, const N: usize>(
        self,
        a: *const f32,
        k: usize,
        panel: *const u16,
    ) -> [[S::V; N]; M] {
        let s = self.0;
        let mut sums = [[s.splat(0.0); N]; M];
        for first in (0..k).step_by(SHORT) {
            let mut short = [[s.splat(0.0); N]; M];
            for k in first..k.min(first + SHORT) {
                // SAFETY: the caller's promise; no vector is longer than 16.
                unsafe {
                    let w: [S::V; N] = std::array::from_fn(|j| {
                        let mut w = [0.0; 16];
                        for (i, w) in w.iter_mut().enumerate().take(S::LANES) {
                            *w = half(*panel.add((k * N + j) * S::LANES + i));
                        }
                        s.load(w.as_ptr())
                    });
                    for (i, sums) in short.iter_mut().enumerate() {
                        let x = s.splat(*a.add((k / TOGETHER * M + i) * TOGETHER + k % TOGETHER));
                        for (sum, w) in sums.iter_mut().zip(w) {
                            *sum = rounded(s, s.fma(x, w, *sum));
                        }
                    }
                }
            }
            for (sum, short) in sums.iter_mut().flatten().zip(short.iter().flatten()) {
                *sum = s.add(*sum, *short);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests;
