//! `edge-camera` as a service: configuration, systemd, reload, slots, and a log that one can live with.

use edge_suite::*;
use serde_json::Value;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_configuration_is_checked_without_opening_anything() {
    let scratch = Scratch::small();
    let log = scratch.path("log.jsonl");
    let config = scratch.write("camera.toml", "package = 'model.edgepack'\nlog = 'log.jsonl'\nthreshold = 0.5\n");
    let ran = edge_camera!("--config", config, "--check", "--source", "v4l2:/dev/video97").ok();
    assert!(ran.stdout.contains("threshold = 0.5\n") && ran.stdout.contains("source = \"v4l2:/dev/video97\"\n"));
    assert!(ran.stdout.contains(&format!("package = \"{}\"\n", scratch.package.display())), "{}", ran.stdout);
    assert!(!log.exists());
    // What it printed is a configuration.
    let again = scratch.write("again.toml", &ran.stdout);
    assert_eq!(edge_camera!("--config", again, "--check").ok().stdout, ran.stdout);
    assert_eq!(edge_camera!("--config", again, "--check", "--json").ok().json()[0]["threshold"], 0.5);

    let wrong = scratch.write("camera.toml", "treshold = 0.5\ntop = 'many'\n");
    let hint = "unknown key `treshold` in camera.toml line 1; did you mean `threshold`?";
    edge_camera!("--config", wrong, "--check").fails(2, &[hint, "camera.toml line 2: `top`"]);
    edge_camera!("--config", wrong).fails(2, &[hint]);
    edge_camera!("--config", scratch.path("none.toml")).fails(2, &["none.toml"]);
    edge_camera!("--json").fails(2, &["--check"]);
}

#[test]
fn the_environment_overrides_nothing() {
    let all = |command: &mut Command| Ran::from(command.args(["--check"]).output().unwrap()).ok().stdout;
    let plain = all(&mut camera());
    let mut command = camera();
    for line in plain.lines().filter_map(|l| l.strip_prefix("# ").unwrap_or(l).split(' ').next()) {
        let name = line.to_uppercase().replace('-', "_");
        command.env(&name, "7").env(format!("EDGE_CAMERA_{name}"), "7").env(format!("EDGE_{name}"), "7");
    }
    assert_eq!(all(&mut command), plain);
}

#[test]
fn exit_codes_are_documented() {
    let help = edge_camera!("--help").ok().stdout;
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for code in 0..=7 {
        assert!(help.contains(&format!(" {code} ")), "{code}");
        assert!(readme.contains(&format!("\n| {code} | ")), "{code}");
    }
}

#[test]
fn below_the_configured_threshold_the_decision_is_unknown() {
    let scratch = Scratch::small();
    let run = |more: &[&str]| {
        let mut words = vec!["--package", scratch.package.to_str().unwrap(), "--source", "pattern", "--once"];
        words.extend(more);
        run("edge-camera", words)
    };
    assert_ne!(run(&[]).ok().json()[0]["decision"], "unknown");
    assert_eq!(run(&["--threshold", "1"]).ok().json()[0]["decision"], "unknown");
    run(&["--leave-threshold", "0.5"]).fails(2, &["leave threshold, 0.5", "has a threshold"]);
}

#[test]
fn on_change_logs_changes_and_a_summary_sums_up() {
    let scratch = Scratch::of(&default_model());
    let source = examples();
    let frames = ["--rate", "200", "--frames", "9", "--on-change", "--summary", "1h"];
    let mut words: Vec<&str> = vec!["--package", scratch.package.to_str().unwrap(), "--source"];
    words.push(source.to_str().unwrap());
    words.extend(frames);
    let ran = run("edge-camera", &words).ok().json();
    // Cat, espresso, missile, three times over: every one is another than the one before.
    assert_eq!(ran.len(), 10);
    let summary = &ran[9]["summary"];
    assert_eq!((&summary["frames"], &summary["faults"], &summary["drops"]), (&9.into(), &0.into(), &0.into()));
    assert_eq!(summary["decisions"]["espresso"], 3);
    let total = &summary["latency_ms"]["total"];
    let [p50, p99, max] = ["p50", "p99", "max"].map(|p| total[p].as_f64().unwrap());
    assert!(0.0 < p50 && p50 <= p99 && p99 <= max);
    // Over a mean of all frames there are changes only at the start.
    words.extend(["--smooth", "9", "--margin", "0.5"]);
    let ran = run("edge-camera", &words).ok().json();
    assert!(ran.len() < 5, "{ran:?}");
}

/// A socket as systemd's, and what came through it.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    heard: Vec<String>,
}

impl Manager {
    fn new(scratch: &Scratch) -> Manager {
        let path = scratch.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Manager { socket, path, heard: vec![] }
    }

    fn listen(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            self.heard.extend(String::from_utf8_lossy(&bytes[..length]).lines().map(String::from));
        }
    }

    fn count(&mut self, line: &str) -> usize {
        self.listen();
        self.heard.iter().filter(|l| l.starts_with(line)).count()
    }
}

#[test]
fn systemd_hears_of_readiness_progress_reloads_and_the_end() {
    let scratch = Scratch::small();
    let mut manager = Manager::new(&scratch);
    let running = Running::start(
        camera()
            .args(["--source", "pattern", "--rate", "50", "--log"])
            .arg(scratch.path("log"))
            .arg("--package")
            .arg(&scratch.package)
            .env("NOTIFY_SOCKET", &manager.path)
            .env("WATCHDOG_USEC", "200000"),
    );
    wait_until("it is ready", || manager.count("READY=1") == 1);
    wait_until("the watchdog was fed", || manager.count("WATCHDOG=1") > 3);
    assert!(manager.count("STATUS=") >= 1);
    running.signal("HUP");
    wait_until("it is ready again", || manager.count("READY=1") == 2);
    let reloading = manager.heard.iter().position(|l| l == "RELOADING=1").unwrap();
    assert!(manager.heard[reloading + 1].starts_with("MONOTONIC_USEC="), "{:?}", manager.heard);
    running.signal("TERM");
    running.end().ok();
    assert_eq!(manager.count("STOPPING=1"), 1);
}

#[test]
fn a_source_that_waits_feeds_the_watchdog() {
    let scratch = Scratch::small();
    let mut manager = Manager::new(&scratch);
    let running = Running::start(
        camera()
            .args(["--source", "pattern", "--rate", "0.001", "--log"])
            .arg(scratch.path("log"))
            .arg("--package")
            .arg(&scratch.package)
            .env("NOTIFY_SOCKET", &manager.path)
            .env("WATCHDOG_USEC", "200000"),
    );
    wait_until("it classified the only frame", || !lines(&scratch.path("log")).is_empty());
    let fed = manager.count("WATCHDOG=1");
    wait_until("the watchdog was fed", || manager.count("WATCHDOG=1") > fed + 5);
    assert_eq!(lines(&scratch.path("log")).len(), 1);
    drop(running);
}

#[test]
fn faults_do_not_feed_the_watchdog() {
    let scratch = Scratch::small();
    let mut manager = Manager::new(&scratch);
    scratch.write("photos/bad.jpg", "no picture");
    let log = scratch.path("log");
    let running = Running::start(
        camera()
            .args(["--rate", "1000", "--source"])
            .arg(scratch.path("photos"))
            .arg("--log")
            .arg(&log)
            .arg("--package")
            .arg(&scratch.package)
            .env("NOTIFY_SOCKET", &manager.path)
            .env("WATCHDOG_USEC", "2000"),
    );
    wait_until("there are faults", || lines(&log).len() > 100);
    assert_eq!(manager.count("READY=1"), 1);
    let ready = manager.heard.iter().position(|l| l == "READY=1").unwrap();
    // At most once, for being ready.
    let fed = manager.heard[ready..].iter().filter(|l| *l == "WATCHDOG=1").count();
    assert!(fed <= 1, "{:?}", manager.heard);
    drop(running);
}

#[test]
fn a_reload_takes_what_is_new_or_keeps_what_runs() {
    let scratch = Scratch::small();
    let log = scratch.path("log.jsonl");
    let config = |more: &str| {
        let text = format!("package = 'model.edgepack'\nlog = 'log.jsonl'\nsource = 'pattern'\nrate = 100\n{more}");
        scratch.write("camera.toml", text)
    };
    let running = Running::start(camera().arg("--config").arg(config("")));
    let decided =
        |from: usize| lines(&log).into_iter().skip(from).filter(|l| l["decision"].is_string()).collect::<Vec<_>>();
    let wait = |event: &str, count: usize| {
        wait_until(event, || notices(&lines(&log), event).len() == count);
        lines(&log).len()
    };
    wait_until("it classifies", || !decided(0).is_empty());
    assert_ne!(decided(0)[0]["decision"], "unknown");

    // Another threshold; the source goes on counting.
    config("threshold = 1\n");
    running.signal("HUP");
    let at = wait("reloaded", 1);
    wait_until("it classifies", || decided(at).len() > 1);
    assert_eq!(decided(at)[1]["decision"], "unknown");
    assert!(decided(at)[1]["frame"].as_u64() > decided(0)[0]["frame"].as_u64());

    // A configuration and a package that are refused.
    config("treshold = 1\n");
    running.signal("HUP");
    wait("reload_failed", 1);
    config("");
    let good = std::fs::read(&scratch.package).unwrap();
    std::fs::rename(&scratch.package, scratch.path("old")).unwrap();
    scratch.write("model.edgepack", &good[..good.len() / 2]);
    running.signal("HUP");
    let at = wait("reload_failed", 2);
    wait_until("the old package goes on", || decided(at).len() > 1);
    assert_eq!(decided(at)[1]["decision"], "unknown");
    let failed = notices(&lines(&log), "reload_failed");
    assert!(failed[0].contains("did you mean `threshold`") && failed[1].contains("model.edgepack"), "{failed:?}");
    // A source that is refused.
    config("");
    scratch.write("model.edgepack", &good);
    scratch.write("camera.toml", "package = 'model.edgepack'\nlog = 'log.jsonl'\nsource = 'nowhere'\n");
    running.signal("HUP");
    let at = wait("reload_failed", 3);
    wait_until("the old source goes on", || decided(at).len() > 1);
    // Another source and another log.
    let photos = examples();
    let text =
        format!("package = 'model.edgepack'\nlog = 'other.jsonl'\nsource = '{}'\nrate = 100\n", photos.display());
    scratch.write("camera.toml", text);
    running.signal("HUP");
    let other = scratch.path("other.jsonl");
    wait_until("it went over", || {
        lines(&other).iter().any(|l| l["source"].as_str().is_some_and(|s| s.ends_with(".jpg")))
    });
    running.signal("TERM");
    running.end().ok();
    log_lines(&log);
    assert_eq!(notices(&log_lines(&other), "reloaded").len(), 1);
}

#[test]
fn sigterm_ends_it_even_in_the_middle_of_a_long_frame() {
    let scratch = Scratch::small();
    let log = scratch.path("log");
    let words = ["--source", "pattern:8192x8192", "--log", log.to_str().unwrap(), "--package"];
    let running = Running::start(camera().args(words).arg(&scratch.package));
    wait_until("it classifies", || !lines(&log).is_empty());
    let start = Instant::now();
    running.signal("TERM");
    let ran = running.end().ok();
    println!("ended {:.2} s after SIGTERM", start.elapsed().as_secs_f64());
    assert!(start.elapsed() < Duration::from_secs(5), "{}", ran.stderr);
    log_lines(&log);
    // A second signal does not wait.
    let running = Running::start(camera().args(words).arg(&scratch.package));
    let before = lines(&log).len();
    wait_until("it classifies", || lines(&log).len() > before);
    running.signal("TERM");
    std::thread::sleep(Duration::from_millis(50));
    running.signal("INT");
    let code = running.end().code;
    // The loop may have ended by itself in between.
    assert!(code == Some(128 + 2) || code == Some(0), "{code:?}");
    log_lines(&log);
    // While it starts, too, from when it listens: it does so before it proves its model.
    let running = Running::start(camera().args(["--source", "pattern"]));
    wait_until("it listens", || running.catches(15));
    running.signal("TERM");
    running.end().ok();
}

#[test]
fn sigterm_ends_it_though_nobody_reads_what_it_writes() {
    let scratch = Scratch::small();
    let mut command = camera();
    command.args(["--source", "pattern:32x32", "--package"]).arg(&scratch.package);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut running = Running(child);
    // The pipe holds 64 KiB, which is a moment's worth.
    std::thread::sleep(Duration::from_secs(2));
    running.signal("TERM");
    let start = Instant::now();
    assert!(running.0.wait().unwrap().success());
    println!("ended {:.2} s after SIGTERM", start.elapsed().as_secs_f64());
}

/// All lines of a log, with those of its full files, oldest first. Full files end with a whole line; the last one may
/// have a piece of a line behind its whole ones.
fn rotated(log: &Path) -> Vec<Value> {
    let numbered = |n: u32| PathBuf::from(format!("{}.{n}", log.display()));
    let mut files: Vec<PathBuf> = (1..100_000).map(numbered).filter(|p| p.exists()).collect();
    files.reverse();
    let mut all: Vec<Value> = files.iter().flat_map(|p| log_lines(p)).collect();
    all.extend(lines(log));
    all
}

#[test]
fn after_kill_9_every_line_is_whole_and_the_next_start_appends() {
    let scratch = Scratch::small();
    let log = scratch.path("log");
    for round in 0..25u64 {
        let sync = ["never", "rotate", "line"][round as usize % 3];
        let words = ["--source", "pattern:32x32", "--log-max-size", "10kB", "--log-total", "1GB", "--log-sync", sync];
        // Nothing writes now: files that are being renamed would be missed or counted twice.
        let before = rotated(&log).len();
        let running =
            Running::start(camera().args(words).arg("--log").arg(&log).arg("--package").arg(&scratch.package));
        wait_until("it writes", || std::fs::metadata(&log).is_ok_and(|m| m.len() > 0));
        std::thread::sleep(Duration::from_millis(7 * round));
        running.signal("KILL");
        running.end();
        let all = rotated(&log);
        assert!(all.len() >= before, "round {round}");
        let order = all.iter().filter_map(|l| l["time"].as_str());
        assert!(order.is_sorted(), "round {round}");
        let text = std::fs::read(&log).unwrap_or_default();
        assert!(text.is_empty() || text.ends_with(b"\n"), "round {round}: a line was cut at byte {}", text.len());
    }
    let before = rotated(&log).len();
    let words = ["--source", "pattern:32x32", "--frames", "1", "--log"];
    Running::start(camera().args(words).arg(&log).arg("--package").arg(&scratch.package)).end().ok();
    log_lines(&log);
    assert_eq!(rotated(&log).len(), before + 1);
    assert!(rotated(&log).len() > 100);
}

#[test]
fn a_full_disk_leaves_a_gap_that_is_logged_when_space_returns() {
    let scratch = Scratch::small();
    let disk = scratch.path("disk");
    std::fs::create_dir(&disk).unwrap();
    // A file system of its own, which ends with the namespace.
    let script = "mount -t tmpfs -o size=64k none \"$1\" || exit 99; head -c 40000 /dev/zero > \"$1/filler\"; \
                  \"$2\" --package \"$3\" --source pattern:32x32 --rate 200 --log \"$1/log\" & \
                  for i in $(seq 600); do [ $(stat -c %s \"$1/log\" 2>/dev/null || echo 0) -gt 16000 ] && break; sleep 0.1; done; \
                  sleep 1; rm \"$1/filler\"; sleep 2.5; kill -TERM $!; wait $!; code=$?; cat \"$1/log\"; exit $code";
    let Some(ran) = with_mounts(script, [disk.as_ref(), program("edge-camera").as_ref(), scratch.package.as_ref()])
    else {
        return;
    };
    assert!(
        ran.stderr.contains("No space left on device") && ran.stderr.contains("classification goes on"),
        "{}",
        ran.stderr
    );
    let lines = ran.json();
    let gaps = notices(&lines, "log_gap");
    assert!(!gaps.is_empty(), "{}", ran.stderr);
    assert!(gaps[0].contains("line(s) from 20") && gaps[0].contains("are missing: No space left"), "{gaps:?}");
    // Every frame is there or was counted as missing.
    let lost: u64 = gaps.iter().map(|gap| gap.split(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    let written = lines.iter().filter(|l| l["frame"].is_number()).count() as u64;
    let last = lines.iter().filter_map(|l| l["frame"].as_u64()).max().unwrap();
    assert!(lost > 10 && written + lost > last, "{lost} lost, {written} written, {last} the last one");
}

#[test]
fn slots_fall_back_and_say_so() {
    let scratch = Scratch::small();
    let slots = scratch.path("slots");
    let package = std::fs::read(&scratch.package).unwrap();
    scratch.write("slots/a/package.edgepack", &package);
    scratch.write("slots/b/package.edgepack", &package[..1000]);
    let run = || edge_camera!("--slots", slots, "--source", "pattern", "--once");
    let ran = run().ok();
    assert!(ran.stderr.contains("slot a: "), "{}", ran.stderr);
    assert_eq!(ran.json().len(), 1);
    scratch.write("slots/active", "b\n");
    let ran = run().ok();
    assert!(ran.stderr.contains("slot a runs, because the active slot was refused"), "{}", ran.stderr);
    assert_eq!(notices(&ran.json(), "slot_fallback").len(), 1);
    scratch.write("slots/a/package.edgepack", "rotten");
    run().fails(3, &["both slots were refused", "b: ", "a: ", "slots/a/package.edgepack", "slots/b/package.edgepack"]);
    edge_camera!("--slots", slots, "--package", scratch.package).fails(2, &["`package`", "`slots`"]);
}

#[test]
fn a_user_without_rights_is_told_what_is_missing() {
    let scratch = Scratch::small();
    let open = |path: &Path, mode: &str| {
        assert!(Command::new("chmod").arg(mode).arg(path).status().unwrap().success());
    };
    let device = scratch.write("video0", "");
    open(&device, "000");
    open(scratch.path("").as_path(), "755");
    // The build's folder may be closed to others.
    let copy = scratch.path("edge-camera");
    std::fs::copy(program("edge-camera"), &copy).unwrap();
    let nobody = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy);
        command.args(words).arg("--package").arg(&scratch.package).output().map(Ran::from)
    };
    match nobody(&["--source", "pattern", "--once"]) {
        Ok(ran) if ran.stderr.contains("setpriv:") => return println!("SKIPPED: {}", ran.stderr),
        Err(e) => return println!("SKIPPED: setpriv: {e}"),
        Ok(ran) => drop(ran.ok()),
    }
    let source = format!("v4l2:{}", device.display());
    nobody(&["--source", &source]).unwrap().fails(4, &["permission denied", "video0", "group video"]);
    let log = scratch.path("log.jsonl");
    nobody(&["--source", "pattern", "--log", log.to_str().unwrap()])
        .unwrap()
        .fails(5, &["log.jsonl", "Permission denied"]);
    // A log that may be written in a folder that may not.
    std::fs::write(&log, "").unwrap();
    open(&log, "666");
    nobody(&["--source", "pattern", "--log", log.to_str().unwrap(), "--log-max-size", "1MB"])
        .unwrap()
        .fails(5, &["cannot make new files", "log-max-size"]);
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let scratch = Scratch::small();
    let unit = std::fs::read_to_string(root().join("firmware/deb/edge-camera.service")).unwrap();
    for line in ["Type=notify", "WatchdogSec=", "User=edge-camera", "SupplementaryGroups=video", "ExecReload="] {
        assert!(unit.lines().any(|l| l.starts_with(line)), "{line}");
    }
    let here = unit.replace("/usr/bin/edge-camera", program("edge-camera").canonicalize().unwrap().to_str().unwrap());
    let path = scratch.write("edge-camera.service", here);
    match Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(path).output() {
        Ok(output) => {
            let ran = Ran::from(output).ok();
            assert!(!ran.stderr.contains("edge-camera.service"), "{}", ran.stderr);
        }
        Err(e) => println!("SKIPPED: systemd-analyze: {e}"),
    }
}
