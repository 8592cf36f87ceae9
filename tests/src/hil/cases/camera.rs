//! Cases with a V4L2 camera in front of the device.

use crate::hil::lab::{Trace, difference, follow};
use crate::hil::{Bench, CameraFault, Failing, Size, frame, photos};
use crate::root;
use anyhow::{Context, Result, bail, ensure};
use edge_link::{PROTOCOL, PictureData, Request, Response};
use serde_json::Value;

/// What goes wrong with a camera is in the log within so many seconds, ...
const LOGGED: f64 = 2.0;
/// ... and frames come again within so many of its end.
const RECOVERED: f64 = 10.0;
/// So many frames may be under way, or delayed by what else a device with few cores does, in front of what is told.
const FRAMES: f64 = 4.0;
/// To open a camera takes a device as long as so many questions to its shell: a process is started, asks the driver for
/// this and that, and gets its memory.
const OPENING: f64 = 10.0;
/// So often is it opened before it works again: once in vain for a request that fails, and once more for the pause between.
const OPENINGS: f64 = 3.0;
/// What an allocator moves about, in KiB.
const SLACK: f64 = 2048.0;

/// The camera that the device's file promises, in the format and size that it names first.
pub fn found(bench: &mut Bench) -> Result<()> {
    let Response::Hello(hello) = bench.ask(&Request::Hello { protocol: PROTOCOL })? else {
        bail!("the camera gives another answer when asked who it is");
    };
    ensure!(hello.source.contains("v4l2:") || hello.source.starts_with("camera "), "its source is {:?}", hello.source);
    let patience = bench.patience();
    let last = bench.wait_for("there is a last frame", patience, |bench| bench.last_frame())?;
    let PictureData::Raw(raw) = &last else { bail!("the camera delivers files") };
    let about = bench.dut.about();
    let size = Size { width: raw.width, height: raw.height };
    ensure!(about.formats.contains(&raw.format), "it delivers {}, its file has {:?}", raw.format, about.formats);
    ensure!(about.sizes.contains(&size), "it delivers {size}, its file has {:?}", about.sizes);
    bench.evidence(&format!("delivered, {size} {}", raw.format), &last)
}

/// Every format in every size: each byte arrives, and is classified as here.
pub fn exact(bench: &mut Bench) -> Result<()> {
    let (formats, sizes) = (bench.dut.about().formats.clone(), bench.dut.about().sizes.clone());
    let photos = photos()?;
    let mut most = 0f32;
    let all = sizes.iter().flat_map(|size| formats.iter().map(move |format| (*format, *size)));
    for (number, (format, size)) in all.enumerate() {
        let photo = &photos[(number + 1) % photos.len()];
        let shown = frame(&photo.bytes, format, size)?;
        let context = || format!("{} as {size} {format}", photo.name);
        let picture = PictureData::Raw(shown.clone());
        let sight = bench.show(shown.clone()).with_context(context)?;
        let delivered = bench.last_frame()?.context("there is no last frame")?;
        let PictureData::Raw(raw) = &delivered else { bail!("the camera delivers files") };
        ensure!(raw.color == shown.color, "{}: delivered as {:?}, shown as {:?}", context(), raw.color, shown.color);
        let found = bench.classify(delivered.clone())?;
        most = most.max(bench.same_as_here(&found, &picture).with_context(context)?);
        bench.wait_until_logged(sight.last)?;
        let decided = bench.tail()?.into_iter().rfind(|line| line["frame"] == sight.last);
        let decided = decided.with_context(|| format!("{}: frame {} is not in the log", context(), sight.last))?;
        let expected = bench.reference().classify(&picture)?.decision;
        ensure!(decided["decision"] == expected, "{}: {expected:?} here, in the log {decided}", context());
        bench.evidence(&format!("{}: decided for {expected}", context()), &delivered)?;
    }
    bench.figure("largest difference of a logit", most.into(), "");
    // What was there before.
    let (format, size) = (formats[0], sizes[0]);
    bench.show(frame(&photos[0].bytes, format, size)?).map(drop)
}

/// The device's clocks: what is to be added to the one of /proc/uptime for the wall clock, in seconds since 1970.
fn wall(bench: &mut Bench) -> Result<f64> {
    let patience = bench.patience();
    // The shell's clock has whole seconds; at their beginning it is exact.
    let script =
        "s=$(date +%s); while [ $(date +%s) = $s ]; do :; done; echo $((s + 1)) $(cut -d ' ' -f 1 /proc/uptime)";
    let printed = bench.dut.shell(script, patience)?;
    let (wall, up) = printed.trim().split_once(' ').with_context(|| format!("the clocks say {printed:?}"))?;
    Ok(wall.parse::<f64>()? - up.parse::<f64>()?)
}

/// Seconds since the device was started.
fn up(bench: &mut Bench) -> Result<f64> {
    let patience = bench.patience();
    let printed = bench.dut.shell("cut -d ' ' -f 1 /proc/uptime", patience)?;
    printed.trim().parse().with_context(|| format!("/proc/uptime says {printed:?}"))
}

/// What may come on top of the seconds that are allowed, for what is told and for what comes back: the camera is looked
/// after between two frames, and how long a device takes for anything at all is seen from a question to its shell.
fn allowances(bench: &mut Bench) -> Result<[f64; 2]> {
    let statistics = bench.statistics()?;
    let frame = statistics["latency_ms"]["total"]["p99"].as_f64();
    let frame = frame.context("the statistics have no latency_ms.total.p99")? / 1e3;
    let asked = up(bench)?;
    let question = up(bench)? - asked;
    Ok([1.0, OPENINGS * OPENING].map(|questions| FRAMES * frame + questions * question))
}

/// The first line of the log that was written after `mark` and that `wanted` takes: when that was by the clock that never jumps,
/// and by the wall clock.
fn line(bench: &mut Bench, what: &str, mark: f64, wanted: impl Fn(&Value) -> bool) -> Result<(f64, f64)> {
    let patience = bench.patience();
    bench.wait_for(what, patience, |bench| {
        let mut lines = bench.tail()?.into_iter();
        let line = lines.find(|line| line["monotonic_s"].as_f64() > Some(mark) && wanted(line));
        line.map(|line| Ok((monotonic(&line)?, seconds(&line)?))).transpose()
    })
}

fn monotonic(line: &Value) -> Result<f64> {
    line["monotonic_s"].as_f64().with_context(|| format!("no monotonic_s in {line}"))
}

/// The wall clock of a line, in seconds since 1970.
fn seconds(line: &Value) -> Result<f64> {
    Ok(super::log::time(line)?.duration_since(std::time::SystemTime::UNIX_EPOCH)?.as_secs_f64())
}

/// A fault, and what of it is to be seen.
struct Fault {
    name: &'static str,
    begin: &'static [CameraFault],
    end: Option<CameraFault>,
    /// How it is told of; where there is nothing, frames just go on.
    events: &'static [&'static str],
}

const FAULTS: [Fault; 7] = [
    Fault {
        name: "unplugged",
        begin: &[CameraFault::Disconnect],
        end: Some(CameraFault::Reconnect),
        events: &["camera_lost"],
    },
    Fault {
        name: "all buffers dropped",
        begin: &[CameraFault::DropBuffers(100)],
        end: Some(CameraFault::DropBuffers(0)),
        events: &["camera_stalled", "camera_lost"],
    },
    Fault {
        name: "stalled",
        begin: &[CameraFault::Stall],
        end: Some(CameraFault::Resume),
        events: &["camera_stalled", "camera_lost"],
    },
    // It is asked again; that costs no more than a frame.
    Fault { name: "QBUF fails", begin: &[CameraFault::Fail(Failing::Qbuf)], end: None, events: &[] },
    Fault {
        name: "streaming fails",
        begin: &[CameraFault::Fail(Failing::Streaming)],
        end: None,
        events: &["camera_lost"],
    },
    // A camera that is open does not ask for buffers, and does not begin.
    Fault {
        name: "REQBUFS fails",
        begin: &[CameraFault::Fail(Failing::Reqbufs), CameraFault::Fail(Failing::Streaming)],
        end: None,
        events: &["camera_lost"],
    },
    Fault {
        name: "STREAMON fails",
        begin: &[CameraFault::Fail(Failing::Streamon), CameraFault::Fail(Failing::Streaming)],
        end: None,
        events: &["camera_lost"],
    },
];

/// Each of the faults: told of in time, and frames come again in time.
pub fn faults(bench: &mut Bench) -> Result<()> {
    let photo = photos()?.swap_remove(0);
    let (format, size) = (bench.dut.about().formats[0], bench.dut.about().sizes[0]);
    let shown = frame(&photo.bytes, format, size)?;
    bench.show(shown.clone())?;
    let wall = wall(bench)?;
    for fault in &FAULTS {
        suffer(bench, fault, wall).with_context(|| fault.name)?;
        bench.delivered("what was shown is delivered again", &shown, None).with_context(|| fault.name)?;
    }
    // What opening a camera allocates for the first time is there by now.
    let rss = |bench: &mut Bench| -> Result<f64> {
        bench.statistics()?["rss_kib"].as_f64().context("the statistics have no rss_kib")
    };
    let before = rss(bench)?;
    let more = FAULTS[4..].iter().cycle().take(if bench.long { 30 } else { 3 });
    for fault in more {
        suffer(bench, fault, wall).with_context(|| format!("{}, again", fault.name))?;
    }
    let after = rss(bench)?;
    bench.figure("memory before more faults", before, "KiB");
    bench.figure("memory after them", after, "KiB");
    ensure!(after <= before + SLACK, "memory grows with faults: {before} KiB, then {after} KiB");
    Ok(())
}

fn suffer(bench: &mut Bench, fault: &Fault, wall: f64) -> Result<()> {
    let [to_tell, to_recover] = allowances(bench)?;
    let mut mark = bench.tail()?.last().map_or(Ok(-1.0), monotonic)?;
    for begin in fault.begin {
        bench.dut.fault(*begin)?;
    }
    let begun = wall + up(bench)?;
    let mut ended = begun;
    if !fault.events.is_empty() {
        let (at, told) = line(bench, "the fault is in the log", mark, |line| {
            line["event"].as_str().is_some_and(|event| fault.events.contains(&event))
        })?;
        let late = told - begun;
        bench.figure(&format!("{}: told of after", fault.name), late.max(0.0), "s");
        ensure!(late <= LOGGED + to_tell, "told of {late:.1} s after it; {LOGGED} s and {to_tell:.1} s are allowed");
        (mark, ended) = (at, told.max(begun));
    }
    if let Some(end) = fault.end {
        bench.dut.fault(end)?;
        ended = wall + up(bench)?;
    }
    if !fault.events.is_empty() {
        (mark, _) = line(bench, "the camera is told to be back", mark, |line| line["event"] == "camera_back")?;
    }
    let (_, back) = line(bench, "a frame is classified again", mark, |line| line["frame"].is_u64())?;
    let late = back - ended;
    bench.figure(&format!("{}: back after", fault.name), late.max(0.0), "s");
    ensure!(
        late <= RECOVERED + to_recover,
        "back {late:.1} s after its end; {RECOVERED} s and {to_recover:.1} s are allowed"
    );
    Ok(())
}

/// Traces of the camera fault lab: what came of them then comes of them now.
pub fn recorded(bench: &mut Bench) -> Result<()> {
    let folder = root().join("tests/lab");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut traces: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    traces.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    traces.sort();
    ensure!(!traces.is_empty(), "{} has no traces", folder.display());
    for path in &traces {
        let context = || path.display().to_string();
        let before = Trace::read(path)?;
        let now = follow(bench, before.steps(), &mut |_| {}).with_context(context)?;
        if let Some(why) = difference(&before.events(), &now.events()) {
            bail!("{}, {why}", context());
        }
    }
    bench.figure("traces", traces.len() as f64, "");
    // What was there before.
    let (format, size) = (bench.dut.about().formats[0], bench.dut.about().sizes[0]);
    bench.show(frame(&photos()?[0].bytes, format, size)?).map(drop)
}
