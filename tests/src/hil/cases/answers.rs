//! Cases that only ask.

use crate::hil::Bench;
use anyhow::{Context, Result, bail, ensure};
use edge_link::{PROTOCOL, Request, Response};
use edge_package::hex;

/// It is the right camera with the right package, and it knows what it is.
pub fn hello(bench: &mut Bench) -> Result<()> {
    let package = bench.reference().digest();
    let hello = match bench.ask(&Request::Hello { protocol: PROTOCOL })? {
        Response::Hello(hello) => hello,
        other => bail!("the camera answers {other:?} when asked who it is"),
    };
    ensure!(hello.protocol == PROTOCOL, "it speaks version {} of the link, this program {PROTOCOL}", hello.protocol);
    ensure!(
        hello.package == package,
        "it runs package {}, but {} is what is compared with",
        hex(&hello.package),
        hex(&package)
    );
    for (what, text) in [
        ("runtime", &hello.runtime),
        ("board", &hello.board),
        ("instruction set", &hello.isa),
        ("backend", &hello.backend),
        ("tolerance", &hello.tolerance),
        ("source", &hello.source),
    ] {
        ensure!(!text.is_empty(), "it does not say its {what}");
    }
    let control = bench.dut.about().capabilities.contains(&crate::hil::Capability::Control);
    ensure!(hello.control == control, "its link-control is {}, the device's file says {control}", hello.control);
    Ok(())
}

/// What other cases do by files and scripts can be done.
pub fn bench_itself(bench: &mut Bench) -> Result<()> {
    let path = format!("/tmp/edge-hil-{}", bench.seed);
    // Whatever a shell on the way might take for something of its own.
    let text: String = (0..2000).map(|line| format!("{line} $HOME `id` 'a' \"b\" \\ %s ü\n")).collect();
    bench.dut.push(text.as_bytes(), &path)?;
    let patience = bench.patience();
    let read = bench.dut.shell(&format!("cat '{path}' && rm '{path}'"), patience)?;
    ensure!(read == text, "the file came back with {} bytes of {}, or with others", read.len(), text.len());
    let failed = bench.dut.shell("echo 'not today' >&2; exit 3", patience);
    let why = failed.err().context("a script that fails is taken for one that does not")?;
    ensure!(format!("{why:#}").contains("not today"), "a script that fails does not say why: {why:#}");
    Ok(())
}

/// What the package promises holds there.
pub fn goldens(bench: &mut Bench) -> Result<()> {
    let expected = bench.reference().goldens();
    let results = match bench.ask(&Request::Goldens)? {
        Response::Goldens(results) => results,
        other => bail!("the camera answers {other:?} when asked for its golden samples"),
    };
    ensure!(results.len() == expected, "{} golden samples came back, the package has {expected}", results.len());
    for result in &results {
        if let Some(why) = &result.failure {
            bail!("golden sample {}: {why}", result.name);
        }
    }
    let most =
        results.iter().map(|r| r.max_delta).max_by(f32::total_cmp).context("the package has no golden sample")?;
    bench.figure("largest difference of a logit", most.into(), "");
    Ok(())
}

/// The figures are there and move.
pub fn statistics(bench: &mut Bench) -> Result<()> {
    let first = bench.statistics()?;
    for key in ["frames", "faults", "dropped", "rss_kib", "uptime_s"] {
        ensure!(first[key].is_number(), "the statistics have no {key}: {first}");
    }
    for stage in ["infer", "total"] {
        let of = &first["latency_ms"][stage];
        ensure!(
            of["p50"].as_f64() > Some(0.0) && of["max"].as_f64() >= of["p50"].as_f64(),
            "no latency {stage}: {first}"
        );
    }
    let (frames, patience) = (first["frames"].as_u64().unwrap_or_default(), bench.patience());
    let later = bench.wait_for("three more frames are classified", patience, |bench| {
        let now = bench.statistics()?;
        Ok((now["frames"].as_u64() >= Some(frames + 3)).then_some(now))
    })?;
    ensure!(
        later["uptime_s"].as_f64() > first["uptime_s"].as_f64(),
        "its clock stands still: {} and {}",
        first["uptime_s"],
        later["uptime_s"]
    );
    Ok(())
}

/// It has a thermometer.
pub fn temperature(bench: &mut Bench) -> Result<()> {
    let statistics = bench.statistics()?;
    let celsius = statistics["temperature_c"].as_f64().context("the statistics have no temperature_c")?;
    ensure!((-40.0..=125.0).contains(&celsius), "{celsius} °C is none that a board runs at");
    bench.figure("temperature", celsius, "°C");
    Ok(())
}
