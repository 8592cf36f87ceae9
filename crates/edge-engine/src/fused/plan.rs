//! Layers to steps: weights packed, buffers assigned, work cut into strips. What computes with bytes is in `bytes.rs`.

use super::bytes::rescale;
use super::constant::Constants;
use super::graph::{Conv, Dense, Filter, Form, Id, Kind, Layer, OPEN, Op, Quant, Value};
use super::step::{Input, Memory, Pieces, Rows, Scratch, Starts, Step, Work};
use edge_kernels::{
    Buffer, Depthwise, Im2col, Import, Isa, Plain, Strides, Weights, Window, column_step, row_step, run_fits,
};

/// What rows of A may take of the second-level cache while a block of k is worked on, in bytes.
const BLOCK: usize = 192 << 10;
/// What a strip may take in all, in bytes: it is read from the cache beyond once more.
pub const STRIP: usize = 1 << 20;
/// Positions in a strip at most: more would bring nothing.
pub const MOST: usize = 120;
/// Positions in a strip where the weights come cheaply for each: what it makes then stays in the second-level cache, too.
const FEW: usize = 48;
/// Weights that do, in values.
const SMALL: usize = 1 << 20;

/// Steps with their memory.
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// Memory of the values between them.
    pub memory: Memory,
    /// For each thread, memory for a strip.
    pub scratch: Vec<Scratch>,
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
        floats: vec![],
        bytes: vec![],
        place: vec![None; values.len()],
        scratch: [0; 3],
        imported: vec![],
        quantizing: vec![],
    };
    let mut steps = vec![];
    for (at, layer) in layers.iter().enumerate() {
        let last = |v: Id| !outputs.contains(&v) && !layers[at + 1..].iter().any(|l| l.reads().any(|r| r == v));
        planner.layer(layer, &mut steps)?;
        layer.filters().for_each(|f| constants.done(&f.name));
        // What nobody reads any more makes room for the next.
        for value in layer.reads().chain([layer.output]) {
            if last(value) {
                planner.free(value);
            }
        }
    }
    let outputs = outputs.iter().map(|o| planner.input(*o)).collect::<Result<_, _>>()?;
    let memory = Memory { floats: buffers(&planner.floats), bytes: buffers(&planner.bytes) };
    let [floats, shorts, bytes] = planner.scratch;
    let scratch = || Scratch { floats: Buffer::new(floats), shorts: Buffer::new(shorts), bytes: Buffer::new(bytes) };
    Ok(Plan { steps, memory, scratch: (0..threads).map(|_| scratch()).collect(), outputs })
}

fn buffers<T: Plain>(slots: &[Slot]) -> Vec<Buffer<T>> {
    slots.iter().map(|s| Buffer::new(s.size)).collect()
}

struct Slot {
    size: usize,
    free: bool,
}

/// What is known while layers become steps.
pub struct Planner<'a> {
    pub isa: Isa,
    pub threads: usize,
    pub values: &'a [Value],
    pub constants: &'a Constants<'a>,
    floats: Vec<Slot>,
    bytes: Vec<Slot>,
    /// Where a value lies.
    place: Vec<Option<Input>>,
    /// Real numbers, whole ones and bytes in a strip.
    pub scratch: [usize; 3],
    /// The picture, or what it is quantized to, as it has been laid out for those who read it.
    imported: Vec<(Id, Import, Input)>,
    /// The nodes that quantize the picture: that is part of laying it out.
    quantizing: Vec<usize>,
}

impl Planner<'_> {
    /// Channels of a value, padded.
    pub fn padded(&self, value: &Value) -> usize {
        self.isa.padded(value.c)
    }

    /// A buffer of `size` values, bytes or real numbers.
    fn take(&mut self, size: usize, bytes: bool) -> Input {
        match bytes {
            true => Input::Bytes(take(&mut self.bytes, size)),
            false => Input::Slot(take(&mut self.floats, size)),
        }
    }

    fn free(&mut self, value: Id) {
        match self.place[value].take() {
            Some(Input::Slot(slot)) => self.floats[slot].free = true,
            Some(Input::Bytes(slot)) => self.bytes[slot].free = true,
            Some(Input::Picture) | None => {}
        }
    }

    fn input(&self, value: Id) -> Result<Input, String> {
        match (self.place[value], value) {
            (Some(place), _) => Ok(place),
            (None, 0) => Ok(Input::Picture),
            (None, _) => Err(format!("the value {:?} is read after its end", self.values[value].name)),
        }
    }

    /// The input of a layer that wants channels padded.
    fn padded_input(&mut self, value: Id, nodes: &[usize], steps: &mut Vec<Step>) -> Result<Input, String> {
        let place = self.input(value)?;
        match place == Input::Picture {
            true => self.import(value, self.padded(&self.values[value]), [[0; 2]; 2], nodes, steps),
            false => Ok(place),
        }
    }

    /// The picture, or what it is quantized to, with `pixel` values for each pixel and zeros before and after; laid out once
    /// for all who read it so.
    pub fn import(
        &mut self,
        value: Id,
        pixel: usize,
        [before, after]: [[usize; 2]; 2],
        nodes: &[usize],
        steps: &mut Vec<Step>,
    ) -> Result<Input, String> {
        let picture = &self.values[0];
        if picture.c != 3 {
            return Err(format!("a picture of {} channels", picture.c));
        }
        let import = Import { strides: strides(picture, 3), size: [picture.h, picture.w], pixel, before, after };
        if let Some((_, _, place)) = self.imported.iter().find(|(v, i, _)| *v == value && *i == import) {
            return Ok(*place);
        }
        let quant = self.values[value].quant;
        let out = self.take(import.len(), quant.is_some());
        let mut nodes = nodes.to_vec();
        if quant.is_some() {
            nodes = self.quantizing.clone();
        }
        let work = Work::Import { import, quant };
        steps.push(Step { nodes, work, input: Input::Picture, out, size: import.len(), macs: 0 });
        self.imported.push((value, import, out));
        Ok(out)
    }

    /// Where the rows of a convolution lie in a picture whose pixels are `pixel` values apart, all of it under the window:
    /// `None` where a row is none of a few runs of values.
    pub fn starts(&self, w: &Window, [h, width]: [usize; 2], pixel: usize) -> Result<Option<Starts>, String> {
        let reach = |i: usize| (w.output[i] - 1) * w.stride[i] + (w.kernel[i] - 1) * w.dilation[i];
        if reach(0) >= h || reach(1) >= width || (w.dilation[1] > 1 && w.kernel[1] > 1) {
            return Ok(None);
        }
        let place = |at: usize| {
            let (y, x) = (at / w.output[1], at % w.output[1]);
            (y * w.stride[0] * width + x * w.stride[1]) * pixel
        };
        let starts = (0..w.positions()).map(|at| u32::try_from(place(at)).map_err(|e| e.to_string()));
        Ok(Some(Starts { starts: starts.collect::<Result<_, _>>()?, pitch: w.dilation[0] * width * pixel }))
    }

    /// The slot of real numbers, or of bytes where `bytes`, that a second input lies in.
    fn second(&mut self, value: Id, layer: &Layer, steps: &mut Vec<Step>, bytes: bool) -> Result<usize, String> {
        match (self.padded_input(value, &layer.nodes, steps)?, bytes) {
            (Input::Slot(slot), false) | (Input::Bytes(slot), true) => Ok(slot),
            _ => Err("a sum of bytes and real numbers".into()),
        }
    }

    fn layer(&mut self, layer: &Layer, steps: &mut Vec<Step>) -> Result<(), String> {
        let values = self.values;
        let (made, source) = (&values[layer.output], &values[layer.inputs[0]]);
        let size = made.pixels() * self.padded(made);
        if matches!(layer.op, Op::Quantize) && self.input(layer.inputs[0])? == Input::Picture {
            self.place[layer.output] = Some(Input::Picture);
            self.quantizing.clone_from(&layer.nodes);
            return Ok(());
        }
        // A convolution lays the picture out as it wants it.
        let own = matches!(&layer.op, Op::Conv(c) if c.kind == Kind::Full && c.first.is_none())
            && self.input(layer.inputs[0])? == Input::Picture;
        let mut input = match own {
            true => Input::Picture,
            false => self.padded_input(layer.inputs[0], &layer.nodes, steps)?,
        };
        let mut macs = 0;
        let chunk = self.chunk(size);
        let work = match (&layer.op, source.quant) {
            (Op::Conv(conv), quant) => {
                macs = conv_macs(conv, source, made);
                match (quant, conv.kind) {
                    (_, Kind::Depthwise) => {
                        if quant.is_some() != made.quant.is_some() {
                            return Err("a depthwise convolution between bytes and real numbers".into());
                        }
                        let depthwise = self.depthwise(conv, source, made.quant)?;
                        let pieces = self.pieces(depthwise.window().positions(), 48);
                        Work::Depthwise { depthwise: Box::new(depthwise), pieces }
                    }
                    (None, Kind::Full) => self.conv(conv, layer, made, &mut input, steps)?,
                    (Some(quant), Kind::Full) => self.conv_bytes(conv, layer, quant, &mut input, steps)?,
                }
            }
            (Op::Dense(dense), quant) => {
                macs = dense.k * dense.n;
                match quant {
                    None => self.dense(dense)?,
                    Some(quant) => self.dense_bytes(dense, made, quant)?,
                }
            }
            (Op::Add(limits), None) => {
                Work::Add { other: Some(self.second(layer.inputs[1], layer, steps, false)?), limits: *limits, chunk }
            }
            (Op::Limits(limits), None) => Work::Add { other: None, limits: *limits, chunk },
            (Op::Add(limits), Some(quant)) => {
                let other = values[layer.inputs[1]].quant.ok_or("a sum of bytes and real numbers")?;
                let slot = self.second(layer.inputs[1], layer, steps, true)?;
                Work::Rescale { other: Some(slot), affine: rescale(&[quant, other], made.quant, *limits), chunk }
            }
            (Op::Limits(limits), Some(quant)) => {
                Work::Rescale { other: None, affine: rescale(&[quant], made.quant, *limits), chunk }
            }
            (Op::Dequantize, Some(quant)) => {
                Work::Rescale { other: None, affine: rescale(&[quant], None, OPEN), chunk }
            }
            (Op::Quantize, None) => {
                let quant = made.quant.ok_or("a quantization without a scale")?;
                let real = Quant { scale: 1.0, zero: 0 };
                Work::Rescale { other: None, affine: rescale(&[real], Some(quant), OPEN), chunk }
            }
            (Op::MaxPool(window), quant) => {
                if quant != made.quant {
                    return Err("a maximum that changes its scale".into());
                }
                let pieces = self.pieces(window.positions(), 64);
                Work::MaxPool { window: *window, channels: self.padded(made), pieces }
            }
            (Op::Average, None) => Work::Average { channels: self.padded(made), pixels: source.pixels() },
            (Op::Average, Some(quant)) => self.average_bytes(source, made, quant)?,
            (Op::Softmax | Op::Sigmoid, None) => {
                Work::Scores { softmax: matches!(layer.op, Op::Softmax), count: made.c }
            }
            (Op::Pad(before, after), None) => {
                let window = Window::new([source.h, source.w], [1, 1], [1, 1], [1, 1], *before, *after);
                Work::Pad { window: window.ok_or("padding of nothing")?, channels: self.padded(made) }
            }
            _ => return Err("a layer was left over".into()),
        };
        let out = self.take(size, made.quant.is_some());
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
    pub fn pieces(&self, positions: usize, most: usize) -> Pieces {
        const OVERHEAD: usize = 3;
        let tile = row_step(self.isa);
        let last = most.next_multiple_of(tile).max(tile);
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
        let counts = positions.div_ceil(last).max(1)..=positions.div_ceil(last.min(2 * tile)).max(1);
        let sizes = counts.map(|count| positions.div_ceil(count).next_multiple_of(2));
        Pieces { size: sizes.min_by_key(|s| span(*s)).unwrap_or(last), positions }
    }

    fn conv(
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
        let inner = self.filter(name)?;
        // (O,I,taps) in the file; (taps,I) are the rows here.
        let channels = inner.len() / made.c / taps;
        let (window, positions) = (conv.window, made.pixels());
        // Values for each pixel where it is read as it lies.
        let mut pixel = self.padded(source);
        let mut size = [source.h, source.w];
        let laid_out = *input == Input::Picture && conv.read == OPEN && window.dilation[1] == 1;
        if laid_out && run_fits(3 * window.kernel[1]) {
            let borders = borders(&window);
            pixel = 3;
            size = [0, 1].map(|i| borders[0][i] + size[i] + borders[1][i]);
            // The picture as it is, where that will do.
            if borders != [[0; 2]; 2] || strides(source, 3).channel != 1 {
                *input = self.import(0, pixel, borders, &layer.nodes, steps)?;
            }
        }
        // As it was handed in, the picture has no pixels of whole vectors.
        let known = *input != Input::Picture || pixel == 3;
        let inside = conv.first.is_none() && conv.read == OPEN && known && (window.before == [0; 2] || pixel == 3);
        let starts = if inside { self.starts(&window, size, pixel)? } else { None };
        // Channels that pad a pixel are multiplied, too, but where a pixel is all there is.
        let lie = if taps == 1 { channels } else { pixel };
        let starts = starts.filter(|_| taps == 1 || (run_fits(window.kernel[1] * lie) && 8 * lie <= 9 * channels));
        let (rows, per, runs) = match (&conv.first, starts) {
            (Some((first, _)), _) => (Rows::Depthwise(Box::new(self.depthwise(first, source, None)?)), channels, 1),
            (None, Some(starts)) => (Rows::Direct(starts), lie, window.kernel[0]),
            (None, None) => {
                let strides = match *input {
                    Input::Picture => strides(source, source.c),
                    _ => hwc(source, self.padded(source)),
                };
                (Rows::Im2col(Im2col { window, channels: source.c, strides, read: conv.read }), channels, 1)
            }
        };
        let k = per * taps;
        let scale = name.scale.as_deref();
        let weights = Weights::pack(self.isa, k, made.c, runs, |row, o| match (row / per, row % per) {
            (tap, channel) if channel < channels => {
                inner[(o * channels + channel) * taps + tap] * scale.map_or(1.0, |s| s[o])
            }
            _ => 0.0,
        });
        let mut bias = conv.bias.clone();
        bias.resize(weights.n(), 0.0);
        let row = match &rows {
            Rows::Depthwise(d) => d.channels(),
            _ => k,
        };
        let strip = if matches!(rows, Rows::Direct(_)) { MOST } else { STRIP / 4 / row.max(1) };
        let most = strip.min(BLOCK / 4 / row.clamp(1, 384)).clamp(6, if k * weights.n() <= SMALL { FEW } else { MOST });
        let pieces = self.pieces(positions, most);
        if !matches!(rows, Rows::Direct(_)) {
            self.scratch[0] = self.scratch[0].max(pieces.size.min(positions) * row);
        }
        let table = (0..pieces.size.min(positions)).map(|i| (i * row) as u32).collect();
        let columns = self.columns(weights.n());
        Ok(Work::Conv { rows, weights, bias, written: conv.written, residual, pieces, table, columns })
    }

    /// Columns per piece where there is one row only.
    fn columns(&self, n: usize) -> usize {
        n.div_ceil(self.threads * 2).next_multiple_of(column_step(self.isa))
    }

    fn filter(&self, filter: &Filter) -> Result<Vec<f32>, String> {
        let values = self.constants.floats(&filter.name).map(|f| f.1);
        values.ok_or_else(|| format!("the constant {:?} has not the size that it says", filter.name))
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
        let weights = Weights::pack(self.isa, order.len(), dense.n, 1, |row, n| {
            order[row].map_or(0.0, |k| {
                let value = if dense.turned { values[n * dense.k + k] } else { values[k * dense.n + n] };
                value * scale.map_or(1.0, |s| s[n])
            })
        });
        let mut bias = dense.bias.clone();
        bias.resize(weights.n(), 0.0);
        let columns = self.columns(weights.n());
        let pieces = Pieces { size: 1, positions: 1 };
        let rows = Rows::Direct(Starts { starts: vec![0], pitch: 0 });
        Ok(Work::Conv { rows, weights, bias, written: dense.written, residual: None, pieces, table: vec![], columns })
    }
}

/// A buffer of `size` values: the smallest free one that is large enough, else the largest, grown.
fn take(slots: &mut Vec<Slot>, size: usize) -> usize {
    let fits = slots.iter().enumerate().filter(|(_, s)| s.free && s.size >= size).min_by_key(|(_, s)| s.size);
    let best = fits.or_else(|| slots.iter().enumerate().filter(|(_, s)| s.free).max_by_key(|(_, s)| s.size));
    let slot = match best {
        Some((slot, _)) => slot,
        None => {
            slots.push(Slot { size: 0, free: true });
            slots.len() - 1
        }
    };
    slots[slot].size = slots[slot].size.max(size);
    slots[slot].free = false;
    slot
}

/// How the picture lies, as it is handed in.
pub fn strides(picture: &Value, channels: usize) -> Strides {
    match picture.form {
        Form::Nchw | Form::FlatChw => Strides { row: picture.w, column: 1, channel: picture.pixels() },
        Form::Nhwc | Form::FlatHwc => hwc(picture, channels),
    }
}

/// How far a window reaches beyond its picture: before and after, of height and width.
pub fn borders(w: &Window) -> [[usize; 2]; 2] {
    let reach = |i: usize| (w.output[i] - 1) * w.stride[i] + (w.kernel[i] - 1) * w.dilation[i] + 1;
    [w.before, [0, 1].map(|i| reach(i).saturating_sub(w.before[i] + w.input[i]))]
}

pub fn hwc(value: &Value, padded: usize) -> Strides {
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
    own(conv, read.c, made.c) + conv.first.as_ref().map_or(0, |(f, _)| own(f, read.c, read.c))
}
