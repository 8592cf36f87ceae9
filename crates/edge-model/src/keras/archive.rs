//! What is in the file: the layers' description and the weights, out of a `.keras` zip or an HDF5 file.

use crate::ImportError;
use crate::hdf5::{Bytes, Hdf5, MAGIC, MemoryFile};
use std::io::{Cursor, Read};
use std::ops::Range;
use std::sync::Arc;

/// How a zip archive with entries begins.
pub const ZIP_MAGIC: &[u8; 4] = b"PK\x03\x04";
/// The largest description of layers, in bytes. NASNetLarge's has 1.2 MB.
const MAX_CONFIG: u64 = 16 << 20;
/// The largest weights, in bytes: ONNX files cannot be larger.
const MAX_WEIGHTS: u64 = 2 << 30;
/// Weights hardly compress. An entry that grows by more than this factor, and beyond `SMALL`, is a bomb.
const MAX_RATIO: u64 = 100;
/// What an entry may grow to at any factor, in bytes.
const SMALL: u64 = 16 << 20;

/// A Keras file, taken apart.
pub struct Archive {
    /// The JSON of the model; `None` in a file of weights only.
    pub config: Option<Vec<u8>>,
    /// The weights.
    pub weights: MemoryFile,
    /// The group that the weights hang under: empty, or `model_weights` in a whole-model HDF5 file.
    pub root: &'static str,
    /// `Keras 3.3.3`, as the file says, or what kind of file it is.
    pub producer: String,
}

/// Whether these bytes begin as Keras files do: a zip archive or HDF5.
pub fn is_keras(start: &[u8]) -> bool {
    start.starts_with(ZIP_MAGIC) || start.starts_with(MAGIC)
}

impl Archive {
    /// Takes the file apart.
    pub fn open(bytes: Vec<u8>) -> Result<Archive, ImportError> {
        let bytes = Arc::new(bytes);
        match &bytes[..] {
            b if b.starts_with(ZIP_MAGIC) => open_zip(&bytes),
            b if b.starts_with(MAGIC) => open_hdf5(&bytes),
            [] => Err(ImportError::NotKeras("the file is empty".into())),
            _ => Err(ImportError::NotKeras("it is neither a zip archive (.keras) nor HDF5 (.h5)".into())),
        }
    }
}

fn open_hdf5(bytes: &Arc<Vec<u8>>) -> Result<Archive, ImportError> {
    let weights = MemoryFile::open(Bytes::new(bytes.clone(), 0..bytes.len())).map_err(ImportError::Hdf5)?;
    let text = |group: &str, name: &str| -> Result<Option<String>, ImportError> {
        Ok(weights.strings(group, name).map_err(ImportError::Hdf5)?.and_then(|s| s.into_iter().next()))
    };
    let config = text("", "model_config")?.map(String::into_bytes);
    if config.as_ref().is_some_and(|c| c.len() as u64 > MAX_CONFIG) {
        return Err(ImportError::Config(format!("it is larger than {MAX_CONFIG} bytes")));
    }
    let root = match weights.members("model_weights").map_err(ImportError::Hdf5)? {
        Some(_) => "model_weights",
        None => "",
    };
    let producer = match text("", "keras_version")?.or(text(root, "keras_version")?) {
        Some(version) => format!("Keras {version}"),
        None => "Keras (HDF5)".into(),
    };
    Ok(Archive { config, weights, root, producer })
}

fn open_zip(bytes: &Arc<Vec<u8>>) -> Result<Archive, ImportError> {
    let damage = |e: zip::result::ZipError| ImportError::Archive(e.to_string());
    let mut zip = zip::ZipArchive::new(Cursor::new(&bytes[..])).map_err(damage)?;
    let config = entry(&mut zip, bytes, "config.json", MAX_CONFIG)?;
    let producer = match entry(&mut zip, bytes, "metadata.json", MAX_CONFIG) {
        Ok(metadata) => version(metadata.as_ref()),
        Err(_) => None,
    };
    let weights = entry(&mut zip, bytes, "model.weights.h5", MAX_WEIGHTS)?;
    let weights = MemoryFile::open(weights).map_err(|e| ImportError::Archive(format!("model.weights.h5: {e}")))?;
    Ok(Archive {
        config: Some(config.as_ref().to_vec()),
        weights,
        root: "",
        producer: producer.map_or("Keras 3".into(), |v| format!("Keras {v}")),
    })
}

fn version(metadata: &[u8]) -> Option<String> {
    let metadata: serde_json::Value = serde_json::from_slice(metadata).ok()?;
    Some(metadata.get("keras_version")?.as_str()?.to_string())
}

/// One entry of the archive: lent from the file where it is stored, unpacked where it is compressed.
fn entry(
    zip: &mut zip::ZipArchive<Cursor<&[u8]>>,
    bytes: &Arc<Vec<u8>>,
    name: &str,
    limit: u64,
) -> Result<Bytes, ImportError> {
    let fail = |why: String| ImportError::Archive(format!("{name}: {why}"));
    let mut file = match zip.by_name(name) {
        Ok(file) => file,
        Err(zip::result::ZipError::FileNotFound) => return Err(fail("it is not in the archive".into())),
        Err(e) => return Err(fail(e.to_string())),
    };
    let (size, packed) = (file.size(), file.compressed_size());
    if size > limit {
        return Err(fail(format!("{size} bytes are more than the {limit} that are possible")));
    }
    if file.compression() == zip::CompressionMethod::Stored {
        let part = file.data_start().and_then(|start| stored(start, size, bytes.len()));
        let part = part.filter(|_| size == packed).ok_or_else(|| fail("the archive is cut off".into()))?;
        // Reading to the end checks the CRC.
        std::io::copy(&mut file, &mut std::io::sink()).map_err(|e| fail(e.to_string()))?;
        return Ok(Bytes::new(bytes.clone(), part));
    }
    if size > SMALL && size / MAX_RATIO > packed {
        return Err(fail(format!("{packed} bytes that claim to unpack to {size}; no weights compress like that")));
    }
    let mut unpacked = vec![];
    // One byte more than promised, to see whether the promise was kept.
    let read = file.by_ref().take(size + 1).read_to_end(&mut unpacked).map_err(|e| fail(e.to_string()))?;
    if read as u64 != size {
        return Err(fail(format!("it unpacks to another size than the {size} bytes that it claims")));
    }
    Ok(Bytes::new(Arc::new(unpacked), 0..read))
}

fn stored(start: u64, size: u64, length: usize) -> Option<Range<usize>> {
    let start = usize::try_from(start).ok()?;
    let end = start.checked_add(usize::try_from(size).ok()?)?;
    (end <= length).then_some(start..end)
}
