//! The verbs, a file each.

pub mod camera;
pub mod list;
pub mod report;
pub mod run;

use edge_suite::hil::DutFile;
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
pub fn device(path: &Path) -> Result<DutFile, Usage> {
    DutFile::read(path).map_err(|e| Usage(format!("{e:#}")))
}
