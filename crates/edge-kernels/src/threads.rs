//! Threads that share the work of one layer.
//!
//! A network has some forty layers of a tenth of a millisecond and more, so handing out work must cost a microsecond:
//! workers look for it without sleeping for a short while after each layer, then sleep until the next picture. Pieces are
//! taken one by one from a counter, so that a thread that was held up takes fewer. Nothing is allocated per layer, and a
//! worker that wakes too late is not waited for.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a worker looks for work before it sleeps.
const PATIENCE: Duration = Duration::from_micros(200);
/// The job may be joined.
const OPEN: u64 = 1 << 63;
/// The threads end.
const STOP: u64 = 1 << 62;
/// Counts jobs, so that a worker joins each once.
const JOB: u64 = 1 << 16;
/// Workers in the job.
const ACTIVE: u64 = JOB - 1;

/// A piece of work: the number of the thread, the number of the piece.
type Work<'a> = dyn Fn(usize, usize) + Sync + 'a;

struct Shared {
    /// [`OPEN`], [`STOP`], the job's number and the workers in it.
    state: AtomicU64,
    /// The next piece.
    next: AtomicUsize,
    job: UnsafeCell<Job>,
    /// Workers that sleep or are about to.
    sleeping: AtomicUsize,
    lock: Mutex<Option<Box<dyn Any + Send>>>,
    wake: Condvar,
}

#[derive(Clone, Copy)]
struct Job {
    pieces: usize,
    work: Option<*const Work<'static>>,
}

// SAFETY: `job` is written while no worker is in it (see `Threads::run`) and read by workers that joined; what `work` points
// to is Sync.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is to something Sync.
unsafe impl Send for Shared {}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Box<dyn Any + Send>>> {
        // Held only to sleep and to leave a panic's message; neither can break what it guards.
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_pieces(&self, thread: usize, job: Job) {
        let Some(work) = job.work else { return };
        loop {
            let piece = self.next.fetch_add(1, Ordering::Relaxed);
            if piece >= job.pieces {
                return;
            }
            // SAFETY: `Threads::run` does not return, nor is the closure gone, before every thread has left the job.
            unsafe { (*work)(thread, piece) }
        }
    }
}

/// A number of threads, the calling one among them.
pub struct Threads {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts `count` - 1 threads; the caller's is the first. Fewer, where the system gives no more.
    pub fn new(count: usize) -> Threads {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            job: UnsafeCell::new(Job { pieces: 0, work: None }),
            sleeping: AtomicUsize::new(0),
            lock: Mutex::new(None),
            wake: Condvar::new(),
        });
        let start = |thread: usize| {
            let shared = shared.clone();
            std::thread::Builder::new().name(format!("edge-{thread}")).spawn(move || worker(&shared, thread))
        };
        let workers = (1..count.min(ACTIVE as usize)).map_while(|thread| start(thread).ok()).collect();
        Threads { shared, workers }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work(thread, piece)` once for each piece; returns when all are done. A panic in one goes on in the caller once
    /// the others have ended.
    pub fn run(&mut self, pieces: usize, work: &Work<'_>) {
        if self.workers.is_empty() || pieces <= 1 {
            (0..pieces).for_each(|piece| work(0, piece));
            return;
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes; no thread uses it after this function, see `leave`.
        let work: *const Work<'static> = unsafe { std::mem::transmute::<*const Work<'_>, _>(work) };
        let job = Job { pieces, work: Some(work) };
        // SAFETY: no worker is in a job: the last call waited for them, and none joins one that is not open.
        unsafe { *shared.job.get() = job };
        shared.next.store(0, Ordering::Relaxed);
        let number =
            (shared.state.load(Ordering::Relaxed) & !(OPEN | STOP | ACTIVE)).wrapping_add(JOB) & !(OPEN | STOP);
        shared.state.store(OPEN | number, Ordering::SeqCst);
        if shared.sleeping.load(Ordering::SeqCst) > 0 {
            let _guard = shared.lock();
            shared.wake.notify_all();
        }
        let mine = catch_unwind(AssertUnwindSafe(|| shared.take_pieces(0, job)));
        if mine.is_err() {
            // Nobody needs the rest.
            shared.next.store(pieces, Ordering::Relaxed);
        }
        // Closed: a worker that has not joined yet is not waited for.
        shared.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut turns = 0_u32;
        while shared.state.load(Ordering::Acquire) & ACTIVE != 0 {
            turns += 1;
            match turns % 1024 {
                0 => std::thread::yield_now(),
                _ => std::hint::spin_loop(),
            }
        }
        let theirs = shared.lock().take();
        if let Some(panic) = mine.err().or(theirs) {
            resume_unwind(panic);
        }
    }

    /// Cuts `out` into chunks of `size` (the last may be shorter) and calls `work(number, chunk, scratch)` for each, with a
    /// scratch of its own for each thread.
    ///
    /// # Panics
    /// Where there are fewer scratches than threads, or `size` is 0.
    pub fn chunks<T: Send, S: Send>(
        &mut self,
        out: &mut [T],
        size: usize,
        scratch: &mut [S],
        work: impl Fn(usize, &mut [T], &mut S) + Sync,
    ) {
        assert!(scratch.len() >= self.count() && size > 0);
        let length = out.len();
        let (out, scratch) = (Shards(out.as_mut_ptr()), Shards(scratch.as_mut_ptr()));
        self.run(length.div_ceil(size), &|thread, piece| {
            let first = piece * size;
            let here = size.min(length - first);
            // SAFETY: each piece is handed out once, and pieces do not overlap; a thread does one piece at a time, and has
            // a scratch of its own.
            let (chunk, scratch) =
                unsafe { (std::slice::from_raw_parts_mut(out.at(first), here), &mut *scratch.at(thread)) };
            work(piece, chunk, scratch);
        });
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.state.fetch_or(STOP, Ordering::SeqCst);
        {
            let _guard = self.shared.lock();
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

/// What `work` makes of each item and its number, in order; by all cores, where there is `much` to do. For what is done once: it starts
/// threads of its own.
pub(crate) fn each<T: Send, R: Send>(items: Vec<T>, much: bool, work: impl Fn(usize, T) -> R + Sync) -> Vec<R> {
    let count = if much { std::thread::available_parallelism().map_or(1, usize::from) } else { 1 };
    let count = count.min(items.len());
    let (queue, done) = (Mutex::new(items.into_iter().enumerate()), Mutex::new(vec![]));
    let worker = || {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((at, item)) = next else { return };
            let made = work(at, item);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((at, made));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..count {
            // Where the system gives no more, fewer do it all.
            if std::thread::Builder::new().spawn_scoped(scope, worker).is_err() {
                break;
            }
        }
        worker();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, made)| made).collect()
}

/// A pointer that threads take parts of.
struct Shards<T>(*mut T);

impl<T> Shards<T> {
    /// # Safety
    /// There is an element `at`.
    unsafe fn at(&self, at: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(at) }
    }
}

// SAFETY: `Threads::chunks` gives each thread other elements.
unsafe impl<T: Send> Sync for Shards<T> {}

fn worker(shared: &Shared, thread: usize) {
    let mut seen = 0;
    loop {
        let state = wait(shared, seen);
        if state & STOP != 0 {
            return;
        }
        // Joined only as the state was seen: still open, and nobody came between; else look again.
        if shared.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            continue;
        }
        seen = state & !(OPEN | ACTIVE);
        // SAFETY: in the job, which is not written before this thread has left it.
        let job = unsafe { *shared.job.get() };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| shared.take_pieces(thread, job))) {
            shared.next.store(job.pieces, Ordering::Relaxed);
            *shared.lock() = Some(panic);
        }
        shared.state.fetch_sub(1, Ordering::Release);
    }
}

/// The state once there is an open job other than `seen`, or the end.
fn wait(shared: &Shared, seen: u64) -> u64 {
    let fresh = |state: u64| state & STOP != 0 || (state & OPEN != 0 && state & !(OPEN | ACTIVE) != seen);
    let start = Instant::now();
    loop {
        for _ in 0..64 {
            let state = shared.state.load(Ordering::Acquire);
            if fresh(state) {
                return state;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() > PATIENCE {
            break;
        }
    }
    let mut guard = shared.lock();
    shared.sleeping.fetch_add(1, Ordering::SeqCst);
    let state = loop {
        let state = shared.state.load(Ordering::SeqCst);
        if fresh(state) {
            break state;
        }
        guard = shared.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
    };
    shared.sleeping.fetch_sub(1, Ordering::SeqCst);
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn every_piece_is_done_once() {
        let rounds = if cfg!(miri) { 3 } else { 300 };
        for count in [1, 2, 3, 7] {
            let mut threads = Threads::new(count);
            assert_eq!(threads.count(), count);
            for round in 0..rounds {
                let pieces = round % 40;
                let done: Vec<AtomicU32> = (0..pieces).map(|_| AtomicU32::new(0)).collect();
                threads.run(pieces, &|thread, piece| {
                    assert!(thread < count);
                    done[piece].fetch_add(1, Ordering::Relaxed);
                });
                assert!(done.iter().all(|d| d.load(Ordering::Relaxed) == 1));
                if round % 100 == 50 {
                    // Long enough for the workers to fall asleep.
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
    }

    #[test]
    fn chunks_are_disjoint_and_whole() {
        let mut threads = Threads::new(3);
        for (length, size) in [(0, 1), (1, 4), (1000, 7), (64, 64)] {
            let mut out = vec![0_u32; length];
            let mut scratch = vec![0_usize; 3];
            threads.chunks(&mut out, size, &mut scratch, |number, chunk, scratch| {
                *scratch += chunk.len();
                for (i, v) in chunk.iter_mut().enumerate() {
                    *v += (number * size + i) as u32 + 1;
                }
            });
            assert!(out.iter().enumerate().all(|(i, v)| *v == i as u32 + 1));
            assert_eq!(scratch.iter().sum::<usize>(), length);
        }
    }

    #[test]
    fn each_item_is_worked_on_once_and_in_order() {
        for (count, much) in [(0, true), (1, true), (100, true), (100, false)] {
            let made = each((0..count).collect(), much, |at, item: usize| (at, 2 * item));
            assert_eq!(made, (0..count).map(|at| (at, 2 * at)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_panic_comes_back_to_the_caller_and_breaks_nothing() {
        let mut threads = Threads::new(3);
        for bad in [0, 5, 9] {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                threads.run(10, &|_, piece| assert_ne!(piece, bad, "as planned"));
            }));
            assert!(caught.is_err());
            let done = AtomicU32::new(0);
            threads.run(10, &|_, _| {
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), 10);
        }
    }

    /// Time on a processor of a thread of this process in ticks, and whether it sleeps.
    #[cfg(all(target_os = "linux", not(miri)))]
    fn used(task: &std::path::Path) -> (u64, bool) {
        let stat = std::fs::read_to_string(task.join("stat")).unwrap();
        // After the name, which may hold anything: the state, and the 12th and 13th number after it.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
        (ticks(11) + ticks(12), fields[0] == "S")
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn idle_threads_sleep() {
        let mut threads = Threads::new(4);
        let (tasks, all) = (Mutex::new(vec![]), std::sync::Barrier::new(4));
        // Every thread takes one piece: none is done before all have begun.
        threads.run(4, &|thread, _| {
            if thread > 0 {
                let me = std::fs::read_link("/proc/thread-self").unwrap();
                tasks.lock().unwrap().push(std::path::Path::new("/proc").join(me));
            }
            all.wait();
        });
        let tasks = tasks.into_inner().unwrap();
        assert_eq!(tasks.len(), 3);
        // However busy the machine is, they get a turn within a minute.
        let asleep = || tasks.iter().all(|task| used(task).1);
        let sleeps = (0..6000).any(|_| asleep() || (std::thread::sleep(Duration::from_millis(10)), false).1);
        assert!(sleeps, "threads without work go on looking for it");
        let before: Vec<u64> = tasks.iter().map(|task| used(task).0).collect();
        std::thread::sleep(Duration::from_secs(1));
        for (task, before) in tasks.iter().zip(before) {
            let (now, sleeps) = used(task);
            assert!(sleeps && now <= before + 1, "{} ticks in an idle second", now - before);
        }
        threads.run(4, &|_, _| {});
    }
}
