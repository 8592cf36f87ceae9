//! The tool chain for aarch64: a standard library for rustc, and Debian's cross gcc, unpacked.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use edge_rig::apt;

/// Rust's name of the device's processor.
pub const TARGET: &str = "aarch64-unknown-linux-gnu";

/// The cross gcc with the device's C library. It compiles the C parts of our dependencies and links.
const GCC: apt::Packages =
    apt::Packages { name: "cross-gcc", closure: &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"], ..apt::NONE };

/// Debian's rustc with this machine's standard library, for machines without rustup. The plain `rustc` package is too
/// old; `rustc-web` is what Debian builds browsers with, and its security suite keeps it recent.
const RUSTC: apt::Packages =
    apt::Packages { name: "rustc", closure: &["rustc-web", "libstd-rust-web-dev"], ..apt::NONE };

/// The device's standard library of the same compiler.
const STD: apt::Packages =
    apt::Packages { name: "rust-std", alone: &["libstd-rust-web-dev"], architecture: "arm64", ..apt::NONE };

/// Libraries of the C library itself. A program started by the machine's own loader must get them from the machine.
const LIBC: [&str; 9] =
    ["ld-linux", "libc.", "libm.", "libmvec.", "libpthread.", "libdl.", "librt.", "libresolv.", "libnss"];

/// What cargo needs to build for the device.
pub struct Toolchain {
    /// Which compiler was chosen, and why.
    pub description: String,
    /// Where Debian's cross gcc and the device's C library lie.
    pub gcc: PathBuf,
    environment: Vec<(String, OsString)>,
}

impl Toolchain {
    /// Fetches what is missing. Fails with [`apt::Unavailable`] where this machine can't.
    pub fn prepare(cache: &Path) -> Result<Self> {
        let gcc = apt::fetch(cache, &GCC).context("fetching the cross compiler")?;
        let bin = cache.join("cross/bin");
        fs::create_dir_all(&bin).with_context(|| format!("creating {}", bin.display()))?;

        let libraries = cache.join("cross/lib-gcc");
        link_libraries(&gcc, &libraries)?;
        // The C library's linker script names absolute paths, which the option makes relative to the unpacked packages.
        let cc = bin.join("aarch64-gcc");
        let option = format!("--sysroot={}", gcc.display());
        wrapper(&cc, &gcc.join("usr/bin/aarch64-linux-gnu-gcc"), &libraries, &option)?;
        let ar = bin.join("aarch64-ar");
        wrapper(&ar, &gcc.join("usr/bin/aarch64-linux-gnu-ar"), &libraries, "")?;
        let strip = bin.join("aarch64-objdump");
        wrapper(&strip, &gcc.join("usr/bin/aarch64-linux-gnu-objdump"), &libraries, "")?;

        let include = gcc.join("usr/aarch64-linux-gnu/include");
        let clang = format!("--target=aarch64-linux-gnu -isystem {}", include.display());
        let mut environment: Vec<(String, OsString)> = vec![
            ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER".into(), cc.clone().into()),
            ("CC_aarch64_unknown_linux_gnu".into(), cc.into()),
            ("AR_aarch64_unknown_linux_gnu".into(), ar.into()),
            ("BINDGEN_EXTRA_CLANG_ARGS_aarch64_unknown_linux_gnu".into(), clang.into()),
        ];
        // Messages of a panic name source files. They shall not tell where this machine keeps them, nor differ between
        // two machines.
        if let Some(home) = cargo_home() {
            let mut flags = OsString::from("--remap-path-prefix=");
            flags.push(home);
            flags.push("=/cargo");
            environment.push(("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS".into(), flags));
        }

        let description = match rustup() {
            Ok(()) => "rustc of rustup, cross gcc of Debian".to_owned(),
            Err(why) => {
                let rustc = debian_rustc(cache, &bin).with_context(|| format!("{why:#}, and Debian's packages"))?;
                environment.push(("RUSTC".into(), rustc.into()));
                format!("rustc and cross gcc of Debian ({why:#})")
            }
        };
        Ok(Self { description, gcc, environment })
    }

    /// Has a cargo command build for the device, in a target directory that outlives the checkout.
    pub fn apply(&self, cargo: &mut Command, cache: &Path) {
        cargo.envs(self.environment.iter().map(|(name, value)| (name, value)));
        cargo.env("CARGO_TARGET_DIR", target_dir(cache)).args(["--target", TARGET]);
        // These would go to the device's objects, too.
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CFLAGS"] {
            cargo.env_remove(name);
        }
    }
}

/// Where the device's objects are kept from run to run: tract alone takes sixteen minutes of processor time.
pub fn target_dir(cache: &Path) -> PathBuf {
    cache.join("target-aarch64")
}

/// Where cargo keeps the sources of the dependencies.
fn cargo_home() -> Option<PathBuf> {
    let set = std::env::var_os("CARGO_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    set.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))
}

/// Has rustup add the standard library; cheap where it is there already.
fn rustup() -> Result<()> {
    // For trying the other way.
    if std::env::var_os("EDGE_CROSS_RUSTC").is_some_and(|value| value == "debian") {
        bail!("EDGE_CROSS_RUSTC=debian was set");
    }
    let mut rustup = Command::new("rustup");
    let output = rustup.args(["target", "add", TARGET]).stdin(Stdio::null()).output().context("rustup is missing")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| line.starts_with("error")).unwrap_or("no reason given");
    ensure!(output.status.success(), "rustup can't add {TARGET}: {last}");
    Ok(())
}

/// Fetches Debian's rustc and puts a wrapper for it into `bin`.
fn debian_rustc(cache: &Path, bin: &Path) -> Result<PathBuf> {
    let host = apt::fetch(cache, &RUSTC)?;
    let device = apt::fetch(cache, &STD)?;
    // The compiler looks for every library in its own tree.
    let (from, to) = (device.join("usr/lib/rustlib").join(TARGET), host.join("usr/lib/rustlib").join(TARGET));
    ensure!(from.is_dir(), "{} is missing from the packages", from.display());
    if !to.exists() {
        symlink(&from, &to).with_context(|| format!("linking {}", to.display()))?;
    }
    let libraries = cache.join("cross/lib-rustc");
    link_libraries(&host, &libraries)?;
    let rustc = bin.join("rustc");
    wrapper(&rustc, &host.join("usr/bin/rustc"), &libraries, "")?;
    Ok(rustc)
}

/// Writes a shell script that starts a program of the packages with their libraries.
fn wrapper(path: &Path, program: &Path, libraries: &Path, option: &str) -> Result<()> {
    ensure!(program.exists(), "{} is missing from the packages", program.display());
    for part in [program, libraries] {
        let text = part.to_str().context("the cache directory's path is not UTF-8")?;
        ensure!(!text.contains(['\'', ':']), "the cache directory's path must not contain a quote or a colon: {text}");
    }
    let option = if option.is_empty() { String::new() } else { format!(" '{option}'") };
    let script = format!(
        "#!/bin/sh\nexport LD_LIBRARY_PATH='{}'\nexec '{}'{option} \"$@\"\n",
        libraries.display(),
        program.display()
    );
    if fs::read_to_string(path).is_ok_and(|there| there == script) {
        return Ok(());
    }
    fs::write(path, script).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("making {} executable", path.display()))
}

/// Makes a directory of links to the packages' shared libraries, but for the C library's own.
fn link_libraries(root: &Path, links: &Path) -> Result<()> {
    apt::remove_dir(links)?;
    fs::create_dir_all(links).with_context(|| format!("creating {}", links.display()))?;
    for dir in ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"] {
        let Ok(entries) = fs::read_dir(root.join(dir)) else { continue };
        for entry in entries {
            let from = entry?.path();
            let Some(name) = from.file_name().and_then(|name| name.to_str()) else { continue };
            let shared = name.starts_with("lib") && name.contains(".so");
            if !shared || LIBC.iter().any(|prefix| name.starts_with(prefix)) {
                continue;
            }
            let to = links.join(name);
            if !to.exists() {
                symlink(&from, &to).with_context(|| format!("linking {}", to.display()))?;
            }
        }
    }
    Ok(())
}
