//! The camera test: a photo in front of an emulated camera must come out of `edge-camera` as its class.
//!
//! The guest's kernel has vivid, a driver that emulates cameras. Its HDMI output is looped back to its capture node,
//! where every frame arrives bit for bit as it was shown; so what `edge-camera` sees through V4L2 is known exactly. It
//! also stalls, disconnects and changes its format when it is told to.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use edge_rig::apt;
use edge_rig::vivid::{OPTIONS, SHOW};
use serde_json::Value;

use crate::emulator::{Guest, GuestResult};

/// The picture's width on the emulated HDMI cable.
const WIDTH: usize = 640;
/// The picture's height on the emulated HDMI cable.
const HEIGHT: usize = 480;

/// Frames that are captured and compared with the shown one, byte for byte.
const COMPARED: usize = 30;

/// Frames that `edge-camera` classifies. Few, because the emulated processor is some hundred times slower.
const CLASSIFIED: usize = 3;

/// What happens in the guest, which leaves its files in `/result`.
const SCRIPT: &str = include_str!("vivid.sh");

/// The larger picture's size, after the emulated HDMI source has changed its format.
const LARGE: (usize, usize) = (1280, 720);

/// What is to be proved of `edge-camera`.
pub struct Classify<'a> {
    /// The dynamically linked device runtime, built for this machine.
    pub edge_camera: &'a Path,
    /// The package it loads.
    pub package: &'a Path,
    /// The label that the host gives the photo.
    pub expected: &'a str,
}

/// Shows `photo` (a file of 640x480 pixels, 3 bytes each) to the emulated camera, and returns a line that says what
/// was proved.
///
/// Captured frames must equal the shown one byte for byte. One `edge-camera` then runs in the guest on the HDMI input,
/// while its camera stalls, is unplugged and plugged in again, and changes its format: each must be told in the log,
/// and each time frames must come again and have the expected label on top. Grey frames are collected and must equal the
/// shown ones, too (`png_to_rgb` reads a PNG file's pixels). The webcam input is opened by its name, through nokhwa; an
/// `edge-camera` that is killed takes along the process that holds it, though that one is stuck.
/// Where the emulator can't be fetched, the error is an [`apt::Unavailable`].
pub fn camera_step(photo: &Path, classify: &Classify, png_to_rgb: impl Fn(&[u8]) -> Result<Vec<u8>>) -> Result<String> {
    let rgb = read_photo(photo)?;
    let shown = rgb_to_yuyv(&rgb);
    let grey: Vec<u8> = rgb.chunks_exact(3).map(|pixel| pixel[1]).collect();
    // The guest holds the initramfs, twice while it boots, and then what the runtime maps and computes.
    let mut bytes = 0;
    for path in [classify.edge_camera, classify.package] {
        bytes += fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len();
    }
    let memory = u32::try_from(1024 + 4 * bytes.div_ceil(1 << 20));
    let result = Guest::new(&apt::cache_dir()?)
        .context("preparing the emulated camera")?
        .with_tool("bin/v4l2-ctl")
        .with_module("vivid", OPTIONS)
        .with_bytes(shown.clone(), "/photo.yuyv")
        .with_bytes(grey.clone(), "/photo.grey")
        .with_bytes(rgb_to_yuyv(&enlarge(&rgb)), "/large.yuyv")
        .with_binary(classify.edge_camera)
        .with_file(classify.package, "/m.edgepack")
        .memory_mb(memory.context("the package is too large for the emulated machine")?)
        .script(&format!("COMPARED={COMPARED}\nCLASSIFIED={CLASSIFIED}\n{SHOW}\n{SCRIPT}"))
        .run(Duration::from_secs(900))?;

    compare_frames(result.file("frames.yuyv")?, &shown)?;
    let console = || format!("the guest printed:\n{}", result.console);
    let dropped = check_life(&result, classify.expected).with_context(console)?;
    check_grey(&result, &grey, png_to_rgb).with_context(console)?;
    let webcam = text(&result, "webcam.txt")?;
    ensure!(
        webcam.contains("(vivid) 640x480 YUYV (BT.601, limited range) through nokhwa"),
        "nokhwa was expected to open the webcam: {webcam}"
    );
    ensure!(events(&result, "webcam.jsonl", "label").with_context(console)?.len() == CLASSIFIED);
    for (name, part) in [
        ("none.txt", "there are /dev/video0 (vivid), /dev/video1 (vivid, no camera)"),
        ("format.txt", "YUYV"),
        ("format.txt", "MJPEG was asked for"),
        ("denied.txt", "add the user to it"),
    ] {
        let said = text(&result, name)?;
        ensure!(said.contains(part), "{name} should say {part:?}: {said}");
    }
    Ok(format!(
        "{COMPARED} frames of {WIDTH}x{HEIGHT} YUYV came through the emulated camera bit for bit, and grey ones through \
         edge-camera, too; one process of it logged {:?} from the start (dropping {dropped} older frames), after a stall, \
         after unplugging and plugging in, and at 1280x720 after the source had changed, each with its notices and with \
         no descriptor more; a webcam was opened by its name through nokhwa, and let go when edge-camera was killed (boot {:.1} s, {:.1} s in all)",
        classify.expected,
        result.boot.as_secs_f32(),
        result.total.as_secs_f32()
    ))
}

/// A file that the guest left, as text.
fn text<'a>(result: &'a GuestResult, name: &str) -> Result<&'a str> {
    std::str::from_utf8(result.file(name)?).with_context(|| format!("{name} is not UTF-8"))
}

/// The lines of a log that have `key` (or, for "label", a class on top), with its value.
fn events(result: &GuestResult, name: &str, key: &str) -> Result<Vec<(String, Value)>> {
    let mut found = vec![];
    for line in text(result, name)?.lines() {
        let entry: Value = serde_json::from_str(line).with_context(|| format!("a log line is not JSON: {line}"))?;
        let value = if key == "label" { entry.pointer("/top/0/label") } else { entry.get(key) };
        if let Some(value) = value.and_then(Value::as_str) {
            found.push((value.to_owned(), entry.clone()));
        }
    }
    Ok(found)
}

/// Checks what happened to the long-lived process: its notices in order, and its classes in each phase. Returns how many
/// frames were dropped for newer ones at the start.
fn check_life(result: &GuestResult, expected: &str) -> Result<u64> {
    for (phase, count) in [("start", CLASSIFIED), ("stall", 1), ("unplugged", 1), ("format", 1)] {
        let classes = events(result, &format!("{phase}.jsonl"), "label")?;
        ensure!(classes.len() >= count, "{count} classes were expected in phase {phase}: {classes:?}");
        for (label, _) in classes {
            ensure!(label == expected, "the host says {expected:?}, edge-camera in phase {phase} says {label:?}");
        }
    }
    // On a slow machine there may be more of them, where a frame comes late.
    let notices = events(result, "life.jsonl", "event")?;
    let mut rest = notices.iter();
    for (event, part) in [
        ("camera_stalled", "no frame for"),
        ("camera_lost", "no frame for"),
        ("camera_back", "640x480 YUYV (BT.601, limited range) through v4l"),
        ("camera_lost", ""),
        ("camera_lost", "nothing is called /run/cameras/usb-*"),
        ("camera_back", "640x480 YUYV (BT.601, limited range) through v4l"),
        ("camera_lost", "its source has changed"),
        ("camera_lost", "no signal"),
        ("camera_back", "1280x720 YUYV (BT.709, limited range) through v4l"),
    ] {
        let told =
            rest.any(|(name, entry)| name == event && entry["detail"].as_str().is_some_and(|d| d.contains(part)));
        ensure!(told, "{event} with {part:?} is missing, or in another place: {notices:?}");
    }
    let (before, after) = (text(result, "usage-before")?, text(result, "usage-after")?);
    ensure!(
        before == after && before.trim_end().ends_with(" 1"),
        "descriptors and children: {before:?}, then {after:?}"
    );
    let frames = events(result, "life.jsonl", "label")?;
    let frames: Vec<u64> = frames.iter().filter_map(|(_, entry)| entry["frame"].as_u64()).collect();
    ensure!(frames.is_sorted_by(|a, b| a < b), "frame numbers do not grow: {frames:?}");
    // The emulated processor is far slower than the camera: a queue of old frames would have no gaps.
    let dropped = frames[CLASSIFIED] - CLASSIFIED as u64;
    ensure!(dropped > 0, "no frame was dropped for a newer one: {frames:?}");
    Ok(dropped)
}

/// Checks that the collected frames are the shown one.
fn check_grey(result: &GuestResult, shown: &[u8], png_to_rgb: impl Fn(&[u8]) -> Result<Vec<u8>>) -> Result<()> {
    let said = text(result, "grey.txt")?;
    ensure!(said.contains("GREY through v4l"), "the v4l crate was expected for grey: {said}");
    let mut photos = 0;
    for (name, bytes) in result.files.iter().filter(|(name, _)| name.starts_with("grey/")) {
        let rgb = png_to_rgb(bytes).with_context(|| name.clone())?;
        let same = rgb.chunks_exact(3).map(|pixel| pixel[0]).eq(shown.iter().copied());
        ensure!(same && rgb.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]), "{name} is not what was shown");
        photos += 1;
    }
    ensure!(photos == 3, "3 photos were asked for, {photos} were collected: {said}");
    Ok(())
}

/// Twice as large, and of that the middle with [`LARGE`] pixels.
fn enlarge(rgb: &[u8]) -> Vec<u8> {
    let top = (HEIGHT * 2 - LARGE.1) / 2;
    let pixel = |x: usize, y: usize| {
        let at = ((y + top) / 2 * WIDTH + x / 2) * 3;
        [rgb[at], rgb[at + 1], rgb[at + 2]]
    };
    (0..LARGE.1).flat_map(|y| (0..LARGE.0).flat_map(move |x| pixel(x, y))).collect()
}

/// Checks that `frames` are all the `shown` one.
fn compare_frames(frames: &[u8], shown: &[u8]) -> Result<()> {
    ensure!(
        frames.len() == COMPARED * shown.len(),
        "{COMPARED} frames of {} bytes were asked for, {} bytes came",
        shown.len(),
        frames.len()
    );
    for (number, frame) in frames.chunks_exact(shown.len()).enumerate() {
        let different = frame.iter().zip(shown).filter(|(came, shown)| came != shown).count();
        if different > 0 {
            bail!("frame {number} differs from the shown one in {different} of {} bytes", shown.len());
        }
    }
    Ok(())
}

/// Reads the photo: 640x480 pixels of red, green, blue, rows from the top.
fn read_photo(path: &Path) -> Result<Vec<u8>> {
    let rgb = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    ensure!(rgb.len() == WIDTH * HEIGHT * 3, "{} has {} bytes, not {WIDTH}x{HEIGHT} RGB", path.display(), rgb.len());
    Ok(rgb)
}

/// RGB to YUYV: BT.601, limited range, the two pixels of a pair sharing the mean of their colours.
fn rgb_to_yuyv(rgb: &[u8]) -> Vec<u8> {
    // The usual 8-bit coefficients. Every result lies in 16..=240, so the conversion to bytes loses nothing.
    let byte = |value: i32| (value >> 8) as u8;
    let luma = |[r, g, b]: [i32; 3]| byte(66 * r + 129 * g + 25 * b + 128 + (16 << 8));
    let mut yuyv = Vec::with_capacity(rgb.len() / 3 * 2);
    for pair in rgb.chunks_exact(6) {
        let left = [pair[0], pair[1], pair[2]].map(i32::from);
        let right = [pair[3], pair[4], pair[5]].map(i32::from);
        let [r, g, b] = [0, 1, 2].map(|channel| (left[channel] + right[channel] + 1) / 2);
        let u = byte(-38 * r - 74 * g + 112 * b + 128 + (128 << 8));
        let v = byte(112 * r - 94 * g - 18 * b + 128 + (128 << 8));
        yuyv.extend([luma(left), u, luma(right), v]);
    }
    yuyv
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_colours_have_their_bt601_values() {
        let yuyv = |rgb: [u8; 3]| rgb_to_yuyv(&[rgb, rgb].concat());
        assert_eq!(yuyv([0, 0, 0]), [16, 128, 16, 128]);
        assert_eq!(yuyv([255, 255, 255]), [235, 128, 235, 128]);
        assert_eq!(yuyv([255, 0, 0]), [82, 90, 82, 240]);
        assert_eq!(yuyv([0, 0, 255]), [41, 240, 41, 110]);
        assert_eq!(rgb_to_yuyv(&[0, 0, 0, 255, 255, 255]), [16, 128, 235, 128]);
    }

    #[test]
    fn one_wrong_byte_is_found() {
        let shown = vec![7; 8];
        let mut frames = shown.repeat(COMPARED);
        compare_frames(&frames, &shown).unwrap();
        frames[8 * 4] = 0;
        assert!(compare_frames(&frames, &shown).unwrap_err().to_string().contains("frame 4 "));
        assert!(compare_frames(&shown, &shown).is_err());
    }
}
