//! The command line, which is the configuration too: every flag but those of [`COMMAND_LINE_ONLY`] is a key of the
//! configuration file, under the same name and read by the same parser. A flag that is a path says so by its `value_hint`,
//! so that the file may name it relative to its own folder; `help_heading` says which part of the program it belongs to.

use crate::backend::Kind;
use crate::capture::{Raw, Spec, Wanted, parse_rate};
use crate::link::{self, Bridge};
use crate::units::{Budget, Size, Sync, factor, period, score, span, whole};
use clap::{ArgAction, Parser, ValueHint};
use edge_device::MOST_FRAMES;
use edge_link::Address;
use edge_vision::{Flip, Mount, Roi, Rotate};
use std::path::PathBuf;
use std::time::Duration;

/// Flags that say what to do with the configuration rather than what it is.
pub const COMMAND_LINE_ONLY: [&str; 7] = ["config", "check", "json", "install", "link-stdio", "help", "version"];

/// Heading of the flags that choose and shape the source: a reload opens it anew when one of them changed.
pub const SOURCE: &str = "Source";
/// Heading of the flags of what is seen of a frame.
pub const PICTURE: &str = "Picture";
/// Heading of the flags of the decision.
pub const DECISION: &str = "Decision";
/// Heading of the flags of the log.
pub const LOG: &str = "Log";

/// Heading of the flags of a new package's trial.
pub const TRIAL: &str = "A new package";

/// Heading of the flags of the link to a host.
pub const LINK: &str = "Link to a host";

/// Heading of the flags that gather photos to train with.
pub const COLLECT: &str = "Photos to train with";

/// Classifies what a camera sees and writes a log of it.
///
/// Exit codes: 0 stopped as asked or at the end of the source; 1 internal error; 2 wrong usage or
/// configuration; 3 the package was refused; 4 the source failed; 5 the log could not be written; 6 some
/// pictures could not be read (with --once); 7 the package could not be written (with --install); 8 the backend
/// asked for does not work on this machine. A second SIGTERM or SIGINT ends it at once, with 128 and the signal's
/// number.
#[derive(Parser, Debug, Clone)]
#[command(version, verbatim_doc_comment)]
pub struct Args {
    /// Read settings from this TOML file; its keys are these flags' names, and flags given here override it
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,

    /// Print the resolved settings as such a file, or what is wrong with them, and end
    #[arg(long)]
    pub check: bool,

    /// With --check: print JSON
    #[arg(long, requires = "check")]
    pub json: bool,

    /// Put this package into the slots, on trial, and end; one that runs takes it when it is told to reload. What is wrong
    /// with the package is found before anything is written
    #[arg(long, value_name = "FILE.edgepack", value_hint = ValueHint::FilePath, conflicts_with = "check")]
    pub install: Option<PathBuf>,

    /// Join standard input and output to the link of a camera that runs here, and end with it: for ssh. Its socket is
    /// unix:PATH, by default the one of the configuration, or /run/edge-camera/link
    #[arg(long, value_name = "unix:PATH", num_args = 0..=1, require_equals = true, default_missing_value = "",
          conflicts_with_all = ["check", "install"])]
    pub link_stdio: Option<Bridge>,

    /// The package to run; without it, the built-in EfficientNet-Lite0 (1000 ImageNet classes)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub package: Option<PathBuf>,

    /// Run the active one of the two packages in this folder, a/package.edgepack and b/package.edgepack; the other
    /// one where it is refused
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub slots: Option<PathBuf>,

    /// Where frames come from: v4l2:/dev/video0, a pattern such as v4l2:/dev/v4l/by-id/usb-*, v4l2:name=PART-OF-NAME, a
    /// stream on standard input (-, Motion-JPEG or see --raw), a picture, a folder of pictures, or pattern[:WIDTHxHEIGHT]
    #[arg(long, default_value = "v4l2:/dev/video0", help_heading = SOURCE)]
    pub source: Spec,

    /// Format to ask a camera for; the nearest one it has is taken. With :FORMAT (YUYV, NV12, YU12, RGB3, BGR3, MJPEG,
    /// GREY) only that one
    #[arg(long, value_name = "WxH@FPS[:FORMAT]", default_value = "640x480@30", help_heading = SOURCE)]
    pub camera_format: Wanted,

    /// What the stream on standard input is made of, if not JPEGs: WxH:FORMAT with yuv420, nv12, yuyv, rgb24, bgr24 or
    /// gray, and :bt709, :bt2020 or :full where its colours are not BT.601 with limited range
    #[arg(long, value_name = "WxH:FORMAT", help_heading = SOURCE)]
    pub raw: Option<Raw>,

    /// Turn what the camera sees by 90, 180 or 270 degrees clockwise
    #[arg(long, value_name = "DEGREES", default_value = "0", help_heading = PICTURE)]
    pub rotate: Rotate,

    /// Mirror it, after turning: h left to right, v top to bottom, hv both
    #[arg(long, value_name = "HOW", default_value = "none", help_heading = PICTURE)]
    pub flip: Flip,

    /// Look at a part of it only, after that: x,y,width,height in pixels or percent, such as 10%,10%,80%,80%
    #[arg(long, value_name = "X,Y,W,H", help_heading = PICTURE)]
    pub roi: Option<Roi>,

    /// Where to show what is decided: fb0, png:FILE[,size=320x240], ssd1306:/dev/i2c-1[,addr=0x3c], or
    /// st7789:/dev/spidev0.0,dc=25[,rst=27,bl=24,size=240x240,rotate=0] and ili9341 alike, lines by their GPIO number
    #[arg(long, value_name = "DISPLAY")]
    pub display: Option<edge_display::Spec>,

    /// Show every picture once, then end (default: start over at the end)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", action = ArgAction::Set, hide_possible_values = true, help_heading = SOURCE)]
    pub once: bool,

    /// Pictures per second (default: 1 from files shown over and over, else as fast as they are classified)
    #[arg(long, value_name = "HZ", allow_negative_numbers = true, value_parser = parse_rate, help_heading = SOURCE)]
    pub rate: Option<f64>,

    /// End after this many frames
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<u64>(0, u64::MAX))]
    pub frames: Option<u64>,

    /// Score from which a class is decided for, 0 to 1; below it: "unknown" (default: the package's)
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true, value_parser = score, help_heading = DECISION)]
    pub threshold: Option<f32>,

    /// Score below which the class decided for is left (default: the threshold)
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true, value_parser = score, help_heading = DECISION)]
    pub leave_threshold: Option<f32>,

    /// Score by which another class must lead the one decided for
    #[arg(long, value_name = "SCORE", default_value = "0", allow_negative_numbers = true, value_parser = score,
          help_heading = DECISION)]
    pub margin: f32,

    /// Decide on the mean of the scores of the last N frames
    #[arg(long, value_name = "N", default_value = "1", help_heading = DECISION,
          allow_negative_numbers = true, value_parser = whole::<usize>(1, MOST_FRAMES as u64))]
    pub smooth: usize,

    /// How long a decision stands at least
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = span, help_heading = DECISION)]
    pub dwell: Duration,

    /// The classification log, JSON lines, appended to; - for standard output
    #[arg(long, value_name = "FILE", default_value = "-", value_hint = ValueHint::FilePath, help_heading = LOG)]
    pub log: PathBuf,

    /// How many classes each line of the log holds
    #[arg(long, default_value = "5", value_name = "K", allow_negative_numbers = true, value_parser = whole::<usize>(0, 65_536), help_heading = LOG)]
    pub top: usize,

    /// Log only frames whose decision is another than the frame's before (and notices and summaries)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", action = ArgAction::Set, hide_possible_values = true, help_heading = LOG)]
    pub on_change: bool,

    /// Log a summary this often: rates, percentiles of latency, decisions (default: none)
    #[arg(long, value_name = "TIME", value_parser = period, help_heading = LOG)]
    pub summary: Option<Duration>,

    /// Begin a new file before the log's file grows beyond this: FILE becomes FILE.1, FILE.1 becomes FILE.2 (default: a
    /// tenth of --log-total, or never)
    #[arg(long, value_name = "SIZE", help_heading = LOG)]
    pub log_max_size: Option<Size>,

    /// Keep all files of the log together below this; the oldest go (default: ten times --log-max-size)
    #[arg(long, value_name = "SIZE", help_heading = LOG)]
    pub log_total: Option<Size>,

    /// When the log is made to reach the disk: never (the kernel does, within half a minute), rotate (when a file
    /// is full, and at the end), every:TIME, line
    #[arg(long, value_name = "WHEN", default_value = "never", help_heading = LOG)]
    pub log_sync: Sync,

    /// Leave out lines of frames that change nothing where more than this would be written, such as 5MB/h
    #[arg(long, value_name = "SIZE/h", help_heading = LOG)]
    pub log_budget: Option<Budget>,

    /// Threads that compute (default: all cores)
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<u16>(1, 256))]
    pub threads: Option<u16>,

    /// What computes: auto takes tensorrt where a GPU, TensorRT and trtexec are found, else cpu, and says why in its first line;
    /// tensorrt ends with an error where it does not work
    #[arg(long, value_name = "BACKEND", value_enum, default_value = "auto", hide_possible_values = true)]
    pub backend: Kind,

    /// Where TensorRT's engines are kept; nobody else may have access to this folder (default: tensorrt in the service's cache
    /// folder, or in ~/.cache/edge-camera)
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub engine_cache: Option<PathBuf>,

    /// Accept only packages signed by this key; may be repeated
    #[arg(long, value_name = "FILE.pub", value_hint = ValueHint::FilePath)]
    pub trusted_key: Vec<PathBuf>,

    /// How long a new package is tried before it is kept, beside the one before it; 0 keeps it once its golden samples have
    /// passed
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = span, help_heading = TRIAL)]
    pub trial: Duration,

    /// Share of the time that the package before it may take to look at the same frames; 0: it looks at none and is not in
    /// memory
    #[arg(long, value_name = "SHARE", default_value = "0.1", allow_negative_numbers = true, value_parser = score,
          help_heading = TRIAL)]
    pub trial_share: f32,

    /// Run the package before it again where the new one takes more than so many times as long, by the medians
    #[arg(long, value_name = "FACTOR", default_value = "5", allow_negative_numbers = true, value_parser = factor,
          help_heading = TRIAL)]
    pub trial_latency: f64,

    /// Run the package before it again where the two decide the same for less than this share of the frames, 0 to 1
    /// (default: whatever they decide)
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true, value_parser = score, help_heading = TRIAL)]
    pub trial_agreement: Option<f32>,

    /// Answer a host here: unix:PATH (a socket for this user and group), serial:/dev/ttyS1[,115200] (a serial line or a virtio
    /// port), or tcp:ADDRESS:PORT,key=FILE (encrypted, for who has the key of `edge-flash link-key`); may be repeated
    #[arg(long, value_name = "WHERE", value_parser = link::place, help_heading = LINK)]
    pub link: Vec<Address>,

    /// Let a host that the link leads to also change things: put frames in, set the clock, switch slots, update, restart
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", action = ArgAction::Set, hide_possible_values = true, help_heading = LINK)]
    pub link_control: bool,

    /// Save the source's frames into this folder as photos to train with, and classify nothing
    #[arg(long, value_name = "DIR", requires = "label", value_hint = ValueHint::DirPath, help_heading = COLLECT)]
    pub collect: Option<PathBuf>,

    /// The class that collected photos are of; its folder in DIR
    #[arg(long, value_name = "CLASS", requires = "collect", help_heading = COLLECT)]
    pub label: Option<String>,

    /// Time from one collected photo to the next
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = span, help_heading = COLLECT)]
    pub every: Duration,

    /// End after this many collected photos
    #[arg(long, value_name = "N", requires = "collect", allow_negative_numbers = true,
          value_parser = whole::<u64>(1, u64::MAX), help_heading = COLLECT)]
    pub count: Option<u64>,

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
