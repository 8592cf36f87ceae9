//! The threads that listen, read questions and write answers.

use super::{Ask, Shared, Task, answers, control, update};
use crate::status::tell;
use edge_link::{Address, Listener, Power, Reply, Request, Stream, serve};
use edge_system::control::Order;
use std::io::{self, Read};
use std::sync::mpsc::{SyncSender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Hosts at once, over all sockets; more wait until one has gone. Serial lines have a place of their own.
const HOSTS: usize = 4;
/// Who has connected to one socket and is no host yet: over TCP whoever comes by may be one of them, for as long as a
/// handshake may take.
const STRANGERS: usize = 16;

/// From one attempt to listen to the next: a card without an address yet, a line that is plugged in later.
const RETRY: Duration = Duration::from_secs(1);
/// After a line was closed from the other side, as a virtio port is while no host has it open.
const PAUSE: Duration = Duration::from_millis(200);

/// A number of places.
pub struct Places {
    left: Mutex<usize>,
    more: Condvar,
}

/// One of them, until it is dropped.
struct Place<'a>(&'a Places);

impl Places {
    /// For hosts.
    pub fn for_hosts() -> Places {
        Places::new(HOSTS)
    }

    fn new(count: usize) -> Places {
        Places { left: Mutex::new(count), more: Condvar::new() }
    }

    /// Waits for a free one.
    fn take(&self) -> Place<'_> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let none = |left: &mut usize| *left == 0;
        *self.more.wait_while(left, none).unwrap_or_else(PoisonError::into_inner) -= 1;
        Place(self)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.left.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.more.notify_one();
    }
}

/// How many hosts have asked something and not got all of its answer yet.
#[derive(Default)]
pub struct Talking {
    count: Mutex<usize>,
    less: Condvar,
}

impl Talking {
    fn change(&self, change: impl FnOnce(&mut usize)) {
        change(&mut self.count.lock().unwrap_or_else(PoisonError::into_inner));
        self.less.notify_all();
    }

    /// Waits until there are none, or for `patience`.
    pub fn settle(&self, patience: Duration) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.less.wait_timeout_while(count, patience, |count| *count > 0);
    }
}

/// The reading half of a host's stream. Who reads has answered all that was asked before.
struct Heard<'a> {
    reader: Box<dyn Read + Send>,
    talking: &'a Talking,
    asked: bool,
}

impl Heard<'_> {
    fn set(&mut self, asked: bool) {
        match (std::mem::replace(&mut self.asked, asked), asked) {
            (false, true) => self.talking.change(|count| *count += 1),
            (true, false) => self.talking.change(|count| *count -= 1),
            _ => {}
        }
    }
}

impl Read for Heard<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.set(false);
        let count = self.reader.read(buffer)?;
        self.set(count > 0);
        Ok(count)
    }
}

impl Drop for Heard<'_> {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// What is told of a link once, until something else is the case.
struct Told {
    address: Address,
    last: Option<String>,
}

impl Told {
    fn once(&mut self, text: String) {
        if self.last.as_ref() != Some(&text) {
            tell(&format!("link {}: {text}", self.address));
            self.last = Some(text);
        }
    }
}

/// Listens at an address, on a thread of its own, as long as the program runs. What goes wrong is told and tried again:
/// nothing that happens to a link ends the program.
pub fn start(address: Address, shared: Arc<Shared>, tasks: SyncSender<Task>) {
    let shown = address.to_string();
    let listening = std::thread::Builder::new().name("link".into()).spawn(move || {
        let mut told = Told { address: address.clone(), last: None };
        loop {
            match Listener::open(&address) {
                Ok(listener) => return listen(&listener, &shared, &tasks, &mut told),
                Err(e) => told.once(format!("{e}; it is tried again")),
            }
            std::thread::sleep(RETRY);
        }
    });
    if let Err(e) = listening {
        tell(&format!("link {shown}: no thread can be started for it: {e}"));
    }
}

fn listen(listener: &Listener, shared: &Shared, tasks: &SyncSender<Task>, told: &mut Told) {
    match listener.port() {
        Some(port) => told.once(format!("listens at port {port}")),
        None if !listener.is_line() => told.once("listens".into()),
        None => {}
    }
    let strangers = &Places::new(STRANGERS);
    std::thread::scope(|scope| {
        loop {
            let stranger = strangers.take();
            match listener.accept() {
                Ok(arrived) if listener.is_line() => {
                    told.once("open".into());
                    if let Ok(stream) = arrived.open() {
                        answer_all(stream, shared, tasks);
                    }
                    std::thread::sleep(PAUSE);
                }
                Ok(arrived) => {
                    let talk = move || {
                        // Whoever has no key is none to talk about.
                        let Ok(stream) = arrived.open() else { return };
                        let _host = shared.hosts.take();
                        drop(stranger);
                        answer_all(stream, shared, tasks);
                    };
                    let name = std::thread::Builder::new().name("link".into());
                    if name.spawn_scoped(scope, talk).is_err() {
                        // The host is hung up on.
                        std::thread::sleep(RETRY);
                    }
                }
                Err(e) => {
                    told.once(format!("{e}; it is tried again"));
                    std::thread::sleep(RETRY);
                }
            }
        }
    });
}

/// Answers one host until it hangs up.
fn answer_all(stream: Stream, shared: &Shared, tasks: &SyncSender<Task>) {
    let host = update::Host::new(shared);
    let Stream { reader, mut writer } = stream;
    let mut reader = Heard { reader, talking: &shared.talking, asked: false };
    // One that goes away in the middle of an answer wants none.
    let _ = serve(&mut reader, &mut *writer, shared.control, |request| answer(request, shared, tasks, &host));
}

/// The answer to a question; nothing when the program ends.
fn answer(request: Request, shared: &Shared, tasks: &SyncSender<Task>, host: &update::Host<'_>) -> Option<Reply> {
    let ask = |what| ask(what, tasks);
    if let Request::Classify(picture) | Request::Inject(picture) = &request
        && let Err(why) = answers::bounded(picture)
    {
        return Some(Err(why));
    }
    match request {
        Request::Hello { .. } => Some(Ok(answers::hello(shared))),
        Request::Statistics => Some(answers::statistics(shared)),
        Request::LastFrame => Some(answers::last_frame(shared)),
        Request::Log { file, from, length } => Some(answers::log(shared, file, from, length)),
        Request::Classify(picture) => ask(Ask::Classify(picture)),
        Request::Inject(picture) => ask(Ask::Inject(picture)),
        Request::Goldens => ask(Ask::Goldens),
        Request::SwitchSlot => ask(Ask::SwitchSlot),
        Request::SetTime { unix_ns } => Some(control::ask(&Order::Time { unix_ns })),
        Request::Power(Power::Reboot) => Some(control::ask(&Order::Reboot)),
        Request::Power(Power::Off) => Some(control::ask(&Order::Off)),
        Request::UpdateBegin { length, digest } => Some(host.begin(length, digest)),
        Request::UpdateData { offset, bytes } => Some(host.data(offset, &bytes)),
        Request::UpdateEnd => host.end(&ask),
    }
}

/// Has the loop do something, and waits for what comes of it.
fn ask(what: Ask, tasks: &SyncSender<Task>) -> Option<Reply> {
    let (reply, answer) = channel();
    tasks.send(Task { what, reply }).ok()?;
    answer.recv().ok()
}
