//! A card's data partition, mounted where nobody else looks.

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A mounted partition; unmounted when it is dropped.
pub struct Mounted {
    folder: TempDir,
    mounted: bool,
}

impl Mounted {
    /// Mounts partition `number` of a disk, an ext4 file system.
    pub fn new(disk: &str, number: u32) -> Result<Mounted> {
        let device = partition(disk, number);
        if !device.exists() {
            bail!(
                "there is no {}: the kernel has not looked at the card's partitions; put it in again",
                device.display()
            );
        }
        let folder =
            tempfile::Builder::new().prefix("edge-flash-").tempdir().context("cannot make a temporary folder")?;
        let root = |e: Errno| match e {
            Errno::PERM | Errno::ACCESS => {
                anyhow::anyhow!(
                    "{} has to be mounted, which needs root's rights; run the command with sudo",
                    device.display()
                )
            }
            e => anyhow::anyhow!("{} cannot be mounted: {}", device.display(), std::io::Error::from(e)),
        };
        // In a view of the file systems that ends with this process, however it ends.
        // SAFETY: only this thread's view of mounts, root and current folder becomes its own; no file descriptor does.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(root)?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(root)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
        mount(&device, folder.path(), "ext4", flags, None::<&std::ffi::CStr>).map_err(root)?;
        Ok(Mounted { folder, mounted: true })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Unmounts it, by which everything has reached the card.
    pub fn unmount(mut self) -> Result<()> {
        self.mounted = false;
        unmount(self.folder.path(), UnmountFlags::empty()).context("the data partition cannot be unmounted")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily, so that the folder can be removed whatever is still open.
            let _ = unmount(self.folder.path(), UnmountFlags::DETACH);
        }
    }
}

/// `sda` → `/dev/sda4`, `mmcblk0` → `/dev/mmcblk0p4`.
fn partition(disk: &str, number: u32) -> PathBuf {
    let between = if disk.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    PathBuf::from(format!("/dev/{disk}{between}{number}"))
}
