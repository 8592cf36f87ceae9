//! The classification log: JSON lines, each whole whatever happens.

use crate::stop::Failure;
use anyhow::{Context, bail};
use serde::Serialize;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The longest line looked for at the end of a log that was cut off.
const LONGEST_LINE: u64 = 1 << 20;

/// Where the lines go.
pub struct Log {
    to: To,
    line: Vec<u8>,
}

enum To {
    Stdout,
    /// A regular file: `length` is where the last whole line ends.
    File {
        file: File,
        path: PathBuf,
        length: u64,
    },
    /// A pipe, a terminal, a device.
    Stream {
        file: File,
        path: PathBuf,
    },
}

impl Log {
    /// Opens `path` for appending, `-` for standard output. A line that a power cut left unfinished at the
    /// end of the file is removed, so that what follows stays readable.
    pub fn open(path: &Path) -> Result<Log, Failure> {
        let open = || -> anyhow::Result<To> {
            if path == Path::new("-") {
                return Ok(To::Stdout);
            }
            if std::fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir()) {
                return Ok(To::Stream { file: OpenOptions::new().append(true).open(path)?, path: path.into() });
            }
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
            if let Err(TryLockError::WouldBlock) = file.try_lock() {
                bail!("another process writes to it");
            }
            let length = whole_lines(&mut file)?;
            if length < file.metadata()?.len() {
                file.set_len(length)?;
            }
            Ok(To::File { file, path: path.into(), length })
        };
        let to = open().with_context(|| format!("cannot log to {}", path.display())).map_err(Failure::log)?;
        Ok(Log { to, line: Vec::new() })
    }

    /// Appends one line. It goes out in one piece; what the disk took of a line it had no space for is
    /// taken back.
    pub fn write(&mut self, event: &impl Serialize) -> Result<(), Failure> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, event).context("a log line cannot be encoded")?;
        self.line.push(b'\n');
        let (result, path) = match &mut self.to {
            To::Stdout => {
                let mut out = std::io::stdout().lock();
                (out.write_all(&self.line).and_then(|()| out.flush()), Path::new("standard output"))
            }
            To::Stream { file, path } => (file.write_all(&self.line), path.as_path()),
            To::File { file, path, length } => {
                let result = file.write_all(&self.line);
                match result {
                    Ok(()) => *length += self.line.len() as u64,
                    // The disk is full or gone; if even this fails, the next start removes the piece.
                    Err(_) => drop(file.set_len(*length)),
                }
                (result, path.as_path())
            }
        };
        result.with_context(|| format!("cannot write the log to {}", path.display())).map_err(Failure::log)
    }
}

/// The length of the file up to and with its last newline. A tail that is not the beginning of a JSON
/// object is not ours to remove: the file is something else.
fn whole_lines(file: &mut File) -> anyhow::Result<u64> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(LONGEST_LINE);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(LONGEST_LINE).read_to_end(&mut tail)?;
    let cut = tail.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    let last = tail[..cut].trim_ascii_end().rsplit(|b| *b == b'\n').next().unwrap_or_default();
    let begins = |line: &[u8]| line.first().is_none_or(|b| *b == b'{');
    if !begins(&tail[cut..]) || !begins(last) || (cut == 0 && start > 0) {
        bail!("the file exists and is not a classification log; name another one");
    }
    Ok(start + cut as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn after(before: &[u8]) -> Result<String, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, before).unwrap();
        let result = Log::open(&path).and_then(|mut log| log.write(&json!({"n": 1})));
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        result.map(|()| text).inspect_err(|_| assert_eq!(std::fs::read(&path).unwrap(), before))
    }

    #[test]
    fn a_line_cut_off_by_a_power_cut_is_removed() {
        assert_eq!(after(b"").unwrap(), "{\"n\":1}\n");
        assert_eq!(after(b"{\"a\":0}\n").unwrap(), "{\"a\":0}\n{\"n\":1}\n");
        assert_eq!(after(b"{\"a\":0}\n{\"b\":").unwrap(), "{\"a\":0}\n{\"n\":1}\n");
        assert_eq!(after(b"{\"a\"").unwrap(), "{\"n\":1}\n");
    }

    #[test]
    fn a_log_has_one_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let _first = Log::open(&path).unwrap();
        assert_eq!(Log::open(&path).err().unwrap().code, 5);
    }

    #[test]
    fn a_file_that_is_no_log_is_left_alone() {
        assert_eq!(after(b"\x89PNG\r\nrest").unwrap_err().code, 5);
        assert_eq!(after(b"some text").unwrap_err().code, 5);
        assert_eq!(after(b"#!/bin/sh\nexit 0\n").unwrap_err().code, 5);
    }
}
