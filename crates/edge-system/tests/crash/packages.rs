//! Packages: install, trial, keep, return, each cut at every operation of the file system.

use crate::files::SimFiles;
use crate::random::Loss;
use crate::tell;
use edge_package::*;
use edge_system::board::by_name;
use edge_system::slot::{Slot, Slots};
use edge_system::state::{Choice, Reason};
use edge_system::update::{Device, UpdateError, check_package, write_package};
use edge_vision::{Interpolation, Layout, Preprocess, ResizePolicy, ResizeSpec};
use std::path::Path;

/// How often the loss of what was not synced is drawn for each operation.
const SEEDS: u64 = 2 * Loss::KINDS;

fn package(sequence: u64) -> VerifiedPackage {
    let manifest = Manifest {
        name: "test".into(),
        sequence,
        boards: vec!["virt".into()],
        minimum_runtime: Version { major: 0, minor: 1, patch: 0 },
        created: 0,
        model: ModelInfo { part: "model.onnx".into(), opset: 17, precision: Precision::Float, output: "y".into() },
        input: InputSpec { name: "x".into(), layout: Layout::Nhwc, height: 8, width: 8 },
        resize: ResizeSpec { width: 8, height: 8, policy: ResizePolicy::Squash, interpolation: Interpolation::Nearest },
        preprocess: Preprocess::Tf,
        activation: Activation::Softmax,
        threshold: None,
        exif_orientation: false,
        labels: vec![Label { id: None, label: "a".into() }],
        goldens: vec![Golden {
            name: "g".into(),
            source: GoldenSource::Synthetic { seed: 0, width: 8, height: 8 },
            tensor: [0; 32],
            logits: vec![1.0],
        }],
        tolerance: Tolerance::Float { relative: 1e-3 },
        provenance: vec![],
        parts: vec![],
        tolerances: vec![],
    };
    let mut writer = PackageWriter::new();
    writer.part("model.onnx", vec![sequence as u8; 9000]);
    VerifiedPackage::from_bytes(writer.finish(manifest, None).unwrap(), &TrustPolicy::default()).unwrap()
}

/// One thing that is done with the slots.
#[derive(Debug, Clone, Copy)]
enum Step {
    Update(u64),
    Switch,
    Count,
    Uncount,
    Keep,
    GiveUp,
    FallBack(Slot),
}

static TRUST: TrustPolicy = TrustPolicy { trusted: vec![] };

fn slots(files: &SimFiles) -> Slots<SimFiles> {
    Slots::over(files.clone(), Path::new("/data/packages"))
}

fn run(files: &SimFiles, step: Step) -> Result<(), String> {
    let slots = slots(files);
    let text = |e: std::io::Error| e.to_string();
    match step {
        Step::Update(sequence) => {
            let package = package(sequence);
            let device = Device { board: "virt", runtime: Version { major: 0, minor: 1, patch: 0 }, trust: &TRUST };
            let plan = check_package(&slots, &package, &device).map_err(|e| e.to_string())?;
            write_package(&slots, &plan, &package).map(drop).map_err(|e| e.to_string())
        }
        Step::Switch => slots.switch().map(drop).map_err(text),
        Step::Count => slots.count().map(drop).map_err(text),
        Step::Uncount => slots.uncount().map_err(text),
        Step::Keep => slots.keep().map_err(text),
        Step::GiveUp => slots.give_up(Reason::Goldens).map_err(text),
        Step::FallBack(to) => slots.fall_back(to, Reason::Damaged).map_err(text),
    }
}

/// The sequence number of what a start runs; the slot that is chosen must be the one that it is.
fn runs(files: &SimFiles) -> Result<Option<u64>, String> {
    let slots = slots(&files.fork());
    let boot = slots.count().map_err(|e| e.to_string())?;
    let open = |path: &Path| {
        let bytes = files.read(path).map_err(|e| e.to_string())?;
        VerifiedPackage::from_bytes(bytes, &TRUST).map_err(|e| e.to_string())
    };
    match slots.boot(boot.slot, open) {
        Ok(booted) => match booted.refused {
            None => Ok(Some(booted.value.manifest().sequence)),
            // A device that never had a package: what was there first is not switched to yet.
            Some(_) if slots.choice() == Choice::first() && !files.is_file(&slots.package(Slot::A)) => {
                Ok(Some(booted.value.manifest().sequence))
            }
            Some(why) => Err(format!("slot {} is chosen and refused: {why}", boot.slot)),
        },
        Err(_) if boot.slot == Slot::A && slots.choice() == Choice::first() && files.files() < 2 => Ok(None),
        Err(none) => Err(format!("no slot starts: {none:?}")),
    }
}

/// No package is anything but whole.
fn sound(files: &SimFiles) -> Result<(), String> {
    for slot in Slot::BOTH {
        if let Ok(bytes) = slots(files).read(slot) {
            VerifiedPackage::from_bytes(bytes, &TRUST).map_err(|e| format!("slot {slot} is mixed: {e}"))?;
        }
    }
    Ok(())
}

/// Goes on until package `goal` is kept.
fn finish(files: &SimFiles, goal: u64) -> Result<(), String> {
    for _ in 0..6 {
        run(files, Step::Count)?;
        let now = runs(files)?;
        if now != Some(goal) {
            run(files, Step::Update(goal))?;
        } else if slots(files).choice().trial.is_some() {
            run(files, Step::Keep)?;
        } else {
            return Ok(());
        }
    }
    Err("the update never comes to an end".into())
}

/// Cuts every operation of every step, and again while that is repaired. How many cases there were, or what went wrong.
fn matrix(start: &SimFiles, script: &[Step], goal: u64, seeds: u64, repairs: u64) -> Result<usize, String> {
    let (mut cases, mut before) = (0, start.fork());
    for (i, step) in script.iter().enumerate() {
        let after = before.fork();
        after.operations();
        run(&after, *step).unwrap_or_else(|e| panic!("{step:?}: {e}"));
        let operations = after.operations();
        let (old, new) = (runs(&before)?, runs(&after)?);
        // An update ends a trial that was going on, and then what was kept before it runs.
        let kept = before.fork();
        run(&kept, Step::GiveUp)?;
        let kept = runs(&kept)?;
        let choices = (slots(&before).choice(), slots(&after).choice());
        for (operation, seed) in (0..operations).flat_map(|o| (0..seeds).map(move |s| (o, s))) {
            let context = |what: String| format!("{step:?}, cut at operation {operation}, seed {seed}: {what}");
            let files = before.fork();
            files.cut_at(operation);
            if run(&files, *step).is_ok() {
                return Err(context("the power did not go".into()));
            }
            let seed = seed + seeds * Loss::KINDS * (operation as u64 + 1000 * i as u64);
            let files = files.after_the_cut(seed);
            sound(&files).map_err(context)?;
            let now = runs(&files).map_err(context)?;
            if ![old, new, kept].contains(&now) {
                return Err(context(format!("neither old nor new: {now:?}, {old:?} before and {new:?} after")));
            }
            cases += 1 + repair(&files, goal, seed, repairs).map_err(context)?;
        }
        // Power that goes when nothing is done takes nothing.
        for seed in 0..seeds {
            let idle = after.after_the_cut(seed);
            sound(&idle)?;
            if (runs(&idle)?, slots(&idle).choice()) != (new, choices.1) {
                return Err(format!("{step:?} was done, and is not durable: {:?}, {choices:?}", slots(&idle).choice()));
            }
            cases += 1;
        }
        before = after;
    }
    Ok(cases)
}

/// The update is repeated to success, with the power going again in that.
fn repair(files: &SimFiles, goal: u64, seed: u64, repairs: u64) -> Result<usize, String> {
    let (mut files, mut cases) = (files.fork(), 0);
    for depth in 0..repairs {
        let uncut = files.fork();
        uncut.operations();
        finish(&uncut, goal)?;
        let operations = uncut.operations();
        if operations == 0 {
            break;
        }
        let seed = seed.wrapping_mul(31).wrapping_add(depth);
        files.cut_at((seed % operations as u64) as usize);
        if finish(&files, goal).is_ok() {
            return Err("the power did not go in the repair".into());
        }
        files = files.after_the_cut(seed / 7);
        sound(&files)?;
        runs(&files).map_err(|e| format!("after a second cut: {e}"))?;
        cases += 1;
    }
    if repairs > 0 {
        finish(&files, goal)?;
        if runs(&files)? != Some(goal) {
            return Err(format!("after all repairs {:?} runs", runs(&files)));
        }
        // Two packages and the choice; of what was cut off only the small temporary file of a choice may be left.
        if files.files() > 4 {
            return Err(format!("{} files are left", files.files()));
        }
    }
    Ok(cases)
}

/// An empty data partition.
fn empty() -> SimFiles {
    let files = SimFiles::new();
    files.make_folder(Path::new("/data")).unwrap();
    files.sync_folder(Path::new("/")).unwrap();
    files
}

fn after(start: &SimFiles, script: &[Step]) -> SimFiles {
    let files = start.fork();
    script.iter().for_each(|step| run(&files, *step).unwrap());
    files
}

#[test]
fn whenever_the_power_goes_a_package_runs() {
    use Step::*;
    let first = after(&empty(), &[Update(1)]);
    let second = after(&first, &[Update(2), Count, Keep]);
    let trial = after(&second, &[Update(3)]);
    let damaged = second.fork();
    let active = slots(&damaged).package(slots(&damaged).active());
    damaged.remove(&active).unwrap();
    damaged.sync_folder(active.parent().unwrap()).unwrap();
    run(&damaged, FallBack(slots(&second).inactive())).unwrap();

    let scripts: [(&str, &SimFiles, &[Step], u64); 7] = [
        ("the first package", &empty(), &[Update(1), Count], 1),
        ("update, start, keep", &first, &[Update(2), Count, Keep, Count], 2),
        ("update and return", &second, &[Update(3), Count, GiveUp, Count], 3),
        ("starts until the tries are used up", &trial, &[Count, Uncount, Count, Count, Count, Count], 4),
        ("an update in a trial", &trial, &[Count, Update(4), Count, Keep], 4),
        ("switch without a trial", &second, &[Switch], 4),
        ("an update over a damaged package", &damaged, &[Update(4), Count, Keep], 4),
    ];
    let mut total = 0;
    for (name, files, script, goal) in scripts {
        let cases = matrix(files, script, goal, SEEDS, 2).unwrap_or_else(|e| panic!("{name}: {e}"));
        tell(&format!("packages, {name}"), cases);
        total += cases;
    }
    tell("packages", total);
    assert!(total >= 1000, "{total}");
}

#[test]
fn without_any_sync_the_matrix_fails() {
    use Step::*;
    // A torn choice means slot A, so slot B is what has to be kept for that to be found.
    let on_a = after(&empty(), &[Update(1), Update(2), Count, Keep]);
    let long = [Update(3), Count, Keep, Update(4), Count, GiveUp];
    for (start, script) in [(empty(), &[Update(1)][..]), (on_a, &long)] {
        let uncut = start.fork();
        uncut.syncs();
        let syncs = after(&uncut, script).syncs();
        for sync in 0..syncs {
            let files = start.fork();
            files.ignore_sync(sync);
            if let Ok(cases) = matrix(&files, script, 4, 5 * SEEDS, 0) {
                panic!("sync {sync} of {syncs} was ignored, and none of {cases} cases found it");
            }
        }
    }
}

#[test]
fn packages_are_refused_before_the_first_write() {
    let files = after(&empty(), &[Step::Update(3)]);
    files.operations();
    let key = SecretKey::from_seed(&[1; 32]);
    let trusting = TrustPolicy { trusted: vec![key.public()] };
    let version = |minor| Version { major: 0, minor, patch: 0 };
    let check = |sequence, board, runtime, trust| {
        let device = Device { board, runtime, trust };
        check_package(&slots(&files), &package(sequence), &device).unwrap_err().to_string()
    };
    assert!(check(4, "virt", version(1), &trusting).contains("not signed"));
    assert!(check(4, "rpi4", version(1), &TRUST).contains("for board(s) virt"));
    assert!(check(4, "virt", version(0), &TRUST).contains("needs runtime 0.1.0"));
    assert!(check(3, "virt", version(1), &TRUST).contains("never goes back"));
    let device = Device { board: "virt", runtime: version(1), trust: &TRUST };
    assert!(matches!(
        check_package(&slots(&files), &package(2), &device),
        Err(UpdateError::Sequence { found: 2, running: 3 })
    ));
    assert_eq!(files.operations(), 0);
}

#[test]
fn a_model_that_is_too_large_for_a_board_is_refused() {
    let board = by_name("rpi-zero2w").unwrap();
    let mut manifest = package(1).manifest().clone();
    manifest.parts[0].length = u64::from(board.budget.model_mib) << 20;
    board.check_budget(&manifest).unwrap();
    manifest.parts[0].length += 1;
    let message = board.check_budget(&manifest).unwrap_err().to_string();
    for wanted in ["\"test\"", "96.0 MiB", "rpi-zero2w takes up to 96 MiB", "300 MiB of memory", "quantize"] {
        assert!(message.contains(wanted), "{wanted:?} is not in {message:?}");
    }
}
