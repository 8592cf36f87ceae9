//! What computes: chosen when the program starts and when its configuration changes, told in the first line, and never
//! changed behind anybody's back.

use crate::service;
use crate::settings::Settings;
use crate::status::tell;
use crate::stop::Failure;
use anyhow::{Context, anyhow};
use edge_device::Classifier;
use edge_engine::{LoadOptions, OnnxModel, TensorRtBackend};
use edge_package::{VerifiedPackage, Version};
use edge_tensorrt::{Cache, Places, Progress, TensorRt, TensorRtError};
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// A static program has no dynamic loader that could load NVIDIA's libraries.
const STATIC: bool = cfg!(target_feature = "crt-static");
/// What a static program says.
const OF_STATIC: &str = "this edge-camera is a static program, which cannot load TensorRT";
/// How often a build that goes on is told of.
const EVERY: Duration = Duration::from_secs(10);
/// How much longer the service manager shall wait, each time it is told.
const LONGER: Duration = Duration::from_secs(60);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// TensorRT where it works, else the CPU
    Auto,
    /// The processor
    Cpu,
    /// NVIDIA's GPU; an error where that does not work
    #[value(name = "tensorrt")]
    TensorRt,
}

/// What computes.
#[derive(Clone)]
pub struct Backend {
    /// What was asked for.
    asked: (Kind, Option<PathBuf>),
    /// Without it, the CPU.
    gpu: Option<(Rc<TensorRt>, Cache)>,
    why: String,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backend {}: {}", self.name(), self.why)
    }
}

impl Backend {
    /// Chooses as the settings say. What was asked for by its name is chosen or is a failure.
    pub fn choose(settings: &Settings) -> Result<Backend, Failure> {
        let asked = asked(settings);
        let cpu = |why: String| Ok(Backend { asked: asked.clone(), gpu: None, why });
        let gpu = |tensorrt: TensorRt| {
            let cache = asked.1.clone().map_or_else(|| Cache::of_user("edge-camera"), Cache::new);
            let (version, gpu, folder) = (tensorrt.version(), tensorrt.gpu(), cache.folder().display());
            let why = format!("TensorRT {version} on {gpu}, engines in {folder}");
            Ok(Backend { asked: asked.clone(), gpu: Some((Rc::new(tensorrt), cache)), why })
        };
        match asked.0 {
            Kind::Cpu => cpu("as asked for".into()),
            Kind::TensorRt if STATIC => Err(Failure::usage(anyhow!(
                "{OF_STATIC}; the dynamic one can: `edge-flash install USER@HOST` puts it on systems with a C library as new as JetPack 6's"
            ))),
            Kind::TensorRt => {
                gpu(TensorRt::open(&Places::of_system()).context("--backend tensorrt").map_err(Failure::backend)?)
            }
            Kind::Auto if STATIC => cpu(format!("chosen because {OF_STATIC}")),
            Kind::Auto => match TensorRt::open(&Places::of_system()).and_then(|t| t.can_build().map(|()| t)) {
                Ok(tensorrt) => gpu(tensorrt),
                // The usual case, in a few words.
                Err(TensorRtError::Library { library, .. }) => {
                    cpu(format!("chosen because there is no {library} here that can be loaded"))
                }
                Err(why) => cpu(format!("chosen because TensorRT does not work here: {why}")),
            },
        }
    }

    /// As [`Backend::choose`]; where the same is asked for as before, what is at work stays.
    pub fn choose_again(&self, settings: &Settings) -> Result<Backend, Failure> {
        if self.gpu.is_some() && self.asked == asked(settings) { Ok(self.clone()) } else { Backend::choose(settings) }
    }

    /// As every line of the log has it.
    pub fn name(&self) -> &'static str {
        if self.gpu.is_some() { "tensorrt" } else { "cpu" }
    }

    /// Loads the network of a package. On the GPU that may take minutes, which are told of.
    pub fn classifier(
        &self,
        package: &VerifiedPackage,
        options: &LoadOptions,
        progress: &mut dyn FnMut(),
    ) -> anyhow::Result<Classifier> {
        let Some((tensorrt, cache)) = &self.gpu else { return Ok(Classifier::from_package(package, options)?) };
        let manifest = package.manifest();
        manifest.check_runtime(Version::current())?;
        let model = OnnxModel::parse(package.model())?;
        let mut news = News { name: &manifest.name, cache, told: None, waits: false };
        let mut each = |step: Progress<'_>| {
            news.tell(&step);
            progress();
        };
        let network = TensorRtBackend::load(tensorrt, &model, manifest, package.digest(), cache, &mut each)
            .context("backend tensorrt (`--backend cpu` runs it on the processor)")?;
        Ok(Classifier::with_backend(Box::new(network), manifest.clone())?)
    }
}

fn asked(settings: &Settings) -> (Kind, Option<PathBuf>) {
    (settings.args.backend, settings.args.engine_cache.clone())
}

/// What people and the service manager are told while an engine is built: at once, and every few seconds.
struct News<'a> {
    name: &'a str,
    cache: &'a Cache,
    told: Option<Duration>,
    waits: bool,
}

impl News<'_> {
    fn tell(&mut self, step: &Progress<'_>) {
        match *step {
            Progress::Waiting if !std::mem::replace(&mut self.waits, true) => {
                say("another process builds an engine; waiting for it");
            }
            Progress::Waiting => service::takes_longer(LONGER),
            Progress::Stale(why) => say(&format!("{why}; it is built again")),
            Progress::Building { elapsed, said } => match self.told {
                None => {
                    self.told = Some(elapsed);
                    let (name, folder) = (self.name, self.cache.folder().display());
                    say(&format!(
                        "TensorRT builds an engine of {name} for this GPU: that takes minutes, and is kept in {folder}"
                    ));
                }
                Some(told) if elapsed >= told + EVERY => {
                    self.told = Some(elapsed);
                    say(&format!("the engine is being built, for {} s now: {said}", elapsed.as_secs()));
                }
                Some(_) => {}
            },
            Progress::Built { took, bytes } => {
                say(&format!("the engine is built: {:.0} s, {:.1} MB", took.as_secs_f64(), bytes as f64 / 1e6));
            }
        }
    }
}

fn say(text: &str) {
    tell(text);
    service::takes_longer(LONGER);
    service::doing(text);
}
