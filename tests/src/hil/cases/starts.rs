//! Cases of starts.

use super::log::in_order;
use crate::hil::{Bench, photos};
use anyhow::{Context, Result, ensure};
use edge_link::{PictureData, Power, Request};

/// From power on to the first class.
pub fn in_time(bench: &mut Bench) -> Result<()> {
    let statistics = bench.statistics()?;
    let seconds = statistics["boot_to_first_class_s"].as_f64();
    let seconds = seconds.context("the statistics have no boot_to_first_class_s")?;
    let most = bench.dut.about().first_class().as_secs_f64();
    bench.figure("from power on to the first class", seconds, "s");
    ensure!(seconds > 0.0 && seconds <= most, "the first class came after {seconds:.1} s, {most:.0} s is the most");
    Ok(())
}

/// Seconds since the camera program was started.
fn uptime(bench: &mut Bench) -> Result<f64> {
    bench.statistics()?["uptime_s"].as_f64().context("the statistics have no uptime_s")
}

/// Tells the device to start anew and waits until it classifies again.
pub fn start_anew(bench: &mut Bench) -> Result<()> {
    let starts = starts(bench)?;
    bench.ask(&Request::Power(Power::Reboot)).context("told to start anew")?;
    bench.dut.lost();
    again(bench, starts)
}

/// Waits for one more start than there were, and for the first class of it.
pub fn again(bench: &mut Bench, before: usize) -> Result<()> {
    let most = bench.dut.about().first_class() * 2 + bench.patience();
    bench.wait_for("it has started anew and classified", most, |bench| {
        let classified = bench.statistics()?["frames"].as_u64() > Some(0);
        Ok((classified && starts(bench)? > before).then_some(()))
    })
}

/// How many starts of the camera program are in the log.
pub fn starts(bench: &mut Bench) -> Result<usize> {
    in_order(&bench.dut.log()?)
}

/// A photo is still classified there as it is here.
pub fn still_right(bench: &mut Bench) -> Result<()> {
    let picture = PictureData::File(photos()?.swap_remove(1).bytes);
    let found = bench.classify(picture.clone())?;
    bench.same_as_here(&found, &picture).map(drop)
}

/// By Power over the link.
pub fn reboot(bench: &mut Bench) -> Result<()> {
    start_anew(bench)?;
    let up = uptime(bench)?;
    bench.figure("camera program running since", up, "s");
    in_time(bench)?;
    still_right(bench)
}
