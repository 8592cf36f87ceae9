//! Transfer learning, on the host only: a folder of labelled photos becomes a classifier.
//!
//! ```text
//! photos ── photos.rs: read, split ── base.rs: the network without its classifier ── features.rs: vectors, cached
//!                                                                                            │
//!           ONNX with labels, preprocess, resize ── base.rs ── head of the best epoch ── fit.rs, head.rs
//!           report.rs: a page to look at
//! ```
//!
//! Pictures are read, resized and preprocessed by the code of the device, and the base runs in the kernels of the device: what is
//! trained on is what the camera will see.

pub mod base;
pub mod checkpoint;
mod error;
pub mod features;
pub mod fit;
pub mod head;
pub mod history;
pub mod photos;
mod random;
pub mod report;
pub mod sheet;
pub mod tail;

pub use error::TrainError;
