//! How a picture of one size becomes one of another: what depends on the sizes, but not on the pixels.

use std::ops::Range;

use super::{PassOrder, ResizeError, ResizePolicy, ResizeSpec};
use crate::resample::{self, Axis, Block};

/// All that depends on the size of the source, but not on its pixels.
pub(super) struct Plan {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Columns and rows of the resized picture that are kept.
    pub(super) window: (Range<usize>, Range<usize>),
    /// Where they lie in the result, as a row-major block; something else than the whole only after padding.
    pub(super) target: Block,
    /// What lies beside it, where it isn't the whole.
    pub(super) padding: Option<[u8; 3]>,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    Copy,
    Nearest { columns: Vec<Option<usize>>, rows: Vec<Option<usize>> },
    Horizontal(Axis),
    Vertical(Axis),
    HorizontalThenVertical(Axis, Axis),
    VerticalThenHorizontal(Axis, Axis),
}

/// Python's `int(round(n / 2.0))` for non-negative `n`: halves go to the even neighbour.
fn half_to_even(n: usize) -> usize {
    n / 2 + usize::from(n % 4 == 3)
}

/// Pillow's `ImageOps.contain`: the largest size within `to` that keeps the proportions of `from`, as (width, height).
///
/// One of the sides is zero where the picture is so thin that nothing of it is left.
fn contain(from: (usize, usize), to: (usize, usize)) -> (usize, usize) {
    let [w, h, to_w, to_h] = [from.0, from.1, to.0, to.1].map(|n| n as f64);
    let (ratio, wanted) = (w / h, to_w / to_h);
    // The quotient comes first, as in Python: it decides which way a half goes.
    if ratio > wanted {
        (to.0, (h / w * to_w).round_ties_even() as usize)
    } else if ratio < wanted {
        ((w / h * to_h).round_ties_even() as usize, to.1)
    } else {
        to
    }
}

/// torchvision's `CenterCrop` along one axis: what is kept of `size`, and how much black goes before it.
fn center_crop(size: usize, crop: usize) -> (Range<usize>, usize) {
    if crop > size {
        return (0..size, (crop - size) / 2);
    }
    let first = half_to_even(size - crop);
    (first..first + crop, 0)
}

impl Plan {
    pub(super) fn new(spec: &ResizeSpec, order: PassOrder, width: u32, height: u32) -> Result<Self, ResizeError> {
        let (in_w, in_h) = (width as usize, height as usize);
        let (to_w, to_h) = (spec.width as usize, spec.height as usize);
        let (full_w, full_h) = match spec.policy {
            ResizePolicy::Squash => (to_w, to_h),
            ResizePolicy::FitShortest { shortest } => {
                let (short, long) = (u64::from(width.min(height)), u64::from(width.max(height)));
                // torchvision: int(shortest * long / short); the quotient is exact enough for int() to floor it.
                let new_long = u64::from(shortest) * long / short;
                // A side beyond this is no photo, and walking along it takes seconds.
                if new_long > 1 << 26 {
                    return Err(ResizeError::TooLong { width, height, shortest, long: new_long });
                }
                let (shortest, new_long) = (shortest as usize, new_long as usize);
                if width <= height { (shortest, new_long) } else { (new_long, shortest) }
            }
            ResizePolicy::FitLongest { .. } => contain((in_w, in_h), (to_w, to_h)),
        };
        let (color, (columns, left), (rows, top)) = match spec.policy {
            ResizePolicy::FitLongest { color } => {
                let middle = |full, to| (0..full, half_to_even(to - full));
                (color, middle(full_w, to_w), middle(full_h, to_h))
            }
            _ => ([0; 3], center_crop(full_w, to_w), center_crop(full_h, to_h)),
        };
        let filter = spec.interpolation.filter();
        let kind = if (full_w, full_h) == (in_w, in_h) {
            Kind::Copy
        } else if let Some(filter) = filter.filter(|_| full_w > 0 && full_h > 0) {
            let possible = (full_w == in_w || Axis::is_possible(in_w, full_w, filter, columns.len()))
                && (full_h == in_h || Axis::is_possible(in_h, full_h, filter, rows.len()));
            if !possible {
                return Err(ResizeError::TooThin { width, height });
            }
            // Pillow 13 ImagingResampleInner, with the same signed comparison.
            let (less_w, less_h) = (in_w as i64 - full_w as i64, in_h as i64 - full_h as i64);
            let vertical_first = order == PassOrder::Pillow13 && less_h > 0 && less_h > less_w * 2;
            let x = || Axis::new(in_w, full_w, filter, columns.clone());
            let y = || Axis::new(in_h, full_h, filter, rows.clone());
            match (full_w != in_w, full_h != in_h) {
                (true, true) if vertical_first => Kind::VerticalThenHorizontal(y(), x()),
                (true, true) => Kind::HorizontalThenVertical(x(), y()),
                (true, false) => Kind::Horizontal(x()),
                _ => Kind::Vertical(y()),
            }
        } else {
            Kind::Nearest {
                columns: resample::nearest(in_w, full_w, columns.clone()),
                rows: resample::nearest(in_h, full_h, rows.clone()),
            }
        };
        let padding = (columns.len() < to_w || rows.len() < to_h).then_some(color);
        let target = Block { offset: (top * to_w + left) * 3, stride: to_w * 3 };
        Ok(Self { width, height, window: (columns, rows), target, padding, kind })
    }

    /// Writes the kept part of the resized `src` to `dst`; `between` holds what lies between two passes.
    pub(super) fn run(&self, src: &[u8], between: &mut Vec<u8>, dst: &mut [u8]) {
        let stride = self.width as usize * 3;
        let (columns, rows) = &self.window;
        let row_bytes = columns.len() * 3;
        let whole = Block { offset: 0, stride };
        let packed = |stride| Block { offset: 0, stride };
        match &self.kind {
            Kind::Copy => {
                for (out_y, y) in rows.clone().enumerate() {
                    let (from, to) = (y * stride + columns.start * 3, self.target.offset + out_y * self.target.stride);
                    dst[to..to + row_bytes].copy_from_slice(&src[from..from + row_bytes]);
                }
            }
            Kind::Nearest { columns, rows } => {
                for (out_y, y) in rows.iter().enumerate() {
                    let to = self.target.offset + out_y * self.target.stride;
                    let out = &mut dst[to..to + row_bytes];
                    let Some(y) = y else {
                        out.fill(0);
                        continue;
                    };
                    let row = src[y * stride..(y + 1) * stride].as_chunks::<3>().0;
                    for (px, x) in out.as_chunks_mut::<3>().0.iter_mut().zip(columns) {
                        *px = x.map_or([0; 3], |x| row[x]);
                    }
                }
            }
            Kind::Horizontal(x) => {
                resample::horizontal(x, (src, whole), 0, rows.clone(), (dst, self.target));
            }
            Kind::Vertical(y) => {
                let source = Block { offset: columns.start * 3, stride };
                resample::vertical(y, (src, source), 0, row_bytes, (dst, self.target));
            }
            Kind::HorizontalThenVertical(x, y) => {
                let span = y.span();
                between.resize(span.len() * row_bytes, 0);
                let block = packed(row_bytes);
                resample::horizontal(x, (src, whole), 0, span.clone(), (between, block));
                resample::vertical(y, (between, block), span.start, row_bytes, (dst, self.target));
            }
            Kind::VerticalThenHorizontal(y, x) => {
                let span = x.span();
                let span_bytes = span.len() * 3;
                between.resize(rows.len() * span_bytes, 0);
                let block = packed(span_bytes);
                let source = Block { offset: span.start * 3, stride };
                resample::vertical(y, (src, source), 0, span_bytes, (between, block));
                resample::horizontal(x, (between, block), span.start, 0..rows.len(), (dst, self.target));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_round_as_in_python() {
        let got: Vec<usize> = (0..12).map(half_to_even).collect();
        assert_eq!(got, [0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 5, 6]);
    }

    #[test]
    fn proportions_are_kept_as_pillow_rounds_them() {
        for (from, to, expected) in [
            ((1280, 720), (299, 299), (299, 168)),
            ((720, 1280), (299, 299), (168, 299)),
            ((4, 2), (5, 5), (5, 2)),
            ((4, 6), (7, 9), (6, 9)),
            ((1000, 1), (9, 9), (9, 0)),
            ((3, 3), (7, 7), (7, 7)),
        ] {
            assert_eq!(contain(from, to), expected, "{from:?} into {to:?}");
        }
    }
}
