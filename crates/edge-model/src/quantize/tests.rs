//! A small network through the whole of it: what is exact stays exact, what is quantized says what it costs.

use super::equalize::equalize;
use super::observe::{Observer, Ranges};
use super::*;
use crate::graph::{int, ints, value_info};
use edge_engine::pb::ModelProto;
use edge_vision::Layout;
use std::collections::BTreeMap as Map;

const SIDE: usize = 12;

/// Noise that is the same every time, -1…1.
fn noise(seed: &mut u64) -> f32 {
    (edge_vision::random::split_mix(seed) >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// A convolution, blocks of depthwise and pointwise ones with a residual sum, a mean and a dense layer; channels of very different
/// size.
fn network(clip: bool) -> ModelProto {
    let mut g = Graph::new(usize::MAX);
    let mut seed = 5;
    let mut weights = |g: &mut Graph, name: &str, dims: &[usize], size: f32| {
        let (outputs, count) = (dims[0], dims.iter().product::<usize>());
        let inner = count / outputs;
        let values: Vec<f32> =
            (0..count).map(|i| size * noise(&mut seed) * (1 + (i / inner * 7) % 13) as f32 / 6.0).collect();
        g.floats(name, dims, &values)
    };
    let conv = |g: &mut Graph, name: &str, x: &str, w: String, b: String, group: i64, pad: i64| {
        let attributes = vec![int("group", group), ints("pads", [pad; 4])];
        g.op("Conv", name, &[x, &w, &b], attributes).unwrap()
    };
    let bounds = clip.then(|| (g.floats("least", &[], &[0.0]), g.floats("most", &[], &[6.0])));
    let act = |g: &mut Graph, x: &str| match &bounds {
        None => g.op("Relu", &format!("{x}/act"), &[x], vec![]).unwrap(),
        Some((least, most)) => g.op("Clip", &format!("{x}/act"), &[x, least, most], vec![]).unwrap(),
    };
    let (w, b) = (weights(&mut g, "stem/w", &[8, 3, 3, 3], 0.4), weights(&mut g, "stem/b", &[8], 0.3));
    let x = conv(&mut g, "stem", "image", w, b, 1, 1);
    let x = act(&mut g, &x);
    let (w, b) = (weights(&mut g, "dw/w", &[8, 1, 3, 3], 0.5), weights(&mut g, "dw/b", &[8], 0.2));
    let y = conv(&mut g, "dw", &x, w, b, 8, 1);
    let (w, b) = (weights(&mut g, "pw/w", &[8, 8, 1, 1], 0.4), weights(&mut g, "pw/b", &[8], 0.2));
    let y = conv(&mut g, "pw", &y, w, b, 1, 0);
    let sum = g.op("Add", "sum", &[&x, &y], vec![]).unwrap();
    let z = act(&mut g, &sum);
    let (w, b) = (weights(&mut g, "last/w", &[16, 8, 1, 1], 0.4), weights(&mut g, "last/b", &[16], 0.2));
    let z = conv(&mut g, "last", &z, w, b, 1, 0);
    let z = act(&mut g, &z);
    let z = g.op("GlobalAveragePool", "mean", &[&z], vec![]).unwrap();
    let z = g.op("Flatten", "features", &[&z], vec![]).unwrap();
    let (w, b) = (weights(&mut g, "dense/w", &[16, 5], 0.4), weights(&mut g, "dense/b", &[5], 0.2));
    g.op("Gemm", "logits", &[&z, &w, &b], vec![]).unwrap();
    let picture = value_info("image", &[3, SIDE, SIDE]);
    g.finish("small", vec![picture], vec![value_info("logits", &[5])], Map::new())
}

struct Noise(usize);

impl Pictures for Noise {
    fn len(&self) -> usize {
        self.0
    }

    fn tensor(&self, at: usize) -> Result<Vec<f32>, String> {
        let mut seed = 100 + at as u64;
        let size = 0.3 + 0.7 * noise(&mut seed).abs();
        Ok((0..3 * SIDE * SIDE).map(|_| size * noise(&mut seed)).collect())
    }
}

fn input() -> InputSpec {
    InputSpec { name: "image".into(), layout: Layout::Nchw, height: SIDE as u32, width: SIDE as u32 }
}

fn options() -> Options {
    Options { load: LoadOptions { threads: 2 }, ..Options::default() }
}

fn verdicts(onnx: &[u8], pictures: &Noise) -> Verdicts {
    let which: Vec<usize> = (0..pictures.0).collect();
    let stop = AtomicBool::new(false);
    let contract = (&input(), "logits");
    Verdicts::of(onnx, contract, &options().load, (pictures, &which), &stop, &mut |_| {}).unwrap()
}

fn prepared(onnx: &[u8], options: &Options) -> Prepared {
    let which: Vec<usize> = (0..24).collect();
    let model = OnnxModel::parse(onnx).unwrap();
    let stop = AtomicBool::new(false);
    Prepared::new(&model, &input(), &Noise(24), &which, options, &stop, &mut |_, _, _| {}).unwrap()
}

#[test]
fn evening_out_changes_nothing_but_the_channels() {
    for clip in [false, true] {
        let onnx = network(clip).encode_to_vec();
        let model = OnnxModel::parse(&onnx).unwrap();
        let (mut graph, rest, opset, outputs) = read(&model).unwrap();
        let names: Vec<String> = graph.nodes.iter().map(|n| n.output[0].clone()).collect();
        let mut observer = Observer::load(&onnx, &input(), names.clone(), &options().load).unwrap();
        let shapes = names.iter().cloned().zip(observer.shapes.iter().copied()).collect();
        let mut ranges = vec![Ranges::default(); names.len()];
        let which: Vec<usize> = (0..24).collect();
        let stop = AtomicBool::new(false);
        let see = |r: &mut Ranges, s: &Shape, v: &[f32], _: usize| r.see(s, v);
        observer.observe(&Noise(24), &which, &mut ranges, &stop, see, &mut |_| {}).unwrap();
        let mut ranges: Map<String, Ranges> = names.into_iter().zip(ranges).collect();
        let spread = |r: &Ranges| {
            let (mut least, mut most) = (f32::INFINITY, 0.0_f32);
            r.reach().filter(|v| *v > 0.0).for_each(|v| (least, most) = (least.min(v), most.max(v)));
            most / least
        };
        let before = spread(&ranges["dw"]);
        assert!(equalize(&mut graph, &shapes, &mut ranges, &outputs, 1.0) >= 2);
        assert!(spread(&ranges["dw"]) < 0.5 * before, "{} after {before}", spread(&ranges["dw"]));
        let even = encode_copy(&graph, &rest, opset);
        let agreement = verdicts(&onnx, &Noise(24)).agreement(&verdicts(&even, &Noise(24)));
        assert!(agreement.snr > 100.0, "clip {clip}: {} dB", agreement.snr);
    }
}

#[test]
fn quantized_networks_do_what_the_float_ones_do() {
    for clip in [false, true] {
        let onnx = network(clip).encode_to_vec();
        let float = verdicts(&onnx, &Noise(60));
        let mut last = 0.0;
        for options in [
            Options { learned: false, correct_bias: false, equalize: 0.0, ..options() },
            Options { tensorrt: true, equalize: 0.5, ..options() },
            options(),
        ] {
            let mut ready = prepared(&onnx, &options);
            let stop = AtomicBool::new(false);
            let some = [0, 5, 9];
            ready.choose_ranges(&input(), (&Noise(24), &some), &stop, &mut |_, _, _| {}).unwrap();
            let none = HashSet::new();
            let bytes = ready.quantize(&none).unwrap();
            let model = OnnxModel::parse(&bytes).unwrap();
            let nodes = &model.structure().graph.as_ref().unwrap().node;
            let int32 =
                nodes.iter().filter(|n| n.op_type == "DequantizeLinear" && n.output[0].ends_with("bias/dequantized"));
            assert_eq!(int32.count(), if options.tensorrt { 0 } else { 5 });
            let agreement = float.agreement(&verdicts(&bytes, &Noise(60)));
            assert!(agreement.snr > 22.0, "clip {clip}: {} dB", agreement.snr);
            last = agreement.snr;
            // All in float is the float network again, but where a picture goes beyond what calibration saw behind a Clip.
            let all: HashSet<String> = ready.layers().map(|l| l.0.to_string()).collect();
            let same = float.agreement(&verdicts(&ready.quantize(&all).unwrap(), &Noise(60)));
            assert!(same.snr > if clip { 60.0 } else { 100.0 }, "{} dB", same.snr);
            let layers = ready.examine(&bytes, &none, &input(), (&Noise(24), &some), &stop, &mut |_, _, _| {}).unwrap();
            assert!(layers.iter().all(|l| l.alone() > 20.0 && l.network > 15.0), "{layers:?}");
        }
        assert!(last > 25.0, "{last}");
    }
}
