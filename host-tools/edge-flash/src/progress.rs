//! How far long work is.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for so many bytes on standard error, silent where that is no terminal.
pub fn bytes(length: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let template = "{msg} [{bar:30}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar()));
    bar.set_message(what.to_string());
    bar
}
