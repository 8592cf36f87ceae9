//! Layers that move values and compute nothing. Sources: Keras 3.15 `layers/reshaping/*.py`,
//! `layers/preprocessing/image_preprocessing/center_crop.py`.

use crate::graph::{ints, string};
use crate::keras::cx::{Cx, count, integers, pair};
use crate::keras::value::{Format, Picture, Value, elements};
use serde_json::Value as Json;

/// `[[top, bottom], [left, right]]`, `[height, width]` or one number.
fn borders(cx: &Cx<'_>, key: &str) -> Result<[[usize; 2]; 2], String> {
    let value = cx.get(key).ok_or_else(|| format!("its configuration has no {key}"))?;
    let fail = || format!("{key} is {value}");
    match value.as_array().map(Vec::as_slice) {
        None => count(value).map(|n| [[n, n]; 2]).ok_or_else(fail),
        Some([h, w]) => Ok([pair(h).ok_or_else(fail)?, pair(w).ok_or_else(fail)?]),
        Some(_) => Err(fail()),
    }
}

/// `ZeroPadding2D`.
pub fn zero_padding(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let format = cx.format()?;
    let [[top, bottom], [left, right]] = borders(cx, "padding")?;
    let picture = cx.picture(value, format)?;
    if [top, bottom, left, right] == [0; 4] {
        return Ok(value.clone());
    }
    let pads = [0, 0, top, left, 0, 0, bottom, right].map(|n| n as i64);
    let pads = cx.longs("pads", &pads);
    let name = cx.op("Pad", "Pad", &[&picture.name, &pads], vec![string("mode", "constant")])?;
    let (height, width) = (picture.height + top + bottom, picture.width + left + right);
    Value::of_picture(Picture { name, height, width, ..picture }, format)
}

/// `Cropping2D`.
pub fn cropping(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let format = cx.format()?;
    let [[top, bottom], [left, right]] = borders(cx, "cropping")?;
    let picture = cx.picture(value, format)?;
    let size = |side: usize, a: usize, b: usize| {
        side.checked_sub(a)
            .and_then(|s| s.checked_sub(b))
            .filter(|s| *s > 0)
            .ok_or("nothing would be left of the picture")
    };
    let (height, width) = (size(picture.height, top, bottom)?, size(picture.width, left, right)?);
    let cut = crop(cx, picture, top, left, height, width)?;
    Value::of_picture(cut, format)
}

/// Cuts a window out of a picture.
pub fn crop(
    cx: &mut Cx<'_>,
    picture: Picture,
    top: usize,
    left: usize,
    height: usize,
    width: usize,
) -> Result<Picture, String> {
    if (height, width) == (picture.height, picture.width) {
        return Ok(picture);
    }
    let starts = cx.longs("starts", &[top as i64, left as i64]);
    let ends = cx.longs("ends", &[(top + height) as i64, (left + width) as i64]);
    let axes = cx.longs("axes", &[2, 3]);
    let name = cx.op("Slice", "Slice", &[&picture.name, &starts, &ends, &axes], vec![])?;
    Ok(Picture { name, height, width, ..picture })
}

/// `Flatten`: to (N, values), in the order of (H,W,C).
pub fn flatten(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let size = elements(&value.shape)?;
    // Keras moves the channels to the end first where the layer says that they come first.
    let value = match (cx.format()?, &value.shape[..]) {
        (Format::First, [c, h, w]) if !value.channels_first => {
            Value { name: value.name.clone(), shape: vec![*h, *w, *c], channels_first: true }
        }
        _ => value.clone(),
    };
    cx.reshape(&value, vec![size])
}

/// `Reshape`: one side may be -1, what is left.
pub fn reshape(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let target = cx.get("target_shape").ok_or("its configuration has no target_shape")?;
    let target = integers(target).ok_or_else(|| format!("target_shape is {target}"))?;
    let shape = resolve(&value.shape, &target)?;
    cx.reshape(value, shape)
}

/// Fills in the -1 of a target shape.
pub fn resolve(from: &[usize], target: &[i64]) -> Result<Vec<usize>, String> {
    let size = elements(from)?;
    let known: Vec<usize> = target.iter().filter_map(|d| usize::try_from(*d).ok()).collect();
    let product = elements(&known)?;
    let open = target.len() - known.len();
    let fail = || format!("the shape {from:?} does not become {target:?}");
    if open > 1 || size % product != 0 || (open == 0 && size != product) {
        return Err(fail());
    }
    Ok(target.iter().map(|d| usize::try_from(*d).unwrap_or(size / product)).collect())
}

/// `Permute`: dimensions counted from 1.
pub fn permute(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let dims = cx.get("dims").and_then(integers).ok_or("its configuration has no dims")?;
    transpose(cx, value, &dims)
}

/// Moves Keras' dimension `dims[i]` (from 1) to the place i + 1.
pub fn transpose(cx: &mut Cx<'_>, value: &Value, dims: &[i64]) -> Result<Value, String> {
    let mut sorted: Vec<i64> = dims.to_vec();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(1..value.rank() as i64) {
        return Err(format!("dims {dims:?} do not order the dimensions of {:?}", value.shape));
    }
    let shape: Vec<usize> = dims.iter().map(|d| value.shape[*d as usize - 1]).collect();
    // A picture's channels may come to the front without a move in memory.
    if value.channels_first && dims == [3, 1, 2] {
        return Ok(Value::plain(value.name.clone(), shape));
    }
    if !value.channels_first && dims == [2, 3, 1] {
        return Ok(Value { name: value.name.clone(), shape, channels_first: true });
    }
    let value = cx.in_keras_order(value)?;
    let perm = std::iter::once(0).chain(dims.iter().copied());
    let name = cx.op("Transpose", "Transpose", &[&value.name], vec![ints("perm", perm)])?;
    Ok(Value::plain(name, shape))
}

/// `RepeatVector`: (N,C) → (N,n,C).
pub fn repeat_vector(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let n = cx.count("n")?;
    let [c] = value.shape[..] else {
        return Err(format!("a vector is needed, the input has the shape {:?}", value.shape));
    };
    elements(&[n, c])?;
    let tall = cx.reshape(value, vec![1, c])?;
    let repeats = cx.longs("repeats", &[1, n as i64, 1]);
    let name = cx.op("Tile", "Tile", &[&tall.name, &repeats], vec![])?;
    Ok(Value::plain(name, vec![n, c]))
}

/// Layers that do nothing at inference.
pub fn identity(_: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    Ok(value.clone())
}

/// Whether a JSON value is a slice over everything.
pub fn is_full_slice(value: &Json) -> bool {
    let config = value.get("config").unwrap_or(value);
    ["start", "stop", "step"].iter().all(|k| config.get(k).is_none_or(Json::is_null))
}
