//! Gradients beside finite differences, operator by operator, and training of small tails.

use super::conv::Conv;
use super::ops::{Affine, Each, Op};
use super::pool::Average;
use super::*;
use crate::TrainError;
use crate::features::{Cache, Id, Kind};
use crate::fit::{Monitor, Schedule, Settings};
use crate::head::{Activation, Head, HeadSpec, Loss, Target};
use crate::history::Epoch;
use crate::random::Random;
use edge_kernels::Window;
use std::sync::atomic::AtomicBool;

/// Values of ±0.2…1: away from where a function has a corner.
fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut random = Random::new(seed, 9);
    let mut value = || (random.unit() * 0.8 + 0.2) * if random.unit() < 0.5 { -1.0 } else { 1.0 };
    (0..len).map(|_| value()).collect()
}

fn parameter(tail: &mut Tail, seed: u64, dims: &[usize]) -> usize {
    let values = noise(seed, dims.iter().product());
    tail.parameters.push(Parameter { name: format!("w{seed}"), dims: dims.to_vec(), values });
    tail.parameters.len() - 1
}

/// What the tail reads, moved and scaled by weights: so the slopes at an operator's input become gradients of weights.
fn begin(shape: Shape) -> Tail {
    let mut tail = Tail { shapes: vec![shape], layers: vec![], parameters: vec![] };
    let (scale, shift) = (parameter(&mut tail, 1, &shape[2..]), parameter(&mut tail, 2, &shape[2..]));
    let affine = Affine { centre: vec![], factor: vec![], scale: Some(scale), shift: Some(shift) };
    add(&mut tail, Op::Affine(affine), &[0], shape);
    tail
}

fn add(tail: &mut Tail, op: Op, inputs: &[usize], shape: Shape) -> usize {
    let output = tail.shapes.len();
    tail.shapes.push(shape);
    tail.layers.push(Layer { op, inputs: inputs.to_vec(), output });
    output
}

/// A weighted sum of the features: its slopes are the weights.
fn check(tail: &Tail, what: &str) {
    const PHOTOS: usize = 3;
    let input = noise(3, PHOTOS * tail.shapes[0].iter().product::<usize>());
    let slopes = noise(4, PHOTOS * tail.width());
    let sum = |tail: &Tail| -> f64 {
        let trace = tail.forward(&tail.ready(false), input.clone());
        trace.features().iter().zip(&slopes).map(|(f, s)| f64::from(*f) * f64::from(*s)).sum()
    };
    let ready = tail.ready(true);
    let mut gradients: Vec<Vec<f32>> = tail.parameters().iter().map(|p| vec![0.0; p.values.len()]).collect();
    // What is there already stays.
    gradients.iter_mut().for_each(|g| g.fill(1.0));
    tail.backward(&ready, tail.forward(&ready, input.clone()), slopes.clone(), &mut gradients);
    for (at, gradient) in gradients.iter().enumerate() {
        for (i, found) in gradient.iter().enumerate() {
            let nudged = |by: f32| {
                let mut tail = tail.clone();
                tail.parameters_mut()[at].values[i] += by;
                sum(&tail)
            };
            let step = 4e-3;
            let slope = 1.0 + (nudged(step) - nudged(-step)) / (2.0 * f64::from(step));
            let close = (slope - f64::from(*found)).abs() < 1e-3 * (2.0 + slope.abs());
            assert!(close, "{what}: {} at {i}: {found} for {slope}", tail.parameters()[at].name);
        }
    }
}

/// Windows: stride, dilation, padding of one side only as SAME gives it, and none.
fn windows(size: [usize; 2]) -> Vec<Window> {
    let window = |kernel, stride, dilation, before, after| Window::new(size, kernel, stride, dilation, before, after);
    [
        window([3, 3], [1, 1], [1, 1], [1, 1], [1, 1]),
        window([3, 3], [2, 2], [1, 1], [0, 1], [1, 1]),
        window([2, 3], [1, 2], [1, 1], [0, 0], [0, 0]),
        window([3, 3], [1, 1], [2, 2], [2, 2], [2, 2]),
        window([1, 1], [2, 2], [1, 1], [0, 0], [0, 0]),
        window([1, 1], [1, 1], [1, 1], [0, 0], [0, 0]),
    ]
    .into_iter()
    .map(Option::unwrap)
    .collect()
}

#[test]
fn convolutions_go_back() {
    let shape = [5, 4, 3];
    for window in windows([5, 4]) {
        let made = |channels| [window.output[0], window.output[1], channels];
        let [kh, kw] = window.kernel;
        let mut tail = begin(shape);
        let (weights, bias) = (parameter(&mut tail, 5, &[7, 3, kh, kw]), parameter(&mut tail, 6, &[7]));
        let conv = Conv { weights, bias: Some(bias), window, turned: false };
        add(&mut tail, Op::Conv(conv), &[1], made(7));
        check(&tail, &format!("convolution {window:?}"));

        let mut tail = begin(shape);
        let (weights, bias) = (parameter(&mut tail, 5, &[3, 1, kh, kw]), parameter(&mut tail, 6, &[3]));
        let conv = Conv { weights, bias: Some(bias), window, turned: false };
        add(&mut tail, Op::Depthwise(conv), &[1], made(3));
        check(&tail, &format!("depthwise {window:?}"));
    }
    // A dense layer, (inputs, outputs).
    let mut tail = begin([1, 1, 3]);
    let weights = parameter(&mut tail, 5, &[3, 16]);
    let window = Window::new([1, 1], [1, 1], [1, 1], [1, 1], [0, 0], [0, 0]).unwrap();
    add(&mut tail, Op::Conv(Conv { weights, bias: None, window, turned: true }), &[1], [1, 1, 16]);
    check(&tail, "dense");
}

#[test]
fn pooling_goes_back() {
    for window in windows([5, 4]) {
        let made = [window.output[0], window.output[1], 3];
        for outside in [false, true] {
            let mut tail = begin([5, 4, 3]);
            add(&mut tail, Op::AveragePool(Average { window, outside }), &[1], made);
            check(&tail, &format!("average {window:?} {outside}"));
        }
        let mut tail = begin([5, 4, 3]);
        add(&mut tail, Op::MaxPool(window), &[1], made);
        check(&tail, &format!("maximum {window:?}"));
    }
    let mut tail = begin([5, 4, 3]);
    add(&mut tail, Op::Mean, &[1], [1, 1, 3]);
    check(&tail, "mean");
}

#[test]
fn functions_and_normalization_go_back() {
    for each in [
        Each::Clip(0.0, f32::INFINITY),
        Each::Clip(-0.3, 0.7),
        Each::LeakyRelu(0.1),
        Each::Sigmoid,
        Each::HardSigmoid(0.2, 0.5),
        Each::HardSwish,
        Each::Tanh,
        Each::Linear(0.5, 2.0),
    ] {
        let mut tail = begin([2, 2, 3]);
        add(&mut tail, Op::Each(each), &[1], [2, 2, 3]);
        check(&tail, &format!("{each:?}"));
    }
    let mut tail = begin([2, 2, 3]);
    let (scale, shift) = (parameter(&mut tail, 5, &[3]), parameter(&mut tail, 6, &[3]));
    let (centre, factor) = (noise(7, 3), noise(8, 3));
    add(&mut tail, Op::Affine(Affine { centre, factor, scale: Some(scale), shift: Some(shift) }), &[1], [2, 2, 3]);
    check(&tail, "normalization");
}

#[test]
fn pairs_go_back() {
    let shape = [2, 3, 4];
    for product in [false, true] {
        let op = || if product { Op::Mul } else { Op::Add };
        let mut tail = begin(shape);
        let relu = add(&mut tail, Op::Each(Each::Tanh), &[1], shape);
        add(&mut tail, op(), &[1, relu], shape);
        check(&tail, &format!("of two, {product}"));
        // Of a value with itself.
        let mut tail = begin(shape);
        add(&mut tail, op(), &[1, 1], shape);
        check(&tail, &format!("of one, {product}"));
        // Squeeze and excitation: one pixel for a picture.
        for turned in [false, true] {
            let mut tail = begin(shape);
            let mean = add(&mut tail, Op::Mean, &[1], [1, 1, 4]);
            let gate = add(&mut tail, Op::Each(Each::Sigmoid), &[mean], [1, 1, 4]);
            add(&mut tail, op(), &if turned { [gate, 1] } else { [1, gate] }, shape);
            check(&tail, &format!("of a pixel, {product} {turned}"));
        }
    }
    let mut tail = begin(shape);
    let other = add(&mut tail, Op::Each(Each::Tanh), &[1], shape);
    add(&mut tail, Op::Concat, &[other, 1, other], [2, 3, 12]);
    check(&tail, "channels after channels");
}

const RELU: Each = Each::Clip(0.0, f32::INFINITY);

/// A convolution, a depthwise one and a dense one, a shortcut around them, and a mean.
fn small(each: Each) -> Tail {
    let shape = [4, 4, 3];
    let window = Window::new([4, 4], [3, 3], [1, 1], [1, 1], [1, 1], [1, 1]).unwrap();
    let direct = Window::new([4, 4], [1, 1], [1, 1], [1, 1], [0, 0], [0, 0]).unwrap();
    let mut tail = Tail { shapes: vec![shape], layers: vec![], parameters: vec![] };
    let weights = parameter(&mut tail, 5, &[6, 3, 3, 3]);
    let conv = add(&mut tail, Op::Conv(Conv { weights, bias: None, window, turned: false }), &[0], [4, 4, 6]);
    let weights = parameter(&mut tail, 6, &[6, 1, 3, 3]);
    let bias = Some(parameter(&mut tail, 7, &[6]));
    let deep = add(&mut tail, Op::Depthwise(Conv { weights, bias, window, turned: false }), &[conv], [4, 4, 6]);
    let relu = add(&mut tail, Op::Each(each), &[deep], [4, 4, 6]);
    let weights = parameter(&mut tail, 8, &[6, 6, 1, 1]);
    let dense =
        add(&mut tail, Op::Conv(Conv { weights, bias: None, window: direct, turned: false }), &[relu], [4, 4, 6]);
    let sum = add(&mut tail, Op::Add, &[dense, conv], [4, 4, 6]);
    add(&mut tail, Op::Mean, &[sum], [1, 1, 6]);
    for parameter in tail.parameters_mut() {
        parameter.values.iter_mut().for_each(|v| *v *= 0.5);
    }
    tail
}

#[test]
fn a_tail_goes_back() {
    // Without corners, so that finite differences are exact.
    check(&small(Each::Tanh), "the whole");
}

fn spec() -> HeadSpec {
    HeadSpec { features: 6, inner: vec![5], activation: Activation::Tanh, dropout: 0.3, classes: 3 }
}

#[test]
fn the_loss_goes_back_through_head_and_tail() {
    let (tail, head) = (small(RELU), Head::new(&spec(), 3));
    let input = noise(3, 4 * 48);
    let wanted = noise(2, 4 * 3).iter().map(|x| (x + 1.0) / 3.0).collect::<Vec<_>>();
    let targets: Vec<Target<'_>> = wanted.chunks(3).map(|wanted| Target { wanted, weight: 1.5 }).collect();
    let run = |tail: &Tail, through: bool| {
        let ready = tail.ready(true);
        let trace = tail.forward(&ready, input.clone());
        // The same values are dropped each time.
        let random = &mut Random::new(5, 0);
        let features = trace.features().to_vec();
        let (loss, _, _, slopes) = head.gradients_through(features, &targets, Loss::Categorical, Some(random), through);
        let mut gradients: Vec<Vec<f32>> = tail.parameters().iter().map(|p| vec![0.0; p.values.len()]).collect();
        if through {
            tail.backward(&ready, trace, slopes, &mut gradients);
        }
        (loss, gradients)
    };
    let (_, gradients) = run(&tail, true);
    for (at, gradient) in gradients.iter().enumerate() {
        for (i, found) in gradient.iter().enumerate() {
            let nudged = |by: f32| {
                let mut tail = tail.clone();
                tail.parameters_mut()[at].values[i] += by;
                run(&tail, false).0
            };
            let slope = (nudged(2e-3) - nudged(-2e-3)) / 4e-3;
            assert!((slope - f64::from(*found)).abs() < 1e-3 * (1.0 + slope.abs()), "{at} {i}: {found} for {slope}");
        }
    }
}

fn settings(monitor: Monitor) -> Settings {
    Settings {
        head: spec(),
        epochs: 1,
        batch_size: 10,
        learning_rate: 1e-3,
        schedule: Schedule::Constant,
        loss: Loss::Categorical,
        label_smoothing: 0.1,
        class_weights: vec![],
        early_stop: None,
        monitor,
        maximise: monitor == Monitor::ValAccuracy,
        seed: 1,
    }
}

fn tuning(learning_rate: f64, threads: usize) -> Tuning {
    Tuning { epochs: 12, learning_rate, warm_up: 1.0, decay: 0.1, average: 0.5, mix: 0.2, threads }
}

/// Photos of three classes that differ in a channel, two views of each.
fn photos(folder: &std::path::Path) -> (Cache, Vec<Id>, Vec<f32>) {
    let ids: Vec<Id> = (0..60).map(|i| [i; 32]).collect();
    let wanted = ids.iter().copied().collect();
    let mut cache = Cache::open(folder, &[7; 32], Kind::HalfActivations, 48, wanted).unwrap();
    for (at, id) in ids.iter().enumerate() {
        let mut values = noise(at as u64 + 100, 48);
        values.iter_mut().skip(at / 2 % 3).step_by(3).for_each(|v| *v += 0.6);
        cache.append(*id, &values).unwrap();
    }
    let truth = (0..30).flat_map(|photo| (0..3).map(move |c| f32::from(u8::from(c == photo % 3)))).collect();
    (cache, ids, truth)
}

#[test]
fn tuning_learns_repeats_itself_on_any_threads_and_starts_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, ids, wanted) = photos(folder.path());
    let set = Activations { cache: &cache, ids: &ids, views: 2, wanted: &wanted };
    let settings = settings(Monitor::ValLoss);
    let (tail, head) = (small(RELU), Head::new(&spec(), 3));
    let measure = |tail: &Tail, head: &Head| evaluate(tail, head, set, Loss::Categorical, 3, 2).unwrap();
    let (val_loss, val_accuracy) = measure(&tail, &head);
    let before = Epoch { epoch: 4, loss: 0.0, accuracy: 0.0, val_loss, val_accuracy, learning_rate: 0.0, seconds: 0.0 };
    let run = |tuning: &Tuning, stop: bool| {
        let each = |_: &Tail, _: &Head, _: &Epoch, _: bool| Ok::<(), TrainError>(());
        tune(&settings, tuning, (&tail, &head), (&before, 4), set, set, &AtomicBool::new(stop), |_| (), each).unwrap()
    };
    let tuned = run(&tuning(0.02, 1), false);
    let (best_tail, best_head, best) = tuned.best.unwrap();
    assert!(best.val_loss < 0.7 * val_loss && best.val_accuracy > 0.9, "{best:?} after {before:?}");
    assert_eq!((tuned.history[0].epoch, tuned.history.len()), (5, 12));
    // What is kept is what was measured.
    assert_eq!(measure(&best_tail, &best_head), (best.val_loss, best.val_accuracy));
    let again = run(&tuning(0.02, 3), false);
    assert_eq!(again.best.unwrap().0.parameters(), best_tail.parameters());
    // A rate that moves nothing is no better than the start; nor is nothing done.
    assert!(run(&tuning(0.0, 2), false).best.is_none());
    let stopped = run(&tuning(0.02, 2), true);
    assert!(stopped.best.is_none() && stopped.interrupted && stopped.history.is_empty());
    assert!(seconds(&settings, &tuning(0.02, 2), (&tail, &head), set, set).unwrap() > 0.0);
}

#[test]
fn the_rate_rises_and_falls() {
    let tuning = tuning(1.0, 1);
    let rates: Vec<f64> = (0..120).map(|step| tuning.rate(f64::from(step) / 10.0, 0.1)).collect();
    assert!((rates[0] - 0.1).abs() < 1e-9 && (rates[9] - 1.0).abs() < 1e-9);
    assert!(rates[10..].windows(2).all(|w| w[1] < w[0]) && rates[119] < 1e-3);
}
