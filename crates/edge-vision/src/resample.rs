//! Pillow's resampling filters in fixed point, following Pillow 13 `Resample.c`.
//!
//! A filter becomes, for each place along one axis, a short run of source places and their weights as 22-bit
//! fixed-point integers. Both passes keep 8 bits between them. The sums can't overflow 32 bits (Pillow keeps
//! two spare bits for that), so wrapping arithmetic only spares the checks and lets the loops vectorise.

use std::ops::Range;

/// Pillow's `PRECISION_BITS`: 8 bits of result, 2 bits for weights above one and below zero.
const PRECISION_BITS: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// Bytes of a row summed at once in the vertical pass, so that the sums stay in registers.
const STRIP: usize = 48;

/// A kernel and the distance at which it becomes zero, in source places at scale one.
pub(crate) struct Filter {
    pub weight: fn(f64) -> f64,
    pub support: f64,
}

pub(crate) const BOX: Filter = Filter { weight: box_filter, support: 0.5 };
pub(crate) const BILINEAR: Filter = Filter { weight: bilinear, support: 1.0 };
pub(crate) const HAMMING: Filter = Filter { weight: hamming, support: 1.0 };
pub(crate) const BICUBIC: Filter = Filter { weight: bicubic, support: 2.0 };
pub(crate) const LANCZOS: Filter = Filter { weight: lanczos, support: 3.0 };

fn box_filter(x: f64) -> f64 {
    if x > -0.5 && x <= 0.5 { 1.0 } else { 0.0 }
}

fn bilinear(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 { 1.0 - x } else { 0.0 }
}

fn hamming(x: f64) -> f64 {
    let x = x.abs();
    if x == 0.0 {
        return 1.0;
    }
    if x >= 1.0 {
        return 0.0;
    }
    let x = x * std::f64::consts::PI;
    // The constants are floats in Pillow's source and widen before they are used.
    x.sin() / x * (f64::from(0.54_f32) + f64::from(0.46_f32) * x.cos())
}

fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        return ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    }
    if x < 2.0 {
        return (((x - 5.0) * x + 8.0) * x - 4.0) * A;
    }
    0.0
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x
}

fn lanczos(x: f64) -> f64 {
    if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}

/// The weights of one axis, for the part of the output that is wanted.
pub(crate) struct Axis {
    /// For each output place the first source place and how many follow.
    runs: Vec<(usize, usize)>,
    /// `width` weights for each output place, of which the run's length counts.
    weights: Vec<i32>,
    width: usize,
}

/// The most weights one axis may have, 256 MiB of them: enough for sides of ten million pixels.
const MAX_WEIGHTS: usize = 64 << 20;

impl Axis {
    /// Whether the weights of such an axis fit the memory they are allowed.
    pub(crate) fn is_possible(in_size: usize, out_size: usize, filter: &Filter, window: usize) -> bool {
        let scale = (in_size as f64 / out_size as f64).max(1.0);
        (filter.support * scale).ceil() * 2.0 * window as f64 <= MAX_WEIGHTS as f64
    }

    /// Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc` for the places `window` of `out_size`.
    pub(crate) fn new(in_size: usize, out_size: usize, filter: &Filter, window: Range<usize>) -> Self {
        let scale = in_size as f64 / out_size as f64;
        let filter_scale = scale.max(1.0);
        let support = filter.support * filter_scale;
        let inverse = 1.0 / filter_scale;
        let width = (support.ceil() as usize * 2 + 1).min(in_size.max(1));
        let mut runs = Vec::with_capacity(window.len());
        let mut weights = Vec::with_capacity(window.len() * width);
        let mut run = Vec::with_capacity(width);
        for place in window {
            let center = (place as f64 + 0.5) * scale;
            // `as` cuts towards zero and stops at zero, as the C cast and its clamp do.
            let first = (center - support + 0.5) as usize;
            let last = ((center + support + 0.5) as usize).min(in_size);
            run.clear();
            run.extend((first..last).map(|i| (filter.weight)((i as f64 - center + 0.5) * inverse)));
            // Added from the left, as in C; the order of a sum decides its last bit.
            let sum: f64 = run.iter().fold(0.0, |sum, w| sum + w);
            runs.push((first, run.len()));
            weights.extend(run.iter().map(|&w| fixed(if sum == 0.0 { w } else { w / sum })));
            weights.resize(runs.len() * width, 0);
        }
        Self { runs, weights, width }
    }

    /// The source places that any output place reads.
    pub(crate) fn span(&self) -> Range<usize> {
        let first = self.runs.iter().map(|r| r.0).min().unwrap_or(0);
        let end = self.runs.iter().map(|r| r.0 + r.1).max().unwrap_or(0);
        first..end.max(first)
    }

    fn places(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.runs.iter().zip(self.weights.chunks_exact(self.width)).map(|(&(first, len), w)| (first, &w[..len]))
    }
}

fn fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1_i32 << PRECISION_BITS);
    if weight < 0.0 { (scaled - 0.5) as i32 } else { (scaled + 0.5) as i32 }
}

fn clip8(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// A block of RGB rows inside a larger buffer: where it begins and how far its rows lie apart, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub offset: usize,
    pub stride: usize,
}

impl Block {
    fn row(self, y: usize) -> usize {
        self.offset + y * self.stride
    }
}

/// Filters along x: source rows `rows` become output rows 0, 1, ….
///
/// `first_column` is the source column at which `source` begins.
pub(crate) fn horizontal(
    axis: &Axis,
    (src, source): (&[u8], Block),
    first_column: usize,
    rows: Range<usize>,
    (dst, target): (&mut [u8], Block),
) {
    for (out_y, y) in rows.enumerate() {
        let row = &src[source.row(y)..];
        let out = dst[target.row(out_y)..].as_chunks_mut::<3>().0;
        for ((first, weights), px) in axis.places().zip(out) {
            let from = (first - first_column) * 3;
            *px = weigh_pixels(row, from, weights);
        }
    }
}

/// The weighted sum of `weights.len()` pixels of `row` from byte `from` on.
#[inline]
fn weigh_pixels(row: &[u8], from: usize, weights: &[i32]) -> [u8; 3] {
    let taps = row[from..from + weights.len() * 3].as_chunks::<3>().0;
    let mut sums = [HALF; 3];
    for (px, &w) in taps.iter().zip(weights) {
        for (sum, &byte) in sums.iter_mut().zip(px) {
            *sum = sum.wrapping_add(i32::from(byte).wrapping_mul(w));
        }
    }
    sums.map(clip8)
}

/// Filters along y: `bytes` bytes of each row.
///
/// `first_row` is the source row at which `source` begins.
pub(crate) fn vertical(
    axis: &Axis,
    (src, source): (&[u8], Block),
    first_row: usize,
    bytes: usize,
    (dst, target): (&mut [u8], Block),
) {
    for (out_y, (first, weights)) in axis.places().enumerate() {
        let top = source.row(first - first_row);
        let at = target.row(out_y);
        let out = &mut dst[at..at + bytes];
        for (strip, out) in out.chunks_mut(STRIP).enumerate() {
            let mut sums = [HALF; STRIP];
            for (tap, &w) in weights.iter().enumerate() {
                let from = top + tap * source.stride + strip * STRIP;
                let row = &src[from..from + out.len()];
                if let Ok(row) = <&[u8; STRIP]>::try_from(row) {
                    for (sum, &byte) in sums.iter_mut().zip(row) {
                        *sum = sum.wrapping_add(i32::from(byte).wrapping_mul(w));
                    }
                } else {
                    for (sum, &byte) in sums.iter_mut().zip(row) {
                        *sum = sum.wrapping_add(i32::from(byte).wrapping_mul(w));
                    }
                }
            }
            for (o, &sum) in out.iter_mut().zip(&sums) {
                *o = clip8(sum);
            }
        }
    }
}

/// Pillow's `ImagingScaleAffine` along one axis: the source place of each output place in `window`.
///
/// The position is accumulated from zero, as Pillow does: multiplying instead gives other places now and then.
/// `None` is a place that rounding pushed past the end; Pillow leaves it black.
pub(crate) fn nearest(in_size: usize, out_size: usize, window: Range<usize>) -> Vec<Option<usize>> {
    let step = in_size as f64 / out_size as f64;
    let mut position = step * 0.5;
    let mut places = Vec::with_capacity(window.len());
    for place in 0..window.end {
        if place >= window.start {
            let at = position as usize;
            places.push((at < in_size).then_some(at));
        }
        position += step;
    }
    places
}
