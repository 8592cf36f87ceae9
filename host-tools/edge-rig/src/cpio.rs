//! A writer of initramfs archives ("newc" cpio), the format the kernel unpacks at boot.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const EXECUTABLE: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive being written. Parent directories are added by themselves.
pub struct Archive<W> {
    out: W,
    inode: u32,
    made: BTreeSet<String>,
}

/// The header's fields that differ between our entries; owner and times are always 0.
struct Entry<'a> {
    path: &'a str,
    mode: u32,
    size: u32,
    device: (u32, u32),
}

impl<W: Write> Archive<W> {
    /// Begins an archive in `out`.
    pub fn new(out: W) -> Self {
        Self { out, inode: 0, made: BTreeSet::new() }
    }

    /// Adds a regular file from memory.
    pub fn bytes(&mut self, path: &str, data: &[u8], executable: bool) -> Result<()> {
        self.stream(path, data, data.len() as u64, executable)
    }

    /// Adds a regular file of this machine. A path that is already in the archive is left as it is.
    pub fn file(&mut self, path: &str, from: &Path, executable: bool) -> Result<()> {
        let context = || format!("reading {}", from.display());
        let file = File::open(from).with_context(context)?;
        let metadata = file.metadata().with_context(context)?;
        ensure!(metadata.is_file(), "{} is not a regular file", from.display());
        self.stream(path, file, metadata.len(), executable).with_context(context)
    }

    /// Adds an empty directory.
    pub fn directory(&mut self, path: &str) -> Result<()> {
        self.parents(&format!("{}/", path.trim_matches('/')))
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) -> Result<()> {
        let path = path.trim_start_matches('/');
        self.parents(path)?;
        self.header(&Entry { path, mode: CHARACTER_DEVICE, size: 0, device: (major, minor) })
    }

    /// Ends the archive and hands back what it was written to.
    pub fn finish(mut self) -> Result<W> {
        self.header(&Entry { path: "TRAILER!!!", mode: 0, size: 0, device: (0, 0) })?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn stream(&mut self, path: &str, mut data: impl io::Read, size: u64, executable: bool) -> Result<()> {
        let path = path.trim_start_matches('/');
        self.parents(path)?;
        if !self.made.insert(path.to_owned()) {
            return Ok(());
        }
        let size = u32::try_from(size).context("a file of the initramfs must be smaller than 4 GiB")?;
        let mode = if executable { EXECUTABLE } else { FILE };
        self.header(&Entry { path, mode, size, device: (0, 0) })?;
        // The header is written already: a file that grew or shrank meanwhile would shift everything after it.
        let copied = io::copy(&mut io::Read::take(&mut data, u64::from(size)), &mut self.out)?;
        ensure!(copied == u64::from(size), "/{path} became shorter while it was read");
        self.pad(size as usize)
    }

    fn parents(&mut self, path: &str) -> Result<()> {
        for (end, _) in path.match_indices('/') {
            let parent = &path[..end];
            if self.made.insert(parent.to_owned()) {
                self.header(&Entry { path: parent, mode: DIRECTORY, size: 0, device: (0, 0) })?;
            }
        }
        Ok(())
    }

    fn header(&mut self, entry: &Entry) -> Result<()> {
        self.inode += 1;
        let name = entry.path.len() + 1;
        let fields = [
            self.inode,
            entry.mode,
            0, // owner
            0, // group
            1, // links
            0, // time
            entry.size,
            0, // device the archive was made on
            0,
            entry.device.0,
            entry.device.1,
            u32::try_from(name).context("a path of the initramfs is too long")?,
            0, // checksum, unused in this format
        ];
        self.out.write_all(b"070701")?;
        for field in fields {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(entry.path.as_bytes())?;
        self.out.write_all(&[0])?;
        // The header has 110 bytes; header and name together are padded.
        self.pad(110 + name)
    }

    fn pad(&mut self, length: usize) -> Result<()> {
        self.out.write_all(&[0; 3][..length.next_multiple_of(4) - length])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_parents_come_first() {
        let mut archive = Archive::new(Vec::new());
        archive.bytes("/a/b/c", b"hello", true).unwrap();
        archive.bytes("/a/b/c", b"ignored", true).unwrap();
        archive.bytes("a/d", b"", false).unwrap();
        let bytes = archive.finish().unwrap();

        let mut names = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701", "entry at {at}");
            let field = |index: usize| {
                let start = at + 6 + index * 8;
                usize::from_str_radix(std::str::from_utf8(&bytes[start..start + 8]).unwrap(), 16).unwrap()
            };
            let (mode, size, name) = (field(1), field(6), field(11));
            let name_text = std::str::from_utf8(&bytes[at + 110..at + 110 + name - 1]).unwrap();
            let data = (at + 110 + name).next_multiple_of(4);
            if name_text == "a/b/c" {
                assert_eq!((&bytes[data..data + size], mode), (&b"hello"[..], 0o100_755));
            }
            names.push(name_text.to_owned());
            at = (data + size).next_multiple_of(4);
            if name_text == "TRAILER!!!" {
                break;
            }
        }
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/d", "TRAILER!!!"]);
        assert_eq!(at, bytes.len());
    }
}
