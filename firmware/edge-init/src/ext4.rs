//! What is looked at in an ext4 file system, and its growing.

use anyhow::{Context, ensure};
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// `EXT4_IOC_RESIZE_FS` of the kernel's ext4.h: the number of blocks there shall be.
const RESIZE: Opcode = opcode::write::<u64>(b'f', 16);
/// Of `s_feature_incompat`: the number of blocks has an upper half.
const FEATURE_64BIT: u32 = 0x80;
/// Of `s_state`: the kernel has met errors.
const STATE_ERRORS: u16 = 2;
/// Growing by less than this is not worth it, in bytes.
const LEAST: u64 = 8 << 20;

/// The fields of the superblock that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// Of a block, in bytes.
    pub block: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// The kernel has met errors in it, so that it should be checked.
    pub errors: bool,
}

impl Superblock {
    /// Of the file system on a device.
    pub fn read(device: &Path) -> anyhow::Result<Superblock> {
        let mut bytes = [0; 1024];
        let mut file = File::open(device).with_context(|| format!("cannot open {}", device.display()))?;
        file.seek(SeekFrom::Start(1024))?;
        file.read_exact(&mut bytes).with_context(|| format!("cannot read {}", device.display()))?;
        Superblock::parse(&bytes).with_context(|| format!("{} holds no ext4 file system", device.display()))
    }

    fn parse(bytes: &[u8; 1024]) -> anyhow::Result<Superblock> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        ensure!(u16_at(0x38) == 0xef53, "its superblock is not one");
        let shift = u32_at(0x18);
        ensure!(shift <= 6, "its blocks have an impossible size");
        let high = if u32_at(0x60) & FEATURE_64BIT != 0 { u64::from(u32_at(0x150)) << 32 } else { 0 };
        Ok(Superblock {
            block: 1024 << shift,
            blocks: high | u64::from(u32_at(0x04)),
            errors: u16_at(0x3a) & STATE_ERRORS != 0,
        })
    }

    /// How many blocks there could be on a device of `length` bytes, where it is worth to grow.
    pub fn grown(&self, length: u64) -> Option<u64> {
        let blocks = length / self.block;
        (blocks.saturating_sub(self.blocks).saturating_mul(self.block) >= LEAST).then_some(blocks)
    }
}

/// Grows the file system that is mounted at `folder` to its device's size; to how many bytes, if there was room.
pub fn grow(device: &Path, folder: &Path) -> anyhow::Result<Option<u64>> {
    let superblock = Superblock::read(device)?;
    let length = File::open(device)?.seek(SeekFrom::End(0))?;
    let Some(blocks) = superblock.grown(length) else { return Ok(None) };
    let folder = File::open(folder)?;
    // SAFETY: this ioctl takes a pointer to a 64-bit number and reads it.
    unsafe { ioctl(&folder, Setter::<RESIZE, u64>::new(blocks)) }.context("the kernel does not grow it")?;
    Ok(Some(blocks.saturating_mul(superblock.block)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    proptest! {
        /// A damaged superblock leads to a refusal or to numbers, never to an overflow.
        #[test]
        fn no_superblock_does_harm(mut bytes in prop::collection::vec(any::<u8>(), 1024), length: u64) {
            bytes[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
            let shift = bytes[0x18] % 8;
            bytes[0x18..0x1c].copy_from_slice(&[shift, 0, 0, 0]);
            if let Ok(superblock) = Superblock::parse(bytes.as_slice().try_into().unwrap()) {
                prop_assert!(superblock.grown(length).is_none_or(|blocks| blocks > superblock.blocks));
            }
        }
    }

    #[test]
    fn a_superblock_of_mkfs_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.img");
        File::create(&path).unwrap().set_len(64 << 20).unwrap();
        assert!(format!("{:#}", Superblock::read(&path).unwrap_err()).contains("no ext4"));
        for (block, features) in [(1024, "^64bit"), (4096, "64bit")] {
            let made = Command::new("mkfs.ext4")
                .args(["-q", "-F", "-b", &block.to_string(), "-O", features])
                .arg(&path)
                .output();
            let Ok(made) = made else {
                println!("skipped: there is no mkfs.ext4 here (package e2fsprogs)");
                return;
            };
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            let superblock = Superblock::read(&path).unwrap();
            assert_eq!(superblock, Superblock { block, blocks: (64 << 20) / block, errors: false });
            assert_eq!(superblock.grown(64 << 20), None);
            assert_eq!(superblock.grown((64 << 20) + LEAST - 1), None);
            assert_eq!(superblock.grown(128 << 20), Some((128 << 20) / block));
            // A device that became smaller is not our doing, nor ours to mend.
            assert_eq!(superblock.grown(1 << 20), None);
        }
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let mut bytes = [0; 1024];
        assert!(Superblock::parse(&bytes).is_err());
        bytes[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        bytes[0x3a] = 3;
        assert!(Superblock::parse(&bytes).unwrap().errors);
        bytes[0x18..0x1c].copy_from_slice(&[0xff; 4]);
        assert!(Superblock::parse(&bytes).is_err());
    }
}
