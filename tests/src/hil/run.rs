//! Runs cases.

use super::{Bench, CASES, Capability, Case, Dut, DutFile, Outcome, Run, Verdict};
use anyhow::Result;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Cases that take long, too.
    pub long: bool,
    /// Only cases whose name holds one of these; all where there are none.
    pub only: Vec<String>,
    /// What is left to chance is chosen by this.
    pub seed: u64,
    /// How long memory is looked at.
    pub soak: Duration,
}

impl Options {
    /// The cases that are asked for.
    pub fn cases(&self) -> impl Iterator<Item = &'static Case> {
        CASES.iter().filter(|case| self.only.is_empty() || self.only.iter().any(|part| case.name.contains(part)))
    }
}

/// Why a case is skipped on a device, if it is.
pub fn missing(case: &Case, file: &DutFile, long: bool) -> Option<String> {
    let missing: Vec<String> =
        case.needs.iter().filter(|need| !file.capabilities.contains(need)).map(Capability::to_string).collect();
    match missing.is_empty() {
        false => Some(format!("{} has no {}", file.name, missing.join(", no "))),
        true => (case.long && !long).then(|| "only with --long".to_owned()),
    }
}

/// Starts the device and runs the cases that it has what they need for, all of them even where one fails. `tell` is given
/// every outcome as it comes. What there is to see goes to `folder`.
pub fn run(dut: &mut dyn Dut, options: &Options, folder: &Path, tell: &mut dyn FnMut(&Outcome)) -> Run {
    let begin = Instant::now();
    let mut run = Run {
        dut: dut.about().name.clone(),
        started: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        seconds: 0.0,
        long: options.long,
        seed: options.seed,
        device: None,
        first_class_s: None,
        retries: 0,
        broken: None,
        cases: vec![],
    };
    if let Err(why) = all(dut, options, folder, tell, &mut run) {
        run.broken = Some(format!("{why:#}"));
    }
    run.retries = dut.retries();
    run.seconds = begin.elapsed().as_secs_f64();
    run
}

fn all(
    dut: &mut dyn Dut,
    options: &Options,
    folder: &Path,
    tell: &mut dyn FnMut(&Outcome),
    run: &mut Run,
) -> Result<()> {
    run.first_class_s = dut.boot()?;
    if dut.about().capabilities.contains(&Capability::Link) {
        run.device = dut.link()?.hello().map(|hello| {
            let (board, about) = (&hello.board, &hello.about);
            format!("{board}: {about}; {}; edge-camera {}", hello.source, hello.runtime)
        });
    }
    let mut bench = Bench::new(dut, folder, options)?;
    for case in options.cases() {
        let begin = Instant::now();
        let skipped = missing(case, bench.dut.about(), options.long);
        let (verdict, why) = match skipped {
            Some(why) => (Verdict::Skipped, Some(why)),
            None => match (case.run)(&mut bench) {
                Ok(()) => (Verdict::Passed, None),
                Err(why) => (Verdict::Failed, Some(format!("{why:#}"))),
            },
        };
        let (figures, evidence) = bench.found();
        let (name, about) = (case.name.into(), case.about.into());
        let seconds = begin.elapsed().as_secs_f64();
        let outcome = Outcome { name, about, verdict, why, seconds, figures, evidence };
        tell(&outcome);
        run.cases.push(outcome);
    }
    Ok(())
}
