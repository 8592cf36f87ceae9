//! Programs of the workspace and of this machine.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the end of what a program printed is waited for, once it has ended itself.
const REST: Duration = Duration::from_secs(2);

/// A program that was built with this one; `EDGE_BIN_DIR` names another folder.
pub fn built(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("EDGE_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let this = std::env::current_exe().context("where this program is cannot be found out")?;
            this.parent().map(PathBuf::from).unwrap_or_default()
        }
    };
    let path = folder.join(name);
    if !path.exists() {
        bail!("{} is missing; `cargo build --workspace` makes it", path.display());
    }
    Ok(path)
}

/// Runs a program to its end, but no longer than `patience`, with `input` on its standard input; what it printed. One that
/// fails is an error with what it said. What it leaves running is left running, unless it was too late itself.
pub fn output(command: &mut Command, input: &[u8], patience: Duration) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        bail!("{name} has no pipes");
    };
    let input = input.to_vec();
    // One that ends without having read everything is judged by its exit code.
    std::thread::spawn(move || drop(stdin.write_all(&input)));
    let (said, complained) = (Pipe::read(stdout), Pipe::read(stderr));
    let ended = wait(&mut child, patience);
    if ended.is_none() {
        group(&child, Signal::KILL);
        let _ = child.wait();
    }
    let Some(status) = ended else {
        bail!("{name} did not end within {} s", patience.as_secs());
    };
    // What it left running may keep the pipes open; whatever it printed itself is there.
    let end = Instant::now() + REST;
    while !(said.is_finished() && complained.is_finished()) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (said, complained) = (said.take(), complained.take());
    if !status.success() {
        let text = if complained.is_empty() { &said } else { &complained };
        bail!("{name} failed ({status}): {}", String::from_utf8_lossy(text).trim());
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// What comes out of a pipe, whether it has an end or not.
struct Pipe {
    reading: std::thread::JoinHandle<()>,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Pipe {
    fn read(mut from: impl Read + Send + 'static) -> Pipe {
        let bytes = Arc::new(Mutex::new(vec![]));
        let into = Arc::clone(&bytes);
        let reading = std::thread::spawn(move || {
            let mut buffer = [0; 1 << 14];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                into.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
            }
        });
        Pipe { reading, bytes }
    }

    fn is_finished(&self) -> bool {
        self.reading.is_finished()
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Sends a signal to a program that leads a group of its own, and to all that it started.
pub fn group(child: &Child, signal: Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, signal);
    }
}

/// Waits for a program's end, no longer than `patience`.
pub fn wait(child: &mut Child, patience: Duration) -> Option<std::process::ExitStatus> {
    let end = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn sh(script: &str) -> Command {
        let mut sh = Command::new("sh");
        sh.args(["-c", script]);
        sh
    }

    #[test]
    fn what_is_given_is_read_and_what_is_printed_comes_back() {
        let large = vec![b'x'; 1 << 20];
        assert_eq!(output(&mut sh("cat"), &large, LONG).unwrap().len(), large.len());
        // It reads nothing of it.
        assert_eq!(output(&mut sh("echo done"), &large, LONG).unwrap(), "done\n");
    }

    #[test]
    fn what_is_left_running_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("later");
        let script = format!("(sleep 0.5; echo > '{}'; sleep 1000) & echo $!", file.display());
        let pid = output(&mut sh(&script), b"", LONG).unwrap();
        let end = Instant::now() + LONG;
        while !file.exists() {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(20));
        }
        output(&mut sh(&format!("kill {pid}")), b"", LONG).unwrap();
    }

    #[test]
    fn failures_say_why() {
        let why = output(&mut sh("echo no such thing >&2; exit 3"), b"", LONG).unwrap_err().to_string();
        assert!(why.contains("exit status: 3") && why.contains("no such thing"), "{why}");
        let why = output(&mut sh("sleep 1000"), b"", Duration::from_millis(100)).unwrap_err().to_string();
        assert!(why.contains("did not end within"), "{why}");
        let why = output(&mut Command::new("/no/such/program"), b"", LONG).unwrap_err().to_string();
        assert!(why.contains("cannot start /no/such/program"), "{why}");
    }
}
