//! `edge-pack run`, `eval` and `bench` on real photos and on files that are none.

use edge_suite::*;
use std::process::{Command, Stdio};

const KNOWN: [(&str, u64, &str); 3] =
    [("chelsea", 285, "Egyptian cat"), ("coffee", 967, "espresso"), ("rocket", 657, "missile")];

#[test]
fn known_photos_get_their_class() {
    let scratch = Scratch::of(&default_model());
    let folder = examples();
    let lines = edge_pack!("run", scratch.package, folder, "--json", "--top", "3").ok().json();
    assert_eq!(lines.len(), 3);
    for (line, (name, index, label)) in lines.iter().zip(KNOWN) {
        assert_eq!(line["path"], folder.join(format!("{name}.jpg")).display().to_string());
        assert_eq!(line["top"][0]["index"], index);
        assert_eq!(line["top"][0]["label"], label);
        assert!(line["top"][0]["id"].as_str().unwrap().starts_with('n'));
        assert_eq!(line["top"].as_array().unwrap().len(), 3);
        let logits = line["logits"].as_array().unwrap();
        assert_eq!(logits.len(), 1000);
        // Softmax is applied once: the score follows from the logits.
        let logits: Vec<f64> = logits.iter().map(|v| v.as_f64().unwrap()).collect();
        let sum: f64 = logits.iter().map(|l| l.exp()).sum();
        let score = logits[index as usize].exp() / sum;
        assert!((line["top"][0]["score"].as_f64().unwrap() - score).abs() < 1e-5);
        assert!(line["latency_ms"].as_f64().unwrap() > 0.0);
    }
    // The policy matters: squashed, the rocket is something else.
    let squashed = edge_pack!("run", default_model(), folder.join("rocket.jpg"), "--resize", "squash", "--json");
    assert_ne!(squashed.ok().json()[0]["top"][0]["index"], 657);
}

#[test]
fn package_onnx_file_and_camera_agree_on_every_logit_and_class() {
    let scratch = Scratch::of(&default_model());
    let run = |model: &std::path::Path| edge_pack!("run", model, examples(), "--json", "--threads", "1").ok().json();
    let (package, onnx) = (run(&scratch.package), run(&default_model()));
    let log = scratch.path("log");
    edge_camera!("--package", scratch.package, "--source", examples(), "--once", "--log", log, "--threads", "1").ok();
    for ((p, o), c) in package.iter().zip(&onnx).zip(log_lines(&log)) {
        assert_eq!(p["logits"], o["logits"]);
        assert_eq!(p["top"], c["top"]);
        assert_eq!(p["decision"], c["decision"]);
    }
}

#[test]
fn folders_are_walked_and_unreadable_photos_are_counted() {
    let scratch = Scratch::small();
    let good = golden_picture("rgb8.png");
    scratch.copy(&good, "photos/b/deep/ok.png");
    scratch.copy(&good, "photos/a/png-named.jpg");
    scratch.copy(&good, "photos/.hidden/no.png");
    scratch.write("photos/a/text.jpg", "hello");
    scratch.write("photos/a/empty.jpg", "");
    scratch.write("photos/notes.txt", "no picture");
    let jpeg = std::fs::read(examples().join("chelsea.jpg")).unwrap();
    scratch.write("photos/a/cut.jpg", &jpeg[..jpeg.len() / 2]);
    let photos = scratch.path("photos");
    let ran = edge_pack!("run", scratch.package, photos, "--json")
        .fails(1, &["text.jpg", "empty.jpg", "cut.jpg", "truncated", "3 of 5"]);
    let paths: Vec<_> = ran.json().iter().map(|l| l["path"].as_str().unwrap().to_string()).collect();
    assert_eq!(paths, ["a/png-named.jpg", "b/deep/ok.png"].map(|p| photos.join(p).display().to_string()));
}

#[test]
fn extreme_sizes() {
    let scratch = Scratch::small();
    let tiny = golden_picture("rgb8.png");
    edge_pack!("run", scratch.package, tiny).ok();
    // 20000 x 20000 pixels in the header: refused before a byte is allocated for them.
    let mut png = std::fs::read(&tiny).unwrap();
    png[16..20].copy_from_slice(&20_000u32.to_be_bytes());
    png[20..24].copy_from_slice(&20_000u32.to_be_bytes());
    let crc = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    let huge = scratch.write("huge.png", png);
    edge_pack!("run", scratch.package, huge).fails(1, &["huge.png", "20000"]);
    let one = scratch.write("one.png", one_pixel());
    edge_pack!("run", scratch.package, one).ok();
}

/// The CRC of PNG chunks (PNG specification, annex D).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, b| {
        (0..8).fold(crc ^ u32::from(*b), |c, _| if c & 1 == 1 { 0xEDB8_8320 ^ (c >> 1) } else { c >> 1 })
    })
}

/// A PNG of one grey pixel, written by hand: stored (uncompressed) deflate.
fn one_pixel() -> Vec<u8> {
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        let body = [&kind[..], data].concat();
        [&(data.len() as u32).to_be_bytes()[..], &body, &crc32(&body).to_be_bytes()].concat()
    };
    let header = [0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0];
    // zlib header, one final stored block of 2 bytes (filter 0, value 128), Adler-32.
    let data = [0x78, 0x01, 0x01, 2, 0, 0xfd, 0xff, 0, 128, 0, 0x82, 0, 0x81];
    [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &header), &chunk(b"IDAT", &data), &chunk(b"IEND", &[])].concat()
}

#[test]
fn the_tensor_is_written_as_numpy_reads_it() {
    let scratch = Scratch::small();
    let npy = scratch.path("t.npy");
    edge_pack!("run", scratch.package, golden_picture("rgb8.png"), "--tensor", npy).ok();
    let bytes = std::fs::read(&npy).unwrap();
    assert!(bytes.starts_with(b"\x93NUMPY"));
    let header = String::from_utf8_lossy(&bytes[..128]);
    assert!(header.contains("'<f4'") && header.contains("(1, 20, 20, 3"), "{header}");
    let values: Vec<f32> =
        bytes[bytes.len() - 4800..].chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect();
    assert!(values.iter().all(|v| (-1.0..=1.0).contains(v)), "tf preprocess");
    edge_pack!("run", scratch.package, examples(), "--tensor", npy).fails(1, &["one photo; 3"]);
}

#[test]
fn options_that_would_be_ignored_are_errors() {
    let scratch = Scratch::small();
    let photo = golden_picture("rgb8.png");
    edge_pack!("run", scratch.package, photo, "--preprocess", "torch").fails(1, &["--preprocess", "package"]);
    edge_pack!("run", small_model(), photo, "--preprocess", "torch", "--bgr").fails(2, &["--bgr"]);
    edge_pack!(small_model(), "-o", scratch.path("x"), "--golden-count", "3").fails(2, &["--golden"]);
    edge_pack!("run", small_model(), photo, "--preprocess", "vgg").fails(1, &["vgg", "caffe"]);
    edge_pack!("run", small_model(), photo, "--mean", "1,2", "--std", "1").fails(1, &["--mean"]);
    edge_pack!("run", small_model(), photo, "--mean", "0", "--std", "0").fails(1, &["std"]);
    edge_pack!("run", small_model(), photo, "--resize", "fit-widest").fails(1, &["fit-widest", "fit-longest[:R,G,B]"]);
    edge_pack!("run", small_model(), photo, "--interpolation", "cubic").fails(1, &["cubic", "bicubic"]);
    edge_pack!("run", small_model(), photo, "--threads", "0").fails(1, &["threads"]);
    edge_pack!("run", small_model(), scratch.path("none")).fails(1, &["none"]);
    let empty = scratch.path("empty");
    std::fs::create_dir(&empty).unwrap();
    edge_pack!("run", small_model(), empty).fails(1, &["no pictures"]);
}

#[test]
fn one_bad_path_does_not_stop_the_others() {
    let scratch = Scratch::small();
    std::fs::create_dir(scratch.path("empty")).unwrap();
    let pipe = scratch.path("pipe.jpg");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let good = golden_picture("rgb8.png");
    let ran = edge_pack!("run", scratch.package, scratch.path("gone.jpg"), scratch.path("empty"), pipe, good, "--json")
        .fails(1, &["gone.jpg", "no pictures", "pipe.jpg: not a regular file", "3 of 4"]);
    assert_eq!(ran.json().len(), 1);
    // A cause is told once.
    assert_eq!(ran.stderr.matches("No such file").count(), 1, "{}", ran.stderr);
}

#[test]
fn evaluation_counts_what_run_says() {
    let scratch = Scratch::of(&default_model());
    for (name, _, label) in KNOWN {
        scratch.copy(&examples().join(format!("{name}.jpg")), &format!("photos/{label}/{name}.jpg"));
    }
    // A folder may be named by the WordNet id, and one photo here is in the wrong one.
    scratch.copy(&examples().join("coffee.jpg"), "photos/n02124075/not-a-cat.jpg");
    let photos = scratch.path("photos");
    let result = edge_pack!("eval", scratch.package, photos, "--json").ok().json().remove(0);
    assert_eq!(result["n"], 4);
    assert_eq!(result["accuracy"], 0.75);
    assert_eq!(result["per_class"]["Egyptian cat"]["n"], 2);
    assert_eq!(result["per_class"]["Egyptian cat"]["recall"], 0.5);
    assert_eq!(result["per_class"]["espresso"]["precision"], 0.5);
    assert_eq!(result["confusion"][285][967], 1);
    assert!(edge_pack!("eval", scratch.package, photos).ok().stdout.contains("accuracy 0.7500"));
    scratch.write("photos/loose.jpg", "x");
    assert!(edge_pack!("eval", scratch.package, photos).ok().stderr.contains("1 file(s) lie in no class folder"));
    scratch.write("photos/espresso/broken.jpg", "x");
    let broken = edge_pack!("eval", scratch.package, photos, "--json").fails(1, &["broken.jpg", "1 of 5"]);
    assert_eq!(broken.json()[0]["n"], 4);
    scratch.write("photos/gremlins/x.jpg", "x");
    edge_pack!("eval", scratch.package, photos).fails(1, &["gremlins", "no label"]);
}

#[test]
fn bench_prints_its_figures_last() {
    let ran = edge_pack!("bench", small_model(), "--threads", "2", "--runs", "3", "--json").ok();
    let last: serde_json::Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
    for key in ["min_ms", "median_ms", "load_ms", "peak_rss_mb"] {
        assert!(last[key].as_f64().unwrap() > 0.0, "{key}: {last}");
    }
    assert_eq!(last["threads"], 2);
    assert!(last["min_ms"].as_f64() <= last["median_ms"].as_f64());
    edge_pack!("bench", small_model(), "--runs", "0").fails(1, &["--runs"]);
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let scratch = Scratch::small();
    for i in 0..200 {
        scratch.copy(&golden_picture("rgb8.png"), &format!("photos/{i}.png"));
    }
    let mut child = Command::new(program("edge-pack"))
        .arg("run")
        .arg(&scratch.package)
        .arg(scratch.path("photos"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(141), "{}", ran.stderr);
    assert!(!ran.stderr.contains("panicked"));
}
