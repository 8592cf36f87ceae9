//! Everything between this crate and TensorRT, through the real dynamic loader, on libraries that behave as NVIDIA's do or as
//! they do when something is wrong.

mod fake;

/// Where the sources of the libraries are, seen from this crate.
const SOURCES: &str = "tests/fake";

use edge_tensorrt::{Cache, Contract, Places, Progress, Request, Session, TensorRt, TensorRtError};
use fake::{Machine, VERSIONS, expected};
use std::time::Duration;

const SHAPE: [usize; 4] = [1, 2, 3, 3];
const CONTRACT: Contract<'static> = Contract { input: "picture", shape: &SHAPE, output: "scores", classes: 4 };
const TENSORS: &str = "input picture 1 2 3 3\noutput scores 1 4\nseed 5";

fn places(machine: &Machine) -> Places {
    Places {
        libcuda: machine.path("libcuda.so.1").into(),
        libnvinfer: vec![machine.path(machine.library()).into()],
        trtexec: Some(machine.path("trtexec")),
    }
}

fn open(machine: &Machine) -> Result<TensorRt, TensorRtError> {
    TensorRt::open(&places(machine))
}

fn request<'a>(precision: &'a str, onnx: &'a dyn Fn() -> Vec<u8>) -> Request<'a> {
    Request { package: [9; 32], precision, contract: CONTRACT, onnx }
}

fn onnx() -> Vec<u8> {
    b"an ONNX file".to_vec()
}

fn cache(machine: &Machine) -> Cache {
    Cache::new(machine.path("cache"))
}

/// The network that `lines` say, built and loaded.
fn session(machine: &Machine, lines: &str) -> Result<Session, TensorRtError> {
    machine.builds(&machine.plan(lines));
    open(machine)?.session(&request("float16", &onnx), &cache(machine), &mut |_| ())
}

fn picture() -> Vec<f32> {
    (0..18).map(|i| i as f32 / 7.0 - 1.0).collect()
}

/// Nothing is left of what the libraries made, and both were unloaded.
fn assert_clean(machine: &Machine) {
    let report = machine.report();
    assert!(report.contains("cuda unloaded: 0 live"), "{report}");
    assert!(!report.contains("nobody should call") && !report.contains("no way to fail"), "{report}");
    for line in report.lines().filter(|l| l.starts_with("nvinfer unloaded")) {
        assert_eq!(line, "nvinfer unloaded: 0 live");
    }
}

/// What opening, building and a run come to, as an error's text; all of it is gone afterwards.
fn fails(machine: &Machine, lines: &str) -> String {
    let failed = session(machine, lines).and_then(|mut session| session.run(&picture(), &mut [0.0; 4]));
    let text = failed.expect_err(lines).to_string();
    assert_clean(machine);
    text
}

#[test]
fn a_network_runs_on_every_version_and_kind_of_gpu() {
    for version in VERSIONS {
        for integrated in [0, 1] {
            let machine = Machine::new(version, &format!("integrated {integrated}\n"));
            let input = picture();
            let wanted = expected(&input, 4, 5);
            let mut session = session(&machine, TENSORS).unwrap();
            let mut output = [0.0; 4];
            // From anywhere.
            session.run(&input, &mut output).unwrap();
            assert_eq!(output, wanted[..], "{version}");
            // From where the GPU finds it.
            let mut pinned = session.pinned().unwrap();
            assert!(session.pinned().is_none(), "there is one");
            assert!(pinned.iter().all(|v| *v == 0.0));
            pinned.copy_from_slice(&input);
            pinned[0] += 1.0;
            output.fill(0.0);
            session.run(&pinned, &mut output).unwrap();
            assert_eq!(output, expected(&pinned, 4, 5)[..], "{version}");
            // And from anywhere again.
            session.run(&input, &mut output).unwrap();
            assert_eq!(output, wanted[..], "{version}");
            drop(session);
            // It outlives what it belongs to.
            assert_eq!(pinned[0], input[0] + 1.0);
            drop(pinned);
            assert_clean(&machine);
            // Three runs, of which one needs no copy where memory is shared.
            let uploads = format!("cuda unloaded: 0 live, {} uploads", 3 - integrated);
            assert!(machine.report().contains(&uploads), "{}", machine.report());
        }
    }
}

#[test]
fn what_runs_is_described() {
    let machine = Machine::new(8601, "integrated 1\n");
    let tensorrt = open(&machine).unwrap();
    assert_eq!(tensorrt.version().to_string(), "8.6.1");
    assert_eq!(tensorrt.gpu().to_string(), "False-Orin, compute capability 8.7, 8 multiprocessors");
    assert!(tensorrt.gpu().integrated && tensorrt.can_build().is_ok());
}

#[test]
fn buffers_of_other_lengths_are_refused() {
    let machine = Machine::new(101601, "");
    let mut session = session(&machine, TENSORS).unwrap();
    for (input, output) in [(17, 4), (19, 4), (18, 3), (18, 5), (0, 4)] {
        let refused = session.run(&vec![1.0; input], &mut vec![0.0; output]);
        assert!(matches!(refused, Err(TensorRtError::Length { .. })), "{input} {output}: {refused:?}");
    }
    let mut output = [0.0; 4];
    session.run(&picture(), &mut output).unwrap();
    assert_eq!(output, expected(&picture(), 4, 5)[..]);
}

#[test]
fn other_versions_are_refused_by_their_number() {
    for (number, name) in [(8201, "8.2.1"), (8503, "8.5.3"), (7103, "7.1.3"), (110000, "11.0.0"), (0, "0.0.0")] {
        let machine = Machine::new(101601, &format!("version {number}\n"));
        let text = fails(&machine, TENSORS);
        assert!(text.contains(&format!("TensorRT {name} (")) && text.contains("8.6 to 10.x"), "{text}");
        assert!(!machine.report().contains("a runtime is made"));
        assert!(machine.report().contains("nvinfer unloaded"));
    }
}

#[test]
fn the_first_library_that_is_known_is_taken() {
    let (old, new) = (Machine::new(101601, "version 110000\n"), Machine::new(8601, ""));
    let names = [old.path("missing.so"), old.path("libnvinfer.so.10"), new.path("libnvinfer.so.8")];
    let both = Places { libnvinfer: names.clone().map(Into::into).to_vec(), ..places(&new) };
    assert_eq!(TensorRt::open(&both).unwrap().version().to_string(), "8.6.1");
    // One that is here and refused says more than one that is not here.
    let refused = Places { libnvinfer: names[..2].iter().map(Into::into).collect(), ..places(&new) };
    let text = TensorRt::open(&refused).err().unwrap().to_string();
    assert!(text.contains("TensorRT 11.0.0"), "{text}");
    let none = Places { libnvinfer: vec![], ..places(&new) };
    assert!(matches!(TensorRt::open(&none), Err(TensorRtError::Library { .. })));
}

#[test]
fn what_is_missing_is_named_with_what_brings_it() {
    let machine = Machine::new(101601, "");
    std::fs::remove_file(machine.path("libnvinfer.so.10")).unwrap();
    let text = fails(&machine, TENSORS);
    assert!(text.contains("libnvinfer.so.10 cannot be loaded") && text.contains("apt install tensorrt"), "{text}");
    // No library at all, and one that is none of NVIDIA's.
    std::fs::write(machine.path("libnvinfer.so.10"), "text").unwrap();
    assert!(fails(&machine, TENSORS).contains("cannot be loaded"));
    std::fs::copy(machine.path("libcuda.so.1"), machine.path("libnvinfer.so.10")).unwrap();
    assert!(fails(&machine, TENSORS).contains("it has no function getInferLibVersion"));
    std::fs::remove_file(machine.path("libcuda.so.1")).unwrap();
    let text = open(&machine).err().unwrap().to_string();
    assert!(text.contains("libcuda.so.1 cannot be loaded") && text.contains("NVIDIA's driver"), "{text}");
}

#[test]
fn without_a_gpu_tensorrt_is_not_reached() {
    for (fault, says) in [
        ("devices 0\n", "finds no GPU"),
        ("cuInit 100\n", "cuInit of the CUDA driver failed: CUDA_ERROR_NO_DEVICE (100)"),
        ("cuInit 34\n", "only a stub"),
        ("cuInit 999\n", "video and render"),
        ("cuDeviceGetCount 3\n", "cuDeviceGetCount of the CUDA driver failed: an error without a name (3)"),
    ] {
        let machine = Machine::new(101601, fault);
        let text = fails(&machine, TENSORS);
        assert!(text.contains(says), "{text}");
        assert!(!machine.report().contains("nvinfer") && !machine.report().contains("a runtime"), "{fault}");
    }
}

#[test]
fn what_is_no_object_is_not_called() {
    for version in VERSIONS {
        for how in ["null", "small", "odd", "unmapped", "zeros", "data"] {
            for (maker, call) in [("runtime", "createInferRuntime"), ("engine", "deserializeCudaEngine")] {
                let text = fails(&Machine::new(version, &format!("{maker} {how}\n")), TENSORS);
                assert!(text.contains(call), "{version} {maker} {how}: {text}");
                assert_eq!(text.contains("is no object"), how != "null", "{text}");
            }
            let text = fails(&Machine::new(version, ""), &format!("{TENSORS}\nbreak context-{how}"));
            assert!(text.contains("createExecutionContext"), "{version} {how}: {text}");
        }
    }
}

#[test]
fn an_error_in_the_log_is_a_failure_whatever_was_given() {
    for version in VERSIONS {
        let text = fails(&Machine::new(version, "runtime error\n"), TENSORS);
        assert!(text.contains("createInferRuntime failed: CUDA initialization failure"), "{text}");
        assert!(!text.contains("warnings"), "{text}");
        let text = fails(&Machine::new(version, "engine error\n"), TENSORS);
        assert!(text.contains("deserializeCudaEngine failed: the engine was only half read"), "{text}");
        let text = fails(&Machine::new(version, ""), &format!("{TENSORS}\nbreak contextError"));
        assert!(text.contains("createExecutionContext failed: no memory for the context"), "{text}");
    }
}

#[test]
fn every_call_that_fails_is_named_and_leaves_nothing() {
    for call in [
        "cuDeviceGet",
        "cuDeviceGetName",
        "cuDeviceGetAttribute",
        "cuDevicePrimaryCtxRetain",
        "cuCtxSetCurrent",
        "cuStreamCreate",
        "cuStreamSynchronize",
        "cuMemAlloc_v2",
        "cuMemHostAlloc",
        "cuMemHostGetDevicePointer_v2",
        "cuMemcpyHtoDAsync_v2",
        "cuMemcpyDtoHAsync_v2",
    ] {
        let text = fails(&Machine::new(101601, &format!("{call} 2\n")), TENSORS);
        let name = call.trim_end_matches("_v2");
        assert!(text.contains(&format!("{name} of the CUDA driver failed: CUDA_ERROR_OUT_OF_MEMORY (2)")), "{text}");
        assert!(text.contains("does not fit into the GPU's memory"), "{text}");
    }
    let text = fails(&Machine::new(101601, "pinned null\n"), TENSORS);
    assert!(text.contains("cuMemHostAlloc") && text.contains("no object"), "{text}");
    for version in VERSIONS {
        for (broken, call) in [
            ("setInputShape", "setInputShape failed"),
            ("inputAddress", "setTensorAddress failed"),
            ("outputAddress", "setTensorAddress failed"),
            ("enqueueV3", "enqueueV3 failed: enqueueV3: this engine is broken"),
        ] {
            let text = fails(&Machine::new(version, ""), &format!("{TENSORS}\nbreak {broken}"));
            assert!(text.contains(call), "{version}: {text}");
        }
    }
}

#[test]
fn a_failed_run_is_followed_by_one_that_works() {
    let machine = Machine::new(8601, "");
    let mut session = session(&machine, TENSORS).unwrap();
    machine.faults("cuStreamSynchronize 999\n");
    assert!(session.run(&picture(), &mut [0.0; 4]).is_err());
    machine.faults("");
    let mut output = [0.0; 4];
    session.run(&picture(), &mut output).unwrap();
    assert_eq!(output, expected(&picture(), 4, 5)[..]);
}

#[test]
fn an_engine_that_does_not_fit_the_package_is_refused() {
    for version in VERSIONS {
        for (lines, says) in [
            (
                "input picture 1 3 2 3\noutput scores 1 4",
                "of shape [1, 3, 2, 3]; \"picture\" of [1, 2, 3, 3] is needed",
            ),
            ("input picture 1 2 9\noutput scores 1 4", "of shape [1, 2, 9]"),
            ("input photo 1 2 3 3\noutput scores 1 4", "its input is \"photo\""),
            ("input picture 1 2 3 3\noutput scores 1 5", "has 5 values; one for each of 4 classes"),
            ("input picture 1 2 3 3\noutput scores 1 -1", "[1, -1] of its output \"scores\" is no number"),
            ("input picture 1 2 3 3\noutput scores 70000 70000", "is no number of values"),
            ("input picture 1 2 3 3\noutput logits 1 4", "it has no output \"scores\""),
            ("output scores 1 4\noutput logits 1 4", "it has no input \"picture\""),
            ("input picture 1 2 3 3", "it has 1 inputs and outputs"),
            ("input picture 1 2 3 3\noutput scores 1 4\ntype scores 1", "\"scores\" is float16; float32 is needed"),
            ("input picture 1 2 3 3\noutput scores 1 4\ntype picture 77", "of an unknown type (77)"),
            ("input picture 1 2 3 3\noutput scores 1 4\nmode scores 0", "neither input nor output"),
            ("input picture 1 2 3 3\noutput scores 1 4\nbreak count", "it has 1000000 inputs and outputs"),
            ("input picture 1 2 3 3\noutput scores 1 4\nbreak name", "tensor 0 has no name"),
            ("input picture 1 2 3 3\noutput scores 1 4\nbreak wildName", "tensor 0 has no name"),
            ("input picture 1 2 3 3\noutput scores 1 4\nbreak dims", "has no shape"),
        ] {
            let text = fails(&Machine::new(version, ""), lines);
            assert!(text.contains("does not fit the package") && text.contains(says), "{version} {lines}: {text}");
        }
    }
}

#[test]
fn open_batches_and_further_outputs_are_fine() {
    for version in VERSIONS {
        let machine = Machine::new(version, "");
        let lines = "output other 1 7\ninput picture -1 2 3 3\noutput scores -1 4 1 1\nseed 3";
        let mut session = session(&machine, lines).unwrap();
        let mut output = [0.0; 4];
        session.run(&picture(), &mut output).unwrap();
        assert_eq!(output, expected(&picture(), 4, 3)[..]);
    }
}

/// What was told on the way, in short, with the times left out.
fn told(machine: &Machine, precision: &str) -> (Result<Session, TensorRtError>, Vec<String>) {
    let (mut told, tensorrt) = (vec![], open(machine).unwrap());
    let made = tensorrt.session(&request(precision, &onnx), &cache(machine), &mut |progress| {
        told.push(match progress {
            Progress::Waiting => "waiting".to_string(),
            Progress::Stale(why) => format!("stale: {why}"),
            Progress::Building { elapsed: Duration::ZERO, said } => format!("begins {said}"),
            Progress::Building { .. } => "building".into(),
            Progress::Built { bytes, .. } => format!("built {bytes}"),
        });
    });
    told.dedup();
    (made, told)
}

#[test]
fn an_engine_is_built_once_with_progress_from_the_first_moment() {
    let machine = Machine::new(8601, "");
    let plan = machine.plan(TENSORS);
    machine.builds(&plan);
    let (made, said) = told(&machine, "float16");
    made.unwrap();
    assert_eq!(said, ["begins ", "building", &format!("built {}", plan.len())]);
    let asked = std::fs::read_to_string(machine.path("asked")).unwrap();
    assert!(asked.contains("--skipInference --fp16") && !asked.contains("--int8"), "{asked}");
    assert_eq!(std::fs::read(machine.path("onnx")).unwrap(), onnx());
    let (made, said) = told(&machine, "float16");
    made.unwrap();
    assert!(said.is_empty(), "{said:?}");
    assert_eq!(machine.builds_so_far(), 1);
    // Another precision is another engine, beside it.
    told(&machine, "int8").0.unwrap();
    assert!(std::fs::read_to_string(machine.path("asked")).unwrap().contains("--fp16 --int8"));
    told(&machine, "float16").0.unwrap();
    assert_eq!(machine.builds_so_far(), 2);
    let left: Vec<_> = machine.path("cache").read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "two engines and a lock: {left:?}");
}

#[test]
fn an_engine_of_another_machine_is_built_again_and_that_is_told() {
    let machine = Machine::new(8601, "");
    session(&machine, TENSORS).unwrap();
    machine.faults("gpu False-Xavier\n");
    let (made, said) = told(&machine, "float16");
    made.unwrap();
    assert!(said[0].contains("stale: ") && said[0].contains("this is GPU False-Xavier"), "{said:?}");
    assert_eq!(machine.builds_so_far(), 2);
    // A damaged one.
    let mut engine = machine.path("cache").read_dir().unwrap().map(|e| e.unwrap().path());
    let engine = engine.find(|p| p.extension().is_some()).unwrap();
    let mut bytes = std::fs::read(&engine).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&engine, bytes).unwrap();
    let (made, said) = told(&machine, "float16");
    made.unwrap();
    assert!(said[0].contains("damaged"), "{said:?}");
    assert_eq!(machine.builds_so_far(), 3);
}

#[test]
fn an_engine_that_tensorrt_does_not_take_any_more_is_built_again() {
    let machine = Machine::new(8601, "");
    session(&machine, &format!("{TENSORS}\nseed 1")).unwrap();
    // The library refuses it once, as after an update that did not change its version.
    machine.builds(&machine.plan(TENSORS));
    let script = std::fs::read_to_string(machine.path("trtexec")).unwrap();
    machine.trtexec_is(&script.replace("echo \"&&&& PASSED\"", ": >\"$here/faults\""));
    machine.faults("engine null\n");
    let (made, said) = told(&machine, "float16");
    let mut output = [0.0; 4];
    made.unwrap().run(&picture(), &mut output).unwrap();
    assert_eq!(output, expected(&picture(), 4, 5)[..]);
    assert!(said[0].contains("stale: TensorRT's deserializeCudaEngine failed"), "{said:?}");
}

#[test]
fn a_new_engine_that_is_not_taken_is_an_error_and_is_not_kept() {
    let machine = Machine::new(8601, "");
    machine.builds("FALSE ENGINE 101601\n");
    let (made, _) = told(&machine, "float16");
    let text = made.unwrap_err().to_string();
    assert!(text.contains("deserializeCudaEngine failed: Version tag does not match"), "{text}");
    let left: Vec<_> = machine.path("cache").read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
}

#[test]
fn a_build_that_fails_says_what_trtexec_said() {
    let machine = Machine::new(8601, "");
    let cache_is_empty = || {
        let left: Vec<_> = machine.path("cache").read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["lock"]);
    };
    let build = || told(&machine, "float16").0.unwrap_err().to_string();
    std::fs::write(machine.path("fails"), "[I] reading\n[E] no importer for operator Foo\n[I] bye\n").unwrap();
    let text = build();
    assert!(text.contains("exit code 1: [E] no importer for operator Foo") && !text.contains("bye"), "{text}");
    cache_is_empty();
    std::fs::write(machine.path("fails"), "Segmentation fault\n").unwrap();
    assert!(build().contains("Segmentation fault"));
    std::fs::remove_file(machine.path("fails")).unwrap();
    assert!(build().contains("its engine cannot be read"));
    machine.builds("");
    assert!(build().contains("its engine is empty"));
    machine.trtexec_is("#!/bin/sh\nkill -9 $$\n");
    assert!(build().contains("memory runs out"));
    machine.trtexec_is("#!/no/such/interpreter\n");
    assert!(build().contains("it cannot be started"));
    cache_is_empty();
}

#[test]
fn without_trtexec_only_what_is_in_the_cache_runs() {
    let machine = Machine::new(8601, "");
    let without = TensorRt::open(&Places { trtexec: None, ..places(&machine) }).unwrap();
    let load = || without.session(&request("float16", &onnx), &cache(&machine), &mut |_| ());
    assert!(matches!(without.can_build(), Err(TensorRtError::NoTrtexec)));
    let text = load().unwrap_err().to_string();
    assert!(text.contains("there is no trtexec") && text.contains("libnvinfer-bin"), "{text}");
    session(&machine, TENSORS).unwrap();
    load().unwrap();
}

#[test]
fn a_folder_that_is_not_ours_alone_is_said_before_anything_is_built() {
    use std::os::unix::fs::PermissionsExt;
    let machine = Machine::new(8601, "");
    std::fs::create_dir(machine.path("cache")).unwrap();
    std::fs::set_permissions(machine.path("cache"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let text = session(&machine, TENSORS).unwrap_err().to_string();
    assert!(text.contains("0777"), "{text}");
    assert_eq!(machine.builds_so_far(), 0);
}
