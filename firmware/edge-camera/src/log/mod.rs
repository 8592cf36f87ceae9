//! The classification log: JSON lines, each whole whatever happens.
//!
//! What goes wrong with a file never ends the program: lines that the disk does not take are counted, and a notice
//! `log_gap` says so as soon as it takes one again. Standard output, a pipe or a device has nobody who makes space,
//! and its failure is the program's.

mod budget;
mod file;
#[cfg(test)]
mod tests;

use crate::clock::{Clock, Jumps};
use crate::stop::Failure;
use crate::units::Sync;
use anyhow::Context;
use budget::Bucket;
use edge_device::event::{Comparison, Event, Fault, Notice, Summary, wall_time};
use file::LogFile;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a disk that refused a line is left alone before the next line tries again.
const RETRY: Duration = Duration::from_secs(1);
/// After so long without a line the gap is tried to be told alone. A notice is shorter than a line: told alone on a disk
/// that is all but full, it would be the first of many.
const RETRY_ALONE: Duration = Duration::from_secs(5);

/// When a file of the log is full, and how much all of them may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes of one file.
    pub max: u64,
    /// Bytes of all files.
    pub total: u64,
}

/// Where and how the log is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The file; `-` is standard output.
    pub path: PathBuf,
    /// Without it, one file grows.
    pub rotation: Option<Rotation>,
    /// When lines are made to reach the disk.
    pub sync: Sync,
    /// Bytes an hour.
    pub budget: Option<u64>,
    /// Only frames whose decision changed.
    pub on_change: bool,
}

/// Held while a line is written, so that whoever ends the process can wait for its end.
pub type Gate = Arc<Mutex<()>>;

/// Where lines go.
trait Sink {
    /// Takes a whole line or, as far as it can, nothing of it.
    fn append(&mut self, line: &[u8], now: Duration) -> io::Result<()>;
    /// Syncs when it is time to.
    fn tick(&mut self, _: Duration) -> io::Result<()> {
        Ok(())
    }
    /// Makes what was written last.
    fn finish(&mut self, _: Duration) -> io::Result<()> {
        Ok(())
    }
    /// Takes other rules.
    fn set(&mut self, _: &Options) -> anyhow::Result<()> {
        Ok(())
    }
    /// Whether a failure may pass.
    fn recovers(&self) -> bool {
        false
    }
}

struct Stdout;

impl Sink for Stdout {
    fn append(&mut self, line: &[u8], _: Duration) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(line).and_then(|()| out.flush())
    }
}

/// A pipe, a terminal, a device.
impl Sink for File {
    fn append(&mut self, line: &[u8], _: Duration) -> io::Result<()> {
        self.write_all(line)
    }
}

impl Sink for LogFile {
    fn append(&mut self, line: &[u8], now: Duration) -> io::Result<()> {
        LogFile::append(self, line, now)
    }

    fn tick(&mut self, now: Duration) -> io::Result<()> {
        LogFile::tick(self, now)
    }

    fn finish(&mut self, now: Duration) -> io::Result<()> {
        LogFile::finish(self, now)
    }

    fn set(&mut self, options: &Options) -> anyhow::Result<()> {
        LogFile::set(self, options.rotation, options.sync)
    }

    fn recovers(&self) -> bool {
        true
    }
}

/// What every line has.
struct Stamp<'a> {
    time: &'a str,
    monotonic_s: &'a mut f64,
    synced: &'a mut Option<bool>,
    backend: &'a mut String,
}

/// A line that can be stamped.
trait Line: Serialize {
    fn stamp(&mut self) -> Stamp<'_>;
}

macro_rules! lines {
    ($($kind:ty),*) => { $(impl Line for $kind {
        fn stamp(&mut self) -> Stamp<'_> {
            Stamp {
                time: &self.time,
                monotonic_s: &mut self.monotonic_s,
                synced: &mut self.clock_synced,
                backend: &mut self.backend,
            }
        }
    })* };
}
lines!(Event, Fault, Notice, Summary);

/// Lines that the disk did not take.
struct Gap {
    lines: u64,
    from: String,
    to: String,
    why: String,
    tried: Duration,
}

/// The log.
pub struct Log {
    to: Box<dyn Sink>,
    options: Options,
    clock: Box<dyn Clock>,
    gate: Gate,
    line: Vec<u8>,
    /// What computes.
    backend: &'static str,
    /// The largest `monotonic_s` so far.
    last: f64,
    gap: Option<Gap>,
    bucket: Option<Bucket>,
    jumps: Jumps,
    news: Vec<String>,
}

impl Log {
    /// Opens the log for appending.
    pub fn open(options: Options, clock: Box<dyn Clock>, gate: Gate) -> Result<Log, Failure> {
        let to = open(&options)?;
        Ok(Log::to(to, options, clock, gate))
    }

    fn to(to: Box<dyn Sink>, options: Options, clock: Box<dyn Clock>, gate: Gate) -> Log {
        let bucket = options.budget.map(|budget| Bucket::new(budget, clock.elapsed()));
        let mut jumps = Jumps::default();
        jumps.look(clock.as_ref());
        Log { to, options, clock, gate, line: vec![], backend: "", last: 0.0, gap: None, bucket, jumps, news: vec![] }
    }

    /// Says in every line from now on what computes.
    pub fn computes(&mut self, backend: &'static str) {
        self.backend = backend;
    }

    /// Goes on as `options` say. Nothing changes where that cannot be.
    pub fn set(&mut self, options: Options) -> Result<(), Failure> {
        if options.path != self.options.path {
            let new = open(&options)?;
            // The old file is left as it is; what is wrong with it does not concern the new one.
            let _ = self.to.finish(self.clock.elapsed());
            (self.to, self.options) = (new, options);
        } else {
            self.to
                .set(&options)
                .with_context(|| format!("cannot log to {}", options.path.display()))
                .map_err(Failure::log)?;
            self.options = options;
        }
        self.bucket = self.options.budget.map(|budget| Bucket::new(budget, self.clock.elapsed()));
        Ok(())
    }

    /// A classified frame; `changed` when its decision is another than the last one's.
    pub fn event(&mut self, event: &mut Event, changed: bool) -> Result<(), Failure> {
        if changed || !self.options.on_change { self.put(event, changed) } else { Ok(()) }
    }

    /// A frame that could not be classified; `first` when the one before could.
    pub fn fault(&mut self, fault: &mut Fault, first: bool) -> Result<(), Failure> {
        if first || !self.options.on_change { self.put(fault, first) } else { Ok(()) }
    }

    /// A summary.
    pub fn summary(&mut self, summary: &mut Summary) -> Result<(), Failure> {
        self.put(summary, true)
    }

    /// Something that happened to the device. `event` is a word for programs, `detail` is for people, who are told as
    /// well.
    pub fn notice(&mut self, event: &str, detail: &str) -> Result<(), Failure> {
        self.notice_of_trial(event, detail, None)
    }

    /// As [`Log::notice`], with the numbers of a trial.
    pub fn notice_of_trial(&mut self, event: &str, detail: &str, trial: Option<Comparison>) -> Result<(), Failure> {
        self.news.push(detail.into());
        let mut notice = Notice { trial, ..self.new_notice(event, detail) };
        self.put(&mut notice, true)
    }

    /// What people should be told since this was asked last.
    pub fn news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    /// Now, as lines have it.
    pub fn now(&self) -> (String, f64) {
        (wall_time(self.clock.wall()), self.clock.elapsed().as_micros() as f64 / 1e6)
    }

    /// What has to be done though no line comes.
    pub fn tick(&mut self) -> Result<(), Failure> {
        let now = self.clock.elapsed();
        if let Some(jump) = self.jumps.look(self.clock.as_ref()) {
            self.notice("clock_jumped", &format!("the clock was set {jump:+.3} s"))?;
        }
        self.tell_left_out(false)?;
        self.close_gap(now, RETRY_ALONE)?;
        match self.to.tick(now) {
            Err(e) if !self.to.recovers() => Err(self.failure(e)),
            _ => Ok(()),
        }
    }

    /// The last lines, and a sync. Lines that are lost for good are a failure.
    pub fn finish(&mut self) -> Result<(), Failure> {
        self.tell_left_out(true)?;
        let now = self.clock.elapsed();
        self.close_gap(now, Duration::ZERO)?;
        let synced = self.to.finish(now);
        match (&self.gap, synced) {
            (Some(gap), _) => {
                let lost = format!("{}; {} line(s) of it are lost", gap.why, gap.lines);
                Err(self.failure(io::Error::other(lost)))
            }
            (None, Err(e)) => Err(self.failure(e)),
            (None, Ok(())) => Ok(()),
        }
    }

    fn new_notice(&self, event: &str, detail: &str) -> Notice {
        let (time, monotonic_s) = self.now();
        let (backend, event, detail) = (String::new(), event.into(), detail.into());
        Notice { time, monotonic_s, clock_synced: None, backend, event, detail, trial: None }
    }

    fn tell_left_out(&mut self, end: bool) -> Result<(), Failure> {
        let now = self.clock.elapsed();
        let Some(count) = self.bucket.as_mut().and_then(|b| b.tell(now, end)) else { return Ok(()) };
        let budget = crate::units::Size(self.options.budget.unwrap_or_default());
        let detail =
            format!("{count} line(s) of frames that change nothing were left out, to keep to {budget} an hour");
        let mut notice = self.new_notice("log_thinned", &detail);
        self.put(&mut notice, true)
    }

    /// Stamps a line and writes it, unless the budget or the disk forbids.
    fn put(&mut self, line: &mut impl Line, needed: bool) -> Result<(), Failure> {
        let now = self.clock.elapsed();
        self.line.clear();
        // The gap and the line go together or not at all.
        let gap = self.gap_notice(now, RETRY)?;
        let start = self.line.len();
        self.encode(line)?;
        let bytes = self.line.len() - start;
        if self.bucket.as_mut().is_some_and(|bucket| !bucket.allows(bytes, needed, now)) {
            return Ok(());
        }
        let written = match (&self.gap, &gap) {
            (Some(gap), None) => Err(io::Error::other(gap.why.clone())),
            _ => self.append(now),
        };
        let Err(e) = written else {
            self.gap_told(gap);
            return Ok(());
        };
        if !self.to.recovers() {
            return Err(self.failure(e));
        }
        let time = line.stamp().time.to_string();
        match &mut self.gap {
            Some(gap) => {
                gap.lines += 1;
                gap.to = time;
            }
            None => {
                let path = self.options.path.display();
                self.news.push(format!("the log {path} takes no more lines: {e}; classification goes on"));
                self.gap = Some(Gap { lines: 1, from: time.clone(), to: time, why: e.to_string(), tried: now });
            }
        }
        Ok(())
    }

    /// What is wrong with the log now, in a few words: lines that it did not take.
    pub fn trouble(&self) -> Option<String> {
        self.gap.as_ref().map(|gap| format!("the log takes no lines: {}", gap.why))
    }

    /// Says in the log what is missing, when the disk takes it again.
    fn close_gap(&mut self, now: Duration, patience: Duration) -> Result<(), Failure> {
        self.line.clear();
        let gap = self.gap_notice(now, patience)?;
        if gap.is_some() && self.append(now).is_ok() {
            self.gap_told(gap);
        }
        Ok(())
    }

    /// Encodes what is missing, when there is a gap and it was tried to be told last longer ago than `patience`.
    fn gap_notice(&mut self, now: Duration, patience: Duration) -> Result<Option<String>, Failure> {
        let detail = match &mut self.gap {
            Some(gap) if now.saturating_sub(gap.tried) >= patience => {
                gap.tried = now;
                let Gap { lines, from, to, why, .. } = gap;
                format!("{lines} line(s) from {from} to {to} are missing: {why}")
            }
            _ => return Ok(None),
        };
        let mut notice = self.new_notice("log_gap", &detail);
        self.encode(&mut notice)?;
        Ok(Some(detail))
    }

    fn gap_told(&mut self, detail: Option<String>) {
        if let Some(detail) = detail {
            self.gap = None;
            self.news.push(format!("the log takes lines again; {detail}"));
        }
    }

    /// Adds the line as JSON, stamped: whether the clock is right, and never earlier than the line before.
    fn encode(&mut self, line: &mut impl Line) -> Result<(), Failure> {
        let Stamp { monotonic_s, synced, backend, .. } = line.stamp();
        if backend.is_empty() {
            backend.push_str(self.backend);
        }
        *synced = self.clock.synced();
        *monotonic_s = monotonic_s.max(self.last);
        self.last = *monotonic_s;
        serde_json::to_writer(&mut self.line, line).context("a log line cannot be encoded")?;
        self.line.push(b'\n');
        Ok(())
    }

    fn append(&mut self, now: Duration) -> io::Result<()> {
        // Nothing is behind the gate but the right to write; a panic elsewhere does not spoil it.
        let _writing = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.to.append(&self.line, now)
    }

    fn failure(&self, e: io::Error) -> Failure {
        let path = &self.options.path;
        let name = if path == Path::new("-") { "standard output".into() } else { path.display().to_string() };
        Failure::log(anyhow::Error::from(e).context(format!("cannot write the log to {name}")))
    }
}

/// Opens what lines go to.
fn open(options: &Options) -> Result<Box<dyn Sink>, Failure> {
    let path = &options.path;
    let open = || -> anyhow::Result<Box<dyn Sink>> {
        if path == Path::new("-") {
            return Ok(Box::new(Stdout));
        }
        if std::fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir()) {
            return Ok(Box::new(OpenOptions::new().append(true).open(path)?));
        }
        Ok(Box::new(LogFile::open(path, options.rotation, options.sync)?))
    };
    open().with_context(|| format!("cannot log to {}", path.display())).map_err(Failure::log)
}
