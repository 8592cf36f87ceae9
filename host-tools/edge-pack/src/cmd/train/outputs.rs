//! What a training writes: the model, checkpoints, the report, the numbers.

use super::args::{Args, Resolved};
use super::photos::{Data, Features, Look, Part};
use super::tune;
use crate::out;
use anyhow::Context;
use edge_train::checkpoint::Template;
use edge_train::fit::{Fitted, Settings};
use edge_train::head::Head;
use edge_train::history::{Candidate, Epoch};
use edge_train::photos::Photo;
use edge_train::report::{self, Report};
use edge_train::sheet;
use edge_train::tail::Tail;
use edge_vision::DecodeOptions;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Photos on the contact sheet of augmentation.
const SHEET: usize = 6;

/// Makes a model's file.
pub type Assemble<'a> = dyn Fn(Option<&Tail>, &Head) -> anyhow::Result<Vec<u8>> + 'a;

/// Where everything goes.
pub struct Outputs {
    onnx: PathBuf,
    report: PathBuf,
    history: PathBuf,
    sheet: PathBuf,
    checkpoint: Option<Template>,
    save_all: bool,
}

/// What came of a training.
pub struct Outcome<'a> {
    pub args: &'a Args,
    pub settings: &'a Settings,
    pub fitted: &'a Fitted,
    /// What was unfrozen, where that made it better.
    pub tail: Option<&'a Tail>,
    pub candidates: &'a [Candidate],
    pub data: &'a Data,
    pub features: &'a Features,
    /// The model.
    pub onnx: &'a [u8],
    /// Where the base was cut.
    pub cut: &'a str,
    /// The base's file.
    pub base: &'a [u8],
}

impl Outputs {
    /// Checks that what will be written is nothing that is read, before hours go by.
    pub fn new(args: &Args, resolved: &Resolved) -> anyhow::Result<Outputs> {
        let outputs = Outputs {
            onnx: args.out.clone(),
            report: args.out.with_extension("html"),
            history: args.out.with_extension("history.json"),
            sheet: args.out.with_extension("augment.png"),
            checkpoint: resolved.checkpoint.clone(),
            save_all: args.save_all,
        };
        let inputs = || {
            let read = [Some(&args.base), Some(&args.data), args.validation.as_ref()];
            read.into_iter().flatten().map(PathBuf::as_path)
        };
        for file in [&outputs.onnx, &outputs.report, &outputs.history] {
            out::not_an_input(file, inputs())?;
        }
        let folder = outputs.onnx.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        anyhow::ensure!(folder.is_dir(), "-o {}: there is no folder {}", args.out.display(), folder.display());
        Ok(outputs)
    }

    /// Writes a checkpoint, where the epoch deserves one.
    pub fn checkpoint(
        &self,
        tail: Option<&Tail>,
        head: &Head,
        epoch: &Epoch,
        best: bool,
        assemble: &Assemble<'_>,
    ) -> anyhow::Result<()> {
        let Some(template) = self.checkpoint.as_ref().filter(|_| best || self.save_all) else { return Ok(()) };
        out::write_file(Path::new(&template.name(epoch)), &assemble(tail, head)?, 0o644)
    }

    /// Writes what augmentation does to a few photos.
    pub fn contact_sheet(&self, args: &Args, resolved: &Resolved, data: &Data, look: &Look<'_>) -> anyhow::Result<()> {
        let Some(augment) = &resolved.augment else { return Ok(()) };
        let step = (data.train.len() / SHEET).max(1);
        let mut rows = vec![];
        for photo in data.train.iter().step_by(step).take(SHEET) {
            rows.push(look.views(photo, augment, args.augment_seed, SHEET)?);
        }
        out::write_file(&self.sheet, &sheet::png(&rows).context("the contact sheet")?, 0o644)?;
        out::tell(format_args!("{}: what augmentation does", self.sheet.display()));
        Ok(())
    }

    /// Writes model, report and numbers, and says so.
    pub fn write(&self, outcome: &Outcome<'_>) -> anyhow::Result<()> {
        let Outcome { args, settings, fitted, candidates, data, features, .. } = outcome;
        out::write_file(&self.onnx, outcome.onnx, 0o644)?;
        let model = (outcome.tail, &fitted.head);
        let predict = |photos: &[Photo], part| features.predictions(model, photos, part, args);
        let validation = predict(&data.validation, Part::Validation)?;
        let train = predict(&data.train, Part::Train)?;
        let metrics = report::metrics(data.classes.len(), &validation);
        let details = json!({
            "base": args.base.display().to_string(),
            "base_blake3": digest(outcome.base),
            "cut": outcome.cut,
            "data": args.data.display().to_string(),
            "photos": {"train": data.train.len(), "validation": data.validation.len(), "corrupt": data.corrupt.len()},
            "augment": args.augment,
            "views": features.views(),
            "training": settings,
            "unfreeze": args.unfreeze.as_ref().map(|name| json!({"name": name, "tuning": tune::tuning(args)})),
        });
        let command: Vec<String> = std::env::args().map(|a| quoted(&a)).collect();
        let page = report::html(&Report {
            title: &self.onnx.file_stem().map_or("model".into(), |s| s.to_string_lossy()),
            classes: &data.classes,
            history: &fitted.history,
            best: fitted.best.epoch,
            validation: &validation,
            train: &train,
            findings: &data.findings,
            candidates,
            settings: &details,
            command: &command.join(" "),
            decode: DecodeOptions { exif_orientation: args.recipe.exif },
        });
        out::write_file(&self.report, page.as_bytes(), 0o644)?;
        let history = json!({
            "history": fitted.history,
            "best": fitted.best,
            "classes": data.classes,
            "metrics": metrics,
            "candidates": candidates,
            "findings": data.findings,
            "settings": details,
            "command": command,
        });
        out::write_file(&self.history, &serde_json::to_vec_pretty(&history)?, 0o644)?;
        self.summary(outcome, &metrics, validation.len())
    }

    fn summary(&self, outcome: &Outcome<'_>, metrics: &report::Metrics, count: usize) -> anyhow::Result<()> {
        let best = outcome.fitted.best;
        if outcome.args.json {
            let value: Value = json!({
                "model": self.onnx.display().to_string(),
                "report": self.report.display().to_string(),
                "history": self.history.display().to_string(),
                "best": best,
                "metrics": metrics,
                "classes": outcome.data.classes,
            });
            return out::json(&value);
        }
        out::line(format_args!(
            "{}: validation accuracy {:.4} on {count} photos (epoch {}), {:.1} MB; report {}, numbers {}",
            self.onnx.display(),
            best.val_accuracy,
            best.epoch,
            outcome.onnx.len() as f64 / 1e6,
            self.report.display(),
            self.history.display()
        ))
    }
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// An argument as a shell reads it.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:%+@".contains(c);
    match !argument.is_empty() && argument.chars().all(plain) {
        true => argument.into(),
        false => format!("'{}'", argument.replace('\'', r"'\''")),
    }
}
