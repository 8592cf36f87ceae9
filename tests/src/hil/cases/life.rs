//! Cases in which the camera program ends, hangs, or loses track of time.

use super::log::{in_order, time};
use crate::hil::{Bench, first_class, photos};
use anyhow::{Context, Result, ensure};
use edge_link::{PictureData, Request};
use edge_vision::random::split_mix;
use std::time::{Duration, Instant, SystemTime};

/// How far the clock is set back.
const HOUR: Duration = Duration::from_secs(3600);
/// The longest that a supervisor waits for a sign of life, and from one start to the next.
const SUPERVISED: Duration = Duration::from_secs(240);

/// A photo is still classified there as it is here.
fn still_right(bench: &mut Bench) -> Result<()> {
    let picture = PictureData::File(photos()?.swap_remove(1).bytes);
    let found = bench.classify(picture.clone())?;
    bench.same_as_here(&found, &picture).map(drop)
}

/// Waits for another process than `before`, and for it to classify.
fn started_again(bench: &mut Bench, before: u32) -> Result<()> {
    bench.dut.lost();
    let pid = bench.wait_for("the camera program is started again", SUPERVISED, |bench| {
        Ok(bench.dut.camera().ok().filter(|pid| *pid != before))
    })?;
    first_class(bench.dut)?;
    let now = bench.dut.camera()?;
    ensure!(now == pid, "it was started more than once: process {pid}, then {now}");
    still_right(bench)?;
    in_order(&bench.dut.log()?).map(drop)
}

/// kill -9.
pub fn killed(bench: &mut Bench) -> Result<()> {
    let before = bench.dut.camera()?;
    let (begin, patience) = (Instant::now(), bench.patience());
    bench.dut.shell(&format!("kill -9 {before}"), patience)?;
    started_again(bench, before)?;
    bench.figure("from the kill to the first class and a right answer", begin.elapsed().as_secs_f64(), "s");
    Ok(())
}

/// A program that stands still.
pub fn hanging(bench: &mut Bench) -> Result<()> {
    let before = bench.dut.camera()?;
    let (begin, patience) = (Instant::now(), bench.patience());
    bench.dut.shell(&format!("kill -STOP {before}"), patience)?;
    let again = started_again(bench, before);
    if again.is_err() {
        // What is left standing is of no use to the next case.
        let _ = bench.dut.shell(&format!("kill -CONT {before}"), patience);
    }
    again?;
    bench.figure("from the standstill to the first class and a right answer", begin.elapsed().as_secs_f64(), "s");
    Ok(())
}

/// No power, and then power.
pub fn dark(bench: &mut Bench) -> Result<()> {
    let cuts = if bench.long { 5 } else { 1 };
    let mut random = bench.seed;
    for _ in 0..cuts {
        // In the middle of a frame, a line, or nothing.
        std::thread::sleep(Duration::from_millis(split_mix(&mut random) % 2000));
        bench.dut.power_cut()?;
        bench.dut.boot()?;
        still_right(bench)?;
        in_order(&bench.dut.log()?)?;
    }
    bench.figure("cuts", f64::from(cuts), "");
    Ok(())
}

/// An hour back, and forward again.
pub fn clock(bench: &mut Bench) -> Result<()> {
    let set = |bench: &mut Bench, to: SystemTime| -> Result<()> {
        let since = to.duration_since(SystemTime::UNIX_EPOCH)?;
        bench.ask(&Request::SetTime { unix_ns: since.as_nanos() as u64 }).map(drop)
    };
    let uptime = bench.statistics()?["uptime_s"].as_f64();
    // From a time that is known, whatever the device's was.
    set(bench, SystemTime::now())?;
    let jumped = back_and_forth(bench, &set);
    // In any case the clock is right again.
    set(bench, SystemTime::now())?;
    jumped?;
    let later = bench.statistics()?["uptime_s"].as_f64();
    ensure!(later > uptime, "the camera program was started again meanwhile");
    still_right(bench)?;
    in_order(&bench.dut.log()?).map(drop)
}

fn back_and_forth(bench: &mut Bench, set: &dyn Fn(&mut Bench, SystemTime) -> Result<()>) -> Result<()> {
    // What is on its way to the log has the old time.
    for (jump, what) in [(Some(HOUR), "an hour back"), (None, "forward again")] {
        let to = jump.map_or(SystemTime::now(), |jump| SystemTime::now() - jump);
        let before = bench.tail()?.last().and_then(|line| line["monotonic_s"].as_f64()).context("the log is empty")?;
        set(bench, to)?;
        let patience = bench.patience();
        bench.wait_for(&format!("a frame is logged with the clock {what}"), patience, |bench| {
            let near = |line: &serde_json::Value| {
                let time = time(line).ok()?;
                let off = time.duration_since(to).or_else(|_| to.duration_since(time)).ok()?;
                (line["frame"].is_u64() && line["monotonic_s"].as_f64()? > before && off < HOUR / 4).then_some(())
            };
            Ok(bench.tail()?.iter().find_map(near))
        })?;
    }
    Ok(())
}
