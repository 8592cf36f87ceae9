//! The default model's last blocks, unfrozen: what they compute, and the file that they are written to.

use edge_engine::pb::{AttributeProto, ModelProto, NodeProto, TensorProto};
use edge_engine::{Backend, CpuBackend, InputHint, LoadOptions, OnnxModel};
use edge_package::{Activation, Label, Metadata};
use edge_train::base::Base;
use edge_train::head::{Activation as Inner, Head, HeadSpec};
use prost::Message;

fn model() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/efficientnet-lite0/efficientnet-lite0.onnx"))
        .unwrap()
}

fn tensor(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * (7919 + seed)) % 255) as f32 / 127.5 - 1.0).collect()
}

fn near(found: &[f32], wanted: &[f32], what: &str) {
    assert_eq!(found.len(), wanted.len());
    let largest = wanted.iter().fold(1e-3_f32, |most, w| most.max(w.abs()));
    let off = found.iter().zip(wanted).map(|(f, w)| (f - w).abs()).fold(0.0, f32::max);
    assert!(off <= 1e-4 * largest, "{what}: off by {off} of {largest}");
}

/// Weights moved a little, all otherwise.
fn moved(values: &mut [f32]) {
    values.iter_mut().enumerate().for_each(|(i, v)| *v *= 1.0 + 0.05 * ((i % 7) as f32 - 3.0));
}

fn metadata() -> Metadata {
    Metadata {
        labels: Some(["a", "b", "c"].map(|l| Label { id: None, label: l.into() }).to_vec()),
        preprocess: None,
        resize: None,
        activation: Some(Activation::Softmax),
    }
}

#[test]
fn a_tail_computes_what_the_engine_does_and_is_written_back() {
    let bytes = model();
    let onnx = OnnxModel::parse(&bytes).unwrap();
    let input = onnx.contract(&InputHint::default()).unwrap().input;
    let options = LoadOptions { threads: 1 };
    // A block with a shortcut, weights in float16 that are cast; then one convolution alone.
    for (name, value, parameters) in [("block14", "block13.add", 14), ("head", "block15.project", 2)] {
        let mut base = Base::load(&onnx, &input, None, Some(name), &options).unwrap();
        assert_eq!(base.tail.as_ref().unwrap().value, value);
        let mut tail = base.read_tail(&onnx).unwrap().unwrap();
        assert_eq!(tail.parameters().len(), parameters);
        let (layout, pool) = (base.tail_layout(), base.pooling());
        let pictures = [1, 2].map(|seed| tensor(input.len(), seed));
        let mut before = vec![];
        let mut features = vec![];
        for picture in &pictures {
            let made = base.probe.run(picture).unwrap();
            features.extend(pool(&made[0]));
            before.extend(layout(&made[1]));
        }
        near(tail.forward(&tail.ready(false), before.clone()).features(), &features, name);

        for parameter in tail.parameters_mut() {
            moved(&mut parameter.values);
        }
        let head = Head::new(
            &HeadSpec { features: 1280, inner: vec![9], activation: Inner::Relu, dropout: 0.0, classes: 3 },
            4,
        );
        let wanted = head.logits(tail.forward(&tail.ready(true), before).features());
        let made = base.with_head(&onnx, Some(&tail), &head, &metadata()).unwrap();
        let made = OnnxModel::parse(&made).unwrap();
        let contract = made.contract(&InputHint::default()).unwrap();
        let mut backend = CpuBackend::load(&made, &contract.input, &contract.output, &options).unwrap();
        for (picture, wanted) in pictures.iter().zip(wanted.chunks(3)) {
            let mut logits = [0.0; 3];
            backend.classify(picture, &mut logits).unwrap();
            near(&logits, wanted, name);
        }
        frozen_weights_are_the_same_bytes(&onnx.whole(), &made.whole(), &base);
    }
}

/// All that is computed before the tail reads the same bytes as before.
fn frozen_weights_are_the_same_bytes(old: &ModelProto, new: &ModelProto, base: &Base) {
    let (old, new) = (old.graph.as_ref().unwrap(), new.graph.as_ref().unwrap());
    let part = base.tail.as_ref().unwrap();
    let mut frozen = 0;
    for (at, node) in old.node.iter().enumerate().filter(|(at, _)| *at < part.nodes[0] && !part.nodes.contains(at)) {
        // Casts of weights stand right before their readers, the tail's too.
        let Some(kept) = new.node.iter().find(|n| n.output == node.output) else {
            assert_eq!(node.op_type, "Cast", "{at}");
            continue;
        };
        assert_eq!(kept, node);
        for weight in old.initializer.iter().filter(|t| node.input.contains(&t.name)) {
            assert!(new.initializer.contains(weight), "{}", weight.name);
            frozen += 1;
        }
    }
    assert!(frozen > 50, "{frozen}");
}

/// A network of few pixels: two blocks with a shortcut; weights that both read, one of them in a Constant node.
fn shared() -> Vec<u8> {
    use edge_engine::pb::{
        OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto,
        tensor_shape_proto::{Dimension, dimension::Value},
        type_proto,
    };
    let ints = |name: &str, ints: &[i64]| AttributeProto {
        name: name.into(),
        r#type: 7,
        ints: ints.to_vec(),
        ..AttributeProto::default()
    };
    let node = |op: &str, name: &str, inputs: &[&str], attribute: Vec<AttributeProto>| NodeProto {
        name: name.into(),
        op_type: op.into(),
        input: inputs.iter().map(|i| i.to_string()).collect(),
        output: vec![name.into()],
        attribute,
        ..NodeProto::default()
    };
    let weights = |name: &str, dims: &[i64]| TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: 1,
        float_data: tensor(dims.iter().product::<i64>() as usize, 5).iter().map(|v| v * 0.4).collect(),
        ..TensorProto::default()
    };
    let info = |name: &str, dims: &[i64]| ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: 1,
                shape: Some(TensorShapeProto {
                    dim: dims
                        .iter()
                        .map(|d| Dimension { value: Some(Value::DimValue(*d)), ..Dimension::default() })
                        .collect(),
                }),
            })),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    };
    let pads = || vec![ints("pads", &[1, 1, 1, 1])];
    let deep = || {
        let mut all = pads();
        all.push(AttributeProto { name: "group".into(), r#type: 2, i: 16, ..AttributeProto::default() });
        all
    };
    let tensor_of =
        AttributeProto { name: "value".into(), r#type: 4, t: Some(weights("", &[16])), ..Default::default() };
    let mut graph = edge_engine::pb::GraphProto {
        name: "shared".into(),
        input: vec![info("x", &[1, 3, 8, 8])],
        output: vec![info("pool", &[1, 16, 1, 1])],
        initializer: vec![weights("w0", &[16, 3, 3, 3]), weights("w1", &[16, 1, 3, 3]), weights("w2", &[16, 16, 1, 1])],
        ..Default::default()
    };
    let statistics = [("gamma", 1.5), ("beta", 0.2), ("mean", 0.1), ("variance", 2.0)];
    graph
        .initializer
        .extend(statistics.map(|(name, v)| TensorProto { float_data: vec![v; 16], ..weights(name, &[16]) }));
    graph.node = vec![
        node("Constant", "bias", &[], vec![tensor_of]),
        node("Conv", "block1", &["x", "w0", "bias"], pads()),
        node("Relu", "block1_act", &["block1"], vec![]),
        node("Conv", "block1_deep", &["block1_act", "w1"], deep()),
        node("Conv", "block2_deep", &["block1_deep", "w1", "bias"], deep()),
        node("BatchNormalization", "block2_norm", &["block2_deep", "gamma", "beta", "mean", "variance"], vec![]),
        node("Sigmoid", "block2_gate", &["block2_norm"], vec![]),
        node("Mul", "block2_silu", &["block2_norm", "block2_gate"], vec![]),
        node("Conv", "block2", &["block2_silu", "w2", "bias"], vec![]),
        node("Add", "block2_add", &["block2", "block1_deep"], vec![]),
        node("GlobalAveragePool", "pool", &["block2_add"], vec![]),
    ];
    let opset = OperatorSetIdProto { domain: String::new(), version: 17 };
    ModelProto { ir_version: 8, opset_import: vec![opset], graph: Some(graph), ..Default::default() }.encode_to_vec()
}

#[test]
fn weights_that_frozen_layers_read_too_stay_and_the_tail_gets_its_own() {
    let bytes = shared();
    let onnx = OnnxModel::parse(&bytes).unwrap();
    let input = onnx.contract(&InputHint::default()).unwrap().input;
    let options = LoadOptions { threads: 1 };
    let mut base = Base::load(&onnx, &input, None, Some("block2"), &options).unwrap();
    let mut tail = base.read_tail(&onnx).unwrap().unwrap();
    // Filters, the bias of two layers once, gamma and beta; the statistics are not trained.
    let names: Vec<&str> = tail.parameters().iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["w1", "bias", "gamma", "beta", "w2"]);
    let picture = tensor(input.len(), 3);
    let (layout, pool) = (base.tail_layout(), base.pooling());
    let made = base.probe.run(&picture).unwrap();
    let (features, before) = (pool(&made[0]), layout(&made[1]));
    near(tail.forward(&tail.ready(false), before.clone()).features(), &features, "as it was");
    for parameter in tail.parameters_mut() {
        moved(&mut parameter.values);
    }
    let head =
        Head::new(&HeadSpec { features: 16, inner: vec![], activation: Inner::Relu, dropout: 0.0, classes: 3 }, 4);
    let wanted = head.logits(tail.forward(&tail.ready(false), before).features());
    let made = base.with_head(&onnx, Some(&tail), &head, &metadata()).unwrap();
    let made = OnnxModel::parse(&made).unwrap();
    let contract = made.contract(&InputHint::default()).unwrap();
    let mut logits = [0.0; 3];
    let mut backend = CpuBackend::load(&made, &contract.input, &contract.output, &options).unwrap();
    backend.classify(&picture, &mut logits).unwrap();
    near(&logits, &wanted, "with other weights");
    let (old, new) = (onnx.whole().graph.unwrap(), made.whole().graph.unwrap());
    let find = |graph: &edge_engine::pb::GraphProto, name: &str| {
        graph.initializer.iter().find(|t| t.name == name).cloned().unwrap_or_default()
    };
    for name in ["w0", "w1", "mean", "variance"] {
        assert_eq!(find(&old, name), find(&new, name), "{name}");
    }
    assert!(new.node.contains(&old.node[0]), "the Constant of the frozen layer");
    assert_eq!(find(&new, "w1/tuned").dims, [16, 1, 3, 3]);
}

#[test]
fn what_cannot_be_trained_is_listed_at_once() {
    let mut proto = ModelProto::decode(&shared()[..]).unwrap();
    let graph = proto.graph.as_mut().unwrap();
    graph.node.iter_mut().filter(|n| n.name == "block2_gate").for_each(|n| n.op_type = "Erf".into());
    graph.node.insert(
        4,
        NodeProto {
            op_type: "Abs".into(),
            name: "block2_abs".into(),
            input: vec!["block1_deep".into()],
            output: vec!["abs".into()],
            ..Default::default()
        },
    );
    graph.node[5].input[0] = "abs".into();
    let bytes = proto.encode_to_vec();
    let onnx = OnnxModel::parse(&bytes).unwrap();
    let input = onnx.contract(&InputHint::default()).unwrap().input;
    let base = Base::load(&onnx, &input, None, Some("block2"), &LoadOptions { threads: 1 }).unwrap();
    let error = base.read_tail(&onnx).unwrap_err().to_string();
    assert!(error.contains("Abs (node \"block2_abs\")") && error.contains("Erf (node \"block2_gate\")"), "{error}");
    let refused = |name: &str| Base::load(&onnx, &input, None, Some(name), &LoadOptions { threads: 1 }).err().unwrap();
    assert!(refused("blok").to_string().contains("block1, block2"));
}
