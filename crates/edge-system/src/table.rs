//! The partition table: a master boot record with four primary partitions and no code.

use crate::SECTOR;
use std::ops::Range;

/// Where the disk signature stands.
const SIGNATURE_AT: usize = 440;
/// Where the four entries stand, 16 bytes each.
const ENTRIES_AT: usize = 446;
/// How the sector ends.
const END: [u8; 2] = [0x55, 0xaa];
/// "Beyond what cylinders, heads and sectors can say": what every tool writes for LBA partitions.
const CHS: [u8; 3] = [0xfe, 0xff, 0xff];
/// Partition type of FAT32 with LBA addresses.
pub const FAT32: u8 = 0x0c;
/// Partition type of Linux.
pub const LINUX: u8 = 0x83;

/// One partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Partition type.
    pub kind: u8,
    /// First sector.
    pub start: u32,
    /// Number of sectors.
    pub sectors: u32,
}

impl Entry {
    /// Its place on the disk in bytes.
    pub fn range(&self) -> Range<u64> {
        let start = u64::from(self.start) * SECTOR;
        start..start + u64::from(self.sectors) * SECTOR
    }
}

/// A partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The disk signature.
    pub signature: u32,
    /// The partitions.
    pub entries: [Entry; 4],
}

/// Not the partition table of a flashed system.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not the partition table of an edge-pack card: {0}")]
pub struct TableError(pub(crate) String);

impl Table {
    /// Reads the first sector of a disk. The partitions are in order and do not overlap.
    pub fn parse(sector: &[u8; 512]) -> Result<Table, TableError> {
        if !sector.ends_with(&END) {
            return Err(TableError("the first sector does not end with 55 AA".into()));
        }
        let mut entries = [Entry { kind: 0, start: 0, sectors: 0 }; 4];
        let mut end = 0;
        for (i, (entry, raw)) in entries.iter_mut().zip(sector[ENTRIES_AT..].chunks_exact(16)).enumerate() {
            let number = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
            *entry = Entry { kind: raw[4], start: number(8), sectors: number(12) };
            let n = i + 1;
            if entry.kind == 0 || entry.sectors == 0 {
                return Err(TableError(format!("partition {n} is not there")));
            }
            if u64::from(entry.start) < end {
                return Err(TableError(format!("partition {n} overlaps what is before it")));
            }
            end = u64::from(entry.start) + u64::from(entry.sectors);
            if end > u64::from(u32::MAX) {
                return Err(TableError(format!("partition {n} ends beyond what the table can say")));
            }
        }
        let signature = &sector[SIGNATURE_AT..SIGNATURE_AT + 4];
        let signature = u32::from_le_bytes([signature[0], signature[1], signature[2], signature[3]]);
        Ok(Table { signature, entries })
    }

    /// The first sector of a disk.
    pub fn encode(&self) -> [u8; 512] {
        let mut sector = [0; 512];
        sector[SIGNATURE_AT..SIGNATURE_AT + 4].copy_from_slice(&self.signature.to_le_bytes());
        for (entry, raw) in self.entries.iter().zip(sector[ENTRIES_AT..].chunks_exact_mut(16)) {
            raw[1..4].copy_from_slice(&CHS);
            raw[4] = entry.kind;
            raw[5..8].copy_from_slice(&CHS);
            raw[8..12].copy_from_slice(&entry.start.to_le_bytes());
            raw[12..16].copy_from_slice(&entry.sectors.to_le_bytes());
        }
        sector[510..].copy_from_slice(&END);
        sector
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table() -> Table {
        let entry = |kind, start, sectors| Entry { kind, start, sectors };
        let entries = [entry(FAT32, 2048, 10), entry(LINUX, 2058, 4), entry(LINUX, 3000, 4), entry(LINUX, 4000, 9)];
        Table { signature: 0x1234_5678, entries }
    }

    #[test]
    fn what_is_written_is_read() {
        let sector = table().encode();
        assert_eq!(Table::parse(&sector).unwrap(), table());
        assert_eq!(table().entries[0].range(), 2048 * 512..2058 * 512);
    }

    #[test]
    fn other_tables_are_refused() {
        let message = |change: &dyn Fn(&mut Table)| {
            let mut table = table();
            change(&mut table);
            Table::parse(&table.encode()).unwrap_err().to_string()
        };
        assert!(message(&|t| t.entries[3].kind = 0).contains("partition 4 is not there"));
        assert!(message(&|t| t.entries[1].sectors = 0).contains("partition 2 is not there"));
        assert!(message(&|t| t.entries[1].start = 2057).contains("partition 2 overlaps"));
        assert!(message(&|t| t.entries[3].sectors = u32::MAX).contains("partition 4 ends beyond"));
        assert!(Table::parse(&[0; 512]).unwrap_err().to_string().contains("55 AA"));
    }

    proptest! {
        #[test]
        fn any_sector_is_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 512), signed: bool) {
            if signed {
                bytes[510..].copy_from_slice(&END);
            }
            let sector = bytes.try_into().unwrap();
            if let Ok(table) = Table::parse(&sector) {
                prop_assert_eq!(Table::parse(&table.encode()).unwrap(), table);
            }
        }
    }
}
