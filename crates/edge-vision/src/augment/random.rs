//! Random numbers that are the same on every machine.

use crate::random::{mix, split_mix};

/// What a stream of random numbers is for. The numbers stand for good: another one draws other transforms.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Rotate = 1,
    Shift = 2,
    Shear = 3,
    Zoom = 4,
    FlipHorizontal = 5,
    FlipVertical = 6,
    ChannelShift = 7,
    Brightness = 8,
}

/// SplitMix64.
pub(super) struct Stream(u64);

impl Stream {
    /// The stream of one kind. Its start is hashed twice, so that neither seeds nor kinds next to each other make
    /// streams that lie a few steps apart in the same sequence.
    pub(super) fn new(seed: u64, kind: Kind) -> Self {
        Self(mix(Self(seed).next() ^ Self(kind as u64).next()))
    }

    fn next(&mut self) -> u64 {
        split_mix(&mut self.0)
    }

    /// A number in 0..1, made of the upper 53 bits as NumPy's `random()` makes it.
    pub(super) fn unit(&mut self) -> f64 {
        const STEP: f64 = 1.0 / (1_u64 << 53) as f64;
        (self.next() >> 11) as f64 * STEP
    }

    /// A number in `low..high`, as NumPy's `uniform` makes it of one in 0..1.
    pub(super) fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_split_mix_64() {
        let mut stream = Stream(1_234_567);
        let got: [u64; 3] = std::array::from_fn(|_| stream.next());
        assert_eq!(got, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn streams_are_even_and_independent() {
        let kinds = [Kind::Rotate, Kind::Shift, Kind::Brightness];
        let n = 20_000;
        let draw = |seed, kind| Stream::new(seed, kind).uniform(-1.0, 1.0);
        for (i, &a) in kinds.iter().enumerate() {
            // First numbers of seeds in a row, which is how pictures are counted.
            let mean = |f: &dyn Fn(u64) -> f64| (0..n).map(f).sum::<f64>() / n as f64;
            assert!(mean(&|s| draw(s, a)).abs() < 0.02);
            assert!((mean(&|s| draw(s, a).powi(2)) - 1.0 / 3.0).abs() < 0.02);
            assert!(mean(&|s| draw(s, a) * draw(s + 1, a)).abs() < 0.02);
            for &b in &kinds[..i] {
                assert!(mean(&|s| draw(s, a) * draw(s, b)).abs() < 0.02);
            }
        }
    }
}
