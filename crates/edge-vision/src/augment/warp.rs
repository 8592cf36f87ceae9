//! `scipy.ndimage.affine_transform(order=1)` on three interleaved channels, bit for bit (SciPy 1.17,
//! `ni_interpolation.c`: `NI_GeometricTransform`, `map_coordinate`, `get_spline_interpolation_weights`).

use super::Fill;
use crate::frame::Picture;

/// The product of two affine matrices whose last row, 0 0 1, isn't written.
///
/// The fused product is NumPy's, whose BLAS uses it on every processor that has it. A sheared picture has pixels
/// that come from exactly its border, and whether they are black hangs on the last bit.
pub(super) fn product(a: &[[f64; 3]; 2], b: &[[f64; 3]; 2]) -> [[f64; 3]; 2] {
    a.map(|[p, q, r]| std::array::from_fn(|i| q.mul_add(b[1][i], p * b[0][i]) + if i == 2 { r } else { 0.0 }))
}

/// Sine and cosine of an angle in degrees, to about the last bit.
///
/// The standard library's call the platform's, which differ in the last bit from machine to machine.
pub(super) fn sin_cos(degrees: f64) -> (f64, f64) {
    let quarter = (degrees / 90.0).round();
    let x = (degrees - quarter * 90.0) * (std::f64::consts::PI / 180.0);
    // The Taylor series, from their small ends: within an eighth of a turn ten terms leave less than 1e-20. What is
    // added to the large first term is small, so that its error hardly counts.
    let (mut sin, mut cos) = (0.0, 0.0);
    for k in (1..=10_u8).rev().map(|k| f64::from(2 * k)) {
        sin = -(x * x / (k * (k + 1.0))) * (1.0 + sin);
        cos = -(x * x / (k * (k - 1.0))) * (1.0 + cos);
    }
    let (sin, cos) = (x + x * sin, 1.0 + cos);
    match (quarter as i64).rem_euclid(4) {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

/// The two pixels along one axis that a point lies between, and their weights.
struct Between {
    at: [usize; 2],
    weights: [f64; 2],
}

/// `None` where the point is black.
#[inline(always)]
fn between(at: f64, len: usize, fill: Fill) -> Option<Between> {
    let end = len as i64 - 1;
    let at = if at < 0.0 || at > end as f64 { beyond(at, len as f64, fill)? } else { at };
    let whole = at as i64;
    let floor = whole.saturating_sub(i64::from(whole as f64 > at));
    // SciPy makes the second weight of the first one; that isn't always the fraction itself.
    let first = 1.0 - (at - floor as f64);
    // SciPy mirrors what lies beyond here in a mode of its own, but only in `reflect`, which mirrors it onto the
    // border, has such a pixel a weight other than zero.
    let index = |i: i64| i.clamp(0, end) as usize;
    Some(Between { at: [index(floor), index(floor.saturating_add(1))], weights: [first, 1.0 - first] })
}

/// Where a point beyond the border is taken from: SciPy's `map_coordinate`.
///
/// What is whole is computed with floats as well: it is exact below 2^53, and above it nothing overflows.
#[cold]
fn beyond(at: f64, len: f64, fill: Fill) -> Option<f64> {
    match fill {
        Fill::Constant => None,
        Fill::Nearest => Some(if at < 0.0 { 0.0 } else { len - 1.0 }),
        Fill::Reflect | Fill::Wrap if len <= 1.0 => Some(0.0),
        Fill::Reflect => {
            let period = 2.0 * len;
            if at >= 0.0 {
                let at = at - period * (at / period).trunc();
                return Some(if at >= len { period - at - 1.0 } else { at });
            }
            let at = if at < -period { period * (-at / period).trunc() + at } else { at };
            Some(if at < -len {
                at + period
            } else if at > -f64::EPSILON {
                // Just short of -1, so that the point doesn't count as one outside.
                1e-15 - 1.0
            } else {
                -at - 1.0
            })
        }
        Fill::Wrap => {
            // The period is one pixel shorter than the picture.
            let period = len - 1.0;
            Some(if at < 0.0 {
                at + period * ((-at / period).trunc() + 1.0)
            } else {
                at - period * (at / period).trunc()
            })
        }
    }
}

/// The picture whose pixel at (row, column) is taken from where `matrix` sends (row, column, 1).
///
/// Every product and sum is rounded in SciPy's order, which matters where brightness cuts fractions off after it.
pub(super) fn affine(picture: &Picture, matrix: &[[f64; 3]; 2], fill: Fill) -> Vec<f32> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let source = picture.pixels().as_chunks::<3>().0;
    let mut out = vec![0.0; source.len() * 3];
    let [[yy, yx, y0], [xy, xx, x0]] = *matrix;
    for (row, line) in out.chunks_exact_mut(width * 3).enumerate() {
        let (row_y, row_x) = (row as f64 * yy, row as f64 * xy);
        for (column, px) in line.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let column = column as f64;
            let (y, x) = (row_y + column * yx + y0, row_x + column * xx + x0);
            let (Some(y), Some(x)) = (between(y, height, fill), between(x, width, fill)) else {
                continue;
            };
            let mut sum = [0.0_f64; 3];
            for (row, above) in y.at.into_iter().zip(y.weights) {
                for (column, before) in x.at.into_iter().zip(x.weights) {
                    for (s, &byte) in sum.iter_mut().zip(&source[row * width + column]) {
                        *s += f64::from(byte) * above * before;
                    }
                }
            }
            *px = sum.map(|s| s as f32);
        }
    }
    out
}
