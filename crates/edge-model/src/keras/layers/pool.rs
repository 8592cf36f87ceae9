//! Pooling. Sources: Keras 3.15 `layers/pooling/*.py`: an average excludes the padding.

use super::conv::Window;
use crate::graph::{int, ints};
use crate::keras::cx::Cx;
use crate::keras::value::{Format, Picture, Value};

/// `MaxPooling2D` and `AveragePooling2D`, and the operations `MaxPool` and `AveragePool`.
pub fn pool(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let format = cx.format()?;
    let picture = cx.picture(value, format)?;
    let size = cx.pair("pool_size", Some(2))?;
    let strides = match cx.get("strides") {
        None => size,
        Some(_) => cx.pair("strides", None)?,
    };
    let window = Window::new(&picture, size, strides, [1, 1], cx.word("padding", "valid"))?;
    let mut attributes = window.attributes();
    let operator = if cx.layer.class.contains("Max") { "MaxPool" } else { "AveragePool" };
    if operator == "AveragePool" {
        attributes.push(int("count_include_pad", 0));
    }
    let name = cx.op(operator, operator, &[&picture.name], attributes)?;
    let made = Picture { name, channels: picture.channels, height: window.out[0], width: window.out[1] };
    Value::of_picture(made, format)
}

/// `GlobalAveragePooling2D` and `GlobalMaxPooling2D`, with `keepdims`.
pub fn global(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let format = cx.format()?;
    let picture = cx.picture(value, format)?;
    let operator = if cx.layer.class.contains("Max") { "GlobalMaxPool" } else { "GlobalAveragePool" };
    let name = cx.op(operator, operator, &[&picture.name], vec![])?;
    let channels = picture.channels;
    if cx.flag("keepdims", false) {
        return Value::of_picture(Picture { name, channels, height: 1, width: 1 }, format);
    }
    let name = cx.op("Flatten", "Flatten", &[&name], vec![int("axis", 1)])?;
    Ok(Value::plain(name, vec![channels]))
}

/// `GlobalAveragePooling1D` and `GlobalMaxPooling1D`.
pub fn global_1d(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let value = cx.in_keras_order(value)?;
    let [a, b] = value.shape[..] else {
        return Err(format!("a sequence is needed, the input has the shape {:?}", value.shape));
    };
    let (axis, left) = if cx.format()? == Format::Last { (1, b) } else { (2, a) };
    let operator = if cx.layer.class.contains("Max") { "ReduceMax" } else { "ReduceMean" };
    let keep = cx.flag("keepdims", false);
    let attributes = vec![ints("axes", [axis]), int("keepdims", i64::from(keep))];
    let name = cx.op(operator, operator, &[&value.name], attributes)?;
    let shape = match (keep, axis) {
        (false, _) => vec![left],
        (true, 1) => vec![1, left],
        (true, _) => vec![left, 1],
    };
    Ok(Value::plain(name, shape))
}
