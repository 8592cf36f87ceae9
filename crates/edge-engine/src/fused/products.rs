//! Convolutions and dense layers of real numbers to steps: weights packed, rows found.

use super::graph::{Conv, Dense, Layer, OPEN, Prelude, Quant, Value};
use super::matrix::Matrix;
use super::plan::{DECODED, OVERHEAD, Planner, borders, hwc, strides};
use super::rows::{Rows, Scaled, Starts};
use super::step::{Input, Pieces, Step, Work};
use edge_kernels::{Among, Depthwise, Im2col, Window, Winograd, column_step, run_fits};

impl Planner<'_> {
    pub fn conv(
        &mut self,
        conv: &Conv,
        layer: &Layer,
        made: &Value,
        input: &mut Input,
        steps: &mut Vec<Step>,
    ) -> Result<Work, String> {
        let source = &self.values[layer.inputs[0]];
        let residual = match conv.residual {
            None => None,
            Some(id) => Some(self.second(id, layer, steps, false)?),
        };
        let name = conv.filter.as_ref().ok_or("a convolution without a filter")?;
        let taps = conv.window.kernel[0] * conv.window.kernel[1];
        let inner = Matrix::read(self.constants, name, made.c, 0)?;
        // (O,I,taps) in the file; (taps,I) are the rows here.
        let channels = inner.len() / made.c / taps;
        let (window, positions) = (conv.window, made.pixels());
        let plain = conv.first.is_none() && conv.prelude.is_none() && conv.read == OPEN && *input != Input::Picture;
        // What is transformed takes more memory: not where the file is small so that it takes little.
        if let Some((inner, factor)) = inner.floats()
            && plain
            && Winograd::suits(&window, channels, made.c)
        {
            let filter = |o: usize, i: usize, tap: usize| inner[(o * channels + i) * taps + tap] * factor[o];
            let layer = Winograd::new(self.isa, window, channels, made.c, filter);
            let rows = layer.rows(self.threads);
            self.scratch[0] = self.scratch[0].max(layer.scratch(rows));
            let mut bias = conv.bias.clone();
            bias.resize(layer.n(), 0.0);
            let (written, function) = (conv.written, conv.function);
            return Ok(Work::Winograd { layer: Box::new(layer), bias, written, function, residual, rows });
        }
        // Values for each pixel where it is read as it lies.
        let mut pixel = self.padded(source);
        let mut size = [source.h, source.w];
        let scaled = self.scaled.as_ref().is_some_and(|(id, ..)| *id == layer.inputs[0]);
        let laid_out = *input == Input::Picture && conv.read == OPEN && window.dilation[1] == 1;
        if laid_out && run_fits(3 * window.kernel[1]) {
            let borders = borders(&window);
            pixel = 3;
            size = [0, 1].map(|i| borders[0][i] + size[i] + borders[1][i]);
            // The picture as it is, where that will do.
            if borders != [[0; 2]; 2] || strides(source, 3).channel != 1 || scaled {
                *input = self.import(layer.inputs[0], pixel, borders, &layer.nodes, steps)?;
            }
        } else if scaled {
            *input = self.padded_input(layer.inputs[0], &layer.nodes, steps)?;
        }
        // As it was handed in, the picture has no pixels of whole vectors.
        let known = *input != Input::Picture || pixel == 3;
        let inside = conv.first.is_none() && conv.read == OPEN && known && (window.before == [0; 2] || pixel == 3);
        // Only a pixel by itself is read among others.
        let among = if pixel == 3 { Among::alone(3) } else { self.among(layer.inputs[0]) };
        let starts = if inside { self.starts(&window, size, [among.pitch, among.first])? } else { None };
        // Channels that pad a pixel are multiplied, too, but where a pixel is all there is.
        let lie = if taps == 1 { channels } else { pixel };
        let starts = starts.filter(|_| taps == 1 || (run_fits(window.kernel[1] * lie) && 8 * lie <= 9 * channels));
        let prelude = match &conv.prelude {
            None => None,
            Some(_) if conv.first.is_some() => return Err("two layers before a matrix product".into()),
            Some(Prelude::Gate(gate)) => Some(Rows::Gated(self.second(*gate, layer, steps, false)?, among)),
            Some(Prelude::Scale { mul, add, written }) => {
                let (mut mul, mut add) = (mul.clone(), add.clone());
                mul.resize(pixel, 0.0);
                add.resize(pixel, 0.0);
                Some(Rows::Scaled(Scaled { mul, add, written: *written }, among))
            }
        };
        let (rows, per, runs) = match (&conv.first, prelude, starts) {
            (Some((first, _)), ..) => {
                (Rows::Depthwise(Box::new(self.depthwise(first, source, None)?), first.function), channels, 1)
            }
            (None, Some(rows), _) => (rows, pixel, 1),
            (None, None, Some(starts)) => (Rows::Direct(starts), lie, window.kernel[0]),
            (None, None, None) => {
                let strides = match *input {
                    Input::Picture => strides(source, source.c),
                    _ => hwc(source, self.padded(source)),
                };
                (Rows::Im2col(Im2col { window, channels: source.c, strides, read: conv.read }), channels, 1)
            }
        };
        let k = per * taps;
        let places = places(taps, per, channels);
        let weights =
            inner.pack(self.isa, self.float16, k, runs, |row, o| places[row].map(|at| o * channels * taps + at));
        let mut bias = conv.bias.clone();
        bias.resize(weights.n(), 0.0);
        let row = match &rows {
            Rows::Depthwise(d, _) => d.channels(),
            _ => k,
        };
        let most = if matches!(rows, Rows::Direct(_)) { self.most } else { self.strip(4 * row) };
        let pieces = self.pieces(positions, most, if weights.are_decoded() { DECODED } else { OVERHEAD });
        if !matches!(rows, Rows::Direct(_)) {
            self.scratch[0] = self.scratch[0].max(pieces.size.min(positions) * row);
        }
        let table = (0..pieces.size.min(positions)).map(|i| (i * row) as u32).collect();
        let columns = self.columns(weights.n());
        let (written, function) = (conv.written, conv.function);
        Ok(Work::Conv { rows, weights, bias, written, function, residual, pieces, table, columns })
    }

    /// Columns per piece where there is one row only.
    pub fn columns(&self, n: usize) -> usize {
        n.div_ceil(self.threads * 2).next_multiple_of(column_step(self.isa))
    }

    /// A depthwise convolution; of bytes where what it makes is bytes.
    pub fn depthwise(&self, conv: &Conv, source: &Value, made: Option<Quant>) -> Result<Depthwise, String> {
        if let Some(made) = made {
            return self.depthwise_bytes(conv, source, made);
        }
        let taps = conv.window.kernel[0] * conv.window.kernel[1];
        let (window, values) = match &conv.filter {
            // A scale: one tap, as large as what it reads.
            None => {
                let window = Window::new([source.h, source.w], [1, 1], [1, 1], [1, 1], [0, 0], [0, 0]);
                (window.ok_or("a scale of nothing")?, conv.factors.clone())
            }
            Some(filter) => {
                let mut values = self.constants.values(&filter.name)?;
                if let Some(scale) = &filter.scale {
                    values.chunks_exact_mut(taps).zip(scale).for_each(|(v, s)| v.iter_mut().for_each(|v| *v *= s));
                }
                (conv.window, values)
            }
        };
        if values.len() != source.c * taps || conv.bias.len() != source.c {
            return Err("a depthwise filter does not fit its picture".into());
        }
        let filter = |tap: usize, channel: usize| values[channel * taps + tap];
        Ok(Depthwise::new(self.isa, window, source.c, filter, |c| conv.bias[c], conv.read, conv.written))
    }

    pub fn dense(&mut self, dense: &Dense) -> Result<Work, String> {
        let values = Matrix::read(self.constants, &dense.weights, dense.n, usize::from(!dense.turned))?;
        let padded = self.padded(&dense.input);
        // Rows in the order in which the pixels lie, those of padded channels zero.
        let mut order = vec![None; dense.input.pixels() * padded];
        for at in 0..dense.k {
            let (pixel, channel) = dense.input.place(at);
            order[pixel * padded + channel] = Some(at);
        }
        let weights = values.pack(self.isa, self.float16, order.len(), 1, |row, n| {
            order[row].map(|k| if dense.turned { n * dense.k + k } else { k * dense.n + n })
        });
        let mut bias = dense.bias.clone();
        bias.resize(weights.n(), 0.0);
        let columns = self.columns(weights.n());
        let pieces = Pieces { size: 1, positions: 1 };
        let rows = Rows::Direct(Starts { starts: vec![0], pitch: 0 });
        let (written, function, table) = (dense.written, dense.function, vec![]);
        Ok(Work::Conv { rows, weights, bias, written, function, residual: None, pieces, table, columns })
    }
}

/// For each row of a filter's matrix, `per` of them a tap, where its value lies among an output's (I,taps); none where it pads a
/// pixel's channels. Looked up for millions of weights: divisions would take most of the time that a model takes to load.
pub fn places(taps: usize, per: usize, channels: usize) -> Vec<Option<usize>> {
    let rows = (0..taps).flat_map(|tap| (0..per).map(move |channel| (tap, channel)));
    rows.map(|(tap, channel)| (channel < channels).then_some(channel * taps + tap)).collect()
}
