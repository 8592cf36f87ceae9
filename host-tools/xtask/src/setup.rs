//! What the build and the tests need besides Rust: nasm, a C compiler, libclang, and Python packages in a
//! virtual environment of their own.

use crate::tools::{self, cache, root};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the tests compare with: Pillow, Keras, ONNX Runtime.
pub const REFERENCE: &str = "requirements.txt";
/// Other runtimes to be timed.
pub const PEERS: &str = "requirements-peers.txt";
/// The same for the boards' processor.
pub const AARCH64: &str = "requirements-aarch64.txt";
/// What makes ncnn's files.
pub const PNNX: &str = "requirements-pnnx.txt";

/// Programs looked for, and the Debian package that has each.
const PROGRAMS: [(&str, &str); 8] = [
    ("cc", "gcc"),
    ("nasm", "nasm"),
    ("make", "make"),
    ("python3", "python3"),
    ("objdump", "binutils"),
    // What `edge-flash` makes images with.
    ("mcopy", "mtools"),
    ("mkfs.fat", "dosfstools"),
    ("mkfs.ext4", "e2fsprogs"),
];

/// Installs what is missing.
pub fn ensure() -> Result<()> {
    let mut packages: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| !on_path(program)).map(|(_, package)| *package).collect();
    if !has_libclang() {
        packages.push("libclang-dev");
    }
    // Debian's Python comes without the module that makes virtual environments.
    if !succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"])) {
        packages.push("python3-venv");
    }
    if packages.is_empty() { Ok(()) } else { install(&packages) }
}

/// `cargo xtask setup`.
pub fn run() -> Result<()> {
    ensure()?;
    python(REFERENCE)?;
    println!("everything that build and tests need is there");
    Ok(())
}

/// Whether bindgen, which makes the camera's bindings, will find libclang: at LIBCLANG_PATH or where
/// distributions put it.
fn has_libclang() -> bool {
    if std::env::var_os("LIBCLANG_PATH").is_some() {
        return true;
    }
    let names = |dir: &Path| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let lib = Path::new("/usr/lib");
    let mut folders =
        vec![lib.to_path_buf(), lib.join(format!("{}-linux-gnu", std::env::consts::ARCH)), "/usr/lib64".into()];
    folders.extend(names(lib).iter().filter(|n| n.starts_with("llvm")).map(|n| lib.join(n).join("lib")));
    // libclang-cpp has another interface, and may be there alone.
    let is_libclang = |name: &String| {
        let versioned = name.starts_with("libclang-") && !name.starts_with("libclang-cpp");
        name.starts_with("libclang.so") || versioned && name.contains(".so")
    };
    folders.iter().any(|folder| names(folder).iter().any(is_libclang))
}

/// The Python of a virtual environment with the packages of a file in `tests/reference`: `requirements.txt` for what the
/// tests compare with, `requirements-peers.txt` for the other runtimes. Made
/// once for each content of that file.
pub fn python(file: &str) -> Result<PathBuf> {
    let venv = installed(file, |venv, requirements| {
        tools::run(Command::new("python3").args(["-m", "venv"]).arg(venv))?;
        tools::run(pip(&venv.join("bin/python")).arg("-r").arg(requirements))
    })?;
    Ok(venv.join("bin/python"))
}

/// A folder with the packages of such a file and nothing that they depend on, which no Python of this machine runs: `options`
/// tell pip which one it is for.
pub fn packages(file: &str, options: &[&str]) -> Result<PathBuf> {
    let python = python(REFERENCE)?;
    installed(file, |folder, requirements| {
        let mut pip = pip(&python);
        pip.args(["--no-deps", "--only-binary=:all:"]).args(options).arg("--target").arg(folder);
        tools::run(pip.arg("-r").arg(requirements))
    })
}

fn pip(python: &Path) -> Command {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    pip
}

/// The folder that `install` fills with the packages of a file, once for each content of that file.
fn installed(file: &str, install: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<PathBuf> {
    let requirements = root().join("tests/reference").join(file);
    let wanted =
        std::fs::read_to_string(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let folder = cache()?.join("venv").join(file.trim_end_matches(".txt"));
    let stamp = folder.join("requirements.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(folder);
    }
    eprintln!("installing Python packages ({file})");
    let _ = std::fs::remove_dir_all(&folder);
    install(&folder, &requirements)?;
    // Written last: an interrupted installation is begun anew.
    std::fs::write(&stamp, wanted)?;
    Ok(folder)
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A user's PATH often lacks the folders of administrators' programs.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|dir| dir.join(program)).any(|path| path.is_file())
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

fn install(packages: &[&str]) -> Result<()> {
    let by_hand = format!("apt-get install {}", packages.join(" "));
    if !on_path("apt-get") {
        bail!("needed and not found: {}; install them with this system's package manager", packages.join(", "));
    }
    let root = succeeds(Command::new("sh").args(["-c", "[ \"$(id -u)\" = 0 ]"]));
    let sudo = !root && succeeds(Command::new("sudo").args(["-n", "true"]));
    if !root && !sudo {
        bail!("needed and not found: {}; run `sudo {by_hand}`, then this again", packages.join(", "));
    }
    let apt = |args: &[&str]| {
        let mut command = Command::new(if sudo { "sudo" } else { "apt-get" });
        if sudo {
            command.arg("apt-get");
        }
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    eprintln!("installing {} (apt-get)", packages.join(", "));
    // Lists may be old or missing; a failure to update alone is no reason to give up.
    let _ = apt(&["-qq", "update"]).status();
    tools::run(apt(&["install", "-y", "-qq", "--no-install-recommends"]).args(packages).stdout(Stdio::null()))
        .with_context(|| format!("`{by_hand}` did not work"))
}
