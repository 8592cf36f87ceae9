//! The systems that `cargo xtask cross` makes of the boards, and one that does not work.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use edge_system::board::Board;
use edge_system::folder::{self, SystemFolder};
use edge_system::system::SQUASHFS;

use crate::debian::Tree;
use crate::{apt, sets, squashfs};

/// Where a board's system lies in the project's cache; `edge-flash` looks there, too.
pub fn folder(cache: &Path, board: &Board) -> PathBuf {
    cache.join("system").join(&board.name)
}

/// The static edge-camera for the boards' processor, once it is built.
pub fn camera(cache: &Path) -> PathBuf {
    cache.join("system/programs/arm64/edge-camera-static")
}

/// Copies a system whose camera program then is another one that ends at once: busybox, which does not know that name.
/// Tests see with it what becomes of an update that does not work.
pub fn without_camera(cache: &Path, from: &Path, to: &Path) -> Result<()> {
    let tools = Tree::fetch(cache, &sets::TOOLS)?;
    let about = SystemFolder::open(from)?.about().clone();
    apt::remove_dir(to)?;
    copy_tree(from, to)?;
    let (squashed, stage) = (to.join(SQUASHFS), to.join("stage"));
    fs::remove_file(to.join(folder::ABOUT)).context("removing the copied description")?;
    squashfs::unpack(&tools, &squashed, &stage)?;
    let camera = stage.join("bin/edge-camera");
    fs::remove_file(&camera).with_context(|| format!("removing {}", camera.display()))?;
    copy_program(&stage.join("bin/busybox"), &camera)?;
    squashfs::make(&tools, &stage, &squashed, about.source_date)?;
    apt::remove_dir(&stage)?;
    SystemFolder::describe(to, about)?;
    Ok(())
}

/// Writes a file, and makes the folders above it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

/// Copies a file's bytes, and makes the folders above the copy.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    write(to, &bytes)
}

/// Copies a file as one that all may run.
pub fn copy_program(from: &Path, to: &Path) -> Result<()> {
    copy(from, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).with_context(|| format!("changing {}", to.display()))
}

/// Copies files with their permission to be run, which git keeps, and nothing else of their mode, which it doesn't.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_tree(&path, &to)?;
        } else if entry.metadata()?.permissions().mode() & 0o100 != 0 {
            copy_program(&path, &to)?;
        } else {
            copy(&path, &to)?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}
