//! Engines built by `trtexec`, which is watched meanwhile.

use crate::TensorRtError;
use crate::cache::{Entry, Held};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// How often it is looked at, at least.
const TICK: Duration = Duration::from_millis(100);
/// Longer than any network that a camera runs takes to build; a program that hangs does not hold up the camera for ever.
const LONGEST: Duration = Duration::from_secs(3600);
/// Lines that are kept for an error.
const KEPT: usize = 6;
/// The bytes of a line that are kept.
const LINE: usize = 500;

/// What happens on the way to a network.
#[derive(Debug)]
pub enum Progress<'a> {
    /// Another process builds, and is waited for.
    Waiting,
    /// The engine in the cache is of no use; why.
    Stale(&'a str),
    /// An engine is being built.
    Building {
        /// For so long.
        elapsed: Duration,
        /// What `trtexec` said last.
        said: &'a str,
    },
    /// It is built and in the cache.
    Built {
        /// How long that took.
        took: Duration,
        /// Its size.
        bytes: u64,
    },
}

/// Where `trtexec` is: in PATH, or where JetPack and Debian's packages put it.
pub fn find_trtexec() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    folders.chain([PathBuf::from("/usr/src/tensorrt/bin")]).map(|folder| folder.join("trtexec")).find(|p| p.is_file())
}

/// Ends the program with whoever waits for it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Builds an engine from an ONNX file and returns its bytes.
///
/// A build that outlives this process, because that was killed, ends with its next line: there is nobody to read it.
pub(crate) fn run(
    trtexec: &Path,
    held: &Held<'_>,
    entry: &Entry,
    onnx: &[u8],
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<u8>, TensorRtError> {
    let start = Instant::now();
    // From the first moment: writing the file may take one, too.
    progress(Progress::Building { elapsed: Duration::ZERO, said: "" });
    let (from, to) = (held.scratch("onnx", onnx)?, held.scratch_name("plan"));
    let flag = |name: &str, path: &Path| {
        let mut flag = std::ffi::OsString::from(name);
        flag.push(path);
        flag
    };
    let mut command = Command::new(trtexec);
    command.arg(flag("--onnx=", from.path())).arg(flag("--saveEngine=", to.path())).args(["--skipInference", "--fp16"]);
    if entry.precision == "int8" {
        command.arg("--int8");
    }
    let fail = |why: String, said: Vec<String>| TensorRtError::Build { trtexec: trtexec.into(), why, said };
    let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut running = Running(started.map_err(|e| fail(format!("it cannot be started: {e}"), vec![]))?);
    let lines = lines(&mut running.0);
    let mut said = Said::default();
    let ended = loop {
        said.wait(&lines);
        progress(Progress::Building { elapsed: start.elapsed(), said: &said.last });
        match running.0.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if start.elapsed() > LONGEST => {
                return Err(fail(format!("it did not end within {} minutes", LONGEST.as_secs() / 60), said.errors()));
            }
            Ok(None) => {}
            Err(e) => return Err(fail(format!("it cannot be waited for: {e}"), said.errors())),
        }
    };
    said.rest(lines);
    if !ended.success() {
        return Err(fail(described(ended), said.errors()));
    }
    let plan = match std::fs::read(to.path()) {
        Ok(plan) if !plan.is_empty() => plan,
        Ok(_) => return Err(fail("it ended well, but its engine is empty".into(), said.errors())),
        Err(e) => return Err(fail(format!("it ended well, but its engine cannot be read: {e}"), said.errors())),
    };
    progress(Progress::Built { took: start.elapsed(), bytes: plan.len() as u64 });
    Ok(plan)
}

fn described(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        // The kernel's, when there is no memory left.
        (_, Some(9)) => "it was killed (signal 9), as the system does when memory runs out".into(),
        (_, Some(signal)) => format!("it was ended by signal {signal}"),
        (code, _) => format!("it ended with exit code {}", code.unwrap_or_default()),
    }
}

/// What it says on both its outputs, line by line.
fn lines(child: &mut Child) -> Receiver<String> {
    fn read(from: impl Read + Send + 'static, to: Sender<String>) {
        std::thread::spawn(move || {
            let mut reader = BufReader::new(from);
            let mut line = vec![];
            while reader.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                line.truncate(LINE);
                let text = String::from_utf8_lossy(&line).trim().to_string();
                line.clear();
                if !text.is_empty() && to.send(text).is_err() {
                    break;
                }
            }
        });
    }
    let (sender, receiver) = mpsc::channel();
    if let Some(out) = child.stdout.take() {
        read(out, sender.clone());
    }
    if let Some(err) = child.stderr.take() {
        read(err, sender);
    }
    receiver
}

/// The lines worth keeping: those marked as errors, or else the last ones.
#[derive(Default)]
struct Said {
    last: String,
    recent: VecDeque<String>,
    errors: VecDeque<String>,
}

impl Said {
    /// Waits for lines, but not for long.
    fn wait(&mut self, lines: &Receiver<String>) {
        match lines.recv_timeout(TICK) {
            Ok(line) => self.add(line),
            Err(RecvTimeoutError::Timeout) => {}
            // It has closed its outputs, and will end.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(TICK / 10),
        }
        lines.try_iter().for_each(|line| self.add(line));
    }

    /// The lines that come after its end: until both outputs are closed, or a child of its own keeps them open.
    fn rest(&mut self, lines: Receiver<String>) {
        while let Ok(line) = lines.recv_timeout(Duration::from_secs(1)) {
            self.add(line);
        }
    }

    fn add(&mut self, line: String) {
        let errors = line.contains("[E]").then_some(&mut self.errors);
        for kept in errors.into_iter().chain([&mut self.recent]) {
            kept.push_back(line.clone());
            if kept.len() > KEPT {
                kept.pop_front();
            }
        }
        self.last = line;
    }

    fn errors(self) -> Vec<String> {
        let kept = if self.errors.is_empty() { self.recent } else { self.errors };
        kept.into()
    }
}
