//! The CPU backend: tract imports, optimises and runs.

use crate::fused::{self, Network};
use crate::guard::guarded;
use crate::{Backend, Description, EngineError, LoadOptions, OnnxModel, Part};
use anyhow::{Context, bail};
use edge_kernels::Isa;
use edge_package::InputSpec;
use std::sync::Arc;
use tract_core::prelude::*;
use tract_core::runtime::RunOptions;
use tract_linalg::multithread::Executor;
use tract_onnx::pb::ModelProto;
use tract_onnx::tract_hir::infer::InferenceModelExt;
use tract_onnx::tract_hir::prelude::InferenceFact;

/// The version this workspace pins; tract does not tell its own.
const ENGINE: &str = "tract 0.23.9";
/// What the kernels of this workspace call themselves.
const OWN: &str = concat!("edge-kernels ", env!("CARGO_PKG_VERSION"));

/// Runs on the CPU: on kernels of our own as far as they know the network, the rest in tract. One plan and one state
/// serve all pictures.
pub struct CpuBackend {
    fused: Option<Network>,
    stock: Option<Stock>,
    refused: Vec<(String, String)>,
    input_len: usize,
    description: Description,
}

/// A plan of tract.
struct Stock {
    plan: Arc<TypedRunnableModel>,
    state: TypedSimpleState,
    shapes: Vec<Vec<usize>>,
}

impl Backend for CpuBackend {
    fn load(
        model: &OnnxModel<'_>,
        input: &InputSpec,
        output: &str,
        options: &LoadOptions,
    ) -> Result<CpuBackend, EngineError> {
        let unsupported = model.unsupported();
        if !unsupported.is_empty() {
            return Err(EngineError::Unsupported(unsupported));
        }
        if !(1..=256).contains(&options.threads) {
            return Err(EngineError::Threads(options.threads));
        }
        let isa = Isa::chosen().map_err(EngineError::Graph)?;
        let lowered =
            guarded(|| fused::lower(model, input, output, isa, options.threads)).map_err(EngineError::Graph)?;
        let (mut fused, rest, mut refused) = match lowered {
            Ok(lowered) => (Some(lowered.network), lowered.rest, lowered.refused),
            Err(why) => (None, None, vec![("all nodes".into(), why)]),
        };
        let mut stock = None;
        if let (Some(network), Some(rest)) = (&fused, &rest) {
            let inputs = network.outputs().iter().map(|v| (v.name.clone(), v.dims())).collect();
            match Stock::load(rest, inputs, output, options.threads) {
                Ok(loaded) => stock = Some(loaded),
                // What cannot stand by itself may do so within the whole.
                Err(why) => (fused, refused) = (None, vec![("all nodes".into(), why.to_string())]),
            }
        }
        if fused.is_none() {
            let inputs = vec![(input.name.clone(), input.shape().to_vec())];
            stock = Some(Stock::load(&model.whole(), inputs, output, options.threads)?);
        }
        let classes = match (&fused, &stock) {
            (_, Some(stock)) => stock.classes(output)?,
            (Some(network), None) => classes(&network.outputs()[0].dims(), output)?,
            (None, None) => 0,
        };
        let engine = match (fused.is_some(), stock.is_some()) {
            (true, false) => OWN.into(),
            (true, true) => format!("{OWN} and {ENGINE}"),
            _ => ENGINE.into(),
        };
        let isa = if fused.is_some() { format!("{}, kernels {isa}", machine()) } else { machine() };
        let description = Description { backend: "cpu", engine, isa, threads: options.threads, classes };
        Ok(CpuBackend { fused, stock, refused, input_len: input.len(), description })
    }

    fn classify(&mut self, tensor: &[f32], logits: &mut [f32]) -> Result<(), EngineError> {
        let length = |what, found: usize, expected: usize| match found == expected {
            true => Ok(()),
            false => Err(EngineError::Length { what, found, expected }),
        };
        length("the input tensor", tensor.len(), self.input_len)?;
        length("the logits buffer", logits.len(), self.description.classes)?;
        if let Some(network) = &mut self.fused {
            guarded(|| network.run(tensor)).map_err(EngineError::Run)?;
        }
        match (&mut self.stock, &self.fused) {
            (None, None) => {}
            (None, Some(network)) => network.copy_output(0, tensor, logits),
            (Some(stock), network) => {
                let input = |i: usize, shape: &Vec<usize>| -> TractResult<TValue> {
                    let Some(network) = network else { return Ok(Tensor::from_shape(shape, tensor)?.into_tvalue()) };
                    let mut values = vec![0.0; shape.iter().product()];
                    network.copy_output(i, tensor, &mut values);
                    Ok(Tensor::from_shape(shape, &values)?.into_tvalue())
                };
                stock.run(input, logits)?;
            }
        }
        match logits.iter().position(|v| !v.is_finite()) {
            Some(class) => Err(EngineError::NotFinite { class }),
            None => Ok(()),
        }
    }

    fn description(&self) -> &Description {
        &self.description
    }

    fn parts(&self) -> Vec<Part> {
        let own = self.fused.iter().flat_map(Network::steps).map(|(step, time)| Part {
            nodes: step.nodes.clone(),
            by: "edge-kernels",
            what: step.what.clone(),
            macs: step.macs,
            time: Some(time),
        });
        let left = self.refused.iter().map(|(node, why)| Part {
            nodes: vec![node.clone()],
            by: "tract",
            what: why.clone(),
            macs: 0,
            time: None,
        });
        own.chain(left).collect()
    }
}

impl Stock {
    /// Prepares a graph whose `inputs` have these names and shapes.
    fn load(
        model: &ModelProto,
        inputs: Vec<(String, Vec<usize>)>,
        output: &str,
        threads: usize,
    ) -> Result<Stock, EngineError> {
        let plan = guarded(|| build_plan(model, &inputs, output, threads))
            .map_err(EngineError::Graph)?
            .map_err(|e| EngineError::Graph(format!("{e:#}")))?;
        let state = spawn(&plan)?;
        Ok(Stock { plan, state, shapes: inputs.into_iter().map(|i| i.1).collect() })
    }

    fn run(
        &mut self,
        input: impl Fn(usize, &Vec<usize>) -> TractResult<TValue>,
        logits: &mut [f32],
    ) -> Result<(), EngineError> {
        let run = || -> TractResult<()> {
            let inputs = self.shapes.iter().enumerate().map(|(i, s)| input(i, s)).collect::<TractResult<TVec<_>>>()?;
            let outputs = self.state.run(inputs)?;
            let output = outputs[0].cast_to::<f32>()?;
            logits.copy_from_slice(output.view().as_slice::<f32>()?);
            Ok(())
        };
        let ran = guarded(run).and_then(|r| r.map_err(|e| format!("{e:#}")));
        if let Err(why) = ran {
            // A failed run leaves values of its turn behind; the next picture starts from a fresh state.
            self.state = spawn(&self.plan)?;
            return Err(EngineError::Run(why));
        }
        Ok(())
    }

    /// The number of classes.
    fn classes(&self, output: &str) -> Result<usize, EngineError> {
        let fact = self.plan.model().output_fact(0).map_err(|e| EngineError::Graph(format!("{e:#}")))?;
        let fail = |why: String| Err(EngineError::Output(why));
        let Some(shape) = fact.shape.as_concrete() else {
            return fail(format!("the shape {:?} of {output:?} is not known before running", fact.shape));
        };
        match fact.datum_type.is_float() {
            true => classes(shape, output),
            false => fail(format!("{output:?} is {:?}; float scores, one per class, are needed", fact.datum_type)),
        }
    }
}

fn build_plan(
    model: &ModelProto,
    inputs: &[(String, Vec<usize>)],
    output: &str,
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
    graph.select_output_outlets(&[outlet(output)?])?;
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

/// The number of classes of an output such as (1,K), (K) or (1,1,1,K).
fn classes(shape: &[usize], output: &str) -> Result<usize, EngineError> {
    let wide: Vec<usize> = shape.iter().copied().filter(|d| *d != 1).collect();
    match wide[..] {
        [] => Ok(1),
        [classes] if classes > 0 => Ok(classes),
        _ => Err(EngineError::Output(format!(
            "the shape of {output:?} is {shape:?}; one score per class, such as [1, 1000], is needed (is this a detector, or a model without its classifier?)"
        ))),
    }
}

/// The instruction sets of this machine that kernels choose by.
fn machine() -> String {
    let mut found: Vec<&str> = vec![std::env::consts::ARCH];
    macro_rules! probe {
        ($detect:ident: $($feature:tt),*) => {
            $(if std::arch::$detect!($feature) { found.push($feature); })*
        };
    }
    #[cfg(target_arch = "x86_64")]
    probe!(is_x86_feature_detected: "avx2", "fma", "avx512f", "avx512vnni");
    #[cfg(target_arch = "aarch64")]
    probe!(is_aarch64_feature_detected: "neon", "fp16", "dotprod", "i8mm");
    found.join("+")
}
