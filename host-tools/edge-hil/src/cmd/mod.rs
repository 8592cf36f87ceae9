//! The verbs, a file each.

pub mod camera;
pub mod list;
pub mod report;
pub mod run;

use anyhow::{Context, Result};
use edge_suite::hil::DutFile;
use std::fs::{File, TryLockError};
use std::path::Path;

/// What is wrong with the command line or a file that it names.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Reads the file of a device.
pub fn device(path: &Path) -> std::result::Result<DutFile, Usage> {
    DutFile::read(path).map_err(|e| Usage(format!("{e:#}")))
}

/// Makes the folder that a run leaves its results in. It is this run's alone as long as what is returned lives.
pub fn results(folder: &Path) -> Result<File> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let handle = File::open(folder).with_context(|| format!("cannot open {}", folder.display()))?;
    match handle.try_lock() {
        Ok(()) => Ok(handle),
        Err(TryLockError::WouldBlock) => {
            Err(Usage(format!("another run leaves its results in {}; name another folder with -o", folder.display()))
                .into())
        }
        // A file system without locks has no way to tell.
        Err(TryLockError::Error(_)) => Ok(handle),
    }
}
