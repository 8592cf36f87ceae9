//! Debian packages without installing them: a private apt root in the cache directory.
//!
//! The test harness needs programs (QEMU, a kernel, busybox) in versions a developer's machine seldom has, and some of
//! them can't be installed next to what is there. So `apt` is run with its own state, cache and source list, derived
//! from the machine's Debian sources (same mirror, same keys, plus the backports suite), and the packages are
//! unpacked into a directory. Nothing is installed and the machine's own apt is only read. No root is needed. Packages of
//! another processor are fetched the same way: each architecture has a private root in which it is the native one.
//!
//! What has been fetched once stays as it is and needs no network; delete the directory to take newer packages.

mod sources;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Why this machine can't fetch the packages: another distribution, no apt, no mirror in reach.
///
/// It is an error type of its own so that a step can tell "not possible here" (a skip, with its reason) from "broken".
#[derive(Debug)]
pub struct Unavailable(String);

impl fmt::Display for Unavailable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// A set of packages that is fetched and unpacked together.
pub struct Packages<'a> {
    /// The first part of the unpacked directory's name.
    pub name: &'a str,
    /// Taken with everything they depend on, the C library included, so that nothing of the host is linked.
    pub closure: &'a [&'a str],
    /// Meta packages: only what they name directly is taken. A kernel image would otherwise pull in the tools that
    /// install kernels.
    pub meta: &'a [&'a str],
    /// Taken without anything they depend on: files are wanted from them, not a system they run in.
    pub alone: &'a [&'a str],
    /// Name patterns that are preferred from the backports suite.
    pub backports: &'a [&'a str],
    /// Debian's name of the processor: `amd64`, `arm64`.
    pub architecture: &'a str,
    /// The archive's components, separated by spaces: `main`, `main non-free-firmware`.
    pub components: &'a str,
}

/// What most sets leave as it is: nothing, for this machine's processor, from the free part of the archive.
pub const NONE: Packages = Packages {
    name: "",
    closure: &[],
    meta: &[],
    alone: &[],
    backports: &[],
    architecture: "amd64",
    components: "main",
};

/// The control fields of every package in an unpacked directory, as [`control`] reads them.
const CONTROL: &str = "packages.control";

/// The cache directory of the project.
pub fn cache_dir() -> Result<PathBuf> {
    edge_system::folder::cache().context("neither EDGE_PACK_CACHE, XDG_CACHE_HOME nor HOME is set")
}

/// Fetches `packages` and returns the directory they lie unpacked in.
///
/// The directory appears under its name only when it is complete, so a run that was interrupted is simply repeated.
/// Two runs at once wait for each other. Fails with [`Unavailable`] where the machine can't do it.
pub fn fetch(cache: &Path, packages: &Packages) -> Result<PathBuf> {
    let codename = debian_codename()?;
    let base = cache.join("apt").join(&codename);
    let unpacked = base.join(packages.key());
    if unpacked.is_dir() {
        return Ok(unpacked);
    }

    fs::create_dir_all(&base).with_context(|| format!("creating {}", base.display()))?;
    let lock_path = base.join("lock");
    let lock = File::create(&lock_path).with_context(|| format!("creating {}", lock_path.display()))?;
    lock.lock().with_context(|| format!("locking {}", lock_path.display()))?;
    if unpacked.is_dir() {
        return Ok(unpacked); // Another run made it while this one waited.
    }

    let apt = Apt::prepare(&base, &codename, packages)?;
    apt.update()?;
    let versions = apt.resolve(packages)?;
    let debs = base.join(format!("{}.debs", packages.key()));
    apt.download(&versions, &debs)?;

    let partial = base.join(format!("{}.partial", packages.key()));
    remove_dir(&partial)?;
    fs::create_dir_all(&partial)?;
    unpack(&debs, &partial)?;
    let list: String = versions.iter().map(|version| format!("{version}\n")).collect();
    fs::write(partial.join("packages.txt"), list)?;
    fs::write(partial.join(CONTROL), fields(&debs)?)?;
    fs::rename(&partial, &unpacked).with_context(|| format!("renaming {}", partial.display()))?;
    remove_dir(&debs)?;
    Ok(unpacked)
}

impl Packages<'_> {
    /// The directory's name: it changes with the set, so that a changed set is fetched anew.
    fn key(&self) -> String {
        // FNV-1a, because the standard hasher may change between releases of Rust and would then fetch everything again.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut parts = vec![self.closure.join(" "), self.meta.join(" "), self.backports.join(" ")];
        parts.extend([self.alone.join(" "), self.architecture.to_owned(), self.components.to_owned()]);
        for part in parts {
            for byte in part.bytes().chain(*b"\n") {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        format!("{}-{hash:016x}", self.name)
    }
}

/// The machine's Debian release, or why there is none we can use.
fn debian_codename() -> Result<String> {
    let unavailable = |why: &str| Err(Unavailable(why.to_owned()).into());
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return unavailable("the emulated camera is set up for x86-64 Linux hosts only");
    }
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        let value = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.map(|value| value.trim_matches('"').to_owned())
    };
    if field("ID").as_deref() != Some("debian") {
        return unavailable("this is not a Debian system, and the emulator is taken from Debian's packages");
    }
    for program in ["apt-get", "apt-cache", "dpkg"] {
        if !runs(program) {
            return unavailable(&format!("{program} is missing"));
        }
    }
    match field("VERSION_CODENAME") {
        Some(codename) if !codename.is_empty() => Ok(codename),
        _ => unavailable("/etc/os-release names no VERSION_CODENAME"),
    }
}

fn runs(program: &str) -> bool {
    let status = Command::new(program).arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// `apt` with its own configuration.
struct Apt {
    config: PathBuf,
}

impl Apt {
    /// Writes the configuration, sources and preferences of the private root.
    fn prepare(base: &Path, codename: &str, packages: &Packages) -> Result<Self> {
        let own = base.join(format!("private-{}", packages.architecture));
        for dir in ["sources.d", "preferences.d", "empty.d", "state/lists/partial", "cache/archives/partial"] {
            let dir = own.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        }

        let sources = sources::of_machine(codename, packages.components);
        if sources.deb822.is_empty() && sources.one_line.is_empty() {
            let why = format!("no source of Debian's {codename} main archive in /etc/apt");
            return Err(Unavailable(why).into());
        }
        fs::write(own.join("sources.d/debian.sources"), sources.deb822)?;
        fs::write(own.join("sources.d/debian.list"), sources.one_line)?;

        let mut preferences = String::new();
        if !packages.backports.is_empty() {
            let patterns = packages.backports.join(" ");
            preferences = format!("Package: {patterns}\nPin: release n={codename}-backports\nPin-Priority: 990\n");
        }
        fs::write(own.join("preferences.d/backports"), preferences)?;

        // No package counts as installed: the closure is then the same on every machine.
        fs::write(own.join("state/status"), "")?;

        let config = own.join("apt.conf");
        let text = configuration(&own, packages.architecture);
        fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
        Ok(Self { config })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config).env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    /// Fetches the package lists. Failing here means that the mirror is out of reach or lacks the backports suite.
    fn update(&self) -> Result<()> {
        // Without this mode apt reports a mirror that can't be reached as a warning and exits with 0.
        let update = self.command("apt-get").args(["-q", "-o", "APT::Update::Error-Mode=any", "update"]).output()?;
        if !update.status.success() {
            return Err(unreachable("the package lists", &update.stderr).into());
        }
        Ok(())
    }

    /// Names the packages to fetch, as `name=version`.
    fn resolve(&self, packages: &Packages) -> Result<BTreeSet<String>> {
        let mut versions = BTreeSet::new();
        if !packages.closure.is_empty() {
            let mut simulate = self.command("apt-get");
            simulate.args(["install", "--simulate", "--no-install-recommends"]).args(packages.closure);
            // A line reads `Inst name (version origin [arch])`.
            for line in text(&mut simulate)?.lines().filter_map(|line| line.strip_prefix("Inst ")) {
                let mut words = line.split_whitespace();
                let name = words.next().unwrap_or_default();
                let version = words.find_map(|word| word.strip_prefix('('));
                let version = version.with_context(|| format!("no version in apt's line {line:?}"))?;
                versions.insert(format!("{name}={version}"));
            }
        }
        for meta in packages.meta {
            let depends = text(self.command("apt-cache").args(["depends", "--important", meta]))?;
            for name in depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")) {
                versions.insert(self.candidate(name)?);
            }
        }
        for name in packages.alone {
            versions.insert(self.candidate(name)?);
        }
        ensure!(!versions.is_empty(), "apt resolved {:?} to no package at all", packages.closure);
        Ok(versions)
    }

    /// A package with the version that would be installed, as `name=version`.
    fn candidate(&self, name: &str) -> Result<String> {
        let policy = text(self.command("apt-cache").args(["policy", name]))?;
        match policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: ")) {
            Some(version) if version != "(none)" => Ok(format!("{name}={version}")),
            _ => Err(Unavailable(format!("the mirror has no package {name}")).into()),
        }
    }

    /// Downloads into `debs`. What an earlier run left there complete is kept by apt, which checks its digest.
    fn download(&self, versions: &BTreeSet<String>, debs: &Path) -> Result<()> {
        fs::create_dir_all(debs).with_context(|| format!("creating {}", debs.display()))?;
        let mut download = self.command("apt-get");
        download.args(["-q", "download"]).args(versions).current_dir(debs);
        let download = download.output()?;
        if !download.status.success() {
            return Err(unreachable("the packages", &download.stderr).into());
        }
        Ok(())
    }
}

/// The configuration file: the machine's (for its proxies and time-outs), then everything that names a place.
fn configuration(own: &Path, architecture: &str) -> String {
    let mut text = String::new();
    for (path, exists) in [
        ("/etc/apt/apt.conf.d/", Path::new("/etc/apt/apt.conf.d").is_dir()),
        ("/etc/apt/apt.conf", Path::new("/etc/apt/apt.conf").is_file()),
    ] {
        if exists {
            text += &format!("#include \"{path}\";\n");
        }
    }
    // The hooks serve the machine's own apt: they clean its cache and tell its desktop.
    for hook in ["Pre-Invoke", "Post-Invoke", "Post-Invoke-Success"] {
        text += &format!("#clear APT::Update::{hook};\n");
    }
    let own = own.display();
    text += &format!(
        r#"Dir::Etc::main "/dev/null";
Dir::Etc::parts "{own}/empty.d";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{own}/sources.d";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "{own}/preferences.d";
Dir::State "{own}/state";
Dir::State::status "{own}/state/status";
Dir::Cache "{own}/cache";
APT::Architecture "{architecture}";
APT::Architectures "{architecture}";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
"#
    );
    text
}

/// The package files of a directory, in the order of their names.
fn package_files(debs: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(debs).with_context(|| format!("reading {}", debs.display()))? {
        files.push(entry?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "deb"));
    files.sort();
    Ok(files)
}

/// Unpacks every package file of `debs` into `root`.
fn unpack(debs: &Path, root: &Path) -> Result<()> {
    for deb in package_files(debs)? {
        text(Command::new("dpkg").arg("--extract").arg(&deb).arg(root))?;
    }
    Ok(())
}

/// The control fields of every package file of `debs`, as stanzas.
fn fields(debs: &Path) -> Result<String> {
    let mut stanzas = String::new();
    for deb in package_files(debs)? {
        stanzas += &text(Command::new("dpkg-deb").arg("--field").arg(&deb))?;
        stanzas.push('\n');
    }
    Ok(stanzas)
}

/// What a package says of itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Control {
    /// Its name.
    pub name: String,
    /// Its version, Debian's revision included.
    pub version: String,
    /// The package its source is kept under; often its own name.
    pub source: String,
    /// That source's version.
    pub source_version: String,
    /// The project's page, if the package names one.
    pub homepage: Option<String>,
    /// Sources whose code is part of the package's programs, as `name (= version)`: the C library of a static one.
    pub built_using: Vec<String>,
}

/// The packages that lie unpacked in `root`, sorted by name.
pub fn control(root: &Path) -> Result<Vec<Control>> {
    let path = root.join(CONTROL);
    let stanzas = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut packages = Vec::new();
    for stanza in stanzas.split("\n\n").filter(|stanza| !stanza.trim().is_empty()) {
        packages.push(read_control(stanza).with_context(|| format!("in {}", path.display()))?);
    }
    packages.sort();
    Ok(packages)
}

/// Reads one stanza.
fn read_control(stanza: &str) -> Result<Control> {
    let field = |name: &str| {
        let value = stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(|value| value.trim().to_owned())
    };
    let name = field("Package").context("a package without a name")?;
    let version = field("Version").with_context(|| format!("no version of {name}"))?;
    // `Source: name (version)`, each part only where it differs from the package's.
    let source = field("Source").unwrap_or_else(|| name.clone());
    let (source, source_version) = match source.split_once(" (") {
        Some((source, version)) => (source.to_owned(), version.trim_end_matches(')').to_owned()),
        None => (source, version.clone()),
    };
    let built_using = field("Built-Using").unwrap_or_default();
    let built_using =
        built_using.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect();
    Ok(Control { homepage: field("Homepage"), name, version, source, source_version, built_using })
}

/// Runs a command that must succeed and returns what it printed.
pub fn text(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {program}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{program} ended with {}: {}", output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The skip reason for a failed fetch: apt's first error line says which address it was.
fn unreachable(what: &str, stderr: &[u8]) -> Unavailable {
    let stderr = String::from_utf8_lossy(stderr);
    let line = stderr.lines().find(|line| line.starts_with("E:")).or_else(|| stderr.lines().next());
    Unavailable(format!("apt could not fetch {what} from the mirror: {}", line.unwrap_or("no reason given")))
}

/// Removes a directory that may not exist.
pub fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_set_has_another_directory() {
        let one = Packages { name: "x", closure: &["a", "b"], ..NONE };
        for other in [
            Packages { name: "x", closure: &["a"], meta: &["b"], ..NONE },
            Packages { name: "x", closure: &["a", "b"], architecture: "arm64", ..NONE },
            Packages { name: "x", closure: &["a", "b"], components: "main non-free-firmware", ..NONE },
        ] {
            assert_ne!(one.key(), other.key());
        }
    }

    #[test]
    fn a_packages_source_is_read_with_its_own_version() {
        let stanza = "Package: linux-image-6.1.0-40-arm64\nSource: linux-signed-arm64 (6.1.1+1)\nVersion: 6.1.1-1\n\
                      Homepage: https://kernel.example/\nBuilt-Using: a (= 1), b (= 2)\nDescription: a\n Package: none";
        let control = read_control(stanza).unwrap();
        assert_eq!((control.source.as_str(), control.source_version.as_str()), ("linux-signed-arm64", "6.1.1+1"));
        assert_eq!(
            (control.version.as_str(), control.homepage.as_deref()),
            ("6.1.1-1", Some("https://kernel.example/"))
        );
        assert_eq!(control.built_using, ["a (= 1)", "b (= 2)"]);
        let plain = read_control("Package: busybox-static\nVersion: 1").unwrap();
        assert_eq!((plain.source.as_str(), plain.source_version.as_str()), ("busybox-static", "1"));
        assert!(read_control("Version: 1").is_err());
    }
}
