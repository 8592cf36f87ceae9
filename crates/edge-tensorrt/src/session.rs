//! A network on the GPU, with its memory: one picture in, scores out.

use crate::TensorRtError;
use crate::sys::{Context, DeviceMemory, Engine, Feed, HostMemory, Pinned, Primary, Runtime, Stream};
use std::ffi::{CStr, CString};
use std::rc::Rc;

/// What the package says of the network; an engine that does not agree is not run.
#[derive(Debug, Clone, Copy)]
pub struct Contract<'a> {
    /// Name of the one input.
    pub input: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
    /// Name of the output with one value per class.
    pub output: &'a str,
    /// Number of classes.
    pub classes: usize,
}

/// A network that runs. Nothing is allocated by a run.
pub struct Session {
    // In this order they go: what runs before what it runs in.
    context: Context,
    stream: Stream,
    input: CString,
    /// Room for an input that is not where the GPU finds it.
    copied: DeviceMemory,
    pinned: Rc<HostMemory>,
    /// Given to whoever writes the input.
    lent: Option<Pinned>,
    /// Whether the GPU reads the pinned memory in place.
    in_place: bool,
    outputs: Vec<DeviceMemory>,
    /// Which of them has the classes.
    wanted: usize,
}

impl Session {
    pub(crate) fn new(
        runtime: &Rc<Runtime>,
        primary: &Rc<Primary>,
        plan: &[u8],
        contract: &Contract<'_>,
        in_place: bool,
    ) -> Result<Session, TensorRtError> {
        let engine = Rc::new(Engine::new(runtime, plan)?);
        let tensors = Tensors::read(&engine, contract)?;
        let context = Context::new(&engine)?;
        context.set_shape(&tensors.input, contract.shape)?;
        let mut outputs = vec![];
        for (name, values) in &tensors.outputs {
            let memory = DeviceMemory::new(primary, *values)?;
            context.set_output(name, &memory)?;
            outputs.push(memory);
        }
        let len = contract.shape.iter().product();
        let (pinned, lent) = HostMemory::new(primary, len)?;
        Ok(Session {
            context,
            stream: Stream::new(primary)?,
            copied: DeviceMemory::new(primary, len)?,
            pinned,
            lent: Some(lent),
            in_place,
            outputs,
            wanted: tensors.wanted,
            input: tensors.input,
        })
    }

    /// The memory that the input is best written to, once. A run with these very values copies nothing where the GPU has no
    /// memory of its own, and fast where it has.
    pub fn pinned(&mut self) -> Option<Pinned> {
        self.lent.take()
    }

    /// Runs the network on one input. `output` has one value per class.
    pub fn run(&mut self, input: &[f32], output: &mut [f32]) -> Result<(), TensorRtError> {
        let feed = match self.in_place && self.pinned.is(input) {
            true => Feed::InPlace(&self.pinned),
            false => Feed::Copied(input, &self.copied),
        };
        self.context.run(&self.stream, &self.input, feed, &self.outputs[self.wanted], output)
    }
}

/// What an engine says of its inputs and outputs, as far as it fits.
struct Tensors {
    input: CString,
    /// Name and number of values.
    outputs: Vec<(CString, usize)>,
    wanted: usize,
}

/// More inputs and outputs than a classifier has; a bound for what a library may make us do.
const MAX_TENSORS: i32 = 64;
/// More values than an output has.
const MAX_VALUES: usize = 1 << 24;

impl Tensors {
    fn read(engine: &Engine, contract: &Contract<'_>) -> Result<Tensors, TensorRtError> {
        let fail = |why: String| Err(TensorRtError::Contract(why));
        let count = engine.io_count();
        if !(2..=MAX_TENSORS).contains(&count) {
            return fail(format!("it has {count} inputs and outputs"));
        }
        let (mut input, mut outputs, mut wanted) = (None, vec![], None);
        for index in 0..count {
            let Some(name) = engine.io_name(index) else { return fail(format!("tensor {index} has no name")) };
            let shown = name.to_string_lossy().into_owned();
            let shape = engine.tensor_shape(&name);
            let (mode, kind) = (engine.io_mode(&name), engine.tensor_type(&name));
            if kind != 0 {
                return fail(format!("{shown:?} is {}; float32 is needed", type_name(kind)));
            }
            let Some(shape) = shape else { return fail(format!("{shown:?} has no shape")) };
            match mode {
                1 if shown == contract.input && fits(&shape, contract.shape) => input = Some(name),
                1 => {
                    let (expected, of) = (contract.shape, contract.input);
                    return fail(format!(
                        "its input is {shown:?} of shape {shape:?}; {of:?} of {expected:?} is needed"
                    ));
                }
                2 => {
                    let Some(values) = values(&shape) else {
                        return fail(format!("the shape {shape:?} of its output {shown:?} is no number of values"));
                    };
                    if shown == contract.output {
                        wanted = Some((outputs.len(), values));
                    }
                    outputs.push((name, values));
                }
                _ => return fail(format!("{shown:?} is neither input nor output")),
            }
        }
        match (input, wanted) {
            (Some(input), Some((wanted, values))) if values == contract.classes => {
                Ok(Tensors { input, outputs, wanted })
            }
            (Some(_), Some((_, values))) => {
                let classes = contract.classes;
                fail(format!("{:?} has {values} values; one for each of {classes} classes is needed", contract.output))
            }
            (None, _) => fail(format!("it has no input {:?}", contract.input)),
            (_, None) => fail(format!("it has no output {:?}", contract.output)),
        }
    }
}

/// Whether a shape with open extents can be the one wanted.
fn fits(shape: &[i64], wanted: &[usize]) -> bool {
    let same = |(found, wanted): (&i64, &usize)| *found == -1 || usize::try_from(*found) == Ok(*wanted);
    shape.len() == wanted.len() && shape.iter().zip(wanted).all(same)
}

/// The number of values of an output for one picture: an open extent is the batch.
fn values(shape: &[i64]) -> Option<usize> {
    let mut values = 1usize;
    for (at, extent) in shape.iter().enumerate() {
        let extent = if *extent == -1 && at == 0 { 1 } else { usize::try_from(*extent).ok()? };
        values = values.checked_mul(extent)?;
    }
    (1..=MAX_VALUES).contains(&values).then_some(values)
}

/// `nvinfer1::DataType` in words.
fn type_name(kind: i32) -> String {
    let names = ["float32", "float16", "int8", "int32", "bool", "uint8", "float8", "bfloat16", "int64", "int4"];
    let name = usize::try_from(kind).ok().and_then(|kind| names.get(kind));
    name.map_or_else(|| format!("of an unknown type ({kind})"), ToString::to_string)
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let input: &CStr = &self.input;
        f.debug_struct("Session").field("input", &input).field("in_place", &self.in_place).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_extents_fit_and_others_have_to_be_the_same() {
        assert!(fits(&[-1, 8, 8, 3], &[1, 8, 8, 3]) && fits(&[1, 8], &[1, 8]));
        assert!(!fits(&[1, 8, 8, 3], &[1, 3, 8, 8]) && !fits(&[1, 8], &[1, 8, 1]) && !fits(&[-2, 8], &[1, 8]));
    }

    #[test]
    fn only_the_batch_of_an_output_may_be_open() {
        assert_eq!([&[1i64, 10][..], &[-1, 10], &[10], &[1, 1, 1, 7]].map(values), [10, 10, 10, 7].map(Some));
        assert_eq!([&[1i64, -1][..], &[0], &[i64::MAX, 2], &[-5], &[1 << 30]].map(values), [None; 5]);
    }
}
