//! What is in a cache, for those who look at it and run nothing.

use super::{BODY, Cache, Entry, MAGIC};
use edge_package::digest;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

/// An engine's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// What the engine was built from and for; `None` where the file is damaged.
    pub entry: Option<Entry>,
}

impl Cache {
    /// All engines, by the names of their files; none where there is no folder.
    pub fn list(&self) -> io::Result<Vec<Kept>> {
        let entries = match std::fs::read_dir(self.folder()) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(vec![]),
            other => other?,
        };
        let mut found = vec![];
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "engine") {
                let bytes = std::fs::read(&path)?;
                found.push(Kept { bytes: bytes.len() as u64, entry: read_entry(&bytes), path });
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }
}

/// What a whole file says of its engine.
fn read_entry(bytes: &[u8]) -> Option<Entry> {
    let (head, body) = bytes.split_at_checked(BODY)?;
    if &head[..8] != MAGIC || digest(body) != head[8..] {
        return None;
    }
    let (length, rest) = body.split_first_chunk::<4>()?;
    let key = std::str::from_utf8(rest.get(..u32::from_le_bytes(*length) as usize)?).ok()?;
    let line = |name: &str| key.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')).map(str::to_string);
    let entry = Entry {
        package: unhex(&line("package")?)?,
        tensorrt: line("TensorRT")?,
        gpu: line("GPU")?,
        precision: line("precision")?,
    };
    // Nothing else stands in it.
    (entry.key() == key).then_some(entry)
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let digits = text.as_bytes().chunks_exact(2);
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, two) in bytes.iter_mut().zip(digits) {
        *byte = u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_listed_with_what_it_was_built_for_and_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("tensorrt"));
        assert_eq!(cache.list().unwrap(), []);
        cache.prove_writable(0).unwrap();
        let entry = Entry {
            package: std::array::from_fn(|i| 7 * i as u8),
            tensorrt: "10.3.0".into(),
            gpu: "Orin, compute capability 8.7, 8 multiprocessors".into(),
            precision: "float16".into(),
        };
        cache.hold(&mut || ()).unwrap().0.write(&entry, b"a plan").unwrap();
        let all = cache.list().unwrap();
        let [kept] = &all[..] else { panic!("one engine") };
        assert_eq!(kept.entry, Some(entry));
        let mut bytes = std::fs::read(&kept.path).unwrap();
        assert_eq!(kept.bytes, bytes.len() as u64);
        for at in [0, 8, 40, 50, bytes.len() - 1] {
            bytes[at] ^= 1;
            std::fs::write(&kept.path, &bytes).unwrap();
            assert_eq!(cache.list().unwrap()[0].entry, None, "byte {at}");
            bytes[at] ^= 1;
        }
        std::fs::write(&kept.path, b"").unwrap();
        assert_eq!(cache.list().unwrap()[0].entry, None);
    }

    #[test]
    fn whose_the_folder_is_can_be_asked_for_another_user() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("tensorrt"));
        assert!(!cache.check_for(0).unwrap());
        cache.prove_writable(0).unwrap();
        assert!(cache.check().unwrap());
        assert!(cache.check_for(u32::MAX - 1).unwrap_err().to_string().contains("belongs to user"));
    }
}
