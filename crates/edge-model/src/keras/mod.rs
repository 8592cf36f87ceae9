//! Keras files to ONNX.
//!
//! A `.keras` archive (Keras 3, and tf.keras since 2.12), a whole-model `.h5` (Keras 2, tf.keras, and the legacy format
//! of Keras 3), or a weights file together with the name of its architecture. The picture's input keeps Keras' order,
//! (N,H,W,C), unless (N,C,H,W) is asked for; between input and output everything is (N,C,H,W), as ONNX computes.
//! Semantics follow Keras 3.15 at inference.

mod architecture;
mod archive;
mod config;
mod cx;
mod family;
mod layers;
mod lower;
mod value;
mod weights;

pub use architecture::{Architecture, names as architectures};
pub use archive::is_keras;

use crate::{ImportError, LayerName, fold};
use archive::Archive;
use config::Model;
use edge_package::Metadata;
use edge_vision::Layout;
use prost::Message;
use std::collections::HashSet;
use weights::Weights;

/// What the constants of the ONNX file may have in bytes, beyond what its weights take: matrices that resample, mostly.
const CONSTANTS: usize = 256 << 20;
/// How much larger the weights may become: half precision doubles, and a few layers repeat theirs with each call.
const GROWTH: usize = 4;

/// How to import.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Width and height in pixels, instead of the model's own; every shape is derived anew.
    pub size: Option<(u32, u32)>,
    /// The order of the ONNX file's input; Keras' own by default.
    pub layout: Option<Layout>,
    /// The network that a file of weights belongs to. Only for such files.
    pub architecture: Option<Architecture>,
}

/// An imported model.
pub struct Imported {
    /// The ONNX file.
    pub onnx: Vec<u8>,
    /// What was read, chosen and inferred, for people.
    pub notes: Vec<String>,
    /// Name of the model.
    pub name: String,
    /// Nodes in the graph.
    pub nodes: usize,
    /// Float values in its constants.
    pub parameters: usize,
    /// What was inferred and written into the file.
    pub metadata: Metadata,
}

/// The steps of an import, for showing progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A layer, and how many there are.
    Layer(usize, usize),
    /// The ONNX file is being put together.
    Writing,
}

/// Imports a Keras file. `progress` is told of each step.
pub fn import(
    bytes: Vec<u8>,
    options: &ImportOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Imported, ImportError> {
    let length = bytes.len();
    let archive = Archive::open(bytes)?;
    let mut model = match (&archive.config, &options.architecture) {
        (Some(config), None) => Model::parse(config)?,
        (None, Some(architecture)) => architecture.model()?,
        (None, None) => return Err(ImportError::WeightsOnly),
        (Some(_), Some(_)) => {
            return Err(ImportError::Architecture(
                "the file describes its own layers; leave --architecture and --no-top out".into(),
            ));
        }
    };
    let old = !archive.producer.starts_with("Keras 3") && options.architecture.is_none();
    refuse_unsupported(&model, old)?;
    if model.inputs.len() != 1 {
        return Err(ImportError::Inputs(model.inputs.iter().map(|i| i.layer.clone()).collect()));
    }
    if options.architecture.is_some() {
        architecture::set_classes(&mut model, &archive)
            .map_err(|e| architecture::doubt(e, options.architecture.as_ref(), &model))?;
    }
    let weights = Weights::bind(&archive.weights, archive.root, &model, options.architecture.is_some());
    let weights = weights.map_err(|e| architecture::doubt(e, options.architecture.as_ref(), &model))?;
    let budget = archive.weights.length.saturating_mul(GROWTH).saturating_add(CONSTANTS);
    let mut built = lower::lower(&model, &weights, options, old, budget, progress)?;
    let mut notes = vec![format!(
        "{} of {} layers by {}, {:.1} MB",
        model.name,
        built.layers,
        archive.producer,
        length as f64 / 1e6
    )];
    notes.extend(own_classes(&model));
    notes.extend(options.architecture.as_ref().and_then(Architecture::note));
    notes.append(&mut built.notes);
    drop(weights);
    // The file's bytes are given back before the ONNX file, which is as large, is put together.
    drop(archive);
    progress(Progress::Writing);
    let outputs: HashSet<String> = built.outputs.iter().map(|o| o.name.clone()).collect();
    fold::batch_norms(&mut built.graph, &outputs);
    let (metadata, note) = family::infer(&model);
    notes.extend(note);
    let nodes = built.graph.nodes.len();
    let proto = built.graph.finish(&model.name, built.inputs, built.outputs, metadata.to_properties());
    let parameters = proto.graph.iter().flat_map(|g| &g.initializer).map(|i| i.raw_data.len() / 4).sum();
    let onnx = proto.encode_to_vec();
    Ok(Imported { onnx, notes, name: model.name, nodes, parameters, metadata })
}

/// Notes about models whose class is Python code, of which the file has the layers only.
fn own_classes(model: &Model) -> Vec<String> {
    let mut classes = vec![model.class.clone()];
    model.walk("", &mut |_, layer| classes.extend(layer.model.as_ref().map(|m| m.class.clone())));
    classes.retain(|c| !c.is_empty() && !config::is_plain_model(c));
    classes.sort_unstable();
    classes.dedup();
    let note = |class| {
        format!(
            "the model's class {class} is Python code; its layers are taken as the file lists them, as if it had no \
             call() of its own"
        )
    };
    classes.into_iter().map(note).collect()
}

/// All layers that cannot be converted, in one error.
fn refuse_unsupported(model: &Model, old: bool) -> Result<(), ImportError> {
    let mut found = vec![];
    model.walk("", &mut |path, layer| {
        if let Some(class) = layers::unsupported(layer, old) {
            found.push(LayerName { name: path.into(), class });
        }
    });
    match found.is_empty() {
        true => Ok(()),
        false => Err(ImportError::Unsupported(found)),
    }
}
