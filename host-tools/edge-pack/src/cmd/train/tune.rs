//! Fine-tuning with `--unfreeze`: tail and head together, from the best head on.

use super::args::Args;
use super::outputs::{Assemble, Outputs};
use super::photos::{Features, Part};
use super::show;
use crate::model;
use edge_train::fit::{Fitted, Settings};
use edge_train::head::Head;
use edge_train::history::Epoch;
use edge_train::tail::{self, Tail, Tuning};
use std::sync::atomic::AtomicBool;

/// What the options say of it.
pub fn tuning(args: &Args) -> Tuning {
    Tuning {
        epochs: args.unfreeze_epochs,
        learning_rate: args.unfreeze_lr,
        warm_up: args.unfreeze_warm_up,
        decay: args.unfreeze_decay,
        average: args.unfreeze_average,
        mix: args.unfreeze_mix,
        threads: model::load_options(args.threads).threads,
    }
}

/// Goes on from what is fitted, the frozen result, and puts into it what is better; the tail is returned where one is.
#[allow(clippy::too_many_arguments)]
pub fn run(
    args: &Args,
    settings: &Settings,
    fitted: &mut Fitted,
    tail: Tail,
    features: &Features,
    stop: &AtomicBool,
    outputs: &Outputs,
    assemble: &Assemble<'_>,
) -> anyhow::Result<Option<Tail>> {
    let (Some(train), Some(validation)) = (features.activations(Part::Train), features.activations(Part::Validation))
    else {
        return Ok(None);
    };
    let tuning = tuning(args);
    let start = (&tail, &fitted.head);
    show::estimate(tuning.epochs, tail::seconds(settings, &tuning, start, train, validation)?);
    let steps = train.ids.len() / train.views;
    let bar = crate::progress::bar(steps * tuning.epochs, "fine-tuning", "photos");
    let each = |tail: &Tail, head: &Head, epoch: &Epoch, best: bool| -> anyhow::Result<()> {
        bar.suspend(|| show::epoch(epoch, best))?;
        outputs.checkpoint(Some(tail), head, epoch, best, assemble)
    };
    let before = (&fitted.best, fitted.history.len());
    let progress = |photos: usize| bar.inc(photos as u64);
    let tuned = tail::tune(settings, &tuning, start, before, train, validation, stop, progress, each);
    bar.finish_and_clear();
    let tuned = tuned?;
    fitted.history.extend(tuned.history);
    fitted.interrupted = tuned.interrupted;
    let Some((tail, head, best)) = tuned.best else { return Ok(None) };
    (fitted.head, fitted.best) = (head, best);
    Ok(Some(tail))
}
