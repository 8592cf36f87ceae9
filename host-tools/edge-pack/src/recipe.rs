//! The options that say how a bare ONNX file is to be used.

use anyhow::{Context, bail};
use clap::Args;
use edge_device::{Recipe, ResizeChoice};
use edge_package::{Label, activation_from_name, parse_labels, preprocess_from_json};
use edge_vision::{Interpolation, Layout, Preprocess};
use std::path::{Path, PathBuf};

/// Far more than any label file has; a bound for reading whatever path was given.
const MAX_LABEL_FILE: u64 = 64 << 20;

#[derive(Args, Clone, Default)]
#[command(next_help_heading = "What the model wants (flags override what the file says)")]
pub struct RecipeArgs {
    /// Labels: one per line (optionally `n02123045 tabby`), a JSON array, or imagenet_class_index.json
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,

    /// tf (x/127.5 - 1), torch, caffe or none, as in keras.applications
    #[arg(long, value_name = "MODE", conflicts_with_all = ["mean", "std"])]
    preprocess: Option<String>,

    /// Explicit preprocess (x - mean) / std on 0..255, as R,G,B or one number
    #[arg(long, value_name = "R,G,B", requires = "std", allow_hyphen_values = true)]
    mean: Option<String>,

    /// See --mean
    #[arg(long, value_name = "R,G,B", requires = "mean", allow_hyphen_values = true)]
    std: Option<String>,

    /// Channels in the order blue, green, red (with --mean and --std)
    #[arg(long, requires = "mean", conflicts_with = "preprocess")]
    bgr: bool,

    /// Turn pictures from files as their EXIF orientation says (Keras does not)
    #[arg(long)]
    pub exif: bool,

    /// squash (as Keras); fit-shortest[:PIXELS]: shortest side to PIXELS, then centre crop; fit-longest[:R,G,B]: all of
    /// the picture, padded with black or that colour
    #[arg(long, value_name = "POLICY")]
    resize: Option<String>,

    /// nearest (as Keras), bilinear, bicubic, lanczos, box or hamming
    #[arg(long, value_name = "FILTER")]
    interpolation: Option<String>,

    /// Input size in pixels, N or WIDTHxHEIGHT, where the model leaves it open
    #[arg(long, value_name = "N")]
    input_size: Option<String>,

    /// nhwc or nchw, where the model's shape leaves it open
    #[arg(long)]
    layout: Option<String>,

    /// Which of the model's outputs holds the classes, where there are several
    #[arg(long, value_name = "NAME")]
    output: Option<String>,

    /// softmax, sigmoid or probabilities (nothing is applied)
    #[arg(long, value_name = "NAME")]
    activation: Option<String>,

    /// Decide "unknown" when the best score is below this (0..1)
    #[arg(long, value_name = "SCORE")]
    threshold: Option<f32>,
}

impl RecipeArgs {
    /// The first option that was given, for refusing them where they have no meaning.
    pub fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--labels", self.labels.is_some()),
            ("--preprocess", self.preprocess.is_some()),
            ("--mean", self.mean.is_some()),
            ("--resize", self.resize.is_some()),
            ("--interpolation", self.interpolation.is_some()),
            ("--input-size", self.input_size.is_some()),
            ("--layout", self.layout.is_some()),
            ("--output", self.output.is_some()),
            ("--activation", self.activation.is_some()),
            ("--threshold", self.threshold.is_some()),
            ("--exif", self.exif),
        ];
        given.into_iter().find_map(|(name, given)| given.then_some(name))
    }

    /// Reads and checks every option.
    pub fn resolve(&self, name: String) -> anyhow::Result<Recipe> {
        if self.threshold.is_some_and(|t| !(0.0..=1.0).contains(&t)) {
            bail!("--threshold is a score from 0 to 1");
        }
        Ok(Recipe {
            name,
            labels: self.labels.as_deref().map(read_labels).transpose()?,
            preprocess: self.preprocess()?,
            resize: self.resize.as_deref().map(parse_resize).transpose()?,
            interpolation: self.interpolation.as_deref().map(parse_interpolation).transpose()?,
            size: self.size()?,
            layout: self.layout.as_deref().map(parse_layout).transpose()?,
            output: self.output.clone(),
            activation: self
                .activation
                .as_deref()
                .map(|a| activation_from_name(a).context("--activation"))
                .transpose()?,
            threshold: self.threshold,
            exif_orientation: self.exif,
            ..Recipe::default()
        })
    }

    /// `--input-size` alone, for a model that is converted before it is packaged.
    pub fn size(&self) -> anyhow::Result<Option<(u32, u32)>> {
        self.input_size.as_deref().map(parse_input_size).transpose()
    }

    fn preprocess(&self) -> anyhow::Result<Option<Preprocess>> {
        let value = match (&self.preprocess, &self.mean, &self.std) {
            (None, Some(mean), Some(std)) => {
                let (mean, std) = (three(mean).context("--mean")?, three(std).context("--std")?);
                serde_json::json!({"mean": mean, "std": std, "bgr": self.bgr})
            }
            (Some(text), _, _) if text.trim_start().starts_with('{') => {
                serde_json::from_str(text).with_context(|| format!("--preprocess {text}: not JSON"))?
            }
            (Some(name), _, _) => name.as_str().into(),
            _ => return Ok(None),
        };
        preprocess_from_json(value).map(Some).context("--preprocess")
    }
}

fn read_labels(path: &Path) -> anyhow::Result<Vec<Label>> {
    use std::io::Read;
    let context = || format!("cannot read the labels {}", path.display());
    let mut bytes = vec![];
    let file = std::fs::File::open(path).with_context(context)?;
    file.take(MAX_LABEL_FILE + 1).read_to_end(&mut bytes).with_context(context)?;
    if bytes.len() as u64 > MAX_LABEL_FILE {
        bail!("{}: larger than any label file", path.display());
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| anyhow::anyhow!("{}: not UTF-8 text; is this a label file?", path.display()))?;
    parse_labels(&text).with_context(|| path.display().to_string())
}

/// `127,127,127` or `127`.
fn three(text: &str) -> anyhow::Result<[f32; 3]> {
    let numbers: Option<Vec<f32>> =
        text.split(',').map(|n| n.trim().parse().ok().filter(|v: &f32| v.is_finite())).collect();
    match numbers.as_deref() {
        Some([v]) => Ok([*v; 3]),
        Some([r, g, b]) => Ok([*r, *g, *b]),
        _ => bail!("{text:?} is neither one number nor three, such as 123.7,116.3,103.5"),
    }
}

fn parse_resize(text: &str) -> anyhow::Result<ResizeChoice> {
    let (policy, number) = match text.split_once([':', '=']) {
        Some((policy, number)) => (policy, Some(number)),
        None => (text, None),
    };
    match (policy, number) {
        ("squash", None) => Ok(ResizeChoice::Squash),
        ("fit-shortest", None) => Ok(ResizeChoice::FitShortest(None)),
        ("fit-shortest", Some(pixels)) => {
            let pixels = pixels.parse().ok().filter(|p| (1..=8192).contains(p));
            let pixels = pixels.with_context(|| format!("--resize {text}: not a number of pixels"))?;
            Ok(ResizeChoice::FitShortest(Some(pixels)))
        }
        ("fit-longest", None) => Ok(ResizeChoice::FitLongest([0; 3])),
        ("fit-longest", Some(color)) => {
            let levels: Option<Vec<u8>> = color.split(',').map(|level| level.trim().parse().ok()).collect();
            match levels.as_deref() {
                Some([grey]) => Ok(ResizeChoice::FitLongest([*grey; 3])),
                Some([r, g, b]) => Ok(ResizeChoice::FitLongest([*r, *g, *b])),
                _ => bail!("--resize {text}: not a colour, one number 0..255 or three, such as 114,114,114"),
            }
        }
        _ => bail!("--resize {text}: none of squash, fit-shortest[:PIXELS], fit-longest[:R,G,B]"),
    }
}

fn parse_interpolation(text: &str) -> anyhow::Result<Interpolation> {
    text.parse().map_err(|_| {
        anyhow::anyhow!("--interpolation {text}: none of nearest, bilinear, bicubic, lanczos, box, hamming")
    })
}

pub fn parse_layout(text: &str) -> anyhow::Result<Layout> {
    match text.to_ascii_lowercase().as_str() {
        "nhwc" => Ok(Layout::Nhwc),
        "nchw" => Ok(Layout::Nchw),
        other => bail!("--layout {other}: neither nhwc nor nchw"),
    }
}

/// `299` or `320x240`.
pub fn parse_input_size(text: &str) -> anyhow::Result<(u32, u32)> {
    let side = |s: &str| s.parse().ok().filter(|n| (1..=8192).contains(n));
    let size = match text.split_once('x') {
        Some((w, h)) => side(w).zip(side(h)),
        None => side(text).map(|n| (n, n)),
    };
    size.with_context(|| format!("--input-size {text}: neither a number of pixels nor WIDTHxHEIGHT"))
}
