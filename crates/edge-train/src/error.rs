//! Why a training cannot be done.

use crate::photos::PhotosError;
use edge_engine::EngineError;
use std::path::PathBuf;

/// Why a training cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The base is no network that features can be had from.
    #[error("{0}")]
    Base(String),
    /// The photos.
    #[error(transparent)]
    Photos(#[from] PhotosError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A photo that could be read before cannot be read now.
    #[error("{}: {why}", path.display())]
    Photo {
        /// The photo.
        path: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// The features' cache.
    #[error("the features' cache {}: {why}", path.display())]
    Cache {
        /// Its file.
        path: PathBuf,
        /// What went wrong, and what to do.
        why: String,
    },
    /// Told to stop. What was computed is in the cache.
    #[error("interrupted; the features computed so far are kept, and the same command goes on from there")]
    Interrupted,
}
