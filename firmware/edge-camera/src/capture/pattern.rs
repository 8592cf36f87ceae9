//! Synthetic frames, for tests of everything but the camera.

use super::{Frame, Grab, Pace, Payload, Source};
use crate::stop::Failure;
use std::time::Instant;

/// A picture that differs from frame to frame and is the same on every machine.
pub struct Pattern {
    width: u32,
    height: u32,
    shown: u64,
    once: bool,
    pace: Pace,
}

impl Pattern {
    /// Frames of this size, one of them with `once`; without a rate as fast as they are taken.
    pub fn new(width: u32, height: u32, once: bool, rate: Option<f64>) -> Pattern {
        Pattern { width, height, shown: 0, once, pace: Pace::new(rate) }
    }
}

impl Source for Pattern {
    fn next(&mut self, deadline: Instant) -> Result<Grab, Failure> {
        if self.once && self.shown > 0 {
            return Ok(Grab::End);
        }
        if !self.pace.wait(deadline) {
            return Ok(Grab::Waiting(Default::default()));
        }
        let number = self.shown;
        self.shown += 1;
        let picture = edge_vision::synthetic(number, self.width, self.height);
        Ok(Grab::Frame(Frame::now(number, "pattern".into(), Payload::Picture(picture))))
    }

    fn describe(&self) -> String {
        format!("synthetic pattern {}x{}", self.width, self.height)
    }
}
