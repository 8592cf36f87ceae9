//! What the camera decides, shown: class, score, frames per second and what is wrong.
//!
//! ```text
//! Snapshot ── Display::show ──▶ (a thread, at most five times a second, only what changed)
//!                                  └─ face::draw ── canvas ── framebuffer │ ST7789, ILI9341 │ SSD1306 │ PNG
//! ```
//!
//! A display is never a reason to stop classifying: [`Display::show`] only leaves the snapshot behind and returns.
//! A panel that fails is told of once, and tried again every ten seconds.

#![forbid(unsafe_code)]

mod backend;
mod canvas;
mod display;
mod face;
mod snapshot;
mod spec;
mod text;

pub use backend::DisplayError;
pub use canvas::Canvas;
pub use display::Display;
pub use face::draw;
pub use snapshot::{Level, Snapshot, Status};
pub use spec::{Chip, Kind, Lcd, Pins, Spec, SpecError};
