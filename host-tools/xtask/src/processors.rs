//! The boards' program beside this machine's, on the processors of the boards: QEMU runs it as an ordinary process.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use edge_rig::debian::Tree;
use edge_rig::{foreign, sets, system};
use serde_json::Value;

use crate::tools::{built, outputs};

/// Raspberry Pi 3 and Zero 2 W, Raspberry Pi 4, Raspberry Pi 5, and all that QEMU has; a set of kernels, where it is not the best.
/// Each makes the kernels take another way.
const PROCESSORS: [(&str, Option<&str>); 5] =
    [("cortex-a53", None), ("cortex-a72", None), ("cortex-a76", None), ("cortex-a76", Some("neon")), ("max", None)];

/// How far two logits may be from each other, relative to the greatest.
const TOLERANCE: f64 = 1e-4;
/// The same where there is float16 arithmetic; seen with photos: 0.003.
const FLOAT16_TOLERANCE: f64 = 0.01;

/// Classifies a folder of photos here and there, and compares.
pub fn agrees(cache: &Path, photos: &Path) -> Result<String> {
    let emulator = Tree::fetch(cache, &sets::EMULATOR)?;
    let work = cache.join("boards/user");
    std::fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
    let (here, _) = classes(Command::new(built("edge-camera")?), photos, &work.join("here.jsonl"))?;
    ensure!(!here.is_empty(), "no photo in {}", photos.display());
    let mut proved = Vec::new();
    for (processor, set) in PROCESSORS {
        let mut user = foreign::command(&emulator, processor)?;
        user.arg(system::camera(cache)).env("EDGE_ISA", set.unwrap_or_default());
        let processor = set.map_or(processor.to_owned(), |set| format!("{processor} as {set}"));
        let (there, float16) = classes(user, photos, &work.join(format!("{processor}.jsonl")))
            .with_context(|| format!("on {processor}"))?;
        let has = ["cortex-a76", "max"].contains(&&*processor);
        ensure!(float16 == has, "whether there is float16 arithmetic on {processor}: {float16}");
        ensure!(here.len() == there.len(), "{} frames here, {} on {processor}", here.len(), there.len());
        let mut worst = 0f64;
        for (frame, (here, there)) in here.iter().zip(&there).enumerate() {
            ensure!(here.0 == there.0, "frame {frame}: {} here, {} on {processor}", here.0, there.0);
            worst = worst.max(difference(&here.1, &there.1)?);
        }
        let most = if float16 { FLOAT16_TOLERANCE } else { TOLERANCE };
        ensure!(worst <= most, "logits differ by {worst:.1e} on {processor}, more than {most:.0e}");
        proved.push(format!("{processor}{} {worst:.1e}", if float16 { " in float16" } else { "" }));
    }
    Ok(format!(
        "{} photos have the classes of this machine; greatest difference of a logit, relative: {}",
        here.len(),
        proved.join(", ")
    ))
}

/// A decision and the scores of every class, by its number.
type Scored = (String, Vec<f64>);

/// What is said of a folder's photos, and whether in float16 arithmetic.
fn classes(mut camera: Command, photos: &Path, log: &Path) -> Result<(Vec<Scored>, bool)> {
    if log.exists() {
        std::fs::remove_file(log).with_context(|| format!("removing {}", log.display()))?;
    }
    let (_, told) = outputs(camera.args(["--once", "--top", "1000", "--source"]).arg(photos).arg("--log").arg(log))?;
    let text = std::fs::read_to_string(log).with_context(|| format!("reading {}", log.display()))?;
    let mut frames = Vec::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).with_context(|| format!("a log line is not JSON: {line}"))?;
        let Some(top) = line["top"].as_array() else { continue };
        let mut scores = vec![0.0; top.len()];
        for class in top {
            let (index, score) = (class["index"].as_u64(), class["score"].as_f64());
            let (index, score) = index.zip(score).context("a class without a number or a score")?;
            *scores.get_mut(index as usize).context("the log does not hold all classes")? = score;
        }
        frames.push((line["decision"].as_str().unwrap_or_default().to_owned(), scores));
    }
    Ok((frames, told.contains("float16 arithmetic")))
}

/// The greatest difference of two sets of logits, relative to the greatest of them. A softmax loses what all have in common:
/// logarithms of scores are logits but for a constant, which is taken to make the mean zero.
fn difference(here: &[f64], there: &[f64]) -> Result<f64> {
    ensure!(here.len() == there.len() && here.len() > 1, "{} classes and {}", here.len(), there.len());
    let logits = |scores: &[f64]| -> Result<Vec<f64>> {
        ensure!(scores.iter().all(|score| *score > 0.0), "a score is zero, so its logit is lost");
        let logits: Vec<f64> = scores.iter().map(|score| score.ln()).collect();
        let mean = logits.iter().sum::<f64>() / logits.len() as f64;
        Ok(logits.iter().map(|logit| logit - mean).collect())
    };
    let (here, there) = (logits(here)?, logits(there)?);
    let greatest = here.iter().fold(0f64, |greatest, logit| greatest.max(logit.abs()));
    let worst = here.iter().zip(&there).fold(0f64, |worst, (a, b)| worst.max((a - b).abs()));
    Ok(worst / greatest.max(f64::MIN_POSITIVE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_constant_is_no_difference_and_another_logit_is_one() {
        let softmax = |logits: [f64; 3]| {
            let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
            logits.map(|logit| logit.exp() / sum)
        };
        let same = difference(&softmax([1.0, 2.0, 6.0]), &softmax([3.0, 4.0, 8.0])).unwrap();
        assert!(same < 1e-12, "{same}");
        let other = difference(&softmax([1.0, 2.0, 6.0]), &softmax([1.0, 2.0, 6.3])).unwrap();
        assert!((0.05..0.07).contains(&other), "{other}");
        assert!(difference(&[0.0, 1.0], &[0.0, 1.0]).is_err());
    }
}
