//! Picture to the size a model reads, bit for bit as Pillow.
//!
//! [`ResizePolicy::Squash`] is Keras' `load_img(target_size=…)`; [`ResizePolicy::FitShortest`] is
//! torchvision's `Resize` followed by `CenterCrop`. Nearest follows Pillow 13 `Geometry.c`
//! (`ImagingScaleAffine`), the other filters `Resample.c`.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::frame::{FrameError, Picture};
use crate::resample::{self, Axis, BICUBIC, BILINEAR, BOX, Block, Filter, HAMMING, LANCZOS};

/// How a pixel between pixels gets its value; the names are Keras'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// The nearest pixel; Keras' default.
    #[default]
    Nearest,
    /// Triangle of two pixels, wider when shrinking.
    Bilinear,
    /// Cubic with a = -0.5 over four pixels.
    Bicubic,
    /// Windowed sine over six pixels.
    Lanczos,
    /// The mean of the pixels that fall together.
    Box,
    /// Hamming-windowed sine over two pixels.
    Hamming,
}

impl Interpolation {
    /// Every interpolation, in the order of the declaration.
    pub const ALL: [Self; 6] = [Self::Nearest, Self::Bilinear, Self::Bicubic, Self::Lanczos, Self::Box, Self::Hamming];

    /// The lower-case name, as Keras spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
            Self::Lanczos => "lanczos",
            Self::Box => "box",
            Self::Hamming => "hamming",
        }
    }

    fn filter(self) -> Option<&'static Filter> {
        match self {
            Self::Nearest => None,
            Self::Bilinear => Some(&BILINEAR),
            Self::Bicubic => Some(&BICUBIC),
            Self::Lanczos => Some(&LANCZOS),
            Self::Box => Some(&BOX),
            Self::Hamming => Some(&HAMMING),
        }
    }
}

/// The name of an interpolation isn't known.
#[derive(Debug, thiserror::Error)]
#[error("unknown interpolation {0:?}; known: nearest, bilinear, bicubic, lanczos, box, hamming")]
pub struct UnknownInterpolation(
    /// What was asked for.
    pub String,
);

impl FromStr for Interpolation {
    type Err = UnknownInterpolation;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|i| i.name() == s).ok_or_else(|| UnknownInterpolation(s.to_owned()))
    }
}

impl fmt::Display for Interpolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happens to a picture whose sides stand in another proportion than the model's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResizePolicy {
    /// Both sides are scaled on their own; Keras' `load_img`.
    #[default]
    Squash,
    /// The shorter side is scaled to `shortest`, then the middle is cut out; torchvision's usual transform.
    ///
    /// Where the scaled picture is smaller than the model's size, black is added around it, as
    /// torchvision's `CenterCrop` does.
    FitShortest {
        /// Length of the shorter side before the cut, in pixels.
        shortest: u32,
    },
}

/// The size a model reads and the way there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ResizeSpec {
    /// Width of the result in pixels.
    pub width: u32,
    /// Height of the result in pixels.
    pub height: u32,
    /// What happens to the proportions.
    pub policy: ResizePolicy,
    /// How pixels are filtered.
    pub interpolation: Interpolation,
}

/// Which Pillow's order of passes the filters follow; nearest is the same in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PassOrder {
    /// Pillow 13: vertical first where the height shrinks by more than twice as many pixels as the width.
    #[default]
    Pillow13,
    /// Pillow 12 and before: always horizontal first.
    Pillow12,
}

/// Why a picture can't be resized.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// The wanted size has no pixels or can't be addressed.
    #[error(transparent)]
    Size(#[from] FrameError),
    /// The shorter side was asked to become zero pixels long.
    #[error("the shorter side can't be resized to 0 pixels")]
    NoShortest,
    /// One side is so long that its filter weights would not fit any memory.
    #[error("a picture of {width}x{height} is too long on one side to be filtered")]
    TooThin {
        /// Width of the picture in pixels.
        width: u32,
        /// Height of the picture in pixels.
        height: u32,
    },
    /// The longer side would become absurdly long.
    #[error("resizing {width}x{height} to a shorter side of {shortest} makes the longer side {long} pixels long")]
    TooLong {
        /// Width of the picture in pixels.
        width: u32,
        /// Height of the picture in pixels.
        height: u32,
        /// The shorter side asked for, in pixels.
        shortest: u32,
        /// What the longer side would become, in pixels.
        long: u64,
    },
}

/// Resizes pictures, keeping weights and buffers between pictures of equal size.
pub struct Resizer {
    spec: ResizeSpec,
    order: PassOrder,
    plan: Option<Plan>,
    between: Vec<u8>,
    out: Option<Picture>,
}

/// All that depends on the size of the source, but not on its pixels.
struct Plan {
    width: u32,
    height: u32,
    /// Columns and rows of the resized picture that are kept.
    window: (Range<usize>, Range<usize>),
    /// Where they lie in the result, as a row-major block; something else than the whole only after padding.
    target: Block,
    padded: bool,
    kind: Kind,
}

enum Kind {
    Copy,
    Nearest { columns: Vec<Option<usize>>, rows: Vec<Option<usize>> },
    Horizontal(Axis),
    Vertical(Axis),
    HorizontalThenVertical(Axis, Axis),
    VerticalThenHorizontal(Axis, Axis),
}

impl Resizer {
    /// A resizer that follows the current Pillow.
    ///
    /// # Errors
    ///
    /// [`ResizeError::Size`] where the wanted size has no pixels, [`ResizeError::NoShortest`].
    pub fn new(spec: ResizeSpec) -> Result<Self, ResizeError> {
        Self::with_order(spec, PassOrder::default())
    }

    /// A resizer that follows the Pillow named by `order`.
    ///
    /// # Errors
    ///
    /// As [`Resizer::new`].
    pub fn with_order(spec: ResizeSpec, order: PassOrder) -> Result<Self, ResizeError> {
        if spec.width == 0 || spec.height == 0 {
            return Err(FrameError::Empty { width: spec.width, height: spec.height }.into());
        }
        if spec.policy == (ResizePolicy::FitShortest { shortest: 0 }) {
            return Err(ResizeError::NoShortest);
        }
        Ok(Self { spec, order, plan: None, between: Vec::new(), out: None })
    }

    /// What this resizer was made for.
    #[must_use]
    pub fn spec(&self) -> &ResizeSpec {
        &self.spec
    }

    /// The resized picture; it lies in the resizer and is overwritten by the next call.
    ///
    /// # Errors
    ///
    /// [`ResizeError::Size`] where the result can't be addressed, [`ResizeError::TooLong`].
    pub fn resize(&mut self, picture: &Picture) -> Result<&Picture, ResizeError> {
        let mut out = match self.out.take() {
            Some(out) => out,
            None => Picture::blank(self.spec.width, self.spec.height)?,
        };
        self.resize_into(picture, &mut out)?;
        Ok(self.out.insert(out))
    }

    /// Resizes into `out`, whose allocation is reused whatever its shape was.
    ///
    /// # Errors
    ///
    /// As [`Resizer::resize`]; `out` is unchanged then.
    pub fn resize_into(&mut self, picture: &Picture, out: &mut Picture) -> Result<(), ResizeError> {
        let plan = match self.plan.take() {
            Some(plan) if plan.width == picture.width() && plan.height == picture.height() => plan,
            _ => Plan::new(&self.spec, self.order, picture.width(), picture.height())?,
        };
        out.reshape(self.spec.width, self.spec.height)?;
        if plan.padded {
            out.pixels_mut().fill(0);
        }
        plan.run(picture.pixels(), &mut self.between, out.pixels_mut());
        self.plan = Some(plan);
        Ok(())
    }
}

/// Python's `int(round(n / 2.0))` for non-negative `n`: halves go to the even neighbour.
fn half_to_even(n: usize) -> usize {
    n / 2 + usize::from(n % 4 == 3)
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
    fn new(spec: &ResizeSpec, order: PassOrder, width: u32, height: u32) -> Result<Self, ResizeError> {
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
        };
        let (columns, left) = center_crop(full_w, to_w);
        let (rows, top) = center_crop(full_h, to_h);
        let filter = spec.interpolation.filter();
        let kind = if (full_w, full_h) == (in_w, in_h) {
            Kind::Copy
        } else if let Some(filter) = filter {
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
        let padded = columns.len() < to_w || rows.len() < to_h;
        let target = Block { offset: (top * to_w + left) * 3, stride: to_w * 3 };
        Ok(Self { width, height, window: (columns, rows), target, padded, kind })
    }

    /// Writes the kept part of the resized `src` to `dst`; `between` holds what lies between two passes.
    fn run(&self, src: &[u8], between: &mut Vec<u8>, dst: &mut [u8]) {
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
    fn names_round_trip() {
        for i in Interpolation::ALL {
            assert_eq!(i.to_string().parse::<Interpolation>().unwrap(), i);
            assert_eq!(serde_json::to_string(&i).unwrap(), format!("\"{i}\""));
        }
        assert!("cubic".parse::<Interpolation>().is_err());
    }

    #[test]
    fn spec_survives_both_formats() {
        for policy in [ResizePolicy::Squash, ResizePolicy::FitShortest { shortest: 256 }] {
            let spec = ResizeSpec { width: 224, height: 224, policy, interpolation: Interpolation::Bicubic };
            let bytes = postcard::to_stdvec(&spec).unwrap();
            assert_eq!(postcard::from_bytes::<ResizeSpec>(&bytes).unwrap(), spec);
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<ResizeSpec>(&json).unwrap(), spec);
        }
    }

    #[test]
    fn empty_sizes_are_errors() {
        let spec = |width, policy| ResizeSpec { width, height: 4, policy, interpolation: Interpolation::Box };
        assert!(Resizer::new(spec(0, ResizePolicy::Squash)).is_err());
        assert!(Resizer::new(spec(4, ResizePolicy::FitShortest { shortest: 0 })).is_err());
        let thin = Picture::blank(1, 70_000).unwrap();
        let mut resizer = Resizer::new(spec(4, ResizePolicy::FitShortest { shortest: 65_535 })).unwrap();
        assert!(matches!(resizer.resize(&thin), Err(ResizeError::TooLong { .. })));
    }
}
