//! Bytes at offsets that survive a power cut once flushed: a card, its image, a part of it, or one that a test cuts.

use rustix::fs::{Advice, fadvise};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How much is read or written at once, in bytes.
pub(crate) const CHUNK: usize = 1 << 20;

/// A disk. What was written is durable when [`Disk::flush`] returned; before that, any part of it may be, in any order.
pub trait Disk {
    /// Size in bytes.
    fn size(&self) -> u64;

    /// Fills `buffer` from offset `at`, in bytes; an error beyond the end.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()>;

    /// Writes `bytes` at offset `at`, in bytes; an error beyond the end.
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Makes what was written durable. What is read afterwards comes from the medium, where that can be had.
    fn flush(&mut self) -> io::Result<()>;
}

/// A file or a block device.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    size: u64,
}

impl FileDisk {
    /// Opens a file or block device for reading.
    pub fn open(path: &Path) -> io::Result<FileDisk> {
        FileDisk::from_file(File::open(path)?)
    }

    /// Opens a file or block device for reading and writing.
    pub fn open_writable(path: &Path) -> io::Result<FileDisk> {
        FileDisk::from_file(OpenOptions::new().read(true).write(true).open(path)?)
    }

    /// From an open file or block device.
    pub fn from_file(mut file: File) -> io::Result<FileDisk> {
        // A block device's metadata has no length.
        let size = file.seek(SeekFrom::End(0))?;
        Ok(FileDisk { file, size })
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Disk for FileDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }

    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        // A file would grow.
        if at.checked_add(bytes.len() as u64).is_none_or(|end| end > self.size) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a write beyond the end of the disk"));
        }
        self.file.write_all_at(bytes, at)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        // Clean pages are dropped, so that reading back asks the medium; a refusal loses only that.
        let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
        Ok(())
    }
}

/// A part of a disk as a stream that can be read and sought in. Writing is refused.
pub struct Window<'a> {
    disk: &'a dyn Disk,
    range: Range<u64>,
    position: u64,
}

impl<'a> Window<'a> {
    /// The bytes `range` of `disk`.
    pub fn new(disk: &'a dyn Disk, range: Range<u64>) -> Window<'a> {
        Window { disk, range, position: 0 }
    }
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = (self.range.end - self.range.start).saturating_sub(self.position);
        let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if length == 0 {
            // A place far beyond the end, perhaps beyond what there are numbers for.
            return Ok(0);
        }
        self.disk.read_at(&mut buffer[..length], self.range.start + self.position)?;
        self.position += length as u64;
        Ok(length)
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, offset) = match to {
            SeekFrom::Start(position) => (position, 0),
            SeekFrom::Current(offset) => (self.position, offset),
            SeekFrom::End(offset) => (self.range.end - self.range.start, offset),
        };
        let position = base.checked_add_signed(offset);
        self.position = position.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "a place before the start"))?;
        Ok(self.position)
    }
}

/// What reads a file system asks for a stream that it could write to as well.
impl Write for Window<'_> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives the bytes of `range` to `each`, a megabyte at a time.
pub(crate) fn for_each_chunk(
    disk: &dyn Disk,
    range: Range<u64>,
    each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK.min(usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(CHUNK))];
    let mut at = range.start;
    while at < range.end {
        let length = buffer.len().min((range.end - at) as usize);
        disk.read_at(&mut buffer[..length], at)?;
        each(at, &buffer[..length])?;
        at += length as u64;
    }
    Ok(())
}

/// The digest of the bytes of `range`. `progress` is given bytes as they are read.
pub(crate) fn digest_of(
    disk: &dyn Disk,
    range: Range<u64>,
    progress: &mut dyn FnMut(u64),
) -> io::Result<edge_package::Digest> {
    let mut hasher = blake3::Hasher::new();
    for_each_chunk(disk, range, &mut |_, bytes| {
        hasher.update(bytes);
        progress(bytes.len() as u64);
        Ok(())
    })?;
    Ok(*hasher.finalize().as_bytes())
}

/// Whether all bytes are zero. In blocks, which a compiler makes wide instructions of: slots are mostly zero.
pub(crate) fn all_zero(bytes: &[u8]) -> bool {
    bytes.chunks(256).all(|block| block.iter().fold(0, |any, byte| any | byte) == 0)
}

/// Whether the bytes of `range` are all zero.
pub(crate) fn is_zero(disk: &dyn Disk, range: Range<u64>) -> io::Result<bool> {
    let mut zero = true;
    for_each_chunk(disk, range, &mut |_, bytes| {
        zero &= all_zero(bytes);
        Ok(())
    })?;
    Ok(zero)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_disk_that_does_not_grow() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, [7; 1000]).unwrap();
        let mut disk = FileDisk::open_writable(&path).unwrap();
        assert_eq!(disk.size(), 1000);
        disk.write_at(&[1, 2, 3], 997).unwrap();
        assert!(disk.write_at(&[1, 2, 3], 998).is_err() && disk.write_at(&[1], u64::MAX).is_err());
        disk.flush().unwrap();
        let mut end = [0; 4];
        disk.read_at(&mut end, 996).unwrap();
        assert_eq!(end, [7, 1, 2, 3]);
        assert!(disk.read_at(&mut end, 997).is_err());
        assert!(FileDisk::open(&path).unwrap().write_at(&[1], 0).is_err());
        let mut window = Window::new(&disk, 990..999);
        window.seek(SeekFrom::End(-3)).unwrap();
        let mut rest = Vec::new();
        window.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, [7, 1, 2]);
        window.seek(SeekFrom::Start(u64::MAX)).unwrap();
        assert_eq!(window.read(&mut [0; 9]).unwrap(), 0);
        assert!(window.write(&[1]).is_err() && window.seek(SeekFrom::End(-10)).is_err());
    }
}
