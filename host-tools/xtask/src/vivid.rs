//! The camera test: a photo in front of an emulated camera must come out of `edge-camera` as its class.
//!
//! The guest's kernel has vivid, a driver that emulates cameras. Its HDMI output is looped back to its capture node,
//! where every frame arrives bit for bit as it was shown; so what `edge-camera` sees through V4L2 is known exactly.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::apt;
use crate::emulator::{Guest, GuestResult};

/// The picture's width on the emulated HDMI cable.
const WIDTH: usize = 640;
/// The picture's height on the emulated HDMI cable.
const HEIGHT: usize = 480;

/// Frames that are captured and compared with the shown one, byte for byte.
const COMPARED: usize = 30;

/// Frames that `edge-camera` classifies. Few, because the emulated processor is some hundred times slower.
const CLASSIFIED: usize = 3;

/// A node for capture with a webcam and an HDMI input, and a node for an HDMI output.
const VIVID: &str = "n_devs=1 node_types=0x101 num_inputs=2 input_types=0xc num_outputs=1 output_types=1";

/// Connects the output to the capture node, shows the photo, and keeps showing it.
///
/// Timings and format must be the same on both sides, or vivid scales, or shows noise. Timings 0 are 640x480. The text
/// that vivid writes into its pictures (OSD) is turned off. Kernels before 6.12 or so connect the two by one switch,
/// later ones by a menu of the capture node whose entries name the outputs.
const SHOW: &str = r#"set -e
capture=/dev/video0
output=/dev/video1
v4l2-ctl -d $capture --set-input 1
v4l2-ctl -d $output --set-output 0
v4l2-ctl -d $capture --set-dv-bt-timings index=0
v4l2-ctl -d $output --set-dv-bt-timings index=0
v4l2-ctl -d $capture --set-ctrl osd_text_mode=2
v4l2-ctl -d $capture --list-ctrls-menus >/tmp/controls
if grep -q ' loop_video ' /tmp/controls; then
    v4l2-ctl -d $capture --set-ctrl loop_video=1
else
    control=$(sed -n 's/^ *\(hdmi_[0-9_]*is_connected_to\) .*/\1/p' /tmp/controls | head -n 1)
    entry=$(sed -n '/is_connected_to/,/^ *[a-z]/s/^[[:space:]]*\([0-9]*\): .*HDMI.*/\1/p' /tmp/controls | head -n 1)
    v4l2-ctl -d $capture --set-ctrl "$control=$entry"
fi
format=width=640,height=480,pixelformat=YUYV,field=none
v4l2-ctl -d $capture --set-fmt-video $format
v4l2-ctl -d $output --set-fmt-video-out $format
v4l2-ctl -d $output --stream-out-mmap --stream-from=/photo.yuyv --stream-loop >/tmp/shown 2>&1 &
shown=$!
# Its progress is a character a frame, so anything written means that the photo is on the cable.
for wait in $(seq 100); do
    [ -s /tmp/shown ] && break
    sleep 0.1
done
kill -0 $shown || { cat /tmp/shown; exit 1; }
echo "the photo is shown; capturing"
"#;

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
/// Captured frames must equal the shown one byte for byte. `edge-camera` then runs in the guest: on the HDMI input,
/// where each line of its log must have the expected label on top, and on the webcam input, which nokhwa opens. Where
/// the emulator can't be fetched, the error is an [`apt::Unavailable`].
pub fn camera_step(photo: &Path, classify: &Classify) -> Result<String> {
    let shown = rgb_to_yuyv(&read_photo(photo)?);
    // The guest holds the initramfs, twice while it boots, and then what the runtime maps and computes.
    let mut bytes = 0;
    for path in [classify.edge_camera, classify.package] {
        bytes += fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len();
    }
    let memory = u32::try_from(1024 + 4 * bytes.div_ceil(1 << 20));
    let script = format!(
        "{SHOW}v4l2-ctl -d $capture --stream-mmap --stream-count={COMPARED} --stream-to=/result/frames.yuyv \
         >/tmp/captured 2>&1 || {{ cat /tmp/captured; exit 1; }}\n{}",
        classify_script(classify)?
    );
    let result = Guest::new(&apt::cache_dir()?)
        .context("preparing the emulated camera")?
        .with_tool("bin/v4l2-ctl")
        .with_module("vivid", VIVID)
        .with_bytes(shown.clone(), "/photo.yuyv")
        .with_binary(classify.edge_camera)
        .with_file(classify.package, "/m.edgepack")
        .memory_mb(memory.context("the package is too large for the emulated machine")?)
        .script(&script)
        .run(Duration::from_secs(600))?;

    compare_frames(result.file("frames.yuyv")?, &shown)?;
    let console = || format!("the guest printed:\n{}", result.console);
    let dropped = check_log(&result, "hdmi", "through v4l", Some(classify.expected)).with_context(console)?;
    check_log(&result, "webcam", "through nokhwa", None).with_context(console)?;
    Ok(format!(
        "{COMPARED} frames of {WIDTH}x{HEIGHT} YUYV came through the emulated camera bit for bit; edge-camera logged \
         {:?} for each of {CLASSIFIED}, dropping {dropped} older ones, and opened a webcam through nokhwa (boot {:.1} s, \
         {:.1} s in all)",
        classify.expected,
        result.boot.as_secs_f32(),
        result.total.as_secs_f32()
    ))
}

/// The guest's part of the classification. `edge-camera` opens the node as it would find a board's HDMI receiver: input,
/// timings and format are set, and V4L2 keeps them between openings.
///
/// Such an input lists sizes as a range, no frame intervals at all, and runs at 59.94 frames a second. nokhwa refuses it
/// for both ("Failed to Fufill", "Framerate not whole number"); the v4l crate captures from it.
fn classify_script(classify: &Classify) -> Result<String> {
    let name = classify.edge_camera.file_name().and_then(|name| name.to_str());
    let name = name.context("edge-camera's path has no plain name")?;
    let run = |input: &str| {
        format!(
            "'{name}' --package /m.edgepack --source v4l2:$capture --frames {CLASSIFIED} --log /result/{input}.jsonl \
             2>/result/{input}.txt || {{ cat /result/{input}.txt; exit 1; }}\n"
        )
    };
    Ok(format!("{}v4l2-ctl -d $capture --set-input 0\n{}", run("hdmi"), run("webcam")))
}

/// Checks that `edge-camera` opened `input` through the library named, and that its log has a line for each frame, with
/// the expected label on top where there is one. Returns how many frames were dropped for newer ones.
fn check_log(result: &GuestResult, input: &str, library: &str, expected: Option<&str>) -> Result<u64> {
    let text = |name: String| -> Result<&str> {
        std::str::from_utf8(result.file(&name)?).with_context(|| format!("{name} is not UTF-8"))
    };
    let said = text(format!("{input}.txt"))?;
    ensure!(said.contains(library), "{library:?} was expected on the {input} input: {said}");
    let log = text(format!("{input}.jsonl"))?;
    let mut frames = Vec::new();
    for line in log.lines() {
        let entry: Value = serde_json::from_str(line).with_context(|| format!("a log line is not JSON: {line}"))?;
        let label = entry.pointer("/top/0/label").and_then(Value::as_str);
        let label = label.with_context(|| format!("a log line has no top label: {line}"))?;
        if let Some(expected) = expected {
            ensure!(
                label == expected,
                "the host says {expected:?}, edge-camera in the emulated machine says {label:?}"
            );
        }
        frames.push(entry["frame"].as_u64().context("a log line has no frame number")?);
    }
    ensure!(frames.len() == CLASSIFIED, "{CLASSIFIED} lines were asked for, the log has {}:\n{log}", frames.len());
    ensure!(frames.is_sorted_by(|a, b| a < b), "frame numbers do not grow: {frames:?}");
    // The emulated processor is far slower than the camera: a queue of old frames would have no gaps.
    let dropped = frames[CLASSIFIED - 1] + 1 - CLASSIFIED as u64;
    ensure!(dropped > 0, "no frame was dropped for a newer one: {frames:?}");
    Ok(dropped)
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
