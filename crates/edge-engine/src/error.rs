//! Why a model cannot be run.

use edge_tensorrt::TensorRtError;
use std::fmt;

/// An operator without an implementation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnsupportedOp {
    /// `Type`, or `domain::Type` outside the default ONNX domain.
    pub operator: String,
    /// The node's name (or its first output, when it has none).
    pub node: String,
}

impl fmt::Display for UnsupportedOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (node {:?})", self.operator, self.node)
    }
}

/// Each way in which a model fails to load or run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Not a protobuf ONNX model, or one without a graph.
    #[error("not an ONNX model: {0}")]
    NotOnnx(String),
    /// An opset outside the supported range.
    #[error("the model uses ONNX opset {found}; opsets {} to {} are supported, export it again with one of those", crate::OPSETS.start(), crate::OPSETS.end())]
    Opset {
        /// Opset of the default domain; 0 when the file names none.
        found: i64,
    },
    /// All operators that cannot be run, at once.
    #[error("{} operator(s) of this model are not supported:{}", .0.len(), .0.iter().map(|op| format!("\n  {op}")).collect::<String>())]
    Unsupported(Vec<UnsupportedOp>),
    /// The input is not one float32 RGB picture.
    #[error("the model's input does not fit: {0}")]
    Input(String),
    /// The output is not one score per class.
    #[error("the model's output does not fit: {0}")]
    Output(String),
    /// Weights stored beside the file.
    #[error("the model keeps weights in another file ({}); save it as one file (in Python: onnx.save(onnx.load(PATH), PATH2))", .0.join(", "))]
    ExternalData(Vec<String>),
    /// The graph does not hold together.
    #[error("the model cannot be prepared: {0}")]
    Graph(String),
    /// The network failed while running.
    #[error("the model failed while running: {0}")]
    Run(String),
    /// The network gave NaN or infinity, which no decision can be built on.
    #[error("the model gave an output that is not a finite number (class {class})")]
    NotFinite {
        /// Index of the first such output.
        class: usize,
    },
    /// A buffer of the wrong length was handed in.
    #[error("{what} has {found} values, {expected} expected")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length wanted.
        expected: usize,
    },
    /// TensorRT cannot run it, or not here.
    #[error(transparent)]
    TensorRt(#[from] TensorRtError),
    /// An int8 network whose quantization TensorRT does not read.
    #[error(
        "TensorRT does not read this quantization ({0}); make one that it reads with `edge-pack quantize --for tensorrt`, or run this one with the backend cpu"
    )]
    NotForTensorRt(String),
    /// The thread count is not possible.
    #[error("{0} threads are not possible; give 1 to 256")]
    Threads(usize),
}
