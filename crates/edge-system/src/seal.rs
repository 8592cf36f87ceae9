//! The signed list of digests: every byte of an image but the list itself.

pub(crate) mod fat;
mod verify;

pub use fat::files as boot_files;
pub use verify::{FileState, FileVerdict, RegionState, RegionVerdict, Verdict};

use crate::disk::{Disk, all_zero, digest_of};
use crate::layout::Layout;
use crate::system::Trust;
use edge_package::{
    Content, Digest, Head, Kind, PackageError, PackageWriter, Part, PublicKey, SecretKey, Signed, TrustPolicy, Verified,
};
use serde::{Deserialize, Serialize};
use std::io;

/// The list. The order of the fields is the wire format: append, never reorder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seal {
    /// The board of the image.
    pub board: String,
    /// The version of the image, for people.
    pub version: String,
    /// Seconds since 1970-01-01 UTC.
    pub created: u64,
    /// The release of the kernel on the FAT partition.
    pub kernel: String,
    /// Keys of whom updates are accepted, 32 bytes each; with none every intact update is.
    pub trusted: Vec<[u8; 32]>,
    /// Digest of the system that the image was built with.
    pub factory: Digest,
    /// All of the image but the list, in the order of the disk, without gaps.
    pub regions: Vec<Region>,
    /// The files of the FAT partition, ordered by path.
    pub files: Vec<FileDigest>,
}

/// A part of the image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// What it is, for people.
    pub name: String,
    /// Where it begins on the disk, in bytes.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// BLAKE3-256 of the fresh image's bytes.
    pub digest: Digest,
    /// What may become of it.
    pub kind: RegionKind,
}

/// What may become of a part of the image in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegionKind {
    /// The partition table: the last partition may grow.
    Table,
    /// Zero bytes between other things, for ever.
    Gap,
    /// A copy of the boot state.
    State,
    /// The FAT partition: settings may be edited on any PC.
    Boot,
    /// A system slot: may hold another system, which proves itself.
    System,
    /// The data partition: anything.
    Data,
}

/// A file of the FAT partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Path with `/` between its parts and none in front.
    pub path: String,
    /// Bytes.
    pub length: u64,
    /// BLAKE3-256.
    pub digest: Digest,
}

impl Content for Seal {
    const KIND: Kind = Kind {
        magic: *b"\x89EDGESE\n",
        name: "the list of digests of an image",
        make: "edge-flash image --board BOARD",
    };

    fn parts(&self) -> &[Part] {
        &[]
    }

    fn set_parts(&mut self, _parts: Vec<Part>) {}

    fn validate(&self) -> Result<(), PackageError> {
        let fail = |what: &str| Err(PackageError::Manifest(what.into()));
        let mut end = 0;
        for region in &self.regions {
            let Some(next) = region.offset.checked_add(region.length) else {
                return fail("a region ends beyond what a disk can have");
            };
            if region.offset < end {
                return fail("its regions overlap");
            }
            end = next;
        }
        if self.files.windows(2).any(|w| w[0].path >= w[1].path) {
            return fail("its files are not in order");
        }
        let names = self.regions.iter().map(|r| &r.name).chain(self.files.iter().map(|f| &f.path));
        if names.chain([&self.board, &self.version, &self.kernel]).any(|t| t.chars().any(char::is_control)) {
            return fail("a text has control characters");
        }
        if self.trusted.iter().any(|key| PublicKey::from_bytes(key).is_err()) {
            return fail("a trusted key is not one");
        }
        Ok(())
    }
}

/// What a list says beside the digests.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// See [`Seal::board`].
    pub board: String,
    /// See [`Seal::version`].
    pub version: String,
    /// See [`Seal::created`].
    pub created: u64,
    /// See [`Seal::kernel`].
    pub kernel: String,
    /// See [`Seal::trusted`].
    pub trusted: TrustPolicy,
    /// See [`Seal::factory`].
    pub factory: Digest,
}

/// A list that has been read.
#[derive(Debug, Clone, PartialEq)]
pub struct Sealed {
    /// The list.
    pub seal: Seal,
    /// Its digest.
    pub digest: Digest,
    /// Who signed it.
    pub signed: Signed,
}

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The disk could not be read or written.
    #[error("the disk cannot be read or written: {0}")]
    Io(#[from] io::Error),
    /// The list is damaged or not trusted.
    #[error("the list of digests: {0}")]
    List(#[from] PackageError),
    /// The list is longer than its place.
    #[error("the list of digests takes {length} bytes, but there is room for {room}")]
    TooLong {
        /// Its length in bytes.
        length: u64,
        /// Bytes there are.
        room: u64,
    },
    /// The FAT partition could not be read.
    #[error("the files of the boot partition cannot be read: {0}")]
    Fat(String),
    /// Bytes after the list are not zero.
    #[error("the bytes after the list of digests are not zero")]
    Fill,
}

impl Seal {
    /// Makes the list of a finished image. `progress` is given bytes as they are read.
    pub fn make(
        disk: &dyn Disk,
        layout: &Layout,
        facts: Facts,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Seal, SealError> {
        let mut regions = Vec::new();
        for (name, kind, range) in layout.regions() {
            let (offset, length) = (range.start, range.end - range.start);
            regions.push(Region { name: name.into(), offset, length, digest: digest_of(disk, range, progress)?, kind });
        }
        let files = fat::files(disk, layout.boot.clone()).map_err(|e| SealError::Fat(e.to_string()))?;
        Ok(Seal {
            board: facts.board,
            version: facts.version,
            created: facts.created,
            kernel: facts.kernel,
            trusted: facts.trusted.trusted.iter().map(|key| key.to_bytes()).collect(),
            factory: facts.factory,
            regions,
            files,
        })
    }

    /// Writes the list to its place.
    pub fn write(&self, disk: &mut dyn Disk, layout: &Layout, key: Option<&SecretKey>) -> Result<(), SealError> {
        let mut bytes = PackageWriter::new().finish(self.clone(), key)?;
        let (length, room) = (bytes.len() as u64, layout.seal.end - layout.seal.start);
        if length > room {
            return Err(SealError::TooLong { length, room });
        }
        bytes.resize(room as usize, 0);
        disk.write_at(&bytes, layout.seal.start)?;
        Ok(disk.flush()?)
    }

    /// Reads the list. `trust` is whose lists are accepted; with no key, any intact one.
    pub fn read(disk: &dyn Disk, layout: &Layout, trust: &TrustPolicy) -> Result<Sealed, SealError> {
        let mut bytes = vec![0; (layout.seal.end - layout.seal.start) as usize];
        disk.read_at(&mut bytes, layout.seal.start)?;
        let total = Head::<Seal>::read(&bytes, trust)?.total.min(bytes.len() as u64) as usize;
        if !all_zero(&bytes[total..]) {
            return Err(SealError::Fill);
        }
        bytes.truncate(total);
        let list = Verified::<Seal>::from_bytes(bytes, trust)?;
        Ok(Sealed { seal: list.manifest().clone(), digest: list.digest(), signed: list.signed() })
    }

    /// The keys in the list.
    pub fn policy(&self) -> TrustPolicy {
        // `validate` found that all of them are keys.
        TrustPolicy { trusted: self.trusted.iter().filter_map(|key| PublicKey::from_bytes(key).ok()).collect() }
    }

    /// Whose systems the disk accepts.
    pub fn trust(&self) -> Trust {
        Trust { policy: self.policy(), factory: Some(self.factory) }
    }
}
