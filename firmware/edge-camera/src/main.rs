//! `edge-camera`: frames in, classification log out.

mod args;
mod backend;
mod capture;
mod checks;
mod clock;
mod collect;
mod config;
mod device;
mod install;
mod link;
mod log;
mod package;
mod screen;
mod service;
mod settings;
mod slots;
mod status;
mod stop;
mod summary;
mod trial;
mod units;

use crate::capture::Grab;
use crate::device::Device;
use crate::stop::{Failure, Signals};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long a source may keep the loop waiting before signals are looked at again.
const TICK: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    // A camera is held by a process of its own, which is this program again.
    #[cfg(feature = "camera")]
    if let Some(ended) = capture::v4l2::worker() {
        return ended;
    }
    let started = Instant::now();
    let words: Vec<OsString> = std::env::args_os().collect();
    match run(&words, started) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            status::tell(&format!("{:#}", failure.cause));
            ExitCode::from(failure.code)
        }
    }
}

fn run(words: &[OsString], started: Instant) -> Result<(), Failure> {
    let settings = config::resolve(words)?;
    if settings.args.check {
        let text = config::print(&settings.values, settings.args.json)?;
        return std::io::stdout().write_all(text.as_bytes()).map_err(|e| Failure::from(anyhow::Error::from(e)));
    }
    if let Some(package) = &settings.args.install {
        return install::run(&settings, package);
    }
    if let Some(bridge) = &settings.args.link_stdio {
        return link::stdio::run(bridge, &settings.args.link);
    }
    let signals = Signals::listen()?;
    if let (Some(folder), Some(label)) = (&settings.args.collect, &settings.args.label) {
        return collect::run(&settings.args, folder, label, &signals);
    }
    let ended = Device::start(settings, started, &signals).and_then(|mut device| {
        device.listen(words);
        let ended = watch(&mut device, &signals, words);
        // Whatever ended it, the log gets its last lines.
        let finished = device.finish();
        ended.and(finished)
    });
    signals.ended();
    ended
}

/// The loop: until a signal, the end of the source, or a failure.
fn watch(device: &mut Device, signals: &Signals, words: &[OsString]) -> Result<(), Failure> {
    while !signals.requested() && device.wants_more() {
        if signals.reload() {
            // What came of it was told.
            let _ = device.reload(words)?;
        }
        match device.source.next(Instant::now() + TICK)? {
            Grab::Frame(frame) => device.take(frame)?,
            Grab::Notice { event, detail } => device.notice(event, &detail)?,
            Grab::Waiting(since) => device.waiting(since),
            Grab::End => break,
        }
        device.answer(words)?;
        device.tick()?;
    }
    Ok(())
}
