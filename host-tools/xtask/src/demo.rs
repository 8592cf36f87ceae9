//! `cargo xtask demo`: the main job on real input, from a fresh clone.

use crate::tools::{self, built, cache, cargo, root};
use crate::{fetch, setup};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The default model and photos for it, both in the repository, for when there is no network.
const MODEL: &str = "models/efficientnet-lite0/efficientnet-lite0.onnx";
const OWN_PHOTOS: &str = "models/efficientnet-lite0/examples";

/// What the demo works on.
struct Input {
    /// A model to package, with its labels, if it does not bring them.
    onnx: PathBuf,
    labels: Option<PathBuf>,
    photos: Vec<PathBuf>,
    /// What each photo shows, by its name without extension, where it is known.
    truth: HashMap<String, String>,
}

/// Builds, imports, packages, verifies, classifies, shows.
pub fn run() -> Result<()> {
    setup::ensure()?;
    eprintln!("building edge-pack and edge-camera (the first time takes about five minutes)");
    tools::run(&mut cargo(&tools::BUILD)?)?;
    let work = cache()?.join("demo");
    let photos = work.join("photos");
    let _ = std::fs::remove_dir_all(&work);
    std::fs::create_dir_all(&photos)?;
    let input = match fetch::Kitchenware::fetched() {
        Ok(real) => imported(&real, &work)?,
        Err(e) => {
            eprintln!("{e:#}");
            eprintln!(
                "no Keras model could be fetched; the demo uses the built-in model and the photos in {OWN_PHOTOS}"
            );
            built_in()?
        }
    };
    for picture in &input.photos {
        let name = picture.file_name().context("a picture without a name")?;
        std::fs::copy(picture, photos.join(name)).with_context(|| format!("cannot copy {}", picture.display()))?;
    }
    let package = work.join("model.edgepack");
    let log = work.join("class.jsonl");
    let edge_pack = built("edge-pack")?;
    let mut pack = Command::new(&edge_pack);
    pack.arg(&input.onnx);
    if let Some(labels) = &input.labels {
        pack.arg("--labels").arg(labels).arg("--golden").arg(&photos).args(["--golden-count", "4"]);
    }
    step(pack.arg("-o").arg(&package))?;
    step(Command::new(&edge_pack).arg("verify").arg(&package))?;
    let mut camera = Command::new(built("edge-camera")?);
    camera.arg("--package").arg(&package).arg("--source").arg(&photos).args(["--once", "--log"]).arg(&log);
    step(&mut camera)?;
    show(&log, &input.truth)
}

/// A Keras file of PyPI, imported.
fn imported(real: &fetch::Kitchenware, work: &Path) -> Result<Input> {
    let keras = work.join("kitchenware.keras");
    std::fs::copy(&real.keras, &keras).with_context(|| format!("cannot copy {}", real.keras.display()))?;
    let (onnx, labels) = (work.join("kitchenware.onnx"), work.join("labels.txt"));
    std::fs::write(&labels, fetch::Kitchenware::LABELS)?;
    step(Command::new(built("edge-pack")?).arg("import").arg(&keras).arg("-o").arg(&onnx))?;
    let csv = std::fs::read_to_string(&real.truth)?;
    let truth =
        csv.lines().skip(1).filter_map(|l| l.split_once(',')).map(|(id, label)| (id.into(), label.into())).collect();
    Ok(Input { onnx, labels: Some(labels), photos: real.photos.clone(), truth })
}

/// The model and the photos of the repository.
fn built_in() -> Result<Input> {
    let entries = std::fs::read_dir(root().join(OWN_PHOTOS)).with_context(|| format!("cannot open {OWN_PHOTOS}"))?;
    let photos = entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "jpg")).collect();
    let truth = [("chelsea", "Egyptian cat"), ("coffee", "espresso"), ("rocket", "missile")];
    let truth = truth.map(|(name, label)| (name.into(), label.into())).into();
    Ok(Input { onnx: MODEL.into(), labels: None, photos, truth })
}

/// Shows a command, then runs it.
fn step(command: &mut Command) -> Result<()> {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| Path::new(word).file_name().unwrap_or(word).to_string_lossy())
        .collect();
    println!("\n$ {}", words.join(" "));
    tools::run(command.current_dir(root()))
}

/// The table of the log.
fn show(log: &Path, truth: &HashMap<String, String>) -> Result<()> {
    let text = std::fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    println!("\n{:22} {:14} {:24} {:>6} {:>9}", "file", "truth", "class", "score", "latency");
    for line in text.lines() {
        let event: Value = serde_json::from_str(line)?;
        let file = Path::new(event["source"].as_str().unwrap_or_default());
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let truth = truth.get(&*stem).map_or("", String::as_str);
        println!(
            "{:22} {truth:14} {:24} {:>6.3} {:>6.1} ms",
            file.file_name().unwrap_or_default().to_string_lossy(),
            event["decision"].as_str().unwrap_or_default(),
            event["top"][0]["score"].as_f64().unwrap_or_default(),
            event["latency_ms"]["total"].as_f64().unwrap_or_default(),
        );
    }
    println!("\nthe classification log: {}", log.display());
    Ok(())
}
