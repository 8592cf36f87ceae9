//! Where frames come from: one trait, with a deadline.

mod files;
mod pattern;
#[cfg(feature = "camera")]
mod v4l2;

use crate::args::Args;
use crate::stop::Failure;
use edge_vision::{ColorSpace, DecodeOptions, Picture, PixelFormat, RawFrame, decode, to_picture_into};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};

/// A source of frames.
pub trait Source {
    /// The next frame, or news that there is none, not much later than `deadline`.
    fn next(&mut self, deadline: Instant) -> Result<Grab, Failure>;
    /// What this is, for the first line.
    fn describe(&self) -> String;
}

/// What a source has to give.
pub enum Grab {
    /// A frame, the newest one there is.
    Frame(Frame),
    /// None until the deadline; how long none has come.
    Waiting(Duration),
    /// There will be no more.
    End,
}

/// A frame as it came, not yet RGB.
pub struct Frame {
    /// Counted by the source from 0; gaps are frames dropped for newer ones.
    pub number: u64,
    /// The camera, or the picture's path.
    pub source: String,
    /// When it was captured, by the wall clock.
    pub wall: SystemTime,
    /// When it was captured, by the monotonic clock.
    pub at: Instant,
    /// The bytes.
    pub payload: Payload,
}

/// A frame's bytes.
pub enum Payload {
    /// A JPEG or PNG file, or why it could not be read.
    File(Result<Vec<u8>, String>),
    /// What a camera delivers.
    #[cfg_attr(not(feature = "camera"), allow(dead_code))]
    Raw {
        /// Pixel format.
        format: PixelFormat,
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
        /// Bytes from one row to the next, where that is known.
        stride: Option<usize>,
        /// How Y, U and V become red, green and blue.
        color: ColorSpace,
        /// The pixels.
        bytes: Vec<u8>,
    },
    /// RGB already.
    Picture(Picture),
}

impl Frame {
    /// A frame captured now.
    fn now(number: u64, source: String, payload: Payload) -> Frame {
        Frame { number, source, wall: SystemTime::now(), at: Instant::now(), payload }
    }

    /// To RGB, into `picture`, whose allocation is used again where it can be.
    pub fn decode(&self, options: &DecodeOptions, picture: &mut Picture) -> Result<(), String> {
        match &self.payload {
            Payload::File(Err(e)) => Err(format!("cannot be read: {e}")),
            Payload::File(Ok(bytes)) => {
                *picture = decode(bytes, options).map_err(|e| e.to_string())?;
                Ok(())
            }
            Payload::Picture(rgb) => {
                picture.clone_from(rgb);
                Ok(())
            }
            Payload::Raw { .. } => match self.raw() {
                Some(raw) => to_picture_into(&raw, picture).map_err(|e| e.to_string()),
                None => Ok(()),
            },
        }
    }

    /// The frame as a camera delivers it, where it comes from one.
    pub fn raw(&self) -> Option<RawFrame<'_>> {
        let Payload::Raw { format, width, height, stride, color, bytes } = &self.payload else { return None };
        Some(RawFrame { format: *format, width: *width, height: *height, stride: *stride, color: *color, data: bytes })
    }
}

/// What `--source` can name.
#[derive(Debug, Clone, PartialEq)]
pub enum Spec {
    /// `v4l2:/dev/video0`
    V4l2(PathBuf),
    /// `pattern` or `pattern:640x480`
    Pattern(u32, u32),
    /// A picture or a folder.
    Files(PathBuf),
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Spec, String> {
        match text.split_once(':') {
            Some(("v4l2", device)) => Ok(Spec::V4l2(device.into())),
            Some(("pattern", size)) => parse_size(size).map(|(width, height)| Spec::Pattern(width, height)),
            None if text == "pattern" => Ok(Spec::Pattern(640, 480)),
            _ => Ok(Spec::Files(text.into())),
        }
    }
}

/// What to ask a camera for; the nearest it has is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(not(feature = "camera"), allow(dead_code))]
pub struct Wanted {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Frames per second.
    pub fps: u32,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Wanted, String> {
        let (size, fps) = text.split_once('@').unwrap_or((text, "30"));
        let (width, height) = parse_size(size)?;
        let fps = fps.parse().ok().filter(|f| (1..=1000).contains(f));
        Ok(Wanted { width, height, fps: fps.ok_or("frames per second are a number from 1 to 1000")? })
    }
}

/// `640x480` → (640, 480).
fn parse_size(text: &str) -> Result<(u32, u32), String> {
    let side = |s: &str| s.parse().ok().filter(|n| (1..=8192).contains(n));
    text.split_once('x')
        .and_then(|(w, h)| Some((side(w)?, side(h)?)))
        .ok_or_else(|| format!("{text:?} is not a size such as 640x480"))
}

/// A rate in pictures per second: once in 1000 seconds up to 1000 a second.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|r| (0.001..=1000.0).contains(r));
    rate.ok_or_else(|| "a number from 0.001 to 1000 is needed".into())
}

/// Opens what `--source` names.
pub fn open(args: &Args) -> Result<Box<dyn Source>, Failure> {
    let opened: anyhow::Result<Box<dyn Source>> = match &args.source {
        Spec::V4l2(device) => camera(device, args.camera_format),
        Spec::Pattern(width, height) => Ok(Box::new(pattern::Pattern::new(*width, *height, args.once, args.rate))),
        Spec::Files(path) => files::Files::open(path, args.once, args.rate).map(|files| Box::new(files) as _),
    };
    opened.map_err(Failure::source)
}

#[cfg(feature = "camera")]
fn camera(device: &Path, wanted: Wanted) -> anyhow::Result<Box<dyn Source>> {
    Ok(Box::new(v4l2::Camera::open(device, wanted)?))
}

#[cfg(not(feature = "camera"))]
fn camera(device: &Path, _: Wanted) -> anyhow::Result<Box<dyn Source>> {
    anyhow::bail!("cannot open {}: this build has no camera support (the feature \"camera\" is off)", device.display())
}

/// Keeps a rate: frames are due at equal distances, and a late one does not make the next ones hurry.
struct Pace {
    interval: Duration,
    due: Instant,
}

impl Pace {
    fn new(rate: Option<f64>) -> Pace {
        let interval = rate.map_or(Duration::ZERO, |r| Duration::from_secs_f64(1.0 / r));
        Pace { interval, due: Instant::now() }
    }

    /// Sleeps until the next frame is due or the deadline is reached; whether the frame is due.
    fn wait(&mut self, deadline: Instant) -> bool {
        let now = Instant::now();
        if self.due > now {
            std::thread::sleep(self.due.min(deadline).saturating_duration_since(now));
            if self.due > Instant::now() {
                return false;
            }
        }
        self.due = (self.due + self.interval).max(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("640x480").unwrap(), (640, 480));
        for bad in ["", "640", "0x5", "5x0", "-1x4", "9999x1", "640x480x2", "axb"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        for bad in ["0", "1e-20", "-1", "inf", "NaN", "1001", "fast"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
        assert_eq!("1280x720@15".parse(), Ok(Wanted { width: 1280, height: 720, fps: 15 }));
        assert!("1x".parse::<Wanted>().is_err() && "640x480@0".parse::<Wanted>().is_err());
        assert_eq!("pattern:8x9".parse(), Ok(Spec::Pattern(8, 9)));
        assert_eq!("a:b.jpg".parse(), Ok(Spec::Files("a:b.jpg".into())));
    }

    #[test]
    fn a_pace_says_when_a_frame_is_due() {
        let mut pace = Pace::new(Some(0.001));
        assert!(pace.wait(Instant::now()));
        assert!(!pace.wait(Instant::now() + Duration::from_millis(1)));
        let mut fast = Pace::new(None);
        assert!(fast.wait(Instant::now()) && fast.wait(Instant::now()));
    }
}
