//! `edge-hil list`: the cases, what they need, and which are skipped on a device.

use crate::{cmd, out};
use anyhow::Result;
use edge_suite::hil::{CASES, Capability, missing};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// The device's file: says which cases are skipped on it, and why
    #[arg(long, value_name = "FILE.toml")]
    dut: Option<PathBuf>,

    /// One JSON object a line for each case
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    about: &'a str,
    needs: &'a [Capability],
    long: bool,
    skipped: Option<String>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let file = args.dut.as_deref().map(cmd::device).transpose()?;
    for case in CASES {
        let skipped = file.as_ref().and_then(|file| missing(case, file, true));
        if args.json {
            let (name, about, needs, long) = (case.name, case.about, case.needs, case.long);
            out::line(serde_json::to_string(&Line { name, about, needs, long, skipped })?)?;
            continue;
        }
        let needs: Vec<String> = case.needs.iter().map(Capability::to_string).collect();
        let long = if case.long { "; only with --long" } else { "" };
        out::line(format_args!("{}\n    {}\n    needs {}{long}", case.name, case.about, needs.join(", ")))?;
        if let Some(why) = skipped {
            out::line(format_args!("    SKIPPED: {why}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
