//! The log as a file: appended to, renamed when it is full, never cut.
//!
//! FILE is written to. When a line would make it larger than allowed, FILE.1 becomes FILE.2 and so on, FILE becomes
//! FILE.1, and a new FILE begins. A kill between two renames leaves a hole in the numbers, which the next one fills.
//! A FILE that somebody else moved or removed, or whose disk was taken out, is begun anew within seconds.

use super::Rotation;
use crate::units::Sync;
use anyhow::{Context, bail};
use edge_system::check::folder;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often it is looked whether the file is still the one of its name.
const LOOK: Duration = Duration::from_secs(5);

/// The longest line looked for at the end of a log that was cut off.
const LONGEST_LINE: u64 = 1 << 20;

/// How often a lock that is taken is tried for again, and after how long.
const LOCK_TRIES: u32 = 20;
/// See [`LOCK_TRIES`].
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// What the kernel takes of a write in one piece: SIGKILL may end a write between two pages of the file.
const PAGE: u64 = 4096;

/// A log of one or more files.
pub struct LogFile {
    path: PathBuf,
    /// None after a new file could not be made; the next line tries again.
    file: Option<File>,
    /// Where the last whole line ends.
    length: u64,
    /// About the longest of the last lines, in bytes.
    longest: u64,
    /// The line that is written, filled up to the end of its page where that is near.
    filled: Vec<u8>,
    rotation: Option<Rotation>,
    /// At which length to rotate; more than the rotation says after one failed.
    full: u64,
    sync: Sync,
    synced: Duration,
    dirty: bool,
    looked: Duration,
}

impl LogFile {
    /// Opens `path` for appending. A line that a power cut left unfinished at the end is removed, so that what
    /// follows stays readable.
    pub fn open(path: &Path, rotation: Option<Rotation>, sync: Sync) -> anyhow::Result<LogFile> {
        let (file, length) = open(path)?;
        let mut log = LogFile {
            path: path.into(),
            file: Some(file),
            length,
            longest: 0,
            filled: vec![],
            rotation: None,
            full: u64::MAX,
            sync,
            synced: Duration::ZERO,
            dirty: false,
            looked: Duration::ZERO,
        };
        log.set(rotation, sync)?;
        Ok(log)
    }

    /// Goes on under other rules. A file that was moved or removed meanwhile is begun anew.
    pub fn set(&mut self, rotation: Option<Rotation>, sync: Sync) -> anyhow::Result<()> {
        if rotation.is_some() {
            let folder = folder(&self.path);
            rustix::fs::access(folder, rustix::fs::Access::WRITE_OK)
                .with_context(|| format!("cannot make new files in {}, as log-max-size needs", folder.display()))?;
        }
        if self.moved() {
            let (file, length) = open(&self.path)?;
            (self.file, self.length) = (Some(file), length);
        }
        (self.rotation, self.sync) = (rotation, sync);
        self.full = rotation.map_or(u64::MAX, |r| r.max);
        self.trim();
        Ok(())
    }

    /// Whether the open file is not the one of its name any more.
    fn moved(&self) -> bool {
        let ours = self.file.as_ref().and_then(|f| f.metadata().ok()).map(|m| (m.dev(), m.ino()));
        ours != std::fs::metadata(&self.path).ok().map(|m| (m.dev(), m.ino()))
    }

    /// Appends a line. It goes out in one piece, which a kill cannot cut (see [`fill`]); what the disk took of a line it had no space for is taken back.
    pub fn append(&mut self, line: &[u8], now: Duration) -> io::Result<()> {
        if self.length > 0 && self.length + line.len() as u64 > self.full {
            self.rotate();
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let (file, length) = open(&self.path).map_err(io::Error::other)?;
                self.length = length;
                none.insert(file)
            }
        };
        self.longest = (self.longest - self.longest / 64).max(line.len() as u64);
        fill(line, self.length, self.longest, self.full, &mut self.filled);
        if let Err(e) = file.write_all(&self.filled) {
            // The disk is full or gone; if even this fails, the next start removes the piece.
            let _ = file.set_len(self.length);
            return Err(e);
        }
        self.length += self.filled.len() as u64;
        self.dirty = true;
        match self.sync {
            Sync::Line => self.flush(now),
            _ => self.tick(now),
        }
    }

    /// Syncs when it is time to, and looks whether the file is still there.
    pub fn tick(&mut self, now: Duration) -> io::Result<()> {
        if now.saturating_sub(self.looked) >= LOOK {
            self.looked = now;
            if self.moved() {
                // The next line opens it, or is the first of a gap.
                self.file = None;
            }
        }
        match self.sync {
            Sync::Every(time) if self.dirty && now.saturating_sub(self.synced) >= time => self.flush(now),
            _ => Ok(()),
        }
    }

    /// The last sync.
    pub fn finish(&mut self, now: Duration) -> io::Result<()> {
        if self.sync == Sync::Never { Ok(()) } else { self.flush(now) }
    }

    fn flush(&mut self, now: Duration) -> io::Result<()> {
        self.synced = now;
        self.dirty = false;
        self.file.as_ref().map_or(Ok(()), File::sync_data)
    }

    /// Begins a new file. Where that cannot be, the old one goes on, and grows by as much again before the next try.
    fn rotate(&mut self) {
        // A disk that cannot sync shows that with the next line, too.
        let _ = self.finish(self.synced);
        let mut numbers = self.numbers();
        // Up to the first hole; beyond it nothing is in the way.
        let filled = numbers.iter().zip(1..).take_while(|(number, expected)| **number == *expected).count();
        numbers.truncate(filled);
        let rename = |from: PathBuf, to: u64| std::fs::rename(from, self.numbered(to));
        let shifted = numbers.into_iter().rev().try_for_each(|number| rename(self.numbered(number), number + 1));
        let renamed = shifted.and_then(|()| rename(self.path.clone(), 1));
        match renamed {
            Ok(()) => {
                self.file = None;
                self.length = 0;
                self.full = self.rotation.map_or(u64::MAX, |r| r.max);
                self.trim();
                if self.sync != Sync::Never {
                    let _ = File::open(folder(&self.path)).and_then(|f| f.sync_all());
                }
            }
            Err(_) => self.full = self.length.saturating_add(self.rotation.map_or(0, |r| r.max)),
        }
    }

    /// Removes the oldest files that are too many beside a full current one.
    fn trim(&self) {
        let Some(Rotation { max, total }) = self.rotation else { return };
        let mut sum = max;
        for number in self.numbers() {
            let path = self.numbered(number);
            sum = sum.saturating_add(std::fs::metadata(&path).map_or(0, |m| m.len()));
            if sum > total {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    /// The numbers of the full files, newest first.
    fn numbers(&self) -> Vec<u64> {
        let name = self.path.file_name().unwrap_or_default().as_encoded_bytes();
        let number = |entry: io::Result<std::fs::DirEntry>| {
            let file = entry.ok()?.file_name();
            let digits = file.as_encoded_bytes().strip_prefix(name)?.strip_prefix(b".")?;
            let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
            (number > 0 && number.to_string().as_bytes() == digits).then_some(number)
        };
        let mut numbers: Vec<u64> =
            std::fs::read_dir(folder(&self.path)).into_iter().flatten().filter_map(number).collect();
        numbers.sort_unstable();
        numbers
    }

    fn numbered(&self, number: u64) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{number}"));
        self.path.with_file_name(name)
    }
}

/// `line` at `start` of the file, with blanks before its newline up to the end of the page where a line of `longest` bytes would
/// not fit there any more: so no line lies across the end of a page, where a kill could cut it. Not beyond `full`.
fn fill(line: &[u8], start: u64, longest: u64, full: u64, filled: &mut Vec<u8>) {
    filled.clear();
    filled.extend_from_slice(line);
    let end = start + line.len() as u64;
    let left = end.next_multiple_of(PAGE) - end;
    if left < longest && end + left <= full && filled.pop() == Some(b'\n') {
        filled.resize(filled.len() + left as usize, b' ');
        filled.push(b'\n');
    }
}

/// Opens for appending, as the only writer; where the last whole line ends.
fn open(path: &Path) -> anyhow::Result<(File, u64)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    // A process that is just being started, such as the one that holds a camera, has our files until it is itself.
    let mut tries = 0;
    while let Err(TryLockError::WouldBlock) = file.try_lock() {
        tries += 1;
        if tries > LOCK_TRIES {
            bail!("another process writes to it");
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    let length = whole_lines(&mut file)?;
    if length < file.metadata()?.len() {
        file.set_len(length)?;
    }
    Ok((file, length))
}

/// The length of the file up to and with its last newline. A tail that is not the beginning of a JSON
/// object is not ours to remove: the file is something else.
fn whole_lines(file: &mut File) -> anyhow::Result<u64> {
    let length = file.metadata()?.len();
    let end = before_zeros(file, length)?;
    let start = end.saturating_sub(LONGEST_LINE);
    let tail = part(file, start, end)?;
    let cut = tail.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    let last = tail[..cut].trim_ascii_end().rsplit(|b| *b == b'\n').next().unwrap_or_default();
    let begins = |line: &[u8]| line.first().is_none_or(|b| *b == b'{');
    // Zeros alone are what was left of the first line; with anything else behind them they are another file's.
    let ours = end > 0 || end == length || only_zeros(file, length)?;
    if !ours || !begins(&tail[cut..]) || !begins(last) || (cut == 0 && start > 0) {
        bail!("the file exists and is not a classification log; name another one");
    }
    Ok(start + cut as u64)
}

/// Where zeros begin in the end of the file, or its length. No line has one; a power cut leaves them where the file's length
/// came to the disk and its bytes did not. What comes after them was written later than what is lost.
fn before_zeros(file: &mut File, length: u64) -> anyhow::Result<u64> {
    let (mut end, mut from) = (length, length);
    while from > 0 {
        let start = from.saturating_sub(LONGEST_LINE);
        match part(file, start, from)?.iter().position(|b| *b == 0) {
            Some(at) => (end, from) = (start + at as u64, start),
            None => break,
        }
    }
    Ok(end)
}

fn only_zeros(file: &mut File, length: u64) -> anyhow::Result<bool> {
    for start in (0..length).step_by(LONGEST_LINE as usize) {
        if part(file, start, length.min(start + LONGEST_LINE))?.iter().any(|b| *b != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn part(file: &mut File, start: u64, end: u64) -> anyhow::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(end - start).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_lies_across_the_end_of_a_page() {
        let (mut start, mut longest, mut filled, mut text) = (0u64, 0, vec![], vec![]);
        for i in 0..2000usize {
            let line = format!("{{\"n\":{i},\"fill\":\"{}\"}}\n", "x".repeat(300 + i * 37 % 90));
            longest = (longest - longest / 64).max(line.len() as u64);
            fill(line.as_bytes(), start, longest, u64::MAX, &mut filled);
            let end = start + filled.len() as u64;
            // A line longer than those before it may not have been provided for.
            assert!(start / PAGE == (end - 1) / PAGE || i < 200, "line {i} from {start} to {end}");
            start = end;
            text.extend_from_slice(&filled);
        }
        let lines: Vec<serde_json::Value> =
            std::str::from_utf8(&text).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2000);
        let blanks = text.iter().filter(|b| **b == b' ').count();
        assert!(blanks * 10 < text.len(), "{blanks} of {}", text.len());
        // Not beyond the size that the file may have.
        fill(b"{}\n", 4000, 100, 4050, &mut filled);
        assert_eq!(filled, b"{}\n");
    }

    #[test]
    fn zeros_that_a_power_cut_left_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let (lines, zeros) = ("{\"n\":1}\n{\"n\":2}\n", "\0".repeat(3 * LONGEST_LINE as usize + 5));
        for (text, kept) in [
            (format!("{lines}{zeros}"), lines),
            (format!("{lines}\0"), lines),
            (format!("{lines}{{\"n\":3,\"x\":{zeros}"), lines),
            (format!("{lines}{zeros}{{\"n\":4}}\n"), lines),
            (zeros.clone(), ""),
        ] {
            std::fs::write(&path, &text).unwrap();
            let mut log = LogFile::open(&path, None, Sync::Never).unwrap();
            log.append(b"{}\n", Duration::ZERO).unwrap();
            drop(log);
            assert_eq!(std::fs::read_to_string(&path).unwrap().replace(' ', ""), format!("{kept}{{}}\n"));
        }
        for text in [format!("a picture{zeros}"), format!("\0\0JPEG{zeros}"), format!("{zeros}JPEG"), "JPEG\n".into()] {
            std::fs::write(&path, &text).unwrap();
            assert!(LogFile::open(&path, None, Sync::Never).is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    fn numbered(i: usize) -> String {
        format!("{{\"n\":{i:05}}}\n")
    }

    /// All lines, oldest first, and the size of all files.
    fn all(log: &LogFile) -> (String, u64) {
        let mut text = String::new();
        for number in log.numbers().into_iter().rev() {
            text += &std::fs::read_to_string(log.numbered(number)).unwrap();
        }
        text += &std::fs::read_to_string(&log.path).unwrap_or_default();
        let length = text.len() as u64;
        (text, length)
    }

    fn rotating(dir: &Path, max: u64, total: u64) -> LogFile {
        LogFile::open(&dir.join("log.jsonl"), Some(Rotation { max, total }), Sync::Rotate).unwrap()
    }

    #[test]
    fn full_files_are_renamed_and_no_line_is_cut_or_lost() {
        let dir = tempfile::tempdir().unwrap();
        // Not ours, though their names are close.
        for other in ["log.jsonl.gz", "log.jsonl.01", "log.jsonl.1x", "mylog.jsonl.1"] {
            std::fs::write(dir.path().join(other), "other").unwrap();
        }
        let mut log = rotating(dir.path(), 100, 10_000);
        let mut expected = String::new();
        for i in 0..200 {
            if i % 50 == 49 {
                drop(log);
                log = rotating(dir.path(), 100, 10_000);
            }
            log.append(numbered(i).as_bytes(), Duration::ZERO).unwrap();
            expected += &numbered(i);
            assert!(std::fs::metadata(&log.path).unwrap().len() <= 100);
        }
        assert_eq!(all(&log).0, expected);
        assert!(log.numbers().len() > 20);
        assert!(dir.path().join("log.jsonl.gz").exists() && dir.path().join("log.jsonl.01").exists());
    }

    #[test]
    fn the_oldest_files_go_so_that_all_stay_below_the_total() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = rotating(dir.path(), 100, 350);
        let mut expected = String::new();
        for i in 0..500 {
            log.append(numbered(i).as_bytes(), Duration::ZERO).unwrap();
            expected += &numbered(i);
            let (text, size) = all(&log);
            assert!(size <= 350, "{size}");
            assert!(expected.ends_with(&text), "{text}");
            assert!(i < 40 || size > 200, "{size}");
        }
        // A smaller total holds at once.
        log.set(Some(Rotation { max: 100, total: 200 }), Sync::Never).unwrap();
        assert!(log.numbers().len() == 1);
    }

    #[test]
    fn a_kill_between_two_renames_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = rotating(dir.path(), 30, 10_000);
        let mut expected = String::new();
        let mut append = |log: &mut LogFile, i| {
            log.append(numbered(i).as_bytes(), Duration::ZERO).unwrap();
            expected += &numbered(i);
            assert_eq!(all(log).0, expected);
        };
        (0..7).for_each(|i| append(&mut log, i));
        // Killed after FILE.2 became FILE.3.
        std::fs::rename(log.numbered(2), log.numbered(9)).unwrap();
        std::fs::rename(log.numbered(3), log.numbered(10)).unwrap();
        (7..20).for_each(|i| append(&mut log, i));
        // Killed after FILE became FILE.1, in a gap of the numbers.
        drop(log);
        let mut log = rotating(dir.path(), 30, 10_000);
        (20..24).for_each(|i| append(&mut log, i));
    }

    #[test]
    fn where_files_cannot_be_renamed_the_log_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = rotating(dir.path(), 30, 10_000);
        // Its name leads nowhere any more, as on a disk that was taken away.
        log.path = dir.path().join("elsewhere/log.jsonl");
        for i in 0..10 {
            log.append(numbered(i).as_bytes(), Duration::ZERO).unwrap();
        }
        let text = std::fs::read_to_string(dir.path().join("log.jsonl")).unwrap();
        assert_eq!(text, (0..10).map(numbered).collect::<String>());
    }

    #[test]
    fn a_log_that_was_moved_away_is_begun_anew_on_a_reload_or_soon() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = rotating(dir.path(), 1000, 10_000);
        log.append(numbered(0).as_bytes(), Duration::ZERO).unwrap();
        std::fs::rename(&log.path, dir.path().join("old")).unwrap();
        log.set(None, Sync::Never).unwrap();
        log.append(numbered(1).as_bytes(), Duration::ZERO).unwrap();
        assert_eq!(std::fs::read_to_string(&log.path).unwrap(), numbered(1));
        assert_eq!(std::fs::read_to_string(dir.path().join("old")).unwrap(), numbered(0));
        std::fs::remove_file(&log.path).unwrap();
        log.tick(LOOK).unwrap();
        log.append(numbered(2).as_bytes(), LOOK).unwrap();
        assert_eq!(std::fs::read_to_string(&log.path).unwrap(), numbered(2));
    }

    #[test]
    fn lines_reach_the_disk_when_the_policy_says() {
        let seconds = Duration::from_secs;
        let table = [
            (Sync::Never, [0, 0, 0]),
            (Sync::Rotate, [0, 0, 0]),
            (Sync::Line, [10, 29, 30]),
            (Sync::Every(seconds(20)), [0, 29, 29]),
        ];
        for (sync, expected) in table {
            let dir = tempfile::tempdir().unwrap();
            let mut log = LogFile::open(&dir.path().join("log"), None, sync).unwrap();
            for (at, expected) in [10, 29, 30].into_iter().zip(expected) {
                log.append(b"{}\n", seconds(at)).unwrap();
                assert_eq!(log.synced, seconds(expected), "{sync:?} at {at}");
            }
            // Nothing comes, but what came before is owed.
            log.tick(seconds(60)).unwrap();
            assert_eq!(log.synced == seconds(60), sync == Sync::Every(seconds(20)), "{sync:?}");
            log.finish(seconds(90)).unwrap();
            assert_eq!(log.synced == seconds(90), sync != Sync::Never, "{sync:?}");
        }
    }
}
