//! Cross-layer equalization: channels of very different size brought to one, where that changes nothing.
//!
//! Activations have one scale for all channels, so a channel that never exceeds a hundredth of the largest is left two or three
//! steps. Between layers of which nothing but positively homogeneous operators stand (Relu, pooling, sums, moves: f(s·x) = s·f(x)
//! for s > 0), a channel can be multiplied by any factor in the layer that makes it and divided by it in those that read it: exact
//! in real numbers (Nagel et al., 2019, here over whole classes of values with residual sums, and to even out activations). Behind a
//! Clip at 6 a channel may only grow, and only as far as it stays below.

use super::observe::{Ranges, Shape};
use crate::graph::{Graph, floats_to_raw};
use edge_engine::Attributes;
use edge_engine::pb::NodeProto;
use std::collections::{BTreeMap, HashMap, HashSet};

/// No channel is moved by more than this factor against the largest: what is hardly ever there shall not rule the weights.
const MOST: f32 = 256.0;
/// Room above what calibration saw, behind a Clip.
const ROOM: f32 = 1.1;

/// Values whose channels have the same factors.
struct Classes<'g> {
    numbers: HashMap<&'g str, usize>,
    parent: Vec<usize>,
    /// Those that must stay as they are.
    fixed: Vec<bool>,
    /// The lowest limit of a Clip.
    limit: Vec<f32>,
}

impl<'g> Classes<'g> {
    fn number(&mut self, name: &'g str) -> usize {
        if let Some(n) = self.numbers.get(name) {
            return *n;
        }
        let n = self.parent.len();
        self.parent.push(n);
        self.fixed.push(false);
        self.limit.push(f32::INFINITY);
        self.numbers.insert(name, n);
        n
    }

    fn root(&self, mut n: usize) -> usize {
        while self.parent[n] != n {
            n = self.parent[n];
        }
        n
    }

    fn of(&self, name: &str) -> Option<usize> {
        self.numbers.get(name).map(|n| self.root(*n))
    }

    fn join(&mut self, a: &'g str, b: &'g str) {
        let (a, b) = (self.number(a), self.number(b));
        let (a, b) = (self.root(a), self.root(b));
        if a != b {
            self.parent[b] = a;
            self.fixed[a] |= self.fixed[b];
            self.limit[a] = self.limit[a].min(self.limit[b]);
        }
    }

    fn fix(&mut self, name: &'g str) {
        let n = self.number(name);
        let root = self.root(n);
        self.fixed[root] = true;
    }
}

/// Evens out the channels of the values in `ranges` (those that are to be quantized), as far as nothing changes by it. `strength`
/// is 0 for nothing, 1 for channels of one size. The ranges become what they are then. Gives how many classes of values were moved.
pub fn equalize(
    graph: &mut Graph,
    shapes: &HashMap<String, Shape>,
    ranges: &mut BTreeMap<String, Ranges>,
    outputs: &HashSet<String>,
    strength: f32,
) -> usize {
    let factors = factors(graph, shapes, ranges, outputs, strength);
    let classes: HashSet<usize> = factors.values().map(|(class, _)| *class).collect();
    for at in 0..graph.nodes.len() {
        let node = graph.nodes[at].clone();
        if layer(graph, &node, shapes).is_some() {
            let of = |name: &String| factors.get(name).map(|(_, f)| f.as_slice());
            rescale(graph, &node, of(&node.input[0]), of(&node.output[0]));
        }
    }
    for (name, range) in ranges {
        if let Some((_, factors)) = factors.get(name) {
            range.divide(factors);
        }
    }
    classes.len()
}

/// For every value that moves, its class and what its channels are divided by.
fn factors(
    graph: &Graph,
    shapes: &HashMap<String, Shape>,
    ranges: &BTreeMap<String, Ranges>,
    outputs: &HashSet<String>,
    strength: f32,
) -> HashMap<String, (usize, Vec<f32>)> {
    let mut classes = Classes { numbers: HashMap::new(), parent: vec![], fixed: vec![], limit: vec![] };
    let made: HashSet<&str> = graph.nodes.iter().flat_map(|n| &n.output).map(String::as_str).collect();
    for node in &graph.nodes {
        let computed: Vec<&str> =
            node.input.iter().filter(|i| !i.is_empty() && graph.constant(i).is_none()).map(String::as_str).collect();
        let out = node.output.first().map_or("", String::as_str);
        let shape = |name: &str| shapes.get(name).copied();
        let channels = |name: &str| shape(name).map(|s| s.channels);
        let same = |a: &str, b: &str| channels(a).is_some() && channels(a) == channels(b);
        if layer(graph, node, shapes).is_some() {
            classes.number(&node.input[0]);
            classes.number(out);
        } else if hands_on(node) && computed.len() == 1 && same(computed[0], out) {
            classes.join(computed[0], out);
        } else if let Some(limit) = clip(graph, node).filter(|_| computed.len() == 1 && same(computed[0], out)) {
            classes.join(computed[0], out);
            let n = classes.number(out);
            let root = classes.root(n);
            classes.limit[root] = classes.limit[root].min(limit);
        } else if node.op_type == "Add"
            && computed.len() == 2
            && computed.iter().all(|c| shape(c) == shape(out) && same(c, out))
        {
            computed.iter().for_each(|c| classes.join(c, out));
        } else {
            computed.iter().for_each(|c| classes.fix(c));
            node.output.iter().for_each(|o| classes.fix(o));
        }
        // The picture itself.
        computed.iter().filter(|c| !made.contains(*c)).for_each(|c| classes.fix(c));
    }
    outputs.iter().filter(|o| made.contains(o.as_str())).for_each(|o| classes.fix(o));

    // The geometric mean over the class's values of how large each channel is against the largest.
    let mut sums: BTreeMap<usize, (Vec<f32>, Vec<f32>, usize)> = BTreeMap::new();
    for (name, range) in ranges {
        let Some(class) = classes.of(name).filter(|c| !classes.fixed[*c]) else { continue };
        let largest = range.reach().fold(0.0, f32::max);
        if !(largest > 0.0 && largest.is_finite()) {
            continue;
        }
        let channels = range.least.len();
        let (logs, reach, count) = sums.entry(class).or_insert_with(|| (vec![0.0; channels], vec![0.0; channels], 0));
        if logs.len() != channels {
            continue;
        }
        for (c, r) in range.reach().enumerate() {
            logs[c] += (r / largest).max(1.0 / MOST).ln();
            reach[c] = reach[c].max(r);
        }
        *count += 1;
    }
    let mut found: HashMap<usize, Vec<f32>> = HashMap::new();
    for (class, (logs, reach, count)) in sums {
        let limit = classes.limit[class];
        let factor = |c: usize| {
            let wanted = (strength * logs[c] / count as f32).exp();
            if limit == f32::INFINITY { wanted } else { wanted.max(ROOM * reach[c] / limit).min(1.0) }
        };
        found.insert(class, (0..logs.len()).map(factor).collect());
    }
    let of = |(name, n): (&&str, &usize)| {
        let class = classes.root(*n);
        Some((name.to_string(), (class, found.get(&class)?.clone())))
    };
    classes.numbers.iter().filter_map(of).collect()
}

/// Operators with f(s·x) = s·f(x) for each channel and s > 0.
fn hands_on(node: &NodeProto) -> bool {
    matches!(
        node.op_type.as_str(),
        "Relu"
            | "LeakyRelu"
            | "MaxPool"
            | "AveragePool"
            | "GlobalAveragePool"
            | "GlobalMaxPool"
            | "ReduceMean"
            | "ReduceMax"
            | "Transpose"
            | "Flatten"
            | "Reshape"
            | "Squeeze"
            | "Unsqueeze"
    )
}

/// The upper limit of a Clip between 0 and that.
fn clip(graph: &Graph, node: &NodeProto) -> Option<f32> {
    let end = |at: usize| graph.values(node.input.get(at)?)?.first().copied();
    (node.op_type == "Clip" && end(1) == Some(0.0)).then(|| end(2)).flatten().filter(|l| *l > 0.0)
}

/// (outputs, inputs of a group, groups) of a layer whose weights and bias are its own.
fn layer(graph: &Graph, node: &NodeProto, shapes: &HashMap<String, Shape>) -> Option<(usize, usize, usize)> {
    let weights = graph.constant(node.input.get(1)?)?;
    let own = |name: &String| graph.nodes.iter().flat_map(|n| &n.input).filter(|i| *i == name).count() == 1;
    let bias = node.input.get(2).filter(|b| !b.is_empty());
    if !own(&node.input[1]) || bias.is_some_and(|b| !own(b) || graph.constant(b).is_none()) {
        return None;
    }
    let channels = |name: &String| shapes.get(name).map(|s| s.channels);
    let (read, made) = (channels(&node.input[0])?, channels(&node.output[0])?);
    let (outputs, inputs, groups) = match (node.op_type.as_str(), &weights.dims[..]) {
        ("Conv", [o, i, _, _]) => (*o as usize, *i as usize, Attributes(node).int("group", 1).max(1) as usize),
        ("Gemm", [i, o]) if Attributes(node).int("transB", 0) == 0 => (*o as usize, *i as usize, 1),
        _ => return None,
    };
    (made == outputs && read == inputs * groups && outputs % groups == 0).then_some((outputs, inputs, groups))
}

/// Multiplies what a layer reads by `read`, and divides what it makes by `made`.
fn rescale(graph: &mut Graph, node: &NodeProto, read: Option<&[f32]>, made: Option<&[f32]>) {
    if read.is_none() && made.is_none() {
        return;
    }
    let Some(dims) = graph.constant(&node.input[1]).map(|w| w.dims.clone()) else { return };
    let Some(mut weights) = graph.values(&node.input[1]) else { return };
    let dense = node.op_type == "Gemm";
    let (outputs, inputs) = if dense { (dims[1], dims[0]) } else { (dims[0], dims[1]) };
    let (outputs, inputs) = (outputs as usize, inputs as usize);
    let groups = if dense { 1 } else { Attributes(node).int("group", 1).max(1) as usize };
    let taps = weights.len() / (outputs * inputs).max(1);
    let of = |factors: Option<&[f32]>, at: usize| factors.map_or(1.0, |f| f[at]);
    for o in 0..outputs {
        for i in 0..inputs {
            let channel = o / (outputs / groups) * inputs + i;
            let factor = of(read, channel) / of(made, o);
            let first = if dense { i * outputs + o } else { (o * inputs + i) * taps };
            weights[first..first + taps].iter_mut().for_each(|w| *w *= factor);
        }
    }
    if let Some(constant) = graph.constant_mut(&node.input[1]) {
        constant.raw_data = floats_to_raw(&weights);
    }
    let Some(bias) = node.input.get(2).filter(|b| !b.is_empty()) else { return };
    let Some(mut values) = graph.values(bias) else { return };
    values.iter_mut().enumerate().for_each(|(o, b)| *b /= of(made, o));
    if let Some(constant) = graph.constant_mut(bias) {
        constant.raw_data = floats_to_raw(&values);
    }
}
