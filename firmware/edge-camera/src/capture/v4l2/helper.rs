//! The process that holds the camera, as the one that classifies sees it.

use crate::capture::pool::Pool;
use anyhow::Context;
use edge_device::capture::{Message, NEXT, read};
use std::io::{self, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a killed process is waited for at once. One that is stuck within the kernel takes longer, and is looked
/// after later.
const LAST_MOMENTS: Duration = Duration::from_millis(200);

/// What a helper said, or that it can say no more.
pub enum Heard {
    Message(Message, Vec<u8>),
    /// Nothing until the deadline.
    Nothing,
    /// It is gone, or talks nonsense.
    Gone(String),
}

/// A running helper.
pub struct Helper {
    child: Child,
    // Taken on the way out; the process ends when this is closed.
    stdin: Option<ChildStdin>,
    said: Receiver<io::Result<(Message, Vec<u8>)>>,
    reader: Option<JoinHandle<()>>,
}

impl Helper {
    /// Starts `command`, whose standard input and output become ours.
    pub fn start(mut command: Command, pool: &Pool) -> anyhow::Result<Helper> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the process that holds the camera")?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (say, said) = channel();
        let mut helper = Helper { child, stdin, said, reader: None };
        let mut stdout = stdout.context("a process without standard output")?;
        let spare = pool.clone();
        let reader = thread::Builder::new().name("frames".into()).spawn(move || {
            loop {
                let mut bytes = spare.take();
                let said = read(&mut stdout, &mut bytes).map(|message| (message, bytes));
                let ends = said.is_err();
                if say.send(said).is_err() || ends {
                    return;
                }
            }
        });
        // An error here drops the helper, which ends the process.
        helper.reader = Some(reader.context("cannot start the thread that reads frames")?);
        Ok(helper)
    }

    /// Asks for the next frame. That the process is gone is heard from [`Helper::hear`].
    pub fn ask(&mut self) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(&[NEXT]);
        }
    }

    /// What it says until the deadline.
    pub fn hear(&mut self, deadline: Instant) -> Heard {
        match self.said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Ok((message, bytes))) => Heard::Message(message, bytes),
            Ok(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => Heard::Gone("its process ended".into()),
            Ok(Err(e)) => Heard::Gone(format!("its process failed: {e}")),
            Err(RecvTimeoutError::Timeout) => Heard::Nothing,
            Err(RecvTimeoutError::Disconnected) => Heard::Gone("its process ended".into()),
        }
    }

    /// Kills it and gives it a moment to be gone.
    pub fn kill(&mut self) {
        self.stdin = None;
        let _ = self.child.kill();
        let deadline = Instant::now() + LAST_MOMENTS;
        while !self.gone() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it is gone, with nothing of it left: no process, no thread, no descriptor.
    pub fn gone(&mut self) -> bool {
        let dead = !matches!(self.child.try_wait(), Ok(None));
        if dead && let Some(reader) = self.reader.take_if(|reader| reader.is_finished()) {
            let _ = reader.join();
        }
        dead && self.reader.is_none()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if !self.gone() {
            self.kill();
        }
    }
}
