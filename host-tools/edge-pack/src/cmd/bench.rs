//! `edge-pack bench`: how fast the network is on this machine.

use crate::recipe::RecipeArgs;
use crate::{model, out};
use anyhow::{Context, bail};
use edge_device::Classifier;
use edge_device::event::millis;
use edge_engine::{Isa, Part, peak, peak_bytes};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Runs and time before counting begins: caches, page tables and the clock settle, and threads get processors of their own.
const WARM_UP: (usize, Duration) = (2, Duration::from_millis(100));

#[derive(clap::Args)]
pub struct Args {
    /// A package, an ONNX file or a Keras file
    model: PathBuf,

    /// Threads that compute (default: all cores)
    #[arg(long, value_name = "N")]
    threads: Option<usize>,

    /// How many times to run the network
    #[arg(long, value_name = "N", default_value_t = 20)]
    runs: usize,

    /// The time of each layer, beside what the machine could do
    #[arg(long)]
    layers: bool,

    /// One JSON object as the last line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    recipe: RecipeArgs,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.runs == 0 {
        bail!("--runs is at least 1");
    }
    let options = model::load_options(args.threads);
    let start = Instant::now();
    let mut classifier = model::load(&args.model, &args.recipe, &options)?;
    let load = start.elapsed();
    let tensor = input(classifier.manifest().input.len());
    let mut times = Vec::with_capacity(args.runs);
    let mut parts: Vec<Part> = vec![];
    let begin = Instant::now();
    let mut warm = 0;
    while warm < WARM_UP.0 || begin.elapsed() < WARM_UP.1 {
        once(&mut classifier, &tensor)?;
        warm += 1;
    }
    for _ in 0..args.runs {
        times.push(once(&mut classifier, &tensor)?);
        if args.layers {
            keep_best(&mut parts, classifier.parts());
        }
    }
    times.sort_unstable();
    let (min, median) = (times[0], median(&times));
    let rss = peak_rss_mb()?;
    let peak = args.layers.then(|| peak_gmacs(options.threads)).transpose()?;
    if let Some(peak) = peak.as_ref().filter(|_| !args.json) {
        table(&parts, peak)?;
    }
    if args.json {
        out::json(&json!({
            "layers": peak.as_ref().map(|peak| layers_json(&parts, peak)),
            "peak_gmacs": peak.as_ref().map(|p| p.float),
            "peak_int8_gmacs": peak.as_ref().map(|p| p.bytes),
            "min_ms": millis(min),
            "median_ms": millis(median),
            "load_ms": millis(load),
            "peak_rss_mb": rss,
            "threads": options.threads,
            "runs": args.runs,
            "backend": classifier.description().to_string(),
        }))?;
    } else {
        out::line(format_args!("{}", classifier.description()))?;
        out::line(format_args!(
            "tensor to logits: min {:.2} ms, median {:.2} ms over {} runs; load {:.0} ms; peak memory {rss:.0} MB",
            millis(min),
            millis(median),
            args.runs,
            millis(load)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// How long the network takes.
fn once(classifier: &mut Classifier, tensor: &[f32]) -> anyhow::Result<Duration> {
    let start = Instant::now();
    std::hint::black_box(classifier.infer(std::hint::black_box(tensor))?);
    Ok(start.elapsed())
}

/// Of each part the shortest time.
fn keep_best(best: &mut Vec<Part>, run: Vec<Part>) {
    if best.is_empty() {
        *best = run;
        return;
    }
    for (best, part) in best.iter_mut().zip(run) {
        best.time = best.time.zip(part.time).map(|(a, b)| a.min(b));
    }
}

/// What the threads together multiply and add at most, in 10^9 per second, measured.
struct Peak {
    float: f64,
    bytes: f64,
}

impl Peak {
    /// That of what a part computes with.
    fn of(&self, part: &Part) -> f64 {
        if part.what.contains("int8") { self.bytes } else { self.float }
    }
}

fn peak_gmacs(threads: usize) -> anyhow::Result<Peak> {
    let isa = Isa::chosen().map_err(anyhow::Error::msg)?;
    Ok(Peak { float: peak(isa) * threads as f64, bytes: peak_bytes(isa) * threads as f64 })
}

/// 10^9 multiplications with additions per second.
fn gmacs(part: &Part) -> Option<f64> {
    let seconds = part.time?.as_secs_f64();
    (part.macs > 0 && seconds > 0.0).then(|| part.macs as f64 / seconds / 1e9)
}

fn layers_json(parts: &[Part], peak: &Peak) -> serde_json::Value {
    let row = |part: &Part| {
        let speed = gmacs(part);
        json!({
            "nodes": part.nodes,
            "by": part.by,
            "what": part.what,
            "ms": part.time.map(millis),
            "gmacs": speed,
            "share_of_peak": speed.map(|s| s / peak.of(part)),
        })
    };
    parts.iter().map(row).collect()
}

fn table(parts: &[Part], peak: &Peak) -> anyhow::Result<()> {
    let all: f64 = parts.iter().filter_map(|p| p.time).map(millis).sum();
    out::line(format_args!("{:>8} {:>6} {:>8} {:>5}  layer", "ms", "share", "GMAC/s", "peak"))?;
    for part in parts {
        let ms = part.time.map(millis);
        let cell = |v: Option<String>| v.unwrap_or_else(|| "-".into());
        let speed = gmacs(part);
        out::line(format_args!(
            "{:>8} {:>6} {:>8} {:>5}  {}: {} ({})",
            cell(ms.map(|ms| format!("{ms:.3}"))),
            cell(ms.map(|ms| format!("{:.1}%", 100.0 * ms / all))),
            cell(speed.map(|s| format!("{s:.1}"))),
            cell(speed.map(|s| format!("{:.0}%", 100.0 * s / peak.of(part)))),
            part.nodes.first().map_or("", String::as_str),
            part.what,
            part.by,
        ))?;
    }
    let Peak { float, bytes } = peak;
    out::line(format_args!("measured peak: {float:.1} GMAC/s in float32, {bytes:.1} in int8; layers: {all:.2} ms"))
}

/// Values spread over −1…1, the range of preprocessed pictures.
fn input(len: usize) -> Vec<f32> {
    (0..len as u64).map(|i| (i.wrapping_mul(2_654_435_761) % 1000) as f32 / 500.0 - 1.0).collect()
}

fn median(sorted: &[Duration]) -> Duration {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2 }
}

/// Peak resident memory of this process, from the kernel (VmHWM), in MB of 10^6 bytes.
fn peak_rss_mb() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib: f64 =
        line.and_then(|l| l.split_whitespace().next()?.parse().ok()).context("/proc/self/status has no VmHWM")?;
    Ok((kib * 1024.0 / 1e5).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_and_even() {
        let ms = |v: &[u64]| v.iter().map(|n| Duration::from_millis(*n)).collect::<Vec<_>>();
        assert_eq!(median(&ms(&[1, 2, 9])), Duration::from_millis(2));
        assert_eq!(median(&ms(&[1, 2, 4, 9])), Duration::from_millis(3));
    }
}
