//! What is to be done with a camera: pictures, and faults with their times.

use super::trace::{Line, What};
use crate::hil::{Failing, Size};
use anyhow::{Context, Result, bail, ensure};
use edge_package::{digest, hex};
use edge_vision::PixelFormat;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What is done with a camera. Paths are relative to the script's folder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Script {
    /// A folder of JPEG and PNG files, shown in the order of their names, and then from the first one on.
    pub pictures: PathBuf,
    /// Seconds from one picture to the next.
    #[serde(default = "five")]
    pub each_s: f64,
    /// Seconds that all of it takes.
    pub for_s: f64,
    /// What goes wrong.
    #[serde(default)]
    pub fault: Vec<Scripted>,
}

fn five() -> f64 {
    5.0
}

/// Something that goes wrong: one of the keys beside `at-s`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scripted {
    /// When, in seconds.
    pub at_s: f64,
    /// It delivers nothing for so many seconds.
    pub stall_s: Option<f64>,
    /// It is pulled out for so many seconds.
    pub disconnect_s: Option<f64>,
    /// It delivers another size from now on.
    pub size: Option<Size>,
    /// It delivers another format from now on.
    pub format: Option<PixelFormat>,
    /// The next request of this kind fails: `reqbufs` or `streamon`, of a camera that is opened anew since what is under way
    /// fails, too, or `streaming` for that alone.
    pub fail: Option<String>,
}

impl Script {
    /// Reads a script; its folder of pictures is then relative to nothing.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, or says what cannot be.
    pub fn read(path: &Path) -> Result<Script> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut script: Script = toml::from_str(&text).with_context(|| path.display().to_string())?;
        script.pictures = path.parent().unwrap_or(Path::new("")).join(&script.pictures);
        script.check().with_context(|| path.display().to_string())?;
        Ok(script)
    }

    fn check(&self) -> Result<()> {
        let time = |seconds: f64| seconds.is_finite() && (0.0..=86_400.0).contains(&seconds);
        ensure!(
            time(self.for_s) && time(self.each_s) && self.each_s >= 0.1,
            "for-s and each-s are seconds, a day at most"
        );
        for fault in &self.fault {
            let Scripted { at_s, stall_s, disconnect_s, size, format, fail } = fault;
            let given = [stall_s.is_some(), disconnect_s.is_some(), size.is_some(), format.is_some(), fail.is_some()];
            ensure!(
                given.iter().filter(|given| **given).count() == 1,
                "the fault at {at_s} s needs one of stall-s, disconnect-s, size, format and fail"
            );
            ensure!(
                [*at_s, stall_s.unwrap_or(0.0), disconnect_s.unwrap_or(0.0)].into_iter().all(time),
                "the fault at {at_s} s: times are seconds, a day at most"
            );
            fail.as_deref().map(failing).transpose()?;
        }
        Ok(())
    }

    /// What is done, in the order of its time. `format` and `size` are those that the camera begins with.
    ///
    /// # Errors
    ///
    /// Where there are no pictures.
    pub fn steps(&self, mut format: PixelFormat, mut size: Size) -> Result<Vec<Line>> {
        let pictures = pictures(&self.pictures)?;
        let mut times: Vec<(f64, Option<&Scripted>)> =
            self.fault.iter().map(|fault| (fault.at_s, Some(fault))).collect();
        let count = (self.for_s / self.each_s).ceil().max(1.0) as usize;
        times.extend((0..count).map(|number| (number as f64 * self.each_s, None)));
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut steps, mut shown) = (vec![], 0);
        for (at_s, fault) in times {
            let fault_line = |at_s: f64, what: &str| Line { at_s, what: What::Fault(what.into()) };
            let mut show = None;
            match fault {
                None => {
                    show = Some(shown % pictures.len());
                    shown += 1;
                }
                Some(fault) => {
                    if let Some(seconds) = fault.stall_s {
                        steps.extend([fault_line(at_s, "stall"), fault_line(at_s + seconds, "resume")]);
                    } else if let Some(seconds) = fault.disconnect_s {
                        steps.extend([fault_line(at_s, "disconnect"), fault_line(at_s + seconds, "reconnect")]);
                    } else if let Some(kind) = &fault.fail {
                        steps.push(fault_line(at_s, &format!("fail {kind}")));
                    } else {
                        (format, size) = (fault.format.unwrap_or(format), fault.size.unwrap_or(size));
                        show = Some(shown.saturating_sub(1) % pictures.len());
                    }
                }
            }
            if let Some(picture) = show.map(|number| &pictures[number]) {
                let bytes = std::fs::read(picture).with_context(|| format!("cannot read {}", picture.display()))?;
                let (picture, digest) = (picture.clone(), hex(&digest(&bytes)));
                steps.push(Line { at_s, what: What::Show { picture, digest, format, size } });
            }
        }
        steps.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        Ok(steps)
    }
}

fn pictures(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let photo = |path: &PathBuf| {
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        matches!(extension.as_deref(), Some("jpg" | "jpeg" | "png"))
    };
    let mut pictures: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(photo).collect();
    pictures.sort();
    ensure!(!pictures.is_empty(), "{} has no JPEG and no PNG file", folder.display());
    Ok(pictures)
}

/// What a script calls a request that fails.
pub(super) fn failing(kind: &str) -> Result<Failing> {
    match kind {
        "reqbufs" => Ok(Failing::Reqbufs),
        "streamon" => Ok(Failing::Streamon),
        "streaming" => Ok(Failing::Streaming),
        other => bail!("{other:?} cannot be made to fail; reqbufs, streamon and streaming can"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::trace::Trace;
    use super::*;

    const SMALL: Size = Size { width: 640, height: 480 };

    fn script(folder: &Path, more: &str) -> Result<Script> {
        let path = folder.join("script.toml");
        std::fs::write(&path, format!("pictures = \"photos\"\nfor-s = 12\n{more}"))?;
        Script::read(&path)
    }

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("photos")).unwrap();
        for name in ["b.JPG", "a.png", "note.txt"] {
            std::fs::write(dir.path().join("photos").join(name), name).unwrap();
        }
        dir
    }

    #[test]
    fn pictures_and_faults_come_in_the_order_of_their_times() {
        let dir = folder();
        let faults = "[[fault]]\nat-s = 3\nstall-s = 5\n[[fault]]\nat-s = 9\nsize = \"1280x720\"\n\
                      [[fault]]\nat-s = 11\nfail = \"streaming\"\n";
        let steps = script(dir.path(), faults).unwrap().steps(PixelFormat::Yuyv, SMALL).unwrap();
        let outcome = Trace(steps.clone()).outcome();
        assert_eq!(
            outcome,
            [
                "show a.png, 640x480 YUYV",
                "stall",
                "show b.JPG, 640x480 YUYV",
                "resume",
                "show b.JPG, 1280x720 YUYV",
                "show a.png, 1280x720 YUYV",
                "fail streaming"
            ]
        );
        // What is written is what is read, and what is done again.
        let path = dir.path().join("trace.jsonl");
        let told = What::Told { event: "camera_lost".into(), detail: "gone".into() };
        // The last step is one that fails.
        let trace = Trace(steps.iter().cloned().chain([Line { at_s: 12.5, what: told }]).collect());
        trace.write(&path).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"photos/a.png\""));
        let read = Trace::read(&path).unwrap();
        assert_eq!(read.steps().len(), steps.len());
        assert_eq!(read.outcome(), trace.outcome());
        assert_eq!(read.outcome().last().unwrap(), "  it is silent");
    }

    #[test]
    fn what_a_script_cannot_say_is_told() {
        let dir = folder();
        for (more, part) in [
            ("[[fault]]\nat-s = 3\n", "needs one of"),
            ("[[fault]]\nat-s = 3\nstall-s = 1\nsize = \"640x480\"\n", "needs one of"),
            ("[[fault]]\nat-s = 3\nfail = \"open\"\n", "cannot be made to fail"),
            ("[[fault]]\nat-s = -3\nstall-s = 1\n", "times are seconds"),
            ("each-s = 0\n", "for-s and each-s"),
            ("shake = 1\n", "shake"),
        ] {
            let why = format!("{:#}", script(dir.path(), more).unwrap_err());
            assert!(why.contains(part), "{more}: {why}");
        }
        let none = Script { pictures: dir.path().into(), each_s: 1.0, for_s: 1.0, fault: vec![] };
        assert!(none.steps(PixelFormat::Yuyv, SMALL).unwrap_err().to_string().contains("has no JPEG"));
    }
}
