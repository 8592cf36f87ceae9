//! Bytes → `VerifiedPackage`. The digests that would stop nearly every mutation are made to fit first, so
//! that the fuzzer gets to the header's fields and to the manifest.
#![no_main]
use edge_package::{TrustPolicy, VerifiedPackage, digest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    let _ = VerifiedPackage::from_bytes(bytes.clone(), &TrustPolicy::default());
    if bytes.len() < 128 {
        return;
    }
    let manifest = u64::from_le_bytes(bytes[24..32].try_into().unwrap_or_default());
    if let Some(manifest) = bytes.get(128..).and_then(|b| b.get(..usize::try_from(manifest).unwrap_or(usize::MAX))) {
        let fits = digest(manifest);
        bytes[32..64].copy_from_slice(&fits);
    }
    let total = bytes.len() as u64;
    bytes[16..24].copy_from_slice(&total.to_le_bytes());
    let seal = digest(&bytes[..96]);
    bytes[96..128].copy_from_slice(&seal);
    if let Ok(package) = VerifiedPackage::from_bytes(bytes, &TrustPolicy::default()) {
        assert!(package.manifest().validate().is_ok());
        for part in &package.manifest().parts {
            assert_eq!(package.part(&part.name).map(<[u8]>::len), Some(part.length as usize));
        }
    }
});
