//! PNG as Pillow 13 reads it: `PngImagePlugin.py` for the chunks, `ZipDecode.c` for the rows, `Convert.c` for
//! the way to RGB.
//!
//! General PNG decoders differ from Pillow in what they accept: which checksums count, and how much of a file
//! may be missing after the last row. The inflating is `flate2`'s; the rest is short enough to follow Pillow.

use flate2::{Decompress, FlushDecompress, Status};

use crate::decode::{DecodeError, check_size};
use crate::exif;
use crate::frame::Picture;

const KIND: &str = "PNG";
const TRUNCATED: DecodeError = DecodeError::Truncated { kind: KIND };

/// The eight bytes every PNG begins with.
pub(crate) const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// First column, first row, column step and row step of each pass of Adam7.
const ADAM7: [[usize; 4]; 7] =
    [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];

/// The lengths below which Pillow refuses a chunk it looks into.
const SHORTEST: [(&[u8; 4], usize); 5] = [(b"IHDR", 13), (b"gAMA", 4), (b"cHRM", 32), (b"sRGB", 1), (b"pHYs", 9)];

fn broken(message: impl Into<String>) -> DecodeError {
    DecodeError::Broken { kind: KIND, message: message.into() }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Color {
    Grey,
    Rgb,
    Palette,
    GreyAlpha,
    Rgba,
}

impl Color {
    fn samples(self) -> usize {
        match self {
            Self::Grey | Self::Palette => 1,
            Self::GreyAlpha => 2,
            Self::Rgb => 3,
            Self::Rgba => 4,
        }
    }
}

/// What the chunks before the pixels say.
struct Header {
    width: usize,
    height: usize,
    depth: usize,
    color: Color,
    interlaced: bool,
    /// Places that `PLTE` doesn't name are black, as in Pillow's `ImagingPaletteNew`.
    palette: [[u8; 3]; 256],
    orientation: Option<u32>,
}

/// A chunk, with as much of its data as the file holds.
struct Chunk<'a> {
    name: [u8; 4],
    data: &'a [u8],
    /// Whether the file holds all of its data.
    whole: bool,
    /// Where the checksum begins.
    end: usize,
}

/// The chunk at `at`, or `None` where not even its head is there.
fn chunk(bytes: &[u8], at: usize) -> Option<Chunk<'_>> {
    let &[l3, l2, l1, l0, a, b, c, d] = bytes.get(at..at.checked_add(8)?)? else { return None };
    let end = at.checked_add(8)?.checked_add(u32::from_be_bytes([l3, l2, l1, l0]) as usize)?;
    let data = &bytes[at + 8..end.min(bytes.len())];
    Some(Chunk { name: [a, b, c, d], data, whole: end <= bytes.len(), end })
}

/// Decodes a PNG (of an APNG the default image) and gives its EXIF orientation with it.
pub(crate) fn decode(bytes: &[u8]) -> Result<(Picture, Option<u32>), DecodeError> {
    let (header, pixels_at) = read_header(bytes)?;
    let (width, height) = (header.width, header.height);
    let mut rows = Rows { bytes, at: pixels_at, input: &[], inflate: Decompress::new(true) };
    let mut pixels = vec![0_u8; width * height * 3];
    let whole = [[0, 0, 1, 1]];
    for &[x0, y0, dx, dy] in if header.interlaced { &ADAM7[..] } else { &whole[..] } {
        let (pass_w, pass_h) = (width.saturating_sub(x0).div_ceil(dx), height.saturating_sub(y0).div_ceil(dy));
        if pass_w == 0 || pass_h == 0 {
            continue;
        }
        let row_len = (pass_w * header.color.samples() * header.depth).div_ceil(8);
        let mut row = vec![0_u8; 1 + row_len];
        let mut above = vec![0_u8; 1 + row_len];
        let mut rgb = vec![0_u8; pass_w * 3];
        for y in (y0..height).step_by(dy) {
            rows.fill(&mut row)?;
            let before = (header.depth * header.color.samples()).div_ceil(8);
            unfilter(&mut row, &above, before)?;
            let out = &mut pixels[y * width * 3..(y + 1) * width * 3];
            if dx == 1 {
                to_rgb(&row[1..], &header, out);
            } else {
                to_rgb(&row[1..], &header, &mut rgb);
                let places = out.as_chunks_mut::<3>().0.iter_mut().skip(x0).step_by(dx);
                for (to, from) in places.zip(rgb.as_chunks::<3>().0) {
                    *to = *from;
                }
            }
            std::mem::swap(&mut row, &mut above);
        }
    }
    let orientation = read_trailer(bytes, rows.at)?.or(header.orientation);
    let picture = Picture::new(width as u32, height as u32, pixels).map_err(|e| broken(e.to_string()))?;
    Ok((picture, orientation))
}

/// Walks the chunks before the pixels as `PngImageFile._open`, and gives the place of the first `IDAT`.
fn read_header(bytes: &[u8]) -> Result<(Header, usize), DecodeError> {
    let mut at = SIGNATURE.len();
    let mut header: Option<Header> = None;
    let mut has_palette = false;
    loop {
        let Chunk { name, data, whole, end } = chunk(bytes, at).ok_or(TRUNCATED)?;
        if !name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_') {
            return Err(broken(format!("{:?} is no chunk's name", name.escape_ascii().to_string())));
        }
        if name == *b"IDAT" {
            let header = header.ok_or_else(|| broken("its pixels come before its header"))?;
            if header.color == Color::Palette && !has_palette {
                return Err(broken("its palette is missing"));
            }
            return Ok((header, at));
        }
        if name == *b"IEND" {
            return Err(broken("it holds no pixels"));
        }
        let stored = bytes.get(end..end.saturating_add(4)).filter(|_| whole).ok_or(TRUNCATED)?;
        if crc32(&bytes[at + 4..end]).to_be_bytes() != *stored {
            return Err(broken(format!("bad header checksum in {}", name.escape_ascii())));
        }
        if SHORTEST.iter().any(|&(which, least)| *which == name && data.len() < least) {
            return Err(broken(format!("its {} chunk is too short", name.escape_ascii())));
        }
        match (&name, &mut header) {
            (b"IHDR", header) => *header = Some(read_ihdr(data)?),
            (b"PLTE", Some(header)) if header.color == Color::Palette => {
                has_palette = true;
                header.palette = [[0; 3]; 256];
                for (to, from) in header.palette.iter_mut().zip(data.as_chunks::<3>().0) {
                    *to = *from;
                }
            }
            (b"tRNS", Some(header)) => {
                let least = match header.color {
                    Color::Grey => 2,
                    Color::Rgb => 6,
                    _ => 0,
                };
                if data.len() < least {
                    return Err(broken("its tRNS chunk is too short"));
                }
            }
            (b"eXIf", Some(header)) => header.orientation = exif::orientation(data),
            _ => {}
        }
        at = end + 4;
    }
}

fn read_ihdr(data: &[u8]) -> Result<Header, DecodeError> {
    let &[w3, w2, w1, w0, h3, h2, h1, h0, depth, color, _, filter, interlace, ..] = data else {
        return Err(broken("its header is too short"));
    };
    let (width, height) = (u32::from_be_bytes([w3, w2, w1, w0]), u32::from_be_bytes([h3, h2, h1, h0]));
    check_size(KIND, width, height)?;
    if filter != 0 {
        return Err(broken(format!("its filter method is {filter}")));
    }
    let kind = match (color, depth) {
        (0, 1 | 2 | 4 | 8) => Color::Grey,
        (0, 16) => {
            // Pillow turns every value above 255 into white here, which is never what the picture shows.
            let message = "16-bit grey, which Pillow saturates to white; save it with 8 bits".to_owned();
            return Err(DecodeError::Unsupported { kind: KIND, message });
        }
        (2, 8 | 16) => Color::Rgb,
        (3, 1 | 2 | 4 | 8) => Color::Palette,
        (4, 8 | 16) => Color::GreyAlpha,
        (6, 8 | 16) => Color::Rgba,
        _ => return Err(broken(format!("no PNG has colour type {color} with {depth} bits"))),
    };
    Ok(Header {
        width: width as usize,
        height: height as usize,
        depth: usize::from(depth),
        color: kind,
        interlaced: interlace != 0,
        palette: [[0; 3]; 256],
        orientation: None,
    })
}

/// Looks through what follows the pixels, as `PngImageFile.load_end`, for an orientation.
///
/// Nothing need follow the pixels, but what has begun must be whole.
fn read_trailer(bytes: &[u8], mut at: usize) -> Result<Option<u32>, DecodeError> {
    let mut orientation = None;
    // The chunk in which the pixels ended is passed over, whether or not all of it is there.
    if let Some(last) = chunk(bytes, at) {
        at = last.end.saturating_add(4);
    }
    while let Some(Chunk { name, data, whole, end }) = chunk(bytes, at) {
        if matches!(&name, b"IEND" | b"fcTL") || !name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_') {
            break;
        }
        if !whole {
            return Err(TRUNCATED);
        }
        if name == *b"eXIf" {
            orientation = exif::orientation(data);
        }
        at = end.saturating_add(4);
    }
    Ok(orientation)
}

/// The inflated rows, read from as many `IDAT` chunks as follow one another.
struct Rows<'a> {
    bytes: &'a [u8],
    /// The chunk that `input` belongs to, or the first chunk before anything was read.
    at: usize,
    input: &'a [u8],
    inflate: Decompress,
}

impl Rows<'_> {
    /// Fills `row`; running out of data before is what makes a file truncated.
    fn fill(&mut self, row: &mut [u8]) -> Result<(), DecodeError> {
        let mut filled = 0;
        while filled < row.len() {
            let (wrote, status) = self.step(&mut row[filled..])?;
            filled += wrote.0;
            if filled == row.len() {
                break;
            }
            if status == Status::StreamEnd {
                return Err(TRUNCATED);
            }
            if wrote == (0, 0) && !self.next_chunk() {
                return Err(TRUNCATED);
            }
        }
        Ok(())
    }

    /// One call of the inflater: bytes written and read, and what it says.
    fn step(&mut self, out: &mut [u8]) -> Result<((usize, usize), Status), DecodeError> {
        let (had_in, had_out) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self
            .inflate
            .decompress(self.input, out, FlushDecompress::None)
            .map_err(|e| broken(format!("its data stream can't be inflated ({e})")))?;
        let read = (self.inflate.total_in() - had_in) as usize;
        let wrote = (self.inflate.total_out() - had_out) as usize;
        self.input = &self.input[read..];
        Ok(((wrote, read), status))
    }

    /// Goes on with the next `IDAT` and tells whether there is one with data.
    fn next_chunk(&mut self) -> bool {
        let mut at = self.at;
        // Before anything was read, `at` is the first chunk itself; after that it is the one used up.
        if self.inflate.total_in() > 0 || !self.input.is_empty() {
            let Some(used) = chunk(self.bytes, at).filter(|c| c.whole) else { return false };
            at = used.end.saturating_add(4);
        }
        while let Some(next) = chunk(self.bytes, at).filter(|c| c.name == *b"IDAT") {
            self.at = at;
            if !next.data.is_empty() {
                self.input = next.data;
                return true;
            }
            // Empty chunks are allowed.
            at = next.end.saturating_add(4);
        }
        false
    }
}

/// Undoes a row's filter in place, `ZipDecode.c`; the filter's number is the first byte of `row`.
fn unfilter(row: &mut [u8], above: &[u8], before: usize) -> Result<(), DecodeError> {
    let Some((&mut filter, row)) = row.split_first_mut() else { return Ok(()) };
    let above = &above[1..];
    match filter {
        0 => {}
        1 => {
            for i in before..row.len() {
                row[i] = row[i].wrapping_add(row[i - before]);
            }
        }
        2 => {
            for (byte, up) in row.iter_mut().zip(above) {
                *byte = byte.wrapping_add(*up);
            }
        }
        3 => {
            for i in 0..row.len() {
                let left = if i < before { 0 } else { u16::from(row[i - before]) };
                row[i] = row[i].wrapping_add(((left + u16::from(above[i])) / 2) as u8);
            }
        }
        4 => {
            for i in 0..row.len() {
                let (left, corner) = if i < before { (0, 0) } else { (row[i - before], above[i - before]) };
                row[i] = row[i].wrapping_add(paeth(left, above[i], corner));
            }
        }
        other => return Err(broken(format!("a row has filter {other}"))),
    }
    Ok(())
}

fn paeth(a: u8, b: u8, c: u8) -> u8 {
    let (x, y, z) = (i16::from(a), i16::from(b), i16::from(c));
    let (pa, pb, pc) = ((y - z).abs(), (x - z).abs(), (x + y - 2 * z).abs());
    if pa <= pb && pa <= pc {
        a
    } else if pb <= pc {
        b
    } else {
        c
    }
}

/// One row of samples to RGB. Alpha and transparent colours are dropped, 16-bit samples keep their high byte.
fn to_rgb(row: &[u8], header: &Header, out: &mut [u8]) {
    let out = out.as_chunks_mut::<3>().0;
    let step = header.depth.div_ceil(8);
    match header.color {
        Color::Grey | Color::Palette => {
            let bits = header.depth.min(8);
            let mask = 0xFF_u8 >> (8 - bits);
            // 255 is a multiple of 1, 3 and 15, so the steps between greys are whole numbers.
            let scale = 255 / mask;
            for (x, px) in out.iter_mut().enumerate() {
                let bit = x * bits;
                let value = (row[bit / 8] >> (8 - bits - bit % 8)) & mask;
                *px = match header.color {
                    Color::Palette => header.palette[usize::from(value)],
                    _ => [value * scale; 3],
                };
            }
        }
        Color::GreyAlpha => {
            for (px, sample) in out.iter_mut().zip(row.chunks_exact(2 * step)) {
                *px = [sample[0]; 3];
            }
        }
        Color::Rgb | Color::Rgba => {
            for (px, sample) in out.iter_mut().zip(row.chunks_exact(header.color.samples() * step)) {
                *px = [sample[0], sample[step], sample[2 * step]];
            }
        }
    }
}

/// CRC-32 of the PNG specification, annex D.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_the_standards() {
        assert_eq!(crc32(b"IEND"), 0xAE42_6082);
    }
}
