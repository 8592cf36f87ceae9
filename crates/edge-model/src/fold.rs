//! BatchNormalization folded into the convolution or the dense layer before it.
//!
//! Exact in real numbers wherever the normalization is the only reader of that layer and nothing else uses the
//! layer's weights; computed in float64 and rounded to float32 once.

use crate::graph::{Graph, floats_to_raw, raw_to_floats};
use std::collections::{HashMap, HashSet};

/// Folds every BatchNormalization that can be. `outputs` are the graph's outputs; a value among them stays.
pub fn batch_norms(graph: &mut Graph, outputs: &HashSet<String>) {
    let mut uses: HashMap<String, usize> = HashMap::new();
    for input in graph.nodes.iter().flat_map(|n| &n.input) {
        *uses.entry(input.clone()).or_default() += 1;
    }
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
        if graph.nodes[i].op_type != "BatchNormalization" {
            continue;
        }
        let source = graph.nodes[i].input[0].clone();
        let alone = |name: &str| uses.get(name).copied() == Some(1);
        let Some(&producer) = producers.get(&source) else { continue };
        let free = !gone[producer] && alone(&source) && !outputs.contains(&source);
        let weights = graph.nodes[producer].input.get(1).cloned().unwrap_or_default();
        let bias = graph.nodes[producer].input.get(2).cloned();
        if !free || !alone(&weights) || bias.as_deref().is_some_and(|b| !alone(b)) {
            continue;
        }
        if fold(graph, producer, i).is_some() {
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
fn output_axis(graph: &Graph, node: usize) -> Option<usize> {
    let node = &graph.nodes[node];
    match node.op_type.as_str() {
        "Conv" => Some(0),
        // (I, O / group, …): with groups the outputs are spread over two axes.
        "ConvTranspose" if !node.attribute.iter().any(|a| a.name == "group" && a.i != 1) => Some(1),
        "Gemm" => Some(1),
        _ => None,
    }
}

fn fold(graph: &mut Graph, layer: usize, norm: usize) -> Option<()> {
    let axis = output_axis(graph, layer)?;
    let epsilon = graph.nodes[norm].attribute.iter().find(|a| a.name == "epsilon")?.f;
    let names = graph.nodes[norm].input.clone();
    let mut vectors = vec![];
    for name in &names[1..] {
        vectors.push(raw_to_floats(&graph.constant_mut(name)?.raw_data));
    }
    let [gamma, beta, mean, variance] = &vectors[..] else { return None };
    let outputs = gamma.len();
    let scale: Vec<f64> =
        (0..outputs).map(|o| f64::from(gamma[o]) / (f64::from(variance[o]) + f64::from(epsilon)).sqrt()).collect();
    // A variance that gives no number is the network's own affair; the node stays and says so when it runs.
    if scale.iter().any(|s| !s.is_finite()) {
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
        let scaled = f64::from(f32::from_le_bytes(*value)) * scale[i / inner % outputs];
        *value = (scaled as f32).to_le_bytes();
    }
    let bias: Vec<f32> = (0..outputs)
        .map(|o| (f64::from(beta[o]) + (f64::from(old_bias[o]) - f64::from(mean[o])) * scale[o]) as f32)
        .collect();
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
