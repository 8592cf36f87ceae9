//! What happened in a while, in one line.

use edge_device::event::{Event, LatencyMs, Percentiles, StagePercentiles, Totals};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// The smallest latency told apart, in milliseconds.
const SMALLEST: f64 = 0.001;
/// Each class of latencies is this much longer than the one before: percentiles are right to 2 %.
const STEP: f64 = 1.02;
/// Classes from a microsecond to a hundred seconds.
const CLASSES: usize = 931;

/// Latencies of one stage, counted in classes: its size does not depend on how many there are.
pub struct Histogram {
    counts: Vec<u32>,
    count: u64,
    max: f64,
}

impl Histogram {
    /// Nothing was counted yet.
    pub fn new() -> Histogram {
        Histogram { counts: vec![0; CLASSES], count: 0, max: 0.0 }
    }

    /// Counts one of so many milliseconds.
    pub fn add(&mut self, ms: f64) {
        let class = ((ms / SMALLEST).max(1.0).ln() / STEP.ln()).round() as usize;
        let count = &mut self.counts[class.min(CLASSES - 1)];
        *count = count.saturating_add(1);
        self.count += 1;
        self.max = self.max.max(ms);
    }

    /// The latency that a share of the frames did not exceed, in ms to the microsecond.
    pub fn percentile(&self, share: f64) -> f64 {
        let rank = (share * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let class = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        });
        let ms = class.map_or(0.0, |class| SMALLEST * STEP.powi(class as i32));
        (ms.min(self.max) * 1000.0).round() / 1000.0
    }

    /// Those that the log has.
    pub fn percentiles(&self) -> Percentiles {
        Percentiles { p50: self.percentile(0.5), p90: self.percentile(0.9), p99: self.percentile(0.99), max: self.max }
    }

    fn clear(&mut self) {
        self.counts.fill(0);
        (self.count, self.max) = (0, 0.0);
    }
}

/// Counts until it is asked.
pub struct Summing {
    every: Duration,
    since: Instant,
    frames: u64,
    faults: u64,
    drops: u64,
    last_frame: Option<u64>,
    stages: [Histogram; 5],
    decisions: BTreeMap<String, u64>,
}

impl Summing {
    /// Sums up `every` so often.
    pub fn new(every: Duration) -> Summing {
        Summing {
            every,
            since: Instant::now(),
            frames: 0,
            faults: 0,
            drops: 0,
            last_frame: None,
            stages: std::array::from_fn(|_| Histogram::new()),
            decisions: BTreeMap::new(),
        }
    }

    /// How often.
    pub fn every(&self) -> Duration {
        self.every
    }

    /// The source gave this frame.
    pub fn frame(&mut self, number: u64) {
        self.frames += 1;
        // A source that was opened anew counts from 0 again.
        let dropped = self.last_frame.map_or(0, |last| number.saturating_sub(last.saturating_add(1)));
        self.drops += dropped;
        self.last_frame = Some(number);
    }

    /// It was classified.
    pub fn classified(&mut self, event: &Event) {
        let LatencyMs { decode, resize, preprocess, infer, total } = event.latency_ms;
        for (stage, ms) in self.stages.iter_mut().zip([decode, resize, preprocess, infer, total]) {
            stage.add(ms);
        }
        match self.decisions.get_mut(&event.decision) {
            Some(count) => *count += 1,
            None => drop(self.decisions.insert(event.decision.clone(), 1)),
        }
    }

    /// It was not.
    pub fn fault(&mut self) {
        self.faults += 1;
    }

    /// The sums when it is time, or at the `end` when there are any; then counting begins anew.
    pub fn due(&mut self, end: bool) -> Option<Totals> {
        let elapsed = self.since.elapsed();
        if !(elapsed >= self.every || end && self.frames > 0) {
            return None;
        }
        let totals = self.totals();
        self.since = Instant::now();
        self.decisions.clear();
        self.stages.iter_mut().for_each(Histogram::clear);
        (self.frames, self.faults, self.drops) = (0, 0, 0);
        Some(totals)
    }

    /// The sums up to now; counting goes on.
    pub fn totals(&self) -> Totals {
        let seconds = self.since.elapsed().as_secs_f64();
        let [decode, resize, preprocess, infer, total] = self.stages.each_ref().map(Histogram::percentiles);
        Totals {
            seconds: round(seconds),
            frames: self.frames,
            faults: self.faults,
            drops: self.drops,
            fps: if seconds > 0.0 { round(self.frames as f64 / seconds) } else { 0.0 },
            latency_ms: StagePercentiles { decode, resize, preprocess, infer, total },
            decisions: self.decisions.clone(),
            rss_mb: resident_kib().map(|kib| round(kib as f64 * 1024.0 / 1e6)),
            open_files: std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1)),
            temperature_c: temperature(Path::new("/sys/class/thermal")),
        }
    }
}

fn round(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}

/// Resident memory of this process in KiB.
pub fn resident_kib() -> Option<u64> {
    std::fs::read_to_string("/proc/self/status").ok().and_then(|text| resident(&text))
}

/// The same out of the text of /proc/self/status.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The highest temperature of the sensors in /sys/class/thermal, which are in thousandths of a degree.
fn temperature(folder: &Path) -> Option<f64> {
    let zone = |entry: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(entry.ok()?.path().join("temp")).ok()?;
        text.trim().parse::<i64>().ok()
    };
    let hottest = std::fs::read_dir(folder).ok()?.filter_map(zone).max()?;
    Some(hottest as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn percentiles_are_right_to_two_percent(mut values in prop::collection::vec(0.001f64..90_000.0, 1..300)) {
            let mut histogram = Histogram::new();
            values.iter().for_each(|v| histogram.add(*v));
            values.sort_by(f64::total_cmp);
            for share in [0.5, 0.9, 0.99] {
                let exact = values[((share * values.len() as f64).ceil() as usize).max(1) - 1];
                let found = histogram.percentile(share);
                prop_assert!((found - exact).abs() <= 0.02 * exact + 0.001, "{} is not {}", found, exact);
            }
            prop_assert_eq!(histogram.percentiles().max, *values.last().unwrap());
        }
    }

    #[test]
    fn latencies_out_of_range_are_counted() {
        let mut histogram = Histogram::new();
        [0.0, 1e9, f64::MAX].into_iter().for_each(|ms| histogram.add(ms));
        assert_eq!(histogram.count, 3);
        assert_eq!(histogram.percentile(0.1), 0.001);
    }

    #[test]
    fn dropped_frames_are_the_gaps_of_the_numbers() {
        let mut summing = Summing::new(Duration::from_secs(3600));
        [0, 1, 4, 5, 0, 1].into_iter().for_each(|number| summing.frame(number));
        summing.fault();
        assert!(summing.due(false).is_none());
        assert_eq!(summing.totals().frames, 6);
        let totals = summing.due(true).unwrap();
        assert_eq!((totals.frames, totals.faults, totals.drops), (6, 1, 2));
        assert!(totals.rss_mb.unwrap() > 1.0 && totals.open_files.unwrap() >= 3);
        assert!(summing.due(true).is_none());
    }

    #[test]
    fn what_the_kernel_says() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t   1000 kB\n"), Some(1000));
        assert_eq!(resident("nothing"), None);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(temperature(dir.path()), None);
        for (zone, temp) in [("thermal_zone0", "48312\n"), ("thermal_zone1", "51000\n"), ("cooling_device0", "")] {
            std::fs::create_dir(dir.path().join(zone)).unwrap();
            std::fs::write(dir.path().join(zone).join("temp"), temp).unwrap();
        }
        assert_eq!(temperature(dir.path()), Some(51.0));
    }
}
