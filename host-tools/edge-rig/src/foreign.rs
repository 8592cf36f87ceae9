//! Programs for the boards' processor on this machine: QEMU runs them as ordinary processes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::debian::Tree;
use crate::{apt, cpio};

/// A command that runs a program for the boards' processor: its path and arguments follow. `emulator` holds
/// [`crate::sets::EMULATOR`], `cpu` is a processor as QEMU names it (`cortex-a72`, `max`).
pub fn command(emulator: &Tree, cpu: &str) -> Result<Command> {
    // It is a static program.
    let mut command = Command::new(emulator.path("bin/qemu-aarch64-static")?);
    command.args(["-cpu", cpu]).stdin(Stdio::null());
    Ok(command)
}

/// Adds a dynamic program of `guest`, packages for the boards' processor, to a test's archive, with its loader and
/// libraries, and a script `/test/bin/NAME` that starts it.
pub fn program(archive: &mut cpio::Archive<Vec<u8>>, emulator: &Tree, guest: &Tree, program: &str) -> Result<()> {
    let path = guest.path(program)?;
    let loader = guest.path("lib/ld-linux-aarch64.so.1")?;
    // Links in Debian's packages lead to absolute paths.
    let loader = resolved(guest, &loader)?;
    let mut list = command(emulator, "max")?;
    list.arg(&loader).args(["--library-path", &library_path(guest), "--list"]).arg(&path);
    let mut count = 0;
    for line in apt::text(&mut list)?.lines() {
        let Some((name, rest)) = line.trim().split_once(" => ") else { continue };
        let from = rest.rsplit_once(" (").map_or(rest, |(path, _)| path);
        ensure!(from.starts_with('/'), "{program} needs {name}, which is not in its packages");
        archive.file(&format!("/test/lib/{name}"), Path::new(from), true)?;
        count += 1;
    }
    ensure!(count > 0, "{program} was expected to need libraries");
    archive.file("/test/lib/ld.so", &loader, true)?;
    let name = program.rsplit('/').next().unwrap_or(program);
    archive.file(&format!("/test/programs/{name}"), &path, true)?;
    let wrapper = format!(
        "#!/system/bin/busybox sh\nexec /test/lib/ld.so --library-path /test/lib /test/programs/{name} \"$@\"\n"
    );
    archive.bytes(&format!("/test/bin/{name}"), wrapper.as_bytes(), true)
}

/// Follows a link within the packages.
fn resolved(tree: &Tree, path: &Path) -> Result<PathBuf> {
    match std::fs::read_link(path) {
        Ok(to) if to.is_absolute() => {
            let inside = to.strip_prefix("/").context("an absolute path begins with /")?;
            tree.path(inside.to_str().context("a path of the packages is not UTF-8")?)
        }
        _ => Ok(path.to_owned()),
    }
}

fn library_path(tree: &Tree) -> String {
    let dirs = ["lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu"].map(|dir| tree.root.join(dir));
    format!("{}:{}", dirs[0].display(), dirs[1].display())
}
