//! What only a real GPU can show: the bridge on the real CUDA driver, once with a TensorRT of our own that computes on the
//! GPU, once with NVIDIA's lean runtime, which runs engines and builds none.
//!
//! Each test says SKIPPED, with the reason, where there is no GPU; with `EDGE_GPU=required` it fails there instead. The lean
//! runtime's library is named by `EDGE_TENSORRT_LEAN` (of PyPI's `tensorrt-lean-cu12-libs`), one of a version that is not
//! supported by `EDGE_TENSORRT_OTHER`.

mod fake;

/// Where the sources of the libraries are, seen from this crate.
const SOURCES: &str = "tests/fake";

use edge_tensorrt::{Cache, Contract, Entry, Places, Progress, Request, Session, TensorRt, TensorRtError};
use fake::{Machine, SPY, VERSIONS, expected, skip};
use std::ffi::{OsStr, OsString};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::time::Instant;

const SHAPE: [usize; 4] = [1, 2, 3, 3];
const TENSORS: &str = "input picture 1 2 3 3\noutput scores 1 4\nseed 5";
/// Longer than whoever does not wait takes to look.
const SLOW: &str = "delay 2000000";

/// Whether there is a GPU to test on; says why not.
fn gpu(test: &str) -> bool {
    let why = match open(&Machine::with_gpu(101601, "")) {
        Ok(tensorrt) => {
            eprintln!("{test} runs on {}", tensorrt.gpu());
            return true;
        }
        Err(why) => why,
    };
    let missing = match &why {
        TensorRtError::Library { why, .. } => why.contains("libcuda.so.1: cannot open"),
        // No device, and a driver to link against only.
        TensorRtError::Cuda { code, .. } => [100, 34].contains(code),
        TensorRtError::NoDevice => true,
        _ => false,
    };
    assert!(missing, "there may be a GPU, but it cannot be used: {why}");
    skip(test, &why.to_string());
    false
}

fn places(machine: &Machine) -> Places {
    Places {
        libcuda: machine.path(SPY).into(),
        libnvinfer: vec![machine.path(machine.library()).into()],
        trtexec: Some(machine.path("trtexec")),
    }
}

fn open(machine: &Machine) -> Result<TensorRt, TensorRtError> {
    TensorRt::open(&places(machine))
}

/// A network of this shape and so many classes, whose engine is built from `lines`.
fn session_of(
    tensorrt: &TensorRt,
    machine: &Machine,
    lines: &str,
    shape: &[usize],
    classes: usize,
) -> Result<Session, TensorRtError> {
    machine.builds(&machine.plan(lines));
    let contract = Contract { input: "picture", shape, output: "scores", classes };
    // Each engine is another package's.
    let package = edge_package::digest(lines.as_bytes());
    let request = Request { package, precision: "float16", contract, onnx: &|| b"an ONNX file".to_vec() };
    tensorrt.session(&request, &Cache::new(machine.path("cache")), &mut |_| ())
}

fn session(machine: &Machine, lines: &str) -> Result<Session, TensorRtError> {
    session_of(&open(machine)?, machine, lines, &SHAPE, 4)
}

/// The picture of this number.
fn picture(number: usize) -> Vec<f32> {
    (0..18).map(|i| ((i * 7 + number * 5) % 23) as f32 / 7.0 - 1.0).collect()
}

/// Nothing is left of what the libraries made, and both were unloaded.
fn assert_clean(machine: &Machine) {
    let report = machine.report();
    assert!(report.contains("cuda unloaded: 0 live") && report.contains("nvinfer unloaded: 0 live"), "{report}");
    assert!(report.lines().all(|l| !l.contains("unloaded") || l.contains(": 0 live")), "{report}");
    assert!(!report.contains("nobody should call") && !report.contains("no way to fail"), "{report}");
}

#[test]
fn the_gpu_computes_what_the_processor_does_on_every_version_and_feed() {
    if !gpu("the_gpu_computes_what_the_processor_does_on_every_version_and_feed") {
        return;
    }
    for version in VERSIONS {
        for in_place in [0, 1] {
            let machine = Machine::with_gpu(version, &format!("integrated {in_place}\n"));
            let mut session = session(&machine, TENSORS).unwrap();
            let mut output = [0.0; 4];
            session.run(&picture(0), &mut output).unwrap();
            assert_eq!(output, expected(&picture(0), 4, 5)[..], "{version}");
            let mut pinned = session.pinned().unwrap();
            pinned.copy_from_slice(&picture(1));
            session.run(&pinned, &mut output).unwrap();
            assert_eq!(output, expected(&picture(1), 4, 5)[..], "{version}");
            session.run(&picture(2), &mut output).unwrap();
            assert_eq!(output, expected(&picture(2), 4, 5)[..], "{version}");
            drop((session, pinned));
            assert_clean(&machine);
            let uploads = format!("cuda unloaded: 0 live, {} uploads", 3 - in_place);
            assert!(machine.report().contains(&uploads), "{}", machine.report());
        }
    }
}

/// The kernel is slow, results go where the GPU writes them while the processor goes on, and inputs are overwritten as soon as
/// a run has returned: whoever does not wait sees the run before, or computes with the wrong picture.
#[test]
fn no_run_of_many_sees_another_ones_picture_or_result() {
    if !gpu("no_run_of_many_sees_another_ones_picture_or_result") {
        return;
    }
    for in_place in [0, 1] {
        let machine = Machine::with_gpu(101601, &format!("integrated {in_place}\n"));
        let tensorrt = open(&machine).unwrap();
        let mut session = session_of(&tensorrt, &machine, &format!("{TENSORS}\n{SLOW}"), &SHAPE, 4).unwrap();
        let other = "input picture 1 4\noutput scores 1 4";
        let mut result = session_of(&tensorrt, &machine, other, &[1, 4], 4).unwrap().pinned().unwrap();
        let mut pinned = session.pinned().unwrap();
        for number in 0..200 {
            let wanted = expected(&picture(number), 4, 5);
            match number % 2 {
                0 => {
                    pinned.copy_from_slice(&picture(number));
                    session.run(&pinned, &mut result).unwrap();
                    pinned.fill(1e9);
                }
                _ => session.run(&picture(number), &mut result).unwrap(),
            }
            assert_eq!(result[..], wanted[..], "run {number}, in place: {in_place}");
            result.fill(-1e9);
        }
    }
}

#[test]
fn sessions_side_by_side_and_in_two_threads_do_not_disturb_each_other() {
    if !gpu("sessions_side_by_side_and_in_two_threads_do_not_disturb_each_other") {
        return;
    }
    let machines = [Machine::with_gpu(8601, ""), Machine::with_gpu(101601, "integrated 1\n")];
    // A thread opens for itself what it uses.
    let work = |machine: &Machine, from: usize| {
        let tensorrt = open(machine).unwrap();
        let make = |seed| {
            let lines = format!("input picture 1 2 3 3\noutput scores 1 4\nseed {seed}\ndelay 100000");
            session_of(&tensorrt, machine, &lines, &SHAPE, 4).unwrap()
        };
        let mut sessions = [make(5), make(11)];
        for number in from..from + 300 {
            for (session, seed) in sessions.iter_mut().zip([5, 11]) {
                let mut output = [0.0; 4];
                session.run(&picture(number), &mut output).unwrap();
                assert_eq!(output, expected(&picture(number), 4, seed)[..]);
            }
        }
    };
    std::thread::scope(|scope| {
        for (at, machine) in machines.iter().enumerate() {
            scope.spawn(move || work(machine, at * 1000));
        }
    });
    // One after another in one thread, when all was unloaded in between.
    for round in 0..5 {
        work(&machines[0], round * 10);
    }
    machines.iter().for_each(assert_clean);
}

/// The last numbers of MiB that the GPU had free, each time nothing was left in its memory.
fn free(machine: &Machine) -> Vec<i64> {
    let report = machine.report();
    report.lines().filter_map(|l| l.strip_prefix("MiB free: ")).map(|n| n.parse().unwrap()).collect()
}

#[test]
fn memory_comes_back_and_too_little_of_it_is_an_error() {
    if !gpu("memory_comes_back_and_too_little_of_it_is_an_error") {
        return;
    }
    // 1.4 GB on the GPU, most of it for outputs.
    let mut large = String::from("input picture 1 2 3 3\noutput scores 1 4\nseed 5\n");
    (0..20).for_each(|i| large += &format!("output other{i} 1 16777216\n"));
    let machine = Machine::with_gpu(101601, "");
    let tensorrt = open(&machine).unwrap();
    let load = || session_of(&tensorrt, &machine, &large, &SHAPE, 4);
    for _ in 0..30 {
        drop(load().unwrap());
    }
    let seen = free(&machine);
    eprintln!("MiB free after each of {} sessions: {seen:?}", seen.len());
    assert!(seen.len() == 30 && (seen[0] - seen[29]).abs() < 64, "{seen:?}");
    // More than an address can be.
    let absurd = [1, 1 << 20, 1 << 20, 1 << 12];
    let lines = "input picture 1 1048576 1048576 4096\noutput scores 1 4";
    let text = session_of(&tensorrt, &machine, lines, &absurd, 4).unwrap_err().to_string();
    eprintln!("an absurd input: {text}");
    assert!(text.contains("cuMemHostAlloc of the CUDA driver failed: CUDA_ERROR_"), "{text}");
    if tensorrt.gpu().integrated {
        skip("filling the GPU's memory", "it is the whole machine's");
    } else {
        let mut held = vec![];
        let why = loop {
            match load() {
                Ok(session) => held.push(session),
                Err(why) => break why.to_string(),
            }
        };
        eprintln!("after {} sessions: {why}", held.len());
        assert!(why.contains("cuMemAlloc of the CUDA driver failed: CUDA_ERROR_OUT_OF_MEMORY (2)"), "{why}");
        // Those that are there go on, and when they are gone there is room again.
        let mut output = [0.0; 4];
        held[0].run(&picture(3), &mut output).expect("a session that was there before");
        assert_eq!(output, expected(&picture(3), 4, 5)[..]);
        drop(held);
    }
    let mut again = load().unwrap();
    let mut output = [0.0; 4];
    again.run(&picture(4), &mut output).unwrap();
    assert_eq!(output, expected(&picture(4), 4, 5)[..]);
    drop((again, tensorrt));
    assert_clean(&machine);
}

/// Nothing is asserted of times: they are printed.
#[test]
fn thousands_of_passes_stay_right() {
    if !gpu("thousands_of_passes_stay_right") {
        return;
    }
    for (side, classes, passes) in [(8, 10, 5000), (224, 1000, 300)] {
        let lines = format!("input picture 1 3 {side} {side}\noutput scores 1 {classes}\nseed 5");
        let machine = Machine::with_gpu(101601, "");
        let tensorrt = open(&machine).unwrap();
        let mut session = session_of(&tensorrt, &machine, &lines, &[1, 3, side, side], classes).unwrap();
        let inputs: Vec<Vec<f32>> =
            (0..3).map(|n| (0..3 * side * side).map(|i| ((i * 3 + n) % 17) as f32 / 8.0 - 1.0).collect()).collect();
        let wanted: Vec<_> = inputs.iter().map(|input| expected(input, classes, 5)).collect();
        let (mut output, mut took) = (vec![0.0; classes], vec![]);
        for pass in 0..passes {
            let start = Instant::now();
            session.run(&inputs[pass % 3], &mut output).unwrap();
            took.push(start.elapsed());
            assert_eq!(output, wanted[pass % 3], "pass {pass}");
        }
        took.sort();
        let at = |share: f64| took[(share * (passes - 1) as f64) as usize];
        eprintln!(
            "{passes} passes of 3x{side}x{side} to {classes}: shortest {:?}, median {:?}, 99 % {:?}, longest {:?}",
            at(0.0),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

/// A library of NVIDIA's that the environment names.
fn named(test: &str, variable: &str) -> Option<OsString> {
    let named = std::env::var_os(variable).filter(|_| gpu(test));
    if named.is_none() {
        skip(test, &format!("{variable} names no library, or there is no GPU"));
    }
    named
}

/// The lean runtime, its engines built by a script that lies in `machine`.
fn lean(library: &OsStr, machine: &Machine) -> Result<TensorRt, TensorRtError> {
    let places = Places { libnvinfer: vec![library.into()], ..places(machine) };
    TensorRt::open(&places)
}

#[test]
fn nvidias_lean_runtime_is_made_and_refuses_what_is_no_engine() {
    let test = "nvidias_lean_runtime_is_made_and_refuses_what_is_no_engine";
    let Some(library) = named(test, "EDGE_TENSORRT_LEAN") else { return };
    let pattern = |len: usize| (0..len).map(|i| (i * 131 + i / 7) as u8).collect::<Vec<u8>>();
    // An engine's first four bytes, then nothing that follows them in one.
    let headed = |len: usize| [b"ftrt".to_vec(), pattern(len)].concat();
    let zeros = |len: usize| [b"ftrt".to_vec(), vec![0; len]].concat();
    let engines = [
        pattern(1),
        pattern(100),
        pattern(1 << 20),
        vec![0; 4096],
        headed(0),
        headed(28),
        headed(1 << 16),
        zeros(1 << 16),
    ];
    for round in 0..3 {
        let machine = Machine::with_gpu(101601, "");
        let tensorrt = lean(&library, &machine).unwrap();
        eprintln!("round {round}: a runtime of TensorRT {} on {}", tensorrt.version(), tensorrt.gpu());
        assert_eq!(tensorrt.version().major, 10);
        for engine in &engines {
            std::fs::write(machine.path("plan"), engine).unwrap();
            let contract = Contract { input: "picture", shape: &SHAPE, output: "scores", classes: 4 };
            let onnx = || b"an ONNX file".to_vec();
            let request = Request { package: [9; 32], precision: "float16", contract, onnx: &onnx };
            let made = tensorrt.session(&request, &Cache::new(machine.path("cache")), &mut |_| ());
            let text = made.expect_err("this is no engine").to_string();
            if round == 0 {
                eprintln!("{} bytes: {text}", engine.len());
            }
            assert!(text.starts_with("TensorRT's deserializeCudaEngine failed: "), "{text}");
        }
        drop(tensorrt);
        let report = machine.report();
        assert!(report.contains("cuda unloaded: 0 live"), "{report}");
    }
}

/// Puts an engine into a cache, as the cache's file format has it.
fn keep(cache: &Cache, entry: &Entry, plan: &[u8]) {
    let Entry { package, tensorrt, gpu, precision } = entry;
    let hex = edge_package::hex(package);
    let key = format!("package {hex}\nTensorRT {tensorrt}\nGPU {gpu}\nprecision {precision}\n");
    let body = [&(key.len() as u32).to_le_bytes(), key.as_bytes(), plan].concat();
    let mut folder = DirBuilder::new();
    folder.recursive(true).mode(0o700).create(cache.folder()).unwrap();
    let file = cache.folder().join(format!("{}-{precision}.engine", &hex[..16]));
    std::fs::write(file, [b"EDGETRT1", &edge_package::digest(&body)[..], &body].concat()).unwrap();
}

#[test]
fn an_engine_in_the_cache_that_nvidias_runtime_refuses_is_told() {
    let test = "an_engine_in_the_cache_that_nvidias_runtime_refuses_is_told";
    let Some(library) = named(test, "EDGE_TENSORRT_LEAN") else { return };
    let machine = Machine::with_gpu(101601, "");
    let tensorrt = lean(&library, &machine).unwrap();
    let contract = Contract { input: "picture", shape: &SHAPE, output: "scores", classes: 4 };
    let onnx = || b"an ONNX file".to_vec();
    let request = Request { package: [9; 32], precision: "float16", contract, onnx: &onnx };
    let cache = Cache::new(machine.path("cache"));
    // Whole as a file, and empty as an engine: only a library can tell.
    for plan in [&b""[..], b"plan"] {
        keep(&cache, &tensorrt.entry(&request), plan);
        let mut told = vec![];
        let made = tensorrt.session(&request, &cache, &mut |progress| {
            if let Progress::Stale(why) = progress {
                told.push(why.to_string());
            }
        });
        assert!(made.is_err());
        eprintln!("{} bytes in the cache: {told:?}", plan.len());
        assert!(told.len() == 1 && told[0].contains("deserializeCudaEngine"), "{told:?}");
    }
}

#[test]
fn nvidias_runtime_of_another_version_is_refused_by_its_number() {
    let test = "nvidias_runtime_of_another_version_is_refused_by_its_number";
    let Some(library) = named(test, "EDGE_TENSORRT_OTHER") else { return };
    let machine = Machine::with_gpu(101601, "");
    let text = lean(&library, &machine).err().expect("it is not supported").to_string();
    eprintln!("{text}");
    assert!(text.contains("is not supported; versions 8.6 to 10.x are"), "{text}");
    assert!(machine.report().contains("cuda unloaded: 0 live"), "{}", machine.report());
}
