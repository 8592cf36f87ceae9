//! `edge-hil camera`: the camera fault lab.

use crate::cmd::Usage;
use crate::{cmd, dut, out};
use anyhow::Result;
use edge_suite::hil::lab::{Line, Script, Trace, What, difference, lab, possible};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// What is shown and what goes wrong: a folder of pictures, and faults with their times
    #[arg(required_unless_present = "replay")]
    script: Option<PathBuf>,

    /// The file of a device whose camera shows pictures and can be made to fail
    #[arg(long, value_name = "FILE.toml")]
    dut: PathBuf,

    /// Write what was done and what came of it
    #[arg(long, value_name = "TRACE.jsonl")]
    record: Option<PathBuf>,

    /// Do again what was recorded; fails unless the same comes of it
    #[arg(long, value_name = "TRACE.jsonl", conflicts_with = "script")]
    replay: Option<PathBuf>,

    /// Folder for the console
    #[arg(short, long, value_name = "DIR", default_value = "hil")]
    output: PathBuf,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let usage = |e: anyhow::Error| Usage(format!("{e:#}"));
    let file = cmd::device(&args.dut)?;
    let first = file.formats.first().copied().zip(file.sizes.first().copied());
    let (format, size) = first.ok_or_else(|| Usage(format!("{}: its file names no formats and sizes", file.name)))?;
    let recorded = args.replay.as_deref().map(Trace::read).transpose().map_err(usage)?;
    let steps = match (&recorded, &args.script) {
        (Some(recorded), _) => recorded.steps(),
        (None, Some(script)) => Script::read(script).and_then(|s| s.steps(format, size)).map_err(usage)?,
        (None, None) => return Err(Usage("a script or --replay is needed".into()).into()),
    };
    possible(&file, &steps).map_err(usage)?;
    let _results = cmd::results(&args.output)?;
    let mut device = dut::open(file, &args.output)?;
    device.boot()?;
    let trace = lab(device.as_mut(), steps, &args.output, &mut |line| {
        let _ = out::line(text(line));
    })?;
    if let Some(path) = &args.record {
        trace.write(path)?;
    }
    let Some(recorded) = recorded else { return Ok(ExitCode::SUCCESS) };
    let now = trace.outcome();
    Ok(match difference(&recorded.outcome(), &now) {
        None => {
            out::line(format_args!("the same as recorded, in {} things done and seen", now.len()))?;
            ExitCode::SUCCESS
        }
        Some(why) => {
            out::line(format_args!("DIFFERENT from what was recorded, {why}"))?;
            ExitCode::FAILURE
        }
    })
}

fn text(line: &Line) -> String {
    let what = match &line.what {
        What::Show { picture, format, size, .. } => format!("show {}, {size} {format}", picture.display()),
        What::Fault(name) => name.clone(),
        What::Told { event, detail } => format!("    {event}: {detail}"),
        What::Decided(label) => format!("    {label}"),
    };
    format!("{:6.1} s  {what}", line.at_s)
}
