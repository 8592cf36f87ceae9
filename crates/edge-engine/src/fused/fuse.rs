//! Layers that become part of others: what is left is what runs.
//!
//! Each rule is exact but for the order of roundings: normalizations go into filters, limits and sums into the
//! epilogue of the convolution before them, functions, too, a rectifier that several read into what they read, padding into the
//! window, and a depthwise convolution into the pointwise one after it.

use super::constant::Constants;
use super::graph::{Conv, Dense, Id, Kind, Layer, OPEN, Op, Value, both};
use edge_kernels::Window;
use std::collections::HashSet;

/// Fuses what can be. `outputs` stay.
pub fn fuse(layers: Vec<Layer>, values: &[Value], constants: &Constants<'_>, outputs: &mut [Id]) -> Vec<Layer> {
    let mut fuser = Fuser {
        layers: layers.into_iter().map(Some).collect(),
        values,
        constants,
        root: (0..values.len()).collect(),
        outputs: vec![],
    };
    fuser.drop_aliases();
    for output in outputs.iter_mut() {
        *output = fuser.root[*output];
    }
    fuser.outputs = outputs.to_vec();
    fuser.read_bytes();
    // Dequantizations that nobody reads any more must not count as readers.
    fuser.sweep();
    fuser.find_functions();
    fuser.absorb_forward();
    fuser.write_bytes();
    fuser.drop_limits();
    fuser.absorb_read();
    fuser.absorb_preludes();
    fuser.materialise_scales();
    fuser.pair();
    fuser.sweep();
    fuser.layers.into_iter().flatten().collect()
}

/// Layers, some of them gone.
pub struct Fuser<'a> {
    pub layers: Vec<Option<Layer>>,
    pub values: &'a [Value],
    constants: &'a Constants<'a>,
    /// What an alias stands for.
    root: Vec<Id>,
    outputs: Vec<Id>,
}

impl Fuser<'_> {
    fn drop_aliases(&mut self) {
        for slot in &mut self.layers {
            let Some(layer) = slot else { continue };
            layer.inputs.iter_mut().for_each(|i| *i = self.root[*i]);
            if matches!(layer.op, Op::Alias) {
                self.root[layer.output] = layer.inputs[0];
                *slot = None;
            }
        }
    }

    fn source(&self, value: Id) -> Option<&Layer> {
        self.layers.iter().flatten().find(|l| l.output == value)
    }

    /// Layers that can compute with bytes read those behind a dequantization. A convolution needs a filter of bytes, too, a
    /// depthwise one makes nothing but bytes of them, and a maximum is of bytes only where what comes out has the same scale.
    fn read_bytes(&mut self) {
        for at in 0..self.layers.len() {
            let Some(layer) = &self.layers[at] else { continue };
            let able = match &layer.op {
                Op::Conv(conv) => {
                    conv.filter.as_ref().is_some_and(|f| self.constants.is_bytes(&f.name))
                        && (conv.kind == Kind::Full || self.becomes_bytes(layer.output))
                }
                Op::Dense(dense) => self.constants.is_bytes(&dense.weights.name),
                Op::MaxPool(_) => true,
                Op::Limits(_) | Op::Add(_) | Op::Average => true,
                _ => false,
            };
            let behind = |v: &Id| self.source(*v).filter(|l| matches!(l.op, Op::Dequantize)).map(|l| l.inputs[0]);
            let Some(bytes) = layer.inputs.iter().map(behind).collect::<Option<Vec<Id>>>() else { continue };
            let same = !matches!(layer.op, Op::MaxPool(_)) || {
                let readers: Vec<&Layer> =
                    self.layers.iter().flatten().filter(|l| l.reads().any(|v| v == layer.output)).collect();
                let quant = |l: &&Layer| {
                    matches!(l.op, Op::Quantize) && self.values[l.output].quant == self.values[bytes[0]].quant
                };
                matches!(&readers[..], [one] if quant(one)) && !self.outputs.contains(&layer.output)
            };
            if able
                && same
                && let Some(layer) = &mut self.layers[at]
            {
                layer.inputs = bytes;
            }
        }
    }

    /// Whether a value is read by a quantization alone, but for limits before that.
    fn becomes_bytes(&self, value: Id) -> bool {
        let mut readers = self.layers.iter().flatten().filter(|l| l.reads().any(|v| v == value));
        let (Some(reader), None) = (readers.next(), readers.next()) else { return false };
        let passed = match reader.op {
            Op::Quantize => true,
            Op::Limits(_) => self.becomes_bytes(reader.output),
            _ => false,
        };
        passed && !self.outputs.contains(&value)
    }

    /// Whether a layer computes with bytes.
    fn on_bytes(&self, layer: &Layer) -> bool {
        layer.inputs.iter().all(|v| self.values[*v].quant.is_some()) && !matches!(layer.op, Op::Dequantize)
    }

    /// A quantization becomes part of the layer that makes what it reads, where that computes with bytes.
    fn write_bytes(&mut self) {
        for at in 0..self.layers.len() {
            let Some(Layer { op: Op::Quantize, inputs, .. }) = &self.layers[at] else { continue };
            let Some(source) = self.only_source(inputs[0]) else { continue };
            if self.layers[source].as_ref().is_some_and(|l| self.on_bytes(l)) {
                self.replace(source, at);
            }
        }
    }

    /// Limits that a quantization imposes anyway, as that of a rectifier before a zero point of 0.
    fn drop_limits(&mut self) {
        for at in 0..self.layers.len() {
            let Some(Layer { op: Op::Quantize, inputs, output, .. }) = &self.layers[at] else { continue };
            let (Some(quant), Some(source)) = (self.values[*output].quant, self.only_source(inputs[0])) else {
                continue;
            };
            let Some(Layer { op: Op::Limits(limits), inputs, nodes, .. }) = &self.layers[source] else { continue };
            if self.values[inputs[0]].quant.is_some() || quant.limits(*limits) != quant.limits(OPEN) {
                continue;
            }
            let (read, nodes) = (inputs[0], nodes.clone());
            if let Some(layer) = &mut self.layers[at] {
                layer.inputs[0] = read;
                layer.nodes.splice(0..0, nodes);
                self.layers[source] = None;
            }
        }
    }

    /// How often a value is read.
    fn uses(&self, value: Id) -> usize {
        let read = self.layers.iter().flatten().flat_map(Layer::reads).filter(|v| *v == value).count();
        read + self.outputs.iter().filter(|o| **o == value).count()
    }

    /// The layer that makes a value, where nobody else reads it.
    pub fn only_source(&self, value: Id) -> Option<usize> {
        let source = self.layers.iter().position(|l| l.as_ref().is_some_and(|l| l.output == value))?;
        (self.uses(value) == 1).then_some(source)
    }

    /// `into` makes what `from` made, and `from` is gone.
    fn replace(&mut self, into: usize, from: usize) {
        if let (Some(from), Some(into)) = (self.layers[from].take(), self.layers[into].as_mut()) {
            into.output = from.output;
            into.nodes.extend(from.nodes);
        }
    }

    /// Scales, limits, sums and padding into the layer before or after.
    fn absorb_forward(&mut self) {
        for at in 0..self.layers.len() {
            let Some(layer) = &self.layers[at] else { continue };
            let (op, inputs) = (layer.op.clone(), layer.inputs.clone());
            match op {
                Op::Scale { mul, add, written } => {
                    let Some(source) = self.only_source(inputs[0]) else { continue };
                    let limited = self.layers[source].as_mut().filter(|_| written == OPEN);
                    if limited.is_some_and(|l| scale_into(&mut l.op, &mul, &add)) {
                        self.replace(source, at);
                    }
                }
                Op::Limits(limits) => {
                    let Some(source) = self.only_source(inputs[0]) else { continue };
                    let written = self.layers[source].as_mut().and_then(|l| match &mut l.op {
                        Op::Conv(Conv { written, function: None, .. }) => Some(written),
                        Op::Dense(Dense { written, function: None, .. }) => Some(written),
                        Op::Add(written) | Op::Limits(written) | Op::Scale { written, .. } => Some(written),
                        _ => None,
                    });
                    if let Some(written) = written {
                        *written = both(*written, limits);
                        self.replace(source, at);
                    }
                }
                Op::Apply(function) => {
                    let Some(source) = self.only_source(inputs[0]) else { continue };
                    if self.layers[source].as_ref().is_some_and(|l| self.on_bytes(l)) {
                        continue;
                    }
                    let applied = self.layers[source].as_mut().and_then(|l| match &mut l.op {
                        Op::Conv(Conv { function, .. }) | Op::Dense(Dense { function, .. }) => Some(function),
                        _ => None,
                    });
                    if let Some(applied) = applied.filter(|a| a.is_none()) {
                        *applied = Some(function);
                        self.replace(source, at);
                    }
                }
                Op::Add(limits) => self.sum_into_conv(at, inputs[0], inputs[1], limits),
                Op::Conv(conv) => self.padding_into_window(at, conv, inputs[0]),
                _ => {}
            }
        }
    }

    /// A sum into the later of the convolutions that make its terms. It moves to where the sum is: the other term is there
    /// by then.
    fn sum_into_conv(&mut self, at: usize, a: Id, b: Id, limits: [f32; 2]) {
        if a == b || self.values[a].quant.is_some() {
            return;
        }
        let able = |v: Id| {
            let source = self.only_source(v)?;
            let Some(Layer { op: Op::Conv(conv), .. }) = &self.layers[source] else { return None };
            let floats = self.layers[source].as_ref().is_some_and(|l| !self.on_bytes(l));
            let open = conv.written == OPEN && conv.function.is_none() && conv.residual.is_none();
            (floats && conv.kind == Kind::Full && open).then_some(source)
        };
        let Some((source, other)) = able(a).map(|s| (s, b)).into_iter().chain(able(b).map(|s| (s, a))).max() else {
            return;
        };
        if let (Some(mut layer), Some(sum)) = (self.layers[source].take(), self.layers[at].take()) {
            if let Op::Conv(conv) = &mut layer.op {
                conv.residual = Some(other);
                conv.written = limits;
            }
            layer.output = sum.output;
            layer.nodes.extend(sum.nodes);
            self.layers[at] = Some(layer);
        }
    }

    fn padding_into_window(&mut self, at: usize, conv: Conv, input: Id) {
        let Some(pad) = self.layers.iter().flatten().find(|l| l.output == input) else { return };
        let Op::Pad(before, after) = pad.op else { return };
        let (source, nodes) = (pad.inputs[0], pad.nodes.clone());
        let w = conv.window;
        let inner = [0, 1].map(|i| w.input[i] - before[i] - after[i]);
        let top = [0, 1].map(|i| w.before[i] + before[i]);
        let wide = Window { input: inner, before: top, ..w };
        if let Some(layer) = &mut self.layers[at] {
            layer.op = Op::Conv(Conv { window: wide, ..conv });
            layer.inputs[0] = source;
            layer.nodes.extend(nodes);
        }
    }

    /// Limits that several read, into those that can limit what they read.
    fn absorb_read(&mut self) {
        for at in 0..self.layers.len() {
            let Some(Layer { op: Op::Limits(limits), inputs, output, nodes }) = &self.layers[at] else { continue };
            if self.values[inputs[0]].quant.is_some() {
                continue;
            }
            let (limits, source, output, nodes) = (*limits, inputs[0], *output, nodes.clone());
            for layer in self.layers.iter_mut().flatten() {
                if let Op::Conv(conv) = &mut layer.op
                    && layer.inputs[0] == output
                    && conv.read == OPEN
                    && !is_pointwise(conv)
                {
                    conv.read = limits;
                    layer.inputs[0] = source;
                    layer.nodes.extend(&nodes);
                }
            }
        }
    }

    /// What could go nowhere becomes a depthwise convolution of one tap.
    fn materialise_scales(&mut self) {
        for layer in self.layers.iter_mut().flatten() {
            if let Op::Scale { mul, add, written } = &layer.op {
                // The window's size is that of the value; the plan knows it.
                let window = Window::new([1, 1], [1, 1], [1, 1], [1, 1], [0, 0], [0, 0]);
                let Some(window) = window else { continue };
                layer.op = Op::Conv(Conv {
                    window,
                    kind: Kind::Depthwise,
                    filter: None,
                    factors: mul.clone(),
                    bias: add.clone(),
                    read: OPEN,
                    written: *written,
                    residual: None,
                    function: None,
                    first: None,
                    prelude: None,
                });
            }
        }
    }

    /// A depthwise convolution and the pointwise one that alone reads it.
    fn pair(&mut self) {
        for at in 0..self.layers.len() {
            let Some(Layer { op: Op::Conv(conv), inputs, .. }) = &self.layers[at] else { continue };
            let plain = is_pointwise(conv) && conv.window.stride == [1, 1] && conv.read == OPEN;
            if !(plain && conv.first.is_none() && conv.prelude.is_none()) {
                continue;
            }
            let Some(source) = self.only_source(inputs[0]) else { continue };
            let Some(Layer { op: Op::Conv(first), inputs, nodes, .. }) = &self.layers[source] else { continue };
            if first.kind != Kind::Depthwise || first.residual.is_some() || first.filter.is_none() {
                continue;
            }
            let between = self.layers[at].as_ref().map_or(0, |l| l.inputs[0]);
            // Both compute with bytes, or neither.
            if self.values[between].quant.is_some() != self.values[inputs[0]].quant.is_some() {
                continue;
            }
            let (first, inputs, mut nodes) = (first.clone(), inputs.clone(), nodes.clone());
            if let Some(layer) = &mut self.layers[at]
                && let Op::Conv(conv) = &mut layer.op
            {
                conv.first = Some((Box::new(first), between));
                layer.inputs = inputs;
                nodes.append(&mut layer.nodes);
                layer.nodes = nodes;
                self.layers[source] = None;
            }
        }
    }

    /// Layers whose values nobody reads.
    fn sweep(&mut self) {
        let mut needed: HashSet<Id> = self.outputs.iter().copied().collect();
        for slot in self.layers.iter_mut().rev() {
            match slot {
                Some(layer) if needed.contains(&layer.output) => needed.extend(layer.reads()),
                _ => *slot = None,
            }
        }
    }
}

/// Whether a convolution is a matrix product over the channels of each pixel.
pub fn is_pointwise(conv: &Conv) -> bool {
    let w = &conv.window;
    let inside = |i: usize| (w.output[i] - 1) * w.stride[i] < w.input[i];
    conv.kind == Kind::Full && w.kernel == [1, 1] && w.before == [0, 0] && inside(0) && inside(1)
}

/// Multiplies a scale into what makes its input, where that has no limits yet.
fn scale_into(op: &mut Op, mul: &[f32], add: &[f32]) -> bool {
    let (filter, bias) = match op {
        Op::Conv(Conv { filter: Some(filter), bias, written: OPEN, function: None, residual: None, .. }) => {
            (filter, bias)
        }
        Op::Dense(Dense { weights, bias, written: OPEN, function: None, .. }) => (weights, bias),
        // One scale after another.
        Op::Scale { mul: first, add: offset, written: OPEN } => {
            for (at, (m, a)) in mul.iter().zip(add).enumerate() {
                first[at] *= m;
                offset[at] = (f64::from(offset[at]) * f64::from(*m) + f64::from(*a)) as f32;
            }
            return true;
        }
        _ => return false,
    };
    for (bias, (m, a)) in bias.iter_mut().zip(mul.iter().zip(add)) {
        *bias = (f64::from(*bias) * f64::from(*m) + f64::from(*a)) as f32;
    }
    if mul.iter().any(|m| *m != 1.0) {
        match &mut filter.scale {
            None => filter.scale = Some(mul.to_vec()),
            Some(scale) => scale.iter_mut().zip(mul).for_each(|(s, m)| *s *= m),
        }
    }
    true
}
