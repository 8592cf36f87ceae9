//! Convolutions.
//!
//! `padding="same"` gives ceil(size / stride) outputs and puts the odd pixel of padding after the picture; for stride 2
//! that depends on the size, so it is spelled out as explicit pads. Sources: Keras 3.15 `layers/convolutional/*.py`,
//! `ops/operation_utils.py`, `backend/common/backend_utils.py` (transposed convolution).

use super::activation;
use crate::graph::{int, ints};
use crate::keras::cx::Cx;
use crate::keras::value::{Picture, Value, elements};
use edge_engine::pb::AttributeProto;

/// A window that moves over a picture, per side (height, width).
pub struct Window {
    pub size: [usize; 2],
    pub strides: [usize; 2],
    pub dilation: [usize; 2],
    pub before: [usize; 2],
    pub after: [usize; 2],
    /// The picture's size after it.
    pub out: [usize; 2],
}

impl Window {
    /// Places a window on a picture.
    pub fn new(
        picture: &Picture,
        size: [usize; 2],
        strides: [usize; 2],
        dilation: [usize; 2],
        padding: &str,
    ) -> Result<Window, String> {
        let mut window = Window { size, strides, dilation, before: [0; 2], after: [0; 2], out: [0; 2] };
        for side in 0..2 {
            let length = [picture.height, picture.width][side];
            let (k, s, d) = (size[side], strides[side], dilation[side]);
            if k == 0 || s == 0 || d == 0 {
                return Err("a kernel, a stride or a dilation is 0".into());
            }
            let reach = (k - 1).checked_mul(d).and_then(|r| r.checked_add(1)).ok_or("the kernel is too large")?;
            match padding {
                "same" => {
                    let out = length.div_ceil(s);
                    let total = ((out - 1) * s + reach).saturating_sub(length);
                    window.before[side] = total / 2;
                    window.after[side] = total - total / 2;
                    window.out[side] = out;
                }
                "valid" => {
                    let moves = length.checked_sub(reach).ok_or_else(|| {
                        format!("a window of {reach} pixels does not fit into the {length} pixels that are left of the picture")
                    })?;
                    window.out[side] = moves / s + 1;
                }
                other => return Err(format!("padding is {other:?}")),
            }
        }
        Ok(window)
    }

    /// As ONNX spells it.
    pub fn attributes(&self) -> Vec<AttributeProto> {
        let list = |v: [usize; 2]| v.map(|n| n as i64);
        let mut attributes = vec![ints("kernel_shape", list(self.size)), ints("strides", list(self.strides))];
        if self.dilation != [1, 1] {
            attributes.push(ints("dilations", list(self.dilation)));
        }
        attributes.push(ints("pads", [list(self.before), list(self.after)].concat()));
        attributes
    }
}

/// (H,W,A,B) → (B,A,H,W).
fn hwio_to_oihw(values: &[f32], [h, w, a, b]: [usize; 4]) -> Vec<f32> {
    permuted(values, h * w, a, b, |out, p, i, o| out[(o * a + i) * h * w + p] = values[(p * a + i) * b + o])
}

/// (H,W,C,M) → (C·M,1,H,W).
fn depthwise(values: &[f32], [h, w, c, m]: [usize; 4]) -> Vec<f32> {
    permuted(values, h * w, c, m, |out, p, i, o| out[(i * m + o) * h * w + p] = values[(p * c + i) * m + o])
}

/// Visits the outputs in blocks, so that both sides stay in the cache.
fn permuted(
    values: &[f32],
    pixels: usize,
    a: usize,
    b: usize,
    mut put: impl FnMut(&mut [f32], usize, usize, usize),
) -> Vec<f32> {
    const BLOCK: usize = 32;
    let mut out = vec![0.0; values.len()];
    for p in 0..pixels {
        for i0 in (0..a).step_by(BLOCK) {
            for o0 in (0..b).step_by(BLOCK) {
                for i in i0..(i0 + BLOCK).min(a) {
                    for o in o0..(o0 + BLOCK).min(b) {
                        put(&mut out, p, i, o);
                    }
                }
            }
        }
    }
    out
}

/// Adds the convolution of a picture; the kernel is the name of weights (O,I,H,W).
fn convolve(
    cx: &mut Cx<'_>,
    part: &str,
    picture: &Picture,
    (kernel, bias): (&str, Option<&str>),
    window: &Window,
    group: usize,
    outputs: usize,
) -> Result<Picture, String> {
    let mut inputs = vec![picture.name.as_str(), kernel];
    inputs.extend(bias);
    let mut attributes = window.attributes();
    attributes.push(int("group", group as i64));
    let name = cx.op("Conv", part, &inputs, attributes)?;
    Ok(Picture { name, channels: outputs, height: window.out[0], width: window.out[1] })
}

fn bias(cx: &mut Cx<'_>, variable: usize, outputs: usize) -> Result<Option<String>, String> {
    if !cx.flag("use_bias", true) {
        return Ok(None);
    }
    cx.weight("bias", &[outputs], |cx| cx.variable(variable, &[outputs])).map(Some)
}

/// `Conv2D`: kernel (H,W,I/groups,O).
pub fn conv2d(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let format = cx.format()?;
    let picture = cx.picture(value, format)?;
    let (outputs, groups) = (cx.count("filters")?, cx.pair("groups", Some(1))?[0]);
    if groups == 0 || picture.channels % groups != 0 || outputs % groups != 0 {
        return Err(format!(
            "{} channels and {outputs} filters cannot be split into {groups} groups",
            picture.channels
        ));
    }
    let size = cx.pair("kernel_size", None)?;
    let window = Window::new(
        &picture,
        size,
        cx.pair("strides", Some(1))?,
        cx.pair("dilation_rate", Some(1))?,
        cx.word("padding", "valid"),
    )?;
    let shape = [size[0], size[1], picture.channels / groups, outputs];
    elements(&shape)?;
    let kernel = cx.weight("kernel", &[outputs, shape[2], size[0], size[1]], |cx| {
        Ok(hwio_to_oihw(&cx.variable(0, &shape)?, shape))
    })?;
    let bias = bias(cx, 1, outputs)?;
    let made = convolve(cx, "Conv", &picture, (&kernel, bias.as_deref()), &window, groups, outputs)?;
    let made = Value::of_picture(made, format)?;
    activation::after(cx, &made)
}

/// `DepthwiseConv2D`: kernel (H,W,C,multiplier); the multiplier's outputs of a channel lie together.
pub fn depthwise_conv2d(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let format = cx.format()?;
    let picture = cx.picture(value, format)?;
    let made = depthwise_part(cx, &picture, "kernel", true)?;
    let made = Value::of_picture(made, format)?;
    activation::after(cx, &made)
}

fn depthwise_part(cx: &mut Cx<'_>, picture: &Picture, part: &str, with_bias: bool) -> Result<Picture, String> {
    let size = cx.pair("kernel_size", None)?;
    let multiplier = cx.pair("depth_multiplier", Some(1))?[0];
    let window = Window::new(
        picture,
        size,
        cx.pair("strides", Some(1))?,
        cx.pair("dilation_rate", Some(1))?,
        cx.word("padding", "valid"),
    )?;
    let shape = [size[0], size[1], picture.channels, multiplier];
    elements(&shape)?;
    let outputs = picture.channels * multiplier;
    let kernel =
        cx.weight(part, &[outputs, 1, size[0], size[1]], |cx| Ok(depthwise(&cx.variable(0, &shape)?, shape)))?;
    let bias = if with_bias { bias(cx, 1, outputs)? } else { None };
    convolve(cx, "depthwise", picture, (&kernel, bias.as_deref()), &window, picture.channels, outputs)
}

/// `SeparableConv2D`: depthwise without bias, then 1×1 with.
pub fn separable_conv2d(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let format = cx.format()?;
    let picture = cx.picture(value, format)?;
    let middle = depthwise_part(cx, &picture, "depthwise_kernel", false)?;
    let outputs = cx.count("filters")?;
    let shape = [1, 1, middle.channels, outputs];
    elements(&shape)?;
    let kernel =
        cx.weight("kernel", &[outputs, middle.channels, 1, 1], |cx| Ok(hwio_to_oihw(&cx.variable(1, &shape)?, shape)))?;
    let bias = bias(cx, 2, outputs)?;
    let window = Window::new(&middle, [1, 1], [1, 1], [1, 1], "valid")?;
    let made = convolve(cx, "pointwise", &middle, (&kernel, bias.as_deref()), &window, 1, outputs)?;
    let made = Value::of_picture(made, format)?;
    activation::after(cx, &made)
}

/// `Conv2DTranspose`: kernel (H,W,O,I).
pub fn conv2d_transpose(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let format = cx.format()?;
    let picture = cx.picture(value, format)?;
    let outputs = cx.count("filters")?;
    let size = cx.pair("kernel_size", None)?;
    let strides = cx.pair("strides", Some(1))?;
    let dilation = cx.pair("dilation_rate", Some(1))?;
    let extra = match cx.get("output_padding") {
        None => None,
        Some(_) => Some(cx.pair("output_padding", None)?),
    };
    let padding = cx.word("padding", "valid").to_string();
    let (mut before, mut after, mut more, mut out) = ([0; 2], [0; 2], [0; 2], [0; 2]);
    for side in 0..2 {
        let (k, s, d) = (size[side] as i64, strides[side] as i64, dilation[side] as i64);
        let length = [picture.height, picture.width][side] as i64;
        if k == 0 || s == 0 || d == 0 {
            return Err("a kernel, a stride or a dilation is 0".into());
        }
        let reach = (k - 1).checked_mul(d).and_then(|r| r.checked_add(1)).ok_or("the kernel is too large")?;
        let extra = extra.map(|e| e[side] as i64);
        // Keras' backend utilities: pads around the picture once its strides are filled with zeros.
        let (left, right) = match padding.as_str() {
            "valid" => (reach - 1, reach - 1 + extra.unwrap_or(reach.max(s) - reach)),
            "same" => {
                let total = match extra {
                    None => s + reach - 2,
                    Some(extra) => reach + reach % 2 - 2 + extra,
                };
                let left = (total / 2 + total % 2).min(reach - 1);
                (left, total - left)
            }
            other => return Err(format!("padding is {other:?}")),
        };
        // ONNX counts what is cut off the full result, and what is added behind it.
        before[side] = reach - 1 - left;
        after[side] = (reach - 1 - right).max(0);
        more[side] = (right - (reach - 1)).max(0);
        let full = (length - 1).checked_mul(s).and_then(|l| l.checked_add(reach)).ok_or("the strides are too large")?;
        let sum = full - before[side] - after[side] + more[side];
        out[side] = usize::try_from(sum).ok().filter(|n| *n > 0).ok_or("nothing would be left of the picture")?;
    }
    let shape = [size[0], size[1], outputs, picture.channels];
    elements(&shape)?;
    let kernel = cx.weight("kernel", &[picture.channels, outputs, size[0], size[1]], |cx| {
        Ok(hwio_to_oihw(&cx.variable(0, &shape)?, shape))
    })?;
    let bias = bias(cx, 1, outputs)?;
    let mut inputs = vec![picture.name.as_str(), &kernel];
    inputs.extend(bias.as_deref());
    let list = |v: [usize; 2]| v.map(|n| n as i64);
    let attributes = vec![
        ints("kernel_shape", list(size)),
        ints("strides", list(strides)),
        ints("dilations", list(dilation)),
        ints("pads", [before, after].concat()),
        ints("output_padding", more),
    ];
    let name = cx.op("ConvTranspose", "ConvTranspose", &inputs, attributes)?;
    let made = Picture { name, channels: outputs, height: out[0], width: out[1] };
    let made = Value::of_picture(made, format)?;
    activation::after(cx, &made)
}
