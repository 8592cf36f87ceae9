//! Training beside Keras, step by step, on a fixed problem (tests/goldens/make_train.py).

use edge_train::fit::smoothed;
use edge_train::head::{Activation, Adam, Dense, Head, Loss, Target, largest};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Case {
    name: String,
    activation: String,
    multi_label: bool,
    label_smoothing: f32,
    learning_rate: f64,
    class_weights: Vec<f32>,
    batch: usize,
    features: Vec<Vec<f32>>,
    wanted: Vec<Vec<f32>>,
    start: Vec<Value>,
    losses: Vec<f64>,
    weights: BTreeMap<usize, Vec<Value>>,
}

/// Keras' list of weights, kernel and bias in turn, as a head.
fn head(weights: &[Value], activation: Activation) -> Head {
    let layer = |pair: &[Value]| {
        let kernel: Vec<Vec<f32>> = serde_json::from_value(pair[0].clone()).unwrap();
        let bias: Vec<f32> = serde_json::from_value(pair[1].clone()).unwrap();
        Dense { inputs: kernel.len(), outputs: bias.len(), weights: kernel.concat(), bias }
    };
    Head { layers: weights.chunks(2).map(layer).collect(), activation, dropout: 0.0 }
}

#[test]
fn every_step_is_that_of_keras() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/train/adam.json");
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(cases.len() >= 5);
    for case in cases {
        let activation = Activation::named(&case.activation).unwrap();
        let loss = if case.multi_label { Loss::Binary } else { Loss::Categorical };
        let mut own = head(&case.start, activation);
        let mut adam = Adam::new(&own);
        let classes = case.wanted[0].len();
        let smooth: Vec<Vec<f32>> = case
            .wanted
            .iter()
            .map(|row| row.iter().map(|w| smoothed(*w, case.label_smoothing, loss, classes)).collect())
            .collect();
        let mut worst = 0.0_f64;
        for (step, wanted_loss) in case.losses.iter().enumerate() {
            let rows = step % 3 * case.batch..(step % 3 + 1) * case.batch;
            let weight = |row: &[f32]| case.class_weights.get(largest(row)).copied().unwrap_or(1.0);
            let targets: Vec<Target<'_>> =
                rows.clone().map(|r| Target { wanted: &smooth[r], weight: weight(&case.wanted[r]) }).collect();
            let (mean, _, gradients) = own.gradients(case.features[rows].concat(), &targets, loss, None);
            assert!((mean - wanted_loss).abs() < 1e-5 * (1.0 + wanted_loss), "{} step {step}: {mean}", case.name);
            adam.step(&mut own, &gradients, case.learning_rate);
            if let Some(shown) = case.weights.get(&(step + 1)) {
                let theirs = head(shown, activation);
                for (own, theirs) in own.layers.iter().zip(&theirs.layers) {
                    let pairs = own.weights.iter().chain(&own.bias).zip(theirs.weights.iter().chain(&theirs.bias));
                    worst = pairs.map(|(a, b)| f64::from((a - b).abs())).fold(worst, f64::max);
                }
            }
        }
        assert!(worst < 1e-5, "{}: weights differ by {worst:e}", case.name);
    }
}
