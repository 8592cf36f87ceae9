use super::*;
use crate::clock::fake::FakeClock;
use edge_device::event::LatencyMs;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A disk that can be full.
#[derive(Clone, Default)]
struct FakeDisk(Rc<(RefCell<String>, Cell<bool>)>);

impl FakeDisk {
    fn full(&self, full: bool) {
        self.0.1.set(full);
    }

    fn lines(&self) -> Vec<Value> {
        self.0.0.borrow().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }
}

impl Sink for FakeDisk {
    fn append(&mut self, line: &[u8], _: Duration) -> io::Result<()> {
        if self.0.1.get() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.0.borrow_mut().push_str(std::str::from_utf8(line).unwrap());
        Ok(())
    }

    fn recovers(&self) -> bool {
        true
    }
}

const PLAIN: Options =
    Options { path: PathBuf::new(), rotation: None, sync: Sync::Never, budget: None, on_change: false };

fn log(options: Options) -> (Log, FakeDisk, FakeClock) {
    let (disk, clock) = (FakeDisk::default(), FakeClock::default());
    let log = Log::to(Box::new(disk.clone()), options, Box::new(clock.clone()), Gate::default());
    (log, disk, clock)
}

fn event(log: &Log, frame: u64) -> Event {
    let (time, monotonic_s) = log.now();
    Event {
        time,
        monotonic_s,
        clock_synced: None,
        frame,
        source: "test".into(),
        top: vec![],
        decision: "cat".into(),
        class: Some(1),
        latency_ms: LatencyMs::default(),
        package: String::new(),
        backend: "cpu".into(),
    }
}

fn frame(log: &mut Log, frame: u64, changed: bool) {
    let mut event = event(log, frame);
    log.event(&mut event, changed).unwrap();
}

/// Opens a file that holds `before` and writes a line to it.
fn after(before: &[u8]) -> Result<String, Failure> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(&path, before).unwrap();
    let options = Options { path: path.clone(), ..PLAIN };
    let result =
        Log::open(options, Box::new(FakeClock::default()), Gate::default()).and_then(|mut log| log.notice("n", ""));
    let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
    result.map(|()| text).inspect_err(|_| assert_eq!(std::fs::read(&path).unwrap(), before))
}

#[test]
fn a_line_cut_off_by_a_power_cut_is_removed() {
    let line = after(b"").unwrap();
    assert!(line.starts_with("{\"time\"") && line.ends_with("}\n") && line.lines().count() == 1);
    assert_eq!(after(b"{\"a\":0}\n").unwrap(), format!("{{\"a\":0}}\n{line}"));
    assert_eq!(after(b"{\"a\":0}\n{\"b\":").unwrap(), format!("{{\"a\":0}}\n{line}"));
    assert_eq!(after(b"{\"a\"").unwrap(), line);
}

#[test]
fn a_file_that_is_no_log_is_left_alone() {
    assert_eq!(after(b"\x89PNG\r\nrest").unwrap_err().code, 5);
    assert_eq!(after(b"some text").unwrap_err().code, 5);
    assert_eq!(after(b"#!/bin/sh\nexit 0\n").unwrap_err().code, 5);
}

#[test]
fn a_log_has_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { path: dir.path().join("log"), ..PLAIN };
    let open = || Log::open(options.clone(), Box::new(FakeClock::default()), Gate::default());
    let _first = open().unwrap();
    assert_eq!(open().err().unwrap().code, 5);
}

#[test]
fn a_full_disk_leaves_a_gap_that_is_told_when_there_is_space() {
    let (mut log, disk, clock) = log(PLAIN);
    frame(&mut log, 0, true);
    disk.full(true);
    for i in 1..=30 {
        clock.pass(100);
        frame(&mut log, i, false);
        log.tick().unwrap();
    }
    assert_eq!(disk.lines().len(), 1);
    assert!(log.news()[0].contains("classification goes on"));
    disk.full(false);
    clock.pass(1000);
    frame(&mut log, 31, false);
    let lines = disk.lines();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1]["event"], "log_gap");
    let detail = lines[1]["detail"].as_str().unwrap();
    assert!(detail.starts_with("30 line(s) from 2023-11-14T22:13:20.100Z to 2023-11-14T22:13:23.000Z"), "{detail}");
    assert_eq!(lines[2]["frame"], 31);
    // Without lines, the gap is told by the clock.
    disk.full(true);
    frame(&mut log, 32, false);
    disk.full(false);
    clock.pass(5000);
    log.tick().unwrap();
    assert_eq!(disk.lines().last().unwrap()["event"], "log_gap");
    // What is lost for good is a failure.
    disk.full(true);
    frame(&mut log, 33, false);
    let failure = log.finish().unwrap_err();
    assert_eq!(failure.code, 5);
    assert!(format!("{:#}", failure.cause).contains("1 line(s) of it are lost"), "{:#}", failure.cause);
}

#[test]
fn lines_stay_in_order_whatever_the_wall_clock_does() {
    let (mut log, disk, clock) = log(PLAIN);
    for (i, jump) in [0, 7_200_000, -3_600_000, 0, 500, 1_700_000_000].into_iter().enumerate() {
        clock.pass(250);
        clock.jump(jump);
        // A frame was captured before what was noticed meanwhile.
        let mut before = event(&log, i as u64);
        log.tick().unwrap();
        clock.pass(10);
        log.notice("camera_back", "test").unwrap();
        log.event(&mut before, false).unwrap();
    }
    let lines = disk.lines();
    let times: Vec<f64> = lines.iter().map(|l| l["monotonic_s"].as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let jumps: Vec<&str> =
        lines.iter().filter(|l| l["event"] == "clock_jumped").map(|l| l["detail"].as_str().unwrap()).collect();
    assert_eq!(jumps.len(), 3);
    assert!(jumps[0].contains("+7200.000 s") && jumps[1].contains("-3600.000 s"), "{jumps:?}");
    assert_eq!((&lines[0]["clock_synced"], &lines.last().unwrap()["clock_synced"]), (&false.into(), &true.into()));
}

#[test]
fn on_change_logs_changes_notices_and_the_first_fault() {
    let (mut log, disk, _) = log(Options { on_change: true, ..PLAIN });
    for (i, changed) in [true, false, false, true, false].into_iter().enumerate() {
        frame(&mut log, i as u64, changed);
    }
    let (time, monotonic_s) = log.now();
    let (source, backend) = (String::new(), String::new());
    let mut fault = Fault { time, monotonic_s, clock_synced: None, frame: 5, source, error: "broken".into(), backend };
    log.fault(&mut fault, true).unwrap();
    log.fault(&mut fault, false).unwrap();
    log.notice("reloaded", "test").unwrap();
    let frames: Vec<Value> = disk.lines().iter().map(|l| l["frame"].clone()).collect();
    assert_eq!(frames, [0.into(), 3.into(), 5.into(), Value::Null]);
}

#[test]
fn a_budget_thins_lines_but_no_changes_and_says_so() {
    let (mut log, disk, clock) = log(Options { budget: Some(100_000), ..PLAIN });
    for i in 0..36_000 {
        clock.pass(100);
        frame(&mut log, i, i % 3000 == 0);
        log.tick().unwrap();
    }
    log.finish().unwrap();
    let lines = disk.lines();
    let left_out: u64 = lines
        .iter()
        .filter(|l| l["event"] == "log_thinned")
        .map(|l| l["detail"].as_str().unwrap().split(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    let frames = lines.iter().filter(|l| l["frame"].is_number()).count() as u64;
    assert_eq!(frames + left_out, 36_000);
    assert_eq!(lines.iter().filter(|l| l["frame"].as_u64().is_some_and(|f| f % 3000 == 0)).count(), 12);
    let bytes = disk.0.0.borrow().len();
    assert!((80_000..130_000).contains(&bytes), "{bytes}");
}

#[test]
fn a_reload_moves_to_another_file_or_keeps_the_one_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let options = |name: &str| Options { path: dir.path().join(name), ..PLAIN };
    let mut log = Log::open(options("a"), Box::new(FakeClock::default()), Gate::default()).unwrap();
    log.notice("one", "").unwrap();
    log.set(Options { sync: Sync::Line, ..options("a") }).unwrap();
    log.notice("two", "").unwrap();
    assert_eq!(log.set(options("no/folder")).unwrap_err().code, 5);
    log.notice("three", "").unwrap();
    log.set(options("b")).unwrap();
    log.notice("four", "").unwrap();
    let lines = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap().lines().count();
    assert_eq!((lines("a"), lines("b")), (3, 1));
}
