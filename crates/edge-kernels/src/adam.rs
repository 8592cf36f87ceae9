//! A step of Adam (Kingma and Ba, 2015) on many values, as Keras 3.15 computes it.

use crate::Isa;
use crate::simd::{Simd, kernel};

/// A step: of the moments' decay, and against the first moment over the root of the second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// Decay of the first and of the second moment.
    pub betas: [f32; 2],
    /// Added to the root.
    pub epsilon: f32,
    /// The rate, corrected for both moments' beginning.
    pub rate: f32,
}

/// Moves `values` against `gradients`, and both moments along.
///
/// # Panics
/// Where the lengths differ.
pub fn adam(isa: Isa, adam: &Adam, gradients: &[f32], moments: [&mut [f32]; 2], values: &mut [f32]) {
    let len = values.len();
    assert!(gradients.len() == len && moments.iter().all(|m| m.len() == len));
    let [first, second] = moments;
    // SAFETY: plain Rust; only the features are the caller's to have, and an Isa has them.
    unsafe { run(isa, adam, gradients, first, second, values) }
}

kernel! {
    fn run(adam: &Adam, gradients: &[f32], first: &mut [f32], second: &mut [f32], values: &mut [f32]) = body
}

#[inline(always)]
unsafe fn body<S: Simd>(
    _: S,
    adam: &Adam,
    gradients: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    values: &mut [f32],
) {
    let [one, two] = adam.betas.map(|b| 1.0 - b);
    for (((value, gradient), first), second) in values.iter_mut().zip(gradients).zip(first).zip(second) {
        *first += (gradient - *first) * one;
        *second += (gradient * gradient - *second) * two;
        *value -= *first * adam.rate / (second.sqrt() + adam.epsilon);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::noise;

    #[test]
    fn every_set_moves_alike() {
        let step = Adam { betas: [0.9, 0.999], epsilon: 1e-7, rate: 0.01 };
        for len in [1, 7, 16, 33, 100] {
            let (gradients, start) = (noise(1, len), noise(2, len));
            let mut wanted: Option<[Vec<f32>; 3]> = None;
            for isa in Isa::available() {
                let (mut first, mut second, mut values) = (vec![0.0; len], vec![0.0; len], start.clone());
                for _ in 0..3 {
                    adam(isa, &step, &gradients, [&mut first, &mut second], &mut values);
                }
                let (m, v) = (0.271 * gradients[0], (1.0 - 0.999_f32.powi(3)) * gradients[0] * gradients[0]);
                assert!((first[0] - m).abs() < 1e-6 && (second[0] - v).abs() < 1e-6);
                // No instruction of any set rounds otherwise.
                let found = [first, second, values];
                assert_eq!(wanted.get_or_insert_with(|| found.clone()), &found, "{isa}");
            }
        }
    }
}
