//! Random numbers that are the same on every machine.

/// SplitMix64, where a seed and a stream give numbers of their own.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Numbers of a seed. Other `stream`s of the same seed have nothing to do with each other.
    pub fn new(seed: u64, stream: u64) -> Random {
        let mut random = Random(seed ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03));
        random.next();
        random
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        edge_vision::random::split_mix(&mut self.0)
    }

    /// A number of 0 to 1, the 1 left out.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32
    }

    /// One of 0 to `bound`, that left out.
    pub fn below(&mut self, bound: usize) -> usize {
        // The high half of a product: the bias is 2^-64 times the bound.
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// The numbers from 0 to `count`, that left out, in random order (Fisher and Yates).
    pub fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_holds_every_number_once_and_seeds_differ() {
        let mut order = Random::new(1, 0).order(1000);
        assert_ne!(order, Random::new(2, 0).order(1000));
        assert_ne!(order, Random::new(1, 1).order(1000));
        assert_eq!(order, Random::new(1, 0).order(1000));
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn numbers_are_spread_evenly() {
        let mut random = Random::new(7, 3);
        let mean: f32 = (0..10_000).map(|_| random.unit()).sum::<f32>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.02);
        let mut counts = [0; 7];
        (0..7000).for_each(|_| counts[random.below(7)] += 1);
        assert!(counts.iter().all(|c| (800..1200).contains(c)));
    }
}
