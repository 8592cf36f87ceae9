//! A package or a bare ONNX file, ready to classify.

use crate::out;
use crate::recipe::RecipeArgs;
use anyhow::{Context, bail};
use edge_device::Classifier;
use edge_engine::LoadOptions;
use edge_package::{MAGIC, TrustPolicy, VerifiedPackage};
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

/// Reads an ONNX file whole.
pub fn read_onnx(path: &Path) -> anyhow::Result<Vec<u8>> {
    let context = || format!("cannot read {}", path.display());
    let file = std::fs::File::open(path).with_context(context)?;
    let mut bytes = vec![];
    file.take(MAX_ONNX + 1).read_to_end(&mut bytes).with_context(context)?;
    if bytes.len() as u64 > MAX_ONNX {
        bail!("{}: larger than an ONNX file can be", path.display());
    }
    Ok(bytes)
}

/// Name of a model: its file name without the extension.
pub fn name_of(path: &Path) -> String {
    path.file_stem().map_or("model".into(), |s| s.to_string_lossy().into_owned())
}

/// Loads a package, or an ONNX file under the given options, and tells what was taken from where.
pub fn load(path: &Path, recipe: &RecipeArgs, options: &LoadOptions) -> anyhow::Result<Classifier> {
    let context = || path.display().to_string();
    if is_package(path)? {
        if let Some(flag) = recipe.first_given() {
            bail!(
                "{}: {flag} is for ONNX files; a package brings its own, package the model again to change it",
                path.display()
            );
        }
        let package = open_package(path, &TrustPolicy::default())?;
        return Classifier::from_package(&package, options).with_context(context);
    }
    let recipe = edge_device::Recipe { numbered_labels: true, ..recipe.resolve(name_of(path))? };
    let prepared = recipe.prepare(&read_onnx(path)?, options).with_context(context)?;
    tell(path, &prepared.notes);
    Ok(prepared.classifier)
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
