//! Decides about the camera program: when it starts and starts again, when it hangs, when a system on trial is kept or
//! given up, and whether the watchdog is fed. It has no clock and touches nothing: events with their times go in, actions
//! come out, so that every path can be tried in a test.

use std::time::Duration;

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// From the start to READY without any sign of life: proving a large package on a small board takes its time.
    pub start: Duration,
    /// Without a sign of life once it is ready.
    pub hang: Duration,
    /// The pause before the first restart; it doubles with each one.
    pub shortest_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// Having run this long, the program is sound, and pauses begin anew.
    pub sound: Duration,
    /// From SIGTERM to SIGKILL.
    pub stop: Duration,
    /// How long a killed process may take to be gone. One that takes longer hangs in the kernel: only a restart of the
    /// machine helps then, and the watchdog is fed no more.
    pub gone: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        let seconds = Duration::from_secs;
        Limits {
            start: seconds(300),
            hang: seconds(60),
            shortest_pause: seconds(2),
            longest_pause: seconds(60),
            sound: seconds(60),
            stop: seconds(5),
            gone: seconds(60),
        }
    }
}

/// What a system on trial has to show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// It is kept when the program is ready and has classified, and signs of life have come for this long since.
    pub commit: Duration,
    /// It is given up when it is not kept this long after the keeper's beginning.
    pub patience: Duration,
    /// It is given up when the program failed this often.
    pub failures: u32,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// How the device goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Without power.
    PowerOff,
    /// And up again.
    Reboot,
    /// Standing still, with power.
    Halt,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time passed.
    Tick,
    /// The program could not be started, and why.
    NotStarted(String),
    /// The program ended.
    Exited(Exit),
    /// READY=1.
    Ready,
    /// WATCHDOG=1: a frame was classified, a source waits, or a step of the start is done.
    Alive,
    /// A class stands in the log that this run of the program wrote.
    Classified,
    /// The trial's end is written to the boot state.
    Committed,
    /// The device is to go down.
    Asked(Ending),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start the program, with its configuration file or without.
    Start {
        /// Whether with.
        configured: bool,
    },
    /// SIGTERM.
    Terminate,
    /// SIGKILL, and for all that the program started.
    Kill,
    /// Write to the boot state that this system is kept; [`Event::Committed`] when that is done.
    Commit,
    /// Tell.
    Say(String),
    /// Go down. Nothing comes after it.
    End(Ending),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// No process.
    Resting { until: Duration },
    /// Started; `sign` is the last sign of life.
    Starting { sign: Duration },
    /// Ready since.
    Running { ready: Duration, sign: Duration },
    /// Killed because it hung; ready since, if it was.
    Killed { at: Duration, ready: Option<Duration> },
    /// Asked to end, because the device goes down; killed at.
    Leaving { since: Duration, killed: Option<Duration>, ending: Ending },
    /// The device goes down.
    Ended,
}

/// The program's exit code for a configuration that it does not take.
const CONFIGURATION: Exit = Exit::Code(2);

/// The state machine.
#[derive(Debug)]
pub struct Keeper {
    limits: Limits,
    phase: Phase,
    /// Failures in a row.
    failures: u32,
    configured: bool,
    /// When this run of the program was known to classify.
    classified: Option<Duration>,
    trial: Option<(Trial, Tried)>,
    told_ready: bool,
}

#[derive(Debug)]
struct Tried {
    begun: Duration,
    failures: u32,
}

impl Keeper {
    /// Wants to start the program at once. `trial` where the system is on trial.
    pub fn new(now: Duration, limits: Limits, trial: Option<Trial>) -> Keeper {
        Keeper {
            limits,
            phase: Phase::Resting { until: now },
            failures: 0,
            configured: true,
            classified: None,
            trial: trial.map(|trial| (trial, Tried { begun: now, failures: 0 })),
            told_ready: false,
        }
    }

    /// What to do about an event. `now` never goes back.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = vec![];
        match event {
            Event::Tick => {}
            Event::NotStarted(why) => {
                actions.push(Action::Say(format!("the camera program cannot be started: {why}")));
                self.ended(now, None, &mut actions);
            }
            Event::Exited(exit) => self.ended(now, Some(exit), &mut actions),
            Event::Ready => self.ready(now, &mut actions),
            Event::Alive => self.alive(now, &mut actions),
            Event::Classified => {
                if matches!(self.phase, Phase::Starting { .. } | Phase::Running { .. }) {
                    self.classified.get_or_insert(now);
                }
            }
            Event::Committed => self.trial = None,
            Event::Asked(ending) => self.leave(now, ending, &mut actions),
        }
        self.time(now, &mut actions);
        actions
    }

    /// When [`Event::Tick`] is wanted at the latest.
    pub fn deadline(&self) -> Option<Duration> {
        let limits = &self.limits;
        let phase = match self.phase {
            Phase::Resting { until } => Some(until),
            Phase::Starting { sign } => Some(sign + limits.start),
            Phase::Running { sign, .. } => Some(sign + limits.hang),
            Phase::Killed { at, .. } => Some(at + limits.gone),
            Phase::Leaving { since, killed: None, .. } => Some(since + limits.stop),
            Phase::Leaving { killed: Some(at), .. } => Some(at + limits.gone),
            Phase::Ended => None,
        };
        let leaving = matches!(self.phase, Phase::Leaving { .. } | Phase::Ended);
        let patience = self.trial.as_ref().map(|(trial, tried)| tried.begun + trial.patience).filter(|_| !leaving);
        phase.into_iter().chain(patience).min()
    }

    /// Whether the watchdog may be fed: the program shows life or was just started, or a restart or the end is in hand.
    pub fn feeds(&self, now: Duration) -> bool {
        let limits = &self.limits;
        // A keeper that is not asked in time is part of what has gone wrong.
        match self.phase {
            Phase::Resting { until } => now < until + limits.gone,
            Phase::Starting { sign } => now < sign + limits.start + limits.gone,
            Phase::Running { sign, .. } => now < sign + limits.hang + limits.gone,
            Phase::Killed { at, .. } => now < at + limits.gone,
            Phase::Leaving { since, killed, .. } => now < killed.unwrap_or(since + limits.stop) + limits.gone,
            Phase::Ended => false,
        }
    }

    fn ready(&mut self, now: Duration, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Starting { .. } => {
                self.phase = Phase::Running { ready: now, sign: now };
                let again = if std::mem::replace(&mut self.told_ready, true) { " again" } else { "" };
                actions.push(Action::Say(format!("camera is ready{again}")));
            }
            // It says so after each reload, too.
            Phase::Running { .. } => self.sign(now),
            _ => {}
        }
    }

    fn alive(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.sign(now);
        let (Phase::Running { ready, .. }, Some(classified), Some((trial, _))) =
            (self.phase, self.classified, &self.trial)
        else {
            return;
        };
        if now >= ready.max(classified) + trial.commit {
            actions.push(Action::Commit);
        }
    }

    fn sign(&mut self, now: Duration) {
        if let Phase::Starting { sign } | Phase::Running { sign, .. } = &mut self.phase {
            *sign = now;
        }
    }

    /// No process is there any more.
    fn ended(&mut self, now: Duration, exit: Option<Exit>, actions: &mut Vec<Action>) {
        self.classified = None;
        let ready = match self.phase {
            Phase::Starting { .. } => None,
            Phase::Running { ready, .. } => Some(ready),
            Phase::Killed { ready, .. } => ready,
            Phase::Leaving { ending, .. } => {
                self.phase = Phase::Ended;
                return actions.push(Action::End(ending));
            }
            Phase::Resting { .. } | Phase::Ended => return,
        };
        if ready.is_some_and(|ready| now >= ready + self.limits.sound) {
            self.failures = 0;
        }
        let pause = self.pause();
        self.failures = self.failures.saturating_add(1);
        self.phase = Phase::Resting { until: now + pause };
        // The end of a source that has one, such as a folder shown once, is no failure.
        let failed = exit != Some(Exit::Code(0)) || ready.is_none();
        if let (true, Some((trial, tried))) = (failed, &mut self.trial) {
            tried.failures += 1;
            if tried.failures >= trial.failures {
                let how = exit.map_or(String::new(), |exit| format!("; {}", describe(exit)));
                let text = format!("this system is on trial, and the camera failed {} times{how}", tried.failures);
                actions.push(Action::Say(text));
                return self.leave(now, Ending::Reboot, actions);
            }
        } else if exit == Some(CONFIGURATION) && self.configured {
            // A mistake in a file that people edit must not silence the camera. On trial it is no excuse: the system that
            // is to be replaced may well take that file.
            self.configured = false;
            let text =
                "the camera refuses its configuration, camera.toml; it goes on with defaults until the next start";
            return actions.push(Action::Say(text.into()));
        }
        if let Some(exit) = exit {
            let text = format!("the camera {}; it starts again in {:.0} s", describe(exit), pause.as_secs_f64());
            actions.push(Action::Say(text));
        }
    }

    fn pause(&self) -> Duration {
        let Limits { shortest_pause, longest_pause, .. } = self.limits;
        shortest_pause.saturating_mul(1 << self.failures.min(16)).min(longest_pause)
    }

    fn leave(&mut self, now: Duration, ending: Ending, actions: &mut Vec<Action>) {
        match &mut self.phase {
            Phase::Resting { .. } => {
                self.phase = Phase::Ended;
                actions.push(Action::End(ending));
            }
            Phase::Starting { .. } | Phase::Running { .. } => {
                self.phase = Phase::Leaving { since: now, killed: None, ending };
                actions.push(Action::Terminate);
            }
            Phase::Killed { at, .. } => self.phase = Phase::Leaving { since: now, killed: Some(*at), ending },
            // Whoever asks last is obeyed.
            Phase::Leaving { ending: before, .. } => *before = ending,
            Phase::Ended => {}
        }
    }

    /// What is due by now.
    fn time(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let leaving = matches!(self.phase, Phase::Leaving { .. } | Phase::Ended);
        if let Some((trial, tried)) = &self.trial
            && !leaving
            && now >= tried.begun + trial.patience
            && !actions.contains(&Action::Commit)
        {
            let text =
                format!("this system is on trial, and has not proven itself in {:.0} s", trial.patience.as_secs_f64());
            actions.push(Action::Say(text));
            self.leave(now, Ending::Reboot, actions);
        }
        match &mut self.phase {
            Phase::Resting { until } if now >= *until => {
                self.phase = Phase::Starting { sign: now };
                actions.push(Action::Start { configured: self.configured });
            }
            Phase::Starting { sign } if now >= *sign + self.limits.start => self.hung(now, self.limits.start, actions),
            Phase::Running { sign, .. } if now >= *sign + self.limits.hang => self.hung(now, self.limits.hang, actions),
            Phase::Killed { at, .. } if now >= *at + self.limits.gone => {
                self.phase = Phase::Ended;
                actions.push(Action::Say("the camera cannot be killed; the device starts anew".into()));
                actions.push(Action::End(Ending::Reboot));
            }
            Phase::Leaving { since, killed: killed @ None, .. } if now >= *since + self.limits.stop => {
                *killed = Some(now);
                actions.push(Action::Kill);
            }
            Phase::Leaving { killed: Some(at), ending, .. } if now >= *at + self.limits.gone => {
                let ending = *ending;
                self.phase = Phase::Ended;
                actions.push(Action::End(ending));
            }
            _ => {}
        }
    }

    fn hung(&mut self, now: Duration, limit: Duration, actions: &mut Vec<Action>) {
        let ready = match self.phase {
            Phase::Running { ready, .. } => Some(ready),
            _ => None,
        };
        self.phase = Phase::Killed { at: now, ready };
        let text = format!("the camera hangs: no sign of life for {:.0} s; it is killed", limit.as_secs_f64());
        actions.extend([Action::Say(text), Action::Kill]);
    }
}

fn describe(exit: Exit) -> String {
    match exit {
        Exit::Code(0) => "has ended".into(),
        Exit::Code(code) => format!("ended with code {code}"),
        Exit::Signal(signal) => format!("was ended by signal {signal}"),
    }
}

#[cfg(test)]
mod tests;
