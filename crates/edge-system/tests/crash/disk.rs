//! A disk whose power goes.

use crate::random::{Loss, Random};
use edge_system::SECTOR;
use edge_system::disk::Disk;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

const PAGE: u64 = 4096;

/// Content by pages; what is not there is zero.
#[derive(Clone, Default)]
struct Pages(BTreeMap<u64, Rc<[u8; PAGE as usize]>>);

impl Pages {
    fn read(&self, buffer: &mut [u8], at: u64) {
        for_each_piece(at, buffer.len(), PAGE, |page, inside, from, length| {
            let piece = &mut buffer[from..from + length];
            match self.0.get(&page) {
                Some(bytes) => piece.copy_from_slice(&bytes[inside..inside + length]),
                None => piece.fill(0),
            }
        });
    }

    fn write(&mut self, bytes: &[u8], at: u64) {
        for_each_piece(at, bytes.len(), PAGE, |page, inside, from, length| {
            let old = self.0.entry(page).or_insert_with(|| Rc::new([0; PAGE as usize]));
            Rc::make_mut(old)[inside..inside + length].copy_from_slice(&bytes[from..from + length]);
        });
    }
}

/// Cuts `length` bytes from `at` on into pieces of units: (number of the unit, where in it, where in the bytes, length).
fn for_each_piece(at: u64, length: usize, unit: u64, mut each: impl FnMut(u64, usize, usize, usize)) {
    let mut done = 0;
    while done < length {
        let place = at + done as u64;
        let inside = (place % unit) as usize;
        let piece = (unit as usize - inside).min(length - done);
        each(place / unit, inside, done, piece);
        done += piece;
    }
}

/// A disk with a cache: written sectors are on the medium once flushed, and before that perhaps.
#[derive(Clone)]
pub struct SimDisk {
    size: u64,
    medium: Pages,
    /// What reading gives: the medium and all that was written.
    seen: Pages,
    /// Sectors written and not flushed, in order, whole as they were then.
    unflushed: Vec<(u64, [u8; SECTOR as usize])>,
    /// Writes and flushes so far.
    pub operations: usize,
    /// Flushes so far.
    pub flushes: usize,
    /// The operation at which the power goes.
    cut: Option<usize>,
    dead: bool,
    /// The flush that does nothing: what a test for the tests breaks.
    pub ignored_flush: Option<usize>,
}

impl SimDisk {
    pub fn new(size: u64) -> SimDisk {
        SimDisk {
            size,
            medium: Pages::default(),
            seen: Pages::default(),
            unflushed: Vec::new(),
            operations: 0,
            flushes: 0,
            cut: None,
            dead: false,
            ignored_flush: None,
        }
    }

    /// The power goes at this write or flush, counted from now; the first one is 0.
    pub fn cut_at(&mut self, operation: usize) {
        self.operations = 0;
        self.cut = Some(operation);
    }

    /// The disk after the power went and came back: what was not flushed is on the medium or not.
    pub fn after_the_cut(&self, seed: u64) -> SimDisk {
        let mut random = Random::new(seed);
        let mut medium = self.medium.clone();
        let mut writes: Vec<&(u64, [u8; SECTOR as usize])> = self.unflushed.iter().collect();
        let loss = Loss::of(seed);
        let late = random.below(writes.len() + 1);
        match loss {
            Loss::All => writes.clear(),
            Loss::Nothing => {}
            Loss::Some => writes.retain(|_| random.coin()),
            Loss::Early => drop(writes.drain(..late)),
            Loss::Torn => {
                writes.retain(|_| random.below(3) > 0);
                random.shuffle(&mut writes);
            }
        }
        for (sector, bytes) in writes {
            let mut now = [0; SECTOR as usize];
            medium.read(&mut now, sector * SECTOR);
            match random.below(4) {
                // Half of a sector, from its start or its end, or any eight bytes of it.
                0 if loss == Loss::Torn => {
                    let at = random.below(now.len());
                    now[..at].copy_from_slice(&bytes[..at]);
                }
                1 if loss == Loss::Torn => {
                    let at = random.below(now.len());
                    now[at..].copy_from_slice(&bytes[at..]);
                }
                2 if loss == Loss::Torn => {
                    for (to, from) in now.chunks_exact_mut(8).zip(bytes.chunks_exact(8)) {
                        if random.coin() {
                            to.copy_from_slice(from);
                        }
                    }
                }
                _ => now = *bytes,
            }
            medium.write(&now, sector * SECTOR);
        }
        SimDisk { medium: medium.clone(), seen: medium, ..SimDisk::new(self.size) }
    }

    /// Whether the power is there for another operation.
    fn alive(&mut self) -> io::Result<bool> {
        if self.dead {
            return Err(io::Error::other("there is no power"));
        }
        self.dead = self.cut == Some(self.operations);
        self.operations += 1;
        Ok(!self.dead)
    }
}

impl Disk for SimDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        if self.dead || at + buffer.len() as u64 > self.size {
            return Err(io::Error::other("there is no power, or no such place"));
        }
        self.seen.read(buffer, at);
        Ok(())
    }

    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        let alive = self.alive()?;
        assert!(at + bytes.len() as u64 <= self.size, "a write beyond the end");
        // Even a write at which the power goes may have reached the medium, or a part of it.
        self.seen.write(bytes, at);
        for_each_piece(at, bytes.len(), SECTOR, |sector, _, _, _| {
            let mut whole = [0; SECTOR as usize];
            self.seen.read(&mut whole, sector * SECTOR);
            self.unflushed.push((sector, whole));
        });
        if alive { Ok(()) } else { Err(io::Error::other("the power went in a write")) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.alive()? {
            return Err(io::Error::other("the power went in a flush"));
        }
        self.flushes += 1;
        if self.ignored_flush != Some(self.flushes - 1) {
            self.medium = self.seen.clone();
            self.unflushed.clear();
        }
        Ok(())
    }
}

#[test]
fn what_is_flushed_stays_and_what_is_not_may_go() {
    let mut disk = SimDisk::new(8192);
    disk.write_at(&[1; 700], 100).unwrap();
    disk.flush().unwrap();
    disk.write_at(&[2; 2048], 0).unwrap();
    let sectors = |seed: u64| {
        let after = disk.after_the_cut(seed);
        let mut bytes = [0; 2048];
        after.read_at(&mut bytes, 0).unwrap();
        bytes
    };
    let all: std::collections::BTreeSet<[u8; 2048]> = (0..200).map(sectors).collect();
    assert!(all.len() > 40, "{} different outcomes", all.len());
    assert!(all.contains(&[2; 2048]));
    assert!(all.iter().all(|bytes| bytes[100..800].iter().all(|b| *b == 1 || *b == 2)));
    assert!(all.iter().any(|bytes| bytes[..512].contains(&1) && bytes[..512].contains(&2)), "none is torn in a sector");

    disk.cut_at(1);
    disk.write_at(&[3], 0).unwrap();
    assert!(disk.flush().is_err() && disk.flush().is_err() && disk.read_at(&mut [0], 0).is_err());
}
