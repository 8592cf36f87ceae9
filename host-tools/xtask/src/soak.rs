//! A year in a few minutes: many frames through `edge-camera`, while memory and open files are watched from outside.

use crate::tools::{self, built, output, root};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often the process is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Memory may grow by this between the first tenth of the run and the last, in KiB: what an allocator moves about.
const SLACK: u64 = 1024;

/// Runs `frames` frames of the small network with the whole of the log's machinery in use, in `work`; what it found.
pub fn run(frames: u64, work: &Path) -> Result<String> {
    let folder = work.join("soak");
    // The rest of an earlier run would count.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let package = folder.join("small.edgepack");
    let model = root().join("tests/goldens/engine/nhwc-unk-softmax.onnx");
    output(Command::new(built("edge-pack")?).arg(model).arg("-o").arg(&package))?;
    let log = folder.join("log.jsonl");
    let mut camera = Command::new(built("edge-camera")?)
        .arg("--package")
        .arg(&package)
        .args(["--source", "pattern:160x120", "--frames", &frames.to_string()])
        .args(["--smooth", "8", "--margin", "0.01", "--summary", "24h"])
        .args(["--log-max-size", "500kB", "--log-total", "5MB", "--log-sync", "rotate", "--log"])
        .arg(&log)
        .stderr(Stdio::inherit())
        .spawn()
        .context("starting edge-camera")?;
    let watched = watch(&mut camera);
    if watched.is_err() {
        // It must not outlive the step.
        let _ = camera.kill();
        let _ = camera.wait();
    }
    let (rss, files, time) = watched?;
    ensure!(rss.len() >= 20, "it ran too short to be watched: {} looks", rss.len());
    let tenth = rss.len() / 10;
    // The very first looks see it load.
    let first = rss[tenth..2 * tenth].iter().max().copied().unwrap_or_default();
    let last = rss[rss.len() - tenth..].iter().max().copied().unwrap_or_default();
    let (early, late) = (files[tenth], files[files.len() - 1]);
    ensure!(last <= first + SLACK, "memory grew: {first} KiB early, {last} KiB late");
    ensure!(late <= early, "open files grew: {early} early, {late} late");
    let text = std::fs::read_to_string(&log)?;
    let line: Value = serde_json::from_str(text.lines().last().context("an empty log")?)?;
    let summary = &line["summary"];
    ensure!(summary["frames"] == frames && summary["faults"] == 0, "not all frames were classified: {summary}");
    let mut stages = vec![];
    for stage in ["decode", "resize", "preprocess", "infer", "total"] {
        let of = &summary["latency_ms"][stage];
        stages.push(format!("{stage} {} {} {} {}", of["p50"], of["p90"], of["p99"], of["max"]));
    }
    Ok(format!(
        "{frames} frames in {:.0} s: {first} KiB resident early, {last} KiB late, {early} and {late} open files; ms at p50, p90, p99, \
         max: {}",
        time.as_secs_f64(),
        stages.join(", ")
    ))
}

/// Resident memory in KiB and open files, again and again until the process ends.
fn watch(camera: &mut Child) -> Result<(Vec<u64>, Vec<usize>, Duration)> {
    let start = Instant::now();
    let process = Path::new("/proc").join(camera.id().to_string());
    let (mut rss, mut files) = (vec![], vec![]);
    loop {
        if let Some(status) = camera.try_wait()? {
            ensure!(status.success(), "edge-camera: {status}");
            return Ok((rss, files, start.elapsed()));
        }
        let resident = tools::memory_kib(camera, "VmRSS:");
        // A process that has just ended has none.
        if let (Some(resident), Ok(open)) = (resident, std::fs::read_dir(process.join("fd"))) {
            rss.push(resident);
            files.push(open.count());
        }
        std::thread::sleep(LOOK);
    }
}
