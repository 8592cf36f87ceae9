//! Layers of several inputs. Source: Keras 3.15 `layers/merging/*.py`: inputs of fewer dimensions get ones after the
//! batch.

use crate::graph::int;
use crate::keras::config::Arg;
use crate::keras::cx::Cx;
use crate::keras::value::{Value, elements};

/// Two values in the same order in memory, to be broadcast against each other.
fn aligned(cx: &mut Cx<'_>, a: &Value, b: &Value) -> Result<(Value, Value), String> {
    let rank = a.rank().max(b.rank());
    let mut grown = vec![];
    for value in [a, b] {
        let ones = rank - value.rank();
        let shape = [vec![1; ones], value.shape.clone()].concat();
        grown.push(cx.reshape(value, shape)?);
    }
    let [mut a, mut b] = <[Value; 2]>::try_from(grown).map_err(|_| "two inputs are needed")?;
    if a.channels_first != b.channels_first {
        a = cx.in_onnx_order(&a)?;
        b = cx.in_onnx_order(&b)?;
    }
    Ok((a, b))
}

/// The shape that two shapes are broadcast to.
pub fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let side = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    let sides = (0..rank).map(|i| match (side(a, i), side(b, i)) {
        (x, y) if x == y || y == 1 => Ok(x),
        (1, y) => Ok(y),
        _ => Err(format!("the shapes {a:?} and {b:?} do not fit together")),
    });
    sides.collect()
}

/// An operator of two values.
pub fn binary(cx: &mut Cx<'_>, operator: &str, a: &Value, b: &Value) -> Result<Value, String> {
    let (a, b) = aligned(cx, a, b)?;
    let shape = broadcast(&a.shape, &b.shape)?;
    elements(&shape)?;
    let name = cx.op(operator, operator, &[&a.name, &b.name], vec![])?;
    Ok(Value { name, shape, channels_first: a.channels_first })
}

/// `Add`, `Subtract`, `Multiply`, `Average`, `Maximum`, `Minimum`.
pub fn merge(cx: &mut Cx<'_>, values: &[Value]) -> Result<Value, String> {
    let (operator, average) = match cx.layer.class.as_str() {
        "Add" => ("Add", false),
        "Subtract" => ("Sub", false),
        "Multiply" => ("Mul", false),
        "Average" => ("Add", true),
        "Maximum" => ("Max", false),
        "Minimum" => ("Min", false),
        other => return Err(format!("{other} merges nothing")),
    };
    // The layer takes one list. Keras 3's .h5 writes operations of keras.ops with the names of layers.
    let tensors = |a: &Arg| match a {
        Arg::List(list) => list.iter().all(|a| matches!(a, Arg::Tensor(_))),
        Arg::Tensor(_) => true,
        Arg::Json(_) => false,
    };
    let named = cx.call.kwargs.iter().filter(|(k, _)| k == "inputs").map(|(_, a)| a);
    let given: Vec<&Arg> = cx.call.args.iter().chain(named).collect();
    if given.len() != 1 || !given.into_iter().all(tensors) {
        return Err(
            "it is called with other arguments than one list of tensors; an operation of keras.ops that was saved \
                    as .h5, which loses what it is? Save the model as .keras"
                .into(),
        );
    }
    let [first, rest @ ..] = values else { return Err("it has no input".into()) };
    if operator == "Sub" && rest.len() != 1 {
        return Err(format!("it subtracts two inputs, {} are given", values.len()));
    }
    let mut merged = first.clone();
    for value in rest {
        merged = binary(cx, operator, &merged, value)?;
    }
    if average {
        let share = cx.scalar("share", 1.0 / values.len() as f64);
        merged = merged.like(cx.op("Mul", "Mul", &[&merged.name, &share], vec![])?);
    }
    Ok(merged)
}

/// `Concatenate`.
pub fn concatenate(cx: &mut Cx<'_>, values: &[Value]) -> Result<Value, String> {
    let axis = cx.number("axis", -1.0)? as i64;
    joined(cx, values, axis)
}

/// Values one after the other along an axis.
pub fn joined(cx: &mut Cx<'_>, values: &[Value], axis: i64) -> Result<Value, String> {
    let [first, ..] = values else { return Err("it has no input".into()) };
    let axis = first.axis(axis)?;
    let moved = values.iter().any(|v| v.channels_first);
    let mut shape = first.shape.clone();
    shape[axis - 1] = 0;
    let mut names = vec![];
    for value in values {
        let fits = value.rank() == first.rank()
            && (1..value.rank()).all(|a| a == axis || value.shape[a - 1] == first.shape[a - 1]);
        if !fits {
            return Err(format!("the shapes {:?} and {:?} do not fit together", first.shape, value.shape));
        }
        shape[axis - 1] += value.shape[axis - 1];
        names.push(if moved { cx.in_onnx_order(value)?.name } else { value.name.clone() });
    }
    elements(&shape)?;
    let mut joined = Value { name: String::new(), shape, channels_first: moved };
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    joined.name = cx.op("Concat", "Concat", &names, vec![int("axis", joined.stored_axis(axis) as i64)])?;
    Ok(joined)
}

/// `CustomScaleLayer` of keras.applications.inception_resnet_v2: a + b · scale.
pub fn scaled_sum(cx: &mut Cx<'_>, values: &[Value]) -> Result<Value, String> {
    let [a, b] = values else { return Err(format!("two inputs are needed, {} are given", values.len())) };
    let scale = cx.number("scale", 1.0)?;
    let scale = cx.scalar("scale", scale);
    let scaled = cx.op("Mul", "Mul", &[&b.name, &scale], vec![])?;
    binary(cx, "Add", a, &b.like(scaled))
}
