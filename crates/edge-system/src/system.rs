//! A system: the read-only file system with init and runtime, as a bundle (`.edgesys`) and in a slot of the disk.
//!
//! A slot is the squashfs at its start, zero bytes, and in its last 64 KiB the head of the bundle it came from, zero
//! filled. So a slot proves itself: the manifest in its head holds the length and the digest of the squashfs.

use crate::disk::{CHUNK, Disk, all_zero, digest_of, for_each_chunk, is_zero};
use edge_package::{
    Content, Digest, Head, Kind, PackageError, PackageWriter, Part, SecretKey, Signed, TrustPolicy, Verified, Version,
};
use serde::{Deserialize, Serialize};
use std::io;
use std::ops::Range;

/// Room for a bundle's head at the end of a slot, in bytes.
pub const HEAD_ROOM: u64 = 64 << 10;
/// Name of the one part of a bundle.
pub const SQUASHFS: &str = "system.squashfs";

/// What a system says of itself. The order of the fields is the wire format: append, never reorder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SystemManifest {
    /// The board it is for.
    pub board: String,
    /// The version for people.
    pub version: String,
    /// Grows with every release; an update never goes back.
    pub sequence: u64,
    /// The lowest sequence of a system that it can replace.
    pub minimum: u64,
    /// Seconds since 1970-01-01 UTC.
    pub created: u64,
    /// The kernel release it needs, such as `6.1.0-40-arm64`; `None` where any will do.
    pub kernel: Option<String>,
    /// The version of the runtime in it.
    pub runtime: Version,
    /// What it is made of.
    pub components: Vec<Component>,
    /// The payload: one part, [`SQUASHFS`].
    pub parts: Vec<Part>,
}

/// A part that a system is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence, as SPDX writes it.
    pub licence: String,
}

impl Content for SystemManifest {
    const KIND: Kind =
        Kind { magic: *b"\x89EDGESY\n", name: "an .edgesys file", make: "edge-flash bundle --board BOARD" };

    fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn set_parts(&mut self, parts: Vec<Part>) {
        self.parts = parts;
    }

    fn validate(&self) -> Result<(), PackageError> {
        let fail = |what: &str| Err(PackageError::Manifest(what.into()));
        let texts = [&self.board, &self.version].into_iter().chain(&self.kernel);
        let components = self.components.iter().flat_map(|c| [&c.name, &c.version, &c.licence]);
        if texts.clone().any(|t| t.is_empty()) {
            return fail("board, version or kernel is empty");
        }
        if texts.chain(components).any(|t| t.chars().any(char::is_control)) {
            return fail("a text has control characters");
        }
        if self.minimum > self.sequence {
            return fail("it replaces only systems that are newer than itself");
        }
        match &self.parts[..] {
            [part] if part.name == SQUASHFS && part.length > 0 => Ok(()),
            _ => fail("its one part is not the file system"),
        }
    }
}

/// An `.edgesys` file whose every byte has been checked: `SystemBundle::open(path, &trust)`.
pub type SystemBundle = Verified<SystemManifest>;

/// The bytes of an `.edgesys` file. Refuses a manifest that is too long for the head of a slot.
pub fn bundle(manifest: SystemManifest, squashfs: Vec<u8>, key: Option<&SecretKey>) -> Result<Vec<u8>, PackageError> {
    let mut writer = PackageWriter::new();
    writer.part(SQUASHFS, squashfs);
    let bytes = writer.finish(manifest, key)?;
    let head = Head::<SystemManifest>::read(&bytes, &TrustPolicy::default())?;
    if head.length as u64 > HEAD_ROOM {
        return Err(PackageError::Manifest(format!(
            "it takes {} bytes, and a slot has room for {HEAD_ROOM}",
            head.length
        )));
    }
    Ok(bytes)
}

/// Whose systems a disk accepts.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// The trusted keys; with none, every intact system is accepted.
    pub policy: TrustPolicy,
    /// Digest of the system that the image was built with, which needs no signature: it stands in the list of digests.
    pub factory: Option<Digest>,
}

/// A slot that has been checked: its head, and every byte of its squashfs. What is between them is not looked at:
/// [`check_fill`].
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedSlot {
    /// What the system says of itself.
    pub manifest: SystemManifest,
    /// Digest of the bundle it came from.
    pub digest: Digest,
    /// Who signed.
    pub signed: Signed,
    /// Where the squashfs is on the disk, in bytes.
    pub squashfs: Range<u64>,
}

/// Why a slot is not started from. A verdict as much as an error.
#[derive(Debug, thiserror::Error)]
pub enum SlotFault {
    /// The disk could not be read.
    #[error("it cannot be read: {0}")]
    Io(io::Error),
    /// There is nothing in it, or an update was interrupted.
    #[error("there is no complete system in it")]
    Empty,
    /// The head is damaged, or not trusted.
    #[error(transparent)]
    Head(#[from] PackageError),
    /// The head says what cannot be.
    #[error("its head is damaged: {0}")]
    Place(&'static str),
    /// The squashfs is not what the head says.
    #[error("it is damaged: the digest of {SQUASHFS:?} differs")]
    Digest,
}

/// Checks the system in the slot at `range`: head, trust, and the digest over the squashfs. `progress` is given the
/// number of bytes read since it was called last.
pub fn read_slot(
    disk: &dyn Disk,
    range: Range<u64>,
    trust: &Trust,
    progress: &mut dyn FnMut(u64),
) -> Result<VerifiedSlot, SlotFault> {
    let (payload, room) = split(&range).ok_or(SlotFault::Place("the slot is too small for one"))?;
    let mut bytes = vec![0; HEAD_ROOM as usize];
    disk.read_at(&mut bytes, room.start).map_err(SlotFault::Io)?;
    if all_zero(&bytes) {
        return Err(SlotFault::Empty);
    }
    let head = trust.head(&bytes)?;
    if !all_zero(&bytes[head.length..]) {
        return Err(SlotFault::Place("what follows it is not zero"));
    }
    let Some(part) = head.manifest.parts.first().filter(|p| p.length <= payload.end - payload.start) else {
        return Err(SlotFault::Place("the file system is longer than the slot"));
    };
    let squashfs = payload.start..payload.start + part.length;
    if digest_of(disk, squashfs.clone(), progress).map_err(SlotFault::Io)? != part.digest {
        return Err(SlotFault::Digest);
    }
    Ok(VerifiedSlot { digest: head.digest, signed: head.signed, squashfs, manifest: head.manifest })
}

/// Whether the bytes of the slot at `range` that belong to neither squashfs nor head are zero.
pub fn check_fill(disk: &dyn Disk, range: Range<u64>, slot: &VerifiedSlot) -> io::Result<bool> {
    match split(&range) {
        Some((payload, _)) => is_zero(disk, slot.squashfs.end..payload.end),
        None => Ok(false),
    }
}

/// The places in a slot: what the file system has, and what the head has.
fn split(range: &Range<u64>) -> Option<(Range<u64>, Range<u64>)> {
    let head = range.end.checked_sub(HEAD_ROOM).filter(|at| *at > range.start)?;
    Some((range.start..head, head..range.end))
}

impl Trust {
    /// Reads a head whose bundle is trusted.
    fn head(&self, bytes: &[u8]) -> Result<Head<SystemManifest>, PackageError> {
        let refused = match Head::read(bytes, &self.policy) {
            Err(e @ (PackageError::Unsigned | PackageError::UntrustedSigner { .. })) => e,
            other => return other,
        };
        match Head::<SystemManifest>::read(bytes, &TrustPolicy::default()) {
            Ok(head) if self.factory == Some(head.digest) => Ok(head),
            _ => Err(refused),
        }
    }
}

/// Refuses a bundle that has no room in the slot at `range`.
pub fn check_room(range: &Range<u64>, bundle: &SystemBundle) -> Result<(), WriteError> {
    let squashfs = bundle.part(SQUASHFS).map_or(0, |s| s.len() as u64);
    let head = bundle.head().len() as u64;
    let (needed, room) = (squashfs + head.max(HEAD_ROOM), range.end - range.start);
    if needed > room || head > HEAD_ROOM {
        return Err(WriteError::TooLarge { needed, room });
    }
    Ok(())
}

/// Writes a bundle into the slot at `range` so that a power cut leaves the slot empty or whole: the head is cleared
/// first and written last, each step flushed, and what was written is read back before the head is. `progress` is given
/// the number of bytes written or read back since it was called last. A bundle that does not fit is refused.
pub fn write_slot(
    disk: &mut dyn Disk,
    range: Range<u64>,
    bundle: &SystemBundle,
    progress: &mut dyn FnMut(u64),
) -> Result<(), WriteError> {
    check_room(&range, bundle)?;
    let squashfs = bundle.part(SQUASHFS).unwrap_or_default();
    // `check_room` found that the head fits.
    let (payload, room) = split(&range).unwrap_or((range.clone(), range.clone()));
    clear(disk, room.clone())?;
    disk.flush()?;

    let mut at = payload.start;
    for bytes in squashfs.chunks(CHUNK) {
        disk.write_at(bytes, at)?;
        at += bytes.len() as u64;
        progress(bytes.len() as u64);
    }
    clear(disk, at..payload.end)?;
    disk.flush()?;
    read_back(disk, payload.start, squashfs, progress)?;

    disk.write_at(bundle.head(), room.start)?;
    disk.flush()?;
    read_back(disk, room.start, bundle.head(), &mut |_| {})
}

/// Makes bytes zero; those that are already are not written, so that a sparse file stays one and a card is not worn.
fn clear(disk: &mut dyn Disk, range: Range<u64>) -> io::Result<()> {
    let mut dirty = Vec::new();
    for_each_chunk(disk, range, &mut |at, bytes| {
        if !all_zero(bytes) {
            dirty.push((at, bytes.len()));
        }
        Ok(())
    })?;
    dirty.into_iter().try_for_each(|(at, length)| disk.write_at(&vec![0; length], at))
}

/// Compares what the disk gives back with what was written.
fn read_back(disk: &dyn Disk, at: u64, wanted: &[u8], progress: &mut dyn FnMut(u64)) -> Result<(), WriteError> {
    let mut wrong = None;
    for_each_chunk(disk, at..at + wanted.len() as u64, &mut |place, bytes| {
        let from = (place - at) as usize;
        if wrong.is_none() && bytes != &wanted[from..from + bytes.len()] {
            wrong = Some(place);
        }
        progress(bytes.len() as u64);
        Ok(())
    })?;
    wrong.map_or(Ok(()), |at| Err(WriteError::ReadBack { at }))
}

/// Why a slot could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The disk failed.
    #[error("the system slot cannot be written: {0}")]
    Io(#[from] io::Error),
    /// The system is too large.
    #[error(
        "the system takes {needed} bytes, but the slot has room for {room}; flash a new image, whose slots are larger"
    )]
    TooLarge {
        /// Bytes of squashfs and head.
        needed: u64,
        /// Size of the slot in bytes.
        room: u64,
    },
    /// The disk gives back something else than was written.
    #[error("the disk gives back other bytes than were written at {at}; it is failing, use another one")]
    ReadBack {
        /// Offset on the disk in bytes.
        at: u64,
    },
}
