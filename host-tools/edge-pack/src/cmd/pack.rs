//! `edge-pack MODEL.onnx`: an ONNX file, or a Keras file, becomes a package.

use super::quantize::{self, How, Kind};
use crate::recipe::RecipeArgs;
use crate::{model, out};
use anyhow::{Context, bail};
use edge_device::Recipe;
use edge_package::{MAX_GOLDENS, SecretKey, TrustPolicy, VerifiedPackage, hex};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

#[derive(clap::Args)]
pub struct Args {
    /// The model to package: ONNX, .keras or .h5
    #[arg(value_name = "MODEL")]
    model: Option<PathBuf>,

    /// The package to write (default: the model's name with .edgepack)
    #[arg(short, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Sign with this secret key (made by `edge-pack keygen`)
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,

    /// Name of the package (default: the model's file name)
    #[arg(long)]
    name: Option<String>,

    /// Only this board may run it; may be repeated (default: any)
    #[arg(long)]
    board: Vec<String>,

    /// Release number; an update must have a greater one (default: the time of packaging)
    #[arg(long, value_name = "N")]
    sequence: Option<u64>,

    /// Take golden samples from the pictures in this folder (default: synthetic ones)
    #[arg(long, value_name = "DIR")]
    golden: Option<PathBuf>,

    /// How many golden samples to take from --golden (default: 8)
    #[arg(long, value_name = "K", requires = "golden")]
    golden_count: Option<usize>,

    /// How far TensorRT's outputs for golden samples may be off those of packaging: a share of the largest one, such as 0.05,
    /// or, of a quantized model, a number of quantization steps (default: 0.02, or four times the steps that the CPU is
    /// allowed)
    #[arg(long, value_name = "X")]
    tensorrt_tolerance: Option<f32>,

    /// Quantize the model first; photos for that are given with --calibration
    #[arg(long, value_enum, value_name = "TARGET")]
    quantize: Option<Kind>,

    /// One JSON object about the package on standard output
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    how: How,

    #[command(flatten)]
    recipe: RecipeArgs,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Some(path) = &args.model else { bail!("which model? `edge-pack MODEL.onnx`; `edge-pack --help` tells more") };
    if !path.exists() {
        bail!("there is no file {}", path.display());
    }
    if let Some(flag) = args.how.first_given().filter(|_| args.quantize.is_none()) {
        bail!("{flag} is for quantizing; say what weights and activations become, such as --quantize int8");
    }
    if model::is_package(path)? {
        bail!("{} is a package already; `edge-pack inspect {0}` shows it", path.display());
    }
    let output = args.out.clone().unwrap_or_else(|| path.with_extension("edgepack"));
    let pictures = args.golden.as_deref().map(golden_pictures).transpose()?.unwrap_or_default();
    let inputs = [Some(path.as_path()), args.sign.as_deref(), args.recipe.labels.as_deref()];
    out::not_an_input(&output, inputs.into_iter().flatten().chain(pictures.iter().map(PathBuf::as_path)))?;
    let key = args.sign.as_deref().map(SecretKey::read).transpose()?;
    let recipe = Recipe {
        boards: args.board.clone(),
        sequence: args.sequence,
        created: created()?,
        goldens: match &args.golden {
            Some(dir) => goldens(dir, &pictures, args.golden_count.unwrap_or(8))?,
            None => vec![],
        },
        tensorrt_tolerance: args.tensorrt_tolerance,
        ..args.recipe.resolve(args.name.clone().unwrap_or_else(|| model::name_of(path)))?
    };
    let context = || path.display().to_string();
    let mut onnx = model::read_onnx(path, &args.recipe)?;
    let mut prepared = recipe.prepare(&onnx, &model::load_options(None)).with_context(context)?;
    model::tell(path, &prepared.notes);
    if let Some(kind) = args.quantize {
        let manifest = prepared.classifier.manifest().clone();
        onnx = quantize::for_package(path, &onnx, &manifest, (&args.how, kind)).with_context(context)?;
        prepared = recipe.prepare(&onnx, &model::load_options(None)).with_context(context)?;
    }
    let bytes = prepared.package(onnx, key.as_ref()).with_context(context)?;
    // What is about to be handed out is read back as its receiver will read it.
    let package = VerifiedPackage::from_bytes(bytes.clone(), &TrustPolicy::default()).context("internal check")?;
    out::write_file(&output, &bytes, 0o644)?;
    let manifest = package.manifest();
    if args.json {
        out::json(&serde_json::json!({
            "path": output.display().to_string(),
            "digest": hex(&package.digest()),
            "bytes": package.file_len(),
            "name": manifest.name,
            "sequence": manifest.sequence,
            "classes": manifest.labels.len(),
            "goldens": manifest.goldens.len(),
            "signed": key.is_some(),
        }))?;
    } else {
        out::line(format_args!(
            "{}: {} classes, {} golden samples, {:.1} MB, {}, digest {}",
            output.display(),
            manifest.labels.len(),
            manifest.goldens.len(),
            package.file_len() as f64 / 1e6,
            if key.is_some() { "signed" } else { "not signed" },
            package.short_digest()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Now, or SOURCE_DATE_EPOCH, so that equal input gives equal bytes.
fn created() -> anyhow::Result<u64> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => {
            text.trim().parse().with_context(|| format!("SOURCE_DATE_EPOCH={text:?} is not a number of seconds"))
        }
        Err(std::env::VarError::NotPresent) => {
            Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()))
        }
        Err(e) => Err(e).context("SOURCE_DATE_EPOCH"),
    }
}

/// The pictures that golden samples may be taken from.
fn golden_pictures(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listing = edge_vision::picture_paths(dir);
    if let Some(error) = listing.unreadable.first() {
        bail!("--golden: {error}");
    }
    if listing.pictures.is_empty() {
        bail!("--golden {}: no pictures to take", dir.display());
    }
    Ok(listing.pictures)
}

/// Up to `count` of the pictures, evenly spread over the sorted list, so that every class folder has its chance.
fn goldens(dir: &Path, pictures: &[PathBuf], count: usize) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    if !(1..=MAX_GOLDENS).contains(&count) {
        bail!("--golden-count {count}: 1 to {MAX_GOLDENS} are possible");
    }
    let count = count.min(pictures.len());
    let read = |i: usize| {
        let path = &pictures[i * pictures.len() / count];
        let bytes = edge_vision::read_file(path).with_context(|| format!("cannot read {}", path.display()))?;
        // A picture given by itself leaves nothing when its own path is taken off.
        let name = path.strip_prefix(dir).ok().filter(|p| !p.as_os_str().is_empty()).unwrap_or(path);
        Ok((name.to_string_lossy().into_owned(), bytes))
    };
    (0..count).map(read).collect()
}
