//! The float graph in the few forms that quantization knows: dense layers as Gemm of (inputs, outputs), bias and scales inside.

use crate::fold;
use crate::graph::Graph;
use edge_engine::Attributes;
use edge_engine::pb::NodeProto;
use std::collections::HashSet;

/// Brings dense layers into one form and folds normalizations, sums and products with constants into the layers before them.
pub fn simplify(graph: &mut Graph, outputs: &HashSet<String>) {
    for at in 0..graph.nodes.len() {
        dense(graph, at);
    }
    fold::affine(graph, outputs);
    graph.sweep();
}

/// A MatMul of a vector, or a Gemm of any kind, becomes a Gemm whose weights are (inputs, outputs), without factors.
fn dense(graph: &mut Graph, at: usize) {
    let node = graph.nodes[at].clone();
    let attributes = Attributes(&node);
    let gemm = node.op_type == "Gemm";
    if node.input.len() < 2 {
        return;
    }
    if !(gemm || node.op_type == "MatMul" && is_vector(graph, &node.input[0], 64)) {
        return;
    }
    if attributes.int("transA", 0) != 0 {
        return;
    }
    let Some([rows, columns]) = graph.constant(&node.input[1]).and_then(|w| <[i64; 2]>::try_from(&w.dims[..]).ok())
    else {
        return;
    };
    let Some(weights) = graph.values(&node.input[1]) else { return };
    let (rows, columns) = (rows as usize, columns as usize);
    let turned = gemm && attributes.int("transB", 0) != 0;
    let (inputs, outputs) = if turned { (columns, rows) } else { (rows, columns) };
    let (alpha, beta) = (attributes.float("alpha", 1.0), attributes.float("beta", 1.0));
    let bias = match node.input.get(2).filter(|n| !n.is_empty()) {
        None => None,
        Some(name) => match graph.values(name) {
            Some(v) if v.len() == outputs => Some(v),
            Some(v) if v.len() == 1 => Some(vec![v[0]; outputs]),
            _ => return,
        },
    };
    if gemm && !turned && alpha == 1.0 && beta == 1.0 && bias.is_some() {
        return;
    }
    let place = |i: usize| if turned { (i % outputs) * inputs + i / outputs } else { i };
    let straight: Vec<f32> = (0..weights.len()).map(|i| alpha * weights[place(i)]).collect();
    let mut inputs_of = vec![node.input[0].clone(), graph.floats(&node.input[1], &[inputs, outputs], &straight)];
    let bias: Vec<f32> = bias.unwrap_or_else(|| vec![0.0; outputs]).iter().map(|b| beta * b).collect();
    inputs_of.push(graph.floats(&format!("{}/bias", node.input[1]), &[outputs], &bias));
    graph.nodes[at] = NodeProto { op_type: "Gemm".into(), input: inputs_of, attribute: vec![], ..node };
}

/// Whether a value is certainly (N, K).
fn is_vector(graph: &Graph, value: &str, depth: usize) -> bool {
    let Some(node) = graph.nodes.iter().find(|n| n.output.iter().any(|o| o == value)).filter(|_| depth > 0) else {
        return false;
    };
    let attributes = Attributes(node);
    match node.op_type.as_str() {
        "Flatten" | "Gemm" => true,
        "Reshape" => node.input.get(1).and_then(|s| graph.constant(s)).is_some_and(|s| s.dims == [2]),
        // Of a picture, over its two sides.
        "ReduceMean" => {
            let axes = match attributes.ints("axes") {
                Some(axes) => axes.len(),
                None => node
                    .input
                    .get(1)
                    .and_then(|s| graph.constant(s))
                    .map_or(0, |s| s.dims.iter().product::<i64>() as usize),
            };
            attributes.int("keepdims", 1) == 0 && axes == 2
        }
        "MatMul" | "Relu" | "Clip" | "Sigmoid" | "Tanh" | "Softmax" | "Add" | "Mul" | "Sub" | "Div" | "Cast"
        | "BatchNormalization" | "LeakyRelu" | "Elu" => {
            let computed = node.input.iter().filter(|i| graph.constant(i).is_none()).collect::<Vec<_>>();
            !computed.is_empty() && computed.into_iter().all(|i| is_vector(graph, i, depth - 1))
        }
        _ => false,
    }
}

/// Brings a graph of an older opset to 13, the first with scales per channel: attributes that became inputs do so. What cannot be
/// brought there is an error.
pub fn raise_opset(graph: &mut Graph, opset: i64) -> Result<i64, String> {
    const WANTED: i64 = 13;
    if opset >= WANTED {
        return Ok(opset);
    }
    // The same in all of them, as classifiers use them.
    const SAME: [&str; 26] = [
        "Conv",
        "Relu",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "ReduceMean",
        "Flatten",
        "Reshape",
        "Gemm",
        "MatMul",
        "Sigmoid",
        "HardSigmoid",
        "Tanh",
        "Transpose",
        "Concat",
        "BatchNormalization",
        "LeakyRelu",
        "Elu",
        "Cast",
        "PRelu",
        "Exp",
    ];
    for at in 0..graph.nodes.len() {
        let node = graph.nodes[at].clone();
        let attributes = Attributes(&node);
        match node.op_type.as_str() {
            same if SAME.contains(&same) => {}
            // From 13 on over one axis; before, over all from that axis on: the same for (N, K).
            "Softmax" | "LogSoftmax"
                if matches!(attributes.int("axis", 1), 1 | -1)
                    && node.input.first().is_some_and(|i| is_vector(graph, i, 64)) =>
            {
                graph.nodes[at].attribute = vec![crate::graph::int("axis", -1)];
            }
            "Clip" if opset < 11 => {
                let limits = [attributes.float("min", f32::MIN), attributes.float("max", f32::MAX)];
                let names = ["min", "max"].map(|end| format!("{}/{end}", node.output[0]));
                let names = [0, 1].map(|i| graph.floats(&names[i], &[], &[limits[i]]));
                graph.nodes[at].input.extend(names);
                graph.nodes[at].attribute.clear();
            }
            "Pad" if opset < 11 => {
                let pads =
                    graph.longs(&format!("{}/pads", node.output[0]), attributes.ints("pads").unwrap_or_default());
                let value = graph.floats(&format!("{}/value", node.output[0]), &[], &[attributes.float("value", 0.0)]);
                graph.nodes[at].input.extend([pads, value]);
                graph.nodes[at].attribute.retain(|a| a.name == "mode");
            }
            "Clip" | "Pad" => {}
            "Squeeze" | "Unsqueeze" => {
                if let Some(axes) = attributes.ints("axes") {
                    let axes = graph.longs(&format!("{}/axes", node.output[0]), axes);
                    graph.nodes[at].input.push(axes);
                }
                graph.nodes[at].attribute.clear();
            }
            other => {
                return Err(format!(
                    "opset {opset} has no scales per channel, and {other} cannot be brought to opset {WANTED} here; export the model again with opset {WANTED} or later"
                ));
            }
        }
    }
    Ok(WANTED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::float;
    use edge_engine::pb::AttributeProto;

    fn node(op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
        NodeProto {
            op_type: op.into(),
            name: output.into(),
            input: inputs.iter().map(|i| i.to_string()).collect(),
            output: vec![output.into()],
            attribute,
            ..NodeProto::default()
        }
    }

    #[test]
    fn dense_layers_get_one_form_and_their_bias() {
        let mut graph = Graph::new(usize::MAX);
        graph.floats("w", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        graph.floats("t", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        graph.floats("b", &[3], &[1.0, 1.0, 1.0]);
        graph.nodes = vec![
            node("Flatten", &["x"], "v", vec![]),
            node("MatMul", &["v", "w"], "m", vec![]),
            node("Add", &["m", "b"], "y", vec![]),
            node("Gemm", &["y", "t"], "z", vec![crate::graph::int("transB", 1), float("alpha", 2.0)]),
        ];
        simplify(&mut graph, &["z".to_string()].into());
        let kinds: Vec<&str> = graph.nodes.iter().map(|n| n.op_type.as_str()).collect();
        assert_eq!(kinds, ["Flatten", "Gemm", "Gemm"]);
        assert_eq!(graph.values(&graph.nodes[1].input[2]).unwrap(), [1.0; 3]);
        assert_eq!(graph.values(&graph.nodes[2].input[1]).unwrap(), [2.0, 8.0, 4.0, 10.0, 6.0, 12.0]);
        assert_eq!(graph.nodes[2].input[0], "m");
    }

    #[test]
    fn old_opsets_are_raised_or_refused() {
        let mut graph = Graph::new(usize::MAX);
        graph.nodes = vec![node("Clip", &["x"], "y", vec![float("min", 0.0), float("max", 6.0)])];
        assert_eq!(raise_opset(&mut graph, 9), Ok(13));
        assert_eq!(graph.values(&graph.nodes[0].input[2]).unwrap(), [6.0]);
        graph.nodes = vec![node("Upsample", &["x"], "y", vec![])];
        assert!(raise_opset(&mut graph, 9).unwrap_err().contains("Upsample"));
        assert_eq!(raise_opset(&mut graph, 17), Ok(17));
    }
}
