//! Devices that ssh reaches: a Raspberry Pi OS, Debian or JetPack with edge-camera as a service.

use crate::tools::{self, SCP, SSH};
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// The configuration of the service.
pub const CONFIG: &str = "/etc/edge-camera/camera.toml";

/// A device. Its connection is made once and used by every command, so that a password is asked for once.
pub struct Host {
    name: String,
    sockets: TempDir,
}

impl Host {
    /// The device `user@host`; nothing is connected yet.
    pub fn new(name: &str) -> Result<Host> {
        tools::need(&[SSH, SCP])?;
        // Short, since the path of a socket may have 108 bytes only.
        let sockets = tempfile::Builder::new().prefix("edge-flash-").tempdir_in("/tmp");
        Ok(Host { name: name.into(), sockets: sockets.context("cannot make a folder in /tmp")? })
    }

    fn options(&self) -> Vec<OsString> {
        let mut path = OsString::from("ControlPath=");
        path.push(self.sockets.path().join("%C"));
        let more = ["ConnectTimeout=15", "ControlMaster=auto", "ControlPersist=60"].map(OsString::from);
        more.into_iter().chain([path]).flat_map(|option| [OsString::from("-o"), option]).collect()
    }

    fn ssh(&self, script: &str) -> Result<Command> {
        let mut ssh = SSH.command()?;
        ssh.args(self.options()).arg("--").arg(&self.name).arg(script);
        Ok(ssh)
    }

    /// Runs a script of the shell and returns what it printed.
    pub fn text(&self, script: &str) -> Result<String> {
        let output = self.ssh(script)?.output().context("cannot start ssh")?;
        self.checked(&output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same with the rights of root. A password is asked for where there is a terminal to ask at.
    pub fn as_root(&self, script: &str) -> Result<()> {
        let quoted = quoted(script);
        let output = self.ssh(&format!("if [ \"$(id -u)\" = 0 ]; then exec sh -c {quoted}; fi; sudo -n true && exec sudo -n sh -c {quoted}; exit 254"))?;
        let mut output = output;
        let output = output.output().context("cannot start ssh")?;
        if output.status.code() != Some(254) {
            return self.checked(&output);
        }
        if !std::io::stdin().is_terminal() {
            bail!("{}: sudo asks for a password there; run the command at a terminal, or connect as root", self.name);
        }
        let mut asking = SSH.command()?;
        asking.args(self.options()).arg("-t").arg("--").arg(&self.name).arg(format!("sudo sh -c {quoted}"));
        let status = asking.stdin(Stdio::inherit()).status().context("cannot start ssh")?;
        if !status.success() {
            bail!("{}: that failed ({status}); what went wrong stands above", self.name);
        }
        Ok(())
    }

    fn checked(&self, output: &Output) -> Result<()> {
        if output.status.success() {
            return Ok(());
        }
        let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
        let said = String::from_utf8_lossy(said);
        match output.status.code() {
            Some(255) => bail!("{} cannot be reached: {}", self.name, said.trim()),
            _ => bail!("{}: {}", self.name, said.trim()),
        }
    }

    /// Copies files into a new folder there, whose name is returned.
    pub fn copy(&self, files: &[&Path]) -> Result<String> {
        let folder = self.text("mktemp -d /tmp/edge-flash.XXXXXX")?.trim().to_owned();
        let mut scp = SCP.command()?;
        scp.arg("-q").args(self.options()).arg("--").args(files).arg(format!("{}:{folder}/", self.name));
        let output = scp.output().context("cannot start scp")?;
        self.checked(&output)?;
        Ok(folder)
    }

    /// Prints the log of the service.
    pub fn log(&self, boot: bool) -> Result<()> {
        let script = if boot {
            "journalctl --no-pager -q -u edge-camera".to_owned()
        } else {
            let log = self.log_path()?;
            let log = quoted(&log);
            // The oldest file first; a name has no more than digits behind it.
            format!(
                "log={log}; [ -e \"$log\" ] || {{ echo \"there is no log yet: no file $log\" >&2; exit 1; }}; for n in $(ls -1 \"$log\".* 2>/dev/null | sed -n 's/^.*\\.\\([0-9][0-9]*\\)$/\\1/p' | sort -rn); do cat \"$log.$n\"; done; cat \"$log\""
            )
        };
        let mut ssh = self.ssh(&script)?;
        let output = ssh.stdout(Stdio::inherit()).stderr(Stdio::piped()).spawn().context("cannot start ssh")?;
        self.checked(&output.wait_with_output().context("cannot run ssh")?)
    }

    /// Where the service logs to, by its own word.
    fn log_path(&self) -> Result<String> {
        let resolved = self.text(&format!("edge-camera --config {CONFIG} --check --json"))?;
        let resolved: serde_json::Value = serde_json::from_str(&resolved)
            .with_context(|| format!("{}: `edge-camera --check` printed something that is no JSON", self.name))?;
        match resolved["log"].as_str() {
            Some(path) if path != "-" => Ok(path.into()),
            _ => bail!("{}: {CONFIG} names no file as its `log`; --boot shows what the service printed", self.name),
        }
    }

    /// Has the device check and install a package, and the service take it.
    pub fn update(&self, package: &Path) -> Result<()> {
        let folder = self.copy(&[package])?;
        let name = package.file_name().unwrap_or_default().to_string_lossy();
        let file = quoted(&format!("{folder}/{name}"));
        self.as_root(&format!(
            "trap 'rm -rf {folder}' EXIT; set -e; edge-camera --config {CONFIG} --install {file}; if [ -d /run/systemd/system ]; then systemctl reload-or-restart edge-camera; fi"
        ))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The connection that was kept for further commands.
        if let Ok(mut ssh) = SSH.command() {
            ssh.args(self.options()).args(["-O", "exit", "--"]).arg(&self.name);
            let _ = ssh.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

/// A word that the shell takes as it is.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_one_word() {
        let odd = "it's $(a) \"b\" ; \\ *";
        let echo = Command::new("sh").arg("-c").arg(format!("printf %s {}", quoted(odd))).output().unwrap();
        assert_eq!(String::from_utf8(echo.stdout).unwrap(), odd);
    }
}
