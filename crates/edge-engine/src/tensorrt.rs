//! The backend `tensorrt`: NVIDIA's GPUs.

use crate::cpu::all_finite;
use crate::{Backend, Buffer, Description, EngineError, OnnxModel, Part};
use edge_package::{Digest, InputSpec, Manifest, Precision};
use edge_tensorrt::{Cache, Contract, Progress, Request, Session, TensorRt, TensorRtError};
use prost::Message;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension::Value};
use tract_onnx::pb::{ModelProto, type_proto};

/// Runs on an NVIDIA GPU, in float16 or, where the network is quantized, in int8.
pub struct TensorRtBackend {
    session: Session,
    description: Description,
}

impl TensorRtBackend {
    /// Prepares the network of a package: from the engine in `cache`, or from one that is built now, which takes minutes and
    /// of which `progress` hears all the time. `package` is the digest that the engine is kept under.
    pub fn load(
        tensorrt: &TensorRt,
        model: &OnnxModel<'_>,
        manifest: &Manifest,
        package: Digest,
        cache: &Cache,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<TensorRtBackend, EngineError> {
        let (input, output) = (&manifest.input, &manifest.model.output);
        let precision = match manifest.model.precision {
            Precision::Float => "float16",
            Precision::Int8 => {
                check_quantization(model)?;
                "int8"
            }
        };
        let shape = input.shape();
        let classes = manifest.labels.len();
        let contract = Contract { input: &input.name, shape: &shape, output, classes };
        let request = Request { package, precision, contract, onnx: &|| fixed(model, input, output) };
        let session = tensorrt.session(&request, cache, progress)?;
        let description = Description {
            backend: "tensorrt",
            tolerance: "tensorrt",
            engine: format!("TensorRT {}", tensorrt.version()),
            isa: format!("{}, {precision}", tensorrt.gpu()),
            // The one that waits for the GPU.
            threads: 1,
            classes,
        };
        Ok(TensorRtBackend { session, description })
    }
}

impl Backend for TensorRtBackend {
    /// Where the GPU finds the picture: preprocessing writes it there, and nothing copies it on this side.
    fn buffer(&mut self, len: usize) -> Buffer {
        match self.session.pinned() {
            Some(pinned) if pinned.len() == len => Box::new(pinned),
            _ => Box::new(vec![0.0; len]),
        }
    }

    fn classify(&mut self, tensor: &[f32], logits: &mut [f32]) -> Result<(), EngineError> {
        self.session.run(tensor, logits).map_err(|e| match e {
            TensorRtError::Length { what, found, expected } => EngineError::Length { what, found, expected },
            other => EngineError::Run(other.to_string()),
        })?;
        all_finite(logits)
    }

    fn description(&self) -> &Description {
        &self.description
    }

    fn parts(&self) -> Vec<Part> {
        let what = format!("one engine on {}", self.description.isa);
        vec![Part { nodes: vec!["all nodes".into()], by: "TensorRT", what, macs: 0, time: None }]
    }
}

/// The ONNX file that an engine is built from: as packaged, but with the input's shape written out and with one output, so
/// that there is nothing for TensorRT to choose.
fn fixed(model: &OnnxModel<'_>, input: &InputSpec, output: &str) -> Vec<u8> {
    let mut proto: ModelProto = model.whole();
    if let Some(graph) = &mut proto.graph {
        graph.output.retain(|o| o.name == output);
        let of_input = graph.input.iter_mut().filter(|i| i.name == input.name);
        let kinds = of_input.filter_map(|i| i.r#type.as_mut()?.value.as_mut());
        for type_proto::Value::TensorType(tensor) in kinds {
            let dimension = |extent| Dimension { value: Some(Value::DimValue(extent as i64)), ..Dimension::default() };
            let shape = tensor.shape.get_or_insert_default();
            shape.dim = input.shape().into_iter().map(dimension).collect();
        }
    }
    proto.encode_to_vec()
}

/// TensorRT reads symmetric quantization only, and no 32-bit biases: said here rather than after a minute, by a parser.
fn check_quantization(model: &OnnxModel<'_>) -> Result<(), EngineError> {
    let proto = model.structure();
    let nodes = proto.graph.iter().flat_map(|g| &g.node);
    let pairs = nodes.filter(|n| matches!(n.op_type.as_str(), "QuantizeLinear" | "DequantizeLinear"));
    let (mut shifted, mut wide) = (0, 0);
    for node in pairs {
        let zero = node.input.get(2).and_then(|name| model.initializer(name));
        shifted +=
            usize::from(zero.is_some_and(|(tensor, bytes)| {
                bytes.iter().any(|b| *b != 0) || tensor.int32_data.iter().any(|v| *v != 0)
            }));
        let of = node.input.first().and_then(|name| model.initializer(name));
        wide += usize::from(of.is_some_and(|(tensor, _)| tensor.data_type == DataType::Int32 as i32));
    }
    if shifted + wide == 0 {
        return Ok(());
    }
    Err(EngineError::NotForTensorRt(format!(
        "{shifted} of its values have a zero point that is not 0, {wide} of its constants are int32"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InputHint;

    fn zoo(name: &str) -> Vec<u8> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/engine");
        std::fs::read(folder.join(name)).unwrap()
    }

    #[test]
    fn what_is_built_from_has_one_shape_and_one_output() {
        for name in ["nchw-dynamic.onnx", "nhwc-unset.onnx", "nchw-b1-flatten-gemm.onnx", "float16-weights.onnx"] {
            let bytes = zoo(name);
            let model = OnnxModel::parse(&bytes).unwrap();
            let hint = InputHint { size: Some((20, 24)), ..InputHint::default() };
            let contract = model.contract(&hint).or_else(|_| model.contract(&InputHint::default())).unwrap();
            let made = fixed(&model, &contract.input, &contract.output);
            let made = OnnxModel::parse(&made).unwrap();
            // Nothing is left open: it says by itself what the package says.
            let again =
                made.contract(&InputHint { layout: Some(contract.input.layout), ..InputHint::default() }).unwrap();
            assert_eq!((again.input, again.output), (contract.input, contract.output), "{name}");
            let (before, after) = (model.whole().graph.unwrap(), made.whole().graph.unwrap());
            assert_eq!((before.node, before.initializer), (after.node, after.initializer), "{name}");
            assert_eq!(after.output.len(), 1);
        }
    }

    #[test]
    fn a_quantization_that_is_not_for_tensorrt_is_refused_with_how_to_make_one() {
        let bytes = zoo("qdq-u8.onnx");
        let refused = check_quantization(&OnnxModel::parse(&bytes).unwrap()).unwrap_err().to_string();
        assert!(refused.contains("zero point that is not 0") && refused.contains("--for tensorrt"), "{refused}");
    }
}
