//! The functions of `keras.activations`, as a layer, as a word in another layer's settings, or as an object.
//!
//! Source: Keras 3.15 `activations/activations.py`, `layers/activations/*.py`; tf.keras 2.15 for `hard_sigmoid`.

use crate::graph::{float, int, ints};
use crate::keras::config::Layer;
use crate::keras::cx::{Cx, integers, number};
use crate::keras::value::Value;
use serde_json::{Map, Value as Json};

/// A function with its settings.
#[derive(Debug, Clone, PartialEq)]
pub enum Activation {
    Linear,
    /// max(x, 0) above a threshold, with a slope below it, up to a largest value.
    Relu {
        max: Option<f64>,
        slope: f64,
        threshold: f64,
    },
    Elu(f64),
    Celu(f64),
    /// Along one axis, or over several together.
    Softmax(Vec<i64>),
    LogSoftmax(i64),
    /// 0.2 x + 0.5 (old) or x / 6 + 0.5, between 0 and 1.
    HardSigmoid {
        old: bool,
    },
    Gelu {
        tanh: bool,
    },
    Glu(i64),
    Shrink {
        threshold: f64,
        bias: f64,
    },
    Threshold {
        threshold: f64,
        default: f64,
    },
    Squareplus(f64),
    SparsePlus,
    SparseSigmoid,
    HardTanh,
    TanhShrink,
    LogSigmoid,
    Silu,
    HardSilu,
    Mish,
    /// An ONNX operator that does just this.
    Plain(&'static str),
}

/// What an activation is called that is Python code.
const LAMBDA: &str = "lambda, Python code that is never run here; a function of keras.activations can be imported";

/// Keras 3 writes the code of a lambda, in some versions without a word about what it is.
fn is_lambda(object: &Map<String, Json>) -> bool {
    match object.get("class_name") {
        None => object.get("value").is_some_and(Json::is_array),
        Some(class) => class == "__lambda__",
    }
}

impl Activation {
    /// By a name of `keras.activations`; `old` is Keras 2's meaning.
    pub fn named(name: &str, old: bool) -> Option<Activation> {
        let relu = |max, slope| Activation::Relu { max, slope, threshold: 0.0 };
        Some(match name {
            "linear" => Activation::Linear,
            "relu" => relu(None, 0.0),
            "relu6" => relu(Some(6.0), 0.0),
            "leaky_relu" => relu(None, 0.2),
            "elu" => Activation::Elu(1.0),
            "celu" => Activation::Celu(1.0),
            "selu" => Activation::Plain("Selu"),
            "sigmoid" => Activation::Plain("Sigmoid"),
            "tanh" => Activation::Plain("Tanh"),
            "softplus" => Activation::Plain("Softplus"),
            "softsign" => Activation::Plain("Softsign"),
            "exponential" => Activation::Plain("Exp"),
            "softmax" | "softmax_v2" => Activation::Softmax(vec![-1]),
            "log_softmax" => Activation::LogSoftmax(-1),
            "hard_sigmoid" => Activation::HardSigmoid { old },
            "gelu" => Activation::Gelu { tanh: false },
            "glu" => Activation::Glu(-1),
            "silu" | "swish" => Activation::Silu,
            "hard_silu" | "hard_swish" => Activation::HardSilu,
            "mish" => Activation::Mish,
            "log_sigmoid" => Activation::LogSigmoid,
            "hard_tanh" => Activation::HardTanh,
            "tanh_shrink" => Activation::TanhShrink,
            "hard_shrink" => Activation::Shrink { threshold: 0.5, bias: 0.0 },
            "soft_shrink" => Activation::Shrink { threshold: 0.5, bias: 0.5 },
            "squareplus" => Activation::Squareplus(4.0),
            "sparse_plus" => Activation::SparsePlus,
            "sparse_sigmoid" => Activation::SparseSigmoid,
            _ => return None,
        })
    }

    /// From a layer's setting `activation`: nothing, a name, or an object. The error is what it is called.
    pub fn parse(setting: Option<&Json>, old: bool) -> Result<Activation, String> {
        let unknown = |what: &str| what.to_string();
        match setting {
            None | Some(Json::Null) => Ok(Activation::Linear),
            Some(Json::String(name)) if name == "<lambda>" => Err(LAMBDA.into()),
            Some(Json::String(name)) => Activation::named(name, old).ok_or_else(|| unknown(name)),
            Some(Json::Object(object)) if is_lambda(object) => Err(LAMBDA.into()),
            Some(Json::Object(object)) => {
                let class = object.get("class_name").and_then(Json::as_str).unwrap_or("unknown");
                let class = class.rsplit('>').next().unwrap_or(class);
                match object.get("config") {
                    Some(Json::String(name)) if class == "function" => {
                        Activation::named(name, old).ok_or_else(|| unknown(name))
                    }
                    Some(Json::Object(config)) => {
                        let known = Activation::of_class(class, config, old);
                        known.ok_or_else(|| unknown(class))?.map_err(|_| unknown(class))
                    }
                    _ => Activation::named(class, old).ok_or_else(|| unknown(class)),
                }
            }
            Some(other) => Err(other.to_string()),
        }
    }

    /// From a layer that is an activation; `None` where it is another layer.
    pub fn of_class(class: &str, config: &Map<String, Json>, old: bool) -> Option<Result<Activation, String>> {
        let get = |key: &str| config.get(key).filter(|v| !v.is_null());
        let value = |keys: &[&str], default: f64| match keys.iter().find_map(|k| get(k)) {
            None => Ok(default),
            Some(v) => number(v).ok_or_else(|| format!("{} is {v}, a number is needed", keys[0])),
        };
        let axes = || match get("axis") {
            None => Ok(vec![-1]),
            Some(v) => integers(v).filter(|a| !a.is_empty()).ok_or_else(|| format!("axis is {v}")),
        };
        Some(match class {
            "Activation" => Activation::parse(config.get("activation"), old).map_err(|e| format!("activation {e}")),
            "ReLU" => (|| {
                let max = get("max_value").map(|_| value(&["max_value"], 0.0)).transpose()?;
                let slope = value(&["negative_slope"], 0.0)?;
                Ok(Activation::Relu { max, slope, threshold: value(&["threshold"], 0.0)? })
            })(),
            "LeakyReLU" => value(&["negative_slope", "alpha"], 0.3).map(|slope| Activation::Relu {
                max: None,
                slope,
                threshold: 0.0,
            }),
            // Keras 2: x above theta, else 0.
            "ThresholdedReLU" => {
                value(&["theta"], 1.0).map(|threshold| Activation::Relu { max: None, slope: 0.0, threshold })
            }
            "ELU" => value(&["alpha"], 1.0).map(Activation::Elu),
            "Softmax" => axes().map(Activation::Softmax),
            _ => return None,
        })
    }

    /// From an operation of `keras.ops.nn`, whose settings have the names of the function's arguments; `None` where it is
    /// no activation.
    pub fn of_operation(class: &str, config: &Map<String, Json>) -> Option<Result<Activation, String>> {
        let (relu, plain) =
            (|slope| Activation::Relu { max: None, slope, threshold: 0.0 }, |name| Activation::named(name, false));
        let start = match class {
            "Relu" | "ReLU" => relu(0.0),
            "Relu6" => plain("relu6")?,
            "LeakyRelu" => relu(0.2),
            "Gelu" => Activation::Gelu { tanh: true },
            "Threshold" => Activation::Threshold { threshold: 0.0, default: 0.0 },
            "Exp" => Activation::Plain("Exp"),
            _ => plain(&crate::keras::weights::snake_case(class))?,
        };
        // What Keras writes for every object is no argument.
        let arguments = config.iter().filter(|(k, _)| !matches!(k.as_str(), "name" | "build_config"));
        Some(start.with(arguments.map(|(k, v)| (k.as_str(), v))))
    }

    /// The function with the arguments of a call. Arguments that it does not have, or not so, are errors: what they ask for
    /// would be lost.
    pub fn with<'a>(mut self, arguments: impl Iterator<Item = (&'a str, &'a Json)>) -> Result<Activation, String> {
        for (name, value) in arguments.filter(|(_, v)| !v.is_null()) {
            let fail = || format!("its argument {name} is {value}, which is not possible here");
            let one = || number(value).ok_or_else(fail);
            let axes = || integers(value).filter(|a| !a.is_empty()).ok_or_else(fail);
            let axis = || axes().and_then(|a| if a.len() == 1 { Ok(a[0]) } else { Err(fail()) });
            match (&mut self, name) {
                (Activation::Relu { slope, .. }, "negative_slope" | "alpha") => *slope = one()?,
                (Activation::Relu { max, .. }, "max_value") => *max = Some(one()?),
                (Activation::Relu { threshold, .. }, "threshold") => *threshold = one()?,
                (Activation::Elu(alpha) | Activation::Celu(alpha), "alpha") => *alpha = one()?,
                (Activation::Softmax(list), "axis" | "dim") => *list = axes()?,
                (Activation::LogSoftmax(along) | Activation::Glu(along), "axis" | "dim") => *along = axis()?,
                (Activation::Gelu { tanh }, "approximate") => *tanh = value.as_bool().ok_or_else(fail)?,
                (Activation::Shrink { threshold, bias }, "threshold") => {
                    // The soft one takes the threshold away, too.
                    *bias = if *bias == 0.0 { 0.0 } else { one()? };
                    *threshold = one()?;
                }
                (Activation::Threshold { threshold, .. }, "threshold") => *threshold = one()?,
                (Activation::Threshold { default, .. }, "default_value") => *default = one()?,
                (Activation::Squareplus(b), "b") => *b = one()?,
                (Activation::Silu, "beta") if one()? == 1.0 => {}
                _ => return Err(fail()),
            }
        }
        Ok(self)
    }

    /// Puts the function into the graph.
    pub fn apply(&self, cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
        let x = value.name.as_str();
        let name = match self {
            Activation::Linear => return Ok(value.clone()),
            Activation::Plain(operator) => cx.op(operator, operator, &[x], vec![])?,
            Activation::Relu { max, slope, threshold } => relu(cx, x, *max, *slope, *threshold)?,
            Activation::Elu(alpha) => cx.op("Elu", "Elu", &[x], vec![float("alpha", *alpha as f32)])?,
            Activation::Celu(alpha) => cx.op("Celu", "Celu", &[x], vec![float("alpha", *alpha as f32)])?,
            Activation::Softmax(axes) => softmax(cx, value, axes)?,
            Activation::LogSoftmax(axis) => {
                let axis = value.stored_axis(value.axis(*axis)?) as i64;
                cx.op("LogSoftmax", "LogSoftmax", &[x], vec![int("axis", axis)])?
            }
            Activation::HardSigmoid { old } => {
                let alpha = if *old { 0.2 } else { 1.0 / 6.0 };
                cx.op("HardSigmoid", "HardSigmoid", &[x], vec![float("alpha", alpha), float("beta", 0.5)])?
            }
            Activation::SparseSigmoid => {
                cx.op("HardSigmoid", "HardSigmoid", &[x], vec![float("alpha", 0.5), float("beta", 0.5)])?
            }
            Activation::HardSilu => cx.op("HardSwish", "HardSwish", &[x], vec![])?,
            Activation::Silu => {
                let gate = cx.op("Sigmoid", "Sigmoid", &[x], vec![])?;
                cx.op("Mul", "Mul", &[x, &gate], vec![])?
            }
            Activation::Gelu { tanh } => gelu(cx, x, *tanh)?,
            Activation::Glu(axis) => return glu(cx, value, *axis),
            Activation::Mish => {
                let plus = cx.op("Softplus", "Softplus", &[x], vec![])?;
                let gate = cx.op("Tanh", "Tanh", &[&plus], vec![])?;
                cx.op("Mul", "Mul", &[x, &gate], vec![])?
            }
            Activation::LogSigmoid => {
                let minus = cx.op("Neg", "Neg", &[x], vec![])?;
                let plus = cx.op("Softplus", "Softplus", &[&minus], vec![])?;
                cx.op("Neg", "Neg", &[&plus], vec![])?
            }
            Activation::HardTanh => clip(cx, x, -1.0, 1.0)?,
            Activation::TanhShrink => {
                let tanh = cx.op("Tanh", "Tanh", &[x], vec![])?;
                cx.op("Sub", "Sub", &[x, &tanh], vec![])?
            }
            Activation::Shrink { threshold, bias } => {
                // Written out: the operator Shrink is missing from some runtimes.
                let zero = cx.scalar("zero", 0.0);
                let limit = cx.scalar("threshold", *threshold);
                let size = cx.op("Abs", "Abs", &[x], vec![])?;
                let large = cx.op("Greater", "Greater", &[&size, &limit], vec![])?;
                let moved = match *bias == 0.0 {
                    true => x.to_string(),
                    false => {
                        let sign = cx.op("Sign", "Sign", &[x], vec![])?;
                        let bias = cx.scalar("bias", *bias);
                        let step = cx.op("Mul", "Mul", &[&sign, &bias], vec![])?;
                        cx.op("Sub", "Sub", &[x, &step], vec![])?
                    }
                };
                cx.op("Where", "Where", &[&large, &moved, &zero], vec![])?
            }
            Activation::Threshold { threshold, default } => {
                let limit = cx.scalar("threshold", *threshold);
                let default = cx.scalar("default", *default);
                let large = cx.op("Greater", "Greater", &[x, &limit], vec![])?;
                cx.op("Where", "Where", &[&large, x, &default], vec![])?
            }
            Activation::Squareplus(b) => {
                let b = cx.scalar("b", *b);
                let half = cx.scalar("half", 0.5);
                let square = cx.op("Mul", "square", &[x, x], vec![])?;
                let sum = cx.op("Add", "sum", &[&square, &b], vec![])?;
                let root = cx.op("Sqrt", "Sqrt", &[&sum], vec![])?;
                let both = cx.op("Add", "Add", &[x, &root], vec![])?;
                cx.op("Mul", "Mul", &[&both, &half], vec![])?
            }
            Activation::SparsePlus => {
                // ((c + 1) / 2)^2 with c = x within -1..1, and what is beyond 1.
                let one = cx.scalar("one", 1.0);
                let gate = cx.op("HardSigmoid", "HardSigmoid", &[x], vec![float("alpha", 0.5), float("beta", 0.5)])?;
                let square = cx.op("Mul", "Mul", &[&gate, &gate], vec![])?;
                let beyond = cx.op("Sub", "Sub", &[x, &one], vec![])?;
                let beyond = cx.op("Relu", "Relu", &[&beyond], vec![])?;
                cx.op("Add", "Add", &[&square, &beyond], vec![])?
            }
        };
        Ok(value.like(name))
    }
}

/// Limits to low…high.
pub fn clip(cx: &mut Cx<'_>, x: &str, low: f64, high: f64) -> Result<String, String> {
    // Infinity limits nothing, and neither does the largest number, which every runtime takes.
    let finite = |v: f64| v.clamp(f64::from(f32::MIN), f64::from(f32::MAX));
    let (low, high) = (cx.scalar("min", finite(low)), cx.scalar("max", finite(high)));
    cx.op("Clip", "Clip", &[x, &low, &high], vec![])
}

/// `keras.activations.relu(x, negative_slope, max_value, threshold)`.
fn relu(cx: &mut Cx<'_>, x: &str, max: Option<f64>, slope: f64, threshold: f64) -> Result<String, String> {
    if slope != 0.0 && max.is_none() && threshold == 0.0 {
        return cx.op("LeakyRelu", "LeakyRelu", &[x], vec![float("alpha", slope as f32)]);
    }
    let mut y = match (threshold == 0.0, max) {
        (true, Some(max)) => clip(cx, x, 0.0, max)?,
        (true, None) => cx.op("Relu", "Relu", &[x], vec![])?,
        (false, max) => {
            let (zero, limit) = (cx.scalar("zero", 0.0), cx.scalar("threshold", threshold));
            let above = cx.op("Greater", "Greater", &[x, &limit], vec![])?;
            let kept = cx.op("Where", "Where", &[&above, x, &zero], vec![])?;
            match max {
                Some(max) => clip(cx, &kept, 0.0, max)?,
                None => kept,
            }
        }
    };
    if slope != 0.0 {
        let (limit, slope) = (cx.scalar("threshold", threshold), cx.scalar("slope", slope));
        let below = cx.op("Sub", "below", &[&limit, x], vec![])?;
        let below = cx.op("Relu", "negative", &[&below], vec![])?;
        let below = cx.op("Mul", "Mul", &[&below, &slope], vec![])?;
        y = cx.op("Sub", "Sub", &[&y, &below], vec![])?;
    }
    Ok(y)
}

fn softmax(cx: &mut Cx<'_>, value: &Value, axes: &[i64]) -> Result<String, String> {
    let axes = axes.iter().map(|a| Ok(value.stored_axis(value.axis(*a)?))).collect::<Result<Vec<_>, String>>()?;
    if let [axis] = axes[..] {
        // From the end, as in most files: tools look for a softmax over the last axis.
        let axis = if axis + 1 == value.rank() { -1 } else { axis as i64 };
        return cx.op("Softmax", "Softmax", &[&value.name], vec![int("axis", axis)]);
    }
    let axes: Vec<i64> = axes.into_iter().map(|a| a as i64).collect();
    let largest =
        cx.op("ReduceMax", "largest", &[&value.name], vec![ints("axes", axes.clone()), int("keepdims", 1)])?;
    let below = cx.op("Sub", "Sub", &[&value.name, &largest], vec![])?;
    let power = cx.op("Exp", "Exp", &[&below], vec![])?;
    let axes = cx.longs("axes", &axes);
    let sum = cx.op("ReduceSum", "sum", &[&power, &axes], vec![int("keepdims", 1)])?;
    cx.op("Div", "Div", &[&power, &sum], vec![])
}

fn gelu(cx: &mut Cx<'_>, x: &str, tanh: bool) -> Result<String, String> {
    let (half, one) = (cx.scalar("half", 0.5), cx.scalar("one", 1.0));
    let gate = if tanh {
        let (cubic, scale) = (cx.scalar("cubic", 0.044_715), cx.scalar("scale", (2.0 / std::f64::consts::PI).sqrt()));
        let square = cx.op("Mul", "square", &[x, x], vec![])?;
        let cube = cx.op("Mul", "cube", &[&square, x], vec![])?;
        let part = cx.op("Mul", "part", &[&cube, &cubic], vec![])?;
        let sum = cx.op("Add", "sum", &[x, &part], vec![])?;
        let scaled = cx.op("Mul", "scaled", &[&sum, &scale], vec![])?;
        cx.op("Tanh", "Tanh", &[&scaled], vec![])?
    } else {
        let root = cx.scalar("root", std::f64::consts::FRAC_1_SQRT_2);
        let scaled = cx.op("Mul", "scaled", &[x, &root], vec![])?;
        cx.op("Erf", "Erf", &[&scaled], vec![])?
    };
    let gate = cx.op("Add", "Add", &[&gate, &one], vec![])?;
    let gate = cx.op("Mul", "gate", &[&gate, &half], vec![])?;
    cx.op("Mul", "Mul", &[x, &gate], vec![])
}

/// One half of the channels, gated by the other.
fn glu(cx: &mut Cx<'_>, value: &Value, axis: i64) -> Result<Value, String> {
    let axis = value.axis(axis)?;
    let mut shape = value.shape.clone();
    let side = shape[axis - 1];
    if !side.is_multiple_of(2) {
        return Err(format!("glu halves axis {axis}, which is {side} long"));
    }
    shape[axis - 1] = side / 2;
    let stored = value.stored_axis(axis) as i64;
    let half = |cx: &mut Cx<'_>, from: usize, to: usize| {
        let (from, to, axes) =
            (cx.longs("start", &[from as i64]), cx.longs("end", &[to as i64]), cx.longs("axis", &[stored]));
        cx.op("Slice", "half", &[&value.name, &from, &to, &axes], vec![])
    };
    let first = half(cx, 0, side / 2)?;
    let second = half(cx, side / 2, side)?;
    let gate = cx.op("Sigmoid", "Sigmoid", &[&second], vec![])?;
    let name = cx.op("Mul", "Mul", &[&first, &gate], vec![])?;
    Ok(Value { name, shape, channels_first: value.channels_first })
}

/// A layer that is an activation.
pub fn layer(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let activation = Activation::of_class(&cx.layer.class, &cx.layer.config, cx.old).ok_or("it is no activation")??;
    activation.apply(cx, value)
}

/// The `activation` of a layer that computes something first.
pub fn after(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    Activation::parse(cx.get("activation"), cx.old)?.apply(cx, value)
}

/// What a layer's `activation` is called, if there is no such function here.
pub fn unknown(layer: &Layer) -> Option<String> {
    match layer.class.as_str() {
        "Activation" | "Dense" | "Conv2D" | "DepthwiseConv2D" | "SeparableConv2D" | "Conv2DTranspose" => {
            Activation::parse(layer.config.get("activation"), false).err()
        }
        _ => None,
    }
}

/// PReLU: a learned slope below 0, one per value or shared along axes. Source: Keras 3.15
/// `layers/activations/prelu.py`.
pub fn prelu(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let shared = cx.get("shared_axes").map(|v| integers(v).ok_or_else(|| format!("shared_axes is {v}"))).transpose()?;
    let mut shape = value.shape.clone();
    for axis in shared.into_iter().flatten() {
        let axis = value.axis(axis)?;
        shape[axis - 1] = 1;
    }
    let alpha = cx.variable(0, &shape)?;
    let slope = cx.broadcast_constant("alpha", value, &shape, &alpha)?;
    let name = cx.op("PRelu", "PRelu", &[&value.name, &slope], vec![])?;
    Ok(value.like(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments_of_functions_are_kept_or_refused() {
        let with = |name: &str, arguments: Json| {
            let arguments = arguments.as_object().unwrap().clone();
            Activation::named(name, true).unwrap().with(arguments.iter().map(|(k, v)| (k.as_str(), v)))
        };
        assert_eq!(with("softmax", json!({"axis": [1, 2]})), Ok(Activation::Softmax(vec![1, 2])));
        assert_eq!(with("softmax", json!({"axis": null})), Ok(Activation::Softmax(vec![-1])));
        let relu = Activation::Relu { max: Some(3.0), slope: 0.1, threshold: 0.5 };
        assert_eq!(with("relu", json!({"alpha": 0.1, "max_value": 3, "threshold": 0.5})), Ok(relu));
        assert_eq!(with("gelu", json!({"approximate": true})), Ok(Activation::Gelu { tanh: true }));
        assert_eq!(with("silu", json!({"beta": 1.0})), Ok(Activation::Silu));
        for (name, arguments) in [
            ("silu", json!({"beta": 2.0})),
            ("softmax", json!({"axis": "last"})),
            ("log_softmax", json!({"axis": [1, 2]})),
            ("tanh", json!({"speed": 3})),
        ] {
            assert!(with(name, arguments).is_err(), "{name}");
        }
    }

    #[test]
    fn lambdas_are_called_python_code() {
        for lambda in [json!({"value": ["4wEAAA", null, null]}), json!({"class_name": "__lambda__"}), json!("<lambda>")]
        {
            assert!(Activation::parse(Some(&lambda), false).unwrap_err().contains("Python code"));
        }
    }
}
