//! The data partition: packages and log.

use crate::ext4::{Editable, Owner, make_file, make_folder};
use anyhow::{Context, Result};
use edge_package::VerifiedPackage;
use edge_system::flashed::PACKAGES;
use edge_system::slot::{Slot, Slots};
use std::path::{Path, PathBuf};

/// What PCs show.
const LABEL: &str = "edge-data";
/// The folder of the logs.
pub const LOGS: &str = "log";
/// The user that the runtime runs as in the image, and the group that cameras belong to.
pub const CAMERA: Owner = Owner { uid: 990, gid: 44 };

/// Makes the partition of `length` bytes as the file `name` in `work`, with `package` as what runs.
pub fn make(
    work: &Path,
    name: &str,
    length: u64,
    package: &VerifiedPackage,
    date: u64,
    identity: &[u8; 32],
) -> Result<PathBuf> {
    let fs = Editable::new(work, name, date);
    fs.make(length, LABEL, identity)?;
    std::fs::write(work.join("package"), package.bytes())
        .with_context(|| format!("cannot write to {}", work.display()))?;
    let slots = Slots::new(Path::new(PACKAGES));
    let mut script = make_folder(LOGS, CAMERA) + &make_folder(PACKAGES, CAMERA);
    for slot in Slot::BOTH {
        script += &make_folder(&text(slots.package(slot).parent())?, CAMERA);
    }
    // Nothing is chosen yet, which means slot A.
    script += &make_file("package", &text(Some(&slots.package(Slot::A)))?, CAMERA);
    fs.script(&script).context("the data partition cannot be filled")?;
    Ok(fs.path())
}

fn text(path: Option<&Path>) -> Result<String> {
    path.and_then(Path::to_str).map(str::to_owned).context("a path of the slots is no text")
}
