//! How much stays in float: trials, from nothing to what the agreement asks for.

use super::photos::Photos;
use super::work::{Bench, spread};
use crate::progress::bar;
use anyhow::Context;
use edge_model::quantize::{Agreement, Pictures, Prepared, Verdicts};
use std::collections::HashSet;

/// Residual sums stay in float where that brings the logits so many dB: the noise of each goes through all blocks to the end.
const SUMS_PAY: f64 = 1.0;
/// So does the first layer, where that brings so many: it is small, and reads the picture as it is.
const FIRST_PAYS: f64 = 0.3;
/// The most layers that are kept in float one after the other.
const MOST: usize = 32;
/// Photos that tell how much each layer matters.
const FEW: usize = 12;

/// A file that was tried.
pub struct Trial {
    /// What is special about it, for people.
    pub what: String,
    /// Nodes kept in float.
    pub float: Vec<String>,
    /// With the float network.
    pub agreement: Agreement,
    /// Of the labelled photos, the share that is right.
    pub accuracy: Option<f64>,
    /// Size of the file.
    pub bytes: usize,
    /// The file.
    pub onnx: Vec<u8>,
    /// What it says of the photos.
    pub verdicts: Verdicts,
}

/// The share of labelled photos that are right.
pub fn accuracy(verdicts: &Verdicts, photos: &Photos) -> Option<f64> {
    let pairs: Vec<bool> =
        verdicts.classes().iter().zip(&photos.truth).filter_map(|(c, t)| Some(*c == (*t)?)).collect();
    (!pairs.is_empty()).then(|| pairs.iter().filter(|r| **r).count() as f64 / pairs.len() as f64)
}

/// Whether `asked` is the name of a node, or the beginning of it and `*`.
fn names(asked: &str, node: &str) -> bool {
    asked == node || asked.strip_suffix('*').is_some_and(|start| node.starts_with(start))
}

/// Refuses names of nodes that the model does not have, before anything long is done.
pub fn check_names(keep: &[String], layers: &[String]) -> anyhow::Result<()> {
    match keep.iter().find(|k| !layers.iter().any(|n| names(k, n))) {
        Some(unknown) => anyhow::bail!(
            "--keep-float {unknown}: no node of this name can be quantized; `edge-pack inspect --plan` lists the nodes"
        ),
        None => Ok(()),
    }
}

/// Tries files with more and more in float until `goal` is met; gives all, and which is taken.
pub fn search(
    ready: &Prepared,
    bench: &Bench<'_>,
    float: &Verdicts,
    keep: &[String],
    goal: f64,
) -> anyhow::Result<(Vec<Trial>, usize)> {
    let layers: Vec<(String, String)> = ready.layers().map(|(n, op)| (n.to_string(), op.to_string())).collect();
    let mut kept: HashSet<String> =
        layers.iter().map(|l| l.0.clone()).filter(|n| keep.iter().any(|k| names(k, n))).collect();
    let attempt = |what: String, kept: &HashSet<String>| -> anyhow::Result<Trial> {
        let onnx = ready.quantize(kept)?;
        let verdicts = bench.verdicts(&onnx, &what).context("the quantized network")?;
        let agreement = float.agreement(&verdicts);
        let mut names: Vec<String> = kept.iter().cloned().collect();
        names.sort();
        let accuracy = accuracy(&verdicts, bench.photos);
        Ok(Trial { what, float: names, agreement, accuracy, bytes: onnx.len(), onnx, verdicts })
    };
    let first = if kept.is_empty() { "all in int8" } else { "all in int8 but --keep-float" };
    let mut trials = vec![attempt(first.into(), &kept)?];
    let few = Few::new(ready, bench, float);
    let mut gained = vec![];
    // What costs little time: the sums' noise goes through all blocks to the end, and the first layer is small.
    let sums: Vec<String> = layers.iter().filter(|l| l.1 == "Add").map(|l| l.0.clone()).collect();
    let mut before = few.snr(&kept)?;
    for (name, nodes, pays) in [("sums", sums, SUMS_PAY), ("the first layer", ready.first(), FIRST_PAYS)] {
        if nodes.iter().all(|n| kept.contains(n)) {
            continue;
        }
        let with: HashSet<String> = kept.iter().cloned().chain(nodes).collect();
        let after = few.snr(&with)?;
        if after - before >= pays {
            gained.push(format!("{name} ({:+.1} dB)", after - before));
            (before, kept) = (after, with);
        }
    }
    let what = gained.join(", ");
    if !what.is_empty() {
        trials.push(attempt(format!("in float: {what}"), &kept)?);
    }
    let last = trials.len() - 1;
    if surely(&trials[last].agreement, goal) {
        return Ok((trials, last));
    }
    let worst = few.sensitivity(&kept, before)?;
    let mut count = 1;
    while count <= MOST.min(worst.len()) {
        let with: HashSet<String> = kept.iter().chain(worst[..count].iter().map(|w| &w.0)).cloned().collect();
        let layers = match &worst[..count] {
            [one] => one.0.clone(),
            [one, two] => format!("{}, {}", one.0, two.0),
            _ => format!("the {count} layers that matter most"),
        };
        let before = if what.is_empty() { String::new() } else { format!("{what}, ") };
        trials.push(attempt(format!("in float: {before}{layers}"), &with)?);
        if trials.last().is_some_and(|t| surely(&t.agreement, goal)) {
            let last = trials.len() - 1;
            return Ok((trials, last));
        }
        count *= 2;
    }
    // What meets it with the least in float; if nothing does, what comes nearest.
    let nearest = |a: &usize, b: &usize| {
        let (a, b) = (&trials[*a].agreement, &trials[*b].agreement);
        a.share().total_cmp(&b.share()).then(a.snr.total_cmp(&b.snr))
    };
    let meets = trials.iter().position(|t| t.agreement.share() >= goal);
    let best = meets.or_else(|| (0..trials.len()).max_by(nearest)).unwrap_or_default();
    Ok((trials, best))
}

/// Whether the goal is met with a standard error to spare: other photos will be another sample.
fn surely(agreement: &Agreement, goal: f64) -> bool {
    let share = agreement.share();
    let error = (share * (1.0 - share) / agreement.pictures.max(1) as f64).sqrt();
    share >= goal && share - error >= goal.min(1.0 - 1.0 / agreement.pictures.max(1) as f64)
}

/// Some of the photos, on which the logits' signal to noise says more in less time than counting classes does.
struct Few<'a> {
    ready: &'a Prepared,
    bench: &'a Bench<'a>,
    which: Vec<usize>,
    float: Verdicts,
}

impl<'a> Few<'a> {
    fn new(ready: &'a Prepared, bench: &'a Bench<'a>, float: &Verdicts) -> Few<'a> {
        let which = spread(bench.photos.len(), FEW);
        let logits = which.iter().map(|i| float.logits[*i].clone()).collect();
        Few { ready, bench, which, float: Verdicts { logits, ..Verdicts::default() } }
    }

    /// Of the logits, in dB, with these nodes in float.
    fn snr(&self, kept: &HashSet<String>) -> anyhow::Result<f64> {
        let verdicts = self.bench.some(&self.ready.quantize(kept)?, &self.which, "")?;
        Ok(self.float.agreement(&verdicts).snr)
    }

    /// How many dB the logits gain over `before` when one more layer is in float than `kept`, for each; the most first.
    fn sensitivity(&self, kept: &HashSet<String>, before: f64) -> anyhow::Result<Vec<(String, f64)>> {
        let matters =
            |name: &String| self.ready.layers().any(|(n, op)| n == name && matches!(op, "Conv" | "Gemm" | "Add"));
        let layers: Vec<String> = self.ready.worst(kept).into_iter().filter(matters).collect();
        let bar = bar(layers.len(), "how much each layer matters", "layers");
        let mut gains = vec![];
        for layer in layers {
            let with: HashSet<String> = kept.iter().chain([&layer]).cloned().collect();
            gains.push((layer, self.snr(&with)? - before));
            bar.inc(1);
        }
        bar.finish_and_clear();
        gains.sort_by(|a, b| b.1.total_cmp(&a.1));
        Ok(gains)
    }
}
