//! What can be missing or go wrong, and what to do about it.

use crate::Version;
use std::path::PathBuf;

/// Each way in which a network does not come to run on TensorRT.
#[derive(Debug, thiserror::Error)]
pub enum TensorRtError {
    /// A library is not here, or the dynamic loader does not take it.
    #[error("{library} cannot be loaded: {why}; {fix}")]
    Library {
        /// Its file name.
        library: String,
        /// What the loader says.
        why: String,
        /// Where it comes from.
        fix: &'static str,
    },
    /// A library of that name has not the functions that it should.
    #[error("{library} is not what it should be: {why}")]
    Symbol {
        /// Its file name.
        library: String,
        /// Which one is missing.
        why: String,
    },
    /// A call of the CUDA driver failed.
    #[error("{call} of the CUDA driver failed: {name} ({code}){hint}")]
    Cuda {
        /// The function.
        call: &'static str,
        /// The error's name.
        name: String,
        /// The error's number.
        code: i32,
        /// What to do, where that is known.
        hint: &'static str,
    },
    /// The driver works, and there is nothing for it.
    #[error(
        "the CUDA driver is here, but it finds no GPU; `nvidia-smi` (on a Jetson `tegrastats`) shows what the system sees"
    )]
    NoDevice,
    /// A version whose interface is not known.
    #[error("TensorRT {found} ({library}) is not supported; versions 8.6 to 10.x are")]
    Version {
        /// Which one it is.
        found: Version,
        /// Its library.
        library: String,
    },
    /// A call of TensorRT failed.
    #[error("TensorRT's {call} failed{}", listed(.said))]
    Call {
        /// The method.
        call: &'static str,
        /// What TensorRT logged.
        said: Vec<String>,
    },
    /// What TensorRT gave is no object of its classes.
    #[error("TensorRT's {call} gave something that is no object ({why}){}; it is not used", listed(.said))]
    Garbage {
        /// The method.
        call: &'static str,
        /// What is wrong with it.
        why: &'static str,
        /// What TensorRT logged.
        said: Vec<String>,
    },
    /// An engine is not what the package says.
    #[error("the engine does not fit the package: {0}")]
    Contract(String),
    /// A buffer has another length than the network's tensor.
    #[error("{what} has {found} values, {expected} expected")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length wanted.
        expected: usize,
    },
    /// The folder for engines cannot be used.
    #[error("the folder for engines, {}, cannot be used: {why}", .folder.display())]
    Cache {
        /// The folder.
        folder: PathBuf,
        /// Why not, and what to do.
        why: String,
    },
    /// The program that builds engines is not here.
    #[error(
        "there is no trtexec, neither in PATH nor in /usr/src/tensorrt/bin, to build an engine with; on a Jetson it comes with `apt install libnvinfer-bin`"
    )]
    NoTrtexec,
    /// The program that builds engines failed.
    #[error("{} built no engine: {why}{}", .trtexec.display(), listed(.said))]
    Build {
        /// The program.
        trtexec: PathBuf,
        /// How it ended.
        why: String,
        /// Its last words on what was wrong.
        said: Vec<String>,
    },
}

impl TensorRtError {
    /// Whether an engine that was built earlier may be what is wrong, rather than the machine.
    pub(crate) fn blames_engine(&self) -> bool {
        matches!(self, TensorRtError::Call { .. } | TensorRtError::Contract(_))
    }
}

fn listed(lines: &[String]) -> String {
    if lines.is_empty() { String::new() } else { format!(": {}", lines.join(" | ")) }
}
