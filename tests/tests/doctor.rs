//! `edge-pack doctor`: what will run where, what is missing, with the fix.

use edge_package::{digest, hex};
use edge_suite::*;
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

fn zoo(name: &str) -> PathBuf {
    root().join("tests/goldens/engine").join(name)
}

/// The one object that `--json` prints, and the exit code.
fn doctor<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> (Option<i32>, Value) {
    let words = ["doctor", "--json"].map(OsString::from).into_iter();
    let ran = run("edge-pack", words.chain(args.into_iter().map(|a| a.as_ref().to_owned())));
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    let values = ran.json();
    let [value] = &values[..] else { panic!("{}{}", ran.stdout, ran.stderr) };
    assert_eq!(value["ok"], ran.code == Some(0), "{value}");
    (ran.code, value.clone())
}

/// `[finding…]` of this code. Each finding says what, and what to do about it.
fn found<'a>(value: &'a Value, code: &str) -> Vec<&'a Value> {
    let all = value["findings"].as_array().expect("findings");
    for finding in all {
        for key in ["what", "fix"] {
            assert!(finding[key].as_str().is_some_and(|text| !text.is_empty()), "{key} is missing: {finding}");
        }
    }
    all.iter().filter(|f| f["code"] == code).collect()
}

fn severities(findings: &[&Value]) -> Vec<String> {
    findings.iter().map(|f| f["severity"].as_str().unwrap_or_default().into()).collect()
}

fn row<'a>(value: &'a Value, board: &str) -> &'a Value {
    let rows = value["boards"].as_array().expect("boards");
    rows.iter().find(|row| row["board"] == board).unwrap_or_else(|| panic!("{board} is not in {value}"))
}

#[test]
fn a_good_package_runs_everywhere_and_faster_on_faster_boards() {
    let scratch = Scratch::of(&default_model());
    let (code, value) = doctor([&scratch.package]);
    assert_eq!(code, Some(0), "{value}");
    assert_eq!((&value["kind"], &value["network"]["precision"]), (&"package".into(), &"float".into()));
    let ms = |board| row(&value, board)["estimated_ms"].as_f64().unwrap();
    assert!(ms("rpi-zero2w") > ms("rpi3") && ms("rpi3") > ms("rpi4") && ms("rpi4") > ms("rpi5") && ms("rpi5") > 0.0);
    for board in ["rpi-zero2w", "rpi3", "rpi4", "rpi5", "jetson-nano", "jetson-orin"] {
        let row = row(&value, board);
        assert_eq!(row["runs"], true);
        assert!(row["estimated_memory_bytes"].as_u64().unwrap() > value["network"]["model_bytes"].as_u64().unwrap());
        assert!(row["estimated_memory_bytes"].as_u64() < row["memory_budget_bytes"].as_u64(), "{row}");
    }
    // All of it in kernels of our own.
    assert!(value["network"]["stock"].as_array().unwrap().is_empty());
    assert!(value["network"]["fused_float"].as_array().unwrap().iter().any(|node| node == "block7.expand"));
    let text = edge_pack!("doctor", scratch.package, "--board", "rpi4").ok().stdout;
    for part in ["estimates, not measurements", "rpi4", "4 Cortex-A72 at 1.50 GHz", "nothing prevents running"] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(!text.contains("rpi5"));
}

#[test]
fn every_operator_that_cannot_be_run_is_named_with_its_node() {
    let (code, value) = doctor([zoo("bad-custom-ops.onnx")]);
    assert_eq!(code, Some(1));
    let all = value["network"]["unsupported"].as_array().unwrap();
    let named = |key: &str| all.iter().map(|op| op[key].as_str().unwrap()).collect::<Vec<_>>();
    for operator in ["com.acme::Frobnicate", "com.acme::Mangle", "com.acme::Twiddle", "EdgeImaginary"] {
        assert!(named("operator").contains(&operator), "{operator} is not in {all:?}");
    }
    assert!(named("node").contains(&"stage1/frobnicate"));
    let findings = found(&value, "unsupported-operator");
    assert_eq!(findings.len(), 4, "{findings:?}");
    assert!(row(&value, "rpi4")["estimated_ms"].is_null() && row(&value, "rpi4")["runs"] == false);
    let text = edge_pack!("doctor", zoo("bad-custom-ops.onnx"));
    assert_eq!(text.code, Some(1));
    for part in ["com.acme::Mangle", "stage1/frobnicate", "EdgeImaginary", "  fix ", "it does not run: 4 error(s)"] {
        assert!(text.stdout.contains(part), "{part:?} is not in {}", text.stdout);
    }
}

#[test]
fn what_is_no_model_is_an_error_with_a_fix_or_a_reason() {
    for name in ["bad-text.onnx", "bad-opset.onnx", "bad-external-data.onnx", "bad-two-inputs.onnx"] {
        let ran = edge_pack!("doctor", "--json", zoo(name));
        assert_eq!(ran.code, Some(1), "{name}: {}", ran.stderr);
        let value = &ran.json()[0];
        let findings = value["findings"].as_array().unwrap();
        assert_eq!((findings.len(), &findings[0]["code"]), (1, &"model".into()), "{name}: {value}");
        assert!(value["boards"].as_array().unwrap().iter().all(|row| row["runs"] == false), "{name}: {value}");
    }
    edge_pack!("doctor", "no-such-file.onnx").fails(1, &["cannot open no-such-file.onnx"]);
    edge_pack!("doctor", small_model(), "--board", "rpi9").fails(1, &["there is no board \"rpi9\"", "rpi4"]);
    edge_pack!("doctor").fails(2, &["FILE"]);
}

#[test]
fn nodes_are_told_by_what_runs_them() {
    let (code, value) = doctor([zoo("layer-norm-gelu.onnx")]);
    assert_eq!(code, Some(0), "{value}");
    let [stock] = found(&value, "stock")[..] else { panic!("{value}") };
    assert!(stock["severity"] == "warning" && !stock["nodes"].as_array().unwrap().is_empty());
    assert_eq!(value["network"]["stock"].as_array().unwrap().len(), stock["nodes"].as_array().unwrap().len());
    let (code, value) = doctor([zoo("qdq-s8-float-end.onnx")]);
    assert_eq!(code, Some(0), "{value}");
    let network = &value["network"];
    assert!(!network["fused_int8"].as_array().unwrap().is_empty(), "{network}");
    let [float] = found(&value, "float")[..] else { panic!("{value}") };
    assert_eq!(float["nodes"], network["fused_float"]);
}

#[test]
fn int8_without_dot_products_is_told_per_board() {
    let (_, value) = doctor([zoo("qdq-s8.onnx")]);
    let boards: Vec<_> = found(&value, "dot-product").iter().filter_map(|f| f["board"].as_str()).collect();
    assert_eq!(boards, ["jetson-nano", "rpi-zero2w", "rpi3", "rpi4"]);
    let (_, value) = doctor([small_model()]);
    assert!(found(&value, "dot-product").is_empty());
}

#[test]
fn a_package_for_another_board_or_too_large_a_one_is_an_error_where_it_was_asked_for() {
    let scratch = Scratch::small();
    let own = scratch.path("own.edgepack");
    edge_pack!(small_model(), "-o", own, "--board", "rpi5").ok();
    let (code, value) = doctor([&own]);
    assert_eq!((code, value["boards"].as_array().unwrap().len()), (Some(0), 1));
    let (code, value) = doctor([own.as_os_str(), "--board".as_ref(), "rpi4".as_ref()]);
    let findings = found(&value, "board");
    assert_eq!((code, severities(&findings)), (Some(1), vec!["error".to_string()]));
    assert!(findings[0]["fix"].as_str().unwrap().contains("--board rpi4"), "{findings:?}");
    assert_eq!(row(&value, "rpi4")["runs"], false);
}

#[test]
fn damaged_and_unsigned_packages_are_told() {
    let scratch = Scratch::small();
    let mut bytes = std::fs::read(&scratch.package).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let damaged = scratch.write("damaged.edgepack", &bytes);
    let (code, value) = doctor([&damaged]);
    assert_eq!((code, found(&value, "package").len()), (Some(1), 1), "{value}");
    assert_eq!(row(&value, "rpi4")["runs"], false);

    let (key, public, signed) = (scratch.path("key"), scratch.path("key.pub"), scratch.path("signed.edgepack"));
    edge_pack!("keygen", key).ok();
    edge_pack!(small_model(), "-o", signed, "--sign", key).ok();
    let config = scratch.write("camera.toml", format!("trusted-key = [{:?}]\n", public.display().to_string()));
    let with = |package: &Path| doctor([package.as_os_str(), "--config".as_ref(), config.as_os_str()]);
    let (code, value) = with(&scratch.package);
    let [unsigned] = found(&value, "signature")[..] else { panic!("{value}") };
    assert!(code == Some(1) && unsigned["fix"].as_str().unwrap().contains("--sign"), "{unsigned}");
    // What else there is to say of it is said.
    assert!(row(&value, "rpi4")["estimated_ms"].as_f64().is_some());
    let (code, value) = with(&signed);
    assert_eq!((code, &value["network"]["signed"]), (Some(0), &"by a trusted key".into()), "{value}");
    std::fs::remove_file(&public).unwrap();
    let (code, value) = with(&signed);
    assert_eq!((code, found(&value, "trusted-key").len()), (Some(1), 1), "{value}");
}

#[test]
fn settings_are_read_by_the_runtime_and_a_ribbon_cable_is_thought_of() {
    let scratch = Scratch::small();
    let config = scratch.write("camera.toml", "source = \"v4l2:/dev/video0\"\n");
    let on = |board: &str| {
        doctor([
            scratch.package.as_os_str(),
            "--config".as_ref(),
            config.as_os_str(),
            "--board".as_ref(),
            board.as_ref(),
        ])
        .1
    };
    let value = on("rpi5");
    let [csi] = found(&value, "csi-camera")[..] else { panic!("{value}") };
    assert!(csi["fix"].as_str().unwrap().contains("rpicam-vid") && csi["severity"] == "note", "{csi}");
    assert!(found(&on("jetson-orin"), "csi-camera")[0]["fix"].as_str().unwrap().contains("nvarguscamerasrc"));
    assert!(found(&on("virt"), "csi-camera").is_empty());
    scratch.write("camera.toml", "source = \"-\"\n");
    assert!(found(&on("rpi5"), "csi-camera").is_empty());
    scratch.write("camera.toml", "treshold = 1\nthreads = 999\n");
    let value = on("rpi5");
    let findings = found(&value, "settings");
    assert_eq!((findings.len(), &value["ok"]), (2, &false.into()), "{value}");
    assert!(findings[0]["what"].as_str().unwrap().contains("treshold"), "{findings:?}");
}

/// Who runs this: on a machine that has the service's user, root would be told of that one's permissions.
fn me() -> String {
    let output = Command::new("id").arg("-un").output().expect("id");
    String::from_utf8(output.stdout).expect("a name").trim().into()
}

#[test]
fn this_machine_is_looked_at() {
    let scratch = Scratch::small();
    let log = scratch.path("log/class.jsonl");
    let text = format!(
        "source = \"v4l2:/dev/video96\"\nlog = {:?}\nlog-max-size = \"1MB\"\npackage = {:?}\n",
        log.display().to_string(),
        scratch.package.display().to_string()
    );
    let config = scratch.write("camera.toml", text);
    // The package is the settings' own.
    let look_as = |user: &str| {
        let words: [&OsStr; 5] =
            ["--device".as_ref(), "--user".as_ref(), user.as_ref(), "--config".as_ref(), config.as_ref()];
        doctor(words)
    };
    let look = || look_as(&me());
    let (code, value) = look();
    assert_eq!((code, &value["kind"]), (Some(1), &"package".into()), "{value}");
    let folder = found(&value, "log");
    assert!(folder[0]["what"].as_str().unwrap().contains("is not there"), "{folder:?}");
    let camera = found(&value, "camera");
    assert!(camera[0]["what"].as_str().unwrap().contains("/dev/video96"), "{camera:?}");
    let here = &value["boards"][0];
    assert!(here["board"].as_str().unwrap().starts_with("here (") && here["estimated_ms"].as_f64().unwrap() > 0.0);

    std::fs::create_dir(scratch.path("log")).unwrap();
    assert!(found(&look().1, "log").is_empty());
    // A user who may not write there.
    std::fs::set_permissions(scratch.path("log"), PermissionsExt::from_mode(0o700)).unwrap();
    for file in [&config, &scratch.package] {
        std::fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
    }
    let (_, value) = look_as("nobody");
    let denied = found(&value, "log");
    assert!(denied[0]["what"].as_str().unwrap().contains("the user nobody may not write to"), "{denied:?}");
    // Nor read what the service reads: its settings and its package.
    let unread = found(&value, "permission");
    assert_eq!(severities(&unread), ["error"; 2], "{unread:?}");
    for (finding, file) in unread.iter().zip([config.as_path(), scratch.package.as_path()]) {
        let what = finding["what"].as_str().unwrap();
        assert!(what.contains("nobody may not read") && what.contains(file.to_str().unwrap()), "{what}");
    }
    assert!(found(&look().1, "permission").is_empty());
    edge_pack!("doctor", "--device", "--user", "no-such-user").fails(1, &["no-such-user"]);
}

/// An engine as the cache keeps it, for this package.
fn engine(package: &[u8; 32]) -> Vec<u8> {
    let key = format!("package {}\nTensorRT 1.2.3\nGPU a GPU that nobody has\nprecision float16\n", hex(package));
    let body = [&(key.len() as u32).to_le_bytes(), key.as_bytes(), b"plan"].concat();
    [b"EDGETRT1", &digest(&body)[..], &body].concat()
}

#[test]
fn engines_that_are_of_no_use_and_an_open_cache_are_told() {
    let scratch = Scratch::small();
    let cache = scratch.path("tensorrt");
    std::fs::DirBuilder::new().mode(0o700).create(&cache).unwrap();
    let look = || {
        let mut command = Command::new(program("edge-pack"));
        command
            .args(["doctor", "--device", "--json", "--user", &me()])
            .arg(&scratch.package)
            .env("CACHE_DIRECTORY", scratch.path(""));
        Ran::from(command.output().unwrap()).json().remove(0)
    };
    assert!(found(&look(), "stale-engine").is_empty());
    let (_, about) = doctor([&scratch.package]);
    let text = about["network"]["digest"].as_str().unwrap();
    let own: [u8; 32] = std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap());
    std::fs::write(cache.join("1.engine"), engine(&own)).unwrap();
    std::fs::write(cache.join("2.engine"), engine(&[7; 32])).unwrap();
    std::fs::write(cache.join("3.engine"), b"not an engine").unwrap();
    let value = look();
    let stale = found(&value, "stale-engine");
    let why = |i: usize| stale[i]["why"].as_str().unwrap();
    assert_eq!(severities(&stale), ["warning"; 3], "{stale:?}");
    // Without a GPU what is missing is named; with one its version or the GPU is another.
    assert!(why(0).contains("TensorRT"), "{}", why(0));
    assert!(why(1).contains("another package") && why(2).contains("damaged"), "{stale:?}");
    assert!(found(&value, "cache").is_empty(), "{value}");
    std::fs::set_permissions(&cache, PermissionsExt::from_mode(0o777)).unwrap();
    let value = look();
    let [open] = found(&value, "cache")[..] else { panic!("{value}") };
    assert!(open["severity"] == "error" && open["fix"].as_str().unwrap().contains("chmod 700"), "{open}");
}
