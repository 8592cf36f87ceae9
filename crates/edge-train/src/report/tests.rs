use edge_vision::Picture;
use serde_json::json;

use super::page::STYLE;
use super::*;

fn epoch(epoch: usize, loss: f64, val_accuracy: f64) -> Epoch {
    let (accuracy, val_loss) = (val_accuracy, loss * 1.2);
    Epoch { epoch, loss, accuracy, val_loss, val_accuracy, learning_rate: 0.001, seconds: 1.5 }
}

fn prediction(photo: &str, truth: usize, scores: &[f32]) -> Prediction {
    Prediction { photo: photo.into(), truth, scores: scores.to_vec() }
}

fn names(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("class-{i}")).collect()
}

const NOTHING: Report<'static> = Report {
    title: "Nothing",
    classes: &[],
    history: &[],
    best: 0,
    validation: &[],
    train: &[],
    findings: &[],
    candidates: &[],
    settings: &Value::Null,
    command: "",
    decode: DecodeOptions { exif_orientation: false },
};

/// Every SVG of the page.
fn svgs(html: &str) -> Vec<&str> {
    html.split("<svg ").skip(1).map(|rest| &rest[..rest.find("</svg>").unwrap()]).collect()
}

/// Goes through tags and attributes as an XML parser does: every tag is closed in order, every attribute quoted
/// and given once, and no bare `&` or `<` is left.
fn assert_well_formed(xml: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = xml;
    while let Some(at) = rest.find('<') {
        assert_text(&rest[..at]);
        let end = rest.find('>').expect("a tag ends");
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
            continue;
        }
        let (tag, is_empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, mut attributes) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
        let mut seen = Vec::new();
        while let Some((key, value)) = attributes.split_once("=\"") {
            let (value, more) = value.split_once('"').expect("an attribute ends");
            assert_text(value);
            assert!(!seen.contains(&key.trim()), "{tag}");
            seen.push(key.trim());
            attributes = more;
        }
        assert_eq!(attributes.trim(), "", "{tag}");
        if !is_empty {
            open.push(name);
        }
    }
    assert_text(rest);
    assert!(open.is_empty(), "{open:?} left open");
}

fn assert_text(text: &str) {
    for (at, _) in text.match_indices('&') {
        let entity = text[at + 1..].split(';').next().unwrap();
        assert!(["amp", "lt", "gt", "quot", "apos", "#39"].contains(&entity), "{text}");
    }
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
}

#[test]
fn the_charts_are_well_formed_whatever_the_history() {
    let one = vec![epoch(1, 0.5, 0.9)];
    let few: Vec<_> = (1..=7).map(|i| epoch(i, 1.0 / i as f64, 0.8 + i as f64 * 0.02)).collect();
    let many: Vec<_> = (1..=500).map(|i| epoch(i, 9.0 / i as f64, 0.5)).collect();
    let wild = vec![
        epoch(1, f64::NAN, 0.0),
        epoch(2, f64::INFINITY, f64::NAN),
        epoch(3, 1e300, -1.0),
        epoch(usize::MAX, 0.0, 7.0),
        epoch(3, 1e-300, 1.0),
        epoch(0, 1e11, 0.5),
    ];
    for history in [one, few, many, wild] {
        let html = html(&Report { history: &history, best: 3, ..NOTHING });
        let charts: Vec<_> = svgs(&html).into_iter().filter(|svg| svg.contains("role=\"img\"")).collect();
        assert_eq!(charts.len(), 2);
        for svg in charts {
            assert_well_formed(&format!("<svg {svg}</svg>"));
            assert!(svg.contains("aria-label=\"") && !svg.contains(">\nNaN"));
        }
    }
}

#[test]
fn every_colour_of_the_charts_is_in_the_style_sheet() {
    let history: Vec<_> = (1..=3).map(|i| epoch(i, 1.0, 0.9)).collect();
    let html = html(&Report { history: &history, best: 2, ..NOTHING });
    for svg in svgs(&html) {
        for attribute in ["stroke=\"#", "fill=\"#"] {
            for rest in svg.split(attribute).skip(1) {
                assert!(STYLE.contains(&format!("[{attribute}{}\"]", &rest[..6])), "{}", &rest[..6]);
            }
        }
    }
}

#[test]
fn nothing_at_all_makes_a_page() {
    let page = html(&NOTHING);
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    assert!(!page.contains("NaN") && page.contains("no curve"));
}

#[test]
fn the_headline_counts() {
    let validation: Vec<_> = (0..341).map(|i| prediction("x.jpg", usize::from(i >= 311), &[0.8, 0.2])).collect();
    let history = [epoch(1, 0.5, 0.9)];
    let page = html(&Report { classes: &names(2), validation: &validation, history: &history, best: 1, ..NOTHING });
    assert!(page.contains("0.912 <small>(311 of 341)</small>"));
    // The second class is never predicted.
    assert!(page.contains("<td>-</td><td>0.000</td><td>30</td>"));
    assert!(!page.contains("NaN"));
}

#[test]
fn what_users_write_is_escaped() {
    let evil = "<script>alert(\"1\")</script>&'";
    let classes = [evil.to_owned(), "b".to_owned()];
    let photo = format!("/no/such/{evil}.jpg");
    let predictions = [prediction(&photo, 1, &[0.99, 0.01]), prediction(&photo, 0, &[0.99, 0.01])];
    let history = [epoch(1, 0.5, 0.5)];
    let candidates = [true, false].map(|kept| Candidate { settings: evil.to_owned(), best: epoch(1, 1.0, 0.5), kept });
    let page = html(&Report {
        title: evil,
        classes: &classes,
        history: &history,
        best: 1,
        validation: &predictions,
        train: &predictions,
        findings: &[evil.to_owned()],
        candidates: &candidates,
        settings: &json!({ evil: { evil: [evil], "n": null } }),
        command: evil,
        ..NOTHING
    });
    assert!(!page.contains("<script") && !page.contains("alert(\"") && page.contains("&lt;script&gt;"));
    assert_eq!(page.matches("can't be read any more").count(), 3);
    // A page without scripts and references; its only addresses are names in itself.
    assert!(!page.contains("src=\"http") && !page.contains("url(") && !page.contains("@import"));
    // The style sheet isn't XML; the page between the void elements is.
    let body = page.split_once("<main>").unwrap().1.split_once("</main>").unwrap().0;
    assert_well_formed(body);
}

#[test]
fn a_thousand_classes_and_one_predicted() {
    let classes = names(1000);
    let mut scores = vec![0.0; 1000];
    scores[7] = 1.0;
    let validation: Vec<_> = (0..2000).map(|i| prediction("gone.jpg", i % 1000, &scores)).collect();
    let page = html(&Report { classes: &classes, validation: &validation, ..NOTHING });
    assert!(page.contains("A table of 1000 classes can't be read"));
    assert_eq!(page.matches("taken for").count(), 30);
    assert!(page.contains("960 classes with a higher F1"));
    assert!(!page.contains("NaN") && page.len() < 500_000, "{}", page.len());
}

#[test]
fn suspects_are_named_with_their_set_and_the_surest_come_first() {
    let classes = names(3);
    let validation = [
        prediction("v/sure.jpg", 0, &[0.01, 0.97, 0.02]),
        prediction("v/torn.jpg", 0, &[0.10, 0.89, 0.01]),
        prediction("v/right.jpg", 1, &[0.01, 0.97, 0.02]),
    ];
    let train = [prediction("t/surest.jpg", 2, &[0.99, 0.0, 0.01])];
    let page = html(&Report { classes: &classes, validation: &validation, train: &train, ..NOTHING });
    let labels = page.split_once("id=\"labels\"").unwrap().1.split_once("</section>").unwrap().0;
    let at = |text: &str| labels.find(text);
    assert!(at("training: <bdi>t/surest.jpg").unwrap() < at("validation: <bdi>v/sure.jpg").unwrap());
    assert_eq!((at("torn.jpg"), at("right.jpg")), (None, None));
    let mistakes = page.split_once("id=\"mistakes\"").unwrap().1.split_once("</section>").unwrap().0;
    assert!(mistakes.contains("torn.jpg") && mistakes.contains("89.0\u{a0}%") && !mistakes.contains("surest.jpg"));
}

#[test]
fn two_dozen_thumbnails_are_small() {
    let dir = tempfile::tempdir().unwrap();
    // Noise is as large as a photo can get.
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let picture = Picture::new(100, 100, (0..100 * 100 * 3).map(|_| noise()).collect()).unwrap();
    let path = dir.path().join("noise.jpg");
    std::fs::write(&path, thumbnails::encode(&picture).unwrap()).unwrap();
    let validation: Vec<_> = (0..12).map(|_| prediction(path.to_str().unwrap(), 0, &[0.0, 1.0])).collect();
    let page = html(&Report { classes: &names(2), validation: &validation, ..NOTHING });
    assert_eq!(page.matches("src=\"data:image/jpeg;base64,").count(), 24);
    assert!(page.len() < 500_000, "{}", page.len());
    assert_eq!(page, html(&Report { classes: &names(2), validation: &validation, ..NOTHING }));
}
