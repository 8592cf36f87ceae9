//! Which classes are taken for which.

use std::fmt::Write as _;

use super::metrics::Metrics;
use super::page::{class_name, count, escape, isolated, share};

/// More classes than this don't fit a table that anybody reads.
const MOST_COLUMNS: usize = 40;
/// More than this are set in small type.
const MANY_COLUMNS: usize = 20;
/// Pairs listed beside the table, and instead of it.
const PAIRS: (usize, usize) = (5, 30);
/// Classes shown without unfolding.
const MOST_ROWS: usize = 40;

/// The confusion matrix, or where it is too large its largest cells.
pub(super) fn matrix(classes: &[String], metrics: &Metrics) -> String {
    if metrics.photos == 0 {
        return "<p>There are no validation photos to compare.</p>\n".to_owned();
    }
    if classes.len() > MOST_COLUMNS {
        let why = format!("<p>A table of {} classes can't be read, so only", classes.len());
        return format!("{why} the most frequent confusions are listed.</p>\n{}", pairs(classes, metrics, PAIRS.1));
    }
    let size = if classes.len() > MANY_COLUMNS { " wide" } else { "" };
    let mut out = format!(
        "<div class=\"beside\">\n\
         <div class=\"scroll\" role=\"region\" aria-label=\"Confusion matrix\" tabindex=\"0\">\n\
         <table class=\"matrix{size}\"><caption>Validation photos by label (row) and predicted class (column). \
         What is right stands framed on the diagonal; a shade is the share of its row.</caption>\n\
         <thead><tr><td></td>",
    );
    for name in classes {
        let name = escape(name);
        let _ = write!(out, "<th scope=\"col\" title=\"{name}\">{name}</th>");
    }
    out.push_str("<th scope=\"col\">photos</th></tr></thead>\n<tbody>\n");
    for (truth, row) in metrics.confusion.iter().enumerate() {
        let name = escape(&class_name(classes, truth));
        let _ = write!(out, "<tr><th scope=\"row\" title=\"{name}\">{name}</th>");
        let support = row.iter().sum::<usize>();
        for (class, &n) in row.iter().enumerate() {
            let part = n as f64 / support.max(1) as f64;
            let _ = match (n, class == truth) {
                (0, false) => write!(out, "<td class=\"none\">0</td>"),
                (_, true) => write!(out, "<td class=\"right\" style=\"--p:{part:.2}\">{n}</td>"),
                (_, false) => write!(out, "<td class=\"wrong\" style=\"--p:{part:.2}\">{n}</td>"),
            };
        }
        let _ = writeln!(out, "<td class=\"sum\">{support}</td></tr>");
    }
    out.push_str("</tbody>\n<tfoot><tr><th scope=\"row\">predicted</th>");
    for class in &metrics.classes {
        let _ = write!(out, "<td class=\"sum\">{}</td>", class.predicted);
    }
    let _ = writeln!(out, "<td class=\"sum\">{}</td></tr></tfoot></table>\n</div>\n<div>", metrics.photos);
    out + &pairs(classes, metrics, PAIRS.0) + "</div>\n</div>\n"
}

/// The most frequent confusions in words.
fn pairs(classes: &[String], metrics: &Metrics, most: usize) -> String {
    let confused = metrics.confused();
    if confused.is_empty() {
        return "<p>No class was taken for another.</p>\n".to_owned();
    }
    let mut out = String::from("<h3>Most often confused</h3>\n<ol>\n");
    for &(truth, class, n) in confused.iter().take(most) {
        let support = metrics.classes.get(truth).map_or(0, |c| c.support);
        let (label, taken) = (isolated(&class_name(classes, truth)), isolated(&class_name(classes, class)));
        let part = 100.0 * n as f64 / support.max(1) as f64;
        let _ =
            writeln!(out, "<li>{label} taken for {taken}: {n} of {} ({part:.0}\u{a0}%)</li>", count(support, "photo"));
    }
    out.push_str("</ol>\n");
    if confused.len() > most {
        let rest = confused[most..].iter().map(|c| c.2).sum::<usize>();
        let others = count(confused.len() - most, "other pair");
        let _ = writeln!(out, "<p class=\"note\">And {} in {others}.</p>", count(rest, "photo"));
    }
    out
}

/// Precision, recall and F1 of each class, the worst first.
pub(super) fn per_class(classes: &[String], metrics: &Metrics) -> String {
    let mut order: Vec<usize> = (0..metrics.classes.len()).collect();
    // What has no F1 comes last: there is nothing to do about it.
    let key = |class: usize| metrics.classes[class].f1.unwrap_or(f64::INFINITY);
    order.sort_by(|&a, &b| key(a).total_cmp(&key(b)).then(a.cmp(&b)));
    let (shown, folded) = order.split_at(order.len().min(MOST_ROWS));
    let mut out = String::from(
        "<p class=\"note\">Precision: how many of the photos predicted as the class are of it. Recall: how many of \
         its photos are found. F1: their harmonic mean. \u{201c}-\u{201d}: no such photo.</p>\n",
    );
    out.push_str(&class_table(classes, metrics, shown, "Validation photos by class, lowest F1 first."));
    if !folded.is_empty() {
        let _ = writeln!(out, "<details><summary>{} with a higher F1</summary>", {
            if folded.len() == 1 { "1 class".to_owned() } else { format!("{} classes", folded.len()) }
        });
        out.push_str(&class_table(classes, metrics, folded, "The other classes, lowest F1 first."));
        out.push_str("</details>\n");
    }
    out
}

fn class_table(classes: &[String], metrics: &Metrics, order: &[usize], caption: &str) -> String {
    let mut out = format!(
        "<div class=\"scroll\">\n<table><caption>{caption}</caption>\n<thead><tr><th scope=\"col\">class</th>\
         <th scope=\"col\">F1</th><th scope=\"col\">precision</th><th scope=\"col\">recall</th>\
         <th scope=\"col\">photos</th></tr></thead>\n<tbody>\n"
    );
    for &class in order {
        let m = &metrics.classes[class];
        let name = escape(&class_name(classes, class));
        let (f1, precision, recall) = (share(m.f1), share(m.precision), share(m.recall));
        let bar = m.f1.unwrap_or(0.0);
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\" class=\"text\">{name}</th><td class=\"bar\" style=\"--p:{bar:.3}\">{f1}</td>\
             <td>{precision}</td><td>{recall}</td><td>{}</td></tr>",
            m.support
        );
    }
    out + "</tbody></table>\n</div>\n"
}
