//! Picture to the size a model reads, bit for bit as Pillow.
//!
//! [`ResizePolicy::Squash`] is Keras' `load_img(target_size=…)`; [`ResizePolicy::FitShortest`] is
//! torchvision's `Resize` followed by `CenterCrop`; [`ResizePolicy::FitLongest`] is Pillow's `ImageOps.pad`. Nearest follows Pillow 13 `Geometry.c`
//! (`ImagingScaleAffine`), the other filters `Resample.c`.

mod plan;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::frame::{FrameError, Picture};
use crate::mount::Mount;
use crate::resample::{BICUBIC, BILINEAR, BOX, Block, Filter, HAMMING, LANCZOS};
use crate::sample::{self, Places};
use crate::yuv::{RawFrame, check_size, to_picture};
use plan::{Kind, Plan};

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
    /// The whole picture is scaled into the model's size and lies in the middle; the rest is one colour.
    ///
    /// Pillow's `ImageOps.pad`, also known as letterboxing.
    FitLongest {
        /// What lies beside the picture: red, green, blue.
        color: [u8; 3],
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
    sampling: Option<Sampling>,
    between: Vec<u8>,
    out: Option<Picture>,
}

/// Where the pixels lie of frames of one size that hang in one way.
struct Sampling {
    size: (u32, u32),
    mount: Mount,
    /// `None` where a place of the result has no pixel of the frame.
    places: Option<Places>,
    target: Block,
    padding: Option<[u8; 3]>,
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
        Ok(Self { spec, order, plan: None, sampling: None, between: Vec::new(), out: None })
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

    /// Whether [`Resizer::resize_frame`] reads single pixels of such a frame: where the nearest pixel is taken, and the
    /// format lets it be found. Of a few sizes Pillow leaves a pixel black; they are converted as a whole.
    ///
    /// # Errors
    ///
    /// As [`Mount::apply`] and [`Resizer::resize`].
    pub fn takes_frames(&mut self, raw: &RawFrame<'_>, mount: &Mount) -> Result<bool, ResizeError> {
        if self.spec.interpolation != Interpolation::Nearest || !sample::is_sampled(raw.format) {
            return Ok(false);
        }
        let size = (raw.width, raw.height);
        if !self.sampling.as_ref().is_some_and(|s| s.size == size && s.mount == *mount) {
            self.sampling = Some(Sampling::new(&self.spec, self.order, size, *mount)?);
        }
        Ok(self.sampling.as_ref().is_some_and(|s| s.places.is_some()))
    }

    /// As [`crate::to_picture_into`], [`Mount::apply`] and [`Resizer::resize`] one after the other, in one pass over the
    /// pixels that are needed where [`Resizer::takes_frames`] says so; the same bytes either way.
    ///
    /// # Errors
    ///
    /// Those of the three.
    pub fn resize_frame(&mut self, raw: &RawFrame<'_>, mount: &Mount) -> Result<&Picture, ResizeError> {
        let sampled = self.takes_frames(raw, mount)?;
        let Some((sampling, places)) =
            self.sampling.as_ref().filter(|_| sampled).and_then(|s| Some((s, s.places.as_ref()?)))
        else {
            let (whole, mut seen) = (to_picture(raw)?, Picture::blank(1, 1)?);
            mount.apply(&whole, &mut seen)?;
            return self.resize(&seen);
        };
        let out = match &mut self.out {
            Some(out) => out,
            empty => empty.insert(Picture::blank(self.spec.width, self.spec.height)?),
        };
        if let Some(color) = sampling.padding {
            out.pixels_mut().as_chunks_mut::<3>().0.fill(color);
        }
        sample::sample(raw, places, &mut self.between, (out.pixels_mut(), sampling.target))?;
        Ok(out)
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
        if let Some(color) = plan.padding {
            out.pixels_mut().as_chunks_mut::<3>().0.fill(color);
        }
        plan.run(picture.pixels(), &mut self.between, out.pixels_mut());
        self.plan = Some(plan);
        Ok(())
    }
}

impl Sampling {
    fn new(spec: &ResizeSpec, order: PassOrder, size: (u32, u32), mount: Mount) -> Result<Self, ResizeError> {
        check_size(size.0, size.1)?;
        let view = mount.view(size.0, size.1)?;
        let plan = Plan::new(spec, order, view.width as u32, view.height as u32)?;
        let (columns, rows): (Option<Vec<usize>>, Option<Vec<usize>>) = match plan.kind {
            Kind::Nearest { columns, rows } => (columns.into_iter().collect(), rows.into_iter().collect()),
            // Of the size that is wanted already.
            _ => (Some(plan.window.0.collect()), Some(plan.window.1.collect())),
        };
        let transposed = view.is_transposed();
        let side = |(column, row): (usize, usize), across: bool| if across == transposed { row } else { column };
        let places = columns.zip(rows).map(|(columns, rows)| Places {
            across: columns.into_iter().map(|x| side(view.at(x, 0), true)).collect(),
            down: rows.into_iter().map(|y| side(view.at(0, y), false)).collect(),
            transposed,
        });
        Ok(Self { size, mount, places, target: plan.target, padding: plan.padding })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let pad = ResizePolicy::FitLongest { color: [114, 0, 255] };
        for policy in [ResizePolicy::Squash, ResizePolicy::FitShortest { shortest: 256 }, pad] {
            let spec = ResizeSpec { width: 224, height: 224, policy, interpolation: Interpolation::Bicubic };
            let bytes = postcard::to_stdvec(&spec).unwrap();
            assert_eq!(postcard::from_bytes::<ResizeSpec>(&bytes).unwrap(), spec);
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<ResizeSpec>(&json).unwrap(), spec);
        }
    }

    #[test]
    fn nothing_may_be_left_of_a_thin_picture() {
        let spec = ResizeSpec {
            width: 4,
            height: 4,
            policy: ResizePolicy::FitLongest { color: [1, 2, 3] },
            interpolation: Interpolation::Bicubic,
        };
        let mut resizer = Resizer::new(spec).unwrap();
        let thin = resizer.resize(&Picture::blank(1, 400).unwrap()).unwrap();
        assert_eq!(thin.pixels(), [1, 2, 3].repeat(16), "nothing is left of the picture");
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
