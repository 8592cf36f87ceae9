//! Which files of a folder are pictures.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Endings taken for pictures: Keras' list (`bmp`, `gif`, `jpeg`, `jpg`, `png`) without what isn't decoded here.
const EXTENSIONS: [&str; 3] = ["jpg", "jpeg", "png"];

/// A folder that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Nothing is there, or it may not be read.
    #[error("can't read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The pictures under `path`: a file gives itself, whatever its name; a folder is walked to its leaves.
///
/// The order is byte-wise by the path relative to `path`, the same on every machine and file system. Names
/// that begin with a dot are skipped. As with Keras' `os.walk`, links to files are taken and links to
/// folders are not followed, so a link can't lead in a circle. A folder without pictures gives an empty list.
///
/// # Errors
///
/// [`FolderError::Read`] names the file or folder that can't be read.
pub fn picture_paths(path: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let at = |path: &Path, source| FolderError::Read { path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(|e| at(path, e))?;
    if !meta.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        let folder = path.join(&relative);
        for entry in fs::read_dir(&folder).map_err(|e| at(&folder, e))? {
            let entry = entry.map_err(|e| at(&folder, e))?;
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let kind = entry.file_type().map_err(|e| at(&entry.path(), e))?;
            if kind.is_dir() {
                pending.push(relative.join(&name));
            } else if has_picture_extension(Path::new(&name)) && !(kind.is_symlink() && entry.path().is_dir()) {
                found.push(relative.join(&name));
            }
        }
    }
    found.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok(found.into_iter().map(|relative| path.join(relative)).collect())
}

fn has_picture_extension(name: &Path) -> bool {
    name.extension()
        .and_then(|e| e.to_str())
        .is_some_and(|e| EXTENSIONS.iter().any(|known| e.eq_ignore_ascii_case(known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_sorted_and_skips_hidden() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.JPG", "a/z.png", "a/.hidden.jpg", ".git/x.jpg", "a.jpeg", "notes.txt", "a/b/c.PNG"] {
            let file = dir.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, b"x").unwrap();
        }
        let got: Vec<_> = picture_paths(dir.path())
            .unwrap()
            .iter()
            .map(|p| p.strip_prefix(dir.path()).unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(got, ["a.jpeg", "a/b/c.PNG", "a/z.png", "b.JPG"]);
        let one = dir.path().join("notes.txt");
        assert_eq!(picture_paths(&one).unwrap(), [one]);
        let err = picture_paths(&dir.path().join("gone")).unwrap_err().to_string();
        assert!(err.contains("gone"), "{err}");
    }
}
