//! Two networks on the same pictures: how often they say the same.

use super::{Pictures, QuantizeError};
use edge_engine::decision::argmax;
use edge_engine::{Backend, CpuBackend, LoadOptions, OnnxModel};
use edge_package::InputSpec;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a network says of pictures.
#[derive(Debug, Clone, Default)]
pub struct Verdicts {
    /// For each picture, one number per class.
    pub logits: Vec<Vec<f32>>,
    /// The median time of a picture.
    pub time: Duration,
}

impl Verdicts {
    /// Runs a file on `which` of the pictures.
    pub fn of(
        onnx: &[u8],
        (input, output): (&InputSpec, &str),
        options: &LoadOptions,
        (pictures, which): (&dyn Pictures, &[usize]),
        stop: &AtomicBool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Verdicts, QuantizeError> {
        let model = OnnxModel::parse(onnx)?;
        let mut backend = CpuBackend::load(&model, input, output, options)?;
        let classes = backend.description().classes;
        let mut verdicts = Verdicts::default();
        let mut times = vec![];
        for (done, at) in which.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Err(QuantizeError::Interrupted);
            }
            let tensor = pictures.tensor(*at).map_err(QuantizeError::Picture)?;
            let mut logits = vec![0.0; classes];
            let start = Instant::now();
            backend.classify(&tensor, &mut logits)?;
            times.push(start.elapsed());
            verdicts.logits.push(logits);
            progress(done + 1);
        }
        times.sort_unstable();
        verdicts.time = times.get(times.len() / 2).copied().unwrap_or_default();
        Ok(verdicts)
    }

    /// The class of each picture.
    pub fn classes(&self) -> Vec<usize> {
        self.logits.iter().map(|l| argmax(l).unwrap_or_default()).collect()
    }

    /// How well `other` does what this does.
    pub fn agreement(&self, other: &Verdicts) -> Agreement {
        let (ours, theirs) = (self.classes(), other.classes());
        let changed: Vec<usize> = (0..ours.len().min(theirs.len())).filter(|i| ours[*i] != theirs[*i]).collect();
        let mut ratio = SignalToNoise::default();
        for (a, b) in self.logits.iter().zip(&other.logits) {
            // What is the same for all classes decides nothing.
            let mean = |v: &[f32]| v.iter().sum::<f32>() / v.len().max(1) as f32;
            let (ma, mb) = (mean(a), mean(b));
            ratio.add(a.iter().map(|v| v - ma), b.iter().map(|v| v - mb));
        }
        Agreement { pictures: ours.len(), changed, snr: ratio.decibels() }
    }
}

/// How well one network does what another does.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    /// Pictures that both saw.
    pub pictures: usize,
    /// Those of another class, by their place in the list.
    pub changed: Vec<usize>,
    /// Signal to noise of the logits, in dB.
    pub snr: f64,
}

impl Agreement {
    /// The share of pictures of the same class.
    pub fn share(&self) -> f64 {
        1.0 - self.changed.len() as f64 / self.pictures.max(1) as f64
    }
}

/// Signal to noise: the squares of what should be, against those of what is wrong with it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SignalToNoise {
    signal: f64,
    noise: f64,
}

impl SignalToNoise {
    /// Adds values as they should be and as they are.
    pub fn add(&mut self, wanted: impl Iterator<Item = f32>, found: impl Iterator<Item = f32>) {
        for (a, b) in wanted.zip(found) {
            self.signal += f64::from(a) * f64::from(a);
            self.noise += f64::from(a - b) * f64::from(a - b);
        }
    }

    /// In dB; 120 at most, where nothing is wrong.
    pub fn decibels(&self) -> f64 {
        match self.noise > 0.0 && self.signal > 0.0 {
            true => (10.0 * (self.signal / self.noise).log10()).min(120.0),
            false if self.noise > 0.0 => 0.0,
            false => 120.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_counts_classes_and_noise() {
        let a = Verdicts { logits: vec![vec![1.0, 3.0], vec![2.0, 0.0]], ..Verdicts::default() };
        let b = Verdicts { logits: vec![vec![11.0, 13.0], vec![0.0, 2.0]], ..Verdicts::default() };
        let same = a.agreement(&a);
        assert_eq!((same.share(), same.snr), (1.0, 120.0));
        let other = a.agreement(&b);
        assert_eq!((other.share(), other.changed), (0.5, vec![1]));
        // Signal 2 + 2, noise 0 + 8.
        assert!((other.snr + 3.0103).abs() < 1e-3);
    }
}
