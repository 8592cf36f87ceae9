//! The default model as a base: where it is cut, what its features are, and what comes out with a head behind it.

use edge_engine::{Backend, CpuBackend, InputHint, LoadOptions, OnnxModel};
use edge_package::{Activation, Label, Metadata};
use edge_train::TrainError;
use edge_train::base::Base;
use edge_train::head::{Activation as Inner, Head, HeadSpec};
use edge_vision::Preprocess;

fn model() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/efficientnet-lite0/efficientnet-lite0.onnx"))
        .unwrap()
}

fn tensor(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919) % 255) as f32 / 127.5 - 1.0).collect()
}

#[test]
fn a_classifier_is_cut_before_its_classes_and_gets_others() {
    let bytes = model();
    let onnx = OnnxModel::parse(&bytes).unwrap();
    let input = onnx.contract(&InputHint::default()).unwrap().input;
    let options = LoadOptions { threads: 1 };
    let mut base = Base::load(&onnx, &input, None, None, &options).unwrap();
    assert_eq!(base.width(), 1280);
    let picture = tensor(input.len());
    let pool = base.pooling();
    let features = pool(&base.probe.run(&picture).unwrap()[0]);

    // Cut at the picture before the pooling, the mean is ours.
    let before = onnx.layer_values().into_iter().rev().find(|v| v.starts_with("head")).unwrap().to_string();
    let mut earlier = Base::load(&onnx, &input, Some(&before), None, &options).unwrap();
    let pool = earlier.pooling();
    let mean = pool(&earlier.probe.run(&picture).unwrap()[0]);
    assert!(features.iter().zip(&mean).all(|(a, b)| (a - b).abs() < 1e-4 * (1.0 + a.abs())));

    for (inner, base) in [(vec![], &base), (vec![20], &earlier)] {
        let spec = HeadSpec { features: 1280, inner, activation: Inner::Relu, dropout: 0.5, classes: 3 };
        let head = Head::new(&spec, 4);
        let metadata = Metadata {
            labels: Some(["a", "b", "c"].map(|l| Label { id: None, label: l.into() }).to_vec()),
            preprocess: Some(Preprocess::Tf),
            resize: None,
            activation: Some(Activation::Softmax),
        };
        let made = base.with_head(&onnx, None, &head, &metadata).unwrap();
        let made = OnnxModel::parse(&made).unwrap();
        assert_eq!(Metadata::from_properties(&made.properties()).unwrap(), metadata);
        let contract = made.contract(&InputHint::default()).unwrap();
        let mut backend = CpuBackend::load(&made, &contract.input, &contract.output, &options).unwrap();
        let mut logits = [0.0; 3];
        backend.classify(&picture, &mut logits).unwrap();
        let wanted = head.logits(&features);
        for (a, b) in logits.iter().zip(&wanted) {
            assert!((a - b).abs() < 1e-3 * (1.0 + b.abs()), "{logits:?} {wanted:?}");
        }
        // The base's weights are what they were, byte by byte.
        let (old, new) = (onnx.whole().graph.unwrap(), made.whole().graph.unwrap());
        let kept = new.initializer.iter().filter(|t| !t.name.starts_with("dense_")).count();
        assert!(kept > 50 && kept < old.initializer.len());
        for tensor in old.initializer.iter().filter(|t| new.initializer.iter().any(|n| n.name == t.name)) {
            assert!(new.initializer.contains(tensor), "{}", tensor.name);
        }
    }
}

#[test]
fn what_is_no_feature_is_refused_by_name() {
    let bytes = model();
    let onnx = OnnxModel::parse(&bytes).unwrap();
    let input = onnx.contract(&InputHint::default()).unwrap().input;
    let refused = |cut: &str| Base::load(&onnx, &input, Some(cut), None, &LoadOptions { threads: 1 }).err().unwrap();
    let error = refused("nowhere");
    assert!(matches!(&error, TrainError::Base(why) if why.contains("nowhere")), "{error}");
}
