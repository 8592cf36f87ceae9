//! Where quantization hurts: signal to noise of each layer, alone and in the quantized network.

use super::agreement::SignalToNoise;
use super::observe::{Observer, Shape, shared};
use super::places::{Layer, Places, Role, inputs, node_key, places};
use super::qdq::{Recipe, Scale, Weights};
use super::range::Method;
use super::{Pictures, Prepared, Progress, QuantizeError, encode_copy};
use crate::graph::Graph;
use edge_engine::pb::NodeProto;
use edge_package::InputSpec;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::AtomicBool;

/// What quantization does to one layer.
#[derive(Debug, Clone)]
pub struct LayerNoise {
    /// The node's name.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// Whether it computes with bytes in the file that was written.
    pub quantized: bool,
    /// Signal to noise of what it makes in the quantized network, behind all layers before it, in dB.
    pub network: f64,
    /// Signal to noise of what it makes of float inputs when it alone is quantized, in dB; for each method of choosing ranges that
    /// was tried. Weights are rounded to the nearest.
    pub alone: Vec<(Method, f64)>,
    /// The method whose range its input has.
    pub method: Method,
    /// Its weights rounded so that outputs change least rather than each to the nearest step, dB; none where it has no weights.
    pub learned: Option<f64>,
    /// What it reads: the limits seen in calibration.
    pub seen: [f32; 2],
    /// The limits that bytes cover.
    pub covered: [f32; 2],
    /// How often what it reads lies where, from the lower to the upper limit seen; as shares.
    pub histogram: Vec<f32>,
}

impl LayerNoise {
    /// In dB, with the method and the rounding that are in force.
    pub fn alone(&self) -> f64 {
        self.learned.unwrap_or(self.nearest())
    }

    /// In dB, with the method that is in force and weights rounded to the nearest.
    pub fn nearest(&self) -> f64 {
        self.alone.iter().find(|(m, _)| *m == self.method).map_or(f64::NAN, |(_, snr)| *snr)
    }
}

/// Bars of a picture of a histogram.
const BARS: usize = 96;

/// Weights and scales under which layers are looked at alone.
struct Setting {
    scales: BTreeMap<String, Scale>,
    weights: HashMap<usize, Weights>,
}

impl Prepared {
    /// The methods that are tried for each value.
    pub const METHODS: [Method; 4] = [Method::MinMax, Method::Percentile(0.9999), Method::Mse, Method::Entropy];

    /// For each value the method by which the layers that read it lose least, looked at alone; kept for what is quantized from now
    /// on.
    pub fn choose_ranges(
        &mut self,
        input: &InputSpec,
        (pictures, which): (&dyn Pictures, &[usize]),
        stop: &AtomicBool,
        progress: &mut Progress<'_>,
    ) -> Result<(), QuantizeError> {
        let all = places(&self.graph, &HashSet::new(), &self.outputs);
        let mut noise: HashMap<String, Vec<f64>> = HashMap::new();
        for (number, method) in Self::METHODS.into_iter().enumerate() {
            let scales = self.scales_by(&all, |_| method);
            let weights = self.plain_weights(&all, &scales)?;
            let alone =
                self.alone(&all, Setting { scales, weights }, input, (pictures, which), stop, &mut |done, of| {
                    progress("ranges tried", number * of + done, Self::METHODS.len() * of);
                })?;
            for (layer, ratio) in all.layers.iter().zip(&alone) {
                for value in inputs(&self.graph.nodes[layer.node], layer.role) {
                    let value = all.values.get(value).unwrap_or(value);
                    let sums = noise.entry(value.clone()).or_insert_with(|| vec![0.0; Self::METHODS.len()]);
                    sums[number] += 10_f64.powf(-ratio.decibels() / 10.0);
                }
            }
            self.tried.push((method, alone.iter().map(SignalToNoise::decibels).collect()));
        }
        for (value, sums) in noise {
            let best = (0..sums.len()).min_by(|a, b| sums[*a].total_cmp(&sums[*b])).unwrap_or_default();
            self.methods.insert(value, Self::METHODS[best]);
        }
        Ok(())
    }

    /// The nodes that are quantized while those of `float` are not, those that lose most when quantized alone first.
    pub fn worst(&self, float: &HashSet<String>) -> Vec<String> {
        let all = places(&self.graph, &HashSet::new(), &self.outputs);
        let used: HashSet<usize> = places(&self.graph, float, &self.outputs).layers.iter().map(|l| l.node).collect();
        let mut found: Vec<(f64, String)> = vec![];
        for (at, layer) in all.layers.iter().enumerate().filter(|(_, l)| used.contains(&l.node)) {
            let node = &self.graph.nodes[layer.node];
            let method = self.method(all.values.get(&node.input[0]).unwrap_or(&node.input[0]));
            let alone = self.tried.iter().find(|t| t.0 == method).and_then(|t| t.1.get(at)).copied();
            found.push((alone.unwrap_or(f64::INFINITY), node_key(node).into()));
        }
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        found.into_iter().map(|f| f.1).collect()
    }

    /// Every layer that can be quantized: how much it loses alone and in the file `onnx`, in which the nodes of `float` are not.
    pub fn examine(
        &self,
        onnx: &[u8],
        float: &HashSet<String>,
        input: &InputSpec,
        (pictures, which): (&dyn Pictures, &[usize]),
        stop: &AtomicBool,
        progress: &mut Progress<'_>,
    ) -> Result<Vec<LayerNoise>, QuantizeError> {
        let all = places(&self.graph, &HashSet::new(), &self.outputs);
        let used: HashSet<usize> = places(&self.graph, float, &self.outputs).layers.iter().map(|l| l.node).collect();
        let network = self.in_network(&all, onnx, input, (pictures, which), stop, &mut |done, of| {
            progress("layers in the network", done, of)
        })?;
        let scales = self.scales(&all);
        let setting = Setting { scales: scales.clone(), weights: self.weights(&all, &scales)? };
        let learned = self
            .alone(&all, setting, input, (pictures, which), stop, &mut |done, of| progress("layers alone", done, of))?;
        let mut found = vec![];
        for (at, layer) in all.layers.iter().enumerate() {
            let node = &self.graph.nodes[layer.node];
            let read = &node.input[0];
            let value = all.values.get(read).unwrap_or(read);
            let histogram = self.histograms.get(value);
            let method = self.method(value);
            found.push(LayerNoise {
                node: node_key(node).into(),
                operator: node.op_type.clone(),
                quantized: used.contains(&layer.node),
                network: network[at].decibels(),
                alone: self.tried.iter().filter_map(|(m, all)| Some((*m, *all.get(at)?))).collect(),
                method,
                learned: matches!(layer.role, Role::Conv | Role::Dense).then(|| learned[at].decibels()),
                seen: histogram.map_or([0.0; 2], |h| [h.least, h.most]),
                covered: scales.get(value).map_or([0.0; 2], Scale::range),
                histogram: histogram.map_or(vec![], |h| h.bars(BARS)),
            });
        }
        Ok(found)
    }

    /// Signal to noise of what layers make in the quantized network.
    fn in_network(
        &self,
        all: &Places,
        onnx: &[u8],
        input: &InputSpec,
        (pictures, which): (&dyn Pictures, &[usize]),
        stop: &AtomicBool,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<SignalToNoise>, QuantizeError> {
        let names: Vec<String> = all.layers.iter().map(|l| l.output.clone()).collect();
        let float = encode_copy(&self.graph, &self.rest, self.opset);
        let mut float = Observer::load(&float, input, names.clone(), &self.options.load)?;
        let mut quantized = Observer::load(onnx, input, names.clone(), &self.options.load)?;
        let mut ratios = vec![SignalToNoise::default(); names.len()];
        for (done, picture) in which.iter().enumerate() {
            let mut wanted: Vec<Vec<f32>> = vec![vec![]; names.len()];
            let keep = |kept: &mut Vec<f32>, _: &Shape, values: &[f32], _: usize| *kept = values.to_vec();
            float.observe(pictures, &[*picture], &mut wanted, stop, keep, &mut |_| {})?;
            let mut both: Vec<(&mut SignalToNoise, Vec<f32>)> = ratios.iter_mut().zip(wanted).collect();
            let compare =
                |(ratio, wanted): &mut (&mut SignalToNoise, Vec<f32>), _: &Shape, values: &[f32], _: usize| {
                    ratio.add(wanted.iter().copied(), values.iter().copied());
                };
            quantized.observe(pictures, &[*picture], &mut both, stop, compare, &mut |_| {})?;
            progress(done + 1, which.len());
        }
        Ok(ratios)
    }

    /// Signal to noise of what each layer makes when it alone is quantized: all of them at once, as branches of the float network
    /// that nothing reads.
    fn alone(
        &self,
        all: &Places,
        setting: Setting,
        input: &InputSpec,
        (pictures, which): (&dyn Pictures, &[usize]),
        stop: &AtomicBool,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<SignalToNoise>, QuantizeError> {
        let (graph, branches) = self.branches(all, setting)?;
        let made: Vec<String> = all.layers.iter().map(|l| self.graph.nodes[l.node].output[0].clone()).collect();
        let names: Vec<String> = made.iter().chain(&branches).cloned().collect();
        let onnx = encode_copy(&graph, &self.rest, self.opset);
        let mut observer = Observer::load(&onnx, input, names, &self.options.load)?;
        let mut ratios = vec![SignalToNoise::default(); made.len()];
        for (done, picture) in which.iter().enumerate() {
            let mut values: Vec<Vec<f32>> = vec![vec![]; 2 * made.len()];
            let keep = |kept: &mut Vec<f32>, _: &Shape, values: &[f32], _: usize| *kept = values.to_vec();
            observer.observe(pictures, &[*picture], &mut values, stop, keep, &mut |_| {})?;
            let (wanted, found) = values.split_at(made.len());
            let pairs = ratios.iter_mut().zip(wanted.iter().zip(found));
            shared(
                pairs.collect(),
                |(_, (wanted, _))| wanted.len(),
                |(ratio, (wanted, found))| {
                    ratio.add(wanted.iter().copied(), found.iter().copied());
                },
            );
            progress(done + 1, which.len());
        }
        Ok(ratios)
    }

    /// The float graph with a quantized copy of each layer beside it, and the names of what they make.
    fn branches(&self, all: &Places, setting: Setting) -> Result<(Graph, Vec<String>), QuantizeError> {
        let mut graph = self.graph.clone();
        let count = graph.nodes.len();
        let mut places = Places { layers: vec![], values: all.values.clone(), float: vec![] };
        let mut weights = setting.weights;
        let mut names = vec![];
        for (at, layer) in all.layers.iter().enumerate() {
            let node = &self.graph.nodes[layer.node];
            let name = graph.fresh(&format!("{}/alone", node.output[0]));
            let copy = NodeProto { name: name.clone(), output: vec![name.clone()], ..node.clone() };
            if let Some(w) = weights.remove(&layer.node) {
                weights.insert(count + at, w);
            }
            graph.nodes.push(copy);
            places.layers.push(Layer { node: count + at, role: layer.role, output: name.clone() });
            names.push(name);
        }
        let recipe =
            Recipe { places: &places, scales: &setting.scales, weights: &weights, float_bias: self.options.tensorrt };
        Ok((recipe.write(graph).map_err(QuantizeError::Graph)?, names))
    }
}
