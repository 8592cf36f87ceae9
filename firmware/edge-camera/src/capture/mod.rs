//! Where frames come from: one trait, with a deadline.

mod files;
mod pattern;
mod pool;
mod shared;
mod stream;
#[cfg(feature = "camera")]
pub mod v4l2;

pub use stream::Raw;

use crate::args::Args;
use crate::stop::{Failure, Signals};
use edge_vision::{ColorSpace, DecodeOptions, Mount, Picture, PixelFormat, RawFrame, decode, to_picture_into};
use pool::Bytes;
use std::fmt;
use std::path::PathBuf;
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
    /// Something that happened to the source, for the log: an event's name, and what happened.
    Notice {
        /// As in [`edge_device::event::Notice`].
        event: &'static str,
        /// For people.
        detail: String,
    },
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
        bytes: Bytes,
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

    /// To RGB as a camera hung by `mount` sees it; `came` and `turned` are used again.
    pub fn see<'a>(
        &self,
        options: &DecodeOptions,
        mount: &Mount,
        came: &'a mut Picture,
        turned: &'a mut Picture,
    ) -> Result<&'a Picture, String> {
        self.decode(options, came)?;
        if mount.is_identity() {
            return Ok(came);
        }
        mount.apply(came, turned).map_err(|e| e.to_string())?;
        Ok(turned)
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
    /// `v4l2:/dev/video0`, `v4l2:/dev/v4l/by-id/usb-*` or `v4l2:name=HD Webcam`.
    V4l2(String),
    /// `-`: a stream on standard input.
    Stdin,
    /// `pattern` or `pattern:640x480`
    Pattern(u32, u32),
    /// A picture or a folder.
    Files(PathBuf),
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Spec, String> {
        match text.split_once(':') {
            Some(("v4l2", "" | "name=")) => {
                Err("v4l2: wants a device: v4l2:/dev/video0, or v4l2:name=HD Webcam".into())
            }
            Some(("v4l2", device)) => Ok(Spec::V4l2(device.into())),
            Some(("pattern", size)) => parse_size(size).map(|(width, height)| Spec::Pattern(width, height)),
            None if text == "-" => Ok(Spec::Stdin),
            None if text == "pattern" => Ok(Spec::Pattern(640, 480)),
            _ => Ok(Spec::Files(text.into())),
        }
    }
}

/// What to ask a camera for; the nearest it has is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wanted {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Frames per second.
    pub fps: u32,
    /// Pixel format; the first of those that are known and offered where it is open.
    pub format: Option<PixelFormat>,
}

/// Names of pixel formats: V4L2's, and those of ffmpeg and rpicam.
const FORMATS: [(PixelFormat, &[&str]); 7] = [
    (PixelFormat::Yuyv, &["YUYV", "yuyv422"]),
    (PixelFormat::Nv12, &["NV12"]),
    (PixelFormat::Yu12, &["YU12", "yuv420", "yuv420p", "i420"]),
    (PixelFormat::Rgb3, &["RGB3", "rgb24", "rgb"]),
    (PixelFormat::Bgr3, &["BGR3", "bgr24", "bgr"]),
    (PixelFormat::Mjpeg, &["MJPEG", "MJPG"]),
    (PixelFormat::Grey, &["GREY", "gray", "gray8"]),
];

/// A pixel format by any of its names.
fn parse_format(text: &str) -> Result<PixelFormat, String> {
    let named = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(text));
    let found = FORMATS.iter().find(|(_, names)| named(names)).map(|(format, _)| *format);
    found.ok_or_else(|| {
        let names: Vec<&str> = FORMATS.iter().flat_map(|(_, names)| *names).copied().collect();
        format!("{text:?} is not a pixel format; known are {}", names.join(", "))
    })
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Wanted, String> {
        let (text, format) = match text.split_once(':') {
            Some((text, format)) => (text, Some(parse_format(format)?)),
            None => (text, None),
        };
        let (size, fps) = text.split_once('@').unwrap_or((text, "30"));
        let (width, height) = parse_size(size)?;
        let fps = fps.parse().ok().filter(|f| (1..=1000).contains(f));
        Ok(Wanted { width, height, fps: fps.ok_or("frames per second are a number from 1 to 1000")?, format })
    }
}

impl fmt::Display for Wanted {
    /// As [`FromStr`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}@{}", self.width, self.height, self.fps)?;
        self.format.map_or(Ok(()), |format| write!(f, ":{format}"))
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

/// Opens what `--source` names. A camera that takes its time is given up when a signal asks to stop; one that cannot be
/// opened is an error, or waited for where that is `patient`.
pub fn open(args: &Args, patient: bool, stop: &Signals) -> Result<Box<dyn Source>, Failure> {
    if args.raw.is_some() && args.source != Spec::Stdin {
        return Err(Failure::usage(anyhow::anyhow!(
            "--raw describes the stream of --source -, which is not asked for"
        )));
    }
    let opened: anyhow::Result<Box<dyn Source>> = match &args.source {
        Spec::V4l2(device) => camera(device, args.camera_format, patient, stop),
        Spec::Stdin => stream::Stream::open(args.raw, args.once).map(|stream| Box::new(stream) as _),
        Spec::Pattern(width, height) => Ok(Box::new(pattern::Pattern::new(*width, *height, args.once, args.rate))),
        Spec::Files(path) => files::Files::open(path, args.once, args.rate).map(|files| Box::new(files) as _),
    };
    opened.map_err(Failure::source)
}

#[cfg(feature = "camera")]
fn camera(device: &str, wanted: Wanted, patient: bool, stop: &Signals) -> anyhow::Result<Box<dyn Source>> {
    Ok(Box::new(v4l2::Camera::open(device, wanted, patient, &|| stop.requested())?))
}

#[cfg(not(feature = "camera"))]
fn camera(device: &str, _: Wanted, _: bool, _: &Signals) -> anyhow::Result<Box<dyn Source>> {
    anyhow::bail!("cannot open {device}: this build has no camera support (the feature \"camera\" is off)")
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
        assert_eq!("1280x720@15".parse(), Ok(Wanted { width: 1280, height: 720, fps: 15, format: None }));
        let grey: Wanted = "8x6@5:grey".parse().unwrap();
        assert_eq!(grey, Wanted { width: 8, height: 6, fps: 5, format: Some(PixelFormat::Grey) });
        assert_eq!(grey.to_string().parse(), Ok(grey));
        assert!("8x6@5:grau".parse::<Wanted>().unwrap_err().contains("GREY"));
        assert!("1x".parse::<Wanted>().is_err() && "640x480@0".parse::<Wanted>().is_err());
        assert_eq!("pattern:8x9".parse(), Ok(Spec::Pattern(8, 9)));
        assert_eq!("-".parse(), Ok(Spec::Stdin));
        assert_eq!("v4l2:name=HD: Webcam".parse(), Ok(Spec::V4l2("name=HD: Webcam".into())));
        assert!("v4l2:".parse::<Spec>().is_err());
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
