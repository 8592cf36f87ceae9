//! How a model wants its pictures, as far as its layers tell.
//!
//! Every network of keras.applications was trained behind one `preprocess_input`. A model that scales its input itself
//! wants 0…255 as it is; else the family decides, known by the name of the model or by the names of layers that only
//! this family has. Source: Keras 3.15 `applications/*.py`.

use super::config::{Layer, Model};
use edge_package::{Metadata, preprocess_json};
use edge_vision::Preprocess;
use std::collections::HashSet;

/// What can be inferred, and a note that says so.
pub fn infer(model: &Model) -> (Metadata, Option<String>) {
    let Some((preprocess, why)) = preprocess(model) else { return (Metadata::default(), None) };
    let said = preprocess_json(&preprocess);
    let note =
        format!("preprocess: {said}, inferred: {why}; another one is said with --preprocess when it is packaged");
    (Metadata { preprocess: Some(preprocess), ..Metadata::default() }, Some(note))
}

fn preprocess(model: &Model) -> Option<(Preprocess, String)> {
    if let Some(layer) = scales_itself(model) {
        return Some((Preprocess::None, format!("the layer {layer:?} scales the input itself")));
    }
    let mut names = vec![model.name.clone()];
    let mut layers = HashSet::new();
    model.walk("", &mut |_, layer| {
        match &layer.model {
            Some(model) => names.push(model.name.clone()),
            None => drop(layers.insert(layer.name.clone())),
        };
    });
    let known = |(name, preprocess)| (preprocess, format!("the network is {name} of keras.applications"));
    names.iter().find_map(|n| by_name(n)).or_else(|| by_layers(&layers)).map(known)
}

/// A layer before the first weights that scales values: then nobody else is to do it.
fn scales_itself(model: &Model) -> Option<String> {
    let mut found = None;
    let mut weights = false;
    model.walk("", &mut |path, layer: &Layer| {
        let function = layer.config.get("function").and_then(|f| f.as_str()).unwrap_or_default();
        let arithmetic = ["truediv", "divide", "subtract", "multiply", "bias_add"];
        let scales = matches!(layer.class.as_str(), "Rescaling" | "Normalization" | "ops.TrueDivide" | "ops.Divide")
            || matches!(layer.class.as_str(), "ops.Subtract" | "ops.Multiply")
            || arithmetic.iter().any(|f| function.ends_with(f));
        weights |= layer.class.contains("Conv") || layer.class == "Dense";
        if scales && !weights && found.is_none() {
            found = Some(path.to_string());
        }
    });
    found
}

/// By the name that keras.applications gives its models.
fn by_name(name: &str) -> Option<(&'static str, Preprocess)> {
    let name = name.to_ascii_lowercase();
    let begins = |s: &str| name.starts_with(s);
    Some(if begins("inception_resnet_v2") {
        ("InceptionResNetV2", Preprocess::Tf)
    } else if begins("xception") {
        ("Xception", Preprocess::Tf)
    } else if begins("inception_v3") {
        ("InceptionV3", Preprocess::Tf)
    } else if begins("mobilenetv3") {
        // Without its own Rescaling the model expects what that layer would have made.
        ("MobileNetV3", Preprocess::Tf)
    } else if begins("mobilenet") {
        ("MobileNet", Preprocess::Tf)
    } else if begins("nasnet") {
        ("NASNet", Preprocess::Tf)
    } else if begins("resnet") && name.contains("v2") {
        ("ResNetV2", Preprocess::Tf)
    } else if begins("resnet") {
        ("ResNet", Preprocess::Caffe)
    } else if begins("vgg16") || begins("vgg19") {
        ("VGG", Preprocess::Caffe)
    } else if begins("densenet") {
        ("DenseNet", Preprocess::Torch)
    } else {
        return None;
    })
}

/// By layers that only one family has, for models made of `base.input` and `base.output`.
fn by_layers(layers: &HashSet<String>) -> Option<(&'static str, Preprocess)> {
    let has = |names: &[&str]| names.iter().all(|n| layers.contains(*n));
    Some(if has(&["block1_conv1", "block14_sepconv2"]) {
        ("Xception", Preprocess::Tf)
    } else if has(&["conv_pw_1", "conv_dw_13"]) {
        ("MobileNet", Preprocess::Tf)
    } else if has(&["expanded_conv_depthwise", "block_16_project"]) {
        ("MobileNetV2", Preprocess::Tf)
    } else if has(&["conv1_conv", "conv2_block1_preact_bn"]) {
        ("ResNetV2", Preprocess::Tf)
    } else if has(&["conv1_conv", "conv2_block1_1_conv", "conv2_block1_add"]) {
        ("ResNet", Preprocess::Caffe)
    } else if has(&["block1_conv1", "block5_conv3", "block5_pool"]) {
        ("VGG", Preprocess::Caffe)
    } else if has(&["mixed0", "mixed10"]) {
        ("InceptionV3", Preprocess::Tf)
    } else if has(&["mixed_5b", "conv_7b"]) {
        ("InceptionResNetV2", Preprocess::Tf)
    } else if has(&["conv2_block1_0_bn", "pool2_conv"]) {
        ("DenseNet", Preprocess::Torch)
    } else {
        return None;
    })
}
