//! Steps: what runs for each picture, without allocating.

use edge_kernels::{
    Buffer, Depthwise, Epilogue, Im2col, Isa, Strides, Threads, Weights, Window, add, average, gemm, gemv, max_pool,
};

/// What a step reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The picture, as it was handed in.
    Picture,
    /// A buffer.
    Slot(usize),
}

/// Positions, in pieces of `size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pieces {
    /// Positions in a piece; the last may have fewer.
    pub size: usize,
    /// All positions.
    pub positions: usize,
}

/// Where a matrix product finds its rows.
pub enum Rows {
    /// In the input, from these places on.
    Direct(Vec<u32>),
    /// In a strip, copied from under a window.
    Im2col(Im2col),
    /// In a strip, made by a depthwise convolution.
    Depthwise(Box<Depthwise>),
}

/// What a step does.
pub enum Work {
    /// Copies the picture, its channels padded.
    Import { strides: Strides, width: usize, channels: usize, padded: usize },
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
    /// A depthwise convolution by itself.
    Depthwise { depthwise: Box<Depthwise>, pieces: Pieces },
    /// The maximum under a window.
    MaxPool { window: Window, channels: usize, pieces: Pieces },
    /// The mean of each channel.
    Average { channels: usize, pixels: usize },
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
    pub out: usize,
    /// How many values of it.
    pub size: usize,
    /// Multiplications, each with an addition.
    pub macs: usize,
}

/// The values of an input.
pub fn lend<'a>(input: Input, picture: &'a [f32], buffers: &'a [Buffer]) -> &'a [f32] {
    match input {
        Input::Picture => picture,
        Input::Slot(slot) => &buffers[slot],
    }
}

impl Step {
    /// Runs the step.
    pub fn run(
        &self,
        isa: Isa,
        picture: &[f32],
        buffers: &mut [Buffer],
        scratch: &mut [Buffer],
        threads: &mut Threads,
    ) {
        // The buffer that is written is taken out; what is read stays. A buffer that is not there costs nothing.
        let mut own = std::mem::take(&mut buffers[self.out]);
        let out = &mut own[..self.size];
        let input = lend(self.input, picture, buffers);
        match &self.work {
            Work::Import { strides, width, channels, padded } => {
                for (at, pixel) in out.chunks_exact_mut(*padded).enumerate() {
                    let first = at / width * strides.row + at % width * strides.column;
                    for (c, value) in pixel.iter_mut().enumerate() {
                        *value = if c < *channels { input[first + c * strides.channel] } else { 0.0 };
                    }
                }
            }
            Work::Conv { rows, weights, bias, written, residual, pieces, table, columns } => {
                let added = residual.map(|slot| &buffers[slot][..self.size]);
                let epilogue = |first: usize, len: usize| Epilogue {
                    bias,
                    residual: added.map(|r| &r[first..first + len]),
                    low: written[0],
                    high: written[1],
                };
                if let (Rows::Direct(_), 1) = (rows, pieces.positions) {
                    let input = &input[..weights.k()];
                    threads.chunks(out, *columns, scratch, |piece, out, _| {
                        let first = piece * columns;
                        gemv(input, weights, first, &epilogue(first, out.len()), out);
                    });
                } else {
                    let n = weights.n();
                    threads.chunks(out, pieces.size * n, scratch, |piece, out, strip| {
                        let first = piece * pieces.size;
                        let count = out.len() / n;
                        let positions = first..first + count;
                        let epilogue = epilogue(first * n, out.len());
                        match rows {
                            Rows::Direct(rows) => gemm(input, &rows[positions], weights, &epilogue, out),
                            Rows::Im2col(im2col) => {
                                let strip = &mut strip[..count * im2col.k()];
                                im2col.run(input, positions, strip);
                                gemm(strip, &table[..count], weights, &epilogue, out);
                            }
                            Rows::Depthwise(depthwise) => {
                                let strip = &mut strip[..count * depthwise.channels()];
                                depthwise.run(&input[..depthwise.input_len()], positions, strip);
                                gemm(strip, &table[..count], weights, &epilogue, out);
                            }
                        }
                    });
                }
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
            Work::Add { other, limits, chunk } => {
                let other = other.map(|slot| &buffers[slot][..self.size]);
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
        }
        buffers[self.out] = own;
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
