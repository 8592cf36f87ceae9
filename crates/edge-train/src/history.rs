//! What training tells: a line for each epoch, and what the kept network says of each photo.

use crate::head::largest;
use serde::Serialize;
use std::path::PathBuf;

/// An epoch, as Keras' history names its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Epoch {
    /// From 1 on.
    pub epoch: usize,
    /// Mean loss over the training photos while it was trained.
    pub loss: f64,
    /// Share of the training photos that were right then.
    pub accuracy: f64,
    /// Mean loss over the validation photos afterwards.
    pub val_loss: f64,
    /// Share of the validation photos that are right afterwards.
    pub val_accuracy: f64,
    /// Adam's rate.
    pub learning_rate: f64,
    /// Wall time.
    pub seconds: f64,
}

/// What the kept network says of a photo.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The photo's file.
    pub photo: PathBuf,
    /// Its class, by its place among the classes.
    pub truth: usize,
    /// One score per class.
    pub scores: Vec<f32>,
}

impl Prediction {
    /// The class with the largest score; of equal ones the first.
    pub fn class(&self) -> usize {
        largest(&self.scores)
    }
}

/// A candidate of a search over settings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// What tells it from the others, such as "lr 0.001, inner 100, dropout 0.2".
    pub settings: String,
    /// The best epoch.
    pub best: Epoch,
    /// Whether it was kept.
    pub kept: bool,
}
