//! Why a model cannot be quantized.

use edge_engine::EngineError;

/// Why a model cannot be quantized.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// The network.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// It is quantized.
    #[error(
        "it is quantized already ({0} nodes quantize or dequantize); quantize the float model that it was made from"
    )]
    Already(usize),
    /// The graph does not hold together.
    #[error("{0}")]
    Graph(String),
    /// Nothing in it computes with weights.
    #[error("nothing in it can be quantized{}", list(.0))]
    Nothing(Vec<String>),
    /// No pictures to calibrate with.
    #[error("there are no photos to calibrate with; 100 to 300 like those that the camera will see are enough")]
    NoPictures,
    /// Pictures that say nothing.
    #[error(
        "the photos to calibrate with are all of one colour; ranges measured on them would be wrong. Give photos like those that the camera will see"
    )]
    Blank,
    /// A picture cannot be read.
    #[error("{0}")]
    Picture(String),
    /// A value is no number for some picture.
    #[error("{0:?} is no finite number for a calibration photo; the float model is broken there")]
    NotFinite(String),
    /// Someone wanted it to end.
    #[error("interrupted; nothing was written")]
    Interrupted,
}

fn list(why: &[String]) -> String {
    if why.is_empty() { String::new() } else { format!(": {}", why.join("; ")) }
}
