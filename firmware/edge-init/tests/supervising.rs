//! `edge-init supervise` with the real camera program: the loop that runs as process 1 on a flashed camera, here as an
//! ordinary process.

use edge_system::board;
use edge_system::disk::{Disk, FileDisk};
use edge_system::layout::Layout;
use edge_system::slot::Slot;
use edge_system::state::{BootState, Choice};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Nothing here takes nearly as long, but machines are busy.
const LONG: Duration = Duration::from_secs(120);

/// The camera program, where it was built. It is not built for this: that takes minutes.
fn camera() -> Option<PathBuf> {
    let folder = std::env::var_os("EDGE_BIN_DIR").map(PathBuf::from).or_else(|| {
        // target/PROFILE/deps/this-test
        Some(std::env::current_exe().ok()?.ancestors().nth(2)?.to_path_buf())
    })?;
    let camera = folder.join("edge-camera");
    if !camera.exists() {
        println!("skipped: there is no {}; cargo build -p edge-camera makes it", camera.display());
        return None;
    }
    Some(camera)
}

/// A running `edge-init supervise`.
struct Supervised {
    process: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    folder: TempDir,
}

impl Supervised {
    fn start(camera: &Path, options: &[&str]) -> Supervised {
        Supervised::start_in(tempfile::tempdir().unwrap(), camera, options)
    }

    fn start_in(folder: TempDir, camera: &Path, options: &[&str]) -> Supervised {
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("watchdog"), "").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-init"));
        command.arg("supervise").arg("--camera").arg(camera).arg("--log").arg(path("class.jsonl"));
        command.arg("--run").arg(folder.path()).arg("--watchdog").arg(path("watchdog")).args(["--pause", "0.1"]);
        command.args(options).args(["--", "--source", "pattern:64x48", "--rate", "20", "--threads", "1"]);
        let mut process = command.stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let (tell, lines) = channel();
        let printed = BufReader::new(process.stderr.take().unwrap());
        std::thread::spawn(move || printed.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Supervised { process, lines, seen: vec![], folder }
    }

    /// Waits for a line with `part` in it.
    fn until(&mut self, part: &str) -> String {
        let begin = Instant::now();
        while let Ok(line) = self.lines.recv_timeout(LONG.saturating_sub(begin.elapsed())) {
            self.seen.push(line);
            if self.seen.last().unwrap().contains(part) {
                return self.seen.last().unwrap().clone();
            }
        }
        panic!("no line with {part:?}:\n{}", self.seen.join("\n"));
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id() as i32).unwrap()
    }

    /// Its children with their states, as /proc tells them.
    fn children(&self) -> Vec<(Pid, char)> {
        let mut children = vec![];
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(number) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            // PID (NAME) STATE PARENT …
            let text = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let Some((_, rest)) = text.rsplit_once(") ") else { continue };
            let mut fields = rest.split(' ');
            let state = fields.next().unwrap().chars().next().unwrap();
            if fields.next() == Some(&self.process.id().to_string()) {
                children.push((Pid::from_raw(number).unwrap(), state));
            }
        }
        children
    }

    fn camera(&self) -> Pid {
        let children = self.children();
        assert_eq!(children.len(), 1, "{children:?}");
        children[0].0
    }

    /// Waits until no child is a zombie and there are `count` of them.
    fn settle(&self, count: usize) {
        let begin = Instant::now();
        loop {
            let children = self.children();
            if children.len() == count && children.iter().all(|(_, state)| *state != 'Z') {
                return;
            }
            assert!(begin.elapsed() < LONG, "{children:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks it to end; all that the log holds then.
    fn end(mut self) -> (String, String) {
        kill_process(self.pid(), Signal::TERM).unwrap();
        self.until("ended: PowerOff");
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}");
        let fed = std::fs::read_to_string(self.folder.path().join("watchdog")).unwrap();
        assert!(!fed.is_empty() && fed.bytes().all(|byte| byte == b'.'), "{fed}");
        let log = std::fs::read_to_string(self.folder.path().join("class.jsonl")).unwrap_or_default();
        (self.seen.join("\n"), log)
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // Of a test that failed: the camera goes first, or nobody would end it.
        for (child, _) in self.children() {
            let _ = kill_process(child, Signal::KILL);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_camera_that_is_killed_or_hangs_is_started_again() {
    let Some(camera) = camera() else { return };
    let mut supervised = Supervised::start(&camera, &["--hang", "6"]);
    assert_eq!(supervised.until("ready"), "edge-init: camera is ready");
    let first = supervised.until("first class");
    assert!(first.starts_with("edge-init: first class ") && first.ends_with(" s"), "{first}");

    let before = supervised.camera();
    kill_process(before, Signal::KILL).unwrap();
    supervised.until("the camera was ended by signal 9; it starts again in 0 s");
    supervised.until("edge-init: camera is ready again");
    let after = supervised.camera();
    assert_ne!(before, after);

    kill_process(after, Signal::STOP).unwrap();
    supervised.until("the camera hangs: no sign of life for 6 s; it is killed");
    supervised.until("the camera was ended by signal 9");
    supervised.until("edge-init: camera is ready again");
    supervised.settle(1);

    let (told, log) = supervised.end();
    assert_eq!(told.matches("first class").count(), 1, "{told}");
    // What the camera prints itself is told, too.
    assert!(told.contains("edge-camera: ") && told.contains("frame(s)"), "{told}");
    // Kills and restarts leave whole lines.
    assert!(log.lines().all(|line| line.starts_with('{') && line.trim_end().ends_with('}')), "{log}");
    assert!(log.contains("\"decision\""), "{log}");
}

#[test]
fn orphans_leave_no_zombies() {
    let Some(camera) = camera() else { return };
    let folder = tempfile::tempdir().unwrap();
    // A camera program that leaves processes behind, which outlive their parents.
    let wrapper = folder.path().join("camera");
    let script = format!("#!/bin/sh\nfor i in 1 2 3; do (sleep 0.3 &); done\nexec {} \"$@\"\n", camera.display());
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut supervised = Supervised::start_in(folder, &wrapper, &[]);
    supervised.until("camera is ready");
    supervised.settle(1);
    supervised.end();
}

#[test]
fn a_refused_configuration_is_left_out() {
    let Some(camera) = camera() else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("camera.toml");
    std::fs::write(&config, "treshold = 0.5\n").unwrap();
    let config = config.to_str().unwrap().to_string();
    let mut supervised = Supervised::start_in(folder, &camera, &["--config", &config]);
    supervised.until("threshold");
    supervised.until("edge-init: the camera refuses its configuration, camera.toml; it goes on with defaults");
    supervised.until("edge-init: camera is ready");
    supervised.end();
}

#[test]
fn a_program_that_cannot_be_started_is_tried_again() {
    let mut supervised = Supervised::start(Path::new("/nonexistent/edge-camera"), &[]);
    for _ in 0..3 {
        supervised.until("the camera program cannot be started: /nonexistent/edge-camera: No such file");
    }
    supervised.settle(0);
    supervised.end();
}

#[test]
fn a_camera_that_does_not_end_is_killed() {
    let Some(camera) = camera() else { return };
    let mut supervised = Supervised::start(&camera, &[]);
    supervised.until("first class");
    kill_process(supervised.camera(), Signal::STOP).unwrap();
    // SIGTERM reaches it only when it goes on; five seconds later it is killed.
    supervised.end();
}

#[test]
fn a_system_on_trial_is_kept_when_it_has_classified_for_a_while() {
    let Some(camera) = camera() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sd.img");
    let layout = Layout::of(board::by_name("virt").unwrap().image().unwrap());
    std::fs::File::create(&path).unwrap().set_len(layout.end()).unwrap();
    let mut disk = FileDisk::open_writable(&path).unwrap();
    disk.write_at(&layout.table(7).encode(), 0).unwrap();
    let trial = BootState { generation: 4, choice: Choice::first().begin_trial(3) };
    trial.write(&mut disk, &layout).unwrap();
    let read = || BootState::read(&FileDisk::open(&path).unwrap(), &layout).unwrap().state.unwrap();

    let options = ["--disk", path.to_str().unwrap(), "--slot", "b", "--hang", "6", "--commit", "3"];
    let mut supervised = Supervised::start_in(folder, &camera, &options);
    // One that ended too early has proven nothing.
    supervised.until("first class");
    kill_process(supervised.camera(), Signal::KILL).unwrap();
    supervised.until("ready again");
    assert_eq!(read(), trial);
    assert_eq!(supervised.until("is kept"), "edge-init: system slot b is kept");
    assert_eq!(read().choice, Choice { active: Slot::B, ..Choice::first() });
    supervised.end();
}

#[test]
fn a_system_on_trial_that_fails_again_and_again_ends_the_loop() {
    let Some(camera) = camera() else { return };
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("sd.img");
    let config = folder.path().join("camera.toml");
    // The configuration counts on trial: the system that is to be replaced takes it.
    std::fs::write(&config, "rate = \"fast\"\n").unwrap();
    let options = ["--disk", disk.to_str().unwrap(), "--slot", "b", "--config", config.to_str().unwrap()];
    let mut supervised = Supervised::start_in(folder, &camera, &options);
    supervised.until("this system is on trial, and the camera failed 3 times; ended with code 2");
    supervised.until("ended: Reboot");
    supervised.process.wait().unwrap();
}
