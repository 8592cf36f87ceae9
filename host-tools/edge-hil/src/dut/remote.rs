//! A board that is reached through a wire or a network.
//!
//! What there is to reach it by stands in its file: a link, perhaps ssh for scripts, a serial line that its console is on, and
//! programs that give it power and take it away (a relay's, a switch's). What is not there is not used.

use super::programs::output;
use crate::cmd::Usage;
use anyhow::{Context, Result, bail};
use edge_link::{Address, Client, Stream};
use edge_suite::hil::{Capability, Dut, DutFile, Files, Remote, first_class};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a program that switches power may take.
const SWITCHING: Duration = Duration::from_secs(60);
/// From power off to power on: capacitors hold a board up for a while.
const DARK: Duration = Duration::from_secs(3);
/// To connect by ssh, before the script's own time begins.
const CONNECTING: Duration = Duration::from_secs(20);

/// The device.
pub struct RemoteDut {
    about: DutFile,
    files: Files,
    remote: Remote,
    client: Option<Client>,
    dark: bool,
    console: Option<Lines>,
}

/// What came over a line.
struct Lines {
    seen: Arc<Mutex<Vec<u8>>>,
    /// The line stays open as long as this does.
    _writer: Box<dyn Write + Send>,
}

impl RemoteDut {
    /// Looks whether the file says how to do what it says can be done; nothing is connected yet, but for the console, which
    /// is listened to from now on.
    pub fn new(about: DutFile, remote: Remote, results: &Path) -> Result<RemoteDut> {
        use Capability::*;
        for (capability, there, key) in [
            (Shell, remote.ssh.is_some(), "ssh"),
            (Console, remote.console.is_some(), "console"),
            (PowerCut, !remote.power_on.is_empty() && !remote.power_off.is_empty(), "power-on and power-off"),
            (Packages, remote.key.is_some(), "key"),
        ] {
            if about.capabilities.contains(&capability) && !there {
                return Err(
                    Usage(format!("{}: the capability {capability} needs {key} in [remote]", about.name)).into()
                );
            }
        }
        // What ssh would take for an option is no host.
        if let Some(host) = remote.ssh.as_ref().filter(|host| host.starts_with('-')) {
            return Err(Usage(format!("{}: {host:?} is no host", about.name)).into());
        }
        let console = match &remote.console {
            Some(address) => Some(Lines::listen(&address.parse()?, &results.join("console.txt"))?),
            None => None,
        };
        let files = Files { package: remote.package.clone(), key: remote.key.clone(), system: None };
        Ok(RemoteDut { about, files, remote, client: None, dark: false, console })
    }

    fn power(&self, command: &[String]) -> Result<()> {
        let [program, words @ ..] = command else { bail!("{}: no command switches its power", self.about.name) };
        output(Command::new(program).args(words), b"", SWITCHING).map(drop)
    }

    /// As root, by itself or through sudo without a password.
    fn ssh(&self, command: &str, input: &[u8], patience: Duration) -> Result<String> {
        let host = self.remote.ssh.as_ref().with_context(|| format!("{} has no shell", self.about.name))?;
        let quoted = format!("'{}'", command.replace('\'', "'\\''"));
        let script = format!("if [ \"$(id -u)\" = 0 ]; then exec sh -c {quoted}; else exec sudo -n sh -c {quoted}; fi");
        let mut ssh = Command::new("ssh");
        ssh.args(["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "--", host, &script]);
        output(&mut ssh, input, CONNECTING + patience)
    }
}

impl Lines {
    /// Reads as long as the line is there; what comes goes to `file`, too.
    fn listen(address: &Address, file: &Path) -> Result<Lines> {
        let Stream { mut reader, writer } = address.connect(Duration::from_secs(10))?;
        let mut file = File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
        let seen = Arc::new(Mutex::new(vec![]));
        let lines = Lines { seen: Arc::clone(&seen), _writer: writer };
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                seen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
                let _ = file.write_all(&buffer[..count]);
            }
        });
        Ok(lines)
    }
}

impl Dut for RemoteDut {
    fn about(&self) -> &DutFile {
        &self.about
    }

    fn files(&self) -> &Files {
        &self.files
    }

    fn boot(&mut self) -> Result<Option<f64>> {
        let was_dark = std::mem::take(&mut self.dark);
        // A board that has power takes no harm from being given it again, and one that has none starts.
        if !self.remote.power_on.is_empty() {
            self.power(&self.remote.power_on)?;
        }
        let first = first_class(self)?;
        Ok(first.filter(|_| was_dark))
    }

    fn link(&mut self) -> Result<&mut Client> {
        if self.client.is_none() {
            self.client = Some(Client::connect(&self.remote.link, self.about.patience())?);
        }
        self.client.as_mut().context("a link that was just made")
    }

    fn lost(&mut self) {
        self.client = None;
    }

    fn wire(&mut self) -> Result<Stream> {
        self.client = None;
        Ok(self.remote.link.connect(self.about.patience())?)
    }

    fn power_cut(&mut self) -> Result<()> {
        self.client = None;
        self.power(&self.remote.power_off)?;
        self.dark = true;
        std::thread::sleep(DARK);
        Ok(())
    }

    fn shell(&mut self, script: &str, patience: Duration) -> Result<String> {
        self.ssh(script, b"", patience)
    }

    fn push(&mut self, bytes: &[u8], path: &str) -> Result<()> {
        self.ssh(&format!("cat >'{}'", path.replace('\'', "'\\''")), bytes, self.about.patience()).map(drop)
    }

    fn console(&mut self) -> Result<String> {
        let lines = self.console.as_ref().with_context(|| format!("{} has no console", self.about.name))?;
        let seen = lines.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(String::from_utf8_lossy(&seen).replace('\r', ""))
    }
}
