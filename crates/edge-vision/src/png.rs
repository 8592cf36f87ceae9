//! PNG through the `image` crate, brought to RGB as Pillow's `convert("RGB")` does it.

use std::error::Error;
use std::io::{Cursor, ErrorKind};

use image::codecs::png::PngDecoder;
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageError, Limits};

use crate::decode::{DecodeError, check_size};
use crate::exif;
use crate::frame::Picture;

const KIND: &str = "PNG";

/// The eight bytes every PNG begins with.
pub(crate) const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// What the decoder may hold beside the pixels it gives: a row, texts and a colour profile.
const MAX_ALLOC: u64 = 64 << 20;

fn broken(message: String) -> DecodeError {
    DecodeError::Broken { kind: KIND, message }
}

fn refusal(error: ImageError) -> DecodeError {
    match error {
        ImageError::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => DecodeError::Truncated { kind: KIND },
        ImageError::Limits(e) => DecodeError::Unsupported { kind: KIND, message: e.to_string() },
        // The error within says what is wrong; the one around it adds only that the format is PNG.
        outer => {
            let message = outer.source().map_or_else(|| outer.to_string(), ToString::to_string);
            broken(message.trim_end_matches('.').to_owned())
        }
    }
}

/// Width and height by IHDR, which comes first in every PNG.
fn header(bytes: &[u8]) -> Option<(u32, u32)> {
    match (bytes.get(12..16), bytes.get(16..24)) {
        (Some(b"IHDR"), Some(&[w3, w2, w1, w0, h3, h2, h1, h0])) => {
            Some((u32::from_be_bytes([w3, w2, w1, w0]), u32::from_be_bytes([h3, h2, h1, h0])))
        }
        _ => None,
    }
}

/// The same, which has to be there.
pub(crate) fn size(bytes: &[u8]) -> Result<(u32, u32), DecodeError> {
    header(bytes).ok_or_else(|| broken("it doesn't begin with its header".to_owned()))
}

/// Decodes a PNG (of an APNG the default image) and gives its EXIF orientation with it.
pub(crate) fn decode(bytes: &[u8]) -> Result<(Picture, Option<Orientation>), DecodeError> {
    // Its size is looked at before the decoder asks for memory by it.
    if let Some((width, height)) = header(bytes) {
        check_size(KIND, width, height)?;
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_ALLOC);
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(refusal)?;
    let (width, height) = decoder.dimensions();
    check_size(KIND, width, height)?;
    // Bit depth and colour type, which `image` doesn't tell: IHDR comes first in what it accepts.
    if bytes.get(24..26) == Some(&[16, 0]) {
        // Pillow turns every value above 255 into white here, which is never what the picture shows.
        let message = "16-bit grey, which Pillow saturates to white; save it with 8 bits".to_owned();
        return Err(DecodeError::Unsupported { kind: KIND, message });
    }
    let color = decoder.color_type();
    // Fresh zeros cost no memory until a row is written, which a file that lies about its size never does.
    let mut samples = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut samples).map_err(refusal)?;
    let picture = Picture::new(width, height, to_rgb(samples, color)).map_err(|e| broken(e.to_string()))?;
    Ok((picture, exif_chunk(bytes).and_then(exif::orientation)))
}

/// Samples of 8 or 16 bits to RGB: alpha is dropped, and 16-bit samples keep their high byte.
fn to_rgb(samples: Vec<u8>, color: ColorType) -> Vec<u8> {
    if color == ColorType::Rgb8 {
        return samples;
    }
    let wide = color.bytes_per_pixel() > color.channel_count();
    let level = |px: &[u8], channel: usize| {
        if wide { (u16::from_ne_bytes([px[2 * channel], px[2 * channel + 1]]) >> 8) as u8 } else { px[channel] }
    };
    let pixels = samples.chunks_exact(color.bytes_per_pixel().into());
    if color.has_color() {
        pixels.flat_map(|px| [level(px, 0), level(px, 1), level(px, 2)]).collect()
    } else {
        pixels.flat_map(|px| [level(px, 0); 3]).collect()
    }
}

/// The first `eXIf` chunk; it may follow the pixels, where `image` doesn't look for it.
fn exif_chunk(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(SIGNATURE.len()..)?;
    loop {
        let (&[l3, l2, l1, l0, name @ ..], tail) = rest.split_first_chunk::<8>()?;
        let len = u32::from_be_bytes([l3, l2, l1, l0]) as usize;
        if name == *b"eXIf" {
            return tail.get(..len);
        }
        // The checksum is four bytes.
        rest = tail.get(len.checked_add(4)?..)?;
    }
}
