//! Networks of convolutions on kernels of our own.
//!
//! ONNX' operators become layers ([`read`]), layers that can be part of others do ([`fuse`], [`functions`]), and what is left becomes
//! steps with packed weights and planned buffers ([`plan`], [`step`]). Pictures are (H,W,C) from end to end, so that a
//! transposition costs nothing; a depthwise convolution is computed strip by strip straight into what the pointwise one
//! after it multiplies. Nothing is allocated for a picture.
//!
//! What is not understood, with all that comes after it, is left to tract: [`Lowered::rest`] is the ONNX graph of it.

mod beside;
mod bytes;
mod constant;
mod count;
mod functions;
mod fuse;
mod graph;
mod matrix;
mod pixels;
mod plan;
mod products;
mod read;
mod rows;
mod step;

use crate::onnx::node_name;
use crate::{OnnxModel, StepCost};
pub use constant::{Attributes, Constants, tensor_floats};
use edge_kernels::{Float16, Function, Isa, Threads};
use edge_package::InputSpec;
use graph::{Form, Value};
use plan::Plan;
use read::Reading;
use rows::{Rows, Rows8};
use std::collections::HashSet;
use std::time::{Duration, Instant};
use step::{Input, Work};
use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_proto::DataType,
    tensor_shape_proto::{Dimension, dimension::Value as DimValue},
    type_proto::{Tensor, Value as TypeValue},
};

/// More layers than any classifier has; matching them takes time that grows with the square.
const MAX_LAYERS: usize = 4000;

/// A network, or the beginning of one, ready to run.
pub struct Network {
    isa: Isa,
    plan: Plan,
    threads: Threads,
    outputs: Vec<Value>,
    infos: Vec<StepInfo>,
    costs: Vec<StepCost>,
    times: Vec<Duration>,
}

/// What a step is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepInfo {
    /// Names of the nodes in the file.
    pub nodes: Vec<String>,
    /// What runs.
    pub what: String,
    /// Multiplications, each with an addition.
    pub macs: usize,
}

/// A network as far as it is understood.
pub struct Lowered {
    /// What runs here.
    pub network: Network,
    /// What is left, reading the network's outputs by name; `None` where all was understood.
    pub rest: Option<ModelProto>,
    /// For each node of the rest, its name and why it is there.
    pub refused: Vec<(String, String)>,
}

/// Lowers as much of a model as `outputs` need, or says why nothing of it can be.
pub fn lower(
    onnx: &OnnxModel<'_>,
    input: &InputSpec,
    outputs: &[&str],
    isa: Isa,
    threads: usize,
    float16: Float16,
) -> Result<Lowered, String> {
    let model = &onnx.proto;
    let graph = model.graph.as_ref().ok_or("there is no graph")?;
    if graph.node.iter().flat_map(|n| &n.attribute).any(|a| a.g.is_some() || !a.graphs.is_empty()) {
        return Err("a node has a graph of its own".into());
    }
    let reading = read::read(onnx.opset(), graph, Constants::of(graph, &onnx.values, onnx.release), input, outputs);
    if reading.layers.len() > MAX_LAYERS {
        return Err(format!("more than {MAX_LAYERS} layers"));
    }
    if !reading.layers.iter().any(|l| matches!(l.op, graph::Op::Conv(_))) {
        let why = reading.refused.first().map(|(n, why)| format!(": {} {why}", node_name(&graph.node[*n])));
        return Err(format!("no convolution can be reached from the picture{}", why.unwrap_or_default()));
    }
    let cut = cut(graph, &reading, outputs);
    if let Some(value) = cut.iter().map(|id| &reading.values[*id]).find(|v| v.quant.is_some()) {
        return Err(format!("{} is quantized where it leaves what is understood", value.name));
    }
    let made: Vec<Value> = cut.iter().map(|id| reading.values[*id].clone()).collect();
    let mut ends = cut;
    let layers = fuse::fuse(reading.layers, &reading.values, &reading.constants, &mut ends);
    let threads = Threads::new(threads);
    let plan = plan::plan(isa, float16, threads.count(), &layers, &reading.values, &reading.constants, &ends)?;
    let infos: Vec<StepInfo> = plan.steps.iter().map(|s| info(s, graph)).collect();
    let costs = plan.steps.iter().map(|s| count::cost(s, float16 != Float16::Never)).collect();
    let refused: Vec<usize> = reading.refused.iter().map(|r| r.0).collect();
    let rest = (!refused.is_empty()).then(|| rest(model, graph, &reading.constants, &refused, &made, outputs));
    let refused = reading.refused.into_iter().map(|(n, why)| (node_name(&graph.node[n]), why)).collect();
    let times = vec![Duration::ZERO; infos.len()];
    Ok(Lowered { network: Network { isa, plan, threads, outputs: made, infos, costs, times }, rest, refused })
}

/// The values that leave the network: what the rest reads, and outputs.
fn cut(graph: &GraphProto, reading: &Reading<'_>, outputs: &[&str]) -> Vec<usize> {
    let mut seen = HashSet::new();
    let read = reading.refused.iter().flat_map(|(n, _)| &graph.node[*n].input).map(String::as_str);
    let names = read.chain(outputs.iter().copied());
    names.filter_map(|n| reading.by_name.get(n).copied()).filter(|id| seen.insert(*id)).collect()
}

/// The graph of the nodes that are left.
fn rest(
    model: &ModelProto,
    graph: &GraphProto,
    constants: &Constants<'_>,
    nodes: &[usize],
    inputs: &[Value],
    outputs: &[&str],
) -> ModelProto {
    let mut kept: HashSet<usize> = nodes.iter().copied().collect();
    let mut read: HashSet<&str> = nodes.iter().flat_map(|n| &graph.node[*n].input).map(String::as_str).collect();
    // What makes their constants goes along.
    for (at, node) in graph.node.iter().enumerate().rev() {
        if node.output.iter().any(|o| constants.get(o).is_some() && read.contains(o.as_str())) && kept.insert(at) {
            read.extend(node.input.iter().map(String::as_str));
        }
    }
    let node: Vec<NodeProto> =
        graph.node.iter().enumerate().filter(|(at, _)| kept.contains(at)).map(|(_, n)| n.clone()).collect();
    let kept = graph.initializer.iter().filter(|t| read.contains(t.name.as_str()));
    let initializer = kept.map(|t| constants.get(&t.name).map_or_else(|| t.clone(), |t| t.whole())).collect();
    let left = outputs.iter().filter(|name| !inputs.iter().any(|i| i.name == **name));
    let graph = GraphProto {
        name: graph.name.clone(),
        initializer,
        input: inputs.iter().map(value_info).collect(),
        output: left.map(|name| ValueInfoProto { name: name.to_string(), ..Default::default() }).collect(),
        node,
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: model.ir_version,
        opset_import: model.opset_import.clone(),
        graph: Some(graph),
        ..ModelProto::default()
    }
}

fn value_info(value: &Value) -> ValueInfoProto {
    let side = |d: usize| Dimension { value: Some(DimValue::DimValue(d as i64)), ..Dimension::default() };
    let shape = TensorShapeProto { dim: value.dims().into_iter().map(side).collect() };
    let tensor = Tensor { elem_type: DataType::Float as i32, shape: Some(shape) };
    ValueInfoProto {
        name: value.name.clone(),
        r#type: Some(TypeProto { value: Some(TypeValue::TensorType(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

fn name(function: &Function) -> &'static str {
    match function {
        Function::Sigmoid => "sigmoid",
        Function::Silu => "silu",
        Function::Ramp(_) => "hard sigmoid",
        Function::TimesRamp(_) => "hard swish",
    }
}

fn named(function: &Option<Function>) -> String {
    function.as_ref().map_or(String::new(), |f| format!(", {}", name(f)))
}

fn info(step: &step::Step, graph: &GraphProto) -> StepInfo {
    let window = |w: &edge_kernels::Window| format!("{}x{} stride {}", w.kernel[0], w.kernel[1], w.stride[0]);
    let what = match &step.work {
        Work::Import { scaled: Some(_), .. } => "picture scaled".into(),
        Work::Import { quant: None, .. } => "picture copied".into(),
        Work::Import { .. } => "picture quantized".into(),
        Work::Conv { rows, weights, residual, pieces, function, .. } => {
            let rows = match rows {
                Rows::Direct(_) if weights.runs() > 1 => format!("{} rows of a window, ", weights.runs()),
                Rows::Direct(_) => String::new(),
                Rows::Im2col(i) => format!("{} im2col, ", window(&i.window)),
                Rows::Depthwise(d, then) => format!("depthwise {}{}, ", window(d.window()), named(then)),
                Rows::Scaled(..) => "scale, ".into(),
                Rows::Gated(..) => "gate, ".into(),
            };
            let sum = if residual.is_some() { ", sum" } else { "" };
            let kind = if weights.is_in_float16() { "float16 matrix" } else { "matrix" };
            format!("{rows}{kind} {}x{}x{}{sum}{}", pieces.positions, weights.k(), weights.n(), named(function))
        }
        Work::Winograd { layer, residual, function, .. } => {
            let sum = if residual.is_some() { ", sum" } else { "" };
            let [h, w] = layer.window().output;
            format!("3x3 by Winograd, matrix {}x{}x{}{sum}{}", h * w, 9 * layer.channels(), layer.n(), named(function))
        }
        Work::Conv8 { rows, weights, pieces, .. } => {
            let rows = match rows {
                Rows8::Direct(_) => String::new(),
                Rows8::Im2col(i, _) if i.window.kernel == [1, 1] => String::new(),
                Rows8::Im2col(i, _) => format!("{} im2col, ", window(&i.window)),
                Rows8::Depthwise(d) => format!("depthwise {}, ", window(d.window())),
            };
            format!("{rows}int8 matrix {}x{}x{}", pieces.positions, weights.k(), weights.n())
        }
        Work::Rescale { other, .. } => match (other.is_some(), step.input, step.out) {
            (true, ..) => "int8 sum".into(),
            (_, Input::Bytes(_), Input::Bytes(_)) => "int8 to another scale".into(),
            (_, Input::Bytes(_), _) => "dequantized".into(),
            _ => "quantized".into(),
        },
        Work::AverageBytes { .. } => "int8 mean".into(),
        Work::Depthwise { depthwise, function, .. } => {
            format!("depthwise {} of {}{}", window(depthwise.window()), depthwise.channels(), named(function))
        }
        Work::MaxPool { window: w, .. } => format!("maximum {}", window(w)),
        Work::MeanPool { window: w, .. } => format!("mean {}", window(w)),
        Work::Average { .. } => "mean".into(),
        Work::Add { other: Some(_), .. } => "sum".into(),
        Work::Add { other: None, .. } => "limits".into(),
        Work::Pad { .. } => "padding".into(),
        Work::Apply { function, .. } => name(function).into(),
        Work::Multiply { .. } => "product".into(),
        Work::Scale { .. } => "gate".into(),
        Work::Concat { parts, count, .. } => match parts.len() {
            0 => format!("{count} values beside each other, where they were made"),
            copied => format!("{count} values beside each other, {copied} of them copied"),
        },
        Work::Softmax { .. } => "softmax".into(),
    };
    StepInfo { nodes: step.nodes.iter().map(|n| node_name(&graph.node[*n])).collect(), what, macs: step.macs }
}

impl Network {
    /// Runs it on a picture of the input's shape.
    pub fn run(&mut self, picture: &[f32]) {
        let plan = &mut self.plan;
        for (step, time) in plan.steps.iter().zip(&mut self.times) {
            let start = Instant::now();
            step.run(self.isa, picture, &mut plan.memory, &mut plan.scratch, &mut self.threads);
            *time = start.elapsed();
        }
    }

    /// The values that leave it, with their names and dimensions.
    pub fn outputs(&self) -> &[Value] {
        &self.outputs
    }

    /// Copies an output of the last run, in ONNX' order.
    pub fn copy_output(&self, output: usize, picture: &[f32], into: &mut [f32]) {
        copy(&self.outputs[output], self.plan.outputs[output], picture, &self.plan.memory, self.isa, into);
    }

    /// Copies several outputs, on all of its threads.
    pub fn copy_outputs(&self, picture: &[f32], into: Vec<(usize, &mut [f32])>) {
        let mut shares: Vec<Vec<(usize, &mut [f32])>> = (0..self.threads.count()).map(|_| vec![]).collect();
        let mut load = vec![0; shares.len()];
        for (output, values) in into {
            let least = (0..load.len()).min_by_key(|t| load[*t]).unwrap_or_default();
            load[least] += values.len();
            shares[least].push((output, values));
        }
        let (outputs, plan, isa) = (&self.outputs, &self.plan, self.isa);
        std::thread::scope(|scope| {
            for share in shares {
                scope.spawn(move || {
                    for (output, into) in share {
                        copy(&outputs[output], plan.outputs[output], picture, &plan.memory, isa, into);
                    }
                });
            }
        });
    }

    /// Whether any of its matrix products is computed in float16 arithmetic.
    pub fn is_in_float16(&self) -> bool {
        let float16 = |work: &Work| matches!(work, Work::Conv { weights, .. } if weights.is_in_float16());
        self.plan.steps.iter().any(|s| float16(&s.work))
    }

    /// What each of its steps costs.
    pub fn costs(&self) -> &[StepCost] {
        &self.costs
    }

    /// Memory of the values between steps and of the threads' strips, in bytes.
    pub fn buffers(&self) -> u64 {
        count::buffers(&self.plan)
    }

    /// What its steps are, and how long each took in the last run.
    pub fn steps(&self) -> impl Iterator<Item = (&StepInfo, Duration)> {
        self.infos.iter().zip(self.times.iter().copied())
    }
}

/// A value in ONNX' order, out of where it lies in pixels padded to whole vectors.
fn copy(value: &Value, input: Input, picture: &[f32], memory: &step::Memory, isa: Isa, into: &mut [f32]) {
    if input == Input::Picture {
        into.copy_from_slice(picture);
        return;
    }
    let (values, padded) = (step::lend(input, picture, memory), isa.padded(value.c));
    match value.form {
        Form::Nhwc | Form::FlatHwc => {
            for (target, pixel) in into.chunks_exact_mut(value.c).zip(values.chunks_exact(padded)) {
                target.copy_from_slice(&pixel[..value.c]);
            }
        }
        Form::Nchw | Form::FlatChw => {
            // A few pixels of all channels at a time: what is read and what is written stay in the cache.
            const BLOCK: usize = 32;
            let pixels = value.pixels();
            for first in (0..pixels).step_by(BLOCK) {
                let last = (first + BLOCK).min(pixels);
                for channel in 0..value.c {
                    let target = &mut into[channel * pixels + first..channel * pixels + last];
                    let source = values[first * padded + channel..].iter().step_by(padded);
                    target.iter_mut().zip(source).for_each(|(t, v)| *t = *v);
                }
            }
        }
    }
}
