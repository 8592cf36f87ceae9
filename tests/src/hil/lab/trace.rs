//! What was done with a camera and what came of it, line by line.

use crate::hil::Size;
use anyhow::{Context, Result};
use edge_vision::PixelFormat;
use serde::{Deserialize, Serialize};
use std::path::{Component, Path, PathBuf};

/// One thing that was done, or that came of it, with its time in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When.
    pub at_s: f64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// A line's matter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A picture is shown.
    Show {
        /// Its file, relative to the script's or the trace's folder.
        picture: PathBuf,
        /// BLAKE3-256 of the file, as hexadecimal digits.
        digest: String,
        /// The frame's layout.
        format: PixelFormat,
        /// Its size.
        size: Size,
    },
    /// The camera fails, or has failed for long enough.
    Fault(String),
    /// What the camera said in its log.
    Told {
        /// The event.
        event: String,
        /// In words.
        detail: String,
    },
    /// What it decided for, of a frame with every byte as shown.
    Decided(String),
}

/// All of it, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trace(pub Vec<Line>);

impl Trace {
    /// Reads a trace: a JSON object a line.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub fn read(path: &Path) -> Result<Trace> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let parse = |(number, line)| {
            serde_json::from_str(line).with_context(|| format!("{} line {}", path.display(), number + 1))
        };
        let mut lines: Vec<Line> = text.lines().enumerate().map(parse).collect::<Result<_>>()?;
        for line in &mut lines {
            if let What::Show { picture, .. } = &mut line.what {
                *picture = path.parent().unwrap_or(Path::new("")).join(&*picture);
            }
        }
        Ok(Trace(lines))
    }

    /// Writes it, with the pictures' paths relative to its folder.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = folder.canonicalize().with_context(|| format!("there is no folder {}", folder.display()))?;
        let mut text = String::new();
        for line in &self.0 {
            let mut line = line.clone();
            if let What::Show { picture, .. } = &mut line.what {
                let whole = picture.canonicalize().with_context(|| format!("{} is gone", picture.display()))?;
                *picture = relative(&whole, &folder);
            }
            text += &(serde_json::to_string(&line)? + "\n");
        }
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What was done.
    pub fn steps(&self) -> Vec<Line> {
        let done = |line: &&Line| matches!(line.what, What::Show { .. } | What::Fault(_));
        self.0.iter().filter(done).cloned().collect()
    }

    /// What came of each thing that was done, as it must come again: whether the camera was silent, whether it came back,
    /// and what it decided for. How it calls its silence depends on how long it was.
    pub fn outcome(&self) -> Vec<String> {
        self.lines(|label| format!("  it decides for {label}"))
    }

    /// The same whatever the network: that it decided for something is left, and what it was is not.
    pub fn events(&self) -> Vec<String> {
        self.lines(|_| "  it decides".into())
    }

    fn lines(&self, decided: impl Fn(&str) -> String) -> Vec<String> {
        let mut outcome: Vec<String> = vec![];
        // A camera whose device is busy may be silent for a moment while nothing is wrong, and for longer than it had to.
        let (mut may_be_silent, mut may_come_back) = (false, false);
        for line in &self.0 {
            let text = match &line.what {
                What::Show { picture, format, size, .. } => {
                    let name = picture.file_name().unwrap_or_default().to_string_lossy();
                    format!("show {name}, {size} {format}")
                }
                What::Fault(name) => name.clone(),
                What::Told { event, .. } if may_be_silent && event != "camera_back" => "  it is silent".into(),
                What::Told { event, .. } if may_come_back && event == "camera_back" => "  it delivers again".into(),
                What::Told { .. } => continue,
                What::Decided(label) => decided(label),
            };
            match &line.what {
                What::Show { .. } => (may_be_silent, may_come_back) = (false, false),
                What::Fault(name) if name == "stall" || name == "disconnect" => {
                    (may_be_silent, may_come_back) = (true, false);
                }
                What::Fault(name) if name == "resume" || name == "reconnect" => {
                    (may_be_silent, may_come_back) = (false, true);
                }
                What::Fault(_) => (may_be_silent, may_come_back) = (true, true),
                What::Told { event, .. } if event == "camera_back" => (may_be_silent, may_come_back) = (false, false),
                // It may tell of more than one reason.
                What::Told { .. } => may_be_silent = false,
                What::Decided(_) => {}
            }
            outcome.push(text);
        }
        outcome
    }
}

/// The way from a folder to a file, both from the root on.
fn relative(file: &Path, folder: &Path) -> PathBuf {
    let common = file.components().zip(folder.components()).take_while(|(a, b)| a == b).count();
    let up = folder.components().skip(common).map(|_| Component::ParentDir);
    up.chain(file.components().skip(common)).collect()
}

/// Where what came of a trace is another thing than what was recorded: in words, as it was then and is now.
pub fn difference(before: &[String], now: &[String]) -> Option<String> {
    if before == now {
        return None;
    }
    let place = before.iter().zip(now).take_while(|(before, now)| before == now).count();
    let at = |outcome: &[String]| outcome.get(place).map_or("nothing more", |text| text.trim()).to_owned();
    let after = place.checked_sub(1).map_or("at the beginning".into(), |last| format!("after {:?}", now[last].trim()));
    Some(format!("{after}: {:?} then, {:?} now", at(before), at(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_often_a_silence_is_told_of_makes_no_difference() {
        let told = |event: &str| Line { at_s: 0.0, what: What::Told { event: event.into(), detail: "x".into() } };
        let did = |name: &str| Line { at_s: 0.0, what: What::Fault(name.into()) };
        let [stall, resume, stalled, lost, back] =
            [did("stall"), did("resume"), told("camera_stalled"), told("camera_lost"), told("camera_back")];
        let of = |lines: &[&Line]| Trace(lines.iter().copied().cloned().collect()).outcome();
        let usual = of(&[&stall, &stalled, &resume, &back]);
        assert_eq!(usual, ["stall", "  it is silent", "resume", "  it delivers again"]);
        assert_eq!(of(&[&stall, &stalled, &lost, &resume, &back]), usual);
        assert_eq!(of(&[&stall, &stalled, &resume, &lost, &back]), usual);
        assert_ne!(of(&[&stall, &resume, &back]), usual);
        assert_ne!(of(&[&stall, &stalled, &resume]), usual);
    }

    #[test]
    fn a_difference_is_told_with_its_place() {
        let lines = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        assert_eq!(difference(&lines("a b c"), &lines("a b c")), None);
        let told = |before: &str, now: &str| difference(&lines(before), &lines(now)).unwrap();
        assert_eq!(told("a b c", "a x c"), "after \"a\": \"b\" then, \"x\" now");
        assert_eq!(told("a b", "a"), "after \"a\": \"b\" then, \"nothing more\" now");
        assert_eq!(told("a", "a b"), "after \"a\": \"nothing more\" then, \"b\" now");
        assert_eq!(told("b", "a"), "at the beginning: \"b\" then, \"a\" now");
    }
}
