//! The link to a host: who asks, what the running camera answers, and what is kept for that.
//!
//! Every way to a host has threads of its own, which read questions and write answers. What they can answer from what is kept
//! here they do, so that a host is heard while a frame is classified or a package is proven; what needs the network goes
//! to the loop, which does one such thing between two frames. So a host that asks for ever takes every other turn at
//! most, and one that does not listen keeps nobody waiting but itself.

mod answers;
mod control;
mod serving;
pub mod stdio;
mod update;

pub use stdio::Bridge;

use crate::capture::{Frame, Payload};
use crate::package::Model;
use crate::settings::Settings;
use crate::summary::Summing;
use edge_device::event::Event;
use edge_link::{Address, Hello, PROTOCOL, PictureData, Reply};
use rustix::time::{ClockId, clock_gettime};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Questions that wait for the loop at most; whoever asks then waits.
const WAITING: usize = 4;

/// How long the end of the program waits for answers to be written: shorter than signals let it.
const LAST_WORD: Duration = Duration::from_millis(300);

/// What frames are from that a host put in, in the log.
const SOURCE: &str = "link";

/// A place to listen at.
pub fn place(text: &str) -> Result<Address, String> {
    match text.parse() {
        Ok(Address::Ssh(_)) => {
            Err(format!("{text:?} is a way to a camera; a camera listens at unix:, serial: or tcp:"))
        }
        Ok(address) => Ok(address),
        Err(e) => Err(e.to_string()),
    }
}

/// What the loop is asked for, with the place for the answer.
pub struct Task {
    /// What.
    pub what: Ask,
    /// Where the answer goes; nobody may be there any more.
    pub reply: Sender<Reply>,
}

/// What the loop is asked for.
pub enum Ask {
    /// Classify a picture beside what the camera sees.
    Classify(PictureData),
    /// Take a picture for the next frame.
    Inject(PictureData),
    /// Replay the golden samples.
    Goldens,
    /// Run the package of the other slot.
    SwitchSlot,
    /// Take what was installed.
    Reload,
}

/// What threads and loop have in common.
struct Shared {
    state: Mutex<State>,
    started: Instant,
    /// Whether questions that change something are answered.
    control: bool,
    /// As this program was called, to call it again for an installation.
    words: Vec<OsString>,
    hosts: serving::Places,
    talking: serving::Talking,
    upload: Mutex<update::Upload>,
}

/// What the loop keeps for hosts that ask.
struct State {
    hello: Hello,
    /// The log's file.
    log: PathBuf,
    /// The folder of the slots.
    slots: Option<PathBuf>,
    sums: Summing,
    /// Seconds from the machine's start to the first class.
    first_class_s: Option<f64>,
    last: Option<Arc<Frame>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain data, whole between statements, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loop's end of the link.
pub struct Link {
    shared: Arc<Shared>,
    tasks: Receiver<Task>,
    /// Frames that were put in, by which the source's own are counted on.
    put_in: u64,
    /// Number of the last frame.
    last: Option<u64>,
    /// What the source captured before this came too late for a frame that was put in.
    not_before: Option<Instant>,
}

impl Link {
    /// Begins to listen; `None` where the configuration names no place.
    pub fn open(
        settings: &Settings,
        started: Instant,
        words: &[OsString],
        model: &Model,
        source: String,
    ) -> Option<Link> {
        if settings.args.link.is_empty() {
            return None;
        }
        let (sender, tasks) = sync_channel(WAITING);
        let state = State {
            hello: hello(settings, model, source),
            log: settings.log.path.clone(),
            slots: settings.slots(),
            sums: Summing::new(Duration::MAX),
            first_class_s: None,
            last: None,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            started,
            control: settings.args.link_control,
            words: words.to_vec(),
            hosts: serving::Places::for_hosts(),
            talking: serving::Talking::default(),
            upload: Mutex::default(),
        });
        update::clean(&shared);
        for address in &settings.args.link {
            serving::start(address.clone(), shared.clone(), sender.clone());
        }
        Some(Link { shared, tasks, put_in: 0, last: None, not_before: None })
    }

    /// What is to be done next.
    pub fn task(&self) -> Option<Task> {
        self.tasks.try_recv().ok()
    }

    /// Something else runs now, or comes from elsewhere.
    pub fn about(&self, settings: &Settings, model: &Model, source: String) {
        let mut state = self.shared.lock();
        let control = state.hello.control;
        state.hello = Hello { control, ..hello(settings, model, source) };
        state.log.clone_from(&settings.log.path);
        state.slots = settings.slots();
    }

    /// The source is another one, or describes itself otherwise.
    pub fn source(&self, source: String) {
        self.shared.lock().hello.source = source;
    }

    /// Numbers a frame of the source after those that were put in; whether it comes in time.
    pub fn admit(&mut self, frame: &mut Frame) -> bool {
        frame.number = frame.number.saturating_add(self.put_in);
        let late = self.not_before.is_some_and(|time| frame.at < time);
        if !late {
            self.last = Some(frame.number);
        }
        !late
    }

    /// A picture as the next frame of the source.
    pub fn put_in(&mut self, picture: PictureData) -> Frame {
        let frame = frame(picture, self.last.map_or(0, |last| last.saturating_add(1)));
        self.put_in = self.put_in.saturating_add(1);
        (self.last, self.not_before) = (Some(frame.number), Some(frame.at));
        frame
    }

    /// What came of a frame; the line of the log where it was classified.
    pub fn seen(&self, number: u64, event: Option<&Event>) {
        let mut state = self.shared.lock();
        state.sums.frame(number);
        match event {
            Some(event) => {
                state.sums.classified(event);
                let now = clock_gettime(ClockId::Boottime);
                state.first_class_s.get_or_insert(now.tv_sec as f64 + now.tv_nsec as f64 / 1e9);
            }
            None => state.sums.fault(),
        }
    }

    /// The program ends: what has been answered reaches who asked, unless that takes long.
    pub fn end(self) {
        let Link { shared, tasks, .. } = self;
        // Whoever waits for the loop learns that there is none any more.
        drop(tasks);
        shared.talking.settle(LAST_WORD);
    }

    /// Keeps a frame for who asks for the last one.
    pub fn keep(&self, frame: Frame) {
        self.shared.lock().last = Some(Arc::new(frame));
    }
}

/// A picture as a frame that was captured now.
pub fn frame(picture: PictureData, number: u64) -> Frame {
    let payload = match picture {
        PictureData::File(bytes) => Payload::File(Ok(bytes)),
        PictureData::Raw(raw) => Payload::Raw {
            format: raw.format,
            width: raw.width,
            height: raw.height,
            stride: raw.stride.map(|stride| stride as usize),
            color: raw.color,
            bytes: raw.bytes.into(),
        },
    };
    Frame { number, source: SOURCE.into(), wall: SystemTime::now(), at: Instant::now(), payload }
}

fn hello(settings: &Settings, model: &Model, source: String) -> Hello {
    let description = model.classifier.description();
    Hello {
        protocol: PROTOCOL,
        runtime: env!("CARGO_PKG_VERSION").into(),
        board: settings.board().into(),
        isa: description.isa.clone(),
        backend: description.backend.into(),
        tolerance: description.tolerance.into(),
        package: model.digest,
        about: model.about.clone(),
        source,
        control: settings.args.link_control,
    }
}
