//! A run as JUnit XML, which every CI server reads.

use anyhow::Result;
use edge_suite::hil::{Outcome, Run, Verdict};
use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};
use std::time::Duration;

/// The file.
pub fn xml(run: &Run) -> Result<String> {
    let mut suite = TestSuite::new(run.dut.as_str());
    suite.set_time(seconds(run.seconds));
    suite.add_property(Property::new("seed", run.seed.to_string()));
    if let Some(device) = &run.device {
        suite.add_property(Property::new("device", device.as_str()));
    }
    if run.retries > 0 {
        suite.add_property(Property::new("starts that stalled and were tried again", run.retries.to_string()));
    }
    if let Some(why) = &run.broken {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_message(why.as_str());
        let mut case = TestCase::new("the device can be used", status);
        suite.add_test_case(case.set_classname(run.dut.as_str()).clone());
    }
    for outcome in &run.cases {
        suite.add_test_case(case(outcome, &run.dut));
    }
    let mut report = Report::new("edge-hil");
    report.set_time(seconds(run.seconds)).add_test_suite(suite);
    Ok(report.to_string()?)
}

fn case(outcome: &Outcome, dut: &str) -> TestCase {
    let mut status = match outcome.verdict {
        Verdict::Passed => TestCaseStatus::success(),
        Verdict::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Verdict::Skipped => TestCaseStatus::skipped(),
    };
    if let Some(why) = &outcome.why {
        status.set_message(why.as_str());
    }
    let mut case = TestCase::new(outcome.name.as_str(), status);
    case.set_classname(dut).set_time(seconds(outcome.seconds));
    for figure in &outcome.figures {
        case.add_property(Property::new(figure.name.as_str(), format!("{} {}", figure.value, figure.unit).trim_end()));
    }
    case
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_suite::hil::Figure;

    #[test]
    fn verdicts_become_what_ci_servers_count() {
        let outcome = |name: &str, verdict, why: Option<&str>| Outcome {
            name: name.into(),
            about: "".into(),
            verdict,
            why: why.map(String::from),
            seconds: 1.5,
            figures: vec![Figure { name: "first class".into(), value: 24.5, unit: "s".into() }],
            evidence: vec![],
        };
        let mut run = Run {
            dut: "a <board>".into(),
            started: "2026-01-01T00:00:00Z".into(),
            seconds: 3.0,
            long: false,
            seed: 7,
            device: None,
            first_class_s: None,
            retries: 0,
            broken: None,
            cases: vec![
                outcome("good", Verdict::Passed, None),
                outcome("bad", Verdict::Failed, Some("1 < 2 & \"so\"")),
                outcome("not here", Verdict::Skipped, Some("no clock")),
            ],
        };
        let text = xml(&run).unwrap();
        for part in [
            "tests=\"3\"",
            "failures=\"1\"",
            "<skipped message=\"no clock\"",
            "<failure message=\"1 &lt; 2 &amp; &quot;so&quot;\"",
            "classname=\"a &lt;board&gt;\"",
            "name=\"first class\" value=\"24.5 s\"",
            "name=\"seed\" value=\"7\"",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        run.broken = Some("no power".into());
        assert!(xml(&run).unwrap().contains("<error message=\"no power\""));
    }
}
