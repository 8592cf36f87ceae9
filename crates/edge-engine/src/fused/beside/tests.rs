use crate::fused::step::Work;
use crate::fused::{Network, lower};
use crate::{InputHint, OnnxModel};
use edge_kernels::{Float16, Isa};
use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType, tensor_shape_proto, type_proto,
};

/// A network under construction; values are (name, channels).
struct Net {
    graph: GraphProto,
    state: u64,
    /// Values that are parts of concatenations, and what those make.
    parts: Vec<String>,
}

type Value = (String, usize);

impl Net {
    fn new(seed: u64) -> Net {
        let graph =
            GraphProto { name: "net".into(), input: vec![info("picture", &[1, 3, 14, 14])], ..Default::default() };
        Net { graph, state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, parts: vec![] }
    }

    fn below(&mut self, end: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 33) as usize % end
    }

    fn constant(&mut self, dims: &[usize]) -> String {
        let count = dims.iter().product::<usize>();
        let float_data = (0..count).map(|_| self.below(1000) as f32 / 1000.0 - 0.4).collect();
        let name = format!("c{}", self.graph.initializer.len());
        let dims = dims.iter().map(|d| *d as i64).collect();
        let tensor = TensorProto {
            name: name.clone(),
            dims,
            data_type: DataType::Float as i32,
            float_data,
            ..Default::default()
        };
        self.graph.initializer.push(tensor);
        name
    }

    fn node(&mut self, kind: &str, input: &[&str], ints: &[(&str, &[i64])], channels: usize) -> Value {
        let name = format!("v{}", self.graph.node.len());
        let attribute = ints.iter().map(|(name, ints)| AttributeProto {
            name: name.to_string(),
            r#type: AttributeType::Ints as i32,
            ints: ints.to_vec(),
            ..Default::default()
        });
        self.graph.node.push(NodeProto {
            op_type: kind.into(),
            name: name.clone(),
            input: input.iter().map(|i| i.to_string()).collect(),
            output: vec![name.clone()],
            attribute: attribute.collect(),
            ..Default::default()
        });
        (name, channels)
    }

    fn conv(&mut self, x: &Value, side: usize, channels: usize) -> Value {
        let (w, b) = (self.constant(&[channels, x.1, side, side]), self.constant(&[channels]));
        let pad = (side / 2) as i64;
        let made = self.node("Conv", &[&x.0, &w, &b], &[("pads", &[pad; 4])], channels);
        match self.below(3) {
            0 => made,
            1 => self.node("Relu", &[&made.0], &[], channels),
            _ => {
                let gate = self.node("Sigmoid", &[&made.0], &[], channels);
                self.node("Mul", &[&made.0, &gate.0], &[], channels)
            }
        }
    }

    fn normalized(&mut self, x: &Value) -> Value {
        let [a, b, c] = [0; 3].map(|_| self.constant(&[x.1]));
        let spread = self.constant(&[x.1]);
        let tensor = self.graph.initializer.last_mut().expect("just made");
        tensor.float_data.iter_mut().for_each(|v| *v += 1.0);
        let made = self.node("BatchNormalization", &[&x.0, &a, &b, &c, &spread], &[], x.1);
        self.node("Relu", &[&made.0], &[], x.1)
    }

    fn pool(&mut self, kind: &str, x: &Value, side: i64, stride: i64) -> Value {
        let pad = if stride == 1 { side / 2 } else { 0 };
        let ints: &[(&str, &[i64])] = &[("kernel_shape", &[side; 2]), ("strides", &[stride; 2]), ("pads", &[pad; 4])];
        self.node(kind, &[&x.0], ints, x.1)
    }

    fn concat(&mut self, parts: &[&Value]) -> Value {
        let names: Vec<&str> = parts.iter().map(|p| p.0.as_str()).collect();
        let made = self.node("Concat", &names, &[], parts.iter().map(|p| p.1).sum());
        let axis =
            AttributeProto { name: "axis".into(), r#type: AttributeType::Int as i32, i: 1, ..Default::default() };
        self.graph.node.last_mut().expect("just made").attribute.push(axis);
        self.parts.extend(names.into_iter().map(String::from).chain([made.0.clone()]));
        made
    }

    /// A dense block: each layer reads all before it.
    fn dense_block(&mut self, mut x: Value, layers: usize, growth: usize) -> Value {
        for _ in 0..layers {
            let y = self.normalized(&x);
            let y = self.conv(&y, 1, 32);
            let y = self.conv(&y, 3, growth);
            x = self.concat(&[&x, &y]);
        }
        x
    }

    /// Branches of different kinds, one of them split again.
    fn branches(&mut self, x: &Value, unit: usize) -> Value {
        let a = self.conv(x, 1, unit);
        let b = self.conv(x, 1, 2 * unit);
        let (c, d) = (self.conv(&b, 3, unit), self.conv(&b, 1, 2 * unit));
        let inner = self.concat(&[&c, &d]);
        let e = self.pool(["MaxPool", "AveragePool"][unit % 2], x, 3, 1);
        match unit % 3 {
            0 => self.concat(&[&a, &inner, &e]),
            1 => self.concat(&[&inner, &e, &a]),
            _ => self.concat(&[&e, &a, &inner]),
        }
    }

    /// Its bytes, classified by a dense layer.
    fn finish(mut self, x: &Value) -> (Vec<u8>, String, Vec<String>) {
        let mean = self.node("GlobalAveragePool", &[&x.0], &[], x.1);
        let flat = self.node("Flatten", &[&mean.0], &[], x.1);
        let w = self.constant(&[x.1, 5]);
        let (out, _) = self.node("MatMul", &[&flat.0, &w], &[], 5);
        self.graph.output.push(info(&out, &[1, 5]));
        let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 17 }];
        let model = ModelProto { ir_version: 8, opset_import, graph: Some(self.graph), ..Default::default() };
        (model.encode_to_vec(), out, self.parts)
    }
}

fn info(name: &str, dims: &[i64]) -> ValueInfoProto {
    let side = |d: &i64| tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimValue(*d)),
        ..Default::default()
    };
    let shape = TensorShapeProto { dim: dims.iter().map(side).collect() };
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(shape) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: name.into(), r#type: Some(kind), ..Default::default() }
}

/// Channels that concatenations copy for each pixel.
fn copied(network: &Network) -> usize {
    let parts = network.plan.steps.iter().filter_map(|s| match &s.work {
        Work::Concat { parts, .. } => Some(parts.iter().map(|p| p.channels).sum::<usize>()),
        _ => None,
    });
    parts.sum()
}

/// Runs a network as it is, and with every part of a concatenation kept by itself for whoever asks: both say the same, bit by
/// bit. Gives the channels that each copies.
fn compare((bytes, out, parts): (Vec<u8>, String, Vec<String>), isa: Isa, threads: usize) -> [usize; 2] {
    let model = OnnxModel::parse(&bytes).unwrap();
    let input = model.contract(&InputHint::default()).unwrap().input;
    let picture: Vec<f32> = (0..input.len()).map(|i| (i * 37 % 251) as f32 / 125.0 - 1.0).collect();
    let kept: Vec<&str> = std::iter::once(out.as_str()).chain(parts.iter().map(String::as_str)).collect();
    let mut results = vec![];
    for outputs in [&kept[..1], &kept[..]] {
        let mut network = lower(&model, &input, outputs, isa, threads, Float16::Never).unwrap().network;
        let mut logits = [f32::NAN; 5];
        // Twice: what the first run leaves in the buffers must not matter.
        for _ in 0..2 {
            network.run(&picture);
            network.copy_output(0, &picture, &mut logits);
            assert!(logits.iter().all(|l| l.is_finite()));
            results.push((logits.map(f32::to_bits), copied(&network)));
        }
    }
    assert!(results.iter().all(|r| r.0 == results[0].0), "{isa}, {threads} threads: {results:?}");
    [results[0].1, results[2].1]
}

#[test]
fn a_dense_block_and_branches_of_whole_vectors_copy_nothing() {
    for isa in Isa::available() {
        for threads in [1, 2] {
            let mut net = Net::new(7);
            let x = net.conv(&("picture".into(), 3), 3, 32);
            let x = net.pool("AveragePool", &x, 2, 2);
            let x = net.dense_block(x, 4, 32);
            let x = net.normalized(&x);
            let x = net.conv(&x, 1, 48);
            let x = net.branches(&x, 16);
            let [found, alone] = compare(net.finish(&x), isa, threads);
            assert_eq!(found, 0, "{isa}");
            assert!(alone > 0, "{isa}");
        }
    }
}

#[test]
fn random_concatenations_are_what_copies_would_be() {
    let (mut copied, mut alone) = (0, 0);
    for seed in 0..60 {
        let mut net = Net::new(seed);
        let channels = [16, 32, 1 + net.below(40)][net.below(3)];
        let mut x = net.conv(&("picture".into(), 3), 3, channels);
        for _ in 0..1 + net.below(3) {
            let unit = [16, 32, 48, 1 + net.below(40)][net.below(4)];
            x = match net.below(5) {
                0 => net.branches(&x, unit),
                1 | 2 => {
                    let layers = 1 + net.below(4);
                    net.dense_block(x, layers, unit)
                }
                // The same twice, and beside what is made of it.
                3 => net.concat(&[&x.clone(), &x]),
                _ => {
                    let (y, first) = (net.conv(&x, 1, unit), x);
                    net.concat(&[&first, &y])
                }
            };
            if net.below(3) == 0 {
                x = net.pool("MaxPool", &x, 2, 1);
            }
        }
        let made = net.finish(&x);
        for isa in Isa::available() {
            let [found, each] = compare(made.clone(), isa, 1 + seed as usize % 3);
            assert!(found <= each, "network {seed} copies {found} of {each} channels");
            (copied, alone) = (copied + found, alone + each);
        }
    }
    assert!(3 * copied < 2 * alone, "{copied} of {alone} channels are copied");
}
