//! Training of a head on features: epochs, shuffling, rates, which epoch is kept.

use crate::head::{Adam, Head, HeadSpec, Loss, Target, largest, measure};
use crate::history::Epoch;
use crate::random::Random;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How the rate goes over the epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// It stays.
    #[default]
    Constant,
    /// Half a cosine from the rate to zero over all steps (Keras' CosineDecay).
    Cosine,
    /// A tenth of it after each 5 epochs in which the monitored value has not got better (Keras' ReduceLROnPlateau).
    Plateau,
}

/// Epochs without anything better until [`Schedule::Plateau`] lowers the rate.
const PLATEAU: usize = 5;

/// What says which epoch is best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Monitor {
    /// The share of validation photos that are right: the larger the better.
    ValAccuracy,
    /// The mean loss over validation photos: the smaller the better.
    ValLoss,
}

/// How to train.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    /// The head.
    pub head: HeadSpec,
    /// Passes over the photos.
    pub epochs: usize,
    /// Photos in a step.
    pub batch_size: usize,
    /// Adam's rate.
    pub learning_rate: f64,
    /// How it goes.
    pub schedule: Schedule,
    /// How loss is measured.
    pub loss: Loss,
    /// Moved from what is wanted to all classes alike.
    pub label_smoothing: f32,
    /// A factor for the loss of each class' photos; empty for 1.
    pub class_weights: Vec<f32>,
    /// Epochs without anything better until it stops; none to go on to the end.
    pub early_stop: Option<usize>,
    /// What is better.
    pub monitor: Monitor,
    /// Whether the larger value is better.
    pub maximise: bool,
    /// For everything that is random.
    pub seed: u64,
}

/// Photos as features.
#[derive(Debug, Clone, Copy)]
pub struct Set<'a> {
    /// For each photo, views one after the other, each a feature vector.
    pub features: &'a [f32],
    /// Views of each photo.
    pub views: usize,
    /// What each photo should give, a value per class.
    pub wanted: &'a [f32],
}

impl Set<'_> {
    /// Photos.
    pub fn len(&self, classes: usize) -> usize {
        self.wanted.len() / classes
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// The head of the best epoch.
    pub head: Head,
    /// All epochs.
    pub history: Vec<Epoch>,
    /// The best one.
    pub best: Epoch,
    /// Whether it was told to stop before the end.
    pub interrupted: bool,
}

impl Settings {
    /// Whether an epoch is better than another.
    pub fn better(&self, one: &Epoch, other: &Epoch) -> bool {
        let value = |e: &Epoch| match self.monitor {
            Monitor::ValAccuracy => e.val_accuracy,
            Monitor::ValLoss => e.val_loss,
        };
        match self.maximise {
            true => value(one) > value(other),
            false => value(one) < value(other),
        }
    }
}

/// Trains. `each` is called after every epoch with the head, its numbers, and whether it is the best so far.
pub fn fit<E>(
    settings: &Settings,
    train: Set<'_>,
    validation: Set<'_>,
    stop: &AtomicBool,
    mut each: impl FnMut(&Head, &Epoch, bool) -> Result<(), E>,
) -> Result<Option<Fitted>, E> {
    let (classes, width) = (settings.head.classes, settings.head.features);
    let count = train.len(classes);
    let mut head = Head::new(&settings.head, settings.seed);
    let mut adam = Adam::new(&head);
    let smooth: Vec<f32> =
        train.wanted.iter().map(|w| smoothed(*w, settings.label_smoothing, settings.loss, classes)).collect();
    let weights: Vec<f32> = train.wanted.chunks_exact(classes).map(|w| weight(w, &settings.class_weights)).collect();
    let steps = (settings.epochs * count.div_ceil(settings.batch_size)) as f64;
    let (mut history, mut kept): (Vec<Epoch>, Option<(Head, Epoch)>) = (vec![], None);
    let (mut step, mut lowered, mut since) = (0.0, 1.0, 0);
    let mut interrupted = false;
    for number in 1..=settings.epochs {
        let start = Instant::now();
        let mut random = Random::new(settings.seed, number as u64);
        let (mut loss, mut right) = (0.0, 0.0);
        let mut rate = settings.learning_rate;
        for batch in random.order(count).chunks(settings.batch_size) {
            if stop.load(Ordering::Relaxed) {
                interrupted = true;
                break;
            }
            let mut features = Vec::with_capacity(batch.len() * width);
            for photo in batch {
                // Each photo's views in turn, not all photos' first views in the first epoch.
                let view = photo * train.views + (number + photo) % train.views;
                features.extend(&train.features[view * width..(view + 1) * width]);
            }
            let target = |p: &usize| Target { wanted: &smooth[p * classes..(p + 1) * classes], weight: weights[*p] };
            let targets: Vec<Target<'_>> = batch.iter().map(target).collect();
            rate = settings.learning_rate
                * match settings.schedule {
                    Schedule::Constant => 1.0,
                    Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * step / steps).cos()),
                    Schedule::Plateau => lowered,
                };
            let (mean, well, gradients) = head.gradients(features, &targets, settings.loss, Some(&mut random));
            adam.step(&mut head, &gradients, rate);
            loss += mean * batch.len() as f64;
            right += well;
            step += 1.0;
        }
        if interrupted {
            break;
        }
        let (val_loss, val_accuracy) = evaluate(&head, validation, settings.loss, classes);
        let epoch = Epoch {
            epoch: number,
            loss: loss / count as f64,
            accuracy: right / count as f64,
            val_loss,
            val_accuracy,
            learning_rate: rate,
            seconds: start.elapsed().as_secs_f64(),
        };
        history.push(epoch);
        let best = kept.as_ref().is_none_or(|(_, best)| settings.better(&epoch, best));
        if best {
            kept = Some((head.clone(), epoch));
        }
        each(&head, &epoch, best)?;
        since = if best { 0 } else { since + 1 };
        if since > 0 && since % PLATEAU == 0 {
            lowered *= 0.1;
        }
        if settings.early_stop.is_some_and(|most| since >= most) {
            break;
        }
    }
    Ok(kept.map(|(head, best)| Fitted { head, history, best, interrupted }))
}

/// Mean loss and share of right photos, nothing dropped, each photo's first view.
pub fn evaluate(head: &Head, set: Set<'_>, loss: Loss, classes: usize) -> (f64, f64) {
    let logits = logits(head, set, classes);
    let targets: Vec<Target<'_>> =
        set.wanted.chunks_exact(classes).map(|wanted| Target { wanted, weight: 1.0 }).collect();
    let (mean, right, _) = measure(&logits, &targets, loss, classes);
    (mean, right / targets.len().max(1) as f64)
}

/// The logits of each photo's first view.
pub fn logits(head: &Head, set: Set<'_>, classes: usize) -> Vec<f32> {
    let width = head.layers.first().map_or(1, |l| l.inputs);
    let mut all = Vec::with_capacity(set.wanted.len());
    for photos in set.features.chunks(set.views * width * 256) {
        let first: Vec<f32> = photos.chunks_exact(set.views * width).flat_map(|p| &p[..width]).copied().collect();
        all.extend(head.logits(&first));
    }
    debug_assert_eq!(all.len(), set.len(classes) * classes);
    all
}

/// What is wanted, moved by `amount` to all classes alike; of independent classes, to a half (Keras' `label_smoothing`).
pub fn smoothed(wanted: f32, amount: f32, loss: Loss, classes: usize) -> f32 {
    match loss {
        Loss::Categorical => wanted * (1.0 - amount) + amount / classes as f32,
        Loss::Binary => wanted * (1.0 - amount) + 0.5 * amount,
    }
}

pub(crate) fn weight(wanted: &[f32], weights: &[f32]) -> f32 {
    weights.get(largest(wanted)).copied().unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Activation;

    fn settings() -> Settings {
        let head = HeadSpec { features: 8, inner: vec![], activation: Activation::Relu, dropout: 0.1, classes: 3 };
        Settings {
            head,
            epochs: 60,
            batch_size: 16,
            learning_rate: 0.02,
            schedule: Schedule::Constant,
            loss: Loss::Categorical,
            label_smoothing: 0.0,
            class_weights: vec![],
            early_stop: None,
            monitor: Monitor::ValAccuracy,
            maximise: true,
            seed: 1,
        }
    }

    /// Points around three corners.
    fn points(seed: u64, count: usize, views: usize) -> (Vec<f32>, Vec<f32>) {
        let mut random = Random::new(seed, 5);
        let (mut features, mut wanted) = (vec![], vec![]);
        for photo in 0..count {
            for _ in 0..views {
                features.extend((0..8).map(|i| random.unit() * 0.9 + f32::from(i % 3 == photo % 3)));
            }
            wanted.extend((0..3).map(|c| f32::from(c == photo % 3)));
        }
        (features, wanted)
    }

    #[test]
    fn it_learns_keeps_the_best_and_repeats_itself() {
        let ((features, wanted), (others, truth)) = (points(1, 90, 2), points(2, 60, 1));
        let train = Set { features: &features, views: 2, wanted: &wanted };
        let validation = Set { features: &others, views: 1, wanted: &truth };
        for schedule in [Schedule::Constant, Schedule::Cosine, Schedule::Plateau] {
            let settings = Settings { schedule, ..settings() };
            let mut told = 0;
            let run = |told: &mut usize| {
                let each = |_: &Head, _: &Epoch, best: bool| -> Result<(), ()> {
                    *told += usize::from(best);
                    Ok(())
                };
                fit(&settings, train, validation, &AtomicBool::new(false), each).unwrap().unwrap()
            };
            let fitted = run(&mut told);
            assert!(fitted.best.val_accuracy > 0.95, "{schedule:?}: {:?}", fitted.best);
            assert!(fitted.history.iter().all(|e| e.val_accuracy <= fitted.best.val_accuracy));
            assert_eq!(evaluate(&fitted.head, validation, Loss::Categorical, 3).1, fitted.best.val_accuracy);
            assert!(told >= 1);
            assert_eq!(run(&mut told).head, fitted.head);
        }
    }

    #[test]
    fn it_stops_when_nothing_gets_better_and_when_told() {
        let (features, wanted) = points(1, 30, 1);
        let set = Set { features: &features, views: 1, wanted: &wanted };
        let early = Settings { early_stop: Some(3), learning_rate: 0.0, ..settings() };
        let each = |_: &Head, _: &Epoch, _: bool| -> Result<(), ()> { Ok(()) };
        let fitted = fit(&early, set, set, &AtomicBool::new(false), each).unwrap().unwrap();
        assert_eq!(fitted.history.len(), 4);
        assert!(fit(&early, set, set, &AtomicBool::new(true), each).unwrap().is_none());
    }

    #[test]
    fn a_failing_callback_ends_it() {
        let (features, wanted) = points(1, 30, 1);
        let set = Set { features: &features, views: 1, wanted: &wanted };
        let failed = fit(&settings(), set, set, &AtomicBool::new(false), |_, _, _| Err("disk full"));
        assert_eq!(failed.unwrap_err(), "disk full");
    }
}
