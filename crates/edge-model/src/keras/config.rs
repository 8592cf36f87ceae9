//! The description of a model: JSON of either generation of Keras becomes layers, their calls and the values
//! between them.
//!
//! Keras 3 spells a call `{"args": [...], "kwargs": {...}}` with `__keras_tensor__` objects that carry a
//! `keras_history`; Keras 2 and tf.keras spell it `[["layer", node, tensor, {kwargs}], ...]`. Sources: Keras 3.15
//! `models/functional.py` and `saving/serialization_lib.py`, tf.keras 2.15 `engine/functional.py`.

use crate::{ImportError, LayerName};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// More layers than any network has; a bound for what a file may ask for.
const MAX_LAYERS: usize = 50_000;
/// Packages whose classes are what their names say.
const OWN_PACKAGES: [&str; 4] = ["keras", "tf_keras", "tensorflow", "builtins"];
/// More calls than any network makes.
const MAX_CALLS: usize = 200_000;

/// A model: layers and how they hang together.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Its name, such as `xception`.
    pub name: String,
    /// In the order of the file, which is Keras' order of `model.layers`.
    pub layers: Vec<Layer>,
    /// The values that are its inputs, in order.
    pub inputs: Vec<Source>,
    /// The values that are its outputs, in order.
    pub outputs: Vec<Source>,
    /// Its class, such as `Functional`.
    pub class: String,
    /// Whether Keras keeps it as a list of layers rather than as a graph.
    pub sequential: bool,
}

/// A layer, and each time that it is called.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Its name, unique within its model.
    pub name: String,
    /// Its class without the package, such as `Conv2D`. Operations of `keras.ops` are `ops.Add` and so on.
    pub class: String,
    /// Its own settings.
    pub config: Map<String, Value>,
    /// Each time it is called.
    pub calls: Vec<Call>,
    /// What it consists of, where it is a model itself.
    pub model: Option<Box<Model>>,
}

/// One call of a layer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Call {
    /// Positional arguments.
    pub args: Vec<Arg>,
    /// Named arguments.
    pub kwargs: Vec<(String, Arg)>,
}

/// An argument of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Arg {
    /// A value that another call made.
    Tensor(Source),
    /// Several arguments.
    List(Vec<Arg>),
    /// Anything that is no tensor.
    Json(Value),
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// The layer.
    pub layer: String,
    /// Which of its calls.
    pub node: usize,
    /// Which of the call's outputs.
    pub tensor: usize,
}

impl Call {
    /// Every tensor among the arguments, in order.
    pub fn sources(&self) -> Vec<&Source> {
        fn collect<'a>(arg: &'a Arg, into: &mut Vec<&'a Source>) {
            match arg {
                Arg::Tensor(source) => into.push(source),
                Arg::List(args) => args.iter().for_each(|a| collect(a, into)),
                Arg::Json(_) => {}
            }
        }
        let mut found = vec![];
        self.args.iter().chain(self.kwargs.iter().map(|(_, a)| a)).for_each(|a| collect(a, &mut found));
        found
    }
}

/// How many layers and calls may still come.
struct Limits {
    layers: usize,
    calls: usize,
}

impl Model {
    /// Reads a model's JSON: `{"class_name": "Functional", "config": {...}}`.
    pub fn parse(text: &[u8]) -> Result<Model, ImportError> {
        // serde_json refuses more than 128 levels, so no recursion below can run away.
        let text = without_infinities(text);
        let value: Value = serde_json::from_slice(&text).map_err(|e| ImportError::Config(format!("not JSON: {e}")))?;
        Model::read(&value)
    }

    /// Reads a model's JSON.
    pub fn read(value: &Value) -> Result<Model, ImportError> {
        let class = class_of(value).map_err(ImportError::Config)?;
        let config = value.get("config").ok_or_else(|| ImportError::Config("there is no \"config\"".into()))?;
        if !is_model(&class, config) {
            let name = name_of(config).unwrap_or_else(|| "the model itself".into());
            let class = format!("{class}, Python code; Functional and Sequential models describe their layers");
            return Err(ImportError::Unsupported(vec![LayerName { name, class }]));
        }
        let mut limits = Limits { layers: MAX_LAYERS, calls: MAX_CALLS };
        model(&class, config, value.get("build_config"), &mut limits).map_err(ImportError::Config)
    }

    /// The layers of this model and of the models within, with the path of each: `outer/inner`.
    pub fn walk<'a>(&'a self, prefix: &str, visit: &mut impl FnMut(&str, &'a Layer)) {
        for layer in &self.layers {
            let path = join(prefix, &layer.name);
            visit(&path, layer);
            if let Some(model) = &layer.model {
                model.walk(&path, visit);
            }
        }
    }
}

/// `prefix/name`, or `name` without a prefix.
pub fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.into() } else { format!("{prefix}/{name}") }
}

fn class_of(value: &Value) -> Result<String, String> {
    let full = value.get("class_name").and_then(Value::as_str).ok_or("an object has no \"class_name\"")?;
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    // Registered classes are spelled `package>Class`. A class of somebody else's package is not Keras' class of that
    // name, whatever it is called.
    let (package, class) = full.rsplit_once('>').unwrap_or(("keras", full));
    let own =
        |word: &str| OWN_PACKAGES.iter().any(|p| word.split('.').next().is_some_and(|w| w.eq_ignore_ascii_case(p)));
    if !own(package) {
        return Ok(full.into());
    }
    match (text("module"), text("registered_name")) {
        (Some(module), name) if !own(module) => return Ok(name.map_or(format!("{module}.{class}"), String::from)),
        (None, Some(name)) if value.get("module").is_some_and(Value::is_null) => return Ok(name.into()),
        _ => {}
    }
    let module = text("module").unwrap_or_default();
    // `Add` is a layer in keras.layers and an operation in keras.src.ops.numpy.
    Ok(match module.starts_with("keras.src.ops") || module.starts_with("keras.ops") {
        true => format!("ops.{class}"),
        false => class.into(),
    })
}

/// An operation of `keras.ops` in the .h5 of Keras 3, which drops the module that tells it from the layer of the same
/// name. Every layer writes whether it is trainable; no operation does.
fn is_bare_operation(value: &Value) -> bool {
    let calls = value.get("inbound_nodes").and_then(Value::as_array);
    let config = value.get("config").and_then(Value::as_object);
    value.get("module").is_none()
        && calls.is_some_and(|c| c.iter().any(Value::is_object))
        && config.is_some_and(|c| ["trainable", "layers", "batch_shape"].iter().all(|k| !c.contains_key(*k)))
}

fn is_model(class: &str, config: &Value) -> bool {
    is_plain_model(class) && (config.get("layers").is_some() || config.is_array()) || is_functional(config)
}

/// Whether a model's class is one of Keras' own, which compute what their layers say and nothing else.
pub fn is_plain_model(class: &str) -> bool {
    matches!(class, "Functional" | "Model" | "Sequential")
}

/// Whether the settings list layers and their ends. A class of somebody's own does so, too, where it was made as
/// `MyModel(inputs, outputs)`; mostly it has a training step of its own and nothing else.
fn is_functional(config: &Value) -> bool {
    ["layers", "input_layers", "output_layers"].iter().all(|k| config.get(k).is_some_and(Value::is_array))
}

/// JSON without the words that Python writes for numbers that JSON lacks. Infinity becomes the largest number, which is
/// infinite once it is a float32; what is no number becomes a text, which nothing takes for one.
fn without_infinities(text: &[u8]) -> Cow<'_, [u8]> {
    let words: [(&[u8], &[u8]); 2] = [(b"Infinity", b"1.7976931348623157e308"), (b"NaN", b"\"NaN\"")];
    if !words.iter().any(|(word, _)| text.windows(word.len()).any(|w| w == *word)) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let (mut at, mut quoted) = (0, false);
    while let Some(&byte) = text.get(at) {
        let word = words.iter().find(|(word, _)| !quoted && text[at..].starts_with(word));
        let (from, to) = word.copied().unwrap_or((&text[at..=at], &text[at..=at]));
        out.extend_from_slice(to);
        at += from.len();
        match byte {
            b'"' => quoted = !quoted,
            // Whatever is escaped ends no text.
            b'\\' if quoted => {
                out.extend(text.get(at));
                at += 1;
            }
            _ => {}
        }
    }
    Cow::Owned(out)
}

fn model(class: &str, config: &Value, build: Option<&Value>, limits: &mut Limits) -> Result<Model, String> {
    let made = match class {
        "Sequential" => sequential(config, build, limits),
        _ => functional(config, limits),
    };
    made.map(|model| Model { class: class.into(), ..model })
}

fn name_of(config: &Value) -> Option<String> {
    config.get("name")?.as_str().map(String::from)
}

fn layer(value: &Value, limits: &mut Limits) -> Result<Layer, String> {
    limits.layers = limits.layers.checked_sub(1).ok_or("it has more layers than any network")?;
    let mut class = class_of(value)?;
    if is_bare_operation(value) {
        class = format!("ops.{class}");
    }
    let config = value.get("config").unwrap_or(&Value::Null);
    let name = value.get("name").and_then(Value::as_str).map(String::from).or_else(|| name_of(config));
    let name = name.ok_or_else(|| format!("a layer of the class {class} has no name"))?;
    let nested = match is_model(&class, config) {
        true => {
            let nested = model(&class, config, value.get("build_config"), limits);
            Some(Box::new(nested.map_err(|why| format!("model {name:?}: {why}"))?))
        }
        false => None,
    };
    let mut config = config.as_object().cloned().unwrap_or_default();
    if nested.is_some() {
        config.remove("layers");
    }
    // What Keras 3 noted at build time serves where the settings leave something open.
    if let Some(build) = value.get("build_config").filter(|b| b.is_object()) {
        config.insert("build_config".into(), build.clone());
    }
    Ok(Layer { name, class, config, calls: vec![], model: nested })
}

fn sequential(config: &Value, build: Option<&Value>, limits: &mut Limits) -> Result<Model, String> {
    let list = config.get("layers").unwrap_or(config).as_array().ok_or("\"layers\" is no list")?;
    let mut layers = list.iter().map(|l| layer(l, limits)).collect::<Result<Vec<_>, _>>()?;
    if layers.first().is_none_or(|l| l.class != "InputLayer") {
        let shape = |value: Option<&Value>, key: &str| value?.get(key).filter(|s| s.is_array()).cloned();
        // Without an input layer the shape stands in the first layer (Keras 2) or where the model was built.
        let first = layers.first().map(|l| Value::Object(l.config.clone()));
        let found = shape(first.as_ref(), "batch_input_shape")
            .or_else(|| shape(first.as_ref(), "batch_shape"))
            .or_else(|| shape(Some(config), "build_input_shape"))
            .or_else(|| shape(build, "input_shape"))
            .or_else(|| {
                let nested = layers.first()?.model.as_ref()?;
                let input = nested.layers.iter().find(|l| l.name == nested.inputs[0].layer)?;
                shape(Some(&Value::Object(input.config.clone())), "batch_shape")
                    .or_else(|| shape(Some(&Value::Object(input.config.clone())), "batch_input_shape"))
            });
        let name = layers.first().map_or("input".into(), |l| format!("{}_input", l.name));
        let config = found.into_iter().map(|s| ("batch_shape".to_string(), s)).collect();
        layers.insert(0, Layer { name, class: "InputLayer".into(), config, calls: vec![], model: None });
    }
    let mut names = std::collections::HashSet::new();
    if let Some(twice) = layers.iter().find(|l| !names.insert(l.name.clone())) {
        return Err(format!("two layers are called {:?}", twice.name));
    }
    for i in 1..layers.len() {
        let source = Source { layer: layers[i - 1].name.clone(), node: 0, tensor: 0 };
        layers[i].calls = vec![Call { args: vec![Arg::Tensor(source)], kwargs: vec![] }];
    }
    let end = |layer: &Layer| vec![Source { layer: layer.name.clone(), node: 0, tensor: 0 }];
    Ok(Model {
        name: name_of(config).unwrap_or_else(|| "sequential".into()),
        inputs: layers.first().map(end).unwrap_or_default(),
        outputs: layers.last().map(end).unwrap_or_default(),
        layers,
        class: String::new(),
        sequential: true,
    })
}

fn functional(config: &Value, limits: &mut Limits) -> Result<Model, String> {
    let list = config.get("layers").and_then(Value::as_array).ok_or("\"layers\" is no list")?;
    let mut layers = Vec::with_capacity(list.len());
    let mut names = std::collections::HashSet::new();
    for value in list {
        let mut layer = layer(value, limits)?;
        let nodes = value.get("inbound_nodes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        limits.calls = limits.calls.checked_sub(nodes.len()).ok_or("it has more calls than any network")?;
        layer.calls = nodes.iter().map(call).collect::<Result<_, _>>().map_err(|e| format!("{:?}: {e}", layer.name))?;
        if !names.insert(layer.name.clone()) {
            return Err(format!("two layers are called {:?}", layer.name));
        }
        layers.push(layer);
    }
    let ends = |key: &str| {
        let mut found = vec![];
        sources(config.get(key).unwrap_or(&Value::Null), &mut found);
        match found.is_empty() {
            true => Err(format!("{key:?} names no layer")),
            false => Ok(found),
        }
    };
    let mut model = Model {
        name: name_of(config).unwrap_or_else(|| "model".into()),
        inputs: ends("input_layers")?,
        outputs: ends("output_layers")?,
        layers,
        class: String::new(),
        sequential: false,
    };
    count_calls_from_zero(&mut model);
    Ok(model)
}

/// tf.keras counts the calls of a nested model from 1, since 0 was its own making; Keras 3 mostly from 0.
fn count_calls_from_zero(model: &mut Model) {
    let nested: std::collections::HashMap<String, usize> =
        model.layers.iter().filter(|l| l.model.is_some()).map(|l| (l.name.clone(), l.calls.len())).collect();
    if nested.is_empty() {
        return;
    }
    let mut late = std::collections::HashSet::new();
    let mut visit = |source: &Source| {
        if nested.get(&source.layer).is_some_and(|calls| source.node >= *calls) {
            late.insert(source.layer.clone());
        }
    };
    model.layers.iter().flat_map(|l| &l.calls).flat_map(Call::sources).for_each(&mut visit);
    model.outputs.iter().for_each(&mut visit);
    fn shift(arg: &mut Arg, late: &std::collections::HashSet<String>) {
        match arg {
            Arg::Tensor(source) if late.contains(&source.layer) => source.node = source.node.saturating_sub(1),
            Arg::List(args) => args.iter_mut().for_each(|a| shift(a, late)),
            _ => {}
        }
    }
    for call in model.layers.iter_mut().flat_map(|l| &mut l.calls) {
        call.args.iter_mut().chain(call.kwargs.iter_mut().map(|(_, a)| a)).for_each(|a| shift(a, &late));
    }
    for output in &mut model.outputs {
        if late.contains(&output.layer) {
            output.node = output.node.saturating_sub(1);
        }
    }
}

/// `["layer", 0, 0]` as a source. Keras 2 hangs a dictionary of keyword arguments on it.
fn source(value: &Value) -> Option<(Source, Option<&Map<String, Value>>)> {
    let (layer, node, tensor, kwargs) = match value.as_array()?.as_slice() {
        [layer, node, tensor] => (layer, node, tensor, None),
        [layer, node, tensor, kwargs] => (layer, node, tensor, Some(kwargs.as_object()?)),
        _ => return None,
    };
    let count = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
    Some((Source { layer: layer.as_str()?.into(), node: count(node)?, tensor: count(tensor)? }, kwargs))
}

/// Every source in a list, a list of lists or a dictionary.
fn sources(value: &Value, into: &mut Vec<Source>) {
    match (source(value), value) {
        (Some((source, _)), _) => into.push(source),
        (None, Value::Array(values)) => values.iter().for_each(|v| sources(v, into)),
        (None, Value::Object(values)) => values.values().for_each(|v| sources(v, into)),
        _ => {}
    }
}

/// One inbound node.
fn call(node: &Value) -> Result<Call, String> {
    let mut call = Call::default();
    match node {
        Value::Object(node) => {
            let args = node.get("args").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            call.args = args.iter().map(modern).collect();
            let kwargs = node.get("kwargs").and_then(Value::as_object);
            call.kwargs = kwargs.into_iter().flatten().map(|(k, v)| (k.clone(), modern(v))).collect();
        }
        // A single tensor may stand there without a list around it.
        Value::Array(parts) if parts.first().is_some_and(Value::is_string) => {
            old(std::slice::from_ref(node), &mut call)?
        }
        Value::Array(list) => old(list, &mut call)?,
        _ => return Err("a call that is neither a list nor an object".into()),
    }
    Ok(call)
}

/// An argument as Keras 3 spells it.
fn modern(value: &Value) -> Arg {
    match value {
        Value::Object(object) => {
            let history = || object.get("config")?.get("keras_history").and_then(source);
            match (object.get("class_name").and_then(Value::as_str), history()) {
                (Some("__keras_tensor__"), Some((source, _))) => Arg::Tensor(source),
                (Some("__tuple__"), _) => match object.get("items").or_else(|| object.get("config")) {
                    Some(Value::Array(items)) => Arg::List(items.iter().map(modern).collect()),
                    _ => Arg::Json(value.clone()),
                },
                _ => Arg::Json(value.clone()),
            }
        }
        Value::Array(values) => Arg::List(values.iter().map(modern).collect()),
        other => Arg::Json(other.clone()),
    }
}

/// The arguments of a call as Keras 2 spells them: the first argument's tensors, with the keyword arguments on the
/// last of them; a constant first argument is `["_CONSTANT_VALUE", -1, value, kwargs]`.
fn old(list: &[Value], call: &mut Call) -> Result<(), String> {
    let mut first = vec![];
    for entry in list {
        let parts = entry.as_array().map(Vec::as_slice).unwrap_or_default();
        let kwargs = match (source(entry), parts) {
            (Some((source, kwargs)), _) => {
                first.push(Arg::Tensor(source));
                kwargs
            }
            (None, [Value::String(mark), _, value, rest @ ..]) if mark == "_CONSTANT_VALUE" => {
                first.push(Arg::Json(value.clone()));
                rest.first().and_then(Value::as_object)
            }
            _ => return Err("a call whose tensors are not named by layer, node and tensor".into()),
        };
        for (name, value) in kwargs.into_iter().flatten() {
            call.kwargs.retain(|(k, _)| k != name);
            call.kwargs.push((name.clone(), old_kwarg(value)));
        }
    }
    call.args = match first.len() {
        1 => first,
        _ => vec![Arg::List(first)],
    };
    Ok(())
}

/// A keyword argument as tf.keras spells it: tensors are `["layer", node, tensor]` there, too.
fn old_kwarg(value: &Value) -> Arg {
    match (source(value), value) {
        (Some((source, None)), _) => Arg::Tensor(source),
        (_, Value::Array(values)) if values.iter().any(|v| source(v).is_some()) => {
            Arg::List(values.iter().map(old_kwarg).collect())
        }
        _ => Arg::Json(value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinities_outside_of_texts_become_numbers() {
        let text = br#"{"a": [Infinity, -Infinity, NaN], "NaN\"": "Infinity \\", "b": Infinity}"#;
        let value: Value = serde_json::from_slice(&without_infinities(text)).unwrap();
        let wanted = serde_json::json!({"a": [f64::MAX, f64::MIN, "NaN"], "NaN\"": "Infinity \\", "b": f64::MAX});
        assert_eq!(value, wanted);
        assert!(matches!(without_infinities(b"{}"), Cow::Borrowed(_)));
    }

    #[test]
    fn operations_of_keras_3s_h5_are_told_from_layers() {
        let nodes =
            r#""inbound_nodes": [{"args": [{"class_name": "__keras_tensor__", "config": {}}, 2.0], "kwargs": {}}]"#;
        let class = |config: &str| {
            let text = format!(r#"{{"class_name": "Add", "name": "add", "config": {config}, {nodes}}}"#);
            let mut limits = Limits { layers: 1, calls: 1 };
            layer(&serde_json::from_str(&text).unwrap(), &mut limits).unwrap().class
        };
        assert_eq!(class(r#"{"name": "add"}"#), "ops.Add");
        assert_eq!(class(r#"{"name": "add", "trainable": true}"#), "Add");
    }
}
