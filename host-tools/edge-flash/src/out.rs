//! Standard output that may be closed, and files that are whole or not there.

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use tempfile::{NamedTempFile, TempDir};

/// Prints a line. Unlike `println!`, a closed pipe is an error rather than a panic.
pub fn line(text: impl std::fmt::Display) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Prints a line on standard error. Unlike `eprintln!`, a closed one is nobody's loss.
pub fn tell(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints a JSON value on a line of its own.
pub fn json(value: &impl serde::Serialize) -> Result<()> {
    line(serde_json::to_string(value)?)
}

/// Whether the error is a closed standard output.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|e| e.downcast_ref::<std::io::Error>()).any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Refuses an output that is one of the input files, by whatever name.
pub fn not_an_input<'a>(output: &Path, inputs: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let Ok(real) = output.canonicalize() else { return Ok(()) };
    for input in inputs {
        if input.canonicalize().is_ok_and(|input| real == input) {
            bail!("{} would be overwritten, but it is an input; name another output", output.display());
        }
    }
    Ok(())
}

/// What is removed when the program is interrupted; everything else removes itself.
static TEMPORARY: Mutex<Vec<PathBuf>> = Mutex::new(vec![]);
/// Whether the program is about to end because of a signal.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes a file or folder that must not outlive an interrupted program.
fn temporary<T>(make: impl FnOnce() -> std::io::Result<T>, path: impl FnOnce(&T) -> &Path) -> std::io::Result<T> {
    static LISTENING: Once = Once::new();
    let mut failed = None;
    LISTENING.call_once(|| match Signals::new([SIGHUP, SIGINT, SIGTERM]) {
        Ok(signals) => drop(std::thread::spawn(move || clean_up_after(signals))),
        Err(e) => failed = Some(e),
    });
    if let Some(e) = failed {
        return Err(e);
    }
    // Held while it is made: once a signal has come, nothing new is.
    let mut known = TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner);
    let made = make()?;
    known.push(path(&made).into());
    Ok(made)
}

/// Waits for a signal, removes what is temporary, and ends the program.
fn clean_up_after(mut signals: Signals) {
    let Some(signal) = signals.forever().next() else { return };
    INTERRUPTED.store(true, Ordering::SeqCst);
    let known = TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner);
    for path in known.iter() {
        // More than once, since files may still be made in a folder meanwhile.
        for _ in 0..100 {
            let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir_all(path));
            if !path.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
    std::process::exit(128 + signal);
}

/// Waits for the end, where a signal has come: what failed then failed because of it.
pub fn end_if_interrupted() {
    while INTERRUPTED.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// A large file that is written beside its place and takes it when it is complete.
pub struct Output {
    place: PathBuf,
    file: NamedTempFile,
}

impl Output {
    /// Begins the file; on failure or interruption before [`Output::keep`] the place stays as it was.
    pub fn begin(place: &Path) -> Result<Output> {
        let cannot = || format!("cannot write {}", place.display());
        // A link is followed, so that what it names is replaced.
        let place = match place.canonicalize() {
            Ok(real) if !real.is_file() => bail!("{}: it exists and is not a regular file", cannot()),
            Ok(real) => real,
            Err(_) => place.to_path_buf(),
        };
        let folder = place.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
        let make = || tempfile::Builder::new().prefix(".edge-flash-").suffix(".tmp").tempfile_in(&folder);
        let file = temporary(make, NamedTempFile::path).with_context(cannot)?;
        Ok(Output { file, place })
    }

    /// A folder beside it, where there is room for parts of it.
    pub fn work(&self) -> Result<TempDir> {
        let folder = self.path().parent().unwrap_or(Path::new("."));
        let make = || tempfile::Builder::new().prefix(".edge-flash-").tempdir_in(folder);
        temporary(make, TempDir::path).with_context(|| format!("cannot write to {}", folder.display()))
    }

    /// The file.
    pub fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Where it is for now, for programs that are given its name.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Where it will be.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Makes it reach the disk and puts it in its place, with the permissions of what it replaces, else of a file that
    /// anybody may read.
    pub fn keep(self) -> Result<()> {
        let (place, file) = (self.place, self.file);
        let before = std::fs::metadata(&place).map(|metadata| metadata.permissions());
        let permissions = before.unwrap_or_else(|_| Permissions::from_mode(0o644));
        let kept = file.as_file().set_permissions(permissions).and_then(|()| file.as_file().sync_all());
        kept.and_then(|()| file.persist(&place).map_err(|e| e.error))
            .map(drop)
            .with_context(|| format!("cannot write {}", place.display()))
    }
}

/// Writes a small file so that it is seen whole or not at all.
pub fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    edge_package::replace_file(path, bytes, mode).with_context(|| format!("cannot write {}", path.display()))
}
