//! What a thread that captures and whoever wants its frames have in common.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A state, and the news that it changed.
#[derive(Default)]
pub struct Shared<T> {
    state: Mutex<T>,
    /// Told after every change that somebody may wait for.
    pub changed: Condvar,
}

impl<T> Shared<T> {
    /// The state.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        // The states here are plain data, whole between statements, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
