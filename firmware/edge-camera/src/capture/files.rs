//! A picture or a folder of pictures as a camera: sorted, once or over and over.

use super::{Frame, Grab, Pace, Payload, Source};
use crate::stop::Failure;
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Rate of a folder shown over and over, when none is asked for.
const LOOP_RATE: f64 = 1.0;

/// Pictures from files.
pub struct Files {
    root: PathBuf,
    paths: Vec<PathBuf>,
    shown: u64,
    once: bool,
    pace: Pace,
}

impl Files {
    /// Lists the pictures at `path`.
    pub fn open(path: &Path, once: bool, rate: Option<f64>) -> anyhow::Result<Files> {
        let paths =
            edge_vision::picture_paths(path).with_context(|| format!("cannot open the source {}", path.display()))?;
        if paths.is_empty() {
            bail!("the folder {} has no pictures (.jpg, .jpeg, .png)", path.display());
        }
        let rate = if once { rate } else { rate.or(Some(LOOP_RATE)) };
        Ok(Files { root: path.into(), paths, shown: 0, once, pace: Pace::new(rate) })
    }
}

impl Source for Files {
    fn next(&mut self, deadline: Instant) -> Result<Grab, Failure> {
        let count = self.paths.len() as u64;
        if self.once && self.shown >= count {
            return Ok(Grab::End);
        }
        if !self.pace.wait(deadline) {
            // A picture is not late: its time has not come.
            return Ok(Grab::Waiting(Default::default()));
        }
        let path = &self.paths[(self.shown % count) as usize];
        let number = self.shown;
        self.shown += 1;
        Ok(Grab::Frame(Frame::now(number, path.display().to_string(), Payload::File(std::fs::read(path)))))
    }

    fn describe(&self) -> String {
        format!("{} picture(s) from {}", self.paths.len(), self.root.display())
    }
}
