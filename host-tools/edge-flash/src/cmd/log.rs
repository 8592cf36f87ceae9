//! `edge-flash log`: what the camera saw, read off a card or a device.

use crate::place::{Flashed, Place};
use crate::{ext4, linked, out, remote};
use anyhow::{Context, Result, bail};
use ext4_view::Ext4;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// The log, on the data partition.
const LOG: &str = "/log/class.jsonl";
/// What init has to tell.
const BOOT: &str = "/log/boot.log";

#[derive(clap::Args)]
pub struct Args {
    /// An image, a card such as /dev/sdX, USER@HOST, or the link of a camera that runs (see --device)
    #[arg(value_name = "IMAGE|DEVICE|USER@HOST|LINK", required_unless_present = "device")]
    place: Option<String>,

    /// The same: serial:/dev/ttyUSB0[,115200], tcp:HOST:PORT,key=FILE, unix:PATH or ssh:USER@HOST for a link
    #[arg(long, value_name = "IMAGE|DEVICE|USER@HOST|LINK", conflicts_with = "place")]
    device: Option<String>,

    /// What was told at the starts of the device, instead of what was classified
    #[arg(long)]
    boot: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let place = args.place.as_deref().or(args.device.as_deref()).unwrap_or_default();
    let path = match Place::find(place)? {
        Place::Link(address) => {
            if args.boot {
                linked::no_boot_log(&address)?;
            }
            linked::log(&address)?;
            return Ok(ExitCode::SUCCESS);
        }
        Place::Remote(host) => {
            remote::Host::new(&host)?.log(args.boot)?;
            return Ok(ExitCode::SUCCESS);
        }
        Place::Image(path) | Place::Device(path) => path,
    };
    let flashed = Flashed::open(&path)?;
    let fs = ext4::read(&flashed.file, flashed.layout.data).with_context(|| path.display().to_string())?;
    let name = if args.boot { BOOT } else { LOG };
    let files = files(&fs, name).with_context(|| path.display().to_string())?;
    if files.is_empty() {
        bail!(
            "{}: there is no log yet; nothing was {}",
            path.display(),
            if args.boot { "started" } else { "classified" }
        );
    }
    for file in files {
        print(&fs, &file, &path)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The files of a log, the oldest first: `class.jsonl.2`, `class.jsonl.1`, `class.jsonl`.
fn files(fs: &Ext4, name: &str) -> Result<Vec<String>> {
    let (folder, base) = name.rsplit_once('/').unwrap_or_default();
    if !fs.exists(folder)? {
        return Ok(vec![]);
    }
    let mut found = vec![];
    for entry in fs.read_dir(folder)? {
        let entry = entry?;
        let Ok(file) = entry.file_name().as_str().map(str::to_owned) else { continue };
        let number = match file.strip_prefix(base) {
            Some("") => Some(0),
            Some(rest) => rest.strip_prefix('.').and_then(|n| n.parse::<u64>().ok()),
            None => None,
        };
        found.extend(number.map(|number| (number, format!("{folder}/{file}"))));
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Prints the whole lines of a file. A line that a power cut left without its end is told of, and left out.
fn print(fs: &Ext4, file: &str, path: &Path) -> Result<()> {
    let Some(bytes) = ext4::content(fs, file).with_context(|| path.display().to_string())? else { return Ok(()) };
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    std::io::stdout().write_all(&bytes[..whole])?;
    if whole < bytes.len() {
        let cut = bytes.len() - whole;
        out::tell(format_args!(
            "edge-flash: {}: {file}: {cut} bytes of a line that has no end are left out",
            path.display()
        ));
    }
    Ok(())
}
