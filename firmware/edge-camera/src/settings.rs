//! What command line and configuration file come to: resolved once, plain, and what the rest of the program uses.

use crate::args::Args;
use crate::config::Value;
use crate::log;
use crate::stop::Failure;
use crate::trial::Rules;
use crate::units::Size;
use anyhow::anyhow;
use edge_device::{Decider, Policy};
use edge_system::board;
use edge_system::check::LOG_FILES;
use std::path::PathBuf;

/// Which package runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// The model that is part of the program.
    BuiltIn,
    /// This file.
    File(PathBuf),
    /// The active one of two.
    Slots(PathBuf),
}

/// Everything that can be set, consistent with itself.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What needs no resolving.
    pub args: Args,
    /// Which package runs.
    pub package: Choice,
    /// How scores become decisions.
    pub policy: Policy,
    /// When a new package is kept.
    pub trial: Rules,
    /// Where and how the log is written.
    pub log: log::Options,
    /// All keys with their values, as a configuration file spells them.
    pub values: Vec<Value>,
}

impl Settings {
    /// Brings together what depends on more than one flag; refuses what contradicts itself.
    pub fn new(args: Args, values: Vec<Value>) -> Result<Settings, Failure> {
        let package = match (&args.package, &args.slots) {
            (Some(_), Some(_)) => return Err(usage("`package` and `slots` both say what runs; set one of them")),
            (Some(file), None) => Choice::File(file.clone()),
            (None, Some(folder)) => Choice::Slots(folder.clone()),
            (None, None) => Choice::BuiltIn,
        };
        let policy = Policy {
            threshold: args.threshold,
            leave: args.leave_threshold,
            margin: args.margin,
            smooth: args.smooth,
            dwell: args.dwell,
        };
        if policy.threshold.is_some() {
            // Without one here the package's counts, which is not known yet.
            Decider::new(policy, None).map_err(Failure::usage)?;
        }
        let trial = Rules {
            time: args.trial,
            share: args.trial_share.into(),
            latency: args.trial_latency,
            agreement: args.trial_agreement.map(f64::from),
        };
        let rotation = match (args.log_max_size, args.log_total) {
            (None, None) => None,
            (Some(Size(max)), Some(Size(total))) if total < max => {
                return Err(usage("`log-total` is smaller than `log-max-size`; it has to hold at least one file"));
            }
            (Some(Size(max)), total) => {
                Some(log::Rotation { max, total: total.map_or(max.saturating_mul(LOG_FILES), |t| t.0) })
            }
            (None, Some(Size(total))) => Some(log::Rotation { max: (total / LOG_FILES).max(1), total }),
        };
        let log = log::Options {
            path: args.log.clone(),
            rotation,
            sync: args.log_sync,
            budget: args.log_budget.map(|b| b.0.0),
            on_change: args.on_change,
        };
        Ok(Settings { args, package, policy, trial, log, values })
    }

    /// Whether a camera that is not there is waited for: where a host can ask what is the matter.
    pub fn is_patient(&self) -> bool {
        !self.args.link.is_empty()
    }

    /// The folder of the slots, where there are any.
    pub fn slots(&self) -> Option<PathBuf> {
        match &self.package {
            Choice::Slots(folder) => Some(folder.clone()),
            Choice::BuiltIn | Choice::File(_) => None,
        }
    }

    /// Which board this is: as configured, else as the device tree says.
    pub fn board(&self) -> &str {
        self.args.board.as_deref().unwrap_or_else(|| board::this_board())
    }

    /// Whether a flag under this heading of `--help` has another value in `other`.
    pub fn differs(&self, other: &Settings, heading: &str) -> bool {
        let under = |settings: &Settings| {
            let is = |v: &&Value| v.heading.as_deref() == Some(heading);
            settings.values.iter().filter(is).cloned().collect::<Vec<_>>()
        };
        under(self) != under(other)
    }
}

fn usage(what: &str) -> Failure {
    Failure::usage(anyhow!("{what}"))
}
