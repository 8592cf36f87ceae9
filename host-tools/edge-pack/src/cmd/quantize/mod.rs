//! `edge-pack quantize`: a float classifier becomes a smaller and faster one, with proof.

mod args;
mod photos;
mod report;
mod search;
mod show;
mod work;

use crate::progress::stop_flag;
use crate::{model, out};
use anyhow::{Context, bail};
pub use args::{Args, How, Kind};
use edge_engine::LoadOptions;
use edge_model::quantize::with_property;
use edge_package::{Manifest, QUANTIZATION};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use work::Quantized;

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    args.check()?;
    let context = || args.model.display().to_string();
    if model::is_package(&args.model)? {
        bail!("{} is a package; quantize the ONNX or Keras file that it was made of", args.model.display());
    }
    let start = Instant::now();
    let onnx = model::read_onnx(&args.model, &args.recipe)?;
    let load = model::load_options(args.threads);
    let manifest = model::prepare(&args.model, &onnx, &args.recipe, &load)?.classifier.manifest().clone();
    let (bytes, made) = quantize(&onnx, &manifest, (&args.how, args.target), load).with_context(context)?;
    let output = args.output();
    if let Some(report) = &args.report {
        let page =
            report::html(&report::Page { made: &made, manifest: &manifest, kind: args.target, model: &args.model });
        out::write_file(report, page.as_bytes(), 0o644)?;
    }
    let unmet = unmet(&args.how, &made);
    if let Some(why) = unmet.as_ref().filter(|_| !args.how.force) {
        show::table(&made)?;
        bail!("{}: {why}; nothing was written (--force writes it nevertheless)", args.model.display());
    }
    out::write_file(&output, &bytes, 0o644)?;
    match args.json {
        true => out::json(&show::json(&made, args.target, &output, bytes.len(), start.elapsed()))?,
        false => show::all(&made, &output, bytes.len(), args.report.as_deref(), start.elapsed())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Quantizes a file and writes into it how that went.
fn quantize(
    onnx: &[u8],
    manifest: &Manifest,
    (how, kind): (&How, Kind),
    load: LoadOptions,
) -> anyhow::Result<(Vec<u8>, Quantized)> {
    let stop = stop_flag()?;
    let made = work::quantize(onnx, manifest, (how, kind), load, &stop)?;
    let bytes = with_property(&made.onnx, QUANTIZATION, &made.property(kind).to_string())?;
    Ok((bytes, made))
}

/// Why the file is not what was asked for.
fn unmet(how: &How, made: &Quantized) -> Option<String> {
    let (wanted, trial) = (how.min_agreement?, made.trial()?);
    (trial.agreement.share() < wanted).then(|| {
        let worst = made.layers.iter().filter(|l| l.quantized).min_by(|a, b| a.alone().total_cmp(&b.alone()));
        let worst = worst.map(|l| format!("; the layer that loses most is {} ({:.1} dB alone)", l.node, l.alone()));
        format!(
            "{} of {} photos keep their class ({:.4}), fewer than --min-agreement {wanted}, the best of {} trials ({}){}",
            trial.agreement.pictures - trial.agreement.changed.len(),
            trial.agreement.pictures,
            trial.agreement.share(),
            made.trials.len(),
            trial.what,
            worst.unwrap_or_default()
        )
    })
}

/// `edge-pack MODEL --quantize`: the quantized file, told about on standard error.
pub fn for_package(
    path: &Path,
    onnx: &[u8],
    manifest: &Manifest,
    (how, kind): (&How, Kind),
) -> anyhow::Result<Vec<u8>> {
    how.check(kind)?;
    let (bytes, made) = quantize(onnx, manifest, (how, kind), model::load_options(None))?;
    if let Some(why) = unmet(how, &made).filter(|_| !how.force) {
        bail!("{why}; nothing was written (--force writes it nevertheless)");
    }
    model::tell(path, &show::notes(&made));
    Ok(bytes)
}
