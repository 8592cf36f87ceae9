//! The programs that are installed: edge-camera for both processors, for the boards' in both ways of linking, and edge-init
//! for the images.
//!
//! The dynamic edge-camera is for packages on a vendor's system, where it can load TensorRT; the static one is for
//! images, which have no libraries, and for vendor systems that are too old.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::toolchain::{self, TARGET, Toolchain};
use crate::tools;

/// Makes the last crate's program static; what it depends on is the same in both.
const STATIC: &str = "-Ctarget-feature=+crt-static";

/// Builds for the boards. Returns the static programs by name.
pub fn arm64(cache: &Path, toolchain: &Toolchain) -> Result<Vec<(&'static str, PathBuf)>> {
    let build = |name: &str, flags: &[&str]| -> Result<PathBuf> {
        let mut cargo = tools::cargo(&["rustc", "--locked", "--release", "--package", name, "--bin", name])?;
        toolchain.apply(&mut cargo, cache);
        tools::run(cargo.args(["--", "-Cstrip=symbols"]).args(flags))?;
        Ok(toolchain::target_dir(cache).join(TARGET).join("release").join(name))
    };
    let dir = folder(cache, "arm64")?;
    place(&build("edge-camera", &[])?, &dir.join("edge-camera"))?;
    let camera = dir.join("edge-camera-static");
    place(&build("edge-camera", &[STATIC])?, &camera)?;
    let init = dir.join("edge-init");
    place(&build("edge-init", &[STATIC])?, &init)?;
    Ok(vec![("edge-camera", camera), ("edge-init", init)])
}

/// Places the program of this machine, where it is of that kind: it is the one that was tested.
pub fn amd64(cache: &Path) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        return Ok(());
    }
    // Everything, as for the tests: another selection gives dependencies other features, and tract is then built twice.
    tools::run(&mut tools::cargo(&tools::BUILD)?)?;
    let to = folder(cache, "amd64")?.join("edge-camera");
    place(&tools::built("edge-camera")?, &to)?;
    tools::run(Command::new("strip").arg(&to))
}

fn folder(cache: &Path, architecture: &str) -> Result<PathBuf> {
    let dir = cache.join("system/programs").join(architecture);
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    Ok(dir)
}

/// Puts a program where it is looked for, whole or not at all.
fn place(from: &Path, to: &Path) -> Result<()> {
    let partial = to.with_extension("partial");
    fs::copy(from, &partial).with_context(|| format!("copying {}", from.display()))?;
    fs::rename(&partial, to).with_context(|| format!("renaming {}", partial.display()))
}
