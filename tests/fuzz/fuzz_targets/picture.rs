//! A file's bytes → picture, and a camera's bytes → picture.
#![no_main]
use edge_vision::{ColorSpace, DecodeOptions, PixelFormat, RawFrame, decode, to_picture};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // A header may rightly ask for half a gigabyte; that is bounded, but too slow to fuzz.
    let small = bytes.len() < 1 << 16;
    if small && let Ok(picture) = decode(bytes, &DecodeOptions { exif_orientation: true }) {
        assert_eq!(picture.pixels().len(), 3 * picture.width() as usize * picture.height() as usize);
    }
    let [kind, width, height, stride, data @ ..] = bytes else { return };
    let format = match kind % 7 {
        0 => PixelFormat::Yuyv,
        1 => PixelFormat::Nv12,
        2 => PixelFormat::Mjpeg,
        3 => PixelFormat::Rgb3,
        4 => PixelFormat::Bgr3,
        5 => PixelFormat::Yu12,
        _ => PixelFormat::Grey,
    };
    let stride = (*stride > 0).then_some(usize::from(*stride));
    let (width, height) = (u32::from(*width), u32::from(*height));
    let _ = to_picture(&RawFrame { format, width, height, stride, color: ColorSpace::default(), data });
});
