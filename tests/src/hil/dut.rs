//! What can be done with a device under test.

use super::DutFile;
use anyhow::{Result, anyhow, bail};
use edge_link::{Client, RawFrame, Request, Response, Stream};
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often something that is waited for is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(200);

/// What a camera may suffer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CameraFault {
    /// It is pulled out.
    Disconnect,
    /// And put back.
    Reconnect,
    /// It delivers nothing any more.
    Stall,
    /// And goes on.
    Resume,
    /// It loses this many percent of its buffers; 0 ends it.
    DropBuffers(u32),
    /// The next request of this kind fails, or all of them.
    Fail(Failing),
}

/// Requests of V4L2 that fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// For buffers.
    Reqbufs,
    /// To fill one.
    Qbuf,
    /// To begin.
    Streamon,
    /// Whatever is asked of what has begun, until it is opened anew.
    Streaming,
}

/// What the device was made with; it gives the expected results.
#[derive(Debug, Clone, PartialEq)]
pub struct Files {
    /// The package that runs on it.
    pub package: PathBuf,
    /// The key that signs packages for it.
    pub key: Option<PathBuf>,
    /// System bundles for it: a good one, newer than what runs.
    pub system: Option<PathBuf>,
}

/// A device under test. Everything is bounded: what does not happen in time is an error. What a device does not have
/// ([`DutFile::capabilities`]) is not asked of it.
pub trait Dut {
    /// What its file says of it.
    fn about(&self) -> &DutFile;

    /// What it was made with.
    fn files(&self) -> &Files;

    /// Gives it power and waits for the first class: seconds from power on to it by the device's own clock. A device that runs
    /// already is left running, and has none.
    fn boot(&mut self) -> Result<Option<f64>>;

    /// How many of its starts stalled and were tried again.
    fn retries(&self) -> u32 {
        0
    }

    /// A connected link; it is connected anew where the last one is lost ([`Dut::lost`]) or the device was started since.
    fn link(&mut self) -> Result<&mut Client>;

    /// The link has failed: the next one is to be a new one.
    fn lost(&mut self);

    /// The way to the camera before anything was said on it, opened anew; what [`Dut::link`] gave is closed.
    fn wire(&mut self) -> Result<Stream>;

    /// Takes its power away, at once and without a word.
    fn power_cut(&mut self) -> Result<()> {
        bail!("the power of {} cannot be cut", self.about().name)
    }

    /// Runs a script of the shell and gives what it printed; one that fails is an error with what it printed on standard
    /// error.
    fn shell(&mut self, _script: &str, _patience: Duration) -> Result<String> {
        bail!("{} has no shell", self.about().name)
    }

    /// Writes a file there.
    fn push(&mut self, _bytes: &[u8], _path: &str) -> Result<()> {
        bail!("{} takes no files", self.about().name)
    }

    /// From now on the camera delivers exactly this, in this format and size.
    fn show(&mut self, _picture: &RawFrame) -> Result<()> {
        bail!("the camera of {} shows what is in front of it", self.about().name)
    }

    /// Makes the camera fail.
    fn fault(&mut self, _fault: CameraFault) -> Result<()> {
        bail!("the camera of {} cannot be made to fail", self.about().name)
    }

    /// What its console printed so far.
    fn console(&mut self) -> Result<String> {
        bail!("{} has no console", self.about().name)
    }

    /// Switches it off in order, and gives its card: a file of this machine that `edge-flash` takes for a disk. The next
    /// start is from it.
    fn card(&mut self) -> Result<PathBuf> {
        bail!("the card of {} cannot be taken out", self.about().name)
    }

    /// A system update for it that is signed and newer than all before it: the system that it was made with, or one whose
    /// camera program ends at once.
    fn system(&mut self, _works: bool) -> Result<PathBuf> {
        bail!("there are no systems for {}", self.about().name)
    }

    /// The number of the camera program's process.
    fn camera(&mut self) -> Result<u32> {
        let patience = self.about().patience();
        let printed = self.shell(CAMERA, patience)?;
        match printed.trim().parse() {
            Ok(pid) => Ok(pid),
            Err(_) => bail!("{}: edge-camera does not run there", self.about().name),
        }
    }

    /// The whole log in its order, a value each line. A last line that is still being written is left out.
    fn log(&mut self) -> Result<Vec<Value>> {
        let text = self.log_text()?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse = |line: &str| match serde_json::from_str(line) {
            Ok(value) => Ok(value),
            Err(e) => bail!("a line of the log is no JSON ({e}): {line:?}"),
        };
        whole.lines().map(parse).collect()
    }

    /// The whole log as it is, through the link. While it is read it grows and its files may be renamed; such a read is
    /// taken again.
    fn log_text(&mut self) -> Result<String> {
        let patience = self.about().patience();
        for _ in 0..5 {
            let link = self.link()?;
            let mut files = vec![];
            while let Some(bytes) = log_file(link, files.len() as u32, patience)? {
                files.push(bytes);
            }
            // The first bytes of a file are another's once files were renamed.
            let begin = files.first().map(|bytes: &Vec<u8>| bytes[..bytes.len().min(256)].to_vec()).unwrap_or_default();
            let again = log_part(link, 0, 0, begin.len() as u32, patience)?.1;
            if again == begin {
                files.reverse();
                return Ok(String::from_utf8(files.concat())?);
            }
        }
        bail!("{}: the log's files were renamed each time that they were read", self.about().name)
    }
}

/// Waits for the camera's first class, after a start; seconds from power on to it by the device's own clock, where it tells.
///
/// # Errors
///
/// Where none comes in the time that the device's file allows.
pub fn first_class(dut: &mut dyn Dut) -> Result<Option<f64>> {
    let end = Instant::now() + dut.about().first_class();
    loop {
        let last = match classified(dut) {
            Ok(Some(statistics)) => return Ok(statistics["boot_to_first_class_s"].as_f64()),
            Ok(None) => anyhow!("its camera gives no frame"),
            Err(why) => {
                dut.lost();
                why
            }
        };
        if Instant::now() >= end {
            let waited = dut.about().first_class().as_secs();
            return Err(last.context(format!("{} has classified nothing within {waited} s", dut.about().name)));
        }
        std::thread::sleep(LOOK);
    }
}

/// The camera's statistics, once it has classified.
fn classified(dut: &mut dyn Dut) -> Result<Option<Value>> {
    let patience = dut.about().patience();
    let statistics: Value = match dut.link()?.ask(&Request::Statistics, patience)? {
        Response::Statistics(text) => serde_json::from_str(&text)?,
        other => bail!("the camera answers {other:?} when asked for its statistics"),
    };
    Ok((statistics["frames"].as_u64() > Some(0)).then_some(statistics))
}

/// The camera program whose parent is none: it starts itself once more to hold the camera.
const CAMERA: &str = r#"
for p in /proc/[0-9]*; do
    read -r name 2>/dev/null <"$p/comm" && [ "$name" = edge-camera ] || continue
    parent=$(sed -n 's/^PPid:[[:space:]]*//p' "$p/status" 2>/dev/null)
    read -r name 2>/dev/null <"/proc/$parent/comm"
    [ "$name" = edge-camera ] || echo "${p#/proc/}"
done | head -n 1
"#;

/// How much of a log is asked for at once.
const PART: u32 = 1 << 18;

fn log_part(link: &mut Client, file: u32, from: i64, length: u32, patience: Duration) -> Result<(u64, Vec<u8>)> {
    match link.ask(&Request::Log { file, from, length }, patience)? {
        Response::Log { length, bytes } => Ok((length, bytes)),
        other => bail!("the camera answers {other:?} when asked for its log"),
    }
}

/// A file of the log, as long as it is when it is first asked for; nothing where there is no such file.
fn log_file(link: &mut Client, file: u32, patience: Duration) -> Result<Option<Vec<u8>>> {
    let (length, mut bytes) = log_part(link, file, 0, PART, patience)?;
    if length == 0 && file > 0 {
        return Ok(None);
    }
    while (bytes.len() as u64) < length {
        let (_, more) = log_part(link, file, bytes.len() as i64, PART, patience)?;
        if more.is_empty() {
            break;
        }
        bytes.extend(more);
    }
    Ok(Some(bytes))
}
