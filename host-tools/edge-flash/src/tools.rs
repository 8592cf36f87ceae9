//! Programs of other packages that do part of the work.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A program, with the Debian package that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// Its name.
    pub program: &'static str,
    /// What to install where it is missing.
    pub package: &'static str,
}

/// Makes FAT file systems.
pub const MKFS_FAT: Tool = Tool { program: "mkfs.fat", package: "dosfstools" };
/// Makes folders in FAT file systems.
pub const MMD: Tool = Tool { program: "mmd", package: "mtools" };
/// Copies files into FAT file systems.
pub const MCOPY: Tool = Tool { program: "mcopy", package: "mtools" };
/// Makes ext4 file systems.
pub const MKFS_EXT4: Tool = Tool { program: "mkfs.ext4", package: "e2fsprogs" };
/// Writes into ext4 file systems that are not mounted.
pub const DEBUGFS: Tool = Tool { program: "debugfs", package: "e2fsprogs" };
/// Completes what an ext4 journal holds.
pub const E2FSCK: Tool = Tool { program: "e2fsck", package: "e2fsprogs" };
/// Runs commands on other machines.
pub const SSH: Tool = Tool { program: "ssh", package: "openssh-client" };
/// Copies files to other machines.
pub const SCP: Tool = Tool { program: "scp", package: "openssh-client" };
/// Builds Debian packages.
pub const DPKG_DEB: Tool = Tool { program: "dpkg-deb", package: "dpkg" };

impl Tool {
    /// Where it is. A user's PATH often lacks the folders of administrators' programs, which need no administrator.
    fn find(self) -> Result<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
        let found = folders.map(|folder| folder.join(self.program)).find(|file| file.is_file());
        found.with_context(|| {
            format!("the program {} is missing; install it with `sudo apt install {}`", self.program, self.package)
        })
    }

    /// A command that runs it, with messages in English and nothing on its standard input.
    pub fn command(self) -> Result<Command> {
        let mut command = Command::new(self.find()?);
        command.env("LC_ALL", "C").stdin(Stdio::null());
        Ok(command)
    }
}

/// Says at once which of these are missing, before any work is done.
pub fn need(tools: &[Tool]) -> Result<()> {
    let missing: Vec<_> = tools.iter().filter(|tool| tool.find().is_err()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs: Vec<_> = missing.iter().map(|tool| tool.program).collect();
    let mut packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    packages.dedup();
    let are = if programs.len() == 1 { "the program is" } else { "the programs are" };
    bail!("{are} missing: {}; install with `sudo apt install {}`", programs.join(", "), packages.join(" "));
}

/// Runs a command that must succeed, and returns what it printed.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}: {}", name(command.get_program()), output.status, said.trim());
    }
    Ok(output)
}

/// The last part of a program's path.
fn name(program: &OsStr) -> String {
    std::path::Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_programs_are_told_at_once_with_their_packages() {
        let tools = [
            Tool { program: "no-such-mkfs", package: "dosfstools" },
            DPKG_DEB,
            Tool { program: "no-such-copy", package: "mtools" },
        ];
        let said = need(&tools).unwrap_err().to_string();
        assert_eq!(
            said,
            "the programs are missing: no-such-mkfs, no-such-copy; install with `sudo apt install dosfstools mtools`"
        );
        assert!(tools[0].command().unwrap_err().to_string().contains("sudo apt install dosfstools"));
    }
}
