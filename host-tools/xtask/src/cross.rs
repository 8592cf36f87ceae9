//! `cargo xtask cross`: the device's programs for its processor, and the system that each board's image is made of.
//!
//! Everything comes from the checkout and from Debian's packages, through the private apt root of [`edge_rig::apt`]; the
//! machine itself is not changed but for rustup's standard library of the other processor. What is made lies in the
//! project's cache, where `edge-flash` looks for it.

mod bundle;
mod parts;
mod programs;
mod sbom;
pub mod toolchain;

use crate::tools::cache;
use anyhow::Result;
use edge_rig::system;
use edge_system::board::{self, Board};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Cross-builds the programs, then makes the bundles of the boards named: one, or all that have images.
pub fn run(name: &str) -> Result<()> {
    let cache = cache()?;
    let boards: Vec<&'static Board> = match name {
        "all" => board::boards().iter().filter(|board| board.image.is_some()).collect(),
        name => vec![board::by_name(name)?],
    };
    for board in &boards {
        board.image()?; // Says why there is none before an hour is spent.
    }
    systems(&cache, &boards)?;
    programs::amd64(&cache)?;
    println!("programs for packages: {}", cache.join("system/programs").display());
    Ok(())
}

/// Builds the device's programs, then makes the bundles of these boards.
pub fn systems(cache: &Path, boards: &[&'static Board]) -> Result<()> {
    let (programs, gcc) = programs(cache)?;
    let materials = bundle::Materials::fetch(cache, &gcc, programs)?;
    for board in boards {
        let start = Instant::now();
        let to = system::folder(cache, board);
        let made = materials.bundle(board, &to)?;
        let bytes: u64 = made.about().files.iter().map(|file| file.length).sum();
        println!(
            "{}: {} files, {:.1} MB, in {} ({:.0} s)",
            board.name,
            made.about().files.len(),
            bytes as f64 / 1e6,
            to.display(),
            start.elapsed().as_secs_f32()
        );
    }
    Ok(())
}

/// Builds the programs for the device. Returns the static ones, and where the C library lies that is in them.
fn programs(cache: &Path) -> Result<(Vec<(&'static str, PathBuf)>, PathBuf)> {
    let start = Instant::now();
    let toolchain = toolchain::Toolchain::prepare(cache)?;
    println!("tool chain: {}", toolchain.description);
    let device = programs::arm64(cache, &toolchain)?;
    for (_, path) in &device {
        bundle::check_static(path)?;
    }
    println!("programs: {:.1} min", start.elapsed().as_secs_f32() / 60.0);
    Ok((device, toolchain.gcc))
}
