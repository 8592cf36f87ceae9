//! What a layer needs to become ONNX: its settings, its variables, and the graph.

use super::config::{Call, Layer};
use super::value::Format;
use super::weights::Weights;
use crate::graph::Graph;
use edge_engine::pb::AttributeProto;
use serde_json::Value as Json;

/// One call of a layer, on its way into the graph.
pub struct Cx<'a> {
    /// The graph so far.
    pub graph: &'a mut Graph,
    /// The layer.
    pub layer: &'a Layer,
    /// This call of it.
    pub call: &'a Call,
    pub(super) weights: &'a Weights<'a>,
    /// The layer's path, `outer/inner/layer`: finds its variables.
    pub(super) path: &'a str,
    /// The stem of the names of its nodes and constants, unique in the graph.
    pub(super) name: &'a str,
    /// Whether the file is of Keras 2 or tf.keras, whose `hard_sigmoid` is another one.
    pub(super) old: bool,
}

impl Cx<'_> {
    /// Adds a node called after the layer and `part`.
    pub fn op(
        &mut self,
        operator: &str,
        part: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> Result<String, String> {
        self.graph.op(operator, &format!("{}/{part}", self.name), inputs, attributes)
    }

    /// Adds a float32 constant called after the layer and `part`.
    pub fn floats(&mut self, part: &str, dims: &[usize], values: &[f32]) -> String {
        self.graph.floats(&format!("{}/{part}", self.name), dims, values)
    }

    /// Whether there is room for a constant of so many float32 values; to be asked before they are made.
    pub fn room(&self, values: usize) -> Result<(), String> {
        self.graph.room(values, 4)
    }

    /// Adds a scalar.
    pub fn scalar(&mut self, part: &str, value: f64) -> String {
        self.floats(part, &[], &[value as f32])
    }

    /// Adds an int64 vector called after the layer and `part`.
    pub fn longs(&mut self, part: &str, values: &[i64]) -> String {
        self.graph.longs(&format!("{}/{part}", self.name), values)
    }

    /// A setting.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.layer.config.get(key).filter(|v| !v.is_null())
    }

    /// A setting that is true or false.
    pub fn flag(&self, key: &str, default: bool) -> bool {
        self.get(key).and_then(Json::as_bool).unwrap_or(default)
    }

    /// A setting that is a number.
    pub fn number(&self, key: &str, default: f64) -> Result<f64, String> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => number(value).ok_or_else(|| format!("{key} is {value}, a number is needed")),
        }
    }

    /// A setting that is a count of at least 1.
    pub fn count(&self, key: &str) -> Result<usize, String> {
        let value = self.get(key).ok_or_else(|| format!("its configuration has no {key}"))?;
        count(value).filter(|n| *n > 0).ok_or_else(|| format!("{key} is {value}, a count is needed"))
    }

    /// A setting that is a word.
    pub fn word(&self, key: &str, default: &'static str) -> &str {
        self.get(key).and_then(Json::as_str).unwrap_or(default)
    }

    /// A setting of one count for both sides, or one for the height and one for the width.
    pub fn pair(&self, key: &str, default: Option<usize>) -> Result<[usize; 2], String> {
        match (self.get(key), default) {
            (None, Some(n)) => Ok([n, n]),
            (None, None) => Err(format!("its configuration has no {key}")),
            (Some(value), _) => pair(value).ok_or_else(|| format!("{key} is {value}, one or two counts are needed")),
        }
    }

    /// Where the layer has the channels.
    pub fn format(&self) -> Result<Format, String> {
        match self.word("data_format", "channels_last") {
            "channels_last" => Ok(Format::Last),
            "channels_first" => Ok(Format::First),
            other => Err(format!("data_format is {other:?}")),
        }
    }

    /// The dimensions of a variable of this layer.
    pub fn variable_shape(&self, variable: usize) -> Result<Vec<usize>, String> {
        self.weights.shape(self.path, variable)
    }

    /// The values of a variable of this layer, row-major.
    pub fn variable(&self, variable: usize, shape: &[usize]) -> Result<Vec<f32>, String> {
        self.weights.read(self.path, variable, shape)
    }

    /// A constant made of the layer's variables: made once, used by each call of the layer.
    pub fn weight(
        &mut self,
        part: &str,
        dims: &[usize],
        make: impl FnOnce(&Self) -> Result<Vec<f32>, String>,
    ) -> Result<String, String> {
        let key = (self.path.to_string(), part.to_string());
        if let Some(name) = self.graph.shared.get(&key) {
            return Ok(name.clone());
        }
        let values = make(self)?;
        if values.len() != dims.iter().product::<usize>() {
            return Err(format!("{part} has {} values, the shape {dims:?} is needed", values.len()));
        }
        let name = self.floats(part, dims, &values);
        self.graph.shared.insert(key, name.clone());
        Ok(name)
    }
}

/// A JSON number; Keras 3 may wrap it as an array of one.
pub fn number(value: &Json) -> Option<f64> {
    match value {
        Json::Array(one) if one.len() == 1 => number(&one[0]),
        Json::Object(object) => number(object.get("config")?.get("value")?),
        other => other.as_f64().filter(|n| n.is_finite()),
    }
}

/// The numbers of a JSON number, list or nested list, and their shape.
pub fn numbers(value: &Json) -> Option<(Vec<usize>, Vec<f64>)> {
    match value {
        Json::Object(object) => numbers(object.get("config")?.get("value")?),
        Json::Array(items) => {
            let parts: Vec<(Vec<usize>, Vec<f64>)> = items.iter().map(numbers).collect::<Option<_>>()?;
            let inner = parts.first().map(|p| p.0.clone()).unwrap_or_default();
            if parts.iter().any(|p| p.0 != inner) {
                return None;
            }
            let shape = std::iter::once(items.len()).chain(inner).collect();
            Some((shape, parts.into_iter().flat_map(|p| p.1).collect()))
        }
        other => Some((vec![], vec![other.as_f64()?])),
    }
}

/// A whole number that is not negative and not absurd.
pub fn count(value: &Json) -> Option<usize> {
    let n = value.as_u64().or_else(|| value.as_f64().filter(|f| f.fract() == 0.0 && *f >= 0.0).map(|f| f as u64))?;
    usize::try_from(n).ok().filter(|n| *n <= 1 << 31)
}

/// One count twice, or two.
pub fn pair(value: &Json) -> Option<[usize; 2]> {
    match value.as_array().map(Vec::as_slice) {
        None => count(value).map(|n| [n, n]),
        Some([one]) => count(one).map(|n| [n, n]),
        Some([h, w]) => Some([count(h)?, count(w)?]),
        Some(_) => None,
    }
}

/// Whole numbers, one or several.
pub fn integers(value: &Json) -> Option<Vec<i64>> {
    match value {
        Json::Array(items) => items.iter().map(Json::as_i64).collect(),
        Json::Object(object) => integers(object.get("config").or_else(|| object.get("items"))?),
        other => other.as_i64().map(|n| vec![n]),
    }
}
