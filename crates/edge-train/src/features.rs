//! Feature vectors: computed once, kept in a file.
//!
//! The cache of a base is one file, to which vectors are appended as they are computed; a run that is interrupted or finds the disk
//! full keeps what it has. The file's name and head hold the key: base, cut, preprocessing, size. A record is the photo's (and
//! view's) digest, the vector, and a checksum; reading stops at the first record that is not whole, and what follows is written anew.
//!
//! What is small, feature vectors, is held in memory; what is large, the pictures inside a network that its unfrozen tail reads,
//! stays in the file and is read from there each time ([`Kind`]).

use crate::TrainError;
use edge_engine::Probe;
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

/// What a vector is of: the digest of the photo and of what was done to it.
pub type Id = [u8; 32];

const MAGIC: &[u8; 8] = b"EPFEAT01";
/// Magic, key, values of a vector.
const HEAD: u64 = 8 + 32 + 4;
const CHECK: usize = 8;

/// What a file holds, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Feature vectors in float32, held in memory, too.
    Features,
    /// Activations in float32, left in the file.
    Activations,
    /// Activations in float16, left in the file: half the room and half the reading.
    HalfActivations,
}

impl Kind {
    fn extension(self) -> &'static str {
        match self {
            Kind::Features => "features",
            Kind::Activations | Kind::HalfActivations => "activations",
        }
    }

    /// Bytes of a value.
    fn size(self) -> usize {
        if self == Kind::HalfActivations { 2 } else { 4 }
    }

    fn encode(self, vector: &[f32], bytes: &mut Vec<u8>) {
        match self {
            Kind::HalfActivations => bytes.extend(vector.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes())),
            _ => bytes.extend(vector.iter().flat_map(|v| v.to_le_bytes())),
        }
    }

    fn decode(self, bytes: &[u8], vector: &mut [f32]) {
        match self {
            Kind::HalfActivations => {
                let halves: Vec<f16> = bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b)).collect();
                halves.convert_to_f32_slice(vector);
            }
            _ => vector.iter_mut().zip(bytes.as_chunks().0).for_each(|(v, b)| *v = f32::from_le_bytes(*b)),
        }
    }
}

/// A file of vectors.
pub struct Cache {
    path: PathBuf,
    file: File,
    kind: Kind,
    width: usize,
    wanted: HashSet<Id>,
    /// Where the next record goes.
    end: u64,
    /// Those wanted that are there: where the values begin in the file, and the values where they are held.
    found: HashMap<Id, (u64, Vec<f32>)>,
}

impl Cache {
    /// Opens or makes the cache of `key` in `folder`, and finds the vectors of `wanted`, each of `width` values.
    pub fn open(
        folder: &Path,
        key: &[u8; 32],
        kind: Kind,
        width: usize,
        wanted: HashSet<Id>,
    ) -> Result<Cache, TrainError> {
        let name: String = key[..16].iter().map(|b| format!("{b:02x}")).collect();
        let path = folder.join(format!("{name}.{}", kind.extension()));
        let fail = |why: String| TrainError::Cache { path: path.clone(), why };
        let io = |e: std::io::Error| fail(format!("{e}; another folder can be named with --cache"));
        std::fs::create_dir_all(folder).map_err(io)?;
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let file = options.open(&path).map_err(io)?;
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
        let mut cache = Cache { path: path.clone(), file, kind, width, wanted, end: HEAD, found: HashMap::new() };
        let mut found = vec![0; HEAD as usize];
        let whole = read_whole(&mut cache.file, &mut found).map_err(io)?;
        if !whole || found != head {
            // Nothing that could be used.
            let file = &mut cache.file;
            file.set_len(0)
                .and_then(|()| file.seek(SeekFrom::Start(0)))
                .and_then(|_| file.write_all(&head))
                .map_err(io)?;
            return Ok(cache);
        }
        let mut reader = BufReader::with_capacity(1 << 20, &cache.file);
        let mut record = vec![0; 32 + kind.size() * width + CHECK];
        while read_whole(&mut reader, &mut record).map_err(io)? {
            let (id, rest) = record.split_at(32);
            let (values, check) = rest.split_at(kind.size() * width);
            if checksum(id, values) != check {
                break;
            }
            let at = cache.end + 32;
            cache.end += record.len() as u64;
            let Ok(id) = Id::try_from(id) else { break };
            if cache.wanted.contains(&id) {
                let mut held = vec![];
                if kind == Kind::Features {
                    held.resize(width, 0.0);
                    kind.decode(values, &mut held);
                }
                cache.found.insert(id, (at, held));
            }
        }
        // What is not whole is not built upon.
        cache.file.set_len(cache.end).map_err(io)?;
        Ok(cache)
    }

    /// Values of a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The vector of a photo, of features.
    pub fn get(&self, id: &Id) -> Option<&[f32]> {
        self.found.get(id).map(|f| f.1.as_slice()).filter(|v| !v.is_empty())
    }

    /// Reads the vector of a photo, of activations, into `vector`. Any number of threads may do so.
    ///
    /// # Errors
    /// Where it is not there, or cannot be read.
    pub fn read(&self, id: &Id, vector: &mut [f32]) -> Result<(), TrainError> {
        let fail = |why: String| TrainError::Cache { path: self.path.clone(), why };
        let (at, _) = self.found.get(id).ok_or_else(|| fail("a photo is missing".into()))?;
        let mut bytes = vec![0; self.kind.size() * self.width];
        self.file.read_exact_at(&mut bytes, *at).map_err(|e| fail(e.to_string()))?;
        self.kind.decode(&bytes, vector);
        Ok(())
    }

    /// Whether the vector of a photo is wanted and not there.
    fn lacks(&self, id: &Id) -> bool {
        self.wanted.contains(id) && !self.found.contains_key(id)
    }

    pub(crate) fn append(&mut self, id: Id, vector: &[f32]) -> Result<(), TrainError> {
        let largest = vector.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
        if self.kind == Kind::HalfActivations && largest > f16::MAX.to_f32() {
            return Err(TrainError::Base(format!(
                "where it is unfrozen the base has values of up to {largest:.0}, which float16 does not hold; unfreeze from another layer on"
            )));
        }
        let mut record = id.to_vec();
        self.kind.encode(vector, &mut record);
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
        let held = if self.kind == Kind::Features { vector.to_vec() } else { vec![] };
        self.found.insert(id, (self.end + 32, held));
        self.end += record.len() as u64;
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

/// How a value of the network becomes a vector.
pub type Convert = Box<dyn Fn(&[f32]) -> Vec<f32>>;

/// A cache to fill, from the value of this number of those that the network makes.
pub struct Target<'a> {
    /// What lacks vectors.
    pub cache: &'a mut Cache,
    /// The value's place among those of the [`Probe`].
    pub value: usize,
    /// Takes the vector out of it.
    pub convert: &'a Convert,
}

/// Computes the vectors that caches lack of what they want. `prepare` makes the network's input of the job of a number, on threads
/// of its own, a few ahead of the network. `progress` is told how many are done, how many there are.
pub fn extract(
    targets: &mut [Target<'_>],
    probe: &mut Probe,
    jobs: &[Id],
    prepare: impl Fn(usize) -> Result<Vec<f32>, TrainError> + Sync,
    stop: &AtomicBool,
    mut progress: impl FnMut(usize, usize),
) -> Result<(), TrainError> {
    let mut seen = HashSet::new();
    let missing: Vec<usize> =
        (0..jobs.len()).filter(|j| targets.iter().any(|t| t.cache.lacks(&jobs[*j])) && seen.insert(jobs[*j])).collect();
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
            for target in targets.iter_mut().filter(|t| t.cache.lacks(&jobs[job])) {
                let vector = (target.convert)(&made[target.value]);
                if vector.len() != target.cache.width || vector.iter().any(|v| !v.is_finite()) {
                    return Err(TrainError::Base(
                        "the base's features are not numbers, or not as many as it says".into(),
                    ));
                }
                target.cache.append(jobs[job], &vector)?;
            }
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

    fn open(folder: &Path, key: u8, wanted: Vec<Id>) -> Cache {
        Cache::open(folder, &[key; 32], Kind::Features, 4, wanted.into_iter().collect()).unwrap()
    }

    fn filled(folder: &Path) -> PathBuf {
        let mut cache = open(folder, 7, ids(3));
        for (i, id) in ids(3).into_iter().enumerate() {
            cache.append(id, &[i as f32; 4]).unwrap();
        }
        cache.path
    }

    #[test]
    fn vectors_come_back_and_only_those_that_are_wanted() {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path());
        let cache = open(folder.path(), 7, vec![[1; 32]]);
        assert_eq!(cache.get(&[1; 32]), Some(&[1.0; 4][..]));
        assert_eq!(cache.get(&[2; 32]), None);
        let other = open(folder.path(), 8, vec![[1; 32]]);
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
            let mut cache = open(folder.path(), 7, ids(3));
            assert_eq!(cache.found.len(), kept);
            cache.append([9; 32], &[9.0; 4]).unwrap();
            drop(cache);
            assert!(open(folder.path(), 7, vec![[9; 32]]).get(&[9; 32]).is_some());
        }
    }

    #[test]
    fn two_trainings_do_not_write_one_cache() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path(), 7, vec![]);
        let again = || Cache::open(folder.path(), &[7; 32], Kind::Features, 4, HashSet::new());
        let error = again().err().unwrap().to_string();
        assert!(error.contains("another training"), "{error}");
        drop(first);
        assert!(again().is_ok());
    }

    #[test]
    fn activations_stay_in_the_file_and_come_back_as_near_as_they_are_stored() {
        for (kind, error) in [(Kind::Activations, 0.0), (Kind::HalfActivations, 5e-4)] {
            let folder = tempfile::tempdir().unwrap();
            let open = || Cache::open(folder.path(), &[7; 32], kind, 3, ids(3).into_iter().collect()).unwrap();
            let mut cache = open();
            let vector = |i: u8| [0.1 + f32::from(i), -3.3, 1e-3];
            for i in [2, 0] {
                cache.append([i; 32], &vector(i)).unwrap();
            }
            assert!(cache.get(&[0; 32]).is_none() && cache.lacks(&[1; 32]) && !cache.lacks(&[9; 32]));
            drop(cache);
            let cache = open();
            for i in [0, 2] {
                let mut found = [0.0; 3];
                cache.read(&[i; 32], &mut found).unwrap();
                let near = found.iter().zip(vector(i)).all(|(f, v)| (f - v).abs() <= error * v.abs());
                assert!(near, "{kind:?}: {found:?}");
            }
            assert!(cache.read(&[1; 32], &mut [0.0; 3]).is_err());
        }
    }

    #[test]
    fn what_float16_does_not_hold_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(folder.path(), &[7; 32], Kind::HalfActivations, 1, HashSet::new()).unwrap();
        let error = cache.append([0; 32], &[7e4]).unwrap_err().to_string();
        assert!(error.contains("float16"), "{error}");
    }
}
