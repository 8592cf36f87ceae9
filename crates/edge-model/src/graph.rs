//! An ONNX graph under construction.

use edge_engine::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_proto::DataType,
    tensor_shape_proto::{Dimension, dimension::Value as DimValue},
    type_proto::{Tensor, Value as TypeValue},
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// The opset that is written: the first with LayerNormalization.
pub const OPSET: i64 = 17;
/// The IR version that goes with it.
const IR_VERSION: i64 = 8;
/// More nodes than any classifier has. Nested models that call each other grow exponentially; this ends it.
const MAX_NODES: usize = 200_000;

/// Nodes in the order of computation, and their constants. Every value has one name, and so has its node.
#[derive(Clone)]
pub struct Graph {
    pub nodes: Vec<NodeProto>,
    pub constants: Vec<TensorProto>,
    names: HashSet<String>,
    /// Where in `constants` a name lies.
    index: HashMap<String, usize>,
    /// The last number that was hung on a name that was taken already.
    repeats: HashMap<String, usize>,
    /// Constants that several calls of a layer share: (layer's path, what it is) -> name.
    pub shared: HashMap<(String, String), String>,
    /// Bytes that constants may still take. Settings of a few bytes can ask for any number of values.
    budget: Option<usize>,
}

/// An integer attribute.
pub fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Int as i32, i, ..AttributeProto::default() }
}

/// An attribute of several integers.
pub fn ints(name: &str, ints: impl IntoIterator<Item = i64>) -> AttributeProto {
    let ints = ints.into_iter().collect();
    AttributeProto { name: name.into(), r#type: AttributeType::Ints as i32, ints, ..AttributeProto::default() }
}

/// A float32 attribute.
pub fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Float as i32, f, ..AttributeProto::default() }
}

/// A string attribute.
pub fn string(name: &str, s: &str) -> AttributeProto {
    let s = s.as_bytes().to_vec();
    AttributeProto { name: name.into(), r#type: AttributeType::String as i32, s, ..AttributeProto::default() }
}

impl Graph {
    /// An empty graph whose constants may take so many bytes.
    pub fn new(budget: usize) -> Graph {
        Graph {
            nodes: vec![],
            constants: vec![],
            names: HashSet::new(),
            index: HashMap::new(),
            repeats: HashMap::new(),
            shared: HashMap::new(),
            budget: Some(budget),
        }
    }

    /// Whether a constant of so many values, each of so many bytes, still fits; to be asked before the values are made.
    pub fn room(&self, values: usize, bytes: usize) -> Result<(), String> {
        let wanted = values.checked_mul(bytes);
        match self.budget.zip(wanted).is_some_and(|(left, wanted)| wanted <= left) {
            true => Ok(()),
            false => Err(format!("a constant of {values} values is more than the import has room for")),
        }
    }

    /// `wanted` itself, or with a number where that is taken.
    pub fn fresh(&mut self, wanted: &str) -> String {
        let wanted = if wanted.is_empty() { "unnamed" } else { wanted };
        let mut name = wanted.to_string();
        while !self.names.insert(name.clone()) {
            let n = self.repeats.entry(wanted.into()).or_default();
            *n += 1;
            name = format!("{wanted}_{n}");
        }
        name
    }

    /// Adds a node; gives the name of its output, which is the node's own.
    pub fn op(
        &mut self,
        operator: &str,
        name: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> Result<String, String> {
        if self.nodes.len() >= MAX_NODES {
            return Err(format!("the network has more than {MAX_NODES} operations"));
        }
        if self.budget.is_none() {
            return Err("the constants of the network are more than the import has room for".into());
        }
        let name = self.fresh(name);
        self.nodes.push(NodeProto {
            name: name.clone(),
            op_type: operator.into(),
            input: inputs.iter().map(|i| i.to_string()).collect(),
            output: vec![name.clone()],
            attribute: attributes,
            ..NodeProto::default()
        });
        Ok(name)
    }

    /// Adds float32 values, row-major.
    pub fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        debug_assert_eq!(dims.iter().product::<usize>(), values.len());
        self.add(name, dims, DataType::Float, floats_to_raw(values))
    }

    /// Adds a vector of int64 values.
    pub fn longs(&mut self, name: &str, values: &[i64]) -> String {
        self.add(name, &[values.len()], DataType::Int64, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// Adds values of any type, row-major.
    pub fn add(&mut self, name: &str, dims: &[usize], kind: DataType, raw_data: Vec<u8>) -> String {
        let name = self.fresh(name);
        // The node that is to read it says that it was too large.
        self.budget = self.budget.and_then(|left| left.checked_sub(raw_data.len()));
        if self.budget.is_none() {
            return name;
        }
        self.store(TensorProto {
            name: name.clone(),
            dims: dims.iter().map(|d| *d as i64).collect(),
            data_type: kind as i32,
            raw_data,
            ..TensorProto::default()
        });
        name
    }

    /// Puts a constant where it is found by its name.
    pub(crate) fn store(&mut self, tensor: TensorProto) {
        self.index.insert(tensor.name.clone(), self.constants.len());
        self.constants.push(tensor);
    }

    /// Takes a name that is used already.
    pub(crate) fn claim(&mut self, name: &str) {
        self.names.insert(name.into());
    }

    /// Notes where each constant lies.
    pub(crate) fn number(&mut self) {
        self.index = self.constants.iter().enumerate().map(|(i, c)| (c.name.clone(), i)).collect();
    }

    /// The constant of this name.
    pub fn constant(&self, name: &str) -> Option<&TensorProto> {
        self.constants.get(*self.index.get(name)?)
    }

    /// The constant of this name.
    pub fn constant_mut(&mut self, name: &str) -> Option<&mut TensorProto> {
        self.constants.get_mut(*self.index.get(name)?)
    }

    /// Gives the value `from` and its node the name `to`, if no other has it. Only for values that nothing
    /// reads yet.
    pub fn rename(&mut self, from: &str, to: &str) -> String {
        if from == to {
            return from.into();
        }
        let to = self.fresh(to);
        if let Some(node) = self.nodes.iter_mut().rev().find(|n| n.output.first().is_some_and(|o| o == from)) {
            node.name.clone_from(&to);
            node.output = vec![to.clone()];
            return to;
        }
        from.into()
    }

    /// The finished model.
    pub fn finish(
        mut self,
        name: &str,
        inputs: Vec<ValueInfoProto>,
        outputs: Vec<ValueInfoProto>,
        properties: BTreeMap<String, String>,
    ) -> ModelProto {
        // Constants that folding or a fused layout left behind.
        let used: HashSet<&str> = self.nodes.iter().flat_map(|n| &n.input).map(String::as_str).collect();
        self.constants.retain(|c| used.contains(c.name.as_str()));
        let graph = GraphProto {
            name: name.into(),
            node: self.nodes,
            initializer: self.constants,
            input: inputs,
            output: outputs,
            ..GraphProto::default()
        };
        ModelProto {
            ir_version: IR_VERSION,
            producer_name: "edge-pack".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            metadata_props: properties.into_iter().map(|(key, value)| StringStringEntryProto { key, value }).collect(),
            graph: Some(graph),
            ..ModelProto::default()
        }
    }
}

/// A graph input or output of float32: a symbolic batch "N", then `dims`.
pub fn value_info(name: &str, dims: &[usize]) -> ValueInfoProto {
    let batch = Dimension { value: Some(DimValue::DimParam("N".into())), ..Dimension::default() };
    let side = |d: &usize| Dimension { value: Some(DimValue::DimValue(*d as i64)), ..Dimension::default() };
    let shape = TensorShapeProto { dim: std::iter::once(batch).chain(dims.iter().map(side)).collect() };
    let tensor = Tensor { elem_type: DataType::Float as i32, shape: Some(shape) };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto { value: Some(TypeValue::TensorType(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

/// Little-endian bytes, as ONNX stores them.
pub fn floats_to_raw(values: &[f32]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(4 * values.len());
    values.iter().for_each(|v| raw.extend_from_slice(&v.to_le_bytes()));
    raw
}

/// The reverse of [`floats_to_raw`].
pub fn raw_to_floats(raw: &[u8]) -> Vec<f32> {
    raw.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_have_a_budget() {
        let mut graph = Graph::new(20);
        assert!(graph.room(5, 4).is_ok() && graph.room(6, 4).is_err() && graph.room(usize::MAX, 8).is_err());
        graph.floats("a", &[4], &[0.0; 4]);
        graph.op("Relu", "b", &["a"], vec![]).unwrap();
        graph.longs("c", &[1]);
        assert!(graph.op("Relu", "d", &["c"], vec![]).is_err());
        assert_eq!(graph.constants.len(), 1);
    }
}
