//! What goes into an emulated board besides its image: an emulated camera, and a script.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Rig;
use crate::debian::Tree;
use crate::kernel::Kernel;
use crate::{apt, cpio, vivid};

/// The common beginning of every test's script.
const HOOK: &str = include_str!("hook.sh");

impl Rig {
    /// The archive for a test: the emulated camera shows `yuyv` (640x480), and `script` says what else happens. It must
    /// leave running in the background what is to happen while the camera program runs.
    pub fn test(&self, yuyv: &[u8], script: &str) -> Result<Vec<u8>> {
        let mut archive = cpio::Archive::new(Vec::new());
        let kernel = Kernel::find(&self.device, &self.tools)?;
        let mut order = String::new();
        for (name, bytes) in kernel.modules(&["vivid"])? {
            let options = if name == "vivid" { vivid::VIVID } else { "" };
            order += &format!("{name} {options}\n");
            archive.bytes(&format!("/test/modules/{name}.ko"), &bytes, false)?;
        }
        archive.bytes("/test/modules/order", order.as_bytes(), false)?;
        self.program(&mut archive, "bin/v4l2-ctl")?;
        archive.bytes("/test/photo.yuyv", yuyv, false)?;
        let script = format!("{HOOK}{}connect\nstill /test/photo.yuyv\n{script}", vivid::SHOW);
        archive.bytes("/test/hook.d/10-camera.sh", script.as_bytes(), false)?;
        archive.finish()
    }

    /// Adds a dynamic program of the guest's packages, with its loader and libraries, and a script that starts it.
    fn program(&self, archive: &mut cpio::Archive<Vec<u8>>, program: &str) -> Result<()> {
        let path = self.guest.path(program)?;
        let loader = self.guest.path("lib/ld-linux-aarch64.so.1")?;
        // Links in Debian's packages lead to absolute paths.
        let loader = resolved(&self.guest, &loader)?;
        let libraries = library_path(&self.guest);
        let mut list = self.user("max")?;
        list.arg(&loader).args(["--library-path", &libraries, "--list"]).arg(&path);
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

    /// A command that runs a program for the boards' processor on this machine: its path and arguments follow.
    pub fn user(&self, cpu: &str) -> Result<std::process::Command> {
        // It is a static program.
        let mut command = std::process::Command::new(self.qemu.path("bin/qemu-aarch64-static")?);
        command.args(["-cpu", cpu]).stdin(std::process::Stdio::null());
        Ok(command)
    }
}

/// Follows a link within the packages.
fn resolved(tree: &Tree, path: &Path) -> Result<std::path::PathBuf> {
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
