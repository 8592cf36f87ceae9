//! What quantization cost, for people and for scripts.

use super::args::{GOAL, Kind};
use super::search::Trial;
use super::work::{Quantized, round};
use crate::out;
use edge_device::event::millis;
use edge_model::quantize::LayerNoise;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// Layers that are named.
const WORST: usize = 5;

/// Four digits, or a dash.
fn share(v: Option<f64>) -> String {
    v.map_or("-".into(), |v| format!("{v:.4}"))
}

fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

/// The trade-off: a row for the float network and one for each trial.
pub fn table(made: &Quantized) -> anyhow::Result<()> {
    if made.trials.is_empty() {
        return Ok(());
    }
    out::line(format_args!(
        "{:<52} {:>9} {:>8} {:>8} {:>7} {:>8}",
        "trial", "agreement", "SNR dB", "accuracy", "MB", "ms/photo"
    ))?;
    let row = |what: &str, agreement: f64, snr: String, accuracy, bytes, time: Duration, mark: &str| {
        out::line(format_args!(
            "{what:<52} {agreement:>9.4} {snr:>8} {:>8} {:>7.1} {:>8.1}{mark}",
            share(accuracy),
            megabytes(bytes),
            millis(time)
        ))
    };
    row("float", 1.0, "-".into(), made.float_accuracy, made.float_bytes, made.float.time, "")?;
    for (at, t) in made.trials.iter().enumerate() {
        let mark = if at == made.taken { "  taken" } else { "" };
        row(
            &t.what,
            t.agreement.share(),
            format!("{:.1}", t.agreement.snr),
            t.accuracy,
            t.bytes,
            t.verdicts.time,
            mark,
        )?;
    }
    Ok(())
}

/// The layers that lose most when quantized alone.
pub fn worst(made: &Quantized) -> Vec<&LayerNoise> {
    let mut layers: Vec<&LayerNoise> = made.layers.iter().collect();
    layers.sort_by(|a, b| a.alone().total_cmp(&b.alone()));
    layers.truncate(WORST);
    layers
}

/// What was tried for a layer and what it bought.
pub fn tried(layer: &LayerNoise) -> String {
    let ranges: Vec<String> = layer.alone.iter().map(|(m, snr)| format!("{m} {snr:.1}")).collect();
    let mut text = format!("ranges: {} dB, {} taken", ranges.join(", "), layer.method);
    if let Some(learned) = layer.learned {
        text += &format!("; learned rounding {learned:.1} dB instead of {:.1}", layer.nearest());
    }
    if !layer.quantized {
        text += "; kept in float";
    }
    text
}

/// Everything, for people.
pub fn all(made: &Quantized, output: &Path, bytes: usize, report: Option<&Path>, took: Duration) -> anyhow::Result<()> {
    table(made)?;
    let worst = worst(made);
    if !worst.is_empty() {
        out::line("\nlayers that lose most, quantized alone:")?;
        for layer in worst {
            out::line(format_args!(
                "  {} ({}): {:.1} dB alone, {:.1} dB in the network; {}",
                layer.node,
                layer.operator,
                layer.alone(),
                layer.network,
                tried(layer)
            ))?;
        }
    }
    for (node, why) in &made.left {
        out::line(format_args!("  {node} stays in float: {why}"))?;
    }
    for note in notes(made) {
        out::line(note)?;
    }
    let report = report.map(|r| format!("; report {}", r.display())).unwrap_or_default();
    out::line(format_args!(
        "{}: {:.1} MB of {:.1}, {:.0} s{report}",
        output.display(),
        megabytes(bytes),
        megabytes(made.float_bytes),
        took.as_secs_f64()
    ))
}

/// What whoever uses the file should know.
pub fn notes(made: &Quantized) -> Vec<String> {
    let Some(Trial { agreement, accuracy, what, .. }) = made.trial() else {
        return vec!["nothing was compared: no photos were given (--validation DIR)".into()];
    };
    let mut notes = vec![format!(
        "{what}: {} of {} photos that did not calibrate keep their class ({:.4}){}",
        agreement.pictures - agreement.changed.len(),
        agreement.pictures,
        agreement.share(),
        match (made.float_accuracy, accuracy) {
            (Some(before), Some(after)) => format!("; accuracy {before:.4} before, {after:.4} after"),
            _ => String::new(),
        }
    )];
    if agreement.share() < GOAL {
        notes.push(format!(
            "warning: fewer than {GOAL} keep their class; the report names the layers, --keep-float and --target f16 are ways out"
        ));
    }
    notes
}

/// Everything, for scripts.
pub fn json(made: &Quantized, kind: Kind, output: &Path, bytes: usize, took: Duration) -> Value {
    let trial = |t: &Trial| {
        json!({
            "what": t.what, "float": t.float, "agreement": round(t.agreement.share()), "snr_db": round(t.agreement.snr),
            "accuracy": t.accuracy.map(round), "bytes": t.bytes, "ms": millis(t.verdicts.time),
        })
    };
    let layer = |l: &LayerNoise| {
        let alone: serde_json::Map<String, Value> =
            l.alone.iter().map(|(m, snr)| (m.to_string(), json!(round(*snr)))).collect();
        json!({
            "node": l.node, "operator": l.operator, "quantized": l.quantized, "snr_db": round(l.network),
            "alone_db": alone, "method": l.method.to_string(), "learned_db": l.learned.map(round), "seen": l.seen,
            "covered": l.covered,
        })
    };
    let changed: Vec<Value> = made
        .changed()
        .iter()
        .map(|c| {
            json!({
                "photo": c.path.display().to_string(), "float": c.before, "quantized": c.after, "truth": c.truth,
            })
        })
        .collect();
    json!({
        "path": output.display().to_string(),
        "bytes": bytes,
        "float_bytes": made.float_bytes,
        "quantization": made.property(kind),
        "taken": made.taken,
        "trials": made.trials.iter().map(trial).collect::<Vec<_>>(),
        "equalization": made.strengths.iter().map(|(s, db)| json!({"strength": s, "snr_db": round(*db)})).collect::<Vec<_>>(),
        "layers": made.layers.iter().map(layer).collect::<Vec<_>>(),
        "float_only": made.left.iter().map(|(n, why)| json!({"node": n, "why": why})).collect::<Vec<_>>(),
        "changed": changed,
        "seconds": round(took.as_secs_f64()),
    })
}
