//! Tensor → logits → decision.
//!
//! The only crate that names tract. [`OnnxModel`] reads an ONNX file and says what it is (input, output,
//! opset, what it cannot do); a [`Backend`] runs it, one picture at a time; [`decision`] turns its outputs
//! into scores, the best classes and a verdict. Nothing here knows of files, cameras or packages' bytes; the folder of engines
//! that the backend `tensorrt` takes is the business of `edge-tensorrt`, which it stands on.

pub mod decision;

mod backend;
mod cost;
mod cpu;
mod error;
mod fused;
mod guard;
mod onnx;
mod probe;
mod runner;
mod tensorrt;
mod wire;

pub use backend::{Backend, Buffer, Description, LoadOptions, Part};
pub use cost::{Cost, StepCost};
pub use cpu::CpuBackend;
/// The measured peaks of a set of instructions, the set in use, and whether it computes in float16.
pub use edge_kernels::{Float16, Isa, peak, peak_bytes};
pub use error::{EngineError, UnsupportedOp};
/// ONNX' attributes and constants, as the engine reads them.
pub use fused::{Attributes, Constants, tensor_floats};
pub use onnx::{FinalActivation, InputHint, ModelContract, OPSETS, OnnxModel};
pub use probe::Probe;
pub use tensorrt::TensorRtBackend;
/// ONNX's protobuf messages, for those who build or edit models; there is no second set of them.
pub use tract_onnx::pb;
