//! Bytes → `SystemBundle`, the head of a slot, and the list of digests. The digests that would stop nearly every mutation
//! are made to fit first.
#![no_main]
use edge_package::{Content, TrustPolicy, Verified, digest};
use edge_system::seal::Seal;
use edge_system::system::{SQUASHFS, SystemManifest};
use libfuzzer_sys::fuzz_target;

/// A container of this kind whose manifest is `manifest`, and whose payload is one part of `part` bytes.
fn container<M: Content>(manifest: &[u8], part: usize) -> Option<Verified<M>> {
    let payload = (128 + manifest.len()).next_multiple_of(4096);
    let mut bytes = vec![0; payload + part];
    bytes[..8].copy_from_slice(&M::KIND.magic);
    bytes[8] = 1;
    bytes[12] = 128;
    bytes[16..24].copy_from_slice(&((payload + part) as u64).to_le_bytes());
    bytes[24..32].copy_from_slice(&(manifest.len() as u64).to_le_bytes());
    bytes[32..64].copy_from_slice(&digest(manifest));
    bytes[72..80].copy_from_slice(&(payload as u64).to_le_bytes());
    let sum = digest(&bytes[..96]);
    bytes[96..128].copy_from_slice(&sum);
    bytes[128..128 + manifest.len()].copy_from_slice(manifest);
    Verified::from_bytes(bytes, &TrustPolicy::default()).ok()
}

fuzz_target!(|bytes: &[u8]| {
    let _ = Verified::<SystemManifest>::from_bytes(bytes.to_vec(), &TrustPolicy::default());
    // A digest is as hard to guess in a manifest: the part's is put where postcard has it, at the end.
    let (manifest, part) = bytes.split_at(bytes.len().saturating_sub(1));
    let part = usize::from(part.first().copied().unwrap_or_default());
    let mut manifest = manifest.to_vec();
    if let Some(at) = manifest.len().checked_sub(32) {
        manifest[at..].copy_from_slice(&digest(&vec![0; part]));
    }
    if let Some(bundle) = container::<SystemManifest>(&manifest, part) {
        assert!(bundle.manifest().validate().is_ok());
        assert_eq!(bundle.part(SQUASHFS).map(<[u8]>::len), Some(part));
    }
    if let Some(list) = container::<Seal>(bytes, 0) {
        assert!(list.manifest().validate().is_ok());
        let trust = list.manifest().trust();
        assert_eq!(trust.policy.trusted.len(), list.manifest().trusted.len());
    }
});
