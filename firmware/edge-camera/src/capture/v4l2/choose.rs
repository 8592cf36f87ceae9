//! Which camera is meant: by path, by a pattern of paths, or by its name.

use anyhow::{Context, anyhow, bail};
use edge_system::check;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use v4l::capability::Flags;

/// A camera that was found.
#[derive(Debug, PartialEq)]
pub struct Found {
    /// The device as it was named, or the first that fits.
    pub named: PathBuf,
    /// The same, links followed: /dev/videoN.
    pub path: PathBuf,
    /// The N of /dev/videoN.
    pub index: u32,
    /// The driver's name for it, empty where it does not tell.
    pub card: String,
}

/// What a device node is.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// A camera, with the driver's name for it.
    Camera(String),
    /// Something else that the driver offers: an output, a codec, metadata.
    Other(String),
    /// It can't be asked.
    Closed(String),
}

/// Finds the camera that `wanted` names: `/dev/video0`, `/dev/v4l/by-id/usb-*` or `name=HD Webcam`.
pub fn find(wanted: &str) -> anyhow::Result<Found> {
    if let Some(name) = wanted.strip_prefix("name=") {
        let nodes: Vec<_> = nodes().into_iter().map(|path| (kind(&path), path)).collect();
        return match by_name(name, &nodes) {
            Some(path) => found(path),
            None => bail!("there is no camera whose name has {name:?} in it; {}", listing()),
        };
    }
    if wanted.contains(['*', '?', '[']) {
        let paths = glob::glob(wanted).with_context(|| format!("{wanted:?} is not a pattern of paths"))?;
        let mut paths = paths.flatten().peekable();
        if paths.peek().is_none() {
            bail!("nothing is called {wanted}; {}", listing());
        }
        // A webcam has nodes that deliver no pictures, too.
        let first = paths.find(|path| !matches!(kind(path), Kind::Other(_)));
        return found(&first.with_context(|| format!("nothing called {wanted} delivers pictures; {}", listing()))?);
    }
    found(Path::new(wanted))
}

/// The first camera with `name` in its own, whatever the case; else the first such node that can't be asked.
fn by_name<'a>(name: &str, nodes: &'a [(Kind, PathBuf)]) -> Option<&'a Path> {
    let name = name.to_lowercase();
    let fits = |card: &str| card.to_lowercase().contains(&name);
    let camera = nodes.iter().find(|(kind, _)| matches!(kind, Kind::Camera(card) if fits(card)));
    let closed = || nodes.iter().find(|(kind, _)| matches!(kind, Kind::Closed(card) if fits(card)));
    camera.or_else(closed).map(|(_, path)| path.as_path())
}

fn found(named: &Path) -> anyhow::Result<Found> {
    let path =
        std::fs::canonicalize(named).map_err(|_| anyhow!("there is no camera {}; {}", named.display(), listing()))?;
    let Some(index) = index(&path) else {
        bail!("{} is not a camera; a path such as /dev/video0 is needed; {}", named.display(), listing());
    };
    match kind(&path) {
        Kind::Camera(card) | Kind::Closed(card) => Ok(Found { named: named.into(), path, index, card }),
        Kind::Other(card) => {
            bail!("{} ({card}) delivers no pictures to one plane of memory; {}", named.display(), listing())
        }
    }
}

/// The N of /dev/videoN.
fn index(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.strip_prefix("video")?.parse().ok()
}

/// All of /dev/video*, by number.
fn nodes() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let mut nodes: Vec<(u32, PathBuf)> = entries.filter_map(|e| Some((index(&e.path())?, e.path()))).collect();
    nodes.sort();
    nodes.into_iter().map(|(_, path)| path).collect()
}

fn kind(path: &Path) -> Kind {
    let opened = v4l::Device::with_path(path).and_then(|device| device.query_caps());
    match opened {
        Ok(caps) if caps.capabilities.contains(Flags::VIDEO_CAPTURE | Flags::STREAMING) => Kind::Camera(caps.card),
        Ok(caps) => Kind::Other(caps.card),
        Err(_) => Kind::Closed(check::video_name(Path::new("/sys"), path).unwrap_or_default()),
    }
}

/// What is there instead, for people.
fn listing() -> String {
    let describe = |path: &PathBuf| match kind(path) {
        Kind::Camera(card) => format!("{} ({card})", path.display()),
        Kind::Other(card) => format!("{} ({card}, no camera)", path.display()),
        Kind::Closed(card) => format!("{} ({card}, cannot be opened)", path.display()),
    };
    let nodes = nodes();
    let there = match nodes.as_slice() {
        [] => "there is no /dev/video*; is a camera plugged in?".into(),
        some => format!("there are {}", some.iter().map(describe).collect::<Vec<_>>().join(", ")),
    };
    format!("{there}{}", csi_hint().unwrap_or_default())
}

/// How a camera that is none for V4L2 is read, where this board may have one.
pub fn csi_hint() -> Option<String> {
    check::ribbon_cable(edge_system::board::this_board()).map(|hint| format!("; {hint}"))
}

/// Why a device can't be opened, and what to do about it.
pub fn explain(path: &Path, error: &io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::PermissionDenied => anyhow!("{}", check::camera_denied(path)),
        ErrorKind::ResourceBusy => anyhow!("another program uses {}", path.display()),
        _ => anyhow!("{} cannot be opened: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_for_among_cameras_first() {
        let node = |kind, n: u32| (kind, PathBuf::from(format!("/dev/video{n}")));
        let nodes = [
            node(Kind::Closed("HD Webcam: locked".into()), 0),
            node(Kind::Other("HD Webcam metadata".into()), 1),
            node(Kind::Camera("Integrated HD Webcam".into()), 2),
            node(Kind::Camera("vivid".into()), 3),
        ];
        let named = |name: &str| by_name(name, &nodes).map(|p| p.display().to_string());
        assert_eq!(named("hd webcam").as_deref(), Some("/dev/video2"));
        assert_eq!(named("LOCKED").as_deref(), Some("/dev/video0"));
        assert_eq!(named("VIVID").as_deref(), Some("/dev/video3"));
        assert_eq!(named("metadata"), None);
        assert_eq!(named("nothing"), None);
    }

    #[test]
    fn what_is_no_camera_is_named() {
        let why = |wanted: &str| format!("{:#}", find(wanted).unwrap_err());
        assert!(why("/dev/null").contains("/dev/null is not a camera"), "{}", why("/dev/null"));
        assert!(why("/dev/video97").contains("there is no camera /dev/video97; there "), "{}", why("/dev/video97"));
        assert!(why("/dev/v4l/none-*").contains("nothing is called /dev/v4l/none-*; there "));
        assert!(why("name=none such").contains("\"none such\""));
        assert!(why("/dev/[").contains("not a pattern"));
    }

    #[test]
    fn errors_say_what_to_do() {
        let why = |kind: ErrorKind| explain(Path::new("/dev/video5"), &kind.into()).to_string();
        assert!(why(ErrorKind::PermissionDenied).contains("usermod -aG video"));
        assert!(why(ErrorKind::ResourceBusy).contains("another program uses /dev/video5"));
    }
}
