//! What every way of running a network has in common.

use crate::{Cost, EngineError};
use std::fmt;
use std::ops::DerefMut;
use std::time::Duration;

/// How to load.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// Threads that compute one picture, 1 to 256.
    pub threads: usize,
}

impl Default for LoadOptions {
    /// As many threads as this process may use cores.
    fn default() -> LoadOptions {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(256));
        LoadOptions { threads }
    }
}

/// What a backend says of itself; it stands in every log line and report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// `cpu` or `tensorrt`.
    pub backend: &'static str,
    /// Which of a manifest's tolerances is for it: the backend's, or [`edge_package::CPU_FLOAT16`].
    pub tolerance: &'static str,
    /// The library that computes, with its version.
    pub engine: String,
    /// The instruction sets that matter and that this machine has.
    pub isa: String,
    /// Threads in use.
    pub threads: usize,
    /// Number of outputs, one per class.
    pub classes: usize,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {}, {} threads)", self.backend, self.engine, self.isa, self.threads)
    }
}

/// A part of a network: what computes it, and how long that took.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Names of the nodes in the ONNX file.
    pub nodes: Vec<String>,
    /// The library that computes them.
    pub by: &'static str,
    /// What runs, or why no kernel of ours does.
    pub what: String,
    /// Multiplications, each with an addition; 0 where they are not counted.
    pub macs: usize,
    /// Time of the last run, where it is measured.
    pub time: Option<Duration>,
}

/// Values that are written where they are needed.
pub type Buffer = Box<dyn DerefMut<Target = [f32]>>;

/// A loaded network that classifies one picture at a time. How it is loaded is each backend's own: one needs threads, the
/// other a folder for engines.
pub trait Backend {
    /// Memory for the `len` values of a picture. Any slice may be classified; from this memory it costs the least.
    fn buffer(&mut self, len: usize) -> Buffer {
        Box::new(vec![0.0; len])
    }

    /// Runs the network on one preprocessed picture. `tensor` holds the values of shape
    /// [`edge_package::InputSpec::shape`]; `logits` gets one value per class, exactly as the network gives them.
    /// NaN or infinity among them is an error.
    fn classify(&mut self, tensor: &[f32], logits: &mut [f32]) -> Result<(), EngineError>;

    /// What this backend is.
    fn description(&self) -> &Description;

    /// Which node runs where, in the order of computation.
    fn parts(&self) -> Vec<Part>;

    /// What a picture costs, counted; `None` where that is not known.
    fn cost(&self) -> Option<Cost> {
        None
    }
}
