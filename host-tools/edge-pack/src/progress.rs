//! Long work: how far it is, and how it is told to stop.

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A bar on standard error, silent where that is no terminal.
pub fn bar(length: usize, what: &str, unit: &str) -> ProgressBar {
    let bar = ProgressBar::new(length as u64);
    let template = format!("{{msg}} [{{bar:30}}] {{pos}}/{{len}} {unit}, {{eta}} left");
    bar.set_style(ProgressStyle::with_template(&template).unwrap_or(ProgressStyle::default_bar()));
    bar.set_message(what.to_string());
    bar
}

/// Set by an interrupt; a second one ends the process at once.
pub fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the conditional exit looks at the flag before the first signal sets it.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, flag.clone())
            .and_then(|_| signal_hook::flag::register(signal, flag.clone()))
            .context("cannot install signal handlers")?;
    }
    Ok(flag)
}
