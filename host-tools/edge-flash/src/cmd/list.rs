//! `edge-flash list`: which disk is the card?

use crate::machine::{Bus, Disk, How, Machine, size};
use crate::out;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// One JSON object a disk on standard output
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let disks = Machine::at(Path::new("/"))?.removable()?;
    if args.json {
        disks.iter().try_for_each(|disk| out::json(&object(disk)))?;
        return Ok(ExitCode::SUCCESS);
    }
    if disks.is_empty() {
        out::tell("edge-flash: no card and no USB disk is plugged in");
    }
    for disk in &disks {
        out::line(row(disk))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(disk: &Disk) -> String {
    let bus = match disk.bus {
        Bus::Usb => "USB",
        Bus::Sd => "SD",
        Bus::Other => "removable",
    };
    let uses = match disk.uses.as_slice() {
        [] => "not in use".into(),
        uses if uses.iter().any(crate::machine::Use::is_system) => "holds the running system".into(),
        uses => uses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    let locked = if disk.read_only { ", write-protected" } else { "" };
    format!("/dev/{:<8} {:>9}  {bus:<9} {:<24} {uses}{locked}", disk.name, size(disk.size), disk.model)
}

fn object(disk: &Disk) -> serde_json::Value {
    let mounts: Vec<_> = disk.uses.iter().filter(|u| matches!(u.how, How::Mounted(_))).collect();
    json!({
        "device": format!("/dev/{}", disk.name),
        "bytes": disk.size,
        "model": disk.model,
        "serial": disk.serial,
        "bus": match disk.bus { Bus::Usb => "usb", Bus::Sd => "sd", Bus::Other => "other" },
        "read_only": disk.read_only,
        "system": disk.uses.iter().any(crate::machine::Use::is_system),
        "uses": disk.uses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "mounts": mounts.iter().map(|u| match &u.how {
            How::Mounted(place) => place.display().to_string(),
            _ => String::new(),
        }).collect::<Vec<_>>(),
    })
}
