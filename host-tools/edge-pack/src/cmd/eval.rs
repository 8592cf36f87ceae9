//! `edge-pack eval`: accuracy on photos sorted into one folder per class.

use crate::recipe::RecipeArgs;
use crate::{model, out};
use anyhow::{Context, bail};
use edge_package::Label;
use edge_vision::{DecodeOptions, load, picture_paths};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A confusion matrix wider than this is for `--json` only; the table then lists as many mistakes.
const WIDEST_TABLE: usize = 20;

#[derive(clap::Args)]
pub struct Args {
    /// A package or an ONNX file
    model: PathBuf,

    /// A folder with one folder of photos per class, named as the labels (or their ids)
    photos: PathBuf,

    /// One JSON object on standard output; confusion[i][j] counts photos of class i taken for class j
    #[arg(long)]
    json: bool,

    /// Threads that compute (default: all cores)
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    #[command(flatten)]
    recipe: RecipeArgs,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut classifier = model::load(&args.model, &args.recipe, &model::load_options(args.threads))?;
    let labels = classifier.manifest().labels.clone();
    let photos = labelled(&args.photos, &labels)?;
    let bar = ProgressBar::new(photos.len() as u64)
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} photos, {eta} left")?);
    let mut confusion = vec![vec![0u32; labels.len()]; labels.len()];
    let mut unreadable = 0;
    for (truth, path) in &photos {
        let classified = load(path, &DecodeOptions::default())
            .map_err(anyhow::Error::from)
            .and_then(|picture| classifier.classify(&picture, 1).with_context(|| path.display().to_string()));
        match classified {
            Ok(result) => confusion[*truth][result.top[0].0] += 1,
            Err(e) => {
                bar.suspend(|| out::tell(format_args!("edge-pack: {e:#}")));
                unreadable += 1;
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let result = Evaluation { names: unique_names(&labels), confusion };
    if args.json {
        out::json(&result.json(unreadable))?;
    } else {
        result.table()?;
    }
    if unreadable > 0 {
        out::tell(format_args!(
            "edge-pack: {unreadable} of {} photo(s) could not be read; they are not counted",
            photos.len()
        ));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// (class, photo) for every photo under the class folders.
fn labelled(root: &Path, labels: &[Label]) -> anyhow::Result<Vec<(usize, PathBuf)>> {
    let context = || format!("cannot open {}", root.display());
    let mut folders: Vec<PathBuf> = vec![];
    for entry in std::fs::read_dir(root).with_context(context)? {
        let path = entry.with_context(context)?.path();
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden {
            folders.push(path);
        }
    }
    folders.sort();
    let names = unique_names(labels);
    let mut photos = vec![];
    let mut unknown = vec![];
    for folder in &folders {
        let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let class = (0..labels.len()).find(|i| names[*i] == name || labels[*i].id.as_deref() == Some(&name));
        let Some(class) = class else {
            unknown.push(name);
            continue;
        };
        let found = picture_paths(folder).with_context(|| format!("cannot open {}", folder.display()))?;
        photos.extend(found.into_iter().map(|path| (class, path)));
    }
    if !unknown.is_empty() {
        let known: Vec<&str> = names.iter().take(20).map(String::as_str).collect();
        bail!(
            "{}: folder(s) {} are named after no label; the {} labels are {}{}",
            root.display(),
            unknown.join(", "),
            labels.len(),
            known.join(", "),
            if labels.len() > known.len() { ", …" } else { "" }
        );
    }
    if photos.is_empty() {
        bail!("{} has no class folders with pictures (.jpg, .jpeg, .png)", root.display());
    }
    Ok(photos)
}

/// A name for each class; where labels repeat (ImageNet has two kinds of crane), with its id or number.
fn unique_names(labels: &[Label]) -> Vec<String> {
    let name = |(i, label): (usize, &Label)| {
        let twins = labels.iter().filter(|l| l.label == label.label).count();
        match (&label.id, twins) {
            (_, 1) => label.label.clone(),
            (Some(id), _) => format!("{} ({id})", label.label),
            (None, _) => format!("{} (class {i})", label.label),
        }
    };
    labels.iter().enumerate().map(name).collect()
}

struct Evaluation {
    names: Vec<String>,
    /// Row: truth; column: taken for.
    confusion: Vec<Vec<u32>>,
}

impl Evaluation {
    fn n(&self) -> u32 {
        self.confusion.iter().flatten().sum()
    }

    fn accuracy(&self) -> f64 {
        let right: u32 = (0..self.names.len()).map(|i| self.confusion[i][i]).sum();
        f64::from(right) / f64::from(self.n().max(1))
    }

    /// (photos of the class, right ones, taken for the class)
    fn class(&self, i: usize) -> (u32, u32, u32) {
        let predicted = self.confusion.iter().map(|row| row[i]).sum();
        (self.confusion[i].iter().sum(), self.confusion[i][i], predicted)
    }

    fn json(&self, unreadable: usize) -> Value {
        let ratio = |a: u32, b: u32| if b == 0 { Value::Null } else { json!(f64::from(a) / f64::from(b)) };
        let per_class: Map<String, Value> = (0..self.names.len())
            .map(|i| {
                let (n, right, predicted) = self.class(i);
                let value = json!({
                    "n": n, "correct": right, "recall": ratio(right, n), "precision": ratio(right, predicted),
                });
                (self.names[i].clone(), value)
            })
            .collect();
        json!({
            "n": self.n(),
            "accuracy": self.accuracy(),
            "per_class": per_class,
            "confusion": self.confusion,
            "labels": self.names,
            "unreadable": unreadable,
        })
    }

    fn table(&self) -> anyhow::Result<()> {
        out::line(format_args!("{} photos, accuracy {:.4}", self.n(), self.accuracy()))?;
        let width = self.names.iter().map(|n| n.chars().count()).max().unwrap_or(0).clamp(5, 24);
        out::line(format_args!(
            "\n{:width$}  {:>6} {:>7} {:>7} {:>9}",
            "class", "photos", "right", "recall", "precision"
        ))?;
        let percent = |a: u32, b: u32| if b == 0 { "-".into() } else { format!("{:.3}", f64::from(a) / f64::from(b)) };
        for (i, name) in self.names.iter().enumerate() {
            let (n, right, predicted) = self.class(i);
            if n + predicted > 0 {
                let (recall, precision) = (percent(right, n), percent(right, predicted));
                out::line(format_args!("{name:width$}  {n:>6} {right:>7} {recall:>7} {precision:>9}"))?;
            }
        }
        if self.names.len() <= WIDEST_TABLE {
            out::line("\nconfusion (row: truth, column: taken for, in the same order)")?;
            for (name, row) in self.names.iter().zip(&self.confusion) {
                let cells: String = row.iter().map(|n| format!("{n:>5}")).collect();
                out::line(format_args!("{name:width$}{cells}"))?;
            }
            return Ok(());
        }
        let mut mistakes: Vec<(u32, usize, usize)> = vec![];
        for (truth, row) in self.confusion.iter().enumerate() {
            let wrong = row.iter().enumerate().filter(|(taken, n)| *taken != truth && **n > 0);
            mistakes.extend(wrong.map(|(taken, n)| (*n, truth, taken)));
        }
        mistakes.sort_by_key(|(n, truth, taken)| (std::cmp::Reverse(*n), *truth, *taken));
        for (n, truth, taken) in mistakes.into_iter().take(WIDEST_TABLE) {
            out::line(format_args!("{n:>6} x {} taken for {}", self.names[truth], self.names[taken]))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_labels_get_a_name_of_their_own() {
        let label = |id: Option<&str>, label: &str| Label { id: id.map(String::from), label: label.into() };
        let labels = [label(Some("n1"), "crane"), label(Some("n2"), "crane"), label(None, "cup"), label(None, "crane")];
        assert_eq!(unique_names(&labels), ["crane (n1)", "crane (n2)", "cup", "crane (class 3)"]);
    }
}
