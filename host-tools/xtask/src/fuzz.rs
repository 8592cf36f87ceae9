//! The fuzz targets of `tests/fuzz`, each for a while.

use crate::tools::{self, built, cache, output, root};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::Command;

/// Targets with the folder their seeds come from.
const TARGETS: [(&str, Option<&str>); 9] = [
    ("package", None),
    ("system", None),
    ("card", None),
    ("picture", Some("tests/goldens/vision")),
    ("stream", Some("tests/goldens/vision")),
    ("labels", None),
    ("link", None),
    ("onnx", Some("tests/goldens/engine")),
    ("keras", Some("tests/goldens/keras")),
];

/// Builds and runs every target for `seconds`; a crash is an error that names the input that caused it.
pub fn run(seconds: u32) -> Result<String> {
    let tools_bin = cache()?.join("tools/bin");
    if !tools_bin.join("cargo-fuzz").exists() {
        tools::run(
            Command::new("cargo")
                .args(["install", "--locked", "--quiet", "cargo-fuzz@0.13.2", "--root"])
                .arg(cache()?.join("tools")),
        )
        .context("cargo-fuzz cannot be installed")?;
    }
    let path = std::env::join_paths(
        std::iter::once(tools_bin).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )?;
    let mut proved = vec![];
    for (target, seeds) in TARGETS {
        let corpus = cache()?.join("fuzz").join(target);
        std::fs::create_dir_all(&corpus)?;
        if target == "package" {
            let onnx = root().join("tests/goldens/engine/nhwc-unk-softmax.onnx");
            output(Command::new(built("edge-pack")?).arg(onnx).arg("-o").arg(corpus.join("seed.edgepack")))?;
        }
        if target == "keras" {
            // Descriptions of layers by themselves: within an archive its checksum keeps every change out.
            let script = "import pathlib, sys, zipfile\n\
                          for p in pathlib.Path(sys.argv[1]).glob('*.keras'):\n \
                              try: data = zipfile.ZipFile(p).read('config.json')\n \
                              except Exception: continue\n \
                              if len(data) < 1 << 16: pathlib.Path(sys.argv[2], p.stem + '.json').write_bytes(data)";
            let goldens = root().join("tests/goldens/keras");
            output(Command::new("python3").args(["-c", script]).arg(goldens).arg(&corpus))?;
        }
        let mut fuzz = Command::new("cargo");
        // Coverage instrumentation is a nightly feature of rustc; this lets the stable one take the flag.
        fuzz.env("PATH", &path).env("RUSTC_BOOTSTRAP", "1").current_dir(root());
        fuzz.args(["fuzz", "run", "--fuzz-dir", "tests/fuzz", "--sanitizer", "none", "--target-dir"]);
        fuzz.arg(cache()?.join("target-fuzz")).arg(target).arg(&corpus);
        fuzz.args(seeds.map(|s| root().join(s)).into_iter().collect::<Vec<PathBuf>>());
        fuzz.args(["--", &format!("-max_total_time={seconds}"), "-rss_limit_mb=8192", "-timeout=60", "-verbosity=0"]);
        fuzz.args(["-print_final_stats=1"]);
        let done = fuzz.output().context("cargo fuzz does not start")?;
        let log = String::from_utf8_lossy(&done.stderr);
        if !done.status.success() {
            let tail: Vec<&str> = log.lines().rev().take(25).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            anyhow::bail!("fuzz target {target} failed:\n{}", tail.join("\n"));
        }
        let runs = log.lines().find_map(|l| l.split("number_of_executed_units:").nth(1)).unwrap_or("?").trim();
        proved.push(format!("{target} {runs}"));
    }
    Ok(format!("no crash in {seconds} s of each target (inputs tried: {})", proved.join(", ")))
}
