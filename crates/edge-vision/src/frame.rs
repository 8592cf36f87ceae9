//! The picture every other module takes or gives.

use crate::decode::DecodeError;
use crate::mount::Roi;
use crate::yuv::PixelFormat;

/// An RGB picture, 8 bits a channel, shape (H, W, 3), row-major, rows packed without padding.
///
/// Holding one proves that `pixels.len() == width * height * 3` and that neither side is zero.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

/// Why a frame, a picture or a tensor buffer has the wrong shape.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A side of the picture is zero.
    #[error("a picture of {width}x{height} has no pixels")]
    Empty {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The picture would not fit into this machine's address space.
    #[error("a picture of {width}x{height} is too large")]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The pixel buffer of a picture has the wrong length.
    #[error("an RGB picture of {width}x{height} needs {needed} bytes, not {got}")]
    WrongLength {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Bytes that shape needs.
        needed: usize,
        /// Bytes that were given.
        got: usize,
    },
    /// A raw frame ends before its last row; cameras give such frames after an overrun.
    #[error("a {format} frame of {width}x{height} needs {needed} bytes, but only {got} came")]
    ShortFrame {
        /// Pixel format of the frame.
        format: PixelFormat,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Bytes that shape and stride need.
        needed: usize,
        /// Bytes that were given.
        got: usize,
    },
    /// The row stride is smaller than one row of pixels.
    #[error("a {format} row {width} pixels wide needs a stride of at least {needed} bytes, not {got}")]
    BadStride {
        /// Pixel format of the frame.
        format: PixelFormat,
        /// Width in pixels.
        width: u32,
        /// Bytes one row needs.
        needed: usize,
        /// Bytes from one row to the next that were given.
        got: usize,
    },
    /// The region of interest is no part of the picture.
    #[error("the region {roi} doesn't lie inside the picture of {width}x{height} or holds no pixel of it")]
    Outside {
        /// The region, as it was asked for.
        roi: Roi,
        /// Width of the turned picture in pixels.
        width: u32,
        /// Height of the turned picture in pixels.
        height: u32,
    },
    /// A Motion-JPEG frame has another size than the camera announced.
    #[error("the camera announced {expected_width}x{expected_height}, but its JPEG frame is {width}x{height}")]
    SizeDiffers {
        /// Width announced, in pixels.
        expected_width: u32,
        /// Height announced, in pixels.
        expected_height: u32,
        /// Width of the JPEG, in pixels.
        width: u32,
        /// Height of the JPEG, in pixels.
        height: u32,
    },
    /// A Motion-JPEG frame can't be decoded.
    #[error("the camera's JPEG frame can't be decoded: {0}")]
    Jpeg(#[source] DecodeError),
    /// The tensor buffer has the wrong length.
    #[error("the tensor of a {width}x{height} picture has {needed} numbers, not {got}")]
    TensorLength {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Numbers the picture gives.
        needed: usize,
        /// Length of the buffer that was given.
        got: usize,
    },
}

/// Bytes of an RGB picture, or an error where a side is zero or the product overflows.
fn rgb_len(width: u32, height: u32) -> Result<usize, FrameError> {
    if width == 0 || height == 0 {
        return Err(FrameError::Empty { width, height });
    }
    (width as usize)
        .checked_mul(height as usize)
        .and_then(|n| n.checked_mul(3))
        .filter(|&n| n <= isize::MAX as usize)
        .ok_or(FrameError::TooLarge { width, height })
}

impl Picture {
    /// Takes RGB `pixels` of shape (height, width, 3).
    ///
    /// # Errors
    ///
    /// [`FrameError::Empty`] where a side is zero, [`FrameError::WrongLength`] where the length differs from
    /// `width * height * 3`.
    pub fn new(width: u32, height: u32, pixels: Vec<u8>) -> Result<Self, FrameError> {
        let needed = rgb_len(width, height)?;
        if pixels.len() != needed {
            return Err(FrameError::WrongLength { width, height, needed, got: pixels.len() });
        }
        Ok(Self { width, height, pixels })
    }

    /// A black picture; the usual start for [`crate::to_picture_into`].
    ///
    /// # Errors
    ///
    /// [`FrameError::Empty`] where a side is zero, [`FrameError::TooLarge`] where it can't be addressed.
    pub fn blank(width: u32, height: u32) -> Result<Self, FrameError> {
        let len = rgb_len(width, height)?;
        Ok(Self { width, height, pixels: vec![0; len] })
    }

    /// Width in pixels, never zero.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, never zero.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The RGB bytes, shape (H, W, 3), values 0..=255.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The RGB bytes, to be changed in place; the shape can't change.
    #[must_use]
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.pixels
    }

    /// Gives the RGB bytes away.
    #[must_use]
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }

    /// Gives this picture another shape, keeping its allocation; what the pixels hold then is unspecified.
    pub(crate) fn reshape(&mut self, width: u32, height: u32) -> Result<(), FrameError> {
        let len = rgb_len(width, height)?;
        self.pixels.resize(len, 0);
        self.width = width;
        self.height = height;
        Ok(())
    }
}

impl std::fmt::Debug for Picture {
    /// Names the shape only: a picture's bytes in a failed assertion help nobody.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({}x{})", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_is_checked() {
        assert!(Picture::new(2, 1, vec![0; 6]).is_ok());
        assert!(matches!(Picture::new(2, 1, vec![0; 5]), Err(FrameError::WrongLength { needed: 6, got: 5, .. })));
        assert!(matches!(Picture::new(0, 1, vec![]), Err(FrameError::Empty { .. })));
        assert!(Picture::new(u32::MAX, u32::MAX, vec![]).is_err());
    }
}
