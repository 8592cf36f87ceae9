//! The head: dense layers on feature vectors, their gradients, and Adam.
//!
//! What Keras computes for `Dense` (Glorot uniform weights, zero bias), `Dropout` (kept values scaled up), categorical
//! cross-entropy from logits or binary cross-entropy from logits, and `Adam` (Keras 3.15). The products run in the kernels that
//! classify.

use crate::random::Random;
use edge_kernels::{Buffer, Epilogue, Isa, Places, Weights, gemm};
use serde::Serialize;

/// What stands between dense layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// max(x, 0).
    #[default]
    Relu,
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
}

impl Activation {
    /// The names that [`Activation::named`] knows.
    pub const NAMES: [&str; 3] = ["relu", "sigmoid", "tanh"];

    /// By Keras' name.
    pub fn named(name: &str) -> Option<Activation> {
        Some(match name {
            "relu" => Activation::Relu,
            "sigmoid" => Activation::Sigmoid,
            "tanh" => Activation::Tanh,
            _ => return None,
        })
    }

    /// The ONNX operator.
    pub fn operator(self) -> &'static str {
        match self {
            Activation::Relu => "Relu",
            Activation::Sigmoid => "Sigmoid",
            Activation::Tanh => "Tanh",
        }
    }

    fn of(self, x: f32) -> f32 {
        match self {
            Activation::Relu => x.max(0.0),
            Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Activation::Tanh => x.tanh(),
        }
    }

    /// The slope where the activation is `y`.
    fn slope(self, y: f32) -> f32 {
        match self {
            Activation::Relu => f32::from(y > 0.0),
            Activation::Sigmoid => y * (1.0 - y),
            Activation::Tanh => 1.0 - y * y,
        }
    }
}

/// Which head to make.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeadSpec {
    /// Values of a feature vector.
    pub features: usize,
    /// Outputs of the inner layers.
    pub inner: Vec<usize>,
    /// What follows each inner layer.
    pub activation: Activation,
    /// Share of values that are dropped before the last layer, and before every inner one but the first.
    pub dropout: f32,
    /// Outputs.
    pub classes: usize,
}

/// A dense layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    /// Values of its input.
    pub inputs: usize,
    /// Values of its output.
    pub outputs: usize,
    /// (inputs, outputs), row-major.
    pub weights: Vec<f32>,
    /// One per output.
    pub bias: Vec<f32>,
}

/// Dense layers.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// In order.
    pub layers: Vec<Dense>,
    /// What follows each but the last.
    pub activation: Activation,
    /// See [`HeadSpec::dropout`].
    pub dropout: f32,
}

/// What a photo should give.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target<'a> {
    /// One value per class, 0 to 1.
    pub wanted: &'a [f32],
    /// What its loss counts.
    pub weight: f32,
}

/// How loss is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Of exclusive classes: categorical cross-entropy from logits.
    Categorical,
    /// Of independent classes: binary cross-entropy from logits, the mean over classes.
    Binary,
}

/// Gradients of a head, laid out as it is.
pub type Gradients = Vec<(Vec<f32>, Vec<f32>)>;

/// What a pass forward leaves for the pass back.
struct Trace {
    /// Rows of what each layer reads.
    inputs: Vec<Vec<f32>>,
    /// For each layer but the first, what its input's activation was multiplied with by dropout.
    masks: Vec<Vec<f32>>,
    logits: Vec<f32>,
}

impl Head {
    /// A head with the weights that Keras begins with: uniform within ±√(6 / (inputs + outputs)).
    pub fn new(spec: &HeadSpec, seed: u64) -> Head {
        let sizes: Vec<usize> =
            [spec.features].into_iter().chain(spec.inner.iter().copied()).chain([spec.classes]).collect();
        let layer = |(at, pair): (usize, &[usize])| {
            let (inputs, outputs) = (pair[0], pair[1]);
            let mut random = Random::new(seed, 1000 + at as u64);
            let limit = (6.0 / (inputs + outputs) as f32).sqrt();
            let weights = (0..inputs * outputs).map(|_| (random.unit() * 2.0 - 1.0) * limit).collect();
            Dense { inputs, outputs, weights, bias: vec![0.0; outputs] }
        };
        let layers = sizes.windows(2).enumerate().map(layer).collect();
        Head { layers, activation: spec.activation, dropout: spec.dropout }
    }

    /// Logits of rows of features, as many as there are.
    pub fn logits(&self, features: &[f32]) -> Vec<f32> {
        self.forward(features.to_vec(), None).logits
    }

    /// The mean loss of rows of features, how many of them are right, and the gradients, for dropout drawn from `random`;
    /// without it nothing is dropped. A row is right where the largest logit is a wanted class; of independent classes, the share
    /// of classes on the right side of a half.
    pub fn gradients(
        &self,
        features: Vec<f32>,
        targets: &[Target<'_>],
        loss: Loss,
        random: Option<&mut Random>,
    ) -> (f64, f64, Gradients) {
        let (total, right, gradients, _) = self.gradients_through(features, targets, loss, random, false);
        (total, right, gradients)
    }

    /// [`Head::gradients`], and with `through` the slope of the mean loss at each feature.
    pub fn gradients_through(
        &self,
        features: Vec<f32>,
        targets: &[Target<'_>],
        loss: Loss,
        random: Option<&mut Random>,
        through: bool,
    ) -> (f64, f64, Gradients, Vec<f32>) {
        let trace = self.forward(features, random);
        let classes = self.layers.last().map_or(1, |l| l.outputs);
        let (total, right, mut slopes) = measure(&trace.logits, targets, loss, classes);
        let mut gradients = vec![];
        for (at, layer) in self.layers.iter().enumerate().rev() {
            let input = &trace.inputs[at];
            let weights = product_turned(input, layer.inputs, &slopes, layer.outputs);
            let mut bias = vec![0.0; layer.outputs];
            for row in slopes.chunks_exact(layer.outputs) {
                bias.iter_mut().zip(row).for_each(|(b, s)| *b += s);
            }
            gradients.push((weights, bias));
            if at == 0 && !through {
                slopes = vec![];
                break;
            }
            // Through the weights, then dropout, then the activation.
            let mut before = product(&slopes, layer.outputs, layer.inputs, |k, n| layer.weights[n * layer.outputs + k]);
            for ((slope, mask), value) in before.iter_mut().zip(&trace.masks[at]).zip(input) {
                let value = if *mask == 0.0 { 0.0 } else { value / mask };
                *slope *= mask * if at > 0 { self.activation.slope(value) } else { 1.0 };
            }
            slopes = before;
        }
        gradients.reverse();
        (total, right, gradients, slopes)
    }

    fn forward(&self, features: Vec<f32>, mut random: Option<&mut Random>) -> Trace {
        let mut trace = Trace { inputs: vec![], masks: vec![], logits: vec![] };
        let mut rows = features;
        let last = self.layers.len() - 1;
        for (at, layer) in self.layers.iter().enumerate() {
            let mut mask = vec![];
            // Before the last layer, and between inner ones.
            let drops = self.dropout > 0.0 && random.is_some() && (at > 0 || last == 0);
            if at > 0 {
                rows.iter_mut().for_each(|x| *x = self.activation.of(*x));
                mask = vec![1.0; rows.len()];
            }
            if let (true, Some(random)) = (drops, random.as_deref_mut()) {
                let kept = 1.0 / (1.0 - self.dropout);
                mask = (0..rows.len()).map(|_| if random.unit() < self.dropout { 0.0 } else { kept }).collect();
                rows.iter_mut().zip(&mask).for_each(|(x, m)| *x *= m);
            }
            let mut out = product(&rows, layer.inputs, layer.outputs, |k, n| layer.weights[k * layer.outputs + n]);
            for row in out.chunks_exact_mut(layer.outputs) {
                row.iter_mut().zip(&layer.bias).for_each(|(x, b)| *x += b);
            }
            trace.inputs.push(rows);
            trace.masks.push(mask);
            rows = out;
        }
        trace.logits = rows;
        trace
    }
}

/// The mean loss, the rows that are right, and the slope of the mean loss at each logit.
pub fn measure(logits: &[f32], targets: &[Target<'_>], loss: Loss, classes: usize) -> (f64, f64, Vec<f32>) {
    let (mut total, mut right) = (0.0, 0.0);
    let mut slopes = vec![0.0; logits.len()];
    let count = targets.len() as f64;
    for ((logits, slopes), target) in logits.chunks_exact(classes).zip(slopes.chunks_exact_mut(classes)).zip(targets) {
        let weight = f64::from(target.weight);
        match loss {
            Loss::Categorical => {
                let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum: f64 = logits.iter().map(|l| f64::from(l - most).exp()).sum();
                let wanted: f64 = target.wanted.iter().map(|w| f64::from(*w)).sum();
                for ((logit, slope), want) in logits.iter().zip(slopes.iter_mut()).zip(target.wanted) {
                    let log = f64::from(logit - most) - sum.ln();
                    total -= weight * f64::from(*want) * log / count;
                    *slope = (weight * (log.exp() * wanted - f64::from(*want)) / count) as f32;
                }
                right += f64::from(largest(logits) == largest(target.wanted));
            }
            Loss::Binary => {
                for ((logit, slope), want) in logits.iter().zip(slopes.iter_mut()).zip(target.wanted) {
                    let (x, want) = (f64::from(*logit), f64::from(*want));
                    // log(1 + e^x) - x · want, without overflow.
                    total += weight * (x.max(0.0) - x * want + (-x.abs()).exp().ln_1p()) / (count * classes as f64);
                    *slope = (weight * (1.0 / (1.0 + (-x).exp()) - want) / (count * classes as f64)) as f32;
                    right += f64::from((x > 0.0) == (want > 0.5)) / classes as f64;
                }
            }
        }
    }
    (total, right, slopes)
}

/// The place of the largest value; of equal ones the first, as NumPy's argmax.
pub fn largest(values: &[f32]) -> usize {
    let best = values.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(at, _)| at)
}

/// The instructions that classify, too.
pub(crate) fn isa() -> Isa {
    Isa::chosen().unwrap_or_else(|_| Isa::best())
}

/// Rows of `k` values times a matrix of (k, n).
fn product(rows: &[f32], k: usize, n: usize, w: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    multiply(rows, k, &Weights::pack(isa(), k, n, 1, w), n)
}

/// The rows turned, (k, rows), times (rows, n): gives (k, n).
fn product_turned(rows: &[f32], k: usize, other: &[f32], n: usize) -> Vec<f32> {
    let count = rows.len() / k;
    let mut turned = vec![0.0; rows.len()];
    for (i, column) in turned.chunks_exact_mut(count).enumerate() {
        column.iter_mut().enumerate().for_each(|(at, x)| *x = rows[at * k + i]);
    }
    multiply(&turned, count, &Weights::pack(isa(), count, n, 1, |i, j| other[i * n + j]), n)
}

fn multiply(rows: &[f32], k: usize, weights: &Weights, n: usize) -> Vec<f32> {
    let starts: Vec<u32> = (0..rows.len() / k).map(|i| (i * k) as u32).collect();
    let mut out: Buffer = Buffer::new(starts.len() * weights.n());
    let bias = vec![0.0; weights.n()];
    let epilogue = Epilogue { bias: &bias, residual: None, low: f32::NEG_INFINITY, high: f32::INFINITY };
    gemm(rows, Places { starts: &starts, pitch: 0 }, weights, &epilogue, &mut out);
    let mut made = Vec::with_capacity(starts.len() * n);
    out.chunks_exact(weights.n()).for_each(|row| made.extend_from_slice(&row[..n]));
    made
}

/// Adam (Kingma and Ba, 2015), as Keras 3.15 computes it: the corrections of both moments are part of the rate.
#[derive(Debug, Clone)]
pub struct Adam {
    moments: Vec<[Vec<f32>; 2]>,
    step: i32,
}

impl Adam {
    const BETA: [f32; 2] = [0.9, 0.999];
    const EPSILON: f32 = 1e-7;

    /// For a head.
    pub fn new(head: &Head) -> Adam {
        let zeros = |len: usize| [vec![0.0; len], vec![0.0; len]];
        let moments = head.layers.iter().flat_map(|l| [zeros(l.weights.len()), zeros(l.bias.len())]).collect();
        Adam { moments, step: 0 }
    }

    /// The step of a number, from 1 on.
    pub(crate) fn kernel(number: i32, rate: f64) -> edge_kernels::Adam {
        let powers = Adam::BETA.map(|b| f64::from(b).powi(number));
        let rate = (rate * (1.0 - powers[1]).sqrt() / (1.0 - powers[0])) as f32;
        edge_kernels::Adam { betas: Adam::BETA, epsilon: Adam::EPSILON, rate }
    }

    /// A step against the gradients.
    pub fn step(&mut self, head: &mut Head, gradients: &Gradients, rate: f64) {
        self.step += 1;
        let step = Adam::kernel(self.step, rate);
        let values = head.layers.iter_mut().flat_map(|l| [&mut l.weights, &mut l.bias]);
        let gradients = gradients.iter().flat_map(|(w, b)| [w, b]);
        for ((values, gradients), [first, second]) in values.zip(gradients).zip(&mut self.moments) {
            edge_kernels::adam(isa(), &step, gradients, [first, second], values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(inner: &[usize], activation: Activation, dropout: f32) -> HeadSpec {
        HeadSpec { features: 7, inner: inner.to_vec(), activation, dropout, classes: 5 }
    }

    fn noise(seed: u64, len: usize) -> Vec<f32> {
        let mut random = Random::new(seed, 9);
        (0..len).map(|_| random.unit() * 2.0 - 1.0).collect()
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        for activation in [Activation::Relu, Activation::Sigmoid, Activation::Tanh] {
            for (inner, dropout, loss) in [
                (&[][..], 0.0, Loss::Categorical),
                (&[][..], 0.4, Loss::Categorical),
                (&[6], 0.3, Loss::Categorical),
                (&[6, 4], 0.3, Loss::Categorical),
                (&[6, 4], 0.0, Loss::Binary),
            ] {
                let mut head = Head::new(&spec(inner, activation, dropout), 3);
                head.layers.iter_mut().for_each(|l| l.bias = noise(8, l.outputs));
                let features = noise(1, 4 * 7);
                let smooth = noise(2, 4 * 5).iter().map(|x| (x + 1.0) / 5.0).collect::<Vec<_>>();
                let targets: Vec<Target<'_>> = smooth
                    .chunks(5)
                    .zip([1.0, 0.5, 2.0, 1.5])
                    .map(|(wanted, weight)| Target { wanted, weight })
                    .collect();
                // The same values are dropped each time.
                let run = |head: &Head| head.gradients(features.clone(), &targets, loss, Some(&mut Random::new(5, 0)));
                let (_, _, gradients) = run(&head);
                for (layer, (weights, bias)) in gradients.iter().enumerate() {
                    for (at, found) in weights.iter().chain(bias).enumerate() {
                        let nudged = |by: f32| {
                            let mut head = head.clone();
                            let layer = &mut head.layers[layer];
                            *layer.weights.iter_mut().chain(&mut layer.bias).nth(at).unwrap() += by;
                            run(&head).0
                        };
                        let step = 2e-3;
                        let slope = (nudged(step) - nudged(-step)) / (2.0 * f64::from(step));
                        let close = (slope - f64::from(*found)).abs() < 1e-3 * (1.0 + slope.abs());
                        assert!(close, "{activation:?} {inner:?} {loss:?} layer {layer} at {at}: {found} for {slope}");
                    }
                }
            }
        }
    }

    #[test]
    fn loss_is_that_of_the_formula() {
        let wanted = [0.0, 1.0, 0.0];
        let target = [Target { wanted: &wanted, weight: 1.0 }];
        let (loss, right, _) = measure(&[1.0, 2.0, 0.5], &target, Loss::Categorical, 3);
        let all: f64 = [1.0_f64, 2.0, 0.5].iter().map(|x| x.exp()).sum();
        assert!((loss - (all.ln() - 2.0)).abs() < 1e-9);
        assert_eq!(right, 1.0);
        let (loss, right, _) = measure(&[1000.0, -1000.0, 0.0], &target, Loss::Binary, 3);
        // Two classes as wrong as can be, one undecided.
        assert!((loss - (1000.0 + 1000.0 + 2.0_f64.ln()) / 3.0).abs() < 1e-6);
        assert!((right - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_is_dropped_without_random_numbers_and_what_is_kept_grows() {
        let head = Head::new(&spec(&[], Activation::Relu, 0.5), 1);
        let features = vec![1.0; 7];
        assert_eq!(head.logits(&features), head.forward(features.clone(), None).logits);
        let trace = head.forward(features, Some(&mut Random::new(1, 1)));
        assert!(trace.inputs[0].iter().all(|x| *x == 0.0 || *x == 2.0));
    }
}
