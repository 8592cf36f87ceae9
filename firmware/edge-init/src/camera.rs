//! How the camera program is started.

use crate::child::Child;
use crate::classes::Classes;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// What bounds the log where no configuration does: so much at most, in all.
const LOG_TOTAL: &str = "50MB";

/// User and group of the camera program: nobody in particular, with Debian's group of cameras (`video`).
pub const CAMERA_USER: u32 = 990;
/// See [`CAMERA_USER`].
pub const CAMERA_GROUP: u32 = 44;

/// The program and what it works with.
#[derive(Debug, Clone)]
pub struct Camera {
    /// `edge-camera`.
    pub program: PathBuf,
    /// Its configuration, if there is one.
    pub config: Option<PathBuf>,
    /// The folder of the packages.
    pub slots: Option<PathBuf>,
    /// The classification log.
    pub log: PathBuf,
    /// Public keys, of which one must have signed a package. None: packages are taken unsigned.
    pub trusted: Vec<PathBuf>,
    /// After so long without a sign of life it is taken to hang.
    pub hang: Duration,
    /// The socket that its orders are taken at, if they are.
    pub control: Option<PathBuf>,
    /// The user and group it becomes.
    pub user: Option<(u32, u32)>,
    /// More environment, from a test harness.
    pub environment: Vec<(String, String)>,
    /// More arguments.
    pub arguments: Vec<String>,
}

impl Camera {
    /// The command, with the configuration or, where the program refuses that, without.
    pub fn command(&self, configured: bool, notify: &std::path::Path) -> Command {
        let mut command = Command::new(&self.program);
        match self.config.as_ref().filter(|_| configured) {
            Some(config) => command.arg("--config").arg(config),
            None => command.args(["--log-total", LOG_TOTAL]),
        };
        if let Some(slots) = &self.slots {
            command.arg("--slots").arg(slots);
        }
        command.arg("--log").arg(&self.log).args(&self.arguments);
        for key in &self.trusted {
            command.arg("--trusted-key").arg(key);
        }
        command.env_clear().env("PATH", "/system/bin").env("TMPDIR", "/tmp").env("HOME", "/tmp").current_dir("/");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("NOTIFY_SOCKET", notify).env("WATCHDOG_USEC", self.watchdog());
        if let Some(control) = &self.control {
            command.env(edge_system::control::SOCKET, control);
        }
        if let Some((user, group)) = self.user {
            // Without the groups of root, which the standard library sees to.
            command.uid(user).gid(group);
        }
        command
    }
}

impl Camera {
    /// As often as the program is asked to show life, in microseconds; it does so twice in this time. Six signs in the time
    /// after which it is taken to hang, so that a frame that takes long is no hang.
    fn watchdog(&self) -> String {
        (self.hang.as_micros() / 3).max(1).to_string()
    }
}

/// A run of it.
pub struct Run {
    /// The process.
    pub child: Child,
    /// What it logs, until it has logged a class.
    pub classes: Option<Classes>,
}
