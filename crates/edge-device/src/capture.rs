//! What the process that holds the camera says to the one that classifies.
//!
//! A camera's driver can block for ever, and only the end of a process surely gives back what it holds. So the camera is
//! opened by a process of its own. It is asked with one byte ([`NEXT`]) and answers with the newest frame it has: a
//! message of a 32-bit little-endian length, a header in postcard, and for a frame its bytes. Both ends are one program,
//! so there is no version; what doesn't fit is an error all the same, since the other end may have gone mad.

use edge_vision::{ColorSpace, PixelFormat};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

/// Asks for the next frame that is newer than the last one.
pub const NEXT: u8 = b'n';

/// The longest header in bytes. Reasons are shortened to fit.
const MAX_HEADER: usize = 4096;

/// The longest text within a header, in bytes.
const MAX_TEXT: usize = 3072;

/// The longest frame in bytes: 8192x8192 pixels of three bytes.
pub const MAX_FRAME: u32 = 8192 * 8192 * 3;

/// One message of the process that holds the camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// The camera is open; comes first and once.
    Opened {
        /// What was opened and how, for people: "/dev/video0 (HD Webcam) 640x480 YUYV through nokhwa".
        about: String,
        /// The device that was found, for the log.
        device: String,
        /// Nanoseconds from one frame to the next, as the driver tells; 0 where it does not.
        interval_ns: u64,
    },
    /// A frame, whose bytes follow.
    Frame(FrameHeader),
    /// The camera can't be opened or has failed; nothing comes after it.
    Failed(String),
}

/// A frame without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FrameHeader {
    /// Counted from 0 by the process that holds the camera; gaps are frames dropped for newer ones.
    pub number: u64,
    /// When it came, in nanoseconds of CLOCK_MONOTONIC, which all processes share.
    pub monotonic_ns: u64,
    /// How its bytes are laid out.
    pub format: PixelFormat,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Bytes from one row to the next, where that is known.
    pub stride: Option<u32>,
    /// How Y, U and V become red, green and blue.
    pub color: ColorSpace,
    /// How many bytes follow, at most [`MAX_FRAME`].
    pub length: u32,
}

/// Writes a message; `bytes` are those of a frame, and empty otherwise.
///
/// # Errors
///
/// Those of `to`.
pub fn write(to: &mut impl Write, message: &Message, bytes: &[u8]) -> io::Result<()> {
    let shortened = match message {
        Message::Failed(why) if why.len() > MAX_TEXT => Message::Failed(shorten(why)),
        other => other.clone(),
    };
    let header = postcard::to_stdvec(&shortened).map_err(invalid)?;
    let length = u32::try_from(header.len()).map_err(invalid)?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&header)?;
    to.write_all(bytes)?;
    to.flush()
}

/// The beginning of a text.
fn shorten(text: &str) -> String {
    format!("{}…", &text[..text.floor_char_boundary(MAX_TEXT)])
}

/// Reads a message; a frame's bytes go into `bytes`, whose allocation is used again.
///
/// # Errors
///
/// Those of `from`, and [`io::ErrorKind::InvalidData`] for what is no message.
pub fn read(from: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<Message> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length == 0 || length > MAX_HEADER {
        return Err(invalid(format!("a header of {length} bytes")));
    }
    let mut header = [0; MAX_HEADER];
    let header = &mut header[..length];
    from.read_exact(header)?;
    let (message, rest) = postcard::take_from_bytes::<Message>(header).map_err(invalid)?;
    if !rest.is_empty() {
        return Err(invalid(format!("{} bytes too many in a header", rest.len())));
    }
    bytes.clear();
    if let Message::Frame(frame) = &message {
        if frame.length > MAX_FRAME {
            return Err(invalid(format!("a frame of {} bytes", frame.length)));
        }
        // Grows with what comes, not with what was promised.
        let came = from.take(frame.length.into()).read_to_end(bytes)?;
        if came < frame.length as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(message)
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(length: u32) -> FrameHeader {
        FrameHeader {
            number: 7,
            monotonic_ns: u64::MAX,
            format: PixelFormat::Yu12,
            width: 640,
            height: 480,
            stride: Some(640),
            color: ColorSpace::default(),
            length,
        }
    }

    proptest! {
        #[test]
        fn messages_come_back(text in ".{0,40}", number in any::<u64>(), bytes in prop::collection::vec(any::<u8>(), 0..500), cut in any::<prop::sample::Index>()) {
            let opened = Message::Opened { about: text.clone(), device: text.clone(), interval_ns: number };
            let header = Message::Frame(FrameHeader { number, ..frame(bytes.len() as u32) });
            let failed = Message::Failed(text);
            let mut pipe = vec![];
            write(&mut pipe, &opened, &[]).unwrap();
            write(&mut pipe, &header, &bytes).unwrap();
            write(&mut pipe, &failed, &[]).unwrap();
            let (mut from, mut came) = (&pipe[..], vec![1, 2, 3]);
            prop_assert_eq!(read(&mut from, &mut came).unwrap(), opened);
            prop_assert!(came.is_empty());
            prop_assert_eq!(read(&mut from, &mut came).unwrap(), header);
            prop_assert_eq!(came, bytes);
            prop_assert_eq!(read(&mut from, &mut vec![]).unwrap(), failed);
            prop_assert!(from.is_empty());
            // Cut off anywhere, the last message that comes out is an error, never a panic or another message.
            let mut from = &pipe[..cut.index(pipe.len())];
            let error = std::iter::from_fn(|| Some(read(&mut from, &mut vec![]))).find_map(Result::err).unwrap();
            prop_assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }

        #[test]
        fn garbage_is_an_error_or_a_message(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut from = &bytes[..];
            while read(&mut from, &mut vec![]).is_ok() {}
        }
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_read() {
        let mut pipe = vec![];
        write(&mut pipe, &Message::Frame(frame(MAX_FRAME + 1)), &[]).unwrap();
        assert_eq!(read(&mut &pipe[..], &mut vec![]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        for garbage in [[0; 8], [0xFF; 8], [1, 0, 0, 0, 9, 9, 9, 9]] {
            assert_eq!(read(&mut &garbage[..], &mut vec![]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        // One byte behind a header that is whole.
        let mut pipe = vec![];
        write(&mut pipe, &Message::Failed("x".into()), &[]).unwrap();
        pipe[0] += 1;
        pipe.push(0);
        assert_eq!(read(&mut &pipe[..], &mut vec![]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_long_reason_is_shortened() {
        let mut pipe = vec![];
        write(&mut pipe, &Message::Failed("ü".repeat(5000)), &[]).unwrap();
        let Message::Failed(why) = read(&mut &pipe[..], &mut vec![]).unwrap() else { panic!() };
        assert!(why.len() < MAX_HEADER && why.ends_with("ü…"));
    }
}
