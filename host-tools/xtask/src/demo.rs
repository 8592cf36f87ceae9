//! `cargo xtask demo`: the main job on real input, from a fresh clone.

use crate::tools::{self, built, cache, cargo, root};
use crate::{fetch, setup};
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The default model, packaged without a single option.
const MODEL: &str = "models/efficientnet-lite0/efficientnet-lite0.onnx";
/// Photos in the repository, for when there is no network.
const OWN_PHOTOS: &str = "models/efficientnet-lite0/examples";
/// What scikit-image's pictures show, where ImageNet has a class for it.
const TRUTH: [(&str, &str); 3] = [("chelsea", "Egyptian cat"), ("coffee", "espresso"), ("rocket", "missile")];

/// Builds, packages, verifies, classifies, shows.
pub fn run() -> Result<()> {
    setup::ensure()?;
    eprintln!("building edge-pack and edge-camera (the first time takes about five minutes)");
    tools::run(&mut cargo(&tools::BUILD)?)?;
    let work = cache()?.join("demo");
    let photos = work.join("photos");
    let _ = std::fs::remove_dir_all(&work);
    std::fs::create_dir_all(&photos)?;
    for picture in pictures()? {
        let name = picture.file_name().context("a picture without a name")?;
        std::fs::copy(&picture, photos.join(name)).with_context(|| format!("cannot copy {}", picture.display()))?;
    }
    let package = work.join("efficientnet-lite0.edgepack");
    let log = work.join("class.jsonl");
    let edge_pack = built("edge-pack")?;
    step(Command::new(&edge_pack).arg(MODEL).arg("-o").arg(&package))?;
    step(Command::new(&edge_pack).arg("verify").arg(&package))?;
    let mut camera = Command::new(built("edge-camera")?);
    camera.arg("--package").arg(&package).arg("--source").arg(&photos).args(["--once", "--log"]).arg(&log);
    step(&mut camera)?;
    show(&log)
}

/// Real photos: fetched ones, or those of the repository when there is no network.
fn pictures() -> Result<Vec<PathBuf>> {
    let fetched = fetch::SCIKIT_IMAGE.unpacked().map(|wheel| {
        let data = wheel.join("skimage/data");
        // Of the wheel's pictures, the photos; the others are diagrams and microscope slides.
        ["astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg"].map(|name| data.join(name))
    });
    match fetched {
        Ok(pictures) => Ok(pictures.into()),
        Err(e) => {
            eprintln!("{e:#}");
            eprintln!("no photos could be fetched; the demo uses the ones in {OWN_PHOTOS}");
            let entries =
                std::fs::read_dir(root().join(OWN_PHOTOS)).with_context(|| format!("cannot open {OWN_PHOTOS}"))?;
            Ok(entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "jpg")).collect())
        }
    }
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
fn show(log: &Path) -> Result<()> {
    let text = std::fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    println!("\n{:22} {:14} {:24} {:>6} {:>9}", "file", "truth", "class", "score", "latency");
    for line in text.lines() {
        let event: Value = serde_json::from_str(line)?;
        let file = Path::new(event["source"].as_str().unwrap_or_default());
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let truth = TRUTH.iter().find(|(name, _)| *name == stem).map_or("", |(_, truth)| *truth);
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
