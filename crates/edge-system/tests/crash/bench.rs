//! A card to be cut, and what is done with it.

use crate::disk::SimDisk;
use edge_package::{Digest, SecretKey, TrustPolicy, Version};
use edge_system::disk::Disk;
use edge_system::layout::Layout;
use edge_system::seal::{Facts, Seal};
use edge_system::slot::Slot;
use edge_system::state::{BootState, Reason};
use edge_system::system::{
    HEAD_ROOM, SlotFault, SystemBundle, SystemManifest, Trust, bundle, check_fill, read_slot, write_slot,
};
use edge_system::update::{check_system, write_system};
use edge_system::{MIB, SECTOR, boot};
use std::collections::BTreeMap;
use std::io::{Cursor, Write};

/// Bytes that each system is longer than the one before.
pub const STEP: u64 = 7_777;
/// Bytes of a system that is written at once.
pub const SMALL: u64 = 40_000;
/// Bytes of a system that is written in two parts.
pub const LARGE: u64 = MIB + 70_000;

pub fn key() -> SecretKey {
    SecretKey::from_seed(&[7; 32])
}

/// A system whose version is its sequence number.
pub fn system(sequence: u64, length: u64) -> SystemBundle {
    let manifest = SystemManifest {
        board: "virt".into(),
        version: sequence.to_string(),
        sequence,
        minimum: 1,
        created: 0,
        kernel: None,
        runtime: Version { major: 0, minor: 1, patch: 0 },
        components: vec![],
        parts: vec![],
    };
    // Of another length than the others.
    let length = length + STEP * sequence;
    let squashfs = (0..length).map(|i| (i.wrapping_mul(sequence * 2 + 1) >> 3) as u8).collect();
    let bytes = bundle(manifest, squashfs, Some(&key())).unwrap();
    SystemBundle::from_bytes(bytes, &TrustPolicy::default()).unwrap()
}

/// One thing that is done with a card.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// An update with the system of this sequence number.
    Update(u64),
    /// A start.
    Start,
    /// The trial is kept.
    Keep,
    /// The trial is given up.
    GiveUp,
    /// The device was switched off in good order.
    SwitchOff,
}

/// What runs after a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Runs {
    /// The sequence number of the system.
    pub sequence: u64,
    /// Whether it is on trial.
    pub trial: bool,
}

pub struct Bench {
    pub layout: Layout,
    pub trust: Trust,
    /// By their sequence numbers.
    pub bundles: BTreeMap<u64, SystemBundle>,
}

impl Bench {
    /// A fresh card, whose two slots hold system 1. All systems have about `length` bytes.
    pub fn new(length: u64) -> (Bench, SimDisk) {
        // As a board's layout, but of slots that are not larger than they must be.
        let slot = HEAD_ROOM + (length + 4 * STEP).next_multiple_of(SECTOR);
        let mut end = 16 * MIB;
        let mut place = |length: u64| {
            end += length;
            end - length..end
        };
        let boot = place(MIB / 4);
        let layout = Layout {
            seal: MIB..2 * MIB,
            state: [4 * MIB..4 * MIB + SECTOR, 8 * MIB..8 * MIB + SECTOR],
            boot,
            system: [place(slot), place(slot)],
            data: place(MIB / 4),
        };
        let mut disk = SimDisk::new(layout.end());
        disk.write_at(&layout.table(1).encode(), 0).unwrap();
        assert_eq!(Layout::from_disk(&disk).unwrap(), layout);
        let mut fat = Cursor::new(vec![0; (layout.boot.end - layout.boot.start) as usize]);
        fatfs::format_volume(&mut fat, fatfs::FormatVolumeOptions::new()).unwrap();
        {
            let fat = fatfs::FileSystem::new(&mut fat, fatfs::FsOptions::new()).unwrap();
            fat.root_dir().create_file("camera.toml").unwrap().write_all(b"# nothing\n").unwrap();
        }
        disk.write_at(fat.get_ref(), layout.boot.start).unwrap();
        let bundles: BTreeMap<u64, SystemBundle> = (1..=4).map(|n| (n, system(n, length))).collect();
        for slot in Slot::BOTH {
            write_slot(&mut disk, layout.slot(slot), &bundles[&1], &mut |_| {}).unwrap();
        }
        BootState::first().write(&mut disk, &layout).unwrap();
        let facts = Facts {
            board: "virt".into(),
            version: "1".into(),
            created: 0,
            kernel: "6.1".into(),
            trusted: TrustPolicy { trusted: vec![key().public()] },
            factory: bundles[&1].digest(),
        };
        let seal = Seal::make(&disk, &layout, facts, &mut |_| {}).unwrap();
        seal.write(&mut disk, &layout, Some(&key())).unwrap();
        assert!(seal.verify(&disk, &layout, &mut |_| {}).unwrap().is_fresh());
        (Bench { trust: seal.trust(), layout, bundles }, disk)
    }

    /// Runs a step; the state that was durable when it returned, and what runs where something was started.
    pub fn run(&self, disk: &mut SimDisk, step: Step) -> Result<BootState, String> {
        let text = |e: &dyn std::error::Error| e.to_string();
        match step {
            Step::Update(sequence) => {
                let bundle = &self.bundles[&sequence];
                let plan = check_system(disk, bundle, None, &mut |_| {}).map_err(|e| text(&e))?;
                write_system(disk, &plan, bundle, &mut |_| {}).map_err(|e| text(&e))
            }
            Step::Start => {
                let started = boot::choose(disk, &self.layout, &self.trust, &mut |_| {}).map_err(|e| text(&e))?;
                // A start goes on where the state cannot be written, so the disk says whether the power went.
                let mut byte = [0];
                disk.read_at(&mut byte, 0).map_err(|e| text(&e))?;
                Ok(started.state)
            }
            Step::Keep => boot::keep(disk, &self.layout).map_err(|e| text(&e)),
            Step::GiveUp => boot::give_up(disk, &self.layout, Reason::Failed).map_err(|e| text(&e)),
            Step::SwitchOff => boot::uncount(disk, &self.layout).map_err(|e| text(&e)),
        }
    }

    /// What a start of this disk runs; the disk itself is not touched.
    pub fn runs(&self, disk: &SimDisk) -> Result<Runs, String> {
        let started = boot::choose(&mut disk.clone(), &self.layout, &self.trust, &mut |_| {})
            .map_err(|e| format!("it does not start: {e}"))?;
        if let Some(note) = started.notes.iter().find(|n| n.contains("is refused") || n.contains("is lost")) {
            return Err(format!("the chosen slot does not start, or none is chosen: {note}"));
        }
        Ok(Runs { sequence: started.system.manifest.sequence, trial: started.trial })
    }

    /// What is true of every disk at every moment.
    pub fn sound(&self, disk: &SimDisk, acknowledged: BootState) -> Result<BootState, String> {
        let known: Vec<Digest> = self.bundles.values().map(SystemBundle::digest).collect();
        for slot in Slot::BOTH {
            let range = self.layout.slot(slot);
            match read_slot(disk, range.clone(), &self.trust, &mut |_| {}) {
                Ok(system) if !known.contains(&system.digest) => return Err(format!("slot {slot} is mixed")),
                Ok(system) if !check_fill(disk, range, &system).unwrap() => {
                    return Err(format!("slot {slot} is whole but for the bytes after its system"));
                }
                // A head that proves itself, and a system that is another one.
                Err(SlotFault::Digest) => return Err(format!("slot {slot} is mixed: {}", SlotFault::Digest)),
                Err(SlotFault::Io(e)) => return Err(e.to_string()),
                _ => {}
            }
        }
        let state = BootState::read(disk, &self.layout).map_err(|e| e.to_string())?.state;
        let state = state.ok_or("both copies of the boot state are damaged")?;
        if state.generation < acknowledged.generation {
            return Err(format!("a flushed state is lost: {state:?} after {acknowledged:?}"));
        }
        Ok(state)
    }

    /// Goes on with a disk as a user does, until it runs `goal` and keeps it. The power may go in this too.
    pub fn finish(&self, disk: &mut SimDisk, goal: u64) -> Result<BootState, String> {
        for _ in 0..8 {
            let mut state = self.run(disk, Step::Start)?;
            let now = self.runs_now(disk, &state)?;
            if now < goal {
                state = match self.run(disk, Step::Update(goal)) {
                    Ok(state) => state,
                    Err(e) => return Err(format!("the update cannot be repeated: {e}")),
                };
            } else if state.choice.trial.is_some() {
                state = self.run(disk, Step::Keep)?;
            } else {
                return Ok(state);
            }
            let _ = state;
        }
        Err("the update never comes to an end".into())
    }

    /// The sequence number of what a start that left this state runs.
    pub fn runs_now(&self, disk: &SimDisk, state: &BootState) -> Result<u64, String> {
        let slot = state.choice.trial.map_or(state.choice.active, |t| t.slot);
        let system = read_slot(disk, self.layout.slot(slot), &self.trust, &mut |_| {}).map_err(|e| e.to_string())?;
        Ok(system.manifest.sequence)
    }
}
