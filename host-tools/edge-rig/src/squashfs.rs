//! The read-only file system of a board's system, made and unpacked with Debian's tools.

use std::path::Path;

use anyhow::Result;

use crate::apt;
use crate::debian::Tree;

/// Makes a squashfs of the folder `stage`; the same files give the same bytes. `tools` holds [`crate::sets::TOOLS`],
/// `date` is in seconds since 1970.
pub fn make(tools: &Tree, stage: &Path, out: &Path, date: u64) -> Result<()> {
    let mut mksquashfs = tools.command("bin/mksquashfs", None)?;
    // The tool takes either its own options for dates or this variable.
    mksquashfs.env_remove("SOURCE_DATE_EPOCH");
    mksquashfs.arg(stage).arg(out);
    mksquashfs.args(["-noappend", "-no-progress", "-quiet", "-all-root", "-no-xattrs", "-reproducible"]);
    let date = date.to_string();
    mksquashfs.args(["-mkfs-time", &date, "-all-time", &date, "-comp", "zstd", "-Xcompression-level", "19"]);
    apt::text(&mut mksquashfs)?;
    Ok(())
}

/// Unpacks one into the folder `to`, which must not exist.
pub fn unpack(tools: &Tree, squashfs: &Path, to: &Path) -> Result<()> {
    let mut unsquashfs = tools.command("bin/unsquashfs", None)?;
    apt::text(unsquashfs.args(["-quiet", "-no-progress", "-no-xattrs", "-dest"]).arg(to).arg(squashfs))?;
    Ok(())
}
