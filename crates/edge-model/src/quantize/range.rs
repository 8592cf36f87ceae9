//! From a histogram to the range that bytes shall cover.

use super::qdq::Scale;
use std::fmt;

/// Bins of a histogram.
const BINS: usize = 2048;

/// How the range of a value is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Method {
    /// All that was seen.
    MinMax,
    /// Without the rarest: this share of the values lies within.
    Percentile(f64),
    /// Where the mean square of the error is least.
    Mse,
    /// Where the distribution keeps most of its information (Kullback-Leibler divergence, as in TensorRT's calibration).
    Entropy,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Method::MinMax => f.write_str("min-max"),
            Method::Percentile(p) => write!(f, "percentile {}", (p * 1e6).round() / 1e4),
            Method::Mse => f.write_str("mse"),
            Method::Entropy => f.write_str("entropy"),
        }
    }
}

/// How often values were seen, between two limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// The lower limit.
    pub least: f32,
    /// The upper limit.
    pub most: f32,
    /// Counts from the lower to the upper.
    pub counts: Vec<u32>,
}

impl Histogram {
    /// Empty, for values within these limits.
    pub fn new([least, most]: [f32; 2]) -> Histogram {
        Histogram { least: least.min(0.0), most: most.max(0.0), counts: vec![0; BINS] }
    }

    /// Counts values; those beyond the limits count for the last bin.
    pub fn see(&mut self, values: &[f32]) {
        let width = (self.most - self.least).max(f32::MIN_POSITIVE);
        let factor = BINS as f32 / width;
        for v in values {
            let bin = ((v - self.least) * factor) as usize;
            self.counts[bin.min(BINS - 1)] += 1;
        }
    }

    /// The shares of the values in `count` parts of the range.
    pub fn bars(&self, count: usize) -> Vec<f32> {
        let total = self.total().max(1.0);
        let mut bars = vec![0.0; count];
        for (bin, seen) in self.counts.iter().enumerate() {
            bars[bin * count / BINS] += (f64::from(*seen) / total) as f32;
        }
        bars
    }

    fn total(&self) -> f64 {
        self.counts.iter().map(|c| f64::from(*c)).sum()
    }

    /// The middle of a bin.
    fn middle(&self, bin: usize) -> f32 {
        self.least + (self.most - self.least) * (bin as f32 + 0.5) / BINS as f32
    }

    /// The mean square of what quantization with a scale changes.
    pub fn error(&self, scale: &Scale) -> f64 {
        let of = |(bin, count): (usize, &u32)| {
            if *count == 0 {
                return 0.0;
            }
            let x = self.middle(bin);
            let e = f64::from(scale.through(x) - x);
            // A bin is wider than its middle: what rounding does within it.
            let inside = scale.range()[0] <= x && x <= scale.range()[1];
            let rounding = f64::from(scale.scale).powi(2) / 12.0;
            f64::from(*count) * if inside { rounding } else { e * e }
        };
        self.counts.iter().enumerate().map(of).sum::<f64>() / self.total().max(1.0)
    }

    /// The range that a method chooses.
    pub fn range(&self, method: Method, symmetric: bool) -> [f32; 2] {
        let whole = [self.least, self.most];
        if self.total() == 0.0 || self.most <= self.least {
            return whole;
        }
        match method {
            Method::MinMax => whole,
            Method::Percentile(share) => {
                let rare = (1.0 - share) * self.total();
                let end = |bins: &mut dyn Iterator<Item = usize>| {
                    let mut seen = 0.0;
                    for bin in bins {
                        seen += f64::from(self.counts[bin]);
                        if seen > rare {
                            return bin;
                        }
                    }
                    0
                };
                let width = (self.most - self.least) / BINS as f32;
                let low = self.least + width * end(&mut (0..BINS)) as f32;
                let high = self.least + width * (end(&mut (0..BINS).rev()) + 1) as f32;
                [low.min(0.0), high.max(0.0)]
            }
            Method::Mse => self.best(|range| self.error(&Scale::of(range[0], range[1], symmetric))),
            Method::Entropy => self.best(|range| self.divergence(&Scale::of(range[0], range[1], symmetric))),
        }
    }

    /// The part of the range, both ends shortened on their own, of least cost.
    fn best(&self, cost: impl Fn([f32; 2]) -> f64) -> [f32; 2] {
        let mut best = ([self.least, self.most], f64::INFINITY);
        let steps = || (0..40).map(|i| 1.0 - 0.02 * i as f32);
        let mut look = |range: [f32; 2]| {
            let c = cost(range);
            if c < best.1 {
                best = (range, c);
            }
            best.0
        };
        let mut found = [self.least, self.most];
        for factor in steps() {
            found = look([self.least, self.most * factor]);
        }
        if self.least < 0.0 {
            let high = found[1];
            for factor in steps() {
                found = look([self.least * factor, high]);
            }
            let low = found[0];
            for factor in steps() {
                found = look([low, self.most * factor]);
            }
        }
        found
    }

    /// How much of the distribution is lost: the divergence between it and what 256 steps of it leave.
    fn divergence(&self, scale: &Scale) -> f64 {
        let total = self.total();
        let [least, most] = scale.range();
        let ends = if scale.signed { [-128.0, 127.0] } else { [0.0, 255.0] };
        let step = |x: f32| {
            let q = ((x / scale.scale).round_ties_even() + scale.zero as f32).clamp(ends[0], ends[1]);
            (q - ends[0]) as usize
        };
        // Of each step: what falls there, what of it lies within the range, and in how many bins.
        let mut mass = [0.0_f64; 256];
        let mut bins = [0_u32; 256];
        for (bin, count) in self.counts.iter().enumerate().filter(|(_, c)| **c > 0) {
            let x = self.middle(bin);
            let at = step(x);
            if (least..=most).contains(&x) {
                mass[at] += f64::from(*count);
                bins[at] += 1;
            }
        }
        let kept: f64 = mass.iter().sum();
        if kept == 0.0 {
            return f64::INFINITY;
        }
        let mut sum = 0.0;
        let mut edges = [0.0_f64; 2];
        for (bin, count) in self.counts.iter().enumerate().filter(|(_, c)| **c > 0) {
            let x = self.middle(bin);
            let p = f64::from(*count) / total;
            if x < least {
                edges[0] += p;
            } else if x > most {
                edges[1] += p;
            } else {
                let at = step(x);
                let q = mass[at] / f64::from(bins[at]) / kept;
                sum += p * (p / q).ln();
            }
        }
        // What is cut off sits on the last steps, where it was not.
        for (edge, at) in edges.into_iter().zip([step(least), step(most)]) {
            if edge > 0.0 {
                let q = (mass[at] / kept).max(1e-12);
                sum += edge * ((edge + q) / q).ln();
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bell(outlier: f32) -> Histogram {
        let mut h = Histogram::new([-4.0, outlier]);
        let mut values = vec![];
        for i in 0..40_000 {
            // A sum of uniform numbers is nearly normal.
            let mut seed = i as u64;
            let mut sum = 0.0;
            for _ in 0..12 {
                sum += (edge_vision::random::split_mix(&mut seed) >> 40) as f32 / (1 << 24) as f32;
            }
            values.push(sum - 6.0);
        }
        values.push(outlier);
        h.see(&values);
        h
    }

    #[test]
    fn outliers_are_cut_off_where_that_pays() {
        let h = bell(60.0);
        assert_eq!(h.range(Method::MinMax, false), [-4.0, 60.0]);
        for method in [Method::Percentile(0.9999), Method::Entropy] {
            let [least, most] = h.range(method, false);
            assert!((-4.0..=-1.5).contains(&least), "{method}: {least}");
            assert!((1.5..30.0).contains(&most), "{method}: {most}");
        }
        let plain = h.error(&Scale::of(-4.0, 60.0, false));
        let [least, most] = h.range(Method::Mse, false);
        assert!(most < 60.0 && h.error(&Scale::of(least, most, false)) < plain);
    }

    #[test]
    fn nothing_is_cut_off_an_even_distribution() {
        let mut h = Histogram::new([0.0, 1.0]);
        h.see(&(0..10_000).map(|i| i as f32 / 10_000.0).collect::<Vec<_>>());
        assert!(h.range(Method::Mse, false)[1] > 0.97);
        assert!(h.range(Method::Entropy, false)[1] > 0.95);
        assert_eq!(Histogram::new([0.0, 0.0]).range(Method::Mse, false), [0.0, 0.0]);
    }
}
