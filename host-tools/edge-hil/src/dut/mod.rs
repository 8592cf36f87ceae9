//! Devices under test, a file for each kind.

mod host;
pub mod programs;
mod remote;

use crate::cmd::Usage;
use crate::qemu::QemuDut;
use anyhow::Result;
use edge_suite::hil::{Capability, Dut, DutFile, Kind};
use std::path::Path;

/// Gets hold of a device; nothing is started yet. What it leaves behind, such as its console, goes to `folder`.
pub fn open(file: DutFile, folder: &Path) -> Result<Box<dyn Dut>> {
    Ok(match file.kind()? {
        Kind::Host(host) => Box::new(host::HostDut::new(file, host, folder)?),
        Kind::Remote(remote) => Box::new(remote::RemoteDut::new(file, remote, folder)?),
        Kind::Qemu(qemu) => Box::new(QemuDut::new(file, qemu, folder)?),
    })
}

/// Refuses capabilities that a device of this kind cannot have, whatever its file says.
pub fn all_known(file: &DutFile, known: &[Capability], kind: &str) -> Result<()> {
    for capability in &file.capabilities {
        if !known.contains(capability) {
            return Err(Usage(format!("{}: a {kind} cannot have the capability {capability}", file.name)).into());
        }
    }
    Ok(())
}
