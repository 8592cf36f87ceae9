//! Constants of an ONNX graph, and attributes of its nodes.

use std::collections::HashMap;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto, tensor_proto::DataType};

/// The constants of a graph by name: initializers, the tensors of Constant nodes, and either of them under the name that a
/// cast to float32 gives it.
pub struct Constants<'a>(HashMap<&'a str, &'a TensorProto>);

impl<'a> Constants<'a> {
    /// All of them.
    pub fn of(graph: &'a GraphProto) -> Constants<'a> {
        let initializers = graph.initializer.iter().map(|t| (t.name.as_str(), t));
        let nodes = graph.node.iter().filter(|n| n.op_type == "Constant");
        let nodes =
            nodes.filter_map(|n| Some((n.output.first()?.as_str(), n.attribute.iter().find_map(|a| a.t.as_ref())?)));
        let mut found: HashMap<&str, &TensorProto> = initializers.chain(nodes).collect();
        // Weights in float16 are cast where they are used; they are read as float32 anyway.
        for node in graph.node.iter().filter(|n| n.op_type == "Cast" && Attributes(n).int("to", 0) == 1) {
            if let ([input], [output]) = (&node.input[..], &node.output[..])
                && let Some(tensor) = found.get(input.as_str()).copied().filter(|t| are_floats(t))
            {
                found.insert(output, tensor);
            }
        }
        Constants(found)
    }

    /// The constant of this name.
    pub fn get(&self, name: &str) -> Option<&'a TensorProto> {
        self.0.get(name).copied()
    }

    /// The integers of a constant.
    pub fn integers(&self, name: &str) -> Option<Vec<i64>> {
        let tensor = self.get(name)?;
        let wide = match DataType::try_from(tensor.data_type).ok()? {
            DataType::Int64 => true,
            DataType::Int32 => false,
            _ => return None,
        };
        Some(match (wide, tensor.raw_data.is_empty()) {
            (true, false) => tensor.raw_data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
            (true, true) => tensor.int64_data.clone(),
            (false, false) => tensor.raw_data.as_chunks().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect(),
            (false, true) => tensor.int32_data.iter().map(|v| i64::from(*v)).collect(),
        })
    }

    /// The values of a constant of float32 or float16, with its dimensions.
    pub fn floats(&self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        let tensor = self.get(name)?;
        Some((dims(tensor)?, floats(tensor)?))
    }
}

/// The dimensions of a tensor.
pub fn dims(tensor: &TensorProto) -> Option<Vec<usize>> {
    tensor.dims.iter().map(|d| usize::try_from(*d).ok()).collect()
}

/// The values of a tensor of float32 or float16, as many as its dimensions say.
pub fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    let values: Vec<f32> = match DataType::try_from(tensor.data_type).ok()? {
        DataType::Float if tensor.raw_data.is_empty() => tensor.float_data.clone(),
        DataType::Float => tensor.raw_data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        DataType::Float16 if tensor.raw_data.is_empty() => {
            tensor.int32_data.iter().map(|v| half::f16::from_bits(*v as u16).to_f32()).collect()
        }
        DataType::Float16 => {
            tensor.raw_data.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()
        }
        _ => return None,
    };
    let count = dims(tensor)?.into_iter().try_fold(1_usize, usize::checked_mul)?;
    (values.len() == count).then_some(values)
}

/// Whether [`floats`] gives the values, without making them.
pub fn are_floats(tensor: &TensorProto) -> bool {
    let count = dims(tensor).and_then(|d| d.into_iter().try_fold(1_usize, usize::checked_mul));
    let (raw, size, listed) = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float) => (&tensor.raw_data, 4, tensor.float_data.len()),
        Ok(DataType::Float16) => (&tensor.raw_data, 2, tensor.int32_data.len()),
        _ => return false,
    };
    count == Some(if raw.is_empty() { listed } else { raw.len() / size })
}

/// Attributes of a node.
pub struct Attributes<'a>(pub &'a NodeProto);

impl<'a> Attributes<'a> {
    fn get(&self, name: &str) -> Option<&'a AttributeProto> {
        self.0.attribute.iter().find(|a| a.name == name)
    }

    /// An integer, or its default.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.get(name).map_or(default, |a| a.i)
    }

    /// A float, or its default.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.get(name).map_or(default, |a| a.f)
    }

    /// Text, or nothing.
    pub fn text(&self, name: &str) -> &'a str {
        self.get(name).and_then(|a| std::str::from_utf8(&a.s).ok()).unwrap_or_default()
    }

    /// Integers, where they are there.
    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.get(name).map(|a| a.ints.as_slice())
    }

    /// A height and a width, or their default; `None` where they are something else.
    pub fn pair(&self, name: &str, default: usize) -> Option<[usize; 2]> {
        match self.ints(name) {
            None => Some([default; 2]),
            Some([h, w]) => Some([usize::try_from(*h).ok()?, usize::try_from(*w).ok()?]),
            Some(_) => None,
        }
    }
}
