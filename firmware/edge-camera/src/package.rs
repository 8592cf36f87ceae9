//! From the settings to a classifier that has proven itself.

use crate::settings::{Choice, Settings};
use crate::stop::Failure;
use anyhow::{Context, anyhow};
use edge_device::slot::Slots;
use edge_device::{Classifier, Decider, Recipe, board, golden};
use edge_engine::LoadOptions;
use edge_package::{Digest, PublicKey, Signed, TrustPolicy, VerifiedPackage};
use std::path::Path;

/// The model of a fresh clone, so that a camera does something real before anything was trained.
#[cfg(feature = "default-model")]
const DEFAULT_MODEL: Option<&[u8]> = Some(include_bytes!("../../../models/efficientnet-lite0/efficientnet-lite0.onnx"));
#[cfg(not(feature = "default-model"))]
const DEFAULT_MODEL: Option<&[u8]> = None;

/// A package that runs here.
pub struct Model {
    /// The network.
    pub classifier: Classifier,
    /// From scores to decisions; it has seen nothing yet.
    pub decider: Decider,
    /// Digest of the package.
    pub digest: Digest,
    /// What it is, for people.
    pub about: String,
    /// Why the active slot was refused, where the other one stands in.
    pub fallback: Option<String>,
}

/// Opens the package, checks trust, runtime, board and golden samples, and loads the network. `progress` is called
/// after each step that may take long.
pub fn load(settings: &Settings, progress: &mut dyn FnMut()) -> Result<Model, Failure> {
    let args = &settings.args;
    let options = match args.threads {
        Some(threads) => LoadOptions { threads: threads.into() },
        None => LoadOptions::default(),
    };
    let trusted = args.trusted_key.iter().map(|path| PublicKey::read(path));
    let trust = TrustPolicy { trusted: trusted.collect::<Result<_, _>>().map_err(Failure::usage)? };
    let mut open = |path: &Path| {
        VerifiedPackage::open(path, &trust)
            .map_err(anyhow::Error::from)
            .and_then(|package| prove(&package, settings, &options, progress))
            .with_context(|| path.display().to_string())
    };
    let proven = match &settings.package {
        Choice::BuiltIn => built_in(&options, &trust)
            .and_then(|package| prove(&package, settings, &options, progress))
            .context("the built-in model"),
        Choice::File(path) => open(path),
        Choice::Slots(folder) => match Slots::new(folder).boot(open) {
            Ok(booted) => {
                let fallback = booted
                    .refused
                    .map(|why| format!("slot {} runs, because the active slot was refused: {why:#}", booted.slot));
                Ok(Proven { fallback, about: format!("slot {}: {}", booted.slot, booted.value.about), ..booted.value })
            }
            Err(none) => {
                let ((active, why), (other, why_other)) = (none.active, none.other);
                Err(anyhow!("both slots were refused: {active}: {why:#}; {other}: {why_other:#}"))
            }
        },
    };
    let Proven { classifier, digest, about, fallback } = proven.map_err(Failure::package)?;
    // What contradicts the package's threshold was said in the configuration.
    let decider = Decider::new(settings.policy, classifier.manifest().threshold).map_err(Failure::usage)?;
    Ok(Model { classifier, decider, digest, about, fallback })
}

/// A package whose golden samples passed.
struct Proven {
    classifier: Classifier,
    digest: Digest,
    about: String,
    fallback: Option<String>,
}

/// Checks that a package is for this board and classifies here as where it was made.
fn prove(
    package: &VerifiedPackage,
    settings: &Settings,
    options: &LoadOptions,
    progress: &mut dyn FnMut(),
) -> anyhow::Result<Proven> {
    let manifest = package.manifest();
    manifest.check_board(settings.args.board.as_deref().unwrap_or_else(|| board::this_board()))?;
    let mut classifier = Classifier::from_package(package, options)?;
    progress();
    let samples = golden::require(&mut classifier, package, progress)?;
    let signed = match package.signed() {
        Signed::No => "unsigned",
        Signed::ByUnknown(_) => "signed by a key nobody vouched for",
        Signed::ByTrusted(_) => "signed by a trusted key",
    };
    let about = format!(
        "{} ({}, {signed}), {} classes, {samples} golden sample(s) passed, {}",
        manifest.name,
        package.short_digest(),
        manifest.labels.len(),
        classifier.description()
    );
    Ok(Proven { classifier, digest: package.digest(), about, fallback: None })
}

/// Packages the built-in model in memory, with the code that packages any model.
fn built_in(options: &LoadOptions, trust: &TrustPolicy) -> anyhow::Result<VerifiedPackage> {
    let onnx = DEFAULT_MODEL
        .ok_or_else(|| anyhow!("this build has no built-in model; say which package to run with --package"))?;
    let recipe = Recipe { name: "efficientnet-lite0".into(), ..Recipe::default() };
    let bytes = recipe.prepare(onnx, options)?.package(onnx.to_vec(), None)?;
    Ok(VerifiedPackage::from_bytes(bytes, trust)?)
}
