//! How the program ends: a flag set by signals, and failures with their exit codes.

use anyhow::{Context, anyhow};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set by SIGTERM and SIGINT; a second signal ends the process at once.
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Installs the handlers.
    pub fn install() -> Result<StopFlag, Failure> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // The order matters: the conditional exit looks at the flag before the first signal sets it.
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, flag.clone())
                .and_then(|_| signal_hook::flag::register(signal, flag.clone()))
                .context("cannot install signal handlers")?;
        }
        Ok(StopFlag(flag))
    }

    /// Whether a signal came.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
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
    /// An argument names something that cannot be used.
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
