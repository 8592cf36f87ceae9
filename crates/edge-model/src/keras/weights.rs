//! Which datasets hold the variables of which layer.
//!
//! Three spellings, all found by their own traces:
//! - Keras 3 (`model.weights.h5`): `layers/conv2d_1/vars/0`, the layer's class in snake case, numbered per class in the
//!   order of the layers; nested models repeat the pattern. Source: Keras 3.15 `saving/saving_lib.py`.
//! - tf.keras 2.12 and 2.13 put `_layer_checkpoint_dependencies` where later versions have `layers`.
//! - Keras 2 and the `.h5` of Keras 3: a group per layer of the outermost model, with the attribute `weight_names`; a
//!   nested model's variables lie flat in its group, trainable ones first. Source: Keras 3.15
//!   `legacy/saving/legacy_h5_format.py`.

use super::config::{Layer, Model, join};
use crate::hdf5::Hdf5;
use crate::{ImportError, LayerName};
use std::collections::{HashMap, HashSet};

/// A variable of a layer: its name in Keras and whether training changes it.
struct Variable {
    name: &'static str,
    trainable: bool,
}

/// The variables that a layer of these settings has, in the order of their creation. Classes that are not known have
/// none; they are refused elsewhere.
fn variables(layer: &Layer) -> Vec<Variable> {
    let flag = |key: &str| layer.config.get(key).and_then(|v| v.as_bool()).unwrap_or(true);
    let kept = |name, keep: bool| keep.then_some(Variable { name, trainable: true });
    let statistic = |name| Some(Variable { name, trainable: false });
    let list = match layer.class.as_str() {
        "Conv2D" | "Dense" | "Conv2DTranspose" => vec![kept("kernel", true), kept("bias", flag("use_bias"))],
        "DepthwiseConv2D" => vec![kept("depthwise_kernel", true), kept("bias", flag("use_bias"))],
        "SeparableConv2D" => {
            vec![kept("depthwise_kernel", true), kept("pointwise_kernel", true), kept("bias", flag("use_bias"))]
        }
        "BatchNormalization" | "SyncBatchNormalization" | "BatchNormalizationV1" => vec![
            kept("gamma", flag("scale")),
            kept("beta", flag("center")),
            statistic("moving_mean"),
            statistic("moving_variance"),
        ],
        "LayerNormalization" | "GroupNormalization" => {
            let rms = layer.config.get("rms_scaling").and_then(|v| v.as_bool()).unwrap_or(false);
            vec![kept("gamma", flag("scale") || rms), kept("beta", flag("center") && !rms)]
        }
        "RMSNormalization" => vec![kept("scale", true)],
        "PReLU" => vec![kept("alpha", true)],
        "LayerScale" => vec![kept("gamma", true)],
        "Normalization" if layer.config.get("mean").is_none_or(|m| m.is_null()) => {
            vec![statistic("mean"), statistic("variance"), statistic("count")]
        }
        _ => vec![],
    };
    list.into_iter().flatten().collect()
}

/// How many layers of a model have variables.
pub fn layers(model: &Model) -> usize {
    let mut count = 0;
    model.walk("", &mut |_, layer| count += usize::from(!variables(layer).is_empty()));
    count
}

/// Variables that files may lack: nothing is computed with them.
fn is_optional(variable: &Variable) -> bool {
    variable.name == "count"
}

/// The weights of a model: for each layer that has variables, where they lie.
pub struct Weights<'a> {
    file: &'a dyn Hdf5,
    /// Path of the layer -> datasets, in the order of the layer's variables.
    datasets: HashMap<String, Vec<String>>,
    /// Every variable is there, of whatever shape, and zero.
    #[cfg(test)]
    zeros: bool,
}

#[cfg(test)]
impl<'a> Weights<'a> {
    /// Zeros for any model.
    pub fn zeros(file: &'a dyn Hdf5) -> Weights<'a> {
        Weights { file, datasets: HashMap::new(), zeros: true }
    }
}

impl<'a> Weights<'a> {
    /// Finds the variables of every layer. Layers whose variables are missing are reported together. `root` is the
    /// group of the weights in an HDF5 file of Keras 2's spelling; `by_order` pairs layers with groups by their
    /// order before it looks at names, as Keras does for files of weights only.
    pub fn bind(file: &'a dyn Hdf5, root: &str, model: &Model, by_order: bool) -> Result<Weights<'a>, ImportError> {
        let mut binder = Binder { file, datasets: HashMap::new(), missing: vec![], surplus: None };
        let legacy = strings(file, root, "layer_names").map_err(ImportError::Hdf5)?;
        match legacy {
            Some(names) => binder.legacy(root, &names, model, by_order),
            None => binder.modern("", "", model),
        }
        .map_err(ImportError::Hdf5)?;
        match (binder.missing.is_empty(), binder.surplus) {
            (false, _) => Err(ImportError::NoWeights(binder.missing)),
            (true, Some((layer, why))) => Err(ImportError::Layer { layer, why }),
            (true, None) => Ok(Weights {
                file,
                datasets: binder.datasets,
                #[cfg(test)]
                zeros: false,
            }),
        }
    }

    /// Whether the layer has variables.
    pub fn has(&self, path: &str) -> bool {
        self.datasets.contains_key(path)
    }

    /// The dimensions of a layer's variable.
    pub fn shape(&self, path: &str, variable: usize) -> Result<Vec<usize>, String> {
        // The statistics of a Normalization have the shape that the file says.
        #[cfg(test)]
        if self.zeros && path == "normalization" {
            return Ok(vec![3]);
        }
        let dataset = self.dataset(path, variable)?;
        self.file.shape(dataset)?.ok_or_else(|| format!("the file has no {dataset}"))
    }

    /// The values of a layer's variable, which must have these dimensions.
    pub fn read(&self, path: &str, variable: usize, shape: &[usize]) -> Result<Vec<f32>, String> {
        #[cfg(test)]
        if self.zeros {
            return Ok(vec![0.0; shape.iter().product()]);
        }
        let found = self.shape(path, variable)?;
        let dataset = self.dataset(path, variable)?;
        if found != shape {
            return Err(format!("its weights {dataset} have the shape {found:?}, {shape:?} is needed"));
        }
        let values = self.file.floats(dataset).map_err(|e| format!("{dataset}: {e}"))?;
        if values.len() != shape.iter().product::<usize>() {
            return Err(format!("{dataset} holds {} values, its shape is {shape:?}", values.len()));
        }
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values),
            Some(at) => Err(format!("its weights {dataset} are no numbers ({} at place {at})", values[at])),
        }
    }

    fn dataset(&self, path: &str, variable: usize) -> Result<&str, String> {
        let dataset = self.datasets.get(path).and_then(|d| d.get(variable));
        dataset.map(String::as_str).ok_or_else(|| format!("the file lacks its variable {variable}"))
    }
}

/// The strings of an attribute, which Keras splits into `name0`, `name1`, … where they are many.
fn strings(file: &dyn Hdf5, group: &str, name: &str) -> Result<Option<Vec<String>>, String> {
    if let Some(all) = file.strings(group, name)? {
        return Ok(Some(all));
    }
    let mut all = vec![];
    for part in 0.. {
        match file.strings(group, &format!("{name}{part}"))? {
            Some(strings) => all.extend(strings),
            None if part == 0 => return Ok(None),
            None => break,
        }
    }
    Ok(Some(all))
}

struct Binder<'a> {
    file: &'a dyn Hdf5,
    datasets: HashMap<String, Vec<String>>,
    missing: Vec<LayerName>,
    /// A layer that has more variables in the file than its settings give it.
    surplus: Option<(LayerName, String)>,
}

impl Binder<'_> {
    fn miss(&mut self, path: &str, layer: &Layer) {
        self.missing.push(LayerName { name: path.into(), class: layer.class.clone() });
    }

    /// Keras 3: `group` holds the model whose layers' paths begin with `prefix`.
    fn modern(&mut self, group: &str, prefix: &str, model: &Model) -> Result<(), String> {
        let mut container = None;
        for name in ["layers", "_layer_checkpoint_dependencies"] {
            let path = join(group, name);
            if let Some(members) = self.file.members(&path)? {
                container = Some((path, members.groups.into_iter().collect::<HashSet<String>>()));
                break;
            }
        }
        let (container, groups) = container.unwrap_or_default();
        let mut used: HashMap<String, usize> = HashMap::new();
        for layer in &model.layers {
            // Operations are no layers, and are not counted among them.
            if layer.class.starts_with("ops.") {
                continue;
            }
            // A model of a class of somebody's own is `package>Class`; the folder is called after the class.
            let class = snake_case(layer.class.rsplit(['>', '.']).next().unwrap_or_default());
            let n = used.entry(class.clone()).and_modify(|n| *n += 1).or_default();
            let name = if *n == 0 { class } else { format!("{class}_{n}") };
            let path = join(prefix, &layer.name);
            let place = join(&container, &name);
            if let Some(inner) = &layer.model {
                self.modern(&place, &path, inner)?;
                continue;
            }
            let wanted = variables(layer);
            if wanted.is_empty() {
                continue;
            }
            let vars = join(&place, "vars");
            let members = match groups.contains(&name) {
                true => self.file.members(&vars)?.unwrap_or_default(),
                false => Default::default(),
            };
            let found: Vec<String> = (0..wanted.len())
                .map(|i| i.to_string())
                .take_while(|i| members.datasets.contains(i))
                .map(|i| join(&vars, &i))
                .collect();
            if found.len() < wanted.iter().filter(|v| !is_optional(v)).count() {
                self.miss(&path, layer);
                continue;
            }
            if members.datasets.len() > wanted.len() && self.surplus.is_none() {
                let name = LayerName { name: path.clone(), class: layer.class.clone() };
                let (has, needs) = (members.datasets.len(), wanted.len());
                self.surplus = Some((name, format!("the file has {has} variables of it, its settings say {needs}")));
            }
            self.datasets.insert(path, found);
        }
        Ok(())
    }

    /// Keras 2: a group per layer of the outermost model.
    fn legacy(&mut self, root: &str, names: &[String], model: &Model, by_order: bool) -> Result<(), String> {
        let mut groups: Vec<(&String, Vec<String>)> = vec![];
        for name in names {
            let mut weights = strings(self.file, &join(root, name), "weight_names")?.unwrap_or_default();
            // The state of a random generator (tf.keras 2.6 to 2.12) is no weight.
            weights.retain(|w| !w.split('/').next_back().is_some_and(|last| last.starts_with("StateVar")));
            if !weights.is_empty() {
                groups.push((name, weights));
            }
        }
        let layers: Vec<(&Layer, usize)> = model
            .layers
            .iter()
            .map(|l| (l, leaves(l).iter().map(|(_, v)| v.len()).sum()))
            .filter(|l| l.1 > 0)
            .collect();
        let index: HashMap<&str, usize> = groups.iter().enumerate().map(|(i, g)| (g.0.as_str(), i)).collect();
        let named: Option<Vec<usize>> = layers.iter().map(|(l, _)| index.get(l.name.as_str()).copied()).collect();
        let ordered = (groups.len() == layers.len()).then(|| (0..groups.len()).collect::<Vec<_>>());
        let fits = |pairs: &Vec<usize>| {
            pairs.iter().zip(&layers).all(|(g, (l, n))| {
                let optional = leaves(l).iter().flat_map(|(_, v)| v).filter(|v| is_optional(v)).count();
                (n - optional..=*n).contains(&groups[*g].1.len())
            })
        };
        let candidates = if by_order { [ordered, named.clone()] } else { [named.clone(), ordered] };
        let Some(pairs) = candidates.into_iter().flatten().find(fits) else {
            for (layer, n) in &layers {
                let found = index.get(layer.name.as_str()).map_or(0, |g| groups[*g].1.len());
                if found != *n {
                    self.miss(&layer.name, layer);
                }
            }
            if self.missing.is_empty() {
                return Err(format!(
                    "{} layers have weights in the file, {} in the model, and their names do not tell which is which",
                    groups.len(),
                    layers.len()
                ));
            }
            return Ok(());
        };
        for (group, (layer, _)) in pairs.into_iter().zip(layers) {
            let (name, weights) = &groups[group];
            let place = join(root, name);
            let datasets: Vec<String> = weights.iter().map(|w| join(&place, w)).collect();
            match &layer.model {
                None => {
                    self.datasets.insert(layer.name.clone(), datasets);
                }
                Some(_) => self.nested(layer, &datasets)?,
            }
        }
        Ok(())
    }

    /// The variables of a nested model, which lie flat in one group.
    fn nested(&mut self, layer: &Layer, datasets: &[String]) -> Result<(), String> {
        let leaves = leaves(layer);
        let assigned = by_name(&leaves, datasets).or_else(|| by_training(&leaves, datasets));
        let assigned = assigned.ok_or_else(|| {
            format!("the weights of the model {:?} do not tell which layers they belong to", layer.name)
        })?;
        for ((leaf, _), datasets) in leaves.iter().zip(assigned) {
            self.datasets.insert(leaf.path.clone(), datasets);
        }
        Ok(())
    }
}

/// A layer that is no model, within a nested model.
struct Leaf<'a> {
    path: String,
    layer: &'a Layer,
    trainable: bool,
}

/// The layers with variables within `layer`, in order; itself where it is no model.
fn leaves(layer: &Layer) -> Vec<(Leaf<'_>, Vec<Variable>)> {
    fn collect<'a>(path: String, layer: &'a Layer, trainable: bool, into: &mut Vec<(Leaf<'a>, Vec<Variable>)>) {
        let flag = layer.config.get("trainable").and_then(|v| v.as_bool()).unwrap_or(true);
        let trainable = trainable && flag;
        match &layer.model {
            Some(model) => {
                for inner in &model.layers {
                    collect(join(&path, &inner.name), inner, trainable, into);
                }
            }
            None => {
                let variables = variables(layer);
                if !variables.is_empty() {
                    into.push((Leaf { path, layer, trainable }, variables));
                }
            }
        }
    }
    let mut found = vec![];
    collect(layer.name.clone(), layer, true, &mut found);
    found
}

/// By the ends of the names: `.../block1_conv1/kernel:0`.
fn by_name(leaves: &[(Leaf<'_>, Vec<Variable>)], datasets: &[String]) -> Option<Vec<Vec<String>>> {
    // Name of the layer -> the datasets of variables of a layer so called.
    let mut by_layer: HashMap<String, Vec<&String>> = HashMap::new();
    for dataset in datasets {
        let (layer, _) = dataset.rsplit_once('/')?;
        // The name of a layer may have slashes of its own: every suffix could be it.
        for (at, _) in layer.match_indices('/').take(16) {
            by_layer.entry(layer[at + 1..].into()).or_default().push(dataset);
        }
    }
    let mut taken = HashSet::new();
    let mut assigned = vec![];
    for (leaf, variables) in leaves {
        let longest = |layer: &str| by_layer.get(layer).filter(|d| !d.is_empty());
        // `inner/conv` where two models have a `conv`, else `conv`.
        let mut suffix = leaf.path.as_str();
        let candidates = loop {
            match (longest(suffix), suffix.split_once('/')) {
                (Some(found), _) => break found,
                (None, Some((_, rest))) => suffix = rest,
                (None, None) => return None,
            }
        };
        let mut mine = vec![];
        for variable in variables {
            let fits = |dataset: &&&String| {
                let last = dataset.rsplit('/').next().unwrap_or_default();
                let last = last.split(':').next().unwrap_or_default();
                // Keras 3 calls a depthwise kernel just kernel.
                last == variable.name
                    || (variable.name == "depthwise_kernel" && last == "kernel" && candidates.len() <= 2)
            };
            let mut found: Vec<&&String> = candidates.iter().filter(fits).collect();
            if found.is_empty() && variables.len() == 1 {
                found = candidates.iter().collect();
            }
            match (&found[..], is_optional(variable)) {
                ([dataset], _) => mine.push(dataset.to_string()),
                ([], true) => {}
                _ => return None,
            }
        }
        if !mine.iter().all(|d| taken.insert(d.clone())) {
            return None;
        }
        assigned.push(mine);
    }
    Some(assigned)
}

/// By the order in which Keras writes them: what is trained first, then the rest.
fn by_training(leaves: &[(Leaf<'_>, Vec<Variable>)], datasets: &[String]) -> Option<Vec<Vec<String>>> {
    let all: Vec<(usize, usize, bool)> = leaves
        .iter()
        .enumerate()
        .flat_map(|(l, (leaf, vars))| {
            vars.iter().enumerate().map(move |(v, var)| (l, v, leaf.trainable && var.trainable))
        })
        .collect();
    if all.len() != datasets.len() {
        return None;
    }
    let mut assigned: Vec<Vec<String>> = leaves.iter().map(|(_, v)| vec![String::new(); v.len()]).collect();
    let order = all.iter().filter(|a| a.2).chain(all.iter().filter(|a| !a.2));
    for ((l, v, _), dataset) in order.zip(datasets) {
        assigned[*l][*v].clone_from(dataset);
    }
    debug_assert!(leaves.iter().all(|(leaf, _)| leaf.layer.model.is_none()));
    Some(assigned)
}

/// `SeparableConv2D` → `separable_conv2d`, as `keras.src.utils.naming.to_snake_case`.
pub fn snake_case(class: &str) -> String {
    let chars: Vec<char> = class.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
    // First a break before each capital that lower-case letters follow, then one between a small and a capital.
    let mut once: Vec<char> = vec![];
    for (i, c) in chars.iter().enumerate() {
        let capital = c.is_ascii_uppercase() && chars.get(i + 1).is_some_and(char::is_ascii_lowercase);
        if i > 0 && capital {
            once.push('_');
        }
        once.push(*c);
    }
    let mut twice = String::new();
    for (i, c) in once.iter().enumerate() {
        if i > 0 && c.is_ascii_uppercase() && once[i - 1].is_ascii_lowercase() {
            twice.push('_');
        }
        twice.extend(c.to_lowercase());
    }
    twice
}

#[cfg(test)]
mod tests {
    #[test]
    fn classes_in_snake_case() {
        for (class, snake) in [
            ("Conv2D", "conv2d"),
            ("SeparableConv2D", "separable_conv2d"),
            ("Conv2DTranspose", "conv2d_transpose"),
            ("PReLU", "p_re_lu"),
            ("ReLU", "re_lu"),
            ("ELU", "elu"),
            ("BatchNormalization", "batch_normalization"),
            ("GlobalAveragePooling2D", "global_average_pooling2d"),
            ("Functional", "functional"),
        ] {
            assert_eq!(super::snake_case(class), snake);
        }
    }
}
