//! The unpacked Debian packages: their programs, libraries and kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::apt;

/// What the emulator is made of. QEMU comes from backports because the release's own (7.2) can't be installed beside
/// the newer tools many machines have, and one version everywhere makes results comparable.
const PACKAGES: apt::Packages = apt::Packages {
    name: "emulator",
    closure: &["qemu-system-x86", "v4l-utils", "kmod", "busybox-static", "xz-utils"],
    meta: &["linux-image-amd64"],
    backports: &["qemu-*", "seabios", "ipxe-qemu"],
};

/// A file and its path in the guest.
pub struct Placed {
    pub from: PathBuf,
    pub to: String,
}

/// The directory the packages lie in, used as the root of a small system that is independent of the host's libraries.
pub struct Unpacked {
    root: PathBuf,
    loader: PathBuf,
    /// The kernel's version, which names its files.
    pub release: String,
}

impl Unpacked {
    /// Fetches the packages if they are not there yet.
    pub fn fetch(cache: &Path) -> Result<Self> {
        let root = apt::fetch(cache, &PACKAGES)?;
        let loader = find(&root, "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")?;
        let modules = find(&root, "lib/modules")?;
        let mut releases = Vec::new();
        for entry in fs::read_dir(&modules).with_context(|| format!("reading {}", modules.display()))? {
            releases.push(entry?.file_name().to_string_lossy().into_owned());
        }
        let [release] = releases.as_slice() else {
            bail!("expected the modules of one kernel in {}, found {releases:?}", modules.display());
        };
        let unpacked = Self { release: release.clone(), root, loader };
        // The package leaves this to its installation.
        if !modules.join(&unpacked.release).join("modules.dep").is_file() {
            let mut depmod = unpacked.command("bin/kmod", Some("depmod"))?;
            apt::text(depmod.arg("-b").arg(&unpacked.root).arg(&unpacked.release))?;
        }
        Ok(unpacked)
    }

    /// A file of the packages, with or without `usr/` before it: releases differ in that.
    pub fn path(&self, path: &str) -> Result<PathBuf> {
        find(&self.root, path)
    }

    /// A command that runs a program of the packages with the packages' own loader and libraries, on the host.
    /// `name` is for programs that look at what they were called.
    pub fn command(&self, program: &str, name: Option<&str>) -> Result<Command> {
        let mut command = Command::new(&self.loader);
        command.arg("--library-path").arg(self.library_path()?);
        if let Some(name) = name {
            command.args(["--argv0", name]);
        }
        command.arg(self.path(program)?).stdin(Stdio::null());
        // QEMU finds its loadable parts (displays, sound) through this; its own path would be the loader's.
        command.env("QEMU_MODULE_DIR", self.root.join("usr/lib/x86_64-linux-gnu/qemu"));
        Ok(command)
    }

    fn library_path(&self) -> Result<String> {
        let dirs = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|dir| self.root.join(dir));
        for dir in &dirs {
            let text = dir.to_str().context("the cache directory's path is not UTF-8")?;
            ensure!(!text.contains(':'), "the cache directory's path must not contain a colon: {text}");
        }
        Ok(format!("{}:{}", dirs[0].display(), dirs[1].display()))
    }

    /// The files of a program of the packages for the guest, under `/tools`, and the wrapper to start it with.
    ///
    /// It keeps its own loader and libraries there: the tested binary brings the host's, which may be another version.
    pub fn tool(&self, program: &str) -> Result<(Vec<Placed>, String)> {
        let path = self.path(program)?;
        let name = file_name(&path)?;
        let mut list = Command::new(&self.loader);
        list.args(["--library-path", &self.library_path()?, "--list"]).arg(&path);
        let mut files = Vec::new();
        for library in listed_libraries(&apt::text(&mut list)?)? {
            files.push(Placed { to: format!("/tools/lib/{}", file_name(&library)?), from: library });
        }
        files.push(Placed { from: self.loader.clone(), to: "/tools/ld.so".to_owned() });
        files.push(Placed { to: format!("/tools/bin/{name}"), from: path.clone() });
        let wrapper = format!("#!/bin/sh\nexec /tools/ld.so --library-path /tools/lib /tools/bin/{name} \"$@\"\n");
        Ok((files, wrapper))
    }

    /// The kernel modules to insert for `wanted`, each after those it depends on, as (name, bytes).
    pub fn modules(&self, wanted: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let dir = self.path(&format!("lib/modules/{}", self.release))?;
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let (modules_dep, builtin) = (read("modules.dep")?, read("modules.builtin")?);
        // What is a module in one kernel is built into another.
        let builtin: BTreeSet<&str> = builtin.lines().map(module_name).collect();
        let wanted: Vec<&str> = wanted.iter().copied().filter(|name| !builtin.contains(name)).collect();
        let order = insertion_order(&modules_dep, &wanted)?;
        order.iter().map(|path| Ok((module_name(path).to_owned(), self.module_bytes(&dir.join(path))?))).collect()
    }

    /// A module's bytes, unpacked: later releases compress them and busybox's `insmod` can't read that.
    fn module_bytes(&self, path: &Path) -> Result<Vec<u8>> {
        if path.extension().is_some_and(|extension| extension == "xz") {
            let output = self.command("bin/xz", None)?.arg("-dc").arg(path).output()?;
            ensure!(output.status.success(), "unpacking {} failed", path.display());
            return Ok(output.stdout);
        }
        fs::read(path).with_context(|| format!("reading {}", path.display()))
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

/// Orders modules for insertion from `modules.dep`, whose lines name all that a module needs, the nearest first.
fn insertion_order<'a>(modules_dep: &'a str, wanted: &[&str]) -> Result<Vec<&'a str>> {
    let mut needs: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for line in modules_dep.lines() {
        let (path, dependencies) = line.split_once(':').with_context(|| format!("bad line in modules.dep: {line}"))?;
        needs.insert(module_name(path), (path, dependencies));
    }
    let mut order: Vec<&str> = Vec::new();
    for wanted in wanted {
        let (path, dependencies) = needs.get(wanted).with_context(|| format!("the kernel has no module {wanted}"))?;
        for path in dependencies.split_whitespace().rev().chain([*path]) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    Ok(order)
}

/// `kernel/fs/9p/9p.ko.xz` → `9p`.
fn module_name(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split_once(".ko").map_or(name, |(name, _)| name)
}

/// A path's last part as text.
pub fn file_name(path: &Path) -> Result<&str> {
    path.file_name().and_then(|name| name.to_str()).with_context(|| format!("{} has no plain name", path.display()))
}

fn find(root: &Path, path: &str) -> Result<PathBuf> {
    let places = [root.join(path), root.join("usr").join(path)];
    let found = places.iter().find(|place| place.exists());
    found.cloned().with_context(|| format!("{path} is missing from the packages in {}", root.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_after_what_it_needs_and_only_once() {
        let dep = "kernel/a.ko: kernel/b.ko kernel/c.ko\nkernel/b.ko: kernel/c.ko\nkernel/c.ko:\nkernel/d.ko.xz: kernel/c.ko\n";
        let order = insertion_order(dep, &["a", "d"]).unwrap();
        assert_eq!(order, ["kernel/c.ko", "kernel/b.ko", "kernel/a.ko", "kernel/d.ko.xz"]);
        assert!(insertion_order(dep, &["e"]).is_err());
    }

    #[test]
    fn library_lists_are_read_and_missing_ones_named() {
        let list = "\tlinux-vdso.so.1 (0x00)\n\tlibm.so.6 => /lib/x/libm.so.6 (0x01)\n\t/lib64/ld.so.2 (0x02)\n";
        let libraries: Vec<_> = listed_libraries(list).unwrap().into_iter().collect();
        assert_eq!(libraries, [PathBuf::from("/lib/x/libm.so.6"), PathBuf::from("/lib64/ld.so.2")]);
        let missing = listed_libraries("\tlibz.so.1 => not found\n").unwrap_err();
        assert!(missing.to_string().contains("libz"), "{missing}");
    }
}
