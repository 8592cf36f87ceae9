//! Where things are, and how programs are run.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the checkout.
pub fn root() -> PathBuf {
    // CARGO_MANIFEST_DIR is host-tools/xtask.
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap_or_else(|_| ".".into())
}

/// The project's cache, outside the checkout so that another clone uses it too.
pub fn cache() -> Result<PathBuf> {
    edge_rig::apt::cache_dir()
}

/// Where cargo builds to: CARGO_TARGET_DIR, or the cache.
pub fn target() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => Ok(root().join(dir)),
        _ => Ok(cache()?.join("target")),
    }
}

/// A program of the workspace, as `cargo build` leaves it.
pub fn built(name: &str) -> Result<PathBuf> {
    Ok(target()?.join("debug").join(name))
}

/// Everything at once: other selections of packages give dependencies other features, and tract is then
/// built twice.
pub const BUILD: [&str; 3] = ["build", "--workspace", "--all-targets"];

/// A cargo command in the checkout that builds to [`target`].
pub fn cargo(args: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.args(args).current_dir(root()).env("CARGO_TARGET_DIR", target()?);
    Ok(command)
}

/// Runs a command to its end; its failure names it.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{} failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs a command and returns its standard output; its standard error is shown when it fails.
pub fn output(command: &mut Command) -> Result<String> {
    Ok(outputs(command)?.0)
}

/// The same with its standard error.
pub fn outputs(command: &mut Command) -> Result<(String, String)> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{} failed: {}\n{}", shown(command), output.status, stderr.trim_end());
    }
    let stdout = String::from_utf8(output.stdout);
    let stdout = stdout.with_context(|| format!("{} printed something that is no text", shown(command)))?;
    Ok((stdout, stderr.into_owned()))
}

/// The command as a person would type it, shortened.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
    let args: Vec<_> = command.get_args().take(6).map(|a| a.to_string_lossy()).collect();
    format!("{program} {}", args.join(" "))
}

/// A process's memory in KiB, by the key of a line in its /proc status (`VmRSS:`, `VmHWM:`); none of one that has ended.
pub fn memory_kib(process: &std::process::Child, key: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).ok()?;
    status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
}
