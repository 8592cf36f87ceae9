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
    ///
    /// Each step rounds to float32 on its own, as NumPy's in-place operators do: folding two steps into one
    /// multiplication would change the last bit.
    #[must_use]
    pub fn value(&self, channel: usize, byte: u8) -> f32 {
        const TORCH_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
        const TORCH_STD: [f32; 3] = [0.229, 0.224, 0.225];
        const CAFFE_MEAN: [f32; 3] = [103.939, 116.779, 123.68];
        let x = f32::from(byte);
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
        if out.len() != pixels.len() {
            return Err(FrameError::TensorLength {
                width: picture.width(),
                height: picture.height(),
                needed: pixels.len(),
                got: out.len(),
            });
        }
        // A byte has 256 values, so a table is exact and spares the divisions.
        let mut table = [[0.0_f32; 256]; 3];
        for (channel, row) in table.iter_mut().enumerate() {
            for (byte, entry) in (0..=u8::MAX).zip(row.iter_mut()) {
                *entry = self.value(channel, byte);
            }
        }
        let source: [usize; 3] = if self.is_bgr() { [2, 1, 0] } else { [0, 1, 2] };
        match layout {
            Layout::Nhwc => {
                for (px, o) in pixels.as_chunks::<3>().0.iter().zip(out.as_chunks_mut::<3>().0) {
                    *o = [0, 1, 2].map(|c| table[c][usize::from(px[source[c]])]);
                }
            }
            Layout::Nchw => {
                let plane = pixels.len() / 3;
                for (c, o) in out.chunks_exact_mut(plane).enumerate() {
                    for (px, v) in pixels.as_chunks::<3>().0.iter().zip(o) {
                        *v = table[c][usize::from(px[source[c]])];
                    }
                }
            }
        }
        Ok(())
    }
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
        for mode in [Preprocess::None, Preprocess::Tf, Preprocess::Torch, Preprocess::Caffe, affine] {
            let (mut hwc, mut chw) = (vec![0.0; 60], vec![0.0; 60]);
            mode.apply(&picture, Layout::Nhwc, &mut hwc).unwrap();
            mode.apply(&picture, Layout::Nchw, &mut chw).unwrap();
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
