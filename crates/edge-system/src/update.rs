//! Updates: everything is checked before the first write, and the writes come in an order that a power cut at any
//! moment can't harm.

use crate::disk::Disk;
use crate::layout::{Layout, LayoutError};
use crate::seal::{Seal, SealError};
use crate::slot::{Slot, Slots};
use crate::state::{BootState, Choice, Reason, TRIES};
use crate::system::{SlotFault, SystemBundle, SystemManifest, WriteError, check_room, read_slot, write_slot};
use edge_package::{Digest, Head, Manifest, PackageError, Storage, TrustPolicy, VerifiedPackage, Version};
use std::io;

/// Why an update is refused or failed. Nothing was written but for [`UpdateError::Write`] and [`UpdateError::Io`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The disk is no flashed system.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The list of digests is damaged.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The signature is not one that the device accepts, or another check of the package failed.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// For another board.
    #[error("it is for board {found:?}, this is {wanted:?}")]
    Board {
        /// In the update.
        found: String,
        /// Of the device.
        wanted: String,
    },
    /// Not newer than what runs.
    #[error("its sequence number is {found}, and what runs has {running}; an update never goes back")]
    Sequence {
        /// In the update.
        found: u64,
        /// What runs.
        running: u64,
    },
    /// What runs is too old for it.
    #[error(
        "it replaces systems from sequence number {minimum} on, and what runs has {running}; install a version between them first, or flash a new image"
    )]
    Minimum {
        /// In the update.
        minimum: u64,
        /// What runs.
        running: u64,
    },
    /// The kernel is another one.
    #[error("it needs kernel {needed}, and the card has {found}; the kernel is updated by flashing a new image")]
    Kernel {
        /// In the update.
        needed: String,
        /// On the card.
        found: String,
    },
    /// The slot that it would go to is the one that runs.
    #[error("system slot {0}, where it would go to, runs now; wait until its trial has ended, or restart")]
    Running(Slot),
    /// Too large for the board.
    #[error(transparent)]
    Budget(#[from] crate::board::OverBudget),
    /// Writing the slot failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The disk or the file system failed.
    #[error("the update cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// A system update that passed all checks, for the disk that was looked at.
#[derive(Debug)]
pub struct SystemPlan {
    /// Where it goes.
    pub target: Slot,
    /// What is kept now; `None` where neither slot verifies.
    pub running: Option<SystemManifest>,
    /// Why the slot that should run does not verify, where the update goes there to repair it.
    pub repairs: Option<SlotFault>,
    layout: Layout,
    /// The choice while the slot is written: nothing on trial, and the slot that is not written to active.
    meanwhile: Choice,
}

/// All checks of a system update, before the first write: signature, board, kernel, sequence, minimum, room. `running`
/// is the slot that this very system was started from, `None` where the disk is not the running system's. `progress`
/// is given bytes as they are read.
pub fn check_system(
    disk: &dyn Disk,
    bundle: &SystemBundle,
    running: Option<Slot>,
    progress: &mut dyn FnMut(u64),
) -> Result<SystemPlan, UpdateError> {
    let layout = Layout::from_disk(disk)?;
    let seal = Seal::read(disk, &layout, &TrustPolicy::default())?.seal;
    let trust = seal.trust();
    let new = Head::<SystemManifest>::read(bundle.head(), &trust.policy)?.manifest;
    if new.board != seal.board {
        return Err(UpdateError::Board { found: new.board, wanted: seal.board });
    }
    if let Some(needed) = new.kernel.filter(|k| *k != seal.kernel) {
        return Err(UpdateError::Kernel { needed, found: seal.kernel });
    }
    let choice = BootState::read(disk, &layout)?.state.map_or(Choice::first(), |s| s.choice);
    let mut meanwhile = Choice { trial: None, ..choice };
    let mut read = |slot| read_slot(disk, layout.slot(slot), &trust, progress);
    let (current, repairs) = match read(choice.active) {
        Ok(current) => (Some(current), None),
        Err(fault) => {
            let standing_in = read(choice.active.other()).ok();
            // The update goes over the damaged slot, never over the only good one.
            if standing_in.is_some() {
                meanwhile = choice.fall_back(choice.active.other(), Reason::Damaged);
            }
            (standing_in, Some(fault))
        }
    };
    let target = meanwhile.active.other();
    if running == Some(target) {
        return Err(UpdateError::Running(target));
    }
    let running = current.map(|slot| slot.manifest);
    if let Some(SystemManifest { sequence: running, .. }) = running {
        let (found, minimum) = (new.sequence, new.minimum);
        if found <= running {
            return Err(UpdateError::Sequence { found, running });
        }
        if minimum > running {
            return Err(UpdateError::Minimum { minimum, running });
        }
    }
    check_room(&layout.slot(target), bundle)?;
    Ok(SystemPlan { target, running, repairs, layout, meanwhile })
}

/// Writes a system update and puts it on trial; where there is nothing to return to, it becomes the active one. The
/// state afterwards. `progress` is given bytes as they are written or read back.
///
/// The order: no choice names the slot any more; the slot ([`write_slot`]); the choice names it.
pub fn write_system(
    disk: &mut dyn Disk,
    plan: &SystemPlan,
    bundle: &SystemBundle,
    progress: &mut dyn FnMut(u64),
) -> Result<BootState, UpdateError> {
    let found = BootState::read(disk, &plan.layout)?;
    let mut state = found.state.unwrap_or(BootState { generation: 0, choice: plan.meanwhile });
    if state.choice != plan.meanwhile || !found.is_whole() {
        state = state.next(plan.meanwhile);
        state.write(disk, &plan.layout)?;
    }
    write_slot(disk, plan.layout.slot(plan.target), bundle, progress)?;
    let chosen = match plan.running {
        Some(_) => plan.meanwhile.begin_trial(TRIES),
        None => Choice { active: plan.target, trial: None, refused: None },
    };
    state = state.next(chosen);
    state.write(disk, &plan.layout)?;
    Ok(state)
}

/// What a device is, for the checks of a package.
#[derive(Debug, Clone)]
pub struct Device<'a> {
    /// The board's name.
    pub board: &'a str,
    /// Version of the runtime that will run the package.
    pub runtime: Version,
    /// Whose packages are accepted.
    pub trust: &'a TrustPolicy,
}

/// A package update that passed all checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackagePlan {
    /// Where it goes.
    pub target: Slot,
    /// Name, sequence number and digest of the package that is kept now; `None` where there is none that can be read.
    pub running: Option<(String, u64, Digest)>,
}

/// All checks of a package update, before the first write: signature, board, runtime, budget, sequence. That its golden
/// samples pass is for the device to find out.
pub fn check_package<S: Storage>(
    slots: &Slots<S>,
    package: &VerifiedPackage,
    device: &Device<'_>,
) -> Result<PackagePlan, UpdateError> {
    let new = Head::<Manifest>::read(package.head(), device.trust)?.manifest;
    new.check_board(device.board)?;
    new.check_runtime(device.runtime)?;
    if let Ok(board) = crate::board::by_name(device.board) {
        board.check_budget(&new)?;
    }
    let active = slots.active();
    let read = |slot| {
        // What was installed was trusted then; it counts here for its sequence number only.
        let package = VerifiedPackage::from_bytes(slots.read(slot).ok()?, &TrustPolicy::default()).ok()?;
        let manifest = package.manifest();
        Some((manifest.name.clone(), manifest.sequence, package.digest()))
    };
    let (target, running) = match read(active) {
        Some(current) => (active.other(), Some(current)),
        // As for systems: over what is damaged, never over the only good one.
        None => match read(active.other()) {
            Some(standing_in) => (active, Some(standing_in)),
            None => (active.other(), None),
        },
    };
    match running {
        Some((_, running, _)) if new.sequence <= running => Err(UpdateError::Sequence { found: new.sequence, running }),
        running => Ok(PackagePlan { target, running }),
    }
}

/// Installs a package and puts it on trial for [`TRIES`] starts. Where no package is active, there is
/// nothing to return to: it becomes the active one at once.
pub fn write_package<S: Storage>(
    slots: &Slots<S>,
    plan: &PackagePlan,
    package: &VerifiedPackage,
) -> Result<Slot, UpdateError> {
    if slots.active() == plan.target {
        slots.fall_back(plan.target.other(), Reason::Damaged)?;
    }
    slots.install(package.bytes())?;
    Ok(match plan.running {
        Some(_) => slots.begin_trial(TRIES)?,
        None => slots.switch()?,
    })
}
