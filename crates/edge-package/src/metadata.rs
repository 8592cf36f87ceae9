//! How labels, preprocess, resize and activation are spelled in JSON: in an ONNX file's `metadata_props`
//! (`edgepack.labels`, `.preprocess`, `.resize`, `.activation`), in reports, and in label files.

use crate::{Activation, Label, MAX_LABELS};
use edge_vision::{Interpolation, Preprocess, ResizePolicy};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The property of an ONNX file that says how it was quantized: a JSON object with `target`, `method`, `agreement`, `accuracy` and
/// more. A package's provenance has it, too.
pub const QUANTIZATION: &str = "edgepack.quantization";

/// Why a spelling was not understood.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct MetadataError {
    what: String,
    why: String,
}

fn error(what: &str, why: impl ToString) -> MetadataError {
    MetadataError { what: what.into(), why: why.to_string() }
}

/// What a model says of how it wants to be used; each part may be missing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    /// `edgepack.labels`: an array of names or of `{"id": "n02123045", "label": "tabby"}`.
    pub labels: Option<Vec<Label>>,
    /// `edgepack.preprocess`: `"tf"`, `"torch"`, `"caffe"`, `"none"`, or
    /// `{"mean": [r,g,b], "std": [r,g,b], "bgr": false}` on the 0…255 scale.
    pub preprocess: Option<Preprocess>,
    /// `edgepack.resize`: `{"policy": "squash" | "fit-shortest" | "fit-longest", "shortest": 256, "color": [0, 0, 0],
    /// "interpolation": "bicubic", "width": 224, "height": 224}`; `shortest` with fit-shortest only, `color` (of the
    /// padding, R, G, B, black if it isn't said) with fit-longest only, width and height where the graph leaves them open.
    pub resize: Option<Resize>,
    /// `edgepack.activation`: `"softmax"`, `"sigmoid"` or `"probabilities"`.
    pub activation: Option<Activation>,
}

/// A resize rule whose target size may still be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resize {
    /// Squash, fit and crop, or fit and pad.
    pub policy: ResizePolicy,
    /// Resampling filter.
    pub interpolation: Interpolation,
    /// Target width and height in pixels.
    pub size: Option<(u32, u32)>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum LabelSpelling {
    Name(String),
    Full {
        #[serde(default)]
        id: Option<String>,
        label: String,
    },
}

impl From<LabelSpelling> for Label {
    fn from(spelling: LabelSpelling) -> Label {
        match spelling {
            LabelSpelling::Name(label) => Label { id: None, label },
            LabelSpelling::Full { id, label } => Label { id, label },
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AffineSpelling {
    mean: [f32; 3],
    std: [f32; 3],
    #[serde(default)]
    bgr: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResizeSpelling {
    policy: String,
    #[serde(default)]
    shortest: Option<u32>,
    #[serde(default)]
    color: Option<[u8; 3]>,
    #[serde(default)]
    interpolation: Option<String>,
    #[serde(default)]
    width: Option<u32>,
    #[serde(default)]
    height: Option<u32>,
}

/// Labels spelled as a JSON object: by index (with or without an id), or indices by label.
fn labels_from_object(map: serde_json::Map<String, Value>) -> Result<Vec<Label>, MetadataError> {
    let entry = |(key, value): (String, Value)| -> Option<(usize, Label)> {
        match value {
            Value::Number(index) => Some((usize::try_from(index.as_u64()?).ok()?, Label { id: None, label: key })),
            Value::String(label) => Some((key.parse().ok()?, Label { id: None, label })),
            Value::Array(pair) => match &pair[..] {
                [Value::String(id), Value::String(label)] => {
                    Some((key.parse().ok()?, Label { id: Some(id.clone()), label: label.clone() }))
                }
                _ => None,
            },
            _ => None,
        }
    };
    let entries: Option<Vec<(usize, Label)>> = map.into_iter().map(entry).collect();
    let mut entries = entries.ok_or_else(|| {
        error("labels", r#"not of the form {"0": ["id", "label"], …}, {"0": "label", …} or {"label": 0, …}"#)
    })?;
    entries.sort_by_key(|(index, _)| *index);
    match entries.iter().enumerate().find(|(place, (index, _))| place != index) {
        Some((place, _)) => Err(error("labels", format!("index {place} is missing or stands twice"))),
        None => checked(entries.into_iter().map(|(_, label)| label).collect()),
    }
}

impl Metadata {
    /// Reads the `edgepack.*` properties; a property that is there but not understood is an error, never
    /// passed over. Other properties are ignored.
    pub fn from_properties(properties: &BTreeMap<String, String>) -> Result<Metadata, MetadataError> {
        let mut metadata = Metadata::default();
        for (key, text) in properties {
            let Some(short) = key.strip_prefix("edgepack.") else { continue };
            let what = format!("the model's property {key}");
            let value: Value = serde_json::from_str(text)
                .map_err(|e| error(&what, format!("not JSON ({e}); plain words need quotes, as in \"tf\"")))?;
            let own = |e: MetadataError| error(&what, e.why);
            match short {
                "labels" => metadata.labels = Some(labels_from_json(value).map_err(own)?),
                "preprocess" => metadata.preprocess = Some(preprocess_from_json(value).map_err(own)?),
                "resize" => metadata.resize = Some(resize_from_json(value).map_err(own)?),
                "activation" => {
                    let name = value.as_str().ok_or_else(|| error(&what, "not a string"))?;
                    metadata.activation = Some(activation_from_name(name).map_err(own)?);
                }
                _ => {}
            }
        }
        Ok(metadata)
    }

    /// The `edgepack.*` properties that [`Metadata::from_properties`] reads back.
    pub fn to_properties(&self) -> BTreeMap<String, String> {
        let mut properties = BTreeMap::new();
        let mut put = |key: &str, value: Value| properties.insert(format!("edgepack.{key}"), value.to_string());
        if let Some(labels) = &self.labels {
            put("labels", labels.iter().map(label_json).collect());
        }
        if let Some(preprocess) = &self.preprocess {
            put("preprocess", preprocess_json(preprocess));
        }
        if let Some(resize) = &self.resize {
            put("resize", resize_json(resize));
        }
        if let Some(activation) = self.activation {
            put("activation", activation.name().into());
        }
        properties
    }
}

/// A label as JSON: a string, or an object when it has an id.
pub fn label_json(label: &Label) -> Value {
    match &label.id {
        None => json!(label.label),
        Some(id) => json!({"id": id, "label": label.label}),
    }
}

/// A float32 as JSON with its own digits; as a float64 0.001 would read 0.0010000000474974513.
pub fn number_json(x: f32) -> Value {
    serde_json::from_str(&x.to_string()).unwrap_or(Value::Null)
}

/// A preprocess mode as JSON.
pub fn preprocess_json(preprocess: &Preprocess) -> Value {
    match preprocess {
        Preprocess::None => json!("none"),
        Preprocess::Tf => json!("tf"),
        Preprocess::Torch => json!("torch"),
        Preprocess::Caffe => json!("caffe"),
        Preprocess::Affine { mean, std, bgr } => {
            json!({"mean": mean.map(number_json), "std": std.map(number_json), "bgr": bgr})
        }
    }
}

/// A resize rule as JSON.
pub fn resize_json(resize: &Resize) -> Value {
    let mut value = json!({"interpolation": resize.interpolation.to_string()});
    match resize.policy {
        ResizePolicy::Squash => value["policy"] = json!("squash"),
        ResizePolicy::FitShortest { shortest } => {
            value["policy"] = json!("fit-shortest");
            value["shortest"] = json!(shortest);
        }
        ResizePolicy::FitLongest { color } => {
            value["policy"] = json!("fit-longest");
            value["color"] = json!(color);
        }
    }
    if let Some((width, height)) = resize.size {
        value["width"] = json!(width);
        value["height"] = json!(height);
    }
    value
}

/// An activation by its JSON name.
pub fn activation_from_name(name: &str) -> Result<Activation, MetadataError> {
    [Activation::Softmax, Activation::Sigmoid, Activation::Probabilities]
        .into_iter()
        .find(|a| a.name() == name)
        .ok_or_else(|| error("activation", format!("{name:?} is none of softmax, sigmoid, probabilities")))
}

/// A preprocess mode from JSON: a name or an object with mean and std.
pub fn preprocess_from_json(value: Value) -> Result<Preprocess, MetadataError> {
    let preprocess = match value.as_str() {
        Some("none") => Preprocess::None,
        Some("tf") => Preprocess::Tf,
        Some("torch") => Preprocess::Torch,
        Some("caffe") => Preprocess::Caffe,
        Some(other) => {
            return Err(error(
                "preprocess",
                format!("{other:?} is none of tf, torch, caffe, none, {{\"mean\": [r,g,b], \"std\": [r,g,b]}}"),
            ));
        }
        None => {
            let AffineSpelling { mean, std, bgr } =
                serde_json::from_value(value).map_err(|e| error("preprocess", e))?;
            Preprocess::Affine { mean, std, bgr }
        }
    };
    if !crate::manifest::gives_numbers(&preprocess) {
        return Err(error("preprocess", "mean and std give values that are not finite numbers; is a std 0?"));
    }
    Ok(preprocess)
}

/// A resize rule from JSON.
pub fn resize_from_json(value: Value) -> Result<Resize, MetadataError> {
    let fail = |why: String| error("resize", why);
    let spelling: ResizeSpelling = serde_json::from_value(value).map_err(|e| fail(e.to_string()))?;
    let policy = match (spelling.policy.as_str(), spelling.shortest) {
        ("squash" | "fit-shortest", _) if spelling.color.is_some() => {
            return Err(fail("\"color\" belongs to the policy fit-longest".into()));
        }
        ("squash" | "fit-longest", Some(_)) => {
            return Err(fail("\"shortest\" belongs to the policy fit-shortest".into()));
        }
        ("squash", None) => ResizePolicy::Squash,
        ("fit-longest", None) => ResizePolicy::FitLongest { color: spelling.color.unwrap_or_default() },
        ("fit-shortest", Some(shortest)) if shortest > 0 => ResizePolicy::FitShortest { shortest },
        ("fit-shortest", _) => return Err(fail("the policy fit-shortest needs \"shortest\" in pixels".into())),
        (other, _) => return Err(fail(format!("policy {other:?} is none of squash, fit-shortest, fit-longest"))),
    };
    let interpolation = match &spelling.interpolation {
        None => Interpolation::default(),
        Some(name) => name.parse().map_err(|_| fail(format!("interpolation {name:?} is not known")))?,
    };
    let size = match (spelling.width, spelling.height) {
        (Some(w), Some(h)) => Some((w, h)),
        (None, None) => None,
        _ => return Err(fail("width and height go together".into())),
    };
    Ok(Resize { policy, interpolation, size })
}

fn labels_from_json(value: Value) -> Result<Vec<Label>, MetadataError> {
    let spelled: Vec<LabelSpelling> =
        serde_json::from_value(value).map_err(|e| error("labels", format!("not an array of labels ({e})")))?;
    checked(spelled.into_iter().map(Label::from).collect())
}

fn checked(labels: Vec<Label>) -> Result<Vec<Label>, MetadataError> {
    if labels.is_empty() {
        return Err(error("labels", "there is no label"));
    }
    if labels.len() > MAX_LABELS {
        return Err(error("labels", format!("{} are more than {MAX_LABELS}", labels.len())));
    }
    if let Some(i) = labels.iter().position(|l| l.label.trim().is_empty()) {
        return Err(error("labels", format!("label {i} is empty")));
    }
    Ok(labels)
}

/// Reads a label file. Three spellings are understood:
/// - text, one label a line, optionally with a WordNet id first (`n02123045 tabby`); blank lines at the end
///   are ignored, a blank line between labels is an error (it would shift the classes after it);
/// - a JSON array of names or of `{"id", "label"}`;
/// - JSON objects: Keras' `imagenet_class_index.json` (`{"0": ["n01440764", "tench"], …}`), an index to name
///   (`{"0": "tench", …}`), or `flow_from_directory`'s `class_indices` (`{"tench": 0, …}`).
pub fn parse_labels(text: &str) -> Result<Vec<Label>, MetadataError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match text.trim_start().chars().next() {
        None => Err(error("labels", "the file is empty")),
        Some('[') => {
            labels_from_json(serde_json::from_str(text).map_err(|e| error("labels", format!("not JSON: {e}")))?)
        }
        Some('{') => {
            let map = serde_json::from_str(text).map_err(|e| error("labels", format!("not JSON: {e}")))?;
            labels_from_object(map)
        }
        Some(_) => checked(text.trim_end().lines().map(label_from_line).collect()),
    }
}

fn label_from_line(line: &str) -> Label {
    let line = line.trim();
    if let Some((id, label)) = line.split_once([' ', '\t', ',']) {
        let wordnet = id.len() == 9 && id.starts_with('n') && id[1..].bytes().all(|b| b.is_ascii_digit());
        if wordnet && !label.trim().is_empty() {
            return Label { id: Some(id.into()), label: label.trim().into() };
        }
    }
    Label { id: None, label: line.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_files_of_every_spelling() {
        let names = |l: Vec<Label>| l.into_iter().map(|l| (l.id, l.label)).collect::<Vec<_>>();
        let id = |s: &str| Some(s.to_string());
        assert_eq!(
            names(parse_labels("n02123045 tabby, cat\r\nnot an id\n\n").unwrap()),
            [(id("n02123045"), "tabby, cat".into()), (None, "not an id".into())]
        );
        assert_eq!(
            names(parse_labels(r#"["a", {"id": "n1", "label": "b"}]"#).unwrap()),
            [(None, "a".into()), (id("n1"), "b".into())]
        );
        // Ten entries, so that an order by text ("10" before "2") would show.
        let keras: String = (0..11).map(|i| format!(r#""{i}": ["n{i}", "c{i}"],"#)).collect();
        let keras = format!("{{{}}}", keras.trim_end_matches(','));
        assert_eq!(parse_labels(&keras).unwrap()[10].label, "c10");
        let plain = [(None, "a".to_string()), (None, "b".to_string())];
        assert_eq!(names(parse_labels(r#"{"b": 1, "a": 0}"#).unwrap()), plain);
        assert_eq!(names(parse_labels(r#"{"0": "a", "1": "b"}"#).unwrap()), plain);
        for bad in [r#"{"a": 0, "b": 0}"#, r#"{"a": 1}"#, "", " \n", "a\n\nb", "[]", "[1]", r#"{"1": ["n", "x"]}"#] {
            assert!(parse_labels(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn properties_round_trip() {
        let metadata = Metadata {
            labels: Some(vec![
                Label { id: None, label: "cup".into() },
                Label { id: Some("n02123045".into()), label: "tabby".into() },
            ]),
            preprocess: Some(Preprocess::Affine { mean: [127.0; 3], std: [128.0; 3], bgr: true }),
            resize: Some(Resize {
                policy: ResizePolicy::FitShortest { shortest: 256 },
                interpolation: Interpolation::Bicubic,
                size: Some((224, 192)),
            }),
            activation: Some(Activation::Sigmoid),
        };
        assert_eq!(Metadata::from_properties(&metadata.to_properties()).unwrap(), metadata);
        let padded = |json| resize_from_json(json).unwrap();
        for color in [[0; 3], [1, 2, 255]] {
            let policy = ResizePolicy::FitLongest { color };
            let resize = Resize { policy, interpolation: Interpolation::Box, size: None };
            assert_eq!(padded(resize_json(&resize)), resize);
        }
        assert_eq!(padded(json!({"policy": "fit-longest"})).policy, ResizePolicy::FitLongest { color: [0; 3] });
    }

    #[test]
    fn a_property_not_understood_is_an_error_that_names_it() {
        for (key, value) in [
            ("edgepack.preprocess", "tf"),
            ("edgepack.preprocess", "\"vgg\""),
            ("edgepack.preprocess", r#"{"mean": [0,0,0], "std": [1,0,1]}"#),
            ("edgepack.preprocess", r#"{"mean": [0,0,0], "std": [1,1e60,1]}"#),
            ("edgepack.resize", r#"{"policy": "squash", "shortest": 3}"#),
            ("edgepack.resize", r#"{"policy": "fit-shortest"}"#),
            ("edgepack.resize", r#"{"policy": "fit-longest", "shortest": 3}"#),
            ("edgepack.resize", r#"{"policy": "fit-longest", "color": [0, 0, 256]}"#),
            ("edgepack.resize", r#"{"policy": "squash", "color": [0, 0, 0]}"#),
            ("edgepack.resize", r#"{"policy": "squash", "width": 3}"#),
            ("edgepack.activation", "\"relu\""),
            ("edgepack.labels", "[]"),
        ] {
            let properties = BTreeMap::from([(key.to_string(), value.to_string())]);
            let message = Metadata::from_properties(&properties).unwrap_err().to_string();
            assert!(message.contains(key), "{message}");
        }
    }
}
