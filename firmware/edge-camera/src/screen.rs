//! What happens, on a display, where there is one.

use crate::args::Args;
use crate::status;
use crate::stop::Failure;
use edge_device::event::{Event, Fault};
use edge_display::{Display, Snapshot, Status};
use edge_package::UNKNOWN;
use std::time::{Duration, Instant};

/// Silence of the source that is worth showing.
const SILENT: Duration = Duration::from_secs(2);

/// The display and what it shows.
pub struct Screen {
    display: Option<Display>,
    shown: Snapshot,
    last: Option<Instant>,
    /// Seconds from one classified frame to the next, averaged.
    interval: Option<f32>,
}

impl Screen {
    /// Opens what `--display` names.
    pub fn open(args: &Args) -> Result<Screen, Failure> {
        let display = args.display.as_ref().map(|spec| Display::open(spec, status::tell)).transpose();
        let screen = Screen {
            display: display.map_err(|e| Failure::usage(anyhow::Error::from(e).context("--display")))?,
            shown: Snapshot { status: Status::waiting("waiting for the first picture"), ..Snapshot::default() },
            last: None,
            interval: None,
        };
        screen.show();
        Ok(screen)
    }

    /// A frame was classified.
    pub fn classified(&mut self, event: &Event) {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            let seconds = (now - last).as_secs_f32();
            // As in the status line, a moving average over about ten frames keeps the rate readable.
            self.interval = Some(self.interval.map_or(seconds, |i| 0.9 * i + 0.1 * seconds));
        }
        self.shown = Snapshot {
            label: event.decision.clone(),
            known: event.decision != UNKNOWN,
            score: event.top.first().map_or(0.0, |t| t.score),
            fps: self.interval.filter(|i| *i > 0.0).map(|i| 1.0 / i),
            status: Status::good("running"),
        };
        self.show();
    }

    /// A frame could not be classified.
    pub fn fault(&mut self, fault: &Fault) {
        self.status(Status::bad(fault.error.clone()));
    }

    /// No frame came for `since`.
    pub fn waiting(&mut self, since: Duration) {
        if since >= SILENT {
            self.shown.fps = None;
            self.last = None;
            self.status(Status::waiting(format!("no picture for {} s", since.as_secs())));
        }
    }

    /// Something is to be said besides the last decision.
    pub fn status(&mut self, status: Status) {
        self.shown.status = status;
        self.show();
    }

    fn show(&self) {
        if let Some(display) = &self.display {
            display.show(&self.shown);
        }
    }
}
