//! `edge-hil report`: makes the page of a run anew.

use crate::cmd::Usage;
use crate::page;
use anyhow::{Context, Result};
use edge_suite::hil::Run;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// last.json of a run; its pictures are beside it
    run: PathBuf,

    /// The page
    #[arg(short, long, value_name = "FILE.html")]
    output: PathBuf,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let text = std::fs::read(&args.run).map_err(|e| Usage(format!("cannot read {}: {e}", args.run.display())))?;
    let run: Run = serde_json::from_slice(&text)
        .map_err(|e| Usage(format!("{} is no last.json of `edge-hil run`: {e}", args.run.display())))?;
    let page = page::html(&run, args.run.parent().unwrap_or(Path::new("")));
    std::fs::write(&args.output, page).with_context(|| format!("cannot write {}", args.output.display()))?;
    Ok(ExitCode::SUCCESS)
}
