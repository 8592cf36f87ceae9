//! Models are outside bytes: damaged in any way they load or they are refused, and nothing panics.

use edge_engine::{Backend, CpuBackend, EngineError, InputHint, LoadOptions, OnnxModel};
use proptest::prelude::*;
use std::path::PathBuf;

const ONE: LoadOptions = LoadOptions { threads: 1 };

fn zoo(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/engine");
    std::fs::read(folder.join(name)).unwrap()
}

fn load(bytes: &[u8]) -> Result<CpuBackend, EngineError> {
    let model = OnnxModel::parse(bytes)?;
    let contract = model.contract(&InputHint::default())?;
    CpuBackend::load(&model, &contract.input, &contract.output, &ONE)
}

fn run(bytes: &[u8]) -> Result<Vec<f32>, EngineError> {
    let model = OnnxModel::parse(bytes)?;
    let contract = model.contract(&InputHint::default())?;
    let mut backend = CpuBackend::load(&model, &contract.input, &contract.output, &ONE)?;
    let mut logits = vec![0.0; backend.description().classes];
    backend.classify(&vec![0.5; contract.input.len()], &mut logits)?;
    Ok(logits)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_changed_bytes_load_or_are_refused(
        at in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        to in any::<u8>(),
        which in 0usize..3,
    ) {
        let mut bytes = zoo(["inverted-residual.onnx", "qdq-s8.onnx", "nchw-view.onnx"][which]);
        for at in at {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        if let Ok(logits) = run(&bytes) {
            prop_assert!(logits.iter().all(|v| v.is_finite()));
        }
    }

    #[test]
    fn any_cut_is_refused_or_runs(at in any::<prop::sample::Index>()) {
        let bytes = zoo("opset17-silu-se.onnx");
        let _ = run(&bytes[..at.index(bytes.len())]);
    }
}

#[test]
fn buffers_of_the_wrong_length_are_errors_and_the_backend_goes_on() {
    let mut backend = load(&zoo("nchw-b1-flatten-gemm.onnx")).unwrap();
    let (tensor, mut logits) = (vec![0.25; 3 * 16 * 16], vec![0.0; backend.description().classes]);
    assert!(matches!(backend.classify(&tensor[1..], &mut logits), Err(EngineError::Length { .. })));
    assert!(matches!(backend.classify(&tensor, &mut logits[1..]), Err(EngineError::Length { .. })));
    backend.classify(&tensor, &mut logits).unwrap();
    assert!(logits.iter().any(|v| *v != 0.0));
}

#[test]
fn an_output_that_is_no_number_is_an_error() {
    let mut backend = load(&zoo("layer-norm-gelu.onnx")).unwrap();
    // LayerNormalization hands NaN on, where ReLU's max would hide it.
    let mut logits = vec![0.0; backend.description().classes];
    let nan = backend.classify(&vec![f32::NAN; 3 * 16 * 16], &mut logits);
    assert!(matches!(nan, Err(EngineError::NotFinite { .. })), "{nan:?}");
    backend.classify(&vec![0.5; 3 * 16 * 16], &mut logits).unwrap();
}

#[test]
fn thread_counts_are_bounded_and_do_not_change_the_answer() {
    let bytes = zoo("opset21-separable.onnx");
    let model = OnnxModel::parse(&bytes).unwrap();
    let contract = model.contract(&InputHint::default()).unwrap();
    let with = |threads| CpuBackend::load(&model, &contract.input, &contract.output, &LoadOptions { threads });
    for bad in [0, 257] {
        assert!(matches!(with(bad), Err(EngineError::Threads(_))));
    }
    let answer = |threads| {
        let mut backend = with(threads).unwrap();
        let mut logits = vec![0.0; backend.description().classes];
        backend.classify(&vec![0.5; contract.input.len()], &mut logits).unwrap();
        logits
    };
    assert_eq!(answer(1), answer(3));
}
