//! `edge-flash write`: an image goes to a card, and is read back from it.
//!
//! The card's first sector, without which nothing starts from it, is written last: until then it holds a sentence that
//! `verify` and a second `write` understand. What the image has no data for is made zero on the card.

use crate::card::{self, Card};
use crate::place::{Flashed, Place};
use crate::{machine, out, progress};
use anyhow::{Context, bail};
use edge_package::TrustPolicy;
use edge_system::seal::Seal;
use edge_system::table::Table;
use serde_json::json;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// The image
    image: PathBuf,

    /// The card: a whole disk, such as /dev/sdX; `edge-flash list` shows them
    device: PathBuf,

    /// Write to this disk although it is no card and no USB disk; its serial number or its size in bytes confirms it
    #[arg(long, value_name = "SERIAL-OR-SIZE")]
    force_disk: Option<String>,

    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let shown = args.image.display();
    match Place::find(&args.image.to_string_lossy())? {
        Place::Image(_) => {}
        _ => bail!("{shown} is not an image file"),
    }
    let image = Flashed::open(&args.image)?;
    let length = image.layout.end();
    let card = Card::open(&args.device, args.force_disk.as_deref())?;
    if card.len() < length {
        bail!(
            "{} is too small: it has {} ({} bytes), and {shown} takes {} ({length} bytes); nothing was written",
            args.device.display(),
            machine::size(card.len()),
            card.len(),
            machine::size(length),
        );
    }
    // A damaged image is found before the card is touched.
    let sealed = Seal::read(&image.disk, &image.layout, &TrustPolicy::default()).with_context(|| shown.to_string())?;
    let bar = progress::bytes(length, "checking the image");
    let verdict = sealed.seal.verify(&image.disk, &image.layout, &mut |bytes| bar.inc(bytes))?;
    bar.finish_and_clear();
    if !verdict.is_good() {
        bail!("{shown} is damaged, `edge-flash verify {shown}` says where; nothing was written");
    }

    let grown = image.layout.grown(card.len());
    let mut first = [0; card::SECTOR];
    image.file.read_exact_at(&mut first, 0).with_context(|| format!("cannot read {shown}"))?;
    let first = grown.table(Table::parse(&first)?.signature).encode();
    card.write(&image.file, length, &first, progress::bytes)?;

    let data = grown.data.end - grown.data.start;
    if args.json {
        out::json(&json!({
            "device": args.device.display().to_string(),
            "image": shown.to_string(),
            "board": sealed.seal.board,
            "bytes": length,
            "data_bytes": data,
            "verified": true,
        }))?;
    } else {
        out::line(format_args!(
            "{}: {shown} for {} written and read back, {} for packages and log; it can be taken out",
            args.device.display(),
            sealed.seal.board,
            machine::size(data)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
