//! Answers that need no more than what is kept.

use super::Shared;
use crate::capture::Payload;
use crate::summary::resident_kib;
use edge_link::{MAX_MESSAGE, PictureData, RawFrame, Reply, Response};
use edge_vision::{ColorSpace, PixelFormat};
use serde_json::json;
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The longest part of the log in one answer, in bytes.
const LOG_PART: u32 = 1 << 20;
/// What an answer has besides a picture's bytes, at most.
const BESIDE: usize = 4096;

/// The most pixels of a picture that a host sends: as RGB it takes three bytes for each, and as much again where the camera
/// hangs otherwise than straight.
const MOST_PIXELS: u64 = 25_000_000;

/// Whether a picture of a host is of a size that this device can do something with, before anything is allocated for it.
pub fn bounded(picture: &PictureData) -> Result<(), String> {
    let (width, height) = match picture {
        PictureData::File(bytes) => match edge_vision::decode::size(bytes) {
            Ok(size) => size,
            // What is wrong with it is found again, and said, where frames are.
            Err(_) => return Ok(()),
        },
        PictureData::Raw(raw) => (raw.width, raw.height),
    };
    if u64::from(width) * u64::from(height) <= MOST_PIXELS {
        return Ok(());
    }
    Err(format!("the picture is {width}x{height}; over a link it has {MOST_PIXELS} pixels at most"))
}

/// Who answers.
pub fn hello(shared: &Shared) -> Response {
    Response::Hello(shared.lock().hello.clone())
}

/// A summary since the start, and what only a host wants to know.
pub fn statistics(shared: &Shared) -> Reply {
    let (totals, first_class_s) = {
        let state = shared.lock();
        (state.sums.totals(), state.first_class_s)
    };
    let mut statistics = serde_json::to_value(&totals).map_err(|e| e.to_string())?;
    statistics["dropped"] = totals.drops.into();
    statistics["rss_kib"] = resident_kib().into();
    statistics["uptime_s"] = json!(shared.started.elapsed().as_millis() as f64 / 1e3);
    statistics["boot_to_first_class_s"] = first_class_s.into();
    Ok(Response::Statistics(statistics.to_string()))
}

/// The last frame, as it came.
pub fn last_frame(shared: &Shared) -> Reply {
    let Some(frame) = shared.lock().last.clone() else { return Ok(Response::LastFrame(None)) };
    let number = frame.number;
    let (format, width, height, stride, color, bytes) = match &frame.payload {
        Payload::File(Err(why)) => return Err(format!("the last frame cannot be read: {why}")),
        Payload::File(Ok(bytes)) => {
            fits(bytes)?;
            return Ok(Response::LastFrame(Some(PictureData::File(bytes.clone()))));
        }
        Payload::Raw { format, width, height, stride, color, bytes } => {
            (*format, *width, *height, stride.and_then(|n| u32::try_from(n).ok()), *color, &**bytes)
        }
        Payload::Picture(rgb) => {
            (PixelFormat::Rgb3, rgb.width(), rgb.height(), None, ColorSpace::default(), rgb.pixels())
        }
    };
    fits(bytes)?;
    let bytes = bytes.to_vec();
    Ok(Response::LastFrame(Some(PictureData::Raw(RawFrame { number, format, width, height, stride, color, bytes }))))
}

fn fits(bytes: &[u8]) -> Result<(), String> {
    if bytes.len() <= MAX_MESSAGE - BESIDE {
        return Ok(());
    }
    Err(format!("the last frame has {} bytes, and a message at most {MAX_MESSAGE}", bytes.len()))
}

/// A part of the log.
pub fn log(shared: &Shared, file: u32, from: i64, length: u32) -> Reply {
    let path = shared.lock().log.clone();
    if path == Path::new("-") {
        return Err("the log goes to standard output; `log` of the configuration names a file".into());
    }
    let path = match file {
        0 => path,
        number => {
            let mut name = path.into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        }
    };
    match part(&path, from, length.min(LOG_PART)) {
        Ok((length, bytes)) => Ok(Response::Log { length, bytes }),
        // There may be fewer files than somebody asks for, or none yet.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Response::Log { length: 0, bytes: vec![] }),
        Err(e) => Err(format!("the log {}: {e}", path.display())),
    }
}

/// A file's length, and `length` bytes of it at most; negative places count from its end.
fn part(path: &Path, from: i64, length: u32) -> io::Result<(u64, Vec<u8>)> {
    // A pipe or device in its place is not waited for.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no file that can be read again"));
    }
    let start = match u64::try_from(from) {
        Ok(from) => from,
        Err(_) => metadata.len().saturating_sub(from.unsigned_abs()),
    };
    let mut bytes = vec![];
    if start < metadata.len() {
        file.seek(SeekFrom::Start(start))?;
        file.take(length.into()).read_to_end(&mut bytes)?;
    }
    Ok((metadata.len(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, b"0123456789").unwrap();
        for (from, length, expected) in [
            (0, 3, "012"),
            (8, 3, "89"),
            (10, 3, ""),
            (99, 3, ""),
            (-3, 2, "78"),
            (-99, 4, "0123"),
            (i64::MIN, 1, "0"),
            (i64::MAX, 1, ""),
        ] {
            assert_eq!(part(&path, from, length).unwrap(), (10, expected.into()), "{from}");
        }
        assert!(part(dir.path(), 0, 1).is_err());
        assert_eq!(part(&dir.path().join("none"), 0, 1).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn pictures_that_are_too_large_are_refused_by_their_headers() {
        let raw = |width, height| {
            let (format, stride, color, bytes) = (PixelFormat::Mjpeg, None, ColorSpace::default(), vec![]);
            PictureData::Raw(RawFrame { number: 0, format, width, height, stride, color, bytes })
        };
        assert_eq!(bounded(&raw(5000, 5000)), Ok(()));
        assert!(bounded(&raw(5000, 5001)).unwrap_err().contains("5000x5001"));
        assert!(bounded(&raw(u32::MAX, u32::MAX)).is_err());
        // The header of a PNG, and nothing behind it.
        let png = |width: u32, height: u32| {
            let start = [&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], &width.to_be_bytes(), &height.to_be_bytes()];
            PictureData::File(start.concat())
        };
        assert_eq!(bounded(&png(5000, 5000)), Ok(()));
        assert!(bounded(&png(13_000, 13_000)).unwrap_err().contains("13000x13000"));
        assert_eq!(bounded(&PictureData::File(vec![])), Ok(()));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_file_read_in_parts_is_the_file(bytes in prop::collection::vec(any::<u8>(), 0..300), most in 1u32..50) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            std::fs::write(&path, &bytes).unwrap();
            let mut read = vec![];
            loop {
                let (length, next) = part(&path, read.len() as i64, most).unwrap();
                prop_assert_eq!(length, bytes.len() as u64);
                prop_assert!(next.len() <= most as usize);
                if next.is_empty() {
                    break;
                }
                read.extend(next);
            }
            prop_assert_eq!(read, bytes);
        }
    }
}
