//! Standard output that may be closed, and files that are whole or not there.

use anyhow::{Context, bail};
use std::io::Write;
use std::path::Path;

/// Prints a line. Unlike `println!`, a closed pipe is an error rather than a panic.
pub fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Prints a line on standard error. Unlike `eprintln!`, a closed one is nobody's loss.
pub fn tell(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints a JSON value on a line of its own.
pub fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value)?)
}

/// Whether the error is a closed standard output.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|e| e.downcast_ref::<std::io::Error>()).any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Refuses an output that is one of the input files, by whatever name.
pub fn not_an_input<'a>(output: &Path, inputs: impl Iterator<Item = &'a Path>) -> anyhow::Result<()> {
    let Ok(real) = output.canonicalize() else { return Ok(()) };
    for input in inputs {
        if input.canonicalize().is_ok_and(|input| real == input) {
            bail!("{} would be overwritten, but it is an input; name another output", output.display());
        }
    }
    Ok(())
}

/// Writes a file so that it is seen whole or not at all.
pub fn write_file(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    edge_package::replace_file(path, bytes, mode).with_context(|| format!("cannot write {}", path.display()))
}
