//! What the end-to-end cases share: the built programs, run on real files.

pub mod hil;

use edge_vision::DecodeOptions;
use image::{RgbImage, imageops};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The checkout.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The default model: a real network of 1000 classes.
pub fn default_model() -> PathBuf {
    root().join("models/efficientnet-lite0/efficientnet-lite0.onnx")
}

/// Three real photos whose class is known: chelsea, coffee, rocket.
pub fn examples() -> PathBuf {
    root().join("models/efficientnet-lite0/examples")
}

/// A network of 20x20 pixels and five classes that brings its metadata, for cases about anything but vision.
pub fn small_model() -> PathBuf {
    root().join("tests/goldens/engine/nhwc-unk-softmax.onnx")
}

/// A folder of classes: `count` windows of each example, every one another.
pub fn photos(folder: &Path, classes: &[&str], count: u32) -> PathBuf {
    let folder = folder.join("photos");
    for (class, name) in classes.iter().zip(["chelsea", "coffee", "rocket"]) {
        let picture =
            edge_vision::load(&examples().join(format!("{name}.jpg")), &DecodeOptions::default()).expect("an example");
        let whole = RgbImage::from_raw(picture.width(), picture.height(), picture.pixels().to_vec()).expect("pixels");
        std::fs::create_dir_all(folder.join(class)).expect("a folder");
        for i in 0..count {
            let side = 160 + 7 * (i % 5);
            let (x, y) = ((i * 37) % (whole.width() - side), (i * 53) % (whole.height() - side));
            let window = imageops::crop_imm(&whole, x, y, side, side).to_image();
            window.save(folder.join(class).join(format!("{i:02}.png"))).expect("a picture");
        }
    }
    folder
}

/// A small picture out of the vision goldens.
pub fn golden_picture(name: &str) -> PathBuf {
    root().join("tests/goldens/vision").join(name)
}

/// A program of the workspace. The tests do not build it: `cargo build --workspace` does.
pub fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("EDGE_BIN_DIR").map(PathBuf::from).unwrap_or_else(|| {
        // target/PROFILE/deps/this-test
        let test = std::env::current_exe().expect("the path of this test");
        test.ancestors().nth(2).expect("target/PROFILE").to_path_buf()
    });
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace` first", path.display());
    path
}

/// A finished run.
pub struct Ran {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Asserts success.
    pub fn ok(self) -> Ran {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// Asserts the exit code, that standard error names `what`, and that nothing panicked.
    pub fn fails(self, code: i32, what: &[&str]) -> Ran {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        for part in what {
            assert!(self.stderr.contains(part), "{part:?} is not in: {}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// The JSON objects on standard output, one a line.
    pub fn json(&self) -> Vec<Value> {
        self.stdout.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a program of the workspace to its end.
pub fn run<A: AsRef<OsStr>>(name: &str, args: impl IntoIterator<Item = A>) -> Ran {
    Command::new(program(name)).args(args).output().expect("the program starts").into()
}

/// Runs a shell script that may mount file systems, which end with it: in a namespace of its own. `None`, and said as SKIPPED,
/// where this machine does not let it.
pub fn with_mounts<'a>(script: &str, args: impl IntoIterator<Item = &'a OsStr>) -> Option<Ran> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]).args(args);
    let ran = match unshare.output() {
        Ok(output) => Ran::from(output),
        Err(e) => {
            println!("SKIPPED: unshare: {e}");
            return None;
        }
    };
    if ran.stderr.contains("unshare:") || ran.stderr.contains("mount:") {
        println!("SKIPPED: {}", ran.stderr);
        return None;
    }
    Some(ran)
}

/// `run("edge-pack", [...])` with arguments of mixed types.
#[macro_export]
macro_rules! edge_pack {
    ($($arg:expr),* $(,)?) => { $crate::run("edge-pack", [$(AsRef::<std::ffi::OsStr>::as_ref(&$arg)),*]) };
}

/// `run("edge-camera", [...])` with arguments of mixed types.
#[macro_export]
macro_rules! edge_camera {
    ($($arg:expr),* $(,)?) => { $crate::run("edge-camera", [$(AsRef::<std::ffi::OsStr>::as_ref(&$arg)),*]) };
}

/// A scratch folder with a package in it.
pub struct Scratch {
    dir: TempDir,
    /// The package.
    pub package: PathBuf,
}

impl Scratch {
    /// A folder with a package of the small model.
    pub fn small() -> Scratch {
        Scratch::of(&small_model())
    }

    /// A folder with a package of this model, made without options.
    pub fn of(model: &Path) -> Scratch {
        let dir = TempDir::new().expect("a scratch folder");
        let package = dir.path().join("model.edgepack");
        edge_pack!(model, "-o", package).ok();
        Scratch { dir, package }
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file into the folder.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
        std::fs::write(&path, bytes).expect("a writable file");
        path
    }

    /// Copies a file into the folder.
    pub fn copy(&self, from: &Path, name: &str) -> PathBuf {
        self.write(name, std::fs::read(from).expect("a readable file"))
    }
}

/// Ends the program with the test.
pub struct Running(pub Child);

impl Running {
    /// Starts the program; nobody reads its standard output.
    pub fn start(command: &mut Command) -> Running {
        Running(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts"))
    }

    /// Sends a signal, named without SIG.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.0.id().to_string()]).status().expect("kill");
        assert!(status.success());
    }

    /// Whether the program has taken the handling of a signal, by its number, into its own hands.
    pub fn catches(&self, signal: u32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
    }

    /// Waits for the end: exit code and standard error.
    pub fn end(mut self) -> Ran {
        let mut stderr = String::new();
        std::io::Read::read_to_string(self.0.stderr.as_mut().expect("a pipe"), &mut stderr).expect("text");
        Ran { code: self.0.wait().expect("it ends").code(), stdout: String::new(), stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `edge-camera`, not yet started.
pub fn camera() -> Command {
    Command::new(program("edge-camera"))
}

/// Waits until `done` says so.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The whole lines of a log that is being written.
pub fn lines(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

/// What the notices of this event say.
pub fn notices(lines: &[Value], event: &str) -> Vec<String> {
    let of = lines.iter().filter(|l| l["event"] == event);
    of.map(|l| l["detail"].as_str().unwrap_or_default().to_string()).collect()
}

/// The lines of a classification log; each must be whole.
pub fn log_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("a log");
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is cut: {text:?}");
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}
