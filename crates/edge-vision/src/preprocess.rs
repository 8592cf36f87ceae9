//! Picture to tensor, bit for bit as `keras.applications.imagenet_utils.preprocess_input` on a NumPy array of
//! float32 (Keras 3.15, `_preprocess_numpy_input`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::frame::{FrameError, Picture};

/// Order of the tensor's axes; the batch axis is not written, a tensor holds one picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// (H, W, C), as Keras and TensorFlow keep pictures.
    #[default]
    Nhwc,
    /// (C, H, W), as PyTorch and most ONNX files keep them.
    Nchw,
}

/// What is done to the bytes 0..=255 before a model reads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preprocess {
    /// The bytes as floats, 0..=255, RGB.
    #[default]
    None,
    /// `x / 127.5 - 1`, RGB, range -1..=1 (Xception, MobileNet, Inception).
    Tf,
    /// `(x / 255 - mean) / std` with ImageNet's mean and deviation, RGB (DenseNet, torchvision).
    Torch,
    /// BGR, minus ImageNet's mean, not scaled (VGG, ResNet50).
    Caffe,
    /// `(x - mean) / std` on 0..=255, computed in float32.
    Affine {
        /// Subtracted, one number for each channel in the order of the output.
        mean: [f32; 3],
        /// Divides, one number for each channel in the order of the output.
        std: [f32; 3],
        /// Whether the output's channels are blue, green, red instead of red, green, blue.
        bgr: bool,
    },
}

impl Preprocess {
    /// Whether the output's first channel is blue.
    #[must_use]
    pub fn is_bgr(&self) -> bool {
        match self {
            Self::Caffe => true,
            Self::Affine { bgr, .. } => *bgr,
            Self::None | Self::Tf | Self::Torch => false,
        }
    }

    /// The float of one byte; `channel` counts in the order of the output.
    #[must_use]
    pub fn value(&self, channel: usize, byte: u8) -> f32 {
        self.value_of(channel, f32::from(byte))
    }

    /// The float of a number 0..=255 that needn't be whole; `channel` counts in the order of the output.
    ///
    /// Each step rounds to float32 on its own, as NumPy's in-place operators do: folding two steps into one
    /// multiplication would change the last bit.
    #[must_use]
    pub fn value_of(&self, channel: usize, x: f32) -> f32 {
        const TORCH_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
        const TORCH_STD: [f32; 3] = [0.229, 0.224, 0.225];
        const CAFFE_MEAN: [f32; 3] = [103.939, 116.779, 123.68];
        match self {
            Self::None => x,
            Self::Tf => x / 127.5 - 1.0,
            Self::Torch => (x / 255.0 - TORCH_MEAN[channel]) / TORCH_STD[channel],
            Self::Caffe => x - CAFFE_MEAN[channel],
            Self::Affine { mean, std, .. } => (x - mean[channel]) / std[channel],
        }
    }

    /// Writes `picture` (H, W, 3) to `out`, whose length is `H * W * 3`, in the order `layout` gives.
    ///
    /// # Errors
    ///
    /// [`FrameError::TensorLength`] where `out` has another length.
    pub fn apply(&self, picture: &Picture, layout: Layout, out: &mut [f32]) -> Result<(), FrameError> {
        let pixels = picture.pixels();
        tensor_length(picture.width(), picture.height(), pixels.len(), out.len())?;
        // A byte has 256 values, so a table is exact and spares the divisions.
        let mut table = [[0.0_f32; 256]; 3];
        for (channel, row) in table.iter_mut().enumerate() {
            for (byte, entry) in (0..=u8::MAX).zip(row.iter_mut()) {
                *entry = self.value(channel, byte);
            }
        }
        self.spread(pixels, layout, out, |channel, byte| table[channel][usize::from(byte)]);
        Ok(())
    }

    /// As [`Preprocess::apply`], on `pixels` (H, W, 3) that are numbers 0..=255, as [`crate::Transform`] makes them.
    ///
    /// # Errors
    ///
    /// [`FrameError::TensorLength`] where `pixels` or `out` has another length than `H * W * 3`.
    pub fn apply_floats(
        &self,
        (width, height): (u32, u32),
        pixels: &[f32],
        layout: Layout,
        out: &mut [f32],
    ) -> Result<(), FrameError> {
        let needed = (width as usize).saturating_mul(height as usize).saturating_mul(3);
        tensor_length(width, height, needed, pixels.len())?;
        tensor_length(width, height, needed, out.len())?;
        self.spread(pixels, layout, out, |channel, x| self.value_of(channel, x));
        Ok(())
    }

    /// Writes `value` of each pixel's channels to where they belong in `out`, which is as long as `pixels`.
    fn spread<T: Copy>(&self, pixels: &[T], layout: Layout, out: &mut [f32], value: impl Fn(usize, T) -> f32) {
        let source: [usize; 3] = if self.is_bgr() { [2, 1, 0] } else { [0, 1, 2] };
        let pixels = pixels.as_chunks::<3>().0;
        match layout {
            Layout::Nhwc => {
                let [a, b, c] = source;
                for (px, o) in pixels.iter().zip(out.as_chunks_mut::<3>().0) {
                    *o = [value(0, px[a]), value(1, px[b]), value(2, px[c])];
                }
            }
            Layout::Nchw => {
                // A chunk can't be empty, but a slice can.
                for (c, o) in out.chunks_exact_mut(pixels.len().max(1)).enumerate() {
                    for (px, v) in pixels.iter().zip(o) {
                        *v = value(c, px[source[c]]);
                    }
                }
            }
        }
    }
}

fn tensor_length(width: u32, height: u32, needed: usize, got: usize) -> Result<(), FrameError> {
    if needed == got { Ok(()) } else { Err(FrameError::TensorLength { width, height, needed, got }) }
}

impl fmt::Display for Preprocess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Tf => f.write_str("tf"),
            Self::Torch => f.write_str("torch"),
            Self::Caffe => f.write_str("caffe"),
            Self::Affine { mean, std, bgr } => {
                let order = if *bgr { "BGR" } else { "RGB" };
                write!(f, "(x - {mean:?}) / {std:?} {order}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_hold_the_same_numbers() {
        let picture = crate::pattern::synthetic(3, 5, 4);
        let affine = Preprocess::Affine { mean: [1.0, 2.0, 3.0], std: [4.0, 5.0, 6.0], bgr: true };
        let floats: Vec<f32> = picture.pixels().iter().map(|&byte| f32::from(byte)).collect();
        for mode in [Preprocess::None, Preprocess::Tf, Preprocess::Torch, Preprocess::Caffe, affine] {
            let (mut hwc, mut chw, mut of_floats) = (vec![0.0; 60], vec![0.0; 60], vec![0.0; 60]);
            mode.apply(&picture, Layout::Nhwc, &mut hwc).unwrap();
            mode.apply(&picture, Layout::Nchw, &mut chw).unwrap();
            mode.apply_floats((5, 4), &floats, Layout::Nhwc, &mut of_floats).unwrap();
            assert_eq!(of_floats, hwc);
            mode.apply_floats((5, 4), &floats, Layout::Nchw, &mut of_floats).unwrap();
            assert_eq!(of_floats, chw);
            for (i, px) in hwc.chunks(3).enumerate() {
                for c in 0..3 {
                    assert_eq!(px[c], chw[c * 20 + i]);
                    let from = if mode.is_bgr() { 2 - c } else { c };
                    assert_eq!(px[c], mode.value(c, picture.pixels()[i * 3 + from]));
                }
            }
        }
    }

    #[test]
    fn wrong_length_is_an_error() {
        let picture = crate::pattern::synthetic(3, 5, 4);
        let err = Preprocess::Tf.apply(&picture, Layout::Nhwc, &mut [0.0; 59]).unwrap_err();
        assert_eq!(err.to_string(), "the tensor of a 5x4 picture has 60 numbers, not 59");
        for (pixels, out) in [(59, 60), (60, 59)] {
            let err = Preprocess::Tf.apply_floats((5, 4), &vec![0.0; pixels], Layout::Nchw, &mut vec![0.0; out]);
            assert!(matches!(err, Err(FrameError::TensorLength { needed: 60, got: 59, .. })));
        }
        let (most, mut none) = ((u32::MAX, u32::MAX), []);
        assert!(Preprocess::Tf.apply_floats(most, &[], Layout::Nchw, &mut none).is_err());
        assert!(Preprocess::Tf.apply_floats((0, 4), &[], Layout::Nchw, &mut none).is_ok());
    }

    #[test]
    fn serde_round_trips_in_both_formats() {
        let affine = Preprocess::Affine { mean: [1.0, 2.0, 3.0], std: [4.0, 5.0, 6.0], bgr: true };
        for mode in [Preprocess::None, Preprocess::Tf, Preprocess::Torch, Preprocess::Caffe, affine] {
            let json = serde_json::to_string(&mode).unwrap();
            assert_eq!(serde_json::from_str::<Preprocess>(&json).unwrap(), mode);
            let bytes = postcard::to_stdvec(&mode).unwrap();
            assert_eq!(postcard::from_bytes::<Preprocess>(&bytes).unwrap(), mode);
        }
        assert_eq!(serde_json::to_string(&Preprocess::Tf).unwrap(), "\"tf\"");
    }
}
