//! A Linux framebuffer, as files: the kernel tells its geometry in `/sys/class/graphics/fb0`, and its pixels are
//! written like a file's. That needs no `ioctl` and no mapping.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::FileExt;
use std::path::Path;

use embedded_graphics::pixelcolor::raw::ToBytes;
use embedded_graphics::pixelcolor::{Rgb565, Rgb888, RgbColor};

use super::{DisplayError, Panel};
use crate::canvas::Canvas;
use crate::snapshot::Snapshot;

/// The largest side that is taken for true, in pixels.
const MAX_SIDE: usize = 16_384;

/// An open framebuffer.
pub(super) struct Framebuffer {
    file: File,
    name: String,
    format: Format,
    /// Bytes from one row to the next.
    stride: u64,
    /// Where the first pixel that is seen lies, in bytes.
    start: u64,
    canvas: Canvas<Rgb888>,
    row: Vec<u8>,
    /// Digests of the rows that were written; a row that stays the same isn't written again.
    written: Vec<Option<u64>>,
}

/// How a pixel lies in memory; the lowest byte comes first.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    Rgb565,
    Bgr888,
    Xrgb8888,
}

impl Format {
    fn bytes(self) -> usize {
        match self {
            Self::Rgb565 => 2,
            Self::Bgr888 => 3,
            Self::Xrgb8888 => 4,
        }
    }

    fn write(self, pixels: &[Rgb888], out: &mut Vec<u8>) {
        out.clear();
        match self {
            Self::Rgb565 => out.extend(pixels.iter().flat_map(|&p| Rgb565::from(p).to_le_bytes())),
            Self::Bgr888 => out.extend(pixels.iter().flat_map(|p| [p.b(), p.g(), p.r()])),
            // The fourth byte is opacity, where it is anything.
            Self::Xrgb8888 => out.extend(pixels.iter().flat_map(|p| [p.b(), p.g(), p.r(), 255])),
        }
    }
}

impl Framebuffer {
    /// Opens `device`, which `sysfs` describes.
    pub(super) fn open(device: &Path, sysfs: &Path) -> Result<Self, DisplayError> {
        let read = |name: &str| {
            let path = sysfs.join(name);
            fs::read_to_string(&path).map_err(|e| DisplayError::io(format!("cannot read {}", path.display()), e))
        };
        let odd = |name: &str, text: &str| {
            DisplayError::Framebuffer(format!("{} says {:?}", sysfs.join(name).display(), text.trim()))
        };
        let pair = |text: &str, by: char| -> Option<(usize, usize)> {
            let (a, b) = text.trim().split_once(by)?;
            Some((a.parse().ok()?, b.parse().ok()?))
        };
        let text = read("virtual_size")?;
        let within = |&(w, h): &(usize, usize)| (1..=MAX_SIDE).contains(&w) && (1..=MAX_SIDE).contains(&h);
        let memory = pair(&text, ',').filter(within).ok_or_else(|| odd("virtual_size", &text))?;
        // What is seen may be a part of the memory, as with two buffers above each other: "U:1920x1080p-60".
        let mode = fs::read_to_string(sysfs.join("modes")).unwrap_or_default();
        let mode = mode.lines().next().and_then(|line| line.split_once(':')).and_then(|(_, size)| {
            let size = size.split(|c: char| !c.is_ascii_digit() && c != 'x').next()?;
            pair(size, 'x').filter(within)
        });
        let (width, height) = mode.map_or(memory, |(w, h)| (w.min(memory.0), h.min(memory.1)));
        let text = read("bits_per_pixel")?;
        let format = match text.trim() {
            "16" => Format::Rgb565,
            "24" => Format::Bgr888,
            "32" => Format::Xrgb8888,
            other => {
                let name = device.display();
                let why = format!("{name} has {other} bits a pixel; 16, 24 and 32 can be drawn on");
                return Err(DisplayError::Framebuffer(why));
            }
        };
        let text = read("stride")?;
        let stride = text.trim().parse().ok().filter(|s| (memory.0 * format.bytes()..=MAX_SIDE * 16).contains(s));
        let stride = stride.ok_or_else(|| odd("stride", &text))?;
        let pan = fs::read_to_string(sysfs.join("pan")).ok().and_then(|text| pair(&text, ',')).unwrap_or_default();
        let pan = (pan.0.min(memory.0 - width), pan.1.min(memory.1 - height));
        let file = File::options().write(true).open(device).map_err(|e| {
            DisplayError::io(format!("cannot open {} (is this user in the group video?)", device.display()), e)
        })?;
        Ok(Self {
            file,
            name: device.display().to_string(),
            format,
            stride: stride as u64,
            start: (pan.1 * stride + pan.0 * format.bytes()) as u64,
            canvas: Canvas::new(width as u32, height as u32, Rgb888::BLACK),
            row: Vec::new(),
            written: vec![None; height],
        })
    }
}

impl Panel for Framebuffer {
    fn show(&mut self, snapshot: &Snapshot) -> Result<(), DisplayError> {
        let Ok(()) = crate::draw(snapshot, &mut self.canvas);
        for (y, written) in self.written.iter_mut().enumerate() {
            self.format.write(self.canvas.rows(y..y + 1), &mut self.row);
            let mut hasher = DefaultHasher::new();
            self.row.hash(&mut hasher);
            let digest = Some(hasher.finish());
            if *written != digest {
                self.file
                    .write_all_at(&self.row, self.start + y as u64 * self.stride)
                    .map_err(|e| DisplayError::io(format!("cannot draw on {}", self.name), e))?;
                *written = digest;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::rgb_bytes;
    use std::path::PathBuf;

    fn fake(folder: &Path, files: &[(&str, &str)]) -> (PathBuf, PathBuf) {
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
        let device = folder.join("fb0");
        fs::write(&device, []).unwrap();
        (device, folder.into())
    }

    fn snapshot(label: &str) -> Snapshot {
        Snapshot { label: label.into(), known: true, score: 0.8, ..Snapshot::default() }
    }

    fn drawn(label: &str, width: u32, height: u32) -> Canvas<Rgb888> {
        let mut canvas = Canvas::new(width, height, Rgb888::BLACK);
        crate::draw(&snapshot(label), &mut canvas).unwrap();
        canvas
    }

    #[test]
    fn every_depth_is_written_where_it_belongs() {
        for (bits, bytes) in [("16", 2), ("24", 3), ("32", 4)] {
            let folder = tempfile::tempdir().unwrap();
            let stride = 160 * bytes + 12;
            let text = format!("{stride}\n");
            let files = [("virtual_size", "160,240\n"), ("bits_per_pixel", bits), ("stride", &text)];
            let more = [("modes", "U:160x120p-60\nU:80x60p-0\n"), ("pan", "0,120\n")];
            let (device, sysfs) = fake(folder.path(), &[files.as_slice(), &more].concat());
            let mut framebuffer = Framebuffer::open(&device, &sysfs).unwrap();
            framebuffer.show(&snapshot("cat")).unwrap();
            framebuffer.show(&snapshot("dog")).unwrap();
            let memory = fs::read(&device).unwrap();
            // The second of two buffers is seen; the first stays as it is.
            assert!(memory[..stride * 120].iter().all(|b| *b == 0), "{bits}");
            let expected = drawn("dog", 160, 120);
            let seen: Vec<u8> = memory[stride * 120..]
                .chunks(stride)
                .flat_map(|row| row[..160 * bytes].chunks(bytes))
                .flat_map(|p| match bytes {
                    2 => {
                        let bits = u16::from_le_bytes([p[0], p[1]]);
                        let color =
                            Rgb888::from(Rgb565::new((bits >> 11) as u8, (bits >> 5 & 63) as u8, (bits & 31) as u8));
                        [color.r(), color.g(), color.b()]
                    }
                    _ => [p[2], p[1], p[0]],
                })
                .collect();
            let rounded = |p: &Rgb888| if bytes == 2 { Rgb888::from(Rgb565::from(*p)) } else { *p };
            let expected: Vec<Rgb888> = expected.pixels().iter().map(rounded).collect();
            assert!(seen == rgb_bytes(&expected), "{bits} bits");
        }
    }

    #[test]
    fn rows_that_stay_are_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let (device, sysfs) =
            fake(folder.path(), &[("virtual_size", "64,48"), ("bits_per_pixel", "32"), ("stride", "256")]);
        let mut framebuffer = Framebuffer::open(&device, &sysfs).unwrap();
        framebuffer.show(&snapshot("cat")).unwrap();
        fs::write(&device, []).unwrap();
        framebuffer.show(&snapshot("cat")).unwrap();
        assert_eq!(fs::read(&device).unwrap().len(), 0);
    }

    #[test]
    fn odd_framebuffers_are_named() {
        for (files, why) in [
            (vec![], "virtual_size: No such file"),
            (vec![("virtual_size", "0,4")], "virtual_size says \"0,4\""),
            (vec![("virtual_size", "8,4"), ("bits_per_pixel", "8")], "has 8 bits a pixel"),
            (vec![("virtual_size", "8,4"), ("bits_per_pixel", "16"), ("stride", "15")], "stride says \"15\""),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let (device, sysfs) = fake(folder.path(), &files);
            let error = Framebuffer::open(&device, &sysfs).err().unwrap().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
