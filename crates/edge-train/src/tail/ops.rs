//! The operators of a tail, forward and back.

use super::conv::{Conv, Packed};
use super::pool::{self, Average};
use super::{Parameter, Shape};
use edge_kernels::Window;

/// An operator. Values are (N,H,W,C).
#[derive(Debug, Clone)]
pub enum Op {
    /// A convolution with all channels, or a dense layer.
    Conv(Conv),
    /// A convolution with a filter for each channel.
    Depthwise(Conv),
    /// Each channel moved and scaled.
    Affine(Affine),
    /// Each value by itself.
    Each(Each),
    /// The sum of two values, or a product of two; of one with a pixel for each picture, too.
    Add,
    Mul,
    /// Channels after channels.
    Concat,
    /// The largest under a window.
    MaxPool(Window),
    /// The mean under a window.
    AveragePool(Average),
    /// The mean of all pixels.
    Mean,
}

/// (x - centre) · factor · scale + shift, for each channel; BatchNormalization with the statistics that it has.
#[derive(Debug, Clone)]
pub struct Affine {
    /// Fixed; empty for none.
    pub centre: Vec<f32>,
    /// Fixed; empty for none.
    pub factor: Vec<f32>,
    /// The number of what is trained.
    pub scale: Option<usize>,
    pub shift: Option<usize>,
}

/// A function of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Each {
    Clip(f32, f32),
    LeakyRelu(f32),
    Sigmoid,
    /// Limited to 0…1: a · x + b.
    HardSigmoid(f32, f32),
    HardSwish,
    Tanh,
    /// a · x + b, not trained.
    Linear(f32, f32),
}

impl Each {
    fn of(self, x: f32) -> f32 {
        match self {
            // Not `clamp`, which may panic.
            Each::Clip(low, high) => x.max(low).min(high),
            Each::LeakyRelu(a) => {
                if x < 0.0 {
                    a * x
                } else {
                    x
                }
            }
            Each::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Each::HardSigmoid(a, b) => (a * x + b).clamp(0.0, 1.0),
            Each::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Each::Tanh => x.tanh(),
            Each::Linear(a, b) => a * x + b,
        }
    }

    /// The slope at `x`, where the function is `y`.
    fn slope(self, x: f32, y: f32) -> f32 {
        match self {
            Each::Clip(low, high) => f32::from(x > low && x < high),
            Each::LeakyRelu(a) => {
                if x < 0.0 {
                    a
                } else {
                    1.0
                }
            }
            Each::Sigmoid => y * (1.0 - y),
            Each::HardSigmoid(a, _) => {
                if y > 0.0 && y < 1.0 {
                    a
                } else {
                    0.0
                }
            }
            Each::HardSwish => match x {
                x if x <= -3.0 => 0.0,
                x if x >= 3.0 => 1.0,
                x => x / 3.0 + 0.5,
            },
            Each::Tanh => 1.0 - y * y,
            Each::Linear(a, _) => a,
        }
    }
}

/// A batch of pictures, and the shape of each.
type Batch<'a> = (&'a [f32], Shape);

impl Op {
    /// Computes `out`, zeros before, of pictures of shape `shape`.
    pub fn forward(
        &self,
        packed: &Packed,
        parameters: &[Parameter],
        inputs: &[Batch<'_>],
        shape: Shape,
        out: &mut [f32],
    ) {
        let (x, from) = inputs[0];
        match self {
            Op::Conv(conv) => conv.forward(packed, parameters, x, out),
            Op::Depthwise(conv) => conv.forward_depthwise(packed, parameters, inputs[0], out),
            Op::Affine(affine) => {
                let (factors, shift) = affine.parts(parameters, shape[2]);
                for (out, x) in out.chunks_exact_mut(shape[2]).zip(x.chunks_exact(shape[2])) {
                    for (c, (out, x)) in out.iter_mut().zip(x).enumerate() {
                        *out = (x - affine.centre.get(c).unwrap_or(&0.0)) * factors[c] + shift.map_or(0.0, |s| s[c]);
                    }
                }
            }
            Op::Each(each) => out.iter_mut().zip(x).for_each(|(out, x)| *out = each.of(*x)),
            Op::Add | Op::Mul => {
                let (left, right) = (spread(inputs[0], shape), spread(inputs[1], shape));
                let product = matches!(self, Op::Mul);
                for (i, out) in out.iter_mut().enumerate() {
                    let (a, b) = (left(i), right(i));
                    *out = if product { a * b } else { a + b };
                }
            }
            Op::Concat => {
                let mut first = 0;
                for (x, from) in inputs {
                    for (out, x) in out.chunks_exact_mut(shape[2]).zip(x.chunks_exact(from[2])) {
                        out[first..first + from[2]].copy_from_slice(x);
                    }
                    first += from[2];
                }
            }
            Op::MaxPool(window) => pool::max(window, from[2], x, out),
            Op::AveragePool(average) => average.forward(from[2], x, out),
            Op::Mean => {
                let pixels = from[0] * from[1];
                for (out, x) in out.chunks_exact_mut(from[2]).zip(x.chunks_exact(pixels * from[2])) {
                    x.chunks_exact(from[2]).for_each(|pixel| add_to(out, pixel));
                    out.iter_mut().for_each(|o| *o /= pixels as f32);
                }
            }
        }
    }

    /// Adds the gradients of the weights.
    pub fn weigh(&self, parameters: &[Parameter], inputs: &[Batch<'_>], slopes: &[f32], gradients: &mut [Vec<f32>]) {
        let (x, shape) = inputs[0];
        match self {
            Op::Conv(conv) => conv.weigh(parameters, x, slopes, gradients),
            Op::Depthwise(conv) => conv.weigh_depthwise(inputs[0], slopes, gradients),
            Op::Affine(affine) => {
                let at = |values: &[f32], c: usize, none: f32| values.get(c).copied().unwrap_or(none);
                for (slopes, x) in slopes.chunks_exact(shape[2]).zip(x.chunks_exact(shape[2])) {
                    if let Some(scale) = affine.scale {
                        for (c, gradient) in gradients[scale].iter_mut().enumerate() {
                            *gradient += slopes[c] * (x[c] - at(&affine.centre, c, 0.0)) * at(&affine.factor, c, 1.0);
                        }
                    }
                    if let Some(shift) = affine.shift {
                        add_to(&mut gradients[shift], slopes);
                    }
                }
            }
            _ => {}
        }
    }

    /// The slopes at the input `place`, for those at the output.
    pub fn back(
        &self,
        packed: &Packed,
        parameters: &[Parameter],
        inputs: &[Batch<'_>],
        place: usize,
        (out, shape): Batch<'_>,
        slopes: &[f32],
    ) -> Vec<f32> {
        let (x, from) = inputs[place];
        match self {
            Op::Conv(conv) => conv.back(packed, parameters, x.len(), slopes),
            Op::Depthwise(conv) => conv.back_depthwise(packed, (x.len(), from), slopes),
            Op::Affine(affine) => {
                let (factors, _) = affine.parts(parameters, shape[2]);
                slopes.iter().enumerate().map(|(i, s)| s * factors[i % shape[2]]).collect()
            }
            Op::Each(each) => {
                let triples = slopes.iter().zip(x).zip(out);
                triples.map(|((s, x), y)| s * each.slope(*x, *y)).collect()
            }
            Op::Add => gather(slopes.to_vec(), shape, from),
            Op::Mul => {
                let other = spread(inputs[1 - place], shape);
                gather(slopes.iter().enumerate().map(|(i, s)| s * other(i)).collect(), shape, from)
            }
            Op::Concat => {
                let first: usize = inputs[..place].iter().map(|(_, s)| s[2]).sum();
                slopes.chunks_exact(shape[2]).flat_map(|row| &row[first..first + from[2]]).copied().collect()
            }
            Op::MaxPool(window) => pool::max_back(window, from[2], x, out, slopes),
            Op::AveragePool(average) => average.back(from[2], x.len(), slopes),
            Op::Mean => {
                let pixels = from[0] * from[1];
                let mut before = Vec::with_capacity(x.len());
                for row in slopes.chunks_exact(from[2]) {
                    (0..pixels).for_each(|_| before.extend(row.iter().map(|s| s / pixels as f32)));
                }
                before
            }
        }
    }
}

impl Affine {
    /// What each channel is multiplied with, and what is added.
    fn parts<'a>(&self, parameters: &'a [Parameter], channels: usize) -> (Vec<f32>, Option<&'a [f32]>) {
        let mut factors = if self.factor.is_empty() { vec![1.0; channels] } else { self.factor.clone() };
        if let Some(scale) = self.scale {
            factors.iter_mut().zip(&parameters[scale].values).for_each(|(f, s)| *f *= s);
        }
        (factors, self.shift.map(|shift| parameters[shift].values.as_slice()))
    }
}

/// A batch as if of pictures of `shape`: what is one pixel is the same at all of them.
fn spread<'a>((x, from): Batch<'a>, shape: Shape) -> impl Fn(usize) -> f32 + 'a {
    let (same, size, channels) = (from == shape, shape.iter().product::<usize>(), shape[2]);
    move |i| x[if same { i } else { i / size * channels + i % channels }]
}

/// Slopes of pictures of `shape` brought to the shape that was spread.
fn gather(slopes: Vec<f32>, shape: Shape, from: Shape) -> Vec<f32> {
    if from == shape {
        return slopes;
    }
    let mut sums = vec![0.0; slopes.len() / (shape[0] * shape[1]).max(1)];
    for (sum, slopes) in sums.chunks_exact_mut(shape[2]).zip(slopes.chunks_exact(shape.iter().product())) {
        slopes.chunks_exact(shape[2]).for_each(|pixel| add_to(sum, pixel));
    }
    sums
}

/// sums += values.
pub fn add_to(sums: &mut [f32], values: &[f32]) {
    sums.iter_mut().zip(values).for_each(|(s, v)| *s += v);
}
