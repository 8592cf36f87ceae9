//! Camera frames to pictures: the pixel formats V4L2 cameras deliver.
//!
//! The `yuv` crate computes the colours. Every byte lies within one level of the exact ITU-R formula, rounded:
//! of random frames 83 % of the bytes are exact in limited range and 93 % in full range. In limited range, Y below
//! 16 counts as 16. The last bit may differ between instruction sets.

use std::fmt;

use serde::{Deserialize, Serialize};
use yuv::{
    YuvBiPlanarImage, YuvChromaSubsampling, YuvConversionMode, YuvError, YuvPackedImage, YuvPlanarImage,
    YuvPlanarImageMut, YuvRange, YuvStandardMatrix, yuv_nv12_to_rgb, yuv420_to_rgb, yuv422_to_rgb, yuyv422_to_yuv422,
};

use crate::decode::{DecodeError, MAX_PIXELS};
use crate::frame::{FrameError, Picture};
use crate::jpeg;

/// How a camera lays out its pixels; the names are V4L2's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PixelFormat {
    /// Packed 4:2:2, bytes Y0 U Y1 V for two pixels (`V4L2_PIX_FMT_YUYV`).
    Yuyv,
    /// A plane of Y, then a plane of U V pairs for 2x2 pixels (`V4L2_PIX_FMT_NV12`).
    Nv12,
    /// A JPEG a frame, possibly without Huffman tables (`V4L2_PIX_FMT_MJPEG`).
    Mjpeg,
    /// Bytes R G B (`V4L2_PIX_FMT_RGB24`, "RGB3").
    Rgb3,
    /// Bytes B G R (`V4L2_PIX_FMT_BGR24`, "BGR3").
    Bgr3,
    /// One byte of grey a pixel (`V4L2_PIX_FMT_GREY`).
    Grey,
    /// A plane of Y, then one of U and one of V for 2x2 pixels each (`V4L2_PIX_FMT_YUV420`, "YU12", I420).
    Yu12,
}

impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yuyv => "YUYV",
            Self::Nv12 => "NV12",
            Self::Yu12 => "YU12",
            Self::Mjpeg => "MJPEG",
            Self::Rgb3 => "RGB3",
            Self::Bgr3 => "BGR3",
            Self::Grey => "GREY",
        })
    }
}

/// The weights of red and blue in Y.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColorMatrix {
    /// ITU-R BT.601, what webcams deliver (`V4L2_YCBCR_ENC_601`).
    #[default]
    Bt601,
    /// ITU-R BT.709, usual for HD capture (`V4L2_YCBCR_ENC_709`).
    Bt709,
    /// ITU-R BT.2020 (`V4L2_YCBCR_ENC_BT2020`).
    Bt2020,
}

/// Which numbers stand for black and white.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColorRange {
    /// Y in 16..=235, U and V in 16..=240 (`V4L2_QUANTIZATION_LIM_RANGE`).
    #[default]
    Limited,
    /// All in 0..=255 (`V4L2_QUANTIZATION_FULL_RANGE`).
    Full,
}

/// How Y, U and V become red, green and blue; the default is what V4L2 webcams deliver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ColorSpace {
    /// The weights of red and blue in Y.
    pub matrix: ColorMatrix,
    /// Which numbers stand for black and white.
    pub range: ColorRange,
}

impl ColorSpace {
    pub(crate) fn parts(self) -> (YuvRange, YuvStandardMatrix) {
        let range = match self.range {
            ColorRange::Limited => YuvRange::Limited,
            ColorRange::Full => YuvRange::Full,
        };
        let matrix = match self.matrix {
            ColorMatrix::Bt601 => YuvStandardMatrix::Bt601,
            ColorMatrix::Bt709 => YuvStandardMatrix::Bt709,
            ColorMatrix::Bt2020 => YuvStandardMatrix::Bt2020,
        };
        (range, matrix)
    }
}

/// A frame as the camera gave it.
#[derive(Clone, Copy)]
pub struct RawFrame<'a> {
    /// How the bytes are laid out.
    pub format: PixelFormat,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Bytes from one row to the next (of NV12 in both planes, of YU12 in the plane of Y and twice those in the planes
    /// of U and V, so it is even); `None` where rows are packed. MJPEG has none.
    pub stride: Option<usize>,
    /// How Y, U and V become red, green and blue; of no meaning for MJPEG, RGB3, BGR3 and GREY.
    pub color: ColorSpace,
    /// The bytes; more than the frame needs are ignored, as buffers are often rounded up.
    pub data: &'a [u8],
}

/// Turns a camera frame into a picture of shape (height, width, 3).
///
/// # Errors
///
/// As [`to_picture_into`].
pub fn to_picture(raw: &RawFrame<'_>) -> Result<Picture, FrameError> {
    // One pixel is enough: the shape is checked against the data before anything large is allocated.
    let mut picture = Picture::blank(1, 1)?;
    to_picture_into(raw, &mut picture)?;
    Ok(picture)
}

/// Turns a camera frame into `picture`, whose allocation is reused whatever its shape was.
///
/// # Errors
///
/// [`FrameError::ShortFrame`] and [`FrameError::BadStride`] where the data don't fit the shape,
/// [`FrameError::Jpeg`] and [`FrameError::SizeDiffers`] for MJPEG. What `picture` shows then is unspecified,
/// but it remains a picture.
pub fn to_picture_into(raw: &RawFrame<'_>, picture: &mut Picture) -> Result<(), FrameError> {
    let RawFrame { format, width, height, .. } = *raw;
    check_size(width, height)?;
    let (w, h) = (width as usize, height as usize);
    // Every other condition of the converters is checked before they are called.
    let too_large = |_: YuvError| FrameError::TooLarge { width, height };
    match format {
        PixelFormat::Mjpeg => mjpeg(raw, picture),
        PixelFormat::Rgb3 | PixelFormat::Bgr3 => {
            let stride = check(raw, w * 3, h)?;
            picture.reshape(width, height)?;
            for (row, out) in raw.data.chunks(stride).zip(picture.pixels_mut().chunks_exact_mut(w * 3)) {
                out.copy_from_slice(&row[..w * 3]);
                if format == PixelFormat::Bgr3 {
                    for px in out.as_chunks_mut::<3>().0 {
                        px.swap(0, 2);
                    }
                }
            }
            Ok(())
        }
        PixelFormat::Grey => {
            let stride = check(raw, w, h)?;
            picture.reshape(width, height)?;
            for (row, out) in raw.data.chunks(stride).zip(picture.pixels_mut().chunks_exact_mut(w * 3)) {
                for (&grey, px) in row.iter().zip(out.as_chunks_mut::<3>().0) {
                    *px = [grey; 3];
                }
            }
            Ok(())
        }
        PixelFormat::Yuyv => {
            // A row of odd width still ends with a whole group of two pixels.
            let row_bytes = w.div_ceil(2) * 4;
            let stride = check(raw, row_bytes, h)?;
            picture.reshape(width, height)?;
            let rows = raw.data.chunks(stride).take(h).map(|row| &row[..row_bytes]);
            yuyv(rows.zip(picture.pixels_mut().chunks_exact_mut(w * 3)), width, raw.color).map_err(too_large)
        }
        PixelFormat::Nv12 => {
            // Chroma rows follow the luma rows with the same stride; an odd height rounds up.
            let stride = check(raw, w.next_multiple_of(2), h + h.div_ceil(2))?;
            picture.reshape(width, height)?;
            let (luma, chroma) = raw.data.split_at(stride * h);
            // The last row of chroma may come without its padding.
            let chroma = chroma.chunks(stride).map(|row| &row[..w.next_multiple_of(2)]);
            let rows = luma.chunks(stride * 2).zip(chroma).zip(picture.pixels_mut().chunks_mut(w * 3 * 2));
            nv12(rows, stride, width, raw.color).map_err(too_large)
        }
        PixelFormat::Yu12 => {
            let (half_w, half_h) = (w.div_ceil(2), h.div_ceil(2));
            // Rows of chroma are half as long as those of luma, padding included; packed rows of odd width round up.
            let half_stride = raw.stride.map_or(half_w, |stride| stride / 2);
            if half_stride < half_w {
                return Err(FrameError::BadStride { format, width, needed: half_w * 2, got: half_stride * 2 });
            }
            let stride = raw.stride.unwrap_or(w);
            let too_long = FrameError::TooLarge { width, height };
            let Some(luma) = stride.checked_mul(h) else { return Err(too_long) };
            let Some(chroma) = half_stride.checked_mul(half_h) else { return Err(too_long) };
            // The last row may come without its padding.
            let last = half_stride * (half_h - 1) + half_w;
            let needed = luma.checked_add(chroma).and_then(|n| n.checked_add(last)).ok_or(too_long)?;
            if raw.data.len() < needed {
                return Err(FrameError::ShortFrame { format, width, height, needed, got: raw.data.len() });
            }
            picture.reshape(width, height)?;
            let (luma, rest) = raw.data.split_at(luma);
            let (u, v) = rest.split_at(chroma);
            let row = |plane: &'_ [u8], i: usize| plane.len().min(i * half_stride + half_w);
            let chroma = (0..half_h).map(|i| {
                let start = i * half_stride;
                (&u[start..row(u, i)], &v[start..row(v, i)])
            });
            let rows = luma.chunks(stride * 2).zip(chroma).zip(picture.pixels_mut().chunks_mut(w * 3 * 2));
            yu12(rows, stride, width, raw.color).map_err(too_large)
        }
    }
}

/// Converts YUYV row by row, so that the planes between the two steps stay in the nearest cache.
///
/// The `yuv` crate's direct way computes with weights of 6 bits; by way of planes it has 13.
fn yuyv<'a>(
    rows: impl Iterator<Item = (&'a [u8], &'a mut [u8])>,
    width: u32,
    color: ColorSpace,
) -> Result<(), YuvError> {
    let (range, matrix) = color.parts();
    let mut planes = YuvPlanarImageMut::alloc(width, 1, YuvChromaSubsampling::Yuv422);
    for (yuy, rgb) in rows {
        let packed = YuvPackedImage { yuy, yuy_stride: yuy.len() as u32, width, height: 1 };
        yuyv422_to_yuv422(&mut planes, &packed)?;
        yuv422_to_rgb(&planes.to_fixed(), rgb, width * 3, range, matrix)?;
    }
    Ok(())
}

/// Converts NV12 two rows at a time, those that share a row of chroma; of an odd height, the last row alone.
fn nv12<'a>(
    rows: impl Iterator<Item = ((&'a [u8], &'a [u8]), &'a mut [u8])>,
    stride: usize,
    width: u32,
    color: ColorSpace,
) -> Result<(), YuvError> {
    let (range, matrix) = color.parts();
    let y_stride = u32::try_from(stride).map_err(|_| YuvError::PointerOverflow)?;
    for ((y_plane, uv_plane), rgb) in rows {
        let height = (y_plane.len() / stride) as u32;
        let planes = YuvBiPlanarImage { y_plane, y_stride, uv_plane, uv_stride: uv_plane.len() as u32, width, height };
        yuv_nv12_to_rgb(&planes, rgb, width * 3, range, matrix, YuvConversionMode::Balanced)?;
    }
    Ok(())
}

/// Converts YU12 as [`nv12`] converts NV12: two rows at a time.
fn yu12<'a>(
    rows: impl Iterator<Item = ((&'a [u8], (&'a [u8], &'a [u8])), &'a mut [u8])>,
    stride: usize,
    width: u32,
    color: ColorSpace,
) -> Result<(), YuvError> {
    let (range, matrix) = color.parts();
    let y_stride = u32::try_from(stride).map_err(|_| YuvError::PointerOverflow)?;
    for ((y_plane, (u_plane, v_plane)), rgb) in rows {
        let height = (y_plane.len() / stride) as u32;
        let (u_stride, v_stride) = (u_plane.len() as u32, v_plane.len() as u32);
        let planes = YuvPlanarImage { y_plane, y_stride, u_plane, u_stride, v_plane, v_stride, width, height };
        yuv420_to_rgb(&planes, rgb, width * 3, range, matrix)?;
    }
    Ok(())
}

/// Makes sure that a frame has pixels, and not absurdly many.
pub(crate) fn check_size(width: u32, height: u32) -> Result<(), FrameError> {
    if width == 0 || height == 0 {
        return Err(FrameError::Empty { width, height });
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(FrameError::TooLarge { width, height });
    }
    Ok(())
}

/// The stride of a frame of `rows` rows of `row_bytes` bytes, after making sure that the data hold them all.
pub(crate) fn check(raw: &RawFrame<'_>, row_bytes: usize, rows: usize) -> Result<usize, FrameError> {
    let RawFrame { format, width, height, .. } = *raw;
    let stride = raw.stride.unwrap_or(row_bytes);
    if stride < row_bytes {
        return Err(FrameError::BadStride { format, width, needed: row_bytes, got: stride });
    }
    // The last row may come without its padding.
    let needed = stride
        .checked_mul(rows - 1)
        .and_then(|n| n.checked_add(row_bytes))
        .ok_or(FrameError::TooLarge { width, height })?;
    if raw.data.len() < needed {
        return Err(FrameError::ShortFrame { format, width, height, needed, got: raw.data.len() });
    }
    Ok(stride)
}

fn mjpeg(raw: &RawFrame<'_>, picture: &mut Picture) -> Result<(), FrameError> {
    let size = (raw.width, raw.height);
    match jpeg::decode_into(raw.data, picture, size).map_err(FrameError::Jpeg)? {
        None => Ok(()),
        Some((width, height)) => {
            Err(FrameError::SizeDiffers { expected_width: raw.width, expected_height: raw.height, width, height })
        }
    }
}

impl From<DecodeError> for FrameError {
    fn from(error: DecodeError) -> Self {
        Self::Jpeg(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(format: PixelFormat, width: u32, height: u32, data: &[u8]) -> RawFrame<'_> {
        RawFrame { format, width, height, stride: None, color: ColorSpace::default(), data }
    }

    #[test]
    fn plain_formats_are_copied() {
        let bytes = [1, 2, 3, 4, 5, 6, 9];
        assert_eq!(to_picture(&frame(PixelFormat::Rgb3, 1, 2, &bytes)).unwrap().pixels(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(to_picture(&frame(PixelFormat::Bgr3, 1, 2, &bytes)).unwrap().pixels(), [3, 2, 1, 6, 5, 4]);
        assert_eq!(to_picture(&frame(PixelFormat::Grey, 2, 1, &bytes)).unwrap().pixels(), [1, 1, 1, 2, 2, 2]);
        let padded = RawFrame { stride: Some(4), ..frame(PixelFormat::Grey, 1, 2, &bytes) };
        assert_eq!(to_picture(&padded).unwrap().pixels(), [1, 1, 1, 5, 5, 5]);
    }

    #[test]
    fn black_and_white_reach_the_ends() {
        let yuyv = [16, 128, 235, 128];
        assert_eq!(to_picture(&frame(PixelFormat::Yuyv, 2, 1, &yuyv)).unwrap().pixels(), [0, 0, 0, 255, 255, 255]);
        let nv12 = [16, 235, 235, 16, 128, 128];
        let picture = to_picture(&frame(PixelFormat::Nv12, 2, 2, &nv12)).unwrap();
        assert_eq!(picture.pixels(), [0, 0, 0, 255, 255, 255, 255, 255, 255, 0, 0, 0]);
    }

    #[test]
    fn planar_frames_equal_semi_planar_ones() {
        let mut random = 7;
        for (width, height, padding) in [(2_usize, 2_usize, 0), (6, 4, 0), (5, 3, 0), (8, 3, 4), (7, 5, 3)] {
            let stride = (width + padding).next_multiple_of(2);
            let (half, rows) = (stride / 2, height.div_ceil(2));
            let bytes: Vec<u8> =
                (0..stride * height + stride * rows).map(|_| crate::random::split_mix(&mut random) as u8).collect();
            let (luma, chroma) = bytes.split_at(stride * height);
            let mut nv12 = luma.to_vec();
            for i in 0..half * rows {
                nv12.extend([chroma[i], chroma[half * rows + i]]);
            }
            for color in [ColorSpace::default(), ColorSpace { matrix: ColorMatrix::Bt709, range: ColorRange::Full }] {
                let raw = |format, data| RawFrame {
                    stride: Some(stride),
                    color,
                    ..frame(format, width as u32, height as u32, data)
                };
                let planar = to_picture(&raw(PixelFormat::Yu12, &bytes)).unwrap();
                let expected = to_picture(&raw(PixelFormat::Nv12, &nv12)).unwrap();
                assert!(planar.pixels() == expected.pixels(), "{width}x{height}, {color:?}");
            }
        }
        // Without a stride, planes of odd width are packed.
        let odd = [16, 235, 16, 128, 128, 128, 128];
        let picture = to_picture(&frame(PixelFormat::Yu12, 3, 1, &odd)).unwrap();
        assert_eq!(picture.pixels(), [0, 0, 0, 255, 255, 255, 0, 0, 0]);
        assert!(matches!(
            to_picture(&frame(PixelFormat::Yu12, 3, 1, &odd[..6])),
            Err(FrameError::ShortFrame { needed: 7, got: 6, .. })
        ));
        let narrow = RawFrame { stride: Some(3), ..frame(PixelFormat::Yu12, 4, 2, &[0; 100]) };
        assert!(matches!(to_picture(&narrow), Err(FrameError::BadStride { needed: 4, got: 2, .. })));
        let wide = RawFrame { stride: Some(usize::MAX), ..frame(PixelFormat::Yu12, 4, 2, &[0; 100]) };
        assert!(to_picture(&wide).is_err());
    }

    #[test]
    fn short_frames_and_strides_are_named() {
        let err = to_picture(&frame(PixelFormat::Yuyv, 640, 480, &[0; 100])).unwrap_err().to_string();
        assert_eq!(err, "a YUYV frame of 640x480 needs 614400 bytes, but only 100 came");
        let narrow = RawFrame { stride: Some(3), ..frame(PixelFormat::Nv12, 4, 2, &[0; 100]) };
        assert!(matches!(to_picture(&narrow), Err(FrameError::BadStride { needed: 4, got: 3, .. })));
        assert!(matches!(to_picture(&frame(PixelFormat::Rgb3, 0, 2, &[])), Err(FrameError::Empty { .. })));
        let wide = RawFrame { stride: Some(usize::MAX), ..frame(PixelFormat::Grey, 4, 2, &[0; 100]) };
        assert!(to_picture(&wide).is_err());
    }

    #[test]
    fn motion_jpeg_is_decoded_in_place() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/vision");
        // Cameras leave the Huffman tables out.
        let bytes = std::fs::read(folder.join("no-huffman-tables.jpg")).unwrap();
        let whole = crate::decode(&bytes, &crate::DecodeOptions::default()).unwrap();
        let mut picture = Picture::blank(200, 200).unwrap();
        let (width, height) = (whole.width(), whole.height());
        to_picture_into(&frame(PixelFormat::Mjpeg, width, height, &bytes), &mut picture).unwrap();
        assert_eq!(picture, whole);
        // Drivers pad the buffer behind the frame.
        let padded = [&bytes[..], &[0; 64]].concat();
        to_picture_into(&frame(PixelFormat::Mjpeg, width, height, &padded), &mut picture).unwrap();
        assert_eq!(picture, whole);
        let cut = frame(PixelFormat::Mjpeg, width, height, &bytes[..bytes.len() / 2]);
        let err = to_picture_into(&cut, &mut picture).unwrap_err().to_string();
        assert_eq!(err, "the camera's JPEG frame can't be decoded: the JPEG image file is truncated");
        assert!(matches!(
            to_picture(&frame(PixelFormat::Mjpeg, width + 1, height, &bytes)),
            Err(FrameError::SizeDiffers { .. })
        ));
        assert!(matches!(to_picture(&frame(PixelFormat::Mjpeg, 4, 4, b"")), Err(FrameError::Jpeg(_))));
    }
}
