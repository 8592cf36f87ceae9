//! Bytes an hour: what a line may cost.
//!
//! A bucket of one twelfth of the budget is filled evenly with the other eleven. A line of a frame that changes nothing is
//! written when the bucket holds it; a change or a notice always is, and makes a debt of at most one budget. So without
//! changes no hour has more bytes than the budget, and what is left out is spread over the hour.

use std::time::Duration;

const HOUR: f64 = 3600.0;
/// Share of the budget that may be spent at once.
const BURST: f64 = 1.0 / 12.0;
/// Lines left out are told of this often at most.
const TELL: Duration = Duration::from_secs(60);

/// What is left to spend.
pub struct Bucket {
    budget: f64,
    tokens: f64,
    filled: Duration,
    left_out: u64,
    told: Duration,
}

impl Bucket {
    /// A full bucket. `budget` is in bytes an hour.
    pub fn new(budget: u64, now: Duration) -> Bucket {
        let budget = budget as f64;
        Bucket { budget, tokens: budget * BURST, filled: now, left_out: 0, told: now }
    }

    /// Whether a line of `bytes` may be written; one that is `needed` always may.
    pub fn allows(&mut self, bytes: usize, needed: bool, now: Duration) -> bool {
        let seconds = now.saturating_sub(self.filled).as_secs_f64();
        self.filled = self.filled.max(now);
        let fill = self.budget * (1.0 - BURST) / HOUR * seconds;
        self.tokens = (self.tokens + fill).min(self.budget * BURST);
        let bytes = bytes as f64;
        if !needed && self.tokens < bytes {
            self.left_out += 1;
            return false;
        }
        self.tokens = (self.tokens - bytes).max(-self.budget);
        true
    }

    /// How many lines were left out since this was told last, now and then, or at the end.
    pub fn tell(&mut self, now: Duration, end: bool) -> Option<u64> {
        if self.left_out == 0 || (!end && now.saturating_sub(self.told) < TELL) {
            return None;
        }
        self.told = now;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hour_has_more_than_the_budget_and_none_is_silent() {
        let mut bucket = Bucket::new(1_000_000, Duration::ZERO);
        let (mut spent, mut left_out) = (vec![], 0);
        // Three hours at ten lines of 300 bytes a second: ten times the budget.
        for tenth in 0..3 * 36_000u64 {
            let now = Duration::from_millis(tenth * 100);
            if bucket.allows(300, false, now) {
                spent.push(tenth);
            }
            left_out += bucket.tell(now, false).unwrap_or(0);
        }
        left_out += bucket.tell(Duration::ZERO, true).unwrap_or(0);
        assert_eq!(spent.len() as u64 + left_out, 3 * 36_000);
        for start in (0..2 * 36_000).step_by(600) {
            let bytes = 300 * spent.iter().filter(|t| (start..start + 36_000).contains(*t)).count();
            assert!((850_000..=1_000_000).contains(&bytes), "{bytes} bytes in the hour from {start}");
        }
        // Lines stay spread: no ten minutes without one.
        assert!(spent.windows(2).all(|w| w[1] - w[0] < 6000));
    }

    #[test]
    fn changes_are_kept_and_their_debt_is_bounded() {
        let mut bucket = Bucket::new(1200, Duration::ZERO);
        assert!(bucket.allows(100, false, Duration::ZERO));
        assert!(!bucket.allows(100, false, Duration::ZERO));
        assert!((0..1000).all(|_| bucket.allows(100, true, Duration::ZERO)));
        assert_eq!(bucket.tell(Duration::from_secs(59), false), None);
        assert_eq!(bucket.tell(Duration::from_secs(60), false), Some(1));
        assert_eq!(bucket.tell(Duration::from_secs(600), true), None);
        assert!(!bucket.allows(100, false, Duration::from_secs(3600)));
        assert!(bucket.allows(100, false, Duration::from_secs(2 * 3600)));
    }
}
