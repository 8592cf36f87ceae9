//! Files with holes: what is nowhere stored reads as zeros, and is neither copied nor written.

use crate::progress;
use anyhow::{Context, Result};
use indicatif::ProgressBar;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How much is read or written at a time, in bytes.
pub const CHUNK: u64 = 4 << 20;
/// What is looked at for being zero, in bytes: a block of every file system in use.
const BLOCK: usize = 4096;

/// The stored ranges of a file's first `length` bytes, in order; all of it where the file system knows no holes.
pub fn stored(file: &File, length: u64) -> io::Result<Vec<Range<u64>>> {
    let mut ranges: Vec<Range<u64>> = vec![];
    let mut at = 0;
    while at < length {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::NOTSUP) => return Ok(std::iter::once(0..length).collect()),
            Err(e) => return Err(e.into()),
        };
        let end = seek(file, SeekFrom::Hole(start))?.min(length);
        if start < end {
            ranges.push(start..end);
        }
        at = end.max(start + 1);
    }
    Ok(ranges)
}

/// What lies between the stored ranges.
pub fn holes(stored: &[Range<u64>], length: u64) -> Vec<Range<u64>> {
    let starts = std::iter::once(0).chain(stored.iter().map(|r| r.end));
    let ends = stored.iter().map(|r| r.start).chain([length]);
    starts.zip(ends).filter(|(start, end)| start < end).map(|(start, end)| start..end).collect()
}

/// A range in pieces of [`CHUNK`] bytes, which begin at multiples of it.
pub fn chunks(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let next = ((at / CHUNK + 1) * CHUNK).min(range.end);
        let chunk = (at < range.end).then_some(at..next);
        at = next;
        chunk
    })
}

/// Copies the first `length` bytes of `from` to `to` at `offset`, where zeros are expected to be: what is zero is left out.
pub fn copy(from: &File, to: &File, length: u64, offset: u64) -> io::Result<()> {
    copy_part(from, 0..length, to, offset)
}

/// The same with a part of `from`.
pub fn copy_part(from: &File, part: Range<u64>, to: &File, offset: u64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK as usize];
    let within = |range: Range<u64>| range.start.max(part.start)..range.end.min(part.end).max(part.start);
    for chunk in stored(from, part.end)?.into_iter().map(within).flat_map(chunks) {
        let bytes = &mut buffer[..(chunk.end - chunk.start) as usize];
        from.read_exact_at(bytes, chunk.start)?;
        write_what_is_not_zero(bytes, to, offset + chunk.start - part.start)?;
    }
    Ok(())
}

/// A copy of a file with its holes, shared with it where the file system can.
pub fn copy_file(from: &File, to: &File, what: &Path) -> Result<()> {
    let length = from.metadata()?.len();
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    to.set_len(length)?;
    let bar = progress::bytes(length, "copying");
    let ranges = stored(from, length)?;
    let mut buffer = vec![0; CHUNK as usize];
    for chunk in ranges.into_iter().flat_map(chunks) {
        let bytes = &mut buffer[..(chunk.end - chunk.start) as usize];
        from.read_exact_at(bytes, chunk.start).with_context(|| format!("cannot read {}", what.display()))?;
        write_what_is_not_zero(bytes, to, chunk.start).with_context(|| format!("cannot copy {}", what.display()))?;
        bar.set_position(chunk.end);
    }
    bar.finish_and_clear();
    Ok(())
}

fn write_what_is_not_zero(bytes: &[u8], to: &File, offset: u64) -> io::Result<()> {
    let mut at = 0;
    while at < bytes.len() {
        let run =
            |zero: bool| bytes[at..].chunks(BLOCK).take_while(|block| is_zero(block) == zero).map(<[u8]>::len).sum();
        let data: usize = run(false);
        to.write_all_at(&bytes[at..at + data], offset + at as u64)?;
        at += data;
        at += bytes[at..].chunks(BLOCK).take_while(|block| is_zero(block)).map(<[u8]>::len).sum::<usize>();
    }
    Ok(())
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Makes ranges zero that nothing is known of.
///
/// A device that has a command for it is given that command, which writes nothing. Otherwise what is there is read, and
/// only what is not zero is written: reading a card is faster than writing it, and wears nothing.
pub struct Zeroing {
    by_command: bool,
}

impl Zeroing {
    /// Nothing is known of the device yet.
    pub fn new() -> Zeroing {
        Zeroing { by_command: true }
    }

    /// Makes `range` zero.
    pub fn zero(&mut self, file: &File, range: Range<u64>, bar: &ProgressBar) -> io::Result<()> {
        let mut buffer = vec![];
        for chunk in chunks(range) {
            let length = chunk.end - chunk.start;
            if self.by_command {
                match fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, chunk.start, length) {
                    Ok(()) => {
                        bar.inc(length);
                        continue;
                    }
                    Err(Errno::NOTSUP | Errno::INVAL | Errno::NOSYS | Errno::PERM) => self.by_command = false,
                    Err(e) => return Err(e.into()),
                }
            }
            buffer.resize(length as usize, 0);
            file.read_exact_at(&mut buffer, chunk.start)?;
            if !is_zero(&buffer) {
                for (i, block) in buffer.chunks(1 << 16).enumerate().filter(|(_, block)| !is_zero(block)) {
                    file.write_all_at(&vec![0; block.len()], chunk.start + (i << 16) as u64)?;
                }
            }
            bar.inc(length);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_stay_holes_and_zeros_become_some() {
        use std::os::unix::fs::MetadataExt;
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let length = 3 * CHUNK + 5;
        from.set_len(length).unwrap();
        from.write_all_at(b"begin", 0).unwrap();
        from.write_all_at(&vec![0; 1 << 20], CHUNK).unwrap();
        from.write_all_at(b"here", CHUNK + 12345).unwrap();
        from.write_all_at(b"end!!", 3 * CHUNK).unwrap();
        to.set_len(length).unwrap();
        copy(&from, &to, length, 0).unwrap();
        let (mut a, mut b) = (vec![0; length as usize], vec![0; length as usize]);
        from.read_exact_at(&mut a, 0).unwrap();
        to.read_exact_at(&mut b, 0).unwrap();
        assert!(a == b);
        assert!(to.metadata().unwrap().blocks() <= from.metadata().unwrap().blocks());
        let ranges = stored(&from, length).unwrap();
        let total: u64 = ranges.iter().chain(&holes(&ranges, length)).map(|r| r.end - r.start).sum();
        assert_eq!(total, length);
    }

    #[test]
    fn what_is_no_chunk_is_cut_at_their_borders() {
        let pieces: Vec<_> = chunks(CHUNK - 1..2 * CHUNK + 1).collect();
        assert_eq!(pieces, [CHUNK - 1..CHUNK, CHUNK..2 * CHUNK, 2 * CHUNK..2 * CHUNK + 1]);
        assert_eq!(chunks(5..5).count(), 0);
        assert_eq!(holes(&[2..4, 4..6], 9), [0..2, 6..9]);
    }

    #[test]
    fn zeroing_works_by_command_and_by_writing() {
        for by_command in [true, false] {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&vec![7; 2 * CHUNK as usize], 0).unwrap();
            Zeroing { by_command }.zero(&file, 4096..CHUNK + 4096, &ProgressBar::hidden()).unwrap();
            let mut bytes = vec![0; 2 * CHUNK as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            assert!(is_zero(&bytes[4096..CHUNK as usize + 4096]));
            assert!(bytes[..4096].iter().chain(&bytes[CHUNK as usize + 4096..]).all(|b| *b == 7));
        }
    }
}
