//! `edge-pack eval`: accuracy on photos sorted into one folder per class.

use crate::recipe::RecipeArgs;
use crate::{model, out};
use anyhow::{Context, bail};
use edge_package::Label;
use edge_vision::{FolderError, load, picture_paths};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A confusion matrix wider than this is for `--json` only; the table then lists as many mistakes.
const WIDEST_TABLE: usize = 20;
/// Of more classes than this, `--json` lists the pairs that occur (`confusion_sparse`: truth, taken for, photos).
const WIDEST_MATRIX: usize = 2000;

#[derive(clap::Args)]
pub struct Args {
    /// A package, an ONNX file or a Keras file
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
    let names = unique_names(&labels);
    let Labelled { photos, unreadable } = labelled(&args.photos, &labels, &names)?;
    for error in &unreadable {
        out::tell(format_args!("edge-pack: {error}"));
    }
    let mut unreadable = unreadable.len();
    let total = photos.len() + unreadable;
    let bar = ProgressBar::new(photos.len() as u64)
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} photos, {eta} left")?);
    let mut confusion = BTreeMap::new();
    for (truth, path) in &photos {
        let classified = load(path, &classifier.decode_options())
            .map_err(anyhow::Error::from)
            .and_then(|picture| classifier.classify(&picture, 1).with_context(|| path.display().to_string()));
        match classified {
            Ok(result) => *confusion.entry((*truth, result.top[0].0)).or_default() += 1,
            Err(e) => {
                bar.suspend(|| out::tell(format_args!("edge-pack: {e:#}")));
                unreadable += 1;
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let result = Evaluation { names, confusion };
    if args.json {
        out::json(&result.json(unreadable))?;
    } else {
        result.table()?;
    }
    if unreadable > 0 {
        out::tell(format_args!(
            "edge-pack: {unreadable} of {total} photo(s) or folders could not be read; they are not counted"
        ));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// What lies in the class folders.
struct Labelled {
    /// (class, photo)
    photos: Vec<(usize, PathBuf)>,
    /// Folders that could not be looked into.
    unreadable: Vec<FolderError>,
}

/// Lists the photos under the class folders; photos beside those folders have no class and are told about.
fn labelled(root: &Path, labels: &[Label], names: &[String]) -> anyhow::Result<Labelled> {
    let context = || format!("cannot open {}", root.display());
    let mut folders: Vec<PathBuf> = vec![];
    let mut loose = 0;
    for entry in std::fs::read_dir(root).with_context(context)? {
        let path = entry.with_context(context)?.path();
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        match path.is_dir() {
            _ if hidden => {}
            true => folders.push(path),
            false => loose += 1,
        }
    }
    if loose > 0 {
        out::tell(format_args!(
            "edge-pack: {}: {loose} file(s) lie in no class folder and are not counted",
            root.display()
        ));
    }
    folders.sort();
    let mut found = Labelled { photos: vec![], unreadable: vec![] };
    let mut unknown = vec![];
    for folder in &folders {
        let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let class = (0..labels.len()).find(|i| names[*i] == name || labels[*i].id.as_deref() == Some(&name));
        let Some(class) = class else {
            unknown.push(name);
            continue;
        };
        let listing = picture_paths(folder);
        found.photos.extend(listing.pictures.into_iter().map(|path| (class, path)));
        found.unreadable.extend(listing.unreadable);
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
    if found.photos.is_empty() {
        bail!("{} has no class folders with pictures (.jpg, .jpeg, .png)", root.display());
    }
    Ok(found)
}

/// A name for each class; where labels repeat (ImageNet has two kinds of crane), with its id or number.
fn unique_names(labels: &[Label]) -> Vec<String> {
    let mut count = HashMap::new();
    for label in labels {
        *count.entry(&label.label).or_insert(0) += 1;
    }
    let name = |(i, label): (usize, &Label)| match (&label.id, count[&label.label]) {
        (_, 1) => label.label.clone(),
        (Some(id), _) => format!("{} ({id})", label.label),
        (None, _) => format!("{} (class {i})", label.label),
    };
    labels.iter().enumerate().map(name).collect()
}

struct Evaluation {
    names: Vec<String>,
    /// (truth, taken for) → photos; most pairs of many classes never occur.
    confusion: BTreeMap<(usize, usize), u32>,
}

/// What became of the photos of one class.
#[derive(Default, Clone, Copy)]
struct Counts {
    photos: u32,
    right: u32,
    /// Photos, of any class, taken for this one.
    taken: u32,
}

impl Evaluation {
    fn n(&self) -> u32 {
        self.confusion.values().sum()
    }

    fn accuracy(&self) -> f64 {
        let right: u32 = self.confusion.iter().filter(|((truth, taken), _)| truth == taken).map(|(_, n)| n).sum();
        f64::from(right) / f64::from(self.n().max(1))
    }

    fn counts(&self) -> Vec<Counts> {
        let mut counts = vec![Counts::default(); self.names.len()];
        for ((truth, taken), n) in &self.confusion {
            counts[*truth].photos += n;
            counts[*taken].taken += n;
            if truth == taken {
                counts[*truth].right += n;
            }
        }
        counts
    }

    fn row(&self, truth: usize) -> Vec<u32> {
        (0..self.names.len()).map(|taken| self.confusion.get(&(truth, taken)).copied().unwrap_or(0)).collect()
    }

    fn json(&self, unreadable: usize) -> Value {
        let ratio = |a: u32, b: u32| if b == 0 { Value::Null } else { json!(f64::from(a) / f64::from(b)) };
        let class = |(name, c): (&String, Counts)| {
            let value = json!({
                "n": c.photos, "correct": c.right,
                "recall": ratio(c.right, c.photos), "precision": ratio(c.right, c.taken),
            });
            (name.clone(), value)
        };
        let per_class: Map<String, Value> = self.names.iter().zip(self.counts()).map(class).collect();
        let mut value = json!({
            "n": self.n(),
            "accuracy": self.accuracy(),
            "per_class": per_class,
            "labels": self.names,
            "unreadable": unreadable,
        });
        if self.names.len() <= WIDEST_MATRIX {
            value["confusion"] = (0..self.names.len()).map(|truth| self.row(truth)).collect();
        } else {
            value["confusion_sparse"] = self.confusion.iter().map(|((t, p), n)| json!([t, p, n])).collect();
        }
        value
    }

    fn table(&self) -> anyhow::Result<()> {
        out::line(format_args!("{} photos, accuracy {:.4}", self.n(), self.accuracy()))?;
        let width = self.names.iter().map(|n| n.chars().count()).max().unwrap_or(0).clamp(5, 24);
        out::line(format_args!(
            "\n{:width$}  {:>6} {:>7} {:>7} {:>9}",
            "class", "photos", "right", "recall", "precision"
        ))?;
        let ratio = |a: u32, b: u32| if b == 0 { "-".into() } else { format!("{:.3}", f64::from(a) / f64::from(b)) };
        for (name, Counts { photos, right, taken }) in self.names.iter().zip(self.counts()) {
            if photos + taken > 0 {
                let (recall, precision) = (ratio(right, photos), ratio(right, taken));
                out::line(format_args!("{name:width$}  {photos:>6} {right:>7} {recall:>7} {precision:>9}"))?;
            }
        }
        if self.names.len() <= WIDEST_TABLE {
            out::line("\nconfusion (row: truth, column: taken for, in the same order)")?;
            for (truth, name) in self.names.iter().enumerate() {
                let cells: String = self.row(truth).iter().map(|n| format!("{n:>5}")).collect();
                out::line(format_args!("{name:width$}{cells}"))?;
            }
            return Ok(());
        }
        let mut mistakes: Vec<_> = self.confusion.iter().filter(|((truth, taken), _)| truth != taken).collect();
        mistakes.sort_by_key(|(pair, n)| (std::cmp::Reverse(**n), **pair));
        for ((truth, taken), n) in mistakes.into_iter().take(WIDEST_TABLE) {
            out::line(format_args!("{n:>6} x {} taken for {}", self.names[*truth], self.names[*taken]))?;
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
