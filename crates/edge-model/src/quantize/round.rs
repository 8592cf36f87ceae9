//! Weights to int8: one scale per output, and rounding that makes up for itself.
//!
//! [`learned`] is GPTQ (Frantar et al., 2022, after Optimal Brain Surgeon): weights are rounded one input after the other, and what a
//! rounding did to the layer's output, by the second moments of its inputs, is corrected in the weights still to come.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};
use std::thread;

/// Weights in int8, in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Rounded {
    /// -127…127: symmetric.
    pub values: Vec<i8>,
    /// One per output.
    pub scales: Vec<f32>,
}

/// Where the weights of an output lie: outputs along `axis`, everything else is an input of it.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// Outputs.
    pub outputs: usize,
    /// Inputs of each.
    pub inputs: usize,
    last: bool,
}

impl Order {
    /// Of weights (O,I,…) for `axis` 0, (I,O) for 1.
    pub fn new(dims: &[usize], axis: usize) -> Order {
        let outputs = dims.get(axis).copied().unwrap_or(1).max(1);
        let inputs = dims.iter().product::<usize>() / outputs;
        Order { outputs, inputs, last: axis != 0 }
    }

    /// The place of a weight.
    pub fn at(&self, output: usize, input: usize) -> usize {
        if self.last { input * self.outputs + output } else { output * self.inputs + input }
    }

    /// The largest weight of each output.
    pub fn largest(&self, values: &[f32]) -> Vec<f32> {
        let most = |o| (0..self.inputs).fold(0.0, |m: f32, i| m.max(values[self.at(o, i)].abs()));
        (0..self.outputs).map(most).collect()
    }
}

/// The scale for weights up to `most`; of nothing but zeros any will do.
fn scale(most: f32) -> f32 {
    if most > 1e-30 { most / 127.0 } else { 1.0 }
}

/// Each weight to the nearest step of the given scales.
pub fn to_nearest(values: &[f32], order: &Order, scales: Vec<f32>) -> Rounded {
    let mut rounded = vec![0; values.len()];
    for o in 0..order.outputs {
        for i in 0..order.inputs {
            rounded[order.at(o, i)] = step(values[order.at(o, i)], scales[o]);
        }
    }
    Rounded { values: rounded, scales }
}

fn step(value: f32, scale: f32) -> i8 {
    (value / scale).round_ties_even().clamp(-127.0, 127.0) as i8
}

/// Scales a little below those of the largest weight, where the error of all weights, each counted by the second moment of its
/// input, is smaller so.
pub fn scales(values: &[f32], order: &Order, moments: &[f32]) -> Vec<f32> {
    let best = |(o, most): (usize, f32)| {
        let error = |scale: f32| -> f64 {
            let of = |i: usize| {
                let w = values[order.at(o, i)];
                let e = f64::from(w - f32::from(step(w, scale)) * scale);
                e * e * f64::from(moments.get(i).copied().unwrap_or(1.0))
            };
            (0..order.inputs).map(of).sum()
        };
        let candidates = (0..=20).map(|i| scale(most * (1.0 - 0.02 * i as f32)));
        let (mut best, mut least) = (scale(most), f64::INFINITY);
        for candidate in candidates {
            let e = error(candidate);
            if e < least {
                (best, least) = (candidate, e);
            }
        }
        best
    };
    order.largest(values).into_iter().enumerate().map(best).collect()
}

/// Second moments of a layer's inputs: the sum of x·xᵀ over pixels and pictures.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Inputs.
    pub k: usize,
    /// (k, k).
    pub sums: Vec<f32>,
    /// Vectors summed up.
    pub count: usize,
}

impl Moments {
    /// Of nothing yet.
    pub fn new(k: usize) -> Moments {
        Moments { k, sums: vec![0.0; k * k], count: 0 }
    }

    /// Adds the columns of `x`, (k, columns).
    pub fn add(&mut self, x: &[f32], columns: usize) {
        assert_eq!(x.len(), self.k * columns);
        if let (Ok(x), Ok(mut sums)) =
            (ArrayView2::from_shape((self.k, columns), x), ArrayViewMut2::from_shape((self.k, self.k), &mut self.sums))
        {
            general_mat_mul(1.0, &x, &x.t(), 1.0, &mut sums);
        }
        self.count += columns;
    }

    /// The mean square of each input.
    pub fn diagonal(&self) -> Vec<f32> {
        let count = self.count.max(1) as f32;
        (0..self.k).map(|i| self.sums[i * self.k + i] / count).collect()
    }

    /// The upper triangle U of UᵀU = (H + damping)⁻¹, row-major; `None` where the moments are no finite numbers.
    fn inverse_root(&self, noise: f32) -> Option<Vec<f32>> {
        let k = self.k;
        let count = self.count.max(1) as f64;
        let mean = self.diagonal().iter().map(|d| f64::from(*d)).sum::<f64>() / k.max(1) as f64;
        // Inputs are quantized: their rounding adds to the diagonal what independent noise does. The rest keeps it regular.
        let damping = 0.01 * mean + f64::from(noise);
        // Backwards: the inverse of a lower triangle, turned twice, is the upper one.
        let mut l = vec![0.0_f64; k * k];
        for i in 0..k {
            for j in 0..=i {
                let h = f64::from(self.sums[(k - 1 - i) * k + (k - 1 - j)]) / count;
                l[i * k + j] = if i == j { h + damping.max(1e-12) } else { h };
            }
        }
        for i in 0..k {
            let (above, row) = l.split_at_mut(i * k);
            for j in 0..i {
                let dot: f64 = dot(&row[..j], &above[j * k..j * k + j]);
                row[j] = (row[j] - dot) / above[j * k + j];
            }
            let d = row[i] - dot(&row[..i], &row[..i]);
            if !(d.is_finite() && d > 0.0) {
                return None;
            }
            row[i] = d.sqrt();
        }
        // The inverse of L, a column at a time kept as rows of its transpose: m[j] is column j.
        let mut m = vec![0.0_f64; k * k];
        let threads = thread::available_parallelism().map_or(1, |n| n.get()).min(k.max(1));
        let l = &l;
        thread::scope(|scope| {
            let rows: Vec<(usize, &mut [f64])> = m.chunks_mut(k.max(1)).enumerate().collect();
            let mut shares: Vec<Vec<(usize, &mut [f64])>> = (0..threads).map(|_| vec![]).collect();
            rows.into_iter().for_each(|(j, row)| shares[j % threads].push((j, row)));
            for share in shares {
                scope.spawn(move || {
                    for (j, row) in share {
                        row[j] = 1.0 / l[j * k + j];
                        for i in j + 1..k {
                            row[i] = -dot(&l[i * k + j..i * k + i], &row[j..i]) / l[i * k + i];
                        }
                    }
                });
            }
        });
        // U[a][b] = L⁻¹[k-1-a][k-1-b].
        let mut u = vec![0.0_f32; k * k];
        for a in 0..k {
            for b in a..k {
                u[a * k + b] = m[(k - 1 - b) * k + (k - 1 - a)] as f32;
            }
        }
        Some(u)
    }
}

/// A sum of products in eight strands, so that it is vectorised.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (x, y) in a8.iter().zip(b8) {
        (0..8).for_each(|i| sums[i] += x[i] * y[i]);
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f64>()
}

/// Rounds so that the layer's output changes least for inputs of these moments. `noise` is the mean square of what quantizing
/// the inputs adds to each.
pub fn learned(values: &[f32], order: &Order, scales: Vec<f32>, moments: &Moments, noise: f32) -> Rounded {
    if moments.k != order.inputs || moments.count == 0 {
        return to_nearest(values, order, scales);
    }
    let Some(u) = moments.inverse_root(noise) else { return to_nearest(values, order, scales) };
    let (n, k) = (order.outputs, order.inputs);
    let threads = thread::available_parallelism().map_or(1, |t| t.get()).min(n.max(1));
    let share = n.div_ceil(threads).max(1);
    let mut parts: Vec<Vec<i8>> = vec![];
    thread::scope(|scope| {
        let (u, scales) = (&u, &scales);
        let all: Vec<_> = (0..n)
            .step_by(share)
            .map(|first| scope.spawn(move || round_some(values, order, scales, u, first..(first + share).min(n))))
            .collect();
        for part in all {
            parts.push(part.join().unwrap_or_default());
        }
    });
    let mut rounded = vec![0; values.len()];
    for (part, first) in parts.iter().zip((0..n).step_by(share)) {
        let width = share.min(n - first);
        if part.len() != width * k {
            return to_nearest(values, order, scales);
        }
        for i in 0..k {
            for o in 0..width {
                rounded[order.at(first + o, i)] = part[i * width + o];
            }
        }
    }
    Rounded { values: rounded, scales }
}

/// The weights of some outputs, (inputs, outputs).
fn round_some(values: &[f32], order: &Order, scales: &[f32], u: &[f32], outputs: std::ops::Range<usize>) -> Vec<i8> {
    const BLOCK: usize = 64;
    let (k, width) = (order.inputs, outputs.len());
    let mut w: Vec<f32> = vec![0.0; k * width];
    for i in 0..k {
        for (o, at) in outputs.clone().enumerate() {
            w[i * width + o] = values[order.at(at, i)];
        }
    }
    let mut rounded = vec![0_i8; k * width];
    let mut errors = vec![0.0_f32; BLOCK * width];
    for first in (0..k).step_by(BLOCK) {
        let last = (first + BLOCK).min(k);
        for i in first..last {
            let (done, rest) = w.split_at_mut((i + 1) * width);
            let row = &mut done[i * width..];
            let error = &mut errors[(i - first) * width..(i - first + 1) * width];
            for o in 0..width {
                let q = step(row[o], scales[outputs.start + o]);
                rounded[i * width + o] = q;
                error[o] = (row[o] - f32::from(q) * scales[outputs.start + o]) / u[i * k + i];
            }
            for j in i + 1..last {
                let factor = u[i * k + j];
                let target = &mut rest[(j - i - 1) * width..(j - i) * width];
                target.iter_mut().zip(&*error).for_each(|(t, e)| *t -= factor * e);
            }
        }
        // What the block did to those beyond it, at once.
        for j in last..k {
            let target = &mut w[j * width..(j + 1) * width];
            for i in first..last {
                let factor = u[i * k + j];
                let error = &errors[(i - first) * width..(i - first + 1) * width];
                target.iter_mut().zip(error).for_each(|(t, e)| *t -= factor * e);
            }
        }
    }
    rounded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: &mut u64) -> f32 {
        (edge_vision::random::split_mix(seed) >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    #[test]
    fn nearest_is_within_half_a_step() {
        let mut seed = 1;
        for (dims, axis) in [([4, 6], 0), ([6, 4], 1)] {
            let values: Vec<f32> = (0..24).map(|_| noise(&mut seed)).collect();
            let order = Order::new(&dims, axis);
            let rounded = to_nearest(&values, &order, order.largest(&values).into_iter().map(scale).collect());
            for o in 0..4 {
                assert!((0..6).any(|i| rounded.values[order.at(o, i)].abs() == 127));
                for i in 0..6 {
                    let at = order.at(o, i);
                    let back = f32::from(rounded.values[at]) * rounded.scales[o];
                    assert!((back - values[at]).abs() <= 0.501 * rounded.scales[o]);
                }
            }
        }
    }

    #[test]
    fn learned_rounding_changes_the_output_less() {
        let mut seed = 7;
        let (k, n, columns) = (40, 12, 300);
        // Inputs that go together: a few sources, mixed, never negative.
        let mix: Vec<f32> = (0..k * 6).map(|_| noise(&mut seed)).collect();
        let mut x = vec![0.0; k * columns];
        for c in 0..columns {
            let sources: Vec<f32> = (0..6).map(|_| noise(&mut seed)).collect();
            for i in 0..k {
                let sum: f32 = (0..6).map(|s| mix[i * 6 + s] * sources[s]).sum();
                x[i * columns + c] = (sum + 0.05 * noise(&mut seed)).max(0.0);
            }
        }
        let mut moments = Moments::new(k);
        moments.add(&x, columns);
        let values: Vec<f32> = (0..n * k).map(|_| noise(&mut seed)).collect();
        let order = Order::new(&[n, k], 0);
        // Few steps, so that rounding matters.
        let scales: Vec<f32> = order.largest(&values).iter().map(|m| m / 7.0).collect();
        let error = |r: &Rounded| -> f64 {
            let mut sum = 0.0;
            for o in 0..n {
                for c in 0..columns {
                    let e: f32 = (0..k)
                        .map(|i| {
                            let at = order.at(o, i);
                            (f32::from(r.values[at]) * r.scales[o] - values[at]) * x[i * columns + c]
                        })
                        .sum();
                    sum += f64::from(e * e);
                }
            }
            sum
        };
        let plain = error(&to_nearest(&values, &order, scales.clone()));
        let learned = error(&learned(&values, &order, scales, &moments, 0.0));
        assert!(learned < 0.5 * plain, "{learned} after {plain}");
    }

    #[test]
    fn the_root_is_that_of_the_inverse() {
        let mut seed = 3;
        let k = 9;
        let x: Vec<f32> = (0..k * 50).map(|_| noise(&mut seed)).collect();
        let mut moments = Moments::new(k);
        moments.add(&x, 50);
        let u = moments.inverse_root(0.1).unwrap();
        let mean = moments.diagonal().iter().sum::<f32>() / k as f32;
        for i in 0..k {
            for j in 0..k {
                // (UᵀU)·(H + damping) is the identity.
                let mut sum = 0.0;
                for c in 0..k {
                    let inverse: f32 = (0..k).map(|r| u[r * k + i] * u[r * k + c]).sum();
                    let h = moments.sums[c * k + j] / 50.0 + if c == j { 0.01 * mean + 0.1 } else { 0.0 };
                    sum += inverse * h;
                }
                assert!((sum - f32::from(u8::from(i == j))).abs() < 1e-4, "{i} {j}: {sum}");
            }
        }
    }

    #[test]
    fn smaller_scales_are_taken_where_they_pay() {
        // One large weight on an input that is never there.
        let values = [10.0, 0.013, -0.027, 0.031];
        let order = Order::new(&[1, 4], 0);
        let chosen = scales(&values, &order, &[0.0, 1.0, 1.0, 1.0]);
        assert!(chosen[0] < 10.0 / 127.0);
        assert_eq!(scales(&values, &order, &[1e6, 1.0, 1.0, 1.0])[0], 10.0 / 127.0);
    }
}
