use super::*;
use std::os::unix::fs::PermissionsExt;

fn entry() -> Entry {
    Entry { package: [7; 32], tensorrt: "8.6.1".into(), gpu: "Orin".into(), precision: "float16".into() }
}

fn cache() -> (tempfile::TempDir, Cache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::new(dir.path().join("a/b/tensorrt"));
    (dir, cache)
}

fn keep(cache: &Cache, entry: &Entry, plan: &[u8]) {
    cache.prove_writable(0).unwrap();
    cache.hold(&mut || ()).unwrap().0.write(entry, plan).unwrap();
}

fn stale(cache: &Cache, entry: &Entry) -> String {
    match cache.read(entry).unwrap() {
        Found::Stale(why) => why,
        Found::Nothing => panic!("nothing is there"),
        Found::Plan(_) => panic!("it is taken"),
    }
}

#[test]
fn an_engine_comes_back_as_it_went() {
    let (_dir, cache) = cache();
    assert!(matches!(cache.read(&entry()).unwrap(), Found::Nothing));
    keep(&cache, &entry(), b"engine");
    let Found::Plan(plan) = cache.read(&entry()).unwrap() else { panic!("it is not there") };
    assert_eq!(plan, b"engine");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(cache.folder()), 0o700);
    let names: Vec<_> = cache.folder().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "an engine and a lock: {names:?}");
    assert_eq!(mode(&cache.folder().join(entry().file_name())), 0o600);
}

#[test]
fn any_changed_byte_and_any_cut_is_noticed() {
    let (_dir, cache) = cache();
    keep(&cache, &entry(), b"engine");
    let path = cache.folder().join(entry().file_name());
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(&path, &changed).unwrap();
        assert!(stale(&cache, &entry()).contains("damaged"), "byte {at}");
        std::fs::write(&path, &whole[..at]).unwrap();
        assert!(stale(&cache, &entry()).contains("damaged"), "cut to {at}");
    }
}

#[test]
fn an_engine_for_something_else_says_what_differs() {
    let (_dir, cache) = cache();
    keep(&cache, &entry(), b"engine");
    let newer = Entry { tensorrt: "10.3.0".into(), ..entry() };
    let why = stale(&cache, &newer);
    assert!(why.contains("TensorRT 8.6.1; this is TensorRT 10.3.0"), "{why}");
    let why = stale(&cache, &Entry { gpu: "Xavier".into(), ..entry() });
    assert!(why.contains("GPU Orin; this is GPU Xavier"), "{why}");
    // The name has only the beginning of the digest.
    let mut package = [7; 32];
    package[31] = 8;
    assert!(stale(&cache, &Entry { package, ..entry() }).contains("package"));
    assert!(matches!(cache.read(&Entry { precision: "int8".into(), ..entry() }).unwrap(), Found::Nothing));
    // The newer one takes its place.
    keep(&cache, &newer, b"newer");
    assert!(stale(&cache, &entry()).contains("10.3.0"));
}

#[test]
fn a_folder_that_others_can_write_to_is_not_used() {
    let (_dir, cache) = cache();
    keep(&cache, &entry(), b"engine");
    std::fs::set_permissions(cache.folder(), std::fs::Permissions::from_mode(0o755)).unwrap();
    for refused in [cache.read(&entry()).map(|_| ()), cache.prove_writable(0)] {
        let why = refused.unwrap_err().to_string();
        assert!(why.contains("0755") && why.contains("chmod 700"), "{why}");
    }
}

#[test]
fn what_is_no_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    std::fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    for path in [file.clone(), link] {
        let why = Cache::new(path).prove_writable(0).unwrap_err().to_string();
        assert!(why.contains("it is no folder"), "{why}");
    }
    let why = Cache::new(file.join("under")).prove_writable(0).unwrap_err().to_string();
    assert!(why.contains("cannot be"), "{why}");
}

#[test]
fn a_folder_that_takes_no_file_is_found_before_a_build() {
    // Nobody can make files there, not even root.
    let why = Cache::new("/proc/self").check().and_then(|_| Cache::new("/proc/self/task/new").prove_writable(0));
    assert!(why.is_err());
    let (_dir, cache) = cache();
    let why = cache.prove_writable(u64::MAX / 2).unwrap_err().to_string();
    assert!(why.contains("MB are free there"), "{why}");
}

#[test]
fn what_killed_builds_left_goes_and_engines_stay_few() {
    let (_dir, cache) = cache();
    cache.prove_writable(0).unwrap();
    std::fs::write(cache.folder().join(".build.1.plan.tmp"), "half").unwrap();
    for package in 0..12u8 {
        keep(&cache, &Entry { package: [package; 32], ..entry() }, &[package]);
    }
    let names = || cache.folder().read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(names().filter(|n| n.ends_with(".engine")).count(), KEPT);
    assert!(names().all(|n| !n.ends_with(".tmp")));
    let last = Entry { package: [11; 32], ..entry() };
    assert!(matches!(cache.read(&last).unwrap(), Found::Plan(plan) if plan == [11]));
}

#[test]
fn two_builds_wait_for_each_other() {
    let (_dir, cache) = cache();
    cache.prove_writable(0).unwrap();
    let (held, waited) = cache.hold(&mut || ()).unwrap();
    assert!(!waited);
    let (other, mut held) = (cache.clone(), Some(held));
    // It is let go when the other one has been seen to wait.
    let (_, waited) = other.hold(&mut || drop(held.take())).unwrap();
    assert!(waited);
}
