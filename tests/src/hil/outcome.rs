//! What a run leaves behind: `last.json` is [`Run`], and reports are made of it.

use serde::{Deserialize, Serialize};

/// All of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Name of the device.
    pub dut: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// Seconds.
    pub seconds: f64,
    /// With cases that take long.
    pub long: bool,
    /// What chose whatever was left to chance; `--seed` with it does the same again.
    pub seed: u64,
    /// Who answered: board, instruction set, package.
    pub device: Option<String>,
    /// Seconds from power on to the first class, by the device's clock.
    pub first_class_s: Option<f64>,
    /// How many starts stalled and were tried again.
    pub retries: u32,
    /// Why no case could be run.
    pub broken: Option<String>,
    /// A case each.
    pub cases: Vec<Outcome>,
}

impl Run {
    /// How many cases had this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.cases.iter().filter(|case| case.verdict == verdict).count()
    }

    /// Whether nothing was wrong, and something was looked at.
    pub fn passed(&self) -> bool {
        self.broken.is_none() && self.count(Verdict::Failed) == 0 && self.count(Verdict::Passed) > 0
    }
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Why it failed or was skipped.
    pub why: Option<String>,
    /// Seconds.
    pub seconds: f64,
    /// Numbers that it took.
    pub figures: Vec<Figure>,
    /// Pictures that it took.
    pub evidence: Vec<Evidence>,
}

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is true.
    Passed,
    /// It is not.
    Failed,
    /// It was not looked at.
    Skipped,
}

/// A number with a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Of what.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of which unit; may be empty.
    pub unit: String,
}

/// A picture with what is to be said of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// What it is.
    pub caption: String,
    /// A PNG file, relative to the folder of `last.json`.
    pub file: String,
}
