//! What Keras and SciPy computed, what a plain transcription of SciPy computes, and the texts.
//!
//! `tests/goldens/make_augment.py` writes the expectation; `EDGE_VISION_AUGMENT` names the folder of one more.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;
use crate::{DecodeOptions, Layout, Preprocess, load, synthetic};

fn digest(numbers: &[f32]) -> String {
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    Sha256::digest(bytes).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

fn transform(entry: &Value) -> Transform {
    // The numbers are texts: serde_json may miss the last bit of a number, and that shows at the border.
    let given = |key: &str| entry[key].as_str().map(|text| text.parse::<f64>().unwrap());
    let number = |key: &str, neutral: f64| given(key).unwrap_or(neutral);
    Transform {
        theta: number("theta", 0.0),
        tx: number("tx", 0.0),
        ty: number("ty", 0.0),
        shear: number("shear", 0.0),
        zx: number("zx", 1.0),
        zy: number("zy", 1.0),
        flip_horizontal: number("flip_horizontal", 0.0) != 0.0,
        flip_vertical: number("flip_vertical", 0.0) != 0.0,
        channel_shift_intensity: given("channel_shift_intensity"),
        brightness: given("brightness"),
        fill: Fill::ALL.into_iter().find(|fill| fill.name() == entry["fill"]).unwrap(),
    }
}

/// Compares every transform in `folder`.
fn check_folder(folder: &Path) {
    let document: Value = serde_json::from_str(&fs::read_to_string(folder.join("augment.json")).unwrap()).unwrap();
    let bytes = fs::read(folder.join("augment.f32")).unwrap();
    let numbers: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let mut rest = numbers.as_slice();
    let (mut largest, mut differ, mut far) = (0.0_f32, 0, Vec::new());
    for entry in document["transforms"].as_array().unwrap() {
        let file = folder.join(entry["size"].as_str().unwrap()).with_extension("png");
        let got = transform(entry).apply(&load(&file, &DecodeOptions::default()).unwrap());
        let [first, step] = ["first", "step"].map(|key| entry[key].as_u64().unwrap() as usize);
        for got in got.as_chunks::<3>().0.iter().skip(first).step_by(step) {
            let (expected, after) = rest.split_at(3);
            for (got, expected) in got.iter().zip(expected) {
                let difference = (got - expected).abs();
                if difference <= 2e-3 {
                    largest = largest.max(difference);
                } else {
                    far.push(format!("{got} instead of {expected}: {entry}"));
                }
                differ += usize::from(got != expected);
            }
            rest = after;
        }
    }
    assert!(rest.is_empty() && !numbers.is_empty());
    let count = numbers.len();
    println!("{}: {differ} of {count} differ, {} far, the others by {largest} at most", folder.display(), far.len());
    // Where a pixel comes from exactly the border, the last bit of a sine decides whether it is black: in one of some
    // hundred sheared pictures a few numbers are far off. Of the committed ones none may be.
    assert!(far.len() * 300_000 <= count, "{far:#?}");

    let preprocessed = &document["preprocessed"];
    let pixels = preprocessed["pixels"].as_u64().unwrap() as u32;
    let numbers = &numbers[..pixels as usize * 3];
    for (mode, name) in [(Preprocess::Tf, "tf"), (Preprocess::Torch, "torch"), (Preprocess::Caffe, "caffe")] {
        for (layout, axes) in [(Layout::Nhwc, "nhwc"), (Layout::Nchw, "nchw")] {
            let mut out = vec![0.0; numbers.len()];
            mode.apply_floats((pixels, 1), numbers, layout, &mut out).unwrap();
            assert_eq!(digest(&out), preprocessed[format!("{name}/{axes}")], "{name}/{axes}");
        }
    }
}

#[test]
fn transforms_are_those_of_keras() {
    check_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/vision/augment"));
    if let Some(more) = std::env::var_os("EDGE_VISION_AUGMENT").filter(|path| !path.is_empty()) {
        check_folder(Path::new(&more));
    }
}

/// SciPy's `map_coordinate`, line by line, for the four modes and the one that it mirrors neighbours in.
fn map_coordinate(mut at: f64, len: i64, mode: &str) -> f64 {
    if at < 0.0 {
        match mode {
            "mirror" if len > 1 => {
                let period = 2 * len - 2;
                at += (period * (-at / period as f64) as i64) as f64;
                if at <= (1 - len) as f64 { at + period as f64 } else { -at }
            }
            "reflect" if len > 1 => {
                let period = 2 * len;
                if at < -period as f64 {
                    at += (period * (-at / period as f64) as i64) as f64;
                }
                if at < -len as f64 { at + period as f64 } else { (if at > -f64::EPSILON { 1e-15 } else { -at }) - 1.0 }
            }
            "wrap" if len > 1 => at + ((len - 1) * ((-at / (len - 1) as f64) as i64 + 1)) as f64,
            "constant" => -1.0,
            _ => 0.0,
        }
    } else if at > (len - 1) as f64 {
        match mode {
            "mirror" if len > 1 => {
                let period = 2 * len - 2;
                at -= (period * (at / period as f64) as i64) as f64;
                if at >= len as f64 { period as f64 - at } else { at }
            }
            "reflect" if len > 1 => {
                let period = 2 * len;
                at -= (period * (at / period as f64) as i64) as f64;
                if at >= len as f64 { period as f64 - at - 1.0 } else { at }
            }
            "wrap" if len > 1 => at - ((len - 1) * (at / (len - 1) as f64) as i64) as f64,
            "constant" => -1.0,
            "nearest" => (len - 1) as f64,
            _ => 0.0,
        }
    } else {
        at
    }
}

/// One number of SciPy's `NI_GeometricTransform` at order 1.
fn plain(picture: &Picture, at: [f64; 2], channel: usize, fill: Fill) -> f32 {
    let lens = [picture.height(), picture.width()].map(i64::from);
    let at: [f64; 2] = std::array::from_fn(|axis| map_coordinate(at[axis], lens[axis], fill.name()));
    if at.iter().any(|&at| at <= -1.0) {
        return 0.0;
    }
    let neighbours = if matches!(fill, Fill::Constant | Fill::Wrap) { "mirror" } else { fill.name() };
    let mut sum = 0.0;
    for corner in 0..4 {
        let mut number = 0.0;
        let mut index = [0; 2];
        for axis in 0..2 {
            let index_here = at[axis].floor() as i64 + [corner >> 1, corner & 1][axis];
            index[axis] = map_coordinate(index_here as f64, lens[axis], neighbours) as usize;
        }
        number += f64::from(picture.pixels()[(index[0] * lens[1] as usize + index[1]) * 3 + channel]);
        for axis in 0..2 {
            let first = 1.0 - (at[axis] - at[axis].floor());
            number *= if [corner >> 1, corner & 1][axis] == 0 { first } else { 1.0 - first };
        }
        sum += number;
    }
    sum as f32
}

fn fill() -> impl Strategy<Value = Fill> {
    prop::sample::select(Fill::ALL.to_vec())
}

/// Zero, whole and half numbers, the ones next to them, and any others.
fn number(size: f64) -> impl Strategy<Value = f64> {
    let round = move |n: f64| (n * 2.0).round() / 2.0;
    prop_oneof![
        Just(0.0),
        (-size..size).prop_map(round),
        (-size..size).prop_map(move |n| round(n).next_up()),
        (-size..size).prop_map(move |n| round(n).next_down()),
        -size..size
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Not a bit differs from the transcription, whatever the matrix.
    #[test]
    fn warps_as_scipy(
        (width, height) in (1..9_u32, 1..9_u32),
        matrix in prop::array::uniform4(number(3.0)),
        offset in prop::array::uniform2(number(40.0)),
        fill in fill(),
    ) {
        let picture = synthetic(u64::from(width), width, height);
        let matrix = [[matrix[0], matrix[1], offset[0]], [matrix[2], matrix[3], offset[1]]];
        let mut got = warp::affine(&picture, &matrix, fill).into_iter();
        for row in 0..height {
            for column in 0..width {
                let at = matrix.map(|[y, x, one]| f64::from(row) * y + f64::from(column) * x + one);
                for channel in 0..3 {
                    let got = got.next().unwrap();
                    let expected = plain(&picture, at, channel, fill);
                    prop_assert_eq!(got.to_bits(), expected.to_bits(), "{} instead of {} at {:?}", got, expected, at);
                }
            }
        }
    }

    /// Numbers that no draw gives neither panic nor read outside the picture.
    #[test]
    fn nothing_panics(numbers in prop::array::uniform8(prop_oneof![any::<f64>(), number(3.0)]), fill in fill()) {
        let [theta, tx, ty, shear, zx, zy, channel_shift, brightness] = numbers;
        let flips = Transform { flip_horizontal: true, flip_vertical: true, fill, ..Transform::default() };
        let levels = Transform { channel_shift_intensity: Some(channel_shift), brightness: Some(brightness), ..flips };
        let transform = Transform { theta, tx, ty, shear, zx, zy, ..levels };
        for (width, height) in [(1, 1), (5, 1), (1, 4), (6, 3)] {
            prop_assert_eq!(transform.apply(&synthetic(1, width, height)).len(), (width * height * 3) as usize);
        }
    }

    #[test]
    fn texts_round_trip(
        (hflip, vflip, fill) in (any::<bool>(), any::<bool>(), fill()),
        rotate in prop_oneof![Just(0.0), 0.0..=360.0],
        shift in prop_oneof![Just([0.0; 2]), Just([0.1; 2]), prop::array::uniform2(0.0..1.0)],
        shear in prop_oneof![Just(0.0), 0.0..90.0],
        zoom in prop_oneof![
            (0..100_u32).prop_map(|z| f64::from(z) / 100.0).prop_map(|z| [1.0 - z, 1.0 + z]),
            (0.001..10.0, 0.0..90.0).prop_map(|(low, more): (f64, f64)| [low, low + more]),
        ],
        brightness in prop::option::of((0.0..10.0, 0.0..90.0).prop_map(|(low, more): (f64, f64)| [low, low + more])),
        channel_shift in prop_oneof![Just(0.0), 0.0..=255.0],
    ) {
        let augment = Augment { hflip, vflip, rotate, shift, shear, zoom, brightness, channel_shift, fill };
        let text = augment.to_string();
        prop_assert_eq!(Augment::parse(&text).unwrap(), augment, "{}", text);
        let json = serde_json::to_string(&augment).unwrap();
        prop_assert_eq!(&json, &format!("\"{text}\""));
        prop_assert_eq!(serde_json::from_str::<Augment>(&json).unwrap(), augment);
        let bytes = postcard::to_stdvec(&augment).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Augment>(&bytes).unwrap(), augment);
        // What is drawn keeps to what was asked for.
        let t = augment.draw(rotate.to_bits(), 40, 30);
        prop_assert!(t.theta.abs() <= rotate && t.shear.abs() <= shear && t.fill == fill);
        prop_assert!(t.tx.abs() <= shift[0] * 40.0 && t.ty.abs() <= shift[1] * 30.0);
        prop_assert!([t.zx, t.zy].iter().all(|z| (zoom[0]..=zoom[1]).contains(z)));
        prop_assert!(t.channel_shift_intensity.unwrap_or(0.0).abs() <= channel_shift);
        prop_assert!(t.brightness.zip(brightness).is_none_or(|(b, [low, high])| (low..=high).contains(&b)));
        prop_assert!(hflip || !t.flip_horizontal);
        prop_assert!(vflip || !t.flip_vertical);
    }
}

const EVERYTHING: &str = "hflip,vflip,rotate=10,shift=0.1x0.2,shear=10,zoom=0.1,brightness=0.5..1.5,channel_shift=20";

#[test]
fn texts_are_canonical() {
    for (text, canonical) in [
        ("", "none"),
        ("none", "none"),
        ("rotate=0,shift=-0,shear=0,zoom=0,channel_shift=0.0,fill=nearest", "none"),
        (" zoom = 0.07 , rotate=1e1,hflip", "hflip,rotate=10,zoom=0.07"),
        ("zoom=0.9..1.1", "zoom=0.1"),
        ("zoom=0.8 .. 1.1", "zoom=0.8..1.1"),
        ("zoom=2..2", "zoom=2..2"),
        ("zoom=1..1", "none"),
        ("brightness=1..1", "brightness=1..1"),
        ("shift=0.1x0.1", "shift=0.1"),
        ("shift=0x.5,fill=wrap", "shift=0x0.5,fill=wrap"),
        (EVERYTHING, EVERYTHING),
    ] {
        assert_eq!(Augment::parse(text).unwrap().to_string(), canonical, "{text}");
    }
    assert!(Augment::parse("fill=wrap,rotate=0").unwrap().is_none());
    assert!(!Augment::parse("brightness=1..1").unwrap().is_none());
}

#[test]
fn errors_say_what_is_possible() {
    let all = "hflip, vflip, rotate, shift, shear, zoom, brightness, channel_shift, fill";
    let zoom = "zoom takes a number from 0 to below 1, such as zoom=0.1, or factors above 0 and up to 100, such as \
                zoom=0.8..1.2";
    let rotate = "rotate takes degrees from 0 to 360, such as rotate=10";
    for (text, expected) in [
        ("hflip,blur=2", format!("unknown augmentation \"blur=2\"; possible: {all}")),
        (
            "rotation_range=5",
            format!("unknown augmentation \"rotation_range=5\", did you mean rotate?; possible: {all}"),
        ),
        ("horizontal_flip", format!("unknown augmentation \"horizontal_flip\", did you mean hflip?; possible: {all}")),
        ("hflip,,vflip", format!("unknown augmentation \"\"; possible: {all}")),
        ("é", format!("unknown augmentation \"é\"; possible: {all}")),
        ("rotate=5,rotate=6", "rotate is given twice".to_owned()),
        ("hflip=1", "\"hflip=1\": there is a value; hflip takes no value".to_owned()),
        ("rotate", format!("\"rotate\": the value is missing; {rotate}")),
        ("rotate=", format!("\"rotate=\": the value is missing; {rotate}")),
        ("rotate=ten", format!("\"rotate=ten\": that isn't a number; {rotate}")),
        ("rotate=NaN", format!("\"rotate=NaN\": that isn't a finite number; {rotate}")),
        ("rotate=-inf", format!("\"rotate=-inf\": that isn't a finite number; {rotate}")),
        ("rotate=-5", format!("\"rotate=-5\": that is negative; {rotate}")),
        ("rotate=361", format!("\"rotate=361\": that is too large; {rotate}")),
        ("zoom=1", format!("\"zoom=1\": the zoom reaches 0, where nothing is left to see; {zoom}")),
        ("zoom=0..2", format!("\"zoom=0..2\": the zoom reaches 0, where nothing is left to see; {zoom}")),
        ("zoom=1.2..0.8", format!("\"zoom=1.2..0.8\": the range runs backwards; {zoom}")),
        (
            "brightness=0.5",
            "\"brightness=0.5\": that isn't a range; brightness takes factors from 0 to 100, such as \
             brightness=0.5..1.5"
                .to_owned(),
        ),
        (
            "fill=mirror",
            "\"fill=mirror\": there is no such fill; fill takes nearest, reflect, constant or wrap".to_owned(),
        ),
    ] {
        assert_eq!(Augment::parse(text).unwrap_err().to_string(), expected, "{text}");
    }
    for text in ["shift=1", "shift=0.1x", "shift=0.1x2", "shear=90", "channel_shift=256", "brightness=0..101", "zoom=2"]
    {
        assert!(matches!(Augment::parse(text), Err(AugmentError::Value { .. })), "{text}");
    }
    assert!(serde_json::from_str::<Augment>("\"rotate\"").unwrap_err().to_string().contains("missing"));
}

#[test]
fn kinds_draw_for_themselves() {
    let all = Augment::parse(EVERYTHING).unwrap();
    let mut flips = [0; 2];
    for seed in 0..2000 {
        let whole = all.draw(seed, 40, 30);
        let mut joined = Transform::default();
        for part in EVERYTHING.split(',') {
            let one = Augment::parse(part).unwrap().draw(seed, 40, 30);
            joined.theta += one.theta;
            joined.tx += one.tx;
            joined.ty += one.ty;
            joined.shear += one.shear;
            joined.zx *= one.zx;
            joined.zy *= one.zy;
            joined.flip_horizontal |= one.flip_horizontal;
            joined.flip_vertical |= one.flip_vertical;
            joined.channel_shift_intensity = joined.channel_shift_intensity.or(one.channel_shift_intensity);
            joined.brightness = joined.brightness.or(one.brightness);
        }
        assert_eq!(joined, whole);
        assert_ne!(whole.zx, whole.zy);
        // The height's share is drawn whether or not the width's is used.
        assert_eq!(Augment::parse("shift=0x0.2").unwrap().draw(seed, 40, 30).ty, whole.ty);
        flips[0] += usize::from(whole.flip_horizontal);
        flips[1] += usize::from(whole.flip_vertical);
    }
    assert!(flips.iter().all(|flips| (900..1100).contains(flips)), "{flips:?}");
}

#[test]
fn draws_and_pixels_are_fixed() {
    // A training run must be repeatable on another machine and with another version.
    let augment = Augment::parse(&format!("{EVERYTHING},fill=reflect")).unwrap();
    let t = augment.draw(11, 320, 240);
    let numbers = [t.theta, t.tx, t.ty, t.shear, t.zx, t.zy, t.channel_shift_intensity.unwrap(), t.brightness.unwrap()];
    let expected = [
        -7.202023252801062,
        14.416502778872324,
        -26.963837849869304,
        -7.997392263968819,
        0.9274909860658913,
        1.0337350414008388,
        12.349478900686115,
        1.453795312247384,
    ];
    assert_eq!(numbers, expected);
    assert_eq!((t.flip_horizontal, t.flip_vertical), (true, true));
    let warp = Transform { channel_shift_intensity: None, brightness: None, ..t };
    let picture = synthetic(42, 320, 240);
    assert_eq!([warp, t].map(|t| digest(&t.apply(&picture))), ["5cc52f72d086c8ed", "804d348d7af5ef55"]);
}

#[test]
fn nothing_set_changes_nothing() {
    let picture = synthetic(1, 9, 7);
    let bytes: Vec<f32> = picture.pixels().iter().map(|&b| f32::from(b)).collect();
    assert_eq!(Augment::default().draw(1, 9, 7), Transform::default());
    assert_eq!(Transform::default().apply(&picture), bytes);
    // Nor does a matrix that sends every point to itself, through the warp.
    for fill in Fill::ALL {
        assert_eq!(warp::affine(&picture, &[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], fill), bytes);
    }
}

#[test]
fn shifts_move_the_way_their_names_say() {
    let mut picture = Picture::blank(9, 5).unwrap();
    picture.pixels_mut()[(2 * 9 + 4) * 3] = 255;
    let moved = |t: Transform| t.apply(&picture).iter().position(|&v| v == 255.0).unwrap() / 3;
    assert_eq!(moved(Transform { tx: 3.0, ..Transform::default() }), 2 * 9 + 1);
    assert_eq!(moved(Transform { ty: 1.0, ..Transform::default() }), 9 + 4);
    assert_eq!(moved(Transform { tx: 3.0, flip_horizontal: true, ..Transform::default() }), 2 * 9 + 7);
    assert_eq!(moved(Transform { ty: 1.0, flip_vertical: true, ..Transform::default() }), 3 * 9 + 4);
}

#[test]
fn angles_are_as_the_platform_has_them() {
    for i in -4000..=4000 {
        let degrees = f64::from(i) * 0.1;
        let ((sin, cos), (s, c)) = (warp::sin_cos(degrees), degrees.to_radians().sin_cos());
        assert!((sin - s).abs() < 1e-15 && (cos - c).abs() < 1e-15, "{degrees}: {sin} {cos}, not {s} {c}");
    }
    assert_eq!(warp::sin_cos(90.0), (1.0, 0.0));
    assert_eq!(warp::sin_cos(0.0), (0.0, 1.0));
}
