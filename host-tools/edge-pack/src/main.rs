//! `edge-pack`: packages image classifiers for cameras, and runs the same code on the host.

mod cmd;
mod model;
mod out;
mod progress;
mod recipe;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Packages an image classifier (ONNX or Keras) for edge-camera, and inspects, verifies, runs, evaluates and times it.
///
/// Without a verb, packages: `edge-pack model.onnx --labels labels.txt` writes model.edgepack.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    pack: cmd::pack::Args,
}

#[derive(Subcommand)]
enum Verb {
    /// Package an ONNX model (the same as no verb at all)
    Pack(cmd::pack::Args),
    /// Convert a Keras model (.keras, .h5) to ONNX
    Import(cmd::import::Args),
    /// Train a classifier on labelled photos, on top of a network that is kept as it is
    Train(Box<cmd::train::Args>),
    /// Make a float classifier int8 (or its weights smaller), and say what that costs
    Quantize(Box<cmd::quantize::Args>),
    /// Show what a package says of itself
    Inspect(cmd::inspect::Args),
    /// Check a package's bytes, signature and golden samples
    Verify(cmd::verify::Args),
    /// Classify photos as the device does
    Run(cmd::run::Args),
    /// Accuracy on photos sorted into one folder per class
    Eval(cmd::eval::Args),
    /// Time the network on this machine
    Bench(cmd::bench::Args),
    /// What will run where, what is missing, and what to do about it
    Doctor(Box<cmd::doctor::Args>),
    /// Make a key pair for signing packages
    Keygen(cmd::keygen::Args),
}

/// The verbs, for "did you mean".
const VERBS: [&str; 11] =
    ["pack", "import", "train", "quantize", "inspect", "verify", "run", "eval", "bench", "doctor", "keygen"];

/// A bare word that is no verb and no file, but near a verb.
fn mistyped(word: &str) -> Option<String> {
    let bare = !word.starts_with('-') && !word.contains(['/', '.']) && !std::path::Path::new(word).exists();
    if !bare || word == "help" || VERBS.contains(&word) {
        return None;
    }
    let (distance, verb) = VERBS.iter().map(|verb| (strsim::damerau_levenshtein(verb, word), verb)).min()?;
    (distance <= 2).then(|| format!("there is no verb and no file {word:?}; did you mean `edge-pack {verb}`?"))
}

fn main() -> ExitCode {
    // Before clap, which would take a mistyped verb for the model and complain about what follows it.
    if let Some(hint) = std::env::args_os().nth(1).and_then(|word| mistyped(word.to_str()?)) {
        out::tell(format_args!("edge-pack: {hint}"));
        return ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    let result = match cli.verb {
        None => cmd::pack::run(&cli.pack),
        Some(Verb::Pack(args)) => cmd::pack::run(&args),
        Some(Verb::Import(args)) => cmd::import::run(&args),
        Some(Verb::Train(args)) => cmd::train::run(&args),
        Some(Verb::Quantize(args)) => cmd::quantize::run(&args),
        Some(Verb::Inspect(args)) => cmd::inspect::run(&args),
        Some(Verb::Verify(args)) => cmd::verify::run(&args),
        Some(Verb::Run(args)) => cmd::run::run(&args),
        Some(Verb::Eval(args)) => cmd::eval::run(&args),
        Some(Verb::Bench(args)) => cmd::bench::run(&args),
        Some(Verb::Doctor(args)) => cmd::doctor::run(&args),
        Some(Verb::Keygen(args)) => cmd::keygen::run(&args),
    };
    match result {
        Ok(code) => code,
        // Whoever reads our output has had enough, as with `| head`; that is no failure to talk about.
        Err(e) if out::is_broken_pipe(&e) => ExitCode::from(141),
        Err(e) => {
            out::tell(format_args!("edge-pack: {e:#}"));
            ExitCode::FAILURE
        }
    }
}
