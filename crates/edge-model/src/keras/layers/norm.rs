//! Normalizations, as they are at inference. Sources: Keras 3.15 `layers/normalization/*.py`,
//! `layers/preprocessing/normalization.py`, `ops/nn.py` (layer_normalization, normalize).

use crate::graph::{float, int, ints};
use crate::keras::cx::{Cx, integers, numbers};
use crate::keras::value::{Value, elements};
use serde_json::Value as Json;

/// Keras' own smallest number that it divides by.
const EPSILON: f64 = 1e-7;

/// The axes of a setting, as Keras counts them (0 is the batch); sorted.
fn axes(cx: &Cx<'_>, value: &Value, default: i64) -> Result<Vec<usize>, String> {
    let list = match cx.get("axis") {
        None => vec![default],
        Some(axis) => integers(axis).ok_or_else(|| format!("axis is {axis}"))?,
    };
    let mut axes = list.into_iter().map(|a| value.axis(a)).collect::<Result<Vec<_>, _>>()?;
    axes.sort_unstable();
    axes.dedup();
    match axes.is_empty() {
        true => Err("it has no axis".into()),
        false => Ok(axes),
    }
}

/// The dimensions of `value` along `axes`, and 1 along the others.
fn kept(value: &Value, axes: &[usize]) -> Vec<usize> {
    (1..value.rank()).map(|a| if axes.contains(&a) { value.shape[a - 1] } else { 1 }).collect()
}

/// `BatchNormalization`: gamma, beta, moving mean, moving variance along one axis.
pub fn batch(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let axes = axes(cx, value, -1)?;
    let [axis] = axes[..] else { return Err("normalizing along several axes is not possible".into()) };
    let features = value.shape[axis - 1];
    let (scale, center) = (cx.flag("scale", true), cx.flag("center", true));
    let mut next = 0;
    let mut read = |cx: &Cx<'_>, there: bool, otherwise: f32| match there {
        true => {
            next += 1;
            cx.variable(next - 1, &[features])
        }
        false => Ok(vec![otherwise; features]),
    };
    let gamma = read(cx, scale, 1.0)?;
    let beta = read(cx, center, 0.0)?;
    let mean = read(cx, true, 0.0)?;
    let variance = read(cx, true, 0.0)?;
    let epsilon = cx.number("epsilon", 1e-3)?;
    if value.stored_axis(axis) != 1 {
        // ONNX normalizes along axis 1 only.
        let factors: Vec<f64> =
            (0..features).map(|i| f64::from(gamma[i]) / (f64::from(variance[i]) + epsilon).sqrt()).collect();
        let factor: Vec<f32> = factors.iter().map(|f| *f as f32).collect();
        let offset: Vec<f32> =
            (0..features).map(|i| (f64::from(beta[i]) - f64::from(mean[i]) * factors[i]) as f32).collect();
        let factor = cx.vector_constant("scale", value, axis, &factor)?;
        let offset = cx.vector_constant("offset", value, axis, &offset)?;
        let scaled = cx.op("Mul", "Mul", &[&value.name, &factor], vec![])?;
        return Ok(value.like(cx.op("Add", "Add", &[&scaled, &offset], vec![])?));
    }
    let parts = [("gamma", gamma), ("beta", beta), ("moving_mean", mean), ("moving_variance", variance)];
    let mut inputs = vec![value.name.clone()];
    for (part, values) in parts {
        inputs.push(cx.floats(part, &[features], &values));
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let name = cx.op("BatchNormalization", "BatchNormalization", &inputs, vec![float("epsilon", epsilon as f32)])?;
    Ok(value.like(name))
}

/// x − mean over `axes` (in memory), and the mean of its square.
fn centred(cx: &mut Cx<'_>, x: &str, axes: &[i64]) -> Result<(String, String), String> {
    let mean = cx.op("ReduceMean", "mean", &[x], vec![ints("axes", axes.to_vec()), int("keepdims", 1)])?;
    let off = cx.op("Sub", "centred", &[x, &mean], vec![])?;
    let square = cx.op("Mul", "square", &[&off, &off], vec![])?;
    let variance =
        cx.op("ReduceMean", "variance", &[&square], vec![ints("axes", axes.to_vec()), int("keepdims", 1)])?;
    Ok((off, variance))
}

/// x / sqrt(variance + epsilon).
fn divided(cx: &mut Cx<'_>, x: &str, variance: &str, epsilon: f64) -> Result<String, String> {
    let epsilon = cx.scalar("epsilon", epsilon);
    let sum = cx.op("Add", "sum", &[variance, &epsilon], vec![])?;
    let root = cx.op("Sqrt", "Sqrt", &[&sum], vec![])?;
    cx.op("Div", "Div", &[x, &root], vec![])
}

/// x · gamma + beta, with the variables that the layer has; `shape` is theirs, broadcast against `value`.
fn scaled(
    cx: &mut Cx<'_>,
    value: Value,
    gamma: Option<usize>,
    beta: Option<usize>,
    stored: &[usize],
    shape: &[usize],
) -> Result<Value, String> {
    let mut value = value;
    for (operator, part, variable) in [("Mul", "gamma", gamma), ("Add", "beta", beta)] {
        if let Some(variable) = variable {
            let values = cx.variable(variable, stored)?;
            let constant = cx.broadcast_constant(part, &value, shape, &values)?;
            let name = cx.op(operator, operator, &[&value.name, &constant], vec![])?;
            value = value.like(name);
        }
    }
    Ok(value)
}

/// `LayerNormalization` along one or several axes.
pub fn layer(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let axes = axes(cx, value, -1)?;
    let epsilon = cx.number("epsilon", 1e-3)?;
    let rms = cx.flag("rms_scaling", false);
    let gamma = (cx.flag("scale", true) || rms).then_some(0);
    let beta = (cx.flag("center", true) && !rms).then_some(usize::from(gamma.is_some()));
    let stored: Vec<usize> = axes.iter().map(|a| value.shape[a - 1]).collect();
    let at_end = axes.iter().copied().eq(value.rank() - axes.len()..value.rank());
    if at_end && !value.channels_first && !rms {
        let size = elements(&stored)?;
        let scale = match gamma {
            Some(i) => cx.variable(i, &stored)?,
            None => {
                cx.room(size)?;
                vec![1.0; size]
            }
        };
        let scale = cx.floats("gamma", &stored, &scale);
        let mut inputs = vec![value.name.clone(), scale];
        if let Some(i) = beta {
            let offset = cx.variable(i, &stored)?;
            inputs.push(cx.floats("beta", &stored, &offset));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let attributes = vec![int("axis", -(axes.len() as i64)), float("epsilon", epsilon as f32)];
        return Ok(value.like(cx.op("LayerNormalization", "LayerNormalization", &inputs, attributes)?));
    }
    let reduced: Vec<i64> = axes.iter().map(|a| value.stored_axis(*a) as i64).collect();
    let shape = kept(value, &axes);
    let normal = match rms {
        false => {
            let (off, variance) = centred(cx, &value.name, &reduced)?;
            divided(cx, &off, &variance, epsilon)?
        }
        // Divided by the deviation as Keras 3 does it, not by the root of the mean square.
        true => {
            let (_, variance) = centred(cx, &value.name, &reduced)?;
            divided(cx, &value.name, &variance, epsilon)?
        }
    };
    scaled(cx, value.like(normal), gamma, beta, &stored, &shape)
}

fn root_mean_square(cx: &mut Cx<'_>, x: &str, axes: &[i64], epsilon: f64) -> Result<String, String> {
    let square = cx.op("Mul", "square", &[x, x], vec![])?;
    let mean = cx.op("ReduceMean", "mean", &[&square], vec![ints("axes", axes.to_vec()), int("keepdims", 1)])?;
    divided(cx, x, &mean, epsilon)
}

/// `RMSNormalization`.
pub fn rms(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let axes = axes(cx, value, -1)?;
    let epsilon = cx.number("epsilon", 1e-6)?;
    let stored: Vec<usize> = axes.iter().map(|a| value.shape[a - 1]).collect();
    let reduced: Vec<i64> = axes.iter().map(|a| value.stored_axis(*a) as i64).collect();
    let normal = root_mean_square(cx, &value.name, &reduced, epsilon)?;
    let shape = kept(value, &axes);
    scaled(cx, value.like(normal), Some(0), None, &stored, &shape)
}

/// `GroupNormalization` of the channels.
pub fn group(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let axes = axes(cx, value, -1)?;
    let [axis] = axes[..] else { return Err("normalizing along several axes is not possible".into()) };
    let channels = value.shape[axis - 1];
    let groups = match cx.get("groups").and_then(Json::as_i64) {
        None => 32,
        Some(-1) => channels,
        Some(n) => usize::try_from(n).map_err(|_| format!("groups is {n}"))?,
    };
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(format!("{channels} channels cannot be split into {groups} groups"));
    }
    // The channels come first in memory, so that a group is one run of values.
    let value = match (axis, value.rank()) {
        (3, 4) => cx.in_onnx_order(value)?,
        _ => cx.in_keras_order(value)?,
    };
    if value.stored_axis(axis) != 1 {
        return Err(format!("normalizing groups along axis {axis} of the shape {:?} is not possible", value.shape));
    }
    let inner = elements(&value.shape)? / groups;
    let runs = cx.reshape_to(&value.name, &[groups, inner])?;
    let (off, variance) = centred(cx, &runs, &[2])?;
    let epsilon = cx.number("epsilon", 1e-3)?;
    let normal = divided(cx, &off, &variance, epsilon)?;
    let normal = cx.reshape_to(&normal, &value.stored())?;
    let gamma = cx.flag("scale", true).then_some(0);
    let beta = cx.flag("center", true).then_some(usize::from(gamma.is_some()));
    let shape = kept(&value, &axes);
    scaled(cx, value.like(normal), gamma, beta, &[channels], &shape)
}

/// `UnitNormalization`: x / |x| along the axes.
pub fn unit(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let axes = axes(cx, value, -1)?;
    let reduced: Vec<i64> = axes.iter().map(|a| value.stored_axis(*a) as i64).collect();
    let norm = cx.op("ReduceL2", "norm", &[&value.name], vec![ints("axes", reduced), int("keepdims", 1)])?;
    let least = cx.scalar("epsilon", 1e-12);
    let norm = cx.op("Max", "Max", &[&norm, &least], vec![])?;
    Ok(value.like(cx.op("Div", "Div", &[&value.name, &norm], vec![])?))
}

/// `LayerScale` of keras.applications.convnext: x · gamma.
pub fn layer_scale(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let axis = value.rank() - 1;
    let channels = value.shape[axis - 1];
    let gamma = cx.variable(0, &[channels])?;
    let gamma = cx.vector_constant("gamma", value, axis, &gamma)?;
    Ok(value.like(cx.op("Mul", "Mul", &[&value.name, &gamma], vec![])?))
}

/// `Normalization`: (x − mean) / max(sqrt(variance), 1e-7), or its inverse. The statistics were adapted and lie in the
/// file, or stand in the settings.
pub fn normalization(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let axes = match cx.layer.config.get("axis") {
        Some(Json::Null) => vec![],
        Some(Json::Array(list)) if list.is_empty() => vec![],
        _ => axes(cx, value, -1)?,
    };
    let shape = kept(value, &axes);
    let size = elements(&shape)?;
    let given = |key: &str| cx.get(key).and_then(numbers).map(|(_, v)| v);
    let (mean, variance) = match (given("mean"), given("variance")) {
        (Some(mean), Some(variance)) => (mean, variance),
        _ => {
            let stored = cx.variable_shape(0)?;
            if elements(&stored)? != size {
                return Err(format!("its statistics have the shape {stored:?}, the input {:?}", value.shape));
            }
            let wide = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<_>>();
            (wide(cx.variable(0, &stored)?), wide(cx.variable(1, &stored)?))
        }
    };
    // One number is for all values.
    let side = |v: &[f32]| if v.len() == 1 { vec![1; value.shape.len()] } else { shape.clone() };
    let mean: Vec<f32> = mean.into_iter().map(|v| v as f32).collect();
    let deviation: Vec<f32> = variance.into_iter().map(|v| v.sqrt().max(EPSILON) as f32).collect();
    let mean = cx.broadcast_constant("mean", value, &side(&mean), &mean)?;
    let deviation = cx.broadcast_constant("deviation", value, &side(&deviation), &deviation)?;
    let name = if cx.flag("invert", false) {
        let wide = cx.op("Mul", "Mul", &[&value.name, &deviation], vec![])?;
        cx.op("Add", "Add", &[&wide, &mean], vec![])?
    } else {
        let off = cx.op("Sub", "Sub", &[&value.name, &mean], vec![])?;
        cx.op("Div", "Div", &[&off, &deviation], vec![])?
    };
    Ok(value.like(name))
}

/// `Rescaling`: x · scale + offset; either may be one number or one per channel.
pub fn rescaling(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let mut value = value.clone();
    for (operator, key, neutral) in [("Mul", "scale", 1.0), ("Add", "offset", 0.0)] {
        let setting = cx.get(key).cloned().unwrap_or(Json::from(neutral));
        let (_, list) = numbers(&setting).ok_or_else(|| format!("{key} is {setting}"))?;
        let list: Vec<f32> = list.into_iter().map(|v| v as f32).collect();
        if list.iter().all(|v| f64::from(*v) == neutral) {
            continue;
        }
        let last = value.rank() - 1;
        let constant = match list[..] {
            [one] => cx.floats(key, &[], &[one]),
            _ if list.len() == value.shape[last - 1] => cx.vector_constant(key, &value, last, &list)?,
            _ => return Err(format!("{key} has {} values, the input the shape {:?}", list.len(), value.shape)),
        };
        let name = cx.op(operator, operator, &[&value.name, &constant], vec![])?;
        value = value.like(name);
    }
    Ok(value)
}
