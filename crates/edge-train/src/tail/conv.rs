//! Convolutions forward and back: matrix products in the classifying kernels, depthwise ones row by row of channels.

use super::ops::{Op, add_to};
use super::{Parameter, Shape};
use crate::head::isa;
use edge_kernels::{Epilogue, Places, Weights, Window, add_products, gemm};

/// A convolution with all channels, or with a filter for each, or a dense layer.
#[derive(Debug, Clone)]
pub struct Conv {
    /// The number of its weights among the parameters: (outputs, inputs, height, width), or with `turned` (inputs, outputs).
    pub weights: usize,
    /// The number of its bias.
    pub bias: Option<usize>,
    pub window: Window,
    pub turned: bool,
}

/// A layer's weights as the kernels read them.
pub enum Packed {
    /// It has none.
    None,
    /// Of a convolution with all channels: for the pass forward, and for the pass back where something before is trained.
    Full(Weights, Option<Weights>),
    /// Of a depthwise one: for each tap a value per channel.
    Depthwise(Vec<f32>),
}

impl Packed {
    pub fn of(op: &Op, parameters: &[Parameter], back: bool) -> Packed {
        match op {
            Op::Conv(conv) => {
                let sizes = conv.sizes(parameters);
                let (w, k) = (&parameters[conv.weights].values, sizes.taps * sizes.inputs);
                let forward = Weights::pack(isa(), k, sizes.outputs, 1, |k, n| w[conv.place(&sizes, n, k)]);
                let back = back.then(|| Weights::pack(isa(), sizes.outputs, k, 1, |n, k| w[conv.place(&sizes, n, k)]));
                Packed::Full(forward, back)
            }
            Op::Depthwise(conv) => {
                let taps = conv.window.kernel.iter().product::<usize>();
                let w = &parameters[conv.weights].values;
                let channels = w.len() / taps.max(1);
                Packed::Depthwise((0..w.len()).map(|i| w[i % channels * taps + i / channels]).collect())
            }
            _ => Packed::None,
        }
    }
}

/// How many of what a filter has.
struct Sizes {
    outputs: usize,
    inputs: usize,
    taps: usize,
}

impl Conv {
    fn sizes(&self, parameters: &[Parameter]) -> Sizes {
        let taps = self.window.kernel.iter().product();
        match (self.turned, &parameters[self.weights].dims[..]) {
            (true, [inputs, outputs, ..]) | (false, [outputs, inputs, ..]) => {
                Sizes { outputs: *outputs, inputs: *inputs, taps }
            }
            _ => Sizes { outputs: 0, inputs: 0, taps },
        }
    }

    /// Where the weight of an output and of a channel under a tap (`k` counts those, tap by tap) lies in the file's order.
    #[inline(always)]
    fn place(&self, sizes: &Sizes, output: usize, k: usize) -> usize {
        match self.turned {
            true => k * sizes.outputs + output,
            false => (output * sizes.inputs + k % sizes.inputs) * sizes.taps + k / sizes.inputs,
        }
    }

    /// Whether the rows of a product are the pixels as they lie.
    fn direct(&self) -> bool {
        let w = &self.window;
        w.kernel == [1, 1] && w.stride == [1, 1] && w.input == w.output
    }

    /// Calls `each` with the place of a pixel of the output, the tap, and the place of the pixel under it, for all within the picture.
    fn pairs(&self, mut each: impl FnMut(usize, usize, usize)) {
        let w = &self.window;
        for at in 0..w.positions() {
            let (y, x) = (at / w.output[1], at % w.output[1]);
            for tap in 0..w.kernel[0] * w.kernel[1] {
                let (row, column) = (tap / w.kernel[1], tap % w.kernel[1]);
                if let (Some(row), Some(column)) = (w.source(0, y, row), w.source(1, x, column)) {
                    each(at, tap, row * w.input[1] + column);
                }
            }
        }
    }

    /// For each position all channels under all taps: the rows of a product.
    fn patches(&self, input: &[f32], channels: usize) -> Vec<f32> {
        let (w, taps) = (&self.window, self.window.kernel.iter().product::<usize>());
        let (picture, row) = (w.input[0] * w.input[1] * channels, taps * channels);
        let mut patches = vec![0.0; input.len() / picture * w.positions() * row];
        for (input, patches) in input.chunks_exact(picture).zip(patches.chunks_exact_mut(w.positions() * row)) {
            self.pairs(|at, tap, from| {
                let to = at * row + tap * channels;
                patches[to..to + channels].copy_from_slice(&input[from * channels..(from + 1) * channels]);
            });
        }
        patches
    }

    pub fn forward(&self, packed: &Packed, parameters: &[Parameter], input: &[f32], out: &mut [f32]) {
        let Packed::Full(weights, _) = packed else { return };
        let sizes = self.sizes(parameters);
        let bias = self.bias.map(|b| parameters[b].values.as_slice());
        match self.direct() {
            true => multiply(input, sizes.inputs, weights, sizes.outputs, bias, out),
            false => {
                let patches = self.patches(input, sizes.inputs);
                multiply(&patches, sizes.taps * sizes.inputs, weights, sizes.outputs, bias, out);
            }
        }
    }

    /// Adds the gradients of weights and bias.
    pub fn weigh(&self, parameters: &[Parameter], input: &[f32], slopes: &[f32], gradients: &mut [Vec<f32>]) {
        let sizes = self.sizes(parameters);
        let (k, n) = (sizes.taps * sizes.inputs, sizes.outputs);
        self.weigh_bias(slopes, n, gradients);
        let patches;
        let rows = match self.direct() {
            true => input,
            false => {
                patches = self.patches(input, sizes.inputs);
                &patches
            }
        };
        let count = slopes.len() / n;
        let turned = transpose(slopes, n);
        let packed = Weights::pack(isa(), count, k, 1, |row, column| rows[row * k + column]);
        let mut made = vec![0.0; n * k];
        multiply(&turned, count, &packed, k, None, &mut made);
        let gradient = &mut gradients[self.weights];
        match (self.turned, sizes.taps) {
            (false, 1) => add_to(gradient, &made),
            _ => (0..n * k).for_each(|i| gradient[self.place(&sizes, i / k, i % k)] += made[i]),
        }
    }

    fn weigh_bias(&self, slopes: &[f32], outputs: usize, gradients: &mut [Vec<f32>]) {
        if let Some(bias) = self.bias {
            slopes.chunks_exact(outputs).for_each(|row| add_to(&mut gradients[bias], row));
        }
    }

    /// The slopes at the input.
    pub fn back(&self, packed: &Packed, parameters: &[Parameter], input: usize, slopes: &[f32]) -> Vec<f32> {
        let mut before = vec![0.0; input];
        let Packed::Full(_, Some(weights)) = packed else { return before };
        let sizes = self.sizes(parameters);
        let k = sizes.taps * sizes.inputs;
        if self.direct() {
            multiply(slopes, sizes.outputs, weights, k, None, &mut before);
            return before;
        }
        let w = &self.window;
        let mut patches = vec![0.0; slopes.len() / sizes.outputs * k];
        multiply(slopes, sizes.outputs, weights, k, None, &mut patches);
        let channels = sizes.inputs;
        let pictures = before.chunks_exact_mut(w.input[0] * w.input[1] * channels);
        for (before, patches) in pictures.zip(patches.chunks_exact(w.positions() * k)) {
            self.pairs(|at, tap, to| {
                let from = at * k + tap * channels;
                add_to(&mut before[to * channels..(to + 1) * channels], &patches[from..from + channels]);
            });
        }
        before
    }

    /// Of a convolution with a filter for each channel.
    pub fn forward_depthwise(
        &self,
        packed: &Packed,
        parameters: &[Parameter],
        (input, shape): (&[f32], Shape),
        out: &mut [f32],
    ) {
        let Packed::Depthwise(taps) = packed else { return };
        let (isa, channels, w) = (isa(), shape[2], &self.window);
        if let Some(bias) = self.bias {
            out.chunks_exact_mut(channels).for_each(|row| row.copy_from_slice(&parameters[bias].values));
        }
        let pictures = input.chunks_exact(shape.iter().product()).zip(out.chunks_exact_mut(w.positions() * channels));
        for (input, out) in pictures {
            self.pairs(|at, tap, from| {
                let sums = &mut out[at * channels..(at + 1) * channels];
                add_products(isa, pixel(input, from, channels), pixel(taps, tap, channels), sums);
            });
        }
    }

    pub fn weigh_depthwise(&self, (input, shape): (&[f32], Shape), slopes: &[f32], gradients: &mut [Vec<f32>]) {
        let (isa, channels, w) = (isa(), shape[2], &self.window);
        self.weigh_bias(slopes, channels, gradients);
        let taps = w.kernel[0] * w.kernel[1];
        let mut sums = vec![0.0; taps * channels];
        let pictures = input.chunks_exact(shape.iter().product()).zip(slopes.chunks_exact(w.positions() * channels));
        for (input, slopes) in pictures {
            self.pairs(|at, tap, from| {
                let sums = &mut sums[tap * channels..(tap + 1) * channels];
                add_products(isa, pixel(input, from, channels), pixel(slopes, at, channels), sums);
            });
        }
        let gradient = &mut gradients[self.weights];
        sums.iter().enumerate().for_each(|(i, sum)| gradient[i % channels * taps + i / channels] += sum);
    }

    pub fn back_depthwise(&self, packed: &Packed, (input, shape): (usize, Shape), slopes: &[f32]) -> Vec<f32> {
        let mut before = vec![0.0; input];
        let Packed::Depthwise(taps) = packed else { return before };
        let (isa, channels, w) = (isa(), shape[2], &self.window);
        let pictures = before.chunks_exact_mut(shape.iter().product());
        for (before, slopes) in pictures.zip(slopes.chunks_exact(w.positions() * channels)) {
            self.pairs(|at, tap, to| {
                let sums = &mut before[to * channels..(to + 1) * channels];
                add_products(isa, pixel(slopes, at, channels), pixel(taps, tap, channels), sums);
            });
        }
        before
    }
}

fn pixel(picture: &[f32], at: usize, channels: usize) -> &[f32] {
    &picture[at * channels..(at + 1) * channels]
}

/// Columns of `rows` of `width` values as rows, in squares that stay in the cache.
fn transpose(rows: &[f32], width: usize) -> Vec<f32> {
    const SIDE: usize = 32;
    let height = rows.len() / width;
    let mut turned = vec![0.0; rows.len()];
    for top in (0..height).step_by(SIDE) {
        for left in (0..width).step_by(SIDE) {
            for x in left..(left + SIDE).min(width) {
                for y in top..(top + SIDE).min(height) {
                    turned[x * height + y] = rows[y * width + x];
                }
            }
        }
    }
    turned
}

/// Rows of `k` values times packed weights of `n` columns.
fn multiply(rows: &[f32], k: usize, weights: &Weights, n: usize, bias: Option<&[f32]>, out: &mut [f32]) {
    let starts: Vec<u32> = (0..rows.len() / k).map(|i| (i * k) as u32).collect();
    let places = Places { starts: &starts, pitch: 0 };
    let mut padded = vec![0.0; weights.n()];
    if let Some(bias) = bias {
        padded[..n].copy_from_slice(bias);
    }
    let epilogue = Epilogue { bias: &padded, residual: None, low: f32::NEG_INFINITY, high: f32::INFINITY };
    if weights.n() == n {
        return gemm(rows, places, weights, &epilogue, out);
    }
    // The kernels write whole vectors.
    let mut wide = vec![0.0; starts.len() * weights.n()];
    gemm(rows, places, weights, &epilogue, &mut wide);
    for (row, wide) in out.chunks_exact_mut(n).zip(wide.chunks_exact(weights.n())) {
        row.copy_from_slice(&wide[..n]);
    }
}
