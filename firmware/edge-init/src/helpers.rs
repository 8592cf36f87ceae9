//! Programs that help, and that nothing depends on: the DHCP client of a network card, the time client. They are started
//! again when they end, at intervals that spare the device.

use crate::child::Child;
use crate::keeper::Exit;
use crate::say;
use rustix::process::{Pid, Signal};
use std::process::Command;
use std::time::Duration;

/// The pause after the first end; it doubles with each one.
const SHORTEST: Duration = Duration::from_secs(5);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(300);
/// Having run this long, a helper is sound.
const SOUND: Duration = Duration::from_secs(60);

/// When a helper starts again.
#[derive(Debug, Default, Clone, Copy)]
struct Pace {
    ends: u32,
    started: Duration,
}

impl Pace {
    fn started(&mut self, now: Duration) {
        self.started = now;
    }

    /// Ended; when it is to start again.
    fn ended(&mut self, now: Duration) -> Duration {
        if now >= self.started + SOUND {
            self.ends = 0;
        }
        let pause = SHORTEST.saturating_mul(1 << self.ends.min(10)).min(LONGEST);
        self.ends += 1;
        now + pause
    }
}

/// One of them.
pub struct Helper {
    /// What it is, for people, and that it is started once only.
    pub name: String,
    command: Box<dyn FnMut() -> Command>,
    /// Lines that begin so are told; others are chatter.
    prefix: &'static str,
    child: Option<Child>,
    next: Duration,
    pace: Pace,
}

impl Helper {
    /// Started as soon as it is looked after. Of what it prints, lines that begin with `prefix` are told.
    pub fn new(name: String, prefix: &'static str, command: impl FnMut() -> Command + 'static) -> Helper {
        let (child, next, pace) = (None, Duration::ZERO, Pace::default());
        Helper { name, command: Box::new(command), prefix, child, next, pace }
    }

    /// Starts it if it is time to, and tells what it printed.
    pub fn tick(&mut self, now: Duration) {
        if self.child.is_none() && now >= self.next {
            self.pace.started(now);
            match Child::start(&mut (self.command)()) {
                Ok(child) => self.child = Some(child),
                Err(why) => {
                    say::say(&format!("{}: cannot be started: {why}", self.name));
                    self.next = self.pace.ended(now);
                }
            }
        }
        self.tell(false);
    }

    fn tell(&mut self, end: bool) {
        let lines = self.child.as_mut().map(|child| child.lines(end)).unwrap_or_default();
        lines.iter().filter(|line| line.starts_with(self.prefix)).for_each(|line| say::say(line));
    }

    /// When it is to be looked after at the latest.
    pub fn deadline(&self) -> Option<Duration> {
        self.child.is_none().then_some(self.next)
    }

    /// A process ended; whether it was this helper's.
    pub fn ended(&mut self, now: Duration, pid: Pid, exit: Exit) -> bool {
        if self.child.as_ref().is_none_or(|child| child.pid != pid) {
            return false;
        }
        self.tell(true);
        if let Some(child) = self.child.take() {
            child.kill_rest();
        }
        self.next = self.pace.ended(now);
        let pause = self.next.saturating_sub(now).as_secs();
        say::say(&format!("{} ended ({exit:?}); it starts again in {pause} s", self.name));
        true
    }

    /// Its process.
    pub fn child(&self) -> Option<&Child> {
        self.child.as_ref()
    }

    /// Asks it to end.
    pub fn stop(&self) {
        if let Some(child) = &self.child {
            child.signal(Signal::TERM);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_minutes_and_begin_anew() {
        let seconds = Duration::from_secs;
        let (mut pace, mut now) = (Pace::default(), seconds(100));
        for pause in [5, 10, 20, 40, 80, 160, 300, 300] {
            pace.started(now);
            assert_eq!(pace.ended(now + seconds(1)), now + seconds(1 + pause));
            now += seconds(1 + pause);
        }
        pace.started(now);
        assert_eq!(pace.ended(now + SOUND), now + SOUND + seconds(5));
    }
}
