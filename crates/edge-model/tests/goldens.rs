//! Keras files of every kind, against Keras' own answers, and files that must be refused.
//! `tests/goldens/make_keras.py` and `make_keras2.py` make them and explain the fields of keras.json.

use edge_model::ImportError;
use edge_model::keras::{ImportOptions, import};
use edge_vision::Layout;
use serde_json::Value;
use std::path::PathBuf;
use tract_onnx::prelude::*;

/// Of the largest output.
const TOLERANCE: f32 = 1e-4;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/keras")
}

/// The picture of a seed: shape (1,H,W,C) or (1,C,H,W) with its values.
fn picture(shape: &[usize], first: bool, seed: usize) -> Vec<f32> {
    let (h, w, c) = if first { (shape[2], shape[3], shape[1]) } else { (shape[1], shape[2], shape[3]) };
    let value = |y: usize, x: usize, c: usize| {
        let k = ((y / 4) * 31 + (x / 4) * 17 + c * 7 + seed * 101) as u64;
        (k * 2_654_435_761 % (1 << 32) / 65536 % 1000) as f32 / 500.0 - 1.0
    };
    match first {
        true => (0..c * h * w).map(|i| value(i / w % h, i % w, i / (h * w))).collect(),
        false => (0..c * h * w).map(|i| value(i / (c * w), i / c % w, i % c)).collect(),
    }
}

/// Runs the model on the pictures of the seeds 1, 2, …; how far the outputs are off, relative to the largest.
fn distance(onnx: &[u8], shape: &[usize], first: bool, wanted: &Value) -> Result<f32, String> {
    let run = || -> TractResult<Vec<Vec<f32>>> {
        let model = tract_onnx::onnx().model_for_read(&mut &onnx[..])?;
        let model = model.with_input_fact(0, f32::fact(shape).into())?.into_optimized()?.into_runnable()?;
        let pictures = 1..=wanted.as_array().map_or(0, Vec::len);
        let answer = |seed| {
            let input = tract_ndarray::ArrayD::from_shape_vec(shape, picture(shape, first, seed))?;
            let output = model.run(tvec!(input.into_tensor().into()))?;
            Ok(output[0].to_plain_array_view::<f32>()?.iter().copied().collect())
        };
        pictures.map(answer).collect()
    };
    let found = run().map_err(|e| format!("{e:#}"))?;
    let mut worst = 0_f32;
    for (found, wanted) in found.iter().zip(wanted.as_array().into_iter().flatten()) {
        let wanted: Vec<f32> = wanted.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        if found.len() != wanted.len() || found.iter().any(|v| !v.is_finite()) {
            return Err(format!("{} outputs, {} are wanted, or one is no number", found.len(), wanted.len()));
        }
        let largest = wanted.iter().fold(0_f32, |m, v| m.max(v.abs()));
        let off = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0_f32, f32::max) / largest;
        worst = worst.max(off);
    }
    Ok(worst)
}

/// Kinds of errors, as keras.json names them.
fn kind(error: &ImportError) -> &'static [&'static str] {
    match error {
        ImportError::NotKeras(_) => &["format"],
        ImportError::Archive(_) | ImportError::Hdf5(_) => &["format", "limits", "weights"],
        ImportError::Config(_) => &["config", "limits"],
        ImportError::WeightsOnly | ImportError::Architecture(_) => &["architecture"],
        ImportError::Unsupported(_) => &["unsupported"],
        ImportError::NoWeights(_) => &["weights"],
        ImportError::Layer { .. } => &["config", "weights", "limits", "size"],
        ImportError::Inputs(_) => &["inputs"],
        ImportError::Size(_) => &["size"],
    }
}

fn refused(case: &Value, error: &ImportError) -> Result<(), String> {
    let text = error.to_string();
    let word = |key: &str| case[key].as_str();
    let allowed = [word("error"), word("may_error")];
    if !allowed.iter().flatten().any(|k| kind(error).contains(k)) {
        return Err(format!("{allowed:?} is expected: {text}"));
    }
    let names = case["names"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let missing: Vec<&str> = names.filter(|n| !text.contains(n)).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} not named in: {text}")) }
}

enum Outcome {
    Agrees,
    Refused,
}

/// One case as saved, or with another size, in one order of the input.
fn check(file: &Value, case: &Value, size: Option<u32>, layout: Option<Layout>) -> Result<Outcome, String> {
    let bytes = std::fs::read(folder().join(file["file"].as_str().unwrap())).unwrap();
    let options = ImportOptions { size: size.map(|s| (s, s)), layout, ..ImportOptions::default() };
    let expected = case["error"].as_str().or(case["may_error"].as_str());
    let imported = match (import(bytes, &options, &mut |_| {}), expected) {
        (Err(error), Some(_)) => return refused(case, &error).map(|()| Outcome::Refused),
        (Err(error), None) => return Err(error.to_string()),
        (Ok(_), Some(kind)) if case["error"].is_string() => {
            let may = case["may_accept"] == true;
            return if may { Ok(Outcome::Refused) } else { Err(format!("imports, but {kind:?} is expected")) };
        }
        (Ok(imported), _) => imported,
    };
    let mut shape: Vec<usize> =
        file["input_shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap_or(0) as usize).collect();
    let mut first = file["layout"] == "NCHW";
    if let Some(size) = size {
        let side = if first { 2 } else { 1 };
        shape[side..side + 2].fill(size as usize);
    }
    if layout == Some(Layout::Nchw) && !first {
        shape = vec![1, shape[3], shape[1], shape[2]];
        first = true;
    }
    let tolerance = case["tolerance"].as_f64().map_or(TOLERANCE, |t| t as f32);
    let mut off = distance(&imported.onnx, &shape, first, &case["outputs"])?;
    if off > tolerance {
        return Err(format!("off by {off:.1e} of the largest output"));
    }
    if case["outputs_float32"].is_array() {
        off = distance(&imported.onnx, &shape, first, &case["outputs_float32"])?;
        if off > TOLERANCE {
            return Err(format!("off by {off:.1e} of the largest output of float32"));
        }
    }
    Ok(Outcome::Agrees)
}

#[test]
fn every_keras_file_gives_keras_answers_or_is_refused() {
    let text = std::fs::read_to_string(folder().join("keras.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let (mut agree, mut refused, mut wrong) = (0, 0, vec![]);
    for case in json["cases"].as_array().unwrap() {
        let mut runs = vec![];
        // A model that leaves its size open is imported with one.
        if case["error"].is_string() || case["input_shape"].as_array().is_some_and(|s| s[1..].iter().all(Value::is_u64))
        {
            runs.extend([(case, None, None), (case, None, Some(Layout::Nchw))]);
        }
        if case["resized"].is_object() {
            let size = case["resized"]["input_size"].as_u64().map(|n| n as u32);
            runs.extend([(&case["resized"], size, None), (&case["resized"], size, Some(Layout::Nchw))]);
        }
        assert!(!runs.is_empty());
        for (run, size, layout) in runs {
            match check(case, run, size, layout) {
                Ok(Outcome::Agrees) => agree += 1,
                Ok(Outcome::Refused) => refused += 1,
                Err(why) => wrong.push(format!("{} {size:?} {layout:?}: {why}", case["file"])),
            }
        }
    }
    println!("{agree} agree with Keras, {refused} refused");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(agree > 200 && refused > 100);
}
