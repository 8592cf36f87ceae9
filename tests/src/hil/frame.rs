//! Photos as a camera would deliver them.

use super::Size;
use anyhow::{Context, Result, bail};
use edge_link::RawFrame;
use edge_vision::{ColorMatrix, ColorRange, ColorSpace, DecodeOptions, PixelFormat};
use image::{RgbImage, imageops};
use yuv::{
    BufferStoreMut, YuvBiPlanarImageMut, YuvChromaSubsampling, YuvConversionMode, YuvPackedImageMut, YuvPlanarImageMut,
    YuvRange, YuvStandardMatrix, rgb_to_yuv_nv12, rgb_to_yuv422, yuv422_to_yuyv422,
};

/// Rows from which on V4L2 takes it that pictures are coded as television's are.
const HD: u32 = 720;

/// A photo (the bytes of a JPEG or PNG file), scaled to a camera's size, in one of its formats. Colours are coded as an HDMI
/// source does it: by BT.601, in high definition by BT.709, in limited range.
///
/// # Errors
///
/// Where the file is no photo, or the format is none that is known here (YUYV, NV12, GREY).
pub fn frame(photo: &[u8], format: PixelFormat, size: Size) -> Result<RawFrame> {
    let picture = edge_vision::decode(photo, &DecodeOptions::default())?;
    let (width, height) = (picture.width(), picture.height());
    let whole = RgbImage::from_raw(width, height, picture.into_pixels()).context("a picture has its pixels")?;
    let Size { width, height } = size;
    let rgb = imageops::resize(&whole, width, height, imageops::FilterType::Triangle).into_raw();
    let matrix = if height < HD { ColorMatrix::Bt601 } else { ColorMatrix::Bt709 };
    let coded = if height < HD { YuvStandardMatrix::Bt601 } else { YuvStandardMatrix::Bt709 };
    let (range, mode) = (YuvRange::Limited, YuvConversionMode::Balanced);
    let bytes = match format {
        PixelFormat::Yuyv => {
            let mut planes = YuvPlanarImageMut::alloc(width, height, YuvChromaSubsampling::Yuv422);
            rgb_to_yuv422(&mut planes, &rgb, width * 3, range, coded, mode)?;
            let yuy_stride = width * 2;
            let yuy = BufferStoreMut::Owned(vec![0; yuy_stride as usize * height as usize]);
            let mut packed = YuvPackedImageMut { yuy, yuy_stride, width, height };
            yuv422_to_yuyv422(&mut packed, &planes.to_fixed())?;
            packed.yuy.borrow().to_vec()
        }
        PixelFormat::Nv12 => {
            let mut planes = YuvBiPlanarImageMut::alloc(width, height, YuvChromaSubsampling::Yuv420);
            rgb_to_yuv_nv12(&mut planes, &rgb, width * 3, range, coded, mode)?;
            [planes.y_plane.borrow(), planes.uv_plane.borrow()].concat()
        }
        PixelFormat::Grey => rgb.chunks_exact(3).map(|pixel| pixel[1]).collect(),
        other => bail!("no frame of {other} can be made of a photo here"),
    };
    let color = ColorSpace { matrix, range: ColorRange::Limited };
    Ok(RawFrame { number: 0, format, width, height, stride: None, color, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::ImageFormat;
    use std::io::Cursor;

    fn flat(color: [u8; 3]) -> Vec<u8> {
        let mut bytes = Cursor::new(vec![]);
        RgbImage::from_pixel(8, 4, image::Rgb(color)).write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn known_colours_have_their_bt601_values() {
        let size = Size { width: 4, height: 2 };
        for (color, [y, u, v]) in [
            ([0, 0, 0], [16, 128, 128]),
            ([255, 255, 255], [235, 128, 128]),
            ([255, 0, 0], [82, 90, 240]),
            ([0, 0, 255], [41, 240, 110]),
        ] {
            let yuyv = frame(&flat(color), PixelFormat::Yuyv, size).unwrap();
            let near = |bytes: &[u8], expected: &[u8]| {
                let fits =
                    bytes.len() == expected.len() && bytes.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= 1);
                assert!(fits, "{bytes:?}, not {expected:?}");
            };
            near(&yuyv.bytes, &[y, u, y, v].repeat(4));
            let nv12 = frame(&flat(color), PixelFormat::Nv12, size).unwrap();
            near(&nv12.bytes[..8], &[y; 8]);
            near(&nv12.bytes[8..], &[u, v].repeat(2));
        }
        assert!(frame(&flat([0; 3]), PixelFormat::Mjpeg, size).is_err());
        assert!(frame(b"no photo", PixelFormat::Yuyv, size).is_err());
    }
}
