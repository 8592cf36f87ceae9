//! Calibration, trials and examination: from a float file to a quantized one with everything that is known of it.

use super::args::{How, Kind, Runtime};
use super::photos::{self, Photos};
use super::search::{self, Trial, accuracy};
use crate::progress::bar;
use anyhow::{Context, bail};
use edge_engine::{LoadOptions, OnnxModel};
use edge_model::quantize::{LayerNoise, Method, Options, Pictures, Prepared, QuantizeError, Verdicts, weights_only};
use edge_package::Manifest;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::sync::atomic::AtomicBool;

/// Photos that calibrate where it is not said how many.
const CALIBRATING: usize = 200;
/// Photos that are compared on where none are given for that.
const COMPARED: usize = 300;
/// Photos that layers are looked at alone with.
const EXAMINED: usize = 8;
/// Photos that equalization is tried on.
const TRIED: usize = 8;
/// How far channels may be evened out; none at all is the first.
const STRENGTHS: [f32; 2] = [0.0, 0.5];
/// Evening out has to bring so many dB.
const PAYS: f64 = 0.3;

/// What files are compared on.
pub struct Bench<'a> {
    pub manifest: &'a Manifest,
    pub load: LoadOptions,
    pub photos: &'a Photos,
    pub stop: &'a AtomicBool,
}

impl Bench<'_> {
    /// What a file says of the photos.
    pub fn verdicts(&self, onnx: &[u8], what: &str) -> Result<Verdicts, QuantizeError> {
        let which: Vec<usize> = (0..self.photos.len()).collect();
        self.some(onnx, &which, what)
    }

    /// What it says of some of them.
    pub fn some(&self, onnx: &[u8], which: &[usize], what: &str) -> Result<Verdicts, QuantizeError> {
        let bar = if what.is_empty() { ProgressBar::hidden() } else { bar(which.len(), what, "photos") };
        let contract = (&self.manifest.input, self.manifest.model.output.as_str());
        let verdicts = Verdicts::of(onnx, contract, &self.load, (self.photos, which), self.stop, &mut |done| {
            bar.set_position(done as u64);
        });
        bar.finish_and_clear();
        verdicts
    }
}

/// What was measured of a finished file.
pub struct Quantized {
    /// All that was tried; empty where nothing could be compared.
    pub trials: Vec<Trial>,
    /// Which of them the file is.
    pub taken: usize,
    /// What the float network says of the photos.
    pub float: Verdicts,
    /// Its accuracy on the labelled ones.
    pub float_accuracy: Option<f64>,
    /// The photos that were compared on.
    pub photos: Option<Photos>,
    /// Layers, in the order of computation; of int8 only.
    pub layers: Vec<LayerNoise>,
    /// Nodes that cannot be quantized, and why.
    pub left: Vec<(String, String)>,
    /// Photos that calibrated.
    pub calibrating: usize,
    /// How far channels were evened out.
    pub equalized: f32,
    /// What was tried of that: strength, dB.
    pub strengths: Vec<(f32, f64)>,
    /// The file.
    pub onnx: Vec<u8>,
    /// Size of the float file.
    pub float_bytes: usize,
}

impl Quantized {
    /// The trial that the file is.
    pub fn trial(&self) -> Option<&Trial> {
        self.trials.get(self.taken)
    }

    /// What the file and its package say of how they were made.
    pub fn property(&self, kind: Kind) -> Value {
        let trial = self.trial();
        json!({
            "target": kind.name(),
            "method": match kind {
                Kind::Int8 => "post-training, QDQ, weights per channel rounded by second moments, biases corrected",
                Kind::F16 => "weights rounded to float16",
                Kind::Int8Weights if self.calibrating > 0 => {
                    "weights per channel rounded by second moments, biases corrected"
                }
                Kind::Int8Weights => "weights per channel rounded to the nearest",
            },
            "agreement": trial.map(|t| round(t.agreement.share())),
            "photos": trial.map(|t| t.agreement.pictures),
            "snr_db": trial.map(|t| round(t.agreement.snr)),
            "accuracy_float": self.float_accuracy.map(round),
            "accuracy": trial.and_then(|t| t.accuracy).map(round),
            "calibration_photos": self.calibrating,
            "equalized": self.equalized,
            "float_nodes": trial.map(|t| &t.float),
        })
    }
}

/// Four digits.
pub fn round(v: f64) -> f64 {
    (v * 1e4).round() / 1e4
}

/// Quantizes a file as asked.
pub fn quantize(
    onnx: &[u8],
    manifest: &Manifest,
    (how, kind): (&How, Kind),
    load: LoadOptions,
    stop: &AtomicBool,
) -> anyhow::Result<Quantized> {
    let model = OnnxModel::parse(onnx)?;
    if !how.keep_float.is_empty() {
        search::check_names(&how.keep_float, &edge_model::quantize::layers(&model)?)?;
    }
    let (calibration, comparison) = read_photos(how, kind, manifest, stop)?;
    let mut result = Quantized {
        trials: vec![],
        taken: 0,
        float: Verdicts::default(),
        float_accuracy: None,
        photos: None,
        layers: vec![],
        left: vec![],
        calibrating: calibration.as_ref().map_or(0, Photos::len),
        equalized: 0.0,
        strengths: vec![],
        onnx: vec![],
        float_bytes: onnx.len(),
    };
    let Some(photos) = comparison else {
        result.onnx = weights_only(&model, kind.target())?;
        return Ok(result);
    };
    let bench = Bench { manifest, load, photos: &photos, stop };
    if kind != Kind::Int8 {
        result.onnx = match &calibration {
            None => weights_only(&model, kind.target())?,
            Some(calibration) => {
                let options = Options { equalize: 0.0, ..options(how, load) };
                let which: Vec<usize> = (0..calibration.len()).collect();
                let (stages, input) = (Stages::new(), &manifest.input);
                let ready = Prepared::new(&model, input, calibration, &which, &options, stop, &mut stages.hear())?;
                stages.done();
                ready.int8_weights()?
            }
        };
        result.float = bench.verdicts(onnx, "float")?;
        let verdicts = bench.verdicts(&result.onnx, kind.name())?;
        result.trials.push(Trial {
            what: format!("weights in {}", if kind == Kind::F16 { "float16" } else { "int8" }),
            float: vec![],
            agreement: result.float.agreement(&verdicts),
            accuracy: accuracy(&verdicts, &photos),
            bytes: result.onnx.len(),
            onnx: vec![],
            verdicts,
        });
    } else {
        let calibration = calibration.context("--calibration is missing")?;
        if photos::are_blank(&calibration) {
            return Err(QuantizeError::Blank.into());
        }
        result.strengths = strengths(&model, onnx, manifest, how, &calibration, load, stop)?;
        let plain = result.strengths.first().map_or(0.0, |s| s.1);
        let best = result.strengths.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
        result.equalized = best.filter(|b| b.1 >= plain + PAYS).map_or(0.0, |b| b.0);
        let options = Options { equalize: result.equalized, ..options(how, load) };
        let which: Vec<usize> = (0..calibration.len()).collect();
        let stages = Stages::new();
        let input = &manifest.input;
        let mut ready = Prepared::new(&model, input, &calibration, &which, &options, stop, &mut stages.hear())?;
        let few = spread(calibration.len(), EXAMINED);
        ready.choose_ranges(input, (&calibration, &few), stop, &mut stages.hear())?;
        stages.done();
        result.float = bench.verdicts(onnx, "float")?;
        let (trials, taken) = search::search(&ready, &bench, &result.float, &how.keep_float, how.goal())?;
        let float = trials[taken].float.iter().cloned().collect();
        let stages = Stages::new();
        result.layers =
            ready.examine(&trials[taken].onnx, &float, input, (&calibration, &few), stop, &mut stages.hear())?;
        stages.done();
        result.left = ready.left();
        result.onnx.clone_from(&trials[taken].onnx);
        (result.trials, result.taken) = (trials, taken);
    }
    result.float_accuracy = accuracy(&result.float, &photos);
    result.photos = Some(photos);
    Ok(result)
}

fn options(how: &How, load: LoadOptions) -> Options {
    Options { tensorrt: how.for_ == Some(Runtime::Tensorrt), load, ..Options::default() }
}

/// How many dB each strength of equalization gives the logits of a few photos.
fn strengths(
    model: &OnnxModel<'_>,
    onnx: &[u8],
    manifest: &Manifest,
    how: &How,
    photos: &Photos,
    load: LoadOptions,
    stop: &AtomicBool,
) -> anyhow::Result<Vec<(f32, f64)>> {
    let few = spread(photos.len(), TRIED);
    let bench = Bench { manifest, load, photos, stop };
    let float = bench.some(onnx, &few, "float")?;
    let mut found = vec![];
    for strength in STRENGTHS {
        let options = Options { equalize: strength, learned: false, ..options(how, load) };
        let stages = Stages::new();
        let mut ready = Prepared::new(model, &manifest.input, photos, &few, &options, stop, &mut stages.hear())?;
        stages.done();
        if strength > 0.0 && ready.equalized == 0 {
            break;
        }
        ready.set_method(Method::Mse);
        let bytes = ready.quantize(&Default::default())?;
        let verdicts = bench.some(&bytes, &few, "equalization tried")?;
        found.push((strength, float.agreement(&verdicts).snr));
    }
    Ok(found)
}

/// `count` of so many, evenly.
pub fn spread(of: usize, count: usize) -> Vec<usize> {
    let count = count.min(of);
    (0..count).map(|i| i * of / count).collect()
}

/// A bar that goes through stages.
struct Stages(ProgressBar);

impl Stages {
    fn new() -> Stages {
        Stages(bar(0, "", "photos"))
    }

    fn hear(&self) -> impl FnMut(&'static str, usize, usize) + '_ {
        |stage, done, of| {
            self.0.set_message(stage);
            self.0.set_length(of as u64);
            self.0.set_position(done as u64);
        }
    }

    fn done(&self) {
        self.0.finish_and_clear();
    }
}

/// Photos that calibrate, and others to compare on.
fn read_photos(
    how: &How,
    kind: Kind,
    manifest: &Manifest,
    stop: &AtomicBool,
) -> anyhow::Result<(Option<Photos>, Option<Photos>)> {
    // float16 needs none.
    let calibrates = kind != Kind::F16;
    let wanted = how.photos.unwrap_or(CALIBRATING);
    let all = how.calibration.as_deref().map(|f| photos::listed(f, "--calibration")).transpose()?;
    // Where all are needed for one thing, a third is kept for the other.
    let count = all.as_ref().map_or(0, |all| match (&how.validation, calibrates) {
        (_, false) => 0,
        (None, true) => wanted.min(all.len() - all.len() / 3),
        (Some(_), true) => wanted,
    });
    let (own, rest) = all.as_ref().map(|all| photos::spread(all, count)).unwrap_or_default();
    let (others, root) = match (&how.validation, &how.calibration) {
        (Some(folder), _) => (photos::listed(folder, "--validation")?, folder),
        (None, Some(folder)) => (photos::spread(&rest, COMPARED).0, folder),
        (None, None) => return Ok((None, None)),
    };
    if others.is_empty() {
        bail!(
            "{}: too few photos; some must be left over that do not calibrate, to compare on. Give 3 or more, or others with --validation DIR",
            root.display()
        );
    }
    let calibration = match (&how.calibration, calibrates) {
        (Some(folder), true) => Some(photos::read(own, folder, manifest, "reading photos to calibrate with", stop)?),
        _ => None,
    };
    Ok((calibration, Some(photos::read(others, root, manifest, "reading photos to compare on", stop)?)))
}

/// A photo whose class changed.
pub struct Changed<'a> {
    pub path: &'a std::path::Path,
    /// Class before, after, and what the folder says.
    pub before: usize,
    pub after: usize,
    pub truth: Option<usize>,
    /// Logits before and after.
    pub logits: [&'a [f32]; 2],
}

impl Quantized {
    /// The photos whose class is another one than that of the float network.
    pub fn changed(&self) -> Vec<Changed<'_>> {
        let (Some(photos), Some(trial)) = (&self.photos, self.trial()) else { return vec![] };
        let (before, after) = (self.float.classes(), trial.verdicts.classes());
        let change = |i: &usize| Changed {
            path: &photos.paths[*i],
            before: before[*i],
            after: after[*i],
            truth: photos.truth[*i],
            logits: [&self.float.logits[*i], &trial.verdicts.logits[*i]],
        };
        trial.agreement.changed.iter().map(change).collect()
    }
}
