//! What must not outlive an interrupted program.

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

/// How long what was told to end may take.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Default)]
struct Left {
    /// Children of this process that lead groups.
    leaders: Vec<u32>,
    folders: Vec<PathBuf>,
}

static LEFT: Mutex<Left> = Mutex::new(Left { leaders: vec![], folders: vec![] });

fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        if let Ok(signals) = Signals::new([SIGHUP, SIGINT, SIGTERM]) {
            std::thread::spawn(move || end_all_after(signals));
        }
    });
}

/// This child leads a group, and all of it is told to end when this program is interrupted.
pub fn ends_too(leader: u32) {
    listen();
    LEFT.lock().unwrap_or_else(PoisonError::into_inner).leaders.push(leader);
}

/// It is gone, and its number may become another's.
pub fn has_ended(leader: u32) {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner).leaders.retain(|running| *running != leader);
}

/// This folder is removed when this program is interrupted.
pub fn removed_too(folder: &Path) {
    listen();
    LEFT.lock().unwrap_or_else(PoisonError::into_inner).folders.push(folder.into());
}

/// Waits for a signal, passes it on, and ends the program when all are gone, or after a while.
fn end_all_after(mut signals: Signals) {
    let Some(signal) = signals.forever().next() else { return };
    let left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut groups: Vec<Pid> =
        left.leaders.iter().filter_map(|leader| Pid::from_raw(i32::try_from(*leader).ok()?)).collect();
    groups.iter().for_each(|group| _ = kill_process_group(*group, Signal::TERM));
    let end = Instant::now() + PATIENCE;
    while !groups.is_empty() && Instant::now() < end {
        groups.retain(|leader| matches!(waitpid(Some(*leader), WaitOptions::NOHANG), Ok(None)));
        std::thread::sleep(Duration::from_millis(20));
    }
    groups.iter().for_each(|group| _ = kill_process_group(*group, Signal::KILL));
    left.folders.iter().for_each(|folder| drop(std::fs::remove_dir_all(folder)));
    std::process::exit(128 + signal);
}
