//! `edge-camera` from start to stop: sources, the log, signals, faults.

use edge_suite::*;
use edge_vision::{DecodeOptions, Mount, Picture};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

fn spawn(scratch: &Scratch, args: &[&str], log: &std::path::Path) -> Child {
    Command::new(program("edge-camera"))
        .arg("--package")
        .arg(&scratch.package)
        .args(args)
        .arg("--log")
        .arg(log)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Waits until the log has this many lines.
fn wait_for_lines(log: &std::path::Path, count: usize) {
    for _ in 0..600 {
        if std::fs::read_to_string(log).is_ok_and(|t| t.lines().count() >= count) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("{} never got {count} lines", log.display());
}

#[test]
fn the_built_in_model_classifies_a_folder_to_standard_output() {
    let ran = edge_camera!("--source", examples(), "--once", "--log", "-").ok();
    let decisions: Vec<Value> = ran.json().iter().map(|e| e["decision"].clone()).collect();
    assert_eq!(decisions, ["Egyptian cat", "espresso", "missile"]);
}

#[test]
fn a_line_of_the_log_has_everything() {
    let scratch = Scratch::small();
    let log = scratch.path("log.jsonl");
    edge_camera!(
        "--package",
        scratch.package,
        "--source",
        golden_picture("rgb8.png"),
        "--once",
        "--log",
        log,
        "--top",
        "2"
    )
    .ok();
    let digest = edge_pack!("inspect", scratch.package, "--json").ok().json()[0]["digest"].clone();
    let line = &log_lines(&log)[0];
    assert_eq!(line["package"], digest);
    assert_eq!(line["backend"], "cpu");
    assert_eq!(line["frame"], 0);
    assert_eq!(line["top"].as_array().unwrap().len(), 2);
    assert_eq!(line["decision"], line["top"][0]["label"]);
    assert_eq!(line["class"], line["top"][0]["index"]);
    assert!(line["source"].as_str().unwrap().ends_with("rgb8.png"));
    assert!(line["time"].as_str().unwrap().ends_with('Z') && line["monotonic_s"].is_number());
    for stage in ["decode", "resize", "preprocess", "infer", "total"] {
        assert!(line["latency_ms"][stage].is_number(), "{stage}");
    }
}

#[test]
fn below_the_threshold_the_decision_is_unknown() {
    let scratch = Scratch::small();
    let package = scratch.path("strict.edgepack");
    edge_pack!(small_model(), "-o", package, "--threshold", "1").ok();
    let ran = edge_camera!("--package", package, "--source", golden_picture("rgb8.png"), "--once").ok();
    assert_eq!(ran.json()[0]["decision"], "unknown");
    assert!(ran.json()[0]["top"][0]["score"].as_f64().unwrap() < 1.0);
}

#[test]
fn a_folder_is_shown_over_and_over_at_a_rate() {
    let scratch = Scratch::small();
    let ran = edge_camera!("--package", scratch.package, "--source", examples(), "--rate", "100", "--frames", "7").ok();
    let sources: Vec<String> = ran.json().iter().map(|e| e["source"].as_str().unwrap().to_string()).collect();
    assert_eq!(sources.len(), 7);
    assert_eq!(sources[0], sources[3]);
    assert_eq!(sources[1], sources[4]);
    assert_ne!(sources[0], sources[1]);
}

#[test]
fn sources_that_are_none() {
    let scratch = Scratch::small();
    let empty = scratch.path("empty");
    std::fs::create_dir(&empty).unwrap();
    let open = |source: &str| edge_camera!("--package", scratch.package, "--source", source, "--once");
    open(empty.to_str().unwrap()).fails(4, &["empty", "no pictures"]);
    open("/no/such/folder").fails(4, &["/no/such/folder"]);
    open("v4l2:/dev/video97").fails(4, &["/dev/video97"]);
    open("v4l2:/dev/null").fails(4, &["/dev/null", "not a camera"]);
    open("pattern:0x7").fails(2, &["0x7"]);
    edge_camera!("--package", scratch.package, "--source", "pattern", "--rate", "0").fails(2, &["--rate"]);
    edge_camera!("--package", scratch.package, "--source", "v4l2:/dev/video0", "--camera-format", "huge")
        .fails(2, &["--camera-format", "huge"]);
    edge_camera!("--package", scratch.package, "--source", "pattern", "--trusted-key", scratch.path("none.pub"))
        .fails(2, &["none.pub"]);
}

#[test]
fn pictures_that_cannot_be_read_are_logged_and_counted() {
    let scratch = Scratch::small();
    scratch.copy(&golden_picture("rgb8.png"), "photos/good.jpg");
    scratch.write("photos/text.jpg", "hello");
    std::os::unix::fs::symlink("nowhere", scratch.path("photos/gone.jpg")).unwrap();
    let photos = scratch.path("photos");
    assert!(Command::new("mkfifo").arg(scratch.path("photos/pipe.jpg")).status().unwrap().success());
    let ran =
        edge_camera!("--package", scratch.package, "--source", photos, "--once").fails(6, &["text.jpg", "3 picture"]);
    let lines = ran.json();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines.iter().filter(|l| l["error"].is_string()).count(), 3);
    assert_eq!(lines.iter().filter(|l| l["decision"].is_string()).count(), 1);
}

#[test]
fn sigterm_and_sigint_end_it_cleanly() {
    let scratch = Scratch::small();
    for name in ["TERM", "INT"] {
        let log = scratch.path(name);
        let child = spawn(&scratch, &["--source", "pattern", "--rate", "200"], &log);
        wait_for_lines(&log, 5);
        signal(&child, name);
        let ran = Ran::from(child.wait_with_output().unwrap()).ok();
        assert!(ran.stderr.contains("frame(s)"), "{}", ran.stderr);
        assert!(log_lines(&log).len() >= 5);
    }
}

#[test]
fn after_kill_9_every_line_is_whole_and_a_restart_appends() {
    let scratch = Scratch::small();
    let log = scratch.path("log");
    for round in 1..=3 {
        let mut child = spawn(&scratch, &["--source", "pattern", "--rate", "1000"], &log);
        wait_for_lines(&log, 40 * round);
        signal(&child, "KILL");
        child.wait().unwrap();
        assert!(log_lines(&log).len() >= 40 * round);
    }
}

#[test]
fn no_space_for_the_log() {
    let scratch = Scratch::small();
    edge_camera!("--package", scratch.package, "--source", "pattern", "--log", "/dev/full").fails(5, &["/dev/full"]);
    edge_camera!("--package", scratch.package, "--source", "pattern", "--log", scratch.path("no/folder"))
        .fails(5, &["no/folder"]);
    let picture = scratch.copy(&golden_picture("rgb8.png"), "precious.png");
    let before = std::fs::read(&picture).unwrap();
    edge_camera!("--package", scratch.package, "--source", "pattern", "--log", picture)
        .fails(5, &["precious.png", "not a classification log"]);
    assert_eq!(std::fs::read(&picture).unwrap(), before);
}

#[test]
fn a_disk_that_runs_full_leaves_whole_lines() {
    let scratch = Scratch::small();
    let disk = scratch.path("disk");
    std::fs::create_dir(&disk).unwrap();
    // A file system of 16 KiB of its own, which ends with the namespace.
    let script = "mount -t tmpfs -o size=16k none \"$1\" && { \"$2\" --package \"$3\" --source pattern --rate 1000 --frames 200 --log \"$1/log\"; \
                  code=$?; cat \"$1/log\"; exit $code; }";
    let Some(ran) = with_mounts(script, [disk.as_ref(), program("edge-camera").as_ref(), scratch.package.as_ref()])
    else {
        return;
    };
    assert!(ran.stderr.contains("No space left") && ran.stderr.contains("classification goes on"), "{}", ran.stderr);
    assert!(ran.stderr.contains("200 frame(s), 0 of them"), "{}", ran.stderr);
    let lines = ran.json();
    assert!(ran.stdout.ends_with('\n') && lines.len() > 10, "{}", ran.stdout);
    // The last gap may have found a place at the very end, since a notice is shorter than a frame's line.
    if ran.code == Some(0) {
        assert_eq!(lines.last().unwrap()["event"], "log_gap");
    } else {
        ran.fails(5, &["cannot write the log", "lost"]);
    }
}

#[test]
fn memory_does_not_grow_over_a_thousand_frames() {
    let scratch = Scratch::of(&default_model());
    let args = ["--source", "pattern:320x240", "--rate", "1000", "--frames", "1000"];
    let mut child = spawn(&scratch, &args, "-".as_ref());
    let resident = |pid: u32| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let (mut early, mut late) = (0, 0);
    for (i, line) in BufReader::new(child.stdout.take().unwrap()).lines().enumerate() {
        line.unwrap();
        match i {
            100 => early = resident(child.id()),
            950 => late = resident(child.id()),
            _ => {}
        }
    }
    assert!(child.wait().unwrap().success());
    println!("{early} KiB after 100 frames, {late} KiB after 950");
    assert!(early > 0 && late < early + 2048, "{early} KiB after 100 frames, {late} KiB after 950");
}

#[test]
fn between_frames_nothing_computes() {
    let scratch = Scratch::of(&default_model());
    let args = ["--source", "pattern:320x240", "--rate", "2", "--frames", "8", "--threads", "4"];
    let mut child = spawn(&scratch, &args, "-".as_ref());
    // Of user and system; a second has a hundred.
    let ticks = |pid: u32| -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let (mut before, mut used) = ((0, Instant::now()), (0, 0.0));
    for (i, line) in BufReader::new(child.stdout.take().unwrap()).lines().enumerate() {
        line.unwrap();
        match i {
            1 => before = (ticks(child.id()), Instant::now()),
            6 => used = (ticks(child.id()) - before.0, before.1.elapsed().as_secs_f64()),
            _ => {}
        }
    }
    assert!(child.wait().unwrap().success());
    let (taken, seconds) = used;
    println!("{taken} ticks of {:.0} for five frames in {seconds:.1} s", seconds * 100.0);
    // One thread that looked for work all the time would take all of them.
    assert!(seconds > 1.0 && (taken as f64) < 40.0 * seconds, "{taken} ticks in {seconds:.1} s");
}

#[test]
fn a_camera_that_hangs_askew_sees_what_a_straight_one_does() {
    let scratch = Scratch::small();
    let whole = edge_vision::load(&examples().join("coffee.jpg"), &DecodeOptions::default()).unwrap();
    let mount = |rotate: &str, flip: &str, roi: Option<&str>| Mount {
        rotate: rotate.parse().unwrap(),
        flip: flip.parse().unwrap(),
        roi: roi.map(|r| r.parse().unwrap()),
    };
    let save = |name: &str, picture: &Picture| {
        let pixels = picture.pixels().to_vec();
        let path = scratch.path(name);
        image::RgbImage::from_raw(picture.width(), picture.height(), pixels).unwrap().save(&path).unwrap();
        path
    };
    let (mut askew, mut part) = (whole.clone(), whole.clone());
    // A camera on its left side, seen in a mirror: what turns it upright is a quarter clockwise, then the mirror.
    mount("270", "v", None).apply(&whole, &mut askew).unwrap();
    mount("0", "none", Some("10%,20,60%,300")).apply(&whole, &mut part).unwrap();
    let scores = |path: &std::path::Path, args: &[&str]| {
        let mut all = vec![AsRef::<std::ffi::OsStr>::as_ref("--package"), scratch.package.as_os_str()];
        all.extend(["--source".as_ref(), path.as_os_str(), "--once".as_ref()]);
        all.extend(args.iter().map(std::ffi::OsStr::new));
        run("edge-camera", all).ok().json()[0]["top"].clone()
    };
    let straight = scores(&save("part.png", &part), &[]);
    let args = ["--rotate", "90", "--flip", "h", "--roi", "10%,20,60%,300"];
    let askew = save("askew.png", &askew);
    assert_eq!(scores(&askew, &args), straight);
    assert_ne!(scores(&askew, &args[..4]), straight, "the region changes nothing");
    let ran =
        edge_camera!("--package", scratch.package, "--source", askew, "--once", "--roi", "0,0,4000,9").fails(6, &[]);
    assert!(ran.json()[0]["error"].as_str().unwrap().contains("the region 0,0,4000,9 doesn't lie inside"));
    edge_camera!("--rotate", "45", "--source", askew).fails(2, &["0, 90, 180 and 270"]);
    edge_camera!("--roi", "0,0,0,1", "--source", askew).fails(2, &["there is nothing in it"]);
}

#[test]
fn a_display_shows_what_was_decided_last() {
    let scratch = Scratch::small();
    let (one, other) = (scratch.path("one.png"), scratch.path("other.png"));
    let show = |path: &std::path::Path, extra: &[&str]| {
        let spec = format!("png:{},size=240x240", path.display());
        let mut all =
            vec!["--package".into(), scratch.package.clone(), "--once".into(), "--display".into(), spec.into()];
        all.extend(extra.iter().map(Into::into));
        let ran = run("edge-camera", all);
        (ran, std::fs::read(path))
    };
    let photo = golden_picture("rgb8.png");
    let (ran, picture) = show(&one, &["--source", photo.to_str().unwrap()]);
    ran.ok();
    let picture = picture.unwrap();
    let drawn = edge_vision::decode(&picture, &DecodeOptions::default()).unwrap();
    assert_eq!((drawn.width(), drawn.height()), (240, 240));
    let colors: std::collections::HashSet<&[u8]> = drawn.pixels().chunks(3).collect();
    assert!(colors.len() >= 3, "text, bar and background have colours of their own");
    // A picture that can't be read is another thing to show.
    let broken = scratch.write("broken.png", b"no picture");
    let (ran, picture_of_fault) = show(&other, &["--source", broken.to_str().unwrap()]);
    ran.fails(6, &[]);
    assert_ne!(picture_of_fault.unwrap(), picture);
    // A display that can't be used is told of once, and nothing else suffers.
    let (ran, picture) = show(&scratch.path("nowhere/a.png"), &["--source", examples().to_str().unwrap()]);
    let ran = ran.ok();
    assert!(picture.is_err() && ran.json().len() == 3);
    assert_eq!(ran.stderr.matches("its folder cannot be used").count(), 1, "{}", ran.stderr);
    edge_camera!("--display", "hdmi").fails(2, &["names no display", "fb0", "png:FILE"]);
}
