//! Starting from the slots, and what becomes of a package on trial: counted, kept or given back.
//!
//! Whoever changes the slots holds a lock on their folder meanwhile, so that an installation and the end of a trial do not
//! meet. A lock is the kernel's: it goes with the process that held it.

use crate::trial::Rules;
use anyhow::{Context, anyhow};
use edge_system::slot::{NoSlot, Slot, Slots};
use edge_system::state::{Boot, Reason, TRIES};
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a start waits for an installation to end. The slots can be read at any moment; it is only to not lose what
/// the other one writes.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks.
const TICK: Duration = Duration::from_millis(50);

/// A trial that this process counted as a start of.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// The folder of the slots.
    folder: PathBuf,
    /// The slot on trial.
    pub slot: Slot,
    /// Which file is in it, so that another package that was put there since is told apart without being read.
    file: Option<Identity>,
}

/// Device, number, length and time of change of a file.
type Identity = (u64, u64, u64, i64, i64);

fn identity(path: &Path) -> Option<Identity> {
    let of = std::fs::metadata(path).ok()?;
    Some((of.dev(), of.ino(), of.len(), of.mtime(), of.mtime_nsec()))
}

/// What came of starting.
pub struct Booted<T> {
    /// What the package became.
    pub value: T,
    /// Its slot.
    pub slot: Slot,
    /// What there is to log.
    pub news: Vec<(&'static str, String)>,
    /// The trial that it is on.
    pub trial: Option<Counted>,
}

/// Waits until nobody else changes the slots, but for no longer than `patience`.
pub fn hold(folder: &Path, patience: Duration, progress: &mut dyn FnMut()) -> io::Result<File> {
    let file = File::open(folder)?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if start.elapsed() < patience => std::thread::sleep(TICK),
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, "an installation is under way"));
            }
            Err(TryLockError::Error(e)) => return Err(e),
        }
        progress();
    }
}

impl Counted {
    fn new(folder: &Path, slot: Slot) -> Counted {
        Counted { folder: folder.into(), slot, file: identity(&Slots::new(folder).package(slot)) }
    }

    /// Where the package before it is.
    pub fn before(&self) -> (Slot, PathBuf) {
        let slot = self.slot.other();
        (slot, Slots::new(&self.folder).package(slot))
    }

    /// Does something to the slots, unless another package has taken the place of this one.
    fn change(&self, patience: Duration, act: impl FnOnce(&Slots) -> io::Result<()>) -> io::Result<()> {
        let _lock = hold(&self.folder, patience, &mut || ())?;
        let slots = Slots::new(&self.folder);
        let still = slots.choice().trial.is_some_and(|trial| trial.slot == self.slot);
        if still && self.file == identity(&slots.package(self.slot)) { act(&slots) } else { Ok(()) }
    }

    /// The start that this process was counted as ended well. Where that cannot be written it is one start too many, which
    /// is the safe side.
    pub fn ended_well(&self) {
        let _ = self.change(TICK, Slots::uncount);
    }

    /// The package is kept. [`io::ErrorKind::WouldBlock`] while there is an installation: later, perhaps.
    pub fn keep(&self) -> io::Result<()> {
        self.change(TICK, Slots::keep)
    }

    /// The package before it runs again.
    pub fn give_up(&self, reason: Reason) -> io::Result<()> {
        self.change(TICK, |slots| slots.give_up(reason))
    }
}

/// Starts from the slot whose turn it is, else from the other one, and counts the start where that is on trial.
pub fn boot<T>(
    folder: &Path,
    rules: &Rules,
    counted: Option<&Counted>,
    mut open: impl FnMut(&Path, &mut dyn FnMut()) -> anyhow::Result<T>,
    progress: &mut dyn FnMut(),
) -> anyhow::Result<Booted<T>> {
    let slots = Slots::new(folder);
    let mut news = vec![];
    let choice = slots.choice();
    let (first, trial) = match choice.trial {
        None => (choice.active, None),
        Some(_) => begin(&slots, folder, counted, &mut news, progress),
    };
    let booted = slots.boot(first, |path| open(path, progress)).map_err(refused)?;
    let (slot, value) = (booted.slot, booted.value);
    let trial = match (booted.refused, trial) {
        (None, Some(trial)) if rules.time.is_zero() => {
            let unwritten = unwritten(trial.keep());
            news.push(("package_kept", format!("slot {slot} is kept without a trial{unwritten}")));
            None
        }
        (None, trial) => trial,
        (Some(why), Some(trial)) => {
            let unwritten = unwritten(trial.give_up(Reason::Goldens));
            news.push((
                "package_returned",
                format!("slot {slot} runs again, because the package on trial was refused{unwritten}: {why:#}"),
            ));
            None
        }
        (Some(why), None) => {
            news.push(("slot_fallback", format!("slot {slot} runs, because the active slot was refused: {why:#}")));
            None
        }
    };
    Ok(Booted { value, slot, news, trial })
}

/// What to add where the slots could not be changed.
pub fn unwritten(done: io::Result<()>) -> String {
    done.map_or_else(
        |e| format!(" (which could not be written and is tried again at the next start: {e})"),
        |()| String::new(),
    )
}

/// Counts the start, before anything of the package is looked at: a package may well end the program while it is read.
fn begin(
    slots: &Slots,
    folder: &Path,
    counted: Option<&Counted>,
    news: &mut Vec<(&'static str, String)>,
    progress: &mut dyn FnMut(),
) -> (Slot, Option<Counted>) {
    let lock = hold(folder, PATIENCE, progress);
    let choice = slots.choice();
    let (active, Some(trial)) = (choice.active, choice.trial) else { return (choice.active, None) };
    let on_trial = Counted::new(folder, trial.slot);
    if counted == Some(&on_trial) {
        return (trial.slot, Some(on_trial));
    }
    match lock.and_then(|_lock| slots.count()) {
        Ok(Boot { slot, trial: true }) => (slot, Some(on_trial)),
        Ok(Boot { slot, trial: false }) => {
            let why = format!(
                "slot {slot} runs again, because the package on trial in slot {} was started {TRIES} times and never ended \
                 well: it crashed, hung or lost power",
                trial.slot
            );
            news.push(("package_returned", why));
            (slot, None)
        }
        Err(e) => {
            let slot = trial.slot;
            let why = format!(
                "slot {active} runs, because a start of the package on trial in slot {slot} cannot be counted: {e}"
            );
            news.push(("trial_uncounted", why));
            (active, None)
        }
    }
}

fn refused(none: NoSlot<anyhow::Error>) -> anyhow::Error {
    let ((first, why), (other, why_other)) = (none.first, none.other);
    anyhow!("both slots were refused: {first}: {why:#}; {other}: {why_other:#}")
}

/// Removes what installations that were cut off left: temporary files, which would fill the disk one by one.
pub fn clean(slots: &Slots, folder: &Path) -> anyhow::Result<()> {
    let packages = Slot::BOTH.map(|slot| slots.package(slot));
    let folders = packages.iter().filter_map(|package| package.parent()).chain([folder]);
    for folder in folders {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') && name.ends_with(".tmp") {
                let path = entry.path();
                std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
    }
    Ok(())
}
