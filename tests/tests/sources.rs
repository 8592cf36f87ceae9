//! `edge-camera` on streams, and the photos that it collects. Cameras themselves are emulated by `cargo xtask test`.

use edge_suite::*;
use edge_vision::{DecodeOptions, Picture};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs `edge-camera` with these bytes on its standard input.
fn stream(bytes: &[u8], args: &[&str]) -> Ran {
    let mut child = Command::new(program("edge-camera"))
        .args(["--source", "-"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let ran = Ran::from(child.wait_with_output().expect("it ends"));
    let _ = writer.join();
    ran
}

fn jpeg(name: &str) -> Vec<u8> {
    std::fs::read(examples().join(format!("{name}.jpg"))).expect("an example")
}

fn picture(path: &Path) -> Picture {
    edge_vision::load(path, &DecodeOptions::default()).expect("a picture")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("a file").path()).collect();
    files.sort();
    files
}

#[test]
fn a_stream_of_jpegs_is_classified_as_the_files_are() {
    let scratch = Scratch::of(&default_model());
    let package = scratch.package.to_str().unwrap();
    let files = edge_camera!("--package", package, "--source", examples(), "--once", "--threads", "1").ok().json();
    let names = ["chelsea", "coffee", "rocket"];
    let garbage = [0, 0xFF, 0xD8, 1, 2, 3];
    let bytes: Vec<u8> = names.iter().flat_map(|n| [&garbage[..], &jpeg(n)].concat()).collect();
    let ran = stream(&bytes, &["--package", package, "--once", "--threads", "1"]).ok();
    let lines: Vec<_> = ran.json().into_iter().filter(|l| l["event"].is_null()).collect();
    assert_eq!(lines.len(), 3, "{}", ran.stderr);
    for ((line, file), number) in lines.iter().zip(&files).zip(0..) {
        assert_eq!(line["top"], file["top"]);
        assert_eq!(line["frame"], number);
        assert_eq!(line["source"], "-");
    }
    assert!(ran.stdout.contains("\"stream_damaged\"") && ran.stderr.contains("18 bytes"), "{}", ran.stderr);
}

#[test]
fn a_stream_that_ends_within_a_frame() {
    let scratch = Scratch::small();
    let (package, whole) = (scratch.package.to_str().unwrap(), jpeg("chelsea"));
    let ran = stream(&[&whole, &whole[..whole.len() / 2]].concat(), &["--package", package, "--once"]).ok();
    assert!(ran.stderr.contains("ends within a frame") && ran.stdout.contains("\"stream_cut\""), "{}", ran.stderr);
    assert_eq!(ran.json().len(), 2);
    // Nothing at all is the end of a stream, too.
    assert!(stream(&[], &["--package", package]).ok().json().is_empty());
    assert!(stream(&[9; 200_000], &["--package", package]).ok().stdout.contains("stream_damaged"));
}

#[test]
fn live_the_newest_frame_wins_and_the_pipe_never_backs_up() {
    let scratch = Scratch::of(&default_model());
    let whole = jpeg("coffee");
    // Far more than is classified while it is written; were each one taken in turn, there would be a line for each.
    let ran = stream(&whole.repeat(400), &["--package", scratch.package.to_str().unwrap(), "--threads", "1"]).ok();
    let frames: Vec<u64> = ran.json().iter().map(|l| l["frame"].as_u64().unwrap()).collect();
    assert_eq!(frames.last(), Some(&399), "the newest one is taken");
    assert!(frames.len() < 300 && frames.is_sorted_by(|a, b| a < b), "{frames:?}");
}

#[test]
fn raw_streams_give_what_the_picture_gives() {
    let scratch = Scratch::small();
    let package = scratch.package.to_str().unwrap();
    let whole = picture(&examples().join("rocket.jpg"));
    let (width, height) = (whole.width(), whole.height());
    let rgb = whole.pixels();
    let bgr: Vec<u8> = rgb.chunks(3).flat_map(|p| [p[2], p[1], p[0]]).collect();
    let png = scratch.path("rocket.png");
    image::save_buffer(&png, rgb, width, height, image::ColorType::Rgb8).unwrap();
    let expected = edge_camera!("--package", package, "--source", png, "--once").ok().json()[0]["top"].clone();
    for (format, bytes) in [("rgb24", rgb), ("bgr24", &bgr)] {
        let raw = format!("{width}x{height}:{format}");
        let ran = stream(&[bytes, bytes].concat(), &["--package", package, "--once", "--raw", &raw]).ok();
        let tops: Vec<_> = ran.json().iter().map(|l| l["top"].clone()).collect();
        assert_eq!(tops, [expected.clone(), expected.clone()], "{format}");
    }
    // One grey level, in each layout that has any.
    let grey = |raw: &str, length: usize| {
        let ran = stream(&vec![128; length], &["--package", package, "--once", "--raw", raw]).ok();
        ran.json()[0]["top"].clone()
    };
    let yuv = grey("64x48:yuv420:full", 64 * 48 * 3 / 2);
    assert_eq!(grey("64x48:nv12:full:bt709", 64 * 48 * 3 / 2), yuv);
    assert_eq!(grey("64x48:yuyv422:full", 64 * 48 * 2), yuv);
    assert_eq!(grey("64x48:gray", 64 * 48), yuv);
}

#[test]
fn sources_that_cannot_be_meant() {
    let scratch = Scratch::small();
    let package = scratch.package.to_str().unwrap();
    stream(&[], &["--package", package, "--raw", "640x480:h264"]).fails(2, &["--raw", "h264", "yuv420"]);
    let open = |source: &str| edge_camera!("--package", package, "--source", source, "--once");
    open("v4l2:/dev/v4l/by-id/none-*").fails(4, &["/dev/v4l/by-id/none-*", "/dev/video"]);
    open("v4l2:name=no such camera").fails(4, &["no such camera", "/dev/video"]);
    open("v4l2:").fails(2, &["v4l2:/dev/video0"]);
    edge_camera!("--package", package, "--source", "pattern", "--raw", "8x8:gray").fails(2, &["--raw", "--source -"]);
    edge_camera!("--source", "pattern", "--collect", scratch.path("x")).fails(2, &["--label"]);
    edge_camera!("--source", "pattern", "--collect", scratch.path("x"), "--label", "../y").fails(2, &["../y"]);
    edge_camera!("--source", "pattern", "--camera-format", "640x480:GRAU").fails(2, &["GRAU", "GREY"]);
}

#[test]
fn collected_photos_are_the_frames() {
    let scratch = Scratch::small();
    let photos = scratch.path("photos");
    let collect = |source: &str, label: &str, more: &[&str]| {
        let folder = photos.to_str().unwrap();
        let args = ["--source", source, "--collect", folder, "--label", label, "--every", "10ms"];
        run("edge-camera", args.iter().chain(more))
    };
    let ran = collect("pattern:64x48", "shoes", &["--count", "3"]).ok();
    assert!(ran.stderr.contains("3 photo(s) of \"shoes\""), "{}", ran.stderr);
    let shoes = files(&photos.join("shoes"));
    assert_eq!(shoes.len(), 3);
    assert!(picture(&shoes[0]) == edge_vision::synthetic(0, 64, 48));
    // A second session adds to the first.
    collect("pattern:64x48", "shoes", &["--count", "2"]).ok();
    assert_eq!(files(&photos.join("shoes")).len(), 5);
    // JPEGs are saved as they came, from a stream too, and there is no model in this.
    let (cat, rocket) = (jpeg("chelsea"), jpeg("rocket"));
    let args = ["--once", "--every", "0s", "--collect", photos.to_str().unwrap(), "--label", "cat"];
    stream(&[&cat[..], &[1, 2, 3], &rocket].concat(), &args).ok();
    let saved: Vec<Vec<u8>> = files(&photos.join("cat")).iter().map(|p| std::fs::read(p).unwrap()).collect();
    assert_eq!(saved.len(), 2);
    assert!(saved.contains(&cat) && saved.contains(&rocket));
    // A camera that hangs askew gives photos as they are classified.
    collect("pattern:64x48", "turned", &["--count", "1", "--rotate", "90"]).ok();
    let turned = picture(&files(&photos.join("turned"))[0]);
    assert_eq!((turned.width(), turned.height()), (48, 64));
    // What was collected is a folder of classes.
    edge_pack!("run", scratch.package, photos, "--json").ok();
}

#[test]
fn the_process_that_holds_the_camera_ends_with_its_asker() {
    // Nothing is on its standard input, so nobody asks.
    let ran = Command::new(program("edge-camera"))
        .args(["capture-worker", "/dev/video97", "640x480@30"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let ran = Ran::from(ran);
    assert!(!ran.stderr.contains("panicked") && ran.code.is_some(), "{}", ran.stderr);
}
