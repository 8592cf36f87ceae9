//! JPEG as Pillow 13 reads it: `JpegImagePlugin.py` for the header, `JpegDecode.c` on libjpeg for the pixels.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use mozjpeg::{ColorSpace, Decompress};

use crate::decode::{DecodeError, check_size};
use crate::exif;
use crate::frame::Picture;

const KIND: &str = "JPEG";

/// Rows decoded between two looks at whether the data have run dry.
const ROWS: usize = 16;

fn broken(message: impl Into<String>) -> DecodeError {
    DecodeError::Broken { kind: KIND, message: message.into() }
}

/// Decodes a JPEG and gives its EXIF orientation with it.
pub(crate) fn decode(bytes: &[u8]) -> Result<(Picture, Option<Orientation>), DecodeError> {
    let header = read_header(bytes)?;
    let mut pixels = Vec::new();
    decode_pixels(bytes, &header, &mut pixels)?;
    let picture = Picture::new(header.width, header.height, pixels).map_err(|e| broken(e.to_string()))?;
    let orientation = exif::orientation(&header.exif).or_else(|| exif::xmp_orientation(&header.xmp));
    Ok((picture, orientation))
}

/// Width and height by the header.
pub(crate) fn size(bytes: &[u8]) -> Result<(u32, u32), DecodeError> {
    read_header(bytes).map(|header| (header.width, header.height))
}

/// Decodes a JPEG into `out`, whose allocation is reused; on an error `out` keeps its shape.
pub(crate) fn decode_into(
    bytes: &[u8],
    out: &mut Picture,
    size: (u32, u32),
) -> Result<Option<(u32, u32)>, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    if !bytes.starts_with(b"\xff\xd8\xff") {
        return Err(broken("it doesn't begin with a start-of-image marker"));
    }
    let header = read_header(bytes)?;
    if (header.width, header.height) != size {
        return Ok(Some((header.width, header.height)));
    }
    let blank = Picture::blank(1, 1).map_err(|e| broken(e.to_string()))?;
    let mut pixels = std::mem::replace(out, blank).into_pixels();
    let result = decode_pixels(bytes, &header, &mut pixels);
    // Whether or not decoding went well, the allocation goes back to where it came from.
    pixels.resize(header.width as usize * header.height as usize * 3, 0);
    *out = Picture::new(header.width, header.height, pixels).map_err(|e| broken(e.to_string()))?;
    result.map(|()| None)
}

/// What Pillow learns before it hands the file to libjpeg.
struct Header {
    width: u32,
    height: u32,
    layers: u8,
    exif: Vec<u8>,
    xmp: Vec<u8>,
}

/// Walks the markers up to the first scan, as `JpegImageFile._open`.
fn read_header(bytes: &[u8]) -> Result<Header, DecodeError> {
    const TRUNCATED: DecodeError = DecodeError::Truncated { kind: KIND };
    let mut header = Header { width: 0, height: 0, layers: 0, exif: Vec::new(), xmp: Vec::new() };
    let mut at = 2;
    loop {
        // Junk between segments is skipped, and a marker may be padded with any number of 0xFF.
        while *bytes.get(at).ok_or(TRUNCATED)? != 0xFF {
            at += 1;
        }
        while *bytes.get(at).ok_or(TRUNCATED)? == 0xFF {
            at += 1;
        }
        let marker = bytes[at];
        at += 1;
        match marker {
            0x00 | 0xC8 | 0xD0..=0xD9 | 0xF0..=0xFD => continue,
            0x01..=0xBF => return Err(broken(format!("no marker has the code 0x{marker:02X}"))),
            _ => {}
        }
        let length = bytes.get(at..at + 2).ok_or(TRUNCATED)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let segment = bytes.get(at + 2..at + length.max(2)).ok_or(TRUNCATED)?;
        at += length.max(2);
        match marker {
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF | 0xDE => {
                let &[bits, h1, h0, w1, w0, layers, ..] = segment else {
                    return Err(broken("its frame header is too short"));
                };
                if bits != 8 {
                    return Err(DecodeError::Unsupported { kind: KIND, message: format!("{bits} bits a sample") });
                }
                if !matches!(layers, 1 | 3 | 4) {
                    return Err(DecodeError::Unsupported { kind: KIND, message: format!("{layers} layers") });
                }
                header.height = u32::from(u16::from_be_bytes([h1, h0]));
                header.width = u32::from(u16::from_be_bytes([w1, w0]));
                header.layers = layers;
            }
            0xE1 => {
                if let Some(exif) = segment.strip_prefix(b"Exif\0\0") {
                    header.exif.extend_from_slice(exif);
                } else if let Some(xmp) = segment.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0") {
                    // A later packet replaces an earlier one; it ends at its first zero.
                    header.xmp = xmp.split(|&b| b == 0).next().unwrap_or_default().to_vec();
                }
            }
            0xDA => {
                if header.layers == 0 {
                    return Err(broken("its scan has no frame header before it"));
                }
                check_size(KIND, header.width, header.height)?;
                return Ok(header);
            }
            _ => {}
        }
    }
}

/// Hands the bytes to libjpeg and remembers whether it asked for more than there are.
///
/// Pillow's source suspends the decoder at the end of the data, and the file counts as truncated if that
/// happens before the last row. The wrapper's source can't suspend: it invents an end-of-image marker and
/// the rest of the picture becomes grey. The moment it asks is the same, so the flag tells both apart.
struct Source<'a> {
    rest: &'a [u8],
    ran_dry: &'a Cell<bool>,
}

impl Read for Source<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.rest.read(buf)
    }
}

impl BufRead for Source<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest.is_empty() {
            self.ran_dry.set(true);
        }
        Ok(self.rest)
    }

    fn consume(&mut self, n: usize) {
        self.rest = self.rest.get(n..).unwrap_or_default();
    }
}

/// Decodes to RGB rows in `pixels`; libjpeg's fatal errors unwind and end here.
fn decode_pixels(bytes: &[u8], header: &Header, pixels: &mut Vec<u8>) -> Result<(), DecodeError> {
    let ran_dry = Cell::new(false);
    let source = Source { rest: bytes, ran_dry: &ran_dry };
    // Nothing that outlives an unwinding is left half-changed: `pixels` holds bytes, any of which are valid.
    let complete = Cell::new(false);
    let result = catch_unwind(AssertUnwindSafe(|| read_rows(source, &complete, header, pixels)));
    match result {
        _ if ran_dry.get() && complete.get() => Ok(()),
        _ if ran_dry.get() => Err(DecodeError::Truncated { kind: KIND }),
        Ok(result) => result,
        Err(payload) => {
            let message = payload
                .downcast_ref::<String>()
                .map_or("the decoder gave up", |m| m.strip_prefix("libjpeg fatal error: ").unwrap_or(m));
            Err(broken(message))
        }
    }
}

fn read_rows(
    source: Source<'_>,
    complete: &Cell<bool>,
    header: &Header,
    pixels: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let ran_dry = source.ran_dry;
    let (width, height) = (header.width as usize, header.height as usize);
    let io = |e: io::Error| broken(e.to_string());
    let decoder = Decompress::builder().from_reader(source).map_err(io)?;
    if decoder.size() != (width, height) || decoder.components().len() != usize::from(header.layers) {
        return Err(broken("it holds two frame headers that differ"));
    }
    let cmyk = header.layers == 4;
    let mut decoder =
        decoder.to_colorspace(if cmyk { ColorSpace::JCS_CMYK } else { ColorSpace::JCS_RGB }).map_err(io)?;
    if pixels.is_empty() {
        // Fresh zeros cost no memory until a row is written, which a file that lies about its size never does.
        *pixels = vec![0; width * height * 3];
    }
    pixels.resize(width * height * 3, 0);
    let mut inks = vec![0_u8; if cmyk { width * ROWS * 4 } else { 0 }];
    for rows in pixels.chunks_mut(width * 3 * ROWS) {
        // A truncated file must not cost the time of a whole one.
        if ran_dry.get() {
            return Err(DecodeError::Truncated { kind: KIND });
        }
        if cmyk {
            let inks = &mut inks[..rows.len() / 3 * 4];
            decoder.read_scanlines_into(inks).map_err(io)?;
            for (px, ink) in rows.as_chunks_mut::<3>().0.iter_mut().zip(inks.as_chunks::<4>().0) {
                *px = cmyk_to_rgb(ink);
            }
        } else {
            decoder.read_scanlines_into(rows).map_err(io)?;
        }
    }
    complete.set(!ran_dry.get());
    // Pillow reads on to the end marker: an error there counts, but the data may end before it.
    decoder.finish().map_err(io)
}

/// Pillow's raw mode `CMYK;I` (Adobe stores inks inverted) and then its `cmyk2rgb`.
fn cmyk_to_rgb(&[c, m, y, k]: &[u8; 4]) -> [u8; 3] {
    // The black ink is stored inverted, so it is already the white that is left.
    let white = i32::from(k);
    [c, m, y].map(|ink| {
        let product = i32::from(255 - ink) * white + 128;
        (white - (((product >> 8) + product) >> 8)).clamp(0, 255) as u8
    })
}
