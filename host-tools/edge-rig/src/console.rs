//! An emulator as a child process, and what it prints.

use std::io::Read;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

/// A child that does not outlive its handle, whatever error ends the run.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What QEMU prints (the guest's serial port, then its own complaints), read while it runs.
pub struct Console {
    seen: Arc<Mutex<Vec<u8>>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Console {
    /// Begins to read. Both of the child's outputs must be pipes.
    pub fn read(child: &mut Child) -> Result<Self> {
        let pipes: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().context("QEMU has no output")?),
            Box::new(child.stderr.take().context("QEMU has no error output")?),
        ];
        let seen = Arc::new(Mutex::new(Vec::new()));
        let readers = pipes.map(|mut pipe| {
            let seen = Arc::clone(&seen);
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
                }
            })
        });
        Ok(Self { seen, readers: readers.into() })
    }

    /// Whether it has printed this so far.
    pub fn has(&self, text: &str) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// What it has printed so far.
    pub fn text(&self) -> String {
        text(&self.seen)
    }

    /// All of it. QEMU has ended.
    pub fn finish(self) -> String {
        for reader in self.readers {
            let _ = reader.join();
        }
        text(&self.seen)
    }
}

fn text(seen: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&seen.lock().unwrap_or_else(PoisonError::into_inner)).replace('\r', "")
}

/// The lines of a console worth showing in an error.
pub fn tail(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
