//! `edge-pack keygen`: a key pair for signing.

use crate::out;
use anyhow::{Context, bail};
use edge_package::SecretKey;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// Where the secret key goes (mode 0600); the public one gets .pub appended
    name: PathBuf,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut public = args.name.clone().into_os_string();
    public.push(".pub");
    let public = PathBuf::from(public);
    for path in [&args.name, &public] {
        if path.symlink_metadata().is_ok() {
            bail!("{} exists; a key is never overwritten, name another one", path.display());
        }
    }
    let mut seed = [0u8; 32];
    getrandom::fill(&mut seed).context("the system gave no random numbers")?;
    let key = SecretKey::from_seed(&seed);
    out::write_file(&args.name, key.to_file_text().as_bytes(), 0o600)?;
    out::write_file(&public, key.public().to_file_text().as_bytes(), 0o644)?;
    out::line(format_args!(
        "{}: secret, keep it off the device\n{}: public, for edge-camera --trusted-key",
        args.name.display(),
        public.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}
