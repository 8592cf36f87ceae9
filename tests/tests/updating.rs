//! New packages: `edge-camera --install`, the trial, and the way back.

use edge_package::{Manifest, PackageWriter, TrustPolicy, VerifiedPackage, Version, hex};
use edge_suite::*;
use image::RgbImage;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A device: a folder of slots, a log, and a way to make packages.
struct Device {
    scratch: Scratch,
    slots: PathBuf,
    log: PathBuf,
}

impl Device {
    /// Without a package.
    fn empty() -> Device {
        let scratch = Scratch::small();
        Device { slots: scratch.path("slots"), log: scratch.path("log.jsonl"), scratch }
    }

    /// With a package of sequence number 1.
    fn new() -> Device {
        let device = Device::empty();
        let first = device.install(&device.package(1, &[])).ok();
        assert!(first.stdout.contains("there is no other package, so it is kept"), "{}", first.stdout);
        device
    }

    fn package(&self, sequence: u64, more: &[&str]) -> PathBuf {
        self.package_of(&small_model(), sequence, more)
    }

    fn package_of(&self, model: &Path, sequence: u64, more: &[&str]) -> PathBuf {
        let path = self.scratch.path(&format!("release-{sequence}.edgepack"));
        let number = sequence.to_string();
        let mut words: Vec<&OsStr> = vec![model.as_ref(), "-o".as_ref(), path.as_ref()];
        words.extend(["--sequence", &number, "--name", "release"].map(OsStr::new));
        words.extend(more.iter().map(OsStr::new));
        run("edge-pack", words).ok();
        path
    }

    /// A package with a changed manifest and every digest right, as a faulty host would make it.
    fn changed(&self, package: &Path, change: impl FnOnce(&mut Manifest)) -> PathBuf {
        let package = VerifiedPackage::open(package, &TrustPolicy::default()).unwrap();
        let mut manifest = package.manifest().clone();
        change(&mut manifest);
        let mut writer = PackageWriter::new();
        for part in &package.manifest().parts {
            writer.part(&part.name, package.part(&part.name).unwrap().to_vec());
        }
        self.scratch.write("changed.edgepack", writer.finish(manifest, None).unwrap())
    }

    fn install(&self, package: &Path) -> Ran {
        self.install_with(package, &[])
    }

    fn install_with(&self, package: &Path, more: &[&str]) -> Ran {
        let mut command = camera();
        command.arg("--slots").arg(&self.slots).arg("--install").arg(package).args(more);
        command.output().unwrap().into()
    }

    /// The runtime on these slots.
    fn runs(&self, more: &[&str]) -> Command {
        let mut command = camera();
        command.arg("--slots").arg(&self.slots).arg("--log").arg(&self.log);
        if !more.contains(&"--source") {
            command.args(["--source", "pattern:32x32"]);
        }
        // A network of microseconds is many times slower whenever the machine is busy.
        if !more.contains(&"--trial-latency") {
            command.args(["--trial-latency", "1e9"]);
        }
        command.args(["--rate", "100"]).args(more);
        command
    }

    fn notices(&self, event: &str) -> Vec<String> {
        notices(&lines(&self.log), event)
    }

    fn wait_for(&self, event: &str) -> String {
        wait_until(event, || !self.notices(event).is_empty());
        self.notices(event).remove(0)
    }

    /// What stands in the record of the slots.
    fn record(&self) -> String {
        std::fs::read_to_string(self.slots.join("active")).unwrap_or_default()
    }

    /// Digest and sequence number of what is in a slot.
    fn slot(&self, name: &str) -> (String, u64) {
        let path = self.slots.join(name).join("package.edgepack");
        let package = VerifiedPackage::open(&path, &TrustPolicy::default()).unwrap();
        (hex(&package.digest()), package.manifest().sequence)
    }

    /// Slot and sequence number of what is kept.
    fn kept(&self) -> (String, u64) {
        let record = self.record();
        let active = if record.starts_with('b') { "b" } else { "a" };
        (active.into(), self.slot(active).1)
    }

    /// Every file below the folder of the slots, with its content.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn walk(folder: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    walk(&path, into);
                } else {
                    into.insert(path.clone(), std::fs::read(&path).unwrap());
                }
            }
        }
        let mut files = BTreeMap::new();
        walk(&self.slots, &mut files);
        files
    }

    /// Sequence numbers of the packages that classified, in their order, each once in a row.
    fn classified(&self) -> Vec<u64> {
        let slots = ["a", "b"].map(|name| self.slot(name));
        let of = |line: &Value| slots.iter().find(|(digest, _)| line["package"] == **digest).map(|(_, number)| *number);
        let mut numbers: Vec<u64> = lines(&self.log).iter().filter_map(of).collect();
        numbers.dedup();
        numbers
    }
}

#[test]
fn a_new_package_is_tried_beside_the_old_one_and_kept() {
    let device = Device::new();
    let (old, _) = device.kept();
    let running = Running::start(&mut device.runs(&["--trial", "2s", "--trial-share", "1"]));
    wait_until("it classifies", || !lines(&device.log).is_empty());
    let installed = device.install_with(&device.package(2, &[]), &["--trial", "2s"]).ok().stdout;
    for part in ["on trial for 2s", "sequence number 2", "sequence number 1", "3 golden sample(s) passed", "SIGHUP"] {
        assert!(installed.contains(part), "{part:?} is not in {installed}");
    }
    assert_eq!(device.kept(), (old.clone(), 1), "what is on trial is not kept yet");
    running.signal("HUP");
    let kept = device.wait_for("package_kept");
    running.signal("TERM");
    running.end().ok();

    let all = log_lines(&device.log);
    let events: Vec<&str> = all.iter().filter_map(|l| l["event"].as_str()).collect();
    assert_eq!(events[..2], ["reloaded", "trial_began"], "{events:?}");
    assert!(
        events[2..events.len() - 1].iter().all(|event| *event == "package_trial") && events.len() >= 5,
        "{events:?}"
    );
    let began = &device.notices("trial_began")[0];
    assert!(began.contains("on trial for 2s") && began.contains(&format!("slot {old}: release")), "{began}");
    for line in all.iter().filter(|l| l["event"] == "package_trial" || l["event"] == "package_kept") {
        let trial = &line["trial"];
        // The same network twice.
        assert_eq!(trial["same_decision"], trial["compared"], "{line}");
        assert_eq!(trial["same_best"], trial["compared"]);
        assert!(trial["compared"].as_u64() >= Some(1) && trial["frames"].as_u64() >= trial["compared"].as_u64());
        assert!(trial["latency_ms"]["p50"].as_f64() > Some(0.0) && trial["old_latency_ms"]["p99"].as_f64() > Some(0.0));
    }
    println!("{kept}");
    assert!(kept.contains("100.0 % the same decision, 100.0 % the same best class; median latency"), "{kept}");
    assert_eq!(device.classified(), [1, 2]);
    let (now, sequence) = device.kept();
    assert_eq!((sequence, now != old), (2, true));
    assert!(!device.record().contains("trial"));
    // From now on it is the one that others are compared with.
    device.install(&device.package(2, &[])).fails(3, &["sequence number"]);
    device.install(&device.package(3, &[])).ok();
    assert_eq!(device.kept(), (now, 2));
}

#[test]
fn what_is_refused_changes_nothing() {
    let device = Device::new();
    device.install(&device.package(5, &[])).ok();
    device.install_with(&device.package(6, &[]), &["--trial", "0"]).ok();
    Running::start(&mut device.runs(&["--trial", "0", "--frames", "1"])).end().ok();
    assert_eq!(device.kept().1, 6);
    let before = device.files();

    let (key, public) = (device.scratch.path("key"), device.scratch.path("key.pub"));
    edge_pack!("keygen", device.scratch.path("key")).ok();
    assert!(key.exists() && public.exists());
    edge_pack!("keygen", device.scratch.path("other")).ok();
    let trusted = ["--trusted-key", public.to_str().unwrap()];
    let signed = device.package(9, &["--sign", device.scratch.path("other").to_str().unwrap()]);
    device.install_with(&signed, &trusted).fails(3, &["release-9.edgepack", "not among the trusted keys"]);
    let unsigned = device.package(9, &[]);
    device.install_with(&unsigned, &trusted).fails(3, &["release-9.edgepack", "not signed"]);
    let bytes = std::fs::read(device.package(9, &["--sign", key.to_str().unwrap()])).unwrap();
    for (at, what) in
        [(140, "digest of the manifest"), (bytes.len() - 1, "digest of part"), (0, "not an .edgepack file")]
    {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        device.install_with(&device.scratch.write("bad.edgepack", bytes), &trusted).fails(3, &["bad.edgepack", what]);
    }
    let cut = device.scratch.write("cut.edgepack", &bytes[..bytes.len() - 1]);
    device.install_with(&cut, &trusted).fails(3, &["cut.edgepack", "truncated"]);

    for sequence in [5, 6] {
        let numbers = [format!("sequence number is {sequence}"), "has 6".into()];
        device.install(&device.package(sequence, &[])).fails(3, &numbers.each_ref().map(|n| n.as_str()));
    }
    let elsewhere = device.package(9, &["--board", "rpi4"]);
    device.install_with(&elsewhere, &["--board", "rpi3"]).fails(3, &["rpi4", "rpi3"]);
    let plain = device.package(9, &[]);
    let newer = device.changed(&plain, |m| m.minimum_runtime = Version { major: 9, ..Version::current() });
    device.install(&newer).fails(3, &["runtime 9."]);
    let other = device.changed(&plain, |m| m.goldens[1].logits[0] += 0.5);
    device.install(&other).fails(3, &["golden sample", "synthetic-1"]);
    device.install(&device.scratch.path("none.edgepack")).fails(3, &["none.edgepack", "cannot be read"]);
    assert_eq!(device.files(), before);

    edge_camera!("--install", plain).fails(2, &["--install", "`slots`"]);
    edge_camera!("--install", plain, "--package", plain).fails(2, &["`slots`"]);
    let config = device.scratch.write("camera.toml", "install = 'x'\n");
    edge_camera!("--config", config, "--check").fails(2, &["`install`", "command line only"]);
    // And one that is not refused, by the configured key.
    device.install_with(&device.scratch.write("good.edgepack", bytes), &trusted).ok();
    assert_ne!(device.files(), before);
}

#[test]
fn a_disk_that_is_too_full_keeps_the_old_package() {
    let device = Device::new();
    let disk = device.scratch.path("disk");
    std::fs::create_dir(&disk).unwrap();
    // A file system of its own, which ends with the namespace.
    let script = "mount -t tmpfs -o size=160k none \"$1\" || exit 99; \"$2\" --slots \"$1/slots\" --install \"$3\" || exit 98; \
                  head -c 120000 /dev/zero > \"$1/filler\"; find \"$1/slots\" -type f | xargs cat | cksum; \
                  \"$2\" --slots \"$1/slots\" --install \"$4\"; code=$?; find \"$1/slots\" -type f | xargs cat | cksum; \
                  \"$2\" --slots \"$1/slots\" --source pattern --frames 1 --log /dev/null; exit $code";
    let (camera, old, new) = (program("edge-camera"), device.package(1, &[]), device.package(2, &[]));
    if let Some(ran) = with_mounts(script, [disk.as_ref(), camera.as_ref(), old.as_ref(), new.as_ref()]) {
        let ran = ran.fails(7, &["too little space", "free", "nothing was changed", "1 frame(s)"]);
        let sums: Vec<&str> = ran.stdout.lines().filter(|line| line.split(' ').count() == 2).collect();
        assert!(sums.len() == 2 && sums[0] == sums[1], "{}", ran.stdout);
    }
    // The space goes away while it is written: files of more than 4 KiB cannot be made.
    let before = device.files();
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" --slots \"$1\" --install \"$2\"";
    let ran = Command::new("sh").args(["-c", script]).arg(&camera).arg(&device.slots).arg(&new).output().unwrap();
    Ran::from(ran).fails(7, &["cannot write the package", "slots", "File too large"]);
    assert_eq!(device.files(), before);
    device.install(&new).ok();
}

#[test]
fn a_kill_in_the_middle_of_an_installation_leaves_a_device_that_runs() {
    let device = Device::new();
    // From before it begins to write until after its end, however fast this machine is.
    let start = Instant::now();
    device.install(&device.package(2, &[])).ok();
    let whole = start.elapsed();
    let mut done = 0;
    for round in 0..40u64 {
        let new = device.package(3 + round, &[]);
        let (kept, _) = device.kept();
        let digest = device.slot(&kept).0;
        let mut command = camera();
        command.arg("--slots").arg(&device.slots).arg("--install").arg(&new);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole.mul_f64((round * 997 % 40) as f64 / 32.0));
        let _ = child.kill();
        done += u64::from(child.wait().unwrap().success());
        assert_eq!(
            (device.kept().0, device.slot(&kept).0),
            (kept.clone(), digest),
            "round {round}: what is kept was touched"
        );
        let _ = std::fs::remove_file(&device.log);
        // What runs is one of the two, and whole.
        let ran = Running::start(&mut device.runs(&["--frames", "1", "--trial", "0"])).end().ok();
        assert!(
            device.notices("slot_fallback").is_empty() && device.notices("package_returned").is_empty(),
            "{}",
            ran.stderr
        );
    }
    println!("{done} of 40 installations ended before they were killed");
    assert!(done < 40, "no installation was killed");
    device.install(&device.package(100, &[])).ok();
    let left: Vec<PathBuf> = device.files().into_keys().collect();
    assert_eq!(left.len(), 3, "two packages, and which of them runs: {left:?}");
}

#[test]
fn starts_that_end_badly_are_counted_and_orderly_ends_are_not() {
    let device = Device::new();
    let (old, _) = device.kept();
    device.install(&device.package(2, &[])).ok();
    let start = || {
        let _ = std::fs::remove_file(&device.log);
        let running = Running::start(&mut device.runs(&[]));
        wait_until("it classifies", || lines(&device.log).iter().any(|line| line["decision"].is_string()));
        running
    };
    for _ in 0..5 {
        let running = start();
        assert_eq!(device.classified(), [2]);
        running.signal("TERM");
        running.end().ok();
    }
    // A source that cannot be opened is no fault of the package.
    for _ in 0..5 {
        Running::start(&mut device.runs(&["--source", "nowhere"])).end().fails(4, &["nowhere"]);
    }
    for round in 0..3 {
        let running = start();
        assert_eq!(device.classified(), [2], "round {round}");
        running.signal("KILL");
        running.end();
    }
    let running = start();
    assert_eq!(device.classified(), [1]);
    running.signal("TERM");
    running.end().ok();
    let why = &device.notices("package_returned")[0];
    assert!(why.contains(&format!("slot {old} runs again")) && why.contains("started 3 times"), "{why}");
    assert!(device.record().contains("refused") && !device.record().contains("trial"), "{}", device.record());
    assert_eq!(device.kept(), (old, 1));
    // Returning is no downgrade, and the same package may be tried again.
    device.install(&device.package(2, &[])).ok();
    drop(start());
    assert_eq!(device.classified(), [2]);
}

/// Starts with `package` on trial until it is given back; the notice that says so. The process goes on with the old one.
fn returned(device: &Device, old: &str, package: &Path, by: &[&str], install: bool) -> String {
    if install {
        device.install(package).ok();
    } else {
        // A package that an installation refuses, put there by hand.
        let other = if old == "a" { "b" } else { "a" };
        std::fs::create_dir_all(device.slots.join(other)).unwrap();
        std::fs::copy(package, device.slots.join(other).join("package.edgepack")).unwrap();
        std::fs::write(device.slots.join("active"), format!("{old}\ntrial {other} 3\n")).unwrap();
    }
    let running = Running::start(&mut device.runs(by));
    let why = device.wait_for("package_returned");
    let count = || lines(&device.log).iter().filter(|l| l["package"] == *device.slot(old).0).count();
    let before = count();
    wait_until("the old package goes on", || count() > before + 2);
    running.signal("TERM");
    running.end().ok();
    assert!(why.contains(&format!("slot {old} runs again")), "{why}");
    assert!(device.record().starts_with(old) && device.record().contains("refused"), "{}", device.record());
    assert_eq!(device.kept().1, 1);
    why
}

#[test]
fn each_failure_of_a_trial_brings_the_old_package_back() {
    let labels = |device: &Device| device.scratch.write("labels.txt", "v\nw\nx\ny\nz\n").display().to_string();

    let device = Device::new();
    let (old, _) = device.kept();
    let good = device.package(2, &[]);
    let golden = device.changed(&good, |m| m.goldens[0].logits[0] += 0.5);
    let why = returned(&device, &old, &golden, &[], false);
    assert!(why.contains("golden sample") && why.contains("synthetic-0"), "{why}");

    let device = Device::new();
    let slow = ["--trial-latency", "0.000001", "--trial-share", "1", "--trial", "1h"];
    let why = returned(&device, &old, &device.package(2, &[]), &slow, true);
    assert!(why.contains("more than 0.000001 times as long") && why.contains("median latency"), "{why}");

    let device = Device::new();
    let other = device.package(2, &["--labels", &labels(&device)]);
    let apart = ["--trial-agreement", "0.5", "--trial-share", "1", "--trial", "300ms", "--trial-latency", "1e9"];
    let why = returned(&device, &old, &other, &apart, true);
    assert!(why.contains("agree on less than 50.0 %") && why.contains(" 0.0 % the same decision"), "{why}");
    // Without a minimum whatever they decide is taken.
    let device = Device::new();
    device.install(&device.package(2, &["--labels", &labels(&device)])).ok();
    let running = Running::start(&mut device.runs(&[&apart[2..]].concat()));
    assert!(device.wait_for("package_kept").contains(" 0.0 % the same decision"));
    drop(running);

    // Golden samples that are black do not show that anything brighter is too much for the network.
    let device = Device::new();
    let black = device.scratch.path("black");
    std::fs::create_dir(&black).unwrap();
    RgbImage::new(20, 20).save(black.join("black.png")).unwrap();
    let model = root().join("tests/goldens/engine/nhwc-auto-pad.onnx");
    let huge = r#"{"mean":[1e-36,1e-36,1e-36],"std":[1e-36,1e-36,1e-36]}"#;
    let golden = ["--golden", black.to_str().unwrap(), "--preprocess", huge, "--labels", &labels(&device)];
    let blind = device.package_of(&model, 2, &golden);
    let why = returned(&device, &old, &blind, &[], true);
    assert!(why.contains("not a finite number"), "{why}");
    assert!(lines(&device.log).iter().any(|l| l["error"].as_str().is_some_and(|e| e.contains("not a finite number"))));
    // Without the old one in memory it is loaded then.
    let device = Device::new();
    let why = returned(&device, &old, &blind, &["--trial-share", "0"], true);
    assert!(why.contains("not a finite number"), "{why}");
}

#[test]
fn a_reload_goes_on_with_a_trial_and_a_new_package_begins_another() {
    let device = Device::new();
    let (old, _) = device.kept();
    let config = |more: &str| {
        let text = format!(
            "slots = 'slots'\nlog = 'log.jsonl'\nsource = 'pattern:32x32'\nrate = 100\ntrial-share = 1\n\
             trial-latency = 1e9\n{more}"
        );
        device.scratch.write("camera.toml", text)
    };
    device.install(&device.package(2, &[])).ok();
    let running = Running::start(camera().arg("--config").arg(config("trial = '1h'\n")));
    let record = |count: usize| {
        wait_until("it was reloaded", || device.notices("reloaded").len() == count);
        device.record()
    };
    device.wait_for("trial_began");
    let counted = device.record();
    // Not another start, and no trial that begins anew.
    for count in 1..=4 {
        running.signal("HUP");
        assert_eq!(record(count), counted);
    }
    assert_eq!(device.notices("trial_began").len(), 1);
    // A configuration that is refused leaves the trial alone.
    config("trial = 'long'\n");
    running.signal("HUP");
    device.wait_for("reload_failed");
    assert_eq!(device.record(), counted);

    // The one on trial is what gives way, never the one that is kept.
    let kept = device.slot(&old);
    config("trial = '1h'\n");
    device.install(&device.package(3, &[])).ok();
    assert_eq!((device.slot(&old), device.kept()), (kept, (old.clone(), 1)));
    running.signal("HUP");
    wait_until("the next trial began", || device.notices("trial_began").len() == 2);
    assert_eq!(device.record(), counted);
    // Its time is over.
    config("trial = '10ms'\n");
    running.signal("HUP");
    device.wait_for("package_kept");
    running.signal("TERM");
    running.end().ok();
    assert_eq!(device.kept().1, 3);
}

#[test]
fn without_time_or_share_nobody_looks_beside_it() {
    let device = Device::new();
    device.install(&device.package(2, &[])).ok();
    let running = Running::start(&mut device.runs(&["--trial", "200ms", "--trial-share", "0"]));
    assert!(device.wait_for("package_kept").contains("none of them seen by the package before"));
    assert!(!device.notices("trial_began")[0].contains("in memory"));
    drop(running);
    device.install(&device.package(3, &[])).ok();
    let running = Running::start(&mut device.runs(&["--trial", "0"]));
    wait_until("it is kept", || device.notices("package_kept").len() == 2);
    drop(running);
    assert!(device.notices("package_kept")[1].contains("without a trial"));
    assert_eq!(device.kept().1, 3);
}

#[test]
fn an_update_goes_over_a_broken_package_and_not_over_the_only_good_one() {
    let device = Device::new();
    device.install(&device.package(2, &[])).ok();
    Running::start(&mut device.runs(&["--trial", "0", "--frames", "1"])).end().ok();
    let (broken, _) = device.kept();
    let good = if broken == "a" { "b" } else { "a" };
    device.scratch.write(&format!("slots/{broken}/package.edgepack"), "rotten");
    // What runs is the good one, so that is what counts.
    device.install(&device.package(1, &[])).fails(3, &["sequence number"]);
    device.install(&device.package(2, &[])).ok();
    assert_eq!((device.slot(good).1, device.slot(&broken).1), (1, 2));
    let _ = std::fs::remove_file(&device.log);
    Running::start(&mut device.runs(&["--trial", "0", "--frames", "1"])).end().ok();
    assert_eq!(device.classified(), [2]);
}

#[test]
fn two_installations_do_not_meet() {
    let device = Device::new();
    let held = std::fs::File::open(&device.slots).unwrap();
    held.lock().unwrap();
    let mut command = camera();
    command.arg("--slots").arg(&device.slots).arg("--install").arg(device.package(2, &[]));
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "it did not wait");
    assert_eq!(device.kept().1, 1);
    drop(held);
    assert!(child.wait().unwrap().success());
    assert!(device.record().contains("trial"));
}
