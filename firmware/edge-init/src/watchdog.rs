//! The hardware watchdog: resets the board when it is not fed for a while.
//!
//! It is opened once, early, and stays open: what closes it without saying so first (a crash, say) leaves it running, and a
//! kernel with `nowayout` keeps it running in any case. The second stage gets its descriptor from the first.

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{FdFlags, fcntl_setfd, write};
use rustix::ioctl::{Getter, Opcode, Updater, ioctl, opcode};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

/// After so long without food the board is reset, where the hardware can wait as long.
const TIMEOUT: i32 = 60;

/// `WDIOC_SETTIMEOUT` of linux/watchdog.h: seconds, which the driver may change.
const SET_TIMEOUT: Opcode = opcode::read_write::<i32>(b'W', 6);
/// `WDIOC_GETTIMEOUT`.
const GET_TIMEOUT: Opcode = opcode::read::<i32>(b'W', 7);

/// The open watchdog.
pub struct Watchdog {
    device: OwnedFd,
    every: Duration,
    fed: Option<Duration>,
}

impl Watchdog {
    /// Opens it, which starts it. `None` where there is none.
    pub fn open(path: &Path) -> Option<Watchdog> {
        let device = open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        Some(Watchdog::of(device))
    }

    fn of(device: OwnedFd) -> Watchdog {
        // SAFETY: this ioctl takes a pointer to an int, reads it and writes it.
        let _ = unsafe { ioctl(&device, Updater::<SET_TIMEOUT, i32>::new(&mut { TIMEOUT })) };
        // SAFETY: this ioctl writes an int through the pointer it is given.
        let timeout = unsafe { ioctl(&device, Getter::<GET_TIMEOUT, i32>::new()) }.unwrap_or(TIMEOUT);
        let timeout = Duration::from_secs(timeout.clamp(1, TIMEOUT) as u64);
        Watchdog { device, every: timeout / 4, fed: None }
    }

    /// How long it waits for food.
    pub fn timeout(&self) -> Duration {
        self.every * 4
    }

    /// How often it is fed.
    pub fn every(&self) -> Duration {
        self.every
    }

    /// Feeds it, if it is time to.
    pub fn feed(&mut self, now: Duration) {
        if self.fed.is_none_or(|fed| now >= fed + self.every) {
            self.fed = Some(now);
            // Any byte but the V that would stop it. What cannot be fed bites, as it should.
            let _ = write(&self.device, b".");
        }
    }

    /// Stops it, where the kernel lets it be stopped: for a device that is to stand still.
    pub fn stop(self) {
        let _ = write(&self.device, b"V");
    }

    /// The descriptor, for the program that this process becomes.
    pub fn keep(&self) -> Option<RawFd> {
        fcntl_setfd(&self.device, FdFlags::empty()).ok()?;
        Some(self.device.as_raw_fd())
    }

    /// The descriptor that [`Watchdog::keep`] left behind.
    ///
    /// # Safety
    ///
    /// Nothing else in this process owns it.
    pub unsafe fn kept(descriptor: RawFd) -> Option<Watchdog> {
        if descriptor <= 2 {
            return None;
        }
        // SAFETY: the caller vouches for that nobody else owns it; whether it is open is asked next.
        let device = unsafe { OwnedFd::from_raw_fd(descriptor) };
        match fcntl_setfd(&device, FdFlags::CLOEXEC) {
            Ok(()) => Some(Watchdog::of(device)),
            Err(_) => {
                // A descriptor that is not open must not be closed either.
                std::mem::forget(device);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fed_four_times_in_its_time_and_never_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watchdog");
        assert!(Watchdog::open(&path).is_none());
        // A file takes the bytes a device would, and no ioctl.
        std::fs::write(&path, "").unwrap();
        let mut watchdog = Watchdog::open(&path).unwrap();
        assert_eq!((watchdog.timeout(), watchdog.every()), (Duration::from_secs(60), Duration::from_secs(15)));
        for now in 100..161 {
            watchdog.feed(Duration::from_secs(now));
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), ".....");
        watchdog.stop();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), ".....V");
    }

    #[test]
    fn a_descriptor_that_is_not_there_is_none() {
        // SAFETY: no descriptor of these numbers is open here.
        unsafe { assert!(Watchdog::kept(-1).is_none() && Watchdog::kept(9999).is_none()) };
    }
}
