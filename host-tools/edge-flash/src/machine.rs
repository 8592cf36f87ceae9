//! The block devices of a machine, and what the machine uses them for.
//!
//! Everything comes from files below one root (`/sys`, `/proc`, `/dev`), so that machines of other people can be looked
//! at in tests as they were recorded.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Mount points without which the machine would not go on running.
const SYSTEM: [&str; 9] = ["/", "/boot", "/boot/efi", "/boot/firmware", "/efi", "/usr", "/var", "/home", "/nix/store"];

/// A whole disk, not one of its partitions.
#[derive(Debug, Clone, PartialEq)]
pub struct Disk {
    /// The kernel's name, such as `sda` or `mmcblk0`.
    pub name: String,
    /// Size in bytes; 0 where a reader has no card.
    pub size: u64,
    /// What its maker calls it.
    pub model: String,
    /// Its serial number, where it tells one.
    pub serial: Option<String>,
    /// How it is connected.
    pub bus: Bus,
    /// Whether it is made to be taken out of the machine.
    pub removable: bool,
    /// Whether a switch on the card, or the kernel, forbids writing.
    pub read_only: bool,
    /// What the machine uses it or parts of it for.
    pub uses: Vec<Use>,
}

/// How a disk is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// USB, card readers included.
    Usb,
    /// An SD card in a slot that is no USB reader.
    Sd,
    /// Anything else.
    Other,
}

/// Something that a disk is used for.
#[derive(Debug, Clone, PartialEq)]
pub struct Use {
    /// The device that is used: the disk, a partition, or what is built on one.
    pub device: String,
    /// What for.
    pub how: How,
}

/// What a block device is used for.
#[derive(Debug, Clone, PartialEq)]
pub enum How {
    /// Mounted here.
    Mounted(PathBuf),
    /// Swap space.
    Swap,
    /// Part of a logical volume, an encrypted volume, a RAID, which has this name.
    PartOf(String),
}

impl Use {
    /// Whether the running system lives on it.
    pub fn is_system(&self) -> bool {
        match &self.how {
            How::Mounted(place) => SYSTEM.iter().any(|system| place == Path::new(system)),
            How::Swap => true,
            How::PartOf(_) => false,
        }
    }
}

impl std::fmt::Display for Use {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.how {
            How::Mounted(place) => write!(f, "{} is mounted at {}", self.device, place.display()),
            How::Swap => write!(f, "{} is swap space", self.device),
            How::PartOf(volume) => write!(f, "{} is part of {volume}", self.device),
        }
    }
}

/// A machine, seen through the files below `root`.
pub struct Machine {
    root: PathBuf,
    mounts: Vec<Mount>,
    swaps: Vec<String>,
}

/// A line of mountinfo.
struct Mount {
    /// major:minor of what is mounted; of no device for file systems such as btrfs.
    number: String,
    /// What was named when it was mounted, without the folder.
    source: String,
    place: PathBuf,
}

impl Machine {
    /// The machine whose files lie below `root`: `/` is this one.
    pub fn at(root: &Path) -> Result<Machine> {
        let path = root.join("proc/self/mountinfo");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut machine = Machine { root: root.into(), mounts: vec![], swaps: vec![] };
        machine.mounts = text.lines().filter_map(|line| machine.mount(line)).collect();
        // A kernel without swap has no such file.
        let swaps = fs::read_to_string(root.join("proc/swaps")).unwrap_or_default();
        let first = |line: &str| Some(machine.device_name(&unescaped(line.split_whitespace().next()?)));
        machine.swaps = swaps.lines().skip(1).filter_map(first).collect();
        Ok(machine)
    }

    /// `36 35 98:0 /root /mount/point options - type source options`
    fn mount(&self, line: &str) -> Option<Mount> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ');
        let number = before.nth(2)?.to_owned();
        let place = PathBuf::from(unescaped(before.nth(1)?));
        let source = self.device_name(&unescaped(after.split(' ').nth(1)?));
        Some(Mount { number, source, place })
    }

    /// `/dev/mapper/root` → `dm-0`, `/dev/disk/by-id/…` → `sda1`.
    fn device_name(&self, source: &str) -> String {
        let Some(below) = source.strip_prefix('/') else { return String::new() };
        let path = self.root.join(below);
        let real = path.canonicalize().unwrap_or(path);
        real.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The kernel's name of the disk that a path of `/dev` leads to; an error for anything but a whole disk.
    pub fn disk_of(&self, path: &Path) -> Result<Disk> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let metadata = fs::metadata(path).with_context(|| format!("cannot open {}", path.display()))?;
        anyhow::ensure!(metadata.file_type().is_block_device(), "{} is not a block device", path.display());
        let number = metadata.rdev();
        let number = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
        for name in self.names()? {
            if self.text(&name, "dev") == number {
                return Ok(self.disk(&name));
            }
            if let Some(partition) = self.partitions(&name).into_iter().find(|p| self.text(p, "dev") == number) {
                anyhow::bail!("{} is the partition {partition}; name the whole disk, /dev/{name}", path.display());
            }
        }
        anyhow::bail!("the kernel knows no disk {} (device number {number})", path.display())
    }

    /// All disks that can be taken out and have a medium in them.
    pub fn removable(&self) -> Result<Vec<Disk>> {
        Ok(self.disks()?.into_iter().filter(|disk| disk.removable && disk.size > 0).collect())
    }

    /// All disks, in the order of their names.
    pub fn disks(&self) -> Result<Vec<Disk>> {
        Ok(self.names()?.iter().map(|name| self.disk(name)).collect())
    }

    fn names(&self) -> Result<Vec<String>> {
        let folder = self.root.join("sys/block");
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let mut names: Vec<_> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    }

    fn disk(&self, name: &str) -> Disk {
        let bus = self.bus(name);
        let model = match self.text(name, "device/model") {
            model if !model.is_empty() => [self.text(name, "device/vendor"), model].join(" ").trim().to_owned(),
            // SD cards tell five letters.
            _ => self.text(name, "device/name"),
        };
        let serial = ["device/serial", "serial", "device/wwid"].map(|file| self.text(name, file));
        let serial = serial.into_iter().find(|serial| !serial.is_empty()).or_else(|| self.usb_serial(name));
        Disk {
            name: name.into(),
            // The kernel counts in 512 bytes whatever the sectors of the disk are.
            size: self.text(name, "size").parse::<u64>().unwrap_or(0) * 512,
            model,
            serial,
            bus,
            removable: bus != Bus::Other || self.text(name, "removable") == "1",
            read_only: self.text(name, "ro") == "1",
            uses: self.uses(name),
        }
    }

    fn bus(&self, name: &str) -> Bus {
        let device = self.block(name).join("device").canonicalize().unwrap_or_default();
        let usb = |part: &std::ffi::OsStr| part.to_string_lossy().starts_with("usb");
        if device.iter().any(usb) {
            return Bus::Usb;
        }
        // eMMC is soldered in and its type is MMC.
        if self.text(name, "device/type") == "SD" { Bus::Sd } else { Bus::Other }
    }

    /// The serial number of the USB device above the disk.
    fn usb_serial(&self, name: &str) -> Option<String> {
        let device = self.block(name).join("device").canonicalize().ok()?;
        let above = device.ancestors().take_while(|folder| folder.starts_with(&self.root));
        let serial = above.filter(|folder| folder.join("idVendor").exists()).find_map(|folder| {
            let text = fs::read_to_string(folder.join("serial")).ok()?;
            Some(text.trim().to_owned())
        })?;
        (!serial.is_empty()).then_some(serial)
    }

    /// What the disk, its partitions, and what is built on them are used for.
    fn uses(&self, name: &str) -> Vec<Use> {
        let mut uses = vec![];
        let mut seen = BTreeSet::new();
        let mut waiting = vec![name.to_owned()];
        waiting.extend(self.partitions(name));
        while let Some(device) = waiting.pop() {
            if !seen.insert(device.clone()) {
                continue;
            }
            let number = self.text(&device, "dev");
            for mount in self.mounts.iter().filter(|m| m.number == number || m.source == device) {
                uses.push(Use { device: device.clone(), how: How::Mounted(mount.place.clone()) });
            }
            if self.swaps.contains(&device) {
                uses.push(Use { device: device.clone(), how: How::Swap });
            }
            for holder in entries(&self.block(&device).join("holders")) {
                let called = self.text(&holder, "dm/name");
                let volume = if called.is_empty() { holder.clone() } else { format!("{called} ({holder})") };
                uses.push(Use { device: device.clone(), how: How::PartOf(volume) });
                waiting.extend(self.partitions(&holder));
                waiting.push(holder);
            }
        }
        // By device, so that the same disk is told of in the same words.
        uses.sort_by(|a, b| a.device.cmp(&b.device));
        uses.dedup();
        uses
    }

    fn partitions(&self, name: &str) -> Vec<String> {
        let folder = self.root.join("sys/class/block").join(name);
        entries(&folder).into_iter().filter(|entry| folder.join(entry).join("partition").exists()).collect()
    }

    fn block(&self, name: &str) -> PathBuf {
        self.root.join("sys/class/block").join(name)
    }

    /// A file of the device, or nothing.
    fn text(&self, name: &str, file: &str) -> String {
        fs::read_to_string(self.block(name).join(file)).unwrap_or_default().trim().to_owned()
    }
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The kernel writes blanks and the like as a backslash and three octal digits.
fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let octal = bytes.get(at + 1..at + 4).filter(|_| byte == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(meant) => {
                out.push(meant);
                at += 4;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Bytes for people: `31.9 GB`.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{bytes} bytes"),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests;
