//! Layers that compute with bytes: filters stay whole numbers, and what a sum is multiplied with is worked out here.

use super::graph::{Conv, Dense, Filter, Layer, OPEN, Quant, Value};
use super::plan::{OVERHEAD, Planner, borders, hwc};
use super::products::places;
use super::rows::{Requantize, Rows8, Whole};
use super::step::{Input, Pieces, Step, Work};
use edge_kernels::{Affine, Depthwise, Im2col, Quads, Weights8, Window};

impl Planner<'_> {
    /// A convolution of bytes.
    pub fn conv_bytes(
        &mut self,
        conv: &Conv,
        layer: &Layer,
        quant: Quant,
        input: &mut Input,
        steps: &mut Vec<Step>,
    ) -> Result<Work, String> {
        let (source, made) = (&self.values[layer.inputs[0]], &self.values[layer.output]);
        let filter = conv.filter.as_ref().ok_or("a convolution without a filter")?;
        let inner = self.constants.bytes(&filter.name).ok_or("a filter of bytes is gone")?;
        if inner.scale.len() > 1 && inner.axis != 0 || conv.read != OPEN || conv.residual.is_some() {
            return Err("a convolution of bytes that is none of ours".into());
        }
        let window = conv.window;
        let taps = window.kernel[0] * window.kernel[1];
        let channels = inner.values.len() / made.c / taps;
        let (rows, read) = match &conv.first {
            Some((first, between)) => {
                let between = self.values[*between].quant.ok_or("real numbers between convolutions of bytes")?;
                (Rows8::Depthwise(Box::new(self.depthwise(first, source, Some(between))?)), between)
            }
            None => {
                let picture = *input == Input::Picture;
                let strides = hwc(source, if picture { 3 } else { self.padded(source) });
                let im2col = Im2col { window, channels: source.c, strides, read: OPEN };
                (Rows8::Im2col(im2col, quant.zero as u8), quant)
            }
        };
        // Values of a pixel, the channels first, and where rows lie that need not be copied.
        let (mut pixel, mut size) = (self.padded(source), [source.h, source.w]);
        let mut edges = [[0; 2]; 2];
        if *input == Input::Picture {
            (pixel, edges) = (4, borders(&window));
            size = [0, 1].map(|i| edges[0][i] + size[i] + edges[1][i]);
        }
        let inside = conv.first.is_none() && window.before == edges[0];
        let starts = if inside && self.isa.has_quads() { self.starts(&window, size, [pixel, 0])? } else { None };
        let lie = if taps == 1 { channels } else { pixel };
        let direct = starts.filter(|_| taps == 1 || *input == Input::Picture || 8 * lie <= 9 * channels);
        let value = |at: Option<usize>, o: usize| at.map_or(0, |at| inner.values[o * channels * taps + at]);
        // Whether this machine multiplies these weights faster otherwise.
        let mut slower = false;
        let quads = direct.and_then(|starts| {
            let places = places(taps, lie, channels);
            let weights = Quads::pack(self.isa, taps * lie, made.c, window.kernel[0], read.zero as u8, |row, o| {
                value(places[row], o)
            })?;
            slower = !weights.is_faster();
            // Otherwise rows are copied first, which costs more under a window.
            (taps > 1 || !slower).then_some((starts, weights))
        });
        let (rows, weights, pieces) = match quads {
            Some((starts, quads)) => {
                if *input == Input::Picture {
                    *input = self.import(layer.inputs[0], pixel, edges, &layer.nodes, steps)?;
                }
                let pieces = self.pieces(made.pixels(), self.most, OVERHEAD);
                (Rows8::Direct(starts), Whole::Quads(quads, vec![]), pieces)
            }
            None => {
                if *input == Input::Picture {
                    *input = self.import(layer.inputs[0], 3, [[0; 2]; 2], &layer.nodes, steps)?;
                }
                let places = places(taps, channels, channels);
                let value = |row: usize, o: usize| value(places[row], o);
                self.whole(rows, [channels * taps, made.c], read, made.pixels(), !slower, value)?
            }
        };
        let scale = requantize(&inner.scale, filter, &conv.bias, read, made.quant, conv.written, weights.n());
        Ok(Work::Conv8 { rows, weights, scale, pieces })
    }

    /// Packs weights of `[k, n]` for rows that `rows` makes, in the way that this machine multiplies best (`fours` at a time, if that
    /// is not known to be slower), and makes room for strips.
    fn whole(
        &mut self,
        rows: Rows8,
        [k, n]: [usize; 2],
        read: Quant,
        positions: usize,
        fours: bool,
        value: impl Fn(usize, usize) -> i16 + Sync,
    ) -> Result<(Rows8, Whole, Pieces), String> {
        // A depthwise convolution makes rows with its channels padded.
        let padded = if let Rows8::Depthwise(d) = &rows { d.channels() } else { k };
        let fours = fours && self.isa.has_quads();
        let quads = fours.then(|| Quads::pack(self.isa, k, n, 1, read.zero as u8, &value)).flatten();
        let quads = quads.filter(Quads::is_faster);
        let (row, size) = match &quads {
            Some(quads) => (padded.max(quads.k()), 1),
            None => (padded.next_multiple_of(2), 2),
        };
        let pieces = self.pieces(positions, self.strip(size * row), OVERHEAD);
        let count = pieces.size.min(positions);
        if let Some(quads) = quads {
            self.scratch[2] = self.scratch[2].max(count * row);
            return Ok((rows, Whole::Quads(quads, (0..count).map(|i| (i * row) as u32).collect()), pieces));
        }
        self.scratch[1] = self.scratch[1].max(count * row);
        let weights = Weights8::pack(self.isa, padded, n, |row, n| if row < k { value(row, n) } else { 0 });
        Ok((rows, Whole::Pairs(weights.ok_or("a filter so large that sums could overflow")?), pieces))
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
        let value = |row: usize, n: usize| {
            let k = order[row];
            inner.values[if dense.turned { n * dense.k + k } else { k * dense.n + n }]
        };
        // All of the picture under one window.
        let size = [dense.input.h, dense.input.w];
        let window = Window::new(size, size, [1, 1], [1, 1], [0, 0], [0, 0]).ok_or("a dense layer of nothing")?;
        let strides = hwc(&dense.input, self.padded(&dense.input));
        let im2col = Im2col { window, channels: dense.input.c, strides, read: OPEN };
        let rows = Rows8::Im2col(im2col, quant.zero as u8);
        let (rows, weights, pieces) = self.whole(rows, [dense.k, dense.n], quant, 1, true, value)?;
        let columns = weights.n();
        let scale = requantize(&inner.scale, &dense.weights, &dense.bias, quant, made.quant, dense.written, columns);
        Ok(Work::Conv8 { rows, weights, scale, pieces })
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
