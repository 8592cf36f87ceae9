//! A machine with TensorRT and a GPU, neither of which is there: libraries of our own, built by the C++ compiler, in a
//! folder of their own.

#![allow(dead_code)]

use super::SOURCES;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Versions that the libraries are built for: of both interfaces, and the last one of the older.
pub const VERSIONS: [i32; 3] = [8601, 9300, 101601];

/// Builds a library once for each state of its sources; several tests may do it at once.
fn built(name: &str, version: i32) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join(SOURCES);
    let read = |file: &str| std::fs::read(sources.join(file)).unwrap();
    let all = [read("common.h"), read(&format!("{name}.cpp"))].concat();
    let id = edge_package::hex(&edge_package::digest(&all)[..8]);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{version}-{id}.so"));
    if !path.exists() {
        let partial = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap().into_temp_path();
        let mut compiler = Command::new("g++");
        // Unique symbols would be shared between the copies of a library, and would keep it from being unloaded.
        compiler.args(["-std=c++17", "-O1", "-shared", "-fPIC", "-fno-gnu-unique", "-Wall", "-Wextra", "-Werror"]);
        compiler.arg(format!("-DVERSION={version}")).arg("-o").arg(&partial).arg(sources.join(format!("{name}.cpp")));
        let ran = compiler.output().expect("g++, which builds the libraries that tests run against");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
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

impl Machine {
    /// With this version of TensorRT, and these lines in the libraries' file of faults.
    pub fn new(version: i32, faults: &str) -> Machine {
        let machine = Machine { folder: tempfile::tempdir().unwrap(), version };
        std::fs::copy(built("cuda", 0), machine.path("libcuda.so.1")).unwrap();
        std::fs::copy(built("nvinfer", version), machine.path(machine.library())).unwrap();
        machine.faults(faults);
        machine.trtexec_is(TRTEXEC);
        machine
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
