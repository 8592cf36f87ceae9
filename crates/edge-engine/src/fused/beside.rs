//! Concatenations without copies: what is a part of one is written where it lies beside the others.
//!
//! A concatenation whose first part is one, too, as in a dense block, grows in one buffer from its first part to its last.

use super::fuse::is_pointwise;
use super::graph::{Id, Kind, Layer, OPEN, Op, Prelude, Value};
use edge_kernels::{Among, Isa};

/// For each value the one whose buffer it lies in, itself or a concatenation that it is a part of, and its first channel there.
pub struct Homes(Vec<(Id, usize)>);

impl Homes {
    /// Finds where the values of `layers` lie, which are in their order; `outputs` lie by themselves.
    pub fn find(isa: Isa, layers: &[Layer], values: &[Value], outputs: &[Id]) -> Homes {
        let mut homes = Homes((0..values.len()).map(|v| (v, 0)).collect());
        // The last first: where a concatenation lies is known when its parts are looked at.
        for concat in layers.iter().rev().filter(|l| matches!(l.op, Op::Concat)) {
            let (home, mut channel) = homes.0[concat.output];
            for part in &concat.inputs {
                let value = &values[*part];
                let whole = [channel, value.c].iter().all(|c| c.is_multiple_of(isa.lanes())) && value.quant.is_none();
                if whole && !outputs.contains(part) && homes.fits(layers, values, *part, concat, home) {
                    homes.0[*part] = (home, channel);
                }
                channel += value.c;
            }
        }
        homes
    }

    /// The value whose buffer a value lies in.
    pub fn of(&self, value: Id) -> Id {
        self.0[value].0
    }

    /// Where the channels of a value lie in that buffer.
    pub fn among(&self, isa: Isa, values: &[Value], value: Id) -> Among {
        let (home, first) = self.0[value];
        Among { pitch: isa.padded(values[home].c), first, channels: isa.padded(values[value].c) }
    }

    /// Whether the layer that makes a part of `concat` can write it among others, and those that read it can read it there. None
    /// of them may read and write the same buffer.
    fn fits(&self, layers: &[Layer], values: &[Value], part: Id, concat: &Layer, home: Id) -> bool {
        let Some(source) = layers.iter().find(|l| l.output == part) else { return false };
        let apart = source.reads().all(|v| self.of(v) != home);
        let writes = match &source.op {
            Op::Concat => true,
            Op::MaxPool(_) | Op::MeanPool(..) => apart,
            Op::Conv(conv) => {
                let floats = values[source.inputs[0]].quant.is_none() && values[part].pixels() > 1;
                floats && conv.kind == Kind::Full && conv.residual.is_none() && apart
            }
            _ => false,
        };
        let reads = |layer: &Layer| match &layer.op {
            Op::Concat => layer.output == concat.output,
            Op::Conv(conv) => {
                let plain = is_pointwise(conv) && conv.first.is_none() && conv.read == OPEN && conv.residual.is_none();
                let gated = matches!(&conv.prelude, Some(Prelude::Gate(_)));
                plain && !gated && self.of(layer.output) != home
            }
            _ => false,
        };
        let mut readers = layers.iter().filter(|l| l.reads().any(|v| v == part));
        let once = concat.inputs.iter().filter(|v| **v == part).count() == 1;
        writes && once && readers.all(reads)
    }
}

#[cfg(test)]
mod tests;
