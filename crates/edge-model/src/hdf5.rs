//! The little of HDF5 that Keras files need, behind a trait: groups with attributes, datasets of floats.
//!
//! The implementation is the `hdf5-reader` crate. No other file and no link out of the file is ever followed.

use hdf5_reader::{Dataset, Datatype, Hdf5File, OpenOptions, error::Error, group::Group};
use std::ops::Range;
use std::sync::Arc;

/// The eight bytes that an HDF5 file begins with.
pub const MAGIC: &[u8; 8] = b"\x89HDF\r\n\x1a\n";
/// No deflate stream grows by more than this factor.
const DEFLATE_LIMIT: usize = 1032;
/// What may be read from a file however small it is, in bytes.
const SMALL: usize = 16 << 20;
/// What may be read from any file: a protobuf cannot be larger. In bytes.
const LARGE: usize = 2 << 30;

/// A file of groups, attributes and datasets. Paths are spelled `group/group/dataset`; the root is the empty path.
pub trait Hdf5 {
    /// The strings of an attribute of a group; `None` where the group or the attribute is missing.
    fn strings(&self, group: &str, attribute: &str) -> Result<Option<Vec<String>>, String>;

    /// Names of the groups and of the datasets in a group; `None` where it is missing.
    fn members(&self, group: &str) -> Result<Option<Members>, String>;

    /// The dimensions of a dataset; `None` where it is missing.
    fn shape(&self, dataset: &str) -> Result<Option<Vec<usize>>, String>;

    /// The values of a dataset in row-major order: float16, bfloat16, float32 or float64, as float32. Other types are an
    /// error.
    fn floats(&self, dataset: &str) -> Result<Vec<f32>, String>;
}

/// What a group holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Members {
    /// Names of the groups.
    pub groups: Vec<String>,
    /// Names of the datasets.
    pub datasets: Vec<String>,
}

/// A part of a file's bytes, lent to the reader without a copy.
pub struct Bytes {
    bytes: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Bytes {
    /// The part of `bytes` in `range`; the empty part where there is no such range.
    pub fn new(bytes: Arc<Vec<u8>>, range: Range<usize>) -> Bytes {
        Bytes { bytes, range }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(self.range.clone()).unwrap_or_default()
    }
}

/// An HDF5 file in memory.
pub struct MemoryFile {
    file: Hdf5File,
    /// Bytes that may still be read, so that a small file cannot ask for much memory.
    budget: std::cell::Cell<usize>,
    /// The file's size in bytes.
    pub length: usize,
}

impl MemoryFile {
    /// Opens the file. What is read from it in all is bounded by what its size can hold, compressed.
    pub fn open(bytes: Bytes) -> Result<MemoryFile, String> {
        let length = bytes.as_ref().len();
        if !bytes.as_ref().starts_with(MAGIC) {
            return Err("it does not begin as HDF5 files do".into());
        }
        let budget = length.saturating_mul(DEFLATE_LIMIT).saturating_add(SMALL).min(LARGE);
        let options = OpenOptions::default().with_max_read_bytes(budget).with_max_chunk_bytes(budget);
        // Each chunk is read once; a cache would only hold memory.
        let options = options.with_chunk_cache_bytes(0);
        let file = Hdf5File::from_owner(bytes, options).map_err(|e| e.to_string())?;
        Ok(MemoryFile { file, budget: budget.into(), length })
    }

    fn group(&self, path: &str) -> Result<Option<Group>, String> {
        missing(self.file.group(path))
    }

    fn dataset(&self, path: &str) -> Result<Option<Dataset>, String> {
        missing(self.file.dataset(path))
    }
}

/// "Not there" is an answer; everything else is damage.
fn missing<T>(result: Result<T, Error>) -> Result<Option<T>, String> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(e) if is_missing(&e) => Ok(None),
        Err(e) => Err(e.to_string()),
    }
}

fn is_missing(error: &Error) -> bool {
    match error {
        Error::GroupNotFound(_) | Error::DatasetNotFound(_) | Error::AttributeNotFound(_) => true,
        Error::Context { source, .. } => is_missing(source),
        _ => false,
    }
}

impl Hdf5 for MemoryFile {
    fn strings(&self, group: &str, attribute: &str) -> Result<Option<Vec<String>>, String> {
        let Some(group) = self.group(group)? else { return Ok(None) };
        let Some(attribute) = missing(group.attribute(attribute))? else { return Ok(None) };
        // NumPy writes an empty list as an array of floats.
        if attribute.shape.contains(&0) {
            return Ok(Some(vec![]));
        }
        let strings = match attribute.shape.is_empty() {
            true => attribute.read_string().map(|s| vec![s]),
            false => attribute.read_strings(),
        };
        strings.map(Some).map_err(|e| e.to_string())
    }

    fn members(&self, group: &str) -> Result<Option<Members>, String> {
        let Some(group) = self.group(group)? else { return Ok(None) };
        let (groups, datasets) = group.member_names().map_err(|e| e.to_string())?;
        Ok(Some(Members { groups, datasets }))
    }

    fn shape(&self, dataset: &str) -> Result<Option<Vec<usize>>, String> {
        let Some(dataset) = self.dataset(dataset)? else { return Ok(None) };
        let sides = dataset.shape().iter().map(|d| usize::try_from(*d).map_err(|e| e.to_string()));
        sides.collect::<Result<_, _>>().map(Some)
    }

    fn floats(&self, path: &str) -> Result<Vec<f32>, String> {
        let dataset = self.dataset(path)?.ok_or_else(|| format!("there is no dataset {path}"))?;
        let damage = |e: Error| e.to_string();
        let number = Number::of(&dataset).map_err(damage)?;
        let bytes = dataset.raw_byte_len().map_err(damage)?;
        let left = self.budget.get().checked_sub(bytes);
        let left = left.ok_or("its datasets say they are larger than a file of this size can hold")?;
        self.budget.set(left);
        let raw = dataset.read_native_bytes().map_err(damage)?;
        Ok(number.read(&raw))
    }
}

/// How a number is stored, in this machine's byte order once it is read.
#[derive(Debug, Clone, Copy)]
enum Number {
    Half,
    Brain,
    Single,
    Double,
}

impl Number {
    fn of(dataset: &Dataset) -> Result<Number, Error> {
        Ok(match dataset.dtype() {
            Datatype::FloatingPoint { size: 2, .. } => {
                // The exponent's width tells float16 (5) from bfloat16 (8): byte 13 of the message, after class
                // and flags (4 bytes), size (4), bit offset (2), precision (2) and the exponent's place (1).
                match dataset.raw_datatype()?.get(13) {
                    Some(8) => Number::Brain,
                    _ => Number::Half,
                }
            }
            Datatype::FloatingPoint { size: 4, .. } => Number::Single,
            Datatype::FloatingPoint { size: 8, .. } => Number::Double,
            // Keras writes bfloat16 as two bytes without a meaning, and says so in an attribute.
            Datatype::Opaque { size: 2, .. } => Number::Brain,
            other => {
                return Err(Error::InvalidData(format!("weights are floating point numbers, these are {other:?}")));
            }
        })
    }

    fn read(self, raw: &[u8]) -> Vec<f32> {
        fn each<const N: usize>(raw: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            raw.as_chunks::<N>().0.iter().map(|c| value(*c)).collect()
        }
        match self {
            Number::Half => each(raw, |b| half::f16::from_ne_bytes(b).to_f32()),
            Number::Brain => each(raw, |b| half::bf16::from_le_bytes(b).to_f32()),
            Number::Single => each(raw, f32::from_ne_bytes),
            Number::Double => each(raw, |b| f64::from_ne_bytes(b) as f32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_hdf5_file_is_an_error() {
        for bytes in [&b""[..], b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n\0\0\0\0\0\0\0\0"] {
            let all = 0..bytes.len();
            assert!(MemoryFile::open(Bytes::new(Arc::new(bytes.to_vec()), all)).is_err());
        }
    }
}
