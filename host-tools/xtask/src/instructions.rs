//! `cargo xtask instructions`: how many instructions one classification takes on the boards' processors, in our engine, in tract as
//! it comes, in ONNX Runtime and in ncnn. QEMU runs each as an ordinary process on one thread, and a plug-in counts.
//!
//! A count is that of two classifications less that of one, so that loading is not in it. Beside ours stands what `edge-pack doctor`
//! estimates for boards with that processor, and how many instructions each core would have to do in a cycle for that.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use edge_rig::debian::Tree;
use edge_rig::sets;
use edge_system::board;
use serde_json::Value;

use crate::cross::toolchain::{self, TARGET, Toolchain};
use crate::tools::{self, built, cache, cargo, output, outputs, root};
use crate::{bench, setup};

/// For which Python [`sets::PYTHON`] is.
const WHEELS: [&str; 12] = [
    "--platform",
    "manylinux_2_28_aarch64",
    "--platform",
    "manylinux_2_27_aarch64",
    "--platform",
    "manylinux2014_aarch64",
    "--python-version",
    "3.11",
    "--implementation",
    "cp",
    "--abi",
    "cp311",
];

/// A processor of a board: what QEMU calls it, its number among Arm's, and what it has, both as in /proc/cpuinfo, which libraries
/// read and QEMU leaves as this machine has it.
struct Processor {
    name: &'static str,
    part: &'static str,
    features: &'static str,
    /// Those that have it, or one that takes the same kernels.
    boards: &'static [&'static str],
}

const A72: Processor = Processor {
    name: "cortex-a72",
    part: "0xd08",
    features: "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid",
    boards: &["rpi4"],
};
const A76: Processor = Processor {
    name: "cortex-a76",
    part: "0xd0b",
    features: "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    boards: &["rpi5", "jetson-orin"],
};

/// What counts.
struct Counter {
    qemu: Tree,
    plugin: PathBuf,
    /// A root folder with Python for the boards' processor.
    python: PathBuf,
    packages: PathBuf,
    /// `edge-engine`'s example.
    passes: PathBuf,
}

/// What computes.
enum Runtime {
    Ours,
    Stock,
    Onnx,
    /// With the input's shape, which its files do not tell.
    Ncnn(&'static str),
}

impl Runtime {
    fn name(&self) -> &'static str {
        match self {
            Runtime::Ours => "ours",
            Runtime::Stock => "tract as it comes",
            Runtime::Onnx => "ONNX Runtime",
            Runtime::Ncnn(_) => "ncnn",
        }
    }
}

impl Processor {
    fn cpuinfo(&self, number: usize) -> String {
        let Processor { part, features, .. } = self;
        format!(
            "processor\t: {number}\nBogoMIPS\t: 108.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\n\
             CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 3\n\n"
        )
    }
}

impl Counter {
    fn prepare(cache: &Path, work: &Path) -> Result<Counter> {
        let qemu = Tree::fetch(cache, &sets::COUNTER)?;
        let help = output(qemu.command("bin/qemu-aarch64", None)?.arg("--help"));
        ensure!(
            help.is_ok_and(|text| text.contains("-plugin")),
            "this Debian's qemu-user takes no plug-ins; Debian 12's does"
        );
        let plugin = work.join("instructions.so");
        let source = root().join("tests/reference/instructions.c");
        tools::run(Command::new("cc").args(["-O2", "-shared", "-fPIC"]).arg(source).arg("-o").arg(&plugin))?;
        let toolchain = Toolchain::prepare(cache)?;
        let mut passes = cargo(&["rustc", "--locked", "--release", "--package", "edge-engine", "--example", "passes"])?;
        toolchain.apply(&mut passes, cache);
        tools::run(passes.args(["--", "-Ctarget-feature=+crt-static"]))?;
        let python = work.join("python");
        let tree = Tree::fetch(cache, &sets::PYTHON)?;
        std::fs::create_dir_all(python.join("proc")).with_context(|| format!("creating {}", python.display()))?;
        for folder in ["bin", "etc", "lib", "usr"] {
            let link = python.join(folder);
            if link.is_symlink() {
                std::fs::remove_file(&link).with_context(|| format!("removing {}", link.display()))?;
            }
            symlink(tree.root.join(folder), &link).with_context(|| format!("making {}", link.display()))?;
        }
        Ok(Counter {
            qemu,
            plugin,
            python,
            packages: setup::packages(setup::AARCH64, &WHEELS)?,
            passes: toolchain::target_dir(cache).join(TARGET).join("release/examples/passes"),
        })
    }

    /// A command for a processor, whose program follows.
    fn command(&self, processor: &Processor) -> Result<Command> {
        let mut command = self.qemu.command("bin/qemu-aarch64", None)?;
        command
            .args(["-cpu", processor.name, "-d", "plugin", "-plugin"])
            .arg(format!("file={}", self.plugin.display()));
        Ok(command)
    }

    /// What was counted from start to end, and what was printed: the greatest output.
    fn count(&self, runtime: &Runtime, processor: &Processor, file: &Path, passes: usize) -> Result<(u64, String)> {
        let mut command = self.command(processor)?;
        match runtime {
            Runtime::Ours | Runtime::Stock => {
                command.arg(&self.passes).arg(file).arg(passes.to_string());
                if matches!(runtime, Runtime::Stock) {
                    command.arg("--stock");
                }
            }
            Runtime::Onnx | Runtime::Ncnn(_) => {
                let cpuinfo = self.python.join("proc/cpuinfo");
                let text: String = (0..2).map(|number| processor.cpuinfo(number)).collect();
                std::fs::write(&cpuinfo, text).with_context(|| format!("writing {}", cpuinfo.display()))?;
                command.arg("-L").arg(&self.python);
                let path = format!("PYTHONPATH={}", self.packages.display());
                for set in [path.as_str(), "PYTHONHASHSEED=0", "PYTHONDONTWRITEBYTECODE=1"] {
                    command.args(["-E", set]);
                }
                command.arg(self.python.join("usr/bin/python3.11")).arg(root().join("tests/reference/passes.py"));
                let shape = if let Runtime::Ncnn(shape) = runtime { Some(shape) } else { None };
                command.arg(shape.map_or("onnxruntime", |_| "ncnn")).arg(file).arg(passes.to_string()).args(shape);
            }
        }
        let (printed, told) = outputs(&mut command)?;
        let count = told.lines().find_map(|line| line.strip_prefix("instructions: ")?.trim().parse().ok());
        Ok((count.with_context(|| format!("the plug-in has counted nothing: {told}"))?, printed))
    }

    /// The instructions of one classification.
    fn one(&self, runtime: &Runtime, processor: &Processor, file: &Path) -> Result<u64> {
        let (once, _) = self.count(runtime, processor, file, 1)?;
        let (twice, printed) = self.count(runtime, processor, file, 2)?;
        eprintln!("{}, {}: {}", runtime.name(), processor.name, printed.trim());
        twice.checked_sub(once).context("two classifications took fewer instructions than one")
    }
}

/// Prints the tables.
pub fn run(only: Option<&str>) -> Result<()> {
    setup::ensure()?;
    tools::run(&mut cargo(&tools::BUILD)?)?;
    let cache = cache()?;
    let work = cache.join("bench");
    std::fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
    let counter = Counter::prepare(&cache, &work)?;
    let (default, xception) = (root().join(bench::DEFAULT), bench::xception(&work, 299)?);
    let (small, large) = (bench::quantized(&default, &work, "u8")?, bench::quantized(&xception, &work, "u8")?);
    let mut found = 0;
    for (name, file, shape) in [
        ("EfficientNet-Lite0, 224x224, float", &default, Some("3,224,224")),
        ("EfficientNet-Lite0, 224x224, int8 (QDQ)", &small, None),
        ("Xception, 299x299, float", &xception, Some("299,299,3")),
        ("Xception, 299x299, int8 (QDQ)", &large, None),
    ] {
        if only.is_some_and(|text| !name.contains(text)) {
            continue;
        }
        found += 1;
        println!("\n{name}, one classification:\n");
        println!("| processor | runtime | instructions, 10^6 | ours / this |\n|---|---|---:|---:|");
        let ncnn = shape.map(|shape| anyhow::Ok((Runtime::Ncnn(shape), ncnn(&work, file, shape)?))).transpose()?;
        let mut estimates = vec![];
        for processor in &[A72, A76] {
            let ours = counter.one(&Runtime::Ours, processor, file)?;
            println!("| {} | ours | {:.1} | |", processor.name, ours as f64 / 1e6);
            let mut peers = vec![(&Runtime::Onnx, file), (&Runtime::Stock, file)];
            peers.extend(ncnn.iter().map(|(runtime, file)| (runtime, file)));
            for (runtime, file) in peers {
                let count = counter.one(runtime, processor, file).with_context(|| runtime.name())?;
                let ratio = ours as f64 / count as f64;
                println!("| {} | {} | {:.1} | {ratio:.2} |", processor.name, runtime.name(), count as f64 / 1e6);
            }
            for board in processor.boards {
                estimates.push(estimate(file, board, ours)?);
            }
        }
        println!("\n| board | estimated, ms | instructions a cycle, each core |\n|---|---:|---:|");
        estimates.iter().for_each(|line| println!("{line}"));
    }
    if found == 0 {
        bail!("no model has {:?} in its name", only.unwrap_or_default());
    }
    Ok(())
}

/// A line with what `edge-pack doctor` estimates for a board, and what that means for so many instructions.
fn estimate(file: &Path, board: &str, instructions: u64) -> Result<String> {
    let mut doctor = Command::new(built("edge-pack")?);
    let report: Value =
        serde_json::from_str(&output(doctor.arg("doctor").arg(file).args(["--board", board, "--json"]))?)?;
    let ms = report["boards"][0]["estimated_ms"].as_f64().context("edge-pack doctor has estimated nothing")?;
    let cost = board::by_name(board)?.cost.as_ref().context("a board of unknown speed")?;
    let cycles = ms / 1e3 * f64::from(cost.cores) * f64::from(cost.mhz) * 1e6;
    let processor = format!("{board}, {} {} at {} MHz", cost.cores, cost.processor, cost.mhz);
    Ok(format!("| {processor} | {ms:.1} | {:.2} |", instructions as f64 / cycles))
}

/// A model as ncnn takes it, with float32 weights; its parameters.
fn ncnn(work: &Path, onnx: &Path, shape: &str) -> Result<PathBuf> {
    let folder = work.join("ncnn");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    // Its files are named after the model's, with other letters where some are not for names in Python.
    std::fs::copy(onnx, folder.join("model.onnx")).with_context(|| format!("copying {}", onnx.display()))?;
    let param = folder.join("model.ncnn.param");
    if param.exists() {
        std::fs::remove_file(&param).with_context(|| format!("removing {}", param.display()))?;
    }
    let pnnx = setup::packages(setup::PNNX, &[])?.join("pnnx/pnnx");
    let mut convert = Command::new(pnnx);
    output(convert.current_dir(&folder).arg("model.onnx").arg(format!("inputshape=[1,{shape}]")).arg("fp16=0"))?;
    ensure!(param.exists(), "pnnx made no {}", param.display());
    Ok(param)
}
