//! The CPU backend.

use crate::fused::Network;
use crate::runner::Runner;
use crate::{Backend, Cost, Description, EngineError, LoadOptions, OnnxModel, Part};
use edge_kernels::Float16;
use edge_package::{CPU_FLOAT16, InputSpec};

/// The version this workspace pins; tract does not tell its own.
const ENGINE: &str = "tract 0.23.9";
/// What the kernels of this workspace call themselves.
const OWN: &str = concat!("edge-kernels ", env!("CARGO_PKG_VERSION"));

/// Runs on the CPU: on kernels of our own as far as they know the network, the rest in tract.
pub struct CpuBackend {
    runner: Runner,
    description: Description,
}

impl CpuBackend {
    /// Prepares `model` for pictures of the shape in `input`, to be computed in float32 but for what is quantized. `output` names
    /// the graph output to read.
    pub fn load(
        model: &OnnxModel<'_>,
        input: &InputSpec,
        output: &str,
        options: &LoadOptions,
    ) -> Result<CpuBackend, EngineError> {
        CpuBackend::load_in(Float16::Never, model, input, output, options)
    }

    /// The same, with products of float16 weights in float16 arithmetic where `float16` says so.
    pub fn load_in(
        float16: Float16,
        model: &OnnxModel<'_>,
        input: &InputSpec,
        output: &str,
        options: &LoadOptions,
    ) -> Result<CpuBackend, EngineError> {
        let runner = Runner::load(model, input, &[output], options, float16)?;
        let shape = runner.shape(0).map_err(|e| match e {
            EngineError::Output(why) => EngineError::Output(format!("{output:?}: {why}")),
            other => other,
        })?;
        let classes = classes(&shape, output)?;
        let engine = match (runner.fused.is_some(), runner.needs_stock()) {
            (true, false) => OWN.into(),
            (true, true) => format!("{OWN} and {ENGINE}"),
            _ => ENGINE.into(),
        };
        let in_float16 = runner.fused.as_ref().is_some_and(Network::is_in_float16);
        let isa = match runner.fused {
            Some(_) if in_float16 => format!("{}, kernels {}, float16 arithmetic", machine(), runner.isa),
            Some(_) => format!("{}, kernels {}", machine(), runner.isa),
            None => machine(),
        };
        let tolerance = if in_float16 { CPU_FLOAT16 } else { "cpu" };
        let description = Description { backend: "cpu", tolerance, engine, isa, threads: options.threads, classes };
        Ok(CpuBackend { runner, description })
    }
}

impl Backend for CpuBackend {
    fn classify(&mut self, tensor: &[f32], logits: &mut [f32]) -> Result<(), EngineError> {
        if logits.len() != self.description.classes {
            let (found, expected) = (logits.len(), self.description.classes);
            return Err(EngineError::Length { what: "the logits buffer", found, expected });
        }
        self.runner.run(tensor)?;
        self.runner.copy(0, tensor, logits)?;
        all_finite(logits)
    }

    fn description(&self) -> &Description {
        &self.description
    }

    fn parts(&self) -> Vec<Part> {
        let own = self.runner.fused.iter().flat_map(Network::steps).map(|(step, time)| Part {
            nodes: step.nodes.clone(),
            by: "edge-kernels",
            what: step.what.clone(),
            macs: step.macs,
            time: Some(time),
        });
        let left = self.runner.refused.iter().map(|(node, why)| Part {
            nodes: vec![node.clone()],
            by: "tract",
            what: why.clone(),
            macs: 0,
            time: None,
        });
        own.chain(left).collect()
    }

    fn cost(&self) -> Option<Cost> {
        let own = self.runner.fused.as_ref()?;
        Some(Cost { steps: own.costs().to_vec(), buffers: own.buffers(), uncounted: self.runner.refused.len() })
    }
}

/// No decision can be built on NaN or infinity.
pub(crate) fn all_finite(logits: &[f32]) -> Result<(), EngineError> {
    match logits.iter().position(|v| !v.is_finite()) {
        Some(class) => Err(EngineError::NotFinite { class }),
        None => Ok(()),
    }
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
