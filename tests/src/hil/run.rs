//! Runs cases.

use super::{Bench, CASES, Capability, Case, Dut, DutFile, Outcome, Run, Verdict};
use anyhow::Result;
use std::path::Path;
use std::str::FromStr;
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
    /// Of these cases, which.
    pub shard: Shard,
}

impl Options {
    /// The cases that are asked for.
    pub fn cases(&self) -> impl Iterator<Item = &'static Case> {
        let Shard { number, count } = self.shard;
        let asked = |case: &&Case| self.only.is_empty() || self.only.iter().any(|part| case.name.contains(part));
        CASES.iter().filter(asked).skip(number - 1).step_by(count)
    }
}

/// A share of the cases: several runs at once, each on a device of its own, do all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// From 1 on.
    number: usize,
    /// How many there are.
    count: usize,
}

impl Default for Shard {
    /// All of them.
    fn default() -> Shard {
        Shard { number: 1, count: 1 }
    }
}

impl FromStr for Shard {
    type Err = String;

    /// `2/3` is the second of three.
    fn from_str(text: &str) -> Result<Shard, String> {
        let parsed = text.split_once('/').and_then(|(number, count)| {
            let (number, count) = (number.parse().ok()?, count.parse().ok()?);
            (1..=count).contains(&number).then_some(Shard { number, count })
        });
        parsed.ok_or_else(|| format!("{text:?} is no share of the cases, such as 1/2 and 2/2"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_the_cases() {
        let names = |only: &[&str], shard: &str| -> Vec<&str> {
            let only = only.iter().map(|part| (*part).into()).collect();
            let shard = shard.parse().unwrap();
            let options = Options { long: false, only, seed: 0, soak: Duration::ZERO, shard };
            options.cases().map(|case| case.name).collect()
        };
        let all = names(&[], "1/1");
        assert_eq!(all, CASES.iter().map(|case| case.name).collect::<Vec<_>>());
        let mut shared: Vec<&str> = ["1/3", "2/3", "3/3"].iter().flat_map(|shard| names(&[], shard)).collect();
        shared.sort_by_key(|name| all.iter().position(|case| case == name));
        assert_eq!(shared, all);
        let photos = names(&["photos"], "1/1");
        assert_eq!([names(&["photos"], "1/2"), names(&["photos"], "2/2")].concat().len(), photos.len());
        assert!(photos.len() > 1 && names(&["photos"], "2/2")[0] == photos[1]);
        for wrong in ["", "1", "0/2", "3/2", "1/0", "a/b", "1/2/3", "-1/2"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong:?}");
        }
    }
}
