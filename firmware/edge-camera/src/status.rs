//! One line on the terminal that is written over and over; plain lines where there is no terminal.

use edge_device::event::{Event, Fault};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Faults that are told one by one; later ones are only counted, so that a broken camera cannot flood a
/// service's journal.
const TOLD: u64 = 20;

/// Prints a line on standard error. Unlike `eprintln!`, a closed one is nobody's loss.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "edge-camera: {text}");
}

/// The status line, on standard error.
pub struct Status {
    terminal: bool,
    last: Option<Instant>,
    interval: f64,
    width: usize,
    faults: u64,
    waiting: bool,
}

impl Status {
    /// Looks whether standard error is a terminal.
    pub fn new() -> Status {
        let terminal = std::io::stderr().is_terminal();
        Status { terminal, last: None, interval: 0.0, width: 0, faults: 0, waiting: false }
    }

    /// A line that stays.
    pub fn say(&mut self, text: &str) {
        self.clear();
        tell(text);
    }

    /// A frame was classified.
    pub fn classified(&mut self, event: &Event) {
        self.waiting = false;
        if !self.terminal {
            return;
        }
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            let seconds = (now - last).as_secs_f64();
            // A moving average over about ten frames keeps the rate readable.
            self.interval = if self.interval == 0.0 { seconds } else { 0.9 * self.interval + 0.1 * seconds };
        }
        let fps = if self.interval > 0.0 { 1.0 / self.interval } else { 0.0 };
        let score = event.top.first().map_or(0.0, |t| t.score);
        self.over(&format!(
            "frame {}  {}  {score:.2}  {:.1} ms  {fps:.1} fps",
            event.frame, event.decision, event.latency_ms.total
        ));
    }

    /// A frame could not be classified.
    pub fn fault(&mut self, fault: &Fault) {
        self.waiting = false;
        self.faults += 1;
        match self.faults.cmp(&(TOLD + 1)) {
            std::cmp::Ordering::Less => self.say(&format!("{}: {}", fault.source, fault.error)),
            std::cmp::Ordering::Equal => self.say("more frames fail; they stand in the log"),
            std::cmp::Ordering::Greater => {}
        }
    }

    /// No frame came for `since`.
    pub fn waiting(&mut self, since: Duration) {
        if since >= Duration::from_secs(2) && !std::mem::replace(&mut self.waiting, true) {
            self.say(&format!("no frame for {:.0} s", since.as_secs_f64()));
        }
    }

    /// The last line.
    pub fn finish(&mut self, frames: u64, faults: u64) {
        self.say(&format!("{frames} frame(s), {faults} of them could not be classified"));
    }

    fn over(&mut self, text: &str) {
        // Pads with blanks to wipe what a longer line left behind. A failing terminal is nobody's loss.
        let width = text.chars().count();
        let _ = write!(std::io::stderr(), "\r{text}{:1$}", "", self.width.saturating_sub(width));
        self.width = width;
    }

    fn clear(&mut self) {
        if self.width > 0 {
            let _ = write!(std::io::stderr(), "\r{:1$}\r", "", self.width);
            self.width = 0;
        }
    }
}
