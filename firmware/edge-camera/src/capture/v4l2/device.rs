//! What V4L2 offers and neither nokhwa nor the v4l crate hands on: colour encoding, HDMI timings, and the news that the
//! source has changed. One file handle of its own, which does not stream.

use super::choose::explain;
use super::color::color_space;
use anyhow::{Context, bail};
use edge_vision::ColorSpace;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use std::fs::File;
use std::path::Path;

const CAPTURE: u32 = 1;
const EVENT_SOURCE_CHANGE: u32 = 5;

/// `struct v4l2_format` with the union as `struct v4l2_pix_format`. The kernel's union holds a pointer, so its
/// alignment is that of one.
#[repr(C)]
struct Format {
    kind: u32,
    #[cfg(target_pointer_width = "64")]
    padding: u32,
    width: u32,
    height: u32,
    fourcc: [u8; 4],
    field: u32,
    bytes_per_line: u32,
    size: u32,
    colorspace: u32,
    private: u32,
    flags: u32,
    encoding: u32,
    quantization: u32,
    transfer: u32,
    rest: [u32; 38],
}

/// `struct v4l2_dv_timings`: type, width, height, and thirty words that are handed back as they came.
type Timings = [u32; 33];

/// `struct v4l2_event_subscription`: type, id, flags, and five words of zero.
type Subscription = [u32; 8];

const G_FMT: Opcode = opcode::read_write::<Format>(b'V', 4);
/// The number of the input in use.
const G_INPUT: Opcode = opcode::read::<u32>(b'V', 38);
const S_DV_TIMINGS: Opcode = opcode::read_write::<Timings>(b'V', 87);
const SUBSCRIBE_EVENT: Opcode = opcode::write::<Subscription>(b'V', 90);
const QUERY_DV_TIMINGS: Opcode = opcode::read::<Timings>(b'V', 99);

/// What the driver says of the frames it delivers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Told {
    pub width: u32,
    pub height: u32,
    pub fourcc: [u8; 4],
    /// Bytes from one row to the next; 0 for what has none.
    pub stride: u32,
    pub color: ColorSpace,
}

/// A device that is open beside the library that streams from it.
pub struct Device(File);

impl Device {
    /// Opens it; the error says what to do about it.
    pub fn open(path: &Path) -> anyhow::Result<Device> {
        let opened = File::options().read(true).write(true).open(path);
        Ok(Device(opened.map_err(|e| explain(path, &e))?))
    }

    /// Calls the driver with one of the codes above and the structure that belongs to it.
    fn call<const CODE: Opcode, T>(&self, value: &mut T) -> Result<(), Errno> {
        // SAFETY: each code above is made from the type that it is called with, so the kernel reads and writes just
        // that many bytes; every type is made of integers, for which all bytes are valid.
        unsafe { ioctl(&self.0, Updater::<CODE, T>::new(value)) }
    }

    /// The format set at the moment. It is the driver's last word: it may differ from what was asked for.
    pub fn format(&self) -> anyhow::Result<Told> {
        let mut format = Format {
            kind: CAPTURE,
            #[cfg(target_pointer_width = "64")]
            padding: 0,
            width: 0,
            height: 0,
            fourcc: [0; 4],
            field: 0,
            bytes_per_line: 0,
            size: 0,
            colorspace: 0,
            private: 0,
            flags: 0,
            encoding: 0,
            quantization: 0,
            transfer: 0,
            rest: [0; 38],
        };
        self.call::<G_FMT, _>(&mut format).context("the driver does not tell its format")?;
        let Format { width, height, fourcc, bytes_per_line: stride, colorspace, encoding, quantization, .. } = format;
        Ok(Told { width, height, fourcc, stride, color: color_space(colorspace, encoding, quantization) })
    }

    /// Makes an HDMI receiver follow its source; the size of the source's picture. `None` for cameras of their own.
    pub fn follow_source(&self) -> anyhow::Result<Option<(u32, u32)>> {
        let mut timings: Timings = [0; 33];
        match self.call::<QUERY_DV_TIMINGS, _>(&mut timings) {
            Ok(()) => {}
            Err(Errno::NOLINK) => bail!("its input has no signal"),
            Err(Errno::NOLCK) => bail!("its input has a signal that is not stable"),
            Err(Errno::RANGE) => bail!("its input has a signal that it does not support"),
            // Not an input of this kind, or not such a driver.
            Err(_) => return Ok(None),
        }
        let (width, height) = (timings[1], timings[2]);
        self.call::<S_DV_TIMINGS, _>(&mut timings).context("it does not take the timings of its source")?;
        Ok(Some((width, height)))
    }

    /// Blocks until the source has changed or the device is gone, and says which. `None`: this driver can't tell.
    pub fn wait_for_change(&self) -> Option<&'static str> {
        // Changes are told for each input by itself. Where there are no such events, a hang-up is still told.
        let mut input = 0;
        let _ = self.call::<G_INPUT, u32>(&mut input);
        let mut wanted: Subscription = [EVENT_SOURCE_CHANGE, input, 0, 0, 0, 0, 0, 0];
        let _ = self.call::<SUBSCRIBE_EVENT, _>(&mut wanted);
        loop {
            let mut device = [PollFd::new(&self.0, PollFlags::PRI)];
            match poll(&mut device, None) {
                Ok(_) if device[0].revents().contains(PollFlags::HUP) => return Some("the device is gone"),
                Ok(_) if device[0].revents().contains(PollFlags::ERR) => return None,
                Ok(_) if device[0].revents().contains(PollFlags::PRI) => return Some("its source has changed"),
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_as_long_as_the_kernels() {
        let pointers = cfg!(target_pointer_width = "64");
        assert_eq!(size_of::<Format>(), if pointers { 208 } else { 204 });
        assert_eq!(size_of::<Timings>(), 132);
        assert_eq!(size_of::<Subscription>(), 32);
    }

    #[test]
    fn codes_are_the_kernels() {
        // As `v4l2-ctl` calls them on this kind of machine.
        if cfg!(all(target_pointer_width = "64", any(target_arch = "x86_64", target_arch = "aarch64"))) {
            assert_eq!(G_FMT, 0xC0D0_5604);
            assert_eq!(S_DV_TIMINGS, 0xC084_5657);
            assert_eq!(G_INPUT, 0x8004_5626);
            assert_eq!(SUBSCRIBE_EVENT, 0x4020_565A);
            assert_eq!(QUERY_DV_TIMINGS, 0x8084_5663);
        }
    }
}
