//! A stream on standard input: Motion-JPEG, or raw frames.
//!
//! Where frames come as fast as a camera makes them, the newest one wins and the pipe never backs up. With `--once` each
//! frame is given out, in order, and the pipe waits.

use super::pool::Pool;
use super::shared::Shared;
use super::{Frame, Grab, Payload, Source, parse_format, parse_size};
use crate::stop::Failure;
use anyhow::{Context, bail};
use edge_vision::{ColorMatrix, ColorRange, ColorSpace, Piece, PixelFormat, RawSplitter, Splitter};
use std::io::{ErrorKind, IsTerminal, Read};
use std::str::FromStr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Bytes read at a time; what a pipe holds.
const CHUNK: usize = 1 << 16;

/// A live stream that is silent this long has stalled, unless its frames are farther apart than a third of it.
const STALL: Duration = Duration::from_millis(1500);

/// What `--raw` says of a stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Raw {
    width: u32,
    height: u32,
    format: PixelFormat,
    color: ColorSpace,
}

impl FromStr for Raw {
    type Err = String;

    fn from_str(text: &str) -> Result<Raw, String> {
        let mut parts = text.split(':');
        let (width, height) = parse_size(parts.next().unwrap_or_default())?;
        let format = parse_format(parts.next().ok_or("a pixel format is missing, as in 640x480:yuv420")?)?;
        if format == PixelFormat::Mjpeg {
            return Err("JPEGs are not raw; leave --raw out".into());
        }
        let mut color = ColorSpace::default();
        for part in parts {
            match part {
                "bt601" => color.matrix = ColorMatrix::Bt601,
                "bt709" => color.matrix = ColorMatrix::Bt709,
                "bt2020" => color.matrix = ColorMatrix::Bt2020,
                "full" => color.range = ColorRange::Full,
                "limited" => color.range = ColorRange::Limited,
                _ => return Err(format!("{part:?} says nothing of colours; bt601, bt709, bt2020, full, limited do")),
            }
        }
        Ok(Raw { width, height, format, color })
    }
}

impl Raw {
    /// Bytes of a frame. Odd sides round up where pixels share their colour.
    fn length(&self) -> usize {
        let (w, h) = (self.width as usize, self.height as usize);
        match self.format {
            PixelFormat::Yuyv => w.div_ceil(2) * 4 * h,
            PixelFormat::Nv12 => w.next_multiple_of(2) * (h + h.div_ceil(2)),
            PixelFormat::Yu12 => w * h + 2 * w.div_ceil(2) * h.div_ceil(2),
            PixelFormat::Rgb3 | PixelFormat::Bgr3 => w * h * 3,
            PixelFormat::Grey | PixelFormat::Mjpeg => w * h,
        }
    }
}

/// Cuts bytes into frames.
enum Cutter {
    Jpegs(Splitter),
    Raw(Raw, RawSplitter),
}

impl Cutter {
    fn new(raw: Option<Raw>) -> Cutter {
        match raw {
            None => Cutter::Jpegs(Splitter::default()),
            Some(raw) => Cutter::Raw(raw, RawSplitter::new(raw.length())),
        }
    }

    /// Hands every frame that `bytes` complete to `to`.
    fn cut(&mut self, mut bytes: &[u8], pool: &Pool, mut to: impl FnMut(Payload)) {
        match self {
            Cutter::Jpegs(splitter) => {
                splitter.push(bytes);
                while let Some(Piece { bytes, width, height }) = splitter.next_frame(pool.take()) {
                    let (format, color) = (PixelFormat::Mjpeg, ColorSpace::default());
                    to(Payload::Raw { format, width, height, stride: None, color, bytes: pool.lend(bytes) });
                }
            }
            Cutter::Raw(raw, splitter) => {
                while let Some(bytes) = splitter.take(&mut bytes, || pool.take()) {
                    let Raw { width, height, format, color } = *raw;
                    to(Payload::Raw { format, width, height, stride: None, color, bytes: pool.lend(bytes) });
                }
            }
        }
    }

    fn skipped(&self) -> u64 {
        match self {
            Cutter::Jpegs(splitter) => splitter.skipped(),
            Cutter::Raw(..) => 0,
        }
    }

    fn unfinished(&self) -> usize {
        match self {
            Cutter::Jpegs(splitter) => splitter.unfinished(),
            Cutter::Raw(_, splitter) => splitter.unfinished(),
        }
    }
}

/// What the reading thread and the loop share.
#[derive(Default)]
struct State {
    frame: Option<Frame>,
    /// Bytes between frames.
    skipped: u64,
    ended: Option<Ended>,
}

/// How the stream ended.
#[derive(Clone)]
struct Ended {
    /// Bytes of a frame that was cut off.
    unfinished: usize,
    error: Option<String>,
}

/// Frames from standard input.
pub struct Stream {
    shared: Arc<Shared<State>>,
    raw: Option<Raw>,
    ordered: bool,
    last_frame: Instant,
    /// From the last frame but one to the last; none before there were two.
    interval: Option<Duration>,
    stalled: bool,
    /// A frame that waits for the news before it.
    held: Option<Frame>,
    /// Bytes between frames that were told of.
    told: u64,
    cut_told: bool,
}

impl Stream {
    /// Starts to read standard input.
    pub fn open(raw: Option<Raw>, ordered: bool) -> anyhow::Result<Stream> {
        if std::io::stdin().is_terminal() {
            bail!("standard input is a terminal; a stream is needed: rpicam-vid … -o - | edge-camera --source -");
        }
        Stream::start(std::io::stdin(), raw, ordered)
    }

    fn start(from: impl Read + Send + 'static, raw: Option<Raw>, ordered: bool) -> anyhow::Result<Stream> {
        let shared = Arc::new(Shared::default());
        let reading = shared.clone();
        // Blocked in a read it lives as long as the program, which it does not keep from ending.
        std::thread::Builder::new()
            .name("stream".into())
            .spawn(move || read(from, raw, ordered, &reading))
            .context("cannot start the thread that reads the stream")?;
        Ok(Stream {
            shared,
            raw,
            ordered,
            last_frame: Instant::now(),
            interval: None,
            stalled: false,
            held: None,
            told: 0,
            cut_told: false,
        })
    }
}

/// The body of the reading thread.
fn read(mut from: impl Read, raw: Option<Raw>, ordered: bool, shared: &Shared<State>) {
    let (mut cutter, pool) = (Cutter::new(raw), Pool::default());
    let mut chunk = vec![0; CHUNK];
    let mut number = 0;
    let error = loop {
        let came = match from.read(&mut chunk) {
            Ok(0) => break None,
            Ok(came) => came,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => break Some(e.to_string()),
        };
        cutter.cut(&chunk[..came], &pool, |payload| {
            let frame = Frame::now(number, "-".into(), payload);
            number += 1;
            let full = |state: &mut State| ordered && state.frame.is_some();
            let mut state = shared.changed.wait_while(shared.lock(), full).unwrap_or_else(PoisonError::into_inner);
            state.frame = Some(frame);
            drop(state);
            shared.changed.notify_all();
        });
        shared.lock().skipped = cutter.skipped();
    };
    let mut state = shared.lock();
    state.skipped = cutter.skipped();
    state.ended = Some(Ended { unfinished: cutter.unfinished(), error });
    drop(state);
    shared.changed.notify_all();
}

impl Source for Stream {
    fn next(&mut self, deadline: Instant) -> Result<Grab, Failure> {
        if let Some(frame) = self.held.take() {
            return Ok(Grab::Frame(frame));
        }
        let patience = deadline.saturating_duration_since(Instant::now());
        let empty = |state: &mut State| state.frame.is_none() && state.ended.is_none();
        let (mut state, _) = self
            .shared
            .changed
            .wait_timeout_while(self.shared.lock(), patience, empty)
            .unwrap_or_else(PoisonError::into_inner);
        let (frame, skipped, ended) = (state.frame.take(), state.skipped, state.ended.clone());
        drop(state);
        self.shared.changed.notify_all();
        if let Some(frame) = frame {
            let silent = frame.at.saturating_duration_since(self.last_frame);
            if !self.stalled {
                self.interval = (frame.number > 0).then_some(silent);
            }
            self.last_frame = frame.at;
            if !std::mem::take(&mut self.stalled) {
                return Ok(Grab::Frame(frame));
            }
            self.held = Some(frame);
            let detail = format!("the stream goes on after {:.1} s", silent.as_secs_f64());
            return Ok(Grab::Notice { event: "stream_back", detail });
        }
        // Damage is told once at once, and its sum at the end.
        if skipped > self.told && (self.told == 0 || ended.is_some()) {
            self.told = skipped;
            let detail =
                format!("the stream has {skipped} bytes so far that belong to no whole JPEG; they were passed over");
            return Ok(Grab::Notice { event: "stream_damaged", detail });
        }
        let Some(Ended { unfinished, error }) = ended else {
            let silent = self.last_frame.elapsed();
            let stall = self.interval.map(|interval| STALL.max(interval * 3));
            if !self.ordered
                && stall.is_some_and(|stall| silent >= stall)
                && !std::mem::replace(&mut self.stalled, true)
            {
                let detail = format!("the stream has had no frame for {:.1} s", silent.as_secs_f64());
                return Ok(Grab::Notice { event: "stream_stalled", detail });
            }
            return Ok(Grab::Waiting(self.last_frame.elapsed()));
        };
        if let Some(error) = error {
            return Err(Failure::source(anyhow::anyhow!("standard input cannot be read: {error}")));
        }
        if unfinished > 0 && !std::mem::replace(&mut self.cut_told, true) {
            let detail = format!("the stream ends within a frame, {unfinished} bytes after its beginning");
            return Ok(Grab::Notice { event: "stream_cut", detail });
        }
        Ok(Grab::End)
    }

    fn describe(&self) -> String {
        match self.raw {
            None => "Motion-JPEG on standard input".into(),
            Some(Raw { width, height, format, .. }) => format!("{width}x{height} {format} on standard input"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grabs(bytes: Vec<u8>, raw: Option<&str>) -> (Vec<Frame>, Vec<&'static str>) {
        let mut stream = Stream::start(std::io::Cursor::new(bytes), raw.map(|r| r.parse().unwrap()), true).unwrap();
        let (mut frames, mut notices) = (vec![], vec![]);
        loop {
            match stream.next(Instant::now() + Duration::from_secs(10)).unwrap() {
                Grab::Frame(frame) => frames.push(frame),
                Grab::Notice { event, .. } => notices.push(event),
                Grab::Waiting(_) => panic!("it ended long ago"),
                Grab::End => return (frames, notices),
            }
        }
    }

    #[test]
    fn raw_streams_are_described() {
        let raw = |text: &str| text.parse::<Raw>();
        let full = ColorSpace { matrix: ColorMatrix::Bt709, range: ColorRange::Full };
        let expected = Raw { width: 640, height: 480, format: PixelFormat::Yu12, color: full };
        assert_eq!(raw("640x480:yuv420:bt709:full"), Ok(expected));
        assert_eq!(raw("640x480:I420").unwrap().length(), 640 * 480 * 3 / 2);
        assert_eq!(raw("5x3:yuv420p").unwrap().length(), 15 + 2 * 6);
        assert_eq!(raw("5x3:nv12").unwrap().length(), 6 * 5);
        assert_eq!(raw("5x3:yuyv422").unwrap().length(), 36);
        assert_eq!(raw("5x3:gray").unwrap().length(), 15);
        assert!(raw("640x480").unwrap_err().contains("yuv420"));
        assert!(raw("640x480:mjpeg").unwrap_err().contains("--raw"));
        assert!(raw("640x480:rgb24:green").unwrap_err().contains("bt709"));
        assert!(raw("640x480:h264").unwrap_err().contains("rgb24"));
    }

    #[test]
    fn frames_come_in_order_and_a_cut_one_is_told() {
        let (frames, notices) = grabs((0..14).collect(), Some("2x3:gray"));
        assert_eq!(notices, ["stream_cut"]);
        let bytes: Vec<Vec<u8>> = frames
            .iter()
            .map(|f| match &f.payload {
                Payload::Raw { bytes, .. } => bytes.to_vec(),
                _ => panic!(),
            })
            .collect();
        assert_eq!(bytes, [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]);
        assert_eq!(frames[1].number, 1);
    }

    #[test]
    fn a_live_stream_that_stalls_is_told_and_that_it_goes_on() {
        let (from, mut to) = std::io::pipe().unwrap();
        let mut stream = Stream::start(from, Some("1x1:gray".parse().unwrap()), false).unwrap();
        let mut next = move || loop {
            match stream.next(Instant::now() + Duration::from_millis(20)).unwrap() {
                Grab::Waiting(_) => {}
                Grab::Frame(frame) => return format!("frame {}", frame.number),
                Grab::Notice { event, .. } => return event.to_string(),
                Grab::End => return "end".into(),
            }
        };
        for number in 0..2 {
            std::io::Write::write_all(&mut to, &[7]).unwrap();
            assert_eq!(next(), format!("frame {number}"));
        }
        assert_eq!(next(), "stream_stalled");
        std::io::Write::write_all(&mut to, &[7]).unwrap();
        assert_eq!(next(), "stream_back");
        assert_eq!(next(), "frame 2");
        drop(to);
        assert_eq!(next(), "end");
    }

    #[test]
    fn an_empty_stream_ends_and_garbage_is_told() {
        let (frames, notices) = grabs(vec![], None);
        assert!(frames.is_empty() && notices.is_empty());
        let (frames, notices) = grabs(vec![7; 100_000], None);
        assert!(frames.is_empty());
        assert_eq!(notices.first(), Some(&"stream_damaged"));
    }
}
