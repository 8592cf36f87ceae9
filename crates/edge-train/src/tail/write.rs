//! Trained weights back into the base's file.

use super::{Part, Tail};
use edge_engine::pb::{GraphProto, TensorProto, tensor_proto::DataType};

/// Puts the weights of a tail into the graph that it was read from. What a frozen layer reads, too, or what is not stored in float32
/// stays as it is, and the tail gets its own.
pub fn write(graph: &mut GraphProto, part: &Part, tail: &Tail) {
    for parameter in &tail.parameters {
        let raw_data = parameter.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let reads = |at: usize| graph.node[at].input.contains(&parameter.name);
        let shared = (0..graph.node.len()).any(|at| reads(at) && !part.nodes.contains(&at));
        let float = |t: &&mut TensorProto| t.name == parameter.name && t.data_type == DataType::Float as i32;
        if let Some(tensor) = graph.initializer.iter_mut().find(float).filter(|_| !shared) {
            (tensor.raw_data, tensor.float_data) = (raw_data, vec![]);
            continue;
        }
        let mut name = format!("{}/tuned", parameter.name);
        while graph.initializer.iter().any(|t| t.name == name) || graph.node.iter().any(|n| n.output.contains(&name)) {
            name.push('_');
        }
        for at in &part.nodes {
            graph.node[*at].input.iter_mut().filter(|i| **i == parameter.name).for_each(|i| i.clone_from(&name));
        }
        graph.initializer.push(TensorProto {
            name,
            dims: parameter.dims.iter().map(|d| *d as i64).collect(),
            data_type: DataType::Float as i32,
            raw_data,
            ..TensorProto::default()
        });
    }
}
