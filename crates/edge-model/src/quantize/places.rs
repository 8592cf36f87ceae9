//! Which nodes compute with bytes, and which values are quantized for that.

use crate::graph::Graph;
use edge_engine::Attributes;
use edge_engine::pb::NodeProto;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What a node is to quantization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A convolution with constant weights (O,I,kh,kw).
    Conv,
    /// A Gemm of a vector and constant weights (I,O).
    Dense,
    /// A sum of two computed values.
    Sum,
    /// The mean of each channel.
    Mean,
    /// The maximum under a window: what comes out has the scale of what goes in.
    Maximum,
    /// A Relu or a Clip.
    Limits,
    /// Values in another order or shape.
    Move,
}

/// The role of a node, or why it stays in float.
pub fn role(graph: &Graph, node: &NodeProto) -> Result<Role, String> {
    let weights = |count: usize| {
        let weights = node.input.get(1).and_then(|w| graph.constant(w));
        let bias = node.input.get(2).is_none_or(|b| b.is_empty() || graph.constant(b).is_some());
        weights.is_some_and(|w| w.dims.len() == count) && bias
    };
    let computed = |name: &String| graph.constant(name).is_none();
    match node.op_type.as_str() {
        _ if !matches!(node.domain.as_str(), "" | "ai.onnx") => Err("an operator of another domain".into()),
        _ if node.input.first().is_none_or(|i| i.is_empty()) => Err("it reads nothing".into()),
        "Conv" if weights(4) => Ok(Role::Conv),
        "Gemm" if weights(2) && Attributes(node).int("transB", 0) == 0 => Ok(Role::Dense),
        "Conv" | "Gemm" | "MatMul" => Err(format!("{} without constant weights of a layer", node.op_type)),
        "Add" if node.input.len() == 2 && node.input.iter().all(computed) => Ok(Role::Sum),
        "GlobalAveragePool" | "AveragePool" | "ReduceMean" => Ok(Role::Mean),
        "MaxPool" if node.output.len() == 1 => Ok(Role::Maximum),
        "Relu" | "Clip" => Ok(Role::Limits),
        "Transpose" | "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => Ok(Role::Move),
        other => Err(format!("{other} is not quantized")),
    }
}

/// A node that computes with bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its place among the graph's nodes.
    pub node: usize,
    /// What it is.
    pub role: Role,
    /// What it makes: behind the Relu or Clip that belongs to it.
    pub output: String,
}

/// What is quantized.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// In the order of computation.
    pub layers: Vec<Layer>,
    /// Values that become bytes, each with the value whose scale it has (often itself).
    pub values: BTreeMap<String, String>,
    /// Nodes that stay in float, and why; what is fused or only moves values is not among them.
    pub float: Vec<(usize, String)>,
}

/// Finds what can be quantized. `float` are the names of nodes that shall not be, `outputs` the graph's.
pub fn places(graph: &Graph, float: &HashSet<String>, outputs: &HashSet<String>) -> Places {
    let makers: HashMap<&str, usize> =
        graph.nodes.iter().enumerate().flat_map(|(i, n)| n.output.iter().map(move |o| (o.as_str(), i))).collect();
    let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, node) in graph.nodes.iter().enumerate() {
        node.input.iter().for_each(|i| readers.entry(i).or_default().push(at));
    }
    let mut places = Places::default();
    // Nodes that compute with bytes, those that are part of one too.
    let mut bytes: HashSet<usize> = HashSet::new();
    let mut fused: HashSet<usize> = HashSet::new();
    for (at, node) in graph.nodes.iter().enumerate() {
        if fused.contains(&at) {
            continue;
        }
        let role = match role(graph, node) {
            Ok(_) if float.contains(node_key(node)) => {
                places.float.push((at, "kept in float".into()));
                continue;
            }
            Ok(role) => role,
            Err(why) => {
                places.float.push((at, why));
                continue;
            }
        };
        let input = node.input.first().map_or("", String::as_str);
        let behind = makers.get(input).is_some_and(|m| bytes.contains(m));
        // The picture is moved as it is, and so is what stays in float; limits and maxima of that gain nothing.
        if matches!(role, Role::Move | Role::Limits | Role::Maximum) && !behind {
            continue;
        }
        bytes.insert(at);
        let mut output = node.output[0].clone();
        if matches!(role, Role::Conv | Role::Dense | Role::Sum)
            && let Some(&[after]) = readers.get(output.as_str()).map(Vec::as_slice)
            && matches!(graph.nodes[after].op_type.as_str(), "Relu" | "Clip")
            && !outputs.contains(&output)
        {
            fused.insert(after);
            bytes.insert(after);
            output.clone_from(&graph.nodes[after].output[0]);
        }
        places.layers.push(Layer { node: at, role, output });
    }
    let quantized = places.layers.iter().flat_map(|l| inputs(&graph.nodes[l.node], l.role));
    let quantized: HashSet<String> = quantized.cloned().collect();
    for name in &quantized {
        places.values.insert(name.clone(), name.clone());
    }
    for layer in &places.layers {
        let input = &graph.nodes[layer.node].input[0];
        let shares = match layer.role {
            Role::Maximum | Role::Move => true,
            // What was rounded once is not rounded to another scale again.
            Role::Limits => quantized.contains(input),
            _ => false,
        };
        if shares && quantized.contains(&layer.output) {
            let scale = places.values.get(input).cloned().unwrap_or_else(|| input.clone());
            places.values.insert(layer.output.clone(), scale);
        }
    }
    places
}

/// The computed values that a node of this role reads.
pub fn inputs(node: &NodeProto, role: Role) -> &[String] {
    let count = if role == Role::Sum { 2 } else { 1 };
    &node.input[..count.min(node.input.len())]
}

/// What a node is called: its name, or its first output's.
pub fn node_key(node: &NodeProto) -> &str {
    if node.name.is_empty() { node.output.first().map_or("", String::as_str) } else { &node.name }
}
