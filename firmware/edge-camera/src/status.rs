//! What is told of the running program: one line on the terminal that is written over and over, plain lines where there
//! is no terminal, and whoever else wants to show what was seen.

use edge_device::event::{Event, Fault};
use edge_display::Level;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Faults that are told one by one; later ones are only counted, so that a broken camera cannot flood a
/// service's journal.
const TOLD: u64 = 20;

/// Prints a line on standard error, or several. Unlike `eprintln!`, a closed one is nobody's loss.
pub fn tell(text: &str) {
    let lines: String = text.lines().map(|line| format!("edge-camera: {line}\n")).collect();
    let _ = std::io::stderr().write_all(lines.as_bytes());
}

/// What there is to show after each frame, and whenever the status changes.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    /// The label decided for, or `unknown`; empty before the first frame.
    pub decision: &'a str,
    /// Whether that is a class rather than `unknown`.
    pub known: bool,
    /// Of the class decided for; of the best one when unknown. 0…1.
    pub score: f32,
    /// Frames per second, over about the last ten.
    pub fps: f64,
    /// What was said last, in a short line: the source, a fault, that no frame comes.
    pub status: &'a str,
    /// How much that matters now; good as soon as a frame is classified and logged.
    pub level: Level,
}

/// Shows what was seen: a display, a service manager. It must not block.
pub trait Observer {
    /// Shows it. What cannot be shown is nobody's loss.
    fn show(&mut self, seen: &Snapshot<'_>);
}

/// The status line, on standard error, and the observers.
pub struct Status {
    /// Who else is shown what is seen.
    pub observers: Vec<Box<dyn Observer>>,
    text: String,
    level: Level,
    decision: String,
    known: bool,
    score: f32,
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
        Status {
            observers: vec![],
            text: String::new(),
            level: Level::Waiting,
            decision: String::new(),
            known: false,
            score: 0.0,
            terminal,
            last: None,
            interval: 0.0,
            width: 0,
            faults: 0,
            waiting: false,
        }
    }

    /// A line that stays.
    pub fn say(&mut self, text: &str) {
        self.say_as(Level::Waiting, text);
    }

    fn say_as(&mut self, level: Level, text: &str) {
        self.clear();
        tell(text);
        self.level = level;
        self.note(text);
    }

    /// What observers show as the status.
    pub fn note(&mut self, text: &str) {
        self.text = text.into();
        self.show();
    }

    fn show(&mut self) {
        let fps = if self.interval > 0.0 { 1.0 / self.interval } else { 0.0 };
        let score = self.score;
        let (decision, known, status, level) = (&self.decision, self.known, &self.text, self.level);
        let seen = Snapshot { decision, known, score, fps, status, level };
        self.observers.iter_mut().for_each(|observer| observer.show(&seen));
    }

    /// A frame was classified; `trouble` is what is wrong all the same.
    pub fn classified(&mut self, event: &Event, trouble: Option<String>) {
        self.waiting = false;
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            let seconds = (now - last).as_secs_f64();
            // A moving average over about ten frames keeps the rate readable.
            self.interval = if self.interval == 0.0 { seconds } else { 0.9 * self.interval + 0.1 * seconds };
        }
        let decided = event.top.iter().find(|score| Some(score.index) == event.class).or(event.top.first());
        self.score = decided.map_or(0.0, |score| score.score);
        self.decision.clone_from(&event.decision);
        self.known = event.class.is_some();
        self.level = if trouble.is_some() { Level::Bad } else { Level::Good };
        self.text = trouble.unwrap_or(std::mem::take(&mut self.text));
        if self.terminal {
            let fps = if self.interval > 0.0 { 1.0 / self.interval } else { 0.0 };
            let (frame, score, ms) = (event.frame, self.score, event.latency_ms.total);
            self.over(&format!("frame {frame}  {}  {score:.2}  {ms:.1} ms  {fps:.1} fps", event.decision));
        }
        self.show();
    }

    /// A frame could not be classified.
    pub fn fault(&mut self, fault: &Fault) {
        self.waiting = false;
        self.faults += 1;
        match self.faults.cmp(&(TOLD + 1)) {
            std::cmp::Ordering::Less => self.say_as(Level::Bad, &format!("{}: {}", fault.source, fault.error)),
            std::cmp::Ordering::Equal => self.say_as(Level::Bad, "more frames fail; they stand in the log"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use edge_device::event::{LatencyMs, Score};
    use std::sync::{Arc, Mutex};

    struct Seen(Arc<Mutex<Vec<String>>>);

    impl Observer for Seen {
        fn show(&mut self, seen: &Snapshot<'_>) {
            let line = format!("{} {:.1} {} {:?}", seen.decision, seen.score, seen.status, seen.level);
            self.0.lock().unwrap().push(line);
        }
    }

    #[test]
    fn observers_see_frames_and_what_is_said() {
        let lines = Arc::new(Mutex::new(vec![]));
        let mut status = Status::new();
        status.observers.push(Box::new(Seen(lines.clone())));
        status.note("camera");
        let score = |index, score| Score { index, id: None, label: String::new(), score };
        let event = Event {
            time: String::new(),
            monotonic_s: 0.0,
            clock_synced: None,
            frame: 7,
            source: String::new(),
            top: vec![score(3, 0.6), score(1, 0.4)],
            decision: "cat".into(),
            class: Some(1),
            latency_ms: LatencyMs::default(),
            package: String::new(),
            backend: String::new(),
        };
        status.classified(&event, None);
        status.note("no frame for 2 s");
        status.classified(&event, Some("disk full".into()));
        let expected =
            [" 0.0 camera Waiting", "cat 0.4 camera Good", "cat 0.4 no frame for 2 s Good", "cat 0.4 disk full Bad"];
        assert_eq!(*lines.lock().unwrap(), expected);
    }
}
