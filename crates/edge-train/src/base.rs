//! The base: a network up to its feature vector, and the same with a head of our own behind it.

use crate::TrainError;
use crate::head::Head;
use crate::tail::{self, Part, Tail};
use edge_engine::pb::{
    AttributeProto, GraphProto, NodeProto, StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_proto::DataType,
    tensor_shape_proto::{Dimension, dimension::Value as DimValue},
    type_proto::{Tensor, Value as TypeValue},
};
use edge_engine::{EngineError, LoadOptions, OnnxModel, Probe};
use edge_package::{InputSpec, Metadata};
use prost::Message;
use std::collections::{HashMap, HashSet};

/// The name of the output of what is made.
const OUTPUT: &str = "logits";

/// A base, ready to give features.
pub struct Base {
    /// The value that is cut at.
    pub cut: String,
    /// How it lies.
    shape: Shape,
    /// What is unfrozen of it.
    pub tail: Option<Part>,
    /// It, running: the value that is cut at and, where there is a tail, what that reads.
    pub probe: Probe,
}

/// How the cut value lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One value after the other: a feature vector.
    Vector(usize),
    /// (C, pixels): the mean over pixels is the vector.
    ChannelsFirst(usize, usize),
    /// (pixels, C).
    ChannelsLast(usize, usize),
}

impl Base {
    /// Cuts a network at the value or the node `cut`, else at what its classifier reads: the last pooling over whole pictures
    /// that everything goes through; else the last picture, whose mean is taken. `unfreeze` names the first layer of its tail.
    pub fn load(
        model: &OnnxModel<'_>,
        input: &InputSpec,
        cut: Option<&str>,
        unfreeze: Option<&str>,
        options: &LoadOptions,
    ) -> Result<Base, TrainError> {
        let graph = graph(model)?;
        let candidates = match cut {
            Some(name) => vec![named(graph, name)?],
            None => candidates(graph, &input.name),
        };
        let mut refused = vec![];
        for value in candidates {
            let probe = match Probe::load(model, input, &[&value], options) {
                Ok(probe) => probe,
                Err(e @ (EngineError::Unsupported(_) | EngineError::Threads(_))) => return Err(e.into()),
                Err(e) => {
                    refused.push(format!("{value}: {e}"));
                    continue;
                }
            };
            let last = graph.node.iter().find(|n| n.output.contains(&value)).is_some_and(turned);
            let shape = match probe.shapes()[0][..] {
                [1, c, 1, 1] | [1, c] | [1, 1, 1, c] if c > 1 => Shape::Vector(c),
                [1, h, w, c] if last && c > 1 => Shape::ChannelsLast(h * w, c),
                [1, c, h, w] if c > 1 => Shape::ChannelsFirst(c, h * w),
                ref other => {
                    refused.push(format!("{value} is {other:?}"));
                    continue;
                }
            };
            let tail = unfreeze.map(|name| Part::find(graph, &input.name, &value, name)).transpose()?;
            let probe = match &tail {
                None => probe,
                Some(tail) => Probe::load(model, input, &[&value, &tail.value], options)?,
            };
            return Ok(Base { cut: value, shape, tail, probe });
        }
        let tried = if refused.is_empty() { String::new() } else { format!(" (tried: {})", refused.join("; ")) };
        Err(TrainError::Base(format!(
            "no value of the base is an image feature, (1,K) or a picture of K channels{tried}; say where to cut with --cut NODE"
        )))
    }

    /// Values of a feature vector.
    pub fn width(&self) -> usize {
        match self.shape {
            Shape::Vector(c) | Shape::ChannelsFirst(c, _) | Shape::ChannelsLast(_, c) => c,
        }
    }

    /// How a value becomes a feature vector: global average pooling, where it is a picture.
    pub fn pooling(&self) -> impl Fn(&[f32]) -> Vec<f32> + use<> {
        let shape = self.shape;
        move |value| match shape {
            Shape::Vector(_) => value.to_vec(),
            Shape::ChannelsFirst(_, pixels) => {
                value.chunks_exact(pixels).map(|c| c.iter().sum::<f32>() / pixels as f32).collect()
            }
            Shape::ChannelsLast(pixels, channels) => {
                let mut sums = vec![0.0; channels];
                for pixel in value.chunks_exact(channels) {
                    sums.iter_mut().zip(pixel).for_each(|(s, p)| *s += p);
                }
                sums.iter_mut().for_each(|s| *s /= pixels as f32);
                sums
            }
        }
    }

    /// How what the tail reads lies: height, width, channels.
    pub fn tail_shape(&self) -> [usize; 3] {
        match (self.probe.shapes().get(1).map(Vec::as_slice), self.tail_last()) {
            (Some(&[_, h, w, c]), true) => [h, w, c],
            (Some(&[_, c, h, w]), false) => [h, w, c],
            (Some(other), _) => [1, 1, other.iter().product()],
            (None, _) => [0; 3],
        }
    }

    /// Brings what the tail reads into (H,W,C), as it is trained on.
    pub fn tail_layout(&self) -> impl Fn(&[f32]) -> Vec<f32> + use<> {
        let ([height, width, channels], last) = (self.tail_shape(), self.tail_last());
        move |value| {
            let pixels = height * width;
            match last {
                true => value.to_vec(),
                false => (0..value.len()).map(|i| value[i % channels * pixels + i / channels]).collect(),
            }
        }
    }

    /// What is unfrozen, to be trained.
    pub fn read_tail(&self, model: &OnnxModel<'_>) -> Result<Option<Tail>, TrainError> {
        let part = self.tail.as_ref();
        part.map(|part| Tail::read(model, part, &self.cut, self.tail_shape())).transpose()
    }

    fn tail_last(&self) -> bool {
        self.tail.as_ref().is_some_and(|t| t.channels_last)
    }

    /// The base with a head behind it, as one ONNX file. The base's weights are the same bytes as before, but for those of a tail
    /// that was trained.
    pub fn with_head(
        &self,
        model: &OnnxModel<'_>,
        tail: Option<&Tail>,
        head: &Head,
        metadata: &Metadata,
    ) -> Result<Vec<u8>, TrainError> {
        let mut proto = model.whole();
        let graph = proto.graph.as_mut().ok_or_else(|| TrainError::Base("it has no graph".into()))?;
        if let (Some(part), Some(tail)) = (&self.tail, tail) {
            tail::write(graph, part, tail);
        }
        keep_ancestors(graph, &self.cut);
        let mut build = Builder { graph, opset: model.opset() };
        let mut value = self.cut.clone();
        match self.shape {
            Shape::Vector(_) => value = build.node("Flatten", "features", &[&value], vec![int("axis", 1)]),
            Shape::ChannelsFirst(..) => {
                let pooled = build.node("GlobalAveragePool", "pooling", &[&value], vec![]);
                value = build.node("Flatten", "features", &[&pooled], vec![int("axis", 1)]);
            }
            Shape::ChannelsLast(..) => value = build.mean(&value),
        }
        let last = head.layers.len() - 1;
        for (at, layer) in head.layers.iter().enumerate() {
            let weights = build.constant(&format!("dense_{at}/kernel"), &[layer.inputs, layer.outputs], &layer.weights);
            let bias = build.constant(&format!("dense_{at}/bias"), &[layer.outputs], &layer.bias);
            let name = if at == last { OUTPUT.into() } else { format!("dense_{at}") };
            value = build.node("Gemm", &name, &[&value, &weights, &bias], vec![]);
            if at < last {
                value = build.node(head.activation.operator(), &format!("activation_{at}"), &[&value], vec![]);
            }
        }
        let classes = head.layers[last].outputs;
        graph.output = vec![output_info(&value, classes)];
        graph.value_info.clear();
        proto.producer_name = "edge-pack".into();
        proto.producer_version = env!("CARGO_PKG_VERSION").into();
        let mut properties = model.properties();
        properties.retain(|key, _| !key.starts_with("edgepack."));
        properties.extend(metadata.to_properties());
        let entry = |(key, value)| StringStringEntryProto { key, value };
        proto.metadata_props = properties.into_iter().map(entry).collect();
        Ok(proto.encode_to_vec())
    }
}

pub(crate) fn graph<'m>(model: &'m OnnxModel<'_>) -> Result<&'m GraphProto, TrainError> {
    model.structure().graph.as_ref().ok_or_else(|| TrainError::Base("it has no graph".into()))
}

/// The value of this name, or the first that the node of this name makes.
fn named(graph: &GraphProto, name: &str) -> Result<String, TrainError> {
    if graph.node.iter().any(|n| n.output.iter().any(|o| o == name)) {
        return Ok(name.into());
    }
    let output = graph.node.iter().find(|n| n.name == name).and_then(|n| n.output.first());
    output
        .cloned()
        .ok_or_else(|| TrainError::Base(format!("--cut {name}: the base has no node and no value of this name")))
}

/// Whether a node moves channels to the end.
pub(crate) fn turned(node: &NodeProto) -> bool {
    node.op_type == "Transpose" && node.attribute.iter().any(|a| a.name == "perm" && a.ints == [0, 2, 3, 1])
}

/// Which node makes a value.
pub(crate) fn makers(graph: &GraphProto) -> HashMap<&str, usize> {
    graph.node.iter().enumerate().flat_map(|(i, n)| n.output.iter().map(move |o| (o.as_str(), i))).collect()
}

/// Values that a classifier could begin at, the likeliest first.
fn candidates(graph: &GraphProto, input: &str) -> Vec<String> {
    let Some(output) = graph.output.first().map(|o| o.name.as_str()) else { return vec![] };
    let makers = makers(graph);
    // Whether the output can still be reached from the picture without what a node makes.
    let passes = |without: usize| {
        let (mut seen, mut pending) = (HashSet::new(), vec![output]);
        while let Some(name) = pending.pop() {
            if name == input {
                return true;
            }
            if let Some(&node) = makers.get(name)
                && node != without
                && seen.insert(node)
            {
                pending.extend(graph.node[node].input.iter().map(String::as_str));
            }
        }
        false
    };
    let pooling = |n: &NodeProto| matches!(n.op_type.as_str(), "GlobalAveragePool" | "GlobalMaxPool" | "ReduceMean");
    let flat = |n: &NodeProto| matches!(n.op_type.as_str(), "Flatten" | "Reshape");
    let last = |kind: &dyn Fn(&NodeProto) -> bool| {
        (0..graph.node.len()).rev().filter(|i| kind(&graph.node[*i])).find(|i| !passes(*i)).map(|i| &graph.node[i])
    };
    let mut found = vec![];
    found.extend(last(&pooling).and_then(|n| n.output.first().cloned()));
    found.extend(last(&flat).and_then(|n| n.input.first().cloned()));
    if found.is_empty() {
        found.push(output.into());
    }
    found
}

/// Leaves of a graph what a value is computed from.
fn keep_ancestors(graph: &mut GraphProto, value: &str) {
    let makers = makers(graph);
    let (mut kept, mut pending) = (HashSet::new(), vec![value.to_string()]);
    while let Some(name) = pending.pop() {
        if let Some(&node) = makers.get(name.as_str())
            && kept.insert(node)
        {
            pending.extend(graph.node[node].input.iter().cloned());
        }
    }
    let mut at = 0..;
    graph.node.retain(|_| at.next().is_some_and(|i| kept.contains(&i)));
    let read: HashSet<&str> = graph.node.iter().flat_map(|n| &n.input).map(String::as_str).collect();
    graph.initializer.retain(|t| read.contains(t.name.as_str()));
    let initializers: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    // Old files list initializers among the inputs, too.
    graph.input.retain(|i| initializers.contains(i.name.as_str()) || read.contains(i.name.as_str()));
}

/// Adds nodes to a graph.
struct Builder<'a> {
    graph: &'a mut GraphProto,
    opset: i64,
}

impl Builder<'_> {
    /// `wanted`, or that with something behind it where it is taken.
    fn fresh(&self, wanted: &str) -> String {
        let graph = &self.graph;
        let taken = |name: &str| {
            graph.node.iter().any(|n| n.name == name || n.output.iter().any(|o| o == name))
                || graph.initializer.iter().any(|t| t.name == name)
                || graph.input.iter().any(|i| i.name == name)
        };
        let mut name = wanted.to_string();
        while taken(&name) {
            name.push_str("_head");
        }
        name
    }

    fn node(&mut self, operator: &str, name: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> String {
        let name = self.fresh(name);
        self.graph.node.push(NodeProto {
            name: name.clone(),
            op_type: operator.into(),
            input: inputs.iter().map(|i| i.to_string()).collect(),
            output: vec![name.clone()],
            attribute,
            ..NodeProto::default()
        });
        name
    }

    fn constant(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        let name = self.fresh(name);
        self.graph.initializer.push(TensorProto {
            name: name.clone(),
            dims: dims.iter().map(|d| *d as i64).collect(),
            data_type: DataType::Float as i32,
            raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ..TensorProto::default()
        });
        name
    }

    /// The mean over the pixels of (1,H,W,C): (1,C).
    fn mean(&mut self, value: &str) -> String {
        let axes = AttributeProto {
            name: "axes".into(),
            r#type: AttributeType::Ints as i32,
            ints: vec![1, 2],
            ..AttributeProto::default()
        };
        if self.opset < 18 {
            return self.node("ReduceMean", "features", &[value], vec![axes, int("keepdims", 0)]);
        }
        // From opset 18 on the axes are an input.
        let name = self.fresh("features/axes");
        self.graph.initializer.push(TensorProto {
            name: name.clone(),
            dims: vec![2],
            data_type: DataType::Int64 as i32,
            raw_data: [1_i64, 2].iter().flat_map(|v| v.to_le_bytes()).collect(),
            ..TensorProto::default()
        });
        self.node("ReduceMean", "features", &[value, &name], vec![int("keepdims", 0)])
    }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Int as i32, i, ..AttributeProto::default() }
}

fn output_info(name: &str, classes: usize) -> ValueInfoProto {
    let side = |d: usize| Dimension { value: Some(DimValue::DimValue(d as i64)), ..Dimension::default() };
    let shape = TensorShapeProto { dim: vec![side(1), side(classes)] };
    let tensor = Tensor { elem_type: DataType::Float as i32, shape: Some(shape) };
    let kind = TypeProto { value: Some(TypeValue::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.into(), r#type: Some(kind), ..ValueInfoProto::default() }
}
