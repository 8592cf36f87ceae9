//! The `.edgepack` file: everything a camera needs to classify, in one verified, optionally signed file. Other files
//! of the project are the same container with another magic and manifest ([`Content`]).
//!
//! Reading is a trust boundary: bytes become a [`Verified`] manifest with its parts or an error, and holding a
//! [`VerifiedPackage`] proves that every byte of the file is accounted for by a digest, that the manifest
//! obeys its rules, and that the [`TrustPolicy`] it was opened with is satisfied. Nothing here runs a model.
//!
//! # File format, version 1
//!
//! All integers are little-endian. `align(x, n)` rounds `x` up to a multiple of `n`.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `89 45 44 47 45 50 4B 0A` (`\x89EDGEPK\n`); another one for other kinds of container |
//! | 8 | 4 | format version, u32 = 1 |
//! | 12 | 4 | header length, u32 = 128 |
//! | 16 | 8 | total length of the file, u64 |
//! | 24 | 8 | manifest length M, u64, 1 … 16 MiB; the manifest starts at 128 |
//! | 32 | 32 | BLAKE3-256 of the manifest bytes: **the package digest** |
//! | 64 | 8 | signature length S, u64: 0 (unsigned) or 96; the signature starts at align(128 + M, 64) |
//! | 72 | 8 | payload offset, u64 = align(align(128 + M, 64) + S, 4096) |
//! | 80 | 16 | zero |
//! | 96 | 32 | BLAKE3-256 of bytes 0 … 95 |
//!
//! A signature is the 32-byte ed25519 public key followed by the 64-byte signature (RFC 8032) over the
//! exact manifest bytes. The key only says who signed; it is never by itself a reason for trust.
//!
//! The payload is a sequence of parts, uncompressed so that they can be mapped. Part 0 starts at the
//! payload offset, each further part at align(end of the part before, 4096); the file ends with the last
//! part. Every byte between two fields is zero, and readers check that. A part's name, relative offset,
//! length and BLAKE3-256 digest stand in the manifest.
//!
//! The manifest is [postcard](https://postcard.jamesmunns.com/wire-format) (varint integers, length-prefixed
//! strings and sequences, enums as varint index, f32 as 4 bytes) of [`Manifest`], fields in the order of
//! their declaration. After the last field may stand, where it is not empty, the list of tolerances of other backends (name,
//! tolerance); further bytes are an error. Types of `edge-vision` in it:
//! `ResizeSpec` is width u32, height u32, policy (0 squash; 1 fit-shortest with u32; 2 fit-longest with R, G, B u8),
//! interpolation (0 nearest, 1 bilinear, 2 bicubic, 3 lanczos, 4 box, 5 hamming); `Preprocess` is 0 none, 1 tf, 2 torch, 3 caffe, 4 affine with
//! mean 3 × f32, std 3 × f32, bgr u8; `Layout` is 0 NHWC, 1 NCHW.

mod container;
mod content;
mod error;
mod manifest;
mod metadata;
mod sign;
mod storage;
mod write;

pub use container::{FORMAT_VERSION, Head, MAGIC, Signed, TrustPolicy, Verified, VerifiedPackage};
pub use content::{Content, Kind};
pub use error::PackageError;
pub use manifest::{
    Activation, CPU_FLOAT16, Golden, GoldenSource, InputSpec, Label, MAX_GOLDENS, MAX_LABELS, Manifest, ModelInfo,
    Part, Precision, Tolerance, UNKNOWN, Version,
};
pub use metadata::{
    Metadata, MetadataError, QUANTIZATION, Resize, activation_from_name, label_json, number_json, parse_labels,
    preprocess_from_json, preprocess_json, resize_from_json, resize_json,
};
pub use sign::{KeyError, LinkKey, PublicKey, SecretKey};
pub use storage::{Files, Storage, replace, replace_file, replace_through};
pub use write::PackageWriter;

/// A BLAKE3-256 digest.
pub type Digest = [u8; 32];

/// The BLAKE3-256 digest of `bytes`.
pub fn digest(bytes: &[u8]) -> Digest {
    *blake3::hash(bytes).as_bytes()
}

/// Lower-case hexadecimal, as digests and keys are shown everywhere.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
