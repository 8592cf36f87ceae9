//! What may keep a camera from running on the machine that this is, or soon will: looked at by the runtime before its first
//! frame, and by hosts that are asked.

use crate::board::MEMORY_FACTOR;
use crate::size::Size;
use rtime_clock::adjtime::{Timex, adjtimex};
use std::fmt;
use std::path::Path;

/// A disk with less space than this is nearly full, in bytes.
const LITTLE: u64 = 32 << 20;
/// Files that a log is kept in where only one of its two sizes is said.
pub const LOG_FILES: u64 = 10;
/// Space that is left to the file system for names and for the record of the slots, in bytes.
const MARGIN: u64 = 64 << 10;
/// The kernel's `STA_UNSYNC`, of adjtimex(2): nobody disciplines the clock.
const UNSYNCHRONIZED: i32 = 0x40;

/// Something that is not as it should be, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.fix)
    }
}

fn trouble(what: String, fix: impl Into<String>) -> Option<Trouble> {
    Some(Trouble { what, fix: fix.into() })
}

/// Too little memory for packages of so many bytes together.
pub fn memory(packages: u64) -> Option<Trouble> {
    std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| low_memory(&text, packages))
}

/// The same; `meminfo` is /proc/meminfo.
fn low_memory(meminfo: &str, packages: u64) -> Option<Trouble> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let available = line.split_whitespace().next()?.parse::<u64>().ok()?.saturating_mul(1024);
    let needed = packages.saturating_mul(MEMORY_FACTOR);
    if available >= needed {
        return None;
    }
    trouble(
        format!(
            "low memory: {} available, and this package of {} takes about {}",
            Size(available),
            Size(packages),
            Size(needed)
        ),
        "a smaller or an int8 model takes less",
    )
}

/// Bytes that may still be written into a folder's file system; `None` where that cannot be asked.
pub fn free(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Too little space for a log. `total` is what all of its files may hold together, where that is bounded.
pub fn log_space(log: &Path, total: Option<u64>) -> Option<Trouble> {
    let folder = folder(log);
    let written = std::fs::metadata(log).map_or(0, |m| m.len());
    little_space(folder, free(folder)?, total.map(|total| total.saturating_sub(written)))
}

/// `growth` is what the log may still grow by, where that is bounded.
fn little_space(folder: &Path, free: u64, growth: Option<u64>) -> Option<Trouble> {
    let folder = folder.display();
    match growth {
        Some(growth) if free < growth => trouble(
            format!(
                "little space for the log: {} free in {folder}, and it may still grow by {}",
                Size(free),
                Size(growth)
            ),
            "log-total says how much it may hold",
        ),
        _ if free < LITTLE => trouble(
            format!("the disk of the log is nearly full: {} free in {folder}", Size(free)),
            "make room, or let log-total say how much the log may hold",
        ),
        _ => None,
    }
}

/// Too little space for a package of so many bytes in the folder of the slots: the old package and the new one are both
/// there until the new one is whole.
pub fn package_space(folder: &Path, package: u64) -> Option<Trouble> {
    let free = free(folder).filter(|free| *free < package.saturating_add(MARGIN))?;
    let what = format!(
        "too little space in {}: {} free, and the package of {} is written beside the one that it replaces",
        folder.display(),
        Size(free),
        Size(package)
    );
    trouble(what, "make room there")
}

/// The folder that a path's file is in.
pub fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether the wall clock is kept right; `None` where that cannot be asked.
pub fn clock_synced() -> Option<bool> {
    // All zeros asks and changes nothing; a sandbox may forbid even that.
    let mut timex = Timex::new();
    adjtimex(&mut timex).ok()?;
    Some(timex.0.status & UNSYNCHRONIZED == 0)
}

/// How a camera on the ribbon cable of such a board is read: it is no V4L2 camera that delivers pictures, the vendor's
/// programs make them.
pub fn ribbon_cable(board: &str) -> Option<&'static str> {
    if board.starts_with("rpi") {
        return Some(
            "a camera on the ribbon cable is read with `rpicam-vid -t 0 -n --codec mjpeg -o - | edge-camera --source -`",
        );
    }
    board.starts_with("jetson").then_some(
        "a camera on the ribbon cable is read with `gst-launch-1.0 -q nvarguscamerasrc ! nvjpegenc ! fdsink | edge-camera --source -`",
    )
}

/// Beginnings of the names that drivers give to what is on the ribbon cable: they deliver what the sensor sees, pixel by
/// pixel in one colour each, or are a part of the way to pictures.
const RIBBON_CABLE: [&str; 6] = ["unicam", "rp1-cfe", "bcm2835-isp", "pispbe", "pisp-", "vi-output"];

/// The name that the kernel gives to a device such as /dev/video0, to everyone; `sys` is /sys.
pub fn video_name(sys: &Path, device: &Path) -> Option<String> {
    let real = std::fs::canonicalize(device).unwrap_or_else(|_| device.into());
    let name = std::fs::read_to_string(sys.join("class/video4linux").join(real.file_name()?).join("name")).ok()?;
    Some(name.trim().into())
}

/// Whether a device of this name is on the ribbon cable.
pub fn is_ribbon_cable(name: &str) -> bool {
    RIBBON_CABLE.iter().any(|beginning| name.starts_with(beginning))
}

/// A camera's device that may not be opened.
pub fn camera_denied(device: &Path) -> Trouble {
    Trouble {
        what: format!("permission denied: {} belongs to the group video", device.display()),
        fix: "add the user to it (`sudo usermod -aG video NAME`) and log in anew".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_memory_is_told() {
        let meminfo = "MemTotal:  1000000 kB\nMemFree: 1 kB\nMemAvailable:     100000 kB\n";
        assert_eq!(low_memory(meminfo, 30_000_000), None);
        let text = low_memory(meminfo, 40_000_000).unwrap().to_string();
        assert!(text.contains("102.4 MB available") && text.contains("120.0 MB; a smaller"), "{text}");
        assert_eq!(low_memory("", 1), None);
    }

    #[test]
    fn little_space_is_told() {
        let say = |free, growth| little_space(Path::new("/var/log"), free, growth).map(|t| t.to_string());
        assert_eq!(say(1 << 30, None), None);
        assert_eq!(say(1 << 30, Some(1 << 29)), None);
        assert!(say(1 << 30, Some(1 << 31)).unwrap().contains("log-total"));
        assert!(say(1 << 20, None).unwrap().contains("1.0 MB free in /var/log"));
        let here = tempfile::tempdir().unwrap();
        assert_eq!(package_space(here.path(), 1), None);
        assert!(package_space(here.path(), u64::MAX).unwrap().what.contains("beside the one that it replaces"));
    }

    #[test]
    fn what_is_on_the_ribbon_cable_is_known_by_board_and_by_name() {
        assert!(ribbon_cable("rpi5").unwrap().contains("rpicam-vid"));
        assert!(ribbon_cable("jetson-orin").unwrap().contains("nvarguscamerasrc"));
        assert_eq!(ribbon_cable("virt"), None);
        let sys = tempfile::tempdir().unwrap();
        let folder = sys.path().join("class/video4linux/video97");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("name"), "unicam-image\n").unwrap();
        let name = video_name(sys.path(), Path::new("/dev/video97"));
        assert!(name.as_deref().is_some_and(is_ribbon_cable), "{name:?}");
        assert_eq!(video_name(sys.path(), Path::new("/dev/video98")), None);
        assert!(!is_ribbon_cable("HD Webcam: HD Webcam"));
    }
}
