//! Why a package, or another container, was refused. Whoever shows an error names the file in front of it.

use crate::{KeyError, hex};

/// Each way in which bytes fail to be a trustworthy container, with its own message.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The file could not be opened, read or mapped.
    ///
    /// The cause is part of the message, so it is not its source too.
    #[error("it cannot be read: {0}")]
    Io(std::io::Error),
    /// No bytes at all.
    #[error("it is empty; {wanted} was expected")]
    Empty {
        /// What was asked for, with its article.
        wanted: &'static str,
    },
    /// The first eight bytes are not the magic.
    #[error("not {wanted} (its first bytes are not those of one); make one with `{make}`")]
    NotAPackage {
        /// What was asked for, with its article.
        wanted: &'static str,
        /// The command that makes one.
        make: &'static str,
    },
    /// Written by another generation of the tools.
    #[error(
        "format version {found}, but this program reads version {supported}; make the file anew, or update this program"
    )]
    Version {
        /// The version in the file.
        found: u32,
        /// The version this build reads.
        supported: u32,
    },
    /// The file is shorter than its header says, or than a header is.
    #[error("it is truncated: {found} bytes, {expected} expected; copy it again")]
    Truncated {
        /// Bytes there are.
        found: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// The file is longer than its header says.
    #[error("it has {extra} bytes after its end; copy it again")]
    TrailingBytes {
        /// How many bytes too many.
        extra: u64,
    },
    /// A length or offset in the header is out of bounds or not where the format puts it.
    #[error("its header is damaged: {0}")]
    Header(&'static str),
    /// A digest does not match.
    #[error("it is damaged: the digest of {what} differs")]
    Digest {
        /// Which bytes: the header, the manifest, or a part's name.
        what: String,
    },
    /// A byte between two fields is not zero.
    #[error("it is damaged: padding at byte {at} is not zero")]
    Padding {
        /// Its position in the file.
        at: u64,
    },
    /// The manifest does not decode.
    #[error("its manifest does not decode: {0}")]
    ManifestEncoding(String),
    /// The manifest decodes but contradicts itself.
    #[error("its manifest is not valid: {0}")]
    Manifest(String),
    /// The signature in the file does not fit the manifest.
    #[error("its signature is wrong: the manifest was changed after signing, or the signature is damaged")]
    Signature,
    /// A trusted key was asked for and there is no signature.
    #[error("it is not signed, but a trusted key is required; sign it when it is made, with `--sign KEY`")]
    Unsigned,
    /// It is signed by a key that is not among the trusted ones.
    #[error("it is signed by key {}, which is not among the trusted keys", hex(.signer))]
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
    /// A key inside it is not a valid ed25519 key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl From<std::io::Error> for PackageError {
    fn from(e: std::io::Error) -> PackageError {
        PackageError::Io(e)
    }
}
