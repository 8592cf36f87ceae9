//! Steps: what runs for each picture, without allocating.

use super::graph::{OPEN, Quant};
use super::rows::{Requantize, Rows, Rows8, Scaled, Whole};
use edge_kernels::{
    Affine, Buffer, Counted, Depthwise, Epilogue, Function, Import, Isa, Places, Quads, Threads, Weights, Window,
    Winograd, add, apply, average, dequantize, gemm, gemm8, gemm8_float, gemv, max_pool, max_pool_bytes, mean_pool,
    multiply, quantize, requantize, scale_rows, sum_bytes,
};

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

/// Channels that are put beside others.
pub struct Part {
    /// The buffer that they lie in.
    pub slot: usize,
    /// How many.
    pub channels: usize,
    /// Values from one pixel to the next.
    pub pixel: usize,
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
    /// Channels beside each other.
    Concat { parts: Vec<Part>, channels: usize, pieces: Pieces },
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
    /// How many values of it.
    pub size: usize,
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
        let input = lend(self.input, picture, memory);
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
                let then = |function: &Option<Function>, values: &mut [f32]| {
                    if let Some(function) = function {
                        apply(isa, *function, values);
                    }
                };
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
                        then(function, out);
                    });
                    return;
                }
                let n = weights.n();
                threads.chunks(out, pieces.size * n, scratch, |piece, out, scratch| {
                    let first = piece * pieces.size;
                    let count = out.len() / n;
                    let positions = first..first + count;
                    let epilogue = epilogue(first * n, out.len());
                    let k = weights.k();
                    let pixels = positions.start * k..positions.end * k;
                    let row = if let Rows::Depthwise(d, _) = rows { d.channels() } else { k };
                    let strip = match rows {
                        Rows::Direct(_) => &mut [],
                        _ => &mut scratch.floats[..count * row],
                    };
                    match rows {
                        Rows::Direct(rows) => gemm(input, rows.lend(positions), weights, &epilogue, out),
                        Rows::Im2col(im2col) => im2col.run(input, positions, strip),
                        Rows::Depthwise(depthwise, function) => {
                            depthwise.run(&input[..depthwise.input_len()], positions, strip);
                            then(function, strip);
                        }
                        Rows::Scaled(Scaled { mul, add, written }) => {
                            scale_rows(isa, &input[pixels], mul, Some(add), *written, strip);
                        }
                        Rows::Gated(by) => {
                            scale_rows(isa, &input[pixels], &memory.floats[*by][..k], None, OPEN, strip);
                        }
                    }
                    if !matches!(rows, Rows::Direct(_)) {
                        gemm(strip, Places { starts: &table[..count], pitch: 0 }, weights, &epilogue, out);
                    }
                    then(function, out);
                });
            }
            Work::Winograd { layer, bias, written, function, residual, rows } => {
                let w = layer.window();
                let input = &input[..w.input[0] * w.input[1] * layer.channels()];
                let (added, row) = (other(residual), 2 * w.output[1] * layer.n());
                threads.chunks(out, rows * row, scratch, |piece, out, scratch| {
                    let (first, at) = (piece * rows, piece * rows * row);
                    let epilogue = Epilogue {
                        bias,
                        residual: added.map(|r| &r[at..at + out.len()]),
                        low: written[0],
                        high: written[1],
                    };
                    layer.run(input, first..first + out.len().div_ceil(row), &epilogue, &mut scratch.floats, out);
                    if let Some(function) = function {
                        apply(isa, *function, out);
                    }
                });
            }
            Work::Depthwise { depthwise, pieces, function } => {
                let input = &input[..depthwise.input_len()];
                let channels = depthwise.channels();
                threads.chunks(out, pieces.size * channels, scratch, |piece, out, _| {
                    let first = piece * pieces.size;
                    depthwise.run(input, first..first + out.len() / channels, out);
                    if let Some(function) = function {
                        apply(isa, *function, out);
                    }
                });
            }
            Work::MaxPool { window, channels, pieces } => {
                let input = &input[..window.input[0] * window.input[1] * channels];
                threads.chunks(out, pieces.size * channels, scratch, |piece, out, _| {
                    let first = piece * pieces.size;
                    max_pool(isa, window, *channels, input, first..first + out.len() / channels, out);
                });
            }
            Work::MeanPool { window, counted, channels, pieces } => {
                let input = &input[..window.input[0] * window.input[1] * channels];
                threads.chunks(out, pieces.size * channels, scratch, |piece, out, _| {
                    let first = piece * pieces.size;
                    mean_pool(isa, window, *counted, *channels, input, first..first + out.len() / channels, out);
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
                    scale_rows(isa, &input[first..first + out.len()], by, None, OPEN, out);
                });
            }
            Work::Concat { parts, channels, pieces } => {
                threads.chunks(out, pieces.size * channels, scratch, |piece, out, _| {
                    let mut at = 0;
                    for part in parts {
                        let from = &memory.floats[part.slot][piece * pieces.size * part.pixel..];
                        for (pixel, from) in out.chunks_exact_mut(*channels).zip(from.chunks_exact(part.pixel)) {
                            pixel[at..at + part.channels].copy_from_slice(&from[..part.channels]);
                        }
                        at += part.channels;
                    }
                    out.chunks_exact_mut(*channels).for_each(|pixel| pixel[at..].fill(0.0));
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

/// e^x of each value, divided by the sum of all.
fn softmax(input: &[f32], out: &mut [f32]) {
    let out = &mut out[..input.len()];
    let largest = input.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    out.iter_mut().zip(input).for_each(|(o, x)| *o = (x - largest).exp());
    let sum: f32 = out.iter().sum();
    out.iter_mut().for_each(|o| *o /= sum);
}
