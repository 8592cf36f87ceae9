//! `cargo xtask test`: everything that proves the project, in named steps that say what they proved.

use crate::tools::{self, built, cache, cargo, output, root};
use crate::{bench, cross, fetch, processors, setup, vivid};
use anyhow::{Context, Result, bail};
use edge_rig::apt;
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What a step has to say.
enum Outcome {
    /// What it proved.
    Proved(String),
    /// Why it cannot run on this machine.
    Skipped(String),
}

/// A named step.
struct Step {
    name: &'static str,
    long: bool,
    run: fn() -> Result<Outcome>,
}

/// What edge-hil is told for the cases that take long.
const LONG: &str = "--long";

const STEPS: &[Step] = &[
    Step { name: "setup", long: false, run: set_up },
    Step { name: "build", long: false, run: build },
    Step { name: "tests of the crates and of the built programs", long: false, run: crates },
    Step { name: "kernels under an address sanitizer", long: false, run: sanitizer },
    Step { name: "kernels in one piece", long: false, run: whole },
    Step { name: "real photos through Pillow and Keras", long: false, run: photos },
    Step { name: "default model beside ONNX Runtime", long: false, run: default_model },
    Step { name: "default model in int8 beside ONNX Runtime", long: false, run: int8 },
    Step { name: "Keras files through ONNX Runtime", long: false, run: keras_files },
    Step { name: "Xception from a real Keras file", long: false, run: xception },
    Step { name: "hardware in loop (host)", long: false, run: hardware_in_loop },
    Step { name: "V4L2 camera in an emulated machine", long: false, run: camera },
    Step {
        name: "kernels of aarch64 under qemu-user",
        long: false,
        run: || unless_unavailable(crate::neon::run(&cache()?)),
    },
    Step { name: "aarch64 under qemu-user", long: false, run: aarch64 },
    Step {
        name: "the flashed camera in an emulated board (virt)",
        long: false,
        run: || board("virt", &[&[("qemu-virt", &["--shard", "1/2"]), ("qemu-virt", &["--shard", "2/2"])]]),
    },
    Step { name: "the .deb in a clean Debian", long: false, run: deb },
    Step {
        name: "the life of a flashed camera (virt)",
        long: true,
        run: || board("virt", &[&[("qemu-virt-small", &[LONG])]]),
    },
    Step {
        name: "the flashed camera in an emulated board (rpi3)",
        long: true,
        run: || board("rpi3", &[&[("rpi3-small", &[])], &[("rpi3", OF_FEW)]]),
    },
    Step {
        name: "the flashed camera in an emulated board (rpi4)",
        long: true,
        run: || board("rpi4", &[&[("rpi4-small", &[])], &[("rpi4", OF_FEW)]]),
    },
    Step {
        name: "kernels at the sizes of real networks",
        long: true,
        run: || unless_unavailable(crate::neon::big(&cache()?)),
    },
    Step { name: "all of keras.applications", long: true, run: applications },
    Step { name: "soak of 30,000 frames", long: true, run: || crate::soak::run(30_000, &work()?).map(Outcome::Proved) },
    Step { name: "fuzzing of every parser", long: true, run: || crate::fuzz::run(60).map(Outcome::Proved) },
];

/// Runs the steps in order; all of them, even when one fails.
pub fn run(long: bool, only: Option<&str>) -> Result<()> {
    let mut lines: Vec<(String, Duration, String)> = vec![];
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for step in STEPS {
        if only.is_some_and(|text| !step.name.contains(text)) {
            continue;
        }
        println!("\n=== {}", step.name);
        let start = Instant::now();
        let result = if step.long && !long { Ok(Outcome::Skipped("only with --long".into())) } else { (step.run)() };
        let text = match result {
            Ok(Outcome::Proved(what)) => {
                passed += 1;
                what
            }
            Ok(Outcome::Skipped(why)) => {
                skipped += 1;
                format!("SKIPPED: {why}")
            }
            Err(e) => {
                failed += 1;
                format!("FAILED: {e:#}")
            }
        };
        println!("{text}");
        lines.push((step.name.into(), start.elapsed(), text));
    }
    println!("\n=== summary");
    for (name, time, text) in &lines {
        println!("{:5.1} min  {name}: {}", time.as_secs_f64() / 60.0, text.lines().next().unwrap_or_default());
    }
    let total: Duration = lines.iter().map(|l| l.1).sum();
    println!("{:5.1} min  in all", total.as_secs_f64() / 60.0);
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 {
        bail!("{failed} step(s) failed");
    }
    if passed == 0 {
        bail!("no step ran");
    }
    Ok(())
}

fn set_up() -> Result<Outcome> {
    setup::ensure()?;
    setup::python(setup::REFERENCE)?;
    Ok(Outcome::Proved("build and test tools are there".into()))
}

fn build() -> Result<Outcome> {
    tools::run(&mut cargo(&tools::BUILD)?)?;
    Ok(Outcome::Proved("everything builds".into()))
}

/// Unit, golden, property and end-to-end tests.
fn crates() -> Result<Outcome> {
    let mut tests = cargo(&["test", "--workspace"])?;
    tests.env("EDGE_BIN_DIR", tools::target()?.join("debug"));
    tools::run(&mut tests)?;
    Ok(Outcome::Proved("unit, golden, property and end-to-end tests pass".into()))
}

/// The kernels' own tests with every access checked, on every set of instructions of this machine.
fn sanitizer() -> Result<Outcome> {
    let target = "x86_64-unknown-linux-gnu";
    if std::env::consts::ARCH != "x86_64" {
        return Ok(Outcome::Skipped("only on x86-64 so far".into()));
    }
    let mut tests = cargo(&["test", "--locked", "-p", "edge-kernels", "--lib", "--target", target])?;
    // A sanitizer is a nightly feature of rustc; this lets the stable one take the flag.
    tests.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address");
    tools::run(tests.env("CARGO_TARGET_DIR", cache()?.join("target-asan")))?;
    Ok(Outcome::Proved("no kernel reads or writes beside its buffers".into()))
}

/// That no part of a kernel is a function without its instructions.
fn whole() -> Result<Outcome> {
    if std::env::consts::ARCH != "x86_64" {
        return Ok(Outcome::Skipped("only on x86-64: elsewhere every function has the instructions".into()));
    }
    crate::whole::run().map(Outcome::Proved)
}

/// Compares tensors with Pillow's and Keras' on every real photo at hand.
fn photos() -> Result<Outcome> {
    let python = setup::python(setup::REFERENCE)?;
    let mut folders = vec![];
    for wheel in [fetch::SCIKIT_IMAGE, fetch::KITCHENWARE] {
        match wheel.unpacked() {
            Ok(folder) => folders.push(folder),
            Err(e) => return Ok(Outcome::Skipped(format!("{e:#}"))),
        }
    }
    // More photos can be named, such as a folder of one's own.
    folders.extend(std::env::var_os("EDGE_PHOTOS").filter(|p| !p.is_empty()).map(PathBuf::from));
    let mut count = 0;
    for (i, folder) in folders.iter().enumerate() {
        let expect = cache()?.join(format!("expect-{i}.json"));
        let printed = output(
            Command::new(&python)
                .arg(root().join("tests/goldens/make_vision.py"))
                .arg("--photos")
                .arg(folder)
                .arg("--json")
                .arg(&expect),
        )?;
        print!("{printed}");
        let mut tests = cargo(&["test", "--workspace", "--test", "goldens"])?;
        tools::run(tests.env("EDGE_VISION_EXPECT", &expect))?;
        count += std::fs::read_to_string(&expect)?.matches("\"file\"").count();
    }
    Ok(Outcome::Proved(format!("{count} photos: decoded, resized and preprocessed bit for bit as by Pillow and Keras")))
}

fn work() -> Result<PathBuf> {
    let work = cache()?.join("work");
    std::fs::create_dir_all(&work)?;
    Ok(work)
}

/// Packages `model`, then compares logits on `photos` with those of ONNX Runtime on `onnx`; `more` goes to the script.
fn compare(
    model: &Path,
    options: &[&OsStr],
    onnx: &Path,
    photos: &[PathBuf],
    truth: &Path,
    more: &[&str],
) -> Result<String> {
    let package = work()?.join("compare.edgepack");
    output(Command::new(built("edge-pack")?).arg(model).args(options).arg("-o").arg(&package))?;
    output(Command::new(built("edge-pack")?).arg("verify").arg(&package))?;
    let mut script = Command::new(setup::python(setup::REFERENCE)?);
    script.arg(root().join("tests/reference/compare_ort.py"));
    script.arg("--edge-pack").arg(built("edge-pack")?).arg("--package").arg(&package).arg("--onnx").arg(onnx);
    Ok(output(script.arg("--truth").arg(truth).args(more).args(photos))?.trim().into())
}

/// scikit-image's pictures with a known class, and a CSV of them.
fn known() -> Result<(Vec<PathBuf>, PathBuf)> {
    let known = fetch::known_pictures()?;
    let truth = work()?.join("known.csv");
    let mut csv = String::from("Id,label\n");
    for (path, name) in &known {
        csv += &format!("{},{name}\n", path.file_stem().unwrap_or_default().to_string_lossy());
    }
    std::fs::write(&truth, csv)?;
    Ok((known.into_iter().map(|(path, _)| path).collect(), truth))
}

fn default_model() -> Result<Outcome> {
    let (photos, truth) = match known() {
        Ok(known) => known,
        Err(e) => return Ok(Outcome::Skipped(format!("{e:#}"))),
    };
    let onnx = root().join(bench::DEFAULT);
    compare(&onnx, &[], &onnx, &photos, &truth, &[]).map(Outcome::Proved)
}

/// ONNX Runtime's quantizer makes the files; with its optimisations off it says what they mean.
fn int8() -> Result<Outcome> {
    let photos = match known() {
        Ok((photos, _)) => photos,
        Err(e) => return Ok(Outcome::Skipped(format!("{e:#}"))),
    };
    // What a class is called is the quantizer's affair.
    let truth = work()?.join("none.csv");
    std::fs::write(&truth, "Id,label\n")?;
    let mut proved = vec![];
    for activations in ["u8", "s8"] {
        let quantized = bench::quantized(&root().join(bench::DEFAULT), &work()?, activations)?;
        let line = compare(&quantized, &[], &quantized, &photos, &truth, &["--plain", "--tolerance", "0.05"])
            .with_context(|| format!("with {activations} activations"))?;
        let plan = output(
            Command::new(built("edge-pack")?).arg("inspect").arg("--plan").arg(work()?.join("compare.edgepack")),
        )?;
        anyhow::ensure!(
            !plan.contains("tract:") && plan.contains("int8 matrix"),
            "not all of it runs in int8:\n{plan}"
        );
        proved.push(format!("{activations}: {line}"));
        // With each family of kernels: fours where the machine has them, pairs, and plain Rust.
        for isa in ["", "avx2", "portable"] {
            if isa != "avx2" || has_avx2() {
                proved.push(format!("{activations} {isa}: {}", layers(&quantized, isa, &photos)?));
            }
        }
    }
    for isa in ["", "avx2", "portable"].into_iter().filter(|isa| *isa != "avx2" || has_avx2()) {
        let mut script = Command::new(setup::python(setup::REFERENCE)?);
        script.arg(root().join("tests/reference/random_networks.py")).arg("--edge-pack").arg(built("edge-pack")?);
        proved.push(format!("{isa}: {}", output(script.env("EDGE_ISA", isa).args(["--count", "60"]))?.trim()));
    }
    // Our own quantizer's file, by the same measure.
    let own = work()?.join("own-int8.onnx");
    let folder = photos[0].parent().context("a photo without a folder")?;
    let mut quantize = Command::new(built("edge-pack")?);
    quantize.arg("quantize").arg(root().join(bench::DEFAULT)).arg("--calibration").arg(folder).arg("-o").arg(&own);
    output(&mut quantize)?;
    let line =
        compare(&own, &[], &own, &photos, &truth, &["--plain", "--tolerance", "0.05"]).context("our quantizer's")?;
    proved.push(format!("our quantizer's: {line}, {}", layers(&own, "", &photos)?));
    let xception = bench::quantized(&bench::xception(&work()?, 299)?, &work()?, "u8")?;
    proved.push(format!("Xception: {}", layers(&xception, "", &photos[..1])?));
    Ok(Outcome::Proved(format!("all layers in int8; {}", proved.join("; "))))
}

fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Every layer beside ONNX Runtime's from the same input.
fn layers(onnx: &Path, isa: &str, photos: &[PathBuf]) -> Result<String> {
    let mut script = Command::new(setup::python(setup::REFERENCE)?);
    script.arg(root().join("tests/reference/compare_layers.py")).arg("--edge-pack").arg(built("edge-pack")?);
    Ok(output(script.env("EDGE_ISA", isa).arg("--onnx").arg(onnx).args(photos))?.trim().into())
}

/// `tests/reference/keras_sweep.py` with the built `edge-pack`.
fn sweep() -> Result<Command> {
    let mut script = Command::new(setup::python(setup::REFERENCE)?);
    script.arg(root().join("tests/reference/keras_sweep.py")).arg("--edge-pack").arg(built("edge-pack")?);
    Ok(script)
}

/// Every small Keras file, imported, through ONNX' checker and ONNX Runtime.
fn keras_files() -> Result<Outcome> {
    let printed = output(sweep()?.arg("--goldens"))?;
    let last = printed.trim().lines().next_back().unwrap_or_default();
    Ok(Outcome::Proved(format!("{last} in ONNX Runtime with what Keras computes, or are refused as they should be")))
}

fn xception() -> Result<Outcome> {
    let real = match fetch::Kitchenware::fetched() {
        Ok(real) => real,
        Err(e) => return Ok(Outcome::Skipped(format!("{e:#}"))),
    };
    let labels = work()?.join("kitchenware.txt");
    std::fs::write(&labels, fetch::Kitchenware::LABELS)?;
    let mut proved = vec![];
    for size in ["150", "299"] {
        let onnx = bench::xception(&work()?, size.parse()?)?;
        let options = ["--labels".as_ref(), labels.as_os_str(), "--input-size".as_ref(), size.as_ref()];
        let line = compare(&real.keras, &options, &onnx, &real.photos, &real.truth, &[])
            .with_context(|| format!("at {size}x{size}"))?;
        proved.push(format!("{size}x{size}: {line}"));
    }
    let photos = real.photos.first().and_then(|p| p.parent()).context("no photos")?;
    let beside =
        output(sweep()?.arg("--real").arg(&real.keras).arg("--photos").arg(photos).arg("--truth").arg(&real.truth))?;
    proved.extend(beside.lines().filter(|l| l.contains("(Keras)")).map(|l| format!("beside Keras {l}")));
    Ok(Outcome::Proved(proved.join("; ")))
}

/// All of keras.applications, as whole models and as files of weights, and the reference files made anew.
fn applications() -> Result<Outcome> {
    let python = setup::python(setup::REFERENCE)?;
    for script in ["tests/goldens/make_keras.py", "crates/edge-model/architectures/make.py"] {
        output(Command::new(&python).arg(root().join(script)).arg("--check")).with_context(|| script.to_string())?;
    }
    // What an interrupted run has found still holds for the same program.
    let mut hasher = DefaultHasher::new();
    std::fs::read(built("edge-pack")?)?.hash(&mut hasher);
    let rows = work()?.join(format!("keras-{:016x}.json", hasher.finish()));
    for form in ["keras", "weights"] {
        tools::run(sweep()?.args(["--redo-failed", "--form", form, "--out"]).arg(&rows))?;
    }
    Ok(Outcome::Proved(
        "every network of keras.applications, with and without its top, agrees with Keras to 1e-4".into(),
    ))
}

fn deb() -> Result<Outcome> {
    Ok(match crate::deb::run(&work()?)? {
        crate::deb::Looked::At(what) => Outcome::Proved(what),
        crate::deb::Looked::Not(why) => Outcome::Skipped(why),
    })
}

/// A photo of 640x480 pixels as red, green, blue, made of a picture that is known.
fn raw(photo: &Path) -> Result<PathBuf> {
    let raw = work()?.join("photo.rgb");
    // 640x480, the size of the emulated cable, so that nothing is squashed on the way.
    let script = "import sys; from PIL import Image; \
                  open(sys.argv[2], 'wb').write(Image.open(sys.argv[1]).convert('RGB').resize((640, 480)).tobytes())";
    output(Command::new(setup::python(setup::REFERENCE)?).args(["-c", script]).arg(photo).arg(&raw))?;
    Ok(raw)
}

/// A step that needs Debian's packages is skipped where they can't be had.
fn unless_unavailable(result: Result<String>) -> Result<Outcome> {
    match result {
        Ok(line) => Ok(Outcome::Proved(line)),
        Err(e) => match e.downcast_ref::<apt::Unavailable>() {
            Some(why) => Ok(Outcome::Skipped(why.to_string())),
            None => Err(e),
        },
    }
}

/// The device cases on this machine's own edge-camera, with and without control.
fn hardware_in_loop() -> Result<Outcome> {
    let mut reports = vec![];
    // Memory is the same program's in both.
    for (dut, soak) in [("host", "60"), ("host-read-only", "10")] {
        let folder = work()?.join("hil").join(dut);
        let mut hil = Command::new(built("edge-hil")?);
        hil.arg("run").arg("--dut").arg(root().join(format!("tests/duts/{dut}.toml")));
        tools::run(hil.args(["--soak", soak]).arg("-o").arg(&folder))?;
        reports.push(folder.join("report.html").display().to_string());
    }
    Ok(Outcome::Proved(format!("every case passed that this machine has what it needs for; {}", reports.join(", "))))
}

/// The boards' edge-camera beside this machine's.
fn aarch64() -> Result<Outcome> {
    let board = edge_system::board::by_name("virt")?;
    let agrees = || {
        cross::systems(&cache()?, &[board])?;
        processors::agrees(&cache()?, &root().join(bench::DEFAULT).with_file_name("examples"))
    };
    unless_unavailable(agrees())
}

/// Those that need a frame or two, where one takes minutes.
const OF_FEW: &[&str] = &["--case", "camera is found", "--case", "golden samples", "--case", "last frame"];

/// A file of `tests/duts`, and what else edge-hil is told.
type HilRun = (&'static str, &'static [&'static str]);

/// The device cases on emulated boards: `edge-hil` makes an image of a board's system, starts it and lets it live. Runs that stand
/// together go on at the same time: a board often waits, for its watchdog or for what it writes.
fn board(name: &str, runs: &[&[HilRun]]) -> Result<Outcome> {
    let board = edge_system::board::by_name(name)?;
    let proved = || {
        cross::systems(&cache()?, &[board])?;
        let mut reports = vec![];
        for together in runs {
            let mut commands = vec![];
            for (number, (dut, options)) in together.iter().enumerate() {
                let long = if options.contains(&LONG) { "-long" } else { "" };
                let share = if together.len() > 1 { format!("-{}", number + 1) } else { String::new() };
                let folder = work()?.join("hil").join(format!("{dut}{long}{share}"));
                reports.push(folder.join("report.html").display().to_string());
                let mut hil = Command::new(built("edge-hil")?);
                hil.arg("run").arg("--dut").arg(root().join(format!("tests/duts/{dut}.toml")));
                hil.arg("-o").arg(&folder).args(*options);
                commands.push(hil);
            }
            let ended: Vec<Result<()>> = std::thread::scope(|scope| {
                let begin = |hil| scope.spawn(move || tools::run(hil));
                let begun: Vec<_> = commands.iter_mut().map(begin).collect();
                begun
                    .into_iter()
                    .map(|run| run.join().unwrap_or_else(|_| bail!("a run of edge-hil panicked")))
                    .collect()
            });
            ended.into_iter().collect::<Result<()>>()?;
        }
        Ok(format!("every case passed that the board has what it needs for; {}", reports.join(", ")))
    };
    unless_unavailable(proved())
}

fn camera() -> Result<Outcome> {
    let photo = match fetch::known_pictures() {
        Ok(known) => known[1].clone(),
        Err(e) => return Ok(Outcome::Skipped(format!("{e:#}"))),
    };
    let raw = raw(&photo.0)?;
    let package = work()?.join("camera.edgepack");
    let onnx = root().join(bench::DEFAULT);
    // In whole numbers: QEMU takes several times as long for real ones, whose rounding it emulates.
    let mut pack = Command::new(built("edge-pack")?);
    pack.arg(&onnx).args(["--quantize", "int8", "--calibration"]).arg(onnx.with_file_name("examples"));
    output(pack.arg("-o").arg(&package))?;
    let edge_camera = built("edge-camera")?;
    let classify = vivid::Classify { edge_camera: &edge_camera, package: &package, expected: photo.1 };
    let (png, pixels) = (work()?.join("collected.png"), work()?.join("collected.rgb"));
    let png_to_rgb = |bytes: &[u8]| -> Result<Vec<u8>> {
        std::fs::write(&png, bytes)?;
        let script = "import sys; from PIL import Image; \
                      open(sys.argv[2], 'wb').write(Image.open(sys.argv[1]).convert('RGB').tobytes())";
        output(Command::new(setup::python(setup::REFERENCE)?).args(["-c", script]).arg(&png).arg(&pixels))?;
        Ok(std::fs::read(&pixels)?)
    };
    unless_unavailable(vivid::camera_step(&raw, &classify, png_to_rgb))
}
