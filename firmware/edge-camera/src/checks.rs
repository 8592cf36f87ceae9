//! What is looked at before the first frame, and told in a line each: memory and disk. What is wrong with a camera is
//! said when it is opened.

use crate::log::folder;
use crate::settings::{Choice, Settings};
use crate::units::Size;
use edge_system::board;
use edge_system::slot::{Slot, Slots};
use std::path::Path;

/// A disk with less space than this is nearly full, in bytes.
const LITTLE: u64 = 32 << 20;

/// What is no reason to stop, but may be one soon: asked before the package is loaded.
pub fn warnings(settings: &Settings) -> Vec<String> {
    let packages = match &settings.package {
        Choice::BuiltIn => vec![],
        Choice::File(path) => vec![path.clone()],
        Choice::Slots(folder) => {
            let slots = Slots::new(folder);
            let choice = slots.choice();
            // While a package is on trial both are in memory.
            let both = choice.trial.is_some() && !settings.trial.time.is_zero() && settings.trial.share > 0.0;
            Slot::BOTH.iter().filter(|slot| both || **slot == choice.active).map(|slot| slots.package(*slot)).collect()
        }
    };
    let bytes = packages.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|m| m.len()).sum();
    let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory(&text, bytes));
    let log = &settings.log.path;
    let disk = (log != Path::new("-")).then(|| folder(log)).and_then(|folder| {
        let disk = rustix::fs::statvfs(folder).ok()?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let written = std::fs::metadata(log).map_or(0, |m| m.len());
        disk_space(folder, free, settings.log.rotation.map(|r| r.total.saturating_sub(written)))
    });
    memory.into_iter().chain(disk).collect()
}

/// `meminfo` is /proc/meminfo.
fn memory(meminfo: &str, package: u64) -> Option<String> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let available = line.split_whitespace().next()?.parse::<u64>().ok()?.saturating_mul(1024);
    let needed = package.saturating_mul(board::MEMORY_FACTOR);
    (available < needed).then(|| {
        format!(
            "low memory: {} available, and this package of {} takes about {}; a smaller or an int8 model takes less",
            Size(available),
            Size(package),
            Size(needed)
        )
    })
}

/// `growth` is what the log may still grow by, where that is bounded.
fn disk_space(folder: &Path, free: u64, growth: Option<u64>) -> Option<String> {
    let folder = folder.display();
    match growth {
        Some(growth) if free < growth => Some(format!(
            "little space for the log: {} free in {folder}, and it may still grow by {}; log-total says how much it may hold",
            Size(free),
            Size(growth)
        )),
        _ if free < LITTLE => Some(format!("the disk of the log is nearly full: {} free in {folder}", Size(free))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_memory_is_told() {
        let meminfo = "MemTotal:  1000000 kB\nMemFree: 1 kB\nMemAvailable:     100000 kB\n";
        assert_eq!(memory(meminfo, 30_000_000), None);
        let text = memory(meminfo, 40_000_000).unwrap();
        assert!(text.contains("102.4 MB available") && text.contains("120.0 MB"), "{text}");
        assert_eq!(memory("", 1), None);
    }

    #[test]
    fn little_space_is_told() {
        let say = |free, growth| disk_space(Path::new("/var/log"), free, growth);
        assert_eq!(say(1 << 30, None), None);
        assert_eq!(say(1 << 30, Some(1 << 29)), None);
        assert!(say(1 << 30, Some(1 << 31)).unwrap().contains("log-total"));
        assert!(say(1 << 20, None).unwrap().contains("1.0 MB free in /var/log"));
    }
}
