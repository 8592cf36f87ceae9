//! The files of a FAT partition, without mounting it.

use super::FileDigest;
use crate::disk::{Disk, Window};
use edge_package::Digest;
use fatfs::{Dir, FileSystem, FsOptions, ReadWriteSeek};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;

/// Bounds, so that folders which contain themselves end.
const MAX_DEPTH: usize = 16;
/// See [`MAX_DEPTH`].
const MAX_FILES: usize = 10_000;

/// All files of the FAT file system at `range` with their digests, ordered by path.
pub fn files(disk: &dyn Disk, range: Range<u64>) -> io::Result<Vec<FileDigest>> {
    let room = range.end - range.start;
    let stream = Bounded { window: Window::new(disk, range), left: room.saturating_mul(4) };
    let fat = FileSystem::new(stream, FsOptions::new())?;
    let mut listing = Listing { files: Vec::new(), entries: 0, room };
    listing.folder(&fat.root_dir(), "", 0)?;
    listing.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(listing.files)
}

/// The bytes of a file in the root folder, at most `most` of them; `None` where there is no such file.
#[cfg(feature = "read")]
pub fn content(disk: &dyn Disk, range: Range<u64>, name: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
    let stream = Bounded { left: (range.end - range.start).saturating_mul(4), window: Window::new(disk, range) };
    let fat = FileSystem::new(stream, FsOptions::new())?;
    let mut bytes = Vec::new();
    match fat.root_dir().open_file(name) {
        Ok(file) => file.take(most).read_to_end(&mut bytes).map(|_| Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// A stream that ends in an error when more was read than all of the file system several times: chains of clusters that
/// run in a circle end so.
struct Bounded<'a> {
    window: Window<'a>,
    left: u64,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.window.read(buffer)?;
        self.left = self.left.checked_sub(length as u64).ok_or_else(broken)?;
        Ok(length)
    }
}

impl Write for Bounded<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.window.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.window.flush()
    }
}

impl Seek for Bounded<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.window.seek(to)
    }
}

fn broken() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the file system contradicts itself")
}

struct Listing {
    files: Vec<FileDigest>,
    entries: usize,
    /// Bytes that all files together can have.
    room: u64,
}

impl Listing {
    fn folder<T: ReadWriteSeek>(&mut self, folder: &Dir<'_, T>, path: &str, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(broken());
        }
        for entry in folder.iter() {
            let entry = entry?;
            self.entries += 1;
            if self.entries > MAX_FILES {
                return Err(broken());
            }
            let name = entry.file_name();
            if name == "." || name == ".." {
                continue;
            }
            let path = format!("{path}{name}");
            if entry.is_dir() {
                self.folder(&entry.to_dir(), &format!("{path}/"), depth + 1)?;
                continue;
            }
            self.room = self.room.checked_sub(entry.len()).ok_or_else(broken)?;
            let (length, digest) = digest(&mut entry.to_file())?;
            if length != entry.len() {
                return Err(broken());
            }
            self.files.push(FileDigest { path, length, digest });
        }
        Ok(())
    }
}

fn digest(file: &mut dyn Read) -> io::Result<(u64, Digest)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    let mut total = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((total, *hasher.finalize().as_bytes())),
            length => {
                hasher.update(&buffer[..length]);
                total += length as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::FileDisk;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn volume() -> Vec<u8> {
        let mut bytes = vec![0; 200_000];
        let mut cursor = Cursor::new(&mut bytes);
        fatfs::format_volume(&mut cursor, fatfs::FormatVolumeOptions::new()).unwrap();
        let fat = FileSystem::new(&mut cursor, FsOptions::new()).unwrap();
        fat.root_dir().create_dir("a long name of a folder").unwrap();
        for (path, length) in [("CAMERA.TOM", 3), ("a long name of a folder/vmlinuz", 9000), ("empty", 0)] {
            fat.root_dir().create_file(path).unwrap().write_all(&vec![7; length]).unwrap();
        }
        drop(fat);
        bytes
    }

    fn list(bytes: &[u8]) -> io::Result<Vec<FileDigest>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        files(&FileDisk::from_file(file).unwrap(), 0..bytes.len() as u64)
    }

    #[test]
    fn all_files_are_found_in_order() {
        let found = list(&volume()).unwrap();
        let paths: Vec<(&str, u64)> = found.iter().map(|f| (f.path.as_str(), f.length)).collect();
        assert_eq!(paths, [("CAMERA.TOM", 3), ("a long name of a folder/vmlinuz", 9000), ("empty", 0)]);
        assert_eq!(found[1].digest, edge_package::digest(&[7; 9000]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        /// Most of what says anything stands in the first 8 KiB: the boot sector, the tables, the root folder.
        #[test]
        fn any_volume_is_read_or_refused(changes in prop::collection::vec((0usize..8192, any::<u8>()), 1..6), cut: bool) {
            let mut bytes = volume();
            changes.into_iter().for_each(|(at, byte)| bytes[at] = byte);
            if cut {
                bytes.truncate(100_000);
            }
            let _ = list(&bytes);
        }
    }
}
