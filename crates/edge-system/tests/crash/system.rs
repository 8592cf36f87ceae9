//! Systems: update, start, keep, return, each cut at every write and flush.

use crate::bench::Step::{self, *};
use crate::bench::{Bench, LARGE, Runs, SMALL};
use crate::disk::SimDisk;
use crate::random::Loss;
use crate::tell;
use edge_system::disk::Disk;
use edge_system::slot::Slot;
use edge_system::state::BootState;
use edge_system::system::{HEAD_ROOM, read_slot};

/// How often the loss of unflushed writes is drawn for each operation.
pub const SEEDS: u64 = 2 * Loss::KINDS;

/// A disk before each step of a script, and after the last one, without any cut.
struct Recorded {
    before: Vec<(SimDisk, BootState)>,
    operations: Vec<usize>,
}

fn record(bench: &Bench, disk: SimDisk, script: &[Step]) -> Recorded {
    let state = BootState::read(&disk, &bench.layout).unwrap().state.unwrap_or(BootState::first());
    let mut recorded = Recorded { before: vec![(disk, state)], operations: vec![] };
    for step in script {
        let (mut disk, _) = recorded.before.last().unwrap().clone();
        disk.operations = 0;
        let state = bench.run(&mut disk, *step).unwrap_or_else(|e| panic!("{step:?}: {e}"));
        recorded.operations.push(disk.operations);
        recorded.before.push((disk, state));
    }
    recorded
}

/// Cuts every operation of every step, and again while that is repaired. How many cases there were, or what went wrong.
fn matrix(bench: &Bench, disk: SimDisk, script: &[Step], goal: u64) -> Result<usize, String> {
    cut(bench, disk, script, SEEDS, &|disk, seed| repair(bench, disk, goal, seed))
}

/// Cuts every operation of every step, `seeds` times. `repair` is given each disk that this leaves; it counts cases too.
fn cut(
    bench: &Bench,
    disk: SimDisk,
    script: &[Step],
    seeds: u64,
    repair: &dyn Fn(&SimDisk, u64) -> Result<usize, String>,
) -> Result<usize, String> {
    let recorded = record(bench, disk, script);
    let mut cases = 0;
    for (i, step) in script.iter().enumerate() {
        let (before, acknowledged) = &recorded.before[i];
        let (after, _) = &recorded.before[i + 1];
        // Where the state is lost to begin with, the start makes another one.
        let old = bench.runs(before).ok();
        let new = bench.runs(after)?;
        // An update ends a trial that was going on, and then what was kept before it runs.
        let kept = old.filter(|o| o.trial).map(|_| acknowledged.choice.active);
        for (operation, seed) in (0..recorded.operations[i]).flat_map(|o| (0..seeds).map(move |s| (o, s))) {
            let context = |what: String| format!("{step:?}, cut at operation {operation}, seed {seed}: {what}");
            let mut disk = before.clone();
            disk.cut_at(operation);
            if let Ok(state) = bench.run(&mut disk, *step) {
                return Err(context(format!("the power did not go: {state:?}")));
            }
            let seed = seed + seeds * Loss::KINDS * (operation as u64 + 1000 * i as u64);
            let disk = disk.after_the_cut(seed);
            bench.sound(&disk, *acknowledged).map_err(context)?;
            let runs = bench.runs(&disk).map_err(context)?;
            let fell_back = kept.is_some_and(|slot| {
                let system = read_slot(&disk, bench.layout.slot(slot), &bench.trust, &mut |_| {});
                !runs.trial && system.is_ok_and(|s| s.manifest.sequence == runs.sequence)
            });
            if old.is_some_and(|old| runs != old) && runs != new && !fell_back {
                return Err(context(format!("neither old nor new: {runs:?}, {old:?} before and {new:?} after")));
            }
            cases += 1 + repair(&disk, seed).map_err(context)?;
        }
        // Power that goes when nothing is done takes nothing.
        let idle = after.after_the_cut(i as u64);
        bench.sound(&idle, recorded.before[i + 1].1)?;
        let runs = bench.runs(&idle)?;
        if runs != new {
            return Err(format!("{step:?} was done, and is not durable: {runs:?} instead of {new:?}"));
        }
        cases += 1;
    }
    Ok(cases)
}

/// The update is repeated to success, with the power going once more in that, and once more in the repair of the repair.
fn repair(bench: &Bench, disk: &SimDisk, goal: u64, seed: u64) -> Result<usize, String> {
    let mut cases = 0;
    let mut disk = disk.clone();
    for depth in 0..2 {
        let mut uncut = disk.clone();
        uncut.operations = 0;
        bench.finish(&mut uncut, goal)?;
        if uncut.operations == 0 {
            return Ok(cases);
        }
        let acknowledged = BootState::read(&disk, &bench.layout).unwrap().state.unwrap();
        let seed = seed.wrapping_mul(31).wrapping_add(depth);
        disk.cut_at((seed % uncut.operations as u64) as usize);
        if bench.finish(&mut disk, goal).is_ok() {
            return Err("the power did not go in the repair".into());
        }
        disk = disk.after_the_cut(seed / 7);
        bench.sound(&disk, acknowledged).map_err(|e| format!("after a second cut: {e}"))?;
        bench.runs(&disk).map_err(|e| format!("after a second cut: {e}"))?;
        cases += 1;
    }
    bench.finish(&mut disk, goal)?;
    let runs = bench.runs(&disk)?;
    if runs != (Runs { sequence: goal, trial: false }) {
        return Err(format!("after all repairs {runs:?} runs"));
    }
    Ok(cases)
}

/// Runs scripts that begin with one disk. How many cases there were.
fn scripts(bench: &Bench, disk: &SimDisk, scripts: &[(&str, &[Step], u64)]) {
    let mut total = 0;
    for (name, script, goal) in scripts {
        let cases = matrix(bench, disk.clone(), script, *goal).unwrap_or_else(|e| panic!("{name}: {e}"));
        tell(&format!("systems, {name}"), cases);
        total += cases;
    }
    assert!(total >= 300, "{total} cases");
}

/// The disk after a script without any cut.
pub fn after(bench: &Bench, disk: &SimDisk, script: &[Step]) -> SimDisk {
    record(bench, disk.clone(), script).before.pop().unwrap().0
}

#[test]
fn whenever_the_power_goes_in_an_update_a_system_starts() {
    let (bench, fresh) = Bench::new(SMALL);
    scripts(&bench, &fresh, &[("update, start, keep", &[Update(2), Start, Keep], 2)]);
    let on_b = after(&bench, &fresh, &[Update(2), Start, Keep]);
    scripts(&bench, &on_b, &[("update and start from slot b", &[Update(3), Start, Keep], 3)]);
}

#[test]
fn whenever_the_power_goes_in_a_trial_a_system_starts() {
    let (bench, fresh) = Bench::new(SMALL);
    let on_trial = after(&bench, &fresh, &[Update(2)]);
    let three: [(&str, &[Step], u64); 3] = [
        ("starts until the tries are used up", &[Start, Start, Start, Start], 3),
        ("give up", &[Start, GiveUp, Start], 3),
        ("switched off in good order", &[Start, SwitchOff, Start, SwitchOff], 3),
    ];
    scripts(&bench, &on_trial, &three);
    scripts(&bench, &on_trial, &[("an update in a trial", &[Start, Update(3), Start, Keep], 3)]);
}

#[test]
fn whenever_the_power_goes_in_a_repair_a_system_starts() {
    let (bench, fresh) = Bench::new(SMALL);
    // Slot A does not verify, and the update goes over it.
    let mut damaged = fresh.clone();
    damaged.write_at(&[1; 3], bench.layout.system[0].end - HEAD_ROOM).unwrap();
    damaged.flush().unwrap();
    let found = matrix(&bench, damaged.clone(), &[Start], 2).unwrap_err();
    assert!(found.contains("slot a"), "what is wrong to begin with is told: {found}");
    let started = bench.run(&mut damaged, Start).unwrap();
    assert_eq!(started.choice.active, Slot::B);
    scripts(&bench, &damaged, &[("an update over a damaged slot", &[Update(2), Start, Keep], 2)]);

    let mut rotten = after(&bench, &fresh, &[Update(2)]);
    rotten.write_at(&[0; 512], bench.layout.state[1].start).unwrap();
    rotten.flush().unwrap();
    scripts(&bench, &rotten, &[("a rotten copy of the state", &[Start, Keep], 3)]);
}

#[test]
fn whenever_the_power_goes_in_a_long_update_a_system_starts() {
    let (bench, fresh) = Bench::new(LARGE);
    scripts(&bench, &fresh, &[("an update in several writes", &[Update(2)], 2)]);
}

#[test]
fn without_any_flush_but_the_last_the_matrix_fails() {
    let (bench, fresh) = Bench::new(SMALL);
    let script = [Update(2), Start, Keep];
    let uncut = record(&bench, fresh.clone(), &script).before.pop().unwrap().0;
    let flushes = uncut.flushes - fresh.flushes;
    let mut caught = 0;
    for flush in 0..flushes - 1 {
        let mut disk = fresh.clone();
        disk.ignored_flush = Some(fresh.flushes + flush);
        match cut(&bench, disk, &script, 10 * SEEDS, &|_, _| Ok(0)) {
            Ok(cases) => panic!("flush {flush} of {flushes} was ignored, and none of {cases} cases found it"),
            Err(_) => caught += 1,
        }
    }
    assert_eq!(caught, 8);
}
