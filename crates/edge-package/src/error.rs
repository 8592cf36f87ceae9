//! Why a package was refused.

use crate::{KeyError, hex};

/// Each way in which bytes fail to be a trustworthy package, with its own message.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The file could not be opened, read or mapped.
    ///
    /// The cause is part of the message, so it is not its source too.
    #[error("cannot read the package: {0}")]
    Io(std::io::Error),
    /// No bytes at all.
    #[error("the file is empty; a package was expected")]
    Empty,
    /// The first eight bytes are not the magic.
    #[error("not an .edgepack file (its first bytes are not the package magic); make one with `edge-pack MODEL.onnx`")]
    NotAPackage,
    /// Written by another generation of the tools.
    #[error(
        "package format version {found}, but this program reads version {supported}; repackage the model, or update this program"
    )]
    Version {
        /// The version in the file.
        found: u32,
        /// The version this build reads.
        supported: u32,
    },
    /// The file is shorter than its header says, or than a header is.
    #[error("the package is truncated: {found} bytes, {expected} expected; copy it again")]
    Truncated {
        /// Bytes there are.
        found: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// The file is longer than its header says.
    #[error("the package has {extra} bytes after its end; copy it again")]
    TrailingBytes {
        /// How many bytes too many.
        extra: u64,
    },
    /// A length or offset in the header is out of bounds or not where the format puts it.
    #[error("the package header is damaged: {0}")]
    Header(&'static str),
    /// A digest does not match.
    #[error("the package is damaged: the digest of {what} differs")]
    Digest {
        /// Which bytes: the header, the manifest, or a part's name.
        what: String,
    },
    /// A byte between two fields is not zero.
    #[error("the package is damaged: padding at byte {at} is not zero")]
    Padding {
        /// Its position in the file.
        at: u64,
    },
    /// The manifest does not decode.
    #[error("the package manifest does not decode: {0}")]
    ManifestEncoding(String),
    /// The manifest decodes but contradicts itself.
    #[error("the package manifest is not valid: {0}")]
    Manifest(String),
    /// The signature in the file does not fit the manifest.
    #[error("the package's signature is wrong: the manifest was changed after signing, or the signature is damaged")]
    Signature,
    /// A trusted key was asked for and the package carries no signature.
    #[error("the package is not signed, but a trusted key is required; sign it with `edge-pack MODEL.onnx --sign KEY`")]
    Unsigned,
    /// The package is signed by a key that is not among the trusted ones.
    #[error("the package is signed by key {}, which is not among the trusted keys", hex(.signer))]
    UntrustedSigner {
        /// The public key that signed.
        signer: [u8; 32],
    },
    /// The package asks for a newer runtime.
    #[error("the package needs runtime {needed} or newer, this is {running}; update the runtime")]
    RuntimeTooOld {
        /// From the manifest.
        needed: String,
        /// This build.
        running: String,
    },
    /// The package names the boards it may run on, and this is none of them.
    #[error("the package is for board(s) {allowed}, this is {board:?}; repackage with `--board {board}`")]
    WrongBoard {
        /// Boards in the manifest, comma separated.
        allowed: String,
        /// The board asked for.
        board: String,
    },
    /// A key inside the package is not a valid ed25519 key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl From<std::io::Error> for PackageError {
    fn from(e: std::io::Error) -> PackageError {
        PackageError::Io(e)
    }
}
