//! The way down: everything ends, everything reaches its disk, and the machine is switched off or starts anew.

use crate::child;
use crate::keeper::Ending;
use crate::say;
use crate::watchdog::Watchdog;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::system::{RebootCommand, reboot};
use std::time::Duration;

/// From SIGTERM to SIGKILL for what still runs.
const GRACE: Duration = Duration::from_secs(1);

/// Whether this is the first process.
pub fn is_first() -> bool {
    std::process::id() == 1
}

/// Takes the machine down. The watchdog stays armed meanwhile, so that a way down that gets stuck ends too.
pub fn go(ending: Ending, watchdog: Option<Watchdog>) -> ! {
    let text = match ending {
        Ending::PowerOff => "switching off",
        Ending::Reboot => "starting anew",
        Ending::Halt => "standing still",
    };
    say::say(text);
    if is_first() {
        signal_all(Signal::TERM);
        wait_for_all(GRACE);
        signal_all(Signal::KILL);
        wait_for_all(GRACE);
    }
    say::close();
    rustix::fs::sync();
    for folder in ["/data", "/boot"] {
        // What is not mounted needs nothing; a disk that is stuck is left to the watchdog.
        let _ = unmount(folder, UnmountFlags::empty());
    }
    rustix::fs::sync();
    match (ending, watchdog) {
        (Ending::Halt, Some(watchdog)) => watchdog.stop(),
        // It stays open: were it closed, the kernel would complain that it was not stopped.
        (_, watchdog) => std::mem::forget(watchdog),
    }
    finish(ending)
}

/// The last call.
fn finish(ending: Ending) -> ! {
    let command = match ending {
        Ending::PowerOff => RebootCommand::PowerOff,
        Ending::Reboot => RebootCommand::Restart,
        Ending::Halt => RebootCommand::Halt,
    };
    if !is_first() {
        std::process::exit(1);
    }
    if let Err(why) = reboot(command) {
        say::console(&format!("edge-init: the kernel refuses: {why}"));
    }
    // The first process must not end; the watchdog ends this.
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// To every process but this one.
fn signal_all(signal: Signal) {
    // kill(-1): the group of process 1, as it were.
    let _ = kill_process_group(Pid::INIT, signal);
}

fn wait_for_all(most: Duration) {
    let end = say::uptime() + most;
    while say::uptime() < end {
        child::ended();
        // All that runs descends from this process, and orphans come to it.
        if child::none() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A failure that leaves the first process nothing to do: tells it, gives people a minute to read it, and starts anew.
pub fn give_up(why: &anyhow::Error, mut watchdog: Option<Watchdog>) -> ! {
    say::say(&format!("{why:#}"));
    if !is_first() {
        std::process::exit(1);
    }
    say::say("the device starts anew in 60 s");
    say::sync();
    let end = say::uptime() + Duration::from_secs(60);
    while say::uptime() < end {
        if let Some(watchdog) = &mut watchdog {
            watchdog.feed(say::uptime());
        }
        child::ended();
        std::thread::sleep(Duration::from_millis(500));
    }
    go(Ending::Reboot, watchdog)
}

/// No panic ends the first process: the kernel would stop with it. It is told, and the machine starts anew.
pub fn on_panic() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        told(panic);
        if is_first() {
            // Nothing of this program's own is called: that may be what went wrong. Whoever reads the console has a moment.
            rustix::fs::sync();
            std::thread::sleep(Duration::from_secs(5));
            finish(Ending::Reboot);
        }
    }));
}
