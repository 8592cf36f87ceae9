//! `edge-flash link-key`: the key that a camera and its host share to talk over a network.

use crate::{linked, out};
use anyhow::{Context, Result, bail};
use edge_package::LinkKey;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// Where it goes (mode 0600)
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if args.file.symlink_metadata().is_ok() {
        bail!("{} exists; a key is never overwritten, name another one", args.file.display());
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).context("the system gave no random numbers")?;
    out::write_file(&args.file, LinkKey::from_bytes(bytes).to_file_text().as_bytes(), 0o600)?;
    linked::told(&args.file)?;
    Ok(ExitCode::SUCCESS)
}
