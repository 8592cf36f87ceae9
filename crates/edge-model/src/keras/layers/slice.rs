//! Parts of tensors. Sources: Keras 3.15 `ops/numpy.py` (GetItem); tf.keras 2.15 `layers/core/tf_op_layer.py`
//! (SlicingOpLambda).

use super::shape;
use crate::keras::cx::Cx;
use crate::keras::value::Value;
use serde_json::Value as Json;

/// `x[:, 1:5, ::-1, 2]`. Each part is a slice, a number, or an ellipsis.
pub fn item(cx: &mut Cx<'_>, x: &Value, key: &Json) -> Result<Value, String> {
    let parts = match key {
        Json::Array(parts) => parts.clone(),
        one => vec![one.clone()],
    };
    let is_ellipsis = |p: &Json| p.get("class_name").and_then(Json::as_str) == Some("__ellipsis__");
    let given = parts.iter().filter(|p| !is_ellipsis(p)).count();
    let missing = x.rank().checked_sub(given).ok_or("it has more slices than the tensor has dimensions")?;
    let mut axis = 0;
    let mut value = x.clone();
    let mut dropped = vec![];
    for part in &parts {
        if is_ellipsis(part) {
            axis += missing;
            continue;
        }
        if axis == 0 {
            if !shape::is_full_slice(part) {
                return Err("slicing the batch is not possible".into());
            }
        } else if let Some(index) = part.as_i64() {
            let side = value.shape[axis - 1] as i64;
            let at = if index < 0 { index + side } else { index };
            if !(0..side).contains(&at) {
                return Err(format!("there is no element {index} of {side}"));
            }
            value = slice(cx, &value, axis, at, at + 1, 1, 1)?;
            dropped.push(axis);
        } else if !shape::is_full_slice(part) {
            value = cut(cx, &value, axis, part)?;
        }
        axis += 1;
    }
    let mut at = 0;
    let mut left = value.shape.clone();
    left.retain(|_| {
        at += 1;
        !dropped.contains(&at)
    });
    cx.reshape(&value, left)
}

/// One slice with Python's meaning.
fn cut(cx: &mut Cx<'_>, value: &Value, axis: usize, part: &Json) -> Result<Value, String> {
    let config = part.get("config").unwrap_or(part);
    let side = value.shape[axis - 1] as i64;
    let get = |key: &str| match config.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(v) => v.as_i64().map(Some).ok_or_else(|| format!("the slice {part} is not possible")),
    };
    let step = get("step")?.unwrap_or(1);
    let (low, high) = if step > 0 { (0, side) } else { (-1, side - 1) };
    let place = |at: Option<i64>, open: i64| {
        at.map_or(open, |a| if a < 0 { a.saturating_add(side) } else { a }.clamp(low, high))
    };
    let (start, stop) = match step > 0 {
        true => (place(get("start")?, 0), place(get("stop")?, side)),
        false => (place(get("start")?, side - 1), place(get("stop")?, -1)),
    };
    let span = if step > 0 { stop - start } else { start - stop };
    if step == 0 {
        return Err("a step of 0 is not possible".into());
    }
    let length = (span.max(0) as u64).div_ceil(step.unsigned_abs());
    if length == 0 {
        return Err("nothing would be left of the tensor".into());
    }
    // Going down to the first element ends before it, which ONNX spells as a very small number.
    let stop = if stop < 0 { i64::MIN + 1 } else { stop };
    slice(cx, value, axis, start, stop, step, length as usize)
}

fn slice(
    cx: &mut Cx<'_>,
    value: &Value,
    axis: usize,
    start: i64,
    stop: i64,
    step: i64,
    length: usize,
) -> Result<Value, String> {
    let (start, stop) = (cx.longs("start", &[start]), cx.longs("stop", &[stop]));
    let (axes, step) = (cx.longs("axis", &[value.stored_axis(axis) as i64]), cx.longs("step", &[step]));
    let name = cx.op("Slice", "Slice", &[&value.name, &start, &stop, &axes, &step], vec![])?;
    let mut shape = value.shape.clone();
    shape[axis - 1] = length;
    Ok(Value { name, shape, channels_first: value.channels_first })
}
