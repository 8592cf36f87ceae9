//! ed25519 keys and their files.
//!
//! A key file is two lines of text: a heading that says what it is, and 64 hexadecimal digits.

use crate::hex;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use std::path::{Path, PathBuf};

const SECRET_HEADING: &str = "edgepack-secret-key ed25519";
const PUBLIC_HEADING: &str = "edgepack-public-key ed25519";
const LINK_HEADING: &str = "edgepack-link-key noise-psk";
/// Far more than a key file has; a bound for reading whatever path was given.
const MAX_KEY_FILE: u64 = 4096;

/// Why a key could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read.
    #[error("cannot read the key file {}: {why}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause; part of the message, so not its source.
        why: std::io::Error,
    },
    /// The file is something else.
    #[error("{} is not {wanted}: its first line should be {heading:?}{hint}", path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// Secret or public key.
        wanted: &'static str,
        /// The heading expected.
        heading: &'static str,
        /// What it is instead, where that is known.
        hint: &'static str,
    },
    /// The second line is not 64 hexadecimal digits.
    #[error("the key file {} is damaged: its second line should be 64 hexadecimal digits", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner may read it.
    #[error("{} can be read by others; its secret is worth nothing then: chmod 600 it, or better make a new one", path.display())]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// 32 bytes that are no point of the curve, or a weak one.
    #[error("not a valid ed25519 public key")]
    InvalidPublicKey,
}

/// A public key: says who may have signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// A secret key: signs. Wiped from memory when dropped.
pub struct SecretKey(SigningKey);

/// The key that a camera and its host share to talk over a network.
pub struct LinkKey([u8; 32]);

fn read_key(path: &Path, wanted: &'static str, heading: &'static str) -> Result<[u8; 32], KeyError> {
    use std::io::Read;
    let io = |why| KeyError::Io { path: path.into(), why };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(io)?;
    let wrong = |hint| KeyError::WrongKind { path: path.into(), wanted, heading, hint };
    match file.take(MAX_KEY_FILE).read_to_string(&mut text) {
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => return Err(wrong("")),
        other => other.map_err(io)?,
    };
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().trim();
    if first != heading {
        return Err(wrong(match first {
            SECRET_HEADING => "; this is a secret key, give its .pub file",
            PUBLIC_HEADING => "; this is a public key, give the secret one",
            LINK_HEADING => "; this is the key of a link",
            _ => "",
        }));
    }
    let damaged = || KeyError::Damaged { path: path.into() };
    let digits = lines.next().unwrap_or_default().trim();
    if digits.len() != 64 || !digits.is_ascii() {
        return Err(damaged());
    }
    let mut bytes = [0u8; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let digit = |d: u8| (d as char).to_digit(16).ok_or_else(damaged);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Ok(bytes)
}

impl PublicKey {
    /// From its 32 bytes; points of small order are refused.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<PublicKey, KeyError> {
        match VerifyingKey::from_bytes(bytes) {
            Ok(key) if !key.is_weak() => Ok(PublicKey(key)),
            _ => Err(KeyError::InvalidPublicKey),
        }
    }

    /// Reads a `.pub` file.
    pub fn read(path: &Path) -> Result<PublicKey, KeyError> {
        PublicKey::from_bytes(&read_key(path, "a public key", PUBLIC_HEADING)?)
            .map_err(|_| KeyError::Damaged { path: path.into() })
    }

    /// The 32 bytes.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The text of a `.pub` file.
    pub fn to_file_text(self) -> String {
        format!("{PUBLIC_HEADING}\n{}\n", hex(&self.to_bytes()))
    }

    /// Whether `signature` is this key's over `message`; RFC 8032 with the strict checks of ed25519-dalek.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl SecretKey {
    /// From 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> SecretKey {
        SecretKey(SigningKey::from_bytes(seed))
    }

    /// Reads a secret key file.
    pub fn read(path: &Path) -> Result<SecretKey, KeyError> {
        Ok(SecretKey::from_seed(&read_key(path, "a secret key", SECRET_HEADING)?))
    }

    /// The text of a secret key file; write it with mode 0600.
    pub fn to_file_text(&self) -> String {
        format!("{SECRET_HEADING}\n{}\n", hex(self.0.as_bytes()))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl LinkKey {
    /// From 32 random bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> LinkKey {
        LinkKey(bytes)
    }

    /// Reads a link's key file, which only its owner may be able to read.
    pub fn read(path: &Path) -> Result<LinkKey, KeyError> {
        use std::os::unix::fs::PermissionsExt;
        let io = |why| KeyError::Io { path: path.into(), why };
        if std::fs::metadata(path).map_err(io)?.permissions().mode() & 0o077 != 0 {
            return Err(KeyError::Open { path: path.into() });
        }
        Ok(LinkKey(read_key(path, "the key of a link", LINK_HEADING)?))
    }

    /// The 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The text of a link's key file; write it with mode 0600.
    pub fn to_file_text(&self) -> String {
        format!("{LINK_HEADING}\n{}\n", hex(&self.0))
    }
}
