//! ONNX' operators to layers, as far as they are understood.

use super::constant::{Attributes, Constants, dims, quant};
use super::graph::{Conv, Dense, Filter, Form, Id, Kind, Layer, OPEN, Op, Value};
use edge_kernels::{Function, Ramp};
use edge_package::InputSpec;
use edge_vision::Layout;
use std::collections::{HashMap, HashSet};
use tract_onnx::pb::{GraphProto, NodeProto};

/// The most values that a picture between two layers may have.
const MAX_VALUES: usize = 1 << 28;

/// What was understood of a graph.
pub struct Reading<'a> {
    /// Constants of the file.
    pub constants: Constants<'a>,
    /// Values that layers make; the picture is the first.
    pub values: Vec<Value>,
    /// In the order of computation.
    pub layers: Vec<Layer>,
    /// For each node of the file that the output needs and that is no layer: why.
    pub refused: Vec<(usize, String)>,
    /// Which value a name stands for.
    pub by_name: HashMap<&'a str, Id>,
}

/// Reads the nodes that `outputs` need.
pub fn read<'a>(
    opset: i64,
    graph: &'a GraphProto,
    constants: Constants<'a>,
    input: &InputSpec,
    outputs: &[&str],
) -> Reading<'a> {
    let form = if input.layout == Layout::Nhwc { Form::Nhwc } else { Form::Nchw };
    let picture =
        Value { name: input.name.clone(), h: input.height as usize, w: input.width as usize, c: 3, form, quant: None };
    let mut reader = Reader {
        opset,
        reading: Reading { constants, values: vec![picture], layers: vec![], refused: vec![], by_name: HashMap::new() },
    };
    if let Some(name) = graph.input.iter().map(|i| i.name.as_str()).find(|n| *n == input.name) {
        reader.reading.by_name.insert(name, 0);
    }
    let needed = needed(graph, outputs);
    for (index, node) in graph.node.iter().enumerate().filter(|(i, _)| needed.contains(i)) {
        // A constant is read where it is used.
        if node.output.first().is_some_and(|o| reader.reading.constants.get(o).is_some()) {
            continue;
        }
        if let Err(why) = reader.node(index, node) {
            reader.reading.refused.push((index, why));
        }
    }
    reader.reading
}

/// The nodes that outputs are computed from.
fn needed(graph: &GraphProto, outputs: &[&str]) -> HashSet<usize> {
    let makers: HashMap<&str, usize> =
        graph.node.iter().enumerate().flat_map(|(i, n)| n.output.iter().map(move |o| (o.as_str(), i))).collect();
    let mut found = HashSet::new();
    let mut pending = outputs.to_vec();
    while let Some(name) = pending.pop() {
        if let Some(&node) = makers.get(name)
            && found.insert(node)
        {
            pending.extend(graph.node[node].input.iter().map(String::as_str));
        }
    }
    found
}

pub struct Reader<'a> {
    pub opset: i64,
    pub reading: Reading<'a>,
}

/// Why a node is no layer.
pub type Refusal = String;

impl<'a> Reader<'a> {
    pub fn value(&self, node: &NodeProto, input: usize) -> Result<(Id, &Value), Refusal> {
        let name = node.input.get(input).ok_or("an input is missing")?;
        let id = *self.reading.by_name.get(name.as_str()).ok_or("what it reads is not computed by a layer of ours")?;
        Ok((id, &self.reading.values[id]))
    }

    /// The values of an input that is a constant.
    fn floats(&self, node: &NodeProto, input: usize) -> Option<(Vec<usize>, Vec<f32>)> {
        self.reading.constants.floats(node.input.get(input)?)
    }

    /// The only value of an input that is a constant; `None` where there is no such input.
    pub fn scalar(&self, node: &NodeProto, input: usize, missing: f32) -> Result<f32, Refusal> {
        match node.input.get(input).filter(|n| !n.is_empty()) {
            None => Ok(missing),
            Some(_) => match self.floats(node, input).as_ref().map(|(_, v)| v.as_slice()) {
                Some([value]) => Ok(*value),
                _ => Err("a limit is not one constant number".into()),
            },
        }
    }

    pub fn integers(&self, node: &NodeProto, attribute: &str, input: usize) -> Option<Vec<i64>> {
        let attributes = Attributes(node);
        attributes
            .ints(attribute)
            .map(<[i64]>::to_vec)
            .or_else(|| self.reading.constants.integers(node.input.get(input)?))
    }

    fn push(
        &mut self,
        index: usize,
        node: &'a NodeProto,
        op: Op,
        inputs: Vec<Id>,
        value: Value,
    ) -> Result<(), Refusal> {
        let name = node.output.first().filter(|n| !n.is_empty()).ok_or("it has no output")?;
        let size = [value.h, value.w, value.c].into_iter().try_fold(1_usize, usize::checked_mul);
        if size.is_none_or(|s| s == 0 || s > MAX_VALUES) {
            return Err("its result is empty or too large".into());
        }
        let id = self.reading.values.len();
        self.reading.values.push(Value { name: name.clone(), ..value });
        self.reading.by_name.insert(name, id);
        self.reading.layers.push(Layer { nodes: vec![index], op, inputs, output: id });
        Ok(())
    }

    fn node(&mut self, index: usize, node: &'a NodeProto) -> Result<(), Refusal> {
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            return Err("an operator of another domain".into());
        }
        let attributes = Attributes(node);
        let bytes = node.input.iter().filter_map(|i| self.reading.by_name.get(i.as_str()));
        let bytes = bytes.into_iter().any(|id| self.reading.values[*id].quant.is_some());
        let moves = ["DequantizeLinear", "Identity", "Transpose", "Flatten", "Reshape", "Squeeze", "MaxPool"];
        if bytes && !moves.contains(&node.op_type.as_str()) {
            return Err("of bytes".into());
        }
        let (op, inputs, value) = match node.op_type.as_str() {
            "Conv" => self.conv(node)?,
            "BatchNormalization" => self.batch_norm(node)?,
            "Relu" => self.limits(node, [0.0, f32::INFINITY])?,
            "Clip" => self.clip(node)?,
            "Add" | "Sub" | "Mul" | "Div" => self.arithmetic(node)?,
            "Pad" => self.pad(node)?,
            "MaxPool" | "AveragePool" => self.pool(node)?,
            "GlobalAveragePool" | "ReduceMean" => self.average(node)?,
            "Gemm" | "MatMul" => self.dense(node)?,
            "Concat" => self.concat(node)?,
            "Softmax" => {
                let (id, value) = self.value(node, 0)?;
                let last = matches!(attributes.int("axis", if self.opset < 13 { 1 } else { -1 }), 1 | -1);
                if !(value.pixels() == 1 && value.dims().len() == 2 && last) {
                    return Err("only at the end, over (1, classes)".into());
                }
                (Op::Softmax, vec![id], value.clone())
            }
            "Sigmoid" => self.apply(node, Function::Sigmoid)?,
            "HardSigmoid" => {
                let ramp = Ramp {
                    slope: attributes.float("alpha", 0.2),
                    offset: attributes.float("beta", 0.5),
                    limits: [0.0, 1.0],
                };
                self.apply(node, Function::Ramp(ramp))?
            }
            "HardSwish" => {
                self.apply(node, Function::TimesRamp(Ramp { slope: 1.0 / 6.0, offset: 0.5, limits: [0.0, 1.0] }))?
            }
            "QuantizeLinear" => {
                let (id, value) = self.value(node, 0)?;
                let quant = quant(&self.reading.constants, node).filter(|_| value.quant.is_none());
                let quant = quant.ok_or("not to 8 bits with one constant scale")?;
                (Op::Quantize, vec![id], Value { quant: Some(quant), ..value.clone() })
            }
            "DequantizeLinear" => {
                let (id, value) = self.value(node, 0)?;
                if value.quant.is_none() || value.quant != quant(&self.reading.constants, node) {
                    return Err("with another scale than what it reads was quantized with".into());
                }
                (Op::Dequantize, vec![id], Value { quant: None, ..value.clone() })
            }
            "Identity" => self.alias(node, Value::clone)?,
            "Cast" if attributes.int("to", 0) == 1 => self.alias(node, Value::clone)?,
            "Dropout" => {
                let training = node.input.get(2).is_some_and(|n| !n.is_empty());
                if training || node.output.get(1).is_some_and(|n| !n.is_empty()) {
                    return Err("it asks for training, or for its mask".into());
                }
                self.alias(node, Value::clone)?
            }
            "Transpose" => self.transpose(node)?,
            "Flatten" | "Reshape" | "Squeeze" => self.reshape(node)?,
            other => return Err(format!("{other} is not among the operators of ours")),
        };
        self.push(index, node, op, inputs, value)
    }

    pub fn alias(&self, node: &NodeProto, form: impl Fn(&Value) -> Value) -> Result<(Op, Vec<Id>, Value), Refusal> {
        let (id, value) = self.value(node, 0)?;
        Ok((Op::Alias, vec![id], form(value)))
    }

    fn limits(&self, node: &NodeProto, limits: [f32; 2]) -> Result<(Op, Vec<Id>, Value), Refusal> {
        let (id, value) = self.value(node, 0)?;
        Ok((Op::Limits(limits), vec![id], value.clone()))
    }

    fn apply(&self, node: &NodeProto, function: Function) -> Result<(Op, Vec<Id>, Value), Refusal> {
        let (id, value) = self.value(node, 0)?;
        if let Function::Ramp(r) | Function::TimesRamp(r) = function
            && !(r.slope.is_finite() && r.offset.is_finite())
        {
            return Err("its slope is no finite number".into());
        }
        Ok((Op::Apply(function), vec![id], value.clone()))
    }

    fn clip(&self, node: &NodeProto) -> Result<(Op, Vec<Id>, Value), Refusal> {
        let attributes = Attributes(node);
        let limits = match self.opset < 11 {
            true => [attributes.float("min", f32::NEG_INFINITY), attributes.float("max", f32::INFINITY)],
            false => [self.scalar(node, 1, f32::NEG_INFINITY)?, self.scalar(node, 2, f32::INFINITY)?],
        };
        if limits[0].is_nan() || limits[1].is_nan() || limits[0] > limits[1] {
            return Err("its limits are no range".into());
        }
        self.limits(node, limits)
    }

    fn conv(&self, node: &NodeProto) -> Result<(Op, Vec<Id>, Value), Refusal> {
        let (id, value) = self.value(node, 0)?;
        if value.form != Form::Nchw {
            return Err("its input is no picture of (N,C,H,W)".into());
        }
        let name = node.input.get(1).ok_or("it has no filter")?;
        let filter = self.reading.constants.get(name).ok_or("its filter is no constant")?;
        let shape = dims(filter).unwrap_or_default();
        let [outputs, inputs, kh, kw] = shape[..] else { return Err("its filter has not four dimensions".into()) };
        if !self.reading.constants.is_float(name) {
            return Err("its filter is not of float32, float16 or dequantized bytes".into());
        }
        let group = Attributes(node).int("group", 1);
        let kind = match (usize::try_from(group).unwrap_or_default(), inputs) {
            (1, inputs) if inputs == value.c => Kind::Full,
            (group, 1) if group == value.c && outputs == group => Kind::Depthwise,
            _ => return Err("grouped, but not depthwise with one filter per channel".into()),
        };
        if Attributes(node).ints("kernel_shape").is_some_and(|k| *k != [kh as i64, kw as i64]) {
            return Err("its kernel_shape is not its filter's".into());
        }
        let bias = match node.input.get(2).filter(|n| !n.is_empty()) {
            None => vec![0.0; outputs],
            Some(_) => {
                self.floats(node, 2).map(|(_, v)| v).filter(|v| v.len() == outputs).ok_or("its bias is no constant")?
            }
        };
        let window = Attributes(node).window([value.h, value.w], [kh, kw])?;
        let made = Value { h: window.output[0], w: window.output[1], c: outputs, ..value.clone() };
        let filter = Some(Filter { name: name.clone(), scale: None });
        let conv = Conv {
            window,
            kind,
            filter,
            factors: vec![],
            bias,
            read: OPEN,
            written: OPEN,
            residual: None,
            function: None,
            first: None,
            prelude: None,
        };
        Ok((Op::Conv(conv), vec![id], made))
    }

    fn batch_norm(&self, node: &NodeProto) -> Result<(Op, Vec<Id>, Value), Refusal> {
        let (id, value) = self.value(node, 0)?;
        if Attributes(node).int("training_mode", 0) != 0
            || !matches!(value.form, Form::Nchw | Form::FlatChw | Form::FlatHwc)
        {
            return Err("in training, or not over the channels".into());
        }
        if value.dims().len() == 2 && value.pixels() != 1 {
            return Err("not over the channels".into());
        }
        let epsilon = f64::from(Attributes(node).float("epsilon", 1e-5));
        let mut vectors = vec![];
        for input in 1..5 {
            let vector = self.floats(node, input).map(|(_, v)| v).filter(|v| v.len() == value.c);
            vectors.push(vector.ok_or("its statistics are no constants")?);
        }
        let factor = |c: usize| f64::from(vectors[0][c]) / (f64::from(vectors[3][c]) + epsilon).sqrt();
        let mul: Vec<f32> = (0..value.c).map(|c| factor(c) as f32).collect();
        let add: Vec<f32> =
            (0..value.c).map(|c| (f64::from(vectors[1][c]) - f64::from(vectors[2][c]) * factor(c)) as f32).collect();
        if mul.iter().chain(&add).any(|v| !v.is_finite()) {
            return Err("its statistics give no finite numbers".into());
        }
        Ok((Op::Scale { mul, add, written: OPEN }, vec![id], value.clone()))
    }

    /// One number per channel from a constant that is broadcast over a value.
    fn per_channel(value: &Value, (shape, values): (Vec<usize>, Vec<f32>)) -> Option<Vec<f32>> {
        if values.len() == 1 {
            return Some(vec![values[0]; value.c]);
        }
        let full = value.dims();
        // Aligned at the end, as NumPy does.
        let lead = full.len().checked_sub(shape.len())?;
        let axis = match value.form {
            Form::Nchw => 1,
            Form::Nhwc => 3,
            Form::FlatChw | Form::FlatHwc if value.pixels() == 1 => 1,
            _ => return None,
        };
        let fits = |(i, d): (usize, &usize)| *d == if i + lead == axis { value.c } else { 1 };
        (values.len() == value.c && shape.iter().enumerate().all(fits)).then_some(values)
    }

    fn arithmetic(&self, node: &NodeProto) -> Result<(Op, Vec<Id>, Value), Refusal> {
        let constant = (0..2).find_map(|i| Some((i, self.floats(node, i)?)));
        let Some((place, constant)) = constant else {
            let ((a, left), (b, right)) = (self.value(node, 0)?, self.value(node, 1)?);
            let same = left.dims() == right.dims() && left.form == right.form;
            let gates = |of: &Value, by: &Value| {
                let picture = matches!(of.form, Form::Nchw | Form::Nhwc);
                picture && of.form == by.form && by.pixels() == 1 && of.c == by.c
            };
            return match node.op_type.as_str() {
                "Add" if same => Ok((Op::Add(OPEN), vec![a, b], left.clone())),
                "Mul" if same => Ok((Op::Mul, vec![a, b], left.clone())),
                "Mul" if gates(left, right) => Ok((Op::Gate, vec![a, b], left.clone())),
                "Mul" if gates(right, left) => Ok((Op::Gate, vec![b, a], right.clone())),
                "Add" | "Mul" => Err("of values of different shapes".into()),
                other => Err(format!("{other} of two computed values")),
            };
        };
        let (id, value) = self.value(node, 1 - place)?;
        let numbers = Self::per_channel(value, constant).ok_or("its constant is not one number per channel")?;
        let count = numbers.len();
        let (mul, add) = match (node.op_type.as_str(), place) {
            ("Add", _) => (vec![1.0; count], numbers),
            ("Mul", _) => (numbers, vec![0.0; count]),
            ("Sub", 1) => (vec![1.0; count], numbers.into_iter().map(|v| -v).collect()),
            ("Sub", _) => (vec![-1.0; count], numbers),
            ("Div", 1) => (numbers.into_iter().map(|v| 1.0 / v).collect(), vec![0.0; count]),
            _ => return Err("a constant divided by a value".into()),
        };
        if mul.iter().chain(&add).any(|v: &f32| !v.is_finite()) {
            return Err("its constant is no finite number".into());
        }
        Ok((Op::Scale { mul, add, written: OPEN }, vec![id], value.clone()))
    }

    fn dense(&self, node: &NodeProto) -> Result<(Op, Vec<Id>, Value), Refusal> {
        let (id, value) = self.value(node, 0)?;
        let attributes = Attributes(node);
        let gemm = node.op_type == "Gemm";
        let plain = attributes.float("alpha", 1.0) == 1.0
            && attributes.float("beta", 1.0) == 1.0
            && attributes.int("transA", 0) == 0;
        if value.dims().len() != 2 || gemm && !plain {
            return Err("not of one vector and one matrix".into());
        }
        let name = node.input.get(1).ok_or("it has no weights")?;
        let tensor = self.reading.constants.get(name).ok_or("its weights are no constant")?;
        let shape = dims(tensor).unwrap_or_default();
        let turned = gemm && attributes.int("transB", 0) != 0;
        let (k, n) = match (&shape[..], turned) {
            ([k, n], false) | ([n, k], true) => (*k, *n),
            _ => return Err("its weights are no matrix".into()),
        };
        if k != value.pixels() * value.c || !self.reading.constants.is_float(name) {
            return Err("its weights are not float, or do not fit its input".into());
        }
        let bias = match node.input.get(2).filter(|n| gemm && !n.is_empty()) {
            None => vec![0.0; n],
            Some(_) => match self.floats(node, 2).map(|(_, v)| v) {
                Some(v) if v.len() == n => v,
                Some(v) if v.len() == 1 => vec![v[0]; n],
                _ => return Err("its bias is no constant".into()),
            },
        };
        let weights = Filter { name: name.clone(), scale: None };
        let dense = Dense { k, n, weights, turned, bias, written: OPEN, function: None, input: value.clone() };
        let made = Value { name: String::new(), h: 1, w: 1, c: n, form: Form::FlatHwc, quant: None };
        Ok((Op::Dense(dense), vec![id], made))
    }
}
