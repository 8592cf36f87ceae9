//! Which files of a folder are pictures.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Endings taken for pictures: Keras' list (`bmp`, `gif`, `jpeg`, `jpg`, `png`) without what isn't decoded here.
const EXTENSIONS: [&str; 3] = ["jpg", "jpeg", "png"];

/// A file or folder that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("can't read {}: {why}", path.display())]
pub struct FolderError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said. Part of the message, so not its source.
    pub why: io::Error,
}

/// What lies under a path.
#[derive(Debug, Default)]
pub struct Listing {
    /// The pictures, in order.
    pub pictures: Vec<PathBuf>,
    /// What could not be looked into; whatever pictures it holds are missing from the list.
    pub unreadable: Vec<FolderError>,
}

/// The pictures under `path`: a file gives itself, whatever its name; a folder is walked to its leaves.
///
/// The order is byte-wise by the path relative to `path`, the same on every machine and file system. Names
/// that begin with a dot are skipped. As with Keras' `os.walk`, links to files are taken and links to
/// folders are not followed, so a link can't lead in a circle. A folder without pictures gives an empty list.
pub fn picture_paths(path: &Path) -> Listing {
    let mut listing = Listing::default();
    match fs::metadata(path) {
        Err(why) => listing.unreadable.push(FolderError { path: path.to_owned(), why }),
        Ok(meta) if meta.is_dir() => walk(path, &mut listing),
        Ok(_) => listing.pictures.push(path.to_owned()),
    }
    listing
}

fn walk(root: &Path, listing: &mut Listing) {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        let folder = root.join(&relative);
        let mut look = || -> io::Result<()> {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                let name = entry.file_name();
                if name.as_encoded_bytes().starts_with(b".") {
                    continue;
                }
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    pending.push(relative.join(&name));
                } else if has_picture_extension(Path::new(&name)) && !(kind.is_symlink() && entry.path().is_dir()) {
                    found.push(relative.join(&name));
                }
            }
            Ok(())
        };
        if let Err(why) = look() {
            listing.unreadable.push(FolderError { path: folder, why });
        }
    }
    found.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    listing.pictures.extend(found.into_iter().map(|relative| root.join(relative)));
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
            .pictures
            .iter()
            .map(|p| p.strip_prefix(dir.path()).unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(got, ["a.jpeg", "a/b/c.PNG", "a/z.png", "b.JPG"]);
        let one = dir.path().join("notes.txt");
        assert_eq!(picture_paths(&one).pictures, [one]);
        let err = picture_paths(&dir.path().join("gone")).unreadable[0].to_string();
        assert!(err.contains("gone"), "{err}");
    }
}
