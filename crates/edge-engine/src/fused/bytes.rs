//! Layers that compute with bytes: filters stay whole numbers, and what a sum is multiplied with is worked out here.

use super::graph::{Conv, Dense, Filter, OPEN, Quant, Value};
use super::plan::{MOST, Planner, STRIP, hwc};
use super::step::{Pieces, Requantize, Rows8, Work};
use edge_kernels::{Affine, Depthwise, Im2col, Weights8, Window};

impl Planner<'_> {
    /// A convolution of bytes.
    pub fn conv_bytes(&mut self, conv: &Conv, source: &Value, made: &Value, quant: Quant) -> Result<Work, String> {
        let filter = conv.filter.as_ref().ok_or("a convolution without a filter")?;
        let inner = self.constants.bytes(&filter.name).ok_or("a filter of bytes is gone")?;
        if inner.scale.len() > 1 && inner.axis != 0 || conv.read != OPEN || conv.residual.is_some() {
            return Err("a convolution of bytes that is none of ours".into());
        }
        let taps = conv.window.kernel[0] * conv.window.kernel[1];
        let channels = inner.values.len() / made.c / taps;
        let weights = Weights8::pack(self.isa, channels * taps, made.c, |row, o| {
            let (tap, channel) = (row / channels, row % channels);
            inner.values[(o * channels + channel) * taps + tap]
        });
        let mut weights = weights.ok_or("a filter so large that sums could overflow")?;
        let (rows, read) = match &conv.first {
            Some((first, between)) => {
                let between = self.values[*between].quant.ok_or("real numbers between convolutions of bytes")?;
                let depthwise = self.depthwise(first, source, Some(between))?;
                if depthwise.channels() != weights.k() {
                    // The strip has its channels padded; so has the filter then.
                    let padded = depthwise.channels();
                    let wide = |row: usize, o: usize| if row < channels { inner.values[o * channels + row] } else { 0 };
                    let wide = Weights8::pack(self.isa, padded, made.c, wide);
                    weights = wide.ok_or("a filter so large that sums could overflow")?;
                }
                (Rows8::Depthwise(Box::new(depthwise)), between)
            }
            None => {
                let strides = hwc(source, self.padded(source));
                let im2col = Im2col { window: conv.window, channels: source.c, strides, read: OPEN };
                (Rows8::Im2col(im2col, quant.zero as i16), quant)
            }
        };
        let scale = requantize(&inner.scale, filter, &conv.bias, read, made.quant, conv.written, weights.n());
        let most = (STRIP / 2 / weights.k().max(1)).clamp(6, MOST);
        let pieces = self.pieces(made.pixels(), most);
        self.scratch[1] = self.scratch[1].max(pieces.size.min(made.pixels()) * weights.k());
        Ok(Work::Conv8 { rows, weights, scale, pieces })
    }

    /// A dense layer of bytes.
    pub fn dense_bytes(&mut self, dense: &Dense, made: &Value, quant: Quant) -> Result<Work, String> {
        let inner = self.constants.bytes(&dense.weights.name).ok_or("weights of bytes are gone")?;
        let outputs = if dense.turned { 0 } else { 1 };
        if inner.scale.len() > 1 && inner.axis != outputs {
            return Err("weights with a scale per input".into());
        }
        // Rows in the order in which the pixels lie.
        let mut order = vec![0; dense.k];
        for at in 0..dense.k {
            let (pixel, channel) = dense.input.place(at);
            order[pixel * dense.input.c + channel] = at;
        }
        let weights = Weights8::pack(self.isa, dense.k, dense.n, |row, n| {
            let k = order[row];
            inner.values[if dense.turned { n * dense.k + k } else { k * dense.n + n }]
        });
        let weights = weights.ok_or("so many weights that sums could overflow")?;
        // All of the picture under one window.
        let size = [dense.input.h, dense.input.w];
        let window = Window::new(size, size, [1, 1], [1, 1], [0, 0], [0, 0]).ok_or("a dense layer of nothing")?;
        let strides = hwc(&dense.input, self.padded(&dense.input));
        let im2col = Im2col { window, channels: dense.input.c, strides, read: OPEN };
        let columns = weights.n();
        let scale = requantize(&inner.scale, &dense.weights, &dense.bias, quant, made.quant, dense.written, columns);
        self.scratch[1] = self.scratch[1].max(weights.k());
        let pieces = Pieces { size: 1, positions: 1 };
        Ok(Work::Conv8 { rows: Rows8::Im2col(im2col, quant.zero as i16), weights, scale, pieces })
    }

    /// A depthwise convolution from bytes to bytes.
    pub fn depthwise_bytes(&self, conv: &Conv, source: &Value, made: Quant) -> Result<Depthwise, String> {
        let taps = conv.window.kernel[0] * conv.window.kernel[1];
        let read = source.quant.ok_or("a depthwise convolution between real numbers and bytes")?;
        let filter = conv.filter.as_ref().ok_or("a convolution without a filter")?;
        let inner = self.constants.bytes(&filter.name).ok_or("a filter of bytes is gone")?;
        let fits = inner.values.len() == source.c * taps && (inner.scale.len() == 1 || inner.axis == 0);
        // So few taps that sums of them are exact in float32.
        if !fits || conv.read != OPEN || taps > (1 << 24) / (255 * 255) {
            return Err("a depthwise convolution of bytes that is none of ours".into());
        }
        let scale = requantize(&inner.scale, filter, &conv.bias, read, Some(made), conv.written, source.c);
        let values = |tap: usize, channel: usize| f32::from(inner.values[channel * taps + tap]);
        let layer = Depthwise::new(self.isa, conv.window, source.c, values, |c| scale.offset[c], OPEN, scale.limits);
        Ok(layer.on_bytes(|c| scale.factor.get(c).copied().unwrap_or_default(), [read.zero, made.zero]))
    }

    /// The mean of each channel of bytes.
    pub fn average_bytes(&mut self, source: &Value, made: &Value, quant: Quant) -> Result<Work, String> {
        let (pixels, channels) = (source.pixels(), self.padded(made));
        if pixels >= 1 << 16 {
            return Err("a mean of too many pixels".into());
        }
        let mut affine = rescale(&[quant], made.quant, OPEN);
        // A sum of pixels rather than one.
        affine.factors[0] /= pixels as f32;
        self.scratch[0] = self.scratch[0].max(channels);
        Ok(Work::AverageBytes { channels, pixels, affine })
    }
}

/// From the sum of one or two values, each (q - zero) · scale, within limits, to a scale, or to a real number.
pub fn rescale(terms: &[Quant], made: Option<Quant>, limits: [f32; 2]) -> Affine {
    let unit = made.map_or(1.0, |m| m.scale);
    let factor = |i: usize| terms.get(i).map_or(0.0, |t| t.scale / unit);
    let offset: f64 = terms.iter().map(|t| -f64::from(t.zero) * f64::from(t.scale) / f64::from(unit)).sum();
    Affine {
        factors: [factor(0), factor(1)],
        offset: offset as f32,
        limits: made.map_or(limits, |m| m.limits(limits)),
        zero: made.map_or(0, |m| m.zero),
    }
}

/// From a sum of products of whole numbers to a scale, or to a real number. `scales` are the filter's, one or one per
/// output; what pads the columns becomes zero.
fn requantize(
    scales: &[f32],
    filter: &Filter,
    bias: &[f32],
    read: Quant,
    made: Option<Quant>,
    limits: [f32; 2],
    columns: usize,
) -> Requantize {
    let unit = made.map_or(1.0, |m| f64::from(m.scale));
    let own = |n: usize| f64::from(if scales.len() == 1 { scales[0] } else { scales[n] });
    let more = |n: usize| filter.scale.as_ref().map_or(1.0, |s| f64::from(s[n]));
    let factor = |n: usize| (f64::from(read.scale) * own(n) * more(n) / unit) as f32;
    let mut factors: Vec<f32> = (0..bias.len()).map(factor).collect();
    let mut offset: Vec<f32> = bias.iter().map(|b| (f64::from(*b) / unit) as f32).collect();
    factors.resize(columns, 0.0);
    offset.resize(columns, 0.0);
    let limits = made.map_or(limits, |m| m.limits(limits));
    Requantize { factor: factors, offset, limits, zero: made.map_or(0, |m| m.zero) }
}
