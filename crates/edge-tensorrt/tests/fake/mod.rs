//! A machine with TensorRT and a GPU, neither of which is there: libraries of our own, built by the C++ compiler, in a
//! folder of their own.

#![allow(dead_code)]

use super::SOURCES;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Versions that the libraries are built for: of both interfaces, and the last one of the older.
pub const VERSIONS: [i32; 3] = [8601, 9300, 101601];

/// Says that a test is left out and why; with `EDGE_GPU=required` in the environment it fails instead.
pub fn skip(test: &str, why: &str) {
    assert!(std::env::var_os("EDGE_GPU").is_none_or(|v| v != "required"), "{test} cannot run: {why}");
    eprintln!("SKIPPED {test}: {why}");
}

/// What a library is built from.
#[derive(Clone, Copy)]
struct Recipe {
    /// Of the source in the folder of sources.
    name: &'static str,
    version: i32,
    /// Whether a real GPU computes.
    gpu: bool,
}

/// Where built libraries are kept.
const BUILT: &str = env!("CARGO_TARGET_TMPDIR");

/// A compiler of libraries.
fn compiler(to: &Path) -> Command {
    let mut compiler = Command::new("g++");
    // Unique symbols would be shared between the copies of a library, and would keep it from being unloaded.
    compiler.args(["-std=c++17", "-O1", "-shared", "-fPIC", "-fno-gnu-unique", "-Wall", "-Wextra", "-Werror"]);
    compiler.arg("-o").arg(to);
    compiler
}

fn compile(mut compiler: Command) {
    let ran = compiler.output().expect("g++, which builds the libraries that tests run against");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// Builds a library once for each state of its sources; several tests may do it at once.
fn built(recipe: Recipe) -> PathBuf {
    let Recipe { name, version, gpu } = recipe;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join(SOURCES);
    let source = sources.join(format!("{name}.cpp"));
    let read = |file: &str| std::fs::read(sources.join(file)).unwrap();
    let all = [read("common.h"), read("kernel.h"), std::fs::read(&source).unwrap()].concat();
    let id = edge_package::hex(&edge_package::digest(&all)[..8]);
    let on = if gpu { "gpu" } else { "cpu" };
    let path = Path::new(BUILT).join(format!("{name}-{version}-{on}-{id}.so"));
    if !path.exists() {
        let partial = tempfile::NamedTempFile::new_in(BUILT).unwrap().into_temp_path();
        let mut compiler = compiler(&partial);
        compiler.arg(format!("-DVERSION={version}")).arg(format!("-DGPU={}", i32::from(gpu))).arg(source);
        // It needs the real driver at run time: of what it is linked against only the name matters.
        let driver = tempfile::NamedTempFile::new_in(BUILT).unwrap().into_temp_path();
        if name == "spy" {
            let mut empty = self::compiler(&driver);
            empty.args(["-x", "c++", "/dev/null", "-Wl,-soname,libcuda.so.1"]);
            compile(empty);
            compiler.arg("-Wl,--no-as-needed").arg(&driver);
        }
        compile(compiler);
        partial.persist(&path).unwrap();
    }
    path
}

/// A program that does as `trtexec` does: it says what it does, and writes the engine that lies beside it.
const TRTEXEC: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v8601]"
echo "$*" >>"$here/asked"
for word in "$@"; do
    case $word in
    --onnx=*) from=${word#*=} ;;
    --saveEngine=*) to=${word#*=} ;;
    esac
done
[ -s "$from" ] || { echo "[E] there is no ONNX file"; exit 3; }
cp "$from" "$here/onnx"
if [ -e "$here/fails" ]; then
    cat "$here/fails" >&2
    exit 1
fi
[ -e "$here/plan" ] && cp "$here/plan" "$to"
echo "&&&& PASSED"
"#;

/// The machine.
pub struct Machine {
    folder: tempfile::TempDir,
    version: i32,
}

/// What the CUDA driver's library of a machine is called where it is the real one with a look at it.
pub const SPY: &str = "libspy.so";

impl Machine {
    /// With this version of TensorRT, and these lines in the libraries' file of faults.
    pub fn new(version: i32, faults: &str) -> Machine {
        let machine = Machine::bare(version, faults);
        machine.has("cuda", false, "libcuda.so.1");
        machine.has("nvinfer", false, machine.library());
        machine
    }

    /// This very machine with its GPU, beside which only TensorRT is false: it computes on the GPU. The driver is the system's,
    /// or [`SPY`].
    pub fn with_gpu(version: i32, faults: &str) -> Machine {
        let machine = Machine::bare(version, faults);
        machine.has("spy", true, SPY);
        machine.has("nvinfer", true, machine.library());
        machine
    }

    fn bare(version: i32, faults: &str) -> Machine {
        let machine = Machine { folder: tempfile::tempdir().unwrap(), version };
        machine.faults(faults);
        machine.trtexec_is(TRTEXEC);
        machine
    }

    fn has(&self, name: &'static str, gpu: bool, as_name: &str) {
        let recipe = Recipe { name, version: if name == "nvinfer" { self.version } else { 0 }, gpu };
        std::fs::copy(built(recipe), self.path(as_name)).unwrap();
    }

    /// What the library is called in this version.
    pub fn library(&self) -> &'static str {
        match self.version {
            100_000.. => "libnvinfer.so.10",
            9000.. => "libnvinfer.so.9",
            _ => "libnvinfer.so.8",
        }
    }

    /// A file of the machine.
    pub fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.folder.path().join(name.as_ref())
    }

    /// How the libraries shall fail from now on.
    pub fn faults(&self, lines: &str) {
        std::fs::write(self.path("faults"), lines).unwrap();
    }

    /// The program that builds.
    pub fn trtexec_is(&self, script: &str) {
        let text = self.path("trtexec.text");
        std::fs::write(&text, script).unwrap();
        // By another process: this one starts others meanwhile, and what they have open to be written cannot be run.
        let ran = Command::new("install").args(["-m", "755"]).arg(text).arg(self.path("trtexec")).status().unwrap();
        assert!(ran.success());
    }

    /// An engine of a linear network: `lines` say its tensors and its faults.
    pub fn plan(&self, lines: &str) -> String {
        format!("FALSE ENGINE {}\n{lines}\n", self.version)
    }

    /// What `trtexec` shall build.
    pub fn builds(&self, plan: &str) {
        std::fs::write(self.path("plan"), plan).unwrap();
    }

    /// What the libraries took down.
    pub fn report(&self) -> String {
        std::fs::read_to_string(self.path("report")).unwrap_or_default()
    }

    /// How often something was built.
    pub fn builds_so_far(&self) -> usize {
        std::fs::read_to_string(self.path("asked")).unwrap_or_default().lines().count()
    }
}

/// What the linear network of the false library says.
pub fn expected(input: &[f32], classes: usize, seed: usize) -> Vec<f32> {
    let weight = |k: usize, i: usize| ((k * 31 + i * 17 + seed) % 13) as f64 / 64.0 - 6.0 / 64.0;
    let one = |k| input.iter().enumerate().map(|(i, x)| weight(k, i) * f64::from(*x)).sum::<f64>() as f32;
    (0..classes).map(one).collect()
}
