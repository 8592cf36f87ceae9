//! The loop that watches over the camera program and its helpers: events from the kernel, the program and the clock go to
//! the [`Keeper`], and what it decides is done.

use crate::camera::{Camera, Run};
use crate::child::{self, Child};
use crate::classes::Classes;
use crate::control::Control;
use crate::devices::{self, Device, Devices, Keys};
use crate::helpers::Helper;
use crate::keeper::{Action, Ending, Event, Keeper, Limits, Trial};
use crate::notify::{Notify, Told};
use crate::say;
use crate::watchdog::Watchdog;
use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the log is looked at for its first class.
const LOOK: Duration = Duration::from_millis(250);
/// Nothing waits longer than this, so that the watchdog is fed and what was missed is seen.
const LONGEST: Duration = Duration::from_secs(5);

/// The signals that arrived. They are listened to from the start, so that none is lost while the system is prepared.
pub struct Signals(SignalDelivery<UnixStream, SignalOnly>);

impl Signals {
    /// Begins to listen.
    pub fn listen() -> anyhow::Result<Signals> {
        let (read, write) = UnixStream::pair().context("cannot make a pipe for signals")?;
        let signals = [SIGCHLD, SIGINT, SIGTERM, SIGUSR1, SIGUSR2];
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, signals);
        Ok(Signals(delivery.context("cannot listen to signals")?))
    }

    /// What the last one of those that arrived asks for, with busybox' meanings: `reboot` sends SIGTERM, `poweroff`
    /// SIGUSR2, `halt` SIGUSR1; the kernel sends SIGINT for Ctrl-Alt-Del.
    fn asked(&mut self) -> Option<Ending> {
        self.0.pending().filter_map(|signal| meaning(signal, crate::down::is_first())).last()
    }
}

fn meaning(signal: i32, first: bool) -> Option<Ending> {
    match signal {
        SIGINT | SIGTERM if first => Some(Ending::Reboot),
        // On a terminal it is an ordinary program.
        SIGINT | SIGTERM | SIGUSR2 => Some(Ending::PowerOff),
        SIGUSR1 => Some(Ending::Halt),
        _ => None,
    }
}

/// Makes the helper of a network card of this name, if it is to have one.
pub type ForCard = Box<dyn Fn(&str) -> Option<Helper>>;

/// What there is to watch over.
pub struct Supervisor {
    /// How the camera program is started.
    pub camera: Camera,
    /// Times.
    pub limits: Limits,
    /// Where the system is on trial.
    pub trial: Option<Trial>,
    /// Writes to the boot state that this system is kept; what to tell of it.
    pub commit: Box<dyn FnMut() -> anyhow::Result<String>>,
    /// Fed while all goes well.
    pub watchdog: Option<Watchdog>,
    /// Other programs.
    pub helpers: Vec<Helper>,
    /// Makes the helper of a network card.
    pub network: Option<ForCard>,
    /// News of devices.
    pub devices: Option<Devices>,
    /// Takes orders of the camera program, where its configuration wants that.
    pub control: Option<Control>,
    /// Serial lines of its link, relative to `/dev`.
    pub lines: Vec<PathBuf>,
    /// Folder of the socket that the camera program tells of its state on.
    pub run: PathBuf,
}

/// What runs.
struct State {
    keeper: Keeper,
    run: Option<Run>,
    keys: Vec<Keys>,
    notify: Notify,
    told_first: bool,
}

impl Supervisor {
    /// Until the device is to go down; how, and the watchdog, which the way down is guarded by.
    pub fn run(mut self, mut signals: Signals) -> anyhow::Result<(Ending, Option<Watchdog>)> {
        let mut state = State {
            keeper: Keeper::new(say::uptime(), self.limits, self.trial),
            run: None,
            keys: vec![],
            notify: Notify::open(&self.run.join("notify"))?,
            told_first: false,
        };
        let present = self.devices.as_ref().map(Devices::present).unwrap_or_default();
        self.meet(present, &mut state);
        loop {
            let mut events = vec![];
            events.extend(signals.asked().map(Event::Asked));
            let came = self.devices.as_ref().map(Devices::came).unwrap_or_default();
            self.meet(came, &mut state);
            state.keys.retain_mut(|keys| match keys.power() {
                Some(true) => {
                    say::say("the power button was pressed");
                    events.push(Event::Asked(Ending::PowerOff));
                    true
                }
                Some(false) => true,
                None => false,
            });
            let orders = self.control.as_mut().map(Control::orders).unwrap_or_default();
            events.extend(orders.into_iter().map(Event::Asked));
            state.look(&mut events);
            self.reap(&mut state, &mut events);
            events.push(Event::Tick);
            for event in events {
                if let Some(ending) = self.handle(event, &mut state) {
                    self.helpers.iter().for_each(Helper::stop);
                    return Ok((ending, self.watchdog));
                }
            }
            let now = say::uptime();
            self.helpers.iter_mut().for_each(|helper| helper.tick(now));
            if let Some(watchdog) = self.watchdog.as_mut().filter(|_| state.keeper.feeds(now)) {
                watchdog.feed(now);
            }
            self.wait(&signals, &state).context("cannot wait for what happens next")?;
        }
    }

    /// An event, and all that follows from it at once.
    fn handle(&mut self, event: Event, state: &mut State) -> Option<Ending> {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in state.keeper.handle(say::uptime(), event) {
                match action {
                    Action::Start { configured } => {
                        let mut command = self.camera.command(configured, state.notify.path());
                        let classes = Some(Classes::watch(&self.camera.log));
                        match Child::start(&mut command) {
                            Ok(child) => state.run = Some(Run { child, classes }),
                            Err(why) => {
                                let why = format!("{}: {why}", self.camera.program.display());
                                events.push(Event::NotStarted(why));
                            }
                        }
                    }
                    Action::Terminate => {
                        if let Some(run) = &state.run {
                            run.child.signal(Signal::TERM);
                        }
                    }
                    Action::Kill => {
                        if let Some(run) = &state.run {
                            run.child.kill();
                        }
                    }
                    Action::Commit => match (self.commit)() {
                        Ok(text) => {
                            say::say(&text);
                            say::sync();
                            events.push(Event::Committed);
                        }
                        Err(why) => say::say(&format!("this system cannot be kept: {why:#}")),
                    },
                    Action::Say(text) => {
                        say::say(&text);
                        say::sync();
                    }
                    Action::End(ending) => return Some(ending),
                }
            }
        }
        None
    }

    /// What became of processes.
    fn reap(&mut self, state: &mut State, events: &mut Vec<Event>) {
        for (pid, exit) in child::ended() {
            if let Some(run) = state.run.take_if(|run| run.child.pid == pid) {
                let Run { mut child, .. } = run;
                child.kill_rest();
                child.lines(true).iter().for_each(|line| say::forward(line));
                events.push(Event::Exited(exit));
            } else if !self.control.as_mut().is_some_and(|control| control.ended(pid, exit)) {
                let now = say::uptime();
                // Others are orphans of some program that is gone.
                let _ = self.helpers.iter_mut().any(|helper| helper.ended(now, pid, exit));
            }
        }
    }

    /// New devices.
    fn meet(&mut self, devices: Vec<Device>, state: &mut State) {
        for device in devices {
            match device {
                Device::Given(node) => self.give(&node),
                Device::Line(node) if self.lines.contains(&node) => self.give(&node),
                Device::Line(_) => {}
                Device::Port(node) => {
                    if let Some(link) = devices::port_link(Path::new("/sys"), &node) {
                        self.give(&node);
                        if let Err(why) = devices::make_link(Path::new("/dev"), &link, &node) {
                            say::say(&format!("/dev/{} cannot be made: {why}", link.display()));
                        }
                    }
                }
                Device::Input(node) => state.keys.extend(Keys::open(&Path::new("/dev").join(node)).ok()),
                Device::Network(name) => {
                    let helper = self.network.as_ref().and_then(|network| network(&name));
                    if let Some(helper) = helper.filter(|new| self.helpers.iter().all(|old| old.name != new.name)) {
                        self.helpers.push(helper);
                    }
                }
            }
        }
    }

    /// Gives a node below `/dev` to the camera program.
    fn give(&self, node: &Path) {
        let Some((_, group)) = self.camera.user else { return };
        let node = Path::new("/dev").join(node);
        if let Err(why) = devices::give(&node, group) {
            say::say(&format!("{} cannot be given to the camera: {why}", node.display()));
        }
    }

    fn wait(&self, signals: &Signals, state: &State) -> rustix::io::Result<()> {
        let mut polled =
            vec![PollFd::new(signals.0.get_read(), PollFlags::IN), PollFd::new(&state.notify, PollFlags::IN)];
        polled.extend(state.run.as_ref().and_then(|run| run.child.poll()));
        polled.extend(self.helpers.iter().filter_map(|helper| helper.child()?.poll()));
        polled.extend(self.devices.as_ref().map(|devices| PollFd::new(devices, PollFlags::IN)));
        polled.extend(state.keys.iter().map(|keys| PollFd::new(keys, PollFlags::IN)));
        polled.extend(self.control.iter().flat_map(Control::polls));
        let now = say::uptime();
        let looks = state.run.as_ref().is_some_and(|run| run.classes.is_some());
        let deadlines = self.helpers.iter().filter_map(Helper::deadline).chain(state.keeper.deadline());
        let time = deadlines.map(|deadline| deadline.saturating_sub(now)).chain(looks.then_some(LOOK)).min();
        let feeding = self.watchdog.as_ref().map_or(LONGEST, Watchdog::every);
        let time = time.unwrap_or(LONGEST).min(feeding).min(LONGEST);
        // A millisecond more, so that what is due then is due.
        let time = time + Duration::from_millis(1);
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        match poll(&mut polled, Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(why) => Err(why),
        }
    }
}

impl State {
    /// What the camera program printed, told and logged.
    fn look(&mut self, events: &mut Vec<Event>) {
        // Told is read even with nobody to tell: messages of a process that is gone must not fill the socket.
        let told = self.notify.told(self.run.as_ref().map(|run| run.child.pid));
        events.extend(told.into_iter().map(|told| match told {
            Told::Ready => Event::Ready,
            Told::Alive => Event::Alive,
        }));
        let Some(run) = &mut self.run else { return };
        run.child.lines(false).iter().for_each(|line| say::forward(line));
        if let Some(class) = run.classes.as_mut().and_then(Classes::first) {
            run.classes = None;
            events.push(Event::Classified);
            if !std::mem::replace(&mut self.told_first, true) {
                let time = say::uptime().as_secs_f64();
                say::say(&format!("first class {class} after {time:.1} s"));
                say::sync();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_mean_what_busybox_means() {
        let table =
            [(SIGTERM, Ending::Reboot), (SIGUSR2, Ending::PowerOff), (SIGUSR1, Ending::Halt), (SIGINT, Ending::Reboot)];
        for (signal, ending) in table {
            assert_eq!(meaning(signal, true), Some(ending));
        }
        assert_eq!(meaning(SIGTERM, false), Some(Ending::PowerOff));
        assert_eq!(meaning(SIGCHLD, true), None);
    }
}
