//! The classification log: one JSON object a line.

use crate::{Classification, Classifier};
use edge_package::{Label, UNKNOWN};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// A class with its score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Index of the class, from 0.
    pub index: usize,
    /// WordNet id, where the labels have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The label.
    pub label: String,
    /// 0…1.
    pub score: f32,
}

impl Score {
    /// Labels (class, score) pairs.
    pub fn label(pairs: &[(usize, f32)], labels: &[Label]) -> Vec<Score> {
        let one = |(index, score): &(usize, f32)| {
            let label = labels.get(*index)?;
            Some(Score { index: *index, id: label.id.clone(), label: label.label.clone(), score: *score })
        };
        pairs.iter().filter_map(one).collect()
    }
}

/// Milliseconds spent in each stage of one frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyMs {
    /// From the camera's or the file's bytes to RGB.
    pub decode: f64,
    /// To the network's size.
    pub resize: f64,
    /// To float32.
    pub preprocess: f64,
    /// The network.
    pub infer: f64,
    /// From having the frame's bytes to having decided.
    pub total: f64,
}

/// One classified frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Wall clock at capture, RFC 3339, UTC, milliseconds.
    pub time: String,
    /// Seconds since the program started, by a clock that never jumps; never less than on the line before.
    pub monotonic_s: f64,
    /// Whether the wall clock was set by a time server or a receiver; null where the kernel does not say. A board
    /// without a clock battery starts at a wrong time.
    #[serde(default)]
    pub clock_synced: Option<bool>,
    /// Number of the frame as the source counts, from 0; gaps are frames that were dropped for newer ones.
    pub frame: u64,
    /// The camera, or the picture's path.
    pub source: String,
    /// Best classes first, with the scores decided on: the mean of the last frames where smoothing is asked for.
    pub top: Vec<Score>,
    /// The label decided for, or `unknown`.
    pub decision: String,
    /// Index of the class decided for; null when unknown. Labels may repeat, indices do not.
    pub class: Option<usize>,
    /// Milliseconds per stage.
    pub latency_ms: LatencyMs,
    /// Digest of the package, 64 hexadecimal digits.
    pub package: String,
    /// What computed: `cpu` or `tensorrt`.
    pub backend: String,
}

/// A frame that could not be classified.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// As in [`Event`].
    pub time: String,
    /// As in [`Event`].
    pub monotonic_s: f64,
    /// As in [`Event`].
    #[serde(default)]
    pub clock_synced: Option<bool>,
    /// As in [`Event`].
    pub frame: u64,
    /// As in [`Event`].
    pub source: String,
    /// What was wrong.
    pub error: String,
    /// As in [`Event`]; empty in logs of earlier versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub backend: String,
}

/// Something that happened to the device and is no classification: a camera that stalled, a package that was reloaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// As in [`Event`], of the moment it was noticed.
    pub time: String,
    /// As in [`Event`].
    pub monotonic_s: f64,
    /// As in [`Event`].
    #[serde(default)]
    pub clock_synced: Option<bool>,
    /// As in [`Event`]; empty in logs of earlier versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub backend: String,
    /// What kind of thing, in a word for programs: `camera_stalled`, `camera_lost`, `camera_back`, `log_gap`, `reloaded`…
    pub event: String,
    /// What happened, for people.
    pub detail: String,
    /// Of the trial of a new package: what it and the one before it said of the same frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Comparison>,
}

/// A new package beside the one before it, on live frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Frames that the new one classified.
    pub frames: u64,
    /// Frames of those that the old one classified too.
    pub compared: u64,
    /// Frames of these for which both decided the same, each by its own threshold and without the frames before.
    pub same_decision: u64,
    /// Frames of these for which both had the same best class.
    pub same_best: u64,
    /// Milliseconds of the new one on these frames, from having the frame's bytes to having the scores.
    pub latency_ms: Percentiles,
    /// Milliseconds of the old one.
    pub old_latency_ms: Percentiles,
}

/// Percentiles of one stage, in milliseconds, to 2 %; the largest one exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half of the frames took no longer.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// Ninety-nine of a hundred.
    pub p99: f64,
    /// All of them.
    pub max: f64,
}

/// [`Percentiles`] of each stage, as in [`LatencyMs`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct StagePercentiles {
    pub decode: Percentiles,
    pub resize: Percentiles,
    pub preprocess: Percentiles,
    pub infer: Percentiles,
    pub total: Percentiles,
}

/// What happened since the summary before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// As in [`Event`], of the moment it was written.
    pub time: String,
    /// As in [`Event`].
    pub monotonic_s: f64,
    /// As in [`Event`].
    #[serde(default)]
    pub clock_synced: Option<bool>,
    /// As in [`Event`]; empty in logs of earlier versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub backend: String,
    /// What it sums up.
    pub summary: Totals,
}

/// The numbers of a [`Summary`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Seconds that it covers.
    pub seconds: f64,
    /// Frames that the source gave, faults included.
    pub frames: u64,
    /// Frames that could not be classified.
    pub faults: u64,
    /// Frames that the source dropped for newer ones.
    pub drops: u64,
    /// Frames per second.
    pub fps: f64,
    /// Milliseconds per stage.
    pub latency_ms: StagePercentiles,
    /// Frames per decision.
    pub decisions: BTreeMap<String, u64>,
    /// Memory of the process, in MB (10⁶ bytes); null where it cannot be read.
    pub rss_mb: Option<f64>,
    /// Open files of the process; null where they cannot be counted.
    pub open_files: Option<usize>,
    /// The hottest sensor of the board; null where there is none.
    pub temperature_c: Option<f64>,
}

/// Wall-clock time as the log writes it.
pub fn wall_time(time: SystemTime) -> String {
    // humantime panics on nothing that a clock can show, but a clock before 1970 is clamped to it.
    humantime::format_rfc3339_millis(time.max(SystemTime::UNIX_EPOCH)).to_string()
}

/// A duration in milliseconds with microsecond resolution, as the log writes it.
pub fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// The label a classification decided for, or [`UNKNOWN`].
pub fn decision_label(classifier: &Classifier, classification: &Classification) -> String {
    class_label(&classifier.manifest().labels, classification.decision)
}

/// The label of a class, or [`UNKNOWN`].
pub fn class_label(labels: &[Label], class: Option<usize>) -> String {
    class.and_then(|class| labels.get(class)).map_or(UNKNOWN.into(), |l| l.label.clone())
}
