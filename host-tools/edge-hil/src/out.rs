//! Standard output that may be closed.

use anyhow::Result;
use std::io::Write;

/// Prints a line. Unlike `println!`, a closed pipe is an error rather than a panic.
pub fn line(text: impl std::fmt::Display) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Prints a line on standard error. Unlike `eprintln!`, a closed one is nobody's loss.
pub fn tell(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Whether the error is a closed standard output.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|e| e.downcast_ref::<std::io::Error>()).any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
