//! An ONNX file as a graph that can be edited: constants in one place and in float32, nodes that do nothing gone.

use crate::graph::{Graph, floats_to_raw};
use edge_engine::pb::{ModelProto, NodeProto, TensorProto, tensor_proto::DataType};
use edge_engine::{Attributes, OnnxModel, tensor_floats};
use std::collections::{HashMap, HashSet};

impl Graph {
    /// The graph of a model, and the model without it. Float constants become float32; what a Constant node or a Cast of a
    /// constant makes becomes a constant; Identity and Dropout are passed over.
    pub fn read(model: &OnnxModel<'_>) -> Result<(Graph, ModelProto), String> {
        let mut proto = model.whole();
        let mut source = proto.graph.take().ok_or("it has no graph")?;
        if source.node.iter().flat_map(|n| &n.attribute).any(|a| a.g.is_some() || !a.graphs.is_empty()) {
            return Err("a node has a graph of its own".into());
        }
        let mut graph = Graph::new(usize::MAX);
        for tensor in std::mem::take(&mut source.initializer) {
            graph.keep(tensor)?;
        }
        let constants: HashSet<String> = graph.constants.iter().map(|c| c.name.clone()).collect();
        // Old files list initializers among the inputs, too.
        source.input.retain(|i| !constants.contains(&i.name));
        let outputs: HashSet<&str> = source.output.iter().map(|o| o.name.as_str()).collect();
        let mut renamed: HashMap<String, String> = HashMap::new();
        for mut node in std::mem::take(&mut source.node) {
            for input in &mut node.input {
                if let Some(new) = renamed.get(input) {
                    input.clone_from(new);
                }
            }
            // What nobody can read does nothing.
            let Some(output) = node.output.first().filter(|o| !o.is_empty()).cloned() else { continue };
            if let Some(tensor) = graph.made_constant(&node) {
                graph.keep(TensorProto { name: output, ..tensor })?;
            } else if passes(&node) && !outputs.contains(output.as_str()) {
                renamed.insert(output, node.input[0].clone());
            } else {
                node.output.iter().for_each(|o| graph.claim(o));
                graph.nodes.push(node);
            }
        }
        source.input.iter().for_each(|i| graph.claim(&i.name));
        source.value_info.clear();
        proto.graph = Some(source);
        Ok((graph, proto))
    }

    /// The model of which this is the graph; `rest` is what [`Graph::read`] gave.
    pub fn into_model(mut self, rest: &ModelProto) -> ModelProto {
        let mut proto = rest.clone();
        self.sweep();
        if let Some(graph) = &mut proto.graph {
            (graph.node, graph.initializer) = (self.nodes, self.constants);
        }
        proto
    }

    /// Takes constants away that nothing reads.
    pub fn sweep(&mut self) {
        let used: HashSet<&str> = self.nodes.iter().flat_map(|n| &n.input).map(String::as_str).collect();
        self.constants.retain(|c| used.contains(c.name.as_str()));
        self.number();
    }

    fn keep(&mut self, tensor: TensorProto) -> Result<(), String> {
        let name = tensor.name.clone();
        let float = matches!(DataType::try_from(tensor.data_type), Ok(DataType::Float | DataType::Float16));
        let tensor = match float {
            false => tensor,
            true => {
                let values =
                    tensor_floats(&tensor).ok_or(format!("the constant {name:?} has not the size that it says"))?;
                let (dims, data_type) = (tensor.dims.clone(), DataType::Float as i32);
                TensorProto {
                    name: name.clone(),
                    dims,
                    data_type,
                    raw_data: floats_to_raw(&values),
                    ..Default::default()
                }
            }
        };
        self.claim(&name);
        self.store(tensor);
        Ok(())
    }

    /// The constant that a node makes, where it makes one.
    fn made_constant(&mut self, node: &NodeProto) -> Option<TensorProto> {
        match node.op_type.as_str() {
            "Constant" => node.attribute.iter().find_map(|a| a.t.clone()),
            "Cast" if Attributes(node).int("to", 0) == 1 => {
                let source = self.constant(node.input.first()?)?;
                (source.data_type == DataType::Float as i32).then(|| source.clone())
            }
            _ => None,
        }
    }

    /// The values of a float constant.
    pub fn values(&self, name: &str) -> Option<Vec<f32>> {
        tensor_floats(self.constant(name)?)
    }

    /// How often each value is read, graph outputs not counted.
    pub fn uses(&self) -> HashMap<String, usize> {
        let mut uses = HashMap::new();
        for input in self.nodes.iter().flat_map(|n| &n.input) {
            *uses.entry(input.clone()).or_default() += 1;
        }
        uses
    }
}

/// Whether a node hands on what it reads.
fn passes(node: &NodeProto) -> bool {
    let alone = node.output.iter().filter(|o| !o.is_empty()).count() == 1;
    let named = node.input.first().is_some_and(|i| !i.is_empty());
    let training = node.input.get(2).is_some_and(|n| !n.is_empty());
    alone && named && (node.op_type == "Identity" || node.op_type == "Dropout" && !training)
}
