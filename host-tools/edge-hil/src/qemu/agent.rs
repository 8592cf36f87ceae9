//! A shell on an emulated board, through a virtio port: the host's half of `agent.sh`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// What an answer may have of a script's output, in bytes.
const MOST: usize = 32 << 20;

/// How much longer than a script an answer may take: the way there and back, on a processor that may be busy.
const WAY: Duration = Duration::from_secs(60);

/// Files are pushed in parts: one that is under way is not waited for longer than a part may take.
const PART: usize = 256 << 10;

/// The connection. An answer carries its question's number, so one that came too late is passed over.
pub struct Agent {
    socket: UnixStream,
    number: u32,
    /// What came and is not used yet.
    pending: Vec<u8>,
}

/// What became of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its exit status; 137 where it was killed because it took too long.
    pub status: i32,
    /// What it printed on standard output.
    pub out: String,
    /// What it printed on standard error.
    pub err: String,
}

impl Agent {
    /// Connects to QEMU's end of the port. Whether the guest listens is seen when it is asked.
    pub fn connect(path: &Path) -> Result<Agent> {
        let socket = UnixStream::connect(path).with_context(|| format!("connecting to {}", path.display()))?;
        socket.set_write_timeout(Some(WAY))?;
        Ok(Agent { socket, number: 0, pending: Vec::new() })
    }

    /// Runs a script as root; it is killed when it has taken `patience`.
    pub fn run(&mut self, script: &str, patience: Duration) -> Result<Ran> {
        let seconds = patience.as_secs().max(1);
        self.ask(&format!("run {{number}} {seconds} {}", script.len()), script.as_bytes(), patience + WAY)
    }

    /// Writes a file; its folder must be there.
    pub fn push(&mut self, bytes: &[u8], path: &str) -> Result<()> {
        ensure!(!path.contains(['\n', '\'']), "{path:?} is no path for a file to be pushed to");
        let mut rest = bytes;
        let mut first = true;
        while first || !rest.is_empty() {
            let (part, after) = rest.split_at(rest.len().min(PART));
            let how = if first { "put" } else { "add" };
            let ran = self.ask(&format!("{how} {{number}} 0 {} {path}", part.len()), part, WAY)?;
            ensure!(ran.status == 0, "{path} cannot be written: {}", ran.err.trim());
            (rest, first) = (after, false);
        }
        Ok(())
    }

    /// Sends a line and bytes, and waits for the answer to just that.
    fn ask(&mut self, line: &str, bytes: &[u8], patience: Duration) -> Result<Ran> {
        self.number += 1;
        let number = self.number;
        let end = Instant::now() + patience;
        self.send(&format!("{}\n", line.replace("{number}", &number.to_string())), bytes)
            .context("the board's shell takes nothing")?;
        loop {
            let line = self.line(end)?;
            let words: Vec<&str> = line.split(' ').collect();
            // Other lines cannot come unless the guest's half was started anew.
            let ["done", answered, status, out, err] = words[..] else { continue };
            let length = |text: &str| text.parse::<usize>().ok().filter(|length| *length <= MOST);
            let (Some(out), Some(err)) = (length(out), length(err)) else {
                bail!("the board's shell answers {line:?}");
            };
            let out = self.bytes(out, end)?;
            let err = self.bytes(err, end)?;
            if answered == number.to_string() {
                let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                return Ok(Ran { status: status.parse().unwrap_or(-1), out: text(out), err: text(err) });
            }
        }
    }

    fn send(&mut self, line: &str, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(line.as_bytes())?;
        self.socket.write_all(bytes)
    }

    fn line(&mut self, end: Instant) -> Result<String> {
        loop {
            if let Some(at) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=at).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            ensure!(self.pending.len() < 4096, "the board's shell answers something else than lines");
            self.more(end)?;
        }
    }

    fn bytes(&mut self, count: usize, end: Instant) -> Result<Vec<u8>> {
        while self.pending.len() < count {
            self.more(end)?;
        }
        Ok(self.pending.drain(..count).collect())
    }

    fn more(&mut self, end: Instant) -> Result<()> {
        let left = end.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "the board's shell gave no answer in time");
        self.socket.set_read_timeout(Some(left))?;
        let mut buffer = [0; 1 << 14];
        match self.socket.read(&mut buffer) {
            Ok(0) => bail!("the board is off"),
            Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                bail!("the board's shell gave no answer in time")
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e).context("the board's shell cannot be heard"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::process::{Command, Stdio};

    /// The guest's half, run by this machine's shell on a socket.
    fn agent(folder: &Path) -> (Agent, std::thread::JoinHandle<()>) {
        let path = folder.join("port");
        let listener = UnixListener::bind(&path).unwrap();
        let script = format!("cd '{}'\n{}serve\n", folder.display(), super::super::guest::AGENT);
        let serving = std::thread::spawn(move || {
            let socket = listener.accept().unwrap().0;
            let ends: [std::os::fd::OwnedFd; 2] = [socket.try_clone().unwrap().into(), socket.into()];
            let [from, to] = ends.map(Stdio::from);
            let mut shell = Command::new("sh");
            shell.args(["-c", &script]).env("AGENT", ".").env("ONCE", "1").stdin(from).stdout(to);
            assert!(shell.status().unwrap().success());
        });
        (Agent::connect(&path).unwrap(), serving)
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn scripts_run_and_files_arrive_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (mut agent, serving) = agent(dir.path());
        let ran = agent.run("echo out; echo err >&2; cat; exit 3", PATIENCE).unwrap();
        assert_eq!(ran, Ran { status: 3, out: "out\n".into(), err: "err\n".into() });
        // Nothing, every byte, and more than a part.
        let all: Vec<u8> = (0..=255).cycle().take(PART + 1000).collect();
        for bytes in [&[][..], &all[..256], &all] {
            let path = dir.path().join("a file");
            agent.push(bytes, path.to_str().unwrap()).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        let why = agent.push(b"x", "/nonexistent/file").unwrap_err().to_string();
        assert!(why.starts_with("/nonexistent/file cannot be written: "), "{why}");
        assert_eq!(agent.run("printf 'no end of line'", PATIENCE).unwrap().out, "no end of line");
        let ran = agent.run("sleep 600", Duration::from_secs(1)).unwrap();
        assert_eq!(ran.status, 137);
        drop(agent);
        serving.join().unwrap();
    }
}
