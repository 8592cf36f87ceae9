//! What a network costs is counted from the steps that run.

use edge_engine::{Backend, Cost, CpuBackend, InputHint, LoadOptions, OnnxModel};
use std::path::PathBuf;

fn load(name: &str) -> CpuBackend {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/engine");
    let bytes = std::fs::read(folder.join(name)).unwrap();
    let model = OnnxModel::parse(&bytes).unwrap();
    let contract = model.contract(&InputHint::default()).unwrap();
    CpuBackend::load(&model, &contract.input, &contract.output, &LoadOptions { threads: 1 }).unwrap()
}

#[test]
fn every_multiplication_is_counted_once_and_by_its_kind() {
    for name in ["inverted-residual.onnx", "opset21-separable.onnx", "nchw-view.onnx", "qdq-s8.onnx"] {
        let backend = load(name);
        let cost = backend.cost().unwrap();
        let all: u64 = cost.steps.iter().map(|s| s.matrix + s.depthwise).sum();
        assert_eq!(all, backend.parts().iter().map(|p| p.macs as u64).sum::<u64>(), "{name}");
        assert!(all > 0 && cost.buffers > 0, "{name}: {cost:?}");
        assert!(cost.steps.iter().all(|s| s.moved > 0), "{name}: {cost:?}");
        assert!(cost.steps.iter().all(|s| (s.matrix > 0) <= (s.weights > 0)), "{name}: {cost:?}");
    }
    let kinds = |cost: Cost| cost.steps.iter().fold([0; 2], |[m, d], s| [m + s.matrix, d + s.depthwise]);
    let [matrix, depthwise] = kinds(load("inverted-residual.onnx").cost().unwrap());
    assert!(matrix > depthwise && depthwise > 0, "{matrix} {depthwise}");
}

#[test]
fn steps_of_bytes_are_told_from_those_of_real_numbers() {
    assert!(load("qdq-s8.onnx").cost().unwrap().steps.iter().filter(|s| s.matrix > 0).any(|s| s.int8));
    assert!(load("inverted-residual.onnx").cost().unwrap().steps.iter().all(|s| !s.int8));
}

#[test]
fn what_tract_computes_is_not_counted_but_told() {
    let cost = load("layer-norm-gelu.onnx").cost();
    assert!(cost.is_none_or(|cost| cost.uncounted > 0));
}
