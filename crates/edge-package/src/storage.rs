//! Files that survive a power cut: the few steps that a file system is asked for, and the one order of them that
//! replaces a file whole or not at all.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file system, reduced to what an update needs of it. [`Files`] is the machine's; tests have one whose power goes.
pub trait Storage {
    /// The whole content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Whether there is a regular file at `path`.
    fn is_file(&self, path: &Path) -> bool;

    /// Makes one folder, whose parent exists; not an error where it exists already. Durable once the parent was synced.
    fn make_folder(&self, path: &Path) -> io::Result<()>;

    /// Makes a new file with this content and Unix mode; an error where there is one. Nothing of it is durable yet.
    fn create(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()>;

    /// Makes a file's content durable, though not its name.
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name in the same folder, replacing what had that name. Durable once the folder was synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;

    /// Removes a file. Durable once the folder was synced.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The machine's own file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Files;

impl Storage for Files {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn is_file(&self, path: &Path) -> bool {
        path.is_file()
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        match std::fs::create_dir(path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        }
    }

    fn create(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(bytes)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        // Some file systems can't sync a folder, and some folders may be written but not opened: the names in them are
        // as durable as they get.
        let Ok(folder) = File::open(path) else { return Ok(()) };
        match folder.sync_all() {
            Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
            other => other,
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}

/// The folder that `path` is in.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The temporary file that `path` is written to first.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(ErrorKind::InvalidFilename)?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", std::process::id()));
    Ok(folder(path).join(temporary))
}

/// Writes `bytes` to a temporary file beside `path`, syncs it, renames it into place and syncs the folder: whoever
/// opens `path`, at whatever moment the power went, sees the whole old file or the whole new one, and the new one once
/// this returned. On failure the temporary file is removed. `mode` is the file's Unix mode.
///
/// The temporary file has the process's id in its name, so that two processes don't meet in it.
pub fn replace<S: Storage + ?Sized>(storage: &S, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_through(storage, &beside(path)?, path, bytes, mode)
}

/// [`replace`] through a temporary file of a known name in the same folder: what a power cut leaves of a large file is
/// found and removed by the next attempt. Two processes must not do it at once.
pub fn replace_through<S: Storage + ?Sized>(
    storage: &S,
    temporary: &Path,
    path: &Path,
    bytes: &[u8],
    mode: u32,
) -> io::Result<()> {
    let _ = storage.remove(temporary);
    let write = || {
        storage.create(temporary, bytes, mode)?;
        storage.sync_file(temporary)?;
        storage.rename(temporary, path)
    };
    if let Err(e) = write() {
        let _ = storage.remove(temporary);
        return Err(e);
    }
    storage.sync_folder(folder(path))
}

/// [`replace`] on the machine's file system. A link is followed, so that what it names is replaced;
/// a device, pipe or folder is refused, since a rename would destroy it.
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let resolved = match path.canonicalize() {
        Ok(real) if !real.metadata()?.is_file() => {
            let what = "it exists and is not a regular file";
            return Err(io::Error::new(ErrorKind::InvalidInput, what));
        }
        Ok(real) => real,
        Err(_) => path.into(),
    };
    replace(&Files, &resolved, bytes, mode)
}
