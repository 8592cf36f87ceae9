//! The crash matrix: the code that writes boot state, system slots and packages, on a disk and a file system whose power
//! goes at every write, flush and rename, and which tear and reorder what was not flushed.

mod bench;
mod disk;
mod files;
mod packages;
mod random;
mod system;
mod wrong;

/// Tells how many cases there were, even where the output of tests that pass is not shown.
fn tell(what: &str, cases: usize) {
    use std::io::Write;
    // One write, so that the lines of tests that run at once do not mix; nobody may be listening.
    let _ = std::io::stdout().write_all(format!("crash matrix: {what}: {cases} cases\n").as_bytes());
}
