//! What a flashed system is, for the host that makes and updates cards, for the init that starts them, and for the
//! runtime: boards as data, the layout of the disk, the boot state, system bundles, the signed list of digests, the
//! slots of packages, and the one order in which an update writes.
//!
//! # The disk
//!
//! A table of four primary partitions, 512-byte sectors. Every byte that nothing is said of is zero.
//!
//! | offset | what |
//! |---|---|
//! | 0 | the partition table ([`table`]) |
//! | 1 MiB | the signed list of digests ([`seal`]), up to 1 MiB |
//! | 4 MiB | boot state, first copy ([`state`]), 512 bytes |
//! | 8 MiB | boot state, second copy |
//! | 16 MiB | partition 1: FAT32, kernel, initramfs, settings |
//! | … | partition 2: system slot A ([`system`]) |
//! | … | partition 3: system slot B |
//! | … | partition 4: ext4, packages and log; the only one that grows |
//!
//! Nothing here names a model's arithmetic or a camera: the crate is small enough for an init.

pub mod board;
pub mod boot;
pub mod check;
pub mod control;
pub mod disk;
#[cfg(feature = "read")]
pub mod flashed;
pub mod folder;
pub mod layout;
pub mod seal;
pub mod size;
pub mod slot;
pub mod state;
pub mod system;
pub mod table;
pub mod update;

/// A mebibyte in bytes.
pub const MIB: u64 = 1 << 20;
/// A sector in bytes.
pub const SECTOR: u64 = 512;
