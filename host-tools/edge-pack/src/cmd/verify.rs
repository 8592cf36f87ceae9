//! `edge-pack verify`: may this package be trusted, and is it right on this machine?

use crate::{model, out};
use anyhow::Context;
use edge_device::{Classifier, golden};
use edge_engine::LoadOptions;
use edge_package::{PublicKey, Signed, TrustPolicy, hex};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// The package
    package: PathBuf,

    /// Require a signature by this key; may be repeated
    #[arg(long, value_name = "FILE.pub")]
    trusted_key: Vec<PathBuf>,

    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let trusted = args.trusted_key.iter().map(|p| PublicKey::read(p)).collect::<Result<_, _>>()?;
    let package = model::open_package(&args.package, &TrustPolicy { trusted })?;
    let mut classifier = Classifier::from_package(&package, &LoadOptions::default())
        .with_context(|| args.package.display().to_string())?;
    let outcomes = golden::replay(&mut classifier, &package);
    let good = outcomes.iter().all(|o| o.failure.is_none());
    let (signed, signer) = match package.signed() {
        Signed::No => ("no", None),
        Signed::ByUnknown(key) => ("by a key that was not asked for", Some(key)),
        Signed::ByTrusted(key) => ("by a trusted key", Some(key)),
    };
    if args.json {
        let samples: Vec<_> = outcomes
            .iter()
            .map(|o| {
                json!({
                    "name": o.name, "ok": o.failure.is_none(), "max_delta": o.max_delta, "allowed": o.allowed,
                    "failure": o.failure.as_ref().map(ToString::to_string),
                })
            })
            .collect();
        out::json(&json!({
            "ok": good, "digest": hex(&package.digest()), "signed": signed,
            "signer": signer.map(|k| hex(&k.to_bytes())), "goldens": samples,
        }))?;
    } else {
        out::line(format_args!(
            "{}: every byte as packaged, digest {}",
            args.package.display(),
            hex(&package.digest())
        ))?;
        let signer = signer.map_or(String::new(), |k| format!(" ({})", hex(&k.to_bytes())));
        out::line(format_args!("signed: {signed}{signer}"))?;
        let boards = &package.manifest().boards;
        out::line(format_args!("boards: {}", if boards.is_empty() { "any".into() } else { boards.join(", ") }))?;
        for outcome in &outcomes {
            match &outcome.failure {
                None => out::line(format_args!(
                    "golden {}: tensor identical, logits within {:.3e} (allowed {:.3e})",
                    outcome.name, outcome.max_delta, outcome.allowed
                ))?,
                Some(failure) => out::line(format_args!("golden {}: FAILED: {failure}", outcome.name))?,
            }
        }
    }
    if !good {
        out::tell(format_args!(
            "edge-pack: {}: golden samples fail on this machine; do not use the package here",
            args.package.display()
        ));
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
