//! `edge-camera`: frames in, classification log out.

mod args;
mod capture;
mod log;
mod package;
mod screen;
mod status;
mod stop;

use crate::args::Args;
use crate::capture::Grab;
use crate::log::Log;
use crate::screen::Screen;
use crate::status::Status;
use crate::stop::{Failure, StopFlag};
use clap::Parser;
use edge_device::Classifier;
use edge_device::event::{Event, Fault, LatencyMs, Score, decision_label, millis, wall_time};
use edge_package::hex;
use edge_vision::{Mount, Picture};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long a source may keep the loop waiting before the stop flag is looked at again.
const TICK: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let started = Instant::now();
    match run(&Args::parse(), started) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            status::tell(&format!("{:#}", failure.cause));
            ExitCode::from(failure.code)
        }
    }
}

fn run(args: &Args, started: Instant) -> Result<(), Failure> {
    let stop = StopFlag::install()?;
    let (mut classifier, about) = package::load(args)?;
    let mut source = capture::open(args)?;
    let mut log = Log::open(&args.log)?;
    let mut status = Status::new();
    let mut screen = Screen::open(args)?;
    status.say(&format!("{about}; {}", source.describe()));

    let blank = Picture::blank(1, 1).map_err(anyhow::Error::from)?;
    let mut camera =
        Loop { started, top: args.top, mount: args.mount(), picture: blank.clone(), seen: blank, faults: 0 };
    let mut frames = 0;
    while !stop.requested() && args.frames.is_none_or(|limit| frames < limit) {
        match source.next(Instant::now() + TICK)? {
            Grab::Frame(frame) => {
                frames += 1;
                match camera.classify(&mut classifier, &about.digest, &frame) {
                    Ok(event) => {
                        log.write(&event)?;
                        status.classified(&event);
                        screen.classified(&event);
                    }
                    Err(fault) => {
                        log.write(&fault)?;
                        status.fault(&fault);
                        screen.fault(&fault);
                        camera.faults += 1;
                    }
                }
            }
            Grab::Waiting(since) => {
                status.waiting(since);
                screen.waiting(since);
            }
            Grab::End => break,
        }
    }
    status.finish(frames, camera.faults);
    // A camera drops a frame now and then; a picture that was asked for by name is missed.
    match (camera.faults, args.once) {
        (0, _) | (_, false) => Ok(()),
        (faults, true) => Err(Failure::pictures(faults)),
    }
}

/// What one turn of the loop needs besides the frame.
struct Loop {
    started: Instant,
    top: usize,
    mount: Mount,
    /// The frame as it came.
    picture: Picture,
    /// What is seen of it, if the camera isn't mounted straight.
    seen: Picture,
    faults: u64,
}

impl Loop {
    /// Frame → RGB → mount → resize → preprocess → classify → decide → the line to log.
    fn classify(
        &mut self,
        classifier: &mut Classifier,
        package: &[u8; 32],
        frame: &capture::Frame,
    ) -> Result<Event, Fault> {
        let time = wall_time(frame.wall);
        let monotonic_s = frame.at.saturating_duration_since(self.started).as_micros() as f64 / 1e6;
        let fault = |error: String| Fault {
            time: time.clone(),
            monotonic_s,
            frame: frame.number,
            source: frame.source.clone(),
            error,
        };
        let start = Instant::now();
        let result = match frame.raw() {
            Some(raw) => classifier.classify_frame(&raw, &self.mount, self.top).map_err(|e| fault(e.to_string()))?,
            None => {
                frame.decode(&classifier.decode_options(), &mut self.picture).map_err(&fault)?;
                let picture = if self.mount.is_identity() {
                    &self.picture
                } else {
                    self.mount.apply(&self.picture, &mut self.seen).map_err(|e| fault(e.to_string()))?;
                    &self.seen
                };
                let decode = start.elapsed();
                let mut result = classifier.classify(picture, self.top).map_err(|e| fault(e.to_string()))?;
                result.times.decode = decode;
                result
            }
        };
        let latency_ms = LatencyMs {
            decode: millis(result.times.decode),
            resize: millis(result.times.resize),
            preprocess: millis(result.times.preprocess),
            infer: millis(result.times.infer),
            total: millis(start.elapsed()),
        };
        Ok(Event {
            class: result.decision,
            decision: decision_label(classifier, &result),
            top: Score::label(&result.top, &classifier.manifest().labels),
            time: time.clone(),
            monotonic_s,
            frame: frame.number,
            source: frame.source.clone(),
            latency_ms,
            package: hex(package),
            backend: classifier.description().backend.into(),
        })
    }
}
