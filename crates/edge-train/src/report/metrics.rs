//! Accuracy, confusion matrix, precision, recall and F1, as scikit-learn defines them.

use serde::Serialize;

use crate::history::Prediction;

/// How well predictions meet the labels; a quotient of nothing by nothing is `None`, never NaN.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metrics {
    /// Photos that were counted.
    pub photos: usize,
    /// Photos whose predicted class is their label.
    pub right: usize,
    /// `right / photos`.
    pub accuracy: Option<f64>,
    /// Mean F1 of the classes that occur, be it as a label or as a prediction.
    pub macro_f1: Option<f64>,
    /// One entry per class, in the order of the classes.
    pub classes: Vec<ClassMetrics>,
    /// Photos by label (row) and predicted class (column).
    pub confusion: Vec<Vec<usize>>,
}

/// How well a class is told from the others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClassMetrics {
    /// Share of the photos predicted as this class that are of it.
    pub precision: Option<f64>,
    /// Share of this class' photos that are predicted as such.
    pub recall: Option<f64>,
    /// Harmonic mean of both.
    pub f1: Option<f64>,
    /// Photos labelled with this class.
    pub support: usize,
    /// Photos predicted as this class.
    pub predicted: usize,
}

impl Metrics {
    /// The pairs that are confused: label, predicted class and how often, the most frequent first.
    #[must_use]
    pub fn confused(&self) -> Vec<(usize, usize, usize)> {
        let cells = self.confusion.iter().enumerate().flat_map(|(truth, row)| {
            let wrong = row.iter().enumerate().filter(move |&(class, &count)| class != truth && count > 0);
            wrong.map(move |(class, &count)| (truth, class, count))
        });
        let mut pairs: Vec<_> = cells.collect();
        pairs.sort_by(|a, b| b.2.cmp(&a.2).then((a.0, a.1).cmp(&(b.0, b.1))));
        pairs
    }

    /// The class with the most photos and its share of them: what always naming the same class would reach.
    #[must_use]
    pub fn most_frequent(&self) -> Option<(usize, f64)> {
        let (class, most) = self.classes.iter().enumerate().rev().max_by_key(|(_, c)| c.support)?;
        Some((class, quotient(most.support, self.photos)?))
    }

    /// The 95 % score interval (Wilson) of the accuracy, for new photos drawn as these were.
    #[must_use]
    pub fn interval(&self) -> Option<(f64, f64)> {
        const Z: f64 = 1.959_963_984_540_054;
        let (accuracy, n) = (self.accuracy?, self.photos as f64);
        let scale = 1.0 + Z * Z / n;
        let middle = (accuracy + Z * Z / (2.0 * n)) / scale;
        let half = Z / scale * (accuracy * (1.0 - accuracy) / n + Z * Z / (4.0 * n * n)).sqrt();
        Some(((middle - half).max(0.0), (middle + half).min(1.0)))
    }
}

/// `None` for nothing by nothing.
fn quotient(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Whether a prediction says anything of these classes; one made for other classes can't be counted.
pub(super) fn is_counted(classes: usize, prediction: &Prediction) -> bool {
    prediction.truth < classes && prediction.class() < classes && !prediction.scores.is_empty()
}

/// Compares `predictions` over so many `classes` with their labels.
///
/// A prediction without scores, or whose label or predicted class is beyond the classes, is left out.
#[must_use]
pub fn metrics(classes: usize, predictions: &[Prediction]) -> Metrics {
    let mut confusion = vec![vec![0_usize; classes]; classes];
    let mut photos = 0;
    for prediction in predictions.iter().filter(|p| is_counted(classes, p)) {
        confusion[prediction.truth][prediction.class()] += 1;
        photos += 1;
    }
    let mut predicted = vec![0; classes];
    for row in &confusion {
        for (sum, count) in predicted.iter_mut().zip(row) {
            *sum += count;
        }
    }
    let per_class = |(class, row): (usize, &Vec<usize>)| {
        let (hits, support, predicted) = (row[class], row.iter().sum(), predicted[class]);
        // 2PR / (P + R) without its zero divisions: a class that is never predicted, but does occur, has an F1 of 0.
        let f1 = quotient(2 * hits, support + predicted);
        ClassMetrics { precision: quotient(hits, predicted), recall: quotient(hits, support), f1, support, predicted }
    };
    let classes: Vec<_> = confusion.iter().enumerate().map(per_class).collect();
    let f1s: Vec<f64> = classes.iter().filter_map(|c| c.f1).collect();
    let macro_f1 = (!f1s.is_empty()).then(|| f1s.iter().sum::<f64>() / f1s.len() as f64);
    let right = confusion.iter().enumerate().map(|(class, row)| row[class]).sum();
    Metrics { photos, right, accuracy: quotient(right, photos), macro_f1, classes, confusion }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prediction that is sure of `class`.
    fn sure(truth: usize, class: usize, classes: usize) -> Prediction {
        let scores = (0..classes).map(|c| if c == class { 1.0 } else { 0.0 }).collect();
        Prediction { photo: format!("{truth}-{class}.jpg").into(), truth, scores }
    }

    fn close(a: Option<f64>, b: f64) -> bool {
        a.is_some_and(|a| (a - b).abs() < 1e-12)
    }

    #[test]
    fn three_classes_by_hand() {
        // Label 0: three photos, two right, one taken for 1. Label 1: two, both right. Label 2: one, taken for 0.
        let pairs = [(0, 0), (0, 0), (0, 1), (1, 1), (1, 1), (2, 0)];
        let predictions: Vec<_> = pairs.iter().map(|&(t, c)| sure(t, c, 3)).collect();
        let m = metrics(3, &predictions);
        assert_eq!(m.confusion, [[2, 1, 0], [0, 2, 0], [1, 0, 0]]);
        assert_eq!((m.photos, m.right), (6, 4));
        assert!(close(m.accuracy, 4.0 / 6.0));
        assert!(close(m.classes[0].precision, 2.0 / 3.0) && close(m.classes[0].recall, 2.0 / 3.0));
        assert!(close(m.classes[1].precision, 2.0 / 3.0) && close(m.classes[1].recall, 1.0));
        assert!(close(m.classes[0].f1, 2.0 / 3.0) && close(m.classes[1].f1, 0.8));
        // Never predicted: no precision, but an F1 of 0, as scikit-learn counts it.
        assert_eq!((m.classes[2].precision, m.classes[2].recall, m.classes[2].f1), (None, Some(0.0), Some(0.0)));
        assert_eq!(m.classes.iter().map(|c| c.support).collect::<Vec<_>>(), [3, 2, 1]);
        assert!(close(m.macro_f1, (2.0 / 3.0 + 0.8) / 3.0));
        assert_eq!(m.confused(), [(0, 1, 1), (2, 0, 1)]);
        assert_eq!(m.most_frequent(), Some((0, 0.5)));
        // From scipy.stats.binomtest(4, 6).proportion_ci(method="wilson").
        let (low, high) = m.interval().unwrap();
        assert!((low - 0.299_993).abs() < 1e-5 && (high - 0.903_229).abs() < 1e-5, "{low} {high}");
    }

    #[test]
    fn nothing_by_nothing_is_null() {
        let m = metrics(2, &[]);
        assert_eq!((m.accuracy, m.macro_f1, m.interval(), m.most_frequent()), (None, None, None, None));
        let json = serde_json::to_string(&m).unwrap();
        assert!(json.contains("\"accuracy\":null") && !json.contains("NaN"), "{json}");
        // A class that neither occurs nor is predicted doesn't pull the mean down.
        let m = metrics(3, &[sure(0, 0, 3), sure(1, 1, 3)]);
        assert_eq!((m.classes[2].f1, m.macro_f1), (None, Some(1.0)));
        assert_eq!(metrics(0, &[]).confusion.len(), 0);
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let none = Prediction { photo: "a.jpg".into(), truth: 0, scores: vec![] };
        let m = metrics(2, &[sure(0, 0, 2), sure(5, 0, 2), sure(0, 4, 5), none]);
        assert_eq!((m.photos, m.right, m.accuracy), (1, 1, Some(1.0)));
        let nan = Prediction { photo: "a.jpg".into(), truth: 0, scores: vec![f32::NAN; 2] };
        assert_eq!(metrics(2, &[nan]).photos, 1);
    }
}
