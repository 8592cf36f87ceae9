//! A disk compared with its list of digests.

use super::{FileDigest, Region, RegionKind, Seal, fat};
use crate::SECTOR;
use crate::disk::{Disk, digest_of};
use crate::layout::Layout;
use crate::slot::Slot;
use crate::state::{BootState, Found};
use crate::system::{SlotFault, check_fill, read_slot};
use crate::table::Table;
use edge_package::digest;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

/// Files of the FAT partition that are there to be edited.
const SETTINGS: [&str; 2] = ["camera.toml", "hostname"];
/// Folders that operating systems put on every card, and nothing on the device reads.
const FOREIGN_FOLDERS: [&str; 5] =
    ["System Volume Information/", ".Spotlight-V100/", ".fseventsd/", ".Trashes/", ".Trash-1000/"];

/// What a disk is, compared with its list of digests.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// One for each region of the list, in its order.
    pub regions: Vec<RegionVerdict>,
    /// Files of the FAT partition that are not as they were, where the partition as a whole is not.
    pub files: Vec<FileVerdict>,
}

/// What became of a region of the list.
#[derive(Debug, Clone, PartialEq)]
pub struct RegionVerdict {
    /// Its name.
    pub name: String,
    /// Its place in bytes.
    pub range: Range<u64>,
    /// What became of it.
    pub state: RegionState,
}

/// What became of a region.
#[derive(Debug, Clone, PartialEq)]
pub enum RegionState {
    /// As in the fresh image.
    Same,
    /// Other than in the fresh image, as a device in use may be; what it is now.
    Changed(String),
    /// Not covered: the data partition of a device in use.
    NotCovered,
    /// Other than in the fresh image, and not as a device in use may be; what is wrong.
    Differs(String),
}

/// What became of a file of the FAT partition.
#[derive(Debug, Clone, PartialEq)]
pub struct FileVerdict {
    /// Its path.
    pub path: String,
    /// What became of it.
    pub state: FileState,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileState {
    /// One that may be edited, and was.
    Edited,
    /// One that may not be edited has other content.
    Differs,
    /// It is gone.
    Missing,
    /// It was not there in the fresh image; an operating system put it there, and nothing reads it.
    New,
    /// It was not there in the fresh image, and does not belong there.
    Foreign,
}

impl Verdict {
    /// Whether nothing is other than a device in use may be.
    pub fn is_good(&self) -> bool {
        self.regions.iter().all(|r| !matches!(r.state, RegionState::Differs(_)))
            && self.files.iter().all(|f| matches!(f.state, FileState::Edited | FileState::New))
    }

    /// Whether every byte is as in the fresh image.
    pub fn is_fresh(&self) -> bool {
        self.regions.iter().all(|r| r.state == RegionState::Same)
    }
}

impl Seal {
    /// Compares a disk with the list. `layout` is the disk's own, and `progress` is given bytes as they are read.
    pub fn verify(&self, disk: &dyn Disk, layout: &Layout, progress: &mut dyn FnMut(u64)) -> io::Result<Verdict> {
        let mut verdict = Verdict { regions: Vec::new(), files: Vec::new() };
        // Regions of the list that are not those of this disk: it is the list of another image.
        let fresh = layout.regions();
        let fits = self.regions.len() == fresh.len()
            && self.regions.iter().zip(&fresh).all(|(region, (_, kind, range))| {
                let grows = *kind == RegionKind::Data && region.end() <= range.end;
                region.kind == *kind && region.offset == range.start && (region.end() == range.end || grows)
            });
        for region in &self.regions {
            let state = match fits {
                true => self.region(region, disk, layout, progress, &mut verdict.files)?,
                false => RegionState::Differs("the partition table is not that of the list of digests".into()),
            };
            let range = region.offset..region.end();
            verdict.regions.push(RegionVerdict { name: region.name.clone(), range, state });
        }
        Ok(verdict)
    }

    fn region(
        &self,
        region: &Region,
        disk: &dyn Disk,
        layout: &Layout,
        progress: &mut dyn FnMut(u64),
        files: &mut Vec<FileVerdict>,
    ) -> io::Result<RegionState> {
        let range = region.offset..region.end();
        if digest_of(disk, range.clone(), progress)? == region.digest {
            return Ok(RegionState::Same);
        }
        Ok(match region.kind {
            RegionKind::Table => self.table(region, disk)?,
            RegionKind::Gap => RegionState::Differs("it is not empty any more".into()),
            RegionKind::State => state(disk, layout, range)?,
            RegionKind::Boot => self.boot(disk, range, files),
            RegionKind::System => self.system(disk, layout, range, progress)?,
            RegionKind::Data => RegionState::NotCovered,
        })
    }

    /// The table of a grown data partition is that of the fresh image but for its size. It grows to a whole MiB of the
    /// disk, as [`Layout::grown`] says.
    fn table(&self, region: &Region, disk: &dyn Disk) -> io::Result<RegionState> {
        let mut sector = [0; SECTOR as usize];
        disk.read_at(&mut sector, 0)?;
        let data = self.regions.iter().find(|r| r.kind == RegionKind::Data);
        let (Ok(mut table), Some(data)) = (Table::parse(&sector), data) else {
            return Ok(RegionState::Differs("it is damaged".into()));
        };
        let mebibytes = |sectors: u64| sectors * SECTOR / crate::MIB;
        let now = table.entries[3].sectors;
        table.entries[3].sectors = u32::try_from(data.length / SECTOR).unwrap_or(u32::MAX);
        // The sector has nothing that the table does not say, and only the size differs.
        let mut fresh = sector;
        fresh[SIZE_AT..SIZE_AT + 4].copy_from_slice(&table.entries[3].sectors.to_le_bytes());
        let end = data.offset + u64::from(now) * SECTOR;
        let grown = now > table.entries[3].sectors && end.is_multiple_of(crate::MIB) && end <= disk.size();
        Ok(if digest(&fresh) == region.digest && grown {
            RegionState::Changed(format!("the data partition has grown to {} MiB", mebibytes(now.into())))
        } else {
            RegionState::Differs("it is not that of the image".into())
        })
    }

    fn boot(&self, disk: &dyn Disk, range: Range<u64>, verdicts: &mut Vec<FileVerdict>) -> RegionState {
        let now = match fat::files(disk, range) {
            Ok(now) => now,
            Err(e) => return RegionState::Differs(format!("its files cannot be read: {e}")),
        };
        *verdicts = compare(&self.files, &now);
        RegionState::Changed(match verdicts.len() {
            0 => format!("its {} files are as they were", self.files.len()),
            n => format!("{n} of its files are not as they were"),
        })
    }

    fn system(
        &self,
        disk: &dyn Disk,
        layout: &Layout,
        range: Range<u64>,
        progress: &mut dyn FnMut(u64),
    ) -> io::Result<RegionState> {
        let slot = match read_slot(disk, range.clone(), &self.trust(), progress) {
            Ok(slot) => slot,
            Err(SlotFault::Io(e)) => return Err(e),
            Err(fault) => {
                let active = BootState::read(disk, layout)?.state.map_or(Slot::A, |s| s.choice.active);
                // An update was cut off in the slot that does not run: the device starts, and the update is repeated.
                return Ok(match fault {
                    SlotFault::Empty if range != layout.slot(active) => {
                        RegionState::Changed("an update was interrupted; repeat it".into())
                    }
                    fault => RegionState::Differs(fault.to_string()),
                });
            }
        };
        Ok(if !check_fill(disk, range, &slot)? {
            RegionState::Differs("the bytes after its system are not zero".into())
        } else {
            let (manifest, digest) = (&slot.manifest, edge_package::hex(&slot.digest[..8]));
            RegionState::Changed(format!("system {} (sequence {}, {digest})", manifest.version, manifest.sequence))
        })
    }
}

/// Where the table says how many sectors the last partition has.
const SIZE_AT: usize = 446 + 3 * 16 + 12;

impl Region {
    /// Where it ends, in bytes; `validate` found that it does.
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// A copy of the boot state, other than in the fresh image.
fn state(disk: &dyn Disk, layout: &Layout, range: Range<u64>) -> io::Result<RegionState> {
    let Found { state, copies } = BootState::read(disk, layout)?;
    let copy = layout.state.iter().position(|place| *place == range).and_then(|i| copies[i].good());
    Ok(match (copy, state) {
        (Some(copy), _) => {
            let text = copy.choice.to_text();
            RegionState::Changed(format!("generation {}: {}", copy.generation, text.trim_end().replace('\n', ", ")))
        }
        (None, Some(_)) => RegionState::Changed("torn by a power cut; the other copy counts".into()),
        (None, None) => RegionState::Differs("it is damaged, as the other copy is".into()),
    })
}

/// What became of the files, ordered by path.
fn compare(then: &[FileDigest], now: &[FileDigest]) -> Vec<FileVerdict> {
    let by_path =
        |files: &[FileDigest]| files.iter().map(|f| (f.path.clone(), (f.length, f.digest))).collect::<BTreeMap<_, _>>();
    let (then, now) = (by_path(then), by_path(now));
    let mut verdicts = Vec::new();
    for path in then.keys().chain(now.keys().filter(|path| !then.contains_key(*path))) {
        let settings = SETTINGS.iter().any(|s| path.eq_ignore_ascii_case(s));
        // What macOS keeps of a file that it showed.
        let harmless = FOREIGN_FOLDERS.iter().any(|f| path.starts_with(f)) || path.starts_with("._");
        let state = match (then.get(path), now.get(path)) {
            (a, b) if a == b => continue,
            _ if settings => FileState::Edited,
            (Some(_), None) => FileState::Missing,
            (Some(_), Some(_)) => FileState::Differs,
            (None, _) if harmless => FileState::New,
            (None, _) => FileState::Foreign,
        };
        verdicts.push(FileVerdict { path: path.clone(), state });
    }
    verdicts.sort_by(|a, b| a.path.cmp(&b.path));
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_of_a_file_has_its_word() {
        let file = |path: &str, byte| FileDigest { path: path.into(), length: 1, digest: [byte; 32] };
        let then = [file("camera.toml", 1), file("gone", 1), file("same", 1), file("vmlinuz", 1)];
        let now = [
            file("System Volume Information/x", 1),
            file("camera.toml", 2),
            file("hostname", 1),
            file("same", 1),
            file("trusted.pub", 1),
            file("vmlinuz", 2),
        ];
        let found: Vec<_> = compare(&then, &now).into_iter().map(|v| (v.path, v.state)).collect();
        let wanted = [
            ("System Volume Information/x", FileState::New),
            ("camera.toml", FileState::Edited),
            ("gone", FileState::Missing),
            ("hostname", FileState::Edited),
            ("trusted.pub", FileState::Foreign),
            ("vmlinuz", FileState::Differs),
        ];
        assert_eq!(found, wanted.map(|(path, state)| (path.to_string(), state)));
    }
}
