//! Devices under test, a file for each kind.

mod host;
pub mod programs;
mod remote;

use crate::cmd::Usage;
use crate::qemu::QemuDut;
use anyhow::Result;
use edge_suite::hil::{Dut, DutFile, Kind};
use std::path::Path;

/// Gets hold of a device; nothing is started yet. What it leaves behind, such as its console, goes to `folder`.
pub fn open(file: DutFile, folder: &Path) -> Result<Box<dyn Dut>> {
    let kind = file.kind()?;
    if let Some(gone) = kind.files().into_iter().find(|path| !path.exists()) {
        return Err(Usage(format!("{}: there is no {}", file.name, gone.display())).into());
    }
    Ok(match kind {
        Kind::Host(host) => Box::new(host::HostDut::new(file, host, folder)?),
        Kind::Remote(remote) => Box::new(remote::RemoteDut::new(file, remote, folder)?),
        Kind::Qemu(qemu) => Box::new(QemuDut::new(file, qemu, folder)?),
    })
}
