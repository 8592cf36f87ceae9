//! The one EXIF value that changes pixels: the camera's orientation.

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};

use crate::frame::Picture;

/// The orientation in the first directory of a TIFF block, or `None` where it isn't there or is damaged.
pub(crate) fn orientation(exif: &[u8]) -> Option<Orientation> {
    let mut tiff = exif;
    // Some programs write the prefix of a JPEG's segment into a PNG's chunk.
    while let Some(rest) = tiff.strip_prefix(b"Exif\0\0") {
        tiff = rest;
    }
    Orientation::from_exif_chunk(tiff)
}

/// The orientation in an XMP packet, as Pillow's pattern `tiff:Orientation(="|>)([0-9])` finds it.
pub(crate) fn xmp_orientation(xmp: &[u8]) -> Option<Orientation> {
    const NAME: &[u8] = b"tiff:Orientation";
    let digit = xmp.windows(NAME.len()).enumerate().filter(|(_, w)| *w == NAME).find_map(|(i, _)| {
        let rest = &xmp[i + NAME.len()..];
        let digit = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?.first()?;
        digit.is_ascii_digit().then(|| digit - b'0')
    })?;
    Orientation::from_exif(digit)
}

/// The picture as it should be seen.
pub(crate) fn transpose(picture: Picture, orientation: Orientation) -> Picture {
    let (width, height) = (picture.width(), picture.height());
    let Some(pixels) = RgbImage::from_raw(width, height, picture.into_pixels()) else {
        unreachable!("a picture's pixels fit its shape");
    };
    let mut image = DynamicImage::ImageRgb8(pixels);
    image.apply_orientation(orientation);
    let (width, height) = (image.width(), image.height());
    match Picture::new(width, height, image.into_rgb8().into_raw()) {
        Ok(turned) => turned,
        Err(_) => unreachable!("an image's pixels fit its shape"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_blocks_give_nothing() {
        let good = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        assert_eq!(orientation(good), Some(Orientation::Rotate90));
        for cut in 0..26 {
            assert_eq!(orientation(&good[..cut]), None);
        }
        assert_eq!(orientation(b"II*\0\xff\xff\xff\xff\x01\0"), None);
    }

    #[test]
    fn xmp_is_read() {
        assert_eq!(xmp_orientation(b"<x tiff:Orientation=\"8\"/>"), Some(Orientation::Rotate270));
        assert_eq!(xmp_orientation(b"<tiff:Orientation>3<"), Some(Orientation::Rotate180));
        assert_eq!(xmp_orientation(b"<tiff:Orientation/>"), None);
    }
}
