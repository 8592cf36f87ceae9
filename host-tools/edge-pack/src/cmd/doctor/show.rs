//! What was found, for people and for programs.

use super::Report;
use super::boards::Row;
use super::finding::{Finding, Severity};
use super::subject::{Groups, Subject, short, shown};
use crate::out;
use edge_engine::UnsupportedOp;
use edge_package::hex;
use edge_system::size::Size;
use serde_json::{Value, json};

/// Nodes that are named on a line at most.
const FEW: usize = 6;

/// A short table, then each finding with its fix.
pub fn text(report: &Report) -> anyhow::Result<()> {
    if let Some(subject) = &report.subject {
        about(report, subject)?;
    } else if let Some(path) = &report.path {
        out::line(path.display())?;
    }
    boards(&report.rows)?;
    let mut findings: Vec<&Finding> = report.findings.iter().collect();
    findings.sort_by_key(|f| f.severity);
    for finding in &findings {
        let board = finding.board.as_ref().map_or(String::new(), |board| format!("{board}: "));
        out::line(format_args!("\n{:8} {board}{}", finding.severity.name(), finding.what))?;
        if !finding.nodes.is_empty() {
            // What keeps it from running is named to the last.
            let few = if finding.severity == Severity::Error { usize::MAX } else { FEW };
            out::line(format_args!("  nodes  {}", shown(&finding.nodes, few)))?;
        }
        for (name, text) in [("why", &finding.why), ("fix", &finding.fix)] {
            if !text.is_empty() {
                out::line(format_args!("  {name:6} {text}"))?;
            }
        }
    }
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    let (errors, warnings, notes) = (count(Severity::Error), count(Severity::Warning), count(Severity::Note));
    out::line(match errors {
        0 => format!("\nnothing prevents running ({warnings} warning(s), {notes} note(s))"),
        _ => format!("\nit does not run: {errors} error(s), {warnings} warning(s), {notes} note(s)"),
    })
}

fn about(report: &Report, subject: &Subject) -> anyhow::Result<()> {
    let path = report.path.as_ref().map_or(String::new(), |path| format!("{}: ", path.display()));
    let digest = subject.digest.map_or(String::new(), |d| format!(", digest {}", short(&d)));
    let signed = subject.signed.map_or(String::new(), |signed| format!(", signed: {signed}"));
    let what = subject.manifest.as_ref().map_or(String::new(), |m| {
        let (int8, input) = (if subject.is_int8() { "int8" } else { "float" }, &m.input);
        format!(", {int8}, {}x{}, {} classes", input.width, input.height, m.labels.len())
    });
    out::line(format_args!("{path}{} of {}{what}{signed}{digest}", report.kind, Size(subject.file)))?;
    let groups = Groups::of(subject);
    let line = |name: &str, nodes: &[String]| match nodes {
        [] => Ok(()),
        some => out::line(format_args!("  {name:12} {} node(s): {}", some.len(), shown(some, FEW))),
    };
    line("fused, int8", &groups.int8)?;
    line(if subject.is_int8() { "float" } else { "fused, float" }, &groups.float)?;
    line("stock", &groups.stock.iter().map(|(node, _)| node.clone()).collect::<Vec<_>>())
}

fn boards(rows: &[Row]) -> anyhow::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    out::line(
        "\nestimates, not measurements (from counted work and published clocks and bandwidths; here: measured peaks)",
    )?;
    let width = rows.iter().map(|r| r.name.len()).max().unwrap_or_default().max(5);
    let processor = rows.iter().map(|r| r.processor.len()).max().unwrap_or_default().max(9);
    out::line(format_args!(
        "  {:width$}  {:processor$}  {:>4}  {:>10}  {:>8}  {:>9}  {:>9}",
        "board", "processor", "runs", "latency", "pictures", "memory", "of"
    ))?;
    for row in rows {
        let cell = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let seconds = row.estimate.map(|e| e.seconds).filter(|s| *s > 0.0);
        out::line(format_args!(
            "  {:width$}  {:processor$}  {:>4}  {:>10}  {:>8}  {:>9}  {:>9}",
            row.name,
            row.processor,
            if row.runs { "yes" } else { "no" },
            cell(seconds.map(|s| format!("~{} ms", rounded(s * 1e3)))),
            cell(seconds.map(|s| format!("~{}/s", rounded(1.0 / s)))),
            cell(row.estimate.map(|e| format!("~{:.0} MB", e.memory / 1e6))),
            cell(row.budget.map(|bytes| format!("{:.0} MB", bytes as f64 / 1e6))),
        ))?;
    }
    Ok(())
}

/// To two digits: an estimate has no more.
fn rounded(value: f64) -> String {
    let digits = (1.0 - value.abs().log10().floor()).clamp(0.0, 3.0) as usize;
    let unit = 10_f64.powf(value.abs().log10().floor() - 1.0);
    format!("{:.digits$}", (value / unit).round() * unit)
}

/// One object.
pub fn json(report: &Report) -> anyhow::Result<()> {
    let subject = report.subject.as_ref();
    let network = subject.map(|subject| {
        let groups = Groups::of(subject);
        let unsupported = |op: &UnsupportedOp| json!({"operator": op.operator, "node": op.node});
        let stock = |(node, why): &(String, String)| json!({"node": node, "why": why});
        json!({
            "name": subject.manifest.as_ref().map(|m| &m.name),
            "precision": subject.manifest.as_ref().map(|m| m.model.precision),
            "bytes": subject.file,
            "model_bytes": subject.model,
            "digest": subject.digest.map(|digest| hex(&digest)),
            "signed": subject.signed,
            "backend": subject.backend,
            "unsupported": subject.unsupported.iter().map(unsupported).collect::<Vec<_>>(),
            "fused_int8": groups.int8,
            "fused_float": groups.float,
            "stock": groups.stock.iter().map(stock).collect::<Vec<_>>(),
            "steps": groups.fused_steps,
            "macs": subject.cost.as_ref().map(|c| c.steps.iter().map(|s| s.matrix + s.depthwise).sum::<u64>()),
        })
    });
    let row = |row: &Row| {
        json!({
            "board": row.name,
            "processor": row.processor,
            "runs": row.runs,
            "estimated_ms": row.estimate.map(|e| e.seconds * 1e3),
            "estimated_memory_bytes": row.estimate.map(|e| e.memory as u64),
            "memory_budget_bytes": row.budget,
        })
    };
    let value: Value = json!({
        "ok": report.runs(),
        "file": report.path.as_ref().map(|path| path.display().to_string()),
        "kind": report.kind,
        "network": network,
        "boards": report.rows.iter().map(row).collect::<Vec<_>>(),
        "findings": report.findings,
    });
    out::json(&value)
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn estimates_have_two_digits() {
        let cases = [(1234.0, "1200"), (87.6, "88"), (8.76, "8.8"), (0.876, "0.88"), (0.0876, "0.088"), (99.9, "100")];
        for (value, text) in cases {
            assert_eq!(rounded(value), text);
        }
    }
}
