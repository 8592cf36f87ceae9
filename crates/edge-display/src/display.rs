//! The thread that draws, so that a slow bus never keeps a frame waiting.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::backend::{self, DisplayError, Panel};
use crate::snapshot::Snapshot;
use crate::spec::Spec;

/// How long after a failure a display is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// How long the end waits for the last drawing; a bus that hangs must not keep the program.
const LAST_DRAWING: Duration = Duration::from_millis(500);

/// A display that is being drawn to; dropping it draws what was shown last and ends.
pub struct Display {
    shared: Arc<Shared>,
    ended: Receiver<()>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    latest: Option<Snapshot>,
    /// Whether the latest has not been drawn.
    pending: bool,
    stopping: bool,
}

impl Display {
    /// Begins to draw on what `spec` names. `tell` is told once of each trouble, and when it is over; it is called by
    /// another thread.
    ///
    /// A panel that isn't there yet is no error: it is looked for every ten seconds.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NotBuilt`] where this build knows no such display, [`DisplayError::Io`] where there can be no more
    /// threads.
    pub fn open(spec: &Spec, tell: impl Fn(&str) + Send + 'static) -> Result<Self, DisplayError> {
        backend::is_built(&spec.kind)?;
        let shared = Arc::new(Shared::default());
        let (end, ended) = channel();
        let (spec, theirs) = (spec.clone(), shared.clone());
        thread::Builder::new()
            .name("display".into())
            .spawn(move || {
                work(&spec, &theirs, &tell, AGAIN);
                // Nobody waits any more where the time was up.
                let _ = end.send(());
            })
            .map_err(|e| DisplayError::io("cannot start a thread", e))?;
        Ok(Self { shared, ended })
    }

    /// Leaves what there is to show behind and returns; it is drawn if it looks other than before.
    pub fn show(&self, snapshot: &Snapshot) {
        let mut state = self.shared.lock();
        if !state.latest.as_ref().is_some_and(|latest| latest.looks_as(snapshot)) {
            state.latest = Some(snapshot.clone());
            state.pending = true;
            self.shared.changed.notify_one();
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_one();
        let _ = self.ended.recv_timeout(LAST_DRAWING);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something to draw, not before `due`; `None` where nothing is left to draw at the end.
    fn next(&self, due: Instant) -> Option<Snapshot> {
        let mut state = self.lock();
        loop {
            if state.stopping {
                let pending = std::mem::take(&mut state.pending);
                return state.latest.clone().filter(|_| pending);
            }
            let wait = due.saturating_duration_since(Instant::now());
            if state.pending && wait.is_zero() {
                state.pending = false;
                return state.latest.clone();
            }
            // Where nothing is pending, only a change or the end is worth waking up for.
            let wait = if state.pending { wait } else { Duration::from_secs(3600) };
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for `time`; whether the end came.
    fn rest(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.lock();
        while !state.stopping {
            let wait = until.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

fn work(spec: &Spec, shared: &Shared, tell: &dyn Fn(&str), again: Duration) {
    let mut told = false;
    loop {
        let Err(error) = backend::with_panel(&spec.kind, &mut |panel| {
            if std::mem::take(&mut told) {
                tell(&format!("display {spec}: it works again"));
            }
            draw_until_the_end(panel, shared)
        }) else {
            return;
        };
        if !std::mem::replace(&mut told, true) {
            tell(&format!("display {spec}: {error}; it is tried again every {} s", again.as_secs()));
        }
        // What it failed to show is drawn when it is back.
        shared.lock().pending = true;
        if shared.rest(again) {
            return;
        }
    }
}

fn draw_until_the_end(panel: &mut dyn Panel, shared: &Shared) -> Result<(), DisplayError> {
    let mut due = Instant::now();
    while let Some(snapshot) = shared.next(due) {
        due = Instant::now() + panel.interval();
        panel.show(&snapshot)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::Sender;

    fn snapshot(label: &str) -> Snapshot {
        Snapshot { label: label.into(), known: true, score: 0.5, ..Snapshot::default() }
    }

    fn teller() -> (impl Fn(&str) + Send + 'static, Receiver<String>) {
        let (tell, told): (Sender<String>, _) = channel();
        (move |text: &str| drop(tell.send(text.into())), told)
    }

    #[test]
    fn the_last_snapshot_is_drawn_before_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let spec: Spec = format!("png:{},size=128x64", path.display()).parse().unwrap();
        let (tell, told) = teller();
        let display = Display::open(&spec, tell).unwrap();
        for label in ["one", "two", "three"] {
            display.show(&snapshot(label));
        }
        drop(display);
        let drawn = image::open(&path).unwrap().into_rgb8();
        let mut expected = crate::Canvas::new(128, 64, embedded_graphics::pixelcolor::Rgb888::new(0, 0, 0));
        crate::draw(&snapshot("three"), &mut expected).unwrap();
        assert_eq!(drawn.into_raw(), backend::rgb_bytes(expected.pixels()));
        assert_eq!(told.try_iter().count(), 0);
    }

    #[test]
    fn trouble_is_told_once_and_ends() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("later");
        let spec: Spec = format!("png:{}", inner.join("a.png").display()).parse().unwrap();
        let (tell, told) = teller();
        let shared = Shared::default();
        *shared.lock() = State { latest: Some(snapshot("cup")), pending: true, stopping: false };
        thread::scope(|scope| {
            let worker = scope.spawn(|| work(&spec, &shared, &tell, Duration::from_millis(20)));
            let trouble = told.recv_timeout(Duration::from_secs(60)).unwrap();
            assert!(trouble.contains("a.png") && trouble.contains("tried again every"), "{trouble}");
            // Some more failures, none of which is told.
            thread::sleep(Duration::from_millis(200));
            std::fs::create_dir(&inner).unwrap();
            assert!(told.recv_timeout(Duration::from_secs(60)).unwrap().contains("it works again"));
            while !inner.join("a.png").exists() {
                thread::sleep(Duration::from_millis(5));
            }
            shared.lock().stopping = true;
            shared.changed.notify_one();
            worker.join().unwrap();
        });
        assert_eq!(told.try_iter().count(), 0);
    }
}
