//! From the scores of one frame after another to a decision that does not flicker.
//!
//! 1. **Smoothing**: what is decided on is the mean of the last `smooth` vectors of scores (of fewer, at the start).
//! 2. **Entering**: a class is decided for when it is the best one and its mean reaches the threshold.
//! 3. **Leaving**: the class decided for stays until its mean falls below the leave threshold, or until another class
//!    that reaches the threshold leads it by the margin. A class that fell below gives way to the best one that reaches the
//!    threshold, without a margin; where there is none, the decision is "unknown".
//! 4. **Dwell**: every decision, "unknown" included, stands for at least `dwell`; the first one comes at once.
//!
//! With the defaults (one frame, no margin, no other leave threshold, no dwell) a decision depends on its frame alone,
//! exactly as [`edge_engine::decision::decide`] says.

use edge_engine::decision::{decide, top_k};
use std::collections::VecDeque;
use std::time::Duration;

/// The longest smoothing, in frames. A window holds one vector of scores per frame.
pub const MOST_FRAMES: usize = 1000;

/// How scores become decisions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Score at which a class is decided for; `None` decides for the best one whatever its score.
    pub threshold: Option<f32>,
    /// Score below which the class decided for is left; `None` is the threshold.
    pub leave: Option<f32>,
    /// Score by which another class must lead the one decided for.
    pub margin: f32,
    /// Frames in the mean, 1 to [`MOST_FRAMES`].
    pub smooth: usize,
    /// How long a decision stands at least.
    pub dwell: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { threshold: None, leave: None, margin: 0.0, smooth: 1, dwell: Duration::ZERO }
    }
}

/// A policy whose numbers contradict each other.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// A class would be left at a score at which it is decided for.
    #[error("the leave threshold {leave} is above the threshold {threshold}; it has to be at most that")]
    LeaveAbove {
        /// Where a class is left.
        leave: f32,
        /// Where it is decided for.
        threshold: f32,
    },
    /// There is nothing to be below of.
    #[error("there is a leave threshold, {leave}, but neither package nor configuration has a threshold")]
    LeaveAlone {
        /// Where a class is left.
        leave: f32,
    },
}

/// What was decided for one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The class; `None` is "unknown".
    pub class: Option<usize>,
    /// (class, mean score), best first, as many as were asked for.
    pub top: Vec<(usize, f32)>,
    /// Whether the frame before was decided otherwise; the first one counts as a change.
    pub changed: bool,
}

/// Decides frame after frame.
pub struct Decider {
    policy: Policy,
    /// The last vectors of scores, oldest first.
    window: VecDeque<Vec<f32>>,
    mean: Vec<f32>,
    /// What stands, and since when; `None` before the first frame.
    standing: Option<(Option<usize>, Duration)>,
}

impl Decider {
    /// A decider that has seen nothing. `package` is the package's threshold, which the policy's overrides.
    pub fn new(policy: Policy, package: Option<f32>) -> Result<Decider, PolicyError> {
        let policy = Policy { threshold: policy.threshold.or(package), ..policy };
        match (policy.threshold, policy.leave) {
            (Some(threshold), Some(leave)) if leave > threshold => {
                return Err(PolicyError::LeaveAbove { leave, threshold });
            }
            (None, Some(leave)) => return Err(PolicyError::LeaveAlone { leave }),
            _ => {}
        }
        Ok(Decider { policy, window: VecDeque::new(), mean: vec![], standing: None })
    }

    /// Decides for the frame of these scores, captured at `at` by a clock that never jumps. `k` best classes are
    /// reported.
    pub fn decide(&mut self, at: Duration, scores: &[f32], k: usize) -> Decision {
        self.smooth(scores);
        let best = top_k(&self.mean, k.max(1));
        let wanted = self.wanted(best.first().copied());
        let before = self.standing;
        match before {
            Some((standing, since)) if standing == wanted || at.saturating_sub(since) < self.policy.dwell => {}
            _ => self.standing = Some((wanted, at)),
        }
        let class = self.standing.and_then(|(class, _)| class);
        let changed = before.is_none_or(|(before, _)| before != class);
        Decision { class, top: best.into_iter().take(k).collect(), changed }
    }

    /// Brings `mean` up to date. It is summed anew each time, so that rounding errors do not add up over a year.
    fn smooth(&mut self, scores: &[f32]) {
        let mut newest = if self.window.len() >= self.policy.smooth.clamp(1, MOST_FRAMES) {
            self.window.pop_front().unwrap_or_default()
        } else {
            vec![]
        };
        newest.clear();
        newest.extend_from_slice(scores);
        self.window.push_back(newest);
        self.mean.clear();
        self.mean.extend_from_slice(scores);
        if self.window.len() > 1 {
            let frames = self.window.len() as f32;
            for (class, mean) in self.mean.iter_mut().enumerate() {
                let sum: f32 = self.window.iter().filter_map(|scores| scores.get(class)).sum();
                *mean = sum / frames;
            }
        }
    }

    /// What would be decided without a dwell time.
    fn wanted(&self, best: Option<(usize, f32)>) -> Option<usize> {
        let entering = decide(best, self.policy.threshold);
        let Some(standing) = self.standing.and_then(|(class, _)| class) else { return entering };
        let Some(&score) = self.mean.get(standing) else { return entering };
        let leads = |(_, best): &(usize, f32)| *best >= score + self.policy.margin;
        let overtaken = entering.is_some_and(|class| class != standing) && best.as_ref().is_some_and(leads);
        let holds = self.policy.leave.or(self.policy.threshold).is_none_or(|leave| score >= leave);
        if holds && !overtaken { Some(standing) } else { entering }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decisions for the scores of classes 0 and 1, one frame a second; `u` is unknown, `!` marks a change.
    fn run(policy: Policy, frames: &[[f32; 2]]) -> String {
        let mut decider = Decider::new(policy, None).unwrap();
        let one = |(i, scores): (usize, &[f32; 2])| {
            let decision = decider.decide(Duration::from_secs(i as u64), scores, 1);
            let class = decision.class.map_or("u".into(), |c| c.to_string());
            if decision.changed { format!("!{class}") } else { class }
        };
        frames.iter().enumerate().map(one).collect::<Vec<_>>().join(" ")
    }

    const PLAIN: Policy = Policy { threshold: None, leave: None, margin: 0.0, smooth: 1, dwell: Duration::ZERO };

    #[test]
    fn table_of_sequences() {
        let half = Some(0.5);
        let table: &[(&str, Policy, &[[f32; 2]], &str)] = &[
            ("the best wins", PLAIN, &[[0.6, 0.4], [0.4, 0.6], [0.5, 0.5]], "!0 !1 !0"),
            (
                "unknown below the threshold, which is inclusive",
                Policy { threshold: half, ..PLAIN },
                &[[0.49, 0.4], [0.5, 0.4], [0.3, 0.49]],
                "!u !0 !u",
            ),
            (
                "one odd frame does not show in a mean of three",
                Policy { smooth: 3, ..PLAIN },
                &[[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]],
                "!0 0 0 0 !1 1",
            ),
            (
                "the mean of a start is of the frames there are",
                Policy { smooth: 3, threshold: half, ..PLAIN },
                &[[0.6, 0.0], [0.3, 0.0], [0.7, 0.0]],
                "!0 !u !0",
            ),
            (
                "another class must lead by the margin",
                Policy { margin: 0.25, ..PLAIN },
                &[[0.5, 0.25], [0.5, 0.625], [0.5, 0.75], [0.75, 0.625]],
                "!0 0 !1 1",
            ),
            (
                "left only below the leave threshold",
                Policy { threshold: half, leave: Some(0.3), ..PLAIN },
                &[[0.4, 0.0], [0.5, 0.0], [0.4, 0.0], [0.3, 0.0], [0.29, 0.0], [0.4, 0.0]],
                "!u !0 0 0 !u u",
            ),
            (
                "who fell below gives way without a margin",
                Policy { threshold: half, leave: Some(0.4), margin: 0.5, ..PLAIN },
                &[[0.6, 0.0], [0.4, 0.6], [0.3, 0.6]],
                "!0 0 !1",
            ),
            (
                "a challenger below the threshold is none",
                Policy { threshold: half, leave: Some(0.1), ..PLAIN },
                &[[0.6, 0.0], [0.2, 0.4]],
                "!0 0",
            ),
            (
                "a decision stands for two seconds, unknown too",
                Policy { threshold: half, dwell: Duration::from_secs(2), ..PLAIN },
                &[[0.6, 0.4], [0.4, 0.6], [0.4, 0.6], [0.4, 0.4], [0.4, 0.4], [0.6, 0.0], [0.6, 0.0]],
                "!0 0 !1 1 !u u !0",
            ),
        ];
        for (name, policy, frames, expected) in table {
            assert_eq!(run(*policy, frames), *expected, "{name}");
        }
    }

    #[test]
    fn thresholds_that_contradict_are_refused() {
        let leave = |threshold| Policy { threshold, leave: Some(0.6), ..PLAIN };
        let error = |policy, package| Decider::new(policy, package).err();
        assert!(matches!(error(leave(Some(0.5)), None), Some(PolicyError::LeaveAbove { .. })));
        assert!(matches!(error(leave(None), Some(0.5)), Some(PolicyError::LeaveAbove { .. })));
        assert!(matches!(error(leave(None), None), Some(PolicyError::LeaveAlone { .. })));
        assert_eq!(error(leave(None), Some(0.6)), None);
        // The policy's threshold overrides the package's.
        assert_eq!(error(leave(Some(0.7)), Some(0.5)), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_defaults_decide_frame_by_frame(
            frames in prop::collection::vec(prop::collection::vec(0.0f32..1.0, 3), 1..40),
            threshold in prop::option::of(0.0f32..1.0),
        ) {
            let mut decider = Decider::new(Policy { threshold, ..PLAIN }, None).unwrap();
            for scores in &frames {
                let best = top_k(scores, 2);
                let decision = decider.decide(Duration::ZERO, scores, 2);
                prop_assert_eq!(decision.class, decide(best.first().copied(), threshold));
                prop_assert_eq!(decision.top, best);
            }
        }

        #[test]
        fn whatever_the_policy(
            frames in prop::collection::vec((prop::collection::vec(0.0f32..1.0, 4), 0u64..900), 1..60),
            (threshold, below, margin) in (0.0f32..1.0, 0.0f32..0.5, 0.0f32..0.5),
            (smooth, dwell) in (1usize..8, 0u64..3000),
        ) {
            let leave = (threshold - below).max(0.0);
            let dwell = Duration::from_millis(dwell);
            let policy = Policy { threshold: Some(threshold), leave: Some(leave), margin, smooth, dwell };
            let mut decider = Decider::new(policy, None).unwrap();
            let (mut at, mut last, mut since) = (Duration::ZERO, None, Duration::ZERO);
            for (scores, pause) in &frames {
                at += Duration::from_millis(*pause);
                let decision = decider.decide(at, scores, 4);
                let mean = |class| decision.top.iter().find(|(c, _)| *c == class).map(|(_, s)| *s);
                prop_assert_eq!(decision.changed, last != Some(decision.class));
                if decision.changed {
                    // A decision stood long enough, and the new class has reached the threshold.
                    prop_assert!(last.is_none() || at - since >= dwell);
                    if let Some(class) = decision.class {
                        prop_assert!(mean(class).unwrap() >= threshold);
                    }
                    (last, since) = (Some(decision.class), at);
                } else if let (Some(class), true) = (decision.class, at - since >= dwell) {
                    // Who stays has not been left.
                    prop_assert!(mean(class).unwrap() >= leave);
                }
            }
        }
    }
}
