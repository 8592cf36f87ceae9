//! What systemd is told, where it asks: readiness, status, the watchdog. Without a service manager nothing happens.

use crate::status::{Observer, Snapshot};
use sd_notify::NotifyState;
use std::time::{Duration, Instant};

/// How often the status line of `systemctl status` changes at most.
const STATUS: Duration = Duration::from_secs(5);

/// Tells the service manager. That it does not listen is nobody's loss.
fn tell(state: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(state);
}

/// The end has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// What is being done, in the line of `systemctl status`.
pub fn doing(what: &str) {
    tell(&[NotifyState::Status(what)]);
}

/// A start or a reload takes this much longer from now on.
pub fn takes_longer(time: Duration) {
    tell(&[NotifyState::ExtendTimeoutUsec(time.as_micros() as u32)]);
}

/// The service manager's watchdog, fed by progress and by nothing else: no thread or timer of its own feeds it.
pub struct Service {
    /// Feed this often: twice in the time after which the service manager would act.
    every: Option<Duration>,
    fed: Option<Instant>,
}

impl Service {
    /// Asks the environment whether there is a watchdog.
    pub fn new() -> Service {
        Service { every: sd_notify::watchdog_enabled().map(|time| time / 2), fed: None }
    }

    /// Everything has opened and proven itself.
    pub fn ready(&mut self, status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
        self.progress();
    }

    /// Configuration and package are being read anew; [`Service::ready`] ends that.
    pub fn reloading(&mut self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
        }
        self.progress();
    }

    /// A frame was classified, the source says that it is waiting for one, or a step of a reload is done.
    pub fn progress(&mut self) {
        let Some(every) = self.every else { return };
        if self.fed.is_none_or(|fed| fed.elapsed() >= every) {
            self.fed = Some(Instant::now());
            tell(&[NotifyState::Watchdog]);
        }
    }
}

/// The status line of `systemctl status`.
#[derive(Default)]
pub struct StatusLine {
    told: Option<Instant>,
    status: String,
}

impl Observer for StatusLine {
    fn show(&mut self, seen: &Snapshot<'_>) {
        // What was said is told at once, what is seen now and then.
        let news = self.status != seen.status;
        if !news && self.told.is_some_and(|told| told.elapsed() < STATUS) {
            return;
        }
        self.told = Some(Instant::now());
        self.status = seen.status.into();
        let seen = match seen.decision {
            "" => seen.status.to_string(),
            decision => format!("{decision} {:.2}, {:.1} fps; {}", seen.score, seen.fps, seen.status),
        };
        tell(&[NotifyState::Status(&seen)]);
    }
}
