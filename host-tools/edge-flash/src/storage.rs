//! A data partition that is not mounted, as the [`Storage`] that updates of packages work on.

use crate::ext4::{self, Editable, make_file, make_folder};
use crate::image::data::CAMERA;
use edge_package::Storage;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Component, Path};

/// The file system in a file of this machine. Nobody sees the file before the update is complete, so every step is as
/// durable as it needs to be at once.
pub struct Unmounted<'a> {
    fs: &'a Editable,
}

impl<'a> Unmounted<'a> {
    /// The storage of this file system.
    pub fn new(fs: &'a Editable) -> Unmounted<'a> {
        Unmounted { fs }
    }

    fn view(&self) -> io::Result<ext4_view::Ext4> {
        let file = File::open(self.fs.path())?;
        let length = file.metadata()?.len();
        ext4::read(&file, 0..length).map_err(|e| other(e.into()))
    }

    fn script(&self, commands: &str) -> io::Result<()> {
        self.fs.script(commands).map_err(other)
    }
}

fn other(error: anyhow::Error) -> io::Error {
    io::Error::other(format!("{error:#}"))
}

/// The path as the file system's own programs take it: plain parts, with slashes.
fn plain(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => {
                let part = part.to_str().filter(|part| !part.contains(['"', '\\', '\n']));
                text += "/";
                text += part.ok_or(ErrorKind::InvalidFilename)?;
            }
            Component::RootDir | Component::CurDir => {}
            _ => return Err(ErrorKind::InvalidFilename.into()),
        }
    }
    Ok(text)
}

impl Storage for Unmounted<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let found = ext4::content(&self.view()?, &plain(path)?).map_err(|e| other(e.into()))?;
        found.ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn is_file(&self, path: &Path) -> bool {
        let metadata = plain(path).and_then(|path| self.view()?.metadata(path.as_str()).map_err(io::Error::other));
        metadata.is_ok_and(|metadata| metadata.file_type().is_regular_file())
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        let path = plain(path)?;
        let view = self.view()?;
        let is_folder = |path: &str| path.is_empty() || view.metadata(path).is_ok_and(|metadata| metadata.is_dir());
        if is_folder(&path) {
            return Ok(());
        }
        if !is_folder(path.rsplit_once('/').unwrap_or_default().0) {
            return Err(ErrorKind::NotFound.into());
        }
        self.script(&make_folder(&path, CAMERA))
    }

    /// The mode is that of every file of the partition.
    fn create(&self, path: &Path, bytes: &[u8], _mode: u32) -> io::Result<()> {
        let path = plain(path)?;
        if self.view()?.exists(path.as_str()).map_err(io::Error::other)? {
            return Err(ErrorKind::AlreadyExists.into());
        }
        const NAME: &str = "content";
        std::fs::write(self.fs.path().with_file_name(NAME), bytes)?;
        self.script(&make_file(NAME, &path, CAMERA))
    }

    fn sync_file(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (plain(from)?, plain(to)?);
        let there = self.view()?.exists(to.as_str()).map_err(io::Error::other)?;
        let remove = if there { format!("rm \"{to}\"\n") } else { String::new() };
        // Neither of the two commands touches the count of names, which is one before and after.
        self.script(&format!("{remove}link \"{from}\" \"{to}\"\nunlink \"{from}\"\n"))
    }

    fn sync_folder(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let path = plain(path)?;
        if !self.view()?.exists(path.as_str()).map_err(io::Error::other)? {
            return Err(ErrorKind::NotFound.into());
        }
        self.script(&format!("rm \"{path}\"\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::{self, E2FSCK};
    use edge_package::replace;

    #[test]
    fn files_are_replaced_and_the_file_system_stays_sound() {
        let folder = tempfile::tempdir().unwrap();
        let fs = Editable::new(folder.path(), "fs", 1_700_000_000);
        fs.make(64 << 20, "edge-data", &[1; 32]).unwrap();
        let storage = Unmounted::new(&fs);
        let (dir, file) = (Path::new("packages"), Path::new("packages/a b"));
        assert!(!storage.is_file(file));
        assert_eq!(storage.make_folder(file).unwrap_err().kind(), ErrorKind::NotFound);
        storage.make_folder(dir).unwrap();
        storage.make_folder(dir).unwrap();
        assert_eq!(storage.read(file).unwrap_err().kind(), ErrorKind::NotFound);
        for content in [vec![1; 3_000_000], vec![2; 10], vec![], vec![3; 5_000_000]] {
            replace(&storage, file, &content, 0o644).unwrap();
            assert!(storage.is_file(file) && storage.read(file).unwrap() == content);
        }
        assert_eq!(storage.create(file, b"x", 0o644).unwrap_err().kind(), ErrorKind::AlreadyExists);
        // Far more than there is room for, and the old content is still there.
        assert!(replace(&storage, file, &vec![4; 60 << 20], 0o644).is_err());
        assert_eq!(storage.read(file).unwrap().len(), 5_000_000);
        tools::run(E2FSCK.command().unwrap().arg("-fn").arg(fs.path())).unwrap();
        storage.remove(file).unwrap();
        assert_eq!(storage.remove(file).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(storage.read(Path::new("../x")).is_err() && storage.read(Path::new("a\"b")).is_err());
        tools::run(E2FSCK.command().unwrap().arg("-fn").arg(fs.path())).unwrap();
    }
}
