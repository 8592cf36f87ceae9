//! What the matrix must find, and what is done about disks that are damaged to begin with.

use crate::bench::{Bench, Runs, SMALL, Step, key};
use crate::disk::SimDisk;
use crate::random::Loss;
use crate::system::{SEEDS, after};
use crate::tell;
use edge_package::{SecretKey, TrustPolicy};
use edge_system::boot;
use edge_system::disk::Disk;
use edge_system::slot::Slot;
use edge_system::state::BootState;
use edge_system::system::{HEAD_ROOM, SQUASHFS, SystemBundle, SystemManifest, bundle, write_slot};
use edge_system::update::{UpdateError, check_system};

/// A wrong order of the steps of an update.
type Wrong = fn(&Bench, &mut SimDisk, &SystemBundle) -> Result<BootState, String>;

/// Cuts every operation of a wrong update. What goes wrong, where anything does.
fn wrong_update(wrong: Wrong) -> Option<String> {
    let (bench, fresh) = Bench::new(SMALL);
    let bundle = &bench.bundles[&2];
    let mut uncut = fresh.clone();
    uncut.operations = 0;
    wrong(&bench, &mut uncut, bundle).unwrap();
    for (operation, seed) in (0..uncut.operations).flat_map(|o| (0..SEEDS).map(move |s| (o, s))) {
        let mut disk = fresh.clone();
        disk.cut_at(operation);
        assert!(wrong(&bench, &mut disk, bundle).is_err());
        let disk = disk.after_the_cut(seed + SEEDS * Loss::KINDS * operation as u64);
        let found = bench.sound(&disk, BootState::first()).map(drop).and_then(|()| bench.runs(&disk).map(drop));
        if let Err(what) = found {
            return Some(what);
        }
    }
    None
}

#[test]
fn a_wrong_order_is_found() {
    fn trial(bench: &Bench, disk: &mut SimDisk) -> Result<BootState, String> {
        let state = BootState::first();
        let next = state.next(state.choice.begin_trial(3));
        next.write(disk, &bench.layout).map_err(|e| e.to_string())?;
        Ok(next)
    }
    let state_first: Wrong = |bench, disk, bundle| {
        let state = trial(bench, disk)?;
        write_slot(disk, bench.layout.slot(Slot::B), bundle, &mut |_| {}).map_err(|e| e.to_string())?;
        Ok(state)
    };
    let head_first: Wrong = |bench, disk, bundle| {
        let range = bench.layout.slot(Slot::B);
        let parts = [(bundle.head(), range.end - HEAD_ROOM), (bundle.part(SQUASHFS).unwrap(), range.start)];
        for (bytes, at) in parts {
            disk.write_at(bytes, at).and_then(|()| disk.flush()).map_err(|e| e.to_string())?;
        }
        trial(bench, disk)
    };
    let both_copies_at_once: Wrong = |bench, disk, bundle| {
        write_slot(disk, bench.layout.slot(Slot::B), bundle, &mut |_| {}).map_err(|e| e.to_string())?;
        let state = BootState::first().next(BootState::first().choice.begin_trial(3));
        for place in &bench.layout.state {
            disk.write_at(&state.encode(), place.start).map_err(|e| e.to_string())?;
        }
        disk.flush().map_err(|e| e.to_string())?;
        Ok(state)
    };
    for (wrong, says) in [
        (state_first, "the chosen slot does not start"),
        (head_first, "slot b is mixed"),
        (both_copies_at_once, "both copies of the boot state are damaged"),
    ] {
        let found = wrong_update(wrong).unwrap_or_else(|| panic!("not found: {says}"));
        assert!(found.contains(says), "{says:?} is not in {found:?}");
    }
    let right: Wrong = |bench, disk, bundle| {
        write_slot(disk, bench.layout.slot(Slot::B), bundle, &mut |_| {}).map_err(|e| e.to_string())?;
        trial(bench, disk)
    };
    assert_eq!(wrong_update(right), None, "the search must not find what is not there");
}

#[test]
fn updates_are_refused_before_the_first_write() {
    let (bench, mut disk) = Bench::new(SMALL);
    disk.operations = 0;
    let refused = |manifest: &dyn Fn(&mut SystemManifest), key: Option<&SecretKey>, running| {
        let mut changed = bench.bundles[&2].manifest().clone();
        manifest(&mut changed);
        let bytes = bundle(changed, vec![1; 5000], key).unwrap();
        let bundle = SystemBundle::from_bytes(bytes, &TrustPolicy::default()).unwrap();
        check_system(&disk, &bundle, running, &mut |_| {}).unwrap_err()
    };
    let signed = key();
    let other = SecretKey::from_seed(&[8; 32]);
    let message = refused(&|_| {}, None, None).to_string();
    assert!(message.contains("not signed"), "{message}");
    assert!(refused(&|_| {}, Some(&other), None).to_string().contains("not among the trusted keys"));
    assert!(matches!(refused(&|m| m.board = "rpi4".into(), Some(&signed), None), UpdateError::Board { .. }));
    assert!(matches!(refused(&|m| m.kernel = Some("5.10".into()), Some(&signed), None), UpdateError::Kernel { .. }));
    assert!(matches!(
        refused(&|m| m.sequence = 1, Some(&signed), None),
        UpdateError::Sequence { found: 1, running: 1 }
    ));
    assert!(matches!(
        refused(&|m| m.minimum = 2, Some(&signed), None),
        UpdateError::Minimum { minimum: 2, running: 1 }
    ));
    assert!(matches!(refused(&|_| {}, Some(&signed), Some(Slot::B)), UpdateError::Running(Slot::B)));
    let too_large = bundle(bench.bundles[&2].manifest().clone(), vec![1; 100_000], Some(&signed)).unwrap();
    let too_large = SystemBundle::from_bytes(too_large, &TrustPolicy::default()).unwrap();
    let message = check_system(&disk, &too_large, None, &mut |_| {}).unwrap_err().to_string();
    assert!(message.contains("the slot has room for"), "{message}");
    assert_eq!(disk.operations, 0);
}

#[test]
fn systems_that_both_fail_are_replaced_at_once() {
    let (bench, mut disk) = Bench::new(SMALL);
    for slot in Slot::BOTH {
        disk.write_at(&[9; 9], bench.layout.slot(slot).start).unwrap();
    }
    let error = boot::choose(&mut disk, &bench.layout, &bench.trust, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("slot a: it is damaged"), "{error}");
    let state = bench.run(&mut disk, Step::Update(2)).unwrap();
    assert_eq!((state.choice.active, state.choice.trial), (Slot::B, None));
    assert_eq!(bench.runs(&disk), Ok(Runs { sequence: 2, trial: false }));
}

#[test]
fn a_lost_state_is_made_from_the_slots() {
    let (bench, fresh) = Bench::new(SMALL);
    let mut lost = after(&bench, &fresh, &[Step::Update(2)]);
    for place in &bench.layout.state {
        lost.write_at(&[0; 512], place.start).unwrap();
    }
    lost.flush().unwrap();

    // The power may go in that too.
    let mut uncut = lost.clone();
    uncut.operations = 0;
    bench.run(&mut uncut, Step::Start).unwrap();
    let mut cases = 0;
    for (operation, seed) in (0..uncut.operations).flat_map(|o| (0..SEEDS).map(move |s| (o, s))) {
        let mut disk = lost.clone();
        disk.cut_at(operation);
        bench.run(&mut disk, Step::Start).unwrap_err();
        let mut disk = disk.after_the_cut(seed + SEEDS * Loss::KINDS * operation as u64);
        let started = boot::choose(&mut disk, &bench.layout, &bench.trust, &mut |_| {}).unwrap();
        assert_eq!((started.slot, started.trial), (Slot::B, true), "{:?}", started.notes);
        bench.finish(&mut disk, 3).unwrap();
        cases += 1;
    }
    tell("systems, a lost state", cases);

    let mut disk = lost;
    for tries in [2, 1, 0] {
        let started = boot::choose(&mut disk, &bench.layout, &bench.trust, &mut |_| {}).unwrap();
        assert_eq!((started.slot, started.trial), (Slot::B, true), "{:?}", started.notes);
        assert_eq!(started.state.choice.trial.unwrap().tries_left, tries);
    }
    let started = boot::choose(&mut disk, &bench.layout, &bench.trust, &mut |_| {}).unwrap();
    assert_eq!((started.slot, started.trial), (Slot::A, false));
}
