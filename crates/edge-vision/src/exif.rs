//! The one EXIF value that changes pixels: the camera's orientation.
//!
//! Follows Pillow 13 `Image.getexif` and `ImageOps.exif_transpose`.

use crate::frame::Picture;

/// Tag 0x0112 of the TIFF 6.0 specification.
const ORIENTATION: u16 = 0x0112;

fn u16_at(tiff: &[u8], at: usize, big: bool) -> Option<u16> {
    let b: [u8; 2] = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
    Some(if big { u16::from_be_bytes(b) } else { u16::from_le_bytes(b) })
}

fn u32_at(tiff: &[u8], at: usize, big: bool) -> Option<u32> {
    let b: [u8; 4] = tiff.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(if big { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) })
}

/// The orientation in the first directory of a TIFF block, or `None` where it isn't there or is damaged.
pub(crate) fn orientation(exif: &[u8]) -> Option<u32> {
    let mut tiff = exif;
    while let Some(rest) = tiff.strip_prefix(b"Exif\0\0") {
        tiff = rest;
    }
    let big = match tiff.get(..2)? {
        b"MM" => true,
        b"II" => false,
        _ => return None,
    };
    let ifd = usize::try_from(u32_at(tiff, 4, big)?).ok()?;
    let count = usize::from(u16_at(tiff, ifd, big)?);
    for i in 0..count {
        let entry = ifd.checked_add(2 + 12 * i)?;
        if u16_at(tiff, entry, big)? != ORIENTATION {
            continue;
        }
        if u32_at(tiff, entry + 4, big)? != 1 {
            return None;
        }
        return match u16_at(tiff, entry + 2, big)? {
            1 => tiff.get(entry + 8).map(|&v| u32::from(v)),
            3 => u16_at(tiff, entry + 8, big).map(u32::from),
            4 => u32_at(tiff, entry + 8, big),
            _ => None,
        };
    }
    None
}

/// The orientation in an XMP packet, as Pillow's pattern `tiff:Orientation(="|>)([0-9])` finds it.
pub(crate) fn xmp_orientation(xmp: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"tiff:Orientation";
    xmp.windows(NAME.len()).enumerate().filter(|(_, w)| *w == NAME).find_map(|(i, _)| {
        let rest = &xmp[i + NAME.len()..];
        let digit = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?.first()?;
        digit.is_ascii_digit().then(|| u32::from(digit - b'0'))
    })
}

/// The picture as it should be seen; orientations other than 2..=8 leave it alone.
pub(crate) fn transpose(picture: Picture, orientation: u32) -> Picture {
    if !(2..=8).contains(&orientation) {
        return picture;
    }
    let (w, h) = (picture.width() as usize, picture.height() as usize);
    let (out_w, out_h) = if orientation >= 5 { (h, w) } else { (w, h) };
    let src = picture.pixels().as_chunks::<3>().0;
    let mut out = Vec::with_capacity(picture.pixels().len());
    for y in 0..out_h {
        for x in 0..out_w {
            let (sx, sy) = match orientation {
                2 => (w - 1 - x, y),
                3 => (w - 1 - x, h - 1 - y),
                4 => (x, h - 1 - y),
                5 => (y, x),
                6 => (y, h - 1 - x),
                7 => (w - 1 - y, h - 1 - x),
                _ => (w - 1 - y, x),
            };
            out.extend_from_slice(&src[sy * w + sx]);
        }
    }
    match Picture::new(out_w as u32, out_h as u32, out) {
        Ok(turned) => turned,
        Err(_) => picture,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_blocks_give_nothing() {
        let good = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        assert_eq!(orientation(good), Some(6));
        for cut in 0..26 {
            assert_eq!(orientation(&good[..cut]), None);
        }
        assert_eq!(orientation(b"II*\0\xff\xff\xff\xff\x01\0"), None);
    }

    #[test]
    fn xmp_is_read() {
        assert_eq!(xmp_orientation(b"<x tiff:Orientation=\"8\"/>"), Some(8));
        assert_eq!(xmp_orientation(b"<tiff:Orientation>3<"), Some(3));
        assert_eq!(xmp_orientation(b"<tiff:Orientation/>"), None);
    }
}
