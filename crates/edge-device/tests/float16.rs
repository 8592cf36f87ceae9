//! Packages of float16 weights say how far float16 arithmetic may be off, and golden samples hold it to that.

use edge_device::golden::{GoldenFailure, replay};
use edge_device::{Classifier, Recipe};
use edge_engine::{Backend, CpuBackend, Description, EngineError, Float16, Isa, LoadOptions, OnnxModel, Part};
use edge_package::{CPU_FLOAT16, Tolerance, TrustPolicy, VerifiedPackage};
use std::path::PathBuf;

/// A network in float16 arithmetic, and a mistake: what each logit is multiplied by.
struct Mistaken(CpuBackend, f32);

impl Backend for Mistaken {
    fn classify(&mut self, tensor: &[f32], logits: &mut [f32]) -> Result<(), EngineError> {
        self.0.classify(tensor, logits)?;
        logits.iter_mut().for_each(|l| *l *= self.1);
        Ok(())
    }

    fn description(&self) -> &Description {
        self.0.description()
    }

    fn parts(&self) -> Vec<Part> {
        self.0.parts()
    }
}

#[test]
fn what_was_measured_at_packing_lets_float16_arithmetic_pass_and_a_mistake_not() {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/efficientnet-lite0/efficientnet-lite0.onnx");
    let onnx = std::fs::read(path).unwrap();
    let recipe = Recipe { name: "default".into(), numbered_labels: true, ..Recipe::default() };
    let options = LoadOptions { threads: 2 };
    let bytes = recipe.prepare(&onnx, &options).unwrap().package(onnx.clone(), None).unwrap();
    let package = VerifiedPackage::from_bytes(bytes, &TrustPolicy::default()).unwrap();
    let manifest = package.manifest();
    assert!(manifest.allows_float16());
    let Tolerance::Float { relative } = manifest.tolerance_of(CPU_FLOAT16) else { panic!("it is a float network") };
    assert!((0.005..0.03).contains(&relative), "{relative}");
    assert_eq!(manifest.tolerance_of("cpu"), Tolerance::Float { relative: 1e-3 });
    let told = &manifest.provenance.iter().find(|(key, _)| key == "float16 arithmetic").unwrap().1;
    assert!(told.contains("is allowed"), "{told}");

    // Where the package runs, that is the arithmetic if the processor has it.
    let classifier = Classifier::from_package(&package, &options).unwrap();
    let has = Isa::chosen().unwrap().has_float16();
    assert_eq!(classifier.description().tolerance, if has { CPU_FLOAT16 } else { "cpu" });

    let model = OnnxModel::parse(&onnx).unwrap();
    let with = |mistake: f32| {
        let load = |f| CpuBackend::load_in(f, &model, &manifest.input, &manifest.model.output, &options).unwrap();
        let backend = Box::new(Mistaken(load(Float16::Simulated), mistake));
        replay(&mut Classifier::with_backend(backend, manifest.clone()).unwrap(), &package)
    };
    let right = with(1.0);
    assert!(right.iter().all(|o| o.failure.is_none()), "{right:?}");
    // It is float16 that was asked.
    assert!(right.iter().any(|o| o.max_delta > 0.0));
    let wrong = with(1.1);
    assert!(wrong.iter().all(|o| matches!(o.failure, Some(GoldenFailure::Logits { .. }))), "{wrong:?}");
}
