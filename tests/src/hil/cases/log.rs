//! Cases of the classification log.

use crate::hil::Bench;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::{Duration, SystemTime};

/// The first frames of a start have numbers below this; live sources leave some out.
const FIRST: u64 = 100;

/// A line's time less its seconds since the program's start is that start, to this.
const SAME: Duration = Duration::from_millis(50);

/// Nothing is cut, and nothing runs backwards but from one start of the program to the next.
pub fn whole(bench: &mut Bench) -> Result<()> {
    let lines = bench.dut.log()?;
    let starts = in_order(&lines)?;
    bench.figure("lines", lines.len() as f64, "");
    bench.figure("starts", starts as f64, "");
    Ok(())
}

/// Looks through lines; how many starts of the program they are of.
pub fn in_order(lines: &[Value]) -> Result<usize> {
    let (mut last, mut frame) = (f64::NEG_INFINITY, None);
    // The first number that comes may be any one: of a log that has lost its oldest files, or of a source that goes on.
    let (mut starts, mut any) = (0, true);
    for (number, line) in lines.iter().enumerate() {
        let context = || format!("line {} of the log: {line}", number + 1);
        let now = line["monotonic_s"].as_f64().context("it has no monotonic_s").with_context(context)?;
        let begun = time(line).with_context(context)?.checked_sub(Duration::from_secs_f64(now.max(0.0)));
        let this = line["frame"].as_u64();
        ensure!(
            this.is_some() || line["event"].is_string() || line["summary"].is_object(),
            "{}: it is of no frame, no event and no summary",
            context()
        );
        // A program that ended soon may have come no further than the next one; it was begun at another time.
        let again =
            |(before, then): (u64, Option<SystemTime>)| this.is_some_and(|this| this <= before) && apart(begun, then);
        if now < last || starts == 0 || frame.is_some_and(again) {
            starts += 1;
            (frame, any) = (None, starts == 1);
        }
        last = now;
        // A source that was opened anew counts anew, one that was kept goes on.
        if line["event"] == "reloaded" {
            (frame, any) = (None, true);
        }
        let Some(this) = this else { continue };
        match frame {
            Some((before, _)) => ensure!(this > before, "{}: its frame comes after frame {before}", context()),
            None => ensure!(any || this < FIRST, "{}: time goes back, but frames go on", context()),
        }
        frame = Some((this, begun));
    }
    ensure!(starts > 0, "the log is empty");
    Ok(starts)
}

/// Whether two programs were begun at different times, by the wall clock.
fn apart(one: Option<SystemTime>, other: Option<SystemTime>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.duration_since(other).unwrap_or_else(|e| e.duration()) > SAME,
        _ => false,
    }
}

/// The wall clock of a line.
pub fn time(line: &Value) -> Result<SystemTime> {
    let text = line["time"].as_str().context("it has no time")?;
    humantime::parse_rfc3339(text).with_context(|| format!("{text:?} is no time"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(monotonic_s: f64, frame: u64) -> Value {
        json!({"time": "2026-01-01T00:00:00.000Z", "monotonic_s": monotonic_s, "frame": frame, "decision": "cat"})
    }

    #[test]
    fn order_is_order() {
        let notice = json!({"time": "2026-01-01T00:00:00Z", "monotonic_s": 2.0, "event": "reloaded", "detail": ""});
        let good = [line(1.0, 700), line(2.0, 702), notice.clone(), line(2.5, 703), line(0.3, 1), line(0.3, 2)];
        assert_eq!(in_order(&good).unwrap(), 2);
        // Reloaded in its second start, with the camera that it had.
        let late = json!({"time": "2026-01-01T00:00:09Z", "monotonic_s": 60.0, "event": "reloaded", "detail": ""});
        assert_eq!(in_order(&[line(9.0, 0), line(0.3, 1), line(50.0, 343), late, line(60.0, 344)]).unwrap(), 2);
        // Killed after its first frame, and started again half a second later.
        let again = json!({"time": "2026-01-01T00:00:00.500Z", "monotonic_s": 0.31, "frame": 0, "decision": "cat"});
        assert_eq!(in_order(&[line(0.3, 0), again]).unwrap(), 2);
        for (bad, part) in [
            (vec![], "empty"),
            (vec![line(1.0, 5), line(1.01, 5)], "after frame 5"),
            (vec![line(5.0, 500), line(1.0, 501)], "frames go on"),
            (vec![line(5.0, 500), json!({"time": "x", "monotonic_s": 6.0, "event": "a"})], "no time"),
            (vec![json!({"time": "2026-01-01T00:00:00Z", "event": "a"})], "no monotonic_s"),
            (vec![notice, json!({"time": "2026-01-01T00:00:00Z", "monotonic_s": 6.0})], "no frame, no event"),
        ] {
            let why = format!("{:#}", in_order(&bad).unwrap_err());
            assert!(why.contains(part), "{why}");
        }
    }
}
