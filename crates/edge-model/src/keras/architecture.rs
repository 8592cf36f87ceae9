//! The networks of keras.applications, for files that hold their weights and no layers.
//!
//! `architectures/make.py` writes their descriptions, as Keras 3.15 builds them for its ImageNet weights.

use super::archive::Archive;
use super::config::Model;
use super::weights::Weights;
use crate::ImportError;
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
    /// Its layers.
    pub(super) fn model(&self) -> Result<Model, ImportError> {
        let broken = |e: String| ImportError::Architecture(format!("the description of {}: {e}", self.name));
        let name: String =
            self.name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
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
    use super::*;

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

    #[test]
    fn names_are_taken_in_any_spelling() {
        for name in ["Xception", "EfficientNetV2-B0", "convnext_tiny", "NASNetMobile"] {
            Architecture { name: name.into(), top: true }.model().unwrap();
        }
        let error = Architecture { name: "yolo".into(), top: true }.model().unwrap_err();
        assert!(error.to_string().contains("efficientnetv2b3"));
    }
}
