//! Memory over time.

use crate::hil::{Bench, photos};
use anyhow::{Context, Result, ensure};
use edge_link::PictureData;
use std::time::{Duration, Instant};

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(500);
/// Every so many looks the camera is asked to classify something.
const ASK: usize = 6;
/// The share of the looks in which what is used again and again is allocated for the first time.
const WARM_UP: f64 = 0.2;
/// The rest is divided into so many.
const WINDOWS: usize = 4;
/// From the first window's median to the last one's memory may grow by so many KiB: what an allocator takes at once.
const SLACK: f64 = 2048.0;

/// Frames and questions for a while, and no more memory than before.
pub fn flat(bench: &mut Bench) -> Result<()> {
    let pictures: Vec<PictureData> = photos()?.into_iter().map(|photo| PictureData::File(photo.bytes)).collect();
    // What these take the first time is no growth.
    for picture in pictures.iter().chain(&pictures) {
        bench.classify(picture.clone())?;
    }
    let first = bench.statistics()?;
    let (begin, mut looks, mut last) = (Instant::now(), vec![], first.clone());
    while begin.elapsed() < bench.soak || looks.len() < 2 * WINDOWS {
        let now = bench.statistics()?;
        ensure!(
            now["uptime_s"].as_f64() >= last["uptime_s"].as_f64(),
            "the camera program was started again meanwhile"
        );
        let rss = now["rss_kib"].as_f64().context("the statistics have no rss_kib")?;
        looks.push((begin.elapsed().as_secs_f64(), rss));
        if looks.len() % ASK == 0 {
            bench.classify(pictures[looks.len() / ASK % pictures.len()].clone())?;
        }
        last = now;
        std::thread::sleep(LOOK);
    }
    let number = |statistics: &serde_json::Value, key: &str| statistics[key].as_f64().unwrap_or_default();
    let [frames, faults, dropped] = ["frames", "faults", "dropped"].map(|key| number(&last, key) - number(&first, key));
    let seconds = number(&last, "uptime_s") - number(&first, "uptime_s");
    let infer = &last["latency_ms"]["total"];
    bench.figure("frames a second", frames / seconds, "");
    bench.figure("frames dropped", dropped, "");
    bench.figure("latency at p50", infer["p50"].as_f64().unwrap_or_default(), "ms");
    bench.figure("latency at p99", infer["p99"].as_f64().unwrap_or_default(), "ms");
    let Growth { medians, slope } = Growth::of(&looks);
    let (from, to) = (medians[0], medians[WINDOWS - 1]);
    bench.figure("memory at the end", to, "KiB");
    bench.figure("memory's slope", slope * 60.0, "KiB/min");
    ensure!(frames > 0.0 && faults == 0.0, "{frames} frames were classified, and {faults} could not be");
    // What is taken once, early on, is no growth: it has to go on.
    let goes_on = to > medians[1] + SLACK / 2.0;
    ensure!(to <= from + SLACK || !goes_on, "memory grows: {medians:?} KiB, {:.0} KiB a minute", slope * 60.0);
    Ok(())
}

/// How memory went.
#[derive(Debug)]
struct Growth {
    /// Of each window.
    medians: [f64; WINDOWS],
    /// Of the line through all windows, per second.
    slope: f64,
}

impl Growth {
    /// Of looks (seconds, KiB), of which there are two for each window and more.
    fn of(looks: &[(f64, f64)]) -> Growth {
        let warm = &looks[(looks.len() as f64 * WARM_UP) as usize..];
        let medians = std::array::from_fn(|window| {
            let place = |window: usize| window * warm.len() / WINDOWS;
            let mut of: Vec<f64> = warm[place(window)..place(window + 1)].iter().map(|(_, rss)| *rss).collect();
            of.sort_by(f64::total_cmp);
            of[of.len() / 2]
        });
        let count = warm.len() as f64;
        let (mean_t, mean_m) =
            (warm.iter().map(|l| l.0).sum::<f64>() / count, warm.iter().map(|l| l.1).sum::<f64>() / count);
        let over: f64 = warm.iter().map(|(t, m)| (t - mean_t) * (m - mean_m)).sum();
        let under: f64 = warm.iter().map(|(t, _)| (t - mean_t).powi(2)).sum();
        Growth { medians, slope: if under > 0.0 { over / under } else { 0.0 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_seen_and_the_warm_up_is_not() {
        // It loads in the first second, then stays where it is but for noise.
        let flat: Vec<(f64, f64)> =
            (0..100).map(|i| (f64::from(i), if i < 10 { 1000.0 } else { 50_000.0 + f64::from(i % 3) })).collect();
        let Growth { medians, slope } = Growth::of(&flat);
        assert!(medians[WINDOWS - 1] - medians[0] < 2.0 && slope.abs() < 0.1, "{medians:?} {slope}");
        let rising: Vec<(f64, f64)> = (0..100).map(|i| (f64::from(i), 50_000.0 + 40.0 * f64::from(i))).collect();
        let Growth { medians, slope } = Growth::of(&rising);
        assert!(medians[WINDOWS - 1] - medians[0] > SLACK && (slope - 40.0).abs() < 1e-6, "{medians:?} {slope}");
        assert_eq!(Growth::of(&[(0.0, 1.0); 2 * WINDOWS]).slope, 0.0);
    }
}
