//! From the settings to a classifier that has proven itself.

use crate::backend::Backend;
use crate::capture::Frame;
use crate::settings::{Choice, Settings};
use crate::slots::{self, Counted};
use crate::stop::Failure;
use crate::trial::Opinion;
use anyhow::{Context, anyhow};
use edge_device::event::class_label;
use edge_device::{Classification, Classifier, ClassifyError, Decider, Recipe, golden};
use edge_engine::{LoadOptions, decision};
use edge_link::Classified;
use edge_package::{Digest, PublicKey, Signed, TrustPolicy, VerifiedPackage};
use edge_system::slot::Slot;
use edge_vision::{Mount, Picture};
use std::path::Path;
use std::time::Instant;

/// The model of a fresh clone, so that a camera does something real before anything was trained.
#[cfg(feature = "default-model")]
const DEFAULT_MODEL: Option<&[u8]> = Some(include_bytes!("../../../models/efficientnet-lite0/efficientnet-lite0.onnx"));
#[cfg(not(feature = "default-model"))]
const DEFAULT_MODEL: Option<&[u8]> = None;
/// How far float16 arithmetic may be off with it, of the largest logit: what `edge-pack` measures when it packages it.
const DEFAULT_FLOAT16: f32 = 0.02;

/// A package that runs here.
pub struct Model {
    /// The network.
    pub classifier: Classifier,
    /// From scores to decisions; it has seen nothing yet.
    pub decider: Decider,
    /// The score at which a class is decided for.
    threshold: Option<f32>,
    /// Digest of the package.
    pub digest: Digest,
    /// What it is, for people.
    pub about: String,
    /// The slot that it is in, if it is.
    pub slot: Option<Slot>,
    /// The package itself, where a host may ask for its golden samples.
    pub package: Option<VerifiedPackage>,
}

/// What came of loading.
pub struct Loaded {
    /// The package that runs.
    pub model: Model,
    /// What there is to log of it, as soon as there is a log: an event's name, and what happened.
    pub news: Vec<(&'static str, String)>,
    /// The trial that it is on, as it stands in the slots.
    pub trial: Option<Counted>,
}

/// Why a frame was not classified.
#[derive(Debug)]
pub enum Missed {
    /// It cannot be read, or not as this camera hangs; another package would not do better.
    Frame(String),
    /// The network failed.
    Network(String),
}

impl From<ClassifyError> for Missed {
    fn from(error: ClassifyError) -> Missed {
        match error {
            ClassifyError::Engine(_) => Missed::Network(error.to_string()),
            _ => Missed::Frame(error.to_string()),
        }
    }
}

impl Model {
    /// Frame → RGB → mount → resize → preprocess → network. `pictures` are used again: the frame as it came, and what is
    /// seen of it.
    pub fn classify(
        &mut self,
        frame: &Frame,
        mount: &Mount,
        pictures: &mut [Picture; 2],
    ) -> Result<Classification, Missed> {
        let start = Instant::now();
        let Some(raw) = frame.raw() else {
            let [came, turned] = pictures;
            let options = self.classifier.decode_options();
            let picture = frame.see(&options, mount, came, turned).map_err(Missed::Frame)?;
            let decode = start.elapsed();
            let mut result = self.classifier.classify(picture, 1)?;
            result.times.decode = decode;
            return Ok(result);
        };
        Ok(self.classifier.classify_frame(&raw, mount, 1)?)
    }

    /// The frame classified last, with what is needed to compare that; decided by itself, whatever was seen before.
    pub fn detail(&self, seen: &Classification) -> Classified {
        let best = seen.top.first().copied();
        let class = decision::decide(best, self.threshold);
        Classified {
            tensor: golden::tensor_digest(self.classifier.tensor()),
            logits: self.classifier.logits().to_vec(),
            class: class.and_then(|class| u32::try_from(class).ok()),
            decision: class_label(&self.classifier.manifest().labels, class),
            score: best.map_or(0.0, |(_, score)| score),
        }
    }

    /// What it says of the frame classified last.
    pub fn opinion(&self, seen: &Classification) -> Opinion {
        let labels = &self.classifier.manifest().labels;
        let best = seen.top.first().copied();
        let times = seen.times;
        Opinion {
            decision: class_label(labels, decision::decide(best, self.threshold)),
            best: class_label(labels, best.map(|(class, _)| class)),
            took: times.decode + times.resize + times.preprocess + times.infer,
        }
    }
}

/// Opens the package, checks trust, runtime, board and golden samples, and loads the network. `progress` is called
/// after each step that may take long. `counted` is the trial that this process was started for already.
pub fn load(
    settings: &Settings,
    backend: &Backend,
    counted: Option<&Counted>,
    progress: &mut dyn FnMut(),
) -> Result<Loaded, Failure> {
    let trust = trust(settings)?;
    let options = options(settings);
    let (proven, slot, news, trial) = match &settings.package {
        Choice::BuiltIn => {
            let proven = built_in(&options, &trust).and_then(|package| kept(package, settings, backend, progress));
            (proven.context("the built-in model"), None, vec![], None)
        }
        Choice::File(path) => (open(path, settings, backend, &trust, progress), None, vec![], None),
        Choice::Slots(folder) => {
            let open = |path: &Path, progress: &mut dyn FnMut()| open(path, settings, backend, &trust, progress);
            match slots::boot(folder, &settings.trial, counted, open, progress) {
                Ok(booted) => {
                    let about = format!("slot {}: {}", booted.slot, booted.value.about);
                    (Ok(Proven { about, ..booted.value }), Some(booted.slot), booted.news, booted.trial)
                }
                Err(why) => (Err(why), None, vec![], None),
            }
        }
    };
    let model = Model { slot, ..model(settings, proven.map_err(Failure::of_package)?)? };
    Ok(Loaded { model, news, trial })
}

/// The package at `path`, proven, to run beside another one or in its place.
pub fn load_file(
    settings: &Settings,
    backend: &Backend,
    path: &Path,
    progress: &mut dyn FnMut(),
) -> Result<Model, Failure> {
    let proven = open(path, settings, backend, &trust(settings)?, progress).map_err(Failure::of_package)?;
    model(settings, proven)
}

/// Whose packages are accepted.
pub fn trust(settings: &Settings) -> Result<TrustPolicy, Failure> {
    let trusted = settings.args.trusted_key.iter().map(|path| PublicKey::read(path));
    Ok(TrustPolicy { trusted: trusted.collect::<Result<_, _>>().map_err(Failure::usage)? })
}

fn options(settings: &Settings) -> LoadOptions {
    match settings.args.threads {
        Some(threads) => LoadOptions { threads: threads.into() },
        None => LoadOptions::default(),
    }
}

fn model(settings: &Settings, proven: Proven) -> Result<Model, Failure> {
    let Proven { classifier, digest, about, package: kept } = proven;
    let package = classifier.manifest().threshold;
    // What contradicts the package's threshold was said in the configuration.
    let decider = Decider::new(settings.policy, package).map_err(Failure::usage)?;
    Ok(Model {
        classifier,
        decider,
        threshold: settings.policy.threshold.or(package),
        digest,
        about,
        slot: None,
        package: kept,
    })
}

/// A package whose golden samples passed.
pub struct Proven {
    classifier: Classifier,
    digest: Digest,
    /// What it is, for people.
    pub about: String,
    package: Option<VerifiedPackage>,
}

fn open(
    path: &Path,
    settings: &Settings,
    backend: &Backend,
    trust: &TrustPolicy,
    progress: &mut dyn FnMut(),
) -> anyhow::Result<Proven> {
    VerifiedPackage::open(path, trust)
        .map_err(anyhow::Error::from)
        .and_then(|package| kept(package, settings, backend, progress))
        .with_context(|| path.display().to_string())
}

/// Proves a package, and keeps it where a host may ask for its golden samples.
fn kept(
    package: VerifiedPackage,
    settings: &Settings,
    backend: &Backend,
    progress: &mut dyn FnMut(),
) -> anyhow::Result<Proven> {
    let proven = prove(&package, settings, backend, progress)?;
    Ok(Proven { package: (!settings.args.link.is_empty()).then_some(package), ..proven })
}

/// Checks that a package is for this board and classifies here as where it was made.
pub fn prove(
    package: &VerifiedPackage,
    settings: &Settings,
    backend: &Backend,
    progress: &mut dyn FnMut(),
) -> anyhow::Result<Proven> {
    let manifest = package.manifest();
    manifest.check_board(settings.board())?;
    let mut classifier = backend.classifier(package, &options(settings), progress)?;
    progress();
    let samples = golden::require(&mut classifier, package, progress)?;
    let about = format!(
        "{}, {} classes, {samples} golden sample(s) passed, {}",
        named(package),
        manifest.labels.len(),
        classifier.description()
    );
    Ok(Proven { classifier, digest: package.digest(), about, package: None })
}

/// A package's name, digest and who signed it, for people.
pub fn named(package: &VerifiedPackage) -> String {
    let signed = match package.signed() {
        Signed::No => "unsigned",
        Signed::ByUnknown(_) => "signed by a key nobody vouched for",
        Signed::ByTrusted(_) => "signed by a trusted key",
    };
    format!("{} ({}, {signed})", package.manifest().name, package.short_digest())
}

/// Packages the built-in model in memory, with the code that packages any model.
fn built_in(options: &LoadOptions, trust: &TrustPolicy) -> anyhow::Result<VerifiedPackage> {
    let onnx = DEFAULT_MODEL
        .ok_or_else(|| anyhow!("this build has no built-in model; say which package to run with --package"))?;
    let float16_tolerance = Some(DEFAULT_FLOAT16);
    let recipe = Recipe { name: "efficientnet-lite0".into(), float16_tolerance, ..Recipe::default() };
    let bytes = recipe.prepare(onnx, options)?.package(onnx.to_vec(), None)?;
    Ok(VerifiedPackage::from_bytes(bytes, trust)?)
}
