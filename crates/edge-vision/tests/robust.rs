//! What no table of examples shows: nothing panics on damaged bytes, and every size resizes as a plain
//! transcription of Pillow does.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use edge_vision::{
    ColorMatrix, ColorRange, ColorSpace, DecodeOptions, Interpolation, Mount, PassOrder, Picture, PixelFormat,
    RawFrame, ResizePolicy, ResizeSpec, Resizer, decode, synthetic, to_picture, to_picture_into,
};
use proptest::prelude::*;

const TURNED: DecodeOptions = DecodeOptions { exif_orientation: true };

fn goldens() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/vision");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "jpg" || e == "png"));
    paths.sort();
    paths.iter().map(|p| fs::read(p).unwrap()).filter(|b| b.len() > 40).collect()
}

#[derive(Clone, Debug)]
enum Damage {
    Set(usize, u8),
    Remove(usize, usize),
    Insert(usize, Vec<u8>),
    Cut(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, b)| Damage::Set(at, b)),
        (any::<usize>(), 1..40_usize).prop_map(|(at, n)| Damage::Remove(at, n)),
        (any::<usize>(), prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, b)| Damage::Insert(at, b)),
        any::<usize>().prop_map(Damage::Cut),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: Damage) {
    // The signature stays, so that the damage reaches the decoder and not only the sniffing.
    let place = |at: usize, len: usize| 8 + at % (len - 8).max(1);
    let len = bytes.len();
    match damage {
        Damage::Set(at, byte) => bytes[place(at, len)] = byte,
        Damage::Remove(at, n) => {
            let at = place(at, len);
            bytes.drain(at..(at + n).min(len));
        }
        Damage::Insert(at, new) => {
            bytes.splice(place(at, len)..place(at, len), new);
        }
        Damage::Cut(at) => bytes.truncate(place(at, len)),
    }
    bytes.resize(bytes.len().max(10), 0);
}

/// What a picture is refused by before it is decoded is what it decodes to, damaged or not.
fn same_size(bytes: &[u8]) {
    if let Ok(picture) = decode(bytes, &DecodeOptions { exif_orientation: false }) {
        assert_eq!(edge_vision::decode::size(bytes).unwrap(), (picture.width(), picture.height()));
    }
}

#[test]
fn headers_tell_the_size() {
    goldens().iter().for_each(|bytes| same_size(bytes));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0..3) {
        let magic: &[u8] = match kind {
            0 => b"",
            1 => b"\xff\xd8\xff",
            _ => b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR",
        };
        bytes.splice(0..0, magic.iter().copied());
        same_size(&bytes);
        let _ = edge_vision::decode::size(&bytes);
        let outcome = catch_unwind(|| decode(&bytes, &TURNED).map(|p| p.pixels().len()));
        prop_assert!(outcome.is_ok());
    }

    #[test]
    fn damaged_pictures_never_panic(which in any::<prop::sample::Index>(), what in prop::collection::vec(damage(), 1..6)) {
        thread_local!(static PICTURES: Vec<Vec<u8>> = goldens());
        let mut bytes = PICTURES.with(|p| which.get(p).clone());
        for one in what {
            apply(&mut bytes, one);
        }
        same_size(&bytes);
        let outcome = catch_unwind(|| decode(&bytes, &TURNED).map(|p| p.pixels().len()));
        prop_assert!(outcome.is_ok());
    }

    #[test]
    fn frames_never_panic(
        format in prop::sample::select(&[
            PixelFormat::Yuyv, PixelFormat::Nv12, PixelFormat::Mjpeg, PixelFormat::Rgb3, PixelFormat::Bgr3,
            PixelFormat::Grey, PixelFormat::Yu12,
        ][..]),
        (width, height) in (0..70_u32, 0..20_u32),
        stride in prop::option::of(0..300_usize),
        data in prop::collection::vec(any::<u8>(), 0..4000),
    ) {
        let frame = RawFrame { format, width, height, stride, color: ColorSpace::default(), data: &data };
        match to_picture(&frame) {
            Ok(picture) => prop_assert_eq!((picture.width(), picture.height()), (width, height)),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

/// Pillow's resize written down plainly: the whole picture, one pixel after the other.
fn reference_resize(picture: &Picture, to: (usize, usize), interpolation: Interpolation, order: PassOrder) -> Picture {
    let (w, h) = (picture.width() as usize, picture.height() as usize);
    if to == (w, h) {
        return picture.clone();
    }
    if interpolation == Interpolation::Nearest {
        let places = |from: usize, to: usize| {
            let step = from as f64 / to as f64;
            let mut at = step * 0.5;
            (0..to)
                .map(|_| {
                    let place = at as usize;
                    at += step;
                    place
                })
                .collect::<Vec<_>>()
        };
        let (xs, ys) = (places(w, to.0), places(h, to.1));
        let pixel = |x: usize, y: usize| -> [u8; 3] {
            if x < w && y < h { picture.pixels()[(y * w + x) * 3..][..3].try_into().unwrap() } else { [0; 3] }
        };
        let pixels = ys.iter().flat_map(|&y| xs.iter().flat_map(move |&x| pixel(x, y))).collect();
        return Picture::new(to.0 as u32, to.1 as u32, pixels).unwrap();
    }
    let across = |p: Picture| pass(&p, to.0, true, interpolation);
    let down = |p: Picture| pass(&p, to.1, false, interpolation);
    let (less_w, less_h) = (w as i64 - to.0 as i64, h as i64 - to.1 as i64);
    if order == PassOrder::Pillow13 && less_h > 0 && less_h > 2 * less_w {
        across(down(picture.clone()))
    } else {
        down(across(picture.clone()))
    }
}

fn weight(interpolation: Interpolation, x: f64) -> f64 {
    let pi = std::f64::consts::PI;
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * pi).sin() / (x * pi) };
    match (interpolation, x.abs()) {
        (Interpolation::Box, _) => f64::from(u8::from(x > -0.5 && x <= 0.5)),
        (Interpolation::Bilinear, a) => (1.0 - a).max(0.0),
        (Interpolation::Hamming, 0.0) => 1.0,
        (Interpolation::Hamming, a) if a < 1.0 => {
            sinc(a) * (f64::from(0.54_f32) + f64::from(0.46_f32) * (a * pi).cos())
        }
        (Interpolation::Bicubic, a) if a < 1.0 => (1.5 * a - 2.5) * a * a + 1.0,
        (Interpolation::Bicubic, a) if a < 2.0 => (((a - 5.0) * a + 8.0) * a - 4.0) * -0.5,
        (Interpolation::Lanczos, _) if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
        _ => 0.0,
    }
}

fn pass(picture: &Picture, to: usize, across: bool, interpolation: Interpolation) -> Picture {
    let (w, h) = (picture.width() as usize, picture.height() as usize);
    let from = if across { w } else { h };
    if from == to {
        return picture.clone();
    }
    let support = match interpolation {
        Interpolation::Box => 0.5,
        Interpolation::Bicubic => 2.0,
        Interpolation::Lanczos => 3.0,
        _ => 1.0,
    };
    let scale = from as f64 / to as f64;
    let wide = scale.max(1.0);
    let (out_w, out_h) = if across { (to, h) } else { (w, to) };
    let mut pixels = vec![0_u8; out_w * out_h * 3];
    for place in 0..to {
        let center = (place as f64 + 0.5) * scale;
        let first = ((center - support * wide + 0.5) as i64).max(0) as usize;
        let last = ((center + support * wide + 0.5) as usize).min(from);
        let weights: Vec<f64> =
            (first..last).map(|i| weight(interpolation, (i as f64 - center + 0.5) * (1.0 / wide))).collect();
        let sum: f64 = weights.iter().fold(0.0, |a, b| a + b);
        let fixed: Vec<i64> = weights
            .iter()
            .map(|w| if sum == 0.0 { *w } else { w / sum })
            .map(|w| (w * 4_194_304.0 + if w < 0.0 { -0.5 } else { 0.5 }) as i64)
            .collect();
        for other in 0..if across { h } else { w } {
            for c in 0..3 {
                let total: i64 = fixed
                    .iter()
                    .enumerate()
                    .map(|(i, k)| {
                        let (x, y) = if across { (first + i, other) } else { (other, first + i) };
                        i64::from(picture.pixels()[(y * w + x) * 3 + c]) * k
                    })
                    .sum();
                let (x, y) = if across { (place, other) } else { (other, place) };
                pixels[(y * out_w + x) * 3 + c] = ((total + (1 << 21)) >> 22).clamp(0, 255) as u8;
            }
        }
    }
    Picture::new(out_w as u32, out_h as u32, pixels).unwrap()
}

/// torchvision's `CenterCrop`, padding with black where the picture is too small.
fn reference_crop(picture: &Picture, to: (usize, usize)) -> Picture {
    let (w, h) = (picture.width() as i64, picture.height() as i64);
    let first = |size: i64, crop: i64| {
        if crop > size { -((crop - size) / 2) } else { ((size - crop) as f64 / 2.0).round_ties_even() as i64 }
    };
    let (left, top) = (first(w, to.0 as i64), first(h, to.1 as i64));
    let mut pixels = Vec::new();
    for y in top..top + to.1 as i64 {
        for x in left..left + to.0 as i64 {
            let inside = (0..w).contains(&x) && (0..h).contains(&y);
            let px = if inside { &picture.pixels()[((y * w + x) * 3) as usize..][..3] } else { &[0; 3] };
            pixels.extend_from_slice(px);
        }
    }
    Picture::new(to.0 as u32, to.1 as u32, pixels).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_size_resizes_as_pillow(
        seed in any::<u64>(),
        (w, h) in (1..90_u32, 1..90_u32),
        (to_w, to_h) in (1..70_u32, 1..70_u32),
        shortest in prop::option::of(1..80_u32),
        interpolation in prop::sample::select(&Interpolation::ALL[..]),
        older in any::<bool>(),
    ) {
        let picture = synthetic(seed, w, h);
        let order = if older { PassOrder::Pillow12 } else { PassOrder::Pillow13 };
        let policy = shortest.map_or(ResizePolicy::Squash, |shortest| ResizePolicy::FitShortest { shortest });
        let mut resizer =
            Resizer::with_order(ResizeSpec { width: to_w, height: to_h, policy, interpolation }, order).unwrap();
        let to = (to_w as usize, to_h as usize);
        let expected = match shortest {
            None => reference_resize(&picture, to, interpolation, order),
            Some(shortest) => {
                let long = (f64::from(shortest) * f64::from(w.max(h)) / f64::from(w.min(h))) as usize;
                let full = if w <= h { (shortest as usize, long) } else { (long, shortest as usize) };
                reference_crop(&reference_resize(&picture, full, interpolation, order), to)
            }
        };
        prop_assert_eq!(resizer.resize(&picture).unwrap(), &expected);
        // A second picture of another size, then the first again: nothing may stick.
        resizer.resize(&synthetic(seed, h, w)).unwrap();
        let mut out = Picture::blank(3, 3).unwrap();
        resizer.resize_into(&picture, &mut out).unwrap();
        prop_assert_eq!(&out, &expected);
    }

    #[test]
    fn sampled_frames_are_as_converted_ones(
        seed in any::<u64>(),
        (w, h) in (1..90_u32, 1..60_u32),
        (to_w, to_h) in (1..70_u32, 1..70_u32),
        policy in prop::sample::select(&[
            ResizePolicy::Squash,
            ResizePolicy::FitShortest { shortest: 31 },
            ResizePolicy::FitLongest { color: [9, 80, 200] },
        ][..]),
        format in prop::sample::select(&[
            PixelFormat::Yuyv,
            PixelFormat::Nv12,
            PixelFormat::Rgb3,
            PixelFormat::Bgr3,
            PixelFormat::Grey,
        ][..]),
        matrix in prop::sample::select(&[ColorMatrix::Bt601, ColorMatrix::Bt709][..]),
        range in prop::sample::select(&[ColorRange::Limited, ColorRange::Full][..]),
        rotate in prop::sample::select(&["0", "90", "180", "270"][..]),
        flip in prop::sample::select(&["none", "h", "v", "hv"][..]),
        roi in prop::sample::select(&["", "10%,20%,80%,60%", "0,0,1,1", "50%,0,50%,100%"][..]),
        padding in 0..9_usize,
    ) {
        let (wide, high) = (w as usize, h as usize);
        let (row, rows) = match format {
            PixelFormat::Yuyv => (wide.div_ceil(2) * 4, high),
            PixelFormat::Nv12 => (wide.next_multiple_of(2), high + high.div_ceil(2)),
            PixelFormat::Grey => (wide, high),
            _ => (wide * 3, high),
        };
        let stride = row + padding;
        let data = synthetic(seed, stride as u32, rows as u32).into_pixels();
        let data = &data[..stride * rows - padding];
        let color = ColorSpace { matrix, range };
        let frame = RawFrame { format, width: w, height: h, stride: Some(stride), color, data };
        let mount = Mount {
            rotate: rotate.parse().unwrap(),
            flip: flip.parse().unwrap(),
            roi: (!roi.is_empty()).then(|| roi.parse().unwrap()),
        };
        let spec = ResizeSpec { width: to_w, height: to_h, policy, interpolation: Interpolation::Nearest };
        let (mut one_pass, mut three) = (Resizer::new(spec).unwrap(), Resizer::new(spec).unwrap());
        let mut seen = Picture::blank(1, 1).unwrap();
        let expected = mount.apply(&to_picture(&frame).unwrap(), &mut seen);
        if expected.is_err() {
            // A region may be too small for a pixel of it to be seen.
            prop_assert!(one_pass.resize_frame(&frame, &mount).is_err());
            return Ok(());
        }
        let expected = three.resize(&seen).unwrap();
        let black = expected.pixels().chunks(3).any(|px| px == [0; 3]);
        let sampled = one_pass.takes_frames(&frame, &mount).unwrap();
        prop_assert!(sampled != (format == PixelFormat::Nv12) || black && !sampled);
        for _ in 0..2 {
            // The second time with what is remembered.
            prop_assert_eq!(one_pass.resize_frame(&frame, &mount).unwrap(), expected);
        }
        let cut = RawFrame { data: &data[..data.len() - 1], ..frame };
        prop_assert!(one_pass.resize_frame(&cut, &mount).is_err());
        let other = RawFrame { format: PixelFormat::Grey, stride: None, ..frame };
        let grey = one_pass.resize_frame(&other, &Mount::default()).unwrap().clone();
        prop_assert_eq!(&grey, three.resize(&to_picture(&other).unwrap()).unwrap());
    }

    #[test]
    fn yuv_is_close_to_the_standard(
        seed in any::<u64>(),
        (w, h) in (1..150_usize, 1..9_usize),
        padding in 0..9_usize,
        surplus in 0..9_usize,
        nv12 in any::<bool>(),
        matrix in prop::sample::select(&[ColorMatrix::Bt601, ColorMatrix::Bt709, ColorMatrix::Bt2020][..]),
        range in prop::sample::select(&[ColorRange::Limited, ColorRange::Full][..]),
    ) {
        let format = if nv12 { PixelFormat::Nv12 } else { PixelFormat::Yuyv };
        let stride = padding + if nv12 { w.next_multiple_of(2) } else { w.div_ceil(2) * 4 };
        let rows = if nv12 { h + h.div_ceil(2) } else { h };
        // Any bytes will do, and the noise of a synthetic picture holds them all.
        let noise = synthetic(seed, stride as u32, rows as u32).into_pixels();
        let data = &noise[..stride * rows - padding + surplus];
        let color = ColorSpace { matrix, range };
        let frame = RawFrame { format, width: w as u32, height: h as u32, stride: Some(stride), color, data };
        let mut picture = synthetic(1, 4, 4);
        to_picture_into(&frame, &mut picture).unwrap();
        for y in 0..h {
            for x in 0..w {
                let (luma, u, v) = if nv12 {
                    let uv = stride * (h + y / 2) + x / 2 * 2;
                    (data[stride * y + x], data[uv], data[uv + 1])
                } else {
                    let group = stride * y + x / 2 * 4;
                    (data[group + x % 2 * 2], data[group + 1], data[group + 3])
                };
                let expected = reference_rgb(color, luma, u, v);
                let got = &picture.pixels()[(y * w + x) * 3..][..3];
                for (g, e) in got.iter().zip(expected) {
                    prop_assert!((f64::from(*g) - e.round()).abs() <= 1.0, "{format} {got:?} {expected:?}");
                }
            }
        }
    }
}

/// ITU-R BT.601, 709 and 2020 in exact numbers, cut to 0..=255 but not rounded; Y below black counts as black.
fn reference_rgb(color: ColorSpace, y: u8, u: u8, v: u8) -> [f64; 3] {
    let (kr, kb) = match color.matrix {
        ColorMatrix::Bt601 => (0.299, 0.114),
        ColorMatrix::Bt709 => (0.2126, 0.0722),
        ColorMatrix::Bt2020 => (0.2627, 0.0593),
    };
    let (black, y_span, uv_span) = match color.range {
        ColorRange::Limited => (16.0, 219.0, 224.0),
        ColorRange::Full => (0.0, 255.0, 255.0),
    };
    let luma = (f64::from(y) - black).max(0.0) * 255.0 / y_span;
    let (cb, cr) = ((f64::from(u) - 128.0) * 255.0 / uv_span, (f64::from(v) - 128.0) * 255.0 / uv_span);
    let red = luma + 2.0 * (1.0 - kr) * cr;
    let blue = luma + 2.0 * (1.0 - kb) * cb;
    let green = luma - (2.0 * kr * (1.0 - kr) * cr + 2.0 * kb * (1.0 - kb) * cb) / (1.0 - kr - kb);
    [red, green, blue].map(|c| c.clamp(0.0, 255.0))
}
