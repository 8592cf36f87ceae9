//! From layers to a graph: every call in an order in which its inputs are there.

use super::config::{Call, Layer, Model, Source, join};
use super::cx::{Cx, count};
use super::layers;
use super::value::{Format, Value, elements};
use super::weights::Weights;
use super::{ImportOptions, Progress};
use crate::graph::{Graph, value_info};
use crate::{ImportError, LayerName};
use edge_engine::pb::ValueInfoProto;
use edge_vision::Layout;
use serde_json::Value as Json;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// The longest side of a picture, in pixels; the same bound as a package's.
const MAX_SIDE: usize = 8192;
/// More layers and inputs of layers than any network has, counted at each call. Nested models that call each other grow
/// exponentially, also where their layers do nothing.
const MAX_WORK: usize = 2_000_000;
/// More outputs than any network has.
const MAX_OUTPUTS: usize = 1000;

/// A graph with its ends.
pub struct Built {
    pub graph: Graph,
    pub inputs: Vec<ValueInfoProto>,
    pub outputs: Vec<ValueInfoProto>,
    pub layers: usize,
    pub notes: Vec<String>,
}

/// Puts a model into a graph.
pub fn lower(
    model: &Model,
    weights: &Weights<'_>,
    options: &ImportOptions,
    old: bool,
    budget: usize,
    progress: &mut dyn FnMut(Progress),
) -> Result<Built, ImportError> {
    if model.outputs.len() > MAX_OUTPUTS {
        return Err(ImportError::Config(format!("the model has more than {MAX_OUTPUTS} outputs")));
    }
    let mut total = 0;
    model.walk("", &mut |_, _| total += 1);
    let mut lowerer = Lowerer {
        graph: Graph::new(budget),
        weights,
        old,
        stems: HashMap::new(),
        done: 0,
        work: 0,
        total,
        progress,
        resized: None,
    };
    let mut notes = vec![];
    let mut infos = vec![];
    let mut values = vec![];
    for source in &model.inputs {
        let layer = model.layers.iter().find(|l| l.name == source.layer);
        let layer = layer.ok_or_else(|| ImportError::Config(format!("there is no input layer {:?}", source.layer)))?;
        let (info, value) = lowerer.input(model, layer, options, &mut notes)?;
        infos.push(info);
        values.push(value);
    }
    let made = lowerer.model(model, "", &values)?;
    let mut outputs = vec![];
    let mut free: HashSet<String> = lowerer.graph.nodes.iter().flat_map(|n| n.output.clone()).collect();
    for (source, value) in model.outputs.iter().zip(made) {
        let nchw = options.layout == Some(Layout::Nchw);
        let info = lowerer.output(source, value, nchw, &mut free).map_err(ImportError::Config)?;
        outputs.push(info);
    }
    Ok(Built { graph: lowerer.graph, inputs: infos, outputs, layers: total, notes })
}

struct Lowerer<'a> {
    graph: Graph,
    weights: &'a Weights<'a>,
    old: bool,
    /// Path of a layer -> stem of the names of its first call.
    stems: HashMap<String, usize>,
    done: usize,
    work: usize,
    total: usize,
    progress: &'a mut dyn FnMut(Progress),
    /// "saved for 224x224, 299x299 was asked for", where another size was.
    resized: Option<String>,
}

/// The recorded shape of an input layer, the batch first.
fn input_shape(layer: &Layer) -> Result<Vec<Option<usize>>, ImportError> {
    let fail = |why: String| ImportError::Layer { layer: name_of(&layer.name, layer), why };
    let shape = ["batch_shape", "batch_input_shape"].iter().find_map(|k| layer.config.get(*k)?.as_array());
    let shape = match (shape, layer.config.get("shape").and_then(Json::as_array)) {
        (Some(shape), _) => shape.clone(),
        (None, Some(shape)) => std::iter::once(Json::Null).chain(shape.iter().cloned()).collect(),
        (None, None) => return Err(fail("the file does not tell the shape of the input".into())),
    };
    let side = |d: &Json| match d {
        Json::Null => Ok(None),
        d => count(d).map(Some).ok_or_else(|| fail(format!("a side of the input is {d}"))),
    };
    shape.iter().map(side).collect()
}

fn name_of(path: &str, layer: &Layer) -> LayerName {
    LayerName { name: path.into(), class: layer.class.clone() }
}

/// Where a model has its channels: as its first layer that says so. Where the dimensions change places before that, the
/// number of channels tells, if only one end of the shape can be one.
fn format_of(model: &Model, sides: &[Option<usize>]) -> Format {
    let (mut found, mut moved) = (None, false);
    model.walk("", &mut |_, layer| {
        let said = layer.config.get("data_format").and_then(Json::as_str);
        if found.is_none() && layer.class != "Flatten" {
            moved |= is_transposition(layer);
            found = said.map(|f| if f == "channels_first" { Format::First } else { Format::Last });
        }
    });
    let few = |side: &Option<usize>| side.is_some_and(|n| (1..=4).contains(&n));
    match sides {
        [first, _, last] if moved && few(first) != few(last) => {
            if few(first) {
                Format::First
            } else {
                Format::Last
            }
        }
        _ => found.unwrap_or(Format::Last),
    }
}

fn is_transposition(layer: &Layer) -> bool {
    let function = layer.config.get("function").and_then(Json::as_str).unwrap_or_default();
    matches!(layer.class.as_str(), "Permute" | "ops.Transpose") || function.ends_with("transpose")
}

fn nowhere(path: &str, layer: &Layer) -> ImportError {
    let why = "its inputs are made by no layer, or by itself".to_string();
    ImportError::Layer { layer: name_of(&join(path, &layer.name), layer), why }
}

/// A call of a layer: which of them.
type Step<'a> = (&'a Layer, usize);

/// Calls in an order in which the inputs of each are there: that of rounds through the list, each of which takes what it
/// can. Also the first call that is never possible.
fn order<'a>(calls: &[Step<'a>], inputs: &'a [Source]) -> (Vec<Step<'a>>, Option<Step<'a>>) {
    let given: HashSet<(&str, usize)> = inputs.iter().map(|s| (s.layer.as_str(), s.node)).collect();
    let index: HashMap<(&str, usize), usize> =
        calls.iter().enumerate().map(|(i, (layer, node))| ((layer.name.as_str(), *node), i)).collect();
    let mut missing = vec![0_usize; calls.len()];
    let mut readers = vec![vec![]; calls.len()];
    for (i, (layer, node)) in calls.iter().enumerate() {
        for source in layer.calls[*node].sources() {
            let key = (source.layer.as_str(), source.node);
            if given.contains(&key) {
                continue;
            }
            missing[i] += 1;
            if let Some(maker) = index.get(&key) {
                readers[*maker].push(i);
            }
        }
    }
    let mut round = vec![0_usize; calls.len()];
    let mut ready: BinaryHeap<Reverse<(usize, usize)>> =
        (0..calls.len()).filter(|i| missing[*i] == 0).map(|i| Reverse((0, i))).collect();
    let mut order = vec![];
    while let Some(Reverse((_, i))) = ready.pop() {
        order.push(calls[i]);
        for reader in std::mem::take(&mut readers[i]) {
            // What stands before its input in the list has to wait for the next round.
            round[reader] = round[reader].max(round[i] + usize::from(reader < i));
            missing[reader] -= 1;
            if missing[reader] == 0 {
                ready.push(Reverse((round[reader], reader)));
            }
        }
    }
    (order, (0..calls.len()).find(|i| missing[*i] > 0).map(|i| calls[i]))
}

impl Lowerer<'_> {
    /// An input of the graph, and the value that the layers see.
    fn input(
        &mut self,
        model: &Model,
        layer: &Layer,
        options: &ImportOptions,
        notes: &mut Vec<String>,
    ) -> Result<(ValueInfoProto, Value), ImportError> {
        let fail = |why: String| ImportError::Layer { layer: name_of(&layer.name, layer), why };
        let shape = input_shape(layer)?;
        let mut sides = shape.get(1..).unwrap_or_default().to_vec();
        let format = format_of(model, &sides);
        let name = self.graph.fresh(&layer.name);
        if sides.len() == 3 {
            let place = if format == Format::Last { [0, 1] } else { [1, 2] };
            let saved = place.map(|i| sides[i]);
            if let Some((width, height)) = options.size {
                sides[place[0]] = Some(height as usize);
                sides[place[1]] = Some(width as usize);
                let words = |s: Option<usize>| s.map_or("?".into(), |n| n.to_string());
                if saved != place.map(|i| sides[i]) {
                    let from = format!("{}x{}", words(saved[1]), words(saved[0]));
                    // A file of weights was saved for no size.
                    self.resized = (options.architecture.is_none())
                        .then(|| format!("the model was saved for {from}, {width}x{height} was asked for"));
                    notes.push(format!("input: {width}x{height} instead of {from}, as asked"));
                }
            } else if place.iter().any(|i| sides[*i].is_none()) {
                return Err(ImportError::Size(
                    "the model leaves the size of its input open; say it with --input-size N or WIDTHxHEIGHT".into(),
                ));
            }
            if place.iter().any(|i| sides[*i].is_some_and(|s| !(1..=MAX_SIDE).contains(&s))) {
                return Err(fail(format!("the input has the shape {sides:?}; sides of 1 to {MAX_SIDE} are possible")));
            }
        }
        let sides: Option<Vec<usize>> = sides.into_iter().collect();
        let sides = sides.ok_or_else(|| fail(format!("the shape {shape:?} of the input is open")))?;
        elements(&sides).map_err(fail)?;
        let nchw = options.layout == Some(Layout::Nchw);
        let value = match (sides.len() == 3 && format == Format::Last, nchw, &sides[..]) {
            (true, true, _) => Value { name: name.clone(), shape: sides, channels_first: true },
            (true, false, [h, w, c]) => {
                let shape = vec![*h, *w, *c];
                let perm = crate::graph::ints("perm", [0, 3, 1, 2]);
                let turned = self.graph.op("Transpose", &format!("{name}/nchw"), &[&name], vec![perm]).map_err(fail)?;
                let info = value_info(&name, &shape);
                return Ok((info, Value { name: turned, shape, channels_first: true }));
            }
            _ => Value::plain(name.clone(), sides),
        };
        Ok((value_info(&name, &value.stored()), value))
    }

    /// An output of the graph: in Keras' order, or as it lies with (N,C,H,W). `free` are the values of nodes that are no
    /// output yet.
    fn output(
        &mut self,
        source: &Source,
        value: Value,
        nchw: bool,
        free: &mut HashSet<String>,
    ) -> Result<ValueInfoProto, String> {
        let mut value = value;
        if value.channels_first && !nchw {
            let perm = crate::graph::ints("perm", [0, 2, 3, 1]);
            let name = self.graph.op("Transpose", &format!("{}/nhwc", value.name), &[&value.name], vec![perm])?;
            value = Value::plain(name, value.shape);
        } else if !free.remove(&value.name) {
            // An input that is an output, or one value that is two outputs: each output needs a node.
            value.name = self.graph.op("Identity", &source.layer, &[&value.name], vec![])?;
        }
        Ok(value_info(&value.name, &value.stored()))
    }

    /// A model's layers; gives its outputs.
    fn model(&mut self, model: &Model, path: &str, inputs: &[Value]) -> Result<Vec<Value>, ImportError> {
        if inputs.len() != model.inputs.len() {
            return Err(ImportError::Config(format!(
                "the model {:?} has {} inputs, {} are given",
                model.name,
                model.inputs.len(),
                inputs.len()
            )));
        }
        let mut values: HashMap<(&str, usize, usize), Value> = HashMap::new();
        for (source, value) in model.inputs.iter().zip(inputs) {
            values.insert((&source.layer, source.node, source.tensor), value.clone());
        }
        let calls: Vec<(&Layer, usize)> =
            model.layers.iter().flat_map(|l| (0..l.calls.len()).map(move |i| (l, i))).collect();
        let (order, stuck) = order(&calls, &model.inputs);
        for (layer, node) in order {
            let call = &layer.calls[node];
            let key = |s: &Source| -> Option<Value> { values.get(&(s.layer.as_str(), s.node, s.tensor)).cloned() };
            let Some(arguments) = call.sources().into_iter().map(key).collect::<Option<Vec<Value>>>() else {
                return Err(nowhere(path, layer));
            };
            let made = self.call(layer, call, &join(path, &layer.name), &arguments)?;
            for (tensor, value) in made.into_iter().enumerate() {
                values.insert((&layer.name, node, tensor), value);
            }
        }
        if let Some((layer, _)) = stuck {
            return Err(nowhere(path, layer));
        }
        let output = |source: &Source| {
            let value = values.get(&(source.layer.as_str(), source.node, source.tensor)).cloned();
            value.ok_or_else(|| {
                ImportError::Config(format!("nothing makes the output {:?} of {:?}", source.layer, model.name))
            })
        };
        model.outputs.iter().map(output).collect()
    }

    /// One call of a layer.
    fn call(&mut self, layer: &Layer, call: &Call, path: &str, inputs: &[Value]) -> Result<Vec<Value>, ImportError> {
        self.done += 1;
        self.work += 1 + inputs.len() + layer.model.as_ref().map_or(0, |m| m.layers.len() + m.outputs.len());
        if self.work > MAX_WORK {
            let why = format!("the network has more than {MAX_WORK} layers and inputs of layers, counted at each call");
            return Err(ImportError::Layer { layer: name_of(path, layer), why });
        }
        (self.progress)(Progress::Layer(self.done.min(self.total), self.total));
        if let Some(model) = &layer.model {
            return self.model(model, path, inputs);
        }
        let calls = self.stems.entry(path.into()).or_default();
        *calls += 1;
        // A second call of a layer, or a second layer of the name in a nested model, gets a number.
        let stem = layer.name.clone();
        let fail = |why: String, resized: &Option<String>| ImportError::Layer {
            layer: name_of(path, layer),
            why: match resized {
                None => why,
                Some(resized) => format!("{why} ({resized})"),
            },
        };
        let before = self.graph.nodes.len();
        let mut cx =
            Cx { graph: &mut self.graph, layer, call, weights: self.weights, path, name: &stem, old: self.old };
        let mut value = layers::lower(&mut cx, inputs).map_err(|why| fail(why, &self.resized))?;
        elements(&value.shape).map_err(|why| fail(why, &self.resized))?;
        // The node that makes the layer's value has the layer's name.
        if self.graph.nodes.get(before..).is_some_and(|n| n.iter().any(|n| n.output.contains(&value.name))) {
            value.name = self.graph.rename(&value.name, &layer.name);
        }
        Ok(vec![value])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keras::config::Arg;

    fn layer(name: &str, from: &[&str]) -> Layer {
        let source = |l: &&str| Arg::Tensor(Source { layer: l.to_string(), node: 0, tensor: 0 });
        let call = Call { args: from.iter().map(source).collect(), kwargs: vec![] };
        Layer { name: name.into(), class: "Add".into(), config: Default::default(), calls: vec![call], model: None }
    }

    fn names(layers: &[Layer]) -> (Vec<String>, Option<String>) {
        let calls: Vec<(&Layer, usize)> = layers.iter().map(|l| (l, 0)).collect();
        let inputs = [Source { layer: "i".into(), node: 0, tensor: 0 }];
        let (order, stuck) = order(&calls, &inputs);
        (order.into_iter().map(|c| c.0.name.clone()).collect(), stuck.map(|c| c.0.name.clone()))
    }

    #[test]
    fn calls_come_after_their_inputs() {
        let layers = [layer("c", &["b", "b"]), layer("a", &["i"]), layer("b", &["a", "i"]), layer("d", &["a"])];
        assert_eq!(names(&layers), (["a", "b", "d", "c"].map(String::from).to_vec(), None));
        let layers = [layer("a", &["i"]), layer("b", &["c"]), layer("c", &["b"]), layer("d", &["nowhere"])];
        assert_eq!(names(&layers), (vec!["a".into()], Some("b".into())));
    }

    #[test]
    fn a_list_in_reverse_takes_no_longer() {
        let name = |i: usize| if i == 0 { "i".into() } else { format!("l{i}") };
        let layers: Vec<Layer> = (1..40_000).rev().map(|i| layer(&name(i), &[&name(i - 1)])).collect();
        let (order, stuck) = names(&layers);
        assert_eq!((order.len(), &order[0][..], stuck), (39_999, "l1", None));
    }

    #[test]
    fn the_channels_tell_where_they_are_if_dimensions_move() {
        let model = |layers: &[(&str, Json)]| Model {
            name: "m".into(),
            class: "Functional".into(),
            inputs: vec![],
            outputs: vec![],
            sequential: false,
            layers: layers
                .iter()
                .map(|(class, config)| Layer {
                    class: class.to_string(),
                    config: config.as_object().cloned().unwrap_or_default(),
                    ..layer("l", &[])
                })
                .collect(),
        };
        let permute = ("Permute", serde_json::json!({"dims": [3, 1, 2]}));
        let conv = ("Conv2D", serde_json::json!({"data_format": "channels_first"}));
        let sides = |s: [usize; 3]| s.map(Some);
        assert_eq!(format_of(&model(&[permute.clone(), conv.clone()]), &sides([9, 8, 3])), Format::Last);
        assert_eq!(format_of(&model(&[permute.clone(), conv.clone()]), &sides([3, 9, 8])), Format::First);
        assert_eq!(format_of(&model(&[conv, permute]), &sides([9, 8, 3])), Format::First);
    }
}
