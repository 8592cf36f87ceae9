//! Numbers that are the same in every run.

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// `seed` may be any number.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Heads or tails.
    pub fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    /// Any order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// What becomes of writes that were not flushed when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// None of them happened.
    All,
    /// All of them happened.
    Nothing,
    /// Any of them happened.
    Some,
    /// Any of them happened, any of them in part, in any order.
    Torn,
    /// Only the last ones happened.
    Early,
}

impl Loss {
    /// Seeds that make a round of them.
    pub const KINDS: u64 = 6;

    /// One for each seed, in turn.
    pub fn of(seed: u64) -> Loss {
        [Loss::Torn, Loss::Some, Loss::Torn, Loss::Early, Loss::All, Loss::Nothing][(seed % Loss::KINDS) as usize]
    }
}
