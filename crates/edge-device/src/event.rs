//! The classification log: one JSON object a line.

use crate::{Classification, Classifier};
use edge_package::{Label, UNKNOWN};
use serde::{Deserialize, Serialize};
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
    /// Seconds since the program started, by a clock that never jumps.
    pub monotonic_s: f64,
    /// Number of the frame as the source counts, from 0; gaps are frames that were dropped for newer ones.
    pub frame: u64,
    /// The camera, or the picture's path.
    pub source: String,
    /// Best classes first.
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
    pub frame: u64,
    /// As in [`Event`].
    pub source: String,
    /// What was wrong.
    pub error: String,
}

/// Something that happened to the device and is no classification: a camera that stalled, a package that was reloaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// As in [`Event`], of the moment it was noticed.
    pub time: String,
    /// As in [`Event`].
    pub monotonic_s: f64,
    /// What kind of thing, in a word for programs: `camera_stalled`, `camera_lost`, `camera_back`, `log_gap`, `reloaded`…
    pub event: String,
    /// What happened, for people.
    pub detail: String,
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
    let labels = &classifier.manifest().labels;
    let decided = classification.decision.and_then(|class| labels.get(class));
    decided.map_or(UNKNOWN.into(), |l| l.label.clone())
}
