//! Operations of `keras.ops` (Keras 3) and TensorFlow functions (tf.keras' `TFOpLambda`) that stand in a model between
//! its layers. Sources: Keras 3.15 `ops/numpy.py`, `ops/nn.py`, `ops/core.py`; tf.keras 2.15 `layers/core/tf_op_layer.py`.

use super::activation::Activation;
use super::{merge, pool, shape, slice};
use crate::graph::{int, ints};
use crate::keras::config::{Arg, Layer};
use crate::keras::cx::{Cx, integers, number, numbers};
use crate::keras::value::{Value, elements};
use crate::keras::weights::snake_case;
use serde_json::Value as Json;

/// What an operation does, whichever generation spells it.
enum Kind {
    /// Two operands, with ONNX' operator.
    Binary(&'static str),
    /// One operand, with ONNX' operator.
    Unary(&'static str),
    /// Over axes, with ONNX' operator.
    Reduce(&'static str),
    Activation(Result<Activation, String>),
    Clip,
    Square,
    Rsqrt,
    Reshape,
    Transpose,
    Concatenate,
    Stack,
    ExpandDims,
    Squeeze,
    Item,
    Pad,
    Pool,
    /// To another type.
    Cast,
    Identity,
}

fn kind(layer: &Layer) -> Option<Kind> {
    let function = match layer.class.strip_prefix("ops.") {
        Some(class) => snake_case(class),
        None => {
            let path = layer.config.get("function")?.as_str()?;
            path.rsplit('.').next()?.to_string()
        }
    };
    Some(match function.as_str() {
        "add" | "__add__" | "__radd__" | "bias_add" => Kind::Binary("Add"),
        "subtract" | "sub" => Kind::Binary("Sub"),
        "multiply" | "mul" | "scalar_mul" => Kind::Binary("Mul"),
        "true_divide" | "truediv" | "divide" | "realdiv" => Kind::Binary("Div"),
        "maximum" => Kind::Binary("Max"),
        "minimum" => Kind::Binary("Min"),
        "power" | "pow" => Kind::Binary("Pow"),
        "negative" | "neg" => Kind::Unary("Neg"),
        "absolute" | "abs" => Kind::Unary("Abs"),
        "sqrt" => Kind::Unary("Sqrt"),
        "exp" => Kind::Unary("Exp"),
        "log" => Kind::Unary("Log"),
        "erf" => Kind::Unary("Erf"),
        "square" => Kind::Square,
        "rsqrt" => Kind::Rsqrt,
        "mean" | "reduce_mean" => Kind::Reduce("ReduceMean"),
        "sum" | "reduce_sum" => Kind::Reduce("ReduceSum"),
        "max" | "amax" | "reduce_max" => Kind::Reduce("ReduceMax"),
        "min" | "amin" | "reduce_min" => Kind::Reduce("ReduceMin"),
        "clip" | "clip_by_value" => Kind::Clip,
        "reshape" => Kind::Reshape,
        "transpose" => Kind::Transpose,
        "concatenate" | "concat" => Kind::Concatenate,
        "stack" => Kind::Stack,
        "expand_dims" => Kind::ExpandDims,
        "squeeze" => Kind::Squeeze,
        "get_item" | "getitem" => Kind::Item,
        "pad" => Kind::Pad,
        "max_pool" | "average_pool" if layer.class.starts_with("ops.") => Kind::Pool,
        "cast" | "convert_to_tensor" => Kind::Cast,
        "identity" | "stop_gradient" | "copy" => Kind::Identity,
        other => {
            let class = layer.class.strip_prefix("ops.");
            let known = class.and_then(|c| Activation::of_operation(c, &layer.config));
            // TensorFlow has no hard_sigmoid; keras.activations of those days has the old one.
            Kind::Activation(known.or_else(|| Activation::named(other, class.is_none()).map(Ok))?)
        }
    })
}

/// Why an operation cannot be converted, as it is to be named.
pub fn unsupported(layer: &Layer) -> Option<String> {
    let to = match kind(layer) {
        Some(Kind::Cast) => match casts_to(layer).find(|to| !is_float(to)) {
            Some(to) => format!(" to {}", to.as_str().unwrap_or("an unknown type")),
            None => return None,
        },
        Some(_) => return None,
        None => String::new(),
    };
    let what = match (layer.class.strip_prefix("ops."), layer.config.get("function").and_then(Json::as_str)) {
        (Some(class), _) => format!("{class} of keras.ops"),
        (None, Some(function)) => format!("{} with tf.{function}", layer.class),
        (None, None) => layer.class.clone(),
    };
    Some(what + &to)
}

/// The types that a cast is to make: one in its settings (Keras 3), or one per call (TensorFlow).
fn casts_to(layer: &Layer) -> impl Iterator<Item = &Json> {
    let per_call = layer.calls.iter().flat_map(|c| &c.kwargs).filter(|(k, _)| k == "dtype");
    let per_call = per_call.filter_map(|(_, a)| if let Arg::Json(value) = a { Some(value) } else { None });
    layer.config.get("dtype").filter(|_| layer.class.starts_with("ops.")).into_iter().chain(per_call)
}

/// Everything is computed in float32 here, whatever the precision in Keras; whole numbers are something else.
fn is_float(to: &Json) -> bool {
    to.is_null() || to.as_str().is_some_and(|t| ["float16", "bfloat16", "float32", "float64"].contains(&t))
}

/// An argument with its tensors in place.
#[derive(Clone)]
enum Operand {
    Tensor(Value),
    List(Vec<Operand>),
    Json(Json),
}

/// The arguments of a call, by position and by name.
struct Operands {
    positional: Vec<Operand>,
    named: Vec<(String, Operand)>,
}

impl Operands {
    fn new(cx: &Cx<'_>, inputs: &[Value]) -> Operands {
        fn place(arg: &Arg, inputs: &mut std::slice::Iter<'_, Value>) -> Operand {
            match arg {
                Arg::Tensor(_) => match inputs.next() {
                    Some(value) => Operand::Tensor(value.clone()),
                    None => Operand::Json(Json::Null),
                },
                Arg::List(args) => Operand::List(args.iter().map(|a| place(a, inputs)).collect()),
                Arg::Json(value) => Operand::Json(value.clone()),
            }
        }
        let mut inputs = inputs.iter();
        let positional = cx.call.args.iter().map(|a| place(a, &mut inputs)).collect();
        let named = cx.call.kwargs.iter().map(|(k, a)| (k.clone(), place(a, &mut inputs))).collect();
        Operands { positional, named }
    }

    /// The argument at this place or of one of these names.
    fn get(&self, position: usize, names: &[&str]) -> Option<&Operand> {
        let named = || self.named.iter().find(|(k, _)| names.contains(&k.as_str())).map(|(_, v)| v);
        self.positional.get(position).or_else(named)
    }

    fn tensor(&self, position: usize, names: &[&str]) -> Result<&Value, String> {
        match self.get(position, names) {
            Some(Operand::Tensor(value)) => Ok(value),
            _ => Err("its operand is no tensor".into()),
        }
    }

    /// The named arguments that are no tensors, for a function whose first `n` arguments are all that it takes by
    /// position. The name that a call may give its result is left out.
    fn json(&self, n: usize) -> Result<Vec<(&str, &Json)>, String> {
        if self.positional.len() > n {
            return Err(format!("it has {} arguments without names, {n} are possible", self.positional.len()));
        }
        let named = self.named.iter().filter(|(k, v)| k != "name" && !matches!(v, Operand::Tensor(_)));
        named
            .map(|(k, v)| match v {
                Operand::Json(value) => Ok((k.as_str(), value)),
                _ => Err(format!("its argument {k} is not understood")),
            })
            .collect()
    }

    /// A setting: of the operation (Keras 3) or of its call.
    fn setting(&self, cx: &Cx<'_>, position: usize, names: &[&str]) -> Option<Json> {
        fn json(operand: &Operand) -> Option<Json> {
            match operand {
                Operand::Json(value) => Some(value.clone()),
                Operand::List(items) => items.iter().map(json).collect::<Option<Vec<_>>>().map(Json::Array),
                Operand::Tensor(_) => None,
            }
        }
        let own = names.iter().find_map(|n| cx.layer.config.get(*n)).cloned();
        own.or_else(|| self.get(position, names).and_then(json)).filter(|v| !v.is_null())
    }
}

/// Puts an operation into the graph.
pub fn lower(cx: &mut Cx<'_>, inputs: &[Value]) -> Result<Value, String> {
    let kind = kind(cx.layer).ok_or("it cannot be converted")?;
    let operands = Operands::new(cx, inputs);
    let first = || operands.tensor(0, &["x", "input", "inputs", "tensor", "features", "value", "input_tensor", "a"]);
    let unary = |cx: &mut Cx<'_>, operator: &str, x: &Value| -> Result<Value, String> {
        Ok(x.like(cx.op(operator, operator, &[&x.name], vec![])?))
    };
    match kind {
        Kind::Binary(operator) => binary(cx, operator, &operands),
        Kind::Unary(operator) => unary(cx, operator, first()?),
        Kind::Activation(activation) => {
            let mut activation = activation?;
            if !cx.layer.class.starts_with("ops.") {
                activation = activation.with(operands.json(1)?.into_iter())?;
            }
            activation.apply(cx, first()?)
        }
        Kind::Cast | Kind::Identity => Ok(first()?.clone()),
        Kind::Square => {
            let x = first()?;
            Ok(x.like(cx.op("Mul", "Mul", &[&x.name, &x.name], vec![])?))
        }
        Kind::Rsqrt => {
            let root = unary(cx, "Sqrt", first()?)?;
            unary(cx, "Reciprocal", &root)
        }
        Kind::Clip => {
            let x = first()?;
            let limit = |cx: &Cx<'_>, position, names: &[&str]| {
                operands.setting(cx, position, names).as_ref().and_then(number).ok_or("its limits are no numbers")
            };
            let low = limit(cx, 1, &["x_min", "clip_value_min"])?;
            let high = limit(cx, 2, &["x_max", "clip_value_max"])?;
            Ok(x.like(super::activation::clip(cx, &x.name, low, high)?))
        }
        Kind::Reduce(operator) => reduce(cx, operator, first()?, &operands),
        Kind::Reshape => {
            let x = first()?;
            let target = operands.setting(cx, 1, &["newshape", "shape"]).as_ref().and_then(integers);
            let target = without_batch(&target.ok_or("its shape is not known")?, &x.shape)?;
            let shape = shape::resolve(&x.shape, &target)?;
            cx.reshape(x, shape)
        }
        Kind::Transpose => {
            let x = first()?;
            let axes = operands.setting(cx, 1, &["axes", "perm"]).as_ref().and_then(integers);
            match axes.as_deref() {
                Some([0, rest @ ..]) => shape::transpose(cx, x, rest),
                _ => Err("the batch would not stay first".into()),
            }
        }
        Kind::Concatenate | Kind::Stack => join(cx, &operands, matches!(kind, Kind::Stack)),
        Kind::ExpandDims => {
            let x = first()?;
            let axis = axis(cx, &operands)?;
            let at = if axis < 0 { axis + x.rank() as i64 + 1 } else { axis };
            if !(1..=x.rank() as i64).contains(&at) {
                return Err(format!("axis {axis} is not possible"));
            }
            let mut shape = x.shape.clone();
            shape.insert(at as usize - 1, 1);
            cx.reshape(x, shape)
        }
        Kind::Squeeze => {
            let x = first()?;
            let mut shape = x.shape.clone();
            match operands.setting(cx, 1, &["axis"]).as_ref().and_then(integers) {
                None => shape.retain(|d| *d != 1),
                Some(axes) => {
                    let axes = axes.into_iter().map(|a| x.axis(a)).collect::<Result<Vec<_>, _>>()?;
                    if axes.iter().any(|a| shape[a - 1] != 1) {
                        return Err(format!("the shape {shape:?} has more than 1 there"));
                    }
                    let mut at = 0;
                    shape.retain(|_| {
                        at += 1;
                        !axes.contains(&at)
                    });
                }
            }
            cx.reshape(x, shape)
        }
        Kind::Item => {
            let key = operands.setting(cx, 1, &["key", "slice_spec"]).ok_or("its slices are not known")?;
            slice::item(cx, first()?, &key)
        }
        Kind::Pad => pad(cx, first()?, &operands),
        Kind::Pool => pool::pool(cx, first()?),
    }
}

fn axis(cx: &Cx<'_>, operands: &Operands) -> Result<i64, String> {
    match operands.setting(cx, 1, &["axis"]).as_ref().and_then(integers).as_deref() {
        Some([axis]) => Ok(*axis),
        _ => Err("one axis is needed".into()),
    }
}

/// A target shape after the batch. The batch is -1 there, or everything else is known.
fn without_batch(target: &[i64], from: &[usize]) -> Result<Vec<i64>, String> {
    match target {
        [-1, rest @ ..] => {
            let product: usize = elements(&rest.iter().filter_map(|d| usize::try_from(*d).ok()).collect::<Vec<_>>())?;
            match product == elements(from)? && rest.iter().all(|d| *d > 0) {
                true => Ok(rest.to_vec()),
                false => Err(format!("the shape {from:?} does not become {rest:?} for one picture")),
            }
        }
        // Keras 3 writes an open batch as null in some versions, 1 where it was fixed.
        [1, rest @ ..] => Ok(rest.to_vec()),
        _ => Err(format!("the target shape {target:?} does not keep the batch")),
    }
}

fn binary(cx: &mut Cx<'_>, operator: &str, operands: &Operands) -> Result<Value, String> {
    let a = operands.get(0, &["x", "x1", "a", "value"]).cloned().ok_or("it lacks an operand")?;
    let b = operands.get(1, &["y", "x2", "b", "bias", "scalar"]).cloned().ok_or("it lacks an operand")?;
    match (a, b) {
        (Operand::Tensor(a), Operand::Tensor(b)) => {
            // NumPy's rule, where merging layers have another: ones come before the batch.
            if a.rank() != b.rank() {
                return Err(format!("the shapes {:?} and {:?} do not fit together", a.shape, b.shape));
            }
            merge::binary(cx, operator, &a, &b)
        }
        (Operand::Tensor(a), Operand::Json(b)) => {
            let b = constant(cx, &a, &b)?;
            Ok(a.like(cx.op(operator, operator, &[&a.name, &b], vec![])?))
        }
        (Operand::Tensor(a), Operand::List(b)) => {
            let b = constant(cx, &a, &plain_list(&b)?)?;
            Ok(a.like(cx.op(operator, operator, &[&a.name, &b], vec![])?))
        }
        (Operand::Json(a), Operand::Tensor(b)) => {
            let a = constant(cx, &b, &a)?;
            Ok(b.like(cx.op(operator, operator, &[&a, &b.name], vec![])?))
        }
        (Operand::List(a), Operand::Tensor(b)) => {
            let a = constant(cx, &b, &plain_list(&a)?)?;
            Ok(b.like(cx.op(operator, operator, &[&a, &b.name], vec![])?))
        }
        _ => Err("none of its operands is a tensor".into()),
    }
}

fn plain_list(list: &[Operand]) -> Result<Json, String> {
    let items = list.iter().map(|o| match o {
        Operand::Json(value) => Ok(value.clone()),
        Operand::List(inner) => plain_list(inner),
        Operand::Tensor(_) => Err("a list of tensors is no operand".to_string()),
    });
    items.collect::<Result<Vec<_>, _>>().map(Json::Array)
}

/// A constant of the file, to be broadcast against `value` as NumPy does it.
fn constant(cx: &mut Cx<'_>, value: &Value, json: &Json) -> Result<String, String> {
    let (mut shape, data) = numbers(json).ok_or("its constant is no number and no list of numbers")?;
    // A constant with a batch of its own can only have a batch of 1.
    if shape.len() == value.rank() && shape.first() == Some(&1) {
        shape.remove(0);
    }
    let rank = value.shape.len();
    let ones = rank.checked_sub(shape.len()).ok_or("its constant has more dimensions than the tensor")?;
    let shape = [vec![1; ones], shape].concat();
    if shape.iter().zip(&value.shape).any(|(c, v)| c != v && *c != 1) {
        return Err(format!("a constant of the shape {shape:?} does not fit the tensor's {:?}", value.shape));
    }
    let data: Vec<f32> = data.into_iter().map(|v| v as f32).collect();
    cx.broadcast_constant("constant", value, &shape, &data)
}

fn reduce(cx: &mut Cx<'_>, operator: &str, x: &Value, operands: &Operands) -> Result<Value, String> {
    let axes =
        operands.setting(cx, 1, &["axis"]).as_ref().and_then(integers).ok_or("the batch would be reduced, too")?;
    let axes = axes.into_iter().map(|a| x.axis(a)).collect::<Result<Vec<_>, _>>()?;
    let keep = operands.setting(cx, 2, &["keepdims"]).and_then(|v| v.as_bool()).unwrap_or(false);
    let stored: Vec<i64> = axes.iter().map(|a| x.stored_axis(*a) as i64).collect();
    let keepdims = int("keepdims", 1);
    let name = match operator {
        // The axes of ReduceSum are an input since opset 13.
        "ReduceSum" => {
            let list = cx.longs("axes", &stored);
            cx.op(operator, operator, &[&x.name, &list], vec![keepdims])?
        }
        _ => cx.op(operator, operator, &[&x.name], vec![ints("axes", stored), keepdims])?,
    };
    let kept: Vec<usize> = (1..x.rank()).map(|a| if axes.contains(&a) { 1 } else { x.shape[a - 1] }).collect();
    let value = Value { name, shape: kept, channels_first: x.channels_first };
    if keep {
        return Ok(value);
    }
    let left: Vec<usize> = (1..x.rank()).filter(|a| !axes.contains(a)).map(|a| x.shape[a - 1]).collect();
    cx.reshape(&value, left)
}

fn join(cx: &mut Cx<'_>, operands: &Operands, stack: bool) -> Result<Value, String> {
    let Some(Operand::List(list)) = operands.get(0, &["xs", "x", "values", "arrays"]) else {
        return Err("a list of tensors is needed".into());
    };
    let mut values = vec![];
    for operand in list {
        match operand {
            Operand::Tensor(value) => values.push(value.clone()),
            _ => return Err("a constant cannot be joined with tensors".into()),
        }
    }
    let axis = axis(cx, operands).or(if stack { Ok(0) } else { Err("it lacks its axis".to_string()) })?;
    if !stack {
        return merge::joined(cx, &values, axis);
    }
    let rank = values.first().ok_or("it has no input")?.rank() as i64;
    let at = if axis < 0 { axis + rank + 1 } else { axis };
    if !(1..=rank).contains(&at) {
        return Err(format!("stacking along axis {axis} is not possible"));
    }
    for value in &mut values {
        let mut shape = value.shape.clone();
        shape.insert((at as usize - 1).min(shape.len()), 1);
        *value = cx.reshape(value, shape)?;
    }
    merge::joined(cx, &values, at)
}

/// Zeros around a tensor.
fn pad(cx: &mut Cx<'_>, x: &Value, operands: &Operands) -> Result<Value, String> {
    let mode = operands.setting(cx, 2, &["mode"]);
    let fill = operands.setting(cx, 3, &["constant_values"]).as_ref().and_then(number).unwrap_or(0.0);
    if mode.as_ref().and_then(Json::as_str).is_some_and(|m| !m.eq_ignore_ascii_case("constant")) {
        return Err(format!("padding with the mode {} is not possible", mode.unwrap_or_default()));
    }
    let width = operands.setting(cx, 1, &["pad_width", "paddings"]).ok_or("its widths are not known")?;
    let pairs: Option<Vec<[usize; 2]>> =
        width.as_array().and_then(|list| list.iter().map(crate::keras::cx::pair).collect());
    let pairs = pairs.filter(|p| p.len() == x.rank() && p[0] == [0, 0]).ok_or("its widths do not fit")?;
    let mut shape = x.shape.clone();
    let mut pads = vec![0; 2 * x.rank()];
    for (axis, [before, after]) in pairs.into_iter().enumerate().skip(1) {
        shape[axis - 1] += before + after;
        let stored = x.stored_axis(axis);
        pads[stored] = before as i64;
        pads[x.rank() + stored] = after as i64;
    }
    let (pads, fill) = (cx.longs("pads", &pads), cx.scalar("fill", fill));
    let name = cx.op("Pad", "Pad", &[&x.name, &pads, &fill], vec![])?;
    Ok(Value { name, shape, channels_first: x.channels_first })
}
