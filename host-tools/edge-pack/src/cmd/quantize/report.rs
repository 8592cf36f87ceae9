//! The doctor's page: what quantization cost, where it hurts, which photos changed.

use super::args::Kind;
use super::show::{tried, worst};
use super::work::Quantized;
use edge_device::event::millis;
use edge_model::quantize::LayerNoise;
use edge_package::Manifest;
use edge_train::report::page::{Section, count, document, escape, figures, isolated, percent};
use edge_train::report::thumbnails::Thumbnails;
use edge_vision::DecodeOptions;
use std::fmt::Write as _;
use std::path::Path;

/// Photos shown; the others are counted.
const MOST_PHOTOS: usize = 60;
/// No bar is longer than this, in dB.
const MOST_DB: f64 = 60.0;

/// What a page is made of.
pub struct Page<'a> {
    pub made: &'a Quantized,
    pub manifest: &'a Manifest,
    pub kind: Kind,
    pub model: &'a Path,
}

/// The page.
pub fn html(page: &Page<'_>) -> String {
    let made = page.made;
    let section = |id, title, body| Section { id, title, body };
    let mut sections = vec![section("trade", "Trade-off", trade_off(made))];
    if !made.layers.is_empty() {
        sections.push(section("worst", "Worst layers", worst_layers(made)));
        sections.push(section("layers", "All layers", layers(made)));
    }
    sections.push(section("changed", "Photos whose class changed", changed(page)));
    sections.push(section("how", "How", how(page)));
    let title = format!("{} in {}", page.model.file_name().unwrap_or_default().to_string_lossy(), page.kind.name());
    document(&title, &headline(made), &sections)
}

fn headline(made: &Quantized) -> String {
    let Some(trial) = made.trial() else { return String::new() };
    let same = trial.agreement.pictures - trial.agreement.changed.len();
    let accuracy = |a: Option<f64>| a.map_or("-".into(), |a| format!("{a:.4}"));
    figures(&[
        (
            "Agreement",
            percent(trial.agreement.share() as f32),
            format!("{same} of {}", count(trial.agreement.pictures, "photo")),
        ),
        ("Accuracy", accuracy(trial.accuracy), format!("{} in float", accuracy(made.float_accuracy))),
        ("Signal to noise", format!("{:.1} dB", trial.agreement.snr), "of the logits".into()),
        ("Size", format!("{:.1} MB", made.onnx.len() as f64 / 1e6), format!("of {:.1}", made.float_bytes as f64 / 1e6)),
        (
            "Time",
            format!("{:.1} ms", millis(trial.verdicts.time)),
            format!("{:.1} in float, on this machine", millis(made.float.time)),
        ),
    ])
}

/// The trials as a table and as a picture: agreement over time.
fn trade_off(made: &Quantized) -> String {
    let mut out = String::from(
        "<div class=\"scroll\"><table><thead><tr><th>trial</th><th>agreement</th><th>SNR dB</th><th>accuracy</th><th>MB</th>\
         <th>ms a photo</th><th>nodes in float</th></tr></thead><tbody>\n",
    );
    let accuracy = |a: Option<f64>| a.map_or("-".into(), |a| format!("{a:.4}"));
    let _ = writeln!(
        out,
        "<tr><td class=\"text\">float</td><td>1</td><td>-</td><td>{}</td><td>{:.1}</td><td>{:.1}</td><td>all</td></tr>",
        accuracy(made.float_accuracy),
        made.float_bytes as f64 / 1e6,
        millis(made.float.time)
    );
    for (at, t) in made.trials.iter().enumerate() {
        let kept = if at == made.taken { " class=\"kept\"" } else { "" };
        let _ = writeln!(
            out,
            "<tr{kept}><td class=\"text\">{}</td><td>{:.4}</td><td>{:.1}</td><td>{}</td><td>{:.1}</td><td>{:.1}</td><td>{}</td></tr>",
            escape(&t.what),
            t.agreement.share(),
            t.agreement.snr,
            accuracy(t.accuracy),
            t.bytes as f64 / 1e6,
            millis(t.verdicts.time),
            t.float.len()
        );
    }
    out.push_str("</tbody></table></div>\n");
    out + &scatter(made)
}

/// Agreement over time, a point for each trial.
fn scatter(made: &Quantized) -> String {
    if made.trials.is_empty() {
        return "<p>No photos were given to compare on.</p>\n".into();
    }
    let times = made.trials.iter().map(|t| millis(t.verdicts.time)).chain([millis(made.float.time)]);
    let most = times.fold(0.0, f64::max).max(1e-3) * 1.1;
    let least = made.trials.iter().map(|t| t.agreement.share()).fold(0.99, f64::min) - 0.005;
    let place = |time: f64, share: f64| (60.0 + 560.0 * time / most, 20.0 + 220.0 * (1.0 - share) / (1.0 - least));
    let mut out = String::from(
        "<figure><svg class=\"plot\" viewBox=\"0 0 640 290\" role=\"img\" aria-label=\"agreement over time of each trial\" \
         font-family=\"sans-serif\" font-size=\"13\">\n",
    );
    for step in 0..=4 {
        let share = 1.0 - (1.0 - least) * f64::from(step) / 4.0;
        let y = place(0.0, share).1;
        let _ = writeln!(
            out,
            "<line x1=\"60\" x2=\"620\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#D0D7DE\"/><text x=\"54\" y=\"{:.1}\" \
             text-anchor=\"end\" fill=\"#1B1F24\">{share:.3}</text>",
            y + 4.0
        );
        let time = most * f64::from(step) / 4.0;
        let x = place(time, 1.0).0;
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"262\" text-anchor=\"middle\" fill=\"#1B1F24\">{time:.0}</text>");
    }
    out.push_str("<text x=\"340\" y=\"284\" text-anchor=\"middle\" fill=\"#1B1F24\">ms a photo</text>\n");
    let float = ("float", millis(made.float.time), 1.0, false);
    let points = made.trials.iter().enumerate();
    let points = points.map(|(i, t)| (t.what.as_str(), millis(t.verdicts.time), t.agreement.share(), i == made.taken));
    for (what, time, share, taken) in std::iter::once(float).chain(points) {
        let (x, y) = place(time, share);
        let colour = if taken { "#0B63C5" } else { "#B35900" };
        let _ = writeln!(
            out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"6\" fill=\"{colour}\"><title>{}: {share:.4}, {time:.1} ms</title></circle>",
            escape(what)
        );
    }
    out + "</svg><figcaption>Agreement with float over time; blue is what was taken.</figcaption></figure>\n"
}

fn worst_layers(made: &Quantized) -> String {
    let mut out = String::from(
        "<p>Signal to noise of a layer: the squares of what it should make against those of what is wrong with it; 6 dB more is half \
         the error. <em>Alone</em>: it reads float values and is the only one that is quantized.</p>\n<div class=\"plots\">\n",
    );
    for layer in worst(made) {
        let _ = writeln!(
            out,
            "<figure><figcaption><strong>{}</strong> ({}): {:.1} dB alone, {:.1} dB in the network. {}.</figcaption>{}</figure>",
            isolated(&layer.node),
            escape(&layer.operator),
            layer.alone(),
            layer.network,
            escape(&tried(layer)),
            histogram(layer)
        );
    }
    out + "</div>\n"
}

/// What a layer reads, and which of it bytes cover; heights are logarithmic.
fn histogram(layer: &LayerNoise) -> String {
    let [least, most] = layer.seen;
    let width = f64::from(most - least).max(1e-30);
    let mut out = String::from(
        "<svg class=\"plot\" viewBox=\"0 0 480 150\" role=\"img\" aria-label=\"distribution of what the layer reads\" \
         font-family=\"sans-serif\" font-size=\"13\">\n",
    );
    let place = |v: f32| (10.0 + 460.0 * f64::from(v - least) / width).clamp(0.0, 480.0);
    let [low, high] = layer.covered.map(place);
    let _ = writeln!(
        out,
        "<rect x=\"{low:.1}\" y=\"5\" width=\"{:.1}\" height=\"115\" fill=\"#D0D7DE\" opacity=\"0.5\"/>",
        (high - low).max(0.0)
    );
    let bar = 460.0 / layer.histogram.len().max(1) as f64;
    for (at, share) in layer.histogram.iter().enumerate().filter(|(_, s)| **s > 0.0) {
        let height = (115.0 * (1.0 + f64::from(*share).log10() / 7.0)).clamp(1.0, 115.0);
        let _ = writeln!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"#0B63C5\"/>",
            10.0 + bar * at as f64,
            120.0 - height,
            bar * 0.9
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"10\" y=\"140\" fill=\"#1B1F24\">{least:.3}</text><text x=\"470\" y=\"140\" text-anchor=\"end\" \
         fill=\"#1B1F24\">{most:.3}</text><text x=\"240\" y=\"140\" text-anchor=\"middle\" fill=\"#1B1F24\">bytes cover {:.3} … \
         {:.3}</text>",
        layer.covered[0], layer.covered[1]
    );
    out + "</svg>"
}

fn layers(made: &Quantized) -> String {
    let mut out = String::from(
        "<div class=\"scroll\"><table><thead><tr><th>layer</th><th class=\"text\">operator</th><th>alone, dB</th><th>in the network, \
         dB</th><th>nearest, dB</th><th>range by</th><th>seen</th><th>covered</th></tr></thead><tbody>\n",
    );
    let cell = |db: f64| format!("<td class=\"bar\" style=\"--p:{:.3}\">{db:.1}</td>", (db / MOST_DB).clamp(0.0, 1.0));
    for l in &made.layers {
        let float = if l.quantized { "" } else { " (float)" };
        let _ = writeln!(
            out,
            "<tr><td class=\"text\">{}</td><td class=\"text\">{}{float}</td>{}{}<td>{}</td><td>{}</td><td>{:.2} … {:.2}</td><td>{:.2} … {:.2}</td></tr>",
            isolated(&l.node),
            escape(&l.operator),
            cell(l.alone()),
            cell(l.network),
            format_args!("{:.1}", l.nearest()),
            l.method,
            l.seen[0],
            l.seen[1],
            l.covered[0],
            l.covered[1]
        );
    }
    out.push_str("</tbody></table></div>\n");
    if !made.left.is_empty() {
        out.push_str("<p>Nodes that stay in float because they cannot be quantized:</p>\n<ul class=\"findings\">\n");
        for (node, why) in &made.left {
            let _ = writeln!(out, "<li>{}: {}</li>", isolated(node), escape(why));
        }
        out.push_str("</ul>\n");
    }
    out
}

fn changed(page: &Page<'_>) -> String {
    let changed = page.made.changed();
    if changed.is_empty() {
        return "<p>None.</p>\n".into();
    }
    let mut thumbnails = Thumbnails::new(DecodeOptions { exif_orientation: page.manifest.exif_orientation });
    let label = |class: usize| page.manifest.labels.get(class).map_or_else(|| class.to_string(), |l| l.label.clone());
    let mut scores = vec![];
    let mut score = |logits: &[f32], class: usize| {
        edge_engine::decision::scores(page.manifest.activation, logits, &mut scores);
        percent(scores.get(class).copied().unwrap_or(f32::NAN))
    };
    let mut out = String::new();
    if changed.len() > MOST_PHOTOS {
        let _ = writeln!(out, "<p>The first {MOST_PHOTOS} of {}.</p>", changed.len());
    }
    out.push_str("<ul class=\"photos\">\n");
    for c in changed.iter().take(MOST_PHOTOS) {
        let picture =
            thumbnails.element(c.path, &format!("{} in float, {} quantized", label(c.before), label(c.after)));
        let truth = c
            .truth
            .map_or(String::new(), |t| format!("<span>labelled <strong>{}</strong></span>", isolated(&label(t))));
        let _ = writeln!(
            out,
            "<li>{picture}<div><span>float <strong>{}</strong> {}</span><span>quantized <strong>{}</strong> {}</span>{truth}\
             <span class=\"file\">{}</span></div></li>",
            isolated(&label(c.before)),
            score(c.logits[0], c.before),
            isolated(&label(c.after)),
            score(c.logits[1], c.after),
            isolated(&c.path.display().to_string())
        );
    }
    out + "</ul>\n"
}

fn how(page: &Page<'_>) -> String {
    let made = page.made;
    let mut out = String::new();
    if !made.strengths.is_empty() {
        let tried: Vec<String> = made.strengths.iter().map(|(s, db)| format!("strength {s}: {db:.1} dB")).collect();
        let _ = writeln!(
            out,
            "<p>Channels were evened out between layers (cross-layer equalization) with strength {}; tried on a few photos: {}.</p>",
            made.equalized,
            tried.join(", ")
        );
    }
    let property = serde_json::to_string_pretty(&made.property(page.kind)).unwrap_or_default();
    let _ = writeln!(out, "<p>What the file says of itself:</p>\n<pre>{}</pre>", escape(&property));
    out
}
