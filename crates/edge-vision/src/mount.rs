//! How a camera hangs: turned, mirrored, and looked at in part, before anything is resized.
//!
//! The three are one walk over the source's pixels, so that a frame is copied once at most. The reference is
//! Pillow's `transpose` and `crop`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::frame::{FrameError, Picture};

/// Side of the squares in which a picture is turned by a quarter, in pixels: both sides of a copy stay in the
/// nearest cache.
const TILE: usize = 32;

/// What is done to each frame of a camera, in the order of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mount {
    /// How far the picture is turned.
    pub rotate: Rotate,
    /// How the turned picture is mirrored.
    pub flip: Flip,
    /// Which part of the turned and mirrored picture is looked at; `None` is all of it.
    pub roi: Option<Roi>,
}

/// A turn clockwise, as the picture is seen: what was on top is on the right after 90 degrees.
///
/// This is the sense of EXIF viewers and of ffmpeg's `transpose=clock`; Pillow counts the other way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub enum Rotate {
    /// As it is.
    #[default]
    None,
    /// A quarter clockwise.
    Clockwise,
    /// Upside down.
    Half,
    /// A quarter counterclockwise.
    Counterclockwise,
}

/// A mirrored picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Flip {
    /// Left and right change places.
    pub horizontal: bool,
    /// Top and bottom change places.
    pub vertical: bool,
}

/// A part of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Roi {
    /// From the left side of the picture to that of the part.
    pub x: Length,
    /// From the top of the picture to that of the part.
    pub y: Length,
    /// How wide it is.
    pub width: Length,
    /// How high it is.
    pub height: Length,
}

/// A length along one side of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// In pixels.
    Pixels(u32),
    /// In percent of that side.
    Percent(f64),
}

/// Why text isn't a turn, a mirror or a part.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Another angle.
    #[error("{0:?} is none of the turns 0, 90, 180 and 270 (degrees clockwise)")]
    Rotate(
        /// What was asked for.
        String,
    ),
    /// Another word.
    #[error("{0:?} is none of h (left and right change places), v (top and bottom), hv and none")]
    Flip(
        /// What was asked for.
        String,
    ),
    /// Not four lengths, or a part of nothing.
    #[error("{text:?} is no region such as 10%,10%,80%,80% or 100,0,640,480 (x, y, width, height): {why}")]
    Roi {
        /// What was asked for.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Mount {
    /// Whether every frame stays as it is.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        *self == Self::default()
    }

    /// Writes what is seen of `picture` to `out`, whose allocation is reused whatever its shape was.
    ///
    /// # Errors
    ///
    /// [`FrameError::Outside`] where the region doesn't lie inside the picture; `out` is unchanged then.
    pub fn apply(&self, picture: &Picture, out: &mut Picture) -> Result<(), FrameError> {
        let view = self.view(picture.width(), picture.height())?;
        out.reshape(view.width as u32, view.height as u32)?;
        view.copy(picture.pixels(), out.pixels_mut());
        Ok(())
    }

    /// Where the pixels come from that are seen of a frame of this size.
    pub(crate) fn view(&self, width: u32, height: u32) -> Result<View, FrameError> {
        let mut view = View::whole(width as usize, height as usize);
        for _ in 0..self.rotate.quarters() {
            view = view.turned();
        }
        if self.flip.horizontal {
            view = view.mirrored();
        }
        if self.flip.vertical {
            // Upside down and mirrored is top to bottom.
            view = view.turned().turned().mirrored();
        }
        let Some(roi) = self.roi else { return Ok(view) };
        let (columns, rows) = (roi.x.until(roi.width, view.width), roi.y.until(roi.height, view.height));
        match (columns, rows) {
            (Some((left, width)), Some((top, height))) => Ok(view.part((left, top), (width, height))),
            _ => Err(FrameError::Outside { roi, width: view.width as u32, height: view.height as u32 }),
        }
    }
}

impl Rotate {
    const ALL: [Self; 4] = [Self::None, Self::Clockwise, Self::Half, Self::Counterclockwise];

    /// Quarter turns clockwise.
    fn quarters(self) -> u16 {
        self as u16
    }
}

impl TryFrom<u16> for Rotate {
    type Error = MountError;

    fn try_from(degrees: u16) -> Result<Self, MountError> {
        let found = Self::ALL.into_iter().find(|r| u16::from(*r) == degrees);
        found.ok_or_else(|| MountError::Rotate(degrees.to_string()))
    }
}

impl From<Rotate> for u16 {
    fn from(rotate: Rotate) -> u16 {
        rotate.quarters() * 90
    }
}

impl FromStr for Rotate {
    type Err = MountError;

    fn from_str(text: &str) -> Result<Self, MountError> {
        let degrees: Option<u16> = text.parse().ok();
        degrees.and_then(|d| Self::try_from(d).ok()).ok_or_else(|| MountError::Rotate(text.into()))
    }
}

impl fmt::Display for Rotate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        u16::from(*self).fmt(f)
    }
}

impl FromStr for Flip {
    type Err = MountError;

    fn from_str(text: &str) -> Result<Self, MountError> {
        let (horizontal, vertical) = match text {
            "none" => (false, false),
            "h" => (true, false),
            "v" => (false, true),
            "hv" | "vh" => (true, true),
            _ => return Err(MountError::Flip(text.into())),
        };
        Ok(Self { horizontal, vertical })
    }
}

impl fmt::Display for Flip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.horizontal, self.vertical) {
            (false, false) => "none",
            (true, false) => "h",
            (false, true) => "v",
            (true, true) => "hv",
        })
    }
}

impl TryFrom<String> for Flip {
    type Error = MountError;

    fn try_from(text: String) -> Result<Self, MountError> {
        text.parse()
    }
}

impl From<Flip> for String {
    fn from(flip: Flip) -> String {
        flip.to_string()
    }
}

impl FromStr for Roi {
    type Err = MountError;

    fn from_str(text: &str) -> Result<Self, MountError> {
        let fail = |why| MountError::Roi { text: text.into(), why };
        let lengths: Option<Vec<Length>> = text.split(',').map(|part| Length::parse(part.trim())).collect();
        let Some([x, y, width, height]) = lengths.as_deref() else {
            return Err(fail("four lengths in pixels or percent are needed"));
        };
        for (from, length) in [(x, width), (y, height)] {
            if matches!(length, Length::Pixels(0)) || matches!(length, Length::Percent(p) if *p == 0.0) {
                return Err(fail("there is nothing in it"));
            }
            if matches!((from, length), (Length::Percent(from), Length::Percent(length)) if from + length > 100.0) {
                return Err(fail("it ends beyond 100%"));
            }
        }
        Ok(Self { x: *x, y: *y, width: *width, height: *height })
    }
}

impl fmt::Display for Roi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{},{}", self.x, self.y, self.width, self.height)
    }
}

impl TryFrom<String> for Roi {
    type Error = MountError;

    fn try_from(text: String) -> Result<Self, MountError> {
        text.parse()
    }
}

impl From<Roi> for String {
    fn from(roi: Roi) -> String {
        roi.to_string()
    }
}

impl Length {
    fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('%') {
            Some(number) => number.parse().ok().filter(|p| (0.0..=100.0).contains(p)).map(Self::Percent),
            None => text.parse().ok().map(Self::Pixels),
        }
    }

    fn of(self, side: usize) -> f64 {
        match self {
            Self::Pixels(pixels) => f64::from(pixels),
            Self::Percent(percent) => percent * side as f64 / 100.0,
        }
    }

    /// First pixel and number of pixels from here on for `length`, where that lies inside `side`. The edges go to
    /// the nearest pixel, so that parts next to each other neither overlap nor leave a gap.
    fn until(self, length: Self, side: usize) -> Option<(usize, usize)> {
        let from = self.of(side);
        let [first, end] = [from, from + length.of(side)].map(|edge| (edge + 0.5).floor() as usize);
        (first < end && end <= side).then(|| (first, end - first))
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pixels(pixels) => write!(f, "{pixels}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// A walk over the pixels of a frame: where it begins, and where the next pixel and the next row lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// Pixels that are seen of each row.
    pub width: usize,
    /// Rows that are seen.
    pub height: usize,
    /// Pixels of a row of the frame.
    stride: usize,
    /// The pixel of the frame that is seen first, as (column, row).
    origin: (isize, isize),
    /// Columns and rows from one pixel to the next.
    right: (isize, isize),
    /// Columns and rows from one row to the next.
    down: (isize, isize),
}

impl View {
    fn whole(width: usize, height: usize) -> Self {
        Self { width, height, stride: width, origin: (0, 0), right: (1, 0), down: (0, 1) }
    }

    fn shifted(self, x: usize, y: usize) -> (isize, isize) {
        let (x, y) = (x as isize, y as isize);
        let along = |origin, right, down| origin + x * right + y * down;
        (along(self.origin.0, self.right.0, self.down.0), along(self.origin.1, self.right.1, self.down.1))
    }

    /// The column and row of the frame of what is seen at (x, y), which must be inside.
    pub(crate) fn at(self, x: usize, y: usize) -> (usize, usize) {
        let (column, row) = self.shifted(x, y);
        (column as usize, row as usize)
    }

    /// Whether a row of what is seen is a column of the frame.
    pub(crate) fn is_transposed(self) -> bool {
        self.right.0 == 0
    }

    fn turned(self) -> Self {
        let origin = self.shifted(0, self.height - 1);
        let right = (-self.down.0, -self.down.1);
        Self { width: self.height, height: self.width, origin, right, down: self.right, ..self }
    }

    fn mirrored(self) -> Self {
        Self { origin: self.shifted(self.width - 1, 0), right: (-self.right.0, -self.right.1), ..self }
    }

    fn part(self, (x, y): (usize, usize), (width, height): (usize, usize)) -> Self {
        Self { origin: self.shifted(x, y), width, height, ..self }
    }

    /// Copies what is seen of the RGB pixels `src` to `dst`, row by row.
    fn copy(self, src: &[u8], dst: &mut [u8]) {
        let (src, dst) = (src.as_chunks::<3>().0, dst.as_chunks_mut::<3>().0);
        let index = |(column, row): (usize, usize)| row * self.stride + column;
        if self.is_transposed() {
            let rows = self.right.1 * self.stride as isize;
            for (top, left) in (0..self.height)
                .step_by(TILE)
                .flat_map(|top| (0..self.width).step_by(TILE).map(move |left| (top, left)))
            {
                for y in top..(top + TILE).min(self.height) {
                    let first = index(self.at(left, y)) as isize;
                    let out = &mut dst[y * self.width + left..][..TILE.min(self.width - left)];
                    for (step, px) in (0..).zip(out) {
                        *px = src[(first + step * rows) as usize];
                    }
                }
            }
            return;
        }
        for (y, out) in dst.chunks_exact_mut(self.width).enumerate() {
            if self.right.0 > 0 {
                out.copy_from_slice(&src[index(self.at(0, y))..][..self.width]);
            } else {
                let row = &src[index(self.at(self.width - 1, y))..][..self.width];
                out.iter_mut().zip(row.iter().rev()).for_each(|(px, from)| *px = *from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pixels that say where they come from: 3 columns, 2 rows.
    fn letters() -> Picture {
        Picture::new(3, 2, b"abcdef".iter().flat_map(|&b| [b; 3]).collect()).unwrap()
    }

    fn seen(mount: Mount) -> String {
        let mut out = Picture::blank(9, 9).unwrap();
        mount.apply(&letters(), &mut out).unwrap();
        let rows = out.pixels().chunks(out.width() as usize * 3);
        let text = |row: &[u8]| row.chunks(3).map(|px| px[0] as char).collect::<String>();
        rows.map(text).collect::<Vec<_>>().join("/")
    }

    #[test]
    fn a_turn_is_clockwise_and_comes_first() {
        let mount = |rotate: &str, flip: &str, roi: Option<&str>| Mount {
            rotate: rotate.parse().unwrap(),
            flip: flip.parse().unwrap(),
            roi: roi.map(|r| r.parse().unwrap()),
        };
        for (rotate, flip, expected) in [
            ("0", "none", "abc/def"),
            ("90", "none", "da/eb/fc"),
            ("180", "none", "fed/cba"),
            ("270", "none", "cf/be/ad"),
            ("0", "h", "cba/fed"),
            ("0", "v", "def/abc"),
            ("0", "hv", "fed/cba"),
            ("90", "h", "ad/be/cf"),
            ("90", "v", "fc/eb/da"),
        ] {
            assert_eq!(seen(mount(rotate, flip, None)), expected, "{rotate} {flip}");
        }
        assert_eq!(seen(mount("90", "none", Some("1,1,1,2"))), "b/c");
        assert_eq!(seen(mount("0", "none", Some("33.4%,0,66.6%,50%"))), "bc");
        assert!(Mount::default().is_identity() && !mount("0", "v", None).is_identity());
    }

    #[test]
    fn a_region_is_checked_against_the_frame() {
        let mount = |roi: &str| Mount { roi: Some(roi.parse().unwrap()), ..Mount::default() };
        let mut out = letters();
        let error = mount("0,0,4,1").apply(&letters(), &mut out).unwrap_err().to_string();
        assert_eq!(error, "the region 0,0,4,1 doesn't lie inside the picture of 3x2 or holds no pixel of it");
        assert_eq!(out, letters());
        for roi in ["3,0,1,1", "0,2,1,1", "0,0,1%,1%", "4294967295,0,4294967295,1", "50%,0,2,1"] {
            assert!(mount(roi).apply(&letters(), &mut out).is_err(), "{roi}");
        }
        for bad in ["", "1,2,3", "1,2,3,4,5", "-1,0,1,1", "0,0,0,1", "0,0,1,0%", "50%,0,51%,1", "NaN%,0,1,1", "a,b,c,d"]
        {
            assert!(bad.parse::<Roi>().is_err(), "{bad}");
        }
    }

    #[test]
    fn spellings_round_trip() {
        let text = r#"{"rotate":270,"flip":"hv","roi":"10%,5,33.3%,40"}"#;
        let mount: Mount = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&mount).unwrap(), text);
        assert_eq!(serde_json::from_str::<Mount>("{}").unwrap(), Mount::default());
        for bad in [r#"{"rotate":45}"#, r#"{"flip":"x"}"#, r#"{"roi":"1"}"#, r#"{"tilt":1}"#] {
            assert!(serde_json::from_str::<Mount>(bad).is_err(), "{bad}");
        }
        let error = "45".parse::<Rotate>().unwrap_err().to_string();
        assert_eq!(error, "\"45\" is none of the turns 0, 90, 180 and 270 (degrees clockwise)");
    }
}
