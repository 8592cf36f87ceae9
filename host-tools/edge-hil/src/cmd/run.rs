//! `edge-hil run`: starts a device and runs the cases.

use crate::cmd::Usage;
use crate::{cmd, dut, junit, out, page};
use anyhow::{Context, Result};
use edge_suite::hil::{self, Options, Outcome, Run, Shard, Verdict};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Args {
    /// The device's file
    #[arg(long, value_name = "FILE.toml")]
    dut: PathBuf,

    /// Cases that take long, too
    #[arg(long)]
    long: bool,

    /// Only cases whose name holds this; may be repeated
    #[arg(long, value_name = "PART")]
    case: Vec<String>,

    /// Only every N-th of these cases, from the K-th on, so that N runs at once do all of them
    #[arg(long, value_name = "K/N", default_value = "1/1")]
    shard: Shard,

    /// What is left to chance, as an earlier run printed it (default: another one each time)
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// How many seconds memory is looked at (default: 60, with --long 600)
    #[arg(long, value_name = "SECONDS")]
    soak: Option<u64>,

    /// Folder for last.json, junit.xml, report.html, the pictures and the console
    #[arg(short, long, value_name = "DIR", default_value = "hil")]
    output: PathBuf,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let file = cmd::device(&args.dut)?;
    let seed = args.seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |now| now.as_nanos() as u64)
    });
    let soak = Duration::from_secs(args.soak.unwrap_or(if args.long { 600 } else { 60 }));
    let options = Options { long: args.long, only: args.case.clone(), seed, soak, shard: args.shard };
    if options.cases().next().is_none() {
        let why = match args.case.is_empty() {
            true => "there are fewer cases than shares of them".into(),
            false => {
                format!("no case, or none of this share, is called like {}; see edge-hil list", args.case.join(", "))
            }
        };
        return Err(Usage(why).into());
    }
    let _results = cmd::results(&args.output)?;
    out::line(format_args!("{}, seed {seed}", file.name))?;
    let mut device = dut::open(file, &args.output)?;
    let run = hil::run(device.as_mut(), &options, &args.output, &mut |outcome| {
        let _ = out::line(line(outcome));
    });
    drop(device);
    if let Some(why) = &run.broken {
        out::line(format_args!("BROKEN   {why}"))?;
    }
    let write = |name: &str, text: String| {
        let path = args.output.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write("last.json", serde_json::to_string_pretty(&run)? + "\n")?;
    write("junit.xml", junit::xml(&run)?)?;
    write("report.html", page::html(&run, &args.output))?;
    out::line(format_args!("{}; {}", summary(&run), args.output.join("report.html").display()))?;
    Ok(if run.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(outcome: &Outcome) -> String {
    let verdict = match outcome.verdict {
        Verdict::Passed => "passed ",
        Verdict::Failed => "FAILED ",
        Verdict::Skipped => "skipped",
    };
    let why = outcome.why.as_ref().map_or(String::new(), |why| format!(": {why}"));
    format!("{verdict} {:6.1} s  {}{why}", outcome.seconds, outcome.name)
}

fn summary(run: &Run) -> String {
    let [passed, failed, skipped] = [Verdict::Passed, Verdict::Failed, Verdict::Skipped].map(|v| run.count(v));
    format!("{passed} passed, {failed} failed, {skipped} skipped in {:.0} s", run.seconds)
}
