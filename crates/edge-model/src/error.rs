//! Why a file cannot be imported.

use std::fmt;

/// A layer, as errors name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerName {
    /// Its name, with the models that it is nested in: `outer/inner`.
    pub name: String,
    /// Its class, with what makes it special where the class alone does not tell: `Activation (sparsemax)`.
    pub class: String,
}

impl fmt::Display for LayerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (layer {:?})", self.class, self.name)
    }
}

/// Each way in which an import fails.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Neither a zip nor an HDF5 file.
    #[error("not a Keras file: {0}")]
    NotKeras(String),
    /// The zip archive is damaged, incomplete or asks for too much memory.
    #[error("the .keras archive cannot be read: {0}")]
    Archive(String),
    /// The HDF5 file is damaged or asks for too much memory.
    #[error("the HDF5 file cannot be read: {0}")]
    Hdf5(String),
    /// The description of the layers is not understood.
    #[error("the model's configuration cannot be read: {0}")]
    Config(String),
    /// The file holds weights and no description of the layers.
    #[error(
        "the file holds weights and no layers; say which network of keras.applications they belong to with --architecture NAME, and --no-top where its classifier is missing; of a model of your own, save all of it with model.save()"
    )]
    WeightsOnly,
    /// All layers without a conversion, at once.
    #[error("{} layer(s) of this model cannot be converted:{}", .0.len(), list(.0))]
    Unsupported(Vec<LayerName>),
    /// All layers whose variables are not in the file, at once.
    #[error("the file lacks the weights of {} layer(s):{}", .0.len(), list(.0))]
    NoWeights(Vec<LayerName>),
    /// One layer does not hold together.
    #[error("layer {:?} ({}): {why}", layer.name, layer.class)]
    Layer {
        /// Which one.
        layer: LayerName,
        /// What is wrong with it.
        why: String,
    },
    /// Not one picture.
    #[error("the model has {} inputs ({}); a model of one picture can be imported", .0.len(), .0.join(", "))]
    Inputs(Vec<String>),
    /// The input's size is open, or another size is not possible.
    #[error("{0}")]
    Size(String),
    /// There is no such architecture, or no such variant.
    #[error("{0}")]
    Architecture(String),
}

fn list(layers: &[LayerName]) -> String {
    layers.iter().map(|l| format!("\n  {l}")).collect()
}
