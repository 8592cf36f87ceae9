//! Packages that come over the link, slots that are switched, and `edge-flash` at the other end.

use super::*;
use edge_package::{digest, hex};

/// A camera with slots, and packages for them.
struct Updated {
    scratch: Scratch,
    slots: PathBuf,
}

impl Updated {
    fn new() -> Updated {
        let scratch = Scratch::small();
        let updated = Updated { slots: scratch.path("slots"), scratch };
        edge_camera!("--slots", updated.slots, "--install", updated.package(1, &[])).ok();
        updated
    }

    fn package(&self, sequence: u64, more: &[&str]) -> PathBuf {
        let path = self.scratch.path(&format!("release-{sequence}.edgepack"));
        let number = sequence.to_string();
        let words = [small_model(), "-o".into(), path.clone(), "--sequence".into(), number.into()];
        run("edge-pack", words.into_iter().chain(more.iter().map(PathBuf::from))).ok();
        path
    }

    fn start(&self, more: &[&str]) -> Linked {
        let slots = self.slots.to_str().unwrap();
        // A network of microseconds is many times slower whenever the machine is busy.
        let words =
            ["--source", "pattern", "--rate", "20", "--slots", slots, "--link-control", "--trial-latency", "1e9"];
        Linked::with(&self.scratch, &[&words, more].concat())
    }

    fn left(&self) -> Vec<String> {
        let names =
            std::fs::read_dir(&self.slots).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with('.')).collect()
    }
}

#[test]
fn packages_are_updated_and_slots_switched() {
    let updated = Updated::new();
    let camera = updated.start(&["--trial", "1h"]);
    let mut client = camera.connect();
    let first = client.hello().unwrap().package;
    let new = std::fs::read(updated.package(2, &[])).unwrap();
    let mut sent = 0;
    let said = client.update(&new, 5000, &mut |bytes| sent += bytes).unwrap();
    assert!(said.starts_with("slot a: ") && said.contains("it is on trial for 1h"), "{said}");
    assert_eq!(sent, new.len() as u64);
    client.greet(PATIENCE).unwrap();
    let second = client.hello().unwrap().package;
    assert!(second != first && hex(&digest(&new)) != hex(&second));
    assert!(updated.left().is_empty(), "{:?}", updated.left());
    // Back from the trial, and on again.
    for (switch, expected) in [("slot b: ", first), ("slot a: ", second), ("slot b: ", first)] {
        let Response::Done(said) = client.ask(&Request::SwitchSlot, PATIENCE).unwrap() else { panic!() };
        assert!(said.starts_with(switch), "{said}");
        client.greet(PATIENCE).unwrap();
        assert_eq!(client.hello().unwrap().package, expected);
    }
    // What the other slot has is not taken blindly.
    std::fs::write(updated.slots.join("a/package.edgepack"), "no package").unwrap();
    let why = refused(&mut client, Request::SwitchSlot);
    assert!(why.contains("slot a"), "{why}");
    client.greet(PATIENCE).unwrap();
    assert_eq!(client.hello().unwrap().package, first);
    assert!(std::fs::read_to_string(updated.slots.join("active")).unwrap().starts_with("b"));
}

#[test]
fn updates_that_are_refused_change_nothing() {
    let updated = Updated::new();
    let key = updated.scratch.path("key");
    edge_pack!("keygen", key).ok();
    let trusted = updated.scratch.path("key.pub");
    let signed = updated.package(2, &["--sign", key.to_str().unwrap()]);
    edge_camera!("--slots", updated.slots, "--install", signed).ok();
    let camera = updated.start(&["--trusted-key", trusted.to_str().unwrap(), "--trial", "0"]);
    let mut client = camera.connect();
    let before = client.hello().unwrap().package;
    let mut refuse = |bytes: &[u8], parts: &[&str]| {
        let why = client.update(bytes, 1 << 20, &mut |_| {}).unwrap_err().to_string();
        assert!(parts.iter().all(|part| why.contains(part)), "{why}");
        assert!(updated.left().is_empty(), "{:?}", updated.left());
    };
    let unsigned = std::fs::read(updated.package(3, &[])).unwrap();
    refuse(&unsigned, &["not signed"]);
    let old = std::fs::read(updated.package(1, &["--sign", key.to_str().unwrap()])).unwrap();
    refuse(&old, &["sequence number is 1"]);
    let mut damaged = std::fs::read(updated.package(4, &["--sign", key.to_str().unwrap()])).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    refuse(&damaged, &["digest"]);
    refuse(b"no package at all", &[]);
    refuse(&[&b"\x89EDGESY\n"[..], &[0; 500]].concat(), &["this camera runs on another system"]);
    let announced = |length| Request::UpdateBegin { length, digest: [7; 32] };
    assert!(refused(&mut client, announced(0)).contains("1 to"));
    assert!(refused(&mut client, announced(u64::MAX)).contains("1 to"));
    // Another digest than was announced, bytes out of place, an end too soon, a host that goes away in between.
    client.ask(&announced(10), PATIENCE).unwrap();
    let data = |offset, length| Request::UpdateData { offset, bytes: vec![1; length] };
    for wrong in [data(1, 1), data(0, 11), data(u64::MAX, 1), data(10, 1)] {
        assert!(refused(&mut client, wrong).contains("do not fit"));
    }
    client.ask(&data(0, 6), PATIENCE).unwrap();
    assert!(refused(&mut client, Request::UpdateEnd).contains("6 of 10 bytes"));
    // An answer that was lost on its way: the host asks again.
    client.ask(&data(0, 6), PATIENCE).unwrap();
    let mut other = camera.connect();
    assert!(refused(&mut other, announced(5)).contains("another host"));
    assert!(refused(&mut other, data(6, 1)).contains("no update of this host"));
    client.ask(&data(6, 4), PATIENCE).unwrap();
    assert!(refused(&mut client, Request::UpdateEnd).contains("digests differ"));
    assert!(refused(&mut client, Request::UpdateEnd).contains("no update of this host"));
    client.ask(&announced(10), PATIENCE).unwrap();
    drop(client);
    wait_until("what it had begun is gone", || updated.left().is_empty());
    other.ask(&announced(5), PATIENCE).unwrap();
    other.greet(PATIENCE).unwrap();
    assert_eq!(other.hello().unwrap().package, before);
}

#[test]
fn edge_flash_goes_through_the_link() {
    let updated = Updated::new();
    let camera = updated.start(&["--trial", "0", "--log-max-size", "20kB"]);
    let address = camera.address.to_string();
    let mut client = camera.connect();
    wait_until("the log has several files", || {
        let request = Request::Log { file: 2, from: 0, length: 0 };
        matches!(client.ask(&request, PATIENCE), Ok(Response::Log { length: 1.., .. }))
    });
    let new = updated.package(2, &[]);
    let flash = |words: &[&str]| run("edge-flash", words);
    let ran = flash(&["update", new.to_str().unwrap(), "--device", &address]).ok();
    assert!(ran.stdout.starts_with(&format!("{address}: slot a: ")), "{}", ran.stdout);
    let ran = flash(&["update", new.to_str().unwrap(), "--device", &address]);
    ran.fails(1, &["the camera refuses: ", "an update never goes back"]);
    let newer = updated.package(3, &[]);
    let told = flash(&["update", newer.to_str().unwrap(), "--device", &address, "--json"]).ok().json();
    assert_eq!((&told[0]["sequence"], told[0]["device"].as_str()), (&3.into(), Some(&*address)));
    flash(&["update", newer.to_str().unwrap(), "--device", &address, "--restart"]).fails(1, &["never goes back"]);
    // Several files, whole lines, in their order. One that is begun anew meanwhile is read again, as people would.
    let mut read = flash(&["log", "--device", &address]);
    while read.stderr.contains("read it again") {
        read = flash(&["log", &address]);
    }
    let lines = read.ok().json();
    assert!(lines.windows(2).all(|pair| pair[0]["monotonic_s"].as_f64() <= pair[1]["monotonic_s"].as_f64()));
    assert!(lines.iter().filter(|line| line["event"] == "reloaded").count() == 2, "{lines:?}");
    flash(&["log", &address, "--boot"]).fails(1, &["USER@HOST"]);
    flash(&["log"]).fails(2, &["IMAGE|DEVICE|USER@HOST|LINK"]);
    flash(&["verify", &address]).fails(1, &["cannot vouch"]);
}
