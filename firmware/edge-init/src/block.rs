//! Disks and their partitions, as the kernel shows them.

use crate::say::say;
use anyhow::{Context, bail, ensure};
use edge_package::TrustPolicy;
use edge_system::disk::FileDisk;
use edge_system::layout::Layout;
use edge_system::seal::Seal;
use edge_system::state::BootState;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a disk may take to appear: cards and USB are found some time after the kernel has started.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is no disk of its own, by how its name begins.
const OTHERS: [&str; 10] = ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "mtdblock", "ubiblock"];

/// The disk that a flashed camera is on: `told`, or the first one that is laid out as one. `waiting` is called now and
/// then.
pub fn find(told: Option<&Path>, waiting: &dyn Fn()) -> anyhow::Result<PathBuf> {
    let end = crate::say::uptime() + PATIENCE;
    loop {
        let late = crate::say::uptime() >= end;
        let (mut found, mut refused) = (vec![], vec![]);
        let candidates = told.map_or_else(|| disks(Path::new("/sys/block")), |told| vec![told.to_path_buf()]);
        for disk in candidates {
            match look(&disk) {
                Ok(Fit::Sure) => found.push(disk),
                // Whatever else is damaged, the slots may be good. But another disk may be the one.
                Ok(Fit::Perhaps(_)) if late => found.push(disk),
                Ok(Fit::Perhaps(why)) => refused.push(format!("{}: {why}", disk.display())),
                Err(why) => refused.push(format!("{}: {why:#}", disk.display())),
            }
        }
        if let Some(first) = found.first() {
            if found.len() > 1 {
                let others: Vec<String> = found[1..].iter().map(|disk| disk.display().to_string()).collect();
                say(&format!("{} is started from; {} could be, too", first.display(), others.join(", ")));
            }
            return Ok(first.clone());
        }
        if late {
            let seen = if refused.is_empty() { "there is no disk at all".into() } else { refused.join("; ") };
            bail!("no disk holds a flashed camera: {seen}");
        }
        waiting();
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The disks' devices, in the order in which they are tried: cards before others.
fn disks(sys: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(sys).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| {
            let size = std::fs::read_to_string(entry.path().join("size")).unwrap_or_default();
            size.trim().parse::<u64>().is_ok_and(|sectors| sectors > 0)
        })
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !OTHERS.iter().any(|other| name.starts_with(other)))
        // The boot parts of an eMMC are disks of their own.
        .filter(|name| !(name.starts_with("mmcblk") && name.contains("boot")))
        .collect();
    names.sort_by_key(|name| (!name.starts_with("mmcblk"), name.clone()));
    names.iter().map(|name| Path::new("/dev").join(name)).collect()
}

/// How sure it is that a disk is a flashed camera's.
#[derive(Debug, PartialEq)]
enum Fit {
    /// It is.
    Sure,
    /// Only its partitions are laid out so, and why that is all.
    Perhaps(String),
}

/// Whether a disk is a flashed camera's.
fn look(path: &Path) -> anyhow::Result<Fit> {
    let disk = FileDisk::open(path)?;
    let layout = Layout::from_disk(&disk)?;
    if BootState::read(&disk, &layout)?.state.is_some() {
        return Ok(Fit::Sure);
    }
    Ok(match Seal::read(&disk, &layout, &TrustPolicy::default()) {
        Ok(_) => Fit::Sure,
        Err(why) => Fit::Perhaps(format!("it has neither a boot state nor a list of digests ({why})")),
    })
}

/// The device of a partition, which must begin where the layout says, in bytes.
pub fn partition(disk: &Path, number: u32, start: u64) -> anyhow::Result<PathBuf> {
    partition_in(Path::new("/sys/class/block"), disk, number, start)
}

fn partition_in(sys: &Path, disk: &Path, number: u32, start: u64) -> anyhow::Result<PathBuf> {
    let name = disk.file_name().with_context(|| format!("{} is no disk", disk.display()))?;
    let read = |path: PathBuf| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let folder = sys.join(name);
    let entries = std::fs::read_dir(&folder).with_context(|| format!("{} is no disk", disk.display()))?;
    for entry in entries.flatten() {
        if read(entry.path().join("partition")) == Some(number.into()) {
            let begins = read(entry.path().join("start")).map(|sectors| sectors.saturating_mul(512));
            ensure!(
                begins == Some(start),
                "partition {number} of {} begins elsewhere for the kernel than for the table",
                disk.display()
            );
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    bail!("the kernel shows no partition {number} of {}", disk.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_system::disk::Disk;
    use std::fs::File;

    fn file(path: PathBuf, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn disks_are_tried_cards_first() {
        let sys = tempfile::tempdir().unwrap();
        for (name, size) in [
            ("vda", "100"),
            ("sda", "100"),
            ("sdb", "0"),
            ("loop0", "100"),
            ("ram1", "8"),
            ("mmcblk1", "100"),
            ("mmcblk1boot0", "8"),
            ("zram0", "8"),
        ] {
            file(sys.path().join(name).join("size"), &format!("{size}\n"));
        }
        let expected = ["/dev/mmcblk1", "/dev/sda", "/dev/vda"].map(PathBuf::from);
        assert_eq!(disks(sys.path()), expected);
        assert!(disks(Path::new("/nonexistent")).is_empty());
    }

    #[test]
    fn a_partition_is_where_the_layout_says() {
        let sys = tempfile::tempdir().unwrap();
        for (name, number, start) in [("mmcblk0p1", 1, 32768), ("mmcblk0p2", 2, 65536)] {
            file(sys.path().join("mmcblk0").join(name).join("partition"), &format!("{number}\n"));
            file(sys.path().join("mmcblk0").join(name).join("start"), &format!("{start}\n"));
        }
        file(sys.path().join("mmcblk0").join("size"), "9\n");
        let find = |number, start| partition_in(sys.path(), Path::new("/dev/mmcblk0"), number, start);
        assert_eq!(find(2, 65536 * 512).unwrap(), Path::new("/dev/mmcblk0p2"));
        assert!(find(2, 65536).unwrap_err().to_string().contains("elsewhere"));
        assert!(find(3, 0).unwrap_err().to_string().contains("no partition 3"));
        assert!(partition_in(sys.path(), Path::new("/dev/sda"), 1, 0).is_err());
    }

    #[test]
    fn a_file_that_is_no_disk_of_ours_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        assert!(look(&path).is_err());
        assert!(look(&dir.path().join("none")).is_err());
        // Partitions alone could be anybody's; a boot state is not, whichever copy it is.
        let layout = Layout::of(edge_system::board::by_name("virt").unwrap().image().unwrap());
        File::create(&path).unwrap().set_len(layout.end()).unwrap();
        let mut disk = FileDisk::open_writable(&path).unwrap();
        disk.write_at(&layout.table(7).encode(), 0).unwrap();
        assert!(matches!(look(&path).unwrap(), Fit::Perhaps(_)));
        for copy in 0..2 {
            BootState::first().write(&mut disk, &layout).unwrap();
            disk.write_at(&[0x55; 512], layout.state[copy].start).unwrap();
            assert_eq!(look(&path).unwrap(), Fit::Sure);
        }
    }
}
