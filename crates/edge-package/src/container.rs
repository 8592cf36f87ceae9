//! Bytes → [`Verified`], for every kind of container. The layout is specified in the crate's documentation.

use crate::{Content, Digest, Manifest, PackageError, Part, PublicKey, digest};
use memmap2::Mmap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

/// The first eight bytes of every package.
pub const MAGIC: [u8; 8] = <Manifest as Content>::KIND.magic;
/// The version this build writes and reads.
pub const FORMAT_VERSION: u32 = 1;

pub(crate) const HEADER_LEN: usize = 128;
pub(crate) const HEADER_DIGEST_AT: usize = 96;
pub(crate) const SIGNATURE_ALIGN: u64 = 64;
pub(crate) const PAYLOAD_ALIGN: u64 = 4096;
pub(crate) const SIGNATURE_LEN: u64 = 96;
pub(crate) const MAX_MANIFEST: u64 = 16 << 20;

/// Whose packages are accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustPolicy {
    /// With no key, any intact package is accepted, signed or not; otherwise only those signed by one of these.
    pub trusted: Vec<PublicKey>,
}

/// What the signature of a package says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// No signature.
    No,
    /// Rightly signed by this key, which nobody vouched for.
    ByUnknown(PublicKey),
    /// Rightly signed by this key, which is among the trusted ones.
    ByTrusted(PublicKey),
}

enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Owned(vec) => vec,
        }
    }
}

/// A container whose every byte has been checked. Holding one proves: the length and all digests are right,
/// padding is zero, the manifest passed [`Content::validate`], the signature (where there is one) fits
/// the manifest, and the [`TrustPolicy`] was satisfied. The bytes checked are the bytes served:
/// files are mapped once and verified in that mapping, so a file in use may only ever be replaced
/// by rename, never written to.
pub struct Verified<M> {
    bytes: Bytes,
    head: Head<M>,
}

/// An `.edgepack` file whose every byte has been checked.
pub type VerifiedPackage = Verified<Manifest>;

impl<M> std::fmt::Debug for Verified<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verified({})", crate::hex(&self.head.digest[..8]))
    }
}

/// What stands before a container's parts: header, manifest and signature. It proves itself without the parts, whose
/// lengths and digests it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Head<M> {
    /// What the container says of itself; it passed [`Content::validate`].
    pub manifest: M,
    /// BLAKE3-256 of the manifest's bytes.
    pub digest: Digest,
    /// Who signed.
    pub signed: Signed,
    /// Length in bytes: the signature ends here, or the manifest where there is no signature.
    pub length: usize,
    /// Where the parts begin in the container, in bytes.
    pub payload: usize,
    /// Length of the whole container in bytes.
    pub total: u64,
}

pub(crate) fn align(x: u64, to: u64) -> Option<u64> {
    x.checked_next_multiple_of(to)
}

fn u64_at(bytes: &[u8; HEADER_LEN], at: usize) -> u64 {
    let mut le = [0; 8];
    le.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(le)
}

fn u32_at(bytes: &[u8; HEADER_LEN], at: usize) -> u32 {
    let mut le = [0; 4];
    le.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(le)
}

impl<M: Content> Head<M> {
    /// Reads a head from the start of `bytes`; what follows it is not looked at.
    pub fn read(bytes: &[u8], trust: &TrustPolicy) -> Result<Head<M>, PackageError> {
        Header::read::<M>(bytes)?.head(bytes, trust)
    }
}

/// A header that proved itself, and where it says that things stand.
struct Header {
    total: u64,
    manifest_digest: Digest,
    layout: Layout,
}

impl Header {
    fn read<M: Content>(bytes: &[u8]) -> Result<Header, PackageError> {
        let length = bytes.len() as u64;
        if length == 0 {
            return Err(PackageError::Empty { wanted: M::KIND.name });
        }
        let magic = &bytes[..bytes.len().min(M::KIND.magic.len())];
        if magic != &M::KIND.magic[..magic.len()] {
            return Err(PackageError::NotAPackage { wanted: M::KIND.name, make: M::KIND.make });
        }
        let expected = HEADER_LEN as u64;
        let header: &[u8; HEADER_LEN] =
            bytes.first_chunk().ok_or(PackageError::Truncated { found: length, expected })?;
        // The version comes first: another version may place and digest everything else differently.
        let version = u32_at(header, 8);
        if version != FORMAT_VERSION {
            return Err(PackageError::Version { found: version, supported: FORMAT_VERSION });
        }
        if digest(&header[..HEADER_DIGEST_AT]) != header[HEADER_DIGEST_AT..] {
            return Err(PackageError::Digest { what: "the header".into() });
        }
        if u32_at(header, 12) != HEADER_LEN as u32 {
            return Err(PackageError::Header("the header length is not 128"));
        }
        if header[80..HEADER_DIGEST_AT].iter().any(|b| *b != 0) {
            return Err(PackageError::Header("reserved bytes are not zero"));
        }
        let total = u64_at(header, 16);
        let mut manifest_digest = Digest::default();
        manifest_digest.copy_from_slice(&header[32..64]);
        Ok(Header { total, manifest_digest, layout: Layout::from_header(header, total)? })
    }

    fn head<M: Content>(&self, bytes: &[u8], trust: &TrustPolicy) -> Result<Head<M>, PackageError> {
        let Layout { manifest, signature, payload } = self.layout.clone();
        // Without a signature the head ends with the manifest.
        let length = if signature.is_empty() { manifest.end } else { signature.end };
        if bytes.len() < length {
            return Err(PackageError::Truncated { found: bytes.len() as u64, expected: length as u64 });
        }
        let manifest_bytes = &bytes[manifest.clone()];
        if digest(manifest_bytes) != self.manifest_digest {
            return Err(PackageError::Digest { what: "the manifest".into() });
        }
        let block = bytes.get(signature.clone()).unwrap_or_default();
        if !block.is_empty() {
            check_zero(bytes, manifest.end..signature.start)?;
        }
        let signed = check_signature(manifest_bytes, block, trust)?;

        // Only now, with the signature settled, is the manifest's content looked at.
        let bad = |e: postcard::Error| PackageError::ManifestEncoding(e.to_string());
        let (mut manifest, mut rest) = postcard::take_from_bytes::<M>(manifest_bytes).map_err(bad)?;
        if !rest.is_empty() {
            rest = manifest.add(rest).map_err(bad)?;
        }
        if !rest.is_empty() {
            return Err(PackageError::ManifestEncoding(format!("{} bytes too many", rest.len())));
        }
        manifest.validate()?;
        Ok(Head { manifest, digest: self.manifest_digest, signed, length, payload, total: self.total })
    }
}

impl<M: Content> Verified<M> {
    /// Opens, maps and verifies a file.
    pub fn open(path: &Path, trust: &TrustPolicy) -> Result<Verified<M>, PackageError> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(std::io::Error::from(std::io::ErrorKind::IsADirectory).into());
        }
        if !metadata.is_file() {
            return Err(PackageError::Io(std::io::Error::other("not a regular file")));
        }
        if metadata.len() == 0 {
            return Err(PackageError::Empty { wanted: M::KIND.name });
        }
        // SAFETY: the mapping is private and read-only. Its content can only change under us if somebody
        // writes into a package in place, which the package's contract (replace by rename) forbids.
        let map = unsafe { Mmap::map(&file)? };
        Self::verify(Bytes::Mapped(map), trust)
    }

    /// Verifies a container held in memory.
    pub fn from_bytes(bytes: Vec<u8>, trust: &TrustPolicy) -> Result<Verified<M>, PackageError> {
        Self::verify(Bytes::Owned(bytes), trust)
    }

    fn verify(bytes: Bytes, trust: &TrustPolicy) -> Result<Verified<M>, PackageError> {
        let header = Header::read::<M>(&bytes)?;
        let (length, total) = (bytes.len() as u64, header.total);
        if length < total {
            return Err(PackageError::Truncated { found: length, expected: total });
        }
        if length > total {
            return Err(PackageError::TrailingBytes { extra: length - total });
        }
        let head = header.head::<M>(&bytes, trust)?;
        check_zero(&bytes, head.length..head.payload)?;
        check_parts(&bytes, head.manifest.parts(), head.payload)?;
        let verified = Verified { bytes, head };
        verified.release(&verified.bytes);
        Ok(verified)
    }

    /// Gives back the memory of a part that is not needed for now. Nothing is lost: read again, it comes from the file.
    pub fn release(&self, part: &[u8]) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = &self.bytes
            && let Some(from) = (part.as_ptr() as usize).checked_sub(map.as_ptr() as usize)
            && from + part.len() <= map.len()
        {
            // Whole pages of any size that there is; a refusal changes nothing but memory.
            const PAGE: usize = 1 << 16;
            let (first, end) = (from.next_multiple_of(PAGE), (from + part.len()) / PAGE * PAGE);
            if first < end {
                // SAFETY: the mapping is of a file, private and never written to, so its pages can be had again.
                let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, first, end - first) };
            }
        }
    }

    /// What the container says of itself.
    pub fn manifest(&self) -> &M {
        &self.head.manifest
    }

    /// The whole container.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes before the parts: header, manifest and signature.
    pub fn head(&self) -> &[u8] {
        // In bounds: `Header::head` read them from here.
        &self.bytes[..self.head.length]
    }

    /// The container's digest: BLAKE3-256 of the manifest bytes, which in turn hold the digest of every part.
    pub fn digest(&self) -> Digest {
        self.head.digest
    }

    /// The first 16 hexadecimal digits of the digest, as logs show it.
    pub fn short_digest(&self) -> String {
        crate::hex(&self.head.digest[..8])
    }

    /// Who signed.
    pub fn signed(&self) -> Signed {
        self.head.signed
    }

    /// The whole file's length in bytes.
    pub fn file_len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The bytes of a part.
    pub fn part(&self, name: &str) -> Option<&[u8]> {
        let part = self.head.manifest.parts().iter().find(|p| p.name == name)?;
        // In bounds: `check_parts` proved it for every part of the manifest.
        let start = self.head.payload + part.offset as usize;
        self.bytes.get(start..start + part.length as usize)
    }
}

impl VerifiedPackage {
    /// The ONNX file, mapped.
    pub fn model(&self) -> &[u8] {
        self.part(&self.manifest().model.part).unwrap_or_default()
    }
}

/// Where things stand, all proven to lie within the file and in the one place the format allows.
#[derive(Clone)]
struct Layout {
    manifest: Range<usize>,
    signature: Range<usize>,
    payload: usize,
}

impl Layout {
    fn from_header(header: &[u8; HEADER_LEN], total: u64) -> Result<Layout, PackageError> {
        let manifest_len = u64_at(header, 24);
        if !(1..=MAX_MANIFEST).contains(&manifest_len) {
            return Err(PackageError::Header("the manifest length is absurd"));
        }
        let signature_len = u64_at(header, 64);
        if signature_len != 0 && signature_len != SIGNATURE_LEN {
            return Err(PackageError::Header("the signature length is neither 0 nor 96"));
        }
        let manifest_end = HEADER_LEN as u64 + manifest_len;
        let out_of_bounds = PackageError::Header("a field lies beyond the end of the file");
        let Some(signature) = align(manifest_end, SIGNATURE_ALIGN) else {
            return Err(out_of_bounds);
        };
        let Some(payload) = align(signature + signature_len, PAYLOAD_ALIGN) else {
            return Err(out_of_bounds);
        };
        if u64_at(header, 72) != payload {
            return Err(PackageError::Header("the payload offset is not where the format puts it"));
        }
        if payload > total {
            return Err(out_of_bounds);
        }
        Ok(Layout {
            manifest: HEADER_LEN..manifest_end as usize,
            signature: signature as usize..(signature + signature_len) as usize,
            payload: payload as usize,
        })
    }
}

fn check_zero(bytes: &[u8], range: Range<usize>) -> Result<(), PackageError> {
    match bytes[range.clone()].iter().position(|b| *b != 0) {
        None => Ok(()),
        Some(i) => Err(PackageError::Padding { at: (range.start + i) as u64 }),
    }
}

fn check_signature(manifest: &[u8], block: &[u8], trust: &TrustPolicy) -> Result<Signed, PackageError> {
    let Some((key, signature)) = block.split_first_chunk::<32>() else {
        return if trust.trusted.is_empty() { Ok(Signed::No) } else { Err(PackageError::Unsigned) };
    };
    let signature: &[u8; 64] = signature.try_into().map_err(|_| PackageError::Signature)?;
    let key = PublicKey::from_bytes(key).map_err(|_| PackageError::Signature)?;
    if !key.verifies(manifest, signature) {
        return Err(PackageError::Signature);
    }
    if trust.trusted.contains(&key) {
        Ok(Signed::ByTrusted(key))
    } else if trust.trusted.is_empty() {
        Ok(Signed::ByUnknown(key))
    } else {
        Err(PackageError::UntrustedSigner { signer: key.to_bytes() })
    }
}

/// Proves that the parts tile the payload exactly and that each has its digest.
fn check_parts(bytes: &[u8], parts: &[Part], payload: usize) -> Result<(), PackageError> {
    let bad = |name: &str| PackageError::Manifest(format!("part {name:?} is not where the format puts it"));
    let available = (bytes.len() - payload) as u64;
    let mut end = 0u64;
    for part in parts {
        let start = align(end, PAYLOAD_ALIGN).ok_or_else(|| bad(&part.name))?;
        if part.offset != start {
            return Err(bad(&part.name));
        }
        let next = start.checked_add(part.length).filter(|e| *e <= available).ok_or_else(|| bad(&part.name))?;
        check_zero(bytes, payload + end as usize..payload + start as usize)?;
        if digest(&bytes[payload + start as usize..payload + next as usize]) != part.digest {
            return Err(PackageError::Digest { what: format!("part {:?}", part.name) });
        }
        end = next;
    }
    if end != available {
        return Err(PackageError::Header("the file is longer than its parts"));
    }
    Ok(())
}
