//! One file per family of layers. A function takes a call of a layer and puts it into the graph; its error says what
//! is wrong with the layer.

pub mod activation;
pub mod conv;
pub mod dense;
pub mod merge;
pub mod norm;
pub mod ops;
pub mod pool;
pub mod resize;
pub mod shape;
pub mod slice;

use super::config::{Arg, Call, Layer};
use super::cx::Cx;
use super::value::Value;
use serde_json::Value as Json;

/// A layer of one input.
type One = fn(&mut Cx<'_>, &Value) -> Result<Value, String>;
/// A layer of several inputs.
type Many = fn(&mut Cx<'_>, &[Value]) -> Result<Value, String>;

enum Lowering {
    One(One),
    Many(Many),
    Operation,
}

fn find(class: &str) -> Option<Lowering> {
    use Lowering::{Many, One};
    if class.starts_with("ops.") || class == "TFOpLambda" || class == "SlicingOpLambda" {
        return Some(Lowering::Operation);
    }
    Some(match class {
        "Conv2D" | "Convolution2D" => One(conv::conv2d),
        "DepthwiseConv2D" => One(conv::depthwise_conv2d),
        "SeparableConv2D" | "SeparableConvolution2D" => One(conv::separable_conv2d),
        "Conv2DTranspose" | "Convolution2DTranspose" => One(conv::conv2d_transpose),
        "Dense" => One(dense::dense),
        "BatchNormalization" | "SyncBatchNormalization" | "BatchNormalizationV1" => One(norm::batch),
        "LayerNormalization" => One(norm::layer),
        "RMSNormalization" => One(norm::rms),
        "GroupNormalization" => One(norm::group),
        "UnitNormalization" => One(norm::unit),
        "LayerScale" => One(norm::layer_scale),
        "Normalization" => One(norm::normalization),
        "Rescaling" => One(norm::rescaling),
        "Activation" | "ReLU" | "LeakyReLU" | "ThresholdedReLU" | "ELU" | "Softmax" => One(activation::layer),
        "PReLU" => One(activation::prelu),
        "MaxPooling2D" | "MaxPool2D" | "AveragePooling2D" | "AvgPool2D" => One(pool::pool),
        "GlobalAveragePooling2D" | "GlobalAvgPool2D" | "GlobalMaxPooling2D" | "GlobalMaxPool2D" => One(pool::global),
        "GlobalAveragePooling1D" | "GlobalMaxPooling1D" => One(pool::global_1d),
        "ZeroPadding2D" => One(shape::zero_padding),
        "Cropping2D" => One(shape::cropping),
        "UpSampling2D" => One(resize::up_sampling),
        "Resizing" => One(resize::resizing),
        "CenterCrop" => One(resize::center_crop),
        "RandomCrop" => One(resize::random_crop),
        "Flatten" => One(shape::flatten),
        "Reshape" => One(shape::reshape),
        "Permute" => One(shape::permute),
        "RepeatVector" => One(shape::repeat_vector),
        "Dropout"
        | "SpatialDropout1D"
        | "SpatialDropout2D"
        | "SpatialDropout3D"
        | "GaussianDropout"
        | "GaussianNoise"
        | "AlphaDropout"
        | "ActivityRegularization"
        | "StochasticDepth"
        | "Identity"
        | "Pipeline"
        | "Layer"
        | "CutMix"
        | "MixUp"
        | "AugMix"
        | "RandAugment"
        | "Solarization" => One(shape::identity),
        "RandomBrightness"
        | "RandomColorDegeneration"
        | "RandomColorJitter"
        | "RandomContrast"
        | "RandomElasticTransform"
        | "RandomErasing"
        | "RandomFlip"
        | "RandomGaussianBlur"
        | "RandomGrayscale"
        | "RandomHeight"
        | "RandomHue"
        | "RandomInvert"
        | "RandomPerspective"
        | "RandomPosterization"
        | "RandomRotation"
        | "RandomSaturation"
        | "RandomSharpness"
        | "RandomShear"
        | "RandomTranslation"
        | "RandomWidth"
        | "RandomZoom" => One(shape::identity),
        "Add" | "Subtract" | "Multiply" | "Average" | "Maximum" | "Minimum" => Many(merge::merge),
        "Concatenate" => Many(merge::concatenate),
        "CustomScaleLayer" => Many(merge::scaled_sum),
        _ => return None,
    })
}

/// Why a layer cannot be converted, as its class is to be named; `None` where it can. `old`: the file is of Keras 2.
pub fn unsupported(layer: &Layer, old: bool) -> Option<String> {
    // Keras 3 overrides what was recorded when it predicts.
    if old && in_training(layer) {
        return Some(format!("{} called with training=True, which computes something else each time", layer.class));
    }
    if layer.class == "InputLayer" || layer.model.is_some() {
        return None;
    }
    if layer.class == "Lambda" {
        return Some("Lambda, Python code that is never run here; write it with layers or keras.ops instead".into());
    }
    let with = |what: &str| Some(format!("{} with {what}", layer.class));
    if let Some(policy) = quantized(layer) {
        return with(&format!("weights quantized as {policy}; import the model from before quantization"));
    }
    match find(&layer.class) {
        None => return Some(layer.class.clone()),
        Some(Lowering::Operation) => return ops::unsupported(layer),
        _ => {}
    }
    if let Some(name) = activation::unknown(layer) {
        return with(&format!("the activation {name}"));
    }
    if let Some(class) = busy_in_pipeline(layer) {
        return with(&format!("{class}; a pipeline of layers that do nothing at inference can be imported"));
    }
    let word = |key: &str| layer.config.get(key).and_then(|v| v.as_str());
    if matches!(layer.class.as_str(), "Resizing" | "UpSampling2D")
        && let Some(filter) = word("interpolation")
        && !resize::FILTERS.contains(&filter)
    {
        return with(&format!("the interpolation {filter}"));
    }
    None
}

/// The name of a policy under which the weights are no plain floating point numbers.
fn quantized(layer: &Layer) -> Option<String> {
    let policy = layer.config.get("dtype")?;
    let mode = policy.get("config").and_then(|c| c.get("mode")).and_then(Json::as_str);
    let name = mode.or(policy.as_str())?;
    ["int4", "int8", "float8"].iter().any(|q| name.contains(q)).then(|| name.into())
}

/// Whether a layer of this class does nothing at inference.
fn is_idle(class: &str) -> bool {
    find(class).is_some_and(|l| matches!(l, Lowering::One(f) if std::ptr::fn_addr_eq(f, shape::identity as One)))
}

/// The class of a layer that does something at inference, in a `Pipeline`.
fn busy_in_pipeline(layer: &Layer) -> Option<String> {
    let inner = layer.config.get("layers").filter(|_| layer.class == "Pipeline")?.as_array()?;
    let class = |l: &Json| l.get("class_name").and_then(Json::as_str).unwrap_or("an unknown layer").to_string();
    // Keras 3 alone has pipelines, and its RandomCrop does nothing.
    inner.iter().map(class).find(|c| c == "Pipeline" || c != "RandomCrop" && !is_idle(c))
}

/// A layer that does something else in training, and is called so at inference, too.
fn in_training(layer: &Layer) -> bool {
    let training = |call: &Call| call.kwargs.iter().any(|(k, v)| k == "training" && *v == Arg::Json(Json::Bool(true)));
    let other = layer.model.is_some()
        || layer.class == "RandomCrop"
        || matches!(layer.class.as_str(), "BatchNormalization" | "SyncBatchNormalization" | "BatchNormalizationV1")
        || is_idle(&layer.class);
    other && layer.calls.iter().any(training)
}

/// Puts a call of a layer into the graph.
pub fn lower(cx: &mut Cx<'_>, inputs: &[Value]) -> Result<Value, String> {
    match find(&cx.layer.class) {
        Some(Lowering::One(lower)) => match inputs {
            [input] => lower(cx, input),
            _ => Err(format!("it takes one input, {} are given", inputs.len())),
        },
        Some(Lowering::Many(lower)) => lower(cx, inputs),
        Some(Lowering::Operation) => ops::lower(cx, inputs),
        None => Err("it cannot be converted".into()),
    }
}
