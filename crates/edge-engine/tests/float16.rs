//! Float16 arithmetic: only for float16 weights, only where it is asked for, and then said.

use edge_engine::pb::{AttributeProto, ModelProto, NodeProto, TensorProto, tensor_proto::DataType};
use edge_engine::{Backend, CpuBackend, Float16, InputHint, Isa, LoadOptions, OnnxModel};
use half::f16;
use prost::Message;
use std::path::PathBuf;

fn read(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/engine");
    std::fs::read(folder.join(name)).unwrap()
}

/// The same network with float16 weights, cast where they are used.
fn halved(bytes: &[u8]) -> Vec<u8> {
    let mut model = ModelProto::decode(bytes).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let mut casts = vec![];
    for tensor in graph.initializer.iter_mut().filter(|t| t.dims.len() >= 2 && t.data_type == DataType::Float as i32) {
        let values = edge_engine::tensor_floats(tensor).unwrap();
        let raw_data = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        let (name, dims) = (format!("{}/float16", tensor.name), tensor.dims.clone());
        let to =
            AttributeProto { name: "to".into(), i: DataType::Float as i64, r#type: 2, ..AttributeProto::default() };
        casts.push(NodeProto {
            op_type: "Cast".into(),
            name: format!("{}/cast", tensor.name),
            input: vec![name.clone()],
            output: vec![tensor.name.clone()],
            attribute: vec![to],
            ..NodeProto::default()
        });
        *tensor = TensorProto { name, dims, raw_data, data_type: DataType::Float16 as i32, ..TensorProto::default() };
    }
    assert!(!casts.is_empty());
    graph.node.splice(0..0, casts);
    model.encode_to_vec()
}

fn load(bytes: &[u8], float16: Float16) -> (CpuBackend, Vec<f32>) {
    let model = OnnxModel::parse(bytes).unwrap();
    let contract = model.contract(&InputHint::default()).unwrap();
    let options = LoadOptions { threads: 1 };
    let mut backend = CpuBackend::load_in(float16, &model, &contract.input, &contract.output, &options).unwrap();
    let picture: Vec<f32> =
        (0..contract.input.len()).map(|i| (i * 2_654_435_761 % 1000) as f32 / 500.0 - 1.0).collect();
    let mut logits = vec![0.0; backend.description().classes];
    backend.classify(&picture, &mut logits).unwrap();
    (backend, logits)
}

#[test]
fn float16_weights_are_multiplied_in_float16_where_that_is_asked_for() {
    for name in ["inverted-residual.onnx", "opset21-separable.onnx"] {
        let bytes = halved(&read(name));
        let (float32, wanted) = load(&bytes, Float16::Never);
        assert_eq!(float32.description().tolerance, "cpu");
        assert!(float32.parts().iter().all(|p| !p.what.contains("float16")));
        let steps = float32.cost().unwrap().steps;
        assert!(steps.iter().any(|s| s.half_weights) && steps.iter().all(|s| !s.float16), "{steps:?}");

        let (simulated, found) = load(&bytes, Float16::Simulated);
        assert_eq!(simulated.description().tolerance, "cpu-float16");
        assert!(simulated.description().to_string().contains("float16 arithmetic"));
        assert!(simulated.parts().iter().any(|p| p.what.contains("float16 matrix")));
        assert!(simulated.cost().unwrap().steps.iter().any(|s| s.float16));
        let largest = wanted.iter().fold(0_f32, |m, v| m.max(v.abs()));
        let off = wanted.iter().zip(&found).fold(0_f32, |m, (w, f)| m.max((w - f).abs()));
        assert!(off > 0.0 && off < 0.01 * largest, "{name}: {off} of {largest}");

        // What the processor does itself is as far off as that, and nothing where it does not.
        let (native, found) = load(&bytes, Float16::Native);
        let has = Isa::chosen().unwrap().has_float16();
        assert_eq!(native.description().tolerance, if has { "cpu-float16" } else { "cpu" });
        let off = wanted.iter().zip(&found).fold(0_f32, |m, (w, f)| m.max((w - f).abs()));
        assert!(if has { off < 0.01 * largest } else { found == wanted }, "{name}: {off} of {largest}");
    }
}

#[test]
fn float32_weights_are_never() {
    let bytes = read("inverted-residual.onnx");
    let (_, wanted) = load(&bytes, Float16::Never);
    for float16 in [Float16::Native, Float16::Simulated] {
        let (backend, found) = load(&bytes, float16);
        assert_eq!(backend.description().tolerance, "cpu");
        assert!(found == wanted && backend.cost().unwrap().steps.iter().all(|s| !s.half_weights && !s.float16));
    }
}
