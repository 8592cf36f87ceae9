//! Logits → scores → the best classes → a verdict.

use edge_package::Activation;

/// Writes one score in 0…1 per logit into `scores`, applying `activation` once. Softmax subtracts the
/// maximum first and sums in f64, so that large logits neither overflow nor lose small classes.
pub fn scores(activation: Activation, logits: &[f32], scores: &mut Vec<f32>) {
    scores.clear();
    match activation {
        Activation::Probabilities => scores.extend_from_slice(logits),
        Activation::Sigmoid => scores.extend(logits.iter().map(|x| 1.0 / (1.0 + (-x).exp()))),
        Activation::Softmax => {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            scores.extend(logits.iter().map(|x| (x - max).exp()));
            let sum: f64 = scores.iter().map(|x| f64::from(*x)).sum();
            scores.iter_mut().for_each(|x| *x = (f64::from(*x) / sum) as f32);
        }
    }
}

/// The `k` best (class index, score), best first; equal scores in the order of their index. As
/// `keras.applications.imagenet_utils.decode_predictions`, but with a defined order of ties.
pub fn top_k(scores: &[f32], k: usize) -> Vec<(usize, f32)> {
    let mut order: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    let better = |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let k = k.min(order.len());
    if k > 0 && k < order.len() {
        order.select_nth_unstable_by(k - 1, better);
    }
    order.truncate(k);
    order.sort_unstable_by(better);
    order
}

/// The index of the largest value; the first of equals. `None` of nothing.
pub fn argmax(values: &[f32]) -> Option<usize> {
    top_k(values, 1).first().map(|best| best.0)
}

/// The class decided for: the best one, if its score reaches the threshold; `None` means "unknown".
pub fn decide(best: Option<(usize, f32)>, threshold: Option<f32>) -> Option<usize> {
    best.filter(|(_, score)| threshold.is_none_or(|t| *score >= t)).map(|(class, _)| class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn softmax(logits: &[f32]) -> Vec<f32> {
        let mut out = vec![];
        scores(Activation::Softmax, logits, &mut out);
        out
    }

    #[test]
    fn softmax_of_large_and_of_equal_logits() {
        assert_eq!(softmax(&[1000.0, 1000.0]), [0.5, 0.5]);
        assert_eq!(softmax(&[-3e38, 3e38]), [0.0, 1.0]);
        // numpy: np.exp([1,2,3]) / np.exp([1,2,3]).sum()
        let want = [0.09003057, 0.24472848, 0.66524094];
        assert!(softmax(&[1.0, 2.0, 3.0]).iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-7));
    }

    #[test]
    fn sigmoid_saturates_without_nan() {
        let mut out = vec![];
        scores(Activation::Sigmoid, &[-200.0, 0.0, 200.0], &mut out);
        assert_eq!(out, [0.0, 0.5, 1.0]);
    }

    #[test]
    fn top_k_breaks_ties_by_index_and_is_bounded() {
        let s = [0.1, 0.4, 0.4, 0.05, 0.05];
        assert_eq!(top_k(&s, 3), [(1, 0.4), (2, 0.4), (0, 0.1)]);
        assert_eq!(top_k(&s, 99).len(), 5);
        assert!(top_k(&s, 0).is_empty() && top_k(&[], 3).is_empty());
    }

    #[test]
    fn threshold_is_inclusive() {
        assert_eq!(decide(Some((3, 0.5)), Some(0.5)), Some(3));
        assert_eq!(decide(Some((3, 0.49)), Some(0.5)), None);
        assert_eq!(decide(Some((3, 0.01)), None), Some(3));
    }
}
