//! The Debian package of the runtime, for systems that stay. The same program and date give the same bytes.

use crate::elf::Program;
use crate::tools::{self, DPKG_DEB, Tool};
use anyhow::{Context, Result, bail};
use flate2::{Compression, GzBuilder};
use serde::Deserialize;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Names the files of the package, one of [`MATERIAL`].
const LIST: &str = include_str!("../../../firmware/deb/files.toml");

macro_rules! material {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_bytes!(concat!("../../../firmware/deb/", $name)) as &[u8])),*]
    };
}

/// The files of firmware/deb.
const MATERIAL: [(&str, &[u8]); 14] = material![
    "camera.toml",
    "changelog",
    "conffiles",
    "control",
    "copyright",
    "csi.conf",
    "edge-camera.1",
    "edge-camera.service",
    "lintian-overrides",
    "lintian-overrides-static",
    "postinst",
    "postrm",
    "prerm",
    "tensorrt.conf",
];
/// Stands for the built program in the list.
const PROGRAM: &str = "program";
/// The folder of the control part, as dpkg-deb wants it.
const CONTROL: &str = "DEBIAN";

/// Prints dates.
const DATE: Tool = Tool { program: "date", package: "coreutils" };
/// Makes the list of checksums that a package carries.
const MD5SUM: Tool = Tool { program: "md5sum", package: "coreutils" };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    control: Vec<Entry>,
    data: Vec<Entry>,
    depends: Depends,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    from: String,
    to: String,
    mode: u32,
    #[serde(default)]
    fill: bool,
    #[serde(default)]
    gzip: bool,
    only: Option<Kind>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Depends {
    dynamic: String,
    #[serde(rename = "static")]
    of_static: String,
}

/// Which of the two programs a package holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The one that TensorRT can be loaded into; needs a C library.
    Dynamic,
    /// The one that runs on any kernel, on the CPU.
    Static,
}

impl Kind {
    /// The program's file name, as `cargo xtask cross` leaves it.
    pub fn program(self) -> &'static str {
        match self {
            Kind::Dynamic => "edge-camera",
            Kind::Static => "edge-camera-static",
        }
    }
}

/// A program that a package can be made of.
pub struct Built {
    path: PathBuf,
    bytes: Vec<u8>,
    kind: Kind,
    architecture: &'static str,
}

impl Built {
    /// Reads a program and refuses one that would not run where the package goes.
    pub fn open(path: &Path, kind: Kind, architecture: &str) -> Result<Built> {
        let shown = path.display();
        let bytes = match std::fs::read(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                bail!("there is no {shown}: the programs are not built yet; `cargo xtask cross` builds them")
            }
            other => other.with_context(|| format!("cannot read {shown}"))?,
        };
        let program = Program::parse(&bytes).with_context(|| shown.to_string())?;
        if program.architecture != architecture {
            bail!("{shown} is a program for {}, not for {architecture}", program.architecture);
        }
        if program.is_static != (kind == Kind::Static) {
            bail!(
                "{shown} is {} static program; `cargo xtask cross` builds both",
                if program.is_static { "a" } else { "no" }
            );
        }
        if !program.too_new.is_empty() {
            bail!(
                "{shown} needs {}, and systems that it is for (JetPack 6, Ubuntu 22.04) have GLIBC_2.35; build it against an older C library, as `cargo xtask cross` does",
                program.too_new.join(", ")
            );
        }
        Ok(Built { path: path.into(), bytes, kind, architecture: program.architecture })
    }

    /// The date of the package's files, in seconds since 1970: SOURCE_DATE_EPOCH, or that of the program.
    fn date(&self) -> Result<u64> {
        if let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") {
            return text
                .trim()
                .parse()
                .with_context(|| format!("SOURCE_DATE_EPOCH={text:?} is not a number of seconds"));
        }
        let changed = std::fs::metadata(&self.path).and_then(|metadata| metadata.modified());
        let changed = changed.with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(changed.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }

    /// Writes the package into `folder`; its path.
    pub fn package(&self, folder: &Path) -> Result<PathBuf> {
        tools::need(&[DPKG_DEB, DATE, MD5SUM])?;
        let list: List = toml::from_str(LIST).context("firmware/deb/files.toml")?;
        let date = self.date()?;
        let shown = tools::run(DATE.command()?.args(["-u", "-R", "-d", &format!("@{date}")]))?.stdout;
        let version = env!("CARGO_PKG_VERSION");
        let depends = match self.kind {
            Kind::Dynamic => &list.depends.dynamic,
            Kind::Static => &list.depends.of_static,
        };
        let mut fill = vec![
            ("{version}", version.to_owned()),
            ("{architecture}", self.architecture.to_owned()),
            ("{depends}", depends.clone()),
            ("{date}", String::from_utf8_lossy(&shown).trim().to_owned()),
        ];
        let cannot = || format!("cannot write to {}", folder.display());
        std::fs::create_dir_all(folder).with_context(cannot)?;
        let work = tempfile::Builder::new().prefix(".edge-flash-").tempdir_in(folder).with_context(cannot)?;
        let root = work.path().join("root");
        let wanted = |entry: &&Entry| entry.only.is_none_or(|only| only == self.kind);
        let mut size = 0;
        for entry in list.data.iter().filter(wanted) {
            size += self.place(entry, &root, &fill)?.div_ceil(1024);
        }
        fill.push(("{installed-size}", (size + folders(&root)?).to_string()));
        let sums = md5sums(&root, list.data.iter().filter(wanted))?;
        let control = root.join(CONTROL);
        for entry in list.control.iter().filter(wanted) {
            self.place(entry, &control, &fill)?;
        }
        write(&control.join("md5sums"), &sums, 0o644)?;

        let name = format!("{}_{version}_{}.deb", self.kind.program(), self.architecture);
        let mut dpkg = DPKG_DEB.command()?;
        // Some versions compress otherwise with several threads.
        dpkg.env("SOURCE_DATE_EPOCH", date.to_string()).env("DPKG_DEB_THREADS_MAX", "1").current_dir(work.path());
        // xz, which the dpkg of older systems can read, too.
        tools::run(dpkg.args(["--root-owner-group", "-Zxz", "--build", "root", &name]))?;
        let place = folder.join(&name);
        let made = work.path().join(&name);
        let kept =
            std::fs::File::open(&made).and_then(|file| file.sync_all()).and_then(|()| std::fs::rename(&made, &place));
        kept.with_context(|| format!("cannot write {}", place.display()))?;
        Ok(place)
    }

    /// Puts an entry of the list in its place below `root`; its size in bytes.
    fn place(&self, entry: &Entry, root: &Path, fill: &[(&str, String)]) -> Result<u64> {
        let found = MATERIAL.iter().find(|(name, _)| *name == entry.from).map(|(_, bytes)| *bytes);
        let bytes = if entry.from == PROGRAM { Some(&self.bytes[..]) } else { found };
        let Some(bytes) = bytes else {
            bail!("firmware/deb/files.toml names {}, which this program does not have", entry.from)
        };
        let mut bytes = bytes.to_vec();
        if entry.fill {
            let mut text =
                String::from_utf8(bytes).with_context(|| format!("firmware/deb/{} is no text", entry.from))?;
            for (name, value) in fill {
                text = text.replace(name, value);
            }
            bytes = text.into_bytes();
        }
        if entry.gzip {
            let mut gzip = GzBuilder::new().mtime(0).write(vec![], Compression::best());
            bytes = gzip.write_all(&bytes).and_then(|()| gzip.finish())?;
        }
        write(&root.join(&entry.to), &bytes, entry.mode)?;
        Ok(bytes.len() as u64)
    }
}

/// Writes a file, with folders that anybody may enter.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let mut missing = vec![];
    for folder in path.ancestors().skip(1).take_while(|folder| !folder.exists()) {
        missing.push(folder);
    }
    for folder in missing.into_iter().rev() {
        std::fs::create_dir(folder).with_context(cannot)?;
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).with_context(cannot)?;
    }
    std::fs::write(path, bytes).with_context(cannot)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).with_context(cannot)
}

/// How many folders there are below `root`: each counts as a KiB of installed size.
fn folders(root: &Path) -> Result<u64> {
    let mut count = 0;
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            count += 1 + folders(&entry.path())?;
        }
    }
    Ok(count)
}

/// The checksums of all files but those that may be changed.
fn md5sums<'a>(root: &Path, entries: impl Iterator<Item = &'a Entry>) -> Result<Vec<u8>> {
    let changeable = |entry: &&Entry| !entry.to.starts_with("etc/");
    let mut files: Vec<_> = entries.filter(changeable).map(|entry| &entry.to).collect();
    files.sort();
    Ok(tools::run(MD5SUM.command()?.current_dir(root).args(files))?.stdout)
}
