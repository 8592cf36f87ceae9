//! `cargo xtask`: the project's own chores.

mod bench;
mod cross;
mod deb;
mod demo;
mod emulator;
mod fetch;
mod fuzz;
mod instructions;
mod neon;
mod processors;
mod setup;
mod soak;
mod suite;
mod tools;
mod vivid;
mod whole;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// The project's own chores; each installs what it needs.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Install what build and tests need, through apt and pip
    Setup,
    /// The main job on real input: package a model, verify it, classify photos, show the log
    Demo,
    /// Everything that proves the project; each step says what it proved
    Test {
        /// The long suites too: fuzzing, soaks
        #[arg(long)]
        long: bool,
        /// Only the steps whose name contains this
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
    /// Cross-build the programs for the boards, and make the system that each board's image holds
    Cross {
        /// A board of firmware/boards, or all
        #[arg(long, value_name = "NAME", default_value = "all")]
        board: String,
    },
    /// Time our engine beside ONNX Runtime and OpenVINO; prints the README's table
    Bench {
        /// Rounds in which every runtime is measured once
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// A camera's frame to a tensor instead, beside Pillow and OpenCV
        #[arg(long)]
        frames: bool,
        /// The other architectures of keras.applications, with random weights
        #[arg(long, conflicts_with = "frames")]
        architectures: bool,
        /// As on a machine without AVX-512, which is hidden from all runtimes
        #[arg(long, conflicts_with = "frames")]
        avx2: bool,
    },
    /// Count the instructions of one classification on the boards' processors, beside other runtimes; prints the README's table
    Instructions {
        /// Only models whose name contains this
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().chore {
        Chore::Setup => setup::run(),
        Chore::Demo => demo::run(),
        Chore::Test { long, only } => suite::run(long, only.as_deref()),
        Chore::Cross { board } => cross::run(&board),
        Chore::Bench { rounds, architectures: true, avx2, .. } => bench::architectures(rounds, avx2),
        Chore::Bench { rounds, frames: true, .. } => bench::frames(rounds),
        Chore::Instructions { only } => instructions::run(only.as_deref()),
        Chore::Bench { rounds, avx2, .. } => bench::run(rounds, avx2),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::FAILURE
        }
    }
}
