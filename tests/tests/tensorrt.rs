//! `edge-camera --backend`: what is chosen, what is said of it, and that nothing is chosen silently. The libraries are not
//! NVIDIA's but some that behave as theirs, found by the real loader; `trtexec` is a script.

#[path = "../../crates/edge-tensorrt/tests/fake/mod.rs"]
mod fake;
#[path = "../../crates/edge-engine/tests/linear/mod.rs"]
mod linear;

/// Where the sources of the libraries are, seen from this crate.
const SOURCES: &str = "../crates/edge-tensorrt/tests/fake";

use edge_suite::*;
use fake::{Machine, skip};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PLAN: &str = "input picture 1 8 8 3\noutput scores 1 3\nseed 5";

/// A package of the network that the false library runs.
fn package(machine: &Machine, more: &[&str]) -> PathBuf {
    let (onnx, package) = (machine.path("linear.onnx"), machine.path("linear.edgepack"));
    std::fs::write(&onnx, linear::onnx([8, 8, 3], &["hat", "shirt", "shoes"], 5)).unwrap();
    let args = [onnx.to_str().unwrap(), "-o", package.to_str().unwrap()];
    run("edge-pack", args.iter().chain(more)).ok();
    machine.builds(&machine.plan(PLAN));
    package
}

/// `edge-camera` on this machine; what is NVIDIA's there comes before what this machine may have.
fn camera(machine: &Machine, frames: &str) -> Command {
    let mut command = Command::new(program("edge-camera"));
    let path = format!("{}:/usr/bin:/bin", machine.path("").display());
    let rest = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let libraries = format!("{}:{rest}", machine.path("").display());
    command.env("LD_LIBRARY_PATH", libraries).env("PATH", path).env_remove("CACHE_DIRECTORY");
    command.args(["--source", "pattern:32x24", "--rate", "100", "--frames", frames]);
    command
}

/// With the folder for engines.
fn keeping(machine: &Machine, frames: &str) -> Command {
    let mut command = camera(machine, frames);
    command.arg("--engine-cache").arg(machine.path("cache"));
    command
}

fn watch(machine: &Machine, package: &Path, more: &[&str]) -> Ran {
    keeping(machine, "3").arg("--package").arg(package).args(more).output().unwrap().into()
}

fn first_line(ran: &Ran) -> &str {
    ran.stderr.lines().next().unwrap_or_default()
}

fn decisions(ran: &Ran) -> Vec<Value> {
    ran.json().iter().map(|line| line["decision"].clone()).collect()
}

/// A machine whose library of this name is none.
fn broken(library: &str) -> Machine {
    let machine = Machine::new(8601, "");
    std::fs::write(machine.path(library), "no library").unwrap();
    machine
}

#[test]
fn auto_takes_the_gpu_builds_once_and_says_the_same_as_the_cpu() {
    for version in fake::VERSIONS {
        let machine = Machine::new(version, "integrated 1\n");
        let package = package(&machine, &[]);
        let cpu = watch(&machine, &package, &["--backend", "cpu"]).ok();
        assert!(first_line(&cpu).contains("backend cpu: as asked for"), "{}", cpu.stderr);
        let gpu = watch(&machine, &package, &["--summary", "1h"]).ok();
        assert!(first_line(&gpu).contains("backend tensorrt: TensorRT "), "{}", gpu.stderr);
        assert!(first_line(&gpu).contains(" on False-Orin, compute capability 8.7"), "{}", gpu.stderr);
        let second = gpu.stderr.lines().nth(1).unwrap();
        assert!(second.contains("TensorRT builds an engine of linear for this GPU: that takes minutes"), "{second}");
        assert!(gpu.stderr.contains("the engine is built: "), "{}", gpu.stderr);
        assert!(gpu.stderr.contains("3 golden sample(s) passed, tensorrt (TensorRT "), "{}", gpu.stderr);
        // The summary's line, too.
        let lines = gpu.json();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| line["backend"] == "tensorrt"), "{}", gpu.stdout);
        assert_eq!(decisions(&gpu)[..3], decisions(&cpu)[..]);
        let again = watch(&machine, &package, &["--backend", "tensorrt"]).ok();
        assert!(!again.stderr.contains("builds an engine") && again.json().len() == 3, "{}", again.stderr);
        assert_eq!(machine.builds_so_far(), 1);
        assert!(
            machine.report().lines().all(|l| !l.contains("unloaded") || l.contains(" 0 live")),
            "{}",
            machine.report()
        );
    }
}

#[test]
fn without_a_gpu_auto_says_why_it_takes_the_cpu_and_tensorrt_ends() {
    for (machine, auto, asked) in [
        (broken("libcuda.so.1"), "no libcuda.so.1 here", &["libcuda.so.1 cannot be loaded", "NVIDIA's driver"][..]),
        (Machine::new(8601, "devices 0\n"), "finds no GPU", &["finds no GPU"]),
        (Machine::new(8601, "cuInit 100\n"), "CUDA_ERROR_NO_DEVICE (100)", &["cuInit", "CUDA_ERROR_NO_DEVICE (100)"]),
        (Machine::new(8601, "version 8201\n"), "TensorRT 8.2.1 ", &["TensorRT 8.2.1 (libnvinfer.so.8)", "8.6 to 10.x"]),
        (Machine::new(101601, "version 110000\n"), "TensorRT 11.0.0 ", &["TensorRT 11.0.0 (libnvinfer.so.10)"]),
        (Machine::new(101601, "runtime small\n"), "no object", &["createInferRuntime", "no object"]),
        (Machine::new(101601, "runtime error\n"), "initialization failure", &["CUDA initialization failure"]),
    ] {
        let package = package(&machine, &[]);
        let ran = watch(&machine, &package, &[]).ok();
        let first = first_line(&ran);
        assert!(first.contains("backend cpu: chosen because ") && first.contains(auto), "{first}");
        assert!(ran.json().iter().all(|line| line["backend"] == "cpu"));
        let ran = watch(&machine, &package, &["--backend", "tensorrt"]).fails(8, asked);
        assert!(ran.stdout.is_empty(), "{}", ran.stdout);
        assert_eq!(machine.builds_so_far(), 0);
    }
}

#[test]
fn without_trtexec_auto_takes_the_cpu_and_tensorrt_says_what_brings_it() {
    let machine = Machine::new(9300, "");
    let package = package(&machine, &[]);
    std::fs::remove_file(machine.path("trtexec")).unwrap();
    let ran = watch(&machine, &package, &[]).ok();
    assert!(first_line(&ran).contains("backend cpu: chosen because") && first_line(&ran).contains("trtexec"));
    watch(&machine, &package, &["--backend", "tensorrt"]).fails(8, &["no trtexec", "libnvinfer-bin", "--backend cpu"]);
}

#[test]
fn a_build_that_fails_is_an_error_under_auto_too() {
    let machine = Machine::new(8601, "");
    let package = package(&machine, &[]);
    std::fs::write(machine.path("fails"), "[E] no importer for Gemm\n").unwrap();
    for backend in ["auto", "tensorrt"] {
        let ran = watch(&machine, &package, &["--backend", backend]);
        ran.fails(8, &["built no engine", "no importer for Gemm", "`--backend cpu` runs it"]);
    }
}

#[test]
fn golden_samples_are_held_against_tensorrt_with_a_tolerance_of_its_own() {
    let machine = Machine::new(8601, "");
    let plain = package(&machine, &[]);
    let shown = &run("edge-pack", ["inspect", plain.to_str().unwrap(), "--json"]).ok().json()[0];
    assert!((shown["tolerance"]["relative"].as_f64().unwrap() - 0.001).abs() < 1e-6);
    assert!((shown["tolerance_tensorrt"]["relative"].as_f64().unwrap() - 0.02).abs() < 1e-6);
    // Further off than the CPU may be.
    machine.builds(&machine.plan(&format!("{PLAN}\noffset 0.0005")));
    watch(&machine, &plain, &[]).ok();
    // Another package, by its digest, so that its engine is built.
    let strict = package(&machine, &["--tensorrt-tolerance", "0.0001"]);
    machine.builds(&machine.plan(&format!("{PLAN}\noffset 0.0005")));
    watch(&machine, &strict, &[]).fails(3, &["golden sample", "of difference is allowed"]);
    watch(&machine, &strict, &["--backend", "cpu"]).ok();
    // A network that is another one altogether.
    let wrong = package(&machine, &["--tensorrt-tolerance", "0.1"]);
    machine.builds(&machine.plan(&PLAN.replace("seed 5", "seed 8")));
    watch(&machine, &wrong, &[]).fails(3, &["golden sample"]);
    let refused = run("edge-pack", [machine.path("linear.onnx").to_str().unwrap(), "--tensorrt-tolerance", "0.5"]);
    refused.fails(1, &["tolerance", "not usable"]);
}

#[test]
fn an_engine_of_another_machine_is_built_again_and_a_folder_of_others_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let machine = Machine::new(101601, "");
    let package = package(&machine, &[]);
    watch(&machine, &package, &[]).ok();
    machine.faults("gpu False-Xavier\n");
    let ran = watch(&machine, &package, &[]).ok();
    let again = "was built for another machine or package (GPU False-Orin";
    assert!(ran.stderr.contains(again) && ran.stderr.contains("it is built again"), "{}", ran.stderr);
    assert_eq!(machine.builds_so_far(), 2);
    std::fs::set_permissions(machine.path("cache"), std::fs::Permissions::from_mode(0o750)).unwrap();
    watch(&machine, &package, &[]).fails(8, &["0750", "chmod 700"]);
    assert_eq!(machine.builds_so_far(), 2);
}

#[test]
fn engines_go_where_the_service_manager_says() {
    let machine = Machine::new(8601, "");
    let package = package(&machine, &[]);
    let mut command = camera(&machine, "1");
    command.env("CACHE_DIRECTORY", machine.path("service")).arg("--package").arg(&package);
    Ran::from(command.output().unwrap()).ok();
    let engines = machine.path("service/tensorrt").read_dir().unwrap().map(|e| e.unwrap().file_name());
    assert_eq!(engines.filter(|name| name.to_string_lossy().ends_with(".engine")).count(), 1);
}

#[test]
fn a_run_that_fails_is_a_fault_of_its_frame_and_the_camera_goes_on() {
    let machine = Machine::new(8601, "");
    let package = package(&machine, &[]);
    watch(&machine, &package, &[]).ok();
    let mut child = keeping(&machine, "1000000")
        .arg("--package")
        .arg(&package)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut line_with = |key: &str| -> Value {
        loop {
            let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            assert_eq!(line["backend"], "tensorrt");
            if !line[key].is_null() {
                return line;
            }
        }
    };
    line_with("decision");
    machine.faults("cuStreamSynchronize 999\n");
    let fault = line_with("error");
    assert!(fault["error"].as_str().unwrap().contains("cuStreamSynchronize"), "{fault}");
    machine.faults("");
    line_with("decision");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_installed_package_finds_its_engine_built() {
    let machine = Machine::new(8601, "");
    let package = package(&machine, &[]);
    let slots = machine.path("slots");
    let mut install = keeping(&machine, "3");
    let ran: Ran = install.arg("--slots").arg(&slots).arg("--install").arg(&package).output().unwrap().into();
    let ran = ran.ok();
    assert!(first_line(&ran).contains("backend tensorrt"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("builds an engine") && ran.stdout.contains("tensorrt (TensorRT 8.6.1"),
        "{}",
        ran.stdout
    );
    let ran: Ran = keeping(&machine, "3").arg("--slots").arg(&slots).output().unwrap().into();
    let ran = ran.ok();
    assert!(ran.json().iter().all(|line| line["backend"] == "tensorrt"), "{}", ran.stdout);
    assert_eq!(machine.builds_so_far(), 1);
}

/// The finding of this code that `edge-pack doctor --device` has on a machine, if any.
fn doctor(machine: &Machine, config: &str, code: &str) -> Option<Value> {
    let file = machine.path("camera.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(program("edge-pack"));
    let path = format!("{}:/usr/bin:/bin", machine.path("").display());
    command.env("LD_LIBRARY_PATH", machine.path("")).env("PATH", path).env("CACHE_DIRECTORY", machine.path("none"));
    command.args(["doctor", "--device", "--json", "--config"]).arg(file);
    let value = Ran::from(command.output().unwrap()).json().remove(0);
    value["findings"].as_array().unwrap().iter().find(|f| f["code"] == code).cloned()
}

#[test]
fn the_doctor_says_what_computes_and_what_keeps_the_gpu_from_it() {
    let machine = Machine::new(8601, "");
    let backend = |config: &str| doctor(&machine, config, "backend");
    let found = backend("source = \"pattern:8x8\"\n").unwrap();
    assert!(
        found["severity"] == "note" && found["what"].as_str().unwrap().contains("TensorRT 8.6.1 on False-Orin"),
        "{found}"
    );
    assert_eq!(backend("source = \"pattern:8x8\"\nbackend = \"cpu\"\n"), None);
    std::fs::remove_file(machine.path("trtexec")).unwrap();
    let found = backend("source = \"pattern:8x8\"\n").unwrap();
    assert!(found["severity"] == "warning" && found["fix"].as_str().unwrap().contains("libnvinfer-bin"), "{found}");
    machine.faults("devices 0\n");
    let found = backend("source = \"pattern:8x8\"\n").unwrap();
    assert!(found["severity"] == "note" && found["what"].as_str().unwrap().contains("finds no GPU"), "{found}");
    let found = backend("source = \"pattern:8x8\"\nbackend = \"tensorrt\"\n").unwrap();
    assert!(found["severity"] == "error" && found["why"].as_str().unwrap().contains("exit code 8"), "{found}");
    std::fs::write(machine.path("libcuda.so.1"), "no library").unwrap();
    assert_eq!(backend("source = \"pattern:8x8\"\n"), None);
}

/// Why the program takes the processor on a machine that has TensorRT, where that is for want of a GPU. Where there is one, an
/// engine for the package is built.
fn no_gpu(machine: &Machine) -> Option<String> {
    let ran = watch(machine, &package(machine, &[]), &[]).ok();
    let why = first_line(&ran).split_once("backend cpu: chosen because ")?.1.to_string();
    let missing = ["no libcuda.so.1", "finds no GPU", "CUDA_ERROR_NO_DEVICE", "CUDA_ERROR_STUB_LIBRARY"];
    assert!(missing.iter().any(|what| why.contains(what)), "there may be a GPU, but it is not used: {why}");
    Some(why)
}

#[test]
fn on_a_real_gpu_the_program_says_the_same_as_the_cpu_and_builds_once() {
    for version in fake::VERSIONS {
        let machine = Machine::with_gpu(version, "");
        if let Some(why) = no_gpu(&machine) {
            return skip("on_a_real_gpu_the_program_says_the_same_as_the_cpu_and_builds_once", &why);
        }
        let package = machine.path("linear.edgepack");
        let cpu = watch(&machine, &package, &["--backend", "cpu"]).ok();
        let gpu = watch(&machine, &package, &["--backend", "tensorrt"]).ok();
        eprintln!("{}", gpu.stderr);
        assert!(!gpu.stderr.contains("builds an engine"), "{}", gpu.stderr);
        assert!(gpu.stderr.contains("3 golden sample(s) passed, tensorrt (TensorRT "), "{}", gpu.stderr);
        assert!(gpu.json().iter().all(|line| line["backend"] == "tensorrt"), "{}", gpu.stdout);
        assert_eq!(decisions(&gpu), decisions(&cpu));
        assert_eq!(machine.builds_so_far(), 1);
    }
}

/// NVIDIA's lean runtime under the name that the program looks for; its path is in `EDGE_TENSORRT_LEAN`.
fn with_lean_runtime(test: &str) -> Option<Machine> {
    let machine = Machine::with_gpu(101601, "");
    let why = match std::env::var_os("EDGE_TENSORRT_LEAN") {
        None => "EDGE_TENSORRT_LEAN names no library".to_string(),
        Some(library) => match no_gpu(&machine) {
            Some(why) => why,
            None => {
                std::fs::remove_file(machine.path("libnvinfer.so.10")).unwrap();
                std::os::unix::fs::symlink(library, machine.path("libnvinfer.so.10")).unwrap();
                return Some(machine);
            }
        },
    };
    skip(test, &why);
    None
}

#[test]
fn nvidias_lean_runtime_without_a_program_that_builds_is_told() {
    let test = "nvidias_lean_runtime_without_a_program_that_builds_is_told";
    let Some(machine) = with_lean_runtime(test) else { return };
    let package = machine.path("linear.edgepack");
    std::fs::remove_dir_all(machine.path("cache")).unwrap_or_default();
    std::fs::remove_file(machine.path("trtexec")).unwrap();
    let ran = watch(&machine, &package, &[]).ok();
    eprintln!("{}", first_line(&ran));
    assert!(first_line(&ran).contains("backend cpu: chosen because") && first_line(&ran).contains("trtexec"));
    let ran = watch(&machine, &package, &["--backend", "tensorrt"]);
    eprintln!("{}", ran.stderr);
    ran.fails(8, &["no trtexec", "libnvinfer-bin", "--backend cpu"]);
}

#[test]
fn nvidias_lean_runtime_refuses_what_is_no_engine_and_the_program_ends_with_its_words() {
    let test = "nvidias_lean_runtime_refuses_what_is_no_engine_and_the_program_ends_with_its_words";
    let Some(machine) = with_lean_runtime(test) else { return };
    let package = machine.path("linear.edgepack");
    std::fs::remove_dir_all(machine.path("cache")).unwrap_or_default();
    machine.builds("ftrt, and nothing that follows it in an engine");
    for backend in ["auto", "tensorrt"] {
        let ran = watch(&machine, &package, &["--backend", backend]);
        eprintln!("{}", ran.stderr);
        let ran = ran.fails(8, &["deserializeCudaEngine failed: ", "--backend cpu"]);
        assert!(first_line(&ran).contains("backend tensorrt: TensorRT 10."), "{}", ran.stderr);
    }
}
