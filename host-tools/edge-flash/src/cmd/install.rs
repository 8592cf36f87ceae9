//! `edge-flash install`: the runtime as a package of the system that is there already.

use crate::deb::{Built, Kind};
use crate::elf::{self, OLDEST_GLIBC};
use crate::remote::{CONFIG, Host, quoted};
use crate::{image, out, place};
use anyhow::{Context, Result, bail};
use edge_package::{TrustPolicy, VerifiedPackage, Version};
use edge_system::board::{self, Board};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// Where to install, over ssh
    #[arg(value_name = "USER@HOST", value_parser = place::remote, required_unless_present = "deb_only")]
    host: Option<String>,

    /// Only build the Debian package, into the folder given with -o
    #[arg(long, conflicts_with_all = ["host", "package", "config"], requires = "out")]
    deb_only: bool,

    /// Folder for the Debian package
    #[arg(short, value_name = "DIR", requires = "deb_only")]
    out: Option<PathBuf>,

    /// Processor of the system (default: the board's, else arm64; over ssh: as found)
    #[arg(long, value_parser = ["arm64", "amd64"], requires = "deb_only")]
    arch: Option<String>,

    /// The board (over ssh: as found)
    #[arg(long)]
    board: Option<String>,

    /// Install this package for the camera to run, too
    #[arg(long, value_name = "FILE.edgepack")]
    package: Option<PathBuf>,

    /// Use this as the service's configuration, /etc/edge-camera/camera.toml
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,

    /// The folder of built programs (default: where `cargo xtask cross` puts them, in the project's cache)
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,

    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let board = args.board.as_deref().map(installable).transpose()?;
    match (&args.host, &args.out) {
        (Some(host), _) => over_ssh(args, host, board),
        (None, Some(folder)) => deb_only(args, folder, board),
        (None, None) => bail!("where to? `edge-flash install USER@HOST`, or `edge-flash install --deb-only -o DIR`"),
    }
}

/// A board whose vendor's system the runtime can be installed on.
fn installable(name: &str) -> Result<&'static Board> {
    let board = board::by_name(name)?;
    if board.install.is_none() {
        bail!(
            "there is no vendor's system for {}; make an image: `edge-flash image --board {}`",
            board.title,
            board.name
        );
    }
    Ok(board)
}

fn deb_only(args: &Args, folder: &Path, board: Option<&Board>) -> Result<ExitCode> {
    let architecture = match (args.arch.as_deref(), board) {
        (Some(arch), Some(board)) if arch != board.arch.debian() => {
            bail!("{} is {}, not {arch}", board.title, board.arch.debian())
        }
        (Some(arch), _) => arch,
        (None, board) => board.map_or("arm64", |board| board.arch.debian()),
    };
    let kind = match board.and_then(|board| board.install.as_ref()) {
        Some(install) if install.static_only => Kind::Static,
        _ => Kind::Dynamic,
    };
    let path = built(args, kind, architecture)?.package(folder)?;
    told(
        args,
        &json!({
            "path": path.display().to_string(),
            "architecture": architecture,
            "static": kind == Kind::Static,
            "bytes": std::fs::metadata(&path)?.len(),
        }),
        &format!("{}: `sudo apt install ./{}` installs it there", path.display(), name(&path)),
    )
}

fn built(args: &Args, kind: Kind, architecture: &str) -> Result<Built> {
    let programs = match &args.programs {
        Some(folder) => folder.clone(),
        None => image::cache()?.join("system/programs").join(architecture),
    };
    Built::open(&programs.join(kind.program()), kind, architecture)
}

fn told(args: &Args, json: &serde_json::Value, text: &str) -> Result<ExitCode> {
    if args.json {
        out::json(json)?
    } else {
        out::line(text)?
    }
    Ok(ExitCode::SUCCESS)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What a system says of itself.
struct Found {
    architecture: String,
    board: &'static str,
    glibc: Option<(u32, u32)>,
}

/// Prints what [`Found`] is read from, a line each.
const ASK: &str = "dpkg --print-architecture && (getconf GNU_LIBC_VERSION || echo unknown) && \
                   (tr '\\0' '\\n' < /proc/device-tree/compatible) 2>/dev/null || true";

impl Found {
    fn ask(host: &Host) -> Result<Found> {
        let said = host.text(ASK)?;
        let mut lines = said.lines();
        let architecture = lines.next().unwrap_or_default().trim().to_owned();
        if !["arm64", "amd64"].contains(&architecture.as_str()) {
            bail!(
                "it is no Debian, Ubuntu or Raspberry Pi OS of 64 bits: `dpkg --print-architecture` says {architecture:?}"
            );
        }
        let glibc = lines.next().and_then(|line| elf::numbers(line.trim().strip_prefix("glibc ")?));
        let compatible: Vec<u8> = lines.flat_map(|line| line.bytes().chain([0])).collect();
        Ok(Found { architecture, board: board::from_compatible(&compatible), glibc })
    }
}

fn over_ssh(args: &Args, name_of_host: &str, asked: Option<&Board>) -> Result<ExitCode> {
    let host = Host::new(name_of_host)?;
    let found = Found::ask(&host).with_context(|| name_of_host.to_owned())?;
    let board = match asked {
        Some(board) => Some(board),
        None => board::by_name(found.board).ok(),
    };
    if let Some(board) = asked.filter(|board| board.arch.debian() != found.architecture) {
        bail!("{name_of_host} is {}, and {} is {}", found.architecture, board.title, board.arch.debian());
    }
    let install = board.and_then(|board| board.install.as_ref());
    let old = found.glibc.is_none_or(|version| version < OLDEST_GLIBC);
    let kind = if old || install.is_some_and(|install| install.static_only) { Kind::Static } else { Kind::Dynamic };
    if let Some(path) = &args.package {
        let shown = || path.display().to_string();
        let package = VerifiedPackage::open(path, &TrustPolicy::default()).with_context(shown)?;
        package.manifest().check_runtime(Version::current()).with_context(shown)?;
        if let Some(board) = board {
            package.manifest().check_board(&board.name).with_context(shown)?;
            board.check_budget(package.manifest()).with_context(shown)?;
        }
    }
    if let Some(path) = &args.config {
        check_config(path)?;
    }
    let work = tempfile::tempdir().context("cannot make a temporary folder")?;
    let deb = built(args, kind, &found.architecture)?.package(work.path())?;

    // All is checked; now the device changes.
    let files = [Some(&deb), args.package.as_ref(), args.config.as_ref()];
    let files: Vec<&Path> = files.into_iter().flatten().map(PathBuf::as_path).collect();
    let folder = host.copy(&files)?;
    let there = |path: &Path| quoted(&format!("{folder}/{}", name(path)));
    let mut script =
        format!("trap 'rm -rf {folder}' EXIT; set -e; chmod 755 {folder}; export DEBIAN_FRONTEND=noninteractive; ");
    script += &format!(
        "apt-get install -qq -y --no-install-recommends --allow-downgrades --reinstall {} >/dev/null; ",
        there(&deb)
    );
    if let Some(config) = &args.config {
        let config = there(config);
        script += &format!("edge-camera --config {config} --check >/dev/null; install -m 644 {config} {CONFIG}; ");
    }
    script += &format!("edge-camera --config {CONFIG} --check >/dev/null; ");
    if let Some(package) = &args.package {
        script += &format!("edge-camera --config {CONFIG} --install {}; ", there(package));
        script +=
            "if [ -d /run/systemd/system ]; then systemctl enable -q edge-camera; systemctl restart edge-camera; fi; ";
    }
    host.as_root(&script).context("the installation stopped")?;

    let program = if kind == Kind::Static { "static program, on the CPU" } else { "dynamic program" };
    let next = match (&args.package, install) {
        (None, _) => format!("; `edge-flash update FILE.edgepack --device {name_of_host}` gives it a package"),
        (Some(_), Some(install)) => format!("; {}", install.note),
        (Some(_), None) => String::new(),
    };
    let board = board.map_or("host", |board| board.name.as_str());
    told(
        args,
        &json!({
            "device": name_of_host,
            "architecture": found.architecture,
            "board": board,
            "static": kind == Kind::Static,
            "package": args.package.as_ref().map(|path| path.display().to_string()),
        }),
        &format!(
            "{name_of_host}: edge-camera {} ({}, {board}, {program}) is installed{next}",
            Version::current(),
            found.architecture
        ),
    )
}

/// A service without slots has no place for packages.
fn check_config(path: &Path) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let table: toml::Table = toml::from_str(&text).with_context(|| format!("{} is no TOML", path.display()))?;
    if !table.contains_key("slots") {
        bail!("{} does not say where packages are; add slots = \"/var/lib/edge-camera\"", path.display());
    }
    image::config::read_by_runtime(&text, &path.display().to_string())
}
