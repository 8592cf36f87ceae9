//! Models in and out, on the host only: Keras files become ONNX files.
//!
//! [`keras::import`] reads a `.keras` archive, a whole-model `.h5` or a weights file together with an architecture's
//! name, and gives the bytes of an ONNX model. Nothing in a file is ever executed. Python, TensorFlow and
//! libhdf5 are not needed.

mod error;
mod fold;
mod graph;
pub mod hdf5;
pub mod keras;
pub mod quantize;
mod read;

pub use error::{ImportError, LayerName};
