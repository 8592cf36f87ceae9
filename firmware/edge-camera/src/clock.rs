//! What time it is, by two clocks: one that people read and that may jump, one that never does.

use edge_system::check;
use std::time::{Duration, Instant, SystemTime};

/// Differences between the clocks that change by no more than this are a clock being slewed.
const JUMP: f64 = 1.0;

/// The clocks.
pub trait Clock {
    /// Time since the program started; never jumps.
    fn elapsed(&self) -> Duration;
    /// The wall clock.
    fn wall(&self) -> SystemTime;
    /// Whether the wall clock is kept right; `None` where that cannot be asked.
    fn synced(&self) -> Option<bool>;
}

/// This machine's clocks.
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// `started` is when the program did.
    pub fn new(started: Instant) -> SystemClock {
        SystemClock { started }
    }
}

impl Clock for SystemClock {
    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn synced(&self) -> Option<bool> {
        check::clock_synced()
    }
}

/// Notices when the wall clock is set.
#[derive(Default)]
pub struct Jumps {
    /// Wall clock minus the other one, in seconds.
    offset: Option<f64>,
}

impl Jumps {
    /// By how many seconds the wall clock jumped since this was asked last; forward is positive.
    pub fn look(&mut self, clock: &dyn Clock) -> Option<f64> {
        let wall = match clock.wall().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => after.as_secs_f64(),
            Err(before) => -before.duration().as_secs_f64(),
        };
        let offset = wall - clock.elapsed().as_secs_f64();
        let before = self.offset.replace(offset)?;
        Some(offset - before).filter(|jump| jump.abs() > JUMP)
    }
}

#[cfg(test)]
pub mod fake {
    use super::Clock;
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::{Duration, SystemTime};

    /// Clocks that stand until they are set.
    #[derive(Clone, Default)]
    pub struct FakeClock(Rc<Times>);

    #[derive(Default)]
    struct Times {
        elapsed: Cell<Duration>,
        wall: Cell<i64>,
    }

    impl FakeClock {
        /// Both clocks go on.
        pub fn pass(&self, milliseconds: u64) {
            self.0.elapsed.set(self.0.elapsed.get() + Duration::from_millis(milliseconds));
            self.jump(milliseconds as i64);
        }

        /// The wall clock is set.
        pub fn jump(&self, milliseconds: i64) {
            self.0.wall.set(self.0.wall.get() + milliseconds);
        }
    }

    impl Clock for FakeClock {
        fn elapsed(&self) -> Duration {
            self.0.elapsed.get()
        }

        fn wall(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
                + Duration::from_secs(1_700_000_000)
                + Duration::from_millis(self.0.wall.get() as u64)
        }

        fn synced(&self) -> Option<bool> {
            Some(self.0.wall.get() > 3_600_000)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::FakeClock;
    use super::*;

    #[test]
    fn a_set_clock_is_noticed_and_a_slewed_one_is_not() {
        let clock = FakeClock::default();
        let mut jumps = Jumps::default();
        clock.jump(100_000);
        assert_eq!(jumps.look(&clock), None);
        for _ in 0..100 {
            clock.pass(1000);
            clock.jump(5);
            assert_eq!(jumps.look(&clock), None);
        }
        clock.jump(-90_000);
        assert!((jumps.look(&clock).unwrap() + 90.0).abs() < 0.001);
        assert_eq!(jumps.look(&clock), None);
        clock.jump(7_200_000);
        assert!((jumps.look(&clock).unwrap() - 7200.0).abs() < 0.001);
    }

    #[test]
    fn this_machine_has_clocks() {
        let clock = SystemClock::new(Instant::now());
        let first = clock.elapsed();
        assert!(clock.elapsed() >= first);
        // Both answers are right; that there is one where adjtimex is allowed is what counts.
        println!("synced: {:?}", clock.synced());
    }
}
