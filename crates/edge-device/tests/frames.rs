//! A camera's frame gives the same tensor and scores as the picture that it shows, however the camera hangs.

use edge_device::{Recipe, ResizeChoice};
use edge_engine::LoadOptions;
use edge_vision::{ColorSpace, Interpolation, Mount, Picture, PixelFormat, RawFrame, synthetic, to_picture};
use std::time::Duration;

#[test]
fn frames_are_classified_as_their_pictures() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/engine/nhwc-unk-softmax.onnx");
    let onnx = std::fs::read(path).unwrap();
    let mount = Mount {
        rotate: "90".parse().unwrap(),
        flip: "h".parse().unwrap(),
        roi: Some("10%,10%,70%,80%".parse().unwrap()),
    };
    for (interpolation, resize) in [
        (Interpolation::Nearest, ResizeChoice::Squash),
        (Interpolation::Nearest, ResizeChoice::FitLongest([9, 8, 7])),
        (Interpolation::Bilinear, ResizeChoice::Squash),
    ] {
        let recipe = Recipe {
            name: "frames".into(),
            interpolation: Some(interpolation),
            resize: Some(resize),
            ..Recipe::default()
        };
        let mut classifier = recipe.prepare(&onnx, &LoadOptions { threads: 1 }).unwrap().classifier;
        for (format, bytes) in [(PixelFormat::Yuyv, 64 * 48 * 2), (PixelFormat::Nv12, 64 * 48 * 3 / 2)] {
            let data = synthetic(3, 64, 48).into_pixels();
            let data = &data[..bytes];
            let frame = RawFrame { format, width: 64, height: 48, stride: None, color: ColorSpace::default(), data };
            for mount in [Mount::default(), mount] {
                let mut seen = Picture::blank(1, 1).unwrap();
                mount.apply(&to_picture(&frame).unwrap(), &mut seen).unwrap();
                let wanted = classifier.classify(&seen, 5).unwrap();
                let tensor = classifier.tensor().to_vec();
                let got = classifier.classify_frame(&frame, &mount, 5).unwrap();
                assert!(classifier.tensor() == tensor, "{format} {interpolation} {resize:?} {mount:?}");
                assert_eq!(got.top, wanted.top);
                let at_once = interpolation == Interpolation::Nearest && format == PixelFormat::Yuyv;
                assert_eq!(got.times.decode == Duration::ZERO, at_once, "{format} {interpolation}");
            }
            let cut = RawFrame { data: &data[..bytes - 1], ..frame };
            let error = classifier.classify_frame(&cut, &mount, 5).unwrap_err().to_string();
            assert!(error.contains("needs") && error.contains("came"), "{error}");
        }
    }
}
