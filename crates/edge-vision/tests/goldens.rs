//! Every committed picture against what Keras and Pillow made of it: not one byte may differ.
//!
//! `tests/goldens/make_vision.py` writes the expectations. `EDGE_VISION_EXPECT` names one more expectation
//! file, for comparing on photos that aren't committed.

use std::fs;
use std::path::{Path, PathBuf};

use edge_vision::{
    DecodeError, DecodeOptions, Flip, Interpolation, Layout, Mount, PassOrder, Picture, Preprocess, ResizePolicy,
    ResizeSpec, Resizer, decode, load,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

fn size(value: &Value) -> (u32, u32) {
    (value[0].as_u64().unwrap() as u32, value[1].as_u64().unwrap() as u32)
}

fn list<'a>(document: &'a Value, key: &str) -> &'a [Value] {
    document[key].as_array().map_or(&[], Vec::as_slice)
}

/// Counts comparisons and collects what differs, so that one run tells everything.
#[derive(Default)]
struct Tally {
    compared: usize,
    wrong: Vec<String>,
}

impl Tally {
    fn same(&mut self, what: impl Fn() -> String, got: &str, expected: &str) {
        self.compared += 1;
        if got != expected {
            self.wrong.push(format!("{}: {got} instead of {expected}", what()));
        }
    }

    fn is(&mut self, what: impl Fn() -> String, holds: bool) {
        self.compared += 1;
        if !holds {
            self.wrong.push(what());
        }
    }

    fn finish(self, name: &str) {
        println!("{name}: {} comparisons, {} differ", self.compared, self.wrong.len());
        let shown: Vec<_> = self.wrong.iter().take(40).map(String::as_str).collect();
        assert!(self.wrong.is_empty(), "{} of {} differ:\n{}", self.wrong.len(), self.compared, shown.join("\n"));
    }
}

fn check_file(expectation: &Path) {
    let folder = expectation.parent().unwrap();
    let document: Value = serde_json::from_str(&fs::read_to_string(expectation).unwrap()).unwrap();
    let major: u32 = document["pillow"].as_str().unwrap().split('.').next().unwrap().parse().unwrap();
    let order = if major >= 13 { PassOrder::Pillow13 } else { PassOrder::Pillow12 };
    let mut tally = Tally::default();
    for entry in list(&document, "pictures") {
        check_picture(&mut tally, folder, entry, &document, order);
    }
    for entry in list(&document, "mounts") {
        check_mounts(&mut tally, folder, entry);
    }
    for entry in list(&document, "cuts") {
        check_cut(&mut tally, folder, entry);
    }
    for entry in list(&document, "refused") {
        let file = entry["file"].as_str().unwrap();
        let error = load(&folder.join(file), &DecodeOptions::default()).unwrap_err().to_string();
        let words = entry["words"].as_str().unwrap();
        tally.is(|| format!("{error:?} doesn't hold {words:?}"), error.contains(file) && error.contains(words));
    }
    assert!(tally.compared > 0, "{} expects nothing", expectation.display());
    tally.finish(&expectation.display().to_string());
}

fn check_picture(tally: &mut Tally, folder: &Path, entry: &Value, document: &Value, order: PassOrder) {
    let file = entry["file"].as_str().unwrap();
    let picture = match load(&folder.join(file), &DecodeOptions::default()) {
        Ok(picture) => picture,
        Err(e) => return tally.is(|| e.to_string(), false),
    };
    tally.is(|| format!("{file}: size {picture:?}"), size(&entry["size"]) == (picture.width(), picture.height()));
    tally.same(|| format!("{file} decoded"), &digest(picture.pixels()), entry["decoded"].as_str().unwrap());
    let turned = load(&folder.join(file), &DecodeOptions { exif_orientation: true }).unwrap();
    let expected = if entry["turned"].is_object() { &entry["turned"] } else { entry };
    tally.is(|| format!("{file}: turned {turned:?}"), size(&expected["size"]) == (turned.width(), turned.height()));
    tally.same(|| format!("{file} turned"), &digest(turned.pixels()), expected["decoded"].as_str().unwrap());
    for (key, digests) in entry["resized"].as_object().unwrap() {
        let (wanted, policy) = key.split_once('/').unwrap();
        let (width, height) = wanted.split_once('x').unwrap();
        let policy = match policy {
            "squash" => ResizePolicy::Squash,
            "pad" => ResizePolicy::FitLongest { color: serde_json::from_value(document["pad"].clone()).unwrap() },
            shortest => ResizePolicy::FitShortest { shortest: shortest.parse().unwrap() },
        };
        for (interpolation, expected) in Interpolation::ALL.into_iter().zip(digests.as_str().unwrap().split(' ')) {
            let spec =
                ResizeSpec { width: width.parse().unwrap(), height: height.parse().unwrap(), policy, interpolation };
            let mut resizer = Resizer::with_order(spec, order).unwrap();
            let resized = resizer.resize(&picture).unwrap();
            tally.same(|| format!("{file} {key} {interpolation}"), &digest(resized.pixels()), expected);
        }
    }
    check_tensors(tally, file, &picture, &entry["tensors"], &document["affine"]);
}

/// A picture as a camera sees it that is turned, mirrored and looked at in part.
fn check_mounts(tally: &mut Tally, folder: &Path, entry: &Value) {
    let file = entry["file"].as_str().unwrap();
    let picture = load(&folder.join(file), &DecodeOptions::default()).unwrap();
    let mut out = Picture::blank(1, 1).unwrap();
    for (key, expected) in entry["seen"].as_object().unwrap() {
        let parts: Vec<&str> = key.split('/').collect();
        let mount = Mount {
            rotate: parts[0].parse().unwrap(),
            flip: if parts[1].is_empty() { Flip::default() } else { parts[1].parse().unwrap() },
            roi: if parts[2].is_empty() { None } else { Some(parts[2].parse().unwrap()) },
        };
        mount.apply(&picture, &mut out).unwrap();
        let got = format!("{}x{} {}", out.width(), out.height(), digest(out.pixels()));
        tally.same(|| format!("{file} mounted {key}"), &got, expected.as_str().unwrap());
    }
}

fn check_tensors(tally: &mut Tally, file: &str, picture: &Picture, expected: &Value, affine: &Value) {
    let (width, height) = size(&expected["size"]);
    let spec = ResizeSpec { width, height, policy: ResizePolicy::Squash, interpolation: Interpolation::Nearest };
    let mut resizer = Resizer::new(spec).unwrap();
    let resized = resizer.resize(picture).unwrap();
    let numbers = |key: &str| -> [f32; 3] { std::array::from_fn(|i| affine[key][i].as_f64().unwrap() as f32) };
    let (mean, std) = (numbers("mean"), numbers("std"));
    let mut tensor = vec![0.0_f32; resized.pixels().len()];
    for (key, expected) in expected.as_object().unwrap() {
        let Some((mode, layout)) = key.split_once('/') else { continue };
        let mode: Preprocess = match mode {
            "affine-rgb" => Preprocess::Affine { mean, std, bgr: false },
            "affine-bgr" => Preprocess::Affine { mean, std, bgr: true },
            named => serde_json::from_value(Value::from(named)).unwrap(),
        };
        let layout = if layout == "nchw" { Layout::Nchw } else { Layout::Nhwc };
        mode.apply(resized, layout, &mut tensor).unwrap();
        let bytes: Vec<u8> = tensor.iter().flat_map(|v| v.to_le_bytes()).collect();
        tally.same(|| format!("{file} tensor {key}"), &digest(&bytes), expected.as_str().unwrap());
    }
}

/// A file cut short, continued or damaged: accepted exactly where Keras accepts it, with the same pixels.
///
/// Whether an entry marked "either" is accepted is the PNG decoder's affair; if it is, the pixels are the same.
fn check_cut(tally: &mut Tally, folder: &Path, entry: &Value) {
    let file = entry["file"].as_str().unwrap();
    let mut bytes = fs::read(folder.join(file)).unwrap();
    bytes.truncate(entry["cut"].as_u64().unwrap() as usize);
    if let Some(tail) = entry["append"].as_str() {
        bytes.extend((0..tail.len()).step_by(2).map(|i| u8::from_str_radix(&tail[i..i + 2], 16).unwrap()));
    }
    let what = || format!("{file} at {} {}", entry["cut"], entry["append"]);
    let either = entry["either"].as_bool() == Some(true);
    match (decode(&bytes, &DecodeOptions::default()), entry["error"].as_str()) {
        (Ok(_), Some(_)) | (Err(_), _) if either => tally.is(what, true),
        (Ok(picture), None) => {
            tally
                .is(|| format!("{}: {picture:?}", what()), size(&entry["size"]) == (picture.width(), picture.height()));
            tally.same(what, &digest(picture.pixels()), entry["decoded"].as_str().unwrap());
        }
        (Ok(_), Some(error)) => tally.is(|| format!("{}: accepted, but Keras says {error}", what()), false),
        (Err(error), None) => tally.is(|| format!("{}: {error}, but Keras accepts it", what()), false),
        (Err(error), Some(expected)) => {
            let truncated = matches!(error, DecodeError::Truncated { .. });
            let same_word = !expected.contains("file is truncated") || truncated;
            tally.is(|| format!("{}: {error}, but Keras says {expected}", what()), same_word);
        }
    }
}

#[test]
fn committed_pictures() {
    check_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/vision/vision.json"));
}

#[test]
fn photos_named_by_the_environment() {
    match std::env::var_os("EDGE_VISION_EXPECT") {
        Some(path) => check_file(&PathBuf::from(path)),
        None => println!("skipped: EDGE_VISION_EXPECT names no expectation file"),
    }
}
