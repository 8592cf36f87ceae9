//! How a model wants its pictures, as far as its layers tell.
//!
//! Every network of keras.applications was trained behind one `preprocess_input`. A model that scales its input itself
//! wants 0…255 as it is; else the family decides, known by the name of the model or by the names of layers that only
//! this family has. Source: Keras 3.15 `applications/*.py`.

use super::config::{Arg, Call, Layer, Model};
use super::weights::snake_case;
use edge_package::{Metadata, preprocess_json};
use edge_vision::Preprocess;
use serde_json::Value as Json;
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

/// A layer before the first weights that scales values or turns the order of the channels: then nobody else is to do it.
fn scales_itself(model: &Model) -> Option<String> {
    let mut found = None;
    let mut weights = false;
    model.walk("", &mut |path, layer: &Layer| {
        let scales = matches!(layer.class.as_str(), "Rescaling" | "Normalization") || calculates(layer);
        weights |= layer.class.contains("Conv") || layer.class == "Dense";
        if scales && !weights && found.is_none() {
            found = Some(path.to_string());
        }
    });
    found
}

/// An operation of keras.ops or TensorFlow that calculates with a constant, or turns the order of channels.
fn calculates(layer: &Layer) -> bool {
    let path = match (layer.class.strip_prefix("ops."), layer.config.get("function").and_then(|f| f.as_str())) {
        (Some(class), _) => snake_case(class),
        (None, Some(function)) => function.into(),
        (None, None) => return false,
    };
    let constant = |call: &Call| call.sources().len() < 2;
    match path.rsplit('.').next().unwrap_or_default().trim_matches('_') {
        // `x[..., i]` for each channel, stacked in another order, and `x[..., ::-1]`: RGB becomes BGR.
        "stack" => true,
        "get_item" | "getitem" => {
            layer.calls.iter().any(|c| c.args.iter().chain(c.kwargs.iter().map(|(_, a)| a)).any(backwards))
        }
        "add" | "radd" | "bias_add" | "subtract" | "sub" | "rsub" | "multiply" | "mul" | "rmul" | "scalar_mul"
        | "true_divide" | "truediv" | "divide" | "realdiv" => layer.calls.iter().any(constant),
        _ => false,
    }
}

/// Whether there is a slice with the step -1.
fn backwards(arg: &Arg) -> bool {
    match arg {
        Arg::Tensor(_) => false,
        Arg::List(args) => args.iter().any(backwards),
        Arg::Json(Json::Array(list)) => list.iter().any(|v| backwards(&Arg::Json(v.clone()))),
        Arg::Json(value) => value.get("config").unwrap_or(value).get("step").and_then(Json::as_i64) == Some(-1),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A model called resnet50 that puts its input through these operations (class, its second argument, if any), then a
    /// convolution.
    fn behind(operations: &[(&str, Json)]) -> Option<Preprocess> {
        let tensor = |from: &str| json!({"class_name": "__keras_tensor__", "config": {"keras_history": [from, 0, 0]}});
        let mut layers = vec![json!({"class_name": "InputLayer", "name": "i", "config": {}})];
        let mut last = "i".to_string();
        for (n, (class, second)) in operations.iter().enumerate() {
            let name = format!("op{n}");
            let second = if *second == json!("itself") { tensor(&last) } else { second.clone() };
            layers.push(json!({"class_name": class, "name": name, "config": {}, "module": "keras.src.ops.numpy",
                "inbound_nodes": [{"args": [tensor(&last), second], "kwargs": {}}]}));
            last = name;
        }
        layers.push(json!({"class_name": "Conv2D", "name": "c", "config": {}, "module": "keras.layers",
            "inbound_nodes": [{"args": [tensor(&last)], "kwargs": {}}]}));
        let model = json!({"class_name": "Functional", "config": {"name": "resnet50", "layers": layers,
            "input_layers": [["i", 0, 0]], "output_layers": [["c", 0, 0]]}});
        infer(&Model::read(&model).unwrap()).0.preprocess
    }

    #[test]
    fn what_a_model_does_to_its_input_is_not_done_twice() {
        let slice = |step: i64| json!([{"class_name": "__slice__", "config": {"step": step}}]);
        assert_eq!(behind(&[]), Some(Preprocess::Caffe));
        assert_eq!(behind(&[("Add", json!({"config": {"value": [-103.9, -116.8, -123.7]}}))]), Some(Preprocess::None));
        assert_eq!(behind(&[("GetItem", slice(-1))]), Some(Preprocess::None));
        assert_eq!(behind(&[("GetItem", slice(2))]), Some(Preprocess::Caffe));
        assert_eq!(behind(&[("Stack", json!(null))]), Some(Preprocess::None));
        assert_eq!(behind(&[("Add", json!("itself"))]), Some(Preprocess::Caffe));
    }
}
