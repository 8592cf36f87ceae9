//! `edge-pack bench`: how fast the network is on this machine.

use crate::recipe::RecipeArgs;
use crate::{model, out};
use anyhow::{Context, bail};
use edge_device::event::millis;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Runs before counting begins: caches, page tables and the clock settle.
const WARM_UP: usize = 2;

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
    for run in 0..WARM_UP + args.runs {
        let start = Instant::now();
        std::hint::black_box(classifier.infer(std::hint::black_box(&tensor))?);
        if run >= WARM_UP {
            times.push(start.elapsed());
        }
    }
    times.sort_unstable();
    let (min, median) = (times[0], median(&times));
    let rss = peak_rss_mb()?;
    if args.json {
        out::json(&json!({
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
