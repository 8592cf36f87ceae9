//! Single pixels of a camera frame as RGB, without converting the others.
//!
//! Resizing by the nearest pixel reads one pixel in ten of a 720p frame, and a turned or mirrored frame costs nothing
//! more. The `yuv` crate's conversion gives a pixel the same bytes wherever it stands in a row, so that this is the
//! same picture as converting all of the frame first; a test holds them against each other.

use yuv::{YuvPlanarImage, yuv444_to_rgb};

use crate::frame::FrameError;
use crate::resample::Block;
use crate::yuv::{PixelFormat, RawFrame, check, check_size};

/// Which pixels of a frame make up a picture.
pub(crate) struct Places {
    /// For each column of the picture a column of the frame; a row where `transposed`.
    pub across: Vec<usize>,
    /// For each row of the picture a row of the frame; a column where `transposed`.
    pub down: Vec<usize>,
    /// Whether the frame is turned by a quarter.
    pub transposed: bool,
}

/// Whether pixels of this format stand where they can be found.
pub(crate) fn is_sampled(format: PixelFormat) -> bool {
    matches!(format, PixelFormat::Yuyv | PixelFormat::Rgb3 | PixelFormat::Bgr3 | PixelFormat::Grey)
}

/// Writes the pixels at `places`, which must lie inside the frame, to `target` of `dst`. `planes` is room for a row.
///
/// # Errors
///
/// As [`crate::to_picture_into`], and [`FrameError::Empty`] for formats that aren't sampled.
pub(crate) fn sample(
    raw: &RawFrame<'_>,
    places: &Places,
    planes: &mut Vec<u8>,
    (dst, target): (&mut [u8], Block),
) -> Result<(), FrameError> {
    let RawFrame { format, width, height, data, .. } = *raw;
    check_size(width, height)?;
    let (w, h, count) = (width as usize, height as usize, places.across.len());
    let rows = places.down.iter().zip(dst[target.offset..].chunks_mut(target.stride));
    // Where a place of the picture lies, from its places along both sides: offsets in the frame are sums.
    let offsets = |pixel: usize, stride: usize| {
        if places.transposed { (stride, pixel) } else { (pixel, stride) }
    };
    match format {
        PixelFormat::Yuyv => {
            let stride = check(raw, w.div_ceil(2) * 4, h)?;
            if count == 0 {
                // All of the picture is padding, and the converter wants pixels.
                return Ok(());
            }
            planes.resize(count * 3, 0);
            let (y_plane, rest) = planes.split_at_mut(count);
            let (u_plane, v_plane) = rest.split_at_mut(count);
            let (range, matrix) = raw.color.parts();
            for (&down, out) in rows {
                let yuv = y_plane.iter_mut().zip(u_plane.iter_mut()).zip(v_plane.iter_mut());
                for (&across, ((y, u), v)) in places.across.iter().zip(yuv) {
                    let (column, row) = if places.transposed { (down, across) } else { (across, down) };
                    // Two pixels share four bytes: Y0 U Y1 V.
                    let group = data[row * stride + column / 2 * 4..].first_chunk::<4>();
                    let [y0, shared_u, y1, shared_v] = *group.unwrap_or(&[0; 4]);
                    (*y, *u, *v) = (if column % 2 == 0 { y0 } else { y1 }, shared_u, shared_v);
                }
                let width = count as u32;
                let image = YuvPlanarImage {
                    y_plane,
                    y_stride: width,
                    u_plane,
                    u_stride: width,
                    v_plane,
                    v_stride: width,
                    width,
                    height: 1,
                };
                yuv444_to_rgb(&image, &mut out[..count * 3], width * 3, range, matrix)
                    .map_err(|_| FrameError::TooLarge { width: raw.width, height })?;
            }
        }
        PixelFormat::Rgb3 | PixelFormat::Bgr3 => {
            let stride = check(raw, w * 3, h)?;
            let (x, y) = offsets(3, stride);
            for (&down, out) in rows {
                for (&across, px) in places.across.iter().zip(out.as_chunks_mut::<3>().0) {
                    *px = *data[across * x + down * y..].first_chunk::<3>().unwrap_or(&[0; 3]);
                    if format == PixelFormat::Bgr3 {
                        px.swap(0, 2);
                    }
                }
            }
        }
        PixelFormat::Grey => {
            let stride = check(raw, w, h)?;
            let (x, y) = offsets(1, stride);
            for (&down, out) in rows {
                for (&across, px) in places.across.iter().zip(out.as_chunks_mut::<3>().0) {
                    *px = [data[across * x + down * y]; 3];
                }
            }
        }
        // `is_sampled` says which formats come here.
        _ => return Err(FrameError::Empty { width, height }),
    }
    Ok(())
}
