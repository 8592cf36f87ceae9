//! `cargo xtask bench`: our engine beside its peers, on the same files, on this machine.

use crate::tools::{self, built, cache, cargo, output, root};
use crate::{fetch, setup};
use anyhow::{Context, Result};
use serde_json::Value;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

/// The model that comes with the repository.
pub const DEFAULT: &str = "models/efficientnet-lite0/efficientnet-lite0.onnx";

/// What the peers run in.
struct Peers {
    python: PathBuf,
    /// A library that hides instructions from them and from ours.
    hidden: Option<PathBuf>,
    /// Copies of them that ask this library, where the processor does not let it answer.
    replaced: Option<PathBuf>,
}

impl Peers {
    /// The peers as they are, or with nothing beyond AVX2, in a folder for what is made.
    fn prepare(work: &Path, avx2: bool) -> Result<Peers> {
        std::fs::create_dir_all(work)?;
        let hidden = work.join("hide_avx512.so");
        // Where there is no more than that, nothing has to be hidden.
        #[cfg(target_arch = "x86_64")]
        let avx2 = avx2 && is_x86_feature_detected!("avx512f");
        let python = setup::python(setup::PEERS)?;
        let mut replaced = None;
        if avx2 {
            let source = root().join("tests/reference/hide_avx512.c");
            tools::run(Command::new("cc").args(["-O2", "-shared", "-fPIC"]).arg(source).arg("-o").arg(&hidden))?;
            if !std::fs::read_to_string("/proc/cpuinfo")?.contains("cpuid_fault") {
                let copies = work.join("peers-without-cpuid");
                let mut script = Command::new(&python);
                script.arg(root().join("tests/reference/replace_cpuid.py")).arg("--out").arg(&copies);
                tools::run(script.args(["onnxruntime", "openvino"]))?;
                replaced = Some(copies);
            }
        }
        Ok(Peers { python, hidden: avx2.then_some(hidden), replaced })
    }
}

/// Prints the tables of the README; with `avx2` those of a machine that has nothing beyond that.
pub fn run(rounds: usize, avx2: bool) -> Result<()> {
    setup::ensure()?;
    tools::run(&mut cargo(&tools::BUILD)?)?;
    let work = cache()?.join("bench");
    let peers = Peers::prepare(&work, avx2)?;
    let default = root().join(DEFAULT);
    let xception = xception(&work, 299)?;
    let edge_pack = built("edge-pack")?;
    let (small, large) = (quantized(&default, &work, "u8")?, quantized(&xception, &work, "u8")?);
    for (name, onnx) in [
        ("EfficientNet-Lite0, 224x224, float", &default),
        ("Xception, 299x299, float", &xception),
        ("EfficientNet-Lite0, 224x224, int8 (QDQ)", &small),
        ("Xception, 299x299, int8 (QDQ)", &large),
    ] {
        println!("\n{name}, batch 1:\n");
        beside(&peers, onnx, "", rounds)?;
    }
    if avx2 {
        return Ok(());
    }
    println!("\nedge-camera with the default model:\n");
    let package = work.join("default.edgepack");
    output(Command::new(&edge_pack).arg(&default).arg("-o").arg(&package))?;
    let mut starts: Vec<f64> = (0..rounds.max(1)).map(|_| first_class(&package)).collect::<Result<_>>()?;
    starts.sort_by(f64::total_cmp);
    println!("- process start to first class: {:.0} ms (median of {rounds})", starts[starts.len() / 2] * 1e3);
    println!("- peak memory over 1,000 frames of 640x480: {:.0} MB", peak_memory(&package)?);
    Ok(())
}

/// One table: `edge-pack bench` with these options beside the peers on the same file.
fn beside(peers: &Peers, onnx: &Path, options: &str, rounds: usize) -> Result<()> {
    let ours = format!(
        "{} bench {} {options} --threads {{threads}} --runs {{runs}} --json 2>/dev/null",
        built("edge-pack")?.display(),
        onnx.display()
    );
    let mut script = Command::new(&peers.python);
    if let Some(hidden) = &peers.hidden {
        script.env("LD_PRELOAD", hidden).env("EDGE_ISA", "avx2");
    }
    if let Some(replaced) = &peers.replaced {
        script.env("CPUID_REPLACED", "1").env("PYTHONPATH", replaced);
    }
    script.arg(root().join("tests/reference/peers.py")).arg(onnx).args(["--threads", "1,2", "--ours", &ours]);
    tools::run(script.args(["--rounds", &rounds.to_string()]))
}

/// Prints the README's tables of the architectures that people bring, with random weights.
pub fn architectures(rounds: usize, avx2: bool) -> Result<()> {
    setup::ensure()?;
    tools::run(&mut cargo(&tools::BUILD)?)?;
    let work = cache()?.join("bench");
    let peers = Peers::prepare(&work, avx2)?;
    let mut script = Command::new(setup::python(setup::REFERENCE)?);
    script.arg(root().join("tests/reference/architectures.py")).arg("--edge-pack").arg(built("edge-pack")?);
    let made = output(script.arg("--out").arg(work.join("architectures")))?;
    for line in made.lines() {
        let [name, size, path] = line.split('\t').collect::<Vec<_>>()[..] else {
            anyhow::bail!("architectures.py printed {line:?}");
        };
        println!("\n{name}, {size}x{size}, float, batch 1:\n");
        let options = format!("--input-size {size}");
        beside(&peers, Path::new(path), &options, rounds)?;
        if ["ResNet50", "MobileNetV2"].contains(&name) {
            println!("\n{name}, {size}x{size}, int8 (QDQ), batch 1:\n");
            beside(&peers, &quantized(Path::new(path), &work, "u8")?, &options, rounds)?;
        }
    }
    Ok(())
}

/// Prints the README's table of a camera's frame on its way to a tensor.
pub fn frames(rounds: usize) -> Result<()> {
    setup::ensure()?;
    let peers = setup::python(setup::PEERS)?;
    tools::run(&mut cargo(&tools::BUILD)?)?;
    println!("\n1280x720 YUYV to a 299x299 float32 tensor, one thread:\n");
    let script = root().join("tests/reference/frames.py");
    let ours = built("examples/frames")?;
    tools::run(Command::new(&peers).arg(script).arg("--ours").arg(ours).args(["--rounds", &rounds.to_string()]))
}

/// The real Keras file as ONNX, for pictures of `size` by `size` pixels.
pub fn xception(work: &Path, size: u32) -> Result<PathBuf> {
    let onnx = work.join(format!("xception-{size}.onnx"));
    let keras = fetch::Kitchenware::fetched()?.keras;
    let mut import = Command::new(built("edge-pack")?);
    output(import.arg("import").arg(keras).args(["--input-size", &size.to_string(), "-o"]).arg(&onnx))?;
    Ok(onnx)
}

/// An ONNX file quantized by ONNX Runtime, calibrated with pictures of scikit-image; made once for each file.
pub fn quantized(onnx: &Path, work: &Path, activations: &str) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    std::fs::read(onnx).with_context(|| format!("cannot read {}", onnx.display()))?.hash(&mut hasher);
    let target = work.join(format!("int8-{activations}-{:016x}.onnx", hasher.finish()));
    if !target.exists() {
        let pictures = fetch::known_pictures()?.into_iter().map(|(path, _)| path);
        let partial = target.with_extension("partial");
        let mut script = Command::new(setup::python(setup::REFERENCE)?);
        script.arg(root().join("tests/reference/quantize_ort.py")).arg(onnx).arg(&partial);
        output(script.args(["--activations", activations]).args(pictures))?;
        std::fs::rename(&partial, &target)?;
    }
    Ok(target)
}

/// A running edge-camera on synthetic frames, and the lines of its log.
fn camera(package: &Path, frames: u32) -> Result<(Child, Lines<BufReader<ChildStdout>>)> {
    let mut child = Command::new(built("edge-camera")?)
        .arg("--package")
        .arg(package)
        .args(["--source", "pattern", "--rate", "1000", "--log", "-", "--frames", &frames.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start edge-camera")?;
    let stdout = child.stdout.take().context("no output")?;
    Ok((child, BufReader::new(stdout).lines()))
}

/// Seconds from starting the process to its first line in the log.
fn first_class(package: &Path) -> Result<f64> {
    let start = Instant::now();
    let (mut child, mut lines) = camera(package, 1)?;
    let line = lines.next().context("edge-camera wrote no line")??;
    let seconds = start.elapsed().as_secs_f64();
    child.wait()?;
    let event: Value = serde_json::from_str(&line).context("edge-camera wrote something else than a log")?;
    anyhow::ensure!(event["decision"].is_string(), "edge-camera decided nothing: {line}");
    Ok(seconds)
}

/// Peak resident memory in MB while 1,000 frames are classified, sampled from the kernel's high-water mark.
fn peak_memory(package: &Path) -> Result<f64> {
    let (mut child, lines) = camera(package, 1000)?;
    let mut peak = 0.0;
    for (i, line) in lines.enumerate() {
        line?;
        if i % 50 == 49 {
            peak = tools::memory_kib(&child, "VmHWM:").map_or(peak, |kib| kib as f64 * 1024.0 / 1e6);
        }
    }
    child.wait()?;
    Ok(peak)
}
