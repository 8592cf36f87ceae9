//! Two places for a thing and a choice between them; for packages, files on the data partition.
//!
//! ```text
//! packages/a/package.edgepack
//! packages/b/package.edgepack
//! packages/active              the choice: "a" or "b", then perhaps "trial b 3" and "refused b goldens"
//! ```
//!
//! A new package is written to the slot that is not active, then the choice is replaced. Every write is
//! [`replace`]'s: a temporary file, synced, renamed, and the folder synced. So at whatever moment the power
//! goes, the active slot is whole and the choice names it.

use crate::state::{Boot, Choice, Reason};
use edge_package::{Files, Storage, replace, replace_through};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Name of the package's file in a slot.
const PACKAGE: &str = "package.edgepack";
/// Name of a package's file while it is written.
const HALF: &str = "package.half";
/// Name of the choice's file.
pub(crate) const POINTER: &str = "active";

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// The one that runs where nothing else is said.
    A,
    /// The other one.
    B,
}

impl Slot {
    /// Both.
    pub const BOTH: [Slot; 2] = [Slot::A, Slot::B];

    /// The one that this is not.
    pub fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }

    /// `a` or `b`.
    pub fn name(self) -> &'static str {
        match self {
            Slot::A => "a",
            Slot::B => "b",
        }
    }

    /// The slot of this name.
    pub fn from_name(name: &str) -> Option<Slot> {
        Slot::BOTH.into_iter().find(|s| s.name() == name)
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
    /// Why the slot that should have run was refused, where the other one had to stand in.
    pub refused: Option<E>,
}

/// Neither slot could be started from.
#[derive(Debug)]
pub struct NoSlot<E> {
    /// The slot that should have run, and why it was refused.
    pub first: (Slot, E),
    /// The other one, and why it was refused.
    pub other: (Slot, E),
}

/// The folder of the package slots.
#[derive(Debug, Clone)]
pub struct Slots<S = Files> {
    storage: S,
    root: PathBuf,
}

impl Slots {
    /// The slots in the folder `root` of this machine, which need not exist yet.
    pub fn new(root: &Path) -> Slots {
        Slots::over(Files, root)
    }
}

/// What the text of the record means.
pub(crate) fn choice(text: Option<Vec<u8>>) -> Choice {
    text.and_then(|text| Choice::from_text(std::str::from_utf8(&text).ok()?)).unwrap_or(Choice::first())
}

impl<S: Storage> Slots<S> {
    /// The slots in the folder `root` of any storage.
    pub fn over(storage: S, root: &Path) -> Slots<S> {
        Slots { storage, root: root.into() }
    }

    /// What is chosen; slot A where nothing is, or nothing that is understood.
    pub fn choice(&self) -> Choice {
        let text = self.storage.read(&self.root.join(POINTER)).ok();
        choice(text)
    }

    /// The slot that is kept: the one that runs when no trial does.
    pub fn active(&self) -> Slot {
        self.choice().active
    }

    /// The slot that an update goes to.
    pub fn inactive(&self) -> Slot {
        self.active().other()
    }

    /// Where the package of a slot is.
    pub fn package(&self, slot: Slot) -> PathBuf {
        self.root.join(slot.name()).join(PACKAGE)
    }

    /// The bytes of a slot's package.
    pub fn read(&self, slot: Slot) -> io::Result<Vec<u8>> {
        self.storage.read(&self.package(slot))
    }

    /// Puts a package into the inactive slot, which is named; a trial that was going on there is over. Whether it is a
    /// good package is the caller's to have checked: [`crate::update::check_package`]. Two processes must not install
    /// at once.
    pub fn install(&self, bytes: &[u8]) -> io::Result<Slot> {
        let choice = self.choice();
        let slot = choice.active.other();
        // The tries that are left are another package's.
        self.choose(choice, Choice { trial: None, ..choice })?;
        self.make_folders(&self.root.join(slot.name()))?;
        let package = self.package(slot);
        replace_through(&self.storage, &package.with_file_name(HALF), &package, bytes, 0o644)?;
        Ok(slot)
    }

    /// Makes the inactive slot the active one at once, without a trial; refuses when there is no package in it.
    pub fn switch(&self) -> io::Result<Slot> {
        let choice = self.choice();
        let slot = self.occupied(choice.active.other())?;
        self.choose(choice, Choice { active: slot, trial: None, refused: None })?;
        Ok(slot)
    }

    /// Puts the package in the inactive slot on trial for `tries` starts; refuses when there is none in it.
    pub fn begin_trial(&self, tries: u8) -> io::Result<Slot> {
        let choice = self.choice();
        let slot = self.occupied(choice.active.other())?;
        self.choose(choice, choice.begin_trial(tries))?;
        Ok(slot)
    }

    /// What to start from now, with the try counted durably: to be called once a start, before [`Slots::boot`].
    pub fn count(&self) -> io::Result<Boot> {
        let choice = self.choice();
        let (boot, next) = choice.boot();
        self.choose(choice, next)?;
        Ok(boot)
    }

    /// Gives the trial the try back that this start was counted as. Without a trial nothing changes.
    pub fn uncount(&self) -> io::Result<()> {
        let choice = self.choice();
        self.choose(choice, choice.uncount())
    }

    /// Makes the package on trial the active one. Without a trial nothing changes.
    pub fn keep(&self) -> io::Result<()> {
        let choice = self.choice();
        self.choose(choice, choice.keep())
    }

    /// Ends the trial: from now on the active slot runs again. Without a trial nothing changes.
    pub fn give_up(&self, reason: Reason) -> io::Result<()> {
        let choice = self.choice();
        self.choose(choice, choice.give_up(reason))
    }

    /// Makes `to` the active slot because the other one's package is refused, so that the next update goes there and
    /// not over the only good one.
    pub fn fall_back(&self, to: Slot, reason: Reason) -> io::Result<()> {
        let choice = self.choice();
        self.choose(choice, choice.fall_back(to, reason))
    }

    /// Starts from slot `first`, else from the other one. `open` is given the path of a package. Nothing is written.
    pub fn boot<T, E>(
        &self,
        first: Slot,
        mut open: impl FnMut(&Path) -> Result<T, E>,
    ) -> Result<Booted<T, E>, NoSlot<E>> {
        let refused = match open(&self.package(first)) {
            Ok(value) => return Ok(Booted { value, slot: first, refused: None }),
            Err(why) => why,
        };
        let other = first.other();
        match open(&self.package(other)) {
            Ok(value) => Ok(Booted { value, slot: other, refused: Some(refused) }),
            Err(why) => Err(NoSlot { first: (first, refused), other: (other, why) }),
        }
    }

    /// Makes a folder, its parents where they are missing, and its name durable.
    fn make_folders(&self, path: &Path) -> io::Result<()> {
        let Some(parent) = path.parent() else { return Ok(()) };
        match self.storage.make_folder(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.make_folders(parent)?;
                self.storage.make_folder(path)?;
            }
            other => {
                other?;
                // The parent's name too, where an earlier attempt was killed between making and syncing.
                parent.parent().map_or(Ok(()), |folder| self.storage.sync_folder(folder))?;
            }
        }
        self.storage.sync_folder(parent)
    }

    fn occupied(&self, slot: Slot) -> io::Result<Slot> {
        let package = self.package(slot);
        if !self.storage.is_file(&package) {
            let why = format!("there is no package in slot {slot}: {} is missing", package.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        Ok(slot)
    }

    fn choose(&self, old: Choice, new: Choice) -> io::Result<()> {
        if new == old {
            return Ok(());
        }
        replace(&self.storage, &self.root.join(POINTER), new.to_text().as_bytes(), 0o644)
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

    /// A device whose slot `first` is active.
    fn device(first: Slot) -> (tempfile::TempDir, Slots) {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::new(&dir.path().join("packages"));
        while slots.install(OLD).unwrap() != first {
            slots.switch().unwrap();
        }
        slots.switch().unwrap();
        (dir, slots)
    }

    #[test]
    fn a_package_is_tried_and_kept_or_given_up() {
        for first in Slot::BOTH {
            let (_dir, slots) = device(first);
            assert_eq!(slots.install(NEW).unwrap(), first.other());
            assert_eq!(slots.count().unwrap(), Boot { slot: first, trial: false });
            slots.begin_trial(2).unwrap();
            let tried = slots.count().unwrap();
            assert_eq!(tried, Boot { slot: first.other(), trial: true });
            assert_eq!(slots.boot(tried.slot, open).unwrap().value, NEW);
            assert_eq!(slots.active(), first);
            slots.keep().unwrap();
            assert_eq!(slots.count().unwrap(), Boot { slot: first.other(), trial: false });

            slots.install(OLD).unwrap();
            slots.begin_trial(1).unwrap();
            slots.give_up(Reason::Goldens).unwrap();
            assert_eq!(slots.choice().to_text(), format!("{}\nrefused {first} goldens\n", first.other()));
            slots.begin_trial(1).unwrap();
            assert!(slots.count().unwrap().trial && !slots.count().unwrap().trial);
            slots.begin_trial(1).unwrap();
            slots.count().unwrap();
            slots.uncount().unwrap();
            assert!(slots.count().unwrap().trial, "an orderly end is no failed start");
        }
    }

    #[test]
    fn a_new_package_does_not_inherit_a_trial() {
        let (_dir, slots) = device(Slot::A);
        slots.install(NEW).unwrap();
        slots.begin_trial(3).unwrap();
        assert_eq!(slots.install(OLD).unwrap(), Slot::B);
        assert_eq!(slots.choice(), Choice::first());
    }

    #[test]
    fn a_corrupt_slot_gives_way_to_the_other() {
        let (_dir, slots) = device(Slot::B);
        slots.install(NEW).unwrap();
        std::fs::write(slots.package(Slot::B), "rotten").unwrap();
        let booted = slots.boot(slots.active(), open).unwrap();
        assert_eq!((booted.slot, booted.refused.as_deref()), (Slot::A, Some("not whole")));
        slots.fall_back(booted.slot, Reason::Damaged).unwrap();
        assert_eq!(slots.install(OLD).unwrap(), Slot::B, "an update goes over the corrupt one");
        std::fs::remove_file(slots.package(Slot::A)).unwrap();
        std::fs::write(slots.package(Slot::B), "rotten").unwrap();
        let none = slots.boot(Slot::B, open).unwrap_err();
        assert_eq!((none.first.0, none.first.1.as_str(), none.other.0), (Slot::B, "not whole", Slot::A));
    }

    #[test]
    fn a_pointer_that_says_nothing_is_slot_a() {
        let (_dir, slots) = device(Slot::A);
        let pointer = slots.root.join(POINTER);
        for text in ["", "\0\0", "c", "a/../b", "b\ntrial b 1\n"] {
            std::fs::write(&pointer, text).unwrap();
            assert_eq!(slots.active(), Slot::A);
        }
        std::fs::remove_file(&pointer).unwrap();
        assert_eq!((slots.active(), slots.inactive()), (Slot::A, Slot::B));
    }

    #[test]
    fn an_empty_slot_is_not_switched_to() {
        let (_dir, slots) = device(Slot::B);
        assert!(slots.switch().unwrap_err().to_string().contains("no package in slot a"));
        assert!(slots.begin_trial(3).unwrap_err().to_string().contains("no package in slot a"));
        assert_eq!(slots.active(), Slot::B);
    }
}
