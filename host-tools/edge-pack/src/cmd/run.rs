//! `edge-pack run`: classify photos with the code of the device.

use crate::recipe::RecipeArgs;
use crate::{model, out};
use anyhow::{Context, bail};
use edge_device::Classifier;
use edge_device::event::{Score, decision_label, millis};
use edge_engine::{OnnxModel, Probe};
use edge_vision::{load, picture_paths};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

#[derive(clap::Args)]
pub struct Args {
    /// A package, an ONNX file or a Keras file
    model: PathBuf,

    /// Photos, or folders of them (walked recursively)
    #[arg(required = true)]
    photos: Vec<PathBuf>,

    /// How many classes to show
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,

    /// One JSON object a line for each photo
    #[arg(long)]
    json: bool,

    /// Write the preprocessed tensor of one photo (float32, as the model gets it) to a NumPy file
    #[arg(long, value_name = "FILE.npy")]
    tensor: Option<PathBuf>,

    /// Write what the layers hand to each other for one photo (float32; of a quantized model what its bytes stand for) to NumPy
    /// files in this folder, with an index.json of their names
    #[arg(long, value_name = "DIR")]
    values: Option<PathBuf>,

    /// Only these values of --values
    #[arg(long = "value", value_name = "NAME", requires = "values")]
    only: Vec<String>,

    /// Threads that compute (default: all cores)
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    #[command(flatten)]
    recipe: RecipeArgs,
}

/// A line of `--json`. A struct, because a JSON value would widen float32 to float64 and show digits that
/// are not there.
#[derive(Serialize)]
struct Line<'a> {
    path: String,
    top: Vec<Score>,
    decision: String,
    logits: &'a [f32],
    latency_ms: f64,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut paths: Vec<PathBuf> = vec![];
    let mut failed = 0;
    for photo in &args.photos {
        let found = picture_paths(photo);
        if found.pictures.is_empty() && found.unreadable.is_empty() {
            out::tell(format_args!("edge-pack: the folder {} has no pictures (.jpg, .jpeg, .png)", photo.display()));
            failed += 1;
        }
        for error in &found.unreadable {
            out::tell(format_args!("edge-pack: {error}"));
            failed += 1;
        }
        paths.extend(found.pictures);
    }
    let total = paths.len() + failed;
    if paths.is_empty() {
        bail!("there is no photo to classify");
    }
    if (args.tensor.is_some() || args.values.is_some()) && paths.len() != 1 {
        bail!("--tensor and --values write what belongs to one photo; {} were given", paths.len());
    }
    if let Some(file) = &args.tensor {
        let inputs = paths.iter().chain([&args.model]).map(PathBuf::as_path);
        out::not_an_input(file, inputs)?;
    }
    let mut classifier = model::load(&args.model, &args.recipe, &model::load_options(args.threads))?;
    for path in &paths {
        if let Err(e) = one(args, &mut classifier, path)? {
            out::tell(format_args!("edge-pack: {e:#}"));
            failed += 1;
        }
    }
    if failed > 0 {
        out::tell(format_args!("edge-pack: {failed} of {total} photo(s) or folders could not be classified"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Classifies one photo. The outer error ends the run (the output is closed), the inner one is the photo's.
fn one(args: &Args, classifier: &mut Classifier, path: &Path) -> anyhow::Result<anyhow::Result<()>> {
    let start = Instant::now();
    let classified = load(path, &classifier.decode_options())
        .map_err(anyhow::Error::from)
        .and_then(|picture| classifier.classify(&picture, args.top).with_context(|| path.display().to_string()));
    let result = match classified {
        Ok(result) => result,
        Err(e) => return Ok(Err(e)),
    };
    let latency_ms = millis(start.elapsed());
    if let Some(file) = &args.tensor {
        out::write_file(file, &npy(&classifier.manifest().input.shape(), classifier.tensor())?, 0o644)?;
    }
    if let Some(folder) = &args.values {
        values(args, classifier, folder)?;
    }
    let top = Score::label(&result.top, &classifier.manifest().labels);
    if args.json {
        out::json(&Line {
            path: path.display().to_string(),
            top,
            decision: decision_label(classifier, &result),
            logits: classifier.logits(),
            latency_ms,
        })?;
    } else {
        out::line(format_args!("{}  {}  ({latency_ms:.1} ms)", path.display(), decision_label(classifier, &result)))?;
        for score in top {
            let id = score.id.map_or(String::new(), |id| format!("  {id}"));
            out::line(format_args!("  {:7.4}  {:4}  {}{id}", score.score, score.index, score.label))?;
        }
    }
    Ok(Ok(()))
}

/// Writes what the layers hand to each other for the picture classified last.
fn values(args: &Args, classifier: &Classifier, folder: &Path) -> anyhow::Result<()> {
    let bytes = model::onnx_of(&args.model, &args.recipe)?;
    let onnx = OnnxModel::parse(&bytes)?;
    let mut names = onnx.layer_values();
    if !args.only.is_empty() {
        names = args.only.iter().map(String::as_str).collect();
    }
    let mut probe = Probe::load(&onnx, &classifier.manifest().input, &names, &model::load_options(args.threads))
        .with_context(|| args.model.display().to_string())?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let shapes = probe.shapes().to_vec();
    let mut index = serde_json::Map::new();
    for (at, (name, (shape, value))) in names.iter().zip(shapes.iter().zip(probe.run(classifier.tensor())?)).enumerate()
    {
        let file = format!("{at:04}.npy");
        out::write_file(&folder.join(&file), &npy(shape, value)?, 0o644)?;
        index.insert(name.to_string(), file.into());
    }
    out::write_file(&folder.join("index.json"), &serde_json::to_vec_pretty(&index)?, 0o644)?;
    Ok(())
}

/// A tensor as a NumPy file.
fn npy(shape: &[usize], values: &[f32]) -> anyhow::Result<Vec<u8>> {
    use npyz::WriterBuilder;
    let shape: Vec<u64> = shape.iter().map(|d| *d as u64).collect();
    let mut bytes = vec![];
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut bytes).begin_nd()?;
    writer.extend(values.iter().copied())?;
    writer.finish()?;
    Ok(bytes)
}
