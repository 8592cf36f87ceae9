//! The CPU backend: tract imports, optimises and runs.

use crate::guard::guarded;
use crate::{Backend, Description, EngineError, LoadOptions, OnnxModel};
use anyhow::{Context, bail};
use edge_package::InputSpec;
use std::sync::Arc;
use tract_core::prelude::*;
use tract_core::runtime::RunOptions;
use tract_linalg::multithread::Executor;
use tract_onnx::tract_hir::infer::InferenceModelExt;
use tract_onnx::tract_hir::prelude::InferenceFact;

/// The version this workspace pins; tract does not tell its own.
const ENGINE: &str = "tract 0.23.9";

/// Runs on the CPU. One optimised plan and one state serve all pictures.
pub struct CpuBackend {
    plan: Arc<TypedRunnableModel>,
    state: TypedSimpleState,
    shape: [usize; 4],
    description: Description,
}

impl Backend for CpuBackend {
    fn load(
        model: &OnnxModel,
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
        let plan = guarded(|| build_plan(model, input, output, options.threads))
            .map_err(EngineError::Graph)?
            .map_err(|e| EngineError::Graph(format!("{e:#}")))?;
        let classes = classes(&plan, output)?;
        let state = spawn(&plan)?;
        let description =
            Description { backend: "cpu", engine: ENGINE.into(), isa: isa(), threads: options.threads, classes };
        Ok(CpuBackend { plan, state, shape: input.shape(), description })
    }

    fn classify(&mut self, tensor: &[f32], logits: &mut [f32]) -> Result<(), EngineError> {
        let length = |what, found: usize, expected: usize| match found == expected {
            true => Ok(()),
            false => Err(EngineError::Length { what, found, expected }),
        };
        length("the input tensor", tensor.len(), self.shape.iter().product())?;
        length("the logits buffer", logits.len(), self.description.classes)?;
        let run = || -> TractResult<()> {
            let input = Tensor::from_shape(&self.shape, tensor)?;
            let outputs = self.state.run(tvec!(input.into_tvalue()))?;
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
        match logits.iter().position(|v| !v.is_finite()) {
            Some(class) => Err(EngineError::NotFinite { class }),
            None => Ok(()),
        }
    }

    fn description(&self) -> &Description {
        &self.description
    }
}

fn build_plan(
    model: &OnnxModel,
    input: &InputSpec,
    output: &str,
    threads: usize,
) -> TractResult<Arc<TypedRunnableModel>> {
    // Shapes the exporter wrote down may hold symbols that contradict the concrete batch of 1; tract
    // infers them anew. The batch must be concrete: a symbolic one sends depthwise convolutions to im2col.
    let onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
    let parsed = onnx.parse(&model.proto, None)?;
    if !parsed.unresolved_inputs.is_empty() {
        bail!("nothing makes the value(s) {}", parsed.unresolved_inputs.join(", "));
    }
    let mut graph = parsed.model;
    let sources: Vec<OutletId> = graph.input_outlets()?.to_vec();
    let outlet =
        |name: &str| parsed.outlets_by_name.get(name).copied().with_context(|| format!("there is no value {name:?}"));
    let source = outlet(&input.name)?;
    let index = sources.iter().position(|s| *s == source).context("the input is no source")?;
    graph.set_input_fact(index, InferenceFact::dt_shape(f32::datum_type(), input.shape()))?;
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

/// The number of classes, from an output such as (1,K), (K) or (1,1,1,K).
fn classes(plan: &TypedRunnableModel, output: &str) -> Result<usize, EngineError> {
    let fact = plan.model().output_fact(0).map_err(|e| EngineError::Graph(format!("{e:#}")))?;
    let fail = |why: String| Err(EngineError::Output(why));
    let Some(shape) = fact.shape.as_concrete() else {
        return fail(format!("the shape {:?} of {output:?} is not known before running", fact.shape));
    };
    let wide: Vec<usize> = shape.iter().copied().filter(|d| *d != 1).collect();
    match (&wide[..], fact.datum_type.is_float()) {
        (_, false) => fail(format!("{output:?} is {:?}; float scores, one per class, are needed", fact.datum_type)),
        ([], _) => Ok(1),
        ([classes], _) if *classes > 0 => Ok(*classes),
        _ => fail(format!(
            "the shape of {output:?} is {shape:?}; one score per class, such as [1, 1000], is needed (is this a detector, or a model without its classifier?)"
        )),
    }
}

/// The instruction sets of this machine that kernels choose by.
fn isa() -> String {
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
