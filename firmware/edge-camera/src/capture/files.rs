//! A picture or a folder of pictures as a camera: sorted, once or over and over.

use super::{Frame, Grab, Pace, Payload, Source};
use crate::stop::Failure;
use anyhow::bail;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Rate of pictures shown over and over, when none is asked for.
const LOOP_RATE: f64 = 1.0;

/// Pictures from files.
pub struct Files {
    root: PathBuf,
    pictures: Vec<PathBuf>,
    /// Folders that could not be looked into, with the reason; each counts as a frame that failed.
    unreadable: Vec<(PathBuf, String)>,
    shown: usize,
    once: bool,
    pace: Pace,
}

impl Files {
    /// Lists the pictures at `path`.
    pub fn open(path: &Path, once: bool, rate: Option<f64>) -> anyhow::Result<Files> {
        let listing = edge_vision::picture_paths(path);
        match (listing.pictures.is_empty(), listing.unreadable.first()) {
            (true, Some(error)) => bail!("cannot open the source: {error}"),
            (true, None) => bail!("the folder {} has no pictures (.jpg, .jpeg, .png)", path.display()),
            _ => {}
        }
        let unreadable = listing.unreadable.into_iter().map(|e| (e.path, e.why.to_string())).collect();
        let rate = if once { rate } else { rate.or(Some(LOOP_RATE)) };
        Ok(Files { root: path.into(), pictures: listing.pictures, unreadable, shown: 0, once, pace: Pace::new(rate) })
    }
}

impl Source for Files {
    fn next(&mut self, deadline: Instant) -> Result<Grab, Failure> {
        let count = self.pictures.len() + self.unreadable.len();
        if self.once && self.shown >= count {
            return Ok(Grab::End);
        }
        if !self.pace.wait(deadline) {
            // A picture is not late: its time has not come.
            return Ok(Grab::Waiting(Default::default()));
        }
        let number = self.shown as u64;
        let index = self.shown % count;
        self.shown += 1;
        let (path, bytes) = match self.pictures.get(index) {
            Some(path) => (path, edge_vision::read_file(path).map_err(|e| e.to_string())),
            None => {
                let (path, why) = &self.unreadable[index - self.pictures.len()];
                (path, Err(why.clone()))
            }
        };
        Ok(Grab::Frame(Frame::now(number, path.display().to_string(), Payload::File(bytes))))
    }

    fn describe(&self) -> String {
        format!("{} picture(s) from {}", self.pictures.len(), self.root.display())
    }
}
