//! The .deb of edge-camera in a clean Debian: what `edge-flash install --deb-only` assembles is looked at by lintian, and is
//! installed, run, removed and purged in a system that has nothing but what every Debian has, for this machine's processor
//! and for arm64 under qemu.
//!
//! The systems are made once by Debian's own debootstrap and kept in the cache; each look is at a copy. Everything runs in
//! namespaces of its own, so that neither a mount nor the entry that has arm64 programs run by qemu is seen by the machine.

use crate::tools::{self, built, cache};
use anyhow::{Context, Result, bail, ensure};
use edge_rig::apt;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Debian's installer, and what runs programs of another processor.
const TOOLS: apt::Packages =
    apt::Packages { name: "chroot", alone: &["debootstrap", "qemu-user"], backports: &["qemu-*"], ..apt::NONE };
/// The newest version of the C library that a program may ask for: Ubuntu 22.04's, which JetPack 6 is.
const GLIBC: (u32, u32) = (2, 35);
/// What runs in the namespaces.
const SCRIPT: &str = include_str!("deb.sh");
/// The exit code by which the script says that this machine cannot do it.
const CANNOT: i32 = 90;

/// What there is to say of the packages.
pub enum Looked {
    /// What was proved.
    At(String),
    /// Why nothing can be looked at here.
    Not(String),
}

/// A package that can be assembled.
#[derive(Clone, Copy)]
struct Variant {
    /// Debian's name of the processor.
    architecture: &'static str,
    /// The board that it is for, where that is a question: systems that are too old get a static program.
    board: Option<&'static str>,
}

const VARIANTS: [Variant; 3] = [
    Variant { architecture: "amd64", board: None },
    Variant { architecture: "arm64", board: None },
    Variant { architecture: "arm64", board: Some("jetson-nano") },
];

/// The step. What was built before is in `work`.
pub fn run(work: &Path) -> Result<Looked> {
    if !is_root()? {
        return Ok(Looked::Not("only root can make the file systems of other systems (chroot)".into()));
    }
    let cache = cache()?;
    let tools = match apt::fetch(&cache, &TOOLS) {
        Ok(tools) => tools,
        Err(e) if e.is::<apt::Unavailable>() => return Ok(Looked::Not(format!("{e:#}"))),
        Err(e) => return Err(e),
    };
    let package = work.join("deb.edgepack");
    let model = tools::root().join("tests/goldens/engine/nhwc-unk-softmax.onnx");
    tools::output(Command::new(built("edge-pack")?).arg(model).arg("-o").arg(&package))?;

    let mut proved = vec![];
    for variant in VARIANTS {
        let Some(programs) = variant.programs(&cache, work)? else {
            proved.push(format!(
                "{} SKIPPED: there is no program for it yet, `cargo xtask cross` makes it",
                variant.name()
            ));
            continue;
        };
        let system = match system(&cache, &tools, variant.architecture)? {
            Looked::At(system) => PathBuf::from(system),
            Looked::Not(why) => {
                proved.push(format!("{} SKIPPED: {why}", variant.name()));
                continue;
            }
        };
        let deb = variant.assemble(&programs, work)?;
        let linked = variant.linked(&deb, work)?;
        let lintian = lint(&cache, &tools, &deb)?;
        proved.push(match install(&tools, &system, &deb, &package, variant)? {
            Looked::At(installed) => format!("{}: {linked}, {lintian}, {installed}", variant.name()),
            Looked::Not(why) => format!("{}: {linked}, {lintian}; installing SKIPPED: {why}", variant.name()),
        });
    }
    if proved.iter().all(|line| line.contains(" SKIPPED: ") && !line.contains("lintian")) {
        return Ok(Looked::Not(proved.join("; ")));
    }
    Ok(Looked::At(proved.join("; ")))
}

impl Variant {
    fn name(self) -> String {
        self.board.map_or(self.architecture.into(), |board| format!("{} ({board}, static)", self.architecture))
    }

    /// The folder of the program: as `cargo xtask cross` leaves it, or with what the tests of this machine use.
    fn programs(self, cache: &Path, work: &Path) -> Result<Option<PathBuf>> {
        let name = if self.board.is_some() { "edge-camera-static" } else { "edge-camera" };
        let crossed = cache.join("system/programs").join(self.architecture);
        if crossed.join(name).is_file() {
            return Ok(Some(crossed));
        }
        if self.board.is_some() || self.architecture != "amd64" || std::env::consts::ARCH != "x86_64" {
            return Ok(None);
        }
        let own = work.join("programs");
        fs::create_dir_all(&own)?;
        tools::run(Command::new("strip").arg("-o").arg(own.join(name)).arg(built("edge-camera")?))?;
        Ok(Some(own))
    }

    /// Has the package assembled, into a folder of its own.
    fn assemble(self, programs: &Path, work: &Path) -> Result<PathBuf> {
        let folder = work.join("debs").join(format!("{}{}", self.architecture, self.board.unwrap_or_default()));
        apt::remove_dir(&folder)?;
        fs::create_dir_all(&folder)?;
        let mut command = Command::new(built("edge-flash")?);
        command.args(["install", "--deb-only", "--arch", self.architecture, "--programs"]).arg(programs);
        command.args(self.board.iter().flat_map(|board| ["--board", board]));
        tools::output(command.arg("-o").arg(&folder))?;
        let mut debs = fs::read_dir(&folder)?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "deb"));
        match (debs.next(), debs.next()) {
            (Some(deb), None) => Ok(deb),
            _ => bail!("edge-flash left not one package in {}", folder.display()),
        }
    }

    /// Which C library the program asks for.
    fn linked(self, deb: &Path, work: &Path) -> Result<String> {
        let unpacked = work.join("deb.unpacked");
        apt::remove_dir(&unpacked)?;
        apt::text(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(&unpacked))?;
        let program = unpacked.join("usr/bin/edge-camera");
        // objdump reads its own processor's programs only; what it shows of versions, readelf shows of all.
        let needs = apt::text(Command::new("readelf").args(["--wide", "--version-info"]).arg(&program))?;
        let newest = newest_glibc(&needs);
        if self.board.is_some() {
            ensure!(newest.is_none(), "the static program asks for a C library: {newest:?}");
            return Ok("no C library needed".into());
        }
        let (major, minor) = newest.context("the program asks for no version of the C library")?;
        ensure!(
            (major, minor) <= GLIBC,
            "the program needs GLIBC_{major}.{minor}, and JetPack 6 has {}.{}",
            GLIBC.0,
            GLIBC.1
        );
        if self.architecture == "amd64" {
            let symbols = apt::text(Command::new("objdump").arg("-T").arg(&program))?;
            ensure!(newest_glibc(&symbols) == newest, "objdump and readelf disagree on what the program needs");
        }
        Ok(format!("nothing newer than GLIBC_{major}.{minor}"))
    }
}

/// The highest GLIBC_ version in a text.
fn newest_glibc(text: &str) -> Option<(u32, u32)> {
    let version = |rest: &str| {
        let number: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let mut parts = number.split('.').map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    text.split("GLIBC_").skip(1).filter_map(version).max()
}

fn is_root() -> Result<bool> {
    Ok(apt::text(Command::new("id").arg("-u"))?.trim() == "0")
}

/// A clean Debian for this processor, made where there is none yet.
fn system(cache: &Path, tools: &Path, architecture: &str) -> Result<Looked> {
    let (suite, mirror) = match mirror() {
        Ok(mirror) => mirror,
        Err(why) => return Ok(Looked::Not(why)),
    };
    let folder = cache.join("chroot").join(format!("{suite}-{architecture}"));
    if folder.is_dir() {
        return Ok(Looked::At(folder.display().to_string()));
    }
    println!("making a clean Debian {suite} for {architecture} in {}", folder.display());
    let partial = folder.with_extension("partial");
    apt::remove_dir(&partial)?;
    fs::create_dir_all(&partial)?;
    let make = [
        ("EDGE_DEB_MAKE", tools.display().to_string()),
        ("EDGE_DEB_ARCH", architecture.into()),
        ("EDGE_DEB_SUITE", suite),
        ("EDGE_DEB_MIRROR", mirror),
    ];
    let ran = inside(tools, architecture, &[&partial, Path::new("-"), Path::new("-")], &make)?;
    if ran.code != Some(0) {
        // Debian's installer says in its last lines what it could not do; without a network that is its first download.
        let last: Vec<&str> = ran.text.lines().rev().take(3).collect();
        return Ok(Looked::Not(format!("debootstrap could not make a clean Debian: {}", last.join(" / "))));
    }
    fs::rename(&partial, &folder)?;
    Ok(Looked::At(folder.display().to_string()))
}

/// The machine's Debian release and where its packages come from.
fn mirror() -> Result<(String, String), String> {
    let release = fs::read_to_string("/etc/os-release").map_err(|e| format!("/etc/os-release: {e}"))?;
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or_default();
    let policy =
        apt::text(Command::new("apt-get").args(["indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)"]))
            .map_err(|e| format!("{e:#}"))?;
    let main = policy.lines().find_map(|line| line.strip_prefix(&format!("{suite} main ")));
    match main {
        Some(uri) if !suite.is_empty() => Ok((suite.into(), uri.trim_end_matches('/').into())),
        _ => Err("the machine's apt has no source of Debian's main archive".into()),
    }
}

/// Installs, runs, removes and purges the package in a copy of the system.
fn install(tools: &Path, system: &Path, deb: &Path, package: &Path, variant: Variant) -> Result<Looked> {
    let copy = system.with_extension("used");
    apt::remove_dir(&copy)?;
    tools::run(Command::new("cp").arg("-a").arg(system).arg(&copy))?;
    let ran = inside(tools, variant.architecture, &[&copy, deb, package], &[]);
    apt::remove_dir(&copy)?;
    let ran = ran?;
    match ran.code {
        Some(0) => Ok(Looked::At(
            "installed, --check passed, a package installed and run as the service's user, removed, purged".into(),
        )),
        Some(CANNOT) => Ok(Looked::Not(ran.text.lines().next_back().unwrap_or_default().into())),
        _ => bail!("{} in a clean Debian:\n{}", variant.name(), ran.text),
    }
}

/// What lintian says of the package; an error or a warning is a failure.
fn lint(cache: &Path, tools: &Path, deb: &Path) -> Result<String> {
    let Looked::At(clean) = system(cache, tools, "amd64")? else {
        return Ok("lintian SKIPPED: no system for it".into());
    };
    let with = PathBuf::from(format!("{clean}-lintian"));
    if !with.is_dir() {
        let partial = with.with_extension("partial");
        apt::remove_dir(&partial)?;
        tools::run(Command::new("cp").arg("-a").arg(&clean).arg(&partial))?;
        let _ = fs::copy("/etc/resolv.conf", partial.join("etc/resolv.conf"));
        let script = "mount -t proc proc \"$1/proc\" && mount --rbind /dev \"$1/dev\" && export DEBIAN_FRONTEND=noninteractive \
                      && chroot \"$1\" apt-get -qq update && chroot \"$1\" apt-get -qq -y --no-install-recommends install lintian";
        let mut command = namespaces(&["sh", "-c", script, "sh"]);
        let ran = command.arg(&partial).stdin(Stdio::null()).output()?;
        if !ran.status.success() {
            let why = String::from_utf8_lossy(&ran.stderr).trim().to_string();
            return Ok(format!(
                "lintian SKIPPED: it could not be installed: {}",
                why.lines().next_back().unwrap_or_default()
            ));
        }
        fs::rename(&partial, &with)?;
    }
    let script = "mount -t proc proc \"$1/proc\" && mount --rbind /dev \"$1/dev\" && mount -t tmpfs tmpfs \"$1/tmp\" \
                  && cp \"$2\" \"$1/tmp/\" && exec chroot \"$1\" lintian --allow-root --fail-on error,warning /tmp/\"$(basename \"$2\")\"";
    let ran = namespaces(&["sh", "-c", script, "sh"]).arg(&with).arg(deb).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "lintian on {}:\n{said}", deb.display());
    Ok("lintian has nothing against it".into())
}

fn namespaces(words: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child"]).args(words);
    command
}

/// How the script ended, and all that it printed.
struct Ran {
    code: Option<i32>,
    text: String,
}

/// Runs the script as root of a user namespace, in which every user is who it is outside; so it may register an interpreter
/// that nobody outside sees.
fn inside(tools: &Path, architecture: &str, args: &[&Path], environment: &[(&str, String)]) -> Result<Ran> {
    let work = tools.parent().context("the tools lie in no folder")?;
    let script = work.join("deb.sh");
    fs::write(&script, SCRIPT)?;
    // The first shell tells that the namespace is there and waits for its users; the second one is root in it.
    let wait = "echo ready; read -r go; exec sh \"$@\" 2>&1";
    let mut command = Command::new("unshare");
    command.args(["--user", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", wait, "sh"]);
    command.arg(&script).args(args);
    if architecture == "arm64" && std::env::consts::ARCH != "aarch64" {
        command.arg(tools.join("usr/bin/qemu-aarch64"));
    }
    command.envs(environment.iter().map(|(key, value)| (key, value))).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start unshare")?;
    let mut output = BufReader::new(child.stdout.take().context("no output")?);
    let mut input = child.stdin.take().context("no input")?;
    let mut line = String::new();
    output.read_line(&mut line)?;
    let mut text = String::new();
    if line == "ready\n" {
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{map}", child.id()), "0 0 4294967295\n")?;
        }
        input.write_all(b"go\n")?;
        drop(input);
        output.read_to_string(&mut text)?;
    } else {
        text = line;
    }
    Ok(Ran { code: child.wait()?.code(), text })
}

#[cfg(test)]
mod tests {
    use super::newest_glibc;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(newest_glibc("(GLIBC_2.4) x (GLIBC_2.17), GLIBC_2.9"), Some((2, 17)));
        assert_eq!(newest_glibc("GLIBC_PRIVATE GLIBCXX_3.4"), None);
    }
}
