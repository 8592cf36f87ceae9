//! Sees the first class that the camera program logs. Its log is what a user reads, so that is what is looked at: a device
//! whose log holds a class works.

use serde::Deserialize;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// As much of the log as is looked at in one go; lines are far shorter.
const CHUNK: u64 = 1 << 16;

/// A line of the log that tells of a frame. Others (faults, notices, summaries) have no decision.
#[derive(Deserialize)]
struct Line {
    decision: String,
}

/// The end of a log, from a moment on.
pub struct Classes {
    path: PathBuf,
    /// The file's number, and how much of it is read; none for a file that is yet to come.
    file: Option<(u64, u64)>,
}

impl Classes {
    /// From now on. A line that was cut before now is passed over, as the log's writer removes it.
    pub fn watch(path: &Path) -> Classes {
        let file = File::open(path).ok().and_then(|mut file| {
            let metadata = file.metadata().ok()?;
            let start = metadata.len().saturating_sub(CHUNK);
            let mut tail = vec![];
            file.seek(SeekFrom::Start(start)).ok()?;
            file.take(CHUNK).read_to_end(&mut tail).ok()?;
            let end = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1);
            Some((metadata.ino(), start + end))
        });
        Classes { path: path.into(), file }
    }

    /// The first class that was logged since this was asked last, or since the beginning.
    pub fn first(&mut self) -> Option<String> {
        let mut file = File::open(&self.path).ok()?;
        let metadata = file.metadata().ok()?;
        // A file that was begun meanwhile, or cut, is read from its start.
        let read = self.file.filter(|(number, read)| *number == metadata.ino() && *read <= metadata.len());
        let start = read.map_or(0, |(_, read)| read);
        let mut text = vec![];
        file.seek(SeekFrom::Start(start)).ok()?;
        file.take(CHUNK).read_to_end(&mut text).ok()?;
        let whole = match text.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => at + 1,
            // No line is that long: this is no log.
            None if text.len() as u64 == CHUNK => text.len(),
            None => 0,
        };
        self.file = Some((metadata.ino(), start + whole as u64));
        let mut lines = text[..whole].split(|byte| *byte == b'\n');
        lines.find_map(|line| serde_json::from_slice::<Line>(line).ok()).map(|line| line.decision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const NOTICE: &str = "{\"time\":\"…\",\"notice\":\"started\"}\n";

    fn frame(label: &str) -> String {
        format!("{{\"time\":\"…\",\"frame\":1,\"decision\":{label:?},\"class\":3}}\n")
    }

    #[test]
    fn the_first_class_of_this_run_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("class.jsonl");
        // No file yet.
        let mut classes = Classes::watch(&path);
        assert_eq!(classes.first(), None);
        std::fs::write(&path, NOTICE).unwrap();
        assert_eq!(classes.first(), None);
        let mut file = File::options().append(true).open(&path).unwrap();
        let line = frame("a \"cat\"");
        file.write_all(&line.as_bytes()[..20]).unwrap();
        assert_eq!(classes.first(), None);
        file.write_all(&line.as_bytes()[20..]).unwrap();
        assert_eq!(classes.first().as_deref(), Some("a \"cat\""));
        assert_eq!(classes.first(), None);
        // What stands there from before does not count, and a line that was cut is removed by the writer.
        file.write_all(&frame("dog").as_bytes()[..30]).unwrap();
        let mut classes = Classes::watch(&path);
        assert_eq!(classes.first(), None);
        file.set_len((NOTICE.len() + line.len()) as u64).unwrap();
        file.write_all(frame("bird").as_bytes()).unwrap();
        assert_eq!(classes.first().as_deref(), Some("bird"));
    }

    #[test]
    fn a_log_that_begins_a_new_file_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("class.jsonl");
        std::fs::write(&path, frame("old").repeat(5000)).unwrap();
        let mut classes = Classes::watch(&path);
        std::fs::rename(&path, dir.path().join("class.jsonl.1")).unwrap();
        assert_eq!(classes.first(), None);
        std::fs::write(&path, frame("new")).unwrap();
        assert_eq!(classes.first().as_deref(), Some("new"));
    }

    #[test]
    fn what_is_no_log_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("class.jsonl");
        let mut classes = Classes::watch(&path);
        std::fs::write(&path, vec![b'x'; 200_000]).unwrap();
        for _ in 0..10 {
            assert_eq!(classes.first(), None);
        }
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"\n").unwrap();
        file.write_all(frame("cat").as_bytes()).unwrap();
        assert_eq!((0..3).find_map(|_| classes.first()).as_deref(), Some("cat"));
        assert_eq!(Classes::watch(dir.path()).first(), None);
    }
}
