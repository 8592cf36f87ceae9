//! The trust boundary: what a package with any change in it becomes, and what each refusal says.

use edge_package::*;
use edge_vision::{Interpolation, Layout, Preprocess, ResizePolicy, ResizeSpec};
use proptest::prelude::*;

fn manifest() -> Manifest {
    Manifest {
        name: "test".into(),
        sequence: 7,
        boards: vec!["rpi4".into()],
        minimum_runtime: Version { major: 0, minor: 1, patch: 0 },
        created: 1_700_000_000,
        model: ModelInfo { part: "model.onnx".into(), opset: 17, precision: Precision::Float, output: "y".into() },
        input: InputSpec { name: "x".into(), layout: Layout::Nhwc, height: 8, width: 8 },
        resize: ResizeSpec {
            width: 8,
            height: 8,
            policy: ResizePolicy::FitShortest { shortest: 9 },
            interpolation: Interpolation::Bicubic,
        },
        preprocess: Preprocess::Affine { mean: [127.0; 3], std: [128.0; 3], bgr: false },
        activation: Activation::Softmax,
        threshold: Some(0.25),
        exif_orientation: false,
        labels: vec![
            Label { id: Some("n02123045".into()), label: "tabby".into() },
            Label { id: None, label: "Ofen".into() },
        ],
        goldens: vec![Golden {
            name: "synthetic-0".into(),
            source: GoldenSource::Synthetic { seed: 0, width: 8, height: 8 },
            tensor: [3; 32],
            logits: vec![0.5, -1.0],
        }],
        tolerance: Tolerance::Float { relative: 1e-3 },
        provenance: vec![("tool".into(), "test".into())],
        parts: vec![],
        tolerances: vec![],
    }
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn package(manifest: Manifest, signed: Option<&SecretKey>) -> Vec<u8> {
    let mut writer = PackageWriter::new();
    writer.part("model.onnx", (0..5000u32).map(|i| i as u8).collect());
    writer.part("golden/0", vec![9; 100]);
    writer.finish(manifest, signed).unwrap()
}

fn open(bytes: &[u8], trusted: &[&SecretKey]) -> Result<VerifiedPackage, PackageError> {
    let trust = TrustPolicy { trusted: trusted.iter().map(|k| k.public()).collect() };
    VerifiedPackage::from_bytes(bytes.to_vec(), &trust)
}

/// Makes the header's own digest fit again, as an attacker would.
fn reseal(bytes: &mut [u8]) {
    let seal = digest(&bytes[..96]);
    bytes[96..128].copy_from_slice(&seal);
}

#[test]
fn what_goes_in_comes_out_and_equal_input_gives_equal_bytes() {
    let bytes = package(manifest(), Some(&key(1)));
    assert_eq!(bytes, package(manifest(), Some(&key(1))));
    let package = open(&bytes, &[]).unwrap();
    let mut expected = manifest();
    expected.parts = package.manifest().parts.clone();
    assert_eq!(package.manifest(), &expected);
    assert_eq!(package.model().len(), 5000);
    assert_eq!(package.part("golden/0"), Some(&[9u8; 100][..]));
    assert_eq!(package.part("nothing"), None);
    assert_eq!(package.file_len(), bytes.len() as u64);
}

/// Packages that were made are read for ever: another digest is another format.
#[test]
fn the_format_does_not_change() {
    let digests = [Some(&key(1)), None].map(|signed| hex(&digest(&package(manifest(), signed))));
    assert_eq!(
        digests,
        [
            "c33652375d6a8c4326fb186ce7730ddef814ac91dec2a929c73016cd79b70730",
            "bea66a357724eb8b7ea97a124689f18a63280c280269cbba4ee282aa1be11966",
        ]
    );
}

/// A system slot keeps the head alone, followed by zero bytes.
#[test]
fn a_head_proves_itself_without_the_parts() {
    let key = key(1);
    for signed in [None, Some(&key)] {
        let package = open(&package(manifest(), signed), &[]).unwrap();
        let mut bytes = package.head().to_vec();
        for _ in 0..2 {
            let head = Head::<Manifest>::read(&bytes, &TrustPolicy::default()).unwrap();
            assert_eq!(
                (&head.manifest, head.digest, head.length),
                (package.manifest(), package.digest(), package.head().len())
            );
            assert_eq!((head.signed, head.total), (package.signed(), package.file_len()));
            bytes.resize(bytes.len() + 1000, 0);
        }
        for cut in [0, 7, 100, 127, 128, package.head().len() - 1] {
            assert!(Head::<Manifest>::read(&bytes[..cut], &TrustPolicy::default()).is_err(), "{cut}");
        }
        let trusting = TrustPolicy { trusted: vec![self::key(2).public()] };
        assert!(Head::<Manifest>::read(&bytes, &trusting).is_err());
    }
}

#[test]
fn a_mapped_file_is_aligned_for_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.edgepack");
    replace_file(&path, &package(manifest(), None), 0o644).unwrap();
    let package = VerifiedPackage::open(&path, &TrustPolicy::default()).unwrap();
    assert_eq!(package.model().as_ptr() as usize % 4096, 0);
    assert!(VerifiedPackage::open(dir.path(), &TrustPolicy::default()).is_err());
}

#[test]
fn trust_is_given_by_the_policy_alone() {
    let (signed, unsigned) = (package(manifest(), Some(&key(1))), package(manifest(), None));
    assert_eq!(open(&unsigned, &[]).unwrap().signed(), Signed::No);
    assert_eq!(open(&signed, &[]).unwrap().signed(), Signed::ByUnknown(key(1).public()));
    assert_eq!(open(&signed, &[&key(2), &key(1)]).unwrap().signed(), Signed::ByTrusted(key(1).public()));
    assert!(matches!(open(&signed, &[&key(2)]), Err(PackageError::UntrustedSigner { .. })));
    assert!(matches!(open(&unsigned, &[&key(2)]), Err(PackageError::Unsigned)));
}

#[test]
fn a_signature_taken_from_another_package_is_wrong() {
    let mut other = manifest();
    other.sequence += 1;
    let (mut bytes, other) = (package(manifest(), Some(&key(1))), package(other, Some(&key(1))));
    let manifest_len = u64::from_le_bytes(bytes[24..32].try_into().unwrap());
    let at = (128 + manifest_len).next_multiple_of(64) as usize;
    bytes[at..at + 96].copy_from_slice(&other[at..at + 96]);
    assert!(matches!(open(&bytes, &[]), Err(PackageError::Signature)));
}

#[test]
fn every_refusal_has_its_own_message() {
    let good = package(manifest(), Some(&key(1)));
    let messages = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        open(&bytes, &[]).unwrap_err().to_string()
    };
    let cases: Vec<(&str, String)> = vec![
        ("empty", messages(&|b| b.clear())),
        ("not an .edgepack", messages(&|b| b[1] = b'X')),
        ("truncated", messages(&|b| b.truncate(50))),
        ("truncated: 6000 bytes", messages(&|b| b.truncate(6000))),
        ("bytes after its end", messages(&|b| b.push(0))),
        ("format version 2", messages(&|b| b[8] = 2)),
        ("digest of the header", messages(&|b| b[30] ^= 1)),
        ("digest of the manifest", messages(&|b| b[130] ^= 1)),
        (
            "manifest length is absurd",
            messages(&|b| {
                b[24..32].fill(0xff);
                reseal(b)
            }),
        ),
        (
            "manifest length is absurd",
            messages(&|b| {
                b[24..32].fill(0);
                reseal(b)
            }),
        ),
        (
            "truncated",
            messages(&|b| {
                b[16..24].fill(0xff);
                reseal(b)
            }),
        ),
        (
            "neither 0 nor 96",
            messages(&|b| {
                b[64] = 95;
                reseal(b)
            }),
        ),
        (
            "payload offset",
            messages(&|b| {
                b[73] ^= 0x10;
                reseal(b)
            }),
        ),
        (
            "header length",
            messages(&|b| {
                b[12] = 64;
                reseal(b)
            }),
        ),
        (
            "reserved",
            messages(&|b| {
                b[85] = 1;
                reseal(b)
            }),
        ),
        ("padding", messages(&|b| b[4095] = 1)),
        ("part \"model.onnx\"", messages(&|b| b[4096] ^= 1)),
        ("part \"golden/0\"", messages(&|b| *b.last_mut().unwrap() ^= 1)),
    ];
    for (wanted, message) in cases {
        assert!(message.contains(wanted), "{wanted:?} is not in {message:?}");
    }
}

#[test]
fn manifests_that_contradict_themselves_are_refused_by_writer_and_reader() {
    type Change = fn(&mut Manifest);
    let cases: &[(&str, Change)] = &[
        ("name", |m| m.name.clear()),
        ("control characters", |m| m.labels[0].label = "a\nb".into()),
        ("labels", |m| m.labels.clear()),
        ("pixels", |m| m.input.width = 0),
        ("resize target", |m| m.resize.width = 9),
        ("threshold", |m| m.threshold = Some(f32::NAN)),
        ("tolerance", |m| m.tolerance = Tolerance::Float { relative: 10.0 }),
        ("tolerance", |m| m.tolerances = vec![("tensorrt".into(), Tolerance::Float { relative: 0.0 })]),
        ("two tolerances", |m| m.tolerances = vec![("cpu".into(), Tolerance::Float { relative: 0.01 })]),
        ("two tolerances", |m| m.tolerances = vec![("x".into(), Tolerance::Float { relative: 0.01 }); 2]),
        ("backends", |m| {
            m.tolerances = (0..17).map(|i| (i.to_string(), Tolerance::Float { relative: 0.01 })).collect();
        }),
        ("one finite logit per label", |m| m.goldens[0].logits = vec![1.0]),
        ("one finite logit per label", |m| m.goldens[0].logits[0] = f32::INFINITY),
        ("missing part", |m| m.goldens[0].source = GoldenSource::Part("x".into())),
        ("golden samples", |m| m.goldens.clear()),
        ("golden samples", |m| m.goldens = vec![m.goldens[0].clone(); 65]),
        ("pixels in all", |m| {
            let source = GoldenSource::Synthetic { seed: 0, width: 8000, height: 8000 };
            m.goldens[0].source = source;
        }),
        ("tolerance", |m| m.tolerance = Tolerance::Int8 { steps: 4, step: 1.0 }),
        ("unknown", |m| m.labels[1].label = "unknown".into()),
        ("part 0", |m| m.model.part = "other".into()),
    ];
    for (wanted, change) in cases {
        let mut m = manifest();
        change(&mut m);
        let mut writer = PackageWriter::new();
        writer.part("model.onnx", vec![1]);
        let message = writer.finish(m, None).unwrap_err().to_string();
        assert!(message.contains(wanted), "{wanted:?} is not in {message:?}");
    }
    let duplicate = {
        let mut writer = PackageWriter::new();
        writer.part("model.onnx", vec![1]);
        writer.part("model.onnx", vec![2]);
        writer.finish(manifest(), None)
    };
    assert!(duplicate.unwrap_err().to_string().contains("two parts"));
}

#[test]
fn runtime_and_board_are_checked() {
    let mut m = manifest();
    assert!(m.check_board("rpi4").is_ok());
    assert!(m.check_board("rpi3").unwrap_err().to_string().contains("rpi4"));
    m.boards.clear();
    assert!(m.check_board("rpi3").is_ok());
    let newer = Version { major: 0, minor: 2, patch: 0 };
    assert!(m.check_runtime(newer).is_ok());
    m.minimum_runtime = newer;
    assert!(m.check_runtime(Version { major: 0, minor: 1, patch: 9 }).is_err());
}

#[test]
fn key_files_say_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (secret, public) = (key(5), key(5).public());
    assert_eq!(SecretKey::read(&path("s", &secret.to_file_text())).unwrap().public(), public);
    assert_eq!(PublicKey::read(&path("p", &public.to_file_text())).unwrap(), public);
    let message = PublicKey::read(&path("x", &secret.to_file_text())).unwrap_err().to_string();
    assert!(message.contains("this is a secret key"), "{message}");
    for bad in ["", "\u{0}", "edgepack-public-key ed25519\n12", "edgepack-public-key ed25519\n", "ssh-ed25519 AAAA"] {
        assert!(PublicKey::read(&path("b", bad)).is_err(), "{bad:?}");
    }
    let all_zero = format!("edgepack-public-key ed25519\n{}\n", "0".repeat(64));
    assert!(PublicKey::read(&path("z", &all_zero)).is_err(), "a weak key is no key");
}

#[test]
fn replacing_a_file_keeps_the_old_one_on_failure() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    replace_file(&path, b"old", 0o600).unwrap();
    replace_file(&path, b"new", 0o600).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(replace_file(&dir.path().join("no/such/folder"), b"x", 0o600).is_err());
    // A folder cannot be replaced by a file: the rename fails, and nothing is left behind.
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    assert!(replace_file(&dir.path().join("folder"), b"x", 0o600).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any changed byte, anywhere, signed or not: an error, never a panic, never a package.
    #[test]
    fn any_changed_byte_is_an_error(at in any::<prop::sample::Index>(), flip in 1u8.., signed: bool) {
        let mut bytes = package(manifest(), signed.then(|| key(1)).as_ref());
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(open(&bytes, &[]).is_err(), "byte {at}");
    }

    /// The same when the attacker makes the unkeyed header digest fit again.
    #[test]
    fn any_changed_header_byte_is_an_error_even_resealed(at in 0usize..96, flip in 1u8..) {
        let mut bytes = package(manifest(), Some(&key(1)));
        bytes[at] ^= flip;
        reseal(&mut bytes);
        prop_assert!(open(&bytes, &[]).is_err(), "byte {at}");
    }

    #[test]
    fn any_cut_is_an_error(at in any::<prop::sample::Index>()) {
        let bytes = package(manifest(), None);
        prop_assert!(open(&bytes[..at.index(bytes.len())], &[]).is_err());
    }

    /// A manifest of any bytes, with every digest right: decoded or refused, never a panic.
    #[test]
    fn any_manifest_bytes_are_decoded_or_refused(junk in prop::collection::vec(any::<u8>(), 1..600), keep in 0usize..200) {
        let good = package(manifest(), None);
        let len = u64::from_le_bytes(good[24..32].try_into().unwrap()) as usize;
        let mut body = good[128..128 + len.min(keep)].to_vec();
        body.extend(junk);
        let mut bytes = good[..128].to_vec();
        bytes[24..32].copy_from_slice(&(body.len() as u64).to_le_bytes());
        bytes[32..64].copy_from_slice(&digest(&body));
        bytes.extend(&body);
        bytes.resize(4096.max(bytes.len().next_multiple_of(4096)), 0);
        let payload = (128 + body.len()).next_multiple_of(64).next_multiple_of(4096) as u64;
        bytes.truncate(payload as usize);
        bytes[72..80].copy_from_slice(&payload.to_le_bytes());
        bytes.extend(&good[good.len() - 4096 - 100..]);
        let total = bytes.len() as u64;
        bytes[16..24].copy_from_slice(&total.to_le_bytes());
        reseal(&mut bytes);
        let _ = open(&bytes, &[]);
    }
}

#[test]
fn tolerances_of_backends_come_after_everything_else_and_only_where_there_are_any() {
    let without = package(manifest(), None);
    let said = Tolerance::Float { relative: 0.05 };
    let with = package(Manifest { tolerances: vec![("tensorrt".into(), said)], ..manifest() }, Some(&key(1)));
    let read = open(&with, &[&key(1)]).unwrap();
    assert_eq!(read.manifest().tolerance_of("tensorrt"), said);
    // What was written before there was such a list reads as it did, and its bytes have not changed.
    let read = open(&without, &[]).unwrap();
    assert_eq!(read.manifest().tolerance_of("cpu"), Tolerance::Float { relative: 1e-3 });
    assert_eq!(read.manifest().tolerance_of("tensorrt"), Tolerance::Float { relative: 0.02 });
    let int8 = Manifest { tolerance: Tolerance::Int8 { steps: 4, step: 0.1 }, ..manifest() };
    assert_eq!(int8.tolerance_of("tensorrt"), Tolerance::Int8 { steps: 16, step: 0.1 });
    let alone = postcard::to_stdvec(read.manifest()).unwrap();
    assert_eq!(&without[128..][..alone.len()], alone);
    assert_eq!(u64::from_le_bytes(without[24..32].try_into().unwrap()), alone.len() as u64);
}
