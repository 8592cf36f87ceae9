//! A picture in a file, for a web page, or for looking at what a display would show.

use std::path::{Path, PathBuf};
use std::time::Duration;

use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use super::{DisplayError, Panel, rgb_bytes};
use crate::canvas::Canvas;
use crate::snapshot::Snapshot;

/// A file that is replaced as a whole, at most once a second: whoever opens it sees one picture or the next.
pub(super) struct Png {
    path: PathBuf,
    canvas: Canvas<Rgb888>,
}

impl Png {
    /// Writes to `path`, whose folder must be there.
    pub(super) fn new(path: &Path, (width, height): (u32, u32)) -> Result<Self, DisplayError> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::metadata(folder)
            .map_err(|e| DisplayError::io(format!("{}: its folder cannot be used", path.display()), e))?;
        Ok(Self { path: path.into(), canvas: Canvas::new(width, height, Rgb888::BLACK) })
    }
}

impl Panel for Png {
    fn show(&mut self, snapshot: &Snapshot) -> Result<(), DisplayError> {
        let Ok(()) = crate::draw(snapshot, &mut self.canvas);
        let size = embedded_graphics::geometry::OriginDimensions::size(&self.canvas);
        let failed = |e| DisplayError::io(format!("cannot write {}", self.path.display()), e);
        let mut bytes = Vec::new();
        PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Up)
            .write_image(&rgb_bytes(self.canvas.pixels()), size.width, size.height, ExtendedColorType::Rgb8)
            .map_err(|e| failed(std::io::Error::other(e)))?;
        edge_package::replace_file(&self.path, &bytes, 0o644).map_err(failed)
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(1)
    }
}
