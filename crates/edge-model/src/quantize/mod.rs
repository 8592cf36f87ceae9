//! Float networks to int8, after training, with photos that say what the values inside are like.
//!
//! ```text
//! ONNX ── simplify.rs: one form, scales and bias inside ── observe.rs: ranges of channels ── equalize.rs
//!                                                                                             │
//!   QDQ ONNX ── qdq.rs ── round.rs: weights ── range.rs: scales of activations ── observe.rs: histograms, moments
//! ```
//!
//! [`Prepared`] is the float network with all that was measured; [`Prepared::quantize`] makes a file of it, as often as one likes with
//! other layers kept in float. `doctor.rs` says where it hurts.

mod agreement;
mod doctor;
mod equalize;
mod error;
mod observe;
mod places;
mod qdq;
mod range;
mod round;
mod simplify;
#[cfg(test)]
mod tests;

use crate::graph::Graph;
pub use agreement::{Agreement, SignalToNoise, Verdicts};
pub use doctor::LayerNoise;
use edge_engine::pb::{ModelProto, StringStringEntryProto};
use edge_engine::{LoadOptions, OnnxModel};
use edge_package::InputSpec;
pub use error::QuantizeError;
pub use observe::Pictures;
use observe::{Observer, Ranges, Shape, encode};
use places::{Places, Role, node_key, places};
use prost::Message;
use qdq::{Recipe, Scale, Weights};
use range::Histogram;
pub use range::Method;
use round::{Moments, Order};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

/// What weights and activations become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Weights and activations int8: QDQ.
    Int8,
    /// Weights float16, computed with in float32.
    Half,
    /// Weights int8, computed with in float32.
    Int8Weights,
}

/// How to quantize.
#[derive(Debug, Clone)]
pub struct Options {
    /// Activations symmetric, biases in float: what TensorRT reads.
    pub tensorrt: bool,
    /// How far channels are evened out, 0 to 1.
    pub equalize: f32,
    /// Weights rounded so that outputs change least, rather than each to the nearest.
    pub learned: bool,
    /// Biases make up for what rounding the weights does to the mean of each output.
    pub correct_bias: bool,
    /// Threads of the engine.
    pub load: LoadOptions,
}

impl Default for Options {
    fn default() -> Options {
        Options { tensorrt: false, equalize: 1.0, learned: true, correct_bias: true, load: LoadOptions::default() }
    }
}

/// What is being done, for a progress bar: the stage, how many pictures of how many.
pub type Progress<'a> = dyn FnMut(&'static str, usize, usize) + 'a;

/// Pixels of a picture that the moments of a layer's inputs are taken from.
const SAMPLED: usize = 96;
/// Pictures that distributions are measured on; ranges are of all.
const MEASURED: usize = 96;
/// Pixels of a picture that histograms are made of.
const SEEN: usize = 512;
/// The most inputs of a layer whose rounding is learned: moments grow with the square.
const MOST_INPUTS: usize = 4096;

/// What was measured of a layer's input.
struct Input {
    /// The mean of each channel.
    sums: Vec<f64>,
    count: f64,
    moments: Option<Moments>,
}

/// A float network that is ready to be quantized.
pub struct Prepared {
    graph: Graph,
    rest: ModelProto,
    opset: i64,
    outputs: HashSet<String>,
    /// Of every value that may be quantized.
    histograms: BTreeMap<String, Histogram>,
    inputs: HashMap<String, Input>,
    /// How the range of each value is chosen.
    methods: BTreeMap<String, Method>,
    /// For each method that was tried, signal to noise of all layers.
    tried: Vec<(Method, Vec<f64>)>,
    /// Scales that were chosen already, by value and method.
    ranges: Mutex<HashMap<(String, String), Scale>>,
    /// Weights that were rounded already, by node and what the scale of its input was: that takes long.
    rounded: Mutex<HashMap<(usize, u32), Weights>>,
    options: Options,
    /// Classes of values whose channels were evened out.
    pub equalized: usize,
}

impl Prepared {
    /// Simplifies the graph, measures it on `which` of the pictures, and evens out its channels.
    pub fn new(
        model: &OnnxModel<'_>,
        input: &InputSpec,
        pictures: &dyn Pictures,
        which: &[usize],
        options: &Options,
        stop: &AtomicBool,
        progress: &mut Progress<'_>,
    ) -> Result<Prepared, QuantizeError> {
        if which.is_empty() {
            return Err(QuantizeError::NoPictures);
        }
        let (mut graph, rest, opset, outputs) = read(model)?;
        let places = all_places(&graph, &outputs)?;
        // Equalization wants the shapes of everything, ranges only of what is quantized.
        let onnx = encode_copy(&graph, &rest, opset);
        let around = |l: &places::Layer| {
            let node = &graph.nodes[l.node];
            [l.output.clone(), node.output[0].clone()].into_iter().chain(places::inputs(node, l.role).to_vec())
        };
        let names: BTreeSet<String> = places.layers.iter().flat_map(around).collect();
        let names: Vec<String> = names.into_iter().collect();
        let values: Vec<String> = places.values.keys().cloned().collect();
        let shapes = shapes(&onnx, input, names, &options.load)?;
        let mut observer = Observer::load(&onnx, input, values.clone(), &options.load)?;
        let mut ranges = vec![Ranges::default(); values.len()];
        let total = which.len();
        observer.observe(
            pictures,
            which,
            &mut ranges,
            stop,
            |range, shape, v, _| range.see(shape, v),
            &mut |done| progress("ranges", done, total),
        )?;
        let mut ranges: BTreeMap<String, Ranges> = values.into_iter().zip(ranges).collect();
        if let Some((name, _)) = ranges.iter().find(|(_, r)| !r.whole().iter().all(|v| v.is_finite())) {
            return Err(QuantizeError::NotFinite(name.clone()));
        }
        let equalized = match options.equalize > 0.0 {
            true => equalize::equalize(&mut graph, &shapes, &mut ranges, &outputs, options.equalize),
            false => 0,
        };
        let mut prepared = Prepared {
            graph,
            rest,
            opset,
            outputs,
            histograms: BTreeMap::new(),
            inputs: HashMap::new(),
            methods: BTreeMap::new(),
            tried: vec![],
            ranges: Mutex::default(),
            rounded: Mutex::default(),
            options: options.clone(),
            equalized,
        };
        prepared.measure(&places, &ranges, input, (pictures, which), stop, progress)?;
        Ok(prepared)
    }

    /// Histograms of what is quantized, moments of what layers read.
    fn measure(
        &mut self,
        places: &Places,
        ranges: &BTreeMap<String, Ranges>,
        input: &InputSpec,
        (pictures, which): (&dyn Pictures, &[usize]),
        stop: &AtomicBool,
        progress: &mut Progress<'_>,
    ) -> Result<(), QuantizeError> {
        struct State {
            histogram: Histogram,
            input: Option<Input>,
        }
        let onnx = encode_copy(&self.graph, &self.rest, self.opset);
        let values: Vec<String> = places.values.keys().cloned().collect();
        let mut observer = Observer::load(&onnx, input, values.clone(), &self.options.load)?;
        let weighted: HashSet<&String> = places
            .layers
            .iter()
            .filter(|l| matches!(l.role, Role::Conv | Role::Dense))
            .map(|l| &self.graph.nodes[l.node].input[0])
            .collect();
        let pointwise: HashSet<&String> = places
            .layers
            .iter()
            .filter(|l| learnable(&self.graph, l.node))
            .map(|l| &self.graph.nodes[l.node].input[0])
            .collect();
        let state = |(name, shape): (&String, &Shape)| State {
            histogram: Histogram::new(ranges.get(name).map_or([0.0; 2], Ranges::whole)),
            input: weighted.contains(name).then(|| Input {
                sums: vec![0.0; shape.channels],
                count: 0.0,
                moments: (self.options.learned && pointwise.contains(name) && shape.channels <= MOST_INPUTS)
                    .then(|| Moments::new(shape.channels)),
            }),
        };
        let mut states: Vec<State> = values.iter().zip(&observer.shapes).map(state).collect();
        let see = |state: &mut State, shape: &Shape, values: &[f32], at: usize| {
            state.histogram.see(&sampled(shape, values, SEEN, at as u64));
            if let Some(input) = &mut state.input {
                shape.each(values, |c, channel| input.sums[c] += f64::from(channel.sum::<f32>()));
                input.count += shape.pixels as f64;
                if let Some(moments) = &mut input.moments {
                    let columns = sampled(shape, values, SAMPLED, at as u64);
                    moments.add(&columns, columns.len() / shape.channels);
                }
            }
        };
        let total = which.len().min(MEASURED);
        let some: Vec<usize> = (0..total).map(|i| which[i * which.len() / total]).collect();
        observer
            .observe(pictures, &some, &mut states, stop, see, &mut |done| progress("distributions", done, total))?;
        for (name, state) in values.into_iter().zip(states) {
            if let Some(input) = state.input {
                self.inputs.insert(name.clone(), input);
            }
            self.histograms.insert(name, state.histogram);
        }
        Ok(())
    }

    /// The nodes that can be quantized: their names and operators.
    pub fn layers(&self) -> impl Iterator<Item = (&str, &str)> {
        let places = places(&self.graph, &HashSet::new(), &self.outputs);
        places
            .layers
            .into_iter()
            .map(|l| (node_key(&self.graph.nodes[l.node]), self.graph.nodes[l.node].op_type.as_str()))
    }

    /// The layers that read the picture.
    pub fn first(&self) -> Vec<String> {
        let made: HashSet<&String> = self.graph.nodes.iter().flat_map(|n| &n.output).collect();
        let moved = |name: &String| {
            let maker = self.graph.nodes.iter().find(|n| n.output.contains(name));
            maker.is_none_or(|m| {
                matches!(m.op_type.as_str(), "Transpose" | "Pad") && !m.input.first().is_some_and(|i| made.contains(i))
            })
        };
        let first = |n: &&edge_engine::pb::NodeProto| n.op_type == "Conv" && n.input.first().is_some_and(moved);
        self.graph.nodes.iter().filter(first).map(|n| node_key(n).to_string()).collect()
    }

    /// The nodes that cannot be quantized, and why.
    pub fn left(&self) -> Vec<(String, String)> {
        let places = places(&self.graph, &HashSet::new(), &self.outputs);
        places.float.into_iter().map(|(n, why)| (node_key(&self.graph.nodes[n]).to_string(), why)).collect()
    }

    /// The quantized file, with the nodes of these names kept in float.
    pub fn quantize(&self, float: &HashSet<String>) -> Result<Vec<u8>, QuantizeError> {
        let places = places(&self.graph, float, &self.outputs);
        let scales = self.scales(&places);
        let weights = self.weights(&places, &scales)?;
        let recipe = Recipe { places: &places, scales: &scales, weights: &weights, float_bias: self.options.tensorrt };
        let graph = recipe.write(self.graph.clone()).map_err(QuantizeError::Graph)?;
        Ok(encode(graph, &raised(&self.rest, self.opset)))
    }

    /// A file whose weights alone are int8: rounded so that outputs change least, biases corrected.
    pub fn int8_weights(&self) -> Result<Vec<u8>, QuantizeError> {
        let places = places(&self.graph, &HashSet::new(), &self.outputs);
        let mut weights = self.weights(&places, &self.scales(&places))?;
        // Constants that several layers share are rounded once, for all of them alike.
        let uses = self.graph.uses();
        weights.retain(|node, _| uses.get(&self.graph.nodes[*node].input[1]) == Some(&1));
        let mut graph = self.graph.clone();
        qdq::weights_only(&mut graph, &places, false, &weights).map_err(QuantizeError::Graph)?;
        Ok(encode(graph, &raised(&self.rest, self.opset)))
    }

    /// Every range by this method.
    pub fn set_method(&mut self, method: Method) {
        self.methods = self.histograms.keys().map(|name| (name.clone(), method)).collect();
    }

    fn scales(&self, places: &Places) -> BTreeMap<String, Scale> {
        self.scales_by(places, |name| self.method(name))
    }

    /// How the range of a value is chosen.
    fn method(&self, value: &str) -> Method {
        self.methods.get(value).copied().unwrap_or(Method::Mse)
    }

    fn scales_by(&self, places: &Places, method: impl Fn(&str) -> Method) -> BTreeMap<String, Scale> {
        let wanted: HashSet<&String> = places.values.values().collect();
        let scale = |name: &String| {
            let histogram = self.histograms.get(name)?;
            let key = (name.clone(), method(name).to_string());
            if let Some(known) = self.ranges.lock().ok().and_then(|r| r.get(&key).copied()) {
                return Some((name.clone(), known));
            }
            let [least, most] = histogram.range(method(name), self.options.tensorrt);
            let scale = Scale::of(least, most, self.options.tensorrt);
            if let Ok(mut known) = self.ranges.lock() {
                known.insert(key, scale);
            }
            Some((name.clone(), scale))
        };
        wanted.into_iter().filter_map(scale).collect()
    }

    fn weights(
        &self,
        places: &Places,
        scales: &BTreeMap<String, Scale>,
    ) -> Result<HashMap<usize, Weights>, QuantizeError> {
        self.weights_by(places, scales, self.options.learned)
    }

    /// Each weight rounded to the nearest step.
    fn plain_weights(
        &self,
        places: &Places,
        scales: &BTreeMap<String, Scale>,
    ) -> Result<HashMap<usize, Weights>, QuantizeError> {
        self.weights_by(places, scales, false)
    }

    fn weights_by(
        &self,
        places: &Places,
        scales: &BTreeMap<String, Scale>,
        learned: bool,
    ) -> Result<HashMap<usize, Weights>, QuantizeError> {
        let mut all = HashMap::new();
        for layer in places.layers.iter().filter(|l| matches!(l.role, Role::Conv | Role::Dense)) {
            let node = &self.graph.nodes[layer.node];
            let fail = |what: &str| QuantizeError::Graph(format!("{}: {what}", node_key(node)));
            let constant = self.graph.constant(&node.input[1]).ok_or_else(|| fail("its weights are gone"))?;
            let dims: Vec<usize> = constant.dims.iter().map(|d| *d as usize).collect();
            let values = self.graph.values(&node.input[1]).ok_or_else(|| fail("its weights are no numbers"))?;
            let order = Order::new(&dims, if layer.role == Role::Dense { 1 } else { 0 });
            let input = places.values.get(&node.input[0]).and_then(|v| scales.get(v));
            let input = *input.ok_or_else(|| fail("what it reads has no scale"))?;
            let key = (layer.node, input.scale.to_bits());
            if learned && let Some(known) = self.rounded.lock().ok().and_then(|r| r.get(&key).cloned()) {
                all.insert(layer.node, known);
                continue;
            }
            let mut bias = match node.input.get(2).filter(|b| !b.is_empty()) {
                Some(name) => self.graph.values(name).ok_or_else(|| fail("its bias is no constant"))?,
                None => vec![0.0; order.outputs],
            };
            let measured = self.inputs.get(&node.input[0]);
            let moments = measured.and_then(|m| m.moments.as_ref()).filter(|_| learnable(&self.graph, layer.node));
            let mut scales = match moments {
                Some(moments) => round::scales(&values, &order, &moments.diagonal()),
                None => round::scales(&values, &order, &[]),
            };
            qdq::fit_bias(&mut scales, &bias, input.scale);
            let rounded = match moments.filter(|_| learned) {
                Some(moments) => round::learned(&values, &order, scales, moments, input.scale * input.scale / 12.0),
                None => round::to_nearest(&values, &order, scales),
            };
            if self.options.correct_bias
                && let Some(measured) = measured
            {
                correct(
                    &mut bias,
                    &values,
                    &rounded,
                    &order,
                    &dims,
                    measured,
                    edge_engine::Attributes(node).int("group", 1),
                );
            }
            let weights = Weights { values: rounded.values, scales: rounded.scales, bias };
            if learned && let Ok(mut known) = self.rounded.lock() {
                known.insert(key, weights.clone());
            }
            all.insert(layer.node, weights);
        }
        Ok(all)
    }
}

/// Takes off the biases what rounded weights add to the mean of each output.
fn correct(
    bias: &mut [f32],
    values: &[f32],
    rounded: &round::Rounded,
    order: &Order,
    dims: &[usize],
    measured: &Input,
    groups: i64,
) {
    let taps = if dims.len() == 4 { dims[2] * dims[3] } else { 1 };
    let inputs = order.inputs / taps.max(1);
    let groups = usize::try_from(groups).unwrap_or(1).max(1);
    let mean = |c: usize| measured.sums.get(c).map_or(0.0, |s| s / measured.count.max(1.0));
    for (o, bias) in bias.iter_mut().enumerate() {
        let first = o / (order.outputs / groups).max(1) * inputs;
        let shift: f64 = (0..order.inputs)
            .map(|i| {
                let at = order.at(o, i);
                let error = f64::from(rounded.values[at]) * f64::from(rounded.scales[o]) - f64::from(values[at]);
                error * mean(first + i / taps)
            })
            .sum();
        *bias -= shift as f32;
    }
}

/// Whether the weights of a node are a matrix over channels, so that moments of channels say all of its inputs.
fn learnable(graph: &Graph, node: usize) -> bool {
    let node = &graph.nodes[node];
    let dims = node.input.get(1).and_then(|w| graph.constant(w)).map(|w| w.dims.as_slice());
    match (node.op_type.as_str(), dims) {
        ("Gemm", Some([_, _])) => true,
        ("Conv", Some([_, _, 1, 1])) => edge_engine::Attributes(node).int("group", 1) == 1,
        _ => false,
    }
}

/// Some pixels of a picture, as (channels, pixels): others in each.
fn sampled(shape: &Shape, values: &[f32], most: usize, seed: u64) -> Vec<f32> {
    let count = shape.pixels.min(most);
    let mut seed = seed;
    let first = edge_vision::random::split_mix(&mut seed) as usize % shape.pixels.max(1);
    // Evenly, from another beginning each time: deterministic, and all of the picture.
    let places: Vec<usize> = (0..count).map(|i| (first + i * shape.pixels / count) % shape.pixels).collect();
    let mut out = Vec::with_capacity(shape.channels * count);
    for c in 0..shape.channels {
        let value = |p: &usize| if shape.last { values[p * shape.channels + c] } else { values[c * shape.pixels + p] };
        out.extend(places.iter().map(value));
    }
    out
}

/// A file whose weights alone are smaller: computed with in float32. Nothing else changes.
pub fn weights_only(model: &OnnxModel<'_>, target: Target) -> Result<Vec<u8>, QuantizeError> {
    let (mut graph, rest, opset, outputs) = read(model)?;
    let places = all_places(&graph, &outputs)?;
    qdq::weights_only(&mut graph, &places, target == Target::Half, &HashMap::new()).map_err(QuantizeError::Graph)?;
    Ok(encode(graph, &raised(&rest, opset)))
}

/// The names of the nodes that can be quantized.
pub fn layers(model: &OnnxModel<'_>) -> Result<Vec<String>, QuantizeError> {
    let (graph, _, _, outputs) = read(model)?;
    Ok(all_places(&graph, &outputs)?.layers.iter().map(|l| node_key(&graph.nodes[l.node]).to_string()).collect())
}

/// The file with this property, whatever it was before.
pub fn with_property(onnx: &[u8], key: &str, value: &str) -> Result<Vec<u8>, QuantizeError> {
    let mut proto = OnnxModel::parse(onnx)?.whole();
    proto.metadata_props.retain(|p| p.key != key);
    proto.metadata_props.push(StringStringEntryProto { key: key.into(), value: value.into() });
    Ok(proto.encode_to_vec())
}

/// The graph in its simple form.
fn read(model: &OnnxModel<'_>) -> Result<(Graph, ModelProto, i64, HashSet<String>), QuantizeError> {
    let (mut graph, rest) = Graph::read(model).map_err(QuantizeError::Graph)?;
    let quantizes = |op: &str| op.contains("QuantizeLinear") || op.starts_with("QLinear") || op.ends_with("Integer");
    let already = graph.nodes.iter().filter(|n| quantizes(&n.op_type)).count();
    if already > 0 {
        return Err(QuantizeError::Already(already));
    }
    let opset = simplify::raise_opset(&mut graph, model.opset()).map_err(QuantizeError::Graph)?;
    let outputs: HashSet<String> = rest.graph.iter().flat_map(|g| &g.output).map(|o| o.name.clone()).collect();
    simplify::simplify(&mut graph, &outputs);
    Ok((graph, rest, opset, outputs))
}

fn all_places(graph: &Graph, outputs: &HashSet<String>) -> Result<Places, QuantizeError> {
    let places = places(graph, &HashSet::new(), outputs);
    if !places.layers.iter().any(|l| matches!(l.role, Role::Conv | Role::Dense)) {
        let why = places.float.iter().map(|(n, why)| format!("{} ({why})", node_key(&graph.nodes[*n]))).collect();
        return Err(QuantizeError::Nothing(why));
    }
    Ok(places)
}

fn shapes(
    onnx: &[u8],
    input: &InputSpec,
    names: Vec<String>,
    options: &LoadOptions,
) -> Result<HashMap<String, Shape>, QuantizeError> {
    let observer = Observer::load(onnx, input, names, options)?;
    Ok(observer.names.into_iter().zip(observer.shapes).collect())
}

/// The model with the opset that its graph has now.
fn raised(rest: &ModelProto, opset: i64) -> ModelProto {
    let mut rest = rest.clone();
    for import in rest.opset_import.iter_mut().filter(|o| matches!(o.domain.as_str(), "" | "ai.onnx")) {
        import.version = opset;
    }
    // The IR version that came with opset 13.
    rest.ir_version = rest.ir_version.max(7);
    rest
}

fn encode_copy(graph: &Graph, rest: &ModelProto, opset: i64) -> Vec<u8> {
    encode(graph.clone(), &raised(rest, opset))
}
