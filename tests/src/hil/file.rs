//! The file that describes a device under test.

use anyhow::{Context, Result, bail};
use edge_link::Address;
use edge_vision::PixelFormat;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Something that a device has and a case may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// A link, which answers what it is asked.
    Link,
    /// The link also does what changes something.
    Control,
    /// The link refuses to do so.
    ReadOnly,
    /// Scripts can be run there, with the right to signal the camera program.
    Shell,
    /// What the system prints can be read.
    Console,
    /// Power can be taken away and given back.
    PowerCut,
    /// It starts anew when it is told to through the link.
    Reboot,
    /// Frames come from a V4L2 camera.
    Camera,
    /// A picture of our choice reaches that camera, every byte of it.
    Show,
    /// The camera can be made to fail.
    CameraFaults,
    /// Packages can be updated, and their key is here.
    Packages,
    /// Systems can be updated.
    Systems,
    /// A camera program that ends is started again.
    Supervised,
    /// One that hangs is ended.
    Watchdog,
    /// The wall clock can be set through the link.
    Clock,
    /// Log and packages are on a partition of their own, which can be filled.
    DataPartition,
    /// Its card can be taken out: once it is off, this machine reads and writes its disk.
    Card,
    /// It knows how warm it is.
    Temperature,
}

impl Capability {
    /// Whether a device of this kind can have it, whatever its file says.
    pub fn fits(self, kind: &Kind) -> bool {
        use Capability::*;
        let [host, remote, qemu] =
            [matches!(kind, Kind::Host(_)), matches!(kind, Kind::Remote(_)), matches!(kind, Kind::Qemu(_))];
        match self {
            Link | Control | ReadOnly | Shell | Console | Packages | Supervised | Watchdog => true,
            PowerCut | Reboot | Camera | Clock | DataPartition => !host,
            Show => !remote,
            CameraFaults | Systems | Card => qemu,
            Temperature => remote,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Width and height in pixels, written `640x480`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let sides = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
        match sides {
            // Formats that halve the colours need even sides.
            Some((width, height)) if width > 0 && height > 0 && width % 2 == 0 && height % 2 == 0 => {
                Ok(Size { width, height })
            }
            _ => Err(format!("{text:?} is no size of a frame, such as 640x480 (even numbers)")),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A device under test. Paths in the file are relative to its folder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DutFile {
    /// What it is called in reports.
    pub name: String,
    /// What it has.
    pub capabilities: BTreeSet<Capability>,
    /// What its camera delivers.
    #[serde(default)]
    pub formats: Vec<PixelFormat>,
    /// How large.
    #[serde(default)]
    pub sizes: Vec<Size>,
    /// Seconds that an answer may take; emulated boards compute a hundred times slower than real ones.
    #[serde(default = "a_minute")]
    patience_s: u64,
    /// Seconds from power on to the first class, at most, by the device's own clock.
    #[serde(default = "two_minutes")]
    first_class_s: u64,
    host: Option<Host>,
    remote: Option<Remote>,
    qemu: Option<Qemu>,
}

fn a_minute() -> u64 {
    60
}

fn two_minutes() -> u64 {
    120
}

/// What kind of device it is, with what is needed to get at one of that kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `edge-camera` on this machine.
    Host(Host),
    /// A device that runs already.
    Remote(Remote),
    /// An emulated board.
    Qemu(Qemu),
}

impl Kind {
    /// What its part of the file is called.
    fn table(&self) -> &'static str {
        match self {
            Kind::Host(_) => "[host]",
            Kind::Remote(_) => "[remote]",
            Kind::Qemu(_) => "[qemu]",
        }
    }

    /// Files that it cannot do without.
    pub fn files(&self) -> Vec<&Path> {
        match self {
            Kind::Host(host) => vec![&host.model],
            Kind::Qemu(qemu) => std::iter::once(&qemu.model).chain(&qemu.calibration).map(PathBuf::as_path).collect(),
            Kind::Remote(remote) => {
                let link = match &remote.link {
                    Address::Tcp { key, .. } => Some(key.as_path()),
                    _ => None,
                };
                std::iter::once(remote.package.as_path()).chain(remote.key.as_deref()).chain(link).collect()
            }
        }
    }
}

/// `[host]`: `edge-camera` on this machine, under `edge-init supervise`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Host {
    /// The model that is packaged.
    pub model: PathBuf,
    /// Frames per second of its camera, which is a stream on its standard input.
    pub rate: f64,
    /// Seconds without a sign of life after which the camera program is ended.
    pub hang_s: f64,
}

/// `[remote]`: a board that is reached through a wire or a network.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Remote {
    /// Where its link is: `ssh:USER@HOST`, `tcp:HOST:PORT,key=FILE`, `serial:/dev/ttyUSB0`.
    #[serde(deserialize_with = "address")]
    pub link: Address,
    /// The package that runs there.
    pub package: PathBuf,
    /// The key that signs updates for it, for [`Capability::Packages`].
    pub key: Option<PathBuf>,
    /// `USER@HOST` for [`Capability::Shell`].
    pub ssh: Option<String>,
    /// A serial line that its console is on, for [`Capability::Console`].
    pub console: Option<String>,
    /// A program and its arguments that give it power.
    #[serde(default)]
    pub power_on: Vec<String>,
    /// The same that take it away, for [`Capability::PowerCut`].
    #[serde(default)]
    pub power_off: Vec<String>,
}

/// `[qemu]`: an emulated board.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Qemu {
    /// Which one.
    pub board: String,
    /// The model that is packaged.
    pub model: PathBuf,
    /// A folder of photos: the package is quantized to int8 with them.
    pub calibration: Option<PathBuf>,
    /// More words for the kernel.
    #[serde(default)]
    pub words: String,
    /// More lines for camera.toml.
    #[serde(default)]
    pub config: BTreeMap<String, toml::Value>,
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

impl DutFile {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, has a key that is unknown, or describes no device or more than one.
    pub fn read(path: &Path) -> Result<DutFile> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut file: DutFile = toml::from_str(&text).with_context(|| path.display().to_string())?;
        let kinds = [file.host.is_some(), file.remote.is_some(), file.qemu.is_some()];
        if kinds.iter().filter(|there| **there).count() != 1 {
            bail!("{}: one of [host], [remote] and [qemu] says what the device is", path.display());
        }
        let kind = file.kind()?;
        if let Some(capability) = file.capabilities.iter().find(|capability| !capability.fits(&kind)) {
            bail!("{}: a {} cannot have the capability {capability}", path.display(), kind.table());
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut paths: Vec<&mut PathBuf> = file.host.iter_mut().map(|host| &mut host.model).collect();
        paths.extend(
            file.qemu.iter_mut().flat_map(|qemu| std::iter::once(&mut qemu.model).chain(&mut qemu.calibration)),
        );
        if let Some(remote) = &mut file.remote {
            paths.push(&mut remote.package);
            paths.extend(&mut remote.key);
            if let Address::Tcp { key, .. } = &mut remote.link {
                paths.push(key);
            }
        }
        for path in paths {
            *path = folder.join(&*path);
        }
        Ok(file)
    }

    /// What it is.
    pub fn kind(&self) -> Result<Kind> {
        match (&self.host, &self.remote, &self.qemu) {
            (Some(host), _, _) => Ok(Kind::Host(host.clone())),
            (_, Some(remote), _) => Ok(Kind::Remote(remote.clone())),
            (_, _, Some(qemu)) => Ok(Kind::Qemu(qemu.clone())),
            _ => bail!("{}: the file does not say what the device is", self.name),
        }
    }

    /// How long an answer may take.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.patience_s)
    }

    /// From power on to the first class, at most, by the device's own clock.
    pub fn first_class(&self) -> Duration {
        Duration::from_secs(self.first_class_s)
    }
}
