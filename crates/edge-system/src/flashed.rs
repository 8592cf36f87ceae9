//! An image or a card, opened for reading on a host: what is where, the settings, and the packages, nothing mounted.

use crate::disk::{Disk, FileDisk};
use crate::layout::{Layout, LayoutError};
use crate::seal::fat;
use crate::slot::{POINTER, Slot, Slots, choice};
use edge_package::{PackageError, TrustPolicy, VerifiedPackage};
use ext4_view::{Ext4, Ext4Error, Ext4Read};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Begins the first sector of a card while it is being written. A boot loader finds no partition table in it.
pub const UNFINISHED: &[u8] = b"edge-flash: this card was not written to its end; write it again\n";
/// The folder of the package slots on the data partition.
pub const PACKAGES: &str = "packages";
/// The settings on the FAT partition.
pub const SETTINGS: &str = "camera.toml";
/// More than any settings file has, in bytes.
const MOST_SETTINGS: u64 = 1 << 20;

/// Whether the first sector is what an interrupted writing of a card leaves.
pub fn is_unfinished(sector: &[u8]) -> bool {
    sector.starts_with(UNFINISHED)
}

/// Why an image or a card cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FlashedError {
    /// Only some users may.
    #[error("{} may not be read by this user; run the command with sudo", .0.display())]
    Denied(PathBuf),
    /// It is not there, or cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The image or card.
        path: PathBuf,
        /// Why not.
        #[source]
        why: io::Error,
    },
    /// It is no flashed system.
    #[error("{}", path.display())]
    Unusable {
        /// The image or card.
        path: PathBuf,
        /// Why not.
        #[source]
        why: Unusable,
    },
    /// The data partition.
    #[error("the data partition holds no ext4 file system that can be read")]
    Data(#[source] Ext4Error),
    /// A file on it.
    #[error("cannot read {path} on the data partition")]
    File {
        /// Which one.
        path: String,
        /// Why not.
        #[source]
        why: Ext4Error,
    },
}

/// Why a disk is none of a flashed system.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// Writing it was interrupted.
    #[error("it was not written to its end and is not usable yet; write it again with `edge-flash write`")]
    Unfinished,
    /// Its table is something else's.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// An image or a card, opened for reading.
pub struct Flashed {
    /// The file or device.
    pub file: File,
    /// The same as a disk.
    pub disk: FileDisk,
    /// Where things stand on it.
    pub layout: Layout,
}

/// What is in each package slot: nothing, a package, or why it is refused.
pub type SlotContents = Vec<(Slot, Option<Result<VerifiedPackage, PackageError>>)>;

impl Flashed {
    /// Opens it; what is no flashed system, or was not written to its end, is refused with the reason.
    pub fn open(path: &Path) -> Result<Flashed, FlashedError> {
        let own = || path.to_path_buf();
        let file = File::open(path).map_err(|why| match why.kind() {
            io::ErrorKind::PermissionDenied => FlashedError::Denied(own()),
            _ => FlashedError::Open { path: own(), why },
        })?;
        let unusable = |why| FlashedError::Unusable { path: own(), why };
        let disk = file.try_clone().and_then(FileDisk::from_file).map_err(|e| unusable(Unusable::Read(e)))?;
        let layout = layout(&disk).map_err(unusable)?;
        Ok(Flashed { file, disk, layout })
    }

    /// The packages of both slots, each verified on its own.
    pub fn packages(&self, trust: &TrustPolicy) -> Result<SlotContents, FlashedError> {
        let fs = read(&self.file, self.layout.data.clone())?;
        let slots = Slots::new(Path::new("/").join(PACKAGES).as_path());
        let look = |slot: Slot| {
            let bytes = content(&fs, &slots.package(slot).to_string_lossy())?;
            Ok((slot, bytes.map(|bytes| VerifiedPackage::from_bytes(bytes, trust))))
        };
        Slot::BOTH.into_iter().map(look).collect()
    }

    /// The package slot that runs.
    pub fn active(&self) -> Result<Slot, FlashedError> {
        let fs = read(&self.file, self.layout.data.clone())?;
        let pointer = Path::new("/").join(PACKAGES).join(POINTER);
        let choice = choice(content(&fs, &pointer.to_string_lossy())?);
        Ok(choice.trial.map_or(choice.active, |trial| trial.slot))
    }

    /// The text of `camera.toml`; `None` where there is none.
    pub fn settings(&self) -> io::Result<Option<Vec<u8>>> {
        fat::content(&self.disk, self.layout.boot.clone(), SETTINGS, MOST_SETTINGS)
    }
}

/// The layout that a disk has, where it is a flashed one.
fn layout(disk: &dyn Disk) -> Result<Layout, Unusable> {
    let mut first = [0; crate::SECTOR as usize];
    if disk.size() >= first.len() as u64 {
        disk.read_at(&mut first, 0).map_err(Unusable::Read)?;
    }
    if is_unfinished(&first) {
        return Err(Unusable::Unfinished);
    }
    Ok(Layout::from_disk(disk)?)
}

/// A part of a file or device, read as a file system.
struct Part {
    file: File,
    range: Range<u64>,
}

impl Ext4Read for Part {
    fn read(&mut self, start: u64, bytes: &mut [u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let fits = start.checked_add(bytes.len() as u64).is_some_and(|end| end <= self.range.end - self.range.start);
        if !fits {
            return Err("the file system is longer than its partition".into());
        }
        Ok(self.file.read_exact_at(bytes, self.range.start + start)?)
    }
}

/// Opens the file system in `range` for reading. One that was not unmounted is read as its journal says it should be;
/// nothing is written.
pub fn read(file: &File, range: Range<u64>) -> Result<Ext4, FlashedError> {
    let file = file.try_clone().map_err(|e| FlashedError::Data(Ext4Error::Io(e.into())))?;
    Ext4::load(Box::new(Part { file, range })).map_err(FlashedError::Data)
}

/// The content of a file, or none where there is no such file.
pub fn content(fs: &Ext4, path: &str) -> Result<Option<Vec<u8>>, FlashedError> {
    match fs.read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Ext4Error::NotFound) => Ok(None),
        Err(why) => Err(FlashedError::File { path: path.into(), why }),
    }
}
