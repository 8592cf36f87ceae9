//! [`Manifest`] and parts → the bytes of a package.

use crate::container::{
    FORMAT_VERSION, HEADER_DIGEST_AT, HEADER_LEN, MAGIC, MAX_MANIFEST, PAYLOAD_ALIGN, SIGNATURE_ALIGN, SIGNATURE_LEN,
    align,
};
use crate::{Manifest, PackageError, Part, SecretKey, digest};
use std::io::Write;
use std::path::Path;

/// Collects parts, then writes a package. The same manifest, parts and key give the same bytes.
#[derive(Default)]
pub struct PackageWriter {
    parts: Vec<(String, Vec<u8>)>,
}

impl PackageWriter {
    /// A writer without parts.
    pub fn new() -> PackageWriter {
        PackageWriter::default()
    }

    /// Appends a part; the first one must be the model.
    pub fn part(&mut self, name: &str, bytes: Vec<u8>) {
        self.parts.push((name.into(), bytes));
    }

    /// The package's bytes. `manifest.parts` is replaced by what was added with [`PackageWriter::part`].
    pub fn finish(&self, mut manifest: Manifest, key: Option<&SecretKey>) -> Result<Vec<u8>, PackageError> {
        let too_large = || PackageError::Header("the package would be too large");
        let mut end = 0u64;
        manifest.parts.clear();
        for (name, bytes) in &self.parts {
            let offset = align(end, PAYLOAD_ALIGN).ok_or_else(too_large)?;
            let length = bytes.len() as u64;
            manifest.parts.push(Part { name: name.clone(), offset, length, digest: digest(bytes) });
            end = offset + length;
        }
        manifest.validate()?;
        let encoded = postcard::to_stdvec(&manifest).map_err(|e| PackageError::ManifestEncoding(e.to_string()))?;
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
        put(0, &MAGIC);
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
        for (part, (_, bytes)) in manifest.parts.iter().zip(&self.parts) {
            out.resize((payload + part.offset) as usize, 0);
            out.extend_from_slice(bytes);
        }
        // A package whose parts are all empty still reaches to its payload offset.
        out.resize(total as usize, 0);
        Ok(out)
    }
}

/// Writes `bytes` to a temporary file beside `path`, syncs it, and renames it into place: whoever opens
/// `path` sees the whole old file or the whole new one. On failure the old file stays and the temporary
/// one is removed. `mode` is the file's Unix mode. A link is followed, so that what it names is replaced;
/// a device, pipe or folder is refused, since a rename would destroy it.
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let resolved = match path.canonicalize() {
        Ok(real) if !real.metadata()?.is_file() => {
            let what = "it exists and is not a regular file";
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, what));
        }
        Ok(real) => real,
        Err(_) => path.into(),
    };
    let path = resolved.as_path();
    let name = path.file_name().ok_or(std::io::ErrorKind::InvalidFilename)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder.join(temporary);
    // A file of this name can only be the leftover of a killed process with our id.
    let _ = std::fs::remove_file(&temporary);
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    let result = write();
    match &result {
        // The file is in place; a folder that cannot be opened for syncing takes nothing away from that.
        Ok(()) => drop(std::fs::File::open(folder).and_then(|f| f.sync_all())),
        Err(_) => drop(std::fs::remove_file(&temporary)),
    }
    result
}
