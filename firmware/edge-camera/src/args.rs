//! The command line.

use crate::capture::{Raw, Spec, Wanted, parse_rate};
use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;

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

    /// Where frames come from: v4l2:/dev/video0, a pattern such as v4l2:/dev/v4l/by-id/usb-*, v4l2:name=PART-OF-NAME, a
    /// stream on standard input (-, Motion-JPEG or see --raw), a picture, a folder of pictures, or pattern[:WIDTHxHEIGHT]
    #[arg(long, default_value = "v4l2:/dev/video0")]
    pub source: Spec,

    /// Format to ask a camera for; the nearest one it has is taken. With :FORMAT (YUYV, NV12, YU12, RGB3, BGR3, MJPEG,
    /// GREY) only that one
    #[arg(long, value_name = "WxH@FPS[:FORMAT]", default_value = "640x480@30")]
    pub camera_format: Wanted,

    /// What the stream on standard input is made of, if not JPEGs: WxH:FORMAT with yuv420, nv12, yuyv, rgb24, bgr24 or
    /// gray, and :bt709, :bt2020 or :full where its colours are not BT.601 with limited range
    #[arg(long, value_name = "WxH:FORMAT")]
    pub raw: Option<Raw>,

    /// The classification log, JSON lines, appended to; - for standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub log: PathBuf,

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

    /// Save the source's frames into this folder as photos to train with, and classify nothing
    #[arg(long, value_name = "DIR", requires = "label")]
    pub collect: Option<PathBuf>,

    /// The class that collected photos are of; its folder in DIR
    #[arg(long, value_name = "CLASS", requires = "collect")]
    pub label: Option<String>,

    /// Time from one collected photo to the next
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration, requires = "collect")]
    pub every: Duration,

    /// End after this many collected photos
    #[arg(long, value_name = "N", requires = "collect")]
    pub count: Option<u64>,

    /// Which board this is (default: read from the device tree)
    #[arg(long)]
    pub board: Option<String>,
}
