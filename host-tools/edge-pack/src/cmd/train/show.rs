//! What a training tells on the terminal.

use super::photos::Data;
use crate::out;
use edge_train::history::{Candidate, Epoch};
use edge_train::tail::{Part, Tail};

/// What was found among the photos.
pub fn data(data: &Data) -> anyhow::Result<()> {
    for (path, why) in &data.corrupt {
        out::tell(format_args!("skipped: {}: {why}", path.display()));
    }
    for finding in &data.findings {
        out::tell(format_args!("note: {finding}"));
    }
    let (train, validation) = (data.train.len(), data.validation.len());
    let classes = data.classes.join(", ");
    out::tell(format_args!(
        "{train} photos to train on, {validation} to validate with, {} classes: {classes}",
        data.classes.len()
    ));
    Ok(())
}

/// What is unfrozen.
pub fn tail(part: &Part, tail: &Tail) {
    let weights: usize = tail.parameters().iter().map(|p| p.values.len()).sum();
    let more = if part.widened { ", the nearest value before it that everything goes through" } else { "" };
    out::tell(format_args!(
        "unfrozen behind {:?}{more}: {:.1} million weights in {} tensors",
        part.value,
        weights as f64 / 1e6,
        tail.parameters().len()
    ));
}

/// What is ahead, where an epoch takes so many seconds.
pub fn estimate(epochs: usize, seconds: f64) {
    let all = seconds * epochs as f64;
    let all = if all < 120.0 { format!("{all:.0} s") } else { format!("{:.0} min", all / 60.0) };
    out::tell(format_args!("about {all} for {epochs} epochs of the unfrozen base ({seconds:.0} s each)"));
}

/// The heads of the columns of [`epoch`].
pub fn heading() -> anyhow::Result<()> {
    out::tell(format_args!(
        "{:>5} {:>8} {:>8} {:>8} {:>8} {:>9} {:>7}",
        "epoch", "loss", "accuracy", "val_loss", "val_acc", "lr", "s"
    ));
    Ok(())
}

/// A line for an epoch.
pub fn epoch(epoch: &Epoch, best: bool) -> anyhow::Result<()> {
    out::tell(format_args!(
        "{:>5} {:>8.4} {:>8.4} {:>8.4} {:>8.4} {:>9.2e} {:>7.2}{}",
        epoch.epoch,
        epoch.loss,
        epoch.accuracy,
        epoch.val_loss,
        epoch.val_accuracy,
        epoch.learning_rate,
        epoch.seconds,
        if best { "  best" } else { "" }
    ));
    Ok(())
}

/// The candidates of a search, the best first.
pub fn search(table: &[Candidate]) -> anyhow::Result<()> {
    let mut rows: Vec<&Candidate> = table.iter().collect();
    rows.sort_by(|a, b| b.kept.cmp(&a.kept).then(b.best.val_accuracy.total_cmp(&a.best.val_accuracy)));
    out::tell(format_args!("{:>8} {:>8} {:>5}  settings", "val_acc", "val_loss", "epoch"));
    for row in rows {
        let Epoch { val_accuracy, val_loss, epoch, .. } = row.best;
        let kept = if row.kept { "  kept" } else { "" };
        out::tell(format_args!("{val_accuracy:>8.4} {val_loss:>8.4} {epoch:>5}  {}{kept}", row.settings));
    }
    Ok(())
}
