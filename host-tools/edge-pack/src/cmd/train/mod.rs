//! `edge-pack train`: a folder of labelled photos and a base become a classifier.

mod args;
mod outputs;
mod photos;
mod show;
mod tune;

use crate::progress::stop_flag;
use crate::{model, out};
use anyhow::{Context, bail};
pub use args::Args;
use args::Resolved;
use edge_engine::{InputHint, OnnxModel};
use edge_package::{Activation, Label, Metadata};
use edge_train::base::Base;
use edge_train::fit::{self, Fitted, Set, Settings};
use edge_train::head::{Head, Loss};
use edge_train::history::{Candidate, Epoch};
use edge_train::tail::Tail;
use edge_vision::Preprocess;
use outputs::{Assemble, Outcome, Outputs};
use photos::Features;
use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let resolved = args.resolve()?;
    let outputs = Outputs::new(args, &resolved)?;
    let stop = stop_flag()?;

    let onnx = model::read_onnx(&args.base, &args.recipe)?;
    let base_name = || args.base.display().to_string();
    let base = OnnxModel::parse(&onnx).with_context(base_name)?;
    let said = Metadata::from_properties(&base.properties()).with_context(base_name)?;
    let recipe = args.recipe.resolve(String::new())?;
    let hint = InputHint {
        layout: recipe.layout,
        size: recipe.size.or(said.resize.and_then(|r| r.size)),
        output: recipe.output.clone(),
    };
    let input = base.contract(&hint).with_context(base_name)?.input;
    let preprocess = recipe.preprocess.or(said.preprocess).unwrap_or(Preprocess::Tf);
    let resize = recipe.resize_choice(&input, said.resize).or(said.resize).unwrap_or(edge_package::Resize {
        policy: edge_vision::ResizePolicy::Squash,
        interpolation: edge_vision::Interpolation::Nearest,
        size: None,
    });

    let data = photos::read(args, &resolved, &input, &stop)?;
    show::data(&data)?;
    let (at, unfreeze) = (args.cut.as_deref(), args.unfreeze.as_deref());
    let mut cut =
        Base::load(&base, &input, at, unfreeze, &model::load_options(args.threads)).with_context(base_name)?;
    out::tell(format_args!(
        "{}: cut at {:?}, {} features from {}x{} pixels",
        args.base.display(),
        cut.cut,
        cut.width(),
        input.width,
        input.height
    ));
    let tail = cut.read_tail(&base).with_context(base_name)?;
    if let (Some(part), Some(tail)) = (&cut.tail, &tail) {
        show::tail(part, tail);
    }
    let look = photos::Look { input: &input, preprocess, resize, decode: resolved.decode };
    let features = Features::compute(args, &resolved, &onnx, &mut cut, &look, &data, &stop)?;
    outputs.contact_sheet(args, &resolved, &data, &look)?;

    let metadata = Metadata {
        labels: Some(data.classes.iter().map(|label| Label { id: None, label: label.clone() }).collect()),
        preprocess: Some(preprocess),
        resize: Some(edge_package::Resize { size: Some((input.width, input.height)), ..resize }),
        activation: Some(if args.multi_label { Activation::Sigmoid } else { Activation::Softmax }),
    };
    let assemble =
        |tail: Option<&Tail>, head: &Head| cut.with_head(&base, tail, head, &metadata).map_err(anyhow::Error::from);

    let all = candidates(args, &resolved, cut.width(), data.classes.len(), &data.class_weights(&resolved));
    let trained = train(&all, &features, &stop, &outputs, &assemble)?;
    let Some((settings, mut fitted, table)) = trained else {
        bail!(
            "interrupted before the first epoch ended; the features are kept, and the same command goes on from there"
        );
    };
    let tail = match tail {
        Some(tail) if !fitted.interrupted => {
            tune::run(args, settings, &mut fitted, tail, &features, &stop, &outputs, &assemble)?
        }
        _ => None,
    };
    if fitted.interrupted {
        out::tell(format_args!("interrupted; what is written is the best of {} epochs", fitted.history.len()));
    }
    let bytes = assemble(tail.as_ref(), &fitted.head)?;
    outputs.write(&Outcome {
        args,
        settings,
        fitted: &fitted,
        tail: tail.as_ref(),
        candidates: &table,
        data: &data,
        features: &features,
        onnx: &bytes,
        cut: &cut.cut,
        base: &onnx,
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Every combination of what was given with commas.
fn candidates(
    args: &Args,
    resolved: &Resolved,
    features: usize,
    classes: usize,
    class_weights: &[f32],
) -> Vec<(String, Settings)> {
    let mut all = vec![];
    for rate in &resolved.rates {
        for inner in &resolved.inner {
            for dropout in &resolved.dropout {
                let head = edge_train::head::HeadSpec {
                    features,
                    inner: inner.clone(),
                    activation: resolved.activation,
                    dropout: *dropout,
                    classes,
                };
                let settings = Settings {
                    head,
                    epochs: args.epochs,
                    batch_size: args.batch_size,
                    learning_rate: *rate,
                    schedule: resolved.schedule,
                    loss: if args.multi_label { Loss::Binary } else { Loss::Categorical },
                    label_smoothing: args.label_smoothing,
                    class_weights: class_weights.to_vec(),
                    early_stop: args.early_stop,
                    monitor: resolved.monitor,
                    maximise: resolved.maximise,
                    seed: args.seed,
                };
                let inner: Vec<String> = inner.iter().map(usize::to_string).collect();
                let inner = if inner.is_empty() { "none".into() } else { inner.join("x") };
                all.push((format!("lr {rate}, inner {inner}, dropout {dropout}"), settings));
            }
        }
    }
    all
}

type Trained<'a> = (&'a Settings, Fitted, Vec<Candidate>);

/// Trains every candidate, keeps the best.
fn train<'a>(
    candidates: &'a [(String, Settings)],
    features: &Features,
    stop: &AtomicBool,
    outputs: &Outputs,
    assemble: &Assemble<'_>,
) -> anyhow::Result<Option<Trained<'a>>> {
    let (training, validation) = (features.train(), features.validation());
    if let [(_, settings)] = candidates {
        show::heading()?;
        let each = |head: &Head, epoch: &Epoch, best: bool| {
            show::epoch(epoch, best)?;
            outputs.checkpoint(None, head, epoch, best, assemble)
        };
        let fitted = fit::fit(settings, training, validation, stop, each)?;
        return Ok(fitted.map(|fitted| (settings, fitted, vec![])));
    }
    let bar = crate::progress::bar(candidates.len(), "searching", "candidates");
    let results = search(candidates, training, validation, stop, &bar)?;
    bar.finish_and_clear();
    let mut best: Option<(usize, Fitted)> = None;
    let mut table: Vec<Candidate> = vec![];
    for (at, fitted) in results.into_iter().enumerate().filter_map(|(at, f)| Some((at, f?))) {
        table.push(Candidate { settings: candidates[at].0.clone(), best: fitted.best, kept: false });
        if best.as_ref().is_none_or(|(_, b)| candidates[at].1.better(&fitted.best, &b.best)) {
            table.iter_mut().for_each(|c| c.kept = false);
            if let Some(last) = table.last_mut() {
                last.kept = true;
            }
            best = Some((at, fitted));
        }
    }
    let Some((at, fitted)) = best else { return Ok(None) };
    show::search(&table)?;
    show::heading()?;
    for epoch in &fitted.history {
        show::epoch(epoch, epoch.epoch == fitted.best.epoch)?;
    }
    outputs.checkpoint(None, &fitted.head, &fitted.best, true, assemble)?;
    Ok(Some((&candidates[at].1, fitted, table)))
}

/// Candidates side by side, a thread each.
fn search(
    candidates: &[(String, Settings)],
    train: Set<'_>,
    validation: Set<'_>,
    stop: &AtomicBool,
    bar: &indicatif::ProgressBar,
) -> anyhow::Result<Vec<Option<Fitted>>> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(candidates.len());
    let next = AtomicUsize::new(0);
    let results = Mutex::new(vec![None; candidates.len()]);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some((_, settings)) = candidates.get(at) else { return };
                    let each = |_: &Head, _: &Epoch, _: bool| Ok::<(), Infallible>(());
                    let Ok(fitted) = fit::fit(settings, train, validation, stop, each);
                    if let Ok(mut results) = results.lock() {
                        results[at] = fitted;
                    }
                    bar.inc(1);
                }
            });
        }
    });
    results.into_inner().map_err(|_| anyhow::anyhow!("a candidate's training broke off"))
}
