//! `edge-init`: process 1 of a flashed camera.
//!
//! # Two stages
//!
//! The **first stage** is `/init` of the initramfs, which is changed by flashing only. It mounts `/proc`, `/sys`, `/dev`,
//! `/run` and `/tmp`, loads the kernel modules of `/modules/order` (`NAME OPTIONS` a line, `NAME.ko` beside it; one that is
//! missing is told of), opens the watchdog, finds the disk, chooses a system slot by the boot state
//! ([`edge_system::boot::choose`]: the try of a trial is counted, the slot's signature and every byte of it are checked,
//! a slot that is damaged gives way to the other one), mounts it at `/system` and becomes `/system/bin/edge-init run`.
//!
//! The **second stage** comes with the system, so it is updated with it. It mounts `/boot` (FAT, never written) and `/data`
//! (ext4, checked and grown where needed), gives the camera program what is its own, sets the clock to the earliest time it
//! can be, gets an address for every cable (busybox' udhcpc) and the time (`edge-init ntp`, a process of its own), and
//! watches over `edge-camera`: it starts it as user 990 with group 44 (`video`), listens to what it would tell systemd,
//! starts it again when it ends, kills it when it hangs, keeps a system on trial when it has classified for a while, and
//! starts anew when it fails. Decisions are the [`keeper`]'s, which touches nothing and is tried by itself.
//!
//! The kernel needs, built in or as modules: the disk's driver, ext4 (and `crc32c_generic`), squashfs, vfat with
//! `nls_cp437` and `nls_ascii`; for more: the watchdog's driver, network cards, `evdev` for power buttons, cameras.
//!
//! # Kernel command line
//!
//! | word | meaning | default |
//! |---|---|---|
//! | `edge.disk=/dev/NAME` | the disk | the first one laid out as a flashed camera, cards first |
//! | `edge.commit=SECONDS` | a system on trial is kept after having classified for so long | 60 |
//! | `edge.trial=SECONDS` | a system that is not kept by then is given up: the device starts anew | 900 |
//! | `edge.ntp=HOST[,HOST]` | time servers, after those that DHCP names; `none` for none | `pool.ntp.org` |
//!
//! # A link to a host
//!
//! Where `/boot/camera.toml` has a `link`, serial lines that it names are given to the camera program; virtio ports whose
//! names begin with `edge.` always are, and have their links in `/dev/virtio-ports`. With `link-control` as well, orders of
//! the camera program are taken on `/run/edge-init/control` ([`control`]): set the clock, start anew, switch off, and put a
//! system into the other slot, which a process of its own (`edge-init update`) checks and writes.
//!
//! # Going down
//!
//! As with busybox' init: SIGUSR2 (`busybox poweroff`) switches off, SIGTERM (`busybox reboot`) and SIGINT
//! (Ctrl-Alt-Del) start anew, SIGUSR1 (`busybox halt`) stands still; the power button switches off. The camera program gets
//! SIGTERM and five seconds, everything reaches the disk and is unmounted.
//!
//! # For test harnesses
//!
//! A harness appends a cpio archive with files below `/test` to the initramfs. Only there is it looked for: what is on the
//! disk cannot add a hook.
//!
//! - `/test/hook.d/*.sh` are run one after the other in the order of their names by `busybox sh`, as root, with nothing on
//!   standard input and the console for output, in the folder `/test`, with `PATH=/test/bin:/system/bin:/bin`. By then
//!   `/system`, `/boot` and `/data` are mounted and the clock is set; `edge-camera` starts when the last one has ended.
//!   The console says `edge-init: test hook FILE` before each and `edge-init: test hook FILE has ended: …` after it; how it
//!   ended changes nothing. While one runs, signals wait and the watchdog is fed.
//! - What is to happen later (waiting for a line of the log and switching off, say) is left running in the background:
//!   `( until grep -q decision /data/log/class.jsonl; do sleep 1; done; busybox poweroff ) &`.
//! - Device nodes that a hook makes appear (`busybox insmod /test/vivid.ko`) are given to the camera program as those of a
//!   camera that is plugged in.
//! - `/test/environment` holds NAME=VALUE lines for the hooks and for `edge-camera`.
//!
//! Lines that begin with `edge-init: ` on the console can be waited for: `slot a of the system (VERSION)` and, on trial,
//! `, on trial` after it; `camera is ready`; `first class LABEL after S s`, S since the kernel started; `system slot b is
//! kept`; `updates are accepted unsigned`; `switching off`. Lines of `edge-camera` come as they are. Kernel messages may come
//! between and, on a slow line, even into them: `loglevel=3` or `quiet` keeps them away.

mod block;
mod camera;
mod child;
mod classes;
mod cmdline;
mod control;
mod devices;
mod down;
mod ext4;
mod first;
mod helpers;
mod hooks;
mod keeper;
mod modules;
mod network;
mod notify;
mod say;
mod second;
mod supervise;
mod time;
mod watchdog;
mod wishes;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Process 1 of a flashed camera. As any other process it only helps.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Ask time servers for the time and set the clock, for ever
    Ntp {
        /// Servers, by name or address
        servers: Vec<String>,
        /// Folder of files with servers that come first, one file for each network card that has an address
        #[arg(long)]
        found: PathBuf,
        /// Times before this one, in seconds since 1970, are wrong
        #[arg(long, default_value = "0")]
        not_before: u64,
    },
    /// Check the system bundle on standard input and put it on trial in the slot that does not run
    Update {
        /// The disk
        #[arg(long)]
        disk: PathBuf,
        /// The slot that this system was started from
        #[arg(long)]
        running: String,
    },
    /// Watch over a camera program as on a flashed camera, but as an ordinary process: to try things out
    Supervise(Box<Supervise>),
}

#[derive(clap::Args)]
struct Supervise {
    /// The camera program
    #[arg(long)]
    camera: PathBuf,
    /// Its configuration
    #[arg(long)]
    config: Option<PathBuf>,
    /// Folder of its packages
    #[arg(long)]
    slots: Option<PathBuf>,
    /// Its classification log
    #[arg(long)]
    log: PathBuf,
    /// Folder for the socket that the camera program tells of its state on
    #[arg(long)]
    run: PathBuf,
    /// A file that is fed like a watchdog
    #[arg(long)]
    watchdog: Option<PathBuf>,
    /// Take its orders
    #[arg(long)]
    control: bool,
    /// The disk, or its image, whose system is on trial
    #[arg(long, requires = "slot")]
    disk: Option<PathBuf>,
    /// The slot that runs, on trial unless --kept
    #[arg(long)]
    slot: Option<String>,
    /// The system in the slot is on no trial
    #[arg(long)]
    kept: bool,
    /// Seconds of classifying after which the system on trial is kept
    #[arg(long, default_value = "60")]
    commit: f64,
    /// Seconds without a sign of life after which the camera program hangs
    #[arg(long, default_value = "60")]
    hang: f64,
    /// Seconds before the first restart
    #[arg(long, default_value = "2")]
    pause: f64,
    /// More arguments for the camera program
    #[arg(last = true)]
    arguments: Vec<String>,
}

fn main() -> ExitCode {
    let mut words = std::env::args();
    let stage = words.nth(1);
    if down::is_first() {
        // The kernel hands words that it does not know to the first stage, which does not know them either.
        match stage.as_deref() {
            Some("run") => second::run(words),
            _ => first::run(),
        }
    }
    let ended = match Args::parse().command {
        Cmd::Ntp { servers, found, not_before } => time::follow(&found, &servers, not_before),
        Cmd::Update { disk, running } => control::update(&disk, &running),
        Cmd::Supervise(args) => supervise(*args),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say::say(&format!("{why:#}"));
            ExitCode::FAILURE
        }
    }
}

fn supervise(args: Supervise) -> anyhow::Result<()> {
    let seconds = |value: f64| Duration::try_from_secs_f64(value).map_err(|why| anyhow::anyhow!("{value}: {why}"));
    // Orphans come to this process as they would to process 1.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let options = cmdline::Options { commit: seconds(args.commit)?, ..Default::default() };
    let limits =
        keeper::Limits { hang: seconds(args.hang)?, shortest_pause: seconds(args.pause)?, ..Default::default() };
    let commit = args.disk.clone().zip(args.slot);
    let control = args.control.then(|| control::Control::open(&args.run.join("control"), None, commit.clone()));
    let control = control.transpose()?;
    let supervisor = supervise::Supervisor {
        camera: camera::Camera {
            program: args.camera,
            config: args.config,
            slots: args.slots,
            log: args.log,
            trusted: vec![],
            hang: limits.hang,
            control: control.as_ref().map(|control| control.path().into()),
            user: None,
            environment: vec![],
            arguments: args.arguments,
        },
        limits,
        trial: (commit.is_some() && !args.kept).then(|| options.trial()),
        commit: Box::new(move || {
            let (disk, slot) = commit.as_ref().ok_or_else(|| anyhow::anyhow!("nothing is on trial"))?;
            second::keep(disk, slot)
        }),
        watchdog: args.watchdog.and_then(|path| watchdog::Watchdog::open(&path)),
        helpers: vec![],
        network: None,
        devices: None,
        control,
        lines: vec![],
        run: args.run,
    };
    let (ending, _) = supervisor.run(supervise::Signals::listen()?)?;
    say::say(&format!("ended: {ending:?}"));
    Ok(())
}
