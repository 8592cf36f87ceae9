//! `edge-pack`: packaging, inspecting, verifying, signing.

use edge_package::{Digest, Manifest, PackageWriter, TrustPolicy, VerifiedPackage, Version};
use edge_suite::*;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

#[test]
fn the_default_model_packages_without_options_and_verifies() {
    let scratch = Scratch::of(&default_model());
    let verified = edge_pack!("verify", scratch.package).ok();
    assert_eq!(verified.stdout.matches("tensor identical").count(), 3, "{}", verified.stdout);
    let shown = &edge_pack!("inspect", scratch.package, "--json").ok().json()[0];
    assert_eq!(shown["classes"], 1000);
    assert_eq!(shown["resize"]["policy"], "fit-shortest");
    assert_eq!(shown["labels"][285]["id"], "n02124075");
    assert_eq!(shown["input"]["shape"], serde_json::json!([1, 3, 224, 224]));
    assert!(edge_pack!("inspect", scratch.package).ok().stdout.contains("efficientnet") || shown["name"] == "model");
}

#[test]
fn padded_pictures_are_recorded_and_replayed() {
    let scratch = Scratch::small();
    let package = scratch.path("padded.edgepack");
    let pack = edge_pack!(small_model(), "-o", package, "--resize", "fit-longest:114,0,255", "--golden", examples());
    assert!(pack.ok().stderr.contains(r#""color":[114,0,255]"#));
    let shown = &edge_pack!("inspect", package, "--json").ok().json()[0];
    assert_eq!(shown["resize"]["policy"], "fit-longest");
    assert_eq!(shown["resize"]["color"], serde_json::json!([114, 0, 255]));
    assert_eq!(edge_pack!("verify", package).ok().stdout.matches("tensor identical").count(), 3);
    edge_pack!(small_model(), "-o", package, "--resize", "fit-longest:1,2").fails(1, &["not a colour"]);
}

#[test]
fn without_o_the_package_lies_beside_the_model() {
    let scratch = Scratch::small();
    let model = scratch.copy(&small_model(), "cutlery.onnx");
    edge_pack!(model).ok();
    assert_eq!(edge_pack!("inspect", scratch.path("cutlery.edgepack"), "--json").ok().json()[0]["name"], "cutlery");
    edge_pack!("pack", model, "-o", scratch.path("again.edgepack")).ok();
}

#[test]
fn notes_say_what_was_taken_from_where() {
    let scratch = Scratch::small();
    let out = scratch.path("o.edgepack");
    let notes = edge_pack!(small_model(), "-o", out, "--preprocess", "caffe").ok().stderr;
    assert!(notes.contains("preprocess: \"caffe\", as asked (the model says \"tf\")"), "{notes}");
    assert!(notes.contains("labels: 5, from the model's properties"), "{notes}");
    assert_eq!(edge_pack!("inspect", out, "--json").ok().json()[0]["preprocess"], "caffe");
    // Nothing in this file says how it wants its pictures: the defaults are Keras'.
    let bare = root().join("tests/goldens/engine/nhwc-minus-one.onnx");
    let labels = scratch.write("labels.txt", "a\nb\nc\nd\ne\n");
    let notes = edge_pack!(bare, "-o", out, "--labels", labels).ok().stderr;
    assert!(notes.contains("preprocess: \"tf\", by default"), "{notes}");
    assert!(notes.contains("squash") && notes.contains("nearest"), "{notes}");
}

#[test]
fn equal_input_and_date_give_equal_bytes() {
    let scratch = Scratch::small();
    let pack = |name: &str| {
        let out = scratch.path(name);
        let status = Command::new(program("edge-pack"))
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .arg(small_model())
            .arg("-o")
            .arg(&out)
            .output()
            .unwrap();
        assert!(status.status.success());
        std::fs::read(out).unwrap()
    };
    assert_eq!(pack("a"), pack("b"));
    let bad = Command::new(program("edge-pack"))
        .env("SOURCE_DATE_EPOCH", "yesterday")
        .arg(small_model())
        .arg("-o")
        .arg(scratch.path("c"))
        .output()
        .unwrap();
    assert!(!bad.status.success() && !scratch.path("c").exists());
}

#[test]
fn a_mistyped_verb_is_told_from_a_missing_file() {
    edge_pack!("inspct").fails(1, &["did you mean `edge-pack inspect`"]);
    edge_pack!("runn", "m.edgepack", "photos", "--top", "3").fails(1, &["did you mean `edge-pack run`"]);
    edge_pack!("no-such-model.onnx").fails(1, &["there is no file no-such-model.onnx"]);
    edge_pack!("xyzzyx").fails(1, &["there is no file xyzzyx"]);
}

#[test]
fn what_cannot_be_packaged_leaves_the_old_package_alone() {
    let scratch = Scratch::small();
    let before = std::fs::read(&scratch.package).unwrap();
    let zoo = |name: &str| root().join("tests/goldens/engine").join(name);
    let labels = scratch.write("labels.txt", "a\nb\n");
    let text = scratch.write("model.onnx", "this is no model");
    let cases: [(std::path::PathBuf, &[&str]); 8] = [
        (zoo("bad-custom-ops.onnx"), &["Frobnicate", "Mangle", "Twiddle", "EdgeImaginary", "stage1/frobnicate"]),
        (zoo("bad-labels.onnx"), &["bad-labels.onnx", "4 labels", "5 classes"]),
        (zoo("bad-external-data.onnx"), &["weights/model.onnx.data"]),
        (zoo("bad-1-channel.onnx"), &["1 channel"]),
        (zoo("nhwc-minus-one.onnx"), &["no labels", "--labels"]),
        (zoo("nchw-dynamic.onnx"), &["--input-size"]),
        (text, &["model.onnx", "not an ONNX model"]),
        (scratch.package.clone(), &["is a package already"]),
    ];
    for (model, what) in cases {
        edge_pack!(model, "-o", scratch.package).fails(1, what);
        assert_eq!(std::fs::read(&scratch.package).unwrap(), before, "{}", model.display());
    }
    edge_pack!(small_model(), "-o", scratch.package, "--labels", labels).fails(1, &["2 labels", "5 classes"]);
    edge_pack!(small_model(), "-o", scratch.package, "--activation", "softmax").fails(1, &["applied twice"]);
    edge_pack!(small_model(), "-o", scratch.package, "--input-size", "64").fails(1, &["fixed to 20", "64"]);
    edge_pack!(small_model(), "-o", scratch.path("no/such/folder/x")).fails(1, &["cannot write"]);
    assert_eq!(std::fs::read(&scratch.package).unwrap(), before);
    let left: Vec<_> = std::fs::read_dir(scratch.path("")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|n| !n.to_string_lossy().ends_with(".tmp")), "{left:?}");
}

#[test]
fn keys_are_private_and_decide_trust() {
    let scratch = Scratch::small();
    let (key, other) = (scratch.path("mykey"), scratch.path("other"));
    let public = |k: &std::path::Path| format!("{}.pub", k.display());
    for key in [&key, &other] {
        edge_pack!("keygen", key).ok();
    }
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    edge_pack!("keygen", key).fails(1, &["never overwritten"]);
    let signed = scratch.path("signed.edgepack");
    edge_pack!(small_model(), "-o", signed, "--sign", key).ok();
    edge_pack!("verify", signed).ok();
    let trusted = edge_pack!("verify", signed, "--trusted-key", public(&other), "--trusted-key", public(&key)).ok();
    assert!(trusted.stdout.contains("by a trusted key"));
    edge_pack!("verify", signed, "--trusted-key", public(&other)).fails(1, &["not among the trusted keys"]);
    edge_pack!("verify", scratch.package, "--trusted-key", public(&key)).fails(1, &["not signed"]);
    edge_pack!("verify", signed, "--trusted-key", key).fails(1, &["this is a secret key"]);
    edge_pack!(small_model(), "-o", signed, "--sign", public(&key)).fails(1, &["this is a public key"]);
    let camera = |package: &std::path::Path, key: &str| {
        edge_camera!("--package", package, "--source", golden_picture("rgb8.png"), "--once", "--trusted-key", key)
    };
    camera(&signed, &public(&key)).ok();
    camera(&signed, &public(&other)).fails(3, &["signed.edgepack", "not among the trusted keys"]);
    camera(&scratch.package, &public(&key)).fails(3, &["not signed"]);
}

#[test]
fn real_pictures_as_golden_samples() {
    let scratch = Scratch::small();
    let out = scratch.path("g.edgepack");
    edge_pack!(small_model(), "-o", out, "--golden", examples(), "--golden-count", "2").ok();
    let shown = &edge_pack!("verify", out, "--json").ok().json()[0];
    assert_eq!(shown["goldens"].as_array().unwrap().len(), 2);
    assert_eq!(shown["goldens"][0]["name"], "chelsea.jpg");
    let none = scratch.path("empty");
    std::fs::create_dir(&none).unwrap();
    edge_pack!(small_model(), "-o", out, "--golden", none).fails(1, &["no pictures"]);
}

/// A package like `scratch`'s with a changed manifest and every digest right, as a faulty host would make it.
fn rewritten(scratch: &Scratch, change: impl FnOnce(&mut Manifest)) -> std::path::PathBuf {
    let package = VerifiedPackage::open(&scratch.package, &TrustPolicy::default()).unwrap();
    let mut manifest = package.manifest().clone();
    change(&mut manifest);
    let mut writer = PackageWriter::new();
    writer.part("model.onnx", package.model().to_vec());
    scratch.write("rewritten.edgepack", writer.finish(manifest, None).unwrap())
}

#[test]
fn a_golden_sample_that_fails_here_refuses_the_package_by_name() {
    let scratch = Scratch::small();
    let run = |package: &std::path::Path, what: &[&str]| {
        edge_pack!("verify", package).fails(1, &["golden samples fail"]);
        edge_camera!("--package", package, "--source", "pattern", "--frames", "1").fails(3, what);
    };
    let tensor: Digest = [7; 32];
    run(&rewritten(&scratch, |m| m.goldens[1].tensor = tensor), &["synthetic-1", "tensor differs"]);
    run(&rewritten(&scratch, |m| m.goldens[2].logits[3] += 0.5), &["synthetic-2", "logit 3"]);
    // The samples prove the whole way: another preprocess step than at packaging is caught too.
    run(&rewritten(&scratch, |m| m.preprocess = edge_vision::Preprocess::None), &["synthetic-0", "tensor differs"]);
}

#[test]
fn packages_for_others_are_refused() {
    let scratch = Scratch::small();
    let camera = |package: &std::path::Path| edge_camera!("--package", package, "--source", "pattern", "--frames", "1");
    let newer = Version { major: 9, ..Version::current() };
    let for_newer = rewritten(&scratch, |m| m.minimum_runtime = newer);
    camera(&for_newer).fails(3, &["needs runtime 9."]);
    edge_pack!("verify", for_newer).fails(1, &["rewritten.edgepack", "needs runtime 9."]);
    edge_pack!("run", for_newer, golden_picture("rgb8.png")).fails(1, &["needs runtime 9."]);
    let board = rewritten(&scratch, |m| m.boards = vec!["rpi4".into()]);
    camera(&board).fails(3, &["for board(s) rpi4"]);
    edge_camera!("--package", board, "--source", "pattern", "--frames", "1", "--board", "rpi4").ok();
}

#[test]
fn damaged_packages_are_refused_by_every_program() {
    let scratch = Scratch::small();
    let good = std::fs::read(&scratch.package).unwrap();
    let mut flipped = good.clone();
    let middle = good.len() - 2000;
    flipped[middle] ^= 4;
    let mut version = good.clone();
    version[8] = 7;
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("flipped", flipped, "digest of part"),
        ("cut", good[..good.len() / 2].to_vec(), "truncated"),
        ("version", version, "format version 7"),
        ("empty", vec![], "empty"),
        ("onnx", std::fs::read(small_model()).unwrap(), "not an .edgepack"),
    ];
    for (name, bytes, what) in cases {
        let path = scratch.write(name, bytes);
        edge_pack!("verify", path).fails(1, &[name, what]);
        edge_camera!("--package", path, "--source", "pattern", "--frames", "1").fails(3, &[name, what]);
    }
    edge_camera!("--package", scratch.path("gone"), "--source", "pattern").fails(3, &["gone"]);
    edge_pack!("inspect", small_model()).fails(1, &["is not a package"]);
}

#[test]
fn inputs_and_devices_are_never_overwritten() {
    let scratch = Scratch::small();
    let (key, labels) = (scratch.path("key"), scratch.write("labels.txt", "a\nb\nc\nd\ne\n"));
    edge_pack!("keygen", key).ok();
    let model = scratch.copy(&small_model(), "m.onnx");
    let photo = scratch.copy(&golden_picture("rgb8.png"), "photos/p.png");
    for output in [&key, &labels, &model, &photo] {
        let before = std::fs::read(output).unwrap();
        edge_pack!(model, "-o", output, "--sign", key, "--labels", labels, "--golden", scratch.path("photos"))
            .fails(1, &["would be overwritten"]);
        assert_eq!(std::fs::read(output).unwrap(), before);
    }
    // Beside the pictures is no picture: packaging again replaces the package.
    for _ in 0..2 {
        edge_pack!(model, "-o", scratch.path("photos/m.edgepack"), "--golden", scratch.path("photos")).ok();
    }
    edge_pack!("run", model, photo, "--tensor", photo).fails(1, &["would be overwritten"]);
    let pipe = scratch.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    edge_pack!(model, "-o", pipe).fails(1, &["not a regular file"]);
    assert!(!pipe.metadata().unwrap().is_file());
    edge_pack!(model, "-o", scratch.path("photos")).fails(1, &["photos"]);
    // A link is followed: what it names is replaced, and the link stays.
    let link = scratch.path("link.edgepack");
    std::os::unix::fs::symlink("target.edgepack", &link).unwrap();
    scratch.write("target.edgepack", "old");
    edge_pack!(model, "-o", link).ok();
    assert!(link.symlink_metadata().unwrap().is_symlink());
    edge_pack!("verify", scratch.path("target.edgepack")).ok();
}

#[test]
fn an_activation_that_cannot_be_is_refused() {
    let scratch = Scratch::small();
    let labels = scratch.write("labels.txt", "a\nb\nc\nd\ne\n");
    let out = scratch.path("o.edgepack");
    let logits = root().join("tests/goldens/engine/nhwc-minus-one.onnx");
    edge_pack!(logits, "-o", out, "--labels", labels, "--activation", "probabilities")
        .fails(1, &["not within 0…1", "--activation"]);
    assert!(!out.exists());
    let repeated = scratch.write("repeated.txt", "a\nb\na\nd\ne\n");
    let notes = edge_pack!(logits, "-o", out, "--labels", repeated).ok().stderr;
    assert!(notes.contains("more than once"), "{notes}");
    let unknown = scratch.write("unknown.txt", "a\nb\nunknown\nd\ne\n");
    edge_pack!(logits, "-o", out, "--labels", unknown, "--threshold", "0.5").fails(1, &["unknown"]);
}

#[test]
fn exif_orientation_is_a_property_of_the_package() {
    let scratch = Scratch::small();
    let turned = scratch.path("turned.edgepack");
    edge_pack!(small_model(), "-o", turned, "--exif").ok();
    let photo = golden_picture("orientation-6.jpg");
    let logits =
        |package: &std::path::Path| edge_pack!("run", package, photo, "--json").ok().json()[0]["logits"].clone();
    assert_ne!(logits(&turned), logits(&scratch.package));
    let top = |package: &std::path::Path| edge_pack!("run", package, photo, "--json").ok().json()[0]["top"].clone();
    let seen = edge_camera!("--package", turned, "--source", photo, "--once").ok();
    assert_eq!(seen.json()[0]["top"], top(&turned));
}

#[test]
fn a_quantized_network_has_a_tolerance_in_steps() {
    let scratch = Scratch::small();
    let labels = scratch.write("labels.txt", "a\nb\nc\nd\ne\n");
    let out = scratch.path("q.edgepack");
    edge_pack!(root().join("tests/goldens/engine/qdq-s8.onnx"), "-o", out, "--labels", labels).ok();
    let shown = &edge_pack!("inspect", out, "--json").ok().json()[0];
    assert_eq!(shown["model"]["precision"], "int8");
    assert_eq!(shown["tolerance"]["kind"], "int8");
    assert!(shown["tolerance"]["step"].as_f64().unwrap() > 0.0);
    edge_pack!("verify", out).ok();
}
