//! Where a matrix product finds its rows, and what it multiplies them with.

use super::step::Scratch;
use edge_kernels::{Among, Depthwise, Function, Im2col, Isa, Places, Quads, Scale, Weights8};
use std::ops::Range;

/// What a matrix product of whole numbers becomes.
pub struct Requantize {
    /// Per column.
    pub factor: Vec<f32>,
    /// Per column.
    pub offset: Vec<f32>,
    /// Of the result, its zero point taken off.
    pub limits: [f32; 2],
    /// The zero point of the result.
    pub zero: i32,
}

impl Requantize {
    pub fn lend(&self) -> Scale<'_> {
        Scale { factor: &self.factor, offset: &self.offset, limits: self.limits, zero: self.zero }
    }
}

/// Where the rows of a matrix product lie in memory.
pub struct Starts {
    /// Where each begins.
    pub starts: Vec<u32>,
    /// From a run of values of a row to its next.
    pub pitch: usize,
}

impl Starts {
    pub fn lend(&self, rows: Range<usize>) -> Places<'_> {
        Places { starts: &self.starts[rows], pitch: self.pitch }
    }
}

/// Where a matrix product finds its rows.
pub enum Rows {
    /// In the input.
    Direct(Starts),
    /// In a strip, copied from under a window.
    Im2col(Im2col),
    /// In a strip, made by a depthwise convolution and perhaps a function.
    Depthwise(Box<Depthwise>, Option<Function>),
    /// In a strip, the input's pixels, which lie so, scaled by channel.
    Scaled(Scaled, Among),
    /// In a strip, the input's pixels, which lie so, multiplied by channel with what lies in this buffer.
    Gated(usize, Among),
}

/// Factors and offsets by channel, and limits of what they make.
pub struct Scaled {
    /// Factors.
    pub mul: Vec<f32>,
    /// Offsets.
    pub add: Vec<f32>,
    /// Limits.
    pub written: [f32; 2],
}

/// Where a matrix product of whole numbers finds its rows.
pub enum Rows8 {
    /// In the input.
    Direct(Starts),
    /// In a strip, copied from under a window; the zero point, which is outside the picture, too.
    Im2col(Im2col, u8),
    /// In a strip, made by a depthwise convolution.
    Depthwise(Box<Depthwise>),
}

impl Rows8 {
    /// Rows of `k` values for some positions, their zero point taken off.
    pub fn shorts<'a>(
        &self,
        isa: Isa,
        k: usize,
        input: &[u8],
        positions: Range<usize>,
        scratch: &'a mut Scratch,
    ) -> &'a [i16] {
        let strip = &mut scratch.shorts[..positions.len() * k];
        match self {
            Rows8::Direct(_) => {}
            Rows8::Im2col(im2col, zero) => im2col.run_shorts(isa, input, *zero, positions, strip),
            Rows8::Depthwise(depthwise) => depthwise.run_strip(&input[..depthwise.input_len()], positions, strip),
        }
        strip
    }

    /// Rows of `k` bytes for some positions, and where each begins.
    pub fn bytes<'a>(
        &'a self,
        isa: Isa,
        k: usize,
        table: &'a [u32],
        input: &'a [u8],
        positions: Range<usize>,
        scratch: &'a mut Scratch,
    ) -> (&'a [u8], Places<'a>) {
        let table = Places { starts: &table[..positions.len().min(table.len())], pitch: 0 };
        match self {
            Rows8::Direct(rows) => (input, rows.lend(positions)),
            Rows8::Im2col(im2col, zero) => {
                let strip = &mut scratch.bytes[..positions.len() * k];
                im2col.run_bytes(isa, input, *zero, positions, strip);
                (strip, table)
            }
            Rows8::Depthwise(depthwise) => {
                let strip = &mut scratch.bytes[..positions.len() * depthwise.channels()];
                depthwise.run_bytes(&input[..depthwise.input_len()], positions, strip);
                (strip, table)
            }
        }
    }
}

/// Weights in whole numbers.
pub enum Whole {
    /// Multiplied in pairs, with rows from which the zero point is taken off.
    Pairs(Weights8),
    /// Multiplied in fours, with rows as they are, which begin at these places of a strip.
    Quads(Quads, Vec<u32>),
}

impl Whole {
    /// Rows.
    pub fn k(&self) -> usize {
        match self {
            Whole::Pairs(weights) => weights.k(),
            Whole::Quads(weights, _) => weights.k(),
        }
    }

    /// Columns, padded to whole vectors.
    pub fn n(&self) -> usize {
        match self {
            Whole::Pairs(weights) => weights.n(),
            Whole::Quads(weights, _) => weights.n(),
        }
    }

    /// Multiplies some rows in the way that the weights are for: by `pairs` or by `quads`, which say what is written.
    #[allow(clippy::too_many_arguments)]
    pub fn multiply<C>(
        &self,
        isa: Isa,
        rows: &Rows8,
        input: &[u8],
        positions: Range<usize>,
        scratch: &mut Scratch,
        scale: &Requantize,
        out: &mut [C],
        pairs: fn(&[i16], &Weights8, &Scale<'_>, &mut [C]),
        quads: fn(&Quads, &[u8], Places<'_>, &Scale<'_>, &mut [C]),
    ) {
        match self {
            Whole::Pairs(weights) => {
                let strip = rows.shorts(isa, weights.k(), input, positions, scratch);
                pairs(strip, weights, &scale.lend(), out);
            }
            Whole::Quads(weights, table) => {
                let (a, rows) = rows.bytes(isa, weights.k(), table, input, positions, scratch);
                quads(weights, a, rows, &scale.lend(), out);
            }
        }
    }
}
