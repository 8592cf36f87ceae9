//! What an image is put together from.

pub mod config;
pub mod data;
pub mod fat;
pub mod sbom;

use anyhow::{Context, Result, bail};
use edge_system::board::Board;
use edge_system::folder::{FolderError, SystemFolder};
use std::path::{Path, PathBuf};

/// The folder of a board's system: the one that is named, or the one in the project's cache.
pub fn folder(board: &Board, named: Option<&Path>) -> Result<SystemFolder> {
    let path = match named {
        Some(path) => path.to_path_buf(),
        None => cache()?.join("system").join(&board.name),
    };
    let folder = match SystemFolder::open(&path) {
        Err(e @ FolderError::Missing(_)) => {
            bail!("{e}: the system of {0} is not built yet; `cargo xtask cross --board {0}` builds it", board.name)
        }
        other => other?,
    };
    if folder.about().board != board.name {
        bail!("{} holds the system of board {}, not of {}", path.display(), folder.about().board, board.name);
    }
    Ok(folder)
}

/// The project's cache, where `cargo xtask` puts what it builds.
pub fn cache() -> Result<PathBuf> {
    edge_system::folder::cache().context("neither EDGE_PACK_CACHE, XDG_CACHE_HOME nor HOME is set")
}
