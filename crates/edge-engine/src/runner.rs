//! A graph that runs: in our kernels as far as they know it, the rest in tract.

use crate::fused::{self, Lowered, Network};
use crate::guard::guarded;
use crate::{EngineError, LoadOptions, OnnxModel};
use anyhow::{Context, bail};
use edge_kernels::{Float16, Isa};
use edge_package::InputSpec;
use std::sync::Arc;
use tract_core::prelude::*;
use tract_core::runtime::RunOptions;
use tract_linalg::multithread::Executor;
use tract_onnx::pb::ModelProto;
use tract_onnx::tract_hir::infer::InferenceModelExt;
use tract_onnx::tract_hir::prelude::InferenceFact;

/// A network with some of its values, which it computes for one picture at a time. One plan and one state serve all pictures.
pub struct Runner {
    /// What runs in our kernels.
    pub fused: Option<Network>,
    /// What runs in tract.
    stock: Option<Stock>,
    /// Nodes that run in tract, and why.
    pub refused: Vec<(String, String)>,
    /// The set of instructions that our kernels use.
    pub isa: Isa,
    input_len: usize,
    values: Vec<Source>,
}

/// Where a value is after a run.
#[derive(Clone, Copy)]
enum Source {
    /// The output of this number of our network.
    Own(usize),
    /// Of tract's.
    Stock(usize),
}

/// A plan of tract.
struct Stock {
    plan: Arc<TypedRunnableModel>,
    state: TypedSimpleState,
    shapes: Vec<Vec<usize>>,
    outputs: TVec<TValue>,
}

impl Runner {
    /// Prepares `model` for pictures of the shape in `input`; `values` are the names of those that are asked for. `float16` is for
    /// products with float16 weights in our kernels.
    pub fn load(
        model: &OnnxModel<'_>,
        input: &InputSpec,
        values: &[&str],
        options: &LoadOptions,
        float16: Float16,
    ) -> Result<Runner, EngineError> {
        let unsupported = model.unsupported();
        if !unsupported.is_empty() {
            return Err(EngineError::Unsupported(unsupported));
        }
        model.check_permutations()?;
        if !(1..=256).contains(&options.threads) {
            return Err(EngineError::Threads(options.threads));
        }
        let isa = Isa::chosen().map_err(EngineError::Graph)?;
        let lowered = guarded(|| fused::lower(model, input, values, isa, options.threads, float16))
            .map_err(EngineError::Graph)?;
        let mut runner =
            Runner { fused: None, stock: None, refused: vec![], isa, input_len: input.len(), values: vec![] };
        match lowered.and_then(|l| runner.take(l, values, options.threads)) {
            Ok(()) => {}
            // What cannot stand by itself may do so within the whole.
            Err(why) => {
                let inputs = vec![(input.name.clone(), input.shape().to_vec())];
                (runner.fused, runner.refused) = (None, vec![("all nodes".into(), why)]);
                runner.stock = Some(Stock::load(&model.whole(), inputs, values, options.threads)?);
                runner.values = (0..values.len()).map(Source::Stock).collect();
            }
        }
        Ok(runner)
    }

    fn take(&mut self, lowered: Lowered, values: &[&str], threads: usize) -> Result<(), String> {
        let Lowered { network, rest, refused } = lowered;
        let mut left = vec![];
        for value in values {
            self.values.push(match network.outputs().iter().position(|o| o.name == *value) {
                Some(own) => Source::Own(own),
                None => {
                    left.push(*value);
                    Source::Stock(left.len() - 1)
                }
            });
        }
        if let Some(rest) = rest.filter(|_| !left.is_empty()) {
            let inputs = network.outputs().iter().map(|v| (v.name.clone(), v.dims())).collect();
            self.stock = Some(Stock::load(&rest, inputs, &left, threads).map_err(|e| e.to_string())?);
        } else if !left.is_empty() {
            return Err(format!("nothing makes {left:?}"));
        }
        (self.fused, self.refused) = (Some(network), refused);
        Ok(())
    }

    /// Whether any of it runs in tract.
    pub fn needs_stock(&self) -> bool {
        self.stock.is_some()
    }

    /// Computes the values for one picture of the input's shape. Nothing is allocated where all runs in our kernels.
    pub fn run(&mut self, tensor: &[f32]) -> Result<(), EngineError> {
        if tensor.len() != self.input_len {
            return Err(EngineError::Length {
                what: "the input tensor",
                found: tensor.len(),
                expected: self.input_len,
            });
        }
        if let Some(network) = &mut self.fused {
            guarded(|| network.run(tensor)).map_err(EngineError::Run)?;
        }
        let Some(stock) = &mut self.stock else { return Ok(()) };
        let network = &self.fused;
        stock.run(|i, shape| {
            let Some(network) = network else { return Ok(Tensor::from_shape(shape, tensor)?.into_tvalue()) };
            let mut values = vec![0.0; shape.iter().product()];
            network.copy_output(i, tensor, &mut values);
            Ok(Tensor::from_shape(shape, &values)?.into_tvalue())
        })
    }

    /// The dimensions of a value.
    pub fn shape(&self, value: usize) -> Result<Vec<usize>, EngineError> {
        match (self.values[value], &self.fused, &self.stock) {
            (Source::Own(own), Some(network), _) => Ok(network.outputs()[own].dims()),
            (Source::Stock(output), _, Some(stock)) => stock.shape(output),
            _ => unreachable!("a value is where `load` put it"),
        }
    }

    /// Copies all values of the last run, of the picture `tensor`.
    pub fn copy_all(&self, tensor: &[f32], into: &mut [Vec<f32>]) -> Result<(), EngineError> {
        let mut own = vec![];
        for (at, values) in into.iter_mut().enumerate() {
            match (self.values[at], &self.fused) {
                (Source::Own(output), Some(_)) => own.push((output, &mut values[..])),
                _ => self.copy(at, tensor, values)?,
            }
        }
        if let Some(network) = &self.fused {
            network.copy_outputs(tensor, own);
        }
        Ok(())
    }

    /// Copies a value of the last run, of the picture `tensor`, in ONNX' order. `into` has as many values as its dimensions say.
    pub fn copy(&self, value: usize, tensor: &[f32], into: &mut [f32]) -> Result<(), EngineError> {
        match (self.values[value], &self.fused, &self.stock) {
            (Source::Own(own), Some(network), _) => network.copy_output(own, tensor, into),
            (Source::Stock(output), _, Some(stock)) => {
                let fail = |e: TractError| EngineError::Run(format!("{e:#}"));
                let output = stock.outputs.get(output).ok_or_else(|| EngineError::Run("there was no run".into()))?;
                let output = output.cast_to::<f32>().map_err(fail)?;
                let values = output.view().as_slice::<f32>().map_err(fail)?;
                if values.len() != into.len() {
                    let (found, expected) = (into.len(), values.len());
                    return Err(EngineError::Length { what: "the buffer of a value", found, expected });
                }
                into.copy_from_slice(values);
            }
            _ => unreachable!("a value is where `load` put it"),
        }
        Ok(())
    }
}

impl Stock {
    /// Prepares a graph whose `inputs` have these names and shapes.
    fn load(
        model: &ModelProto,
        inputs: Vec<(String, Vec<usize>)>,
        outputs: &[&str],
        threads: usize,
    ) -> Result<Stock, EngineError> {
        let plan = guarded(|| build_plan(model, &inputs, outputs, threads))
            .map_err(EngineError::Graph)?
            .map_err(|e| EngineError::Graph(format!("{e:#}")))?;
        let state = spawn(&plan)?;
        Ok(Stock { plan, state, shapes: inputs.into_iter().map(|i| i.1).collect(), outputs: tvec![] })
    }

    fn run(&mut self, input: impl Fn(usize, &Vec<usize>) -> TractResult<TValue>) -> Result<(), EngineError> {
        let run = || -> TractResult<TVec<TValue>> {
            let inputs = self.shapes.iter().enumerate().map(|(i, s)| input(i, s)).collect::<TractResult<TVec<_>>>()?;
            self.state.run(inputs)
        };
        match guarded(run).and_then(|r| r.map_err(|e| format!("{e:#}"))) {
            Ok(outputs) => {
                self.outputs = outputs;
                Ok(())
            }
            Err(why) => {
                // A failed run leaves values of its turn behind; the next picture starts from a fresh state.
                self.state = spawn(&self.plan)?;
                Err(EngineError::Run(why))
            }
        }
    }

    fn shape(&self, output: usize) -> Result<Vec<usize>, EngineError> {
        let fact = self.plan.model().output_fact(output).map_err(|e| EngineError::Graph(format!("{e:#}")))?;
        let fail = |why: String| Err(EngineError::Output(why));
        let Some(shape) = fact.shape.as_concrete() else {
            return fail(format!("its shape {:?} is not known before running", fact.shape));
        };
        match fact.datum_type.is_float() {
            true => Ok(shape.to_vec()),
            false => fail(format!("it is {:?}; float scores or features are needed", fact.datum_type)),
        }
    }
}

fn build_plan(
    model: &ModelProto,
    inputs: &[(String, Vec<usize>)],
    outputs: &[&str],
    threads: usize,
) -> TractResult<Arc<TypedRunnableModel>> {
    // Shapes the exporter wrote down may hold symbols that contradict the concrete batch of 1; tract
    // infers them anew. The batch must be concrete: a symbolic one sends depthwise convolutions to im2col.
    let onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
    let parsed = onnx.parse(model, None)?;
    if !parsed.unresolved_inputs.is_empty() {
        bail!("nothing makes the value(s) {}", parsed.unresolved_inputs.join(", "));
    }
    let mut graph = parsed.model;
    let sources: Vec<OutletId> = graph.input_outlets()?.to_vec();
    let outlet =
        |name: &str| parsed.outlets_by_name.get(name).copied().with_context(|| format!("there is no value {name:?}"));
    for (name, shape) in inputs {
        let source = outlet(name)?;
        let index = sources.iter().position(|s| *s == source).context("the input is no source")?;
        graph.set_input_fact(index, InferenceFact::dt_shape(f32::datum_type(), shape))?;
    }
    graph.select_output_outlets(&outputs.iter().map(|o| outlet(o)).collect::<TractResult<Vec<_>>>()?)?;
    let typed = graph.into_typed()?.into_optimized()?;
    let executor = match threads {
        1 => Executor::SingleThread,
        n => Executor::multithread(n),
    };
    typed.into_runnable_with_options(&RunOptions { executor: Some(executor), ..RunOptions::default() })
}

fn spawn(plan: &Arc<TypedRunnableModel>) -> Result<TypedSimpleState, EngineError> {
    plan.spawn().map_err(|e| EngineError::Graph(format!("{e:#}")))
}
