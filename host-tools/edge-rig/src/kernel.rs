//! Debian's kernel packages: the kernel, its modules and what those need.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::apt;
use crate::debian::Tree;

/// The one kernel in a directory of unpacked packages.
pub struct Kernel {
    tree: Tree,
    /// Programs for this machine: `kmod`, `xz`.
    tools: Tree,
    /// The kernel's version, which names its files.
    pub release: String,
}

impl Kernel {
    /// Finds the kernel of `tree`, and lists its modules' needs if that was not done yet. `tools` has `kmod` and `xz`.
    pub fn find(tree: &Tree, tools: &Tree) -> Result<Self> {
        let modules = tree.path("lib/modules")?;
        let mut releases = Vec::new();
        for entry in fs::read_dir(&modules).with_context(|| format!("reading {}", modules.display()))? {
            releases.push(entry?.file_name().to_string_lossy().into_owned());
        }
        let [release] = releases.as_slice() else {
            bail!("expected the modules of one kernel in {}, found {releases:?}", modules.display());
        };
        // The package leaves this to its installation.
        if !modules.join(release).join("modules.dep").is_file() {
            let mut depmod = tools.command("bin/kmod", Some("depmod"))?;
            apt::text(depmod.arg("-b").arg(&tree.root).arg(release))?;
        }
        Ok(Self { tree: tree.clone(), tools: tools.clone(), release: release.clone() })
    }

    /// The kernel itself.
    pub fn image(&self) -> Result<PathBuf> {
        self.tree.path(&format!("boot/vmlinuz-{}", self.release))
    }

    /// A device tree by its path below the package's own directory of them: `broadcom/bcm2837-rpi-3-b.dtb`.
    pub fn device_tree(&self, path: &str) -> Result<PathBuf> {
        self.tree.path(&format!("lib/linux-image-{}/{path}", self.release))
    }

    /// The kernel modules to insert for `wanted`, each after those it depends on, as (name, bytes).
    pub fn modules(&self, wanted: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let dir = self.tree.path(&format!("lib/modules/{}", self.release))?;
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let (modules_dep, builtin) = (read("modules.dep")?, read("modules.builtin")?);
        // What is a module in one kernel is built into another. Names are written with either stroke.
        let builtin: BTreeSet<String> = builtin.lines().map(|line| module_name(line).replace('-', "_")).collect();
        let wanted: Vec<&str> =
            wanted.iter().copied().filter(|name| !builtin.contains(&name.replace('-', "_"))).collect();
        let order = insertion_order(&modules_dep, &wanted)?;
        order.iter().map(|path| Ok((module_name(path).to_owned(), self.module_bytes(&dir.join(path))?))).collect()
    }

    /// A module's bytes, unpacked: later releases compress them and busybox's `insmod` can't read that.
    fn module_bytes(&self, path: &Path) -> Result<Vec<u8>> {
        if path.extension().is_some_and(|extension| extension == "xz") {
            let output = self.tools.command("bin/xz", None)?.arg("-dc").arg(path).output()?;
            ensure!(output.status.success(), "unpacking {} failed", path.display());
            return Ok(output.stdout);
        }
        fs::read(path).with_context(|| format!("reading {}", path.display()))
    }
}

/// Orders modules for insertion from `modules.dep`, whose lines name all that a module needs, the nearest first.
fn insertion_order<'a>(modules_dep: &'a str, wanted: &[&str]) -> Result<Vec<&'a str>> {
    let mut needs: BTreeMap<String, (&str, &str)> = BTreeMap::new();
    for line in modules_dep.lines() {
        let (path, dependencies) = line.split_once(':').with_context(|| format!("bad line in modules.dep: {line}"))?;
        needs.insert(module_name(path).replace('-', "_"), (path, dependencies));
    }
    let mut order: Vec<&str> = Vec::new();
    let mut missing: Vec<&str> = Vec::new();
    for wanted in wanted {
        let Some((path, dependencies)) = needs.get(&wanted.replace('-', "_")) else {
            missing.push(wanted);
            continue;
        };
        for path in dependencies.split_whitespace().rev().chain([*path]) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    ensure!(missing.is_empty(), "the kernel has no module {}", missing.join(", "));
    Ok(order)
}

/// `kernel/fs/9p/9p.ko.xz` → `9p`.
fn module_name(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split_once(".ko").map_or(name, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_after_what_it_needs_and_only_once() {
        let dep = "kernel/a.ko: kernel/b.ko kernel/c.ko\nkernel/b.ko: kernel/c.ko\nkernel/c.ko:\nkernel/d-e.ko.xz: kernel/c.ko\n";
        let order = insertion_order(dep, &["a", "d_e"]).unwrap();
        assert_eq!(order, ["kernel/c.ko", "kernel/b.ko", "kernel/a.ko", "kernel/d-e.ko.xz"]);
        let missing = insertion_order(dep, &["e", "a", "f"]).unwrap_err().to_string();
        assert!(missing.ends_with("e, f"), "{missing}");
    }
}
