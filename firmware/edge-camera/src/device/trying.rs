//! The trial of a new package, as the running camera sees it: begun, told of, and ended.

use super::Device;
use crate::package::{self, Model};
use crate::slots::{Counted, unwritten};
use crate::stop::{Failure, Signals};
use crate::trial::{Tally, Trial, Verdict};
use edge_package::VerifiedPackage;
use edge_system::state::Reason;
use std::io;
use std::path::Path;
use std::time::Instant;

/// Has the start of a trial counted as one that ended well when the program ends in order.
pub fn uncount_at_end(signals: &Signals, trial: Option<&Counted>) {
    let counted = trial.cloned();
    signals.at_end(counted.map(|counted| -> crate::stop::LastAct { Box::new(move || counted.ended_well()) }));
}

impl Device {
    /// Begins the trial of the package that runs, or goes on with it after a reload. `ran` is what ran until now.
    pub(super) fn begin_trial(&mut self, counted: Option<Counted>, ran: Option<Model>) -> Result<(), Failure> {
        let rules = self.settings.trial;
        let running = self.trial.take();
        uncount_at_end(&self.signals, counted.as_ref());
        let Some(counted) = counted else {
            // Something else runs now than what was on trial.
            running.iter().for_each(|trial| trial.counted.ended_well());
            return Ok(());
        };
        let (before, path) = counted.before();
        let mut trial = match running {
            Some(trial) if trial.counted == counted => trial,
            _ => Trial { counted, tally: Tally::new(rules), since: Instant::now(), old: None },
        };
        let goes_on = trial.old.is_some();
        trial.tally.set(rules);
        if rules.share > 0.0 {
            match trial.old.take().map_or_else(|| self.before(&path, ran), |old| Ok(*old)) {
                Ok(mut old) => {
                    old.about = format!("slot {before}: {}", old.about.trim_start_matches(&format!("slot {before}: ")));
                    trial.old = Some(Box::new(old));
                }
                Err(why) => {
                    let (kept, why) = (trial.counted.keep(), format!("there is nothing to return to: {:#}", why.cause));
                    self.trial = Some(trial);
                    return self.kept(kept, Some(&why));
                }
            }
        } else {
            trial.old = None;
        }
        let time = humantime::format_duration(rules.time);
        let beside = match &trial.old {
            Some(old) => format!("; {} looks at some frames too and is in memory meanwhile", old.about),
            None => String::new(),
        };
        let slot = trial.counted.slot;
        self.trial = Some(trial);
        if goes_on {
            return Ok(());
        }
        self.notice("trial_began", &format!("the package in slot {slot} is on trial for {time}{beside}"))
    }

    /// The package before the one on trial, proven: the one that ran until now, if it is that.
    fn before(&mut self, path: &Path, ran: Option<Model>) -> Result<Model, Failure> {
        if let Some(ran) = ran
            && let Ok(package) = VerifiedPackage::open(path, &package::trust(&self.settings)?)
            && package.digest() == ran.digest
        {
            return Ok(ran);
        }
        package::load_file(&self.settings, &self.backend, path, &mut || self.service.progress())
    }

    /// Looks how the trial goes.
    pub(super) fn judge(&mut self) -> Result<(), Failure> {
        let Some(trial) = &mut self.trial else { return Ok(()) };
        let elapsed = trial.since.elapsed();
        match trial.tally.verdict(elapsed) {
            Verdict::Open if trial.tally.reports(elapsed) => {
                let (slot, told) = (trial.counted.slot, trial.tally.to_string());
                let numbers = trial.tally.comparison();
                self.log.notice_of_trial("package_trial", &format!("slot {slot} on trial: {told}"), Some(numbers))?;
                self.tell_news();
                Ok(())
            }
            Verdict::Open => Ok(()),
            Verdict::Keep => match trial.counted.keep() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
                kept => self.kept(kept, None),
            },
            Verdict::Return(why) => self.give_up(Reason::Behaviour, &why),
        }
    }

    /// The network of the package that runs failed: that is the end of a trial.
    pub(super) fn network_failed(&mut self, error: &str) -> Result<(), Failure> {
        self.give_up(Reason::Failed, error)
    }

    /// The trial has ended well, or there is nothing to return to, which `why` says.
    fn kept(&mut self, kept: io::Result<()>, why: Option<&str>) -> Result<(), Failure> {
        let Some(Trial { counted, tally, .. }) = self.trial.take() else { return Ok(()) };
        uncount_at_end(&self.signals, None);
        let unwritten = unwritten(kept);
        let why = why.map_or_else(|| tally.to_string(), Into::into);
        let detail = format!("the package in slot {} is kept{unwritten}: {why}", counted.slot);
        self.log.notice_of_trial("package_kept", &detail, Some(tally.comparison()))?;
        self.tell_news();
        Ok(())
    }

    /// Goes on with the package before the one on trial.
    fn give_up(&mut self, reason: Reason, why: &str) -> Result<(), Failure> {
        let Some(mut trial) = self.trial.take() else { return Ok(()) };
        let (slot, path) = trial.counted.before();
        let old = match trial.old.take() {
            Some(old) => Ok(*old),
            None => package::load_file(&self.settings, &self.backend, &path, &mut || self.service.progress()),
        };
        match old {
            Ok(old) => {
                let unwritten = unwritten(trial.counted.give_up(reason));
                uncount_at_end(&self.signals, None);
                self.model = old;
                self.changed();
                let detail =
                    format!("slot {slot} runs again{unwritten}: of the package in slot {}: {why}", slot.other());
                self.log.notice_of_trial("package_returned", &detail, Some(trial.tally.comparison()))?;
                self.tell_news();
                self.service.ready(&self.model.about);
                Ok(())
            }
            Err(refused) => {
                let why = format!("there is nothing to return to ({:#}), though {why}", refused.cause);
                let kept = trial.counted.keep();
                self.trial = Some(trial);
                self.kept(kept, Some(&why))
            }
        }
    }
}
