//! The networks of keras.applications, for files that hold their weights and no layers.
//!
//! `architectures/make.py` writes their descriptions, as Keras 3.15 builds them for its ImageNet weights.

use super::archive::Archive;
use super::config::Model;
use super::weights::{self, Weights};
use crate::{ImportError, LayerName};
use serde_json::Value as Json;
use std::io::{Cursor, Read};

static DESCRIPTIONS: &[u8] = include_bytes!("../../architectures/architectures.zip");

/// A network of keras.applications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Architecture {
    /// Its name in keras.applications; case, `-` and `_` make no difference.
    pub name: String,
    /// Whether the classifier is there.
    pub top: bool,
}

/// The names that [`Architecture`] may have.
pub fn names() -> Vec<String> {
    let zip = zip::ZipArchive::new(Cursor::new(DESCRIPTIONS));
    zip.map(|z| z.file_names().flatten().map(|n| n.into_owned()).collect()).unwrap_or_default()
}

impl Architecture {
    /// Its name as the descriptions have it.
    fn plain_name(&self) -> String {
        self.name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
    }

    /// What weights do not tell and has to be assumed.
    pub(super) fn note(&self) -> Option<String> {
        // Source: Keras 3.15 `applications/efficientnet.py`: a Rescaling by 1/sqrt(std) for weights="imagenet" only.
        self.plain_name().starts_with("efficientnetb").then(|| {
            "built as for the ImageNet weights, where a layer divides the input by the root of ImageNet's deviation; a \
             network trained from weights=None has no such layer: save that whole, with model.save()"
                .into()
        })
    }

    /// Its layers.
    pub(super) fn model(&self) -> Result<Model, ImportError> {
        let broken = |e: String| ImportError::Architecture(format!("the description of {}: {e}", self.name));
        let name = self.plain_name();
        let mut zip = zip::ZipArchive::new(Cursor::new(DESCRIPTIONS)).map_err(|e| broken(e.to_string()))?;
        if zip.index_for_name(&name).is_none() {
            let known = names().join(", ");
            return Err(ImportError::Architecture(format!(
                "no network of keras.applications is called {:?}; there are {known}",
                self.name
            )));
        }
        let mut text = vec![];
        zip.by_name(&name)
            .map_err(|e| broken(e.to_string()))?
            .read_to_end(&mut text)
            .map_err(|e| broken(e.to_string()))?;
        let networks: Json = serde_json::from_slice(&text).map_err(|e| broken(e.to_string()))?;
        match (self.top, networks["cut"].as_str().map(String::from)) {
            (true, _) => Model::read(&networks["top"]),
            (false, None) => Model::read(&networks["no_top"]),
            (false, Some(last)) => {
                let mut model = Model::read(&networks["top"])?;
                let end = model
                    .layers
                    .iter()
                    .position(|l| l.name == last)
                    .ok_or_else(|| broken(format!("no layer {last}")))?;
                model.layers.truncate(end + 1);
                let [output] = &mut model.outputs[..] else { return Err(broken("not one output".into())) };
                output.layer = last;
                Ok(model)
            }
        }
    }
}

/// The error where the weights hardly have a layer of the architecture: then they are of another one.
pub(super) fn doubt(error: ImportError, architecture: Option<&Architecture>, model: &Model) -> ImportError {
    match (error, architecture) {
        (ImportError::NoWeights(missing), Some(architecture)) if 2 * missing.len() > weights::layers(model) => {
            let named: Vec<String> = missing.iter().take(3).map(LayerName::to_string).collect();
            ImportError::Architecture(format!(
                "the weights seem to be of another architecture than {}, or of a model of your own, which is to be saved \
                 whole with model.save(); the file lacks those of {} layers: {}, …",
                architecture.name,
                missing.len(),
                named.join(", ")
            ))
        }
        (error, _) => error,
    }
}

/// Fits the classifier to the number of classes of the weights, which need not be ImageNet's.
pub(super) fn set_classes(model: &mut Model, archive: &Archive) -> Result<(), ImportError> {
    let classes = {
        let weights = Weights::bind(&archive.weights, archive.root, model, true)?;
        let Some(last) = model.layers.iter().rev().find(|l| weights.has(&l.name)) else { return Ok(()) };
        weights.shape(&last.name, 0).ok().and_then(|s| s.last().copied())
    };
    let Some(classes) = classes.filter(|n| *n > 0) else { return Ok(()) };
    let imagenet = [Json::from(1000), Json::from(vec![1000])];
    for layer in &mut model.layers {
        for key in ["units", "filters", "target_shape"] {
            if let Some(value) = layer.config.get_mut(key).filter(|v| imagenet.contains(v)) {
                *value = if value.is_array() { Json::from(vec![classes]) } else { Json::from(classes) };
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::ImportOptions;
    use super::super::lower::lower;
    use super::*;
    use crate::hdf5::{Hdf5, Members};

    #[test]
    fn every_network_can_be_read_with_and_without_its_top() {
        let names = names();
        assert_eq!(names.len(), 40);
        for name in names {
            for top in [true, false] {
                let model = Architecture { name: name.clone(), top }.model().unwrap();
                assert_eq!((model.inputs.len(), model.outputs.len()), (1, 1));
                let classifier = |l: &super::super::config::Layer| l.config.get("units") == Some(&Json::from(1000));
                // MobileNet V1 and V3 classify with convolutions.
                let mobile = ["mobilenet", "mobilenetv3small", "mobilenetv3large"].contains(&name.as_str());
                assert_eq!(model.layers.iter().any(classifier), top && !mobile, "{name}");
            }
        }
    }

    struct Nothing;

    impl Hdf5 for Nothing {
        fn strings(&self, _: &str, _: &str) -> Result<Option<Vec<String>>, String> {
            Ok(None)
        }
        fn members(&self, _: &str) -> Result<Option<Members>, String> {
            Ok(None)
        }
        fn shape(&self, _: &str) -> Result<Option<Vec<usize>>, String> {
            Ok(None)
        }
        fn floats(&self, _: &str) -> Result<Vec<f32>, String> {
            Err("there is nothing".into())
        }
    }

    #[test]
    fn every_kind_of_network_becomes_a_graph() {
        // One of each family: the others are the same with more layers, and take long.
        for name in [
            "Xception",
            "ResNet50",
            "ResNet50V2",
            "InceptionV3",
            "InceptionResNetV2",
            "MobileNet",
            "MobileNetV2",
            "MobileNetV3Small",
            "DenseNet121",
            "NASNetMobile",
            "EfficientNetB0",
            "EfficientNetV2B0",
            "ConvNeXtTiny",
        ] {
            for top in [true, false] {
                let architecture = Architecture { name: name.into(), top };
                let model = architecture.model().unwrap();
                super::super::refuse_unsupported(&model, false).unwrap();
                let options = ImportOptions {
                    size: (!top).then_some((96, 96)),
                    architecture: Some(architecture),
                    ..ImportOptions::default()
                };
                let built = lower(&model, &Weights::zeros(&Nothing), &options, false, 1 << 30, &mut |_| {});
                assert!(built.is_ok_and(|b| b.outputs.len() == 1), "{name} {top}");
            }
        }
    }

    #[test]
    fn operations_of_every_network_have_their_operands() {
        for name in names() {
            let model = Architecture { name: name.clone(), top: true }.model().unwrap();
            let binary = ["ops.Add", "ops.Multiply", "ops.Subtract", "ops.TrueDivide"];
            for layer in model.layers.iter().filter(|l| binary.contains(&l.class.as_str())) {
                assert!(layer.calls.iter().all(|c| c.args.len() == 2), "{name}: {}", layer.name);
            }
        }
    }

    #[test]
    fn weights_of_something_else_are_called_so() {
        let architecture = Architecture { name: "vgg16".into(), top: true };
        let model = architecture.model().unwrap();
        let missing = |n| {
            let layer = LayerName { name: "conv".into(), class: "Conv2D".into() };
            doubt(ImportError::NoWeights(vec![layer; n]), Some(&architecture), &model).to_string()
        };
        assert!(missing(9).starts_with("the weights seem to be of another architecture than vgg16"));
        assert!(missing(3).starts_with("the file lacks"));
    }

    #[test]
    fn what_efficientnet_weights_leave_open_is_said() {
        let note = |name: &str| Architecture { name: name.into(), top: true }.note();
        assert!(note("EfficientNet-B0").unwrap().contains("ImageNet"));
        assert_eq!(note("EfficientNetV2B0"), None);
    }

    #[test]
    fn names_are_taken_in_any_spelling() {
        for name in ["Xception", "EfficientNetV2-B0", "convnext_tiny", "NASNetMobile"] {
            Architecture { name: name.into(), top: true }.model().unwrap();
        }
        let error = Architecture { name: "yolo".into(), top: true }.model().unwrap_err();
        assert!(error.to_string().contains("efficientnetv2b3"));
    }
}
