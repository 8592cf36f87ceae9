//! Golden samples: pictures whose tensor and logits were written down when packaging. Replaying them where
//! the package runs proves that "right on the host" is right there too.

use crate::{Classifier, ClassifyError};
use edge_engine::decision::argmax;
use edge_package::{Digest, Golden, GoldenSource, Tolerance, VerifiedPackage, digest};
use edge_vision::{DecodeOptions, Picture, decode, synthetic};

/// How a sample failed.
#[derive(Debug, thiserror::Error)]
pub enum GoldenFailure {
    /// The picture in the package does not decode here.
    #[error("its picture cannot be read: {0}")]
    Picture(String),
    /// The tensor is not bit-identical.
    #[error("its preprocessed tensor differs from the one at packaging")]
    Tensor,
    /// A logit is too far off.
    #[error("logit {class} is {found}, {expected} at packaging; {allowed} of difference is allowed")]
    Logits {
        /// Index of the class that is furthest off.
        class: usize,
        /// Here.
        found: f32,
        /// At packaging.
        expected: f32,
        /// By the manifest's tolerance.
        allowed: f32,
    },
    /// Another class comes first.
    #[error("the best class is {found}, {expected} at packaging")]
    Top1 {
        /// Here.
        found: usize,
        /// At packaging.
        expected: usize,
    },
    /// The network failed.
    #[error(transparent)]
    Classify(#[from] ClassifyError),
}

/// What became of one sample. A failure is a verdict, not an error of the replay.
#[derive(Debug)]
pub struct GoldenOutcome {
    /// The sample's name.
    pub name: String,
    /// The largest |Δlogit|, where it came to logits.
    pub max_delta: f32,
    /// What the tolerance allows for this sample.
    pub allowed: f32,
    /// Why the sample failed; `None` when it passed.
    pub failure: Option<GoldenFailure>,
}

/// At least one golden sample failed.
#[derive(Debug, thiserror::Error)]
#[error(
    "golden sample {name:?} fails on this machine ({failure}); the package would classify differently here than where it was made"
)]
pub struct GoldenError {
    /// The first sample that failed.
    pub name: String,
    /// How.
    pub failure: GoldenFailure,
}

/// The digest of a tensor: BLAKE3-256 of its float32 values, little-endian.
pub fn tensor_digest(tensor: &[f32]) -> Digest {
    let bytes: Vec<u8> = tensor.iter().flat_map(|v| v.to_le_bytes()).collect();
    digest(&bytes)
}

/// Replays every golden sample of `package` through `classifier`.
pub fn replay(classifier: &mut Classifier, package: &VerifiedPackage) -> Vec<GoldenOutcome> {
    package.manifest().goldens.iter().map(|golden| replay_one(classifier, package, golden)).collect()
}

/// Replays the golden sample of this number; `None` where there are no more.
pub fn replay_sample(classifier: &mut Classifier, package: &VerifiedPackage, number: usize) -> Option<GoldenOutcome> {
    package.manifest().goldens.get(number).map(|golden| replay_one(classifier, package, golden))
}

fn replay_one(classifier: &mut Classifier, package: &VerifiedPackage, golden: &Golden) -> GoldenOutcome {
    let mut outcome = GoldenOutcome { name: golden.name.clone(), max_delta: 0.0, allowed: 0.0, failure: None };
    let tolerance = package.manifest().tolerance_of(classifier.description().tolerance);
    outcome.failure = check(classifier, package, golden, tolerance, &mut outcome).err();
    outcome
}

/// Replays golden samples until one fails, which refuses the package; tells of each that `passed`. How many did.
pub fn require(
    classifier: &mut Classifier,
    package: &VerifiedPackage,
    passed: &mut dyn FnMut(),
) -> Result<usize, GoldenError> {
    let goldens = &package.manifest().goldens;
    for golden in goldens {
        let GoldenOutcome { name, failure, .. } = replay_one(classifier, package, golden);
        if let Some(failure) = failure {
            return Err(GoldenError { name, failure });
        }
        passed();
    }
    Ok(goldens.len())
}

/// The picture of a sample, from the package's payload or from its seed.
fn picture(
    package: &VerifiedPackage,
    source: &GoldenSource,
    options: &DecodeOptions,
) -> Result<Picture, GoldenFailure> {
    match source {
        GoldenSource::Synthetic { seed, width, height } => Ok(synthetic(*seed, *width, *height)),
        GoldenSource::Part(name) => {
            let bytes = package.part(name).unwrap_or_default();
            decode(bytes, options).map_err(|e| GoldenFailure::Picture(e.to_string()))
        }
    }
}

fn check(
    classifier: &mut Classifier,
    package: &VerifiedPackage,
    golden: &Golden,
    tolerance: Tolerance,
    outcome: &mut GoldenOutcome,
) -> Result<(), GoldenFailure> {
    let picture = picture(package, &golden.source, &classifier.decode_options())?;
    classifier.prepare(&picture)?;
    if tensor_digest(classifier.tensor()) != golden.tensor {
        return Err(GoldenFailure::Tensor);
    }
    classifier.classify(&picture, 1)?;
    compare(classifier.logits(), &golden.logits, tolerance, outcome)
}

/// How far a logit may be from those `expected`.
pub fn allowed(expected: &[f32], tolerance: Tolerance) -> f32 {
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    match tolerance {
        // An all-zero golden sample still allows for rounding of denormals.
        Tolerance::Float { relative } => (relative * largest).max(f32::MIN_POSITIVE),
        Tolerance::Int8 { steps, step } => steps as f32 * step,
    }
}

/// Compares logits with those at packaging under the manifest's tolerance.
fn compare(
    found: &[f32],
    expected: &[f32],
    tolerance: Tolerance,
    outcome: &mut GoldenOutcome,
) -> Result<(), GoldenFailure> {
    let deltas: Vec<f32> = found.iter().zip(expected).map(|(f, e)| (f - e).abs()).collect();
    let class = argmax(&deltas).unwrap_or_default();
    outcome.max_delta = deltas[class];
    outcome.allowed = allowed(expected, tolerance);
    if outcome.max_delta > outcome.allowed {
        return Err(GoldenFailure::Logits {
            class,
            found: found[class],
            expected: expected[class],
            allowed: outcome.allowed,
        });
    }
    if let Tolerance::Int8 { .. } = tolerance {
        let best = argmax(found).unwrap_or_default();
        let wanted = argmax(expected).unwrap_or_default();
        // Equal outputs are common in int8: a tie for the first place is not another class.
        if best != wanted && found[wanted] < found[best] {
            return Err(GoldenFailure::Top1 { found: best, expected: wanted });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(found: &[f32], expected: &[f32], tolerance: Tolerance) -> Result<(), GoldenFailure> {
        let mut outcome = GoldenOutcome { name: "t".into(), max_delta: 0.0, allowed: 0.0, failure: None };
        compare(found, expected, tolerance, &mut outcome)
    }

    #[test]
    fn float_tolerance_is_relative_to_the_largest_logit() {
        let float = Tolerance::Float { relative: 1e-3 };
        assert!(run(&[10.0, 0.009], &[10.0, 0.0], float).is_ok());
        assert!(matches!(run(&[10.0, 0.011], &[10.0, 0.0], float), Err(GoldenFailure::Logits { class: 1, .. })));
    }

    #[test]
    fn int8_tolerance_counts_steps_and_wants_the_same_best_class() {
        let int8 = Tolerance::Int8 { steps: 2, step: 0.5 };
        assert!(run(&[3.0, 1.0], &[2.0, 1.5], int8).is_ok());
        assert!(matches!(run(&[3.1, 1.0], &[2.0, 1.5], int8), Err(GoldenFailure::Logits { .. })));
        assert!(matches!(run(&[1.0, 2.0], &[2.0, 1.5], int8), Err(GoldenFailure::Top1 { found: 1, expected: 0 })));
        assert!(run(&[2.0, 2.0], &[1.5, 2.0], int8).is_ok());
    }
}
