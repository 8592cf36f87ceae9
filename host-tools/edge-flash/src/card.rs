//! A card that is written: opened for nobody else, and read back as it lies on it.

use crate::machine::{self, Disk, Machine};
use crate::sparse::{self, CHUNK, Zeroing};
use anyhow::{Context, Result, bail};
use edge_system::flashed::UNFINISHED;
use indicatif::ProgressBar;
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of the first sector.
pub const SECTOR: usize = 512;
/// What a device that is read past the page cache wants buffers and offsets to be multiples of.
const ALIGN: usize = 4096;

/// Why a disk may not be written to, if so. `confirmed` is the serial number or size given for one that is not removable.
pub fn refusal(disk: &Disk, confirmed: Option<&str>) -> Option<String> {
    let path = format!("/dev/{}", disk.name);
    let uses = |uses: Vec<&machine::Use>| uses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let system: Vec<_> = disk.uses.iter().filter(|u| u.is_system()).collect();
    if !system.is_empty() {
        return Some(format!("{path} holds the running system ({}); it is never written to", uses(system)));
    }
    if !disk.uses.is_empty() {
        let all = uses(disk.uses.iter().collect());
        return Some(format!("{path} is in use ({all}); unmount it first, for example with `umount {path}*`"));
    }
    if disk.size == 0 {
        return Some(format!("there is no card in {path}"));
    }
    if disk.read_only {
        return Some(format!("{path} is write-protected; move the switch on the card's side"));
    }
    let names = [disk.serial.clone(), Some(disk.size.to_string())];
    let named = confirmed.is_some_and(|text| names.iter().flatten().any(|name| name == text));
    if !disk.removable && !named {
        let serial = disk.serial.as_deref().map_or(String::new(), |serial| format!("{serial} (its serial number) or "));
        return Some(format!(
            "{path} ({}, {}) is no card and no USB disk; `edge-flash list` shows those. If it is meant all the same, say so with --force-disk {serial}{} (its size in bytes)",
            if disk.model.is_empty() { "no model told" } else { &disk.model },
            machine::size(disk.size),
            disk.size
        ));
    }
    None
}

/// A card, or anything else that is written as one.
pub struct Card {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Card {
    /// Opens a whole disk of this machine that may be written to; all refusals come before the first write.
    pub fn open(path: &Path, confirmed: Option<&str>) -> Result<Card> {
        let disk = Machine::at(Path::new("/"))?.disk_of(path)?;
        if let Some(why) = refusal(&disk, confirmed) {
            bail!(why);
        }
        let file = exclusively(path)?;
        let length = length(&file).with_context(|| format!("cannot tell the size of {}", path.display()))?;
        Ok(Card { path: path.into(), file, length })
    }

    /// Its size in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Writes the first `length` bytes of `image`, whose first sector is given as it shall become. Whenever it is
    /// interrupted, the card's first sector says so.
    pub fn write(
        &self,
        image: &File,
        length: u64,
        first: &[u8; SECTOR],
        bar: impl Fn(u64, &str) -> ProgressBar,
    ) -> Result<()> {
        let stored = sparse::stored(image, length).context("cannot read the image")?;
        self.write_all(image, length, &stored, &bar(length, "writing"))?;
        self.verify(image, length, &bar(length, "verifying"))?;
        let finish = || {
            self.file.write_all_at(first, 0)?;
            self.file.sync_all()
        };
        self.told(finish())?;
        let mut back = [0; SECTOR];
        let reader = self.reader()?;
        let mut buffer = Aligned::new(ALIGN);
        self.told(reader.read_exact_at(buffer.first(ALIGN), 0))?;
        back.copy_from_slice(&buffer.first(ALIGN)[..SECTOR]);
        if back != *first {
            bail!("{}: the first sector does not read back as written; {BAD}", self.path.display());
        }
        // The kernel looks at the new partitions; where it will not, it does when the card is put in the next time.
        let _ = reread_partitions(&self.file);
        Ok(())
    }

    fn write_all(&self, image: &File, length: u64, stored: &[Range<u64>], bar: &ProgressBar) -> Result<()> {
        let mut marker = [0; SECTOR];
        marker[..UNFINISHED.len()].copy_from_slice(UNFINISHED);
        self.told(self.file.write_all_at(&marker, 0).and_then(|()| self.file.sync_all()))?;
        let mut zeroing = Zeroing::new();
        // What another partition table may have left at the end of the card.
        let tail = self.length.saturating_sub(1 << 20).max(length)..self.length;
        self.told(zeroing.zero(&self.file, tail, &ProgressBar::hidden()))?;
        for hole in sparse::holes(stored, length) {
            let behind = hole.start.max(SECTOR as u64)..hole.end.max(SECTOR as u64);
            self.told(zeroing.zero(&self.file, behind, bar))?;
        }
        let mut buffer = vec![0; CHUNK as usize];
        for chunk in stored.iter().cloned().flat_map(sparse::chunks) {
            let bytes = &mut buffer[..(chunk.end - chunk.start) as usize];
            image.read_exact_at(bytes, chunk.start).context("cannot read the image")?;
            let skip = (SECTOR as u64).saturating_sub(chunk.start).min(bytes.len() as u64) as usize;
            self.told(self.file.write_all_at(&bytes[skip..], chunk.start + skip as u64))?;
            // What is shown as written shall be on the card, not in memory.
            self.told(self.file.sync_data())?;
            bar.inc(bytes.len() as u64);
        }
        self.told(self.file.sync_all())?;
        bar.finish_and_clear();
        Ok(())
    }

    /// Reads everything behind the first sector back from the card itself and compares.
    fn verify(&self, image: &File, length: u64, bar: &ProgressBar) -> Result<()> {
        let reader = self.reader()?;
        let mut buffer = Aligned::new(CHUNK as usize);
        let mut expected = vec![0; CHUNK as usize];
        for chunk in sparse::chunks(0..length) {
            let size = (chunk.end - chunk.start) as usize;
            // A device's size is a multiple of its sectors, an image's need not be.
            let whole = size.next_multiple_of(ALIGN).min((self.length - chunk.start) as usize);
            self.told(reader.read_exact_at(buffer.first(whole), chunk.start))?;
            let expected = &mut expected[..size];
            image.read_exact_at(expected, chunk.start).context("cannot read the image")?;
            let skip = if chunk.start == 0 { SECTOR } else { 0 };
            let found = &buffer.first(whole)[..size];
            if found[skip..] != expected[skip..] {
                let at = found.iter().zip(expected.iter()).skip(skip).position(|(a, b)| a != b).unwrap_or_default();
                let at = chunk.start + (skip + at) as u64;
                bail!("{}: byte {at} does not read back as written; {BAD}", self.path.display());
            }
            bar.inc(size as u64);
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// The same device, read past what the kernel remembers of it.
    fn reader(&self) -> Result<File> {
        let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
        match OpenOptions::new().read(true).custom_flags(direct).open(&self.path) {
            Ok(file) => Ok(file),
            // Not every file system can; then the kernel is asked to forget.
            Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                let file = self.told(File::open(&self.path))?;
                self.told(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).map_err(Into::into))?;
                Ok(file)
            }
            Err(e) => self.told(Err(e)),
        }
    }

    /// What went wrong with the card, for people.
    fn told<T>(&self, result: io::Result<T>) -> Result<T> {
        result.map_err(|e| anyhow::anyhow!("{}", interrupted(&self.path, &e)))
    }
}

/// Ends the sentence about a card that lies.
const BAD: &str = "the card is worn out or smaller than it says, use another one";

/// Opens a device so that nothing can mount it or write to it meanwhile.
pub fn exclusively(path: &Path) -> Result<File> {
    let flags = rustix::fs::OFlags::EXCL.bits() as i32;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    file.map_err(|e| anyhow::anyhow!("{}", opening(path, &e)))
}

/// Why a device cannot be opened for writing.
fn opening(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match Errno::from_io_error(error) {
        Some(Errno::BUSY) => {
            format!("{path} is in use by the system or another program; unmount it or end that program")
        }
        Some(Errno::ACCESS | Errno::PERM) => {
            format!("{path} may not be written to by this user; run the command with sudo")
        }
        Some(Errno::ROFS) => format!("{path} is write-protected; move the switch on the card's side"),
        Some(Errno::NOMEDIUM | Errno::NXIO) => format!("there is no card in {path}"),
        _ => format!("cannot open {path}: {error}"),
    }
}

/// Why writing or reading stopped in the middle.
fn interrupted(path: &Path, error: &io::Error) -> String {
    let unusable = "the card is not usable yet: write it again from the beginning";
    let shown = path.display();
    let gone = matches!(Errno::from_io_error(error), Some(Errno::NODEV | Errno::NXIO | Errno::NOMEDIUM));
    if gone || !path.exists() || length_of(path) == Some(0) {
        return format!("{shown} was unplugged; {unusable}");
    }
    match Errno::from_io_error(error) {
        Some(Errno::IO) => format!("{shown} does not answer, it may be broken or was unplugged ({error}); {unusable}"),
        Some(Errno::NOSPC) => format!("{shown} is smaller than it says ({error}); {unusable}"),
        _ => format!("{shown}: {error}; {unusable}"),
    }
}

/// The length of a file or of a device, in bytes.
pub fn length(file: &File) -> io::Result<u64> {
    use std::io::{Seek, SeekFrom};
    let mut file = file;
    file.seek(SeekFrom::End(0))
}

fn length_of(path: &Path) -> Option<u64> {
    File::open(path).and_then(|file| length(&file)).ok()
}

/// Asks the kernel to look at the partition table again.
fn reread_partitions(file: &File) -> io::Result<()> {
    /// `BLKRRPART` of linux/fs.h.
    const REREAD: rustix::ioctl::Opcode = rustix::ioctl::opcode::none(0x12, 95);
    // SAFETY: the request takes no argument, and a file that is no block device refuses it.
    unsafe { rustix::ioctl::ioctl(file, rustix::ioctl::NoArg::<REREAD>::new()) }.map_err(Into::into)
}

/// A buffer that direct reads accept.
struct Aligned {
    bytes: Vec<u8>,
    from: usize,
}

impl Aligned {
    fn new(length: usize) -> Aligned {
        let bytes = vec![0; length + ALIGN];
        let from = bytes.as_ptr().align_offset(ALIGN);
        Aligned { bytes, from }
    }

    fn first(&mut self, length: usize) -> &mut [u8] {
        &mut self.bytes[self.from..self.from + length]
    }
}

#[cfg(test)]
mod tests;
