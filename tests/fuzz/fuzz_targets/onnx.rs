//! An ONNX file's bytes → contract → loaded network → one inference.
#![no_main]
use edge_engine::{Backend, CpuBackend, InputHint, LoadOptions, OnnxModel};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(model) = OnnxModel::parse(bytes) else { return };
    let hint = InputHint { size: Some((8, 8)), ..InputHint::default() };
    let Ok(contract) = model.contract(&hint) else { return };
    // What a file asks for is bounded by its shape; large ones are rightful but too slow to fuzz.
    if contract.input.len() > 1 << 14 {
        return;
    }
    let options = LoadOptions { threads: 1 };
    if let Ok(mut backend) = CpuBackend::load(&model, &contract.input, &contract.output, &options) {
        let mut logits = vec![0.0; backend.description().classes];
        let _ = backend.classify(&vec![0.5; contract.input.len()], &mut logits);
    }
});
