//! File bytes to picture, bit for bit as Pillow's `Image.open(path).convert("RGB")`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::exif;
use crate::frame::Picture;
use crate::{jpeg, png};

/// Pictures with more pixels are refused before anything is allocated for them.
///
/// Twice Pillow's `MAX_IMAGE_PIXELS`, where Pillow's warning becomes its `DecompressionBombError`.
pub const MAX_PIXELS: u64 = 178_956_970;

/// Bytes of the largest file that is read: four bytes for each of [`MAX_PIXELS`], and some to spare.
const MAX_FILE: u64 = 1 << 30;

/// How a file is turned into a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Turns the picture as its EXIF orientation says, as Pillow's `ImageOps.exif_transpose`.
    ///
    /// Off by default, because Keras' `load_img` does not turn pictures either.
    pub exif_orientation: bool,
}

/// Why bytes are no picture.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// There are no bytes at all, as after a copy to a full disk.
    #[error("the file is empty")]
    Empty,
    /// Another picture format.
    #[error("{0} pictures can't be read; JPEG and PNG can")]
    OtherFormat(
        /// Name of the format.
        &'static str,
    ),
    /// No picture format at all.
    #[error("this is no picture: it begins with {0}; JPEG and PNG can be read")]
    NotAPicture(
        /// The first bytes, printable.
        String,
    ),
    /// The data end before the picture does.
    #[error("the {kind} image file is truncated")]
    Truncated {
        /// "JPEG" or "PNG".
        kind: &'static str,
    },
    /// The data break the format's rules.
    #[error("broken {kind} file: {message}")]
    Broken {
        /// "JPEG" or "PNG".
        kind: &'static str,
        /// What is wrong.
        message: String,
    },
    /// A kind of JPEG or PNG that can't be read.
    #[error("this kind of {kind} can't be read: {message}")]
    Unsupported {
        /// "JPEG" or "PNG".
        kind: &'static str,
        /// What it is.
        message: String,
    },
    /// The picture is too large to be true, or for this machine.
    #[error("the picture is {width}x{height}, more than {MAX_PIXELS} pixels")]
    TooManyPixels {
        /// Width in pixels, from the header.
        width: u32,
        /// Height in pixels, from the header.
        height: u32,
    },
}

/// Why a file gives no picture; the message names the file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file can't be read.
    #[error("can't read {}: {why}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said. Part of the message, so not its source.
        why: io::Error,
    },
    /// The file can be read, but not decoded.
    #[error("{}: {why}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// What is wrong with its bytes. Part of the message, so not its source.
        why: DecodeError,
    },
}

/// Decodes a JPEG or PNG; which of them is told by the bytes, never by a name.
///
/// # Errors
///
/// [`DecodeError`] says what is wrong with the bytes.
pub fn decode(bytes: &[u8], opts: &DecodeOptions) -> Result<Picture, DecodeError> {
    let (picture, orientation) = match sniff(bytes)? {
        Kind::Jpeg => jpeg::decode(bytes)?,
        Kind::Png => png::decode(bytes)?,
    };
    Ok(match orientation {
        Some(orientation) if opts.exif_orientation => exif::transpose(picture, orientation),
        _ => picture,
    })
}

/// Width and height in pixels of the JPEG or PNG in `bytes`, as its header says: before EXIF turns it, and whether or not
/// what follows can be decoded.
///
/// # Errors
///
/// As [`decode`], for what is wrong with the header.
pub fn size(bytes: &[u8]) -> Result<(u32, u32), DecodeError> {
    match sniff(bytes)? {
        Kind::Jpeg => jpeg::size(bytes),
        Kind::Png => png::size(bytes),
    }
}

/// Reads and decodes the file at `path`.
///
/// # Errors
///
/// [`LoadError`] names the file and says whether reading or decoding failed.
pub fn load(path: &Path, opts: &DecodeOptions) -> Result<Picture, LoadError> {
    let bytes = read_file(path).map_err(|why| LoadError::Read { path: path.to_owned(), why })?;
    decode(&bytes, opts).map_err(|why| LoadError::Decode { path: path.to_owned(), why })
}

/// Reads a picture's file whole.
///
/// # Errors
///
/// What the system says; and a pipe or device, which might never end, is refused, as is a file larger than
/// any picture within [`MAX_PIXELS`].
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let meta = fs::metadata(path)?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if meta.len() > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any picture that can be read"));
    }
    let mut bytes = Vec::new();
    // The file may grow while it is read.
    fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

enum Kind {
    Jpeg,
    Png,
}

/// Beginnings of formats people do have in photo folders, for the error only.
const OTHERS: [(&[u8], &str); 10] = [
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\x01\0", "ICO"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"%PDF", "PDF"),
    (b"8BPS", "Photoshop"),
];

fn sniff(bytes: &[u8]) -> Result<Kind, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    if bytes.starts_with(b"\xff\xd8\xff") {
        return Ok(Kind::Jpeg);
    }
    if bytes.starts_with(png::SIGNATURE) {
        return Ok(Kind::Png);
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Err(DecodeError::OtherFormat("WebP"));
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        return Err(DecodeError::OtherFormat(match bytes.get(8..12) {
            Some(b"avif" | b"avis") => "AVIF",
            Some(b"heic" | b"heix" | b"hevc" | b"mif1" | b"msf1") => "HEIF",
            _ => "MP4",
        }));
    }
    if let Some((_, name)) = OTHERS.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Err(DecodeError::OtherFormat(name));
    }
    // A file cut inside its signature deserves the truer message.
    for (signature, kind) in [(b"\xff\xd8\xff".as_slice(), "JPEG"), (png::SIGNATURE, "PNG")] {
        if signature.starts_with(bytes) {
            return Err(DecodeError::Truncated { kind });
        }
    }
    let head = &bytes[..bytes.len().min(12)];
    Err(DecodeError::NotAPicture(format!("\"{}\"", head.escape_ascii())))
}

/// Refuses what Pillow calls a decompression bomb.
pub(crate) fn check_size(kind: &'static str, width: u32, height: u32) -> Result<(), DecodeError> {
    if width == 0 || height == 0 {
        return Err(DecodeError::Broken { kind, message: format!("its size is {width}x{height}") });
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(DecodeError::TooManyPixels { width, height });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: &[u8]) -> String {
        decode(bytes, &DecodeOptions::default()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_picture_is_named() {
        assert_eq!(message(b""), "the file is empty");
        assert_eq!(message(b"GIF89a"), "GIF pictures can't be read; JPEG and PNG can");
        assert_eq!(message(b"RIFF\0\0\0\0WEBPVP8 "), "WebP pictures can't be read; JPEG and PNG can");
        assert_eq!(
            message(b"hello\nworld, this is text"),
            "this is no picture: it begins with \"hello\\nworld,\"; JPEG and PNG can be read"
        );
        assert_eq!(message(b"\xff\xd8"), "the JPEG image file is truncated");
        assert_eq!(message(b"\x89PNG"), "the PNG image file is truncated");
    }

    #[test]
    fn load_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("note.jpg");
        fs::write(&text, "hello").unwrap();
        let err = load(&text, &DecodeOptions::default()).unwrap_err().to_string();
        assert!(err.contains("note.jpg: this is no picture"), "{err}");
        let err = load(&dir.path().join("gone.png"), &DecodeOptions::default()).unwrap_err().to_string();
        assert!(err.starts_with("can't read ") && err.contains("gone.png"), "{err}");
    }
}
