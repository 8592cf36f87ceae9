//! Programs that are started and watched over: what they print is told, and they can be ended with all they started.

use crate::keeper::Exit;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, wait};
use std::io::{ErrorKind, PipeReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// A longer line is told in parts.
const LONGEST: usize = 1000;

/// A program that runs, in a process group of its own.
pub struct Child {
    /// Its process.
    pub pid: Pid,
    printed: Option<PipeReader>,
    begun: Vec<u8>,
}

impl Child {
    /// Starts it, with nothing to read, and what it prints for [`Child::lines`].
    pub fn start(command: &mut Command) -> std::io::Result<Child> {
        Child::start_with(command, Stdio::null())
    }

    /// The same with something to read.
    pub fn start_with(command: &mut Command, stdin: Stdio) -> std::io::Result<Child> {
        let (printed, writer) = std::io::pipe()?;
        fcntl_setfl(&printed, fcntl_getfl(&printed)? | OFlags::NONBLOCK)?;
        command.stdin(stdin).stdout(writer.try_clone()?).stderr(writer).process_group(0);
        let child = command.spawn();
        // The command keeps its ends of the pipe otherwise.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // The process is waited for with all others; this handle does neither wait nor kill when it is dropped.
        let child = child?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
        let pid = pid.ok_or_else(|| std::io::Error::other("the new process has no number"))?;
        Ok(Child { pid, printed: Some(printed), begun: vec![] })
    }

    /// The lines that it printed since this was asked last. `end`: with one that has no end yet.
    pub fn lines(&mut self, end: bool) -> Vec<String> {
        let mut lines = vec![];
        // A program that prints without end must not keep everybody else waiting.
        for _ in 0..16 {
            let mut buffer = [0; 4096];
            match self.printed.as_mut().map(|printed| printed.read(&mut buffer)) {
                Some(Ok(0)) | None => {
                    self.printed = None;
                    break;
                }
                Some(Ok(length)) => self.take(&buffer[..length], &mut lines),
                Some(Err(why)) if why.kind() == ErrorKind::Interrupted => {}
                Some(Err(_)) => break,
            }
        }
        if end && !self.begun.is_empty() {
            lines.push(clean(&std::mem::take(&mut self.begun)));
        }
        lines
    }

    fn take(&mut self, bytes: &[u8], lines: &mut Vec<String>) {
        for byte in bytes {
            let ends = *byte == b'\n';
            if !ends {
                self.begun.push(*byte);
            }
            if ends || self.begun.len() >= LONGEST {
                let line = clean(&std::mem::take(&mut self.begun));
                lines.extend(Some(line).filter(|line| !line.is_empty()));
            }
        }
    }

    /// Where to look for new lines.
    pub fn poll(&self) -> Option<PollFd<'_>> {
        self.printed.as_ref().map(|printed| PollFd::new(printed, PollFlags::IN))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        // It may have ended meanwhile; it stays a zombie, and its number its own, until it is waited for.
        let _ = kill_process(self.pid, signal);
    }

    /// Ends it and all that it started.
    pub fn kill(&self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
        self.signal(Signal::KILL);
    }

    /// Ends what it left behind, itself being gone: a process that holds a camera would keep the next one from it.
    pub fn kill_rest(&self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
    }
}

/// A line as it can be shown on any console.
fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_end().chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The children that ended, orphans among them: the first process inherits those.
pub fn ended() -> Vec<(Pid, Exit)> {
    let mut ended = vec![];
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                let code = status.exit_status().map(Exit::Code);
                ended.extend(code.or(status.terminating_signal().map(Exit::Signal)).map(|exit| (pid, exit)));
            }
            Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(_) => return ended,
        }
    }
}

/// Whether there are no children at all.
pub fn none() -> bool {
    matches!(wait(WaitOptions::NOHANG), Err(rustix::io::Errno::CHILD))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn all(script: &str) -> Vec<String> {
        let mut child = Child::start(Command::new("sh").args(["-c", script])).unwrap();
        let (mut lines, begin) = (vec![], Instant::now());
        while child.poll().is_some() && begin.elapsed() < Duration::from_secs(60) {
            lines.extend(child.lines(false));
            std::thread::sleep(Duration::from_millis(1));
        }
        lines.extend(child.lines(true));
        lines
    }

    #[test]
    fn what_a_program_prints_comes_as_lines() {
        assert_eq!(
            all("echo one; printf 'two\\nth'; echo ree >&2; echo; printf 'four'"),
            ["one", "two", "three", "four"]
        );
        assert_eq!(all("printf 'a\\033[2Jb\\377c\\r\\n'"), ["a?[2Jb\u{fffd}c"]);
        let long = all("head -c 2500 /dev/zero | tr '\\0' x; echo");
        assert_eq!(long.iter().map(String::len).collect::<Vec<_>>(), [1000, 1000, 500]);
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        assert_eq!(Child::start(&mut Command::new("/nonexistent")).err().unwrap().kind(), ErrorKind::NotFound);
    }
}
