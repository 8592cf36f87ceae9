//! `edge-pack train` on windows cut out of three real photos, with the default model as the base.

use edge_suite::*;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// `edge-pack train` on photos, features kept in `folder`.
fn train(folder: &Path, data: &Path, more: &[&str]) -> Ran {
    let (base, cache, out) = (default_model(), folder.join("cache"), folder.join("out.onnx"));
    let fixed =
        [Path::new("--base"), &base, Path::new("--data"), data, Path::new("--cache"), &cache, Path::new("-o"), &out];
    let args = [Path::new("train")].into_iter().chain(fixed).map(|p| p.as_os_str().to_owned());
    run("edge-pack", args.chain(more.iter().map(|m| m.into())))
}

/// The file of features in a cache.
fn features(cache: &Path) -> Option<PathBuf> {
    let mut files = std::fs::read_dir(cache).ok()?.filter_map(|f| Some(f.ok()?.path()));
    files.find(|f| f.extension().is_some_and(|e| e == "features"))
}

const NAMES: [&str; 3] = ["cat", "cup", "sky"];

fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn photos_become_a_model_that_needs_no_options() {
    let dir = TempDir::new().unwrap();
    let data = photos(dir.path(), &NAMES, 12);
    let told = train(dir.path(), &data, &["--epochs", "12", "--json"]).ok().json();
    let accuracy = told[0]["best"]["val_accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.8, "{told:?}");
    assert_eq!(told[0]["classes"], serde_json::json!(NAMES));

    // Packaged without a word, it says of all photos what training says of them.
    let (onnx, package) = (dir.path().join("out.onnx"), dir.path().join("out.edgepack"));
    edge_pack!(onnx, "-o", package).ok();
    let eval = edge_pack!("eval", package, data, "--json").ok().json();
    assert_eq!(eval[0]["n"], 36);
    assert!(eval[0]["accuracy"].as_f64().unwrap() > 0.9, "{eval:?}");

    // The numbers and the page are there, and belong together.
    let history = json(dir.path().join("out.history.json"));
    let epochs = history["history"].as_array().unwrap();
    assert_eq!(epochs.len(), 12);
    let best = epochs.iter().map(|e| e["val_accuracy"].as_f64().unwrap()).fold(0.0, f64::max);
    assert_eq!(best, accuracy);
    assert_eq!(history["metrics"]["photos"], 6, "{}", history["metrics"]);
    let page = std::fs::read_to_string(dir.path().join("out.html")).unwrap();
    assert!(page.contains("<svg") && NAMES.iter().all(|n| page.contains(n)) && !page.contains("<script"));

    // Again: the same bytes, from features that are there; with another seed, other weights.
    let first = std::fs::read(&onnx).unwrap();
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    let cache = features(&dir.path().join("cache")).unwrap();
    let before = size(&cache);
    train(dir.path(), &data, &["--epochs", "12"]).ok();
    assert_eq!(std::fs::read(&onnx).unwrap(), first);
    assert_eq!(size(&cache), before);
    train(dir.path(), &data, &["--epochs", "12", "--inner", "16"]).ok();
    assert_ne!(std::fs::read(&onnx).unwrap(), first);
    assert_eq!(size(&cache), before);
}

#[test]
fn searches_augments_and_keeps_checkpoints() {
    let dir = TempDir::new().unwrap();
    let data = photos(dir.path(), &NAMES, 8);
    let template = dir.path().join("at_{epoch:02d}_{val_accuracy:.2f}.onnx");
    let ran = train(
        dir.path(),
        &data,
        &[
            "--epochs",
            "3",
            "--lr",
            "1e-3,1e-2",
            "--dropout",
            "0,0.3",
            "--augment",
            "hflip,rotate=20,zoom=0.2",
            "--augment-views",
            "2",
            "--checkpoint",
            template.to_str().unwrap(),
        ],
    )
    .ok();
    let history = json(dir.path().join("out.history.json"));
    let candidates = history["candidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 4);
    assert_eq!(candidates.iter().filter(|c| c["kept"] == true).count(), 1);
    assert_eq!(history["settings"]["views"], 3);
    assert!(ran.stderr.contains("lr 0.01, inner 100, dropout 0.3"), "{}", ran.stderr);
    // 6 photos with 6 pictures each.
    let sheet = image::open(dir.path().join("out.augment.png")).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (6 * 228 + 4, 6 * 228 + 4));
    let best = &history["best"];
    let name = format!("at_{:02}_{:.2}.onnx", best["epoch"].as_u64().unwrap(), best["val_accuracy"].as_f64().unwrap());
    let checkpoint = std::fs::read(dir.path().join(name)).unwrap();
    assert_eq!(checkpoint, std::fs::read(dir.path().join("out.onnx")).unwrap());
    // Every epoch, whether it is better or not.
    let template = dir.path().join("all_{epoch}.onnx");
    train(dir.path(), &data, &["--epochs", "3", "--checkpoint", template.to_str().unwrap(), "--save-all"]).ok();
    assert!((1..=3).all(|e| dir.path().join(format!("all_{e}.onnx")).exists()));
}

#[test]
fn several_labels_of_a_table() {
    let dir = TempDir::new().unwrap();
    let data = photos(dir.path(), &NAMES, 10);
    let mut table = String::from("file,label\n");
    for i in 0..10 {
        table += &format!(
            "photos/cat/{i:02}.png,animal|indoors\nphotos/cup/{i:02}.png,indoors\nphotos/sky/{i:02}.png,outdoors\n"
        );
    }
    let csv = dir.path().join("table.csv");
    std::fs::write(&csv, table).unwrap();
    train(dir.path(), &csv, &["--multi-label", "--epochs", "20", "--lr", "1e-2"]).ok();
    let line = edge_pack!("run", dir.path().join("out.onnx"), data.join("cat/00.png"), "--json").ok().json();
    let scores = |label: &str| {
        let top = line[0]["top"].as_array().unwrap();
        top.iter().find(|t| t["label"] == label).unwrap()["score"].as_f64().unwrap()
    };
    // Independent classes: two of them together are more than one.
    assert!(scores("animal") > 0.5 && scores("indoors") > 0.5 && scores("outdoors") < 0.5, "{line:?}");
}

#[test]
fn what_cannot_be_trained_is_said_before_anything_is_computed() {
    let dir = TempDir::new().unwrap();
    let data = photos(dir.path(), &NAMES, 3);
    let fails = |data: &Path, more: &[&str], what: &[&str]| {
        train(dir.path(), data, more).fails(1, what);
        assert!(!dir.path().join("out.onnx").exists());
    };
    fails(&data.join("cat"), &[], &["cat"]);
    fails(&dir.path().join("nowhere"), &[], &["nowhere"]);
    fails(&data, &["--classes", "cat,dog"], &["dog"]);
    fails(&data, &["--cut", "nowhere"], &["--cut nowhere", "no node"]);
    fails(&data, &["--lr", "fast"], &["--lr fast"]);
    fails(&data, &["--inner", "10x"], &["--inner 10x"]);
    fails(&data, &["--augment", "flip"], &["--augment", "flip"]);
    fails(&data, &["--checkpoint", "a.onnx", "--save-all"], &["{epoch}"]);
    fails(&data, &["--checkpoint", "a_{acc}.onnx"], &["acc", "val_accuracy"]);
    fails(&data, &["--split", "1.5"], &["--split 1.5"]);
    std::fs::create_dir(data.join("empty")).unwrap();
    fails(&data, &[], &["empty"]);
    std::fs::remove_dir(data.join("empty")).unwrap();
    let csv = dir.path().join("t.csv");
    std::fs::write(&csv, "file,label\nphotos/cat/00.png,cat\nphotos/cup/00.png,dog\n").unwrap();
    fails(&csv, &["--classes", "cat,cup"], &["dog", "3"]);
    // A photo that cannot be read is listed and skipped, or ends it.
    std::fs::write(data.join("cat/broken.jpg"), b"no picture").unwrap();
    fails(&data, &["--strict"], &["broken.jpg"]);
    let told = train(dir.path(), &data, &["--epochs", "1"]).ok();
    assert!(told.stderr.contains("skipped") && told.stderr.contains("broken.jpg"), "{}", told.stderr);
    // The base is not written over.
    let base = dir.path().join("base.onnx");
    std::fs::copy(default_model(), &base).unwrap();
    edge_pack!("train", "--base", base, "--data", data, "-o", base).fails(1, &["base.onnx"]);
}

#[test]
fn an_interrupted_training_goes_on_where_it_was() {
    let dir = TempDir::new().unwrap();
    let data = photos(dir.path(), &NAMES, 40);
    let cache = dir.path().join("cache");
    let mut child = Command::new(program("edge-pack"))
        .arg("train")
        .arg("--base")
        .arg(default_model())
        .arg("--data")
        .arg(&data)
        .arg("--cache")
        .arg(&cache)
        .arg("-o")
        .arg(dir.path().join("out.onnx"))
        .args(["--threads", "1", "--epochs", "2"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Once some vectors are there.
    let record = 32 + 4 * 1280 + 8;
    let written = || {
        let file = features(&cache)?;
        file.metadata().ok().map(|m| m.len())
    };
    let start = Instant::now();
    while written().is_none_or(|len| len < 5 * record) {
        assert!(start.elapsed() < Duration::from_secs(60), "no features were written");
        std::thread::sleep(Duration::from_millis(2));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let status = child.wait().unwrap();
    let kept = written().unwrap();
    if !status.success() {
        assert!(!dir.path().join("out.onnx").exists());
        assert!(kept < 120 * record);
    }
    train(dir.path(), &data, &["--epochs", "2"]).ok();
    assert!(written().unwrap() >= kept);
}

#[test]
fn an_unfrozen_base_is_never_worse_than_the_frozen_one() {
    let dir = TempDir::new().unwrap();
    let data = photos(dir.path(), &NAMES, 12);
    let out = dir.path().join("out.onnx");
    let frozen = train(dir.path(), &data, &["--epochs", "2", "--json"]).ok().json();
    // A block of a residual network, by its name; from a few photos, with views, at a rate that moves something.
    let unfreeze = |more: &[&str]| {
        let fixed = ["--epochs", "2", "--unfreeze", "block15", "--unfreeze-epochs", "3", "--monitor", "val_loss"];
        let views = ["--augment", "hflip", "--augment-views", "1", "--label-smoothing", "0.1"];
        train(dir.path(), &data, &[&fixed[..], &views, more].concat()).ok()
    };
    let template = dir.path().join("at_{epoch}.onnx");
    let ran = unfreeze(&["--unfreeze-lr", "1e-3", "--checkpoint", template.to_str().unwrap(), "--save-all"]);
    for told in ["unfrozen behind \"block14.add\"", "million weights", "for 3 epochs"] {
        assert!(ran.stderr.contains(told), "{told}: {}", ran.stderr);
    }
    let history = json(dir.path().join("out.history.json"));
    let losses: Vec<f64> =
        history["history"].as_array().unwrap().iter().map(|e| e["val_loss"].as_f64().unwrap()).collect();
    assert_eq!(losses.len(), 5, "{losses:?}");
    let best = history["best"]["val_loss"].as_f64().unwrap();
    assert!(losses.iter().all(|l| *l >= best) && best < losses[1], "{losses:?}");
    assert_eq!(history["settings"]["unfreeze"]["name"], "block15");
    assert!((1..=5).all(|e| dir.path().join(format!("at_{e}.onnx")).exists()));
    // The file says of the photos what training says of them.
    let eval = edge_pack!("eval", out, data, "--json").ok().json();
    assert!(eval[0]["accuracy"].as_f64().unwrap() > 0.9, "{eval:?}");
    assert!(std::fs::read_to_string(dir.path().join("out.html")).unwrap().contains("of 5"));

    // Again, from activations that are there, on another number of threads: the same bytes.
    let first = std::fs::read(&out).unwrap();
    let sizes = || -> u64 {
        let files = std::fs::read_dir(dir.path().join("cache")).unwrap();
        let files = files.map(|f| f.unwrap().path()).filter(|f| f.extension().is_some_and(|e| e != "looks"));
        files.map(|f| f.metadata().unwrap().len()).sum()
    };
    let before = sizes();
    unfreeze(&["--unfreeze-lr", "1e-3", "--threads", "1"]);
    assert_eq!((std::fs::read(&out).unwrap() == first, sizes()), (true, before));

    // At a rate that ruins it, the frozen result is what is written, bit by bit.
    train(dir.path(), &data, &["--epochs", "2"]).ok();
    let wanted = std::fs::read(&out).unwrap();
    train(
        dir.path(),
        &data,
        &["--epochs", "2", "--unfreeze", "block15", "--unfreeze-epochs", "1", "--unfreeze-lr", "1"],
    )
    .ok();
    let history = json(dir.path().join("out.history.json"));
    let accuracy = frozen[0]["best"]["val_accuracy"].as_f64().unwrap();
    assert!(history["best"]["val_accuracy"].as_f64().unwrap() >= accuracy);
    if history["best"]["epoch"].as_u64().unwrap() <= 2 {
        assert_eq!(std::fs::read(&out).unwrap(), wanted);
    }
    train(dir.path(), &data, &["--unfreeze", "stage7"]).fails(1, &["--unfreeze stage7", "block14, block15, head"]);
    train(dir.path(), &data, &["--unfreeze", "block15", "--unfreeze-lr", "2"]).fails(1, &["--unfreeze-lr 2"]);
    train(dir.path(), &data, &["--unfreeze-epochs", "3"]).fails(2, &["--unfreeze"]);
}
