//! `edge-flash bundle`: a system update out of what `cargo xtask cross` built.

use crate::{image::folder, machine, out};
use anyhow::Context;
use edge_package::{SecretKey, TrustPolicy, hex};
use edge_system::board;
use edge_system::system::{self, SQUASHFS, SystemBundle};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    /// The board it is for
    #[arg(long)]
    board: String,

    /// The folder that `cargo xtask cross` made (default: the project's cache)
    #[arg(long, value_name = "DIR")]
    system: Option<PathBuf>,

    /// Sign with this secret key (made by `edge-pack keygen`)
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,

    /// Release number; an update must have a greater one than what runs (default: that of the folder)
    #[arg(long, value_name = "N")]
    sequence: Option<u64>,

    /// Only systems from this release number on can be updated with it (default: that of the folder)
    #[arg(long, value_name = "N")]
    minimum: Option<u64>,

    /// The file to write
    #[arg(short, value_name = "FILE.edgesys")]
    out: PathBuf,

    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let board = board::by_name(&args.board)?;
    let image = board.image()?;
    let folder = folder(board, args.system.as_deref())?;
    out::not_an_input(&args.out, args.sign.as_deref())?;
    let key = args.sign.as_deref().map(SecretKey::read).transpose()?;
    let squashfs = folder.path(SQUASHFS);
    let squashfs = std::fs::read(&squashfs).with_context(|| format!("cannot read {}", squashfs.display()))?;
    let mut manifest = folder.manifest();
    manifest.sequence = args.sequence.unwrap_or(manifest.sequence);
    manifest.minimum = args.minimum.unwrap_or(manifest.minimum);
    let needed = squashfs.len() as u64 + system::HEAD_ROOM;
    let room = u64::from(image.system_mib) * edge_system::MIB;
    anyhow::ensure!(
        needed <= room,
        "the system takes {needed} bytes, but a slot of board {} has room for {room}; make it smaller, or `system-mib` of firmware/boards/{}.toml larger",
        board.name,
        board.name
    );
    let bytes = system::bundle(manifest, squashfs, key.as_ref())?;
    let bundle = SystemBundle::from_bytes(bytes, &TrustPolicy::default()).context("internal check")?;
    out::write_file(&args.out, bundle.bytes(), 0o644)?;
    let manifest = bundle.manifest();
    if args.json {
        out::json(&json!({
            "path": args.out.display().to_string(),
            "board": manifest.board,
            "version": manifest.version,
            "sequence": manifest.sequence,
            "minimum": manifest.minimum,
            "bytes": bundle.file_len(),
            "digest": hex(&bundle.digest()),
            "signed": key.is_some(),
        }))?;
    } else {
        out::line(format_args!(
            "{}: system {} for {}, sequence {}, {}, {}, digest {}",
            args.out.display(),
            manifest.version,
            manifest.board,
            manifest.sequence,
            machine::size(bundle.file_len()),
            if key.is_some() { "signed" } else { "not signed" },
            bundle.short_digest()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
