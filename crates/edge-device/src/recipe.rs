//! How a package is made from an ONNX file: what the model says of itself, what the user says, and what is
//! assumed, in that order of weakness, and always told.

use crate::float16::Simulation;
use crate::{Classifier, ClassifyError, golden::tensor_digest};
use edge_engine::{
    Backend, CpuBackend, EngineError, FinalActivation, InputHint, LoadOptions, ModelContract, OnnxModel,
};
use edge_package::{
    Activation, CPU_FLOAT16, Golden, GoldenSource, Label, Manifest, Metadata, MetadataError, ModelInfo, PackageError,
    PackageWriter, Precision, QUANTIZATION, Resize, SecretKey, Tolerance, Version,
};
use edge_vision::{Interpolation, Layout, Preprocess, ResizePolicy, ResizeSpec, decode, synthetic};

/// Name of the part that holds the network.
const MODEL_PART: &str = "model.onnx";
/// Logits of a float network may differ by this much of the largest one.
const FLOAT_TOLERANCE: f32 = 1e-3;
/// Logits of an int8 network may differ by this many quantization steps.
const INT8_STEPS: u32 = 4;
/// Sizes (width, height) of the synthetic golden samples: smaller, larger and wider than usual inputs.
const SYNTHETIC: [(u32, u32); 3] = [(160, 120), (640, 480), (301, 457)];

/// Why a model cannot be packaged.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The network.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The properties in the file.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Running it.
    #[error(transparent)]
    Classify(#[from] ClassifyError),
    /// Writing it.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// No labels anywhere.
    #[error("the model carries no labels; give them with --labels FILE (one per line, in the model's order)")]
    NoLabels,
    /// An activation would be applied twice.
    #[error(
        "the model already ends in {graph}, but activation {wanted:?} is asked for; it would be applied twice, use \"probabilities\""
    )]
    Twice {
        /// What the graph ends with.
        graph: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
    /// Softmax over one class is always 1.
    #[error(
        "the model has a single output; softmax of one class is always 1. Give --activation sigmoid, or a model with one output per class"
    )]
    OneClass,
    /// What was said of the activation cannot be.
    #[error(
        "activation {activation:?}, but the model's outputs for the golden samples are {found}; say which it is with --activation softmax, sigmoid or probabilities"
    )]
    Activation {
        /// In force.
        activation: &'static str,
        /// What the outputs look like.
        found: &'static str,
    },
    /// A picture for a golden sample is not usable.
    #[error("the golden picture {name} cannot be used: {why}")]
    Golden {
        /// Its name.
        name: String,
        /// Why not.
        why: String,
    },
}

/// A resize policy whose numbers may still depend on the size of the input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ResizeChoice {
    /// Stretch to the input's size, as Keras' `load_img(target_size)`.
    Squash,
    /// Shortest side to this many pixels, then centre crop; without a number, the input's size / 0.875.
    FitShortest(Option<u32>),
    /// The whole picture inside the input's size, padded with this colour (R, G, B), as Pillow's `ImageOps.pad`.
    FitLongest([u8; 3]),
}

/// What the user says. `None` leaves it to the model's properties, then to the default.
#[derive(Debug, Clone, Default)]
pub struct Recipe {
    /// Name of the package.
    pub name: String,
    /// One per class.
    pub labels: Option<Vec<Label>>,
    /// Default: tf (x / 127.5 − 1), Keras' Xception.
    pub preprocess: Option<Preprocess>,
    /// Default: squash.
    pub resize: Option<ResizeChoice>,
    /// Default: nearest, as Keras' `load_img`.
    pub interpolation: Option<Interpolation>,
    /// Width and height, where the graph leaves them open.
    pub size: Option<(u32, u32)>,
    /// Where the graph leaves it open.
    pub layout: Option<Layout>,
    /// Which graph output, where there are several.
    pub output: Option<String>,
    /// Default: what the graph ends with; softmax for bare logits.
    pub activation: Option<Activation>,
    /// Below it: "unknown".
    pub threshold: Option<f32>,
    /// Turn pictures from files as their EXIF orientation says.
    pub exif_orientation: bool,
    /// Empty: any board.
    pub boards: Vec<String>,
    /// Default: the creation time.
    pub sequence: Option<u64>,
    /// Seconds since 1970.
    pub created: u64,
    /// (name, JPEG or PNG bytes) for golden samples; with none, synthetic ones are made.
    pub goldens: Vec<(String, Vec<u8>)>,
    /// How far TensorRT's outputs for golden samples may be off: a share of the largest one, or for a quantized network
    /// steps. Default: see [`Manifest::tolerance_of`].
    pub tensorrt_tolerance: Option<f32>,
    /// How far float16 arithmetic may be off, as a share of the largest output, where that is known. Default: measured, which takes
    /// some times as long as the golden samples do.
    pub float16_tolerance: Option<f32>,
    /// Classes may go by their number where labels are missing; never in a package.
    pub numbered_labels: bool,
}

/// A model whose every question is answered: loads, runs, and can be packaged.
pub struct Prepared {
    /// The manifest, still without golden samples and parts.
    pub manifest: Manifest,
    /// The loaded network.
    pub classifier: Classifier,
    /// What was taken from where, for people.
    pub notes: Vec<String>,
    goldens: Vec<(String, Vec<u8>)>,
    tensorrt_tolerance: Option<f32>,
    float16_tolerance: Option<f32>,
    options: LoadOptions,
    output_step: Option<f32>,
    /// Whether user or model said which activation it is.
    activation_said: bool,
}

/// Chooses between the user's word, the model's and the default, and notes which.
struct Chooser<'a> {
    notes: &'a mut Vec<String>,
}

impl Chooser<'_> {
    fn pick<T: PartialEq>(
        &mut self,
        what: &str,
        show: impl Fn(&T) -> String,
        user: Option<T>,
        model: Option<T>,
        default: (T, &str),
    ) -> T {
        let (value, why) = match (user, model) {
            (Some(user), Some(model)) if user != model => {
                let why = format!("as asked (the model says {})", show(&model));
                (user, why)
            }
            (Some(user), _) => (user, "as asked".into()),
            (None, Some(model)) => (model, "from the model's properties".into()),
            (None, None) => (default.0, default.1.into()),
        };
        self.notes.push(format!("{what}: {}, {why}", show(&value)));
        value
    }
}

impl Recipe {
    /// Reads the model, answers every open question, loads it. Nothing is written.
    pub fn prepare(&self, onnx: &[u8], options: &LoadOptions) -> Result<Prepared, RecipeError> {
        let model = OnnxModel::parse(onnx)?;
        let said = Metadata::from_properties(&model.properties())?;
        let hint = InputHint {
            layout: self.layout,
            size: self.size.or(said.resize.and_then(|r| r.size)),
            output: self.output.clone(),
        };
        let contract = model.contract(&hint)?;
        let mut notes = vec![format!(
            "input: {} {}x{} {}, output {:?}, opset {}, {}",
            contract.input.name,
            contract.input.width,
            contract.input.height,
            format!("{:?}", contract.input.layout).to_uppercase(),
            contract.output,
            contract.opset,
            match contract.precision {
                Precision::Float => "float",
                Precision::Int8 => "int8 (QDQ)",
            }
        )];
        let mut manifest = self.manifest(&contract, &said, &mut notes)?;
        manifest.provenance.push(("producer".into(), model.producer()));
        // How it was quantized, what that cost.
        if let Some(how) = model.properties().remove(QUANTIZATION) {
            manifest.provenance.push(("quantization".into(), how));
        }
        let backend = CpuBackend::load(&model, &contract.input, &contract.output, options)?;
        if manifest.labels.is_empty() {
            let numbered = |i: usize| Label { id: None, label: i.to_string() };
            manifest.labels = (0..backend.description().classes).map(numbered).collect();
            notes.push("labels: none; classes go by their number".into());
        }
        let classifier = Classifier::with_backend(Box::new(backend), manifest.clone())?;
        if classifier.description().classes == 1 && manifest.activation == Activation::Softmax {
            return Err(RecipeError::OneClass);
        }
        Ok(Prepared {
            manifest,
            classifier,
            notes,
            goldens: self.goldens.clone(),
            tensorrt_tolerance: self.tensorrt_tolerance,
            float16_tolerance: self.float16_tolerance,
            options: *options,
            output_step: contract.output_step,
            activation_said: self.activation.or(said.activation).is_some(),
        })
    }

    fn manifest(
        &self,
        contract: &ModelContract,
        said: &Metadata,
        notes: &mut Vec<String>,
    ) -> Result<Manifest, RecipeError> {
        let mut choose = Chooser { notes };
        let labels = choose.pick(
            "labels",
            |l: &Vec<Label>| l.len().to_string(),
            self.labels.clone(),
            said.labels.clone(),
            (vec![], "none given"),
        );
        let mut seen = std::collections::HashSet::new();
        if let Some(twice) = labels.iter().find(|l| !seen.insert(&l.label)) {
            let note = format!("labels: {:?} stands more than once; the log's index tells them apart", twice.label);
            choose.notes.push(note);
        }
        if labels.is_empty() {
            if !self.numbered_labels {
                return Err(RecipeError::NoLabels);
            }
            choose.notes.pop();
        }
        let preprocess = choose.pick(
            "preprocess",
            |p| edge_package::preprocess_json(p).to_string(),
            self.preprocess,
            said.preprocess,
            (Preprocess::Tf, "by default (x / 127.5 - 1, as Keras' Xception); another one is said with --preprocess"),
        );
        let input = contract.input.clone();
        let resize = choose.pick(
            "resize",
            |r| edge_package::resize_json(r).to_string(),
            self.resize_choice(&input, said.resize),
            said.resize.map(|r| Resize { size: None, ..r }),
            (
                Resize { policy: ResizePolicy::Squash, interpolation: Interpolation::Nearest, size: None },
                "by default (as Keras' load_img)",
            ),
        );
        let activation = choose.pick(
            "activation",
            |a| a.name().to_string(),
            self.activation,
            said.activation,
            match contract.final_activation {
                FinalActivation::None => (Activation::Softmax, "the graph ends in logits"),
                FinalActivation::Softmax => (Activation::Probabilities, "the graph ends in Softmax"),
                FinalActivation::Sigmoid => (Activation::Probabilities, "the graph ends in Sigmoid"),
            },
        );
        let graph = match contract.final_activation {
            FinalActivation::None => None,
            FinalActivation::Softmax => Some("Softmax"),
            FinalActivation::Sigmoid => Some("Sigmoid"),
        };
        if let (Some(graph), Activation::Softmax | Activation::Sigmoid) = (graph, activation) {
            return Err(RecipeError::Twice { graph, wanted: activation.name() });
        }
        Ok(Manifest {
            name: self.name.clone(),
            sequence: self.sequence.unwrap_or(self.created),
            boards: self.boards.clone(),
            minimum_runtime: Version::oldest_reader(),
            created: self.created,
            model: ModelInfo {
                part: MODEL_PART.into(),
                opset: contract.opset,
                precision: contract.precision,
                output: contract.output.clone(),
            },
            resize: ResizeSpec {
                width: input.width,
                height: input.height,
                policy: resize.policy,
                interpolation: resize.interpolation,
            },
            input,
            preprocess,
            activation,
            threshold: self.threshold,
            exif_orientation: self.exif_orientation,
            labels,
            goldens: vec![],
            tolerance: Tolerance::Float { relative: FLOAT_TOLERANCE },
            provenance: vec![("tool".into(), format!("edge-pack {}", Version::current()))],
            parts: vec![],
            tolerances: vec![],
        })
    }

    /// The user's word on resizing; a policy or an interpolation alone takes the other from the model.
    /// How pictures get their size, where the user said something of it; `said` is what the model says.
    pub fn resize_choice(&self, input: &edge_package::InputSpec, said: Option<Resize>) -> Option<Resize> {
        if self.resize.is_none() && self.interpolation.is_none() {
            return None;
        }
        let policy = match self.resize {
            None => said.map_or(ResizePolicy::Squash, |r| r.policy),
            Some(ResizeChoice::Squash) => ResizePolicy::Squash,
            Some(ResizeChoice::FitLongest(color)) => ResizePolicy::FitLongest { color },
            Some(ResizeChoice::FitShortest(shortest)) => ResizePolicy::FitShortest {
                // 0.875 is the crop ratio of torchvision's and timm's usual 256 → 224.
                shortest: shortest.unwrap_or((f64::from(input.width.min(input.height)) / 0.875).round() as u32),
            },
        };
        let interpolation = self.interpolation.or(said.map(|r| r.interpolation)).unwrap_or_default();
        Some(Resize { policy, interpolation, size: None })
    }
}

impl Prepared {
    /// The bytes of a package: replays every golden picture, then writes. `onnx` is the file prepared from.
    pub fn package(mut self, onnx: Vec<u8>, key: Option<&SecretKey>) -> Result<Vec<u8>, RecipeError> {
        let mut simulation = match self.float16_tolerance {
            None => Simulation::load(&self.classifier, &onnx, &self.options)?,
            Some(_) => None,
        };
        let mut writer = PackageWriter::new();
        writer.part(MODEL_PART, onnx);
        if self.goldens.is_empty() {
            for (seed, (width, height)) in SYNTHETIC.into_iter().enumerate() {
                let seed = seed as u64;
                let picture = synthetic(seed, width, height);
                let source = GoldenSource::Synthetic { seed, width, height };
                self.sample(format!("synthetic-{seed}"), source, &picture, &mut simulation)?;
            }
        }
        for (i, (name, bytes)) in std::mem::take(&mut self.goldens).into_iter().enumerate() {
            let picture = decode(&bytes, &self.classifier.decode_options())
                .map_err(|e| RecipeError::Golden { name: name.clone(), why: e.to_string() })?;
            // Numbered, because two folders may hold pictures of the same name.
            let part = format!("golden/{i}");
            self.sample(name, GoldenSource::Part(part.clone()), &picture, &mut simulation)?;
            writer.part(&part, bytes);
        }
        self.check_activation()?;
        if self.manifest.model.precision == Precision::Int8 {
            let largest =
                self.manifest.goldens.iter().flat_map(|g| &g.logits).fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
            // Without a quantized output, the step an int8 output would have had stands in.
            let step = self.output_step.unwrap_or(largest / 127.0);
            self.manifest.tolerance = Tolerance::Int8 { steps: INT8_STEPS, step };
        }
        if let Some(said) = self.tensorrt_tolerance {
            let tolerance = match self.manifest.tolerance {
                Tolerance::Float { .. } => Tolerance::Float { relative: said },
                Tolerance::Int8 { step, .. } => Tolerance::Int8 { steps: said as u32, step },
            };
            self.manifest.tolerances = vec![("tensorrt".into(), tolerance)];
        }
        if let Some(simulation) = simulation {
            simulation.conclude(&mut self.manifest);
        }
        if let Some(relative) = self.float16_tolerance {
            self.manifest.tolerances.push((CPU_FLOAT16.into(), Tolerance::Float { relative }));
        }
        Ok(writer.finish(self.manifest, key)?)
    }

    /// Outputs tell when an activation is wrong: scores lie within 0…1, and logits hardly ever do and sum to 1.
    fn check_activation(&self) -> Result<(), RecipeError> {
        const SLACK: f32 = 1e-3;
        let outputs = || self.manifest.goldens.iter().map(|g| &g.logits);
        let within = |v: &f32| (-SLACK..=1.0 + SLACK).contains(v);
        let wrong = |found| Err(RecipeError::Activation { activation: self.manifest.activation.name(), found });
        match self.manifest.activation {
            Activation::Probabilities if !outputs().all(|o| o.iter().all(within)) => wrong("not within 0…1"),
            Activation::Softmax if !self.activation_said => {
                let sums_to_one = |o: &Vec<f32>| (o.iter().sum::<f32>() - 1.0).abs() < SLACK && o.iter().all(within);
                if outputs().all(sums_to_one) { wrong("probabilities already") } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn sample(
        &mut self,
        name: String,
        source: GoldenSource,
        picture: &edge_vision::Picture,
        simulation: &mut Option<Simulation>,
    ) -> Result<(), RecipeError> {
        self.classifier.classify(picture, 1)?;
        if let Some(simulation) = simulation {
            simulation.compare(&self.classifier)?;
        }
        self.manifest.goldens.push(Golden {
            name,
            source,
            tensor: tensor_digest(self.classifier.tensor()),
            logits: self.classifier.logits().to_vec(),
        });
        Ok(())
    }
}
