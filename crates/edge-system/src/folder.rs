//! The folder of everything that a board's image is made of but the package: what `cargo xtask cross` makes and
//! `edge-flash` reads.
//!
//! ```text
//! system.toml        board, version, dates, and length and digest of every other file
//! system.squashfs    the read-only system, for the slots
//! sbom.spdx.json     what it is all made of
//! boot/…             the files of the FAT partition: kernel, initramfs, device trees, firmware
//! licences/…         their texts
//! ```

use crate::system::{Component, SQUASHFS, SystemManifest};
use edge_package::{Version, hex};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Name of the file that names all others.
pub const ABOUT: &str = "system.toml";
/// Name of the list of parts.
pub const SBOM: &str = "sbom.spdx.json";
/// Name of the folder whose content goes to the FAT partition.
pub const BOOT: &str = "boot";
/// Name of the folder of licences.
pub const LICENCES: &str = "licences";

/// The project's cache, where `cargo xtask` puts what it builds and programs what they can compute again:
/// `$EDGE_PACK_CACHE`, else `$XDG_CACHE_HOME/edge-pack`, else `~/.cache/edge-pack`. `None` where no home folder is known.
pub fn cache() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    set("EDGE_PACK_CACHE").or_else(|| Some(user()?.join("edge-pack")))
}

/// What `system.toml` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct About {
    /// The board it is for.
    pub board: String,
    /// The version for people.
    pub version: String,
    /// Grows with every release; an update never goes back.
    pub sequence: u64,
    /// The lowest sequence of a system that it can replace.
    #[serde(default)]
    pub minimum: u64,
    /// Seconds since 1970-01-01 UTC: the date that everything in an image gets.
    pub source_date: u64,
    /// The release of the kernel in `boot`, such as `6.1.0-40-arm64`.
    pub kernel: String,
    /// The version of the runtime, such as `0.1.0`.
    pub runtime: String,
    /// What the squashfs is made of.
    #[serde(default, rename = "component")]
    pub components: Vec<Component>,
    /// Every other file, ordered by path. [`SystemFolder::describe`] fills it in.
    #[serde(default, rename = "file")]
    pub files: Vec<Listed>,
}

/// A file of the folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Path with `/` between its parts, relative to the folder.
    pub path: String,
    /// Bytes.
    pub length: u64,
    /// BLAKE3-256 in hexadecimal.
    pub digest: String,
}

/// A folder whose every file has been compared with [`ABOUT`], which is proven by holding one.
#[derive(Debug, Clone)]
pub struct SystemFolder {
    root: PathBuf,
    about: About,
}

/// Why a folder is not one that an image can be made of.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// There is none, or it was not finished.
    #[error("there is no {ABOUT} in {}", .0.display())]
    Missing(PathBuf),
    /// A file could not be read or written.
    #[error("{}: {why}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause; part of the message, so not its source.
        why: io::Error,
    },
    /// Its description cannot be read.
    #[error("{}: {why}", path.display())]
    About {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file is not what the description says.
    #[error("{}: {what}; make the folder again", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl SystemFolder {
    /// Describes a finished folder: lists its files and writes [`ABOUT`], the last file of all.
    pub fn describe(root: &Path, mut about: About) -> Result<SystemFolder, FolderError> {
        let path = root.join(ABOUT);
        about.files = found(root)?.into_iter().map(|path| listed(root, path)).collect::<Result<_, _>>()?;
        let wrong = |why: String| FolderError::About { path: path.clone(), why };
        let folder = SystemFolder { root: root.into(), about };
        folder.check().map_err(wrong)?;
        let text = toml::to_string(&folder.about).map_err(|e| wrong(e.to_string()))?;
        edge_package::replace_file(&path, text.as_bytes(), 0o644).map_err(|why| FolderError::Io { path, why })?;
        Ok(folder)
    }

    /// Opens a folder and reads every file of it.
    pub fn open(root: &Path) -> Result<SystemFolder, FolderError> {
        let path = root.join(ABOUT);
        let text = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(FolderError::Missing(root.into())),
            other => other.map_err(|why| FolderError::Io { path: path.clone(), why })?,
        };
        let wrong = |why: String| FolderError::About { path: path.clone(), why };
        let about: About = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        let folder = SystemFolder { root: root.into(), about };
        folder.check().map_err(wrong)?;
        let differs = |path: &str, what| FolderError::File { path: root.join(path), what };
        let found = found(root)?;
        if let Some(more) = found.iter().find(|path| folder.about.files.iter().all(|file| file.path != **path)) {
            return Err(differs(more, "it is not in the list of files"));
        }
        for file in &folder.about.files {
            if !found.contains(&file.path) {
                return Err(differs(&file.path, "it is missing"));
            }
            if listed(root, file.path.clone())? != *file {
                return Err(differs(&file.path, "it is not what it was when the folder was made"));
            }
        }
        Ok(folder)
    }

    /// What is wrong with the description itself.
    fn check(&self) -> Result<(), String> {
        for name in [SQUASHFS, SBOM] {
            if self.about.files.iter().all(|file| file.path != name) {
                return Err(format!("{name} is not among its files"));
            }
        }
        self.runtime().map(drop).ok_or(format!("runtime {:?} is no version such as 0.1.0", self.about.runtime))
    }

    fn runtime(&self) -> Option<Version> {
        let mut numbers = self.about.runtime.split('.').map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        let version = Version { major: next()?, minor: next()?, patch: next()? };
        numbers.next().is_none().then_some(version)
    }

    /// What its description says.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// A file's place.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The files below a folder of it, with their paths relative to that, ordered by path.
    pub fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a str> {
        self.about.files.iter().filter_map(move |file| file.path.strip_prefix(folder)?.strip_prefix('/'))
    }

    /// The manifest of the system in the squashfs.
    pub fn manifest(&self) -> SystemManifest {
        SystemManifest {
            board: self.about.board.clone(),
            version: self.about.version.clone(),
            sequence: self.about.sequence,
            minimum: self.about.minimum,
            created: self.about.source_date,
            // The programs are static and the modules are the initramfs', so any kernel will do.
            kernel: None,
            runtime: self.runtime().unwrap_or(Version::oldest_reader()),
            components: self.about.components.clone(),
            parts: vec![],
        }
    }
}

/// All files of the folder but the description, ordered by path.
fn found(root: &Path) -> Result<Vec<String>, FolderError> {
    let (mut files, mut folders) = (vec![], vec![String::new()]);
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        let io = |why| FolderError::Io { path: path.clone(), why };
        for entry in std::fs::read_dir(&path).map_err(io)? {
            let entry = entry.map_err(io)?;
            let odd = |what| FolderError::File { path: entry.path(), what };
            let Ok(name) = entry.file_name().into_string() else { return Err(odd("its name is no text")) };
            let below = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            match entry.file_type().map_err(io)? {
                kind if kind.is_dir() => folders.push(below),
                kind if kind.is_file() => files.push(below),
                _ => return Err(odd("it is neither a file nor a folder")),
            }
        }
    }
    files.retain(|path| path != ABOUT);
    files.sort();
    Ok(files)
}

fn listed(root: &Path, path: String) -> Result<Listed, FolderError> {
    let place = root.join(&path);
    let io = |why| FolderError::Io { path: place.clone(), why };
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(&place).map_err(io)?).map_err(io)?;
    Ok(Listed { path, length: hasher.count(), digest: hex(hasher.finalize().as_bytes()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About {
            board: "virt".into(),
            version: "0.1.0+1".into(),
            sequence: 7,
            minimum: 0,
            source_date: 1_700_000_000,
            kernel: "6.1.0-40-arm64".into(),
            runtime: "0.1.0".into(),
            components: vec![Component { name: "busybox".into(), version: "1.35".into(), licence: "GPL-2.0".into() }],
            files: vec![],
        }
    }

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [(SQUASHFS, "squash"), (SBOM, "{}"), ("boot/vmlinuz", "kernel"), ("boot/a/b.dtb", "tree")] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn what_was_described_is_opened() {
        let dir = folder();
        let made = SystemFolder::describe(dir.path(), about()).unwrap();
        let folder = SystemFolder::open(dir.path()).unwrap();
        assert_eq!(folder.about(), made.about());
        assert_eq!(folder.below(BOOT).collect::<Vec<_>>(), ["a/b.dtb", "vmlinuz"]);
        let manifest = folder.manifest();
        assert_eq!((manifest.sequence, manifest.runtime.to_string().as_str()), (7, "0.1.0"));
        assert_eq!(manifest.components.len(), 1);
    }

    #[test]
    fn what_was_changed_since_is_named() {
        let said = |change: &dyn Fn(&Path)| {
            let dir = folder();
            SystemFolder::describe(dir.path(), about()).unwrap();
            change(dir.path());
            SystemFolder::open(dir.path()).unwrap_err().to_string()
        };
        let other = said(&|dir| std::fs::write(dir.join("boot/vmlinuz"), "kernex").unwrap());
        assert!(other.contains("boot/vmlinuz: it is not what it was"), "{other}");
        let gone = said(&|dir| std::fs::remove_file(dir.join("boot/a/b.dtb")).unwrap());
        assert!(gone.contains("boot/a/b.dtb: it is missing"), "{gone}");
        let more = said(&|dir| std::fs::write(dir.join("boot/more"), "").unwrap());
        assert!(more.contains("boot/more: it is not in the list"), "{more}");
        let link = said(&|dir| std::os::unix::fs::symlink("vmlinuz", dir.join("boot/link")).unwrap());
        assert!(link.contains("boot/link: it is neither"), "{link}");
        let key = said(&|dir| {
            let text = std::fs::read_to_string(dir.join(ABOUT)).unwrap();
            std::fs::write(dir.join(ABOUT), format!("extra = 1\n{text}")).unwrap();
        });
        assert!(key.contains("extra"), "{key}");
        let none = said(&|dir| std::fs::remove_file(dir.join(ABOUT)).unwrap());
        assert!(none.contains("there is no system.toml"), "{none}");
    }

    #[test]
    fn a_folder_without_its_parts_is_not_described() {
        let dir = folder();
        std::fs::remove_file(dir.path().join(SQUASHFS)).unwrap();
        assert!(SystemFolder::describe(dir.path(), about()).is_err());
        let dir = folder();
        let odd = About { runtime: "0.1".into(), ..about() };
        assert!(SystemFolder::describe(dir.path(), odd).unwrap_err().to_string().contains("0.1"));
        assert!(!dir.path().join(ABOUT).exists());
    }
}
