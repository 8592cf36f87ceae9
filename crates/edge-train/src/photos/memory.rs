//! What was seen of photos before: a photo whose file has not changed is neither read nor decoded again.
//!
//! A file is the same where its path, its size and the times of its last changes are, that of its inode among them, which no
//! program can set back. What was changed in the last seconds is not remembered: another change may leave the same times. The file
//! is written as a whole; where it cannot be used, photos are looked at as if there were none.

use super::look::THUMB;
use super::{Look, Options};
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const MAGIC: &[u8; 8] = b"EPLOOK01";
/// Key, digest, hash, thumbnail, width and height, checksum.
const RECORD: usize = 32 + 32 + 8 + THUMB * THUMB + 8 + 8;
/// A file that has grown beyond this begins anew.
const MOST: u64 = 1 << 29;
/// Seconds in which a file system may give two changes the same time.
const DOUBT: u64 = if cfg!(test) { 0 } else { 10 };

/// What a photo's file was when it was looked at.
pub type Key = [u8; 32];

/// Looks by what the file was.
#[derive(Default)]
pub struct Memory {
    path: Option<PathBuf>,
    known: HashMap<Key, Look>,
    changed: bool,
}

impl Memory {
    /// Reads what there is.
    pub fn open(options: &Options) -> Memory {
        let Some(path) = options.memory.clone() else { return Memory::default() };
        let mut memory = Memory { path: Some(path.clone()), ..Memory::default() };
        let small = std::fs::metadata(&path).is_ok_and(|m| m.len() <= MOST);
        let bytes = if small { std::fs::read(path).unwrap_or_default() } else { vec![] };
        let Some(records) = bytes.strip_prefix(MAGIC) else { return memory };
        for record in records.chunks_exact(RECORD) {
            let (body, check) = record.split_at(RECORD - 8);
            if blake3::hash(body).as_bytes()[..8] == *check
                && let Some((key, look)) = parse(body)
            {
                memory.known.insert(key, look);
            }
        }
        memory
    }

    /// What a file is now; none where it may still change unseen, or nothing is remembered.
    pub fn key(&self, path: &Path, options: &Options) -> Option<Key> {
        self.path.as_ref()?;
        let path = std::path::absolute(path).ok()?;
        let found = std::fs::metadata(&path).ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let latest = u64::try_from(found.mtime().max(found.ctime())).ok()?;
        if latest.saturating_add(DOUBT) > now {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
        times.iter().for_each(|t| _ = hasher.update(&t.to_le_bytes()));
        for number in [found.len(), found.ino(), found.dev(), u64::from(options.decode.exif_orientation)] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(env!("CARGO_PKG_VERSION").as_bytes()).update(path.as_os_str().as_bytes());
        Some(*hasher.finalize().as_bytes())
    }

    /// What was seen of it.
    pub fn get(&self, key: &Key) -> Option<&Look> {
        self.known.get(key)
    }

    /// Remembers.
    pub fn insert(&mut self, key: Key, look: Look) {
        self.known.insert(key, look);
        self.changed = true;
    }

    /// Writes it down. A failure costs time at the next run, nothing else.
    pub fn save(&self) {
        let Some(path) = self.path.as_ref().filter(|_| self.changed) else { return };
        let mut bytes = MAGIC.to_vec();
        for (key, look) in &self.known {
            let from = bytes.len();
            bytes.extend(key.iter().chain(&look.digest).chain(&look.hash.to_le_bytes()).chain(&look.thumb));
            bytes.extend(look.width.to_le_bytes().into_iter().chain(look.height.to_le_bytes()));
            let check = blake3::hash(&bytes[from..]);
            bytes.extend(&check.as_bytes()[..8]);
        }
        if let Some(folder) = path.parent() {
            let _ = std::fs::create_dir_all(folder);
        }
        let _ = edge_package::replace_file(path, &bytes, 0o644);
    }
}

fn parse(body: &[u8]) -> Option<(Key, Look)> {
    let (key, rest) = body.split_first_chunk()?;
    let (digest, rest) = rest.split_first_chunk()?;
    let (hash, rest) = rest.split_first_chunk()?;
    let (thumb, rest) = rest.split_first_chunk()?;
    let (width, rest) = rest.split_first_chunk()?;
    let height = rest.first_chunk()?;
    let (width, height) = (u32::from_le_bytes(*width), u32::from_le_bytes(*height));
    Some((*key, Look { digest: *digest, hash: u64::from_le_bytes(*hash), thumb: *thumb, width, height }))
}
