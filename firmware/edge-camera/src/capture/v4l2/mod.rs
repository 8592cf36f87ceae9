//! V4L2 cameras, on a thread of their own; the newest frame wins.

mod driver;

use super::{Frame, Grab, Payload, Source, Wanted};
use crate::stop::Failure;
use anyhow::{Context, anyhow, bail};
use driver::Negotiated;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A camera that is silent this long has failed; the process ends so that its service manager starts it
/// afresh. nokhwa blocks without a time-out and a blocked thread keeps the buffers, so reopening the camera
/// within the process could only meet EBUSY.
const SILENCE: Duration = Duration::from_secs(10);
/// Errors in a row, of the driver's dequeue, after which the camera has failed.
const ERRORS: u32 = 30;
/// A running camera.
pub struct Camera {
    slot: Arc<Slot>,
    about: String,
    last_frame: Instant,
}

/// Holds at most one frame: a slow model never builds a queue.
#[derive(Default)]
struct Slot {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    frame: Option<Frame>,
    /// The capture thread has ended, for this reason.
    failed: Option<String>,
    /// Nobody wants frames any more.
    closed: bool,
    /// Set once the camera has opened.
    opened: Option<String>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is plain data, whole between statements, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Camera {
    /// Opens the camera and starts to capture.
    pub fn open(device: &Path, wanted: Wanted) -> anyhow::Result<Camera> {
        let index = device_index(device)?;
        let slot = Arc::new(Slot::default());
        let thread_slot = slot.clone();
        let path = device.to_path_buf();
        let name = device.display().to_string();
        let source = format!("v4l2:{name}");
        std::thread::Builder::new()
            .name("capture".into())
            .spawn(move || {
                let result = std::panic::catch_unwind(|| capture(&path, index, wanted, &source, &thread_slot));
                let why = match result {
                    Ok(Ok(())) => "the camera was closed".into(),
                    Ok(Err(e)) => format!("{e:#}"),
                    Err(_) => "the camera library failed".into(),
                };
                thread_slot.lock().failed = Some(why);
                thread_slot.changed.notify_all();
            })
            .context("cannot start the capture thread")?;
        let opening = |state: &mut State| state.opened.is_none() && state.failed.is_none();
        let (mut state, _) =
            slot.changed.wait_timeout_while(slot.lock(), SILENCE, opening).unwrap_or_else(PoisonError::into_inner);
        let about = match (state.opened.take(), state.failed.take()) {
            (Some(about), _) => about,
            (None, Some(why)) => bail!("cannot open the camera {name}: {why}"),
            (None, None) => bail!("the camera {name} does not answer"),
        };
        drop(state);
        Ok(Camera { slot, about: format!("{name} {about}"), last_frame: Instant::now() })
    }
}

impl Source for Camera {
    fn next(&mut self, deadline: Instant) -> Result<Grab, Failure> {
        let patience = deadline.saturating_duration_since(Instant::now());
        let empty = |state: &mut State| state.frame.is_none() && state.failed.is_none();
        let (mut state, _) = self
            .slot
            .changed
            .wait_timeout_while(self.slot.lock(), patience, empty)
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = state.frame.take() {
            self.last_frame = Instant::now();
            return Ok(Grab::Frame(frame));
        }
        if let Some(why) = state.failed.take() {
            return Err(Failure::source(anyhow!("the camera {} failed: {why}", self.about)));
        }
        let silent = self.last_frame.elapsed();
        if silent >= SILENCE {
            let why = anyhow!("the camera {} has delivered no frame for {} s", self.about, SILENCE.as_secs());
            return Err(Failure::source(why));
        }
        Ok(Grab::Waiting(silent))
    }

    fn describe(&self) -> String {
        format!("camera {}", self.about)
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        // The thread sees this after its current frame. It is not joined: it may be blocked in the driver.
        self.slot.lock().closed = true;
    }
}

/// The N of /dev/videoN; links such as those in /dev/v4l/by-id are followed.
fn device_index(device: &Path) -> anyhow::Result<u32> {
    let real = std::fs::canonicalize(device)
        .with_context(|| format!("there is no camera {}; `ls /dev/video*` shows which there are", device.display()))?;
    let index = real.file_name().and_then(|n| n.to_str()?.strip_prefix("video")?.parse().ok());
    index.with_context(|| format!("{} is not a camera; a path such as /dev/video0 is needed", device.display()))
}

/// The body of the capture thread.
fn capture(device: &Path, index: u32, wanted: Wanted, source: &str, slot: &Slot) -> anyhow::Result<()> {
    let mut driver = driver::open(device, index, wanted)?;
    let Negotiated { pixels, width, height, stride, color } = driver.negotiated();
    slot.lock().opened = Some(format!("{width}x{height} {pixels:?} through {}", driver.library()));
    slot.changed.notify_all();
    let mut errors = 0;
    for number in 0.. {
        let bytes = match driver.frame() {
            Ok(bytes) => bytes,
            // A dropped buffer is no reason to give up; a vanished camera errs on every one.
            Err(_) if errors < ERRORS => {
                errors += 1;
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
            Err(e) => return Err(e),
        };
        errors = 0;
        let payload = Payload::Raw { format: pixels, width, height, stride, color, bytes };
        let frame = Frame::now(number, source.to_string(), payload);
        let mut state = slot.lock();
        if state.closed {
            break;
        }
        state.frame = Some(frame);
        drop(state);
        slot.changed.notify_all();
    }
    Ok(())
}
