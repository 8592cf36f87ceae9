//! The two ways to the frames of a V4L2 device.
//!
//! nokhwa comes first. It refuses cameras that list no frame intervals or run at a rate that is no whole
//! number, as HDMI receivers do (59.94 Hz), and knows neither GREY nor YU12; those are opened through the v4l
//! crate, on which nokhwa stands.

use super::choose::{Found, csi_hint};
use super::device::{Device, Told};
use crate::capture::Wanted;
use anyhow::{Context, anyhow, bail};
use edge_vision::PixelFormat;
use nokhwa::utils::{CameraFormat, CameraIndex, FrameFormat, RequestedFormat, RequestedFormatType, Resolution};
use std::io::ErrorKind;
use std::time::Duration;
use v4l::FourCC;
use v4l::buffer::{Flags, Type};
use v4l::io::traits::CaptureStream;
use v4l::prelude::MmapStream;
use v4l::video::Capture;

/// A pixel format by V4L2's code, and by nokhwa's name where it has one.
struct Known {
    code: [u8; 4],
    pixels: PixelFormat,
    nokhwa: Option<FrameFormat>,
}

const fn known(code: &[u8; 4], pixels: PixelFormat, nokhwa: Option<FrameFormat>) -> Known {
    Known { code: *code, pixels, nokhwa }
}

/// What is taken, in this order: uncompressed first, since it costs no decoding, and grey last.
const FORMATS: [Known; 7] = [
    known(b"YUYV", PixelFormat::Yuyv, Some(FrameFormat::YUYV)),
    known(b"NV12", PixelFormat::Nv12, Some(FrameFormat::NV12)),
    known(b"YU12", PixelFormat::Yu12, None),
    known(b"RGB3", PixelFormat::Rgb3, Some(FrameFormat::RAWRGB)),
    known(b"BGR3", PixelFormat::Bgr3, Some(FrameFormat::RAWBGR)),
    known(b"MJPG", PixelFormat::Mjpeg, Some(FrameFormat::MJPEG)),
    known(b"GREY", PixelFormat::Grey, None),
];

/// Buffers the driver fills in turn.
const BUFFERS: u32 = 4;

/// What the camera agreed to.
#[derive(Debug, Clone, Copy)]
pub struct Negotiated {
    pub pixels: PixelFormat,
    pub told: Told,
    /// From one frame to the next; zero where the driver does not tell.
    pub interval: Duration,
}

/// A streaming camera.
pub trait Driver {
    /// Puts the next frame's bytes into `bytes`; blocks until there is one, for ever where the camera is stuck.
    fn frame(&mut self, bytes: &mut Vec<u8>) -> anyhow::Result<()>;
    /// The library in use, for people.
    fn library(&self) -> &'static str;
}

/// Opens and starts the camera.
pub fn open(device: &Device, found: &Found, wanted: Wanted) -> anyhow::Result<(Box<dyn Driver>, Negotiated)> {
    let v4l = v4l::Device::with_path(&found.path).context("cannot open the device")?;
    let offered: Vec<[u8; 4]> =
        v4l.enum_formats().context("cannot list formats")?.into_iter().map(|d| d.fourcc.repr).collect();
    let usable: Vec<&Known> = FORMATS
        .iter()
        .filter(|f| offered.contains(&f.code) && wanted.format.is_none_or(|pixels| pixels == f.pixels))
        .collect();
    if usable.is_empty() {
        return Err(not_offered(&offered, wanted));
    }
    // A receiver delivers what its source sends, whatever was asked for.
    let size = device.follow_source()?.unwrap_or((wanted.width, wanted.height));
    let wanted = Wanted { width: size.0, height: size.1, ..wanted };
    let mut refused = vec![];
    for Known { code, nokhwa, .. } in &usable {
        let Some(format) = *nokhwa else { continue };
        // nokhwa refuses a device that its last user left with a format or a rate that nokhwa does not know.
        ask(&v4l, code, wanted)?;
        match ThroughNokhwa::open(found.index, format, wanted) {
            Ok(driver) => return Ok((Box::new(driver), negotiated(device, &v4l)?)),
            Err(e) => refused.push(format!("{format}: {e:#}")),
        }
    }
    match ThroughV4l::open(&v4l, usable[0], wanted) {
        Ok(driver) => Ok((Box::new(driver), negotiated(device, &v4l)?)),
        Err(e) if refused.is_empty() => Err(e),
        Err(e) => bail!("{e:#} (and through nokhwa: {})", refused.join("; ")),
    }
}

/// Asks for a format and a rate.
fn ask(device: &v4l::Device, code: &[u8; 4], wanted: Wanted) -> anyhow::Result<()> {
    let asked = v4l::Format::new(wanted.width, wanted.height, FourCC::new(code));
    device.set_format(&asked).map_err(|e| match e.kind() {
        ErrorKind::ResourceBusy => anyhow!("another program uses it"),
        _ => anyhow!("cannot set the format: {e}"),
    })?;
    // A camera without a rate to set, as an HDMI receiver, has its own.
    let _ = device.set_params(&v4l::video::capture::Parameters::with_fps(wanted.fps));
    Ok(())
}

/// A format's code as the kernel writes it; its highest bit stands for big-endian samples.
fn name(code: &[u8; 4]) -> String {
    let letters: String = code.iter().map(|byte| char::from(byte & 0x7F)).filter(char::is_ascii_graphic).collect();
    if code[3] >= 0x80 { letters + "-BE" } else { letters }
}

fn not_offered(offered: &[[u8; 4]], wanted: Wanted) -> anyhow::Error {
    let offers = match offered {
        [] => "nothing".into(),
        some => some.iter().map(name).collect::<Vec<_>>().join(", "),
    };
    let needed = match wanted.format {
        Some(format) => format!("{format} was asked for"),
        None => format!("one of {} is needed", FORMATS.map(|f| name(&f.code)).join(", ")),
    };
    anyhow!("it offers {offers}; {needed}{}", csi_hint().unwrap_or_default())
}

/// What the driver will deliver; asked after the stream was set up, since it has the last word.
fn negotiated(device: &Device, v4l: &v4l::Device) -> anyhow::Result<Negotiated> {
    let told = device.format()?;
    let Some(known) = FORMATS.iter().find(|f| f.code == told.fourcc) else {
        bail!("it delivers {}, which was not asked for", name(&told.fourcc));
    };
    let interval = v4l
        .params()
        .ok()
        .map(|p| p.interval)
        .filter(|i| i.denominator > 0)
        .map_or(0.0, |i| f64::from(i.numerator) / f64::from(i.denominator));
    let told = Told { stride: if known.pixels == PixelFormat::Mjpeg { 0 } else { told.stride }, ..told };
    Ok(Negotiated { pixels: known.pixels, told, interval: Duration::from_secs_f64(interval.min(3600.0)) })
}

struct ThroughNokhwa {
    camera: nokhwa::Camera,
}

impl ThroughNokhwa {
    fn open(index: u32, format: FrameFormat, wanted: Wanted) -> anyhow::Result<ThroughNokhwa> {
        let resolution = Resolution::new(wanted.width, wanted.height);
        let closest = RequestedFormatType::Closest(CameraFormat::new(resolution, format, wanted.fps));
        let request = RequestedFormat::with_formats(closest, std::slice::from_ref(&format));
        let mut camera = nokhwa::Camera::new(CameraIndex::Index(index), request)?;
        camera.open_stream().context("cannot start streaming")?;
        Ok(ThroughNokhwa { camera })
    }
}

impl Driver for ThroughNokhwa {
    fn frame(&mut self, bytes: &mut Vec<u8>) -> anyhow::Result<()> {
        let frame = self.camera.frame_raw()?;
        bytes.clear();
        bytes.extend_from_slice(&frame);
        Ok(())
    }

    fn library(&self) -> &'static str {
        "nokhwa"
    }
}

struct ThroughV4l {
    stream: MmapStream<'static>,
}

impl ThroughV4l {
    fn open(device: &v4l::Device, known: &Known, wanted: Wanted) -> anyhow::Result<ThroughV4l> {
        ask(device, &known.code, wanted)?;
        let stream = MmapStream::with_buffers(device, Type::VideoCapture, BUFFERS).context("cannot get buffers")?;
        Ok(ThroughV4l { stream })
    }
}

impl Driver for ThroughV4l {
    fn frame(&mut self, bytes: &mut Vec<u8>) -> anyhow::Result<()> {
        let (frame, meta) = self.stream.next()?;
        if meta.flags.contains(Flags::ERROR) {
            bail!("the driver marked a frame as damaged");
        }
        bytes.clear();
        bytes.extend_from_slice(&frame[..frame.len().min(meta.bytesused as usize)]);
        Ok(())
    }

    fn library(&self) -> &'static str {
        "v4l"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_that_is_not_offered_is_told_with_those_that_are() {
        let wanted: Wanted = "640x480@30".parse().unwrap();
        let offered = [*b"BA81", *b"Y16 ", [b'Y', b'1', b'6', b' ' | 0x80]];
        let why = not_offered(&offered, wanted).to_string();
        assert!(why.starts_with("it offers BA81, Y16, Y16-BE; one of YUYV, NV12, "), "{why}");
        let why = not_offered(&[], "640x480@30:GREY".parse().unwrap()).to_string();
        assert!(why.starts_with("it offers nothing; GREY was asked for"), "{why}");
    }
}
