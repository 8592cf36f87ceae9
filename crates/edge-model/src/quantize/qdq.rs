//! The quantized graph: QuantizeLinear and DequantizeLinear around what computes with bytes.
//!
//! Weights are int8 with a scale per output and zero point 0, biases int32 with the scale of input times weights, activations
//! 8-bit with one scale each (ONNX operators QuantizeLinear-13 and DequantizeLinear-13): what ONNX Runtime, OpenVINO and TensorRT
//! fuse into int8 kernels, and what the engine lowers.

use super::places::{Layer, Places, Role, inputs};
use super::round::{Order, Rounded, scales, to_nearest};
use crate::graph::{Graph, floats_to_raw, int};
use edge_engine::pb::{NodeProto, tensor_proto::DataType};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

/// How a value becomes bytes: round(x / scale) + zero, limited to those of its type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// What one step is worth.
    pub scale: f32,
    /// The byte that stands for 0.
    pub zero: i32,
    /// int8 rather than uint8.
    pub signed: bool,
}

impl Scale {
    /// The scale for a range, which is widened to hold 0. Unsigned with a zero point, or signed and symmetric.
    pub fn of(least: f32, most: f32, symmetric: bool) -> Scale {
        let (least, most) = (f64::from(least.min(0.0)), f64::from(most.max(0.0)));
        // The smallest step whose reciprocal and square are still ordinary numbers.
        let sane = |scale: f64| if scale > 1e-12 { scale as f32 } else { 1.0 };
        if symmetric {
            return Scale { scale: sane(most.max(-least) / 127.0), zero: 0, signed: true };
        }
        let scale = sane((most - least) / 255.0);
        let zero = (-least / f64::from(scale)).round_ties_even().clamp(0.0, 255.0) as i32;
        Scale { scale, zero, signed: false }
    }

    /// The least and the largest number that bytes stand for.
    pub fn range(&self) -> [f32; 2] {
        let ends = if self.signed { [-128, 127] } else { [0, 255] };
        ends.map(|q| (q - self.zero) as f32 * self.scale)
    }

    /// What a number becomes after quantization and back.
    pub fn through(&self, x: f32) -> f32 {
        let [least, most] = if self.signed { [-128.0, 127.0] } else { [0.0, 255.0] };
        let q = ((x / self.scale).round_ties_even() + self.zero as f32).clamp(least, most);
        (q - self.zero as f32) * self.scale
    }
}

/// The weights of a layer in int8.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// In the order of the file.
    pub values: Vec<i8>,
    /// One scale per output.
    pub scales: Vec<f32>,
    /// One value per output, in float.
    pub bias: Vec<f32>,
}

/// How far the bias of a layer may lie from zero, in steps; an int32, with room for sums.
const MOST_BIAS: f64 = (1_u32 << 30) as f64;

/// Everything that the graph is written from.
pub struct Recipe<'a> {
    /// What is quantized.
    pub places: &'a Places,
    /// For each value whose scale counts.
    pub scales: &'a BTreeMap<String, Scale>,
    /// For each layer with weights, by its node.
    pub weights: &'a HashMap<usize, Weights>,
    /// Biases stay float32: TensorRT reads no int32 DequantizeLinear.
    pub float_bias: bool,
}

impl Recipe<'_> {
    /// The scale of a quantized value.
    pub fn scale(&self, value: &str) -> Option<Scale> {
        self.scales.get(self.places.values.get(value)?).copied()
    }

    /// Rewrites a float graph.
    pub fn write(&self, mut graph: Graph) -> Result<Graph, String> {
        let mut dequantized: HashMap<String, String> = HashMap::new();
        let layers: HashMap<usize, &Layer> = self.places.layers.iter().map(|l| (l.node, l)).collect();
        let nodes = std::mem::take(&mut graph.nodes);
        // What comes from outside the nodes is quantized where it is first read.
        for (at, mut node) in nodes.into_iter().enumerate() {
            if let Some(layer) = layers.get(&at) {
                for value in inputs(&node, layer.role).to_vec() {
                    if let Entry::Vacant(place) = dequantized.entry(value) {
                        let name = self.around(&mut graph, place.key())?;
                        place.insert(name);
                    }
                }
                let count = inputs(&node, layer.role).len();
                let (read, rest) = node.input.split_at_mut(count);
                let source = read[0].clone();
                read.iter_mut().for_each(|input| *input = dequantized[input.as_str()].clone());
                if let Some(weights) = self.weights.get(&at) {
                    let scale = self.scale(&source).ok_or_else(|| format!("{source:?} has no scale"))?;
                    let names = self.layer(&mut graph, layer, &rest[0].clone(), weights, scale)?;
                    node.input.truncate(1);
                    node.input.extend(names);
                }
            }
            graph.nodes.push(node);
        }
        graph.sweep();
        Ok(graph)
    }

    /// Quantizes and dequantizes a value; gives the name of what comes out.
    fn around(&self, graph: &mut Graph, value: &str) -> Result<String, String> {
        let scale = self.scale(value).ok_or_else(|| format!("{value:?} has no scale"))?;
        let kind = if scale.signed { DataType::Int8 } else { DataType::Uint8 };
        let factor = graph.floats(&format!("{value}/scale"), &[], &[scale.scale]);
        let zero = graph.add(&format!("{value}/zero_point"), &[], kind, vec![scale.zero as u8]);
        let quantized = graph.op("QuantizeLinear", &format!("{value}/quantized"), &[value, &factor, &zero], vec![])?;
        graph.op("DequantizeLinear", &format!("{value}/dequantized"), &[&quantized, &factor, &zero], vec![])
    }

    /// Weights and bias of a layer: the names of what stands for them.
    fn layer(
        &self,
        graph: &mut Graph,
        layer: &Layer,
        name: &str,
        weights: &Weights,
        input: Scale,
    ) -> Result<[String; 2], String> {
        let dims = graph.constant(name).map(|c| c.dims.iter().map(|d| *d as usize).collect::<Vec<_>>());
        let dims = dims.ok_or_else(|| format!("the weights {name:?} are gone"))?;
        let axis = if layer.role == Role::Dense { 1 } else { 0 };
        let count = weights.scales.len();
        let bytes = weights.values.iter().map(|v| *v as u8).collect();
        let scales = graph.floats(&format!("{name}/scale"), &[count], &weights.scales);
        let zeros = graph.add(&format!("{name}/zero_point"), &[count], DataType::Int8, vec![0; count]);
        let quantized = graph.add(&format!("{name}/quantized"), &dims, DataType::Int8, bytes);
        let inputs = [&quantized[..], &scales, &zeros];
        let filter = graph.op("DequantizeLinear", &format!("{name}/dequantized"), &inputs, vec![int("axis", axis)])?;
        let name = format!("{name}/bias");
        if self.float_bias {
            return Ok([filter, graph.floats(&name, &[count], &weights.bias)]);
        }
        let steps: Vec<f32> = weights.scales.iter().map(|w| w * input.scale).collect();
        let whole = |(bias, step): (&f32, &f32)| (f64::from(*bias) / f64::from(*step)).round_ties_even();
        let values: Vec<f64> = weights.bias.iter().zip(&steps).map(whole).collect();
        if !values.iter().all(|v| v.abs() <= 2.0 * MOST_BIAS) {
            return Err(format!("{name:?} does not fit int32"));
        }
        let bytes = values.iter().flat_map(|v| (*v as i32).to_le_bytes()).collect();
        let quantized = graph.add(&format!("{name}/quantized"), &[count], DataType::Int32, bytes);
        let scales = graph.floats(&format!("{name}/scale"), &[count], &steps);
        let zeros = graph.add(&format!("{name}/zero_point"), &[count], DataType::Int32, vec![0; 4 * count]);
        let inputs = [&quantized[..], &scales, &zeros];
        Ok([filter, graph.op("DequantizeLinear", &format!("{name}/dequantized"), &inputs, vec![int("axis", 0)])?])
    }
}

/// Widens the scales of weights where a bias would not fit int32: of outputs that are nearly constant.
pub fn fit_bias(scales: &mut [f32], bias: &[f32], input: f32) {
    for (scale, bias) in scales.iter_mut().zip(bias) {
        let least = f64::from(bias.abs()) / (f64::from(input) * MOST_BIAS);
        *scale = scale.max(least as f32);
    }
}

/// Weights alone in fewer bytes, computed with in float32: float16, or int8 with a scale per output. `rounded` are those of
/// layers that were rounded before, with their biases.
pub fn weights_only(
    graph: &mut Graph,
    places: &Places,
    half: bool,
    rounded: &HashMap<usize, Weights>,
) -> Result<(), String> {
    let mut made: HashMap<String, String> = HashMap::new();
    let mut nodes: Vec<NodeProto> = vec![];
    for layer in places.layers.iter().filter(|l| matches!(l.role, Role::Conv | Role::Dense)) {
        let name = graph.nodes[layer.node].input[1].clone();
        if !made.contains_key(&name) {
            let values = graph.values(&name).ok_or_else(|| format!("the weights {name:?} are gone"))?;
            let dims: Vec<usize> =
                graph.constant(&name).map_or(vec![], |c| c.dims.iter().map(|d| *d as usize).collect());
            let before = graph.nodes.len();
            let new = if half {
                let most = f32::from(half::f16::MAX);
                let bytes =
                    values.iter().flat_map(|v| half::f16::from_f32(v.clamp(-most, most)).to_le_bytes()).collect();
                let stored = graph.add(&format!("{name}/float16"), &dims, DataType::Float16, bytes);
                graph.op("Cast", &format!("{name}/float32"), &[&stored], vec![int("to", DataType::Float as i64)])?
            } else {
                let axis = if layer.role == Role::Dense { 1 } else { 0 };
                let plain = match rounded.get(&layer.node) {
                    Some(known) => Rounded { values: known.values.clone(), scales: known.scales.clone() },
                    None => {
                        let order = Order::new(&dims, axis);
                        to_nearest(&values, &order, scales(&values, &order, &[]))
                    }
                };
                let count = plain.scales.len();
                let bytes = plain.values.iter().map(|v| *v as u8).collect();
                let stored = graph.add(&format!("{name}/quantized"), &dims, DataType::Int8, bytes);
                let scales =
                    graph.add(&format!("{name}/scale"), &[count], DataType::Float, floats_to_raw(&plain.scales));
                let zeros = graph.add(&format!("{name}/zero_point"), &[count], DataType::Int8, vec![0; count]);
                let inputs = [&stored[..], &scales, &zeros];
                graph.op("DequantizeLinear", &format!("{name}/dequantized"), &inputs, vec![int("axis", axis as i64)])?
            };
            nodes.extend(graph.nodes.drain(before..));
            made.insert(name.clone(), new);
        }
        graph.nodes[layer.node].input[1].clone_from(&made[&name]);
        if let Some(known) = rounded.get(&layer.node) {
            let bias = graph.floats(&format!("{name}/bias"), &[known.bias.len()], &known.bias);
            let node = &mut graph.nodes[layer.node];
            node.input.truncate(2);
            node.input.push(bias);
        }
    }
    // Constants first: everything may read them.
    nodes.append(&mut graph.nodes);
    graph.nodes = nodes;
    graph.sweep();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_hold_zero_exactly() {
        let s = Scale::of(-1.0, 3.0, false);
        assert_eq!((s.through(0.0), s.signed), (0.0, false));
        assert!((s.through(3.0) - 3.0).abs() <= s.scale && (s.through(-1.0) + 1.0).abs() <= s.scale);
        assert_eq!(s.through(100.0), s.range()[1]);
        assert_eq!(Scale::of(2.0, 6.0, false).zero, 0);
        let s = Scale::of(-1.0, 3.0, true);
        assert_eq!((s.zero, s.through(3.0)), (0, 3.0));
        // Nothing to measure.
        assert_eq!(Scale::of(0.0, 0.0, false).scale, 1.0);
    }

    #[test]
    fn biases_fit() {
        let mut scales = [1e-30, 1.0];
        fit_bias(&mut scales, &[5.0, 5.0], 0.1);
        assert!(f64::from(5.0_f32) / (f64::from(scales[0]) * 0.1) <= 1.01 * MOST_BIAS && scales[1] == 1.0);
    }
}
