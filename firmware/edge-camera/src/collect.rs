//! Photos to train with, taken by the device's own camera: what is classified later looks like what was learnt from.

use crate::args::Args;
use crate::capture::{self, Frame, Grab, Payload};
use crate::status;
use crate::stop::{Failure, Signals};
use anyhow::{Context, anyhow};
use edge_vision::{DecodeOptions, Mount, Picture, PixelFormat};
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

/// How long the source may keep this waiting before the stop flag is looked at again.
const TICK: std::time::Duration = std::time::Duration::from_millis(100);

/// Saves frames into `folder`/`label` until it is stopped, the source ends, or there are as many as were asked for.
pub fn run(args: &Args, folder: &Path, label: &str, stop: &Signals) -> Result<(), Failure> {
    if label.is_empty() || label.starts_with('.') || label.contains(['/', '\0']) {
        return Err(Failure::usage(anyhow!("--label {label:?}: a label is the name of a folder")));
    }
    let folder = folder.join(label);
    // The source first: an empty folder would be a class without photos.
    let mut source = capture::open(args, false, stop)?;
    fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))
        .map_err(Failure::usage)?;
    status::tell(&format!("photos of {label:?} go to {}; {}", folder.display(), source.describe()));
    let (mut saved, mut due) = (0, Instant::now());
    while !stop.requested() && args.count.is_none_or(|count| saved < count) {
        match source.next(Instant::now() + TICK)? {
            Grab::Frame(frame) => {
                let now = Instant::now();
                // A file is a frame for whoever made it one; a camera makes more of them than are wanted.
                if now < due {
                    continue;
                }
                due = (due + args.every).max(now);
                match save(&frame, &args.mount(), &folder) {
                    Ok(path) => {
                        saved += 1;
                        status::tell(&format!("{saved}: {}", path.display()));
                    }
                    Err(Saved::Frame(why)) => status::tell(&format!("{}: {why}", frame.source)),
                    Err(Saved::Disk(e)) => {
                        return Err(Failure::log(e.context(format!("cannot save a photo in {}", folder.display()))));
                    }
                }
            }
            Grab::Notice { detail, .. } => status::tell(&detail),
            Grab::Waiting(_) => {}
            Grab::End => break,
        }
    }
    status::tell(&format!("{saved} photo(s) of {label:?} in {}", folder.display()));
    Ok(())
}

/// Why a photo was not saved.
enum Saved {
    /// The frame is no picture; the next one may be.
    Frame(String),
    /// It can't be written.
    Disk(anyhow::Error),
}

/// Saves one frame: a JPEG as it came where the camera hangs straight, anything else as a PNG of the pixels that would be
/// resized and classified.
fn save(frame: &Frame, mount: &Mount, folder: &Path) -> Result<PathBuf, Saved> {
    let mut came = Picture::blank(1, 1).map_err(|e| Saved::Frame(e.to_string()))?;
    let mut turned = came.clone();
    // A frame that cannot be classified is no photo to train with either.
    let picture = frame.see(&DecodeOptions::default(), mount, &mut came, &mut turned).map_err(Saved::Frame)?;
    let (bytes, kind) = match &frame.payload {
        _ if !mount.is_identity() => (png(picture).map_err(Saved::Disk)?, "png"),
        Payload::Raw { format: PixelFormat::Mjpeg, bytes, .. } => (jpeg(bytes), "jpg"),
        Payload::File(Ok(bytes)) if bytes.starts_with(&[0xFF, 0xD8]) => (bytes.clone(), "jpg"),
        _ => (png(picture).map_err(Saved::Disk)?, "png"),
    };
    write(&bytes, &name(frame.wall), kind, folder).map_err(Saved::Disk)
}

/// A camera's JPEG without what its driver left behind it in the buffer.
fn jpeg(bytes: &[u8]) -> Vec<u8> {
    let mut splitter = edge_vision::Splitter::default();
    splitter.push(bytes);
    splitter.next_frame(vec![]).map_or_else(|| bytes.to_vec(), |piece| piece.bytes)
}

fn png(picture: &Picture) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![];
    PngEncoder::new(&mut bytes)
        .write_image(picture.pixels(), picture.width(), picture.height(), ExtendedColorType::Rgb8)
        .context("cannot make a PNG")?;
    Ok(bytes)
}

/// The time of capture as a file's name: 2026-11-24T02-47-39-519.
fn name(wall: SystemTime) -> String {
    edge_device::event::wall_time(wall).trim_end_matches('Z').replace([':', '.'], "-")
}

/// Writes under a name that no other file has. It is complete under that name, or not there.
fn write(bytes: &[u8], name: &str, kind: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let partial = folder.join(format!(".{name}.{}.partial", std::process::id()));
    // On the disk before it has its name, or a power cut leaves an empty file under it.
    let stored = fs::File::create(&partial).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    let written = stored.context("writing").and_then(|()| {
        for copy in 0.. {
            let more = if copy == 0 { String::new() } else { format!("-{copy}") };
            let path = folder.join(format!("{name}{more}.{kind}"));
            // A link fails where there is such a file, which a renaming would replace.
            match fs::hard_link(&partial, &path) {
                Ok(()) => return Ok(path),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                // Such as FAT, which has no links.
                Err(_) if !path.exists() => return fs::rename(&partial, &path).context("renaming").map(|()| path),
                Err(_) => {}
            }
        }
        Err(anyhow!("there is no name left"))
    });
    let _ = fs::remove_file(&partial);
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn names_are_of_the_time_and_never_taken_twice() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        assert_eq!(name(at), "2023-11-14T22-13-20-123");
        let dir = tempfile::tempdir().unwrap();
        let one = write(b"a", "x", "png", dir.path()).unwrap();
        let two = write(b"b", "x", "png", dir.path()).unwrap();
        assert_eq!((fs::read(one).unwrap(), fs::read(two).unwrap()), (b"a".to_vec(), b"b".to_vec()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn what_a_driver_leaves_behind_a_jpeg_is_not_saved() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/vision");
        let whole = fs::read(folder.join("no-huffman-tables.jpg")).unwrap();
        assert_eq!(jpeg(&[&whole[..], &[0; 999], &whole].concat()), whole);
        assert_eq!(jpeg(b"not one"), b"not one");
    }
}
