//! Where a flashed system is: an image, a card in this machine, or a device in the network.

use crate::card;
use anyhow::{Context, Result, bail};
use edge_system::disk::{Disk, FileDisk};
use edge_system::layout::Layout;
use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Where a flashed system is.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// An image file.
    Image(PathBuf),
    /// A card.
    Device(PathBuf),
    /// A device that ssh reaches.
    Remote(String),
}

impl Place {
    /// What a word of the command line means.
    pub fn find(word: &str) -> Result<Place> {
        let path = Path::new(word);
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.file_type().is_block_device() => Ok(Place::Device(path.into())),
            Ok(metadata) if metadata.is_file() => Ok(Place::Image(path.into())),
            Ok(_) => bail!("{word} is neither an image file nor a block device"),
            Err(_) if is_remote(word) => Ok(Place::Remote(word.into())),
            Err(e) => bail!("cannot open {word}: {e}; give an image, a device such as /dev/sdX, or USER@HOST"),
        }
    }
}

/// `user@host`, and nothing that ssh would take for an option.
fn is_remote(word: &str) -> bool {
    let safe = |part: &str| !part.is_empty() && !part.starts_with('-') && !part.contains(char::is_whitespace);
    word.split_once('@').is_some_and(|(user, host)| safe(user) && safe(host) && !word.contains('/'))
}

/// A `USER@HOST` of the command line.
pub fn remote(word: &str) -> Result<String, String> {
    if is_remote(word) { Ok(word.into()) } else { Err("USER@HOST is needed, such as pi@camera.local".into()) }
}

/// An image or a card, opened for reading.
pub struct Flashed {
    /// The file or device.
    pub file: File,
    /// The same as a disk.
    pub disk: FileDisk,
    /// Where things stand on it.
    pub layout: Layout,
}

impl Flashed {
    /// Opens it; what is no flashed system, or was not written to its end, is refused with the reason.
    pub fn open(path: &Path) -> Result<Flashed> {
        let file = match File::open(path) {
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                bail!("{} may not be read by this user; run the command with sudo", path.display())
            }
            other => other.with_context(|| format!("cannot open {}", path.display()))?,
        };
        let disk = FileDisk::from_file(file.try_clone()?).with_context(|| format!("cannot read {}", path.display()))?;
        let layout = layout(&disk).with_context(|| path.display().to_string())?;
        Ok(Flashed { file, disk, layout })
    }
}

/// The layout that a disk has, where it is a flashed one.
pub fn layout(disk: &dyn Disk) -> Result<Layout> {
    let mut first = [0; card::SECTOR];
    if disk.size() >= first.len() as u64 {
        disk.read_at(&mut first, 0).context("it cannot be read")?;
    }
    if card::is_unfinished(&first) {
        bail!("it was not written to its end and is not usable yet; write it again with `edge-flash write`");
    }
    Ok(Layout::from_disk(disk)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_places() {
        assert_eq!(Place::find("pi@camera.local").unwrap(), Place::Remote("pi@camera.local".into()));
        for odd in ["-oProxyCommand=x@y", "pi@-oProxyCommand=x", "a b@c", "@c", "pi@", "nosuchfile", "x/y@z"] {
            assert!(Place::find(odd).is_err(), "{odd}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Place::find(file.path().to_str().unwrap()).unwrap(), Place::Image(file.path().into()));
        assert!(Place::find("/dev").unwrap_err().to_string().contains("neither an image"));
    }
}
