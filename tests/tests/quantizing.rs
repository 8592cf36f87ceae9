//! `edge-pack quantize` on the default model and windows of three real photos: the file, what it says of itself, what is refused.

use edge_suite::*;
use image::RgbImage;
use serde_json::Value;
use tempfile::TempDir;

const NAMES: [&str; 3] = ["cat", "cup", "sky"];

#[test]
fn a_float_model_becomes_int8_and_proves_it() {
    let dir = TempDir::new().unwrap();
    let data = photos(dir.path(), &NAMES, 12);
    let (int8, report, package) =
        (dir.path().join("int8.onnx"), dir.path().join("q.html"), dir.path().join("int8.edgepack"));
    let run = || {
        edge_pack!("quantize", default_model(), "--calibration", data, "-o", int8, "--report", report, "--json").ok()
    };
    let told = run().json();
    let first = std::fs::read(&int8).unwrap();
    let how = &told[0]["quantization"];
    assert_eq!((&how["target"], &how["calibration_photos"], &how["photos"]), (&"int8".into(), &24.into(), &12.into()));
    assert!(how["agreement"].as_f64().unwrap() >= 0.9, "{how}");
    assert!(how["snr_db"].as_f64().unwrap() > 20.0, "{how}");
    let trials = told[0]["trials"].as_array().unwrap();
    assert!(trials[told[0]["taken"].as_u64().unwrap() as usize]["agreement"] == how["agreement"], "{trials:?}");
    assert!(told[0]["layers"].as_array().unwrap().len() > 50);
    // float16 weights take twice as much.
    assert!(told[0]["bytes"].as_u64().unwrap() < 6_500_000, "{told:?}");

    // Everything of it runs in kernels of ours, most of it with bytes, and the known photos are known.
    let plan = edge_pack!("inspect", "--plan", int8).ok().stdout;
    assert!(!plan.contains("tract:"), "{plan}");
    assert!(plan.matches("int8 matrix").count() > 15, "{plan}");
    for (name, class) in [("coffee", "espresso"), ("rocket", "missile")] {
        let found = edge_pack!("run", int8, examples().join(format!("{name}.jpg"))).ok().stdout;
        assert!(found.lines().next().unwrap().contains(class), "{found}");
    }

    // The page is whole and needs nothing else; the package says how it was made.
    let page = std::fs::read_to_string(&report).unwrap();
    assert!(page.ends_with("</html>\n") && page.contains("Worst layers") && !page.contains("http:"));
    edge_pack!(int8, "-o", package).ok();
    let inspected = edge_pack!("inspect", package, "--json").ok().json();
    let said: Value = serde_json::from_str(inspected[0]["provenance"]["quantization"].as_str().unwrap()).unwrap();
    assert_eq!(&said, how);
    edge_pack!("verify", package).ok();

    // The same again is the same bytes, and a quantized model is not quantized twice.
    run();
    assert!(std::fs::read(&int8).unwrap() == first);
    edge_pack!("quantize", int8, "--calibration", data, "-o", dir.path().join("twice.onnx"))
        .fails(1, &["int8.onnx", "quantized already"]);
}

#[test]
fn weights_alone_become_smaller() {
    let dir = TempDir::new().unwrap();
    let data = photos(dir.path(), &NAMES, 4);
    for (target, photos, least, most) in
        [("f16", "--validation", 9_000_000, 10_500_000), ("int8-weights", "--calibration", 4_500_000, 5_600_000)]
    {
        let out = dir.path().join(format!("{target}.onnx"));
        let told = edge_pack!("quantize", default_model(), "--target", target, photos, data, "-o", out, "--json").ok();
        let told = told.json();
        let (bytes, how) = (told[0]["bytes"].as_u64().unwrap(), &told[0]["quantization"]);
        assert!((least..most).contains(&bytes), "{target}: {bytes}");
        assert!(how["agreement"].as_f64().unwrap() > 0.7 && how["snr_db"].as_f64().unwrap() > 20.0, "{how}");
    }
}

#[test]
fn packaging_quantizes_in_one_go() {
    let dir = TempDir::new().unwrap();
    let data = photos(dir.path(), &NAMES, 6);
    let package = dir.path().join("out.edgepack");
    edge_pack!(default_model(), "--quantize", "int8", "--calibration", data, "-o", package).ok();
    let inspected = edge_pack!("inspect", package, "--json").ok().json();
    assert_eq!(inspected[0]["model"]["precision"], "int8");
    assert!(inspected[0]["provenance"]["quantization"].as_str().unwrap().contains("agreement"));
    edge_pack!(default_model(), "--calibration", data, "-o", package).fails(1, &["--calibration is for quantizing"]);
}

#[test]
fn what_cannot_be_quantized_is_refused_and_nothing_is_lost() {
    let dir = TempDir::new().unwrap();
    let data = photos(dir.path(), &NAMES, 4);
    let out = dir.path().join("out.onnx");
    std::fs::write(&out, "good").unwrap();
    let quantize = |more: &[&std::ffi::OsStr]| {
        let fixed = ["quantize".into(), default_model().into_os_string(), "-o".into(), out.clone().into_os_string()];
        run("edge-pack", fixed.into_iter().chain(more.iter().map(|m| m.to_os_string())))
    };
    quantize(&[]).fails(1, &["--calibration DIR is missing"]);
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    quantize(&["--calibration".as_ref(), empty.as_ref()]).fails(1, &["empty", "no photos"]);
    let black = dir.path().join("black");
    std::fs::create_dir(&black).unwrap();
    for i in 0..4 {
        RgbImage::new(240, 240).save(black.join(format!("{i}.png"))).unwrap();
    }
    quantize(&["--calibration".as_ref(), black.as_ref()]).fails(1, &["one colour"]);
    let unknown = ["--calibration", data.to_str().unwrap(), "--keep-float", "nowhere*"].map(AsRef::as_ref);
    quantize(&unknown).fails(1, &["--keep-float nowhere*", "no node"]);
    // The agreement that nothing reaches: the old file stays.
    let never =
        ["--calibration", data.to_str().unwrap(), "--target", "int8", "--min-agreement", "1.5"].map(AsRef::as_ref);
    quantize(&never).fails(1, &["--min-agreement is a share"]);
    assert_eq!(std::fs::read(&out).unwrap(), b"good");
}
