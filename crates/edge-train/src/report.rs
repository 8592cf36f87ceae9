//! The report of a training run: one HTML file that needs nothing else, to be read on a screen, a phone or paper.
//!
//! It says how good the kept network is, where it errs and which photos to look at, and how the run is repeated.
//! It holds no script and loads nothing; the same run gives the same bytes.

mod charts;
mod confusion;
mod metrics;
pub mod page;
#[cfg(test)]
mod tests;
pub mod thumbnails;

use std::fmt::Write as _;

use edge_vision::DecodeOptions;
use serde_json::Value;

pub use metrics::{ClassMetrics, Metrics, metrics};

use crate::history::{Candidate, Epoch, Prediction};
use page::{Section, class_name, count, escape, isolated, share, short};
use thumbnails::Thumbnails;

/// What a report is made of.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// What stands above it all.
    pub title: &'a str,
    /// Names of the classes, in the order of the scores.
    pub classes: &'a [String],
    /// The epochs, in their order.
    pub history: &'a [Epoch],
    /// Number of the epoch whose weights were kept.
    pub best: usize,
    /// What the kept network says of the validation photos.
    pub validation: &'a [Prediction],
    /// What it says of the training photos; may be empty.
    pub train: &'a [Prediction],
    /// What struck when the photos were looked through, a sentence each.
    pub findings: &'a [String],
    /// What a search over settings tried; shown where there is a choice.
    pub candidates: &'a [Candidate],
    /// The settings of the run.
    pub settings: &'a Value,
    /// The command that gives the same run again.
    pub command: &'a str,
    /// How photos are read for the thumbnails: as they were for training.
    pub decode: DecodeOptions,
}

/// The page. A photo that can't be read any more is replaced by a note with its name.
#[must_use]
pub fn html(report: &Report<'_>) -> String {
    let Report { classes, history, best, validation, train, .. } = *report;
    let metrics = metrics(classes.len(), validation);
    let mut thumbnails = Thumbnails::new(report.decode);
    let section = |id, title, body| Section { id, title, body };
    let mut sections = vec![
        section("curves", "Training", charts::curves(history, best)),
        section("confusion", "Confusion matrix", confusion::matrix(classes, &metrics)),
        section("classes", "Classes", confusion::per_class(classes, &metrics)),
        section("mistakes", "Worst mistakes", thumbnails::mistakes(classes, validation, &mut thumbnails)),
        section("labels", "Labels to check", thumbnails::suspects(classes, (validation, train), &mut thumbnails)),
        section("data", "Data", findings(report.findings)),
    ];
    if report.candidates.len() > 1 {
        sections.push(section("search", "Search", candidates(report.candidates)));
    }
    sections.push(section("epochs", "Epochs", epochs(history, best)));
    sections.push(section("run", "Run again", run(report.settings, report.command)));

    let mut headline_html = String::new();
    headline(report, &metrics, &mut headline_html);
    page::document(report.title, &headline_html, &sections)
}

/// The numbers most will look for, and how far they can be trusted.
fn headline(report: &Report<'_>, metrics: &Metrics, out: &mut String) {
    let kept = report.history.iter().find(|e| e.epoch == report.best);
    let accuracy = match kept {
        // Without predictions the history knows at least the share.
        Some(epoch) if metrics.photos == 0 => (share(Some(epoch.val_accuracy)), "of the validation photos".to_owned()),
        _ => (share(metrics.accuracy), format!("({} of {})", metrics.right, metrics.photos)),
    };
    let photos = match report.train.len() {
        0 => (metrics.photos.to_string(), "for validation".to_owned()),
        n => ((metrics.photos + n).to_string(), format!("{n} for training, {} for validation", metrics.photos)),
    };
    let epoch = match kept {
        Some(_) => (report.best.to_string(), format!("of {}", report.history.len())),
        None => ("-".to_owned(), format!("of {}", report.history.len())),
    };
    out.push_str(&page::figures(&[
        ("Validation accuracy", accuracy.0, accuracy.1),
        ("Macro F1", share(metrics.macro_f1), "mean over the classes".to_owned()),
        ("Classes", report.classes.len().to_string(), String::new()),
        ("Photos", photos.0, photos.1),
        ("Epoch kept", epoch.0, epoch.1),
    ]));
    if let (Some((low, high)), Some((class, base))) = (metrics.interval(), metrics.most_frequent()) {
        let is_chosen = report.history.len() > 1 || report.candidates.len() > 1;
        let chosen = if is_chosen { ", rather lower than higher, since they also chose what was kept" } else { "" };
        let _ = writeln!(
            out,
            "<p>On new photos of the same kind, expect an accuracy between {low:.3} and {high:.3} (95\u{a0}% interval \
             for this many validation photos){chosen}. Always answering {} would be right for {base:.3}.</p>",
            isolated(&class_name(report.classes, class))
        );
    }
    let trained = self::metrics(report.classes.len(), report.train);
    if let Some(accuracy) = trained.accuracy {
        let _ = writeln!(
            out,
            "<p>Of the training photos it is right for {accuracy:.3} ({} of {}).</p>",
            trained.right, trained.photos
        );
    }
}

fn findings(findings: &[String]) -> String {
    if findings.is_empty() {
        return "<p>Nothing struck when the photos were looked through.</p>\n".to_owned();
    }
    let items: String = findings.iter().map(|f| format!("<li>{}</li>\n", escape(f))).collect();
    format!("<ul class=\"findings\">\n{items}</ul>\n")
}

/// What the search tried, the best first.
fn candidates(candidates: &[Candidate]) -> String {
    let mut order: Vec<&Candidate> = candidates.iter().collect();
    let key = |c: &Candidate| if c.best.val_accuracy.is_finite() { c.best.val_accuracy } else { f64::NEG_INFINITY };
    order.sort_by(|a, b| b.kept.cmp(&a.kept).then(key(b).total_cmp(&key(a))));
    let mut out = String::from(
        "<div class=\"scroll\">\n<table><caption>What was tried, at its best epoch; the kept one first.</caption>\n\
         <thead><tr><th scope=\"col\">settings</th><th scope=\"col\">validation accuracy</th>\
         <th scope=\"col\">validation loss</th><th scope=\"col\">training accuracy</th><th scope=\"col\">epoch</th>\
         <th scope=\"col\">kept</th></tr></thead>\n<tbody>\n",
    );
    for Candidate { settings, best, kept } in order {
        let _ = writeln!(
            out,
            "<tr{}><th scope=\"row\" class=\"text\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td></tr>",
            if *kept { " class=\"kept\"" } else { "" },
            escape(settings),
            digits(best.val_accuracy),
            digits(best.val_loss),
            digits(best.accuracy),
            best.epoch,
            if *kept { "yes" } else { "" }
        );
    }
    out + "</tbody></table>\n</div>\n"
}

/// Four digits, or what it is if it is no number: a loss that diverged should be seen.
fn digits(value: f64) -> String {
    if value.abs() < 1e6 { format!("{value:.4}") } else { short(value) }
}

fn epochs(history: &[Epoch], best: usize) -> String {
    let seconds: f64 = history.iter().map(|e| e.seconds).filter(|s| s.is_finite()).sum();
    let mut out = format!(
        "<details><summary>{} in {seconds:.0} s</summary>\n<div class=\"scroll\">\n\
         <table><caption>Every epoch. Training numbers are means while the weights change.</caption>\n<thead><tr>\
         <th scope=\"col\">epoch</th><th scope=\"col\">loss</th><th scope=\"col\">accuracy</th>\
         <th scope=\"col\">validation loss</th><th scope=\"col\">validation accuracy</th>\
         <th scope=\"col\">learning rate</th><th scope=\"col\">seconds</th>\
         <th scope=\"col\">kept</th></tr></thead>\n<tbody>\n",
        count(history.len(), "epoch")
    );
    for e in history {
        let (row, mark) = if e.epoch == best { (" class=\"kept\"", "yes") } else { ("", "") };
        let _ = writeln!(
            out,
            "<tr{row}><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.1}</td>\
             <td>{mark}</td></tr>",
            e.epoch,
            digits(e.loss),
            digits(e.accuracy),
            digits(e.val_loss),
            digits(e.val_accuracy),
            short(e.learning_rate),
            e.seconds
        );
    }
    out + "</tbody></table>\n</div>\n</details>\n"
}

/// The command and the settings it leads to.
fn run(settings: &Value, command: &str) -> String {
    let mut rows = Vec::new();
    flatten("", settings, &mut rows);
    let mut out = format!("<pre><code>{}</code></pre>\n", escape(command));
    if !rows.is_empty() {
        out.push_str(
            "<div class=\"scroll\">\n<table><caption>Settings, defaults included.</caption>\n\
             <thead><tr><th scope=\"col\">setting</th><th scope=\"col\" class=\"text\">value</th></tr></thead>\n\
             <tbody>\n",
        );
        for (name, value) in rows {
            let (name, value) = (escape(&name), escape(&value));
            let _ = writeln!(out, "<tr><th scope=\"row\">{name}</th><td class=\"text\">{value}</td></tr>");
        }
        out.push_str("</tbody></table>\n</div>\n");
    }
    out
}

/// The leaves of `value`, named by their way there.
fn flatten(name: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                flatten(&name, value, rows);
            }
        }
        Value::Null if name.is_empty() => {}
        Value::Null => rows.push((name.to_owned(), "-".to_owned())),
        Value::String(text) => rows.push((name.to_owned(), text.clone())),
        // Lists are short here, and serde_json writes them as one would.
        other => rows.push((name.to_owned(), other.to_string())),
    }
}
