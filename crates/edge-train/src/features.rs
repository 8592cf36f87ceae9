//! Feature vectors: computed once, kept in a file.
//!
//! The cache of a base is one file, to which vectors are appended as they are computed; a run that is interrupted or finds the disk
//! full keeps what it has. The file's name and head hold the key: base, cut, preprocessing, size. A record is the photo's (and
//! view's) digest, the vector, and a checksum; reading stops at the first record that is not whole, and what follows is written anew.

use crate::TrainError;
use edge_engine::Probe;
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

/// What a vector is of: the digest of the photo and of what was done to it.
pub type Id = [u8; 32];

const MAGIC: &[u8; 8] = b"EPFEAT01";
/// Magic, key, values of a vector.
const HEAD: u64 = 8 + 32 + 4;
const CHECK: usize = 8;

/// A file of vectors.
pub struct Cache {
    path: PathBuf,
    file: File,
    width: usize,
    /// Where the next record goes.
    end: u64,
    vectors: HashMap<Id, Vec<f32>>,
}

impl Cache {
    /// Opens or makes the cache of `key` in `folder`, and reads the vectors of `wanted`, each of `width` values.
    pub fn open(folder: &Path, key: &[u8; 32], width: usize, wanted: &HashSet<Id>) -> Result<Cache, TrainError> {
        let name: String = key[..16].iter().map(|b| format!("{b:02x}")).collect();
        let path = folder.join(format!("{name}.features"));
        let fail = |why: String| TrainError::Cache { path: path.clone(), why };
        let io = |e: std::io::Error| fail(format!("{e}; another folder can be named with --cache"));
        std::fs::create_dir_all(folder).map_err(io)?;
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let mut file = options.open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(fail("another training uses it; wait for it, or name another folder with --cache".into()));
            }
            Err(std::fs::TryLockError::Error(e)) => return Err(io(e)),
        }
        let mut head = MAGIC.to_vec();
        head.extend(key);
        head.extend((width as u32).to_le_bytes());
        let mut cache = Cache { path: path.clone(), file, width, end: HEAD, vectors: HashMap::new() };
        let mut found = vec![0; HEAD as usize];
        let whole = read_whole(&mut cache.file, &mut found).map_err(io)?;
        if !whole || found != head {
            // Nothing that could be used.
            file = cache.file;
            file.set_len(0)
                .and_then(|()| file.seek(SeekFrom::Start(0)))
                .and_then(|_| file.write_all(&head))
                .map_err(io)?;
            return Ok(Cache { path, file, width, end: HEAD, vectors: HashMap::new() });
        }
        let mut reader = BufReader::with_capacity(1 << 20, &cache.file);
        let mut record = vec![0; 32 + 4 * width + CHECK];
        while read_whole(&mut reader, &mut record).map_err(io)? {
            let (id, rest) = record.split_at(32);
            let (values, check) = rest.split_at(4 * width);
            if checksum(id, values) != check {
                break;
            }
            cache.end += record.len() as u64;
            let Ok(id) = Id::try_from(id) else { break };
            if wanted.contains(&id) {
                cache.vectors.insert(id, values.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect());
            }
        }
        // What is not whole is not built upon.
        cache.file.set_len(cache.end).map_err(io)?;
        Ok(cache)
    }

    /// The vector of a photo.
    pub fn get(&self, id: &Id) -> Option<&[f32]> {
        self.vectors.get(id).map(Vec::as_slice)
    }

    fn append(&mut self, id: Id, vector: &[f32]) -> Result<(), TrainError> {
        let mut record = id.to_vec();
        record.extend(vector.iter().flat_map(|v| v.to_le_bytes()));
        let check = checksum(&id, &record[32..]);
        record.extend(check);
        let written = self.file.seek(SeekFrom::Start(self.end)).and_then(|_| self.file.write_all(&record));
        if let Err(e) = written {
            // Half a record would end the file for ever.
            let _ = self.file.set_len(self.end);
            let why = match e.kind() {
                ErrorKind::StorageFull => format!(
                    "the disk is full ({e}); what was computed so far is kept. Make room, or name another folder with --cache"
                ),
                _ => e.to_string(),
            };
            return Err(TrainError::Cache { path: self.path.clone(), why });
        }
        self.end += record.len() as u64;
        self.vectors.insert(id, vector.to_vec());
        Ok(())
    }
}

fn checksum(id: &[u8], values: &[u8]) -> [u8; CHECK] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(id).update(values);
    let mut check = [0; CHECK];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..CHECK]);
    check
}

/// Fills the buffer; `false` where the file ends before.
fn read_whole(file: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

/// Computes the vectors that `cache` lacks. `prepare` makes the network's input of the job of a number, on threads of its own, a
/// few ahead of the network; `vector` takes the features out of what the network made. `progress` is told how many are done, how
/// many there are.
pub fn extract(
    cache: &mut Cache,
    probe: &mut Probe,
    jobs: &[Id],
    prepare: impl Fn(usize) -> Result<Vec<f32>, TrainError> + Sync,
    vector: impl Fn(&[f32]) -> Vec<f32>,
    stop: &AtomicBool,
    mut progress: impl FnMut(usize, usize),
) -> Result<(), TrainError> {
    let mut seen = HashSet::new();
    let missing: Vec<usize> =
        (0..jobs.len()).filter(|j| cache.get(&jobs[*j]).is_none() && seen.insert(jobs[*j])).collect();
    let total = missing.len();
    progress(0, total);
    let next = AtomicUsize::new(0);
    let readers = std::thread::available_parallelism().map_or(1, |n| n.get().div_ceil(4)).min(total.max(1));
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(2 * readers);
        for _ in 0..readers {
            let (sender, next, missing, prepare) = (sender.clone(), &next, &missing, &prepare);
            scope.spawn(move || {
                while let Some(job) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // Nobody listens any more once something failed.
                    if stop.load(Ordering::Relaxed) || sender.send((*job, prepare(*job))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut done = 0;
        for (job, tensor) in receiver {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let made = probe.run(&tensor?)?;
            let features = vector(&made[0]);
            if features.len() != cache.width || features.iter().any(|v| !v.is_finite()) {
                return Err(TrainError::Base("the base's features are not numbers, or not as many as it says".into()));
            }
            cache.append(jobs[job], &features)?;
            done += 1;
            progress(done, total);
        }
        match done == total {
            true => Ok(()),
            false => Err(TrainError::Interrupted),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: u8) -> Vec<Id> {
        (0..count).map(|i| [i; 32]).collect()
    }

    fn filled(folder: &Path) -> PathBuf {
        let wanted = ids(3).into_iter().collect();
        let mut cache = Cache::open(folder, &[7; 32], 4, &wanted).unwrap();
        for (i, id) in ids(3).into_iter().enumerate() {
            cache.append(id, &[i as f32; 4]).unwrap();
        }
        cache.path
    }

    #[test]
    fn vectors_come_back_and_only_those_that_are_wanted() {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path());
        let wanted = [[1; 32]].into_iter().collect();
        let cache = Cache::open(folder.path(), &[7; 32], 4, &wanted).unwrap();
        assert_eq!(cache.get(&[1; 32]), Some(&[1.0; 4][..]));
        assert_eq!(cache.get(&[2; 32]), None);
        let other = Cache::open(folder.path(), &[8; 32], 4, &wanted).unwrap();
        assert_eq!(other.get(&[1; 32]), None);
    }

    #[test]
    fn what_is_cut_or_damaged_is_written_anew() {
        for damage in 0..3 {
            let folder = tempfile::tempdir().unwrap();
            let path = filled(folder.path());
            let mut bytes = std::fs::read(&path).unwrap();
            match damage {
                0 => bytes.truncate(bytes.len() - 5),
                1 => bytes[HEAD as usize + 60] ^= 1,
                _ => bytes.truncate(20),
            }
            std::fs::write(&path, &bytes).unwrap();
            let kept = [2, 1, 0][damage];
            let wanted: HashSet<Id> = ids(3).into_iter().collect();
            let mut cache = Cache::open(folder.path(), &[7; 32], 4, &wanted).unwrap();
            assert_eq!(cache.vectors.len(), kept);
            cache.append([9; 32], &[9.0; 4]).unwrap();
            drop(cache);
            let wanted = [[9; 32]].into_iter().collect();
            assert!(Cache::open(folder.path(), &[7; 32], 4, &wanted).unwrap().get(&[9; 32]).is_some());
        }
    }

    #[test]
    fn two_trainings_do_not_write_one_cache() {
        let folder = tempfile::tempdir().unwrap();
        let first = Cache::open(folder.path(), &[7; 32], 4, &HashSet::new()).unwrap();
        let error = Cache::open(folder.path(), &[7; 32], 4, &HashSet::new()).err().unwrap().to_string();
        assert!(error.contains("another training"), "{error}");
        drop(first);
        assert!(Cache::open(folder.path(), &[7; 32], 4, &HashSet::new()).is_ok());
    }
}
