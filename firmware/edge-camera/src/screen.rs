//! What is seen, on a display.

use crate::status::{self, Observer, Snapshot};
use crate::stop::Failure;
use edge_display::{Display, Level, Spec, Status};

/// A display that shows every frame's decision.
pub struct Screen(Display);

impl Screen {
    /// Opens what `--display` names.
    pub fn open(spec: &Spec) -> Result<Screen, Failure> {
        let display = Display::open(spec, status::tell);
        display.map(Screen).map_err(|e| Failure::usage(anyhow::Error::from(e).context("--display")))
    }
}

impl Observer for Screen {
    fn show(&mut self, seen: &Snapshot<'_>) {
        // What was said last is of interest until frames are classified again.
        let status = match seen.level {
            Level::Good => Status::good("running"),
            level => Status { level, text: seen.status.to_string().into() },
        };
        self.0.show(&edge_display::Snapshot {
            label: seen.decision.into(),
            known: seen.known,
            score: seen.score,
            fps: (seen.level != Level::Waiting && seen.fps > 0.0).then_some(seen.fps as f32),
            status,
        });
    }
}
