//! What one kind of container differs in from another: its magic and its manifest.

use crate::{Manifest, PackageError, Part};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A kind of container: how it begins, and what messages say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The first eight bytes.
    pub magic: [u8; 8],
    /// What it is called, with its article.
    pub name: &'static str,
    /// The command that makes one.
    pub make: &'static str,
}

/// A manifest that a container can carry. It is written with postcard, so the order of its fields is the wire format.
pub trait Content: Serialize + DeserializeOwned {
    /// The kind of container.
    const KIND: Kind;

    /// The payload, in the order of the file.
    fn parts(&self) -> &[Part];

    /// Replaces what [`Content::parts`] gives.
    fn set_parts(&mut self, parts: Vec<Part>);

    /// What is written after the manifest's own fields, where there is anything to: what was thought of later. A manifest
    /// without it has the bytes that it always had.
    fn addition(&self) -> Result<Vec<u8>, postcard::Error> {
        Ok(vec![])
    }

    /// Reads what [`Content::addition`] wrote, which is not empty, and returns what follows it.
    fn add<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], postcard::Error> {
        Ok(bytes)
    }

    /// Checks that the manifest does not contradict itself. Called before a container is written and when one is read.
    fn validate(&self) -> Result<(), PackageError>;
}

impl Content for Manifest {
    const KIND: Kind = Kind { magic: *b"\x89EDGEPK\n", name: "an .edgepack file", make: "edge-pack MODEL.onnx" };

    fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn set_parts(&mut self, parts: Vec<Part>) {
        self.parts = parts;
    }

    fn addition(&self) -> Result<Vec<u8>, postcard::Error> {
        if self.tolerances.is_empty() { Ok(vec![]) } else { postcard::to_stdvec(&self.tolerances) }
    }

    fn add<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], postcard::Error> {
        let rest;
        (self.tolerances, rest) = postcard::take_from_bytes(bytes)?;
        // An empty list is written as nothing; one manifest has one way to be written.
        if self.tolerances.is_empty() { Ok(bytes) } else { Ok(rest) }
    }

    fn validate(&self) -> Result<(), PackageError> {
        Manifest::validate(self)
    }
}
