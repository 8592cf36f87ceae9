//! Two places for a package and a pointer to the one that runs, so that a bad or half-written update never leaves a
//! device without a package.
//!
//! ```text
//! /var/lib/edge-camera/a/package.edgepack
//! /var/lib/edge-camera/b/package.edgepack
//! /var/lib/edge-camera/active              "a" or "b"
//! ```
//!
//! A new package is written to the slot that does not run, then the pointer is switched. Every write is
//! [`replace_file`]'s: a temporary file, synced, renamed, and the folder synced. So at whatever moment the power
//! goes, the slot that ran is whole and the pointer names a slot.

use edge_package::replace_file;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Name of the package's file in a slot.
const PACKAGE: &str = "package.edgepack";
/// Name of the pointer.
const POINTER: &str = "active";

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The one that runs where nothing else is said.
    A,
    /// The other one.
    B,
}

impl Slot {
    /// The one that this is not.
    pub fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Slot::A => "a",
            Slot::B => "b",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What came of starting from the slots.
#[derive(Debug)]
pub struct Booted<T, E> {
    /// What the slot's package became.
    pub value: T,
    /// The slot.
    pub slot: Slot,
    /// Why the active slot was refused, where the other one had to stand in.
    pub refused: Option<E>,
}

/// Neither slot could be started from.
#[derive(Debug)]
pub struct NoSlot<E> {
    /// The active slot, and why it was refused.
    pub active: (Slot, E),
    /// The other one, and why it was refused.
    pub other: (Slot, E),
}

/// One thing that an update does to the disk. It is done whole or not at all.
#[derive(Debug, Clone, PartialEq)]
enum Step<'a> {
    Folder(PathBuf),
    Replace(PathBuf, &'a [u8]),
}

impl Step<'_> {
    fn run(&self) -> io::Result<()> {
        match self {
            Step::Folder(path) => std::fs::create_dir_all(path),
            Step::Replace(path, bytes) => replace_file(path, bytes, 0o644),
        }
    }
}

/// The folder of the slots.
#[derive(Debug, Clone)]
pub struct Slots {
    root: PathBuf,
}

impl Slots {
    /// The slots in `root`, which need not exist yet.
    pub fn new(root: &Path) -> Slots {
        Slots { root: root.into() }
    }

    /// The slot that the pointer names; A where there is none or it names nothing that is known.
    pub fn active(&self) -> Slot {
        match std::fs::read(self.root.join(POINTER)) {
            Ok(text) if text.trim_ascii() == b"b" => Slot::B,
            _ => Slot::A,
        }
    }

    /// The slot that an update goes to.
    pub fn inactive(&self) -> Slot {
        self.active().other()
    }

    /// Where the package of a slot is.
    pub fn package(&self, slot: Slot) -> PathBuf {
        self.root.join(slot.name()).join(PACKAGE)
    }

    /// Puts a package into the inactive slot, which is named. Whether it is a good one is the caller's to have checked.
    pub fn install(&self, bytes: &[u8]) -> io::Result<Slot> {
        let slot = self.inactive();
        self.installing(slot, bytes).iter().try_for_each(Step::run)?;
        Ok(slot)
    }

    /// Makes the inactive slot the active one; refuses when there is no package in it.
    pub fn switch(&self) -> io::Result<Slot> {
        let slot = self.inactive();
        let package = self.package(slot);
        if !package.is_file() {
            let why = format!("there is no package in slot {slot}: {} is missing", package.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        self.switching(slot).iter().try_for_each(Step::run)?;
        Ok(slot)
    }

    /// Starts from the active slot, else from the other one. `open` is given the path of a package.
    pub fn boot<T, E>(&self, mut open: impl FnMut(&Path) -> Result<T, E>) -> Result<Booted<T, E>, NoSlot<E>> {
        let (active, other) = (self.active(), self.inactive());
        let refused = match open(&self.package(active)) {
            Ok(value) => return Ok(Booted { value, slot: active, refused: None }),
            Err(why) => why,
        };
        match open(&self.package(other)) {
            Ok(value) => Ok(Booted { value, slot: other, refused: Some(refused) }),
            Err(why) => Err(NoSlot { active: (active, refused), other: (other, why) }),
        }
    }

    fn installing<'a>(&self, slot: Slot, bytes: &'a [u8]) -> Vec<Step<'a>> {
        vec![Step::Folder(self.root.join(slot.name())), Step::Replace(self.package(slot), bytes)]
    }

    fn switching(&self, slot: Slot) -> Vec<Step<'static>> {
        let name: &[u8] = match slot {
            Slot::A => b"a\n",
            Slot::B => b"b\n",
        };
        vec![Step::Replace(self.root.join(POINTER), name)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &[u8] = b"whole: old";
    const NEW: &[u8] = b"whole: new, longer";

    fn open(path: &Path) -> Result<Vec<u8>, String> {
        let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
        if bytes == OLD || bytes == NEW { Ok(bytes) } else { Err("not whole".into()) }
    }

    fn device(first: Slot) -> (tempfile::TempDir, Slots) {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::new(dir.path());
        slots.installing(first, OLD).iter().chain(&slots.switching(first)).for_each(|step| step.run().unwrap());
        (dir, slots)
    }

    /// What a kill in the middle of a step leaves: a temporary file, of which `whole` of 4 quarters were written.
    fn begin(step: &Step, whole: usize) {
        if let Step::Replace(path, bytes) = step {
            let name = format!(".{}.4711.tmp", path.file_name().unwrap().to_string_lossy());
            std::fs::write(path.with_file_name(name), &bytes[..bytes.len() * whole / 4]).unwrap();
        }
    }

    #[test]
    fn whenever_the_power_goes_a_slot_boots() {
        for first in [Slot::A, Slot::B] {
            let count = device(first).1.installing(first.other(), NEW).len() + 1;
            // One step more than there are: nothing was cut off.
            for (done, whole) in (0..=count).flat_map(|done| (0..=4).map(move |whole| (done, whole))) {
                let (_dir, slots) = device(first);
                let mut steps = slots.installing(first.other(), NEW);
                steps.extend(slots.switching(first.other()));
                steps[..done].iter().for_each(|step| step.run().unwrap());
                if let Some(step) = steps.get(done) {
                    begin(step, whole);
                }
                let booted = slots.boot(open).unwrap();
                let expected = if done == count { (NEW, first.other()) } else { (OLD, first) };
                assert_eq!((booted.value.as_slice(), booted.slot), expected, "after {done} steps and {whole}/4");
                assert!(booted.refused.is_none());
                // And the update can be done again.
                assert_eq!(slots.install(NEW).unwrap(), slots.inactive());
                slots.switch().unwrap();
                assert_eq!(slots.boot(open).unwrap().value, NEW);
            }
        }
    }

    #[test]
    fn a_corrupt_slot_gives_way_to_the_other() {
        let (_dir, slots) = device(Slot::A);
        assert_eq!(slots.install(NEW).unwrap(), Slot::B);
        assert_eq!(slots.switch().unwrap(), Slot::B);
        std::fs::write(slots.package(Slot::B), "rotten").unwrap();
        let booted = slots.boot(open).unwrap();
        assert_eq!((booted.slot, booted.refused.as_deref()), (Slot::A, Some("not whole")));
        std::fs::remove_file(slots.package(Slot::A)).unwrap();
        let none = slots.boot(open).unwrap_err();
        assert_eq!((none.active.0, none.active.1.as_str(), none.other.0), (Slot::B, "not whole", Slot::A));
    }

    #[test]
    fn a_pointer_that_says_nothing_is_slot_a() {
        let (dir, slots) = device(Slot::A);
        for text in ["", "\0\0", "c", "a/../b"] {
            std::fs::write(dir.path().join(POINTER), text).unwrap();
            assert_eq!(slots.active(), Slot::A);
        }
        std::fs::remove_file(dir.path().join(POINTER)).unwrap();
        assert_eq!((slots.active(), slots.inactive()), (Slot::A, Slot::B));
    }

    #[test]
    fn an_empty_slot_is_not_switched_to() {
        let (_dir, slots) = device(Slot::A);
        assert!(slots.switch().unwrap_err().to_string().contains("no package in slot b"));
        assert_eq!(slots.active(), Slot::A);
    }
}
