//! Steps: what runs for each picture, without allocating.

use super::graph::Quant;
use edge_kernels::{
    Affine, Buffer, Depthwise, Epilogue, Im2col, Import, Isa, Places, Quads, Scale, Threads, Weights, Weights8, Window,
    add, average, dequantize, gemm, gemm8, gemm8_float, gemv, max_pool, max_pool_bytes, quantize, requantize,
    sum_bytes,
};

use std::ops::Range;

/// Rows of the picture that are laid out at a time.
const ROWS: usize = 16;

/// What a step reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The picture, as it was handed in.
    Picture,
    /// A buffer of real numbers.
    Slot(usize),
    /// A buffer of bytes.
    Bytes(usize),
}

/// Memory of the values between steps; several values take turns in one buffer.
#[derive(Default)]
pub struct Memory {
    /// Real numbers.
    pub floats: Vec<Buffer>,
    /// Bytes.
    pub bytes: Vec<Buffer<u8>>,
}

/// Memory of a thread for a strip.
#[derive(Default)]
pub struct Scratch {
    /// Real numbers.
    pub floats: Buffer,
    /// Whole ones.
    pub shorts: Buffer<i16>,
    /// Bytes.
    pub bytes: Buffer<u8>,
}

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

/// Positions, in pieces of `size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pieces {
    /// Positions in a piece; the last may have fewer.
    pub size: usize,
    /// All positions.
    pub positions: usize,
}

/// Where the rows of a matrix product lie in memory.
pub struct Starts {
    /// Where each begins.
    pub starts: Vec<u32>,
    /// From a run of values of a row to its next.
    pub pitch: usize,
}

impl Starts {
    fn lend(&self, rows: Range<usize>) -> Places<'_> {
        Places { starts: &self.starts[rows], pitch: self.pitch }
    }
}

/// Where a matrix product finds its rows.
pub enum Rows {
    /// In the input.
    Direct(Starts),
    /// In a strip, copied from under a window.
    Im2col(Im2col),
    /// In a strip, made by a depthwise convolution.
    Depthwise(Box<Depthwise>),
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
    fn multiply<C>(
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

/// What a step does.
pub enum Work {
    /// Lays the picture out anew; as bytes where there is a scale.
    Import { import: Import, quant: Option<Quant> },
    /// A matrix product with what stands before and after it.
    Conv {
        rows: Rows,
        weights: Weights,
        bias: Vec<f32>,
        written: [f32; 2],
        residual: Option<usize>,
        pieces: Pieces,
        /// Where the rows of a strip begin.
        table: Vec<u32>,
        /// Columns per piece where there is one row.
        columns: usize,
    },
    /// A matrix product of whole numbers with what stands before and after it.
    Conv8 { rows: Rows8, weights: Whole, scale: Requantize, pieces: Pieces },
    /// A depthwise convolution by itself.
    Depthwise { depthwise: Box<Depthwise>, pieces: Pieces },
    /// The maximum under a window.
    MaxPool { window: Window, channels: usize, pieces: Pieces },
    /// The mean of each channel.
    Average { channels: usize, pixels: usize },
    /// Another scale, to or from bytes; with another value, a sum.
    Rescale { other: Option<usize>, affine: Affine, chunk: usize },
    /// The mean of each channel of bytes, and its scale.
    AverageBytes { channels: usize, pixels: usize, affine: Affine },
    /// A sum, or limits alone.
    Add { other: Option<usize>, limits: [f32; 2], chunk: usize },
    /// Zeros around a picture.
    Pad { window: Window, channels: usize },
    /// Softmax or sigmoid of the first `count` values.
    Scores { softmax: bool, count: usize },
}

/// A step.
pub struct Step {
    /// The nodes of the file that it computes.
    pub nodes: Vec<usize>,
    /// What it does.
    pub work: Work,
    /// What it reads.
    pub input: Input,
    /// The buffer that it writes.
    pub out: Input,
    /// How many values of it.
    pub size: usize,
    /// Multiplications, each with an addition.
    pub macs: usize,
}

/// The real numbers of an input.
pub fn lend<'a>(input: Input, picture: &'a [f32], memory: &'a Memory) -> &'a [f32] {
    match input {
        Input::Picture => picture,
        Input::Slot(slot) => &memory.floats[slot],
        Input::Bytes(_) => &[],
    }
}

impl Step {
    /// Runs the step.
    pub fn run(&self, isa: Isa, picture: &[f32], memory: &mut Memory, scratch: &mut [Scratch], threads: &mut Threads) {
        // The buffer that is written is taken out; what is read stays. A buffer that is not there costs nothing.
        match self.out {
            Input::Bytes(slot) => {
                let mut own = std::mem::take(&mut memory.bytes[slot]);
                self.write_bytes(isa, picture, memory, scratch, threads, &mut own[..self.size]);
                memory.bytes[slot] = own;
            }
            Input::Slot(slot) => {
                let mut own = std::mem::take(&mut memory.floats[slot]);
                let out = &mut own[..self.size];
                match self.input {
                    Input::Bytes(input) => self.leave_bytes(isa, &memory.bytes[input], memory, scratch, threads, out),
                    _ => self.write_floats(isa, picture, memory, scratch, threads, out),
                }
                memory.floats[slot] = own;
            }
            Input::Picture => {}
        }
    }

    /// Real numbers from real numbers.
    fn write_floats(
        &self,
        isa: Isa,
        picture: &[f32],
        memory: &Memory,
        scratch: &mut [Scratch],
        threads: &mut Threads,
        out: &mut [f32],
    ) {
        let input = lend(self.input, picture, memory);
        let other = |slot: &Option<usize>| slot.map(|slot| &memory.floats[slot][..self.size]);
        match &self.work {
            Work::Import { import, .. } => {
                let row = import.made()[1] * import.pixel;
                threads.chunks(out, ROWS * row, scratch, |piece, out, _| {
                    let first = piece * ROWS;
                    import.run(isa, input, first..first + out.len() / row, out);
                });
            }
            Work::Conv { rows, weights, bias, written, residual, pieces, table, columns } => {
                let added = other(residual);
                let epilogue = |first: usize, len: usize| Epilogue {
                    bias,
                    residual: added.map(|r| &r[first..first + len]),
                    low: written[0],
                    high: written[1],
                };
                if let (Rows::Direct(_), 1, 1) = (rows, pieces.positions, weights.runs()) {
                    let input = &input[..weights.k()];
                    threads.chunks(out, *columns, scratch, |piece, out, _| {
                        let first = piece * columns;
                        gemv(input, weights, first, &epilogue(first, out.len()), out);
                    });
                    return;
                }
                let n = weights.n();
                threads.chunks(out, pieces.size * n, scratch, |piece, out, scratch| {
                    let first = piece * pieces.size;
                    let count = out.len() / n;
                    let positions = first..first + count;
                    let epilogue = epilogue(first * n, out.len());
                    match rows {
                        Rows::Direct(rows) => gemm(input, rows.lend(positions), weights, &epilogue, out),
                        Rows::Im2col(im2col) => {
                            let strip = &mut scratch.floats[..count * im2col.k()];
                            im2col.run(input, positions, strip);
                            gemm(strip, Places { starts: &table[..count], pitch: 0 }, weights, &epilogue, out);
                        }
                        Rows::Depthwise(depthwise) => {
                            let strip = &mut scratch.floats[..count * depthwise.channels()];
                            depthwise.run(&input[..depthwise.input_len()], positions, strip);
                            gemm(strip, Places { starts: &table[..count], pitch: 0 }, weights, &epilogue, out);
                        }
                    }
                });
            }
            Work::Depthwise { depthwise, pieces } => {
                let input = &input[..depthwise.input_len()];
                let channels = depthwise.channels();
                threads.chunks(out, pieces.size * channels, scratch, |piece, out, _| {
                    let first = piece * pieces.size;
                    depthwise.run(input, first..first + out.len() / channels, out);
                });
            }
            Work::MaxPool { window, channels, pieces } => {
                let input = &input[..window.input[0] * window.input[1] * channels];
                threads.chunks(out, pieces.size * channels, scratch, |piece, out, _| {
                    let first = piece * pieces.size;
                    max_pool(isa, window, *channels, input, first..first + out.len() / channels, out);
                });
            }
            Work::Average { channels, pixels } => average(isa, *channels, &input[..channels * pixels], out),
            Work::Add { other: slot, limits, chunk } => {
                let other = other(slot);
                threads.chunks(out, *chunk, scratch, |piece, out, _| {
                    let range = piece * chunk..piece * chunk + out.len();
                    add(isa, &input[range.clone()], other.map(|o| &o[range]), *limits, out);
                });
            }
            Work::Pad { window, channels } => {
                for (at, pixel) in out.chunks_exact_mut(*channels).enumerate() {
                    let (y, x) = (at / window.output[1], at % window.output[1]);
                    match window.pixel(y, x) {
                        Some(from) => pixel.copy_from_slice(&input[from * channels..(from + 1) * channels]),
                        None => pixel.fill(0.0),
                    }
                }
            }
            Work::Scores { softmax, count } => scores(*softmax, &input[..*count], out),
            Work::Conv8 { .. } | Work::Rescale { .. } | Work::AverageBytes { .. } => {}
        }
    }

    /// Real numbers from bytes.
    fn leave_bytes(
        &self,
        isa: Isa,
        input: &[u8],
        memory: &Memory,
        scratch: &mut [Scratch],
        threads: &mut Threads,
        out: &mut [f32],
    ) {
        match &self.work {
            Work::Conv8 { rows, weights, scale, pieces } => {
                let n = weights.n();
                threads.chunks(out, pieces.size * n, scratch, |piece, out, scratch| {
                    let first = piece * pieces.size;
                    let positions = first..first + out.len() / n;
                    weights.multiply(
                        isa,
                        rows,
                        input,
                        positions,
                        scratch,
                        scale,
                        out,
                        gemm8_float,
                        Quads::multiply_float,
                    );
                });
            }
            Work::Rescale { other, affine, chunk } => {
                let other = other.map(|slot| &memory.bytes[slot][..self.size]);
                threads.chunks(out, *chunk, scratch, |piece, out, _| {
                    let range = piece * chunk..piece * chunk + out.len();
                    dequantize(isa, affine, &input[range.clone()], other.map(|o| &o[range]), out);
                });
            }
            Work::AverageBytes { channels, pixels, affine } => {
                sum_bytes(isa, &input[..channels * pixels], out);
                let [low, high] = affine.limits;
                out.iter_mut().for_each(|v| *v = (*v * affine.factors[0] + affine.offset).max(low).min(high));
            }
            _ => {}
        }
    }

    /// Bytes.
    fn write_bytes(
        &self,
        isa: Isa,
        picture: &[f32],
        memory: &Memory,
        scratch: &mut [Scratch],
        threads: &mut Threads,
        out: &mut [u8],
    ) {
        let Input::Bytes(slot) = self.input else {
            let input = lend(self.input, picture, memory);
            match &self.work {
                Work::Import { import, quant: Some(quant) } => {
                    let row = import.made()[1] * import.pixel;
                    threads.chunks(out, ROWS * row, scratch, |piece, out, _| {
                        let rows = piece * ROWS..piece * ROWS + out.len() / row;
                        import.run_bytes(isa, input, quant.scale, quant.zero as u8, rows, out);
                    });
                }
                Work::Rescale { affine, chunk, .. } => threads.chunks(out, *chunk, scratch, |piece, out, _| {
                    let range = piece * chunk..piece * chunk + out.len();
                    quantize(isa, affine, &input[range], out);
                }),
                _ => {}
            }
            return;
        };
        let input: &[u8] = &memory.bytes[slot];
        match &self.work {
            Work::Conv8 { rows, weights, scale, pieces } => {
                let n = weights.n();
                threads.chunks(out, pieces.size * n, scratch, |piece, out, scratch| {
                    let first = piece * pieces.size;
                    let positions = first..first + out.len() / n;
                    weights.multiply(isa, rows, input, positions, scratch, scale, out, gemm8, Quads::multiply);
                });
            }
            Work::Depthwise { depthwise, pieces } => {
                let input = &input[..depthwise.input_len()];
                let channels = depthwise.channels();
                threads.chunks(out, pieces.size * channels, scratch, |piece, out, _| {
                    let first = piece * pieces.size;
                    depthwise.run_bytes(input, first..first + out.len() / channels, out);
                });
            }
            Work::MaxPool { window, channels, pieces } => {
                let input = &input[..window.input[0] * window.input[1] * channels];
                threads.chunks(out, pieces.size * channels, scratch, |piece, out, _| {
                    let first = piece * pieces.size;
                    max_pool_bytes(isa, window, *channels, input, first..first + out.len() / channels, out);
                });
            }
            Work::Rescale { other, affine, chunk } => {
                let other = other.map(|slot| &memory.bytes[slot][..self.size]);
                threads.chunks(out, *chunk, scratch, |piece, out, _| {
                    let range = piece * chunk..piece * chunk + out.len();
                    requantize(isa, affine, &input[range.clone()], other.map(|o| &o[range]), out);
                });
            }
            Work::AverageBytes { channels, pixels, affine } => {
                let sums = &mut scratch[0].floats[..*channels];
                sum_bytes(isa, &input[..channels * pixels], sums);
                quantize(isa, affine, sums, out);
            }
            _ => {}
        }
    }
}

impl Requantize {
    fn lend(&self) -> Scale<'_> {
        Scale { factor: &self.factor, offset: &self.offset, limits: self.limits, zero: self.zero }
    }
}

impl Rows8 {
    /// Rows of `k` values for some positions, their zero point taken off.
    fn shorts<'a>(
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
    fn bytes<'a>(
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

/// Softmax or sigmoid.
fn scores(softmax: bool, input: &[f32], out: &mut [f32]) {
    let out = &mut out[..input.len()];
    if !softmax {
        out.iter_mut().zip(input).for_each(|(o, x)| *o = 1.0 / (1.0 + (-x).exp()));
        return;
    }
    let largest = input.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    out.iter_mut().zip(input).for_each(|(o, x)| *o = (x - largest).exp());
    let sum: f32 = out.iter().sum();
    out.iter_mut().for_each(|o| *o /= sum);
}
