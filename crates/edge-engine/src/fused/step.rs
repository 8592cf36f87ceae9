//! Steps: what runs for each picture, without allocating.

use super::graph::{OPEN, Quant};
use super::rows::{Requantize, Rows, Rows8, Scaled, Whole};
use edge_kernels::{
    Affine, Among, Buffer, Counted, Depthwise, Epilogue, Function, Import, Isa, Places, Quads, Threads, Weights,
    Window, Winograd, add, apply, average, dequantize, gemm_among, gemm8, gemm8_float, gemv, max_pool, max_pool_bytes,
    mean_pool, multiply, quantize, requantize, scale_rows, sum_bytes,
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

/// Positions, in pieces of `size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pieces {
    /// Positions in a piece; the last may have fewer.
    pub size: usize,
    /// All positions.
    pub positions: usize,
}

/// Channels that are copied beside others.
pub struct Part {
    /// The buffer that they lie in.
    pub slot: usize,
    /// Where in it.
    pub from: Among,
    /// How many.
    pub channels: usize,
    /// Where in a pixel they go.
    pub first: usize,
}

/// What a step does.
pub enum Work {
    /// Lays the picture out anew; as bytes where there is a scale, or with factors and offsets by channel.
    Import { import: Import, quant: Option<Quant>, scaled: Option<[[f32; 3]; 2]> },
    /// A matrix product with what stands before and after it.
    Conv {
        rows: Rows,
        weights: Weights,
        bias: Vec<f32>,
        written: [f32; 2],
        /// Applied to what is written.
        function: Option<Function>,
        residual: Option<usize>,
        pieces: Pieces,
        /// Where the rows of a strip begin.
        table: Vec<u32>,
        /// Columns per piece where there is one row.
        columns: usize,
    },
    /// A convolution with fewer multiplications.
    Winograd {
        layer: Box<Winograd>,
        bias: Vec<f32>,
        written: [f32; 2],
        /// Applied to what is written.
        function: Option<Function>,
        residual: Option<usize>,
        /// Rows of tiles per piece.
        rows: usize,
    },
    /// A matrix product of whole numbers with what stands before and after it.
    Conv8 { rows: Rows8, weights: Whole, scale: Requantize, pieces: Pieces },
    /// A depthwise convolution by itself.
    Depthwise { depthwise: Box<Depthwise>, pieces: Pieces, function: Option<Function> },
    /// The maximum under a window.
    MaxPool { window: Window, channels: usize, pieces: Pieces },
    /// The mean under a window.
    MeanPool { window: Window, counted: Counted, channels: usize, pieces: Pieces },
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
    /// A function of each value.
    Apply { function: Function, chunk: usize },
    /// A product, value by value.
    Multiply { other: usize, chunk: usize },
    /// Pixels multiplied by channel.
    Scale { by: usize, channels: usize, pieces: Pieces },
    /// Channels beside each other: these parts of so many are copied, the others were made there; and what pads a pixel.
    Concat { parts: Vec<Part>, count: usize, padding: Range<usize>, pieces: Pieces },
    /// Softmax of the first `count` values.
    Softmax { count: usize },
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
    /// How many values of it, with those that it leaves as they are.
    pub size: usize,
    /// Where in it the channels lie that it writes.
    pub among: Among,
    /// Bytes that it reads beside its weights.
    pub read: usize,
    /// Multiplications, each with an addition.
    pub macs: usize,
    /// How many of them are a depthwise convolution's.
    pub depthwise: usize,
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
        let (input, among) = (lend(self.input, picture, memory), self.among);
        let other = |slot: &Option<usize>| slot.map(|slot| &memory.floats[slot][..self.size]);
        match &self.work {
            Work::Import { import, scaled, .. } => {
                let row = import.made()[1] * import.pixel;
                threads.chunks(out, ROWS * row, scratch, |piece, out, _| {
                    let rows = piece * ROWS..piece * ROWS + out.len() / row;
                    match *scaled {
                        None => import.run(isa, input, rows, out),
                        Some([mul, add]) => import.run_scaled(isa, input, mul, add, rows, out),
                    }
                });
            }
            Work::Conv { rows, weights, bias, written, function, residual, pieces, table, columns } => {
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
                        then(isa, function, Among::alone(out.len()), out);
                    });
                    return;
                }
                threads.chunks(out, pieces.size * among.pitch, scratch, |piece, out, scratch| {
                    let first = piece * pieces.size;
                    let count = out.len() / among.pitch;
                    let positions = first..first + count;
                    let epilogue = epilogue(first * among.pitch, out.len());
                    let k = weights.k();
                    let pixels = |from: &Among| &input[positions.start * from.pitch..positions.end * from.pitch];
                    let row = if let Rows::Depthwise(d, _) = rows { d.channels() } else { k };
                    let strip = match rows {
                        Rows::Direct(_) => &mut [],
                        _ => &mut scratch.floats[..count * row],
                    };
                    match rows {
                        Rows::Direct(rows) => {
                            gemm_among(input, rows.lend(positions.clone()), weights, &epilogue, among, out);
                        }
                        Rows::Im2col(im2col) => im2col.run(input, positions.clone(), strip),
                        Rows::Depthwise(depthwise, function) => {
                            depthwise.run(&input[..depthwise.input_len()], positions.clone(), strip);
                            then(isa, function, Among::alone(row), strip);
                        }
                        Rows::Scaled(Scaled { mul, add, written }, from) => {
                            scale_rows(isa, *from, pixels(from), mul, Some(add), *written, strip);
                        }
                        Rows::Gated(by, from) => {
                            scale_rows(isa, *from, pixels(from), &memory.floats[*by][..k], None, OPEN, strip);
                        }
                    }
                    if !matches!(rows, Rows::Direct(_)) {
                        let rows = Places { starts: &table[..count], pitch: 0 };
                        gemm_among(strip, rows, weights, &epilogue, among, out);
                    }
                    then(isa, function, among, out);
                });
            }
            Work::Winograd { layer, bias, written, function, residual, rows } => {
                let w = layer.window();
                let input = &input[..w.input[0] * w.input[1] * layer.channels()];
                let (added, row) = (other(residual), 2 * w.output[1] * among.pitch);
                threads.chunks(out, rows * row, scratch, |piece, out, scratch| {
                    let (first, at) = (piece * rows, piece * rows * row);
                    let epilogue = Epilogue {
                        bias,
                        residual: added.map(|r| &r[at..at + out.len()]),
                        low: written[0],
                        high: written[1],
                    };
                    let rows = first..first + out.len().div_ceil(row);
                    layer.run(input, rows, &epilogue, &mut scratch.floats, among, out);
                    then(isa, function, among, out);
                });
            }
            Work::Depthwise { depthwise, pieces, function } => {
                let input = &input[..depthwise.input_len()];
                let channels = depthwise.channels();
                threads.chunks(out, pieces.size * channels, scratch, |piece, out, _| {
                    let first = piece * pieces.size;
                    depthwise.run(input, first..first + out.len() / channels, out);
                    then(isa, function, among, out);
                });
            }
            Work::MaxPool { window, channels, pieces } => {
                let input = &input[..window.input[0] * window.input[1] * channels];
                threads.chunks(out, pieces.size * among.pitch, scratch, |piece, out, _| {
                    let first = piece * pieces.size;
                    max_pool(isa, window, among, input, first..first + out.len() / among.pitch, out);
                });
            }
            Work::MeanPool { window, counted, channels, pieces } => {
                let input = &input[..window.input[0] * window.input[1] * channels];
                threads.chunks(out, pieces.size * among.pitch, scratch, |piece, out, _| {
                    let first = piece * pieces.size;
                    mean_pool(isa, window, *counted, among, input, first..first + out.len() / among.pitch, out);
                });
            }
            Work::Apply { function, chunk } => threads.chunks(out, *chunk, scratch, |piece, out, _| {
                out.copy_from_slice(&input[piece * chunk..piece * chunk + out.len()]);
                apply(isa, *function, out);
            }),
            Work::Multiply { other, chunk } => {
                let other = &memory.floats[*other][..self.size];
                threads.chunks(out, *chunk, scratch, |piece, out, _| {
                    let range = piece * chunk..piece * chunk + out.len();
                    multiply(isa, &input[range.clone()], &other[range], out);
                });
            }
            Work::Scale { by, channels, pieces } => {
                let by = &memory.floats[*by][..*channels];
                threads.chunks(out, pieces.size * channels, scratch, |piece, out, _| {
                    let first = piece * pieces.size * channels;
                    scale_rows(isa, among, &input[first..first + out.len()], by, None, OPEN, out);
                });
            }
            Work::Concat { parts, .. } if parts.is_empty() => {}
            Work::Concat { parts, padding, pieces, .. } => {
                threads.chunks(out, pieces.size * among.pitch, scratch, |piece, out, _| {
                    for Part { slot, from, channels, first } in parts {
                        let pixels = memory.floats[*slot][piece * pieces.size * from.pitch..].chunks_exact(from.pitch);
                        for (pixel, from) in out.chunks_exact_mut(among.pitch).zip(pixels.map(|p| &p[from.first..])) {
                            pixel[*first..first + channels].copy_from_slice(&from[..*channels]);
                        }
                    }
                    out.chunks_exact_mut(among.pitch).for_each(|pixel| pixel[padding.clone()].fill(0.0));
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
            Work::Softmax { count } => softmax(&input[..*count], out),
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
                Work::Import { import, quant: Some(quant), .. } => {
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
            Work::Depthwise { depthwise, pieces, .. } => {
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

/// Applies a function to channels.
fn then(isa: Isa, function: &Option<Function>, among: Among, out: &mut [f32]) {
    match function {
        None => {}
        Some(function) if among.is_alone() => apply(isa, *function, out),
        Some(function) => {
            let channels = among.first..among.first + among.channels;
            out.chunks_exact_mut(among.pitch).for_each(|pixel| apply(isa, *function, &mut pixel[channels.clone()]));
        }
    }
}

/// e^x of each value, divided by the sum of all.
fn softmax(input: &[f32], out: &mut [f32]) {
    let out = &mut out[..input.len()];
    let largest = input.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    out.iter_mut().zip(input).for_each(|(o, x)| *o = (x - largest).exp());
    let sum: f32 = out.iter().sum();
    out.iter_mut().for_each(|o| *o /= sum);
}
