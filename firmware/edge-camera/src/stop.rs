//! How the program ends or begins anew: signals, and failures with their exit codes.

use crate::log::Gate;
use crate::service;
use anyhow::{Context, anyhow};
use edge_engine::EngineError;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Arriving;
use signal_hook::low_level::exit;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

/// How long the loop has to end by itself after a signal: a classification may take longer, but a service manager
/// and a person are owed an end within a second.
const GRACE: Duration = Duration::from_millis(500);
/// How long the end then still waits for a line of the log that is being written.
const LAST_LINE: Duration = Duration::from_millis(200);

/// What signals asked for. SIGTERM and SIGINT end the program within a second, a second one of them at once; SIGHUP
/// asks for a reload.
#[derive(Clone)]
pub struct Signals(Arc<Shared>);

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    reload: AtomicBool,
    gate: Gate,
    last: Mutex<Option<LastAct>>,
}

/// What is done once when the program ends in order.
pub type LastAct = Box<dyn FnOnce() + Send>;

impl Signals {
    /// Starts to listen, on a thread of its own.
    pub fn listen() -> Result<Signals, Failure> {
        let shared = Arc::new(Shared::default());
        let thread_shared = shared.clone();
        let mut arriving = Arriving::new([SIGTERM, SIGINT, SIGHUP]).context("cannot install signal handlers")?;
        let terminal = std::io::stderr().is_terminal();
        let listen = move || {
            for signal in arriving.forever() {
                // A terminal that hung up is gone; whoever sat there wants no reload.
                let hung_up = terminal && !std::io::stderr().is_terminal();
                if signal == SIGHUP && !hung_up {
                    thread_shared.reload.store(true, Ordering::Relaxed);
                } else if thread_shared.stop.swap(true, Ordering::Relaxed) {
                    exit(128 + signal);
                } else {
                    service::stopping();
                    let shared = thread_shared.clone();
                    std::thread::spawn(move || shared.end());
                }
            }
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(listen)
            .context("cannot start the thread that listens to signals")?;
        Ok(Signals(shared))
    }

    /// Whether the end was asked for.
    pub fn requested(&self) -> bool {
        self.0.stop.load(Ordering::Relaxed)
    }

    /// Whether a reload was asked for since this was asked last.
    pub fn reload(&self) -> bool {
        self.0.reload.swap(false, Ordering::Relaxed)
    }

    /// What is to be done when the program ends in order, which a crash, a kill and a second signal are not. It takes the
    /// place of what was said before.
    pub fn at_end(&self, act: Option<LastAct>) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = act;
    }

    /// The program ends in order.
    pub fn ended(&self) {
        self.0.last_act();
    }

    /// What the log holds while it writes a line, so that the end of the program waits for it.
    pub fn gate(&self) -> Gate {
        self.0.gate.clone()
    }
}

impl Shared {
    /// Done under the lock, so that whoever comes second waits for it.
    fn last_act(&self) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(act) = last.take() {
            act();
        }
    }

    /// Ends the process for a loop that is too busy to. Lines are not buffered, so there is nothing to lose but one
    /// that is just being written.
    fn end(&self) {
        sleep(GRACE);
        self.last_act();
        let mut waited = Duration::ZERO;
        let tick = Duration::from_millis(5);
        while waited < LAST_LINE {
            if let Ok(_nobody_writes) = self.gate.try_lock() {
                exit(0);
            }
            sleep(tick);
            waited += tick;
        }
        exit(0);
    }
}

/// An error with the exit code it ends the program with.
#[derive(Debug)]
pub struct Failure {
    /// What to print.
    pub cause: anyhow::Error,
    /// As documented in `--help`.
    pub code: u8,
}

impl Failure {
    /// An argument or the configuration names something that cannot be used.
    pub fn usage(cause: impl Into<anyhow::Error>) -> Failure {
        Failure { cause: cause.into(), code: 2 }
    }

    /// The package was refused.
    pub fn package(cause: impl Into<anyhow::Error>) -> Failure {
        Failure { cause: cause.into(), code: 3 }
    }

    /// The camera or folder failed.
    pub fn source(cause: impl Into<anyhow::Error>) -> Failure {
        Failure { cause: cause.into(), code: 4 }
    }

    /// The log could not be written.
    pub fn log(cause: impl Into<anyhow::Error>) -> Failure {
        Failure { cause: cause.into(), code: 5 }
    }

    /// A package could not be written into the slots.
    pub fn slots(cause: impl Into<anyhow::Error>) -> Failure {
        Failure { cause: cause.into(), code: 7 }
    }

    /// What was asked to compute cannot, on this machine as it is.
    pub fn backend(cause: impl Into<anyhow::Error>) -> Failure {
        Failure { cause: cause.into(), code: 8 }
    }

    /// A package that does not run: refused, unless TensorRT says that it is for the machine's sake.
    pub fn of_package(cause: anyhow::Error) -> Failure {
        let of_machine = |e: &(dyn std::error::Error + 'static)| {
            matches!(e.downcast_ref::<EngineError>(), Some(EngineError::TensorRt(_)))
        };
        if cause.chain().any(of_machine) { Failure::backend(cause) } else { Failure::package(cause) }
    }

    /// Some pictures could not be read; each was named when it was met.
    pub fn pictures(count: u64) -> Failure {
        Failure { cause: anyhow!("{count} picture(s) could not be classified"), code: 6 }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(cause: anyhow::Error) -> Failure {
        Failure { cause, code: 1 }
    }
}
