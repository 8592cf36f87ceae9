//! Layers to steps: weights packed, buffers assigned, work cut into strips.

use super::constant::{Constants, dims, floats};
use super::fuse::is_pointwise;
use super::graph::{Conv, Dense, Filter, Form, Id, Kind, Layer, OPEN, Op, Value};
use super::step::{Input, Pieces, Rows, Step, Work};
use edge_kernels::{Buffer, Depthwise, Im2col, Isa, Strides, Weights, Window, column_step};

/// What rows of A may take of the second-level cache while a block of k is worked on, in bytes.
const BLOCK: usize = 192 << 10;
/// What a strip may take in all, in bytes: it is read from the cache beyond once more.
const STRIP: usize = 1 << 20;
/// Positions in a strip at most: more would bring nothing.
const MOST: usize = 120;

/// Steps with their memory.
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// Memory of the values between them; several values take turns in one.
    pub buffers: Vec<Buffer>,
    /// For each thread, memory for a strip.
    pub scratch: Vec<Buffer>,
    /// Buffers of the outputs, in their order.
    pub outputs: Vec<Input>,
}

/// Plans `layers`. `values` are those of the reading; `outputs` are kept to the end.
pub fn plan(
    isa: Isa,
    threads: usize,
    layers: &[Layer],
    values: &[Value],
    constants: &Constants<'_>,
    outputs: &[Id],
) -> Result<Plan, String> {
    let mut planner = Planner {
        isa,
        threads,
        values,
        constants,
        slots: vec![],
        place: vec![None; values.len()],
        scratch: 0,
        imported: None,
    };
    let mut steps = vec![];
    for (at, layer) in layers.iter().enumerate() {
        let last = |v: Id| !outputs.contains(&v) && !layers[at + 1..].iter().any(|l| l.reads().any(|r| r == v));
        planner.layer(layer, &mut steps)?;
        // What nobody reads any more makes room for the next.
        for value in layer.reads().chain([layer.output]) {
            if last(value) {
                planner.free(value);
            }
        }
    }
    let outputs = outputs.iter().map(|o| planner.input(*o)).collect::<Result<_, _>>()?;
    let buffers = planner.slots.iter().map(|s| Buffer::new(s.size)).collect();
    let scratch = (0..threads).map(|_| Buffer::new(planner.scratch)).collect();
    Ok(Plan { steps, buffers, scratch, outputs })
}

struct Slot {
    size: usize,
    free: bool,
}

struct Planner<'a> {
    isa: Isa,
    threads: usize,
    values: &'a [Value],
    constants: &'a Constants<'a>,
    slots: Vec<Slot>,
    /// Where a value lies.
    place: Vec<Option<usize>>,
    scratch: usize,
    /// The picture with its channels padded, where somebody reads it so.
    imported: Option<usize>,
}

impl Planner<'_> {
    fn padded(&self, value: &Value) -> usize {
        self.isa.padded(value.c)
    }

    /// A buffer of `size` values: the smallest free one that is large enough, else the largest, grown.
    fn take(&mut self, size: usize) -> usize {
        let fits = self.slots.iter().enumerate().filter(|(_, s)| s.free && s.size >= size).min_by_key(|(_, s)| s.size);
        let best = fits.or_else(|| self.slots.iter().enumerate().filter(|(_, s)| s.free).max_by_key(|(_, s)| s.size));
        let slot = match best {
            Some((slot, _)) => slot,
            None => {
                self.slots.push(Slot { size: 0, free: true });
                self.slots.len() - 1
            }
        };
        self.slots[slot].size = self.slots[slot].size.max(size);
        self.slots[slot].free = false;
        slot
    }

    fn free(&mut self, value: Id) {
        if let Some(slot) = self.place[value].take() {
            self.slots[slot].free = true;
        }
    }

    fn input(&self, value: Id) -> Result<Input, String> {
        match (self.place[value], value) {
            (Some(slot), _) => Ok(Input::Slot(slot)),
            (None, 0) => Ok(Input::Picture),
            (None, _) => Err(format!("the value {:?} is read after its end", self.values[value].name)),
        }
    }

    /// The input of a layer that wants channels padded; the picture is copied so, once.
    fn padded_input(&mut self, value: Id, nodes: &[usize], steps: &mut Vec<Step>) -> Result<usize, String> {
        if let Input::Slot(slot) = self.input(value)? {
            return Ok(slot);
        }
        if let Some(slot) = self.imported {
            return Ok(slot);
        }
        let picture = &self.values[0];
        let channels = self.padded(picture);
        let slot = self.take(picture.pixels() * channels);
        let step = Step {
            nodes: nodes.to_vec(),
            work: Work::Import {
                strides: strides(picture, picture.c),
                width: picture.w,
                channels: picture.c,
                padded: channels,
            },
            input: Input::Picture,
            out: slot,
            size: picture.pixels() * channels,
            macs: 0,
        };
        steps.push(step);
        self.imported = Some(slot);
        Ok(slot)
    }

    fn layer(&mut self, layer: &Layer, steps: &mut Vec<Step>) -> Result<(), String> {
        let made = &self.values[layer.output];
        let read = layer.inputs[0];
        let size = made.pixels() * self.padded(made);
        let mut macs = 0;
        let (work, input) = match &layer.op {
            Op::Conv(conv) => {
                let (work, input) = self.conv(conv, layer, made, steps)?;
                macs = conv_macs(conv, &self.values[read], made);
                (work, input)
            }
            Op::Dense(dense) => {
                macs = dense.k * dense.n;
                let input = Input::Slot(self.padded_input(read, &layer.nodes, steps)?);
                (self.dense(dense)?, input)
            }
            Op::Add(limits) => {
                let a = self.padded_input(read, &layer.nodes, steps)?;
                let b = self.padded_input(layer.inputs[1], &layer.nodes, steps)?;
                (Work::Add { other: Some(b), limits: *limits, chunk: self.chunk(size) }, Input::Slot(a))
            }
            Op::Limits(limits) => {
                let input = Input::Slot(self.padded_input(read, &layer.nodes, steps)?);
                (Work::Add { other: None, limits: *limits, chunk: self.chunk(size) }, input)
            }
            Op::MaxPool(window) => {
                let input = Input::Slot(self.padded_input(read, &layer.nodes, steps)?);
                let channels = self.padded(made);
                let pieces = self.pieces(window.positions(), 64);
                (Work::MaxPool { window: *window, channels, pieces }, input)
            }
            Op::Average => {
                let input = Input::Slot(self.padded_input(read, &layer.nodes, steps)?);
                (Work::Average { channels: self.padded(made), pixels: self.values[read].pixels() }, input)
            }
            Op::Softmax | Op::Sigmoid => {
                let input = Input::Slot(self.padded_input(read, &layer.nodes, steps)?);
                (Work::Scores { softmax: matches!(layer.op, Op::Softmax), count: made.c }, input)
            }
            Op::Pad(before, after) => {
                let window = [0, 1].map(|i| [self.values[read].h, self.values[read].w][i]);
                let input = Input::Slot(self.padded_input(read, &layer.nodes, steps)?);
                let window =
                    Window::new(window, [1, 1], [1, 1], [1, 1], *before, *after).ok_or("padding of nothing")?;
                (Work::Pad { window, channels: self.padded(made) }, input)
            }
            Op::Scale { .. } | Op::Alias => return Err("a layer was left over".into()),
        };
        let out = self.take(size);
        self.place[layer.output] = Some(out);
        steps.push(Step { nodes: layer.nodes.clone(), work, input, out, size, macs });
        Ok(())
    }

    /// Values per piece of work that only moves memory.
    fn chunk(&self, size: usize) -> usize {
        size.div_ceil(self.threads).min(1 << 16).next_multiple_of(16)
    }

    /// Positions cut so that the threads end together, at most `most` in a piece. A piece is a multiple of the rows that a
    /// kernel takes at once, and each has a cost of its own (the weights come through the cache once more).
    fn pieces(&self, positions: usize, most: usize) -> Pieces {
        const TILE: usize = 6;
        const OVERHEAD: usize = 3;
        let last = most.next_multiple_of(TILE).max(TILE);
        let span = |size: usize| {
            let mut ends = vec![0; self.threads];
            for first in (0..positions).step_by(size) {
                let rows = size.min(positions - first);
                // Whoever is free first takes the next.
                if let Some(end) = ends.iter_mut().min() {
                    *end += rows.next_multiple_of(2) + OVERHEAD;
                }
            }
            ends.into_iter().max().unwrap_or_default()
        };
        // Where there are many pieces, the threads end together anyway.
        if positions > 100 * last {
            return Pieces { size: last, positions };
        }
        let sizes = (last.min(2 * TILE) / TILE..=last / TILE).rev().map(|tiles| tiles * TILE);
        Pieces { size: sizes.min_by_key(|s| span(*s)).unwrap_or(last), positions }
    }

    fn conv(
        &mut self,
        conv: &Conv,
        layer: &Layer,
        made: &Value,
        steps: &mut Vec<Step>,
    ) -> Result<(Work, Input), String> {
        let read = layer.inputs[0];
        let source = &self.values[read];
        let residual = match conv.residual {
            None => None,
            Some(id) => Some(self.padded_input(id, &layer.nodes, steps)?),
        };
        if conv.kind == Kind::Depthwise {
            let input = Input::Slot(self.padded_input(read, &layer.nodes, steps)?);
            let depthwise = self.depthwise(conv, source)?;
            let pieces = self.pieces(depthwise.window().positions(), 48);
            return Ok((Work::Depthwise { depthwise: Box::new(depthwise), pieces }, input));
        }
        let name = conv.filter.as_ref().ok_or("a convolution without a filter")?;
        let taps = conv.window.kernel[0] * conv.window.kernel[1];
        let inner = self.filter(name)?;
        // (O,I,taps) in the file; (taps,I) are the rows here.
        let channels = inner.len() / made.c / taps;
        let k = channels * taps;
        let scale = name.scale.as_deref();
        let weights = Weights::pack(self.isa, k, made.c, |row, o| {
            let (tap, channel) = (row / channels, row % channels);
            inner[(o * channels + channel) * taps + tap] * scale.map_or(1.0, |s| s[o])
        });
        let mut bias = conv.bias.clone();
        bias.resize(weights.n(), 0.0);
        let positions = made.pixels();
        let (rows, input) = match &conv.first {
            Some(first) => {
                let input = Input::Slot(self.padded_input(read, &layer.nodes, steps)?);
                (Rows::Depthwise(Box::new(self.depthwise(first, source)?)), input)
            }
            None if is_pointwise(conv) && conv.read == OPEN => {
                let input = self.padded_input(read, &layer.nodes, steps)?;
                let w = &conv.window;
                let padded = self.padded(source);
                let offset = |at: usize| {
                    let (y, x) = (at / w.output[1], at % w.output[1]);
                    (y * w.stride[0] * w.input[1] + x * w.stride[1]) * padded
                };
                let offsets = (0..positions).map(|at| u32::try_from(offset(at)).map_err(|e| e.to_string()));
                (Rows::Direct(offsets.collect::<Result<_, _>>()?), Input::Slot(input))
            }
            None => {
                let input = self.input(read)?;
                let strides = match input {
                    Input::Picture => strides(source, source.c),
                    Input::Slot(_) => hwc(source, self.padded(source)),
                };
                (Rows::Im2col(Im2col { window: conv.window, channels: source.c, strides, read: conv.read }), input)
            }
        };
        let row = match &rows {
            Rows::Depthwise(d) => d.channels(),
            _ => k,
        };
        let strip = if matches!(rows, Rows::Direct(_)) { MOST } else { STRIP / 4 / row.max(1) };
        let most = strip.min(BLOCK / 4 / row.clamp(1, 384)).clamp(6, MOST);
        let pieces = self.pieces(positions, most);
        if !matches!(rows, Rows::Direct(_)) {
            self.scratch = self.scratch.max(pieces.size.min(positions) * row);
        }
        let table = (0..pieces.size.min(positions)).map(|i| (i * row) as u32).collect();
        let columns = self.columns(weights.n());
        Ok((Work::Conv { rows, weights, bias, written: conv.written, residual, pieces, table, columns }, input))
    }

    /// Columns per piece where there is one row only.
    fn columns(&self, n: usize) -> usize {
        n.div_ceil(self.threads * 2).next_multiple_of(column_step(self.isa))
    }

    fn filter(&self, filter: &Filter) -> Result<Vec<f32>, String> {
        let tensor = self.constants.get(&filter.name).ok_or("a filter is gone")?;
        floats(tensor)
            .ok_or_else(|| format!("the constant {:?} is no float tensor of its size {:?}", filter.name, dims(tensor)))
    }

    fn depthwise(&self, conv: &Conv, source: &Value) -> Result<Depthwise, String> {
        let taps = conv.window.kernel[0] * conv.window.kernel[1];
        let (window, values) = match &conv.filter {
            // A scale: one tap, as large as what it reads.
            None => {
                let size = [source.h, source.w];
                (
                    Window::new(size, [1, 1], [1, 1], [1, 1], [0, 0], [0, 0]).ok_or("a scale of nothing")?,
                    conv.factors.clone(),
                )
            }
            Some(filter) => {
                let mut values = self.filter(filter)?;
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

    fn dense(&mut self, dense: &Dense) -> Result<Work, String> {
        let values = self.filter(&dense.weights)?;
        let padded = self.padded(&dense.input);
        let scale = dense.weights.scale.as_deref();
        // Rows in the order in which the pixels lie, those of padded channels zero.
        let mut order = vec![None; dense.input.pixels() * padded];
        for at in 0..dense.k {
            let (pixel, channel) = dense.input.place(at);
            order[pixel * padded + channel] = Some(at);
        }
        let weights = Weights::pack(self.isa, order.len(), dense.n, |row, n| {
            order[row].map_or(0.0, |k| {
                let value = if dense.turned { values[n * dense.k + k] } else { values[k * dense.n + n] };
                value * scale.map_or(1.0, |s| s[n])
            })
        });
        let mut bias = dense.bias.clone();
        bias.resize(weights.n(), 0.0);
        let columns = self.columns(weights.n());
        let pieces = Pieces { size: 1, positions: 1 };
        let rows = Rows::Direct(vec![0]);
        Ok(Work::Conv { rows, weights, bias, written: dense.written, residual: None, pieces, table: vec![], columns })
    }
}

/// How the picture lies, as it is handed in.
fn strides(picture: &Value, channels: usize) -> Strides {
    match picture.form {
        Form::Nchw | Form::FlatChw => Strides { row: picture.w, column: 1, channel: picture.pixels() },
        Form::Nhwc | Form::FlatHwc => hwc(picture, channels),
    }
}

fn hwc(value: &Value, padded: usize) -> Strides {
    Strides { row: value.w * padded, column: padded, channel: 1 }
}

/// Multiplications of a convolution, each with an addition.
fn conv_macs(conv: &Conv, read: &Value, made: &Value) -> usize {
    let own = |c: &Conv, inputs: usize, outputs: usize| {
        c.window.positions()
            * c.window.kernel[0]
            * c.window.kernel[1]
            * if c.kind == Kind::Full { inputs } else { 1 }
            * outputs
    };
    own(conv, read.c, made.c) + conv.first.as_ref().map_or(0, |f| own(f, read.c, read.c))
}
