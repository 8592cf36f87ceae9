//! `edge-flash`: images for cameras, on cards, in use, and packages for systems that stay.

mod card;
mod cmd;
mod deb;
mod elf;
mod ext4;
mod image;
mod linked;
mod machine;
mod mount;
mod out;
mod place;
mod progress;
mod remote;
mod sparse;
mod storage;
mod tools;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Builds bootable images for cameras, writes them to cards, reads their logs, updates them; installs the same runtime on
/// systems that stay.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build a bootable image with a package in it
    Image(cmd::image::Args),
    /// List the disks that can be taken out of this machine
    List(cmd::list::Args),
    /// Write an image to a card, and read it back
    Write(cmd::write::Args),
    /// Compare an image or a card with its list of digests
    Verify(cmd::verify::Args),
    /// Print the classification log of an image, a card or a device
    Log(cmd::log::Args),
    /// Make a system update of what `cargo xtask cross` built
    Bundle(cmd::bundle::Args),
    /// Put a package or a system update on an image, a card or a device
    Update(cmd::update::Args),
    /// Make the key that a camera and its host share to talk over TCP
    LinkKey(cmd::link_key::Args),
    /// Install the runtime on Raspberry Pi OS, Debian or JetPack
    Install(cmd::install::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Image(args) => cmd::image::run(&args),
        Verb::List(args) => cmd::list::run(&args),
        Verb::Write(args) => cmd::write::run(&args),
        Verb::Verify(args) => cmd::verify::run(&args),
        Verb::Log(args) => cmd::log::run(&args),
        Verb::Bundle(args) => cmd::bundle::run(&args),
        Verb::Update(args) => cmd::update::run(&args),
        Verb::LinkKey(args) => cmd::link_key::run(&args),
        Verb::Install(args) => cmd::install::run(&args),
    };
    out::end_if_interrupted();
    match result {
        Ok(code) => code,
        // Whoever reads our output has had enough, as with `| head`; that is no failure to talk about.
        Err(e) if out::is_broken_pipe(&e) => ExitCode::from(141),
        Err(e) => {
            out::tell(format_args!("edge-flash: {e:#}"));
            ExitCode::FAILURE
        }
    }
}
