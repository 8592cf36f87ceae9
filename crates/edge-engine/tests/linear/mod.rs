//! The network that the false TensorRT runs, as an ONNX file: one matrix, made by the same rule.

use edge_engine::pb::tensor_proto::DataType;
use edge_engine::pb::tensor_shape_proto::{Dimension, dimension::Value};
use edge_engine::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType, type_proto,
};
use prost::Message;

/// `shape` is that of `picture`, NHWC with an open batch; `scores` has one value for each label.
pub fn onnx(shape: [usize; 3], labels: &[&str], seed: usize) -> Vec<u8> {
    let (inputs, classes) = (shape.iter().product::<usize>(), labels.len());
    let weight = |k: usize, i: usize| ((k * 31 + i * 17 + seed) % 13) as f32 / 64.0 - 6.0 / 64.0;
    let weights = (0..classes).flat_map(|k| (0..inputs).map(move |i| weight(k, i)));
    let matrix = TensorProto {
        name: "matrix".into(),
        dims: vec![classes as i64, inputs as i64],
        data_type: DataType::Float as i32,
        raw_data: weights.flat_map(f32::to_le_bytes).collect(),
        ..TensorProto::default()
    };
    let node = |op: &str, input: &[&str], output: &str, attribute| NodeProto {
        op_type: op.into(),
        name: op.into(),
        input: input.iter().map(ToString::to_string).collect(),
        output: vec![output.into()],
        attribute,
        ..NodeProto::default()
    };
    let transposed =
        AttributeProto { name: "transB".into(), r#type: AttributeType::Int as i32, i: 1, ..AttributeProto::default() };
    let open = Dimension { value: Some(Value::DimParam("batch".into())), ..Dimension::default() };
    let fixed = |extent: usize| Dimension { value: Some(Value::DimValue(extent as i64)), ..Dimension::default() };
    let value = |name: &str, dims: &[usize]| ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: DataType::Float as i32,
                shape: Some(TensorShapeProto {
                    dim: [open.clone()].into_iter().chain(dims.iter().copied().map(fixed)).collect(),
                }),
            })),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    };
    let property = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
    let quoted: Vec<String> = labels.iter().map(|label| format!("\"{label}\"")).collect();
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        metadata_props: vec![property("edgepack.labels", format!("[{}]", quoted.join(",")))],
        graph: Some(GraphProto {
            name: "linear".into(),
            node: vec![
                node("Flatten", &["picture"], "flat", vec![]),
                node("Gemm", &["flat", "matrix"], "scores", vec![transposed]),
            ],
            initializer: vec![matrix],
            input: vec![value("picture", &shape)],
            output: vec![value("scores", &[classes])],
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    };
    model.encode_to_vec()
}
