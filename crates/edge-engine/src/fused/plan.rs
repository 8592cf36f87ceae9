//! Layers to steps: weights packed, buffers assigned, work cut into strips. Matrix products are in `products.rs`, what
//! computes with bytes is in `bytes.rs`.

use super::beside::Homes;
use super::bytes::rescale;
use super::constant::Constants;
use super::graph::{Conv, Form, Id, Kind, Layer, OPEN, Op, Quant, Value};
use super::rows::Starts;
use super::step::{Input, Memory, Part, Pieces, Scratch, Step, Work};
use edge_kernels::{Among, Buffer, Float16, Import, Isa, Plain, Strides, Window, row_step, second_level_cache};

/// What a strip may take in all, in bytes: it is read from the cache beyond once more.
const STRIP: usize = 1 << 20;
/// Positions in a strip at most. The weights come from the cache beyond once for each strip, so many are good, but what rows have
/// of a block of k (1.5 kB each) has to stay in the second-level cache beside what they make.
const MOST: usize = 120;
/// The same where that cache is large: has so many bytes.
const MOST_OF_LARGE: usize = 256;
const LARGE: usize = 1 << 20;
/// What a piece of work costs beside its rows, in rows; where its weights are decoded, too.
pub const OVERHEAD: usize = 3;
pub const DECODED: usize = 6;

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
    float16: Float16,
    threads: usize,
    layers: &[Layer],
    values: &[Value],
    constants: &Constants<'_>,
    outputs: &[Id],
) -> Result<Plan, String> {
    let mut planner = Planner {
        isa,
        float16,
        threads,
        values,
        constants,
        floats: vec![],
        bytes: vec![],
        homes: Homes::find(isa, layers, values, outputs),
        place: vec![None; values.len()],
        scratch: [0; 3],
        imported: vec![],
        quantizing: vec![],
        scaled: None,
        outputs,
        most: match second_level_cache() {
            Some(bytes) if bytes >= LARGE => MOST_OF_LARGE,
            _ => MOST,
        },
    };
    let mut steps = vec![];
    for (at, layer) in layers.iter().enumerate() {
        planner.layer(layer, &mut steps)?;
        layer.filters().for_each(|f| constants.done(&f.name));
        // What nobody reads any more makes room for the next.
        for value in layer.reads().chain([layer.output]) {
            let home = planner.homes.of(value);
            let needed = |v: Id| planner.homes.of(v) == home;
            if !outputs.iter().copied().any(needed) && !layers[at + 1..].iter().any(|l| l.reads().any(needed)) {
                planner.free(home);
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
    pub float16: Float16,
    pub threads: usize,
    pub values: &'a [Value],
    pub constants: &'a Constants<'a>,
    floats: Vec<Slot>,
    bytes: Vec<Slot>,
    /// In whose buffers values lie.
    homes: Homes,
    /// The buffer of a value that has one.
    place: Vec<Option<Input>>,
    /// Real numbers, whole ones and bytes in a strip.
    pub scratch: [usize; 3],
    /// The picture, or what it is quantized to, as it has been laid out for those who read it.
    imported: Vec<(Id, Import, Input)>,
    /// The nodes that quantize the picture: that is part of laying it out.
    quantizing: Vec<usize>,
    /// Factors and offsets of the picture by channel, the value that they make of it, and their nodes: part of that, too.
    pub scaled: Option<(Id, [[f32; 3]; 2], Vec<usize>)>,
    outputs: &'a [Id],
    /// Positions in a strip at most.
    pub most: usize,
}

impl Planner<'_> {
    /// Positions in a strip at most whose rows take so many bytes each.
    pub fn strip(&self, row: usize) -> usize {
        (STRIP / row.max(1)).clamp(6, self.most)
    }

    /// Channels of a value, padded.
    pub fn padded(&self, value: &Value) -> usize {
        self.isa.padded(value.c)
    }

    /// Where the channels of a value lie in its buffer.
    pub fn among(&self, value: Id) -> Among {
        self.homes.among(self.isa, self.values, value)
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
        match (self.place[self.homes.of(value)], value) {
            (Some(place), _) => Ok(place),
            (None, 0) => Ok(Input::Picture),
            (None, _) => Err(format!("the value {:?} is read after its end", self.values[value].name)),
        }
    }

    /// The input of a layer that wants channels padded.
    pub fn padded_input(&mut self, value: Id, nodes: &[usize], steps: &mut Vec<Step>) -> Result<Input, String> {
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
        let scaled = self.scaled.as_ref().filter(|(id, ..)| *id == value);
        let nodes = match (quant, scaled) {
            (Some(_), _) => self.quantizing.clone(),
            (None, Some((_, _, nodes))) => nodes.clone(),
            (None, None) => nodes.to_vec(),
        };
        let scaled = scaled.map(|(_, by, _)| *by);
        let work = Work::Import { import, quant, scaled };
        let (size, among, read) = (import.len(), Among::alone(pixel), 4 * picture.pixels() * picture.c);
        steps.push(Step { nodes, work, input: Input::Picture, out, size, among, read, macs: 0, depthwise: 0 });
        self.imported.push((value, import, out));
        Ok(out)
    }

    /// Where the rows of a convolution lie in a picture whose pixels are `pixel` values apart, the first at `first`, all of it
    /// under the window: `None` where a row is none of a few runs of values.
    pub fn starts(
        &self,
        w: &Window,
        [h, width]: [usize; 2],
        [pixel, first]: [usize; 2],
    ) -> Result<Option<Starts>, String> {
        let reach = |i: usize| (w.output[i] - 1) * w.stride[i] + (w.kernel[i] - 1) * w.dilation[i];
        if reach(0) >= h || reach(1) >= width || (w.dilation[1] > 1 && w.kernel[1] > 1) {
            return Ok(None);
        }
        let place = |at: usize| {
            let (y, x) = (at / w.output[1], at % w.output[1]);
            (y * w.stride[0] * width + x * w.stride[1]) * pixel + first
        };
        let starts = (0..w.positions()).map(|at| u32::try_from(place(at)).map_err(|e| e.to_string()));
        Ok(Some(Starts { starts: starts.collect::<Result<_, _>>()?, pitch: w.dilation[0] * width * pixel }))
    }

    /// The slot of real numbers, or of bytes where `bytes`, that a second input lies in.
    pub fn second(&mut self, value: Id, layer: &Layer, steps: &mut Vec<Step>, bytes: bool) -> Result<usize, String> {
        match (self.padded_input(value, &layer.nodes, steps)?, bytes) {
            (Input::Slot(slot), false) | (Input::Bytes(slot), true) => Ok(slot),
            _ => Err("a sum of bytes and real numbers".into()),
        }
    }

    fn layer(&mut self, layer: &Layer, steps: &mut Vec<Step>) -> Result<(), String> {
        let values = self.values;
        let (made, source) = (&values[layer.output], &values[layer.inputs[0]]);
        let among = self.among(layer.output);
        let size = made.pixels() * among.pitch;
        if matches!(layer.op, Op::Quantize) && layer.inputs[0] == 0 && self.input(0)? == Input::Picture {
            self.place[layer.output] = Some(Input::Picture);
            self.quantizing.clone_from(&layer.nodes);
            return Ok(());
        }
        if let Some(by) = self.scales_picture(layer) {
            self.place[layer.output] = Some(Input::Picture);
            self.scaled = Some((layer.output, by, layer.nodes.clone()));
            return Ok(());
        }
        // A convolution lays the picture out as it wants it.
        let own = matches!(&layer.op, Op::Conv(Conv { kind: Kind::Full, first: None, prelude: None, .. }))
            && self.input(layer.inputs[0])? == Input::Picture;
        let mut input = match own {
            true => Input::Picture,
            false => self.padded_input(layer.inputs[0], &layer.nodes, steps)?,
        };
        let (mut macs, mut depthwise) = (0, 0);
        let chunk = self.chunk(size);
        let work = match (&layer.op, source.quant) {
            (Op::Conv(conv), quant) => {
                (macs, depthwise) = conv_macs(conv, source, made);
                match (quant, conv.kind) {
                    (_, Kind::Depthwise) => {
                        if quant.is_some() != made.quant.is_some() {
                            return Err("a depthwise convolution between bytes and real numbers".into());
                        }
                        let depthwise = self.depthwise(conv, source, made.quant)?;
                        let pieces = self.pieces(depthwise.window().positions(), 48, OVERHEAD);
                        Work::Depthwise { depthwise: Box::new(depthwise), pieces, function: conv.function }
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
                let pieces = self.pieces(window.positions(), 64, OVERHEAD);
                Work::MaxPool { window: *window, channels: self.padded(made), pieces }
            }
            (Op::MeanPool(window, counted), None) => {
                let pieces = self.pieces(window.positions(), 64, OVERHEAD);
                Work::MeanPool { window: *window, counted: *counted, channels: self.padded(made), pieces }
            }
            (Op::Apply(function), None) => Work::Apply { function: *function, chunk },
            (Op::Mul, None) => Work::Multiply { other: self.second(layer.inputs[1], layer, steps, false)?, chunk },
            (Op::Gate, None) => {
                let by = self.second(layer.inputs[1], layer, steps, false)?;
                Work::Scale { by, channels: self.padded(made), pieces: self.pieces(made.pixels(), self.most, OVERHEAD) }
            }
            (Op::Concat, None) => {
                let (mut parts, mut first) = (vec![], among.first);
                for id in &layer.inputs {
                    let value = &values[*id];
                    if self.homes.of(*id) != self.homes.of(layer.output) {
                        let (slot, from) = (self.second(*id, layer, steps, false)?, self.among(*id));
                        parts.push(Part { slot, from, channels: value.c, first });
                    }
                    first += value.c;
                }
                let (count, pieces) = (layer.inputs.len(), self.pieces(made.pixels(), self.most, OVERHEAD));
                Work::Concat { parts, count, padding: among.first + made.c..among.first + among.channels, pieces }
            }
            (Op::Average, None) => Work::Average { channels: self.padded(made), pixels: source.pixels() },
            (Op::Average, Some(quant)) => self.average_bytes(source, made, quant)?,
            (Op::Softmax, None) => Work::Softmax { count: made.c },
            (Op::Pad(before, after), None) => {
                let window = Window::new([source.h, source.w], [1, 1], [1, 1], [1, 1], *before, *after);
                Work::Pad { window: window.ok_or("padding of nothing")?, channels: self.padded(made) }
            }
            _ => return Err("a layer was left over".into()),
        };
        let home = self.homes.of(layer.output);
        let out = match self.place[home] {
            Some(place) => place,
            None => self.take(size, made.quant.is_some()),
        };
        self.place[home] = Some(out);
        // A picture's pixels are not padded to whole vectors.
        let pixel = |v: &Value| if v.c == 3 { 3 } else { self.padded(v) };
        let bytes = |v: &Value| v.pixels() * pixel(v) * if v.quant.is_some() { 1 } else { 4 };
        let read = match &work {
            Work::Concat { parts, .. } => parts.iter().map(|p| 4 * made.pixels() * p.channels).sum(),
            _ => layer.reads().map(|id| bytes(&values[id])).sum(),
        };
        steps.push(Step { nodes: layer.nodes.clone(), work, input, out, size, among, read, macs, depthwise });
        Ok(())
    }

    /// Factors and offsets, where all that a layer does is to scale the picture for others.
    fn scales_picture(&self, layer: &Layer) -> Option<[[f32; 3]; 2]> {
        let Op::Conv(conv @ Conv { filter: None, kind: Kind::Depthwise, written: OPEN, read: OPEN, .. }) = &layer.op
        else {
            return None;
        };
        let picture = layer.inputs[0] == 0 && self.input(0) == Ok(Input::Picture) && self.values[0].c == 3;
        let whole =
            picture && conv.function.is_none() && self.scaled.is_none() && !self.outputs.contains(&layer.output);
        let by = [conv.factors[..].try_into().ok()?, conv.bias[..].try_into().ok()?];
        whole.then_some(by)
    }

    /// Values per piece of work that only moves memory.
    fn chunk(&self, size: usize) -> usize {
        size.div_ceil(self.threads).min(1 << 16).next_multiple_of(16)
    }

    /// Positions cut so that the threads end together, at most `most` in a piece. Each piece has a cost of its own, that of so
    /// many `rows`: the weights come through the cache once more.
    pub fn pieces(&self, positions: usize, most: usize, rows: usize) -> Pieces {
        /// What rows cost that are too few for a full tile of six, in tenths of a row of such a one: those of four and two wait
        /// for their sums.
        const FEWER: [usize; 6] = [0, 35, 35, 70, 43, 78];
        let tile = row_step(self.isa);
        let last = most.next_multiple_of(tile).max(tile);
        let span = |size: usize| {
            let mut ends = vec![0; self.threads];
            for first in (0..positions).step_by(size) {
                let taken = size.min(positions - first);
                // Whoever is free first takes the next.
                if let Some(end) = ends.iter_mut().min() {
                    *end += taken / 6 * 60 + FEWER[taken % 6] + 10 * rows;
                }
            }
            ends.into_iter().max().unwrap_or_default()
        };
        let fewest = positions.div_ceil(last).max(1);
        // The more pieces there are, the less one of them makes a thread wait.
        let counts = fewest..=positions.div_ceil(last.min(2 * tile)).clamp(fewest, fewest + 8 * self.threads);
        let sizes =
            counts.map(|count| positions.div_ceil(count)).flat_map(|size| [2, 6].map(|m| size.next_multiple_of(m)));
        Pieces { size: sizes.filter(|size| *size <= last).min_by_key(|s| span(*s)).unwrap_or(last), positions }
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

/// Multiplications of a convolution, each with an addition: all of them, and those where each channel is by itself.
fn conv_macs(conv: &Conv, read: &Value, made: &Value) -> (usize, usize) {
    let own = |c: &Conv, inputs: usize, outputs: usize| {
        c.window.positions()
            * c.window.kernel[0]
            * c.window.kernel[1]
            * if c.kind == Kind::Full { inputs } else { 1 }
            * outputs
    };
    let first = conv.first.as_ref().map_or(0, |(f, _)| own(f, read.c, read.c));
    let main = own(conv, read.c, made.c);
    (main + first, if conv.kind == Kind::Full { first } else { main })
}
