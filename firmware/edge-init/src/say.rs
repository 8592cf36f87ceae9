//! What the device tells: on the console, and in `/data/log/boot.log`, where it can be read off the card later.
//!
//! The console comes first and the log's disk later, in another program even: until then lines are kept in `/run`, which
//! outlives the change from the first stage to the second.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a console that takes nothing is waited for: a serial line with flow control must not stop the first process.
const CONSOLE: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

static TELLER: Mutex<Teller> = Mutex::new(Teller { log: None });

struct Teller {
    log: Option<BootLog>,
}

fn teller() -> MutexGuard<'static, Teller> {
    TELLER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells a line of this program's own.
pub fn say(text: &str) {
    for line in text.lines() {
        forward(&format!("edge-init: {line}"));
    }
}

/// Tells a line that another program wrote.
pub fn forward(line: &str) {
    console(line);
    if let Some(log) = &mut teller().log {
        log.line(line);
    }
}

/// Tells a line on the console alone.
pub fn console(line: &str) {
    let stderr = std::io::stderr();
    if poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&CONSOLE)) != Ok(0) {
        // A console that is gone is nobody's loss.
        let _ = stderr.lock().write_all(format!("{line}\n").as_bytes());
    }
}

/// From now on lines go to this file too, which keeps at most twice `most` bytes with the one before it. What the log had
/// so far is moved there.
pub fn log_to(path: &Path, most: u64) -> std::io::Result<()> {
    let mut log = BootLog::open(path, most)?;
    let mut teller = teller();
    if let Some(before) = teller.log.take() {
        let text = std::fs::read(&before.path)?;
        log.write(&text);
        log.sync();
        // It lies in memory, which somebody else needs more.
        let _ = std::fs::remove_file(&before.path);
    }
    teller.log = Some(log);
    Ok(())
}

/// Makes what was told reach the disk.
pub fn sync() {
    if let Some(log) = &mut teller().log {
        log.sync();
    }
}

/// Closes the log, before its disk goes.
pub fn close() {
    if let Some(mut log) = teller().log.take() {
        log.sync();
    }
}

/// Others may write to the folder, so what a link leads to is not written to.
fn appending(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::NOFOLLOW.bits() as i32;
    OpenOptions::new().append(true).read(true).create(true).custom_flags(flags).open(path)
}

/// The log: one file and the one before it.
struct BootLog {
    path: PathBuf,
    file: File,
    length: u64,
    most: u64,
}

impl BootLog {
    fn open(path: &Path, most: u64) -> std::io::Result<BootLog> {
        let mut file = appending(path)?;
        let length = file.seek(SeekFrom::End(0))?;
        let mut log = BootLog { path: path.into(), file, length, most };
        // A line that was cut by a loss of power is ended, so that the next one begins a line.
        if length > 0 {
            let mut last = [b'\n'];
            log.file.seek(SeekFrom::End(-1))?;
            log.file.read_exact(&mut last)?;
            if last != *b"\n" {
                log.write(b"\n");
            }
        }
        Ok(log)
    }

    fn line(&mut self, line: &str) {
        self.write(format!("[{:9.3}] {line}\n", uptime().as_secs_f64()).as_bytes());
    }

    /// A full disk, or one that was taken away, is no reason to stop.
    fn write(&mut self, text: &[u8]) {
        if self.length > 0 && self.length + text.len() as u64 > self.most {
            self.rotate();
        }
        if self.file.write_all(text).is_ok() {
            self.length += text.len() as u64;
        }
    }

    fn rotate(&mut self) {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        if std::fs::rename(&self.path, &old).is_ok()
            && let Ok(file) = appending(&self.path)
        {
            self.file = file;
            self.length = 0;
        }
    }

    fn sync(&mut self) {
        let _ = self.file.sync_data();
    }
}

/// Time since the kernel started.
pub fn uptime() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_keeps_whole_lines_and_two_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("boot.log");
        std::fs::write(&path, "[    0.001] cut by a loss of po").unwrap();
        let mut log = BootLog::open(&path, 2000).unwrap();
        for number in 0..100 {
            log.line(&format!("line {number:03}"));
        }
        let (old, new) =
            (std::fs::read_to_string(dir.path().join("boot.log.1")).unwrap(), std::fs::read_to_string(&path).unwrap());
        assert!(old.len() <= 2000 && new.len() <= 2000 && new.len() > 20, "{} {}", old.len(), new.len());
        let lines: Vec<&str> = old.lines().chain(new.lines()).filter(|line| line.contains("] line")).collect();
        assert!(lines.last().unwrap().ends_with("] line 099"), "{lines:?}");
        for pair in lines.windows(2) {
            let number = |line: &str| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap();
            assert_eq!(number(pair[0]) + 1, number(pair[1]));
        }
    }

    #[test]
    fn a_cut_line_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("boot.log");
        std::fs::write(&path, "whole\ncut").unwrap();
        BootLog::open(&path, 2000).unwrap().line("next");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("whole\ncut\n[") && text.ends_with("] next\n"), "{text}");
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("boot.log"), dir.path().join("other"));
        std::fs::write(&other, "").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(BootLog::open(&path, 2000).is_err());
    }

    #[test]
    fn what_was_told_early_goes_to_the_disk_later() {
        let dir = tempfile::tempdir().unwrap();
        let (early, late) = (dir.path().join("early"), dir.path().join("late"));
        log_to(&early, 1 << 20).unwrap();
        say("one\ntwo");
        log_to(&late, 1 << 20).unwrap();
        forward("edge-camera: three");
        close();
        let text = std::fs::read_to_string(&late).unwrap();
        let tails: Vec<&str> = text.lines().filter_map(|line| line.split_once("] ").map(|(_, tail)| tail)).collect();
        assert_eq!(tails, ["edge-init: one", "edge-init: two", "edge-camera: three"]);
        assert!(!early.exists());
    }
}
