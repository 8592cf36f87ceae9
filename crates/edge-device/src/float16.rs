//! What float16 arithmetic would cost a network, before any processor that has it has run it.
//!
//! A package of float16 weights is computed in float16 arithmetic only where it says how far that may be off
//! ([`edge_package::CPU_FLOAT16`]). That is measured when it is made, whatever that machine has: the arithmetic is simulated for every
//! golden sample. A real processor rounds a little otherwise, and one difference makes others, so that its result is as far from
//! float32 in another direction; a wrong one is off by as much as logits are large.

use crate::{Classifier, ClassifyError};
use edge_engine::{Backend, CpuBackend, EngineError, Float16, LoadOptions, OnnxModel};
use edge_package::{CPU_FLOAT16, Manifest, Tolerance};

/// So many times what the simulation was off is allowed.
const MARGIN: f32 = 4.0;
/// The least that is allowed, of the largest logit: few samples may be off by little.
const LEAST: f32 = 5e-3;
/// A network that would have to be allowed more than this is computed in float32.
const MOST: f32 = 0.1;

/// A network in simulated float16 arithmetic.
pub struct Simulation {
    backend: CpuBackend,
    logits: Vec<f32>,
    /// The largest difference so far, of the largest logit.
    furthest: f32,
}

impl Simulation {
    /// Of the network of `classifier`, whose file is `onnx`; `None` where none of its weights are float16.
    pub fn load(
        classifier: &Classifier,
        onnx: &[u8],
        options: &LoadOptions,
    ) -> Result<Option<Simulation>, EngineError> {
        if !classifier.cost().is_some_and(|cost| cost.steps.iter().any(|step| step.half_weights)) {
            return Ok(None);
        }
        let (model, manifest) = (OnnxModel::parse(onnx)?, classifier.manifest());
        let backend =
            CpuBackend::load_in(Float16::Simulated, &model, &manifest.input, &manifest.model.output, options)?;
        Ok(Some(Simulation { backend, logits: vec![0.0; classifier.logits().len()], furthest: 0.0 }))
    }

    /// Computes the picture that was classified last, and compares.
    pub fn compare(&mut self, classifier: &Classifier) -> Result<(), ClassifyError> {
        self.backend.classify(classifier.tensor(), &mut self.logits)?;
        let pairs = || self.logits.iter().zip(classifier.logits());
        let largest = pairs().fold(f32::MIN_POSITIVE, |m, (_, wanted)| m.max(wanted.abs()));
        let off = pairs().fold(0_f32, |m, (found, wanted)| m.max((found - wanted).abs()));
        self.furthest = self.furthest.max(off / largest);
        Ok(())
    }

    /// Writes down what is allowed, unless it is too much.
    pub fn conclude(self, manifest: &mut Manifest) {
        let relative = (MARGIN * self.furthest).max(LEAST);
        let off = format!("logits are off by {:.1e} of the largest, simulated", self.furthest);
        let said = if relative <= MOST {
            manifest.tolerances.push((CPU_FLOAT16.into(), Tolerance::Float { relative }));
            format!("{off}; {relative:.1e} is allowed")
        } else {
            format!("{off}; it is not used")
        };
        manifest.provenance.push(("float16 arithmetic".into(), said));
    }
}
