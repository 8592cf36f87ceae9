//! What `edge-pack quantize` is asked for.

use crate::out;
use crate::recipe::RecipeArgs;
use anyhow::bail;
use clap::ValueEnum;
use edge_model::quantize::Target;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// The float model: ONNX, .keras or .h5
    pub model: PathBuf,

    /// The file to write (default: the model's name with -int8.onnx, -f16.onnx or -int8-weights.onnx)
    #[arg(short, value_name = "FILE")]
    pub out: Option<PathBuf>,

    #[command(flatten)]
    pub how: How,

    /// What weights and activations become
    #[arg(long, value_enum, default_value_t = Kind::Int8)]
    pub target: Kind,

    /// A page to look at: agreement, layers, changed photos
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,

    /// One JSON object on standard output
    #[arg(long)]
    pub json: bool,

    /// Threads that compute (default: all cores)
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,

    #[command(flatten)]
    pub recipe: RecipeArgs,
}

/// What `edge-pack MODEL --quantize` takes, too.
#[derive(clap::Args, Clone, Default)]
#[command(next_help_heading = "Quantization")]
pub struct How {
    /// Photos like those that the camera will see, in folders or not; 100 to 300 are enough, labels are not needed
    #[arg(long, value_name = "DIR")]
    pub calibration: Option<PathBuf>,

    /// Photos to compare on (default: some of those of --calibration, which do not calibrate then)
    #[arg(long, value_name = "DIR")]
    pub validation: Option<PathBuf>,

    /// How many photos calibrate (default: 200)
    #[arg(long, value_name = "N")]
    pub photos: Option<usize>,

    /// The share of photos that must keep their class; otherwise nothing is written (default: 0.98, told and not enforced)
    #[arg(long, value_name = "SHARE")]
    pub min_agreement: Option<f64>,

    /// Write the file even where --min-agreement is not met
    #[arg(long)]
    pub force: bool,

    /// What the file is for: tensorrt wants symmetric activations and biases in float
    #[arg(long = "for", value_enum)]
    pub for_: Option<Runtime>,

    /// Keep this node in float (its name, or the beginning of it and *); may be repeated
    #[arg(long, value_name = "NODE")]
    pub keep_float: Vec<String>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Weights and activations int8 (QDQ)
    Int8,
    /// Weights float16, half the size
    F16,
    /// Weights int8, a quarter of the size, computed with in float
    Int8Weights,
}

impl Kind {
    /// As the flag spells it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Int8 => "int8",
            Kind::F16 => "f16",
            Kind::Int8Weights => "int8-weights",
        }
    }

    pub fn target(self) -> Target {
        match self {
            Kind::Int8 => Target::Int8,
            Kind::F16 => Target::Half,
            Kind::Int8Weights => Target::Int8Weights,
        }
    }
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// NVIDIA TensorRT
    Tensorrt,
}

/// The agreement that is aimed at.
pub const GOAL: f64 = 0.98;

impl How {
    /// The agreement that the search aims at.
    pub fn goal(&self) -> f64 {
        self.min_agreement.unwrap_or(GOAL)
    }

    /// The first option that was given, for refusing them where they have no meaning.
    pub fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--calibration", self.calibration.is_some()),
            ("--validation", self.validation.is_some()),
            ("--photos", self.photos.is_some()),
            ("--min-agreement", self.min_agreement.is_some()),
            ("--force", self.force),
            ("--for", self.for_.is_some()),
            ("--keep-float", !self.keep_float.is_empty()),
        ];
        given.into_iter().find_map(|(name, given)| given.then_some(name))
    }

    /// What cannot be meant.
    pub fn check(&self, kind: Kind) -> anyhow::Result<()> {
        if self.min_agreement.is_some_and(|m| !(0.0..=1.0).contains(&m)) {
            bail!("--min-agreement is a share from 0 to 1, such as 0.98");
        }
        if self.photos == Some(0) {
            bail!("--photos is at least 1; 100 to 300 are a good number");
        }
        if kind == Kind::Int8 && self.calibration.is_none() {
            bail!(
                "--calibration DIR is missing: int8 needs photos like those that the camera will see, 100 to 300, labelled or not"
            );
        }
        let measured = self.calibration.is_some() || self.validation.is_some();
        if self.min_agreement.is_some() && !measured {
            bail!("--min-agreement needs photos to compare on: --validation DIR");
        }
        if kind != Kind::Int8 && (self.for_.is_some() || !self.keep_float.is_empty()) {
            bail!("--for and --keep-float are for --target int8");
        }
        Ok(())
    }
}

impl Args {
    /// The file to write.
    pub fn output(&self) -> PathBuf {
        self.out.clone().unwrap_or_else(|| {
            let stem = crate::model::name_of(&self.model);
            self.model.with_file_name(format!("{stem}-{}.onnx", self.target.name()))
        })
    }

    pub fn check(&self) -> anyhow::Result<()> {
        self.how.check(self.target)?;
        let inputs = [Some(self.model.as_path()), self.recipe.labels.as_deref()];
        for output in [Some(&self.output()), self.report.as_ref()].into_iter().flatten() {
            out::not_an_input(output, inputs.into_iter().flatten())?;
        }
        Ok(())
    }
}
