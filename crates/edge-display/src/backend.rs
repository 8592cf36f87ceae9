//! What can be drawn on, one module each.

mod framebuffer;
#[cfg(feature = "spi")]
mod lcd;
#[cfg(feature = "i2c")]
mod oled;
mod png;

use std::fmt::Debug;
use std::time::Duration;

use embedded_graphics::pixelcolor::{Rgb888, RgbColor};

use crate::snapshot::Snapshot;
use crate::spec::Kind;

/// The shortest time between two drawings: what changes faster than five times a second nobody reads.
const INTERVAL: Duration = Duration::from_millis(200);

/// Why a display can't be drawn on.
#[derive(Debug, thiserror::Error)]
pub enum DisplayError {
    /// This build was made without it.
    #[error("this build knows no such display: the feature {feature:?} of edge-camera is off")]
    NotBuilt {
        /// The Cargo feature that has it.
        feature: &'static str,
    },
    /// A file or device failed.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// What happened.
        error: std::io::Error,
    },
    /// A panel on a bus failed.
    #[error("{what}: {error}")]
    Bus {
        /// What was tried.
        what: String,
        /// What the bus says.
        error: String,
    },
    /// A framebuffer of another kind.
    #[error("{0}")]
    Framebuffer(
        /// What is wrong with it.
        String,
    ),
}

impl DisplayError {
    pub(crate) fn io(what: impl Into<String>, error: std::io::Error) -> Self {
        Self::Io { what: what.into(), error }
    }

    #[cfg_attr(not(any(feature = "spi", feature = "i2c")), allow(dead_code))]
    fn bus(what: impl Into<String>, error: impl ToString) -> Self {
        Self::Bus { what: what.into(), error: error.to_string() }
    }

    /// As [`DisplayError::bus`], for drivers whose errors have no words.
    #[cfg_attr(not(any(feature = "spi", feature = "i2c")), allow(dead_code))]
    fn driver(what: impl Into<String>, error: impl Debug) -> Self {
        Self::Bus { what: what.into(), error: format!("{error:?}") }
    }
}

/// Something that shows snapshots.
pub(crate) trait Panel {
    /// Draws all of it.
    fn show(&mut self, snapshot: &Snapshot) -> Result<(), DisplayError>;

    /// The shortest time between two drawings.
    fn interval(&self) -> Duration {
        INTERVAL
    }
}

/// Whether this build has such a display.
pub(crate) fn is_built(kind: &Kind) -> Result<(), DisplayError> {
    match kind {
        Kind::Lcd(_) if cfg!(not(feature = "spi")) => Err(DisplayError::NotBuilt { feature: "display-spi" }),
        Kind::Oled { .. } if cfg!(not(feature = "i2c")) => Err(DisplayError::NotBuilt { feature: "display-i2c" }),
        _ => Ok(()),
    }
}

/// Opens a display for as long as `draw` draws on it.
pub(crate) fn with_panel(
    kind: &Kind,
    draw: &mut dyn FnMut(&mut dyn Panel) -> Result<(), DisplayError>,
) -> Result<(), DisplayError> {
    match kind {
        Kind::Framebuffer { device, sysfs } => draw(&mut framebuffer::Framebuffer::open(device, sysfs)?),
        Kind::Png { path, size } => draw(&mut png::Png::new(path, *size)?),
        #[cfg(feature = "spi")]
        Kind::Lcd(lcd) => lcd::with_lcd(lcd, draw),
        #[cfg(feature = "i2c")]
        Kind::Oled { device, address, height, upside_down } => {
            oled::with_oled(device, *address, *height, *upside_down, draw)
        }
        #[cfg(not(all(feature = "spi", feature = "i2c")))]
        other => is_built(other),
    }
}

/// Red, green and blue of each pixel.
pub(crate) fn rgb_bytes(pixels: &[Rgb888]) -> Vec<u8> {
    pixels.iter().flat_map(|p| [p.r(), p.g(), p.b()]).collect()
}

#[cfg(all(test, not(feature = "spi"), not(feature = "i2c")))]
mod tests {
    use super::*;

    #[test]
    fn a_feature_that_is_off_is_named() {
        for (spec, feature) in [("st7789:/dev/spidev0.0,dc=25", "display-spi"), ("ssd1306:/dev/i2c-1", "display-i2c")] {
            let kind = spec.parse::<crate::Spec>().unwrap().kind;
            let error = is_built(&kind).unwrap_err().to_string();
            assert!(error.contains(&format!("the feature {feature:?} of edge-camera is off")), "{error}");
            assert!(with_panel(&kind, &mut |_| Ok(())).is_err());
        }
    }
}
