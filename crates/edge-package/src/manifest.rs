//! What a package says of itself. Field and variant order is the wire format: append, never reorder.

use crate::{Digest, PackageError};
use edge_vision::{Layout, Preprocess, ResizeSpec, Resizer};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a decision says when no class reaches the threshold.
pub const UNKNOWN: &str = "unknown";
/// More classes than any classifier in use; a bound for readers.
pub const MAX_LABELS: usize = 100_000;
/// The largest input side a package may ask for, in pixels.
const MAX_SIDE: u32 = 8192;
/// Bounds for readers, so that checking a hostile package takes no longer than checking a large one.
const MAX_PARTS: usize = 1024;
/// See [`MAX_PARTS`].
pub const MAX_GOLDENS: usize = 64;
/// The most pixels all synthetic golden samples may have together.
const MAX_SYNTHETIC_PIXELS: u64 = 32 << 20;

/// The manifest of a package: the contract between the host that packaged and the device that classifies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// A short name for people and logs.
    pub name: String,
    /// Grows with every release of one model; an update never goes back.
    pub sequence: u64,
    /// Boards the package may run on; empty means any.
    pub boards: Vec<String>,
    /// The oldest runtime that can run this package.
    pub minimum_runtime: Version,
    /// Seconds since 1970-01-01 UTC; `SOURCE_DATE_EPOCH` when that was set.
    pub created: u64,
    /// The network.
    pub model: ModelInfo,
    /// What the network wants to be given.
    pub input: InputSpec,
    /// From picture to H × W: size, policy, interpolation.
    pub resize: ResizeSpec,
    /// From 8-bit RGB to float32.
    pub preprocess: Preprocess,
    /// From the network's output to scores.
    pub activation: Activation,
    /// Below this score the decision is "unknown"; `None` always decides for the best class.
    pub threshold: Option<f32>,
    /// Whether pictures from files are turned as their EXIF orientation says; Keras does not.
    pub exif_orientation: bool,
    /// One per output of the network, in its order.
    pub labels: Vec<Label>,
    /// Pictures with the tensor and the logits they gave when packaging.
    pub goldens: Vec<Golden>,
    /// How far the logits of a golden sample may be off on another machine.
    pub tolerance: Tolerance,
    /// Where everything came from: (key, value) pairs for people.
    pub provenance: Vec<(String, String)>,
    /// The payload, in file order. Part 0 is the model.
    pub parts: Vec<Part>,
    /// What is allowed where another backend than `cpu` computes, by its name; see [`Manifest::tolerance_of`]. Written after
    /// everything else, and only where there is any.
    #[serde(skip)]
    pub tolerances: Vec<(String, Tolerance)>,
}

/// Which network, and what kind of numbers it computes with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Name of the part that holds the ONNX file.
    pub part: String,
    /// The opset version of the default ONNX domain.
    pub opset: u32,
    /// Float or quantized.
    pub precision: Precision,
    /// Name of the graph output that holds the classes.
    pub output: String,
}

/// Arithmetic of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32 (weights may be stored smaller).
    Float,
    /// QDQ int8.
    Int8,
}

/// The one input of the network: a float32 tensor of one RGB picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputSpec {
    /// Name of the graph input.
    pub name: String,
    /// (1,H,W,3) or (1,3,H,W).
    pub layout: Layout,
    /// H in pixels.
    pub height: u32,
    /// W in pixels.
    pub width: u32,
}

impl InputSpec {
    /// The tensor's shape: (1,H,W,3) or (1,3,H,W).
    pub fn shape(&self) -> [usize; 4] {
        let (h, w) = (self.height as usize, self.width as usize);
        match self.layout {
            Layout::Nhwc => [1, h, w, 3],
            Layout::Nchw => [1, 3, h, w],
        }
    }

    /// Number of float32 values in the tensor.
    pub fn len(&self) -> usize {
        3 * self.height as usize * self.width as usize
    }

    /// Whether the tensor has no values; never true of a verified package.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// From the network's outputs to scores in 0…1. Applied exactly once, by the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// The outputs are logits of exclusive classes.
    Softmax,
    /// The outputs are logits of independent classes.
    Sigmoid,
    /// The outputs are scores already; nothing is applied.
    Probabilities,
}

impl Activation {
    /// The name used in JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Softmax => "softmax",
            Activation::Sigmoid => "sigmoid",
            Activation::Probabilities => "probabilities",
        }
    }
}

/// A class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// WordNet id such as `n02123045`, where the labels have one.
    pub id: Option<String>,
    /// The name shown to people.
    pub label: String,
}

/// A picture whose tensor and logits are known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    /// File name of the picture, or `synthetic-SEED`.
    pub name: String,
    /// Where the picture comes from.
    pub source: GoldenSource,
    /// BLAKE3-256 of the preprocessed tensor, float32 little-endian in the layout of the input.
    pub tensor: Digest,
    /// The network's outputs when packaging, one per class.
    pub logits: Vec<f32>,
}

/// Where a golden sample's picture comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum GoldenSource {
    /// A JPEG or PNG stored as the part of this name.
    Part(String),
    /// `edge_vision::synthetic(seed, width, height)`.
    Synthetic {
        /// Seed of the pattern.
        seed: u64,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
}

/// The backend that [`Manifest::tolerance`] is for: the logits of golden samples come from it.
const CPU: &str = "cpu";
/// The name in [`Manifest::tolerances`] that is for the backend `cpu` where it computes in float16 arithmetic, which it does only
/// for packages that have it: then it was measured what that costs, and a golden sample tells when it is more.
pub const CPU_FLOAT16: &str = "cpu-float16";
/// TensorRT computes a float network in float16, which has 11 bits of precision and loses some of them in every layer. Chosen
/// with that in mind, and not measured on a GPU yet.
const FLOAT16_TOLERANCE: f32 = 0.02;
/// TensorRT fuses other layers than we do, and rounds elsewhere: so many times the steps. Not measured on a GPU yet.
const INT8_FACTOR: u32 = 4;
/// The most steps that may be allowed.
const MAX_STEPS: u32 = 64;
/// More backends than there are.
const MAX_BACKENDS: usize = 16;

/// How far logits may be off. The tensor's digest is always exact.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Tolerance {
    /// |Δ| ≤ `relative` × max|logit| of the sample.
    Float {
        /// 1e-3 by default.
        relative: f32,
    },
    /// |Δ| ≤ `steps` × `step`, and the same top-1.
    Int8 {
        /// How many quantization steps.
        steps: u32,
        /// The quantization step (scale) of the output.
        step: f32,
    },
}

/// A byte range of the payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Unique within the package.
    pub name: String,
    /// Relative to the payload offset.
    pub offset: u64,
    /// In bytes.
    pub length: u64,
    /// BLAKE3-256 of the bytes.
    pub digest: Digest,
}

/// A semantic version without pre-release tags; ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// Incompatible changes.
    pub major: u32,
    /// Additions.
    pub minor: u32,
    /// Repairs.
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Version {
    /// The version of this build.
    pub fn current() -> Version {
        let number = |s: &str| s.parse().unwrap_or(0);
        Version {
            major: number(env!("CARGO_PKG_VERSION_MAJOR")),
            minor: number(env!("CARGO_PKG_VERSION_MINOR")),
            patch: number(env!("CARGO_PKG_VERSION_PATCH")),
        }
    }

    /// The oldest runtime that reads what this build writes.
    pub fn oldest_reader() -> Version {
        Version { major: 0, minor: 1, patch: 0 }
    }
}

/// Whether every byte becomes a finite number; a zero or NaN deviation, say, gives none. An infinite one would
/// give zeros, which is no preprocessing either.
pub(crate) fn gives_numbers(preprocess: &Preprocess) -> bool {
    if let Preprocess::Affine { mean, std, .. } = preprocess
        && !mean.iter().chain(std).all(|v| v.is_finite())
    {
        return false;
    }
    (0..3).all(|channel| (0..=255).all(|byte| preprocess.value(channel, byte).is_finite()))
}

impl Manifest {
    /// Checks every rule that spans fields. A [`crate::VerifiedPackage`] only ever holds a manifest that passed.
    pub fn validate(&self) -> Result<(), PackageError> {
        let fail = |why: String| Err(PackageError::Manifest(why));
        let text = |what: &str, s: &str| -> Result<(), PackageError> {
            if s.is_empty() || s.len() > 1000 || s.chars().any(char::is_control) {
                return Err(PackageError::Manifest(format!(
                    "{what} {s:?} is empty, longer than 1000 bytes or has control characters"
                )));
            }
            Ok(())
        };
        text("the name", &self.name)?;
        text("the input name", &self.input.name)?;
        text("the output name", &self.model.output)?;
        for board in &self.boards {
            text("the board", board)?;
        }
        for (i, l) in self.labels.iter().enumerate() {
            text(&format!("label {i}"), &l.label)?;
            if let Some(id) = &l.id {
                text(&format!("the id of label {i}"), id)?;
            }
        }
        if self.labels.is_empty() || self.labels.len() > MAX_LABELS {
            return fail(format!("{} labels; 1 to {MAX_LABELS} are possible", self.labels.len()));
        }
        let sides = [self.input.height, self.input.width];
        if sides.iter().any(|s| !(1..=MAX_SIDE).contains(s)) {
            return fail(format!("input {} x {} pixels; sides of 1 to {MAX_SIDE} are possible", sides[1], sides[0]));
        }
        if (self.resize.width, self.resize.height) != (self.input.width, self.input.height) {
            return fail("the resize target is not the size of the input".into());
        }
        Resizer::new(self.resize).map_err(|e| PackageError::Manifest(e.to_string()))?;
        if !gives_numbers(&self.preprocess) {
            return fail("the preprocess step gives values that are not finite numbers".into());
        }
        if self.threshold.is_some_and(|t| !(0.0..=1.0).contains(&t)) {
            return fail("the threshold is not within 0…1".into());
        }
        let largest = self.goldens.iter().flat_map(|g| &g.logits).fold(0f32, |m, v| m.max(v.abs()));
        let usable = |tolerance: &Tolerance| match *tolerance {
            Tolerance::Float { relative } => relative.is_finite() && relative > 0.0 && relative <= 0.1,
            // A tolerance as large as the logits themselves would prove nothing.
            Tolerance::Int8 { steps, step } => {
                (1..=MAX_STEPS).contains(&steps) && step > 0.0 && steps as f32 * step <= largest.max(f32::MIN_POSITIVE)
            }
        };
        let others = self.tolerances.iter().map(|(_, tolerance)| tolerance);
        if let Some(bad) = others.chain([&self.tolerance]).find(|tolerance| !usable(tolerance)) {
            return fail(format!("the tolerance {bad:?} is not usable"));
        }
        if self.tolerances.len() > MAX_BACKENDS {
            return fail(format!("tolerances for {} backends", self.tolerances.len()));
        }
        for (i, (backend, _)) in self.tolerances.iter().enumerate() {
            text("the backend of a tolerance", backend)?;
            if backend == CPU || self.tolerances[..i].iter().any(|(other, _)| other == backend) {
                return fail(format!("there are two tolerances for the backend {backend:?}"));
            }
        }
        if !(1..=MAX_GOLDENS).contains(&self.goldens.len()) {
            return fail(format!("{} golden samples; 1 to {MAX_GOLDENS} are needed", self.goldens.len()));
        }
        if self.parts.len() > MAX_PARTS {
            return fail(format!("{} parts; up to {MAX_PARTS} are possible", self.parts.len()));
        }
        let mut synthetic_pixels = 0;
        for g in &self.goldens {
            if let GoldenSource::Synthetic { width, height, .. } = &g.source {
                synthetic_pixels += u64::from(*width) * u64::from(*height);
            }
            text("the golden sample", &g.name)?;
            if g.logits.len() != self.labels.len() || g.logits.iter().any(|v| !v.is_finite()) {
                return fail(format!("golden sample {:?} does not have one finite logit per label", g.name));
            }
            match &g.source {
                GoldenSource::Part(part) if !self.parts.iter().any(|p| &p.name == part) => {
                    return fail(format!("golden sample {:?} names the missing part {part:?}", g.name));
                }
                GoldenSource::Synthetic { width, height, .. }
                    if [width, height].iter().any(|s| !(1..=MAX_SIDE).contains(*s)) =>
                {
                    return fail(format!("golden sample {:?} has an impossible size", g.name));
                }
                _ => {}
            }
        }
        if synthetic_pixels > MAX_SYNTHETIC_PIXELS {
            return fail(format!("synthetic golden samples of {synthetic_pixels} pixels in all"));
        }
        if self.threshold.is_some() && self.labels.iter().any(|l| l.label == UNKNOWN) {
            return fail(format!("a label is {UNKNOWN:?}, which is what a decision below the threshold is called"));
        }
        for (i, p) in self.parts.iter().enumerate() {
            text("the part", &p.name)?;
            if self.parts[..i].iter().any(|q| q.name == p.name) {
                return fail(format!("two parts are named {:?}", p.name));
            }
        }
        match self.parts.first() {
            Some(p) if p.name == self.model.part => Ok(()),
            _ => fail("part 0 is not the model".into()),
        }
    }

    /// How far the logits of golden samples may be off where this backend computes: as the package says, else as
    /// [`Manifest::tolerance`] for `cpu`, and more for `tensorrt`, which computes with fewer bits. That is 0.02 of the largest
    /// logit for a float network, and four times the steps for a quantized one.
    pub fn tolerance_of(&self, backend: &str) -> Tolerance {
        if let Some((_, said)) = self.tolerances.iter().find(|(name, _)| name == backend) {
            return *said;
        }
        match (backend, self.tolerance) {
            ("tensorrt", Tolerance::Float { relative }) => {
                Tolerance::Float { relative: relative.max(FLOAT16_TOLERANCE) }
            }
            ("tensorrt", Tolerance::Int8 { steps, step }) => {
                Tolerance::Int8 { steps: steps.saturating_mul(INT8_FACTOR).min(MAX_STEPS), step }
            }
            (_, tolerance) => tolerance,
        }
    }

    /// Whether matrix products of float16 weights may be computed in float16 arithmetic; see [`CPU_FLOAT16`].
    pub fn allows_float16(&self) -> bool {
        self.tolerances.iter().any(|(name, _)| name == CPU_FLOAT16)
    }

    /// Refuses a runtime older than the package asks for.
    pub fn check_runtime(&self, running: Version) -> Result<(), PackageError> {
        if running < self.minimum_runtime {
            return Err(PackageError::RuntimeTooOld {
                needed: self.minimum_runtime.to_string(),
                running: running.to_string(),
            });
        }
        Ok(())
    }

    /// Refuses a board the package is not for.
    pub fn check_board(&self, board: &str) -> Result<(), PackageError> {
        if self.boards.is_empty() || self.boards.iter().any(|b| b == board) {
            return Ok(());
        }
        Err(PackageError::WrongBoard { allowed: self.boards.join(", "), board: board.into() })
    }
}
