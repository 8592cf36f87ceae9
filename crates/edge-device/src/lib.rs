//! What host and device must agree on: the way from a picture to a decision, the golden samples that prove
//! it is the same way, how a package is made from an ONNX file, how scores become decisions, and
//! the line of the classification log.

pub mod capture;
pub mod event;
pub mod golden;

mod classifier;
mod decide;
mod float16;
mod recipe;

pub use classifier::{Classification, Classifier, ClassifyError, StageTimes};
pub use decide::{Decider, Decision, MOST_FRAMES, Policy, PolicyError};
pub use recipe::{Prepared, Recipe, RecipeError, ResizeChoice};
