//! Functions of each value, found in the operators that files are made of.
//!
//! `x · sigmoid(x)` is written as two operators, a hard swish as up to five; here they become one. What scales a whole
//! pixel before a matrix product becomes part of that product.

use super::fuse::{Fuser, is_pointwise};
use super::graph::{Id, OPEN, Op, Prelude};
use edge_kernels::{Function, Ramp};

impl Fuser<'_> {
    /// Functions that are written as several operators.
    pub fn find_functions(&mut self) {
        for at in 0..self.layers.len() {
            let Some(layer) = &self.layers[at] else { continue };
            let inputs = layer.inputs.clone();
            let found = match layer.op {
                Op::Mul => self.times_own(inputs[0], inputs[1]).or_else(|| self.times_own(inputs[1], inputs[0])),
                // A hard swish may be divided at its end.
                Op::Scale { .. } => self.scaled_swish(at, inputs[0]),
                _ => None,
            };
            let Some((function, value, used)) = found else { continue };
            let mut nodes = vec![];
            for layer in used {
                nodes.extend(self.layers[layer].take().into_iter().flat_map(|l| l.nodes));
            }
            if let Some(layer) = &mut self.layers[at] {
                layer.nodes.splice(0..0, nodes);
                layer.op = Op::Apply(function);
                layer.inputs = vec![value];
            }
        }
    }

    /// x · f(x), with the layers that f is made of.
    fn times_own(&self, x: Id, other: Id) -> Option<(Function, Id, Vec<usize>)> {
        let float = |v: Id| self.values[v].quant.is_none();
        if !float(x) || !float(other) {
            return None;
        }
        let (ramp, read, used) = match self.sole(other)? {
            (source, Op::Apply(Function::Sigmoid)) => {
                let read = self.layers[source].as_ref()?.inputs[0];
                return (read == x).then(|| (Function::Silu, x, vec![source]));
            }
            (source, Op::Apply(Function::Ramp(ramp))) => (*ramp, self.layers[source].as_ref()?.inputs[0], vec![source]),
            _ => self.ramp(other)?,
        };
        (read == x).then_some((Function::TimesRamp(ramp), x, used))
    }

    /// limits(slope · x + offset), perhaps scaled again: the ramp, x and the layers in their order.
    fn ramp(&self, value: Id) -> Option<(Ramp, Id, Vec<usize>)> {
        let (last, op) = self.sole(value)?;
        let (again, limits, mut used) = match op {
            Op::Scale { .. } => (uniform(op)?, self.layers[last].as_ref()?.inputs[0], vec![last]),
            Op::Limits(_) => ([1.0, 0.0], value, vec![]),
            _ => return None,
        };
        let (limited, op) = self.sole(limits)?;
        let Op::Limits(bounds) = op else { return None };
        let (scaled, op) = self.sole(self.layers[limited].as_ref()?.inputs[0])?;
        let [slope, offset] = uniform(op)?;
        // Turned upside down, the limits would have to be, too; nobody writes that.
        if again[0] <= 0.0 || bounds.iter().any(|b| !b.is_finite()) {
            return None;
        }
        let x = self.layers[scaled].as_ref()?.inputs[0];
        used.splice(0..0, [scaled, limited]);
        let ramp = Ramp {
            slope: slope * again[0],
            offset: offset * again[0] + again[1],
            limits: bounds.map(|b| b * again[0] + again[1]),
        };
        Some((ramp, x, used))
    }

    /// A hard swish and a factor after it.
    fn scaled_swish(&self, at: usize, value: Id) -> Option<(Function, Id, Vec<usize>)> {
        let [factor, offset] = uniform(&self.layers[at].as_ref()?.op)?;
        let (source, Op::Apply(Function::TimesRamp(ramp))) = self.sole(value)? else { return None };
        let whole = offset == 0.0 && factor > 0.0;
        let ramp =
            Ramp { slope: ramp.slope * factor, offset: ramp.offset * factor, limits: ramp.limits.map(|l| l * factor) };
        whole.then(|| {
            let read = self.layers[source].as_ref().map_or(value, |l| l.inputs[0]);
            (Function::TimesRamp(ramp), read, vec![source])
        })
    }

    /// The layer that makes a value, where nobody else reads it.
    fn sole(&self, value: Id) -> Option<(usize, &Op)> {
        let source = self.only_source(value)?;
        self.layers[source].as_ref().map(|l| (source, &l.op))
    }

    /// Scales and gates that only a pointwise convolution reads, into it.
    pub fn absorb_preludes(&mut self) {
        for at in 0..self.layers.len() {
            let Some(layer) = &self.layers[at] else { continue };
            let Op::Conv(conv) = &layer.op else { continue };
            let plain = is_pointwise(conv) && conv.window.stride == [1, 1] && conv.first.is_none();
            if !(plain && conv.read == OPEN && conv.prelude.is_none()) || self.values[layer.inputs[0]].quant.is_some() {
                continue;
            }
            let Some((source, op)) = self.sole(layer.inputs[0]) else { continue };
            let Some(before) = &self.layers[source] else { continue };
            // The picture lies otherwise than what layers make.
            if before.inputs.iter().any(|v| *v == 0 || self.values[*v].quant.is_some()) {
                continue;
            }
            let prelude = match op {
                Op::Scale { mul, add, written } => {
                    Prelude::Scale { mul: mul.clone(), add: add.clone(), written: *written }
                }
                Op::Gate => Prelude::Gate(before.inputs[1]),
                _ => continue,
            };
            let Some(before) = self.layers[source].take() else { continue };
            if let Some(layer) = &mut self.layers[at]
                && let Op::Conv(conv) = &mut layer.op
            {
                conv.prelude = Some(prelude);
                layer.inputs[0] = before.inputs[0];
                layer.nodes.splice(0..0, before.nodes);
            }
        }
    }
}

/// Factor and offset of a scale that is the same for all channels and has no limits.
fn uniform(op: &Op) -> Option<[f32; 2]> {
    let Op::Scale { mul, add, written: OPEN } = op else { return None };
    let same = |values: &[f32]| values.first().copied().filter(|f| values.iter().all(|v| v == f));
    Some([same(mul)?, same(add)?])
}
