//! The two ways to the frames of a V4L2 device.
//!
//! nokhwa comes first. It refuses cameras that list no frame intervals or run at a rate that is no whole
//! number, as HDMI receivers do (59.94 Hz); those are opened through the v4l crate, on which nokhwa stands.

use super::Wanted;
use anyhow::{Context, bail};
use edge_vision::{ColorMatrix, ColorRange, ColorSpace, PixelFormat};
use nokhwa::utils::{CameraFormat, CameraIndex, FrameFormat, RequestedFormat, RequestedFormatType, Resolution};
use std::path::Path;
use std::time::Duration;
use v4l::FourCC;
use v4l::buffer::Type;
use v4l::format::{Colorspace, Quantization};
use v4l::io::traits::CaptureStream;
use v4l::prelude::{Device, MmapStream};
use v4l::video::Capture;

/// What is asked for, in this order: uncompressed first, since it costs no decoding.
const FORMATS: [(FrameFormat, &[u8; 4], PixelFormat); 5] = [
    (FrameFormat::YUYV, b"YUYV", PixelFormat::Yuyv),
    (FrameFormat::NV12, b"NV12", PixelFormat::Nv12),
    (FrameFormat::RAWRGB, b"RGB3", PixelFormat::Rgb3),
    (FrameFormat::RAWBGR, b"BGR3", PixelFormat::Bgr3),
    (FrameFormat::MJPEG, b"MJPG", PixelFormat::Mjpeg),
];
/// Longest wait for one frame through the v4l crate.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Buffers the driver fills in turn.
const BUFFERS: u32 = 4;

/// What the camera agreed to.
#[derive(Debug, Clone, Copy)]
pub struct Negotiated {
    pub pixels: PixelFormat,
    pub width: u32,
    pub height: u32,
    /// Bytes from one row to the next; `None` where the driver does not tell.
    pub stride: Option<usize>,
    pub color: ColorSpace,
}

/// A streaming camera.
pub trait Driver {
    /// The format of its frames.
    fn negotiated(&self) -> Negotiated;
    /// The next frame's bytes; blocks until there is one.
    fn frame(&mut self) -> anyhow::Result<Vec<u8>>;
    /// The library in use, for people.
    fn library(&self) -> &'static str;
}

/// Opens and starts the camera.
pub fn open(device: &Path, index: u32, wanted: Wanted) -> anyhow::Result<Box<dyn Driver>> {
    let first = match ThroughNokhwa::open(device, index, wanted) {
        Ok(driver) => return Ok(Box::new(driver)),
        Err(e) => e,
    };
    match ThroughV4l::open(device, wanted) {
        Ok(driver) => Ok(Box::new(driver)),
        Err(second) => bail!("{second:#} (and through nokhwa: {first:#})"),
    }
}

struct ThroughNokhwa {
    camera: nokhwa::Camera,
    negotiated: Negotiated,
}

impl ThroughNokhwa {
    fn open(device: &Path, index: u32, wanted: Wanted) -> anyhow::Result<ThroughNokhwa> {
        let offered = FORMATS.map(|(format, _, _)| format);
        let resolution = Resolution::new(wanted.width, wanted.height);
        let try_format = |format: FrameFormat| {
            let closest = RequestedFormatType::Closest(CameraFormat::new(resolution, format, wanted.fps));
            nokhwa::Camera::new(CameraIndex::Index(index), RequestedFormat::with_formats(closest, &offered))
        };
        let mut failures = vec![];
        let opened = offered.into_iter().find_map(|format| match try_format(format) {
            Ok(camera) => Some(camera),
            Err(e) => {
                failures.push(format!("{format}: {e}"));
                None
            }
        });
        let Some(mut camera) = opened else { bail!("{}", failures.join("; ")) };
        camera.open_stream().context("cannot start streaming")?;
        // nokhwa tells neither row length nor colours; the driver tells both to whoever asks.
        let format = Device::with_path(device).and_then(|d| d.format()).context("cannot read the format")?;
        let negotiated = negotiated(&format)?;
        Ok(ThroughNokhwa { camera, negotiated })
    }
}

impl Driver for ThroughNokhwa {
    fn negotiated(&self) -> Negotiated {
        self.negotiated
    }

    fn frame(&mut self) -> anyhow::Result<Vec<u8>> {
        Ok(self.camera.frame()?.buffer().to_vec())
    }

    fn library(&self) -> &'static str {
        "nokhwa"
    }
}

struct ThroughV4l {
    // Dropped before the device, whose descriptor it shares.
    stream: MmapStream<'static>,
    negotiated: Negotiated,
    _device: Device,
}

impl ThroughV4l {
    fn open(device: &Path, wanted: Wanted) -> anyhow::Result<ThroughV4l> {
        let device = Device::with_path(device).context("cannot open the device")?;
        let offered: Vec<FourCC> =
            device.enum_formats().context("cannot list formats")?.into_iter().map(|d| d.fourcc).collect();
        let chosen = FORMATS.iter().find(|(_, code, _)| offered.contains(&FourCC::new(code)));
        let Some((_, code, _)) = chosen else {
            let names: Vec<String> = offered.iter().map(ToString::to_string).collect();
            bail!("it offers {}; YUYV, NV12, RGB3, BGR3 or MJPG is needed", names.join(", "));
        };
        let asked = v4l::Format::new(wanted.width, wanted.height, FourCC::new(code));
        let format = device.set_format(&asked).context("cannot set the format")?;
        // A camera without a rate to set, as an HDMI receiver, has its own.
        let _ = device.set_params(&v4l::video::capture::Parameters::with_fps(wanted.fps));
        let negotiated = negotiated(&format)?;
        let mut stream =
            MmapStream::with_buffers(&device, Type::VideoCapture, BUFFERS).context("cannot get buffers")?;
        stream.set_timeout(TIMEOUT);
        Ok(ThroughV4l { stream, negotiated, _device: device })
    }
}

impl Driver for ThroughV4l {
    fn negotiated(&self) -> Negotiated {
        self.negotiated
    }

    fn frame(&mut self) -> anyhow::Result<Vec<u8>> {
        let (bytes, meta) = self.stream.next()?;
        let used = (meta.bytesused as usize).min(bytes.len());
        Ok(bytes[..used].to_vec())
    }

    fn library(&self) -> &'static str {
        "v4l"
    }
}

/// What the driver's word on the format means. It is the last word: a driver may give another format than
/// was asked for.
fn negotiated(format: &v4l::Format) -> anyhow::Result<Negotiated> {
    let known = FORMATS.iter().find(|(_, code, _)| FourCC::new(code) == format.fourcc);
    let Some((_, _, pixels)) = known else { bail!("it delivers {}, which was not asked for", format.fourcc) };
    // Webcams that say nothing mean BT.601 with limited range.
    let mut color = ColorSpace::default();
    if matches!(format.quantization, Quantization::FullRange) {
        color.range = ColorRange::Full;
    }
    if matches!(format.colorspace, Colorspace::Rec709) {
        color.matrix = ColorMatrix::Bt709;
    }
    Ok(Negotiated {
        pixels: *pixels,
        width: format.width,
        height: format.height,
        stride: (format.stride > 0 && *pixels != PixelFormat::Mjpeg).then_some(format.stride as usize),
        color,
    })
}
