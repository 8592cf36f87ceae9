//! Models as exporters write them, and models that must be refused, against ONNX Runtime's answers.
//! `tests/goldens/make_engine.py` makes them and explains the fields of engine.json.

use edge_device::{Recipe, RecipeError};
use edge_engine::{EngineError, LoadOptions};
use serde_json::Value;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/engine")
}

fn cases() -> Vec<Value> {
    let text = std::fs::read_to_string(folder().join("engine.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    json["cases"].as_array().unwrap().clone()
}

/// The picture every case is fed: defined on (y, x, channel), so that both layouts see the same one.
fn input(shape: &[usize], layout: &str, seed: u64) -> Vec<f32> {
    let (h, w) = if layout == "NHWC" { (shape[1], shape[2]) } else { (shape[2], shape[3]) };
    let value = |y: usize, x: usize, c: usize| {
        let k = (y as u64 / 4) * 31 + (x as u64 / 4) * 17 + c as u64 * 7 + seed * 101;
        ((k * 2_654_435_761) % (1 << 32) / 65536 % 1000) as f32 / 500.0 - 1.0
    };
    let mut out = vec![0.0; h * w * 3];
    for y in 0..h {
        for x in 0..w {
            for c in 0..3 {
                let at = if layout == "NHWC" { (y * w + x) * 3 + c } else { (c * h + y) * w + x };
                out[at] = value(y, x, c);
            }
        }
    }
    out
}

fn recipe(case: &Value, shape: &[usize]) -> Recipe {
    let file = case["file"].as_str().unwrap();
    // The two that leave the size open, and the one with two outputs, need to be told.
    let open = file.contains("dynamic") && !file.contains("quant");
    let (h, w) = if case["layout"] == "NHWC" { (shape[1], shape[2]) } else { (shape[2], shape[3]) };
    let output = (file == "two-outputs.onnx").then(|| "logits".to_string());
    Recipe {
        name: "zoo".into(),
        size: open.then_some((w as u32, h as u32)),
        output,
        numbered_labels: true,
        ..Recipe::default()
    }
}

fn kind(error: &RecipeError) -> &'static str {
    use edge_device::ClassifyError as C;
    let engine = |e: &EngineError| match e {
        EngineError::NotOnnx(_) => "not-onnx",
        EngineError::Opset { .. } => "opset",
        EngineError::Unsupported(_) => "unsupported-ops",
        EngineError::Input(why) if why.contains("batch") => "batch",
        EngineError::Input(why) if why.contains("inputs (") => "inputs",
        EngineError::Input(why) if why.contains("float32") => "input-type",
        EngineError::Input(why) if why.contains("pictures have 3") => "channels",
        EngineError::Input(_) => "input-shape",
        EngineError::Output(why) if why.contains("no output") || why.contains("outputs (") => "outputs",
        EngineError::Output(why) if why.contains("float scores") => "output-type",
        EngineError::Output(_) => "output-shape",
        EngineError::ExternalData(_) => "external-data",
        EngineError::Graph(_) => "graph",
        _ => "other",
    };
    match error {
        RecipeError::Engine(e) | RecipeError::Classify(C::Engine(e)) => engine(e),
        RecipeError::Classify(C::Labels { .. }) => "labels",
        RecipeError::Metadata(_) => "metadata",
        _ => "other",
    }
}

/// Checks one case; what was wrong, if anything.
fn check(case: &Value) -> Result<&'static str, String> {
    let file = case["file"].as_str().unwrap();
    let bytes = std::fs::read(folder().join(file)).unwrap();
    let shape: Vec<usize> =
        case["input_shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect();
    let picture = shape.len() == 4;
    let recipe = if picture { recipe(case, &shape) } else { Recipe { name: "zoo".into(), ..Recipe::default() } };
    let prepared = match recipe.prepare(&bytes, &LoadOptions { threads: 1 }) {
        Ok(prepared) => prepared,
        Err(error) => {
            let (found, text) = (kind(&error), error.to_string());
            let wanted = case["error"].as_str().or(case["may_error"].as_str()).unwrap_or("none");
            if found != wanted {
                return Err(format!("error {found:?}, {wanted:?} expected: {text}"));
            }
            let missing: Vec<&str> = case["names"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .filter(|n| !text.to_lowercase().contains(&n.to_lowercase()))
                .collect();
            return if missing.is_empty() { Ok("refused") } else { Err(format!("{missing:?} not named in: {text}")) };
        }
    };
    if let Some(error) = case["error"].as_str() {
        return Err(format!("loads, but {error:?} is expected"));
    }
    let mut classifier = prepared.classifier;
    let step = if case["qdq"] == true || file.contains("quant") { 2.0 } else { 0.0 };
    for seed in 1..=3u64 {
        let logits =
            classifier.infer(&input(&shape, case["layout"].as_str().unwrap(), seed)).map_err(|e| e.to_string())?;
        let wanted = case.get("outputs").unwrap_or(&case["outputs_logits"])[seed as usize - 1].as_array().unwrap();
        let wanted: Vec<f32> = wanted.iter().map(|v| v.as_f64().unwrap() as f32).collect();
        let largest = wanted.iter().fold(0f32, |m, v| m.max(v.abs()));
        // Quantized graphs may land on the next step of an 8-bit grid over the range of the output.
        let allowed = if step > 0.0 { step * largest / 64.0 } else { 1e-4 * largest };
        let off = logits.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        if logits.len() != wanted.len() || off > allowed {
            return Err(format!("seed {seed}: off by {off}, {allowed} allowed: {logits:?}, {wanted:?} expected"));
        }
    }
    Ok("runs")
}

#[test]
fn every_model_of_the_zoo_runs_as_in_onnx_runtime_or_is_refused_for_the_right_reason() {
    let (mut runs, mut refused, mut wrong) = (0, 0, vec![]);
    for case in cases() {
        match check(&case) {
            Ok("runs") => runs += 1,
            Ok(_) => refused += 1,
            Err(why) => wrong.push(format!("{}: {why}", case["file"])),
        }
    }
    println!("{runs} run as in ONNX Runtime, {refused} refused for the right reason");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(runs >= 30 && refused >= 20, "the zoo has shrunk: {runs} run, {refused} refused");
}
