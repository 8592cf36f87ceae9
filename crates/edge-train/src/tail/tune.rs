//! Fine-tuning: a tail and its head trained together, from activations in a file.
//!
//! The photos of a step are cut into a fixed number of shares, each on one thread; their gradients are added in the order of the
//! shares. So the outcome depends on the seed and not on the number of threads.

use super::{Parameter, Tail};
use crate::TrainError;
use crate::features::{Cache, Id};
use crate::fit::{Settings, smoothed, weight};
use crate::head::{Adam, Gradients, Head, Loss, Target, isa, measure};
use crate::history::Epoch;
use crate::random::Random;
use serde::Serialize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

/// Shares of a step.
const SHARES: usize = 8;
/// Bytes of values that a thread holds at a time, about: photos of a share go through the layers together as far as they fit.
const ROOM: usize = 96 << 20;
/// Weights that are moved by one thread at a time.
const PIECE: usize = 1 << 16;

/// What is particular to fine-tuning; the rest is as in [`Settings`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Tuning {
    /// Passes over the photos.
    pub epochs: usize,
    /// Adam's rate at its highest, for tail and head.
    pub learning_rate: f64,
    /// Epochs in which it rises to that; then it falls, half a cosine, to zero.
    pub warm_up: f64,
    /// Pull of the tail's weights toward where they began (L2-SP): a step moves them by this times the rate of the way.
    pub decay: f32,
    /// What a step leaves of the mean of the weights over the steps, which is what is validated and kept; 0 for none.
    pub average: f32,
    /// Of another photo, up to this share is mixed into each, activations and what is wanted alike (manifold mixup).
    pub mix: f32,
    /// Threads.
    #[serde(skip)]
    pub threads: usize,
}

/// What the tail reads of photos.
#[derive(Clone, Copy)]
pub struct Activations<'a> {
    /// Where they are.
    pub cache: &'a Cache,
    /// Each photo's views one after the other.
    pub ids: &'a [Id],
    /// How many of each.
    pub views: usize,
    /// What each photo should give, a value per class.
    pub wanted: &'a [f32],
}

/// What came of it.
pub struct Tuned {
    /// The tail and the head of the best epoch; none where no epoch was better than the start.
    pub best: Option<(Tail, Head, Epoch)>,
    /// All epochs, numbered on from those before.
    pub history: Vec<Epoch>,
    /// Whether it was told to stop before the end.
    pub interrupted: bool,
}

/// A share's sums.
struct Share {
    tail: Vec<Vec<f32>>,
    head: Gradients,
    loss: f64,
    right: f64,
}

struct Trainer<'a> {
    settings: &'a Settings,
    tuning: &'a Tuning,
    photos: Activations<'a>,
    targets: Vec<f32>,
    weights: Vec<f32>,
    tail: Tail,
    head: Head,
    /// The weights that the tail began with.
    start: Vec<Parameter>,
    moments: Vec<[Vec<f32>; 2]>,
    adam: Adam,
    steps: i32,
    shares: Vec<Mutex<Share>>,
}

/// Trains a tail and its head from where they are, which `before` (the last of `epochs_before`) tells of. `progress` is told
/// of photos done; `each` is called after every epoch, with its numbers and whether it is the best so far.
#[allow(clippy::too_many_arguments)]
pub fn tune<E: From<TrainError>>(
    settings: &Settings,
    tuning: &Tuning,
    (tail, head): (&Tail, &Head),
    (before, epochs_before): (&Epoch, usize),
    train: Activations<'_>,
    validation: Activations<'_>,
    stop: &AtomicBool,
    mut progress: impl FnMut(usize),
    mut each: impl FnMut(&Tail, &Head, &Epoch, bool) -> Result<(), E>,
) -> Result<Tuned, E> {
    let classes = settings.head.classes;
    let count = train.wanted.len() / classes;
    let mut trainer = Trainer::new(settings, tuning, (tail, head), train);
    let mut mean = (tuning.average > 0.0).then(|| (tail.clone(), head.clone()));
    let mut tuned = Tuned { best: None, history: vec![], interrupted: false };
    for number in 1..=tuning.epochs {
        let start = Instant::now();
        let (mut loss, mut right, mut rate) = (0.0, 0.0, 0.0);
        let epoch = epochs_before + number;
        let per_epoch = count.div_ceil(settings.batch_size);
        for (at, batch) in Random::new(settings.seed, epoch as u64).order(count).chunks(settings.batch_size).enumerate()
        {
            if stop.load(Ordering::Relaxed) {
                tuned.interrupted = true;
                return Ok(tuned);
            }
            rate = tuning.rate(((number - 1) * per_epoch + at) as f64 / per_epoch as f64, 1.0 / per_epoch as f64);
            let (sum, well) = trainer.step(epoch, batch, rate)?;
            (loss, right) = (loss + sum, right + well);
            progress(batch.len());
            if let Some((tail, head)) = &mut mean {
                // Young means forget faster: the first steps should not weigh for ever.
                let keep = tuning.average.min(trainer.steps as f32 / (trainer.steps as f32 + 10.0));
                follow(tail, head, &trainer, keep);
            }
        }
        let (tail, head) = mean.as_ref().map_or((&trainer.tail, &trainer.head), |(t, h)| (t, h));
        let (val_loss, val_accuracy) = evaluate(tail, head, validation, settings.loss, classes, tuning.threads)?;
        let epoch = Epoch {
            epoch,
            loss: loss / count as f64,
            accuracy: right / count as f64,
            val_loss,
            val_accuracy,
            learning_rate: rate,
            seconds: start.elapsed().as_secs_f64(),
        };
        tuned.history.push(epoch);
        let best = settings.better(&epoch, tuned.best.as_ref().map_or(before, |b| &b.2));
        if best {
            tuned.best = Some((tail.clone(), head.clone(), epoch));
        }
        each(tail, head, &epoch, best)?;
        let since = epoch.epoch - tuned.best.as_ref().map_or(epochs_before, |b| b.2.epoch);
        if settings.early_stop.is_some_and(|most| since >= most) {
            break;
        }
    }
    Ok(tuned)
}

/// How long an epoch will take, from a few steps on a copy.
pub fn seconds(
    settings: &Settings,
    tuning: &Tuning,
    (tail, head): (&Tail, &Head),
    train: Activations<'_>,
    validation: Activations<'_>,
) -> Result<f64, TrainError> {
    let classes = settings.head.classes;
    let count = train.wanted.len() / classes;
    let photos: Vec<usize> = (0..count.min(settings.batch_size)).collect();
    let mut trainer = Trainer::new(settings, tuning, (tail, head), train);
    trainer.step(0, &photos, 0.0)?;
    let start = Instant::now();
    trainer.step(0, &photos, 0.0)?;
    trainer.step(0, &photos, 0.0)?;
    let step = start.elapsed().as_secs_f64() / 2.0;
    let all = validation.wanted.len() / classes;
    let few = all.min(32);
    let (ids, wanted) = (&validation.ids[..few * validation.views], &validation.wanted[..few * classes]);
    let part = Activations { ids, wanted, ..validation };
    let start = Instant::now();
    evaluate(tail, head, part, settings.loss, classes, tuning.threads)?;
    let validating = start.elapsed().as_secs_f64() / few.max(1) as f64 * all as f64;
    Ok(step * count as f64 / photos.len().max(1) as f64 + validating)
}

impl Tuning {
    /// The rate at `epoch`, counted in epochs from 0, where a step is `step` of one.
    pub(super) fn rate(&self, epoch: f64, step: f64) -> f64 {
        let warm = self.warm_up.min(self.epochs as f64 / 2.0);
        let share = match epoch < warm {
            true => (epoch + step) / warm.max(step),
            false => {
                let done = (epoch - warm) / (self.epochs as f64 - warm).max(step);
                0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
        };
        self.learning_rate * share.min(1.0)
    }
}

/// Moves a mean toward the weights of now.
fn follow(tail: &mut Tail, head: &mut Head, now: &Trainer<'_>, keep: f32) {
    let toward =
        |mean: &mut [f32], now: &[f32]| mean.iter_mut().zip(now).for_each(|(m, v)| *m += (v - *m) * (1.0 - keep));
    for (mean, now) in tail.parameters.iter_mut().zip(&now.tail.parameters) {
        toward(&mut mean.values, &now.values);
    }
    for (mean, now) in head.layers.iter_mut().zip(&now.head.layers) {
        toward(&mut mean.weights, &now.weights);
        toward(&mut mean.bias, &now.bias);
    }
}

impl<'a> Trainer<'a> {
    fn new(
        settings: &'a Settings,
        tuning: &'a Tuning,
        (tail, head): (&Tail, &Head),
        photos: Activations<'a>,
    ) -> Trainer<'a> {
        let classes = settings.head.classes;
        let zeros = || -> Vec<Vec<f32>> { tail.parameters.iter().map(|p| vec![0.0; p.values.len()]).collect() };
        let share = |_| Mutex::new(Share { tail: zeros(), head: vec![], loss: 0.0, right: 0.0 });
        let smooth = |w: &f32| smoothed(*w, settings.label_smoothing, settings.loss, classes);
        Trainer {
            settings,
            tuning,
            photos,
            targets: photos.wanted.iter().map(smooth).collect(),
            weights: photos.wanted.chunks_exact(classes).map(|w| weight(w, &settings.class_weights)).collect(),
            tail: tail.clone(),
            head: head.clone(),
            start: tail.parameters.clone(),
            moments: zeros().into_iter().map(|z| [z.clone(), z]).collect(),
            adam: Adam::new(head),
            steps: 0,
            shares: (0..SHARES).map(share).collect(),
        }
    }

    /// A step on photos; their loss and how many are right, summed.
    fn step(&mut self, epoch: usize, batch: &[usize], rate: f64) -> Result<(f64, f64), TrainError> {
        let ready = self.tail.ready(true);
        let pieces: Vec<&[usize]> = batch.chunks(batch.len().div_ceil(SHARES).max(1)).collect();
        let work = |at: usize| -> Result<(), TrainError> {
            let mut share = self.shares[at].lock().unwrap_or_else(|broken| broken.into_inner());
            self.share(epoch, pieces[at], batch.len(), &ready, &mut share)
        };
        on_threads(self.tuning.threads, pieces.len(), work)?;
        drop(ready);

        let (mut loss, mut right) = (0.0, 0.0);
        let mut shares: Vec<&mut Share> =
            self.shares.iter_mut().map(|s| s.get_mut().unwrap_or_else(|broken| broken.into_inner())).collect();
        shares.truncate(pieces.len());
        let mut head: Option<Gradients> = None;
        for share in &mut shares {
            (loss, right) = (loss + share.loss, right + share.right);
            let own = std::mem::take(&mut share.head);
            head = Some(match head {
                None => own,
                Some(sum) => add_heads(sum, &own),
            });
        }
        self.steps += 1;
        let (kernel, pull) = (Adam::kernel(self.steps, rate), rate as f32 * self.tuning.decay);
        // Every value is moved by one thread, which adds the shares in their order.
        let mut jobs = vec![];
        let values = self.tail.parameters.iter_mut().zip(&mut self.moments).zip(&self.start).enumerate();
        for (number, ((parameter, [first, second]), start)) in values {
            let pieces = parameter.values.chunks_mut(PIECE).zip(first.chunks_mut(PIECE)).zip(second.chunks_mut(PIECE));
            for (at, ((values, first), second)) in pieces.enumerate() {
                jobs.push(Mutex::new((number, at * PIECE, values, first, second, &start.values)));
            }
        }
        on_threads(self.tuning.threads, jobs.len(), |at| -> Result<(), TrainError> {
            let mut job = jobs[at].lock().unwrap_or_else(|broken| broken.into_inner());
            let (number, from, values, first, second, start) = &mut *job;
            let range = *from..*from + values.len();
            let mut gradient = shares[0].tail[*number][range.clone()].to_vec();
            for share in &shares[1..] {
                super::add_to(&mut gradient, &share.tail[*number][range.clone()]);
            }
            edge_kernels::adam(isa(), &kernel, &gradient, [first, second], values);
            if pull > 0.0 {
                values.iter_mut().zip(&start[range]).for_each(|(v, s)| *v -= pull * (*v - s));
            }
            Ok(())
        })?;
        if let Some(gradients) = head {
            self.adam.step(&mut self.head, &gradients, rate);
        }
        Ok((loss, right))
    }

    /// What the tail reads of a photo in an epoch.
    fn read(&self, epoch: usize, photo: usize, input: &mut [f32]) -> Result<(), TrainError> {
        // Each photo's views in turn, not all photos' first views in the first epoch.
        let view = photo * self.photos.views + (epoch + photo) % self.photos.views;
        self.photos.cache.read(&self.photos.ids[view], input)
    }

    /// The gradients of a share of the `all` photos of a step.
    fn share(
        &self,
        epoch: usize,
        photos: &[usize],
        all: usize,
        ready: &super::Ready,
        share: &mut Share,
    ) -> Result<(), TrainError> {
        let (classes, width) = (self.settings.head.classes, self.photos.cache.width());
        share.tail.iter_mut().for_each(|g| g.fill(0.0));
        (share.head, share.loss, share.right) = (vec![], 0.0, 0.0);
        for some in photos.chunks(at_a_time(&self.tail)) {
            let mut input = vec![0.0; some.len() * width];
            let mut wanted: Vec<f32> =
                some.iter().flat_map(|p| &self.targets[p * classes..(p + 1) * classes]).copied().collect();
            let rows = input.chunks_exact_mut(width).zip(wanted.chunks_exact_mut(classes));
            for (photo, (input, wanted)) in some.iter().zip(rows) {
                self.read(epoch, *photo, input)?;
                if self.tuning.mix > 0.0 {
                    let mut random = Random::new(self.settings.seed ^ 0x313, ((epoch as u64) << 32) + *photo as u64);
                    let (share, other) = (random.unit() * self.tuning.mix, random.below(self.weights.len()));
                    let mut second = vec![0.0; width];
                    self.read(epoch, other, &mut second)?;
                    let mix = |to: &mut [f32], from: &[f32]| {
                        to.iter_mut().zip(from).for_each(|(t, f)| *t += (f - *t) * share);
                    };
                    mix(input, &second);
                    mix(wanted, &self.targets[other * classes..(other + 1) * classes]);
                }
            }
            let trace = self.tail.forward(ready, input);
            // The means over these photos are to be sums over all of them, divided by those.
            let part = some.len() as f32 / all as f32;
            let target = |(p, wanted): (&usize, _)| Target { wanted, weight: self.weights[*p] * part };
            let targets: Vec<Target<'_>> = some.iter().zip(wanted.chunks_exact(classes)).map(target).collect();
            let mut random = Random::new(self.settings.seed ^ 0x7A11, ((epoch as u64) << 32) + some[0] as u64);
            let features = trace.features().to_vec();
            let (loss, right, gradients, slopes) =
                self.head.gradients_through(features, &targets, self.settings.loss, Some(&mut random), true);
            self.tail.backward(ready, trace, slopes, &mut share.tail);
            share.head = match std::mem::take(&mut share.head) {
                none if none.is_empty() => gradients,
                sum => add_heads(sum, &gradients),
            };
            share.loss += loss * all as f64;
            share.right += right;
        }
        Ok(())
    }
}

fn add_heads(mut sum: Gradients, more: &Gradients) -> Gradients {
    for ((weights, bias), (more_weights, more_bias)) in sum.iter_mut().zip(more) {
        super::add_to(weights, more_weights);
        super::add_to(bias, more_bias);
    }
    sum
}

/// Photos that go through the layers together.
fn at_a_time(tail: &Tail) -> usize {
    (ROOM / (4 * tail.values()).max(1)).clamp(1, 64)
}

/// Mean loss and share of right photos, each photo's first view.
pub fn evaluate(
    tail: &Tail,
    head: &Head,
    photos: Activations<'_>,
    loss: Loss,
    classes: usize,
    threads: usize,
) -> Result<(f64, f64), TrainError> {
    let logits = logits(tail, head, photos, threads)?;
    let targets: Vec<Target<'_>> =
        photos.wanted.chunks_exact(classes).map(|wanted| Target { wanted, weight: 1.0 }).collect();
    let (mean, right, _) = measure(&logits, &targets, loss, classes);
    Ok((mean, right / targets.len().max(1) as f64))
}

/// Each photo's first view's logits.
pub fn logits(tail: &Tail, head: &Head, photos: Activations<'_>, threads: usize) -> Result<Vec<f32>, TrainError> {
    let (ready, width) = (tail.ready(false), photos.cache.width());
    let first: Vec<&Id> = photos.ids.iter().step_by(photos.views).collect();
    let pieces: Vec<&[&Id]> = first.chunks(at_a_time(tail).min(8)).collect();
    let made: Vec<Mutex<Vec<f32>>> = pieces.iter().map(|_| Mutex::new(vec![])).collect();
    on_threads(threads, pieces.len(), |at| -> Result<(), TrainError> {
        let mut input = vec![0.0; pieces[at].len() * width];
        for (id, input) in pieces[at].iter().zip(input.chunks_exact_mut(width)) {
            photos.cache.read(id, input)?;
        }
        let logits = head.logits(tail.forward(&ready, input).features());
        *made[at].lock().unwrap_or_else(|broken| broken.into_inner()) = logits;
        Ok(())
    })?;
    Ok(made.into_iter().flat_map(|m| m.into_inner().unwrap_or_else(|broken| broken.into_inner())).collect())
}

/// Does pieces of work, each once; the first failure is the outcome.
fn on_threads<E: Send>(threads: usize, pieces: usize, work: impl Fn(usize) -> Result<(), E> + Sync) -> Result<(), E> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(pieces) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= pieces {
                        return;
                    }
                    if let Err(error) = work(at) {
                        next.store(pieces, Ordering::Relaxed);
                        failed.lock().unwrap_or_else(|broken| broken.into_inner()).get_or_insert(error);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(|broken| broken.into_inner()).map_or(Ok(()), Err)
}
