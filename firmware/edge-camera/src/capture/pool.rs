//! Buffers that go round, so that a frame costs no allocation.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers kept for later; more than are ever under way at once would be hoarding.
const KEPT: usize = 4;

/// Where used buffers are kept.
#[derive(Clone, Default)]
pub struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    /// A used buffer, or an empty one.
    pub fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Keeps a buffer for later.
    pub fn give(&self, bytes: Vec<u8>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes.capacity() > 0 && kept.len() < KEPT {
            kept.push(bytes);
        }
    }

    /// Bytes that come back when they are dropped.
    pub fn lend(&self, bytes: Vec<u8>) -> Bytes {
        Bytes { bytes, home: self.clone() }
    }
}

/// A frame's bytes; their buffer goes back to its pool.
pub struct Bytes {
    bytes: Vec<u8>,
    home: Pool,
}

impl From<Vec<u8>> for Bytes {
    /// Bytes that belong to no pool.
    fn from(bytes: Vec<u8>) -> Bytes {
        Pool::default().lend(bytes)
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        self.home.give(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_are_not_hoarded() {
        let pool = Pool::default();
        let bytes = pool.lend(Vec::with_capacity(1000));
        assert_eq!(pool.take().capacity(), 0);
        drop(bytes);
        assert!(pool.take().capacity() >= 1000);
        for _ in 0..10 {
            pool.give(vec![0; 10]);
        }
        assert_eq!((0..10).filter(|_| pool.take().capacity() > 0).count(), KEPT);
    }
}
