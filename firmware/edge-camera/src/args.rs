//! The command line.

use crate::capture::{Spec, Wanted, parse_rate};
use clap::Parser;
use edge_vision::{Flip, Mount, Roi, Rotate};
use std::path::PathBuf;

/// Classifies what a camera sees and writes a log of it.
///
/// Exit codes: 0 stopped as asked or at the end of the source; 1 internal error; 2 wrong usage; 3 the
/// package was refused; 4 the source failed; 5 the log could not be written; 6 some pictures could not be
/// read (with --once).
#[derive(Parser, Debug)]
#[command(version, verbatim_doc_comment)]
pub struct Args {
    /// The package to run; without it, the built-in EfficientNet-Lite0 (1000 ImageNet classes)
    #[arg(long, value_name = "FILE")]
    pub package: Option<PathBuf>,

    /// Where frames come from: v4l2:/dev/video0, a picture, a folder of pictures, or pattern[:WIDTHxHEIGHT]
    #[arg(long, default_value = "v4l2:/dev/video0")]
    pub source: Spec,

    /// Format to ask a camera for; the nearest one it has is taken
    #[arg(long, value_name = "WxH@FPS", default_value = "640x480@30")]
    pub camera_format: Wanted,

    /// Turn what the camera sees by 90, 180 or 270 degrees clockwise
    #[arg(long, value_name = "DEGREES", default_value = "0")]
    pub rotate: Rotate,

    /// Mirror it, after turning: h left to right, v top to bottom, hv both
    #[arg(long, value_name = "HOW", default_value = "none")]
    pub flip: Flip,

    /// Look at a part of it only, after that: x,y,width,height in pixels or percent, such as 10%,10%,80%,80%
    #[arg(long, value_name = "X,Y,W,H")]
    pub roi: Option<Roi>,

    /// The classification log, JSON lines, appended to; - for standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub log: PathBuf,

    /// Where to show what is decided: fb0, png:FILE[,size=320x240], ssd1306:/dev/i2c-1[,addr=0x3c], or
    /// st7789:/dev/spidev0.0,dc=25[,rst=27,bl=24,size=240x240,rotate=0] and ili9341 alike, lines by their GPIO number
    #[arg(long, value_name = "DISPLAY")]
    pub display: Option<edge_display::Spec>,

    /// Show every picture once, then end (default: start over at the end)
    #[arg(long)]
    pub once: bool,

    /// Pictures per second (default: 1 from files shown over and over, else as fast as they are classified)
    #[arg(long, value_name = "HZ", allow_negative_numbers = true, value_parser = parse_rate)]
    pub rate: Option<f64>,

    /// End after this many frames
    #[arg(long, value_name = "N")]
    pub frames: Option<u64>,

    /// How many classes each line of the log holds
    #[arg(long, default_value_t = 5, value_name = "K")]
    pub top: usize,

    /// Threads that compute (default: all cores)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,

    /// Accept only packages signed by this key; may be repeated
    #[arg(long, value_name = "FILE.pub")]
    pub trusted_key: Vec<PathBuf>,

    /// Which board this is (default: read from the device tree)
    #[arg(long)]
    pub board: Option<String>,
}

impl Args {
    /// How the camera hangs.
    pub fn mount(&self) -> Mount {
        Mount { rotate: self.rotate, flip: self.flip, roi: self.roi }
    }
}
