//! The options of `edge-pack train`, read and checked.

use crate::recipe::RecipeArgs;
use anyhow::{Context, bail};
use edge_train::checkpoint::Template;
use edge_train::fit::{Monitor, Schedule};
use edge_train::head::Activation;
use edge_vision::{Augment, DecodeOptions};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// The network to build on: ONNX, .keras or .h5, with its classifier or without
    #[arg(long, value_name = "FILE")]
    pub base: PathBuf,

    /// Photos: a folder with one folder for each class, or a CSV of file,label
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// Photos to validate with, laid out as --data (default: a part of --data, see --split)
    #[arg(long, value_name = "DIR")]
    pub validation: Option<PathBuf>,

    /// The part of each class that validates
    #[arg(long, value_name = "SHARE", default_value_t = 0.2, conflicts_with = "validation")]
    pub split: f64,

    /// The ONNX file to write; the report goes beside it, with .html, the numbers with .history.json
    #[arg(short, value_name = "FILE", default_value = "trained.onnx")]
    pub out: PathBuf,

    /// The classes, in their order (default: the folders, in alphabetical order)
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    pub classes: Vec<String>,

    /// Several labels may fit a photo (CSV: separated by |): sigmoid and binary cross-entropy
    #[arg(long)]
    pub multi_label: bool,

    /// Stop at the first photo that cannot be read, instead of listing and skipping them
    #[arg(long)]
    pub strict: bool,

    /// The value or node of the base that the head reads (default: what its classifier reads)
    #[arg(long, value_name = "NODE")]
    pub cut: Option<String>,

    /// Train the base, too, from this layer or block on (a name in the file or how it begins, such as block14)
    #[arg(long, value_name = "NAME")]
    pub unfreeze: Option<String>,

    /// Passes over the photos with --unfreeze, after those of the head alone
    #[arg(long, value_name = "N", default_value_t = 8, requires = "unfreeze")]
    pub unfreeze_epochs: usize,

    /// Adam's rate with --unfreeze, at its highest: it rises in --unfreeze-warm-up epochs, then falls to zero
    #[arg(long, value_name = "RATE", default_value_t = 3e-4, requires = "unfreeze")]
    pub unfreeze_lr: f64,

    /// Epochs, or a part of one, in which the rate of --unfreeze rises
    #[arg(long, value_name = "EPOCHS", default_value_t = 1.0, requires = "unfreeze")]
    pub unfreeze_warm_up: f64,

    /// Pull of unfrozen weights back to where they began
    #[arg(long, value_name = "AMOUNT", default_value_t = 0.0, requires = "unfreeze")]
    pub unfreeze_decay: f32,

    /// Keep the mean of the weights over the steps, of which each leaves this share; 0 for none
    #[arg(long, value_name = "SHARE", default_value_t = 0.98, requires = "unfreeze")]
    pub unfreeze_average: f32,

    /// Of another photo, mix up to this share into each, and into what is wanted of it (manifold mixup)
    #[arg(long, value_name = "SHARE", default_value_t = 0.4, requires = "unfreeze")]
    pub unfreeze_mix: f32,

    /// Passes over the photos
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub epochs: usize,

    /// Photos in a step
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub batch_size: usize,

    /// Adam's rate; several, separated by commas, are tried
    #[arg(long, value_name = "RATE", default_value = "1e-3")]
    lr: String,

    /// Outputs of dense layers before the last: none, 100, 256x100; several are tried
    #[arg(long, value_name = "SIZES", default_value = "100")]
    inner: String,

    /// What follows an inner layer: relu, sigmoid or tanh
    #[arg(long, value_name = "NAME", default_value = "relu")]
    inner_activation: String,

    /// Share of values dropped before the last layer while training; several are tried
    #[arg(long, value_name = "SHARE", default_value = "0.2")]
    dropout: String,

    /// Random changes: hflip, vflip, rotate=DEGREES, shift=SHARE, shear=DEGREES, zoom=SHARE, brightness=LOW..HIGH,
    /// channel_shift=AMOUNT, fill=nearest|reflect|constant|wrap
    #[arg(long, value_name = "LIST")]
    pub augment: Option<String>,

    /// Random views of each photo, computed once and taken in turn; they stand in for fresh ones each epoch
    #[arg(long, value_name = "K", default_value_t = 4, requires = "augment")]
    pub augment_views: usize,

    /// Of the views: the same ones, and so the same features, whatever --seed is
    #[arg(long, value_name = "N", default_value_t = 1, requires = "augment")]
    pub augment_seed: u64,

    /// constant, cosine (to zero at the end) or plateau (a tenth after 5 epochs without anything better)
    #[arg(long, value_name = "NAME", default_value = "constant")]
    schedule: String,

    /// Stop after so many epochs without anything better
    #[arg(long, value_name = "N")]
    pub early_stop: Option<usize>,

    /// Moved from the right class to all alike
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub label_smoothing: f32,

    /// none, or balanced: photos of rare classes count more
    #[arg(long, value_name = "HOW", default_value = "none")]
    class_weights: String,

    /// What says which epoch is best: val_accuracy or val_loss
    #[arg(long, value_name = "NAME", default_value = "val_accuracy")]
    monitor: String,

    /// max, min or auto
    #[arg(long, value_name = "MODE", default_value = "auto")]
    mode: String,

    /// Write a whole model whenever an epoch is the best so far: 'clothing_{epoch:02d}_{val_accuracy:.3f}.onnx'
    #[arg(long, value_name = "NAME")]
    checkpoint: Option<String>,

    /// Write --checkpoint for every epoch
    #[arg(long, requires = "checkpoint")]
    pub save_all: bool,

    /// Of everything else that is random: the split, the first weights, the order of photos, dropout
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Threads that compute features (default: all cores)
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,

    /// Where features are kept (default: edge-pack/features in the user's cache)
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,

    /// One JSON object about the outcome on standard output, instead of the tables
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub recipe: RecipeArgs,
}

/// The options, read.
pub struct Resolved {
    pub rates: Vec<f64>,
    pub inner: Vec<Vec<usize>>,
    pub dropout: Vec<f32>,
    pub activation: Activation,
    pub schedule: Schedule,
    pub monitor: Monitor,
    pub maximise: bool,
    pub balanced: bool,
    pub augment: Option<Augment>,
    pub checkpoint: Option<Template>,
    pub cache: PathBuf,
    pub decode: DecodeOptions,
}

impl Args {
    /// Reads and checks every option.
    pub fn resolve(&self) -> anyhow::Result<Resolved> {
        if !(self.split > 0.0 && self.split < 1.0) {
            bail!("--split {}: a share between 0 and 1 is needed", self.split);
        }
        for (name, value) in [("--epochs", self.epochs), ("--batch-size", self.batch_size)] {
            if value == 0 {
                bail!("{name} 0: at least 1 is needed");
            }
        }
        if !(1..=100).contains(&self.augment_views) {
            bail!("--augment-views {}: 1 to 100 are possible", self.augment_views);
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            bail!("--label-smoothing {}: a share from 0 to below 1 is needed", self.label_smoothing);
        }
        for (name, value, most) in [
            ("--unfreeze-lr", self.unfreeze_lr, 1.0),
            ("--unfreeze-warm-up", self.unfreeze_warm_up, 1e6),
            ("--unfreeze-decay", f64::from(self.unfreeze_decay), 1e6),
            ("--unfreeze-mix", f64::from(self.unfreeze_mix), 0.5),
            ("--unfreeze-average", f64::from(self.unfreeze_average), 0.99999),
        ] {
            if !(0.0..=most).contains(&value) {
                bail!("{name} {value}: 0 to {most} is possible");
            }
        }
        let monitor = match self.monitor.as_str() {
            "val_accuracy" => Monitor::ValAccuracy,
            "val_loss" => Monitor::ValLoss,
            other => bail!("--monitor {other}: neither val_accuracy nor val_loss"),
        };
        let maximise = match self.mode.as_str() {
            "auto" => monitor == Monitor::ValAccuracy,
            "max" => true,
            "min" => false,
            other => bail!("--mode {other}: none of max, min, auto"),
        };
        let checkpoint = self.checkpoint.as_deref().map(Template::parse).transpose();
        let checkpoint = checkpoint.map_err(|why| anyhow::anyhow!("--checkpoint {why}"))?;
        if self.save_all && checkpoint.as_ref().is_some_and(|c| !c.tells_epochs_apart()) {
            bail!(
                "--save-all needs {{epoch}} in the name of --checkpoint, or every epoch would replace the one before"
            );
        }
        Ok(Resolved {
            rates: list("--lr", &self.lr, |v| {
                v.parse().ok().filter(|r: &f64| r.is_finite() && *r > 0.0 && *r <= 10.0)
            })?,
            inner: list("--inner", &self.inner, inner)?,
            dropout: list("--dropout", &self.dropout, |v| v.parse().ok().filter(|d: &f32| (0.0..1.0).contains(d)))?,
            activation: Activation::named(&self.inner_activation).with_context(|| {
                format!("--inner-activation {}: none of {}", self.inner_activation, Activation::NAMES.join(", "))
            })?,
            schedule: match self.schedule.as_str() {
                "constant" => Schedule::Constant,
                "cosine" => Schedule::Cosine,
                "plateau" => Schedule::Plateau,
                other => bail!("--schedule {other}: none of constant, cosine, plateau"),
            },
            monitor,
            maximise,
            balanced: match self.class_weights.as_str() {
                "none" => false,
                "balanced" => true,
                other => bail!("--class-weights {other}: neither none nor balanced"),
            },
            augment: self.augment.as_deref().map(|a| Augment::parse(a).context("--augment")).transpose()?,
            checkpoint,
            cache: self.cache.clone().map_or_else(cache_folder, Ok)?,
            decode: DecodeOptions { exif_orientation: self.recipe.exif },
        })
    }
}

/// Values separated by commas.
fn list<T>(option: &str, text: &str, parse: impl Fn(&str) -> Option<T>) -> anyhow::Result<Vec<T>> {
    let value = |v: &str| parse(v.trim()).with_context(|| format!("{option} {text}: {v:?} is no value for it"));
    text.split(',').map(value).collect()
}

/// `none`, `100` or `256x100`.
fn inner(text: &str) -> Option<Vec<usize>> {
    match text {
        "none" => Some(vec![]),
        sizes => sizes.split('x').map(|s| s.parse().ok().filter(|n| (1..=65536).contains(n))).collect(),
    }
}

/// Where features are kept that can be computed again.
fn cache_folder() -> anyhow::Result<PathBuf> {
    let cache = edge_system::folder::cache();
    Ok(cache.context("no home folder is known for the features; name one with --cache")?.join("features"))
}
