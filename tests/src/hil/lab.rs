//! The camera fault lab: pictures and faults by a script, and what the camera makes of them.
//!
//! A script shows the pictures of a folder one after the other and lets the camera fail meanwhile. What was done and what
//! came of it is a [`Trace`], which can be replayed: the same is done again, and the same must come of it. Times are not
//! compared, since they are the machine's; a fault lasts until the camera has told of it, and a picture is shown until it
//! was decided on, however long that takes.

use super::{Bench, CameraFault, Capability, Dut, Failing, Options, Size, frame};
use anyhow::{Context, Result, bail, ensure};
use edge_link::PictureData;
use edge_package::{digest, hex};
use edge_vision::PixelFormat;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// How much of the log's end is looked at.
const TAIL: u32 = 1 << 18;

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

/// The way from a folder to a file, both from the root on.
fn relative(file: &Path, folder: &Path) -> PathBuf {
    let common = file.components().zip(folder.components()).take_while(|(a, b)| a == b).count();
    let up = folder.components().skip(common).map(|_| Component::ParentDir);
    up.chain(file.components().skip(common)).collect()
}

fn failing(kind: &str) -> Result<Failing> {
    match kind {
        "reqbufs" => Ok(Failing::Reqbufs),
        "streamon" => Ok(Failing::Streamon),
        "streaming" => Ok(Failing::Streaming),
        other => bail!("{other:?} cannot be made to fail; reqbufs, streamon and streaming can"),
    }
}

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

/// Does what `steps` say with a device that runs, and gives what came of it. `tell` is given every line as it comes.
///
/// # Errors
///
/// Where the device cannot do that, or something that is waited for does not come.
pub fn lab(dut: &mut dyn Dut, steps: Vec<Line>, folder: &Path, tell: &mut dyn FnMut(&Line)) -> Result<Trace> {
    for needed in [Capability::Link, Capability::Show, Capability::CameraFaults] {
        let about = dut.about();
        ensure!(about.capabilities.contains(&needed), "{} has no {needed}", about.name);
    }
    let options = Options { long: false, only: vec![], seed: 0, soak: Duration::ZERO };
    follow(&mut Bench::new(dut, folder, &options)?, steps, tell)
}

/// The same on a bench.
pub(super) fn follow(bench: &mut Bench, steps: Vec<Line>, tell: &mut dyn FnMut(&Line)) -> Result<Trace> {
    let mark = newest(bench)?;
    let mut lab = Lab { begin: Instant::now(), trace: Trace::default(), mark, shown: None, tell };
    let mut steps: VecDeque<Line> = steps.into();
    let mut waiting = VecDeque::new();
    let mut failed = false;
    while let Some(Line { at_s, what }) = steps.pop_front() {
        lab.wait(at_s);
        match what {
            // There is no camera that could show it; it is shown when there is one again.
            what @ What::Show { .. } if failed => waiting.push_back(what),
            What::Show { .. } => lab.show(bench, what)?,
            What::Fault(name) => {
                failed = lab.fault(bench, &name)?;
                while let (false, Some(what)) = (failed, waiting.pop_front()) {
                    lab.show(bench, what)?;
                }
            }
            What::Told { .. } | What::Decided(_) => bail!("a step is something that is done"),
        }
    }
    Ok(lab.trace)
}

/// The monotonic time of the log's last line.
fn newest(bench: &mut Bench) -> Result<f64> {
    Ok(bench.tail(TAIL)?.last().and_then(|line| line["monotonic_s"].as_f64()).unwrap_or(-1.0))
}

struct Lab<'a> {
    begin: Instant,
    trace: Trace,
    /// What of the log is told, by the clock that it counts by.
    mark: f64,
    /// The frame that is shown.
    shown: Option<edge_link::RawFrame>,
    tell: &'a mut dyn FnMut(&Line),
}

impl Lab<'_> {
    fn wait(&self, at_s: f64) {
        let until = self.begin + Duration::from_secs_f64(at_s.clamp(0.0, 86_400.0));
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }

    fn note(&mut self, what: What) {
        let at_s = (self.begin.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        let line = Line { at_s, what };
        (self.tell)(&line);
        self.trace.0.push(line);
    }

    fn show(&mut self, bench: &mut Bench, what: What) -> Result<()> {
        let What::Show { picture, digest: expected, format, size } = &what else { return Ok(()) };
        let bytes = std::fs::read(picture).with_context(|| format!("cannot read {}", picture.display()))?;
        let found = hex(&digest(&bytes));
        ensure!(found == *expected, "{} is another picture than it was ({found})", picture.display());
        let shown = frame(&bytes, *format, *size).with_context(|| picture.display().to_string())?;
        self.note(what.clone());
        self.shown = Some(shown.clone());
        let sight = bench.show(shown)?;
        self.heard(bench)?;
        self.decided(bench, sight.last)
    }

    /// Notes what the log tells of the camera since it was looked at last; whether it told of a silence, and of its end.
    fn heard(&mut self, bench: &mut Bench) -> Result<(bool, bool)> {
        let mut heard = (false, false);
        for line in bench.tail(TAIL)? {
            let Some(at) = line["monotonic_s"].as_f64().filter(|at| *at > self.mark) else { continue };
            self.mark = at;
            let Some(event) = line["event"].as_str().filter(|event| event.starts_with("camera_")) else { continue };
            heard = (heard.0 || event != "camera_back", heard.1 || event == "camera_back");
            let detail = line["detail"].as_str().unwrap_or_default().to_owned();
            self.note(What::Told { event: event.into(), detail });
        }
        Ok(heard)
    }

    fn decided(&mut self, bench: &mut Bench, frame: u64) -> Result<()> {
        bench.wait_until_logged(frame)?;
        let line = bench.tail(TAIL)?.into_iter().rfind(|line| line["frame"] == frame);
        let line = line.with_context(|| format!("frame {frame} is not in the log"))?;
        let label = line["decision"].as_str().context("a frame without a decision")?.to_owned();
        let shown = self.shown.clone().context("nothing was shown")?;
        let expected = bench.reference().classify(&PictureData::Raw(shown))?.decision;
        ensure!(label == expected, "it decides for {label}, this machine for {expected}");
        self.note(What::Decided(label));
        Ok(())
    }

    /// Lets the camera fail, or go on. Whether it fails from now on.
    fn fault(&mut self, bench: &mut Bench, name: &str) -> Result<bool> {
        let fault = match name.split_once(' ') {
            Some(("fail", kind)) => CameraFault::Fail(failing(kind)?),
            _ => match name {
                "stall" => CameraFault::Stall,
                "resume" => CameraFault::Resume,
                "disconnect" => CameraFault::Disconnect,
                "reconnect" => CameraFault::Reconnect,
                other => bail!("{other:?} is no fault"),
            },
        };
        self.heard(bench)?;
        self.note(What::Fault(name.into()));
        bench.dut.fault(fault)?;
        let patience = bench.patience();
        if matches!(fault, CameraFault::Fail(kind) if kind != Failing::Streaming) {
            // A camera that is open asks for no buffers: it has to be opened anew.
            bench.dut.fault(CameraFault::Fail(Failing::Streaming))?;
        }
        let begins = !matches!(fault, CameraFault::Resume | CameraFault::Reconnect);
        let mut back = false;
        if begins {
            bench.wait_for(&format!("the camera tells of it ({name})"), patience, |bench| {
                let (silent, again) = self.heard(bench)?;
                back = again;
                Ok(silent.then_some(()))
            })?;
        }
        if matches!(fault, CameraFault::Stall | CameraFault::Disconnect) {
            return Ok(true);
        }
        if !back {
            bench.wait_for(&format!("the camera delivers again ({name})"), patience, |bench| {
                Ok(self.heard(bench)?.1.then_some(()))
            })?;
        }
        let Some(shown) = self.shown.clone() else { return Ok(false) };
        let frame = bench.wait_for("what was shown is delivered again", patience, |bench| {
            let Some(PictureData::Raw(raw)) = bench.last_frame()? else { return Ok(None) };
            Ok((raw.bytes == shown.bytes).then_some(raw.number))
        })?;
        self.decided(bench, frame)?;
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
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
