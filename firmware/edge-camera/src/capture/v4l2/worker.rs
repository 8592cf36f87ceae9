//! The process that holds the camera.
//!
//! It dequeues all the time and keeps the newest frame only, so that the driver never runs out of buffers and nothing is
//! copied to the other process that is not asked for. It ends when its standard input does, whatever the driver does.

use super::choose;
use super::device::Device;
use super::driver::{self, Driver, Negotiated};
use crate::capture::Wanted;
use crate::capture::shared::Shared;
use anyhow::Context;
use edge_device::capture::{FrameHeader, MAX_FRAME, Message, NEXT, write};
use edge_vision::{ColorMatrix, ColorRange, ColorSpace, PixelFormat};
use rustix::time::{ClockId, clock_gettime};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::panic::catch_unwind;
use std::process::{ExitCode, exit};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

/// Errors in a row, of the driver's dequeue, after which the camera has failed.
const ERRORS: u32 = 20;

/// What the threads share: at most one frame, and what is to be answered.
#[derive(Default)]
struct State {
    opened: Option<Message>,
    frame: Option<(FrameHeader, Vec<u8>)>,
    /// A buffer to be filled again.
    spare: Vec<u8>,
    asked: bool,
    failed: Option<String>,
}

impl Shared<State> {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn fail(&self, why: impl Into<String>) {
        self.change(|state| {
            state.failed.get_or_insert(why.into());
        });
    }
}

/// Nanoseconds of CLOCK_MONOTONIC.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// The whole life of the process: `camera` as in `--source v4l2:CAMERA`, `format` as in `--camera-format`.
pub fn run(camera: String, format: &str) -> ExitCode {
    let Ok(wanted) = format.parse::<Wanted>() else { return ExitCode::from(2) };
    // The one who asks decides when this ends; a service manager signals all processes at once.
    for signal in [SIGTERM, SIGINT] {
        let _ = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
    }
    // What a library panics with is told as the reason, once.
    std::panic::set_hook(Box::new(|_| {}));
    let shared = Arc::new(Shared::<State>::default());
    let (asking, capturing) = (shared.clone(), shared.clone());
    thread::spawn(move || listen(&asking));
    thread::spawn(move || {
        let why = match catch_unwind(std::panic::AssertUnwindSafe(|| capture(&camera, wanted, &capturing))) {
            Ok(Ok(never)) => match never {},
            Ok(Err(e)) => format!("{e:#}"),
            Err(_) => "the camera library failed".into(),
        };
        capturing.fail(why);
    });
    answer(&shared)
}

/// Notes what is asked, and ends the process when nobody can ask any more.
fn listen(shared: &Shared<State>) {
    let mut stdin = std::io::stdin().lock();
    let mut byte = [0];
    while let Ok(1) = stdin.read(&mut byte) {
        if byte[0] == NEXT {
            shared.change(|state| state.asked = true);
        }
    }
    exit(0);
}

/// Writes what there is to say; returns when it has said that the camera failed, or can't say anything.
fn answer(shared: &Shared<State>) -> ExitCode {
    // Not Rust's own standard output, which looks for lines in what it writes.
    let Ok(stdout) = std::io::stdout().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    let mut stdout = File::from(stdout);
    loop {
        let idle = |state: &mut State| {
            state.opened.is_none() && state.failed.is_none() && !(state.asked && state.frame.is_some())
        };
        let mut state = shared.changed.wait_while(shared.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let opened = state.opened.take();
        let frame = if state.asked { state.frame.take() } else { None };
        state.asked &= frame.is_none();
        let failed = state.failed.clone();
        drop(state);
        let mut result = Ok(());
        if let Some(opened) = opened {
            result = result.and_then(|()| write(&mut stdout, &opened, &[]));
        }
        if let Some((header, bytes)) = frame {
            result = result.and_then(|()| write(&mut stdout, &Message::Frame(header), &bytes));
            shared.lock().spare = bytes;
        }
        if let Some(why) = failed {
            let _ = result.and_then(|()| write(&mut stdout, &Message::Failed(why), &[]));
            return ExitCode::FAILURE;
        }
        if result.is_err() {
            return ExitCode::FAILURE;
        }
    }
}

/// Opens the camera and takes its frames until it fails.
fn capture(camera: &str, wanted: Wanted, shared: &Arc<Shared<State>>) -> anyhow::Result<std::convert::Infallible> {
    let found = choose::find(camera)?;
    let device = Device::open(&found.path)?;
    let (mut driver, Negotiated { pixels, told, interval }) = driver::open(&device, &found, wanted)?;
    let mut about = found.named.display().to_string();
    if found.named != found.path {
        about += &format!(" = {}", found.path.display());
    }
    if !found.card.is_empty() {
        about += &format!(" ({})", found.card);
    }
    about +=
        &format!(" {}x{} {pixels}{} through {}", told.width, told.height, colors(pixels, told.color), driver.library());
    let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or_default();
    let opened = Message::Opened { about, device: found.named.display().to_string(), interval_ns };
    shared.change(|state| state.opened = Some(opened));
    let watching = shared.clone();
    thread::spawn(move || {
        if let Some(why) = device.wait_for_change() {
            watching.fail(why);
        }
    });
    let header = FrameHeader {
        number: 0,
        monotonic_ns: 0,
        format: pixels,
        width: told.width,
        height: told.height,
        stride: (told.stride > 0).then_some(told.stride),
        color: told.color,
        length: 0,
    };
    take(driver.as_mut(), header, shared)
}

/// How the colours are coded, for people, where that is a question.
fn colors(pixels: PixelFormat, color: ColorSpace) -> String {
    if !matches!(pixels, PixelFormat::Yuyv | PixelFormat::Nv12 | PixelFormat::Yu12) {
        return String::new();
    }
    let matrix = match color.matrix {
        ColorMatrix::Bt601 => "BT.601",
        ColorMatrix::Bt709 => "BT.709",
        ColorMatrix::Bt2020 => "BT.2020",
    };
    let range = match color.range {
        ColorRange::Limited => "limited",
        ColorRange::Full => "full",
    };
    format!(" ({matrix}, {range} range)")
}

/// Takes frames, of which the newest is kept.
fn take(
    driver: &mut dyn Driver,
    mut header: FrameHeader,
    shared: &Shared<State>,
) -> anyhow::Result<std::convert::Infallible> {
    let mut errors = 0;
    let mut bytes = Vec::new();
    loop {
        match driver.frame(&mut bytes) {
            Ok(()) => errors = 0,
            // A dropped buffer is no reason to give up; a vanished camera errs on every one.
            Err(_) if errors < ERRORS => {
                errors += 1;
                thread::sleep(Duration::from_millis(10));
                continue;
            }
            Err(e) => return Err(e),
        }
        header.monotonic_ns = monotonic_ns();
        let length = u32::try_from(bytes.len()).ok().filter(|n| *n <= MAX_FRAME);
        header.length = length.with_context(|| format!("a frame of {} bytes is too large", bytes.len()))?;
        let now = header;
        header.number += 1;
        let mut state = shared.lock();
        // Two buffers go round: this one and that of the frame before, or the one that was sent last.
        let old = state.frame.replace((now, std::mem::take(&mut bytes)));
        bytes = old.map_or_else(|| std::mem::take(&mut state.spare), |(_, bytes)| bytes);
        drop(state);
        shared.changed.notify_all();
    }
}
