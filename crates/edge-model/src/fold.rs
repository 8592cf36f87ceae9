//! BatchNormalization folded into the convolution or the dense layer before it, and so are sums and products with constants.
//!
//! Exact in real numbers wherever the normalization is the only reader of that layer and nothing else uses the
//! layer's weights; computed in float64 and rounded to float32 once.

use crate::graph::{Graph, floats_to_raw, raw_to_floats};
use edge_engine::Attributes;
use edge_engine::pb::NodeProto;
use std::collections::{HashMap, HashSet};

/// One factor and one offset per channel.
struct Affine {
    mul: Vec<f64>,
    add: Vec<f64>,
}

/// Folds every BatchNormalization that can be. `outputs` are the graph's outputs; a value among them stays.
pub fn batch_norms(graph: &mut Graph, outputs: &HashSet<String>) {
    fold_all(graph, outputs, |graph, node, _| normalization(graph, node));
}

/// Folds what [`batch_norms`] does, and every Add, Sub, Mul and Div with one constant per channel.
pub fn affine(graph: &mut Graph, outputs: &HashSet<String>) {
    fold_all(graph, outputs, |graph, node, layer| {
        normalization(graph, node).or_else(|| arithmetic(graph, node, layer))
    });
}

fn fold_all(
    graph: &mut Graph,
    outputs: &HashSet<String>,
    affine: impl Fn(&Graph, &NodeProto, &NodeProto) -> Option<Affine>,
) {
    let mut uses = graph.uses();
    let producers: HashMap<String, usize> =
        graph.nodes.iter().enumerate().flat_map(|(i, n)| n.output.iter().map(move |o| (o.clone(), i))).collect();
    // Value of a folded normalization -> value of the layer that took it in.
    let mut renamed: HashMap<String, String> = HashMap::new();
    let mut gone = vec![false; graph.nodes.len()];
    for i in 0..graph.nodes.len() {
        for input in &mut graph.nodes[i].input {
            if let Some(new) = renamed.get(input) {
                input.clone_from(new);
            }
        }
        let made = |name: &&String| producers.contains_key(*name);
        let Some(source) = graph.nodes[i].input.iter().find(made).cloned() else { continue };
        let alone = |name: &str| uses.get(name).copied() == Some(1);
        let Some(&producer) = producers.get(&source) else { continue };
        let free = !gone[producer] && alone(&source) && !outputs.contains(&source);
        let weights = graph.nodes[producer].input.get(1).cloned().unwrap_or_default();
        let bias = graph.nodes[producer].input.get(2).cloned();
        if !free || !alone(&weights) || bias.as_deref().is_some_and(|b| !alone(b)) {
            continue;
        }
        let Some(affine) = affine(graph, &graph.nodes[i], &graph.nodes[producer]) else { continue };
        if fold(graph, producer, &affine).is_some() {
            gone[i] = true;
            let normalized = graph.nodes[i].output[0].clone();
            if outputs.contains(&normalized) {
                graph.nodes[producer].output[0].clone_from(&normalized);
                graph.nodes[producer].name.clone_from(&normalized);
            } else {
                let uses_after = uses.get(&normalized).copied().unwrap_or_default();
                uses.insert(source.clone(), uses_after);
                renamed.insert(normalized, source);
            }
        }
    }
    let mut gone = gone.into_iter();
    graph.nodes.retain(|_| !gone.next().unwrap_or_default());
}

/// Which axis of the weights counts the outputs.
fn output_axis(node: &NodeProto) -> Option<usize> {
    match node.op_type.as_str() {
        "Conv" => Some(0),
        // (I, O / group, …): with groups the outputs are spread over two axes.
        "ConvTranspose" if !node.attribute.iter().any(|a| a.name == "group" && a.i != 1) => Some(1),
        "Gemm" => Some(if Attributes(node).int("transB", 0) != 0 { 0 } else { 1 }),
        _ => None,
    }
}

/// What a normalization multiplies and adds.
fn normalization(graph: &Graph, node: &NodeProto) -> Option<Affine> {
    if node.op_type != "BatchNormalization" || Attributes(node).int("training_mode", 0) != 0 {
        return None;
    }
    let epsilon = f64::from(Attributes(node).float("epsilon", 1e-5));
    let vectors: Vec<Vec<f32>> = node.input.get(1..5)?.iter().map(|name| graph.values(name)).collect::<Option<_>>()?;
    let [gamma, beta, mean, variance] = &vectors[..] else { return None };
    let count = gamma.len();
    if vectors.iter().any(|v| v.len() != count) {
        return None;
    }
    let mul: Vec<f64> = (0..count).map(|o| f64::from(gamma[o]) / (f64::from(variance[o]) + epsilon).sqrt()).collect();
    let add = (0..count).map(|o| f64::from(beta[o]) - f64::from(mean[o]) * mul[o]).collect();
    Some(Affine { mul, add })
}

/// What a sum or a product with a constant multiplies and adds, where that is one number per channel of what `layer` makes.
fn arithmetic(graph: &Graph, node: &NodeProto, layer: &NodeProto) -> Option<Affine> {
    let [a, b] = &node.input[..] else { return None };
    let (place, constant) = match (graph.constant(a), graph.constant(b)) {
        (None, Some(constant)) => (1, constant),
        (Some(constant), None) => (0, constant),
        _ => return None,
    };
    let channels = *graph.constant(layer.input.get(1)?)?.dims.get(output_axis(layer)?)? as usize;
    // Aligned at the end, as NumPy does: (C,1,1) behind a convolution, (C) behind a dense layer.
    let behind = if layer.op_type == "Gemm" { 0 } else { 2 };
    let mut sides = constant.dims.iter().rev().enumerate();
    let fits = sides.all(|(i, d)| *d == 1 || i == behind && *d as usize == channels);
    let values = graph.values(&constant.name).filter(|v| fits && (v.len() == 1 || v.len() == channels))?;
    let value = |o: usize| f64::from(values[if values.len() == 1 { 0 } else { o }]);
    let all = |f: &dyn Fn(f64) -> f64| (0..channels).map(|o| f(value(o))).collect::<Vec<f64>>();
    let (mul, add) = match (node.op_type.as_str(), place) {
        ("Add", _) => (all(&|_| 1.0), all(&|v| v)),
        ("Sub", 1) => (all(&|_| 1.0), all(&|v| -v)),
        ("Sub", _) => (all(&|_| -1.0), all(&|v| v)),
        ("Mul", _) => (all(&|v| v), all(&|_| 0.0)),
        ("Div", 1) => (all(&|v| 1.0 / v), all(&|_| 0.0)),
        _ => return None,
    };
    Some(Affine { mul, add })
}

/// Multiplies and adds into a layer's weights and bias.
fn fold(graph: &mut Graph, layer: usize, affine: &Affine) -> Option<()> {
    let axis = output_axis(&graph.nodes[layer])?;
    let outputs = affine.mul.len();
    // A variance that gives no number is the network's own affair; the node stays and says so when it runs.
    if affine.mul.iter().chain(&affine.add).any(|v| !v.is_finite()) {
        return None;
    }
    let weights_name = graph.nodes[layer].input[1].clone();
    let bias_name = graph.nodes[layer].input.get(2).cloned();
    let old_bias = match &bias_name {
        Some(name) => raw_to_floats(&graph.constant_mut(name)?.raw_data),
        None => vec![0.0; outputs],
    };
    let weights = graph.constant_mut(&weights_name)?;
    let dims: Vec<usize> = weights.dims.iter().map(|d| *d as usize).collect();
    if dims.get(axis) != Some(&outputs) || old_bias.len() != outputs {
        return None;
    }
    let inner: usize = dims[axis + 1..].iter().product();
    for (i, value) in weights.raw_data.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let scaled = f64::from(f32::from_le_bytes(*value)) * affine.mul[i / inner % outputs];
        *value = (scaled as f32).to_le_bytes();
    }
    let bias: Vec<f32> =
        (0..outputs).map(|o| (f64::from(old_bias[o]) * affine.mul[o] + affine.add[o]) as f32).collect();
    match bias_name {
        Some(name) => graph.constant_mut(&name)?.raw_data = floats_to_raw(&bias),
        None => {
            let wanted = match weights_name.strip_suffix("/kernel") {
                Some(stem) => format!("{stem}/bias"),
                None => format!("{weights_name}/bias"),
            };
            let name = graph.floats(&wanted, &[outputs], &bias);
            graph.nodes[layer].input.push(name);
        }
    }
    Some(())
}
