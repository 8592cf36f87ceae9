//! Where things stand on the disk, all in bytes.

use crate::board::Image;
use crate::disk::Disk;
use crate::seal::RegionKind;
use crate::slot::Slot;
use crate::system::HEAD_ROOM;
use crate::table::{Entry, FAT32, LINUX, Table, TableError};
use crate::{MIB, SECTOR};
use std::io;
use std::ops::Range;

/// Where the list of digests is, in bytes.
const SEAL: Range<u64> = MIB..2 * MIB;
/// Where the copies of the boot state are, in bytes: so far from each other that no card keeps them in one block.
const STATE: [u64; 2] = [4 * MIB, 8 * MIB];
/// Where the first partition begins, in bytes.
const FIRST: u64 = 16 * MIB;

/// Where things stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Place of the list of digests.
    pub seal: Range<u64>,
    /// The two copies of the boot state, a sector each.
    pub state: [Range<u64>; 2],
    /// The FAT partition.
    pub boot: Range<u64>,
    /// The system slots A and B.
    pub system: [Range<u64>; 2],
    /// The data partition.
    pub data: Range<u64>,
}

/// Why a disk has no layout that is known.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// It could not be read.
    #[error("the disk cannot be read: {0}")]
    Io(io::Error),
    /// Its first sector is something else.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The disk ends before the table says.
    #[error(
        "the disk has {size} bytes, but its partitions end at {end}; the card is too small for its image, or writing it was interrupted"
    )]
    TooSmall {
        /// Size of the disk in bytes.
        size: u64,
        /// End of the last partition in bytes.
        end: u64,
    },
}

impl Layout {
    fn new(boot: Range<u64>, system: [Range<u64>; 2], data: Range<u64>) -> Layout {
        Layout { seal: SEAL, state: STATE.map(|at| at..at + SECTOR), boot, system, data }
    }

    /// The layout of a fresh image.
    pub fn of(image: &Image) -> Layout {
        let mut end = FIRST;
        let [boot, a, b, data] = [image.boot_mib, image.system_mib, image.system_mib, image.data_mib].map(|mib| {
            let start = end;
            end += u64::from(mib) * MIB;
            start..end
        });
        Layout::new(boot, [a, b], data)
    }

    /// The layout that a disk's partition table says.
    pub fn from_disk(disk: &dyn Disk) -> Result<Layout, LayoutError> {
        let mut sector = [0; SECTOR as usize];
        disk.read_at(&mut sector, 0).map_err(LayoutError::Io)?;
        let table = Table::parse(&sector)?;
        let wrong = |what: String| Err(TableError(what).into());
        for (i, (entry, kind)) in table.entries.iter().zip([FAT32, LINUX, LINUX, LINUX]).enumerate() {
            if entry.kind != kind {
                return wrong(format!("partition {} is of type {:02x}, not {kind:02x}", i + 1, entry.kind));
            }
        }
        let [boot, a, b, data] = table.entries.map(|entry| entry.range());
        if boot.start < FIRST {
            return wrong("the first partition begins before 16 MiB".into());
        }
        if [&a, &b].iter().any(|slot| slot.end - slot.start < 2 * HEAD_ROOM) {
            return wrong("a system slot is too small for any system".into());
        }
        if data.end > disk.size() {
            return Err(LayoutError::TooSmall { size: disk.size(), end: data.end });
        }
        Ok(Layout::new(boot, [a, b], data))
    }

    /// The place of a system slot.
    pub fn slot(&self, slot: Slot) -> Range<u64> {
        self.system[slot as usize].clone()
    }

    /// Where the last partition ends, in bytes: the size of a fresh image.
    pub fn end(&self) -> u64 {
        self.data.end
    }

    /// The partition table that says this layout.
    pub fn table(&self, signature: u32) -> Table {
        let [a, b] = &self.system;
        let entries = [(FAT32, &self.boot), (LINUX, a), (LINUX, b), (LINUX, &self.data)].map(|(kind, range)| {
            // A board's description and a table on a disk are both bounded by what 32 bits can say.
            let sectors = |bytes: u64| u32::try_from(bytes / SECTOR).unwrap_or(u32::MAX);
            Entry { kind, start: sectors(range.start), sectors: sectors(range.end - range.start) }
        });
        Table { signature, entries }
    }

    /// The layout with the data partition reaching to the end of a disk of `size` bytes, in whole MiB; never smaller.
    pub fn grown(&self, size: u64) -> Layout {
        let largest = u64::from(u32::MAX) * SECTOR;
        let end = (size.min(largest) / MIB * MIB).max(self.data.end);
        Layout { data: self.data.start..end, ..self.clone() }
    }

    /// Everything but the list of digests, in the order of the disk and without gaps: (name, kind, place).
    pub(crate) fn regions(&self) -> Vec<(&'static str, RegionKind, Range<u64>)> {
        let [first, second] = self.state.clone();
        let [a, b] = self.system.clone();
        let things = [
            ("partition table", RegionKind::Table, 0..SECTOR),
            ("list of digests", RegionKind::Gap, self.seal.clone()),
            ("boot state, first copy", RegionKind::State, first),
            ("boot state, second copy", RegionKind::State, second),
            ("boot partition", RegionKind::Boot, self.boot.clone()),
            ("system slot a", RegionKind::System, a),
            ("system slot b", RegionKind::System, b),
            ("data partition", RegionKind::Data, self.data.clone()),
        ];
        let (mut regions, mut end) = (Vec::new(), 0);
        for (name, kind, range) in things {
            if end < range.start {
                regions.push(("unused", RegionKind::Gap, end..range.start));
            }
            end = range.end;
            if range != self.seal {
                regions.push((name, kind, range));
            }
        }
        regions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::boards;
    use crate::disk::FileDisk;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    #[test]
    fn every_board_has_a_layout_that_its_table_says() {
        let dir = tempfile::tempdir().unwrap();
        for image in boards().iter().filter_map(|b| b.image.as_ref()) {
            let layout = Layout::of(image);
            let path = dir.path().join("disk");
            let file = File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap();
            file.write_all_at(&layout.table(7).encode(), 0).unwrap();
            file.set_len(layout.end()).unwrap();
            assert_eq!(Layout::from_disk(&FileDisk::from_file(file).unwrap()).unwrap(), layout);
        }
    }

    #[test]
    fn the_regions_and_the_list_are_all_of_the_disk() {
        for image in boards().iter().filter_map(|b| b.image.as_ref()) {
            let layout = Layout::of(image);
            let mut ranges: Vec<_> = layout.regions().into_iter().map(|(_, _, range)| range).collect();
            ranges.push(layout.seal.clone());
            ranges.sort_by_key(|r| r.start);
            assert!(ranges.windows(2).all(|w| w[0].end == w[1].start));
            assert_eq!((ranges[0].start, ranges.last().unwrap().end), (0, layout.end()));
        }
    }

    #[test]
    fn the_data_partition_grows_and_never_shrinks() {
        let layout = Layout::of(boards().iter().find_map(|b| b.image.as_ref()).unwrap());
        assert_eq!(layout.grown(layout.end() - 1), layout);
        assert_eq!(layout.grown(layout.end() + 3 * MIB + 5).data.end, layout.end() + 3 * MIB);
        let largest = layout.grown(u64::MAX);
        assert_eq!(Table::parse(&largest.table(0).encode()).unwrap().entries[3].range(), largest.data);
    }
}
