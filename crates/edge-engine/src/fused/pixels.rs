//! Operators that move, put together or pool pixels: those without weights, to layers.

use super::constant::Attributes;
use super::graph::{Form, Id, Op, Value};
use super::read::{Reader, Refusal};
use edge_kernels::Counted;
use tract_onnx::pb::NodeProto;

impl Reader<'_> {
    /// Values one after the other, along their channels.
    pub fn concat(&self, node: &NodeProto) -> Result<(Op, Vec<Id>, Value), Refusal> {
        let parts = (0..node.input.len()).map(|i| self.value(node, i)).collect::<Result<Vec<_>, _>>()?;
        let (_, first) = parts.first().ok_or("it has no inputs")?;
        let rank = first.dims().len() as i64;
        let axis = Attributes(node).int("axis", 1);
        let axis = if axis < 0 { axis + rank } else { axis };
        let channels = match first.form {
            Form::Nhwc => 3,
            Form::Nchw => 1,
            Form::FlatChw | Form::FlatHwc if first.pixels() == 1 => 1,
            _ => return Err("of values without channels".into()),
        };
        let alike = |v: &Value| {
            // A vector of one pixel is the same in either order.
            let flat = matches!(v.form, Form::FlatChw | Form::FlatHwc) && v.dims().len() as i64 == rank;
            [v.h, v.w] == [first.h, first.w] && (v.form == first.form || flat)
        };
        if axis != channels || !parts.iter().all(|(_, v)| alike(v)) {
            return Err("not along the channels of pictures of one size".into());
        }
        let c = parts.iter().try_fold(0_usize, |sum, (_, v)| sum.checked_add(v.c)).ok_or("too many channels")?;
        Ok((Op::Concat, parts.iter().map(|(id, _)| *id).collect(), Value { c, ..(*first).clone() }))
    }

    pub fn pad(&self, node: &NodeProto) -> Result<(Op, Vec<Id>, Value), Refusal> {
        let (id, value) = self.value(node, 0)?;
        let mode = Attributes(node).text("mode");
        let fill = if self.opset < 11 { Attributes(node).float("value", 0.0) } else { self.scalar(node, 2, 0.0)? };
        let axes = node.input.get(3).is_some_and(|n| !n.is_empty());
        if !(matches!(mode, "" | "constant") && fill == 0.0 && !axes) {
            return Err("not of zeros".into());
        }
        let pads = self.integers(node, "pads", 1).ok_or("its pads are no constants")?;
        let spatial = match value.form {
            Form::Nchw => [2, 3],
            Form::Nhwc => [1, 2],
            _ => return Err("not of a picture".into()),
        };
        let fits = |p: &i64| (0..1 << 16).contains(p);
        let others = |(i, p): (usize, &i64)| spatial.contains(&(i % 4)) || *p == 0;
        if pads.len() != 8 || !pads.iter().all(fits) || !pads.iter().enumerate().all(others) {
            return Err("not around the picture".into());
        }
        let side = |offset: usize| spatial.map(|axis| pads[offset + axis] as usize);
        let (before, after) = (side(0), side(4));
        let made = Value { h: value.h + before[0] + after[0], w: value.w + before[1] + after[1], ..value.clone() };
        Ok((Op::Pad(before, after), vec![id], made))
    }

    /// The maximum or the mean under a window.
    pub fn pool(&self, node: &NodeProto) -> Result<(Op, Vec<Id>, Value), Refusal> {
        let (id, value) = self.value(node, 0)?;
        let attributes = Attributes(node);
        let indices = node.output.get(1).is_some_and(|n| !n.is_empty());
        if value.form != Form::Nchw || attributes.int("ceil_mode", 0) != 0 || indices {
            return Err("with ceil_mode or indices, or not of (N,C,H,W)".into());
        }
        let kernel = attributes.ints("kernel_shape").and_then(|_| attributes.pair("kernel_shape", 1));
        let kernel = kernel.ok_or("it has no kernel_shape of a picture")?;
        let window = attributes.window([value.h, value.w], kernel)?;
        let made = Value { h: window.output[0], w: window.output[1], ..value.clone() };
        let counted = if attributes.int("count_include_pad", 0) == 0 { Counted::Inside } else { Counted::All };
        let inside = window.before == [0; 2] && window.kernel == window.input && window.positions() == 1;
        let op = match node.op_type.as_str() {
            "MaxPool" => Op::MaxPool(window),
            _ if inside => Op::Average,
            _ => Op::MeanPool(window, counted),
        };
        Ok((op, vec![id], made))
    }

    pub fn average(&self, node: &NodeProto) -> Result<(Op, Vec<Id>, Value), Refusal> {
        let (id, value) = self.value(node, 0)?;
        let attributes = Attributes(node);
        let spatial = match value.form {
            Form::Nchw => [2, 3],
            Form::Nhwc => [1, 2],
            _ => return Err("not of a picture".into()),
        };
        let mut made = Value { h: 1, w: 1, ..value.clone() };
        match node.op_type.as_str() {
            "ReduceMean" => {
                let axes = self.integers(node, "axes", 1).ok_or("its axes are no constants")?;
                let mut axes: Vec<i64> = axes.iter().map(|a| if *a < 0 { a + 4 } else { *a }).collect();
                axes.sort_unstable();
                if axes != spatial {
                    return Err("not over height and width".into());
                }
                if attributes.int("keepdims", 1) == 0 {
                    made.form = Form::FlatHwc;
                }
            }
            _ if value.form != Form::Nchw => return Err("not of (N,C,H,W)".into()),
            _ => {}
        }
        Ok((Op::Average, vec![id], made))
    }

    pub fn transpose(&self, node: &NodeProto) -> Result<(Op, Vec<Id>, Value), Refusal> {
        let perm = Attributes(node).ints("perm").unwrap_or_default().to_vec();
        let (_, value) = self.value(node, 0)?;
        let form = match (value.form, &perm[..]) {
            (Form::Nhwc, [0, 3, 1, 2]) => Form::Nchw,
            (Form::Nchw, [0, 2, 3, 1]) => Form::Nhwc,
            _ => return Err("not between (N,H,W,C) and (N,C,H,W)".into()),
        };
        self.alias(node, |v| Value { form, ..v.clone() })
    }

    pub fn reshape(&self, node: &NodeProto) -> Result<(Op, Vec<Id>, Value), Refusal> {
        let (_, value) = self.value(node, 0)?;
        let from: Vec<i64> = value.dims().into_iter().map(|d| d as i64).collect();
        let total: i64 = from.iter().product();
        let to = match node.op_type.as_str() {
            "Flatten" if Attributes(node).int("axis", 1) == 1 => vec![1, total],
            "Flatten" => return Err("not after the batch".into()),
            "Squeeze" => {
                let axes = self.integers(node, "axes", 1).ok_or("its axes are no constants")?;
                let axes: Vec<i64> = axes.iter().map(|a| if *a < 0 { a + from.len() as i64 } else { *a }).collect();
                (0..from.len()).filter(|i| !axes.contains(&(*i as i64))).map(|i| from[i]).collect()
            }
            _ => {
                if Attributes(node).int("allowzero", 0) != 0 {
                    return Err("with allowzero".into());
                }
                let target = self.integers(node, "", 1).ok_or("its shape is no constant")?;
                let copied = |(i, d): (usize, &i64)| if *d == 0 { from.get(i).copied().unwrap_or(-2) } else { *d };
                let mut to: Vec<i64> = target.iter().enumerate().map(copied).collect();
                let known: i64 = to.iter().filter(|d| **d != -1).try_fold(1_i64, |p, d| p.checked_mul(*d)).unwrap_or(0);
                if let Some(open) = to.iter().position(|d| *d == -1) {
                    to[open] = if known > 0 && total % known == 0 { total / known } else { 0 };
                }
                to
            }
        };
        let c = value.c as i64;
        let form = match (&to[..], value.form) {
            ([1, n], Form::Nchw | Form::FlatChw) if *n == total => Form::FlatChw,
            ([1, n], Form::Nhwc | Form::FlatHwc) if *n == total => Form::FlatHwc,
            ([1, n, 1, 1], _) if *n == c && total == c => Form::Nchw,
            ([1, 1, 1, n], _) if *n == c && total == c => Form::Nhwc,
            _ if to == from => value.form,
            _ => return Err(format!("to the shape {to:?}")),
        };
        self.alias(node, |v| Value { form, ..v.clone() })
    }
}
