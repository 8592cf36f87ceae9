//! What a V4L2 driver says of its colours, and what it means.
//!
//! A driver may leave each of three fields at its default, which then follows from the others: the rules are those of
//! `V4L2_MAP_YCBCR_ENC_DEFAULT` and `V4L2_MAP_QUANTIZATION_DEFAULT` in the kernel's `include/uapi/linux/videodev2.h`.

use edge_vision::{ColorMatrix, ColorRange, ColorSpace};

const COLORSPACE_SMPTE240M: u32 = 2;
const COLORSPACE_REC709: u32 = 3;
const COLORSPACE_JPEG: u32 = 7;
const COLORSPACE_BT2020: u32 = 10;
const COLORSPACE_DCI_P3: u32 = 12;

const ENC_DEFAULT: u32 = 0;
const ENC_709: u32 = 2;
const ENC_XV709: u32 = 4;
const ENC_BT2020: u32 = 6;
const ENC_BT2020_CONST_LUM: u32 = 7;
const ENC_SMPTE240M: u32 = 8;

const QUANTIZATION_FULL: u32 = 1;
const QUANTIZATION_LIMITED: u32 = 2;

/// From `colorspace`, `ycbcr_enc` and `quantization` of `struct v4l2_pix_format`, for formats of Y, U and V.
///
/// Numbers that are not known count as the default: a webcam's, BT.601 with limited range. SMPTE 240M is computed as
/// BT.709, whose weights of red and green are within a thousandth of it, and of blue within two hundredths.
pub fn color_space(colorspace: u32, encoding: u32, quantization: u32) -> ColorSpace {
    let encoding = match (encoding, colorspace) {
        (ENC_DEFAULT, COLORSPACE_REC709 | COLORSPACE_DCI_P3) => ENC_709,
        (ENC_DEFAULT, COLORSPACE_BT2020) => ENC_BT2020,
        (ENC_DEFAULT, COLORSPACE_SMPTE240M) => ENC_SMPTE240M,
        (given, _) => given,
    };
    let matrix = match encoding {
        ENC_709 | ENC_XV709 | ENC_SMPTE240M => ColorMatrix::Bt709,
        ENC_BT2020 | ENC_BT2020_CONST_LUM => ColorMatrix::Bt2020,
        _ => ColorMatrix::Bt601,
    };
    let range = match (quantization, colorspace) {
        (QUANTIZATION_FULL, _) => ColorRange::Full,
        (QUANTIZATION_LIMITED, _) => ColorRange::Limited,
        (_, COLORSPACE_JPEG) => ColorRange::Full,
        _ => ColorRange::Limited,
    };
    ColorSpace { matrix, range }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ColorMatrix::{Bt601, Bt709, Bt2020};
    use ColorRange::{Full, Limited};

    #[test]
    fn defaults_follow_the_kernels_rules() {
        // (colorspace, ycbcr_enc, quantization) as in videodev2.h.
        let table = [
            ((0, 0, 0), (Bt601, Limited)),   // nothing said: a webcam
            ((1, 0, 0), (Bt601, Limited)),   // SMPTE 170M
            ((2, 0, 0), (Bt709, Limited)),   // SMPTE 240M
            ((3, 0, 0), (Bt709, Limited)),   // Rec. 709
            ((7, 0, 0), (Bt601, Full)),      // JPEG
            ((8, 0, 0), (Bt601, Limited)),   // sRGB: uvcvideo
            ((10, 0, 0), (Bt2020, Limited)), // BT.2020
            ((12, 0, 0), (Bt709, Limited)),  // DCI-P3
            ((8, 2, 0), (Bt709, Limited)),   // sRGB, but coded as BT.709
            ((3, 1, 0), (Bt601, Limited)),   // Rec. 709, but coded as BT.601
            ((8, 3, 0), (Bt601, Limited)),   // xvYCC 601
            ((3, 4, 0), (Bt709, Limited)),   // xvYCC 709
            ((10, 7, 0), (Bt2020, Limited)), // constant luminance
            ((8, 0, 1), (Bt601, Full)),
            ((3, 0, 1), (Bt709, Full)),
            ((7, 0, 2), (Bt601, Limited)),
            ((99, 99, 99), (Bt601, Limited)), // a newer kernel's
        ];
        for ((colorspace, encoding, quantization), (matrix, range)) in table {
            let expected = ColorSpace { matrix, range };
            assert_eq!(
                color_space(colorspace, encoding, quantization),
                expected,
                "{colorspace} {encoding} {quantization}"
            );
        }
    }
}
