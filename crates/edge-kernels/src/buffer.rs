//! Memory for vectors.

use std::marker::PhantomData;

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Numbers for which every pattern of bits is a value, zero among them.
///
/// # Safety
/// As said.
pub unsafe trait Plain: Copy {}
// SAFETY: any bits are a float32.
unsafe impl Plain for f32 {}
// SAFETY: any bits are an i16.
unsafe impl Plain for i16 {}
// SAFETY: any bits are a u16.
unsafe impl Plain for u16 {}
// SAFETY: any bits are an i32.
unsafe impl Plain for i32 {}
// SAFETY: any bits are a byte.
unsafe impl Plain for u8 {}
// SAFETY: any bits are a byte.
unsafe impl Plain for i8 {}

/// Values that begin at a cache line. Zero when made; made once, used for every picture.
#[derive(Clone)]
pub struct Buffer<T: Plain = f32> {
    lines: Vec<Line>,
    len: usize,
    values: PhantomData<T>,
}

impl<T: Plain> Buffer<T> {
    /// `len` zeros.
    pub fn new(len: usize) -> Buffer<T> {
        let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
        Buffer { lines: vec![Line([0; 64]); lines], len, values: PhantomData }
    }
}

impl<T: Plain> Default for Buffer<T> {
    fn default() -> Buffer<T> {
        Buffer { lines: vec![], len: 0, values: PhantomData }
    }
}

impl<T: Plain> std::ops::Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: there are lines enough for `len` values, aligned for them, and any bits are a value.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> std::ops::DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above; the vector is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_begin_at_a_line_and_are_as_long_as_asked() {
        for len in [0, 1, 15, 16, 17, 1000] {
            let mut buffer: Buffer = Buffer::new(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr() as usize % 64, 0);
            buffer.fill(1.0);
            assert_eq!(buffer.iter().sum::<f32>(), len as f32);
            let mut bytes: Buffer<u8> = Buffer::new(len);
            bytes.fill(1);
            assert_eq!(bytes.iter().map(|b| usize::from(*b)).sum::<usize>(), len);
        }
        assert!(Buffer::<i16>::default().is_empty());
    }
}
