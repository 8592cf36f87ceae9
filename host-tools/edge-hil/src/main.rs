//! `edge-hil`: one set of cases for this machine's runtime, emulated boards and real ones.

mod cmd;
mod dut;
mod interrupt;
mod junit;
mod out;
mod page;
mod qemu;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Runs the device cases on a device under test and reports what was found.
///
/// Exit codes: 0 every case passed or was skipped; 1 a case failed, or nothing could be run; 2 wrong usage.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start a device and run the cases that it has what they need for
    Run(cmd::run::Args),
    /// List the cases, what they need, and which are skipped on a device
    List(cmd::list::Args),
    /// Make the page of a run anew
    Report(cmd::report::Args),
    /// Show pictures to a camera by a script and let it fail meanwhile; record what came of it, and replay that
    Camera(cmd::camera::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Run(args) => cmd::run::run(&args),
        Verb::List(args) => cmd::list::run(&args),
        Verb::Report(args) => cmd::report::run(&args),
        Verb::Camera(args) => cmd::camera::run(&args),
    };
    match result {
        Ok(code) => code,
        // Whoever reads our output has had enough, as with `| head`; that is no failure to talk about.
        Err(e) if out::is_broken_pipe(&e) => ExitCode::from(141),
        Err(e) => {
            out::tell(format_args!("edge-hil: {e:#}"));
            ExitCode::from(if e.is::<cmd::Usage>() { 2 } else { 1 })
        }
    }
}
