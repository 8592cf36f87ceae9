//! Where frames come from: one trait, with a deadline.

mod files;
mod pattern;
#[cfg(feature = "camera")]
mod v4l2;

use crate::args::Args;
use crate::stop::Failure;
use anyhow::{Context, anyhow, bail};
use edge_vision::{ColorSpace, DecodeOptions, Picture, PixelFormat, RawFrame, decode, to_picture_into};
use std::path::Path;
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
    File(std::io::Result<Vec<u8>>),
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
    pub fn decode(&self, picture: &mut Picture) -> Result<(), String> {
        match &self.payload {
            Payload::File(Err(e)) => Err(format!("cannot be read: {e}")),
            Payload::File(Ok(bytes)) => {
                *picture = decode(bytes, &DecodeOptions::default()).map_err(|e| e.to_string())?;
                Ok(())
            }
            Payload::Picture(rgb) => {
                picture.clone_from(rgb);
                Ok(())
            }
            Payload::Raw { format, width, height, stride, color, bytes } => {
                let raw = RawFrame {
                    format: *format,
                    width: *width,
                    height: *height,
                    stride: *stride,
                    color: *color,
                    data: bytes,
                };
                to_picture_into(&raw, picture).map_err(|e| e.to_string())
            }
        }
    }
}

/// Opens what `--source` names.
pub fn open(args: &Args) -> Result<Box<dyn Source>, Failure> {
    let source = || -> anyhow::Result<Box<dyn Source>> {
        if args.rate.is_some_and(|r| !(r > 0.0 && r <= 1000.0)) {
            bail!("--rate is a number of pictures per second, above 0 and up to 1000");
        }
        if let Some(device) = args.source.strip_prefix("v4l2:") {
            return camera(device, args);
        }
        if args.source == "pattern" || args.source.starts_with("pattern:") {
            let size = args.source.strip_prefix("pattern:").unwrap_or("640x480");
            let (width, height) = parse_size(size).with_context(|| format!("--source pattern:{size}"))?;
            return Ok(Box::new(pattern::Pattern::new(width, height, args.rate)));
        }
        Ok(Box::new(files::Files::open(Path::new(&args.source), args.once, args.rate)?))
    };
    source().map_err(Failure::source)
}

#[cfg(feature = "camera")]
fn camera(device: &str, args: &Args) -> anyhow::Result<Box<dyn Source>> {
    let (size, fps) = args.camera_format.split_once('@').unwrap_or((&args.camera_format, "30"));
    let parse = || -> anyhow::Result<_> {
        let (width, height) = parse_size(size)?;
        let fps = fps.parse().ok().filter(|f| (1..=1000).contains(f)).context("FPS is a number from 1 to 1000")?;
        Ok(v4l2::Wanted { width, height, fps })
    };
    let wanted =
        parse().with_context(|| format!("--camera-format {}: not of the form 640x480@30", args.camera_format))?;
    Ok(Box::new(v4l2::Camera::open(Path::new(device), wanted)?))
}

#[cfg(not(feature = "camera"))]
fn camera(device: &str, _: &Args) -> anyhow::Result<Box<dyn Source>> {
    bail!("cannot open {device}: this build has no camera support (built without the feature \"camera\")")
}

/// `640x480` → (640, 480).
fn parse_size(text: &str) -> anyhow::Result<(u32, u32)> {
    let side = |s: &str| s.parse().ok().filter(|n| (1..=8192).contains(n));
    text.split_once('x')
        .and_then(|(w, h)| Some((side(w)?, side(h)?)))
        .ok_or_else(|| anyhow!("{text:?} is not a size such as 640x480"))
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
