//! From the command line to a classifier that has proven itself.

use crate::args::Args;
use crate::stop::Failure;
use anyhow::{Context, anyhow};
use edge_device::{Classifier, Recipe, board, golden};
use edge_engine::LoadOptions;
use edge_package::{Digest, PublicKey, Signed, TrustPolicy, VerifiedPackage};
use std::fmt;

/// The model of a fresh clone, so that a camera does something real before anything was trained.
#[cfg(feature = "default-model")]
const DEFAULT_MODEL: Option<&[u8]> = Some(include_bytes!("../../../models/efficientnet-lite0/efficientnet-lite0.onnx"));
#[cfg(not(feature = "default-model"))]
const DEFAULT_MODEL: Option<&[u8]> = None;

/// What runs, for the first line and for every line of the log.
pub struct About {
    /// Digest of the package.
    pub digest: Digest,
    text: String,
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Opens the package, checks trust, runtime, board and golden samples, and loads the network.
pub fn load(args: &Args) -> Result<(Classifier, About), Failure> {
    let options = match args.threads {
        Some(threads) => LoadOptions { threads: threads.into() },
        None => LoadOptions::default(),
    };
    let trusted = args.trusted_key.iter().map(|path| PublicKey::read(path));
    let trust = TrustPolicy { trusted: trusted.collect::<Result<_, _>>().map_err(Failure::usage)? };
    let (name, package) = match &args.package {
        Some(path) => {
            let package = VerifiedPackage::open(path, &trust)
                .with_context(|| path.display().to_string())
                .map_err(Failure::package)?;
            (path.display().to_string(), package)
        }
        None => ("the built-in model".into(), built_in(&options, &trust).map_err(Failure::package)?),
    };
    let refuse = |e: anyhow::Error| Failure::package(e.context(name.clone()));
    let manifest = package.manifest();
    let this_board = args.board.as_deref().unwrap_or_else(|| board::this_board());
    manifest.check_board(this_board).map_err(|e| refuse(e.into()))?;
    let mut classifier = Classifier::from_package(&package, &options).map_err(|e| refuse(e.into()))?;
    let samples = golden::require(&mut classifier, &package).map_err(|e| refuse(e.into()))?;
    let signed = match package.signed() {
        Signed::No => "unsigned",
        Signed::ByUnknown(_) => "signed by a key nobody vouched for",
        Signed::ByTrusted(_) => "signed by a trusted key",
    };
    let text = format!(
        "{} ({}, {signed}), {} classes, {samples} golden sample(s) passed, {}",
        manifest.name,
        package.short_digest(),
        manifest.labels.len(),
        classifier.description()
    );
    Ok((classifier, About { digest: package.digest(), text }))
}

/// Packages the built-in model in memory, with the code that packages any model.
fn built_in(options: &LoadOptions, trust: &TrustPolicy) -> anyhow::Result<VerifiedPackage> {
    let onnx = DEFAULT_MODEL
        .ok_or_else(|| anyhow!("this build has no built-in model; say which package to run with --package"))?;
    let recipe = Recipe { name: "efficientnet-lite0".into(), ..Recipe::default() };
    let bytes = recipe.prepare(onnx, options)?.package(onnx.to_vec(), None)?;
    Ok(VerifiedPackage::from_bytes(bytes, trust)?)
}
