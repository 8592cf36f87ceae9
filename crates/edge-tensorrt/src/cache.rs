//! Engines that were built, kept for the next start.
//!
//! Whoever can write an engine can run code in the process that reads it, so the folder is the service's own: mode 0700
//! and owned by the user that runs, or it is not used. A digest tells a file that a disk or a power cut damaged. There is
//! one engine for each package and precision; a new version of TensorRT or another GPU replaces it.
//!
//! # File format
//!
//! `EDGETRT1`, the BLAKE3-256 digest of all that follows it, the length of the key (u32, little-endian), the key (text, a line
//! for each thing that an engine depends on), the engine.

mod listing;

pub use listing::Kept;

use crate::TensorRtError;
use edge_package::{Files, Storage, digest, hex, replace_through};
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const MAGIC: &[u8; 8] = b"EDGETRT1";
/// Where what the digest is of begins.
const BODY: usize = 40;
/// Engines that are kept; the oldest go. Two packages are in the slots, in one precision each.
const KEPT: usize = 8;
/// Space that is left beside what a build is expected to take.
const MARGIN: u64 = 16 << 20;
/// How often a lock is looked at.
const TICK: Duration = Duration::from_millis(100);

/// What an engine depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Digest of the package.
    pub package: [u8; 32],
    /// TensorRT's version.
    pub tensorrt: String,
    /// The GPU.
    pub gpu: String,
    /// `float16` or `int8`.
    pub precision: String,
}

impl Entry {
    fn key(&self) -> String {
        let Entry { package, tensorrt, gpu, precision } = self;
        format!("package {}\nTensorRT {tensorrt}\nGPU {gpu}\nprecision {precision}\n", hex(package))
    }

    fn file_name(&self) -> String {
        format!("{}-{}.engine", &hex(&self.package)[..16], self.precision)
    }
}

/// What the cache has for an entry.
pub(crate) enum Found {
    /// No file.
    Nothing,
    /// A file that is of no use; why.
    Stale(String),
    /// The engine.
    Plan(Vec<u8>),
}

/// A folder of engines.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache in this folder, which need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Cache {
        Cache { folder: folder.into() }
    }

    /// The cache of this user: where a service manager says (`$CACHE_DIRECTORY`), else in `$XDG_CACHE_HOME`, else in
    /// `~/.cache`, else in `/var/cache`. `program` names the folder in there.
    pub fn of_user(program: &str) -> Cache {
        let var =
            |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from).filter(|p| p.is_absolute());
        let service = std::env::var("CACHE_DIRECTORY").ok();
        // systemd separates several by colons.
        let service = service.as_deref().and_then(|all| all.split(':').next()).filter(|p| p.starts_with('/'));
        let base = match service {
            Some(folder) => PathBuf::from(folder),
            None => var("XDG_CACHE_HOME")
                .or_else(|| var("HOME").map(|home| home.join(".cache")))
                .unwrap_or_else(|| "/var/cache".into())
                .join(program),
        };
        Cache::new(base.join("tensorrt"))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn refuse<T>(&self, why: impl Into<String>) -> Result<T, TensorRtError> {
        Err(TensorRtError::Cache { folder: self.folder.clone(), why: why.into() })
    }

    fn io<T>(&self, what: &str, result: io::Result<T>) -> Result<T, TensorRtError> {
        result.or_else(|e| self.refuse(format!("{what}: {e}")))
    }

    /// Whether the folder is there and nobody else's. `Ok(false)`: there is none.
    pub fn check(&self) -> Result<bool, TensorRtError> {
        self.check_for(rustix::process::geteuid().as_raw())
    }

    /// The same for a process of the user of this number.
    pub fn check_for(&self, user: u32) -> Result<bool, TensorRtError> {
        let about = match std::fs::symlink_metadata(&self.folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            other => self.io("it cannot be looked at", other)?,
        };
        if !about.is_dir() {
            return self.refuse("it is no folder (a link does not count); remove it, or choose another one");
        }
        let (owner, mode) = (about.uid(), about.mode() & 0o777);
        if owner != user {
            return self.refuse(format!(
                "it belongs to user {owner}, and this is user {user}; an engine is trusted like a program: run this as that user (`sudo -u '#{owner}' …`), or choose another folder"
            ));
        }
        if mode & 0o077 != 0 {
            return self.refuse(format!(
                "its mode is {mode:04o}, so that others could put engines there, which are trusted like programs; if nobody did: `chmod 700 {}`",
                self.folder.display()
            ));
        }
        Ok(true)
    }

    /// The engine of an entry, if it is whole and for exactly this.
    pub(crate) fn read(&self, entry: &Entry) -> Result<Found, TensorRtError> {
        if !self.check()? {
            return Ok(Found::Nothing);
        }
        let bytes = match std::fs::read(self.folder.join(entry.file_name())) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
            other => self.io(&format!("{} cannot be read", entry.file_name()), other)?,
        };
        Ok(unwrap(bytes, entry).map_or_else(Found::Stale, Found::Plan))
    }

    /// Makes the folder and writes into it, before minutes are spent on what could not be kept. `onnx` is the size of the file
    /// that is built from.
    pub(crate) fn prove_writable(&self, onnx: u64) -> Result<(), TensorRtError> {
        if !self.check()? {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
            self.io("it cannot be made", made)?;
            self.check()?;
        }
        let probe = self.folder.join(format!(".probe.{}.tmp", std::process::id()));
        let _ = std::fs::remove_file(&probe);
        let write = || {
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&probe)?;
            file.write_all(&[0x5a; 4096])?;
            file.sync_all()
        };
        let written = write();
        let _ = std::fs::remove_file(&probe);
        self.io("nothing can be written there", written)?;
        // The ONNX file, the engine as it comes and as it is kept; an engine is about as large as the file.
        let needed = onnx.saturating_mul(3).saturating_add(MARGIN);
        let free = rustix::fs::statvfs(&self.folder).map_or(u64::MAX, |d| d.f_bavail.saturating_mul(d.f_frsize));
        if free < needed {
            let mega = |bytes: u64| bytes as f64 / 1e6;
            return self.refuse(format!(
                "{:.0} MB are free there, and building takes about {:.0} MB; make space, or choose another folder",
                mega(free),
                mega(needed)
            ));
        }
        Ok(())
    }

    /// Waits until nobody else builds here, and removes what killed builds left; whether there was anything to wait for.
    pub(crate) fn hold(&self, waiting: &mut dyn FnMut()) -> Result<(Held<'_>, bool), TensorRtError> {
        let open = File::options().write(true).create(true).truncate(false).mode(0o600).open(self.folder.join("lock"));
        let file = self.io("its lock cannot be opened", open)?;
        let mut waited = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => std::thread::sleep(TICK),
                Err(TryLockError::Error(e)) => return self.io("it cannot be locked", Err(e)),
            }
            waited = true;
            waiting();
        }
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(".build.") && name.ends_with(".tmp") {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok((Held { cache: self, _lock: file }, waited))
    }
}

/// The engine out of a file's bytes, or why it is of no use.
fn unwrap(bytes: Vec<u8>, entry: &Entry) -> Result<Vec<u8>, String> {
    let damaged = || "the engine in the cache is damaged".to_string();
    if bytes.len() < BODY || &bytes[..8] != MAGIC || digest(&bytes[BODY..]) != bytes[8..BODY] {
        return Err(damaged());
    }
    let (length, rest) = bytes[BODY..].split_first_chunk::<4>().ok_or_else(damaged)?;
    let (key, plan) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(damaged)?;
    let (key, wanted) = (String::from_utf8_lossy(key), entry.key());
    if key != wanted {
        let differs = key.lines().zip(wanted.lines()).find(|(found, wanted)| found != wanted);
        let (found, wanted) = differs.unwrap_or((&key, &wanted));
        return Err(format!(
            "the engine in the cache was built for another machine or package ({found}; this is {wanted})"
        ));
    }
    // To its own memory, which begins where memory does: TensorRT reads it in words.
    Ok(plan.to_vec())
}

/// The cache while nobody else writes there.
pub(crate) struct Held<'a> {
    cache: &'a Cache,
    _lock: File,
}

/// A file of a build, removed with it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Held<'_> {
    /// The name of a file for the time of a build.
    pub fn scratch_name(&self, kind: &str) -> Scratch {
        Scratch(self.cache.folder.join(format!(".build.{}.{kind}.tmp", std::process::id())))
    }

    /// Such a file with this content.
    pub fn scratch(&self, kind: &str, bytes: &[u8]) -> Result<Scratch, TensorRtError> {
        let scratch = self.scratch_name(kind);
        self.cache.io("a file for the build cannot be written", Files.create(scratch.path(), bytes, 0o600))?;
        Ok(scratch)
    }

    /// Keeps an engine, whole or not at all, in the place of what was there for this package; the oldest of others go.
    pub fn write(&self, entry: &Entry, plan: &[u8]) -> Result<(), TensorRtError> {
        let key = entry.key();
        let mut bytes = Vec::with_capacity(BODY + 4 + key.len() + plan.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[0; 32]);
        bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
        bytes.extend_from_slice(key.as_bytes());
        bytes.extend_from_slice(plan);
        let of_body = digest(&bytes[BODY..]);
        bytes[8..BODY].copy_from_slice(&of_body);
        let (temporary, path) = (self.scratch_name("engine"), self.cache.folder.join(entry.file_name()));
        let written = replace_through(&Files, temporary.path(), &path, &bytes, 0o600);
        self.cache.io(&format!("{} cannot be written", entry.file_name()), written)?;
        self.prune(&path);
        Ok(())
    }

    fn prune(&self, newest: &Path) {
        let entries = std::fs::read_dir(&self.cache.folder).into_iter().flatten().flatten();
        let engines = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "engine"));
        let others = engines.filter(|path| path != newest);
        let mut aged: Vec<_> = others.map(|path| (path.metadata().and_then(|m| m.modified()).ok(), path)).collect();
        aged.sort();
        let old = aged.len().saturating_sub(KEPT - 1);
        aged.iter().take(old).for_each(|(_, path)| drop(std::fs::remove_file(path)));
    }
}

#[cfg(test)]
mod tests;
