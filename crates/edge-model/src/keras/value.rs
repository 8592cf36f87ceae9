//! A value on its way through the network, and the two ways in which a picture lies in memory.
//!
//! Keras thinks in (N,H,W,C), ONNX computes in (N,C,H,W). A value of four dimensions that Keras calls (N,H,W,C) is kept
//! as (N,C,H,W) with a mark; layers take the mark into account, so that nothing is transposed between them.

use super::cx::Cx;
use crate::graph::ints;

/// More values than any tensor of a classifier has; a bound for what a file may ask for.
const MAX_ELEMENTS: usize = 1 << 34;

/// A tensor in the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Its name in the graph.
    pub name: String,
    /// Its dimensions as Keras has them, after the batch.
    pub shape: Vec<usize>,
    /// Whether it lies as (N,C,H,W) although Keras has it as (N,H,W,C). Only with three dimensions after the batch.
    pub channels_first: bool,
}

/// A picture's sides and channels, and the name of the value that has them as (N,C,H,W).
pub struct Picture {
    pub name: String,
    pub channels: usize,
    pub height: usize,
    pub width: usize,
}

/// Where Keras has the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Last,
    First,
}

/// The product of the dimensions, if no memory is too small for it.
pub fn elements(shape: &[usize]) -> Result<usize, String> {
    let product = shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
    product
        .filter(|n| *n > 0 && *n <= MAX_ELEMENTS)
        .ok_or_else(|| format!("a tensor of the shape {shape:?} is not possible"))
}

impl Value {
    /// A value that lies as Keras has it.
    pub fn plain(name: String, shape: Vec<usize>) -> Value {
        Value { name, shape, channels_first: false }
    }

    /// Number of dimensions, the batch among them.
    pub fn rank(&self) -> usize {
        self.shape.len() + 1
    }

    /// The dimensions after the batch as they lie in memory.
    pub fn stored(&self) -> Vec<usize> {
        match (self.channels_first, &self.shape[..]) {
            (true, [h, w, c]) => vec![*c, *h, *w],
            _ => self.shape.clone(),
        }
    }

    /// Another value of the same shape and order.
    pub fn like(&self, name: String) -> Value {
        Value { name, ..self.clone() }
    }

    /// Where Keras' dimension `axis` (0 is the batch) lies in memory.
    pub fn stored_axis(&self, axis: usize) -> usize {
        match (self.channels_first, axis) {
            (true, 1) => 2,
            (true, 2) => 3,
            (true, 3) => 1,
            _ => axis,
        }
    }

    /// Whether (N,H,W,C) and (N,C,H,W) are the same bytes.
    fn is_flat(&self) -> bool {
        matches!(self.shape[..], [h, w, c] if h * w == 1 || c == 1)
    }

    /// An axis as Keras counts it, from the end where it is negative; the batch is no such axis.
    pub fn axis(&self, axis: i64) -> Result<usize, String> {
        let rank = self.rank() as i64;
        let from_start = if axis < 0 { axis + rank } else { axis };
        match (1..rank).contains(&from_start) {
            true => Ok(from_start as usize),
            false => Err(format!("axis {axis} is not possible with the input's shape {:?}", self.shape)),
        }
    }
}

impl Value {
    /// A picture (N,C,H,W) as the value that Keras would have.
    pub fn of_picture(picture: Picture, format: Format) -> Result<Value, String> {
        let Picture { name, channels, height, width } = picture;
        elements(&[channels, height, width])?;
        Ok(match format {
            Format::Last => Value { name, shape: vec![height, width, channels], channels_first: true },
            Format::First => Value::plain(name, vec![channels, height, width]),
        })
    }
}

impl Cx<'_> {
    /// The value as Keras has it, in memory too.
    pub fn in_keras_order(&mut self, value: &Value) -> Result<Value, String> {
        if !value.channels_first {
            return Ok(value.clone());
        }
        let name = match value.is_flat() {
            true => self.reshape_to(&value.name, &value.shape.clone())?,
            false => self.op("Transpose", "nhwc", &[&value.name], vec![ints("perm", [0, 2, 3, 1])])?,
        };
        Ok(Value::plain(name, value.shape.clone()))
    }

    /// A value of Keras' (N,H,W,C) as (N,C,H,W) in memory.
    pub fn in_onnx_order(&mut self, value: &Value) -> Result<Value, String> {
        let [h, w, c] = value.shape[..] else {
            return Err(format!("a picture with channels is needed, the input has the shape {:?}", value.shape));
        };
        if value.channels_first {
            return Ok(value.clone());
        }
        let name = match value.is_flat() {
            true => self.reshape_to(&value.name, &[c, h, w])?,
            false => self.op("Transpose", "nchw", &[&value.name], vec![ints("perm", [0, 3, 1, 2])])?,
        };
        Ok(Value { name, shape: value.shape.clone(), channels_first: true })
    }

    /// The value as a picture (N,C,H,W).
    pub fn picture(&mut self, value: &Value, format: Format) -> Result<Picture, String> {
        let value = match format {
            Format::Last => self.in_onnx_order(value)?,
            Format::First => self.in_keras_order(value)?,
        };
        match value.stored()[..] {
            [channels, height, width] => Ok(Picture { name: value.name, channels, height, width }),
            _ => Err(format!("a picture with channels is needed, the input has the shape {:?}", value.shape)),
        }
    }

    /// Reshapes to (batch, dims…).
    pub fn reshape_to(&mut self, name: &str, dims: &[usize]) -> Result<String, String> {
        // 0 keeps the batch, whatever it is.
        let target: Vec<i64> = std::iter::once(0).chain(dims.iter().map(|d| *d as i64)).collect();
        let target = self.longs("shape", &target);
        self.op("Reshape", "reshape", &[name, &target], vec![])
    }

    /// Reshapes in Keras' order. Stays in ONNX' order where that makes no difference.
    pub fn reshape(&mut self, value: &Value, shape: Vec<usize>) -> Result<Value, String> {
        if elements(&value.shape)? != elements(&shape)? {
            return Err(format!("the shape {:?} does not become {shape:?}", value.shape));
        }
        if value.shape == shape {
            return Ok(value.clone());
        }
        let from = match value.channels_first && value.is_flat() {
            true => Value::plain(value.name.clone(), value.shape.clone()),
            false => self.in_keras_order(value)?,
        };
        let mut to = Value::plain(String::new(), shape);
        to.channels_first = to.is_flat();
        to.name = self.reshape_to(&from.name, &to.stored())?;
        Ok(to)
    }

    /// A constant that is broadcast against `value`. `shape` has as many dimensions as `value` after the batch,
    /// in Keras' order, each as long as the value's or 1.
    pub fn broadcast_constant(
        &mut self,
        what: &str,
        value: &Value,
        shape: &[usize],
        data: &[f32],
    ) -> Result<String, String> {
        if elements(shape)? != data.len() || shape.len() != value.shape.len() {
            return Err(format!("{} values of {what} do not fit the shape {shape:?}", data.len()));
        }
        if data.iter().all(|v| *v == data[0]) {
            return Ok(self.floats(what, &[], &data[..1]));
        }
        match (value.channels_first, shape) {
            (true, [h, w, c]) => {
                let (h, w, c) = (*h, *w, *c);
                let moved: Vec<f32> =
                    (0..c).flat_map(|k| (0..h * w).map(move |p| (k, p))).map(|(k, p)| data[p * c + k]).collect();
                Ok(self.floats(what, &[c, h, w], &moved))
            }
            _ => Ok(self.floats(what, shape, data)),
        }
    }

    /// A vector along one of Keras' axes of `value`.
    pub fn vector_constant(&mut self, what: &str, value: &Value, axis: usize, data: &[f32]) -> Result<String, String> {
        let mut shape = vec![1; value.shape.len()];
        match shape.get_mut(axis - 1) {
            Some(side) => *side = data.len(),
            None => return Err(format!("there is no axis {axis}")),
        }
        self.broadcast_constant(what, value, &shape, data)
    }
}
