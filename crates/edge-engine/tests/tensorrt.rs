//! The backend `tensorrt` beside the backend `cpu`, on one network. The library is not TensorRT's but one that runs that
//! network, see `edge-tensorrt`.

#[path = "../../edge-tensorrt/tests/fake/mod.rs"]
mod fake;
mod linear;

/// Where the sources of the false libraries are, seen from this crate.
const SOURCES: &str = "../edge-tensorrt/tests/fake";

use edge_engine::{Backend, CpuBackend, EngineError, InputHint, LoadOptions, OnnxModel, TensorRtBackend};
use edge_package::{Activation, Label, Manifest, ModelInfo, Precision, Tolerance, Version};
use edge_tensorrt::{Cache, Places, Progress, TensorRt};
use edge_vision::{Interpolation, Preprocess, ResizePolicy, ResizeSpec};
use fake::{Machine, VERSIONS};

const SHAPE: [usize; 3] = [4, 5, 3];
const LABELS: [&str; 4] = ["hat", "shirt", "shoes", "skirt"];

fn onnx() -> Vec<u8> {
    linear::onnx(SHAPE, &LABELS, 5)
}

fn manifest(model: &OnnxModel<'_>) -> Manifest {
    let contract = model.contract(&InputHint::default()).unwrap();
    let (width, height) = (contract.input.width, contract.input.height);
    Manifest {
        name: "linear".into(),
        sequence: 1,
        boards: vec![],
        minimum_runtime: Version::oldest_reader(),
        created: 0,
        model: ModelInfo { part: "m".into(), opset: 17, precision: Precision::Float, output: contract.output },
        input: contract.input,
        resize: ResizeSpec { width, height, policy: ResizePolicy::Squash, interpolation: Interpolation::Nearest },
        preprocess: Preprocess::Tf,
        activation: Activation::Softmax,
        threshold: None,
        exif_orientation: false,
        labels: LABELS.map(|label| Label { id: None, label: label.into() }).to_vec(),
        goldens: vec![],
        tolerance: Tolerance::Float { relative: 1e-3 },
        provenance: vec![],
        parts: vec![],
        tolerances: vec![],
    }
}

fn load(machine: &Machine, manifest: &Manifest, onnx: &[u8]) -> Result<TensorRtBackend, EngineError> {
    let places = Places {
        libcuda: machine.path("libcuda.so.1").into(),
        libnvinfer: vec![machine.path(machine.library()).into()],
        trtexec: Some(machine.path("trtexec")),
    };
    let tensorrt = TensorRt::open(&places).unwrap();
    let (model, cache) = (OnnxModel::parse(onnx).unwrap(), Cache::new(machine.path("cache")));
    TensorRtBackend::load(&tensorrt, &model, manifest, [1; 32], &cache, &mut |_: Progress<'_>| ())
}

fn plan(machine: &Machine, more: &str) -> String {
    machine.plan(&format!("input picture 1 4 5 3\noutput scores 1 4\nseed 5\n{more}"))
}

#[test]
fn both_backends_say_the_same_of_a_picture() {
    let onnx = onnx();
    let model = OnnxModel::parse(&onnx).unwrap();
    let manifest = manifest(&model);
    let options = LoadOptions { threads: 1 };
    let mut cpu = CpuBackend::load(&model, &manifest.input, &manifest.model.output, &options).unwrap();
    for version in VERSIONS {
        let machine = Machine::new(version, "integrated 1\n");
        machine.builds(&plan(&machine, ""));
        let mut gpu = load(&machine, &manifest, &onnx).unwrap();
        let len = manifest.input.len();
        let (mut near, mut far) = (gpu.buffer(len), gpu.buffer(len));
        let (mut expected, mut found) = ([0.0; 4], [0.0; 4]);
        for buffer in [&mut near, &mut far] {
            buffer.iter_mut().zip(0..).for_each(|(value, i)| *value = (i % 11) as f32 / 5.0 - 1.0);
            cpu.classify(buffer, &mut expected).unwrap();
            gpu.classify(buffer, &mut found).unwrap();
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-5, "{found} {expected}");
            }
        }
        assert!(found.iter().any(|v| v.abs() > 0.1));
        let said = gpu.description().to_string();
        assert!(
            said.starts_with("tensorrt (TensorRT ") && said.contains("False-Orin") && said.contains("float16"),
            "{said}"
        );
        // The file that is built from has the input's shape, and is otherwise the package's.
        let built = std::fs::read(machine.path("onnx")).unwrap();
        let built = OnnxModel::parse(&built).unwrap();
        assert_eq!(built.contract(&InputHint::default()).unwrap().input, manifest.input);
        assert_ne!(built.whole(), model.whole());
        // Whoever writes the picture may be the last to go.
        drop(gpu);
        near[0] = 1.0;
        drop(near);
        assert!(machine.report().contains("cuda unloaded: 0 live, 1 uploads"), "{}", machine.report());
    }
}

#[test]
fn wrong_buffers_failed_runs_and_numbers_that_are_none_are_errors() {
    let onnx = onnx();
    let manifest = manifest(&OnnxModel::parse(&onnx).unwrap());
    let machine = Machine::new(101601, "");
    machine.builds(&plan(&machine, ""));
    let mut backend = load(&machine, &manifest, &onnx).unwrap();
    let picture = vec![0.5; manifest.input.len()];
    assert!(matches!(backend.classify(&picture[1..], &mut [0.0; 4]), Err(EngineError::Length { .. })));
    assert!(matches!(backend.classify(&picture, &mut [0.0; 5]), Err(EngineError::Length { .. })));
    assert_eq!(backend.buffer(7).len(), 7);
    machine.faults("cuStreamSynchronize 999\n");
    assert!(matches!(backend.classify(&picture, &mut [0.0; 4]), Err(EngineError::Run(why)) if why.contains("999")));
    machine.faults("");
    backend.classify(&picture, &mut [0.0; 4]).unwrap();
    let machine = Machine::new(8601, "");
    machine.builds(&plan(&machine, "break nan"));
    let mut backend = load(&machine, &manifest, &onnx).unwrap();
    assert!(matches!(backend.classify(&picture, &mut [0.0; 4]), Err(EngineError::NotFinite { class: 0 })));
}

#[test]
fn a_network_of_other_classes_or_sizes_than_the_package_is_refused() {
    let onnx = onnx();
    let manifest = manifest(&OnnxModel::parse(&onnx).unwrap());
    let machine = Machine::new(9300, "");
    for lines in ["input picture 1 5 4 3\noutput scores 1 4", "input picture 1 4 5 3\noutput scores 1 3"] {
        machine.builds(&machine.plan(lines));
        let refused = load(&machine, &manifest, &onnx).err().unwrap().to_string();
        assert!(refused.contains("the engine does not fit the package"), "{refused}");
    }
}

#[test]
fn an_int8_network_that_tensorrt_does_not_read_is_not_built() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/engine/qdq-u8.onnx");
    let onnx = std::fs::read(path).unwrap();
    let machine = Machine::new(101601, "");
    let plain = manifest(&OnnxModel::parse(&onnx).unwrap());
    let model = ModelInfo { precision: Precision::Int8, ..plain.model.clone() };
    let refused = load(&machine, &Manifest { model, ..plain }, &onnx).err().unwrap();
    assert!(matches!(refused, EngineError::NotForTensorRt(_)), "{refused}");
    assert_eq!(machine.builds_so_far(), 0);
}
