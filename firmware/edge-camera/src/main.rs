//! `edge-camera`: frames in, classification log out.

mod args;
mod capture;
mod collect;
mod log;
mod package;
mod status;
mod stop;

use crate::args::Args;
use crate::capture::Grab;
use crate::log::Log;
use crate::status::Status;
use crate::stop::{Failure, StopFlag};
use clap::Parser;
use edge_device::Classifier;
use edge_device::event::{Event, Fault, LatencyMs, Notice, Score, decision_label, millis, wall_time};
use edge_package::hex;
use edge_vision::Picture;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

/// How long a source may keep the loop waiting before the stop flag is looked at again.
const TICK: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    // A camera is held by a process of its own, which is this program again.
    #[cfg(feature = "camera")]
    if let Some(ended) = capture::v4l2::worker() {
        return ended;
    }
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
    if let (Some(folder), Some(label)) = (&args.collect, &args.label) {
        return collect::run(args, folder, label, &stop);
    }
    let (mut classifier, about) = package::load(args)?;
    let mut source = capture::open(args, &stop)?;
    let mut log = Log::open(&args.log)?;
    let mut status = Status::new();
    status.say(&format!("{about}; {}", source.describe()));

    let mut camera =
        Loop { started, top: args.top, picture: Picture::blank(1, 1).map_err(anyhow::Error::from)?, faults: 0 };
    let mut frames = 0;
    while !stop.requested() && args.frames.is_none_or(|limit| frames < limit) {
        match source.next(Instant::now() + TICK)? {
            Grab::Frame(frame) => {
                frames += 1;
                match camera.classify(&mut classifier, &about.digest, &frame) {
                    Ok(event) => {
                        log.write(&event)?;
                        status.classified(&event);
                    }
                    Err(fault) => {
                        log.write(&fault)?;
                        status.fault(&fault);
                        camera.faults += 1;
                    }
                }
            }
            Grab::Notice { event, detail } => {
                status.say(&detail);
                let (time, monotonic_s) = (wall_time(SystemTime::now()), camera.seconds(Instant::now()));
                log.write(&Notice { time, monotonic_s, event: event.into(), detail })?;
            }
            Grab::Waiting(since) => status.waiting(since),
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
    picture: Picture,
    faults: u64,
}

impl Loop {
    /// As the log writes a moment.
    fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.started).as_micros() as f64 / 1e6
    }

    /// Frame → RGB → resize → preprocess → classify → decide → the line to log.
    fn classify(
        &mut self,
        classifier: &mut Classifier,
        package: &[u8; 32],
        frame: &capture::Frame,
    ) -> Result<Event, Fault> {
        let time = wall_time(frame.wall);
        let monotonic_s = self.seconds(frame.at);
        let fault = |error: String| Fault {
            time: time.clone(),
            monotonic_s,
            frame: frame.number,
            source: frame.source.clone(),
            error,
        };
        let start = Instant::now();
        frame.decode(&classifier.decode_options(), &mut self.picture).map_err(&fault)?;
        let decoded = Instant::now();
        let result = classifier.classify(&self.picture, self.top).map_err(|e| fault(e.to_string()))?;
        let latency_ms = LatencyMs {
            decode: millis(decoded - start),
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
