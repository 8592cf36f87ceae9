//! 3x3 convolutions of stride 1 in float32 with fewer multiplications.
//!
//! F(2×2, 3×3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015,
//! <https://arxiv.org/abs/1509.09308>): the 4×4 pixels under four neighbouring positions and the filter are each
//! transformed by additions, multiplied value by value, and transformed back: 16 multiplications per channel instead of 36.
//! Over the channels that makes 16 matrix products of [`gemm`]. Its factors are 0, ±1 and, of the filter, ½ and ¼, so the
//! result is about as exact as the sum of products; larger tiles would save more and lose digits.

use crate::gemm::{Epilogue, Places, Weights, gemm};
use crate::simd::{Simd, kernel};
use crate::{Among, Isa, Window};
use std::ops::Range;

/// Values of a transformed tile.
const VALUES: usize = 16;
/// Fewer tiles than this do not pay for reading 16 filters instead of 9.
const FEWEST: usize = 49;
/// Tiles that are transformed together, at least, where there are as many.
const TOGETHER: usize = 48;
/// At most.
const MOST: usize = 192;

/// A convolution.
pub struct Winograd {
    isa: Isa,
    window: Window,
    /// Of a pixel of the input, padded.
    channels: usize,
    /// One matrix for each value of a tile.
    filters: Vec<Weights>,
    /// Where the rows of a matrix begin among the transformed pixels.
    starts: Vec<u32>,
    /// What is added to sums that are not done yet.
    zeros: Vec<f32>,
}

impl Winograd {
    /// Whether a window of `inputs` and `outputs` channels is computed faster so.
    pub fn suits(w: &Window, inputs: usize, outputs: usize) -> bool {
        let shape = w.kernel == [3, 3] && w.stride == [1, 1] && w.dilation == [1, 1];
        shape
            && w.before[0] < 3
            && w.before[1] < 3
            && inputs >= 32
            && outputs >= 32
            && tiles(w).iter().product::<usize>() >= FEWEST
    }

    /// A convolution of `inputs` channels, padded in the picture, into `outputs`; `filter` is asked for (output, input, tap).
    ///
    /// # Panics
    /// Where the window is not 3×3 of stride 1.
    pub fn new(
        isa: Isa,
        window: Window,
        inputs: usize,
        outputs: usize,
        filter: impl Fn(usize, usize, usize) -> f32,
    ) -> Winograd {
        assert!(window.kernel == [3, 3] && window.stride == [1, 1] && window.dilation == [1, 1]);
        let mut transformed = vec![0.0; VALUES * inputs * outputs];
        for (at, (input, output)) in (0..inputs).flat_map(|i| (0..outputs).map(move |o| (i, o))).enumerate() {
            let taps: [f32; 9] = std::array::from_fn(|tap| filter(output, input, tap));
            for (value, u) in transform(&taps).into_iter().enumerate() {
                transformed[value * inputs * outputs + at] = u;
            }
        }
        let channels = isa.padded(inputs);
        let matrix = |value: usize| {
            let u = &transformed[value * inputs * outputs..];
            Weights::pack(isa, channels, outputs, 1, |row, o| if row < inputs { u[row * outputs + o] } else { 0.0 })
        };
        let (filters, zeros) = ((0..VALUES).map(matrix).collect(), vec![0.0; isa.padded(outputs)]);
        let mut made = Winograd { isa, window, channels, filters, starts: vec![], zeros };
        let most = made.rows(1) * tiles(&window)[1];
        made.starts = (0..most).map(|tile| (tile * channels) as u32).collect();
        made
    }

    /// Where it looks.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Values of a pixel of the input.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Columns of the result, padded.
    pub fn n(&self) -> usize {
        self.filters[0].n()
    }

    /// Rows of tiles that are computed together, by one of so many threads. Each is two rows of the result.
    pub fn rows(&self, threads: usize) -> usize {
        let [rows, columns] = tiles(&self.window);
        // Filters are read once for all of them; what is transformed is written and read for each.
        let (k, n) = (self.channels, self.n());
        let balanced = (k * n / (2 * (k + n))).clamp(TOGETHER, MOST).div_ceil(columns);
        balanced.min(rows.div_ceil(threads)).max(1)
    }

    /// Values of scratch memory for so many rows of tiles.
    pub fn scratch(&self, rows: usize) -> usize {
        rows * tiles(&self.window)[1] * VALUES * (self.channels + self.n())
    }

    /// Computes the result's rows under some rows of tiles, as many as [`Self::rows`] says at most. `out` and the epilogue's
    /// residual are of those rows, [`Self::n`] values for each position, in `out` perhaps among others; there is no residual
    /// then.
    ///
    /// # Panics
    /// Where the lengths do not belong together.
    pub fn run(
        &self,
        input: &[f32],
        rows: Range<usize>,
        epilogue: &Epilogue<'_>,
        scratch: &mut [f32],
        among: Among,
        out: &mut [f32],
    ) {
        let (w, [height, columns], n) = (&self.window, tiles(&self.window), self.n());
        let made = 2 * rows.start..(2 * rows.end).min(w.output[0]);
        assert!(rows.start < rows.end && rows.end <= height);
        assert_eq!(input.len(), w.input[0] * w.input[1] * self.channels);
        among.check(made.len() * w.output[1], out.len());
        assert!(among.channels == n && (epilogue.residual.is_none() || among.is_alone()));
        assert!(epilogue.bias.len() == n && epilogue.residual.is_none_or(|r| r.len() == out.len()));
        let count = rows.len() * columns;
        let (pixels, sums) = scratch[..self.scratch(rows.len())].split_at_mut(count * VALUES * self.channels);
        // SAFETY: the lengths are those that the loops count to.
        unsafe { input_run(self.isa, w, self.channels, input, rows.clone(), pixels) }
        let nothing = Epilogue { bias: &self.zeros, residual: None, low: f32::NEG_INFINITY, high: f32::INFINITY };
        let parts = pixels.chunks_exact(count * self.channels).zip(sums.chunks_exact_mut(count * n));
        for (filter, (pixels, sums)) in self.filters.iter().zip(parts) {
            gemm(pixels, Places { starts: &self.starts[..count], pitch: 0 }, filter, &nothing, sums);
        }
        // SAFETY: as above.
        unsafe { output_run(self.isa, w, among, sums, rows, epilogue, out) }
    }
}

/// Rows and columns of tiles.
fn tiles(w: &Window) -> [usize; 2] {
    w.output.map(|o| o.div_ceil(2))
}

/// G g Gᵀ of a filter of nine taps.
fn transform(taps: &[f32; 9]) -> [f32; VALUES] {
    let line = |[a, b, c]: [f64; 3]| [a, (a + b + c) / 2.0, (a - b + c) / 2.0, c];
    let tap = |i: usize, j: usize| f64::from(taps[3 * i + j]);
    // Down the columns, then along the rows.
    let columns: [[f64; 4]; 3] = std::array::from_fn(|j| line([tap(0, j), tap(1, j), tap(2, j)]));
    let rows: [[f64; 4]; 4] = std::array::from_fn(|i| line([columns[0][i], columns[1][i], columns[2][i]]));
    std::array::from_fn(|at| rows[at / 4][at % 4] as f32)
}

kernel! {
    fn input_run(w: &Window, channels: usize, input: &[f32], rows: Range<usize>, out: &mut [f32]) = input_body
}

/// Bᵀ d B of the pixels under each tile; the values of all tiles lie beside each other.
#[inline(always)]
unsafe fn input_body<S: Simd>(s: S, w: &Window, channels: usize, input: &[f32], rows: Range<usize>, out: &mut [f32]) {
    let columns = w.output[1].div_ceil(2);
    let pitch = out.len() / VALUES;
    let minus = s.splat(-1.0);
    let less = |a: S::V, b: S::V| s.fma(b, minus, a);
    for (row, y) in rows.enumerate() {
        for x in 0..columns {
            // Where the 16 pixels are, and whether they are there.
            let mut from = [0; VALUES];
            let mut inside = [false; VALUES];
            for at in 0..VALUES {
                let line = (2 * y + at / 4).wrapping_sub(w.before[0]);
                let column = (2 * x + at % 4).wrapping_sub(w.before[1]);
                if line < w.input[0] && column < w.input[1] {
                    (from[at], inside[at]) = ((line * w.input[1] + column) * channels, true);
                }
            }
            let whole = inside.iter().all(|i| *i);
            let to = (row * columns + x) * channels;
            for channel in (0..channels).step_by(S::LANES) {
                // SAFETY: `run` asserted the lengths; each pixel is inside or not read.
                unsafe {
                    let mut d = [s.splat(0.0); VALUES];
                    for at in 0..VALUES {
                        if whole || inside[at] {
                            d[at] = s.load(input.as_ptr().add(from[at] + channel));
                        }
                    }
                    let mut t = d;
                    for j in 0..4 {
                        t[j] = less(d[j], d[8 + j]);
                        t[4 + j] = s.add(d[4 + j], d[8 + j]);
                        t[8 + j] = less(d[8 + j], d[4 + j]);
                        t[12 + j] = less(d[4 + j], d[12 + j]);
                    }
                    for i in 0..4 {
                        let [a, b, c, e] = [t[4 * i], t[4 * i + 1], t[4 * i + 2], t[4 * i + 3]];
                        let line = [less(a, c), s.add(b, c), less(c, b), less(b, e)];
                        for (j, value) in line.into_iter().enumerate() {
                            s.store(out.as_mut_ptr().add((4 * i + j) * pitch + to + channel), value);
                        }
                    }
                }
            }
        }
    }
}

kernel! {
    fn output_run(
        w: &Window, among: Among, sums: &[f32], rows: Range<usize>, epilogue: &Epilogue<'_>, out: &mut [f32],
    ) = output_body
}

/// Aᵀ m A of the sums of each tile, and the epilogue.
#[inline(always)]
unsafe fn output_body<S: Simd>(
    s: S,
    w: &Window,
    among: Among,
    sums: &[f32],
    rows: Range<usize>,
    epilogue: &Epilogue<'_>,
    out: &mut [f32],
) {
    let ([height, width], n) = (w.output, among.channels);
    let columns = width.div_ceil(2);
    let pitch = sums.len() / VALUES;
    let minus = s.splat(-1.0);
    let less = |a: S::V, b: S::V| s.fma(b, minus, a);
    let [low, high] = [s.splat(epilogue.low), s.splat(epilogue.high)];
    for (row, y) in rows.enumerate() {
        for x in 0..columns {
            let from = (row * columns + x) * n;
            for column in (0..n).step_by(S::LANES) {
                // SAFETY: `run` asserted the lengths.
                unsafe {
                    let mut m = [s.splat(0.0); VALUES];
                    for (at, m) in m.iter_mut().enumerate() {
                        *m = s.load(sums.as_ptr().add(at * pitch + from + column));
                    }
                    let mut t = [s.splat(0.0); 8];
                    for j in 0..4 {
                        t[j] = s.add(s.add(m[j], m[4 + j]), m[8 + j]);
                        t[4 + j] = less(less(m[4 + j], m[8 + j]), m[12 + j]);
                    }
                    let bias = s.load(epilogue.bias.as_ptr().add(column));
                    for i in 0..2 {
                        let [a, b, c, e] = [t[4 * i], t[4 * i + 1], t[4 * i + 2], t[4 * i + 3]];
                        let line = [s.add(s.add(a, b), c), less(less(b, c), e)];
                        for (j, value) in line.into_iter().enumerate() {
                            if 2 * y + i >= height || 2 * x + j >= width {
                                continue;
                            }
                            let at = ((2 * row + i) * width + 2 * x + j) * among.pitch + among.first + column;
                            let mut value = s.add(value, bias);
                            if let Some(residual) = epilogue.residual {
                                value = s.add(value, s.load(residual.as_ptr().add(at)));
                            }
                            s.store(out.as_mut_ptr().add(at), s.min(high, s.max(low, value)));
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::{amongs, noise, taken};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]
        #[test]
        fn any_picture(
            size in [3..20_usize, 3..20_usize], before in [0..3_usize, 0..3_usize], after in [0..3_usize, 0..3_usize],
            inputs in 1..40_usize, outputs in 1..40_usize, seed in 0..99_u64, added: bool, threads in 1..4_usize,
        ) {
            let w = Window::new(size, [3, 3], [1, 1], [1, 1], before, after).expect("three pixels are enough");
            for isa in Isa::available() {
                let filter = noise(seed, 9 * inputs * outputs);
                let tap = |o: usize, i: usize, t: usize| filter[(o * inputs + i) * 9 + t];
                let layer = Winograd::new(isa, w, inputs, outputs, tap);
                let (channels, n) = (layer.channels(), layer.n());
                let input = noise(seed + 1, size[0] * size[1] * channels);
                let bias = noise(seed + 2, n);
                let residual = noise(seed + 3, w.positions() * n);
                let among = amongs(isa, n)[usize::from(!added && seed % 2 == 0)];
                let mut out = vec![f32::NAN; w.positions() * among.pitch];
                let rows = layer.rows(threads);
                let mut scratch = vec![f32::NAN; layer.scratch(rows)];
                let piece = 2 * rows * w.output[1] * among.pitch;
                for (at, out) in out.chunks_mut(piece).enumerate() {
                    let end = ((at + 1) * rows).min(w.output[0].div_ceil(2));
                    let residual = added.then(|| &residual[at * piece..at * piece + out.len()]);
                    let epilogue = Epilogue { bias: &bias, residual, low: -1.5, high: f32::INFINITY };
                    layer.run(&input, at * rows..end, &epilogue, &mut scratch, among, out);
                }
                let out = taken(among, &out);
                for at in 0..w.positions() {
                    for o in 0..outputs {
                        let mut sum = f64::from(bias[o]) + if added { f64::from(residual[at * n + o]) } else { 0.0 };
                        for t in 0..9 {
                            let source = w.source(0, at / w.output[1], t / 3).zip(w.source(1, at % w.output[1], t % 3));
                            let Some((y, x)) = source else { continue };
                            for i in 0..inputs {
                                let pixel = input[(y * w.input[1] + x) * channels + i];
                                sum += f64::from(pixel) * f64::from(tap(o, i, t));
                            }
                        }
                        let (found, wanted) = (f64::from(out[at * n + o]), sum.max(-1.5));
                        prop_assert!((found - wanted).abs() < 3e-6 * (9.0 * inputs as f64).sqrt().max(1.0) * 2.0, "{found} for {wanted}");
                    }
                }
            }
        }
    }
}
