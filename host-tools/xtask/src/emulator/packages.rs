//! The unpacked Debian packages: their programs, libraries and kernel.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use edge_rig::apt;
use edge_rig::debian::Tree;
use edge_rig::kernel::Kernel;

/// What the emulator is made of. QEMU comes from backports because the release's own (7.2) can't be installed beside
/// the newer tools many machines have, and one version everywhere makes results comparable.
const PACKAGES: apt::Packages = apt::Packages {
    name: "emulator",
    closure: &["qemu-system-x86", "v4l-utils", "kmod", "busybox-static", "xz-utils"],
    meta: &["linux-image-amd64"],
    backports: &["qemu-*", "seabios", "ipxe-qemu"],
    ..apt::NONE
};

/// A file and its path in the guest.
pub struct Placed {
    pub from: PathBuf,
    pub to: String,
}

/// The unpacked packages and their kernel.
pub struct Unpacked {
    /// Programs and files.
    pub tree: Tree,
    /// The guest's kernel.
    pub kernel: Kernel,
}

impl Unpacked {
    /// Fetches the packages if they are not there yet.
    pub fn fetch(cache: &Path) -> Result<Self> {
        let tree = Tree::fetch(cache, &PACKAGES)?;
        Ok(Self { kernel: Kernel::find(&tree, &tree)?, tree })
    }

    /// The files of a program of the packages for the guest, under `/tools`, and the wrapper to start it with.
    ///
    /// It keeps its own loader and libraries there: the tested binary brings the host's, which may be another version.
    pub fn tool(&self, program: &str) -> Result<(Vec<Placed>, String)> {
        let path = self.tree.path(program)?;
        let name = file_name(&path)?;
        let loader = self.tree.loader()?;
        let mut list = Command::new(&loader);
        list.args(["--library-path", &self.tree.library_path()?, "--list"]).arg(&path);
        let mut files = Vec::new();
        for library in listed_libraries(&apt::text(&mut list)?)? {
            files.push(Placed { to: format!("/tools/lib/{}", file_name(&library)?), from: library });
        }
        files.push(Placed { from: loader, to: "/tools/ld.so".to_owned() });
        files.push(Placed { to: format!("/tools/bin/{name}"), from: path.clone() });
        let wrapper = format!("#!/bin/sh\nexec /tools/ld.so --library-path /tools/lib /tools/bin/{name} \"$@\"\n");
        Ok((files, wrapper))
    }
}

/// A dynamically linked binary's libraries as this machine resolves them, loader included. None for a static binary.
pub fn libraries(binary: &Path) -> Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd").arg(binary).env("LC_ALL", "C").stdin(Stdio::null()).output();
    let output = output.context("starting ldd")?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("not a dynamic executable") || stdout.contains("statically linked") {
        return Ok(BTreeSet::new());
    }
    ensure!(output.status.success(), "ldd {}: {}", binary.display(), stderr.trim());
    listed_libraries(&stdout).with_context(|| format!("libraries of {}", binary.display()))
}

/// Reads what `ldd` and the loader's `--list` print: `name => path (address)` or `path (address)`.
fn listed_libraries(text: &str) -> Result<BTreeSet<PathBuf>> {
    let mut libraries = BTreeSet::new();
    for line in text.lines() {
        let line = line.trim();
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        ensure!(!path.starts_with("not found"), "a shared library is missing: {line}");
        let path = path.rsplit_once(" (").map_or(path, |(path, _)| path);
        // The kernel's own library (linux-vdso) has no path.
        if path.starts_with('/') {
            libraries.insert(PathBuf::from(path));
        }
    }
    Ok(libraries)
}

/// A path's last part as text.
pub fn file_name(path: &Path) -> Result<&str> {
    path.file_name().and_then(|name| name.to_str()).with_context(|| format!("{} has no plain name", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn library_lists_are_read_and_missing_ones_named() {
        let list = "\tlinux-vdso.so.1 (0x00)\n\tlibm.so.6 => /lib/x/libm.so.6 (0x01)\n\t/lib64/ld.so.2 (0x02)\n";
        let libraries: Vec<_> = listed_libraries(list).unwrap().into_iter().collect();
        assert_eq!(libraries, [PathBuf::from("/lib/x/libm.so.6"), PathBuf::from("/lib64/ld.so.2")]);
        let missing = listed_libraries("\tlibz.so.1 => not found\n").unwrap_err();
        assert!(missing.to_string().contains("libz"), "{missing}");
    }
}
