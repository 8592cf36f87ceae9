//! Starting from the system slots: what init does, and what the crash tests drive.

use crate::disk::Disk;
use crate::layout::Layout;
use crate::slot::Slot;
use crate::state::{Boot, BootState, Choice, Found, Reason, StateCopy, TRIES};
use crate::system::{SlotFault, Trust, VerifiedSlot, read_slot};
use std::io;

/// A slot to start from.
#[derive(Debug)]
pub struct Started {
    /// The slot.
    pub slot: Slot,
    /// What is in it.
    pub system: VerifiedSlot,
    /// Whether it is on trial.
    pub trial: bool,
    /// The boot state now.
    pub state: BootState,
    /// What there is to tell, a line each: a slot refused and why, a trial that ended, a state that was damaged.
    pub notes: Vec<String>,
}

/// No slot can be started from.
#[derive(Debug, thiserror::Error)]
#[error("no system slot can be started from: slot a: {}; slot b: {}", faults[0], faults[1])]
pub struct NoSystem {
    /// Why not slot A, and why not slot B.
    pub faults: Box<[SlotFault; 2]>,
}

/// Reads the boot state, counts the try of a trial durably, and checks the slot; one that does not verify gives way to
/// the other, which the state then says. `progress` is given bytes as they are read.
///
/// A disk that cannot be written still starts what is kept; a trial that cannot be counted is not begun.
pub fn choose(
    disk: &mut dyn Disk,
    layout: &Layout,
    trust: &Trust,
    progress: &mut dyn FnMut(u64),
) -> Result<Started, NoSystem> {
    let mut notes = Vec::new();
    let mut state = match BootState::read(disk, layout) {
        Ok(Found { state: Some(state), copies }) => {
            if copies.contains(&StateCopy::Damaged) {
                notes.push("one copy of the boot state was damaged; the other one counts".into());
                write(&state, disk, layout, &mut notes);
            }
            state
        }
        unreadable => {
            let why = unreadable.err().map_or("both copies are damaged".into(), |e| e.to_string());
            notes.push(format!("the boot state is lost ({why}); it is made anew from the slots"));
            let [a, b] = Slot::BOTH.map(|slot| read_slot(disk, layout.slot(slot), trust, progress));
            let state = BootState { generation: 1, choice: anew(&a, &b) };
            write(&state, disk, layout, &mut notes);
            state
        }
    };

    let (mut boot, next) = state.choice.boot();
    if let (Some(refused), None) = (next.refused, state.choice.refused) {
        notes.push(format!("system slot {} is given up: {}", refused.slot, refused.reason));
    }
    if next != state.choice {
        let counted = state.next(next);
        if write(&counted, disk, layout, &mut notes) {
            state = counted;
        } else if boot.trial {
            // A trial whose starts cannot be counted would never end.
            boot = Boot { slot: state.choice.active, trial: false };
        }
    }

    let fault = match read_slot(disk, layout.slot(boot.slot), trust, progress) {
        Ok(system) => return Ok(Started { slot: boot.slot, system, trial: boot.trial, state, notes }),
        Err(fault) => fault,
    };
    let other = boot.slot.other();
    notes.push(format!("system slot {} is refused: {fault}", boot.slot));
    match read_slot(disk, layout.slot(other), trust, progress) {
        Ok(system) => {
            // A slot that could not be read may be readable next time.
            if !matches!(fault, SlotFault::Io(_)) {
                let fallen = state.next(state.choice.fall_back(other, Reason::Damaged));
                if write(&fallen, disk, layout, &mut notes) {
                    state = fallen;
                }
            }
            Ok(Started { slot: other, system, trial: false, state, notes })
        }
        Err(why) => {
            let faults = if boot.slot == Slot::A { [fault, why] } else { [why, fault] };
            Err(NoSystem { faults: Box::new(faults) })
        }
    }
}

/// Whether the state could be written.
fn write(state: &BootState, disk: &mut dyn Disk, layout: &Layout, notes: &mut Vec<String>) -> bool {
    match state.write(disk, layout) {
        Ok(()) => true,
        Err(e) => {
            notes.push(format!("the boot state cannot be written: {e}"));
            false
        }
    }
}

/// A choice where none is left: the newer of two good systems is tried anew, since nothing says that it was ever kept.
fn anew(a: &Result<VerifiedSlot, SlotFault>, b: &Result<VerifiedSlot, SlotFault>) -> Choice {
    let first = Choice::first();
    match (a, b) {
        (Ok(a), Ok(b)) if a.manifest.sequence < b.manifest.sequence => first.begin_trial(TRIES),
        (Ok(a), Ok(b)) if a.manifest.sequence > b.manifest.sequence => {
            Choice { active: Slot::B, ..first }.begin_trial(TRIES)
        }
        (Err(_), Ok(_)) => Choice { active: Slot::B, ..first },
        _ => first,
    }
}

/// Keeps the system on trial. Without a trial nothing is written. The state afterwards.
pub fn keep(disk: &mut dyn Disk, layout: &Layout) -> io::Result<BootState> {
    change(disk, layout, Choice::keep)
}

/// Ends the trial: the next start is from the active slot. Without a trial nothing is written. The state afterwards.
pub fn give_up(disk: &mut dyn Disk, layout: &Layout, reason: Reason) -> io::Result<BootState> {
    change(disk, layout, |choice| choice.give_up(reason))
}

/// Gives the trial the try back that this start was counted as: the device was switched off in good order. Without a
/// trial nothing is written. The state afterwards.
pub fn uncount(disk: &mut dyn Disk, layout: &Layout) -> io::Result<BootState> {
    change(disk, layout, Choice::uncount)
}

fn change(disk: &mut dyn Disk, layout: &Layout, to: impl Fn(&Choice) -> Choice) -> io::Result<BootState> {
    let state = BootState::read(disk, layout)?.state;
    let state =
        state.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "both copies of the boot state are damaged"))?;
    let choice = to(&state.choice);
    if choice == state.choice {
        return Ok(state);
    }
    let next = state.next(choice);
    next.write(disk, layout)?;
    Ok(next)
}
