//! A new package's trial: it runs, and the one before it looks at some of the same frames.
//!
//! Both networks are in memory meanwhile. The old one is given a share of the time rather than of the frames: where frames
//! come seldom it sees all of them, where they come as fast as they are classified it costs no more than its share.
//!
//! What ends a trial early is the network's own failure; a frame that cannot be read says nothing of a package. How often
//! the program was started for it and did not end well stands in the slots, since a program that died or was killed because
//! it hung cannot say so itself.

use crate::capture::Frame;
use crate::package::Model;
use crate::slots::Counted;
use crate::summary::Histogram;
use edge_device::event::{Comparison, millis};
use edge_vision::{Mount, Picture};
use std::fmt;
use std::time::{Duration, Instant};

/// Frames without which nothing is judged, neither well nor ill.
const LEAST: u64 = 10;
/// Frames without which latency is not judged before the end: the first ones find nothing in the caches.
const MANY: u64 = 30;
/// A trial is told of so many times.
const REPORTS: u32 = 10;

/// When a package is kept, and when it is not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// How long it is tried; zero keeps it as soon as its golden samples have passed.
    pub time: Duration,
    /// Share of the time that the package before it may take, 0…1.
    pub share: f64,
    /// How many times as long as the old one it may take, by the medians.
    pub latency: f64,
    /// Share of the frames for which both have to decide the same, 0…1.
    pub agreement: Option<f64>,
}

/// What a package says of a frame by itself: without the frames before.
#[derive(Debug, Clone, PartialEq)]
pub struct Opinion {
    /// The label decided for, or `unknown`.
    pub decision: String,
    /// The label of the best class.
    pub best: String,
    /// From having the frame's bytes to having the scores.
    pub took: Duration,
}

/// Where a trial stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It goes on.
    Open,
    /// The package is kept.
    Keep,
    /// The old one runs again; why.
    Return(String),
}

/// What both packages said of the frames that both saw.
pub struct Tally {
    rules: Rules,
    reports: u32,
    frames: u64,
    /// Frames that the old one was shown, and those of them that it could classify.
    shown: u64,
    compared: u64,
    same_decision: u64,
    same_best: u64,
    /// Milliseconds of the new and of the old one.
    took: [Histogram; 2],
    /// What the old one has taken so far, and the last time.
    spent: Duration,
    last: Duration,
}

impl Tally {
    /// Nothing was seen yet.
    pub fn new(rules: Rules) -> Tally {
        Tally {
            rules,
            reports: 0,
            frames: 0,
            shown: 0,
            compared: 0,
            same_decision: 0,
            same_best: 0,
            took: [Histogram::new(), Histogram::new()],
            spent: Duration::ZERO,
            last: Duration::ZERO,
        }
    }

    /// The new package classified a frame, `elapsed` after the trial began; whether the old one shall see it too.
    pub fn classified(&mut self, elapsed: Duration) -> bool {
        self.frames += 1;
        let allowed = elapsed.mul_f64(self.rules.share);
        self.rules.share > 0.0 && (self.shown == 0 || self.spent + self.last <= allowed)
    }

    /// What both said of a frame, if the old one could classify it; it took `cost` in all.
    pub fn compare(&mut self, new: &Opinion, old: Option<&Opinion>, cost: Duration) {
        self.shown += 1;
        self.spent += cost;
        self.last = cost;
        let Some(old) = old else { return };
        self.compared += 1;
        self.same_decision += u64::from(new.decision == old.decision);
        self.same_best += u64::from(new.best == old.best);
        for (histogram, opinion) in self.took.iter_mut().zip([new, old]) {
            histogram.add(millis(opinion.took));
        }
    }

    /// Goes on by other rules.
    pub fn set(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Whether it is time to tell how it goes.
    pub fn reports(&mut self, elapsed: Duration) -> bool {
        let due = self.reports + 1 < REPORTS && elapsed >= self.rules.time / REPORTS * (self.reports + 1);
        if due {
            // Where nothing was looked at for long, one report is enough.
            let part = elapsed.as_secs_f64() / self.rules.time.as_secs_f64() * f64::from(REPORTS);
            self.reports = (part as u32).clamp(self.reports + 1, REPORTS);
        }
        due
    }

    /// Judges. Latency is looked at as soon as there are many frames, agreement only in the end: odd frames come together.
    pub fn verdict(&self, elapsed: Duration) -> Verdict {
        let compares = self.rules.share > 0.0;
        let enough = if compares { self.shown } else { self.frames } >= LEAST;
        if !enough {
            return Verdict::Open;
        }
        let [new, old] = self.medians();
        let over = elapsed >= self.rules.time;
        if compares && (over || self.compared >= MANY) && new > old * self.rules.latency {
            let factor = self.rules.latency;
            return Verdict::Return(format!("it takes more than {factor} times as long: {self}"));
        }
        if !over {
            return Verdict::Open;
        }
        match self.rules.agreement {
            Some(least) if compares && share(self.same_decision, self.compared) < least => {
                Verdict::Return(format!("the two agree on less than {:.1} %: {self}", least * 100.0))
            }
            _ => Verdict::Keep,
        }
    }

    fn medians(&self) -> [f64; 2] {
        self.took.each_ref().map(|histogram| histogram.percentile(0.5))
    }

    /// The numbers, for the log.
    pub fn comparison(&self) -> Comparison {
        let [new, old] = self.took.each_ref().map(Histogram::percentiles);
        Comparison {
            frames: self.frames,
            compared: self.compared,
            same_decision: self.same_decision,
            same_best: self.same_best,
            latency_ms: new,
            old_latency_ms: old,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frame(s)", self.frames)?;
        if self.compared == 0 {
            return write!(f, ", none of them seen by the package before");
        }
        let percent = |count| 100.0 * share(count, self.compared);
        let [new, old] = self.medians();
        write!(
            f,
            ", {} of them seen by the package before too: {:.1} % the same decision, {:.1} % the same best class; \
             median latency {new:.1} ms, {old:.1} ms before",
            self.compared,
            percent(self.same_decision),
            percent(self.same_best)
        )
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

/// A trial that runs.
pub struct Trial {
    /// As it stands in the slots.
    pub counted: Counted,
    /// What was seen.
    pub tally: Tally,
    /// When it began here.
    pub since: Instant,
    /// The package before, where it looks at frames too.
    pub old: Option<Box<Model>>,
}

impl Trial {
    /// Shows the old package a frame that the new one classified, where it is its turn.
    pub fn look(&mut self, frame: &Frame, mount: &Mount, pictures: &mut [Picture; 2], new: &Opinion) {
        let wanted = self.tally.classified(self.since.elapsed());
        let Some(old) = self.old.as_mut().filter(|_| wanted) else { return };
        let start = Instant::now();
        // What the old one cannot classify is no fault of the new one.
        let opinion = old.classify(frame, mount, pictures).ok().map(|seen| old.opinion(&seen));
        self.tally.compare(new, opinion.as_ref(), start.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { time: Duration::from_secs(100), share: 0.1, latency: 2.0, agreement: None };

    fn opinion(decision: &str, best: &str, ms: u64) -> Opinion {
        Opinion { decision: decision.into(), best: best.into(), took: Duration::from_millis(ms) }
    }

    /// `count` frames on which the two say this and take these milliseconds.
    fn tally(rules: Rules, count: u64, new: (&str, u64), old: (&str, u64)) -> Tally {
        let mut tally = Tally::new(rules);
        for _ in 0..count {
            tally.classified(Duration::ZERO);
            let (new, old) = (opinion(new.0, "cat", new.1), opinion(old.0, "cat", old.1));
            tally.compare(&new, Some(&old), Duration::from_millis(1));
        }
        tally
    }

    #[test]
    fn the_old_one_takes_no_more_than_its_share_of_the_time() {
        for (ms, cost, expected) in [(10u64, 10u64, 0.1), (1000, 20, 1.0), (100, 5, 1.0), (20, 10, 0.2)] {
            let mut tally = Tally::new(RULES);
            let (mut seen, frames) = (0u64, 5000u64);
            for frame in 0..frames {
                if tally.classified(Duration::from_millis(frame * ms)) {
                    seen += 1;
                    tally.compare(&opinion("", "", 1), Some(&opinion("", "", 1)), Duration::from_millis(cost));
                }
            }
            let share = seen as f64 / frames as f64;
            assert!((share - expected).abs() < 0.01, "{share} of the frames, one in {ms} ms at a cost of {cost} ms");
        }
        let mut none = Tally::new(Rules { share: 0.0, ..RULES });
        assert!((0..100).all(|s| !none.classified(Duration::from_secs(s))));
    }

    #[test]
    fn it_is_kept_after_its_time_and_enough_frames() {
        let (early, late) = (Duration::from_secs(99), Duration::from_secs(100));
        assert_eq!(tally(RULES, 100, ("cat", 20), ("dog", 10)).verdict(early), Verdict::Open);
        assert_eq!(tally(RULES, 10, ("cat", 20), ("dog", 10)).verdict(late), Verdict::Keep);
        assert_eq!(tally(RULES, 9, ("cat", 20), ("dog", 10)).verdict(late), Verdict::Open);
        // Nobody beside it: its own frames count.
        let mut alone = Tally::new(Rules { share: 0.0, ..RULES });
        assert_eq!(alone.verdict(late), Verdict::Open);
        assert!((0..10).all(|_| !alone.classified(late)));
        assert_eq!(alone.verdict(late), Verdict::Keep);
        assert!(alone.to_string().contains("none of them seen"));
    }

    #[test]
    fn latency_returns_it_at_once_and_agreement_in_the_end() {
        assert_eq!(tally(RULES, 29, ("cat", 21), ("cat", 10)).verdict(Duration::ZERO), Verdict::Open);
        let slow = tally(RULES, 30, ("cat", 21), ("cat", 10)).verdict(Duration::ZERO);
        assert!(
            matches!(&slow, Verdict::Return(why) if why.contains("more than 2 times") && why.contains("21.0 ms, 10.0 ms")),
            "{slow:?}"
        );
        let rules = Rules { agreement: Some(0.9), ..RULES };
        let mut differs = tally(rules, 8, ("cat", 10), ("cat", 10));
        for _ in 0..2 {
            differs.classified(Duration::ZERO);
            differs.compare(&opinion("unknown", "cat", 10), Some(&opinion("cat", "cat", 10)), Duration::ZERO);
        }
        assert_eq!(differs.verdict(Duration::ZERO), Verdict::Open);
        let end = differs.verdict(rules.time);
        assert!(
            matches!(&end, Verdict::Return(why) if why.contains("90.0 %") && why.contains("80.0 % the same decision, 100.0 % the same best")),
            "{end:?}"
        );
        let same = tally(rules, 10, ("cat", 10), ("cat", 10)).verdict(rules.time);
        assert_eq!(same, Verdict::Keep);
    }

    #[test]
    fn it_is_told_of_nine_times_before_the_end() {
        let mut tally = Tally::new(RULES);
        let told = (0..2000).filter(|tenth| tally.reports(Duration::from_millis(tenth * 100))).count();
        assert_eq!(told, 9);
        // Nothing was looked at for half of the time.
        let mut tally = Tally::new(RULES);
        let told = (500..2000).filter(|tenth| tally.reports(Duration::from_millis(tenth * 100))).count();
        assert_eq!(told, 5);
    }
}
