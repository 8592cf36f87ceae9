//! What comes from a card or a file that anybody may have written: read or refused, never a panic.

use edge_package::{Content, Head, PackageWriter, TrustPolicy, Verified, Version, digest};
use edge_system::board::Board;
use edge_system::disk::Disk;
use edge_system::seal::{FileDigest, Region, RegionKind, Seal};
use edge_system::system::{
    Component, HEAD_ROOM, SQUASHFS, SystemBundle, SystemManifest, Trust, bundle, check_fill, read_slot,
};
use proptest::prelude::*;
use std::io;

fn manifest() -> SystemManifest {
    SystemManifest {
        board: "virt".into(),
        version: "1".into(),
        sequence: 2,
        minimum: 1,
        created: 3,
        kernel: Some("6.1".into()),
        runtime: Version { major: 0, minor: 1, patch: 0 },
        components: vec![Component { name: "busybox".into(), version: "1.35".into(), licence: "GPL-2.0".into() }],
        parts: vec![],
    }
}

fn seal() -> Seal {
    let region = |offset, length| Region { name: "r".into(), offset, length, digest: [1; 32], kind: RegionKind::Gap };
    let file = |path: &str| FileDigest { path: path.into(), length: 1, digest: [2; 32] };
    Seal {
        board: "virt".into(),
        version: "1".into(),
        created: 0,
        kernel: "6.1".into(),
        trusted: vec![],
        factory: [0; 32],
        regions: vec![region(0, 512), region(512, 1000)],
        files: vec![file("a"), file("b")],
    }
}

/// The bytes of a container whose manifest is any bytes, with all digests right.
fn container(magic: [u8; 8], manifest: &[u8], part: &[u8]) -> Vec<u8> {
    let payload = (128 + manifest.len()).next_multiple_of(64).next_multiple_of(4096);
    let mut bytes = vec![0; 128];
    bytes[..8].copy_from_slice(&magic);
    bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
    bytes[12..16].copy_from_slice(&128u32.to_le_bytes());
    bytes[16..24].copy_from_slice(&((payload + part.len()) as u64).to_le_bytes());
    bytes[24..32].copy_from_slice(&(manifest.len() as u64).to_le_bytes());
    bytes[32..64].copy_from_slice(&digest(manifest));
    bytes[72..80].copy_from_slice(&(payload as u64).to_le_bytes());
    let sum = digest(&bytes[..96]);
    bytes[96..].copy_from_slice(&sum);
    bytes.extend(manifest);
    bytes.resize(payload, 0);
    bytes.extend(part);
    bytes
}

/// A disk of bytes in memory that is not written to.
struct Bytes(Vec<u8>);

impl Disk for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let from = self.0.get(at as usize..).and_then(|b| b.get(..buffer.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(from);
        Ok(())
    }
    fn write_at(&mut self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn manifests_of_systems_that_contradict_themselves_are_refused() {
    type Change = fn(&mut SystemManifest);
    let cases: [(&str, Change); 5] = [
        ("is empty", |m| m.board.clear()),
        ("is empty", |m| m.kernel = Some(String::new())),
        ("control characters", |m| m.components[0].name = "a\nb".into()),
        ("newer than itself", |m| m.minimum = 3),
        ("a slot has room for 65536", |m| m.components = vec![m.components[0].clone(); 5000]),
    ];
    for (wanted, change) in cases {
        let mut m = manifest();
        change(&mut m);
        let message = bundle(m, vec![1], None).unwrap_err().to_string();
        assert!(message.contains(wanted), "{wanted:?} is not in {message:?}");
    }
    assert!(bundle(manifest(), vec![], None).unwrap_err().to_string().contains("not the file system"));
    // A package is not a system, and says what it is not.
    let message = SystemBundle::from_bytes(b"\x89EDGEPK\nxxxx".to_vec(), &TrustPolicy::default()).unwrap_err();
    assert!(message.to_string().contains("not an .edgesys file"), "{message}");
}

#[test]
fn lists_that_contradict_themselves_are_refused() {
    type Change = fn(&mut Seal);
    let cases: [(&str, Change); 5] = [
        ("overlap", |s| s.regions[1].offset = 511),
        ("beyond what a disk", |s| s.regions[1].length = u64::MAX),
        ("not in order", |s| s.files.reverse()),
        ("control characters", |s| s.files[0].path = "\n".into()),
        ("trusted key", |s| s.trusted.push([0; 32])),
    ];
    PackageWriter::new().finish(seal(), None).unwrap();
    for (wanted, change) in cases {
        let mut s = seal();
        change(&mut s);
        let message = PackageWriter::new().finish(s, None).unwrap_err().to_string();
        assert!(message.contains(wanted), "{wanted:?} is not in {message:?}");
    }
}

/// The start of a good manifest, then anything.
fn spoiled<M: Content>(writer: PackageWriter, manifest: M, keep: usize, junk: &[u8]) -> Vec<u8> {
    let bytes = writer.finish(manifest, None).unwrap();
    let length = u64::from_le_bytes(bytes[24..32].try_into().unwrap()) as usize;
    let mut manifest = bytes[128..128 + length.min(keep)].to_vec();
    manifest.extend(junk);
    manifest
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_system_manifest_is_read_or_refused(junk in prop::collection::vec(any::<u8>(), 1..200), keep in 0usize..120) {
        let mut writer = PackageWriter::new();
        writer.part(SQUASHFS, vec![5; 50]);
        let bytes = container(SystemManifest::KIND.magic, &spoiled(writer, manifest(), keep, &junk), &[5; 50]);
        if let Ok(bundle) = Verified::<SystemManifest>::from_bytes(bytes.clone(), &TrustPolicy::default()) {
            prop_assert_eq!(bundle.part(SQUASHFS).map(<[u8]>::len), Some(bundle.manifest().parts[0].length as usize));
        }
        // The same head at the end of a slot.
        let payload = bytes.len() - 50;
        let mut slot = vec![5; 4096];
        let mut head = bytes[..payload].to_vec();
        head.resize(HEAD_ROOM as usize, 0);
        slot.extend(head);
        let (disk, end) = (Bytes(slot), 4096 + HEAD_ROOM);
        if let Ok(slot) = read_slot(&disk, 0..end, &Trust::default(), &mut |_| {}) {
            prop_assert!(slot.squashfs.end <= 4096);
            check_fill(&disk, 0..end, &slot).unwrap();
        }
    }

    #[test]
    fn any_list_is_read_or_refused(junk in prop::collection::vec(any::<u8>(), 1..200), keep in 0usize..250) {
        let bytes = container(Seal::KIND.magic, &spoiled(PackageWriter::new(), seal(), keep, &junk), &[]);
        if let Ok(list) = Verified::<Seal>::from_bytes(bytes, &TrustPolicy::default()) {
            prop_assert!(list.manifest().validate().is_ok());
        }
    }

    #[test]
    fn any_head_room_is_read_or_refused(junk in prop::collection::vec(any::<u8>(), 0..400), size in 0u64..200_000) {
        let mut bytes = vec![0; size as usize];
        let at = size.saturating_sub(HEAD_ROOM) as usize;
        let length = junk.len().min(bytes.len() - at);
        bytes[at..at + length].copy_from_slice(&junk[..length]);
        let _ = read_slot(&Bytes(bytes.clone()), 0..size, &Trust::default(), &mut |_| {});
        let _ = Head::<SystemManifest>::read(&bytes[at..], &TrustPolicy::default());
    }

    #[test]
    fn any_text_is_a_board_or_refused(text in "\\PC{0,60}", lines in prop::collection::vec("[a-z-]{1,10} = (\"[a-z]{0,5}\"|[0-9]{1,12}|\\[\\])", 0..8)) {
        let _ = Board::from_toml(&text);
        let _ = Board::from_toml(&lines.join("\n"));
    }
}
