//! A directory of unpacked Debian packages as a place to take programs and files from.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::apt;

/// The root of a small system that is independent of the host's libraries.
#[derive(Clone)]
pub struct Tree {
    /// Where the packages lie.
    pub root: PathBuf,
}

impl Tree {
    /// Fetches the packages if they are not there yet.
    pub fn fetch(cache: &Path, packages: &apt::Packages) -> Result<Self> {
        Ok(Self { root: apt::fetch(cache, packages)? })
    }

    /// A file of the packages, with or without `usr/` before it: releases differ in that.
    pub fn path(&self, path: &str) -> Result<PathBuf> {
        let places = [self.root.join(path), self.root.join("usr").join(path)];
        let found = places.iter().find(|place| place.exists());
        found.cloned().with_context(|| format!("{path} is missing from the packages in {}", self.root.display()))
    }

    /// A command that runs a program of the packages with the packages' own loader and libraries, on the host.
    /// `name` is for programs that look at what they were called.
    pub fn command(&self, program: &str, name: Option<&str>) -> Result<Command> {
        let mut command = Command::new(self.loader()?);
        command.arg("--library-path").arg(self.library_path()?);
        if let Some(name) = name {
            command.args(["--argv0", name]);
        }
        command.arg(self.path(program)?).stdin(Stdio::null());
        // QEMU finds its loadable parts (displays, sound) through this; its own path would be the loader's.
        command.env("QEMU_MODULE_DIR", self.root.join("usr/lib/x86_64-linux-gnu/qemu"));
        Ok(command)
    }

    /// The loader of programs for this machine's processor.
    pub fn loader(&self) -> Result<PathBuf> {
        self.path("lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    }

    /// Where the loader shall look for libraries.
    pub fn library_path(&self) -> Result<String> {
        let dirs = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|dir| self.root.join(dir));
        for dir in &dirs {
            let text = dir.to_str().context("the cache directory's path is not UTF-8")?;
            ensure!(!text.contains(':'), "the cache directory's path must not contain a colon: {text}");
        }
        Ok(format!("{}:{}", dirs[0].display(), dirs[1].display()))
    }
}
