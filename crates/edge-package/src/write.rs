//! A manifest and parts → the bytes of a container.

use crate::container::{
    FORMAT_VERSION, HEADER_DIGEST_AT, HEADER_LEN, MAX_MANIFEST, PAYLOAD_ALIGN, SIGNATURE_ALIGN, SIGNATURE_LEN, align,
};
use crate::{Content, PackageError, Part, SecretKey, digest};

/// Collects parts, then writes a container. The same manifest, parts and key give the same bytes.
#[derive(Default)]
pub struct PackageWriter {
    parts: Vec<(String, Vec<u8>)>,
}

impl PackageWriter {
    /// A writer without parts.
    pub fn new() -> PackageWriter {
        PackageWriter::default()
    }

    /// Appends a part; the first one of a package must be the model.
    pub fn part(&mut self, name: &str, bytes: Vec<u8>) {
        self.parts.push((name.into(), bytes));
    }

    /// The container's bytes. The parts that `manifest` lists are replaced by what was added with
    /// [`PackageWriter::part`].
    pub fn finish<M: Content>(&self, mut manifest: M, key: Option<&SecretKey>) -> Result<Vec<u8>, PackageError> {
        let too_large = || PackageError::Header("the file would be too large");
        let mut end = 0u64;
        let mut parts = Vec::with_capacity(self.parts.len());
        for (name, bytes) in &self.parts {
            let offset = align(end, PAYLOAD_ALIGN).ok_or_else(too_large)?;
            let length = bytes.len() as u64;
            parts.push(Part { name: name.clone(), offset, length, digest: digest(bytes) });
            end = offset + length;
        }
        manifest.set_parts(parts);
        manifest.validate()?;
        let encode = || Ok([postcard::to_stdvec(&manifest)?, manifest.addition()?].concat());
        let encoded = encode().map_err(|e: postcard::Error| PackageError::ManifestEncoding(e.to_string()))?;
        let manifest_len = encoded.len() as u64;
        if manifest_len > MAX_MANIFEST {
            return Err(too_large());
        }
        let signature_at = align(HEADER_LEN as u64 + manifest_len, SIGNATURE_ALIGN).ok_or_else(too_large)?;
        let signature_len = if key.is_some() { SIGNATURE_LEN } else { 0 };
        let payload = align(signature_at + signature_len, PAYLOAD_ALIGN).ok_or_else(too_large)?;
        let total = payload + end;

        let mut header = [0u8; HEADER_LEN];
        let mut put = |at: usize, field: &[u8]| header[at..at + field.len()].copy_from_slice(field);
        put(0, &M::KIND.magic);
        put(8, &FORMAT_VERSION.to_le_bytes());
        put(12, &(HEADER_LEN as u32).to_le_bytes());
        put(16, &total.to_le_bytes());
        put(24, &manifest_len.to_le_bytes());
        put(32, &digest(&encoded));
        put(64, &signature_len.to_le_bytes());
        put(72, &payload.to_le_bytes());
        let header_digest = digest(&header[..HEADER_DIGEST_AT]);
        header[HEADER_DIGEST_AT..].copy_from_slice(&header_digest);

        let mut out = Vec::with_capacity(total as usize);
        out.extend_from_slice(&header);
        out.extend_from_slice(&encoded);
        if let Some(key) = key {
            out.resize(signature_at as usize, 0);
            out.extend_from_slice(&key.public().to_bytes());
            out.extend_from_slice(&key.sign(&encoded));
        }
        for (part, (_, bytes)) in manifest.parts().iter().zip(&self.parts) {
            out.resize((payload + part.offset) as usize, 0);
            out.extend_from_slice(bytes);
        }
        // A container whose parts are all empty still reaches to its payload offset.
        out.resize(total as usize, 0);
        Ok(out)
    }
}
