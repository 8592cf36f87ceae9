//! V4L2 cameras, each in a process of its own, so that a stuck one can be got rid of.
//!
//! A driver may block for ever or never give its buffers back, and the libraries have no way out. The process that
//! holds the camera is killed then, and another one opens the camera anew, as often as it takes.

mod choose;
mod color;
mod device;
mod driver;
mod helper;
mod worker;

use super::pool::Pool;
use super::{Frame, Grab, Payload, Source, Wanted};
use crate::stop::Failure;
use anyhow::bail;
use edge_device::capture::{FrameHeader, Message};
use helper::{Heard, Helper};
use std::collections::VecDeque;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime};

/// The first argument of the process that holds the camera.
const WORKER: &str = "capture-worker";

/// Reasons told of one loss, so that a camera that is away for a month does not fill the log.
const REASONS: usize = 8;

/// How long opening waits until it is asked again whether to go on.
const TICK: Duration = Duration::from_millis(100);

/// How long what is waited for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// Until a camera must have opened: a webcam on a hub that wakes up takes seconds, an emulated board many.
    open: Duration,
    /// Until a silence is told, at least; three frames of a slow camera are longer.
    stall: Duration,
    /// Until a silent camera is opened anew, at least.
    silence: Duration,
    /// Between two attempts to open, at first; it doubles.
    first_pause: Duration,
    /// Between two attempts to open, at most. With what opening takes, a camera is back within 10 s of its return.
    last_pause: Duration,
}

const PATIENCE: Patience = Patience {
    open: Duration::from_secs(25),
    stall: Duration::from_millis(1500),
    silence: Duration::from_secs(5),
    first_pause: Duration::from_millis(250),
    last_pause: Duration::from_secs(4),
};

/// Runs the process that holds the camera, if this is it; returns when it has ended.
pub fn worker() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    if args.next().as_deref() != Some(WORKER) {
        return None;
    }
    Some(worker::run(args.next().unwrap_or_default(), &args.next().unwrap_or_default()))
}

/// A camera that is opened again whenever it was lost.
pub struct Camera {
    command: Box<dyn Fn() -> Command>,
    patience: Patience,
    pool: Pool,
    helper: Option<Helper>,
    /// Killed, and not gone yet.
    dying: Vec<Helper>,
    /// As the user named it, and once it has been open, what it is.
    about: String,
    device: String,
    interval: Duration,
    /// Whether an answer is due.
    asked: bool,
    opened: bool,
    /// Since when the process has had an answer to give: it was started, has opened the camera, or was asked.
    due: Instant,
    /// When the last frame was captured.
    last_frame: Instant,
    /// What has been told of the silence or loss that goes on: each reason once, and not more than [`REASONS`].
    told: Vec<String>,
    lost: bool,
    next_try: Instant,
    pause: Duration,
    /// What the first frame of this process is counted from.
    base: u64,
    next_number: u64,
    ready: VecDeque<Grab>,
}

impl Camera {
    /// Opens the camera and starts to capture. That it can't be opened is an error only now; later on it is waited for, and
    /// from the start on where that is `patient`. When `stop` says so, what is there by then is returned.
    pub fn open(camera: &str, wanted: Wanted, patient: bool, stop: &dyn Fn() -> bool) -> anyhow::Result<Camera> {
        let (name, format) = (camera.to_string(), wanted.to_string());
        let command = move || {
            // The running program, even where an update has replaced its file.
            let mut command = Command::new("/proc/self/exe");
            // A process group of its own: Ctrl-C goes to the one who asks, and it decides.
            command.arg0("edge-camera").arg(WORKER).arg(&name).arg(&format).process_group(0);
            command
        };
        Camera::start(camera, Box::new(command), PATIENCE, patient, stop)
    }

    fn start(
        name: &str,
        command: Box<dyn Fn() -> Command>,
        patience: Patience,
        patient: bool,
        stop: &dyn Fn() -> bool,
    ) -> anyhow::Result<Camera> {
        let now = Instant::now();
        let mut camera = Camera {
            command,
            patience,
            pool: Pool::default(),
            helper: None,
            dying: vec![],
            about: name.into(),
            device: name.into(),
            interval: Duration::ZERO,
            asked: false,
            opened: false,
            due: now,
            last_frame: now,
            told: vec![],
            lost: false,
            next_try: now,
            pause: patience.first_pause,
            base: 0,
            next_number: 0,
            ready: VecDeque::new(),
        };
        camera.launch();
        let deadline = now + patience.open;
        while !camera.opened && !stop() {
            let Some(helper) = &mut camera.helper else {
                if patient {
                    break;
                }
                bail!("cannot start the process that holds the camera");
            };
            let why = match helper.hear(deadline.min(Instant::now() + TICK)) {
                Heard::Message(Message::Failed(why), _) => why,
                Heard::Message(message, bytes) => {
                    camera.take(message, bytes);
                    continue;
                }
                Heard::Nothing if Instant::now() < deadline => continue,
                Heard::Nothing => "it does not answer".into(),
                Heard::Gone(why) => why,
            };
            if !patient {
                bail!("cannot open the camera {name}: {why}");
            }
            camera.lose(&why);
            break;
        }
        camera.last_frame = Instant::now();
        Ok(camera)
    }

    /// Starts a process that opens the camera.
    fn launch(&mut self) {
        // As long as one is stuck within the kernel, another one could only meet the same.
        self.dying.retain_mut(|helper| !helper.gone());
        if !self.dying.is_empty() {
            return self.lose("the process that held it is stuck within its driver");
        }
        self.due = Instant::now();
        (self.opened, self.asked) = (false, false);
        self.base = self.next_number;
        match Helper::start((self.command)(), &self.pool) {
            Ok(helper) => self.helper = Some(helper),
            Err(e) => self.lose(&format!("{e:#}")),
        }
    }

    /// Gets rid of the process, tells why unless that is known, and sets the time of the next attempt.
    fn lose(&mut self, why: &str) {
        if let Some(mut helper) = self.helper.take() {
            helper.kill();
            if !helper.gone() {
                self.dying.push(helper);
            }
        }
        self.opened = false;
        self.lost = true;
        if self.told.len() < REASONS && !self.told.iter().any(|told| told == why) {
            self.notice("camera_lost", format!("the camera {} is lost: {why}", self.about));
            self.told.push(why.into());
        }
        self.next_try = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(self.patience.last_pause);
    }

    fn notice(&mut self, event: &'static str, detail: String) {
        self.ready.push_back(Grab::Notice { event, detail });
    }

    /// Takes what the process said.
    fn take(&mut self, message: Message, bytes: Vec<u8>) {
        match message {
            Message::Opened { about, device, interval_ns } => {
                (self.about, self.device, self.opened) = (about, device, true);
                self.interval = Duration::from_nanos(interval_ns);
                self.due = Instant::now();
                self.pool.give(bytes);
            }
            Message::Frame(header) => {
                if !std::mem::take(&mut self.told).is_empty() {
                    let silent = self.last_frame.elapsed().as_secs_f64();
                    let how = if self.lost { "is open again" } else { "delivers again" };
                    self.notice("camera_back", format!("the camera {} {how} after {silent:.1} s", self.about));
                }
                self.lost = false;
                self.pause = self.patience.first_pause;
                self.asked = false;
                let frame = self.frame(header, bytes);
                self.last_frame = frame.at;
                self.next_number = frame.number + 1;
                self.ready.push_back(Grab::Frame(frame));
            }
            Message::Failed(why) => self.lose(&why),
        }
    }

    fn frame(&self, header: FrameHeader, bytes: Vec<u8>) -> Frame {
        let FrameHeader { number, monotonic_ns, format, width, height, stride, color, .. } = header;
        // Both clocks are CLOCK_MONOTONIC; an age is what they have in common.
        let age = Duration::from_nanos(worker::monotonic_ns().saturating_sub(monotonic_ns));
        let bytes = self.pool.lend(bytes);
        let stride = stride.map(|n| n as usize);
        Frame {
            number: self.base + number,
            source: format!("v4l2:{}", self.device),
            wall: SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH),
            at: Instant::now().checked_sub(age).unwrap_or_else(Instant::now),
            payload: Payload::Raw { format, width, height, stride, color, bytes },
        }
    }

    /// Looks at how long nothing has come, and acts on it.
    fn judge(&mut self) {
        let due = self.due.elapsed();
        if !self.opened {
            if due >= self.patience.open {
                self.lose("it does not answer");
            }
            return;
        }
        let silence = self.patience.silence.max(self.interval * 6);
        let stall = self.patience.stall.max(self.interval * 3);
        // The first frame takes a camera longer. Later on, what was not answered at once was not there, so the camera has
        // been silent since its last frame, however long that one's classification took.
        let first = self.base == self.next_number;
        let quiet = if first { due } else { self.last_frame.elapsed() };
        if quiet >= silence && due >= silence / 2 {
            self.lose(&format!("no frame for {:.1} s", silence.as_secs_f64()));
        } else if quiet >= stall && due >= stall / 3 && !first && self.told.is_empty() {
            let detail = format!("the camera {} has delivered no frame for {:.1} s", self.about, quiet.as_secs_f64());
            self.told.push(detail.clone());
            self.notice("camera_stalled", detail);
        }
    }
}

impl Source for Camera {
    fn next(&mut self, deadline: Instant) -> Result<Grab, Failure> {
        loop {
            if let Some(grab) = self.ready.pop_front() {
                return Ok(grab);
            }
            let Some(helper) = &mut self.helper else {
                let now = Instant::now();
                if now >= self.next_try {
                    self.launch();
                    continue;
                }
                if now >= deadline {
                    return Ok(Grab::Waiting(self.last_frame.elapsed()));
                }
                std::thread::sleep(self.next_try.min(deadline).saturating_duration_since(now));
                continue;
            };
            if self.opened && !std::mem::replace(&mut self.asked, true) {
                helper.ask();
                self.due = Instant::now();
            }
            match helper.hear(deadline) {
                Heard::Message(message, bytes) => self.take(message, bytes),
                Heard::Gone(why) => self.lose(&why),
                Heard::Nothing => {
                    self.judge();
                    if self.ready.is_empty() {
                        return Ok(Grab::Waiting(self.last_frame.elapsed()));
                    }
                }
            }
        }
    }

    fn describe(&self) -> String {
        format!("camera {}", self.about)
    }
}

#[cfg(test)]
mod tests;
