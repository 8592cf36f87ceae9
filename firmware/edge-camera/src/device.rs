//! Everything that runs, from start to end: the parts of the loop.

mod linked;
mod trying;

use crate::backend::Backend;
use crate::capture::{self, Frame, Source};
use crate::clock::SystemClock;
use crate::link::Link;
use crate::log::Log;
use crate::package::{self, Loaded, Missed, Model};
use crate::screen::Screen;
use crate::service::{Service, StatusLine};
use crate::settings::Settings;
use crate::slots::Counted;
use crate::status::{Observer, Status};
use crate::stop::{Failure, Signals};
use crate::summary::Summing;
use crate::trial::Trial;
use crate::{args, checks, config};
use edge_device::event::{Event, Fault, LatencyMs, Score, Summary, class_label, millis, wall_time};
use edge_package::hex;
use edge_vision::Picture;
use std::ffi::OsString;
use std::time::{Duration, Instant};

/// A running camera.
pub struct Device {
    settings: Settings,
    backend: Backend,
    signals: Signals,
    started: Instant,
    model: Model,
    /// The trial that the package is on.
    trial: Option<Trial>,
    /// Where frames come from.
    pub source: Box<dyn Source>,
    log: Log,
    status: Status,
    service: Service,
    summing: Option<Summing>,
    /// The frame as it came, and what is seen of it, if the camera isn't mounted straight.
    pictures: [Picture; 2],
    frames: u64,
    faults: u64,
    /// Whether the last frame was a fault.
    faulty: bool,
    /// Hosts that ask.
    link: Option<Link>,
    /// A replay that one asked for.
    goldens: Option<linked::Goldens>,
}

impl Device {
    /// Proves the package, opens source and log, and says so.
    pub fn start(settings: Settings, started: Instant, signals: &Signals) -> Result<Device, Failure> {
        let mut status = Status::new();
        status.observers = observers(&settings)?;
        let backend = Backend::choose(&settings)?;
        status.say(&backend.to_string());
        checks::warnings(&settings).iter().for_each(|warning| status.say(warning));
        let mut service = Service::new();
        let Loaded { model, news, trial } = package::load(&settings, &backend, None, &mut || service.progress())?;
        trying::uncount_at_end(signals, trial.as_ref());
        let source = capture::open(&settings.args, settings.is_patient(), signals)?;
        let mut log = Log::open(settings.log.clone(), Box::new(SystemClock::new(started)), signals.gate())?;
        log.computes(backend.name());
        status.say(&format!("{}; {}", model.about, source.describe()));
        let blank = Picture::blank(1, 1).map_err(anyhow::Error::from)?;
        let mut device = Device {
            summing: settings.args.summary.map(Summing::new),
            pictures: [blank.clone(), blank],
            trial: None,
            service,
            frames: 0,
            faults: 0,
            faulty: false,
            link: None,
            goldens: None,
            settings,
            backend,
            signals: signals.clone(),
            started,
            model,
            source,
            log,
            status,
        };
        device.tell_all(&news)?;
        device.begin_trial(trial, None)?;
        device.service.ready(&device.model.about);
        device.status.note(&device.source.describe());
        Ok(device)
    }

    /// Whether another frame is wanted.
    pub fn wants_more(&self) -> bool {
        self.settings.args.frames.is_none_or(|limit| self.frames < limit)
    }

    /// Classifies a frame, decides, and logs what came of it: the line, or why there is none.
    fn frame(&mut self, frame: &Frame) -> Result<Result<Event, String>, Failure> {
        self.frames += 1;
        if let Some(summing) = &mut self.summing {
            summing.frame(frame.number);
        }
        match self.classify(frame) {
            Ok((mut event, changed)) => {
                // After a fault the log says again what is seen.
                let changed = changed || std::mem::take(&mut self.faulty);
                self.log.event(&mut event, changed)?;
                self.status.classified(&event, self.log.trouble());
                self.service.progress();
                if let Some(summing) = &mut self.summing {
                    summing.classified(&event);
                }
                if let Some(link) = &self.link {
                    link.seen(frame.number, Some(&event));
                }
                Ok(Ok(event))
            }
            Err(failed) => {
                let (mut fault, network) = *failed;
                if network {
                    self.network_failed(&fault.error)?;
                }
                let first = !std::mem::replace(&mut self.faulty, true);
                self.log.fault(&mut fault, first)?;
                self.status.fault(&fault);
                self.faults += 1;
                if let Some(summing) = &mut self.summing {
                    summing.fault();
                }
                if let Some(link) = &self.link {
                    link.seen(frame.number, None);
                }
                Ok(Err(fault.error))
            }
        }
    }

    /// Frame → classified → decided → the line to log, and whether the decision changed. A fault says whether it is the
    /// network's.
    fn classify(&mut self, frame: &Frame) -> Result<(Event, bool), Box<(Fault, bool)>> {
        let time = wall_time(frame.wall);
        let at = frame.at.saturating_duration_since(self.started);
        let monotonic_s = at.as_micros() as f64 / 1e6;
        let start = Instant::now();
        let mount = self.settings.args.mount();
        let result = self.model.classify(frame, &mount, &mut self.pictures).map_err(|missed| {
            let (error, network) = match missed {
                Missed::Frame(error) => (error, false),
                Missed::Network(error) => (error, true),
            };
            let (source, time, backend) = (frame.source.clone(), time.clone(), String::new());
            let fault = Fault { time, monotonic_s, clock_synced: None, frame: frame.number, source, error, backend };
            Box::new((fault, network))
        })?;
        let Model { classifier, decider, digest, .. } = &mut self.model;
        let decision = decider.decide(at, classifier.scores(), self.settings.args.top);
        let latency_ms = LatencyMs {
            decode: millis(result.times.decode),
            resize: millis(result.times.resize),
            preprocess: millis(result.times.preprocess),
            infer: millis(result.times.infer),
            total: millis(start.elapsed()),
        };
        let labels = &classifier.manifest().labels;
        let event = Event {
            class: decision.class,
            decision: class_label(labels, decision.class),
            top: Score::label(&decision.top, labels),
            time,
            monotonic_s,
            clock_synced: None,
            frame: frame.number,
            source: frame.source.clone(),
            latency_ms,
            package: hex(digest),
            backend: classifier.description().backend.into(),
        };
        if let Some(trial) = &mut self.trial {
            let new = self.model.opinion(&result);
            trial.look(frame, &mount, &mut self.pictures, &new);
        }
        Ok((event, decision.changed))
    }

    /// No frame has come for `since`, which the source calls waiting.
    pub fn waiting(&mut self, since: Duration) {
        self.status.waiting(since);
        self.service.progress();
    }

    /// What is done after every turn of the loop.
    pub fn tick(&mut self) -> Result<(), Failure> {
        self.judge()?;
        self.sum_up(false)?;
        self.log.tick()?;
        self.tell_news();
        Ok(())
    }

    fn sum_up(&mut self, end: bool) -> Result<(), Failure> {
        let Some(totals) = self.summing.as_mut().and_then(|summing| summing.due(end)) else { return Ok(()) };
        let (time, monotonic_s) = self.log.now();
        self.log.summary(&mut Summary {
            time,
            monotonic_s,
            clock_synced: None,
            backend: String::new(),
            summary: totals,
        })
    }

    fn tell_news(&mut self) {
        for text in self.log.news() {
            self.status.say(&text);
        }
    }

    /// Logs and tells that something happened: `event` is a word for programs, `detail` is for people.
    pub fn notice(&mut self, event: &str, detail: &str) -> Result<(), Failure> {
        self.log.notice(event, detail)?;
        self.tell_news();
        if let Some(link) = &self.link {
            // The camera may be open only now, or another one.
            link.source(self.source.describe());
        }
        Ok(())
    }

    fn tell_all(&mut self, news: &[(&'static str, String)]) -> Result<(), Failure> {
        news.iter().try_for_each(|(event, detail)| self.notice(event, detail))
    }

    /// The last lines, and how it ends.
    pub fn finish(mut self) -> Result<(), Failure> {
        let summed = self.sum_up(true);
        let written = self.log.finish();
        self.tell_news();
        self.status.finish(self.frames, self.faults);
        if let Some(link) = self.link.take() {
            link.end();
        }
        summed.and(written)?;
        // A camera drops a frame now and then; a picture that was asked for by name is missed.
        match (self.faults, self.settings.args.once) {
            (0, _) | (_, false) => Ok(()),
            (faults, true) => Err(Failure::pictures(faults)),
        }
    }

    /// Reads configuration and package anew. What is wrong with the new ones is told, and the old ones go on.
    /// Only a camera that can be opened neither in the new way nor in the old one ends the program. What runs now, or why it
    /// is what ran before.
    pub fn reload(&mut self, words: &[OsString]) -> Result<Result<String, String>, Failure> {
        self.service.reloading();
        let done = match self.try_reload(words) {
            Ok(Reloaded { before, news, trial }) => {
                let about = format!("{}; {}", self.model.about, self.source.describe());
                self.notice("reloaded", &about)?;
                self.tell_all(&news)?;
                self.changed();
                self.begin_trial(trial, Some(before))?;
                Ok(about)
            }
            Err(Refused::Kept(failure)) => {
                let why = format!("the reload failed and what ran goes on: {:#}", failure.cause);
                self.notice("reload_failed", &why)?;
                Err(why)
            }
            Err(Refused::Lost(failure)) => return Err(failure),
        };
        self.service.ready(&self.model.about);
        Ok(done)
    }

    fn try_reload(&mut self, words: &[OsString]) -> Result<Reloaded, Refused> {
        let new = config::resolve(words).map_err(Refused::Kept)?;
        let backend = self.backend.choose_again(&new).map_err(Refused::Kept)?;
        if backend.to_string() != self.backend.to_string() {
            self.status.say(&backend.to_string());
        }
        checks::warnings(&new).iter().for_each(|warning| self.status.say(warning));
        let counted = self.trial.as_ref().map(|trial| trial.counted.clone());
        let Loaded { model, news, trial } =
            package::load(&new, &backend, counted.as_ref(), &mut || self.service.progress()).map_err(Refused::Kept)?;
        if let Err(refused) = self.adopt(&new) {
            // A trial that did not begin is no start of it.
            trial.filter(|trial| counted.as_ref() != Some(trial)).iter().for_each(Counted::ended_well);
            return Err(refused);
        }
        if self.settings.differs(&new, args::LINK) {
            self.status.say("another `link` or `link-control` counts from the next start on");
        }
        let before = std::mem::replace(&mut self.model, model);
        self.log.computes(backend.name());
        (self.settings, self.backend) = (new, backend);
        Ok(Reloaded { before, news, trial })
    }

    /// Display, log, source and summaries as `new` has them; nothing of it where a part of it cannot be.
    fn adopt(&mut self, new: &Settings) -> Result<(), Refused> {
        let display = (self.settings.args.display != new.args.display).then(|| observers(new)).transpose();
        let display = display.map_err(Refused::Kept)?;
        // The log before the source: going back to the old one cannot fail.
        self.log.set(new.log.clone()).map_err(Refused::Kept)?;
        if self.settings.differs(new, args::SOURCE)
            && let Err(refused) = self.reopen(new)
        {
            if let Err(failure) = self.log.set(self.settings.log.clone()) {
                return Err(Refused::Lost(failure));
            }
            return Err(refused);
        }
        if let Some(observers) = display {
            self.status.observers = observers;
        }
        if self.summing.as_ref().map(Summing::every) != new.args.summary {
            self.sum_up(true).map_err(Refused::Lost)?;
            self.summing = new.args.summary.map(Summing::new);
        }
        Ok(())
    }

    /// Opens the source anew. A camera that is in use by the old source is opened again after that is closed.
    fn reopen(&mut self, new: &Settings) -> Result<(), Refused> {
        if let Ok(source) = capture::open(&new.args, false, &self.signals) {
            self.source = source;
            return Ok(());
        }
        self.source = Box::new(Closed);
        match capture::open(&new.args, false, &self.signals) {
            Ok(source) => self.source = source,
            Err(failure) => {
                let patient = self.settings.is_patient();
                self.source = capture::open(&self.settings.args, patient, &self.signals).map_err(Refused::Lost)?;
                return Err(Refused::Kept(failure));
            }
        }
        Ok(())
    }
}

/// Who is shown what is seen.
fn observers(settings: &Settings) -> Result<Vec<Box<dyn Observer>>, Failure> {
    let mut observers: Vec<Box<dyn Observer>> = vec![Box::<StatusLine>::default()];
    if let Some(spec) = &settings.args.display {
        observers.push(Box::new(Screen::open(spec)?));
    }
    Ok(observers)
}

/// What a reload brought.
struct Reloaded {
    /// What ran before it.
    before: Model,
    news: Vec<(&'static str, String)>,
    trial: Option<Counted>,
}

/// Why a reload did not happen.
enum Refused {
    /// What ran goes on.
    Kept(Failure),
    /// Nothing is left to go on with.
    Lost(Failure),
}

/// The place of a source that is closed before another one is opened.
struct Closed;

impl Source for Closed {
    fn next(&mut self, _: Instant) -> Result<capture::Grab, Failure> {
        Ok(capture::Grab::End)
    }

    fn describe(&self) -> String {
        "closed".into()
    }
}
