//! ONNX nodes to the layers of a tail.

use super::conv::Conv;
use super::ops::{Affine, Each, Op};
use super::pool::Average;
use super::{Layer, Parameter, Part, Shape, Tail};
use crate::TrainError;
use edge_engine::pb::NodeProto;
use edge_engine::{Attributes, Constants, OnnxModel};
use edge_kernels::Window;
use std::collections::HashMap;

/// A value of the file.
#[derive(Clone, Copy)]
struct Known {
    /// The number of the value that holds it.
    value: usize,
    /// Whether the file has it with channels last. Of one pixel it does not matter.
    last: bool,
}

impl Known {
    /// A layer that reads this alone.
    fn layer(self, op: Op, shape: Shape) -> Read {
        Read::Layer { op, inputs: vec![self.value], shape, last: self.last }
    }
}

struct Reader<'a> {
    constants: Constants<'a>,
    opset: i64,
    known: HashMap<&'a str, Known>,
    tail: Tail,
    /// The numbers of parameters by their names.
    parameters: HashMap<&'a str, usize>,
}

/// What a node becomes: a layer, or another name (and layout) of a value.
enum Read {
    Layer { op: Op, inputs: Vec<usize>, shape: Shape, last: bool },
    Alias(Known),
}

impl Tail {
    /// Reads a part of a model that gives `features`, from pictures of `shape`. What cannot be trained is listed all at once.
    pub fn read(model: &OnnxModel<'_>, part: &Part, features: &str, shape: Shape) -> Result<Tail, TrainError> {
        let graph = crate::base::graph(model)?;
        let mut reader = Reader {
            constants: model.constants(),
            opset: model.opset(),
            known: HashMap::from([(part.value.as_str(), Known { value: 0, last: part.channels_last })]),
            tail: Tail { shapes: vec![shape], layers: vec![], parameters: vec![] },
            parameters: HashMap::new(),
        };
        let mut refused = vec![];
        for at in &part.nodes {
            let node = &graph.node[*at];
            let output = node.output.first().map_or("", String::as_str);
            match reader.node(node) {
                Ok(Read::Alias(known)) => {
                    reader.known.insert(output, known);
                }
                Ok(Read::Layer { op, inputs, shape, last }) => {
                    let value = reader.layer(op, inputs, shape);
                    reader.known.insert(output, Known { value, last });
                }
                // What follows from another refusal says nothing new.
                Err(why) if why.is_empty() => {}
                Err(why) => {
                    let name = if node.name.is_empty() { output } else { &node.name };
                    refused.push(format!("  {} (node {name:?}): {why}", node.op_type));
                }
            }
        }
        if !refused.is_empty() {
            return Err(TrainError::Base(format!(
                "{} layer(s) behind {:?} cannot be trained; unfreeze from a later one on:\n{}",
                refused.len(),
                part.value,
                refused.join("\n")
            )));
        }
        let last = reader.known.get(features).map_or(0, |k| k.value);
        let shape = reader.tail.shapes[last];
        // Where the base ends in a picture, its mean is the features.
        if shape[0] * shape[1] > 1 {
            reader.layer(Op::Mean, vec![last], [1, 1, shape[2]]);
        } else if last + 1 != reader.tail.shapes.len() {
            return Err(TrainError::Base(format!("{features:?} is not the last of what is computed")));
        }
        match reader.tail.parameters.is_empty() {
            true => Err(TrainError::Base(format!("there are no weights behind {:?} to train", part.value))),
            false => Ok(reader.tail),
        }
    }
}

/// Why a node cannot be trained; empty where another one is to blame.
type Refusal = String;

impl<'a> Reader<'a> {
    fn layer(&mut self, op: Op, inputs: Vec<usize>, shape: Shape) -> usize {
        let output = self.tail.shapes.len();
        self.tail.shapes.push(shape);
        self.tail.layers.push(Layer { op, inputs, output });
        output
    }

    fn value(&self, node: &NodeProto, place: usize) -> Result<(Known, Shape), Refusal> {
        let name = node.input.get(place).ok_or("it lacks an input")?;
        let known = *self.known.get(name.as_str()).ok_or_else(Refusal::new)?;
        Ok((known, self.tail.shapes[known.value]))
    }

    /// The number of a constant that is trained, of so many values.
    fn parameter(&mut self, name: &'a str, dims: &[usize]) -> Result<usize, Refusal> {
        if let Some(at) = self.parameters.get(name) {
            return Ok(*at);
        }
        let (found, values) = self
            .constants
            .floats(name)
            .ok_or_else(|| format!("{name:?} is no constant of float32, float16 or dequantized bytes"))?;
        if values.len() != dims.iter().product::<usize>() {
            return Err(format!("{name:?} has dimensions {found:?}"));
        }
        self.tail.parameters.push(Parameter { name: name.into(), dims: found, values });
        self.parameters.insert(name, self.tail.parameters.len() - 1);
        Ok(self.tail.parameters.len() - 1)
    }

    /// A constant of one value, or its default.
    fn scalar(&self, node: &NodeProto, place: usize, default: f32) -> Result<f32, Refusal> {
        match node.input.get(place).filter(|n| !n.is_empty()) {
            None => Ok(default),
            Some(name) => match self.constants.floats(name) {
                Some((_, values)) if values.len() == 1 => Ok(values[0]),
                _ => Err(format!("{name:?} is no constant of one value")),
            },
        }
    }

    fn node(&mut self, node: &'a NodeProto) -> Result<Read, Refusal> {
        let attributes = Attributes(node);
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            return Err(format!("an operator of {}", node.domain));
        }
        let each = |this: &Reader<'a>, each: Each| {
            let (known, shape) = this.value(node, 0)?;
            Ok(known.layer(Op::Each(each), shape))
        };
        match node.op_type.as_str() {
            "Conv" => self.conv(node),
            "Gemm" | "MatMul" => self.dense(node),
            "BatchNormalization" => self.normalization(node),
            "Relu" => each(self, Each::Clip(0.0, f32::INFINITY)),
            "Clip" => {
                let limits = match self.opset < 11 {
                    true => [attributes.float("min", f32::NEG_INFINITY), attributes.float("max", f32::INFINITY)],
                    false => [self.scalar(node, 1, f32::NEG_INFINITY)?, self.scalar(node, 2, f32::INFINITY)?],
                };
                each(self, Each::Clip(limits[0], limits[1]))
            }
            "LeakyRelu" => each(self, Each::LeakyRelu(attributes.float("alpha", 0.01))),
            "Sigmoid" => each(self, Each::Sigmoid),
            "HardSigmoid" => {
                each(self, Each::HardSigmoid(attributes.float("alpha", 0.2), attributes.float("beta", 0.5)))
            }
            "HardSwish" => each(self, Each::HardSwish),
            "Tanh" => each(self, Each::Tanh),
            "Add" | "Mul" => self.pair(node),
            "Concat" => self.concat(node),
            "MaxPool" | "AveragePool" => self.pool(node),
            "GlobalAveragePool" | "ReduceMean" => self.mean(node),
            "Identity" | "Dropout" => Ok(Read::Alias(self.value(node, 0)?.0)),
            "Transpose" => {
                let (known, _) = self.value(node, 0)?;
                let last = match (attributes.ints("perm"), known.last) {
                    (Some([0, 2, 3, 1]), false) => true,
                    (Some([0, 3, 1, 2]), true) => false,
                    _ => return Err("neither from NCHW to NHWC nor back".into()),
                };
                Ok(Read::Alias(Known { last, ..known }))
            }
            "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => {
                let (known, shape) = self.value(node, 0)?;
                let plain = |d: &i64| matches!(d, -1..=1) || *d == shape[2] as i64;
                let target = match node.op_type.as_str() {
                    "Reshape" => node.input.get(1).and_then(|name| self.constants.integers(name)),
                    _ => Some(vec![]),
                };
                match shape[0] * shape[1] == 1 && target.is_some_and(|t| t.iter().all(plain)) {
                    true => Ok(Read::Alias(known)),
                    false => Err("of a picture, not of a vector".into()),
                }
            }
            _ => Err("an operator that is not trained".into()),
        }
    }

    fn conv(&mut self, node: &'a NodeProto) -> Result<Read, Refusal> {
        let (known, shape) = self.value(node, 0)?;
        let attributes = Attributes(node);
        let name = node.input.get(1).ok_or("it has no filter")?;
        let dims = self.constants.floats(name).map(|f| f.0).unwrap_or_default();
        let [outputs, inputs, kh, kw] = dims[..] else {
            return Err("its filter is no constant of four dimensions".into());
        };
        if known.last && shape[0] * shape[1] > 1 {
            return Err("its input is no picture of (N,C,H,W)".into());
        }
        let group = usize::try_from(attributes.int("group", 1)).unwrap_or_default();
        let depthwise = match (group, inputs) {
            (1, inputs) if inputs == shape[2] => false,
            (group, 1) if group == shape[2] && outputs == group => true,
            _ => return Err("grouped, but not depthwise with one filter per channel".into()),
        };
        let window = attributes.window([shape[0], shape[1]], [kh, kw])?;
        let weights = self.parameter(name, &dims)?;
        let bias = node.input.get(2).filter(|n| !n.is_empty());
        let bias = bias.map(|name| self.parameter(name, &[outputs])).transpose()?;
        let made = [window.output[0], window.output[1], outputs];
        let conv = Conv { weights, bias, window, turned: false };
        Ok(known.layer(if depthwise { Op::Depthwise(conv) } else { Op::Conv(conv) }, made))
    }

    fn dense(&mut self, node: &'a NodeProto) -> Result<Read, Refusal> {
        let (known, shape) = self.value(node, 0)?;
        let attributes = Attributes(node);
        let plain = ["alpha", "beta"].iter().all(|a| attributes.float(a, 1.0) == 1.0);
        if !plain || attributes.int("transA", 0) != 0 {
            return Err("with factors, or transposed on the left".into());
        }
        let name = node.input.get(1).ok_or("it has no weights")?;
        let dims = self.constants.floats(name).map(|f| f.0).unwrap_or_default();
        let [rows, columns] = dims[..] else { return Err("its weights are no constant of two dimensions".into()) };
        if shape[0] * shape[1] > 1 && !known.last {
            return Err("of a picture with channels first".into());
        }
        let turned = attributes.int("transB", 0) == 0;
        let (inputs, outputs) = if turned { (rows, columns) } else { (columns, rows) };
        if inputs != shape[2] {
            return Err(format!("its weights are of {inputs} values, its input is of {}", shape[2]));
        }
        let weights = self.parameter(name, &dims)?;
        let bias = node.input.get(2).filter(|n| !n.is_empty());
        let bias = bias.map(|name| self.parameter(name, &[outputs])).transpose()?;
        let size = [shape[0], shape[1]];
        let window = Window::new(size, [1; 2], [1; 2], [1; 2], [0; 2], [0; 2]).ok_or("its input is empty")?;
        Ok(known.layer(Op::Conv(Conv { weights, bias, window, turned }), [shape[0], shape[1], outputs]))
    }

    fn normalization(&mut self, node: &'a NodeProto) -> Result<Read, Refusal> {
        let (known, shape) = self.value(node, 0)?;
        let attributes = Attributes(node);
        if node.input.len() != 5 || attributes.int("training_mode", 0) != 0 || (known.last && shape[0] * shape[1] > 1) {
            return Err("in training mode, or not of (N,C,H,W)".into());
        }
        let fixed = |this: &Reader<'a>, place: usize| -> Result<Vec<f32>, Refusal> {
            let found = this.constants.floats(&node.input[place]).filter(|f| f.1.len() == shape[2]);
            Ok(found.ok_or("its statistics are no constants of the channels")?.1)
        };
        let (centre, spread) = (fixed(self, 3)?, fixed(self, 4)?);
        let epsilon = attributes.float("epsilon", 1e-5);
        let affine = Affine {
            centre,
            factor: spread.iter().map(|v| 1.0 / (v + epsilon).sqrt()).collect(),
            scale: Some(self.parameter(&node.input[1], &shape[2..])?),
            shift: Some(self.parameter(&node.input[2], &shape[2..])?),
        };
        if affine.factor.iter().any(|f| !f.is_finite()) {
            return Err("its variance is not positive".into());
        }
        Ok(known.layer(Op::Affine(affine), shape))
    }

    /// A sum or a product: of two values, or of one and a constant.
    fn pair(&mut self, node: &'a NodeProto) -> Result<Read, Refusal> {
        let product = node.op_type == "Mul";
        let constant = node.input.iter().take(2).position(|name| self.constants.is_float(name));
        let Some(constant) = constant else {
            let ((left, one), (right, other)) = (self.value(node, 0)?, self.value(node, 1)?);
            let spread = |shape: Shape| shape[0] * shape[1] == 1;
            if one[2] != other[2] || (one != other && !spread(one) && !spread(other)) {
                return Err(format!("of {one:?} and {other:?} (height, width, channels)"));
            }
            if left.last != right.last && !spread(one) && !spread(other) {
                return Err("of values with channels first and last".into());
            }
            let op = if product { Op::Mul } else { Op::Add };
            let (shape, last) = if spread(one) { (other, right.last) } else { (one, left.last) };
            return Ok(Read::Layer { op, inputs: vec![left.value, right.value], shape, last });
        };
        let (known, shape) = self.value(node, 1 - constant)?;
        let name = &node.input[constant];
        let (dims, values) = self.constants.floats(name).ok_or("its constant cannot be read")?;
        if let [value] = values[..] {
            let each = if product { Each::Linear(value, 0.0) } else { Each::Linear(1.0, value) };
            return Ok(known.layer(Op::Each(each), shape));
        }
        // A value for each channel, where the file has those.
        let axis = if known.last || shape[0] * shape[1] == 1 { 1 } else { 3 };
        let placed = dims.len() >= axis && (axis == 1 || dims[dims.len() - 3] == shape[2]);
        if values.len() != shape[2] || !(placed || shape[0] * shape[1] == 1) {
            return Err(format!("with a constant of {dims:?}"));
        }
        let at = Some(self.parameter(name, &shape[2..])?);
        let (scale, shift) = if product { (at, None) } else { (None, at) };
        let affine = Affine { centre: vec![], factor: vec![], scale, shift };
        Ok(known.layer(Op::Affine(affine), shape))
    }

    fn concat(&mut self, node: &'a NodeProto) -> Result<Read, Refusal> {
        let parts: Vec<(Known, Shape)> =
            (0..node.input.len()).map(|place| self.value(node, place)).collect::<Result<_, _>>()?;
        let (first, shape) = *parts.first().ok_or("of nothing")?;
        let axis = Attributes(node).int("axis", 1);
        let channels = if first.last { matches!(axis, 3 | -1) } else { matches!(axis, 1 | -3) };
        let alike = parts.iter().all(|(k, s)| k.last == first.last && s[..2] == shape[..2]);
        if !alike || !(channels || shape[0] * shape[1] == 1) {
            return Err("not of channels".into());
        }
        let inputs = parts.iter().map(|(k, _)| k.value).collect();
        let shape = [shape[0], shape[1], parts.iter().map(|(_, s)| s[2]).sum()];
        Ok(Read::Layer { op: Op::Concat, inputs, shape, last: first.last })
    }

    fn pool(&mut self, node: &'a NodeProto) -> Result<Read, Refusal> {
        let (known, shape) = self.value(node, 0)?;
        let attributes = Attributes(node);
        let indices = node.output.get(1).is_some_and(|n| !n.is_empty());
        if known.last || attributes.int("ceil_mode", 0) != 0 || indices {
            return Err("with ceil_mode or indices, or not of (N,C,H,W)".into());
        }
        let kernel = attributes.ints("kernel_shape").and_then(|_| attributes.pair("kernel_shape", 1));
        let window = attributes.window([shape[0], shape[1]], kernel.ok_or("it has no kernel_shape of a picture")?)?;
        let made = [window.output[0], window.output[1], shape[2]];
        let op = match node.op_type.as_str() {
            "MaxPool" => Op::MaxPool(window),
            _ => Op::AveragePool(Average { window, outside: attributes.int("count_include_pad", 0) != 0 }),
        };
        Ok(known.layer(op, made))
    }

    fn mean(&mut self, node: &'a NodeProto) -> Result<Read, Refusal> {
        let (known, shape) = self.value(node, 0)?;
        if node.op_type == "ReduceMean" {
            let axes = match node.input.get(1).filter(|n| !n.is_empty()) {
                Some(name) => self.constants.integers(name),
                None => Attributes(node).ints("axes").map(<[i64]>::to_vec),
            };
            let mut axes = axes.ok_or("its axes are no constant")?;
            axes.iter_mut().filter(|a| **a < 0).for_each(|a| *a += 4);
            axes.sort_unstable();
            if axes != if known.last { [1, 2] } else { [2, 3] } {
                return Err("not over the pixels".into());
            }
        }
        Ok(known.layer(Op::Mean, [1, 1, shape[2]]))
    }
}
