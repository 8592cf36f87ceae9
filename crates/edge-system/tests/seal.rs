//! The list of digests: a fresh image, a used card, and every way in which one is neither.

use edge_package::{PackageError, SecretKey, Signed, TrustPolicy, Version, hex};
use edge_system::boot;
use edge_system::disk::{Disk, FileDisk};
use edge_system::layout::{Layout, LayoutError};
use edge_system::seal::{Facts, FileState, RegionState, Seal, SealError, Verdict};
use edge_system::slot::Slot;
use edge_system::state::BootState;
use edge_system::system::{SystemBundle, SystemManifest, bundle, write_slot};
use edge_system::update::{check_system, write_system};
use edge_system::{MIB, SECTOR};
use proptest::prelude::*;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;

fn key() -> SecretKey {
    SecretKey::from_seed(&[7; 32])
}

fn system(sequence: u64, key: Option<&SecretKey>) -> SystemBundle {
    let manifest = SystemManifest {
        board: "virt".into(),
        version: format!("0.{sequence}"),
        sequence,
        minimum: 0,
        created: 0,
        kernel: Some("6.1".into()),
        runtime: Version { major: 0, minor: 1, patch: 0 },
        components: vec![],
        parts: vec![],
    };
    let bytes = bundle(manifest, vec![sequence as u8; 30_000], key).unwrap();
    SystemBundle::from_bytes(bytes, &TrustPolicy::default()).unwrap()
}

fn layout() -> Layout {
    let mut end = 16 * MIB;
    let mut place = |length: u64| {
        end += length;
        end - length..end
    };
    Layout {
        seal: MIB..2 * MIB,
        state: [4 * MIB..4 * MIB + SECTOR, 8 * MIB..8 * MIB + SECTOR],
        boot: place(MIB),
        system: [place(MIB / 2), place(MIB / 2)],
        data: place(MIB),
    }
}

/// The FAT partition of `file`, to be changed as a PC does.
fn on_fat(file: &File, range: Range<u64>, change: impl FnOnce(&fatfs::Dir<std::io::Cursor<&mut Vec<u8>>>)) {
    let mut file = file;
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.seek(SeekFrom::Start(range.start)).unwrap();
    file.read_exact(&mut bytes).unwrap();
    if bytes[510..512] != [0x55, 0xaa] {
        fatfs::format_volume(std::io::Cursor::new(&mut bytes), fatfs::FormatVolumeOptions::new()).unwrap();
    }
    let fat = fatfs::FileSystem::new(std::io::Cursor::new(&mut bytes), fatfs::FsOptions::new()).unwrap();
    change(&fat.root_dir());
    drop(fat);
    file.seek(SeekFrom::Start(range.start)).unwrap();
    file.write_all(&bytes).unwrap();
}

/// A fresh image in a file, and its list.
fn image(trusted: bool) -> (File, FileDisk, Layout, Seal) {
    let file = tempfile::tempfile().unwrap();
    let layout = layout();
    file.set_len(layout.end()).unwrap();
    let mut disk = FileDisk::from_file(file.try_clone().unwrap()).unwrap();
    disk.write_at(&layout.table(9).encode(), 0).unwrap();
    on_fat(&file, layout.boot.clone(), |root| {
        for (path, text) in [("camera.toml", "# as it was\n"), ("vmlinuz", "kernel"), ("README.txt", "read me")] {
            root.create_file(path).unwrap().write_all(text.as_bytes()).unwrap();
        }
    });
    // Unsigned, even where a key is trusted: the list vouches for it.
    let factory = system(1, None);
    for slot in Slot::BOTH {
        write_slot(&mut disk, layout.slot(slot), &factory, &mut |_| {}).unwrap();
    }
    BootState::first().write(&mut disk, &layout).unwrap();
    let facts = Facts {
        board: "virt".into(),
        version: "0.1".into(),
        created: 0,
        kernel: "6.1".into(),
        trusted: TrustPolicy { trusted: trusted.then(|| key().public()).into_iter().collect() },
        factory: factory.digest(),
    };
    let mut read = 0;
    let seal = Seal::make(&disk, &layout, facts, &mut |bytes| read += bytes).unwrap();
    assert_eq!(read, layout.end() - MIB);
    seal.write(&mut disk, &layout, trusted.then(key).as_ref()).unwrap();
    (file, disk, layout, seal)
}

fn verify(disk: &dyn Disk) -> Verdict {
    let layout = Layout::from_disk(disk).unwrap();
    let seal = Seal::read(disk, &layout, &TrustPolicy::default()).unwrap().seal;
    seal.verify(disk, &layout, &mut |_| {}).unwrap()
}

fn state<'a>(verdict: &'a Verdict, name: &str) -> &'a RegionState {
    &verdict.regions.iter().find(|r| r.name == name).unwrap_or_else(|| panic!("no region {name:?}")).state
}

fn changed(verdict: &Verdict, name: &str) -> String {
    match state(verdict, name) {
        RegionState::Changed(what) => what.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_fresh_image_is_as_its_list_says_and_the_list_says_who_signed() {
    let (_file, disk, layout, seal) = image(true);
    let verdict = verify(&disk);
    assert!(verdict.is_fresh() && verdict.is_good());
    let trust = TrustPolicy { trusted: vec![key().public()] };
    let sealed = Seal::read(&disk, &layout, &trust).unwrap();
    assert_eq!((sealed.signed, &sealed.seal), (Signed::ByTrusted(key().public()), &seal));
    assert_eq!(
        seal.files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(),
        ["README.txt", "camera.toml", "vmlinuz"]
    );
    let other = TrustPolicy { trusted: vec![SecretKey::from_seed(&[1; 32]).public()] };
    let refused = Seal::read(&disk, &layout, &other).unwrap_err();
    assert!(matches!(refused, SealError::List(PackageError::UntrustedSigner { .. })), "{refused}");
}

#[test]
fn a_card_in_use_is_good_and_not_fresh() {
    let (file, _, layout, _) = image(true);
    // A larger card, an edited file, a log, and an update that was kept.
    file.set_len(layout.end() + 5 * MIB).unwrap();
    let layout = layout.grown(layout.end() + 5 * MIB);
    let mut disk = FileDisk::from_file(file.try_clone().unwrap()).unwrap();
    disk.write_at(&layout.table(9).encode(), 0).unwrap();
    disk.write_at(b"log", layout.data.start + 77).unwrap();
    on_fat(&file, layout.boot.clone(), |root| {
        root.create_file("camera.toml").unwrap().write_all(b"# edited\n").unwrap();
        root.create_dir("System Volume Information").unwrap();
        root.create_file("System Volume Information/IndexerVolumeGuid").unwrap().write_all(b"x").unwrap();
    });
    let new = system(2, Some(&key()));
    let plan = check_system(&disk, &new, None, &mut |_| {}).unwrap();
    write_system(&mut disk, &plan, &new, &mut |_| {}).unwrap();
    let trust = Seal::read(&disk, &layout, &TrustPolicy::default()).unwrap().seal.trust();
    let started = boot::choose(&mut disk, &layout, &trust, &mut |_| {}).unwrap();
    assert_eq!((started.slot, started.trial, started.notes.len()), (Slot::B, true, 0));
    boot::keep(&mut disk, &layout).unwrap();

    let verdict = verify(&disk);
    assert!(verdict.is_good() && !verdict.is_fresh(), "{verdict:?}");
    assert_eq!(changed(&verdict, "partition table"), "the data partition has grown to 6 MiB");
    assert_eq!(changed(&verdict, "boot state, first copy"), "generation 4: b");
    let digest = hex(&new.digest()[..8]);
    assert_eq!(changed(&verdict, "system slot b"), format!("system 0.2 (sequence 2, {digest})"));
    assert_eq!(changed(&verdict, "boot partition"), "2 of its files are not as they were");
    assert_eq!(state(&verdict, "system slot a"), &RegionState::Same);
    assert_eq!(state(&verdict, "data partition"), &RegionState::NotCovered);
    let files: Vec<_> = verdict.files.iter().map(|f| (f.path.as_str(), f.state)).collect();
    let guid = "System Volume Information/IndexerVolumeGuid";
    assert_eq!(files, [(guid, FileState::New), ("camera.toml", FileState::Edited)]);
}

#[test]
fn an_interrupted_update_is_told_and_a_damaged_slot_is_bad() {
    let (_file, mut disk, layout, _) = image(false);
    let b = layout.slot(Slot::B);
    disk.write_at(&[9; 700], b.start).unwrap();
    assert!(!verify(&disk).is_good(), "a head that stands is a promise");
    disk.write_at(&vec![0; 64 << 10], b.end - (64 << 10)).unwrap();
    let verdict = verify(&disk);
    assert_eq!(changed(&verdict, "system slot b"), "an update was interrupted; repeat it");
    assert!(verdict.is_good());
    let a = layout.slot(Slot::A);
    disk.write_at(&vec![0; 64 << 10], a.end - (64 << 10)).unwrap();
    assert!(!verify(&disk).is_good(), "the slot that runs is empty");
}

#[test]
fn a_system_that_nobody_signed_is_bad_where_a_key_is_trusted() {
    for trusted in [false, true] {
        let (_file, mut disk, layout, _) = image(trusted);
        write_slot(&mut disk, layout.slot(Slot::B), &system(2, None), &mut |_| {}).unwrap();
        let verdict = verify(&disk);
        assert_eq!(verdict.is_good(), !trusted, "{verdict:?}");
    }
}

#[test]
fn files_that_boot_are_not_to_be_changed() {
    let (file, disk, layout, _) = image(false);
    on_fat(&file, layout.boot.clone(), |root| {
        root.create_file("vmlinuz").unwrap().write_all(b"another").unwrap();
        root.remove("README.txt").unwrap();
        root.create_file("trusted.pub").unwrap().write_all(b"x").unwrap();
    });
    let verdict = verify(&disk);
    assert!(!verdict.is_good());
    let files: Vec<_> = verdict.files.iter().map(|f| (f.path.as_str(), f.state)).collect();
    let wanted =
        [("README.txt", FileState::Missing), ("trusted.pub", FileState::Foreign), ("vmlinuz", FileState::Differs)];
    assert_eq!(files, wanted);
}

#[test]
fn a_card_that_is_too_small_is_named() {
    let (file, _, layout, _) = image(false);
    file.set_len(layout.end() - 1).unwrap();
    let error = Layout::from_disk(&FileDisk::from_file(file).unwrap()).unwrap_err();
    assert!(matches!(error, LayoutError::TooSmall { .. }) && error.to_string().contains("too small"), "{error}");
}

#[test]
fn the_data_partition_does_not_move_or_shrink_unseen() {
    let (_file, mut disk, layout, seal) = image(false);
    let mut smaller = layout.clone();
    smaller.data.end -= MIB / 2;
    let mut moved = layout.clone();
    moved.boot.end -= MIB / 2;
    for other in [smaller, moved] {
        disk.write_at(&other.table(9).encode(), 0).unwrap();
        let verdict = seal.verify(&disk, &Layout::from_disk(&disk).unwrap(), &mut |_| {}).unwrap();
        assert!(!verdict.is_good(), "{verdict:?}");
    }
    // A changed bit of its size is not a partition that has grown, whatever the layout it is compared with.
    for bit in 0..32 {
        let mut table = layout.table(9);
        table.entries[3].sectors ^= 1 << bit;
        disk.write_at(&table.encode(), 0).unwrap();
        let verdict = seal.verify(&disk, &layout, &mut |_| {}).unwrap();
        assert!(!verdict.is_good(), "bit {bit}: {verdict:?}");
    }
}

/// A device that accepts what it is given and keeps something else.
struct Failing(FileDisk, u64);

impl Disk for Failing {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_at(&self, buffer: &mut [u8], at: u64) -> std::io::Result<()> {
        self.0.read_at(buffer, at)
    }
    fn write_at(&mut self, bytes: &[u8], at: u64) -> std::io::Result<()> {
        let mut bytes = bytes.to_vec();
        if let Some(byte) = self.1.checked_sub(at).and_then(|i| bytes.get_mut(i as usize)) {
            *byte ^= 1;
        }
        self.0.write_at(&bytes, at)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn a_disk_that_keeps_something_else_is_found_out() {
    let (_file, disk, layout, _) = image(false);
    let slot = layout.slot(Slot::B);
    let mut failing = Failing(disk, slot.start + 20_000);
    let error = write_slot(&mut failing, slot.clone(), &system(2, None), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("it is failing"), "{error}");
    assert!(changed(&verify(&failing), "system slot b").contains("interrupted"), "the head was not written");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// One changed bit, anywhere: the image is not fresh any more, and where a device in use does not write it is bad.
    #[test]
    fn any_changed_bit_is_found(at in any::<prop::sample::Index>(), bit in 0u8..8, place in 0usize..8) {
        let (_file, mut disk, layout, seal) = image(true);
        // Most of an image is empty; every thing in it has its turn.
        let [first, second] = layout.state.clone();
        let [a, b] = layout.system.clone();
        let range = [0..SECTOR, MIB..MIB + 4096, first, second, layout.boot.clone(), a, b, 0..layout.end()][place].clone();
        let at = range.start + at.index((range.end - range.start) as usize) as u64;
        let mut byte = [0];
        disk.read_at(&mut byte, at).unwrap();
        byte[0] ^= 1 << bit;
        disk.write_at(&byte, at).unwrap();
        if layout.seal.contains(&at) {
            prop_assert!(Seal::read(&disk, &layout, &TrustPolicy::default()).is_err(), "byte {at}");
            return Ok(());
        }
        let verdict = seal.verify(&disk, &layout, &mut |_| {}).unwrap();
        prop_assert!(!verdict.is_fresh(), "byte {at}");
        let used = layout.data.contains(&at) || layout.boot.contains(&at) || layout.state.iter().any(|s| s.contains(&at));
        prop_assert!(used || !verdict.is_good(), "byte {at}: {verdict:?}");
    }
}
