//! Where a system is: an image, a card in this machine, a device in the network, or a camera that runs and has a link.

use anyhow::{Result, bail};
use edge_link::Address;
pub use edge_system::flashed::Flashed;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Where a system is.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// An image file.
    Image(PathBuf),
    /// A card.
    Device(PathBuf),
    /// A device that ssh reaches.
    Remote(String),
    /// A camera that runs and is asked over its link.
    Link(Address),
}

/// What the address of a link begins with.
const LINKS: [&str; 4] = ["serial:", "tcp:", "unix:", "ssh:"];

impl Place {
    /// What a word of the command line means.
    pub fn find(word: &str) -> Result<Place> {
        if LINKS.iter().any(|link| word.starts_with(link)) {
            return Ok(Place::Link(word.parse()?));
        }
        let path = Path::new(word);
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.file_type().is_block_device() => Ok(Place::Device(path.into())),
            Ok(metadata) if metadata.is_file() => Ok(Place::Image(path.into())),
            Ok(_) => bail!("{word} is neither an image file nor a block device"),
            Err(_) if is_remote(word) => Ok(Place::Remote(word.into())),
            Err(e) => bail!(
                "cannot open {word}: {e}; give an image, a device such as /dev/sdX, USER@HOST, or a camera's link: serial:, tcp:, unix: or ssh:"
            ),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_places() {
        assert_eq!(Place::find("pi@camera.local").unwrap(), Place::Remote("pi@camera.local".into()));
        for odd in ["-oProxyCommand=x@y", "pi@-oProxyCommand=x", "a b@c", "@c", "pi@", "nosuchfile", "x/y@z"] {
            assert!(Place::find(odd).is_err(), "{odd}");
        }
        let link = Place::find("unix:/run/edge-camera/link").unwrap();
        assert_eq!(link, Place::Link(Address::Unix("/run/edge-camera/link".into())));
        assert!(Place::find("tcp:camera:7070").unwrap_err().to_string().contains("names no key"));
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Place::find(file.path().to_str().unwrap()).unwrap(), Place::Image(file.path().into()));
        assert!(Place::find("/dev").unwrap_err().to_string().contains("neither an image"));
    }
}
