//! Picture → tensor → logits → decision, the one way that host and device share.

use edge_engine::{
    Backend, Buffer, Cost, CpuBackend, Description, EngineError, Float16, LoadOptions, OnnxModel, Part, decision,
};
use edge_package::{Manifest, PackageError, VerifiedPackage, Version};
use edge_vision::{DecodeOptions, FrameError, Mount, Picture, RawFrame, ResizeError, Resizer, to_picture_into};
use std::time::{Duration, Instant};

/// Why a picture could not be classified.
#[derive(Debug, thiserror::Error)]
pub enum ClassifyError {
    /// The picture cannot be brought to the network's size.
    #[error(transparent)]
    Resize(#[from] ResizeError),
    /// The picture cannot become the network's input.
    #[error(transparent)]
    Vision(#[from] FrameError),
    /// The network failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The package is not for this runtime.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// Labels and network do not belong together.
    #[error(
        "there are {labels} labels, but the model has {classes} classes; give one label per class, in the model's order"
    )]
    Labels {
        /// Labels given.
        labels: usize,
        /// Outputs of the network.
        classes: usize,
    },
}

/// Time spent in each stage.
#[derive(Debug, Clone, Copy, Default)]
pub struct StageTimes {
    /// Camera frame to the picture that is seen; nothing where the next step reads the frame itself.
    pub decode: Duration,
    /// Picture or frame to the network's size.
    pub resize: Duration,
    /// Picture to float32 tensor.
    pub preprocess: Duration,
    /// Tensor to logits.
    pub infer: Duration,
}

/// The outcome of one picture.
#[derive(Debug, Clone)]
pub struct Classification {
    /// (class, score), best first, as many as were asked for.
    pub top: Vec<(usize, f32)>,
    /// The class decided for; `None` is "unknown".
    pub decision: Option<usize>,
    /// Time per stage.
    pub times: StageTimes,
}

/// A network with everything that belongs to it. Buffers are made once and serve every picture.
pub struct Classifier {
    manifest: Manifest,
    backend: Box<dyn Backend>,
    resizer: Resizer,
    /// A frame as a picture, and what is seen of it.
    pictures: [Picture; 2],
    /// Where the backend likes it best. After it, as its memory may be.
    tensor: Buffer,
    logits: Vec<f32>,
    scores: Vec<f32>,
}

impl Classifier {
    /// Loads the network of a package; refuses one that asks for a newer runtime than this.
    pub fn from_package(package: &VerifiedPackage, options: &LoadOptions) -> Result<Classifier, ClassifyError> {
        package.manifest().check_runtime(Version::current())?;
        let release = |part: &[u8]| package.release(part);
        let model = OnnxModel::parse(package.model())?.releasing(&release);
        Classifier::new(&model, package.manifest().clone(), options)
    }

    /// Loads a network under a manifest. Refuses a manifest whose labels are not one per class.
    pub fn new(model: &OnnxModel<'_>, manifest: Manifest, options: &LoadOptions) -> Result<Classifier, ClassifyError> {
        let float16 = if manifest.allows_float16() { Float16::Native } else { Float16::Never };
        let backend = CpuBackend::load_in(float16, model, &manifest.input, &manifest.model.output, options)?;
        Classifier::with_backend(Box::new(backend), manifest)
    }

    /// Puts a loaded network under a manifest.
    pub fn with_backend(mut backend: Box<dyn Backend>, manifest: Manifest) -> Result<Classifier, ClassifyError> {
        let classes = backend.description().classes;
        if manifest.labels.len() != classes {
            return Err(ClassifyError::Labels { labels: manifest.labels.len(), classes });
        }
        Ok(Classifier {
            resizer: Resizer::new(manifest.resize)?,
            pictures: [Picture::blank(1, 1)?, Picture::blank(1, 1)?],
            tensor: backend.buffer(manifest.input.len()),
            logits: vec![0.0; classes],
            scores: Vec::with_capacity(classes),
            backend,
            manifest,
        })
    }

    /// Classifies one picture; `k` best classes are reported.
    pub fn classify(&mut self, picture: &Picture, k: usize) -> Result<Classification, ClassifyError> {
        let times = self.prepare(picture)?;
        self.decide(times, k)
    }

    /// Classifies what is seen of a camera's frame; `k` best classes are reported. The same as [`to_picture_into`],
    /// [`Mount::apply`] and [`Classifier::classify`], but no more of the frame is converted than has to be.
    pub fn classify_frame(
        &mut self,
        frame: &RawFrame<'_>,
        mount: &Mount,
        k: usize,
    ) -> Result<Classification, ClassifyError> {
        let times = self.prepare_frame(frame, mount)?;
        self.decide(times, k)
    }

    /// From [`Classifier::tensor`] to the decision.
    fn decide(&mut self, mut times: StageTimes, k: usize) -> Result<Classification, ClassifyError> {
        let start = Instant::now();
        self.backend.classify(&self.tensor, &mut self.logits)?;
        decision::scores(self.manifest.activation, &self.logits, &mut self.scores);
        let best = decision::top_k(&self.scores, k.max(1));
        let decision = decision::decide(best.first().copied(), self.manifest.threshold);
        times.infer = start.elapsed();
        let top = best.into_iter().take(k).collect();
        Ok(Classification { top, decision, times })
    }

    /// Resizes and preprocesses into [`Classifier::tensor`] without running the network.
    pub fn prepare(&mut self, picture: &Picture) -> Result<StageTimes, ClassifyError> {
        let start = Instant::now();
        let resized = self.resizer.resize(picture)?;
        let between = Instant::now();
        self.manifest.preprocess.apply(resized, self.manifest.input.layout, &mut self.tensor)?;
        Ok(StageTimes { resize: between - start, preprocess: between.elapsed(), ..StageTimes::default() })
    }

    /// As [`Classifier::prepare`], from a camera's frame.
    pub fn prepare_frame(&mut self, frame: &RawFrame<'_>, mount: &Mount) -> Result<StageTimes, ClassifyError> {
        let start = Instant::now();
        let Self { manifest, resizer, pictures: [whole, seen], tensor, .. } = self;
        let (resized, decoded) = if resizer.takes_frames(frame, mount)? {
            (resizer.resize_frame(frame, mount)?, start)
        } else {
            to_picture_into(frame, whole)?;
            if !mount.is_identity() {
                mount.apply(whole, seen)?;
            }
            let decoded = Instant::now();
            (resizer.resize(if mount.is_identity() { whole } else { seen })?, decoded)
        };
        let between = Instant::now();
        manifest.preprocess.apply(resized, manifest.input.layout, tensor)?;
        Ok(StageTimes {
            decode: decoded - start,
            resize: between - decoded,
            preprocess: between.elapsed(),
            ..StageTimes::default()
        })
    }

    /// Runs the network on a tensor of the shape of its input, without decision: tensor in, logits out.
    pub fn infer(&mut self, tensor: &[f32]) -> Result<&[f32], ClassifyError> {
        self.backend.classify(tensor, &mut self.logits)?;
        Ok(&self.logits)
    }

    /// How files become pictures for this network; the same on host and device, as the package says.
    pub fn decode_options(&self) -> DecodeOptions {
        DecodeOptions { exif_orientation: self.manifest.exif_orientation }
    }

    /// The tensor of the picture prepared or classified last.
    pub fn tensor(&self) -> &[f32] {
        &self.tensor
    }

    /// The outputs of the network for the picture classified last.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// The scores, 0…1 and one per class, of the picture classified last.
    pub fn scores(&self) -> &[f32] {
        &self.scores
    }

    /// What this classifies, and how.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Which node of the network runs where, and how long each took last.
    pub fn parts(&self) -> Vec<Part> {
        self.backend.parts()
    }

    /// What a picture costs, counted; `None` where that is not known.
    pub fn cost(&self) -> Option<Cost> {
        self.backend.cost()
    }

    /// What computes.
    pub fn description(&self) -> &Description {
        self.backend.description()
    }
}
