//! A package, a bare ONNX file or a Keras file, ready to classify.

use crate::out;
use crate::recipe::RecipeArgs;
use anyhow::{Context, bail};
use edge_device::{Classifier, Prepared, Recipe};
use edge_engine::LoadOptions;
use edge_model::keras::{ImportOptions, Imported, Progress};
use edge_package::{MAGIC, TrustPolicy, VerifiedPackage};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Read;
use std::path::Path;

/// protobuf cannot be larger; anything beyond is no ONNX file.
const MAX_ONNX: u64 = 2 << 30;

/// Whether the file begins like a package.
pub fn is_package(path: &Path) -> anyhow::Result<bool> {
    let mut start = vec![];
    let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    file.take(MAGIC.len() as u64).read_to_end(&mut start).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(start == MAGIC)
}

/// Opens and verifies a package.
pub fn open_package(path: &Path, trust: &TrustPolicy) -> anyhow::Result<VerifiedPackage> {
    VerifiedPackage::open(path, trust).with_context(|| path.display().to_string())
}

/// Reads an ONNX file whole; a Keras file, known by its first bytes, is converted.
pub fn read_onnx(path: &Path, recipe: &RecipeArgs) -> anyhow::Result<Vec<u8>> {
    let bytes = read_whole(path)?;
    if !edge_model::keras::is_keras(&bytes) {
        return Ok(bytes);
    }
    let options = ImportOptions { size: recipe.size()?, ..ImportOptions::default() };
    let imported = import_keras(path, bytes, &options)?;
    tell(path, &imported.notes);
    Ok(imported.onnx)
}

/// The ONNX file of a package, or of a model's file.
pub fn onnx_of(path: &Path, recipe: &RecipeArgs) -> anyhow::Result<Vec<u8>> {
    match is_package(path)? {
        true => Ok(open_package(path, &TrustPolicy::default())?.model().to_vec()),
        false => read_onnx(path, recipe),
    }
}

/// Converts a Keras file, with progress on standard error.
pub fn import_keras(path: &Path, bytes: Vec<u8>, options: &ImportOptions) -> anyhow::Result<Imported> {
    let bar = ProgressBar::new(0);
    bar.set_style(
        ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} layers").unwrap_or(ProgressStyle::default_bar()),
    );
    bar.set_message(format!("importing {}", path.display()));
    let imported = edge_model::keras::import(bytes, options, &mut |step| match step {
        Progress::Layer(n, of) => {
            bar.set_length(of as u64);
            bar.set_position(n as u64);
        }
        Progress::Writing => bar.set_message("writing the ONNX file"),
    });
    bar.finish_and_clear();
    imported.with_context(|| path.display().to_string())
}

/// Reads a model's file whole.
pub fn read_whole(path: &Path) -> anyhow::Result<Vec<u8>> {
    let context = || format!("cannot read {}", path.display());
    let file = std::fs::File::open(path).with_context(context)?;
    // Reserved at once: a vector that grows would hold twice as much for a moment.
    let length = file.metadata().map_or(0, |m| m.len()).min(MAX_ONNX);
    let mut bytes = Vec::with_capacity(length as usize + 1);
    file.take(MAX_ONNX + 1).read_to_end(&mut bytes).with_context(context)?;
    if bytes.len() as u64 > MAX_ONNX {
        bail!("{}: larger than a model can be", path.display());
    }
    Ok(bytes)
}

/// Name of a model: its file name without the extension.
pub fn name_of(path: &Path) -> String {
    path.file_stem().map_or("model".into(), |s| s.to_string_lossy().into_owned())
}

/// Loads a package, or an ONNX file under the given options, and tells what was taken from where.
pub fn load(path: &Path, recipe_args: &RecipeArgs, options: &LoadOptions) -> anyhow::Result<Classifier> {
    let context = || path.display().to_string();
    if is_package(path)? {
        if let Some(flag) = recipe_args.first_given() {
            bail!(
                "{}: {flag} is for ONNX and Keras files; a package brings its own, package the model again to change it",
                path.display()
            );
        }
        let package = open_package(path, &TrustPolicy::default())?;
        return Classifier::from_package(&package, options).with_context(context);
    }
    Ok(prepare(path, &read_onnx(path, recipe_args)?, recipe_args, options)?.classifier)
}

/// Loads the ONNX file that `path` is or became under the given options, and tells what was taken from where.
pub fn prepare(path: &Path, onnx: &[u8], recipe_args: &RecipeArgs, options: &LoadOptions) -> anyhow::Result<Prepared> {
    let recipe = Recipe { numbered_labels: true, ..recipe_args.resolve(name_of(path))? };
    let prepared = recipe.prepare(onnx, options).with_context(|| path.display().to_string())?;
    tell(path, &prepared.notes);
    Ok(prepared)
}

/// Prints what was taken from where, on standard error.
pub fn tell(path: &Path, notes: &[String]) {
    for note in notes {
        out::tell(format_args!("{}: {note}", path.display()));
    }
}

/// `--threads`, or all cores.
pub fn load_options(threads: Option<usize>) -> LoadOptions {
    threads.map_or_else(LoadOptions::default, |threads| LoadOptions { threads })
}
