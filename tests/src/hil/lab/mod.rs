//! The camera fault lab: pictures and faults by a script, and what the camera makes of them.
//!
//! A script shows the pictures of a folder one after the other and lets the camera fail meanwhile. What was done and what
//! came of it is a [`Trace`], which can be replayed: the same is done again, and the same must come of it. Times are not
//! compared, since they are the machine's; a fault lasts until the camera has told of it, and a picture is shown until it
//! was decided on, however long that takes.

mod script;
mod trace;

pub use script::{Script, Scripted};
pub use trace::{Line, Trace, What, difference};

use super::{Bench, CameraFault, Capability, Dut, DutFile, Failing, Options, Shard, frame};
use anyhow::{Context, Result, bail, ensure};
use edge_link::PictureData;
use edge_package::{digest, hex};
use script::failing;
use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

/// Looks whether a device has what the steps need.
///
/// # Errors
///
/// Names what it lacks.
pub fn possible(about: &DutFile, steps: &[Line]) -> Result<()> {
    let faults = steps.iter().any(|step| matches!(step.what, What::Fault(_)));
    let needed = [Capability::Link, Capability::Show].into_iter().chain(faults.then_some(Capability::CameraFaults));
    for needed in needed {
        ensure!(about.capabilities.contains(&needed), "{} has no {needed}", about.name);
    }
    Ok(())
}

/// Does what `steps` say with a device that runs, and gives what came of it. `tell` is given every line as it comes.
///
/// # Errors
///
/// Where the device cannot do that, or something that is waited for does not come.
pub fn lab(dut: &mut dyn Dut, steps: Vec<Line>, folder: &Path, tell: &mut dyn FnMut(&Line)) -> Result<Trace> {
    possible(dut.about(), &steps)?;
    let options = Options { long: false, only: vec![], seed: 0, soak: Duration::ZERO, shard: Shard::default() };
    follow(&mut Bench::new(dut, folder, &options)?, steps, tell)
}

/// The same on a bench.
pub(super) fn follow(bench: &mut Bench, steps: Vec<Line>, tell: &mut dyn FnMut(&Line)) -> Result<Trace> {
    let mark = newest(bench)?;
    let mut lab = Lab { begin: Instant::now(), trace: Trace::default(), mark, shown: None, tell };
    let mut steps: VecDeque<Line> = steps.into();
    let mut waiting = VecDeque::new();
    let mut failed = false;
    while let Some(Line { at_s, what }) = steps.pop_front() {
        lab.wait(at_s);
        match what {
            // There is no camera that could show it; it is shown when there is one again.
            what @ What::Show { .. } if failed => waiting.push_back(what),
            What::Show { .. } => lab.show(bench, what)?,
            What::Fault(name) => {
                failed = lab.fault(bench, &name)?;
                while let (false, Some(what)) = (failed, waiting.pop_front()) {
                    lab.show(bench, what)?;
                }
            }
            What::Told { .. } | What::Decided(_) => bail!("a step is something that is done"),
        }
    }
    Ok(lab.trace)
}

/// The monotonic time of the log's last line.
fn newest(bench: &mut Bench) -> Result<f64> {
    Ok(bench.tail()?.last().and_then(|line| line["monotonic_s"].as_f64()).unwrap_or(-1.0))
}

struct Lab<'a> {
    begin: Instant,
    trace: Trace,
    /// What of the log is told, by the clock that it counts by.
    mark: f64,
    /// The frame that is shown.
    shown: Option<edge_link::RawFrame>,
    tell: &'a mut dyn FnMut(&Line),
}

impl Lab<'_> {
    fn wait(&self, at_s: f64) {
        let until = self.begin + Duration::from_secs_f64(at_s.clamp(0.0, 86_400.0));
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }

    fn note(&mut self, what: What) {
        let at_s = (self.begin.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        let line = Line { at_s, what };
        (self.tell)(&line);
        self.trace.0.push(line);
    }

    fn show(&mut self, bench: &mut Bench, what: What) -> Result<()> {
        let What::Show { picture, digest: expected, format, size } = &what else { return Ok(()) };
        let bytes = std::fs::read(picture).with_context(|| format!("cannot read {}", picture.display()))?;
        let found = hex(&digest(&bytes));
        ensure!(found == *expected, "{} is another picture than it was ({found})", picture.display());
        let shown = frame(&bytes, *format, *size).with_context(|| picture.display().to_string())?;
        self.note(what.clone());
        self.shown = Some(shown.clone());
        let sight = bench.show(shown)?;
        self.heard(bench)?;
        self.decided(bench, sight.last)
    }

    /// Notes what the log tells of the camera since it was looked at last; whether it told of a silence, and of its end.
    fn heard(&mut self, bench: &mut Bench) -> Result<(bool, bool)> {
        let mut heard = (false, false);
        for line in bench.tail()? {
            let Some(at) = line["monotonic_s"].as_f64().filter(|at| *at > self.mark) else { continue };
            self.mark = at;
            let Some(event) = line["event"].as_str().filter(|event| event.starts_with("camera_")) else { continue };
            heard = (heard.0 || event != "camera_back", heard.1 || event == "camera_back");
            let detail = line["detail"].as_str().unwrap_or_default().to_owned();
            self.note(What::Told { event: event.into(), detail });
        }
        Ok(heard)
    }

    fn decided(&mut self, bench: &mut Bench, frame: u64) -> Result<()> {
        bench.wait_until_logged(frame)?;
        let line = bench.tail()?.into_iter().rfind(|line| line["frame"] == frame);
        let line = line.with_context(|| format!("frame {frame} is not in the log"))?;
        let label = line["decision"].as_str().context("a frame without a decision")?.to_owned();
        let shown = self.shown.clone().context("nothing was shown")?;
        let expected = bench.reference().classify(&PictureData::Raw(shown))?.decision;
        ensure!(label == expected, "it decides for {label}, this machine for {expected}");
        self.note(What::Decided(label));
        Ok(())
    }

    /// Lets the camera fail, or go on. Whether it fails from now on.
    fn fault(&mut self, bench: &mut Bench, name: &str) -> Result<bool> {
        let fault = match name.split_once(' ') {
            Some(("fail", kind)) => CameraFault::Fail(failing(kind)?),
            _ => match name {
                "stall" => CameraFault::Stall,
                "resume" => CameraFault::Resume,
                "disconnect" => CameraFault::Disconnect,
                "reconnect" => CameraFault::Reconnect,
                other => bail!("{other:?} is no fault"),
            },
        };
        self.heard(bench)?;
        self.note(What::Fault(name.into()));
        bench.dut.fault(fault)?;
        let patience = bench.patience();
        if matches!(fault, CameraFault::Fail(kind) if kind != Failing::Streaming) {
            // A camera that is open asks for no buffers: it has to be opened anew.
            bench.dut.fault(CameraFault::Fail(Failing::Streaming))?;
        }
        let begins = !matches!(fault, CameraFault::Resume | CameraFault::Reconnect);
        let mut back = false;
        if begins {
            bench.wait_for(&format!("the camera tells of it ({name})"), patience, |bench| {
                let (silent, again) = self.heard(bench)?;
                back = again;
                Ok(silent.then_some(()))
            })?;
        }
        if matches!(fault, CameraFault::Stall | CameraFault::Disconnect) {
            return Ok(true);
        }
        if !back {
            bench.wait_for(&format!("the camera delivers again ({name})"), patience, |bench| {
                Ok(self.heard(bench)?.1.then_some(()))
            })?;
        }
        let Some(shown) = self.shown.clone() else { return Ok(false) };
        let frame = bench.delivered("what was shown is delivered again", &shown, None)?;
        self.decided(bench, frame)?;
        Ok(false)
    }
}
