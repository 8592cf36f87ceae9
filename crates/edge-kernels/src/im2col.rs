//! The pixels under a window, one position after the other: what turns a k×k convolution into a matrix product.
//!
//! It writes whichever positions it is asked for; done strip by strip, they are still in the cache when they are
//! multiplied. Plain copies, no arithmetic.

use crate::simd::{Simd, kernel};
use crate::{Isa, Window};
use std::ops::Range;

/// How a picture lies in memory, in values from one to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strides {
    /// From a row to the next.
    pub row: usize,
    /// From a pixel to the next.
    pub column: usize,
    /// From a channel to the next.
    pub channel: usize,
}

/// Windows of `channels` channels of a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Im2col {
    /// The window.
    pub window: Window,
    /// Channels of the picture.
    pub channels: usize,
    /// Where they lie.
    pub strides: Strides,
    /// Limits of what is read: a rectifier that stands before. Padding is zero all the same.
    pub read: [f32; 2],
}

impl Im2col {
    /// Values per position: taps row by row, in each the channels.
    pub fn k(&self) -> usize {
        self.window.kernel[0] * self.window.kernel[1] * self.channels
    }

    /// Copies the positions of a range, counted row by row, [`Im2col::k`] values each.
    ///
    /// # Panics
    /// Where the lengths do not belong together.
    pub fn run(&self, input: &[f32], positions: Range<usize>, out: &mut [f32]) {
        assert_eq!(out.len(), positions.len() * self.k());
        let w = &self.window;
        let [low, high] = self.read;
        let limited = self.read != [f32::NEG_INFINITY, f32::INFINITY];
        // Pixels that follow each other in memory are copied together.
        let dense = self.strides.channel == 1 && self.strides.column == self.channels && w.dilation[1] == 1;
        for (at, out) in positions.zip(out.chunks_exact_mut(self.k())) {
            let (y, x) = (at / w.output[1], at % w.output[1]);
            let inside = w.inside(1, x);
            for (tap, out) in out.chunks_exact_mut(w.kernel[1] * self.channels).enumerate() {
                let Some(row) = w.source(0, y, tap) else {
                    out.fill(0.0);
                    continue;
                };
                let row = row * self.strides.row;
                let (left, rest) = out.split_at_mut(inside.start.min(inside.end) * self.channels);
                let (middle, right) = rest.split_at_mut(inside.len() * self.channels);
                left.fill(0.0);
                right.fill(0.0);
                if dense && !inside.is_empty() {
                    let first = row + (x * w.stride[1] + inside.start - w.before[1]) * self.strides.column;
                    copy(middle, &input[first..]);
                } else {
                    for (tap, pixel) in inside.clone().zip(middle.chunks_exact_mut(self.channels)) {
                        let column = x * w.stride[1] + tap * w.dilation[1] - w.before[1];
                        let first = row + column * self.strides.column;
                        if self.strides.channel == 1 {
                            pixel.copy_from_slice(&input[first..first + self.channels]);
                        } else {
                            for (c, value) in pixel.iter_mut().enumerate() {
                                *value = input[first + c * self.strides.channel];
                            }
                        }
                    }
                }
                if limited {
                    middle.iter_mut().for_each(|v| {
                        *v = if *v < low {
                            low
                        } else if *v > high {
                            high
                        } else {
                            *v
                        }
                    });
                }
            }
        }
    }
}

impl Im2col {
    /// The same from bytes: `zero` is outside the picture; rows are padded to fours of values.
    ///
    /// # Panics
    /// Where the lengths do not belong together.
    pub fn run_bytes(&self, isa: Isa, input: &[u8], zero: u8, positions: Range<usize>, out: &mut [u8]) {
        assert_eq!(out.len(), positions.len() * self.k().next_multiple_of(u8::STEP));
        // SAFETY: plain Rust; only the features are the caller's to have, and an Isa has them.
        unsafe { bytes(isa, self, input, zero, positions, out) }
    }

    /// The same from bytes to int16: `zero` is taken off, so that it is 0 outside the picture; rows are padded to pairs of
    /// values.
    ///
    /// # Panics
    /// Where the lengths do not belong together.
    pub fn run_shorts(&self, isa: Isa, input: &[u8], zero: u8, positions: Range<usize>, out: &mut [i16]) {
        assert_eq!(out.len(), positions.len() * self.k().next_multiple_of(i16::STEP));
        // SAFETY: as above.
        unsafe { shorts(isa, self, input, zero, positions, out) }
    }
}

kernel! {
    fn bytes(layer: &Im2col, input: &[u8], zero: u8, positions: Range<usize>, out: &mut [u8]) = bytes_body
}
kernel! {
    fn shorts(layer: &Im2col, input: &[u8], zero: u8, positions: Range<usize>, out: &mut [i16]) = bytes_body
}

/// What rows of bytes are written as.
trait Factor: Copy {
    /// What rows are padded to.
    const STEP: usize;
    /// A byte of the picture; `zero` outside.
    fn of(byte: u8, zero: u8) -> Self;
}

impl Factor for u8 {
    const STEP: usize = 4;
    #[inline(always)]
    fn of(byte: u8, _: u8) -> u8 {
        byte
    }
}

impl Factor for i16 {
    const STEP: usize = 2;
    #[inline(always)]
    fn of(byte: u8, zero: u8) -> i16 {
        i16::from(byte) - i16::from(zero)
    }
}

#[inline(always)]
unsafe fn bytes_body<S: Simd, F: Factor>(
    _: S,
    layer: &Im2col,
    input: &[u8],
    zero: u8,
    positions: Range<usize>,
    out: &mut [F],
) {
    let w = &layer.window;
    let channels = layer.channels;
    let outside = F::of(zero, zero);
    let copy = |to: &mut [F], from: &[u8]| to.iter_mut().zip(from).for_each(|(to, from)| *to = F::of(*from, zero));
    // Pixels that follow each other in memory are read together.
    let dense = layer.strides.channel == 1 && layer.strides.column == channels && w.dilation[1] == 1;
    for (at, out) in positions.zip(out.chunks_exact_mut(layer.k().next_multiple_of(F::STEP))) {
        let (y, x) = (at / w.output[1], at % w.output[1]);
        let inside = w.inside(1, x);
        let (taps, pad) = out.split_at_mut(layer.k());
        pad.fill(outside);
        for (tap, out) in taps.chunks_exact_mut(w.kernel[1] * channels).enumerate() {
            let Some(row) = w.source(0, y, tap) else {
                out.fill(outside);
                continue;
            };
            let (left, rest) = out.split_at_mut(inside.start.min(inside.end) * channels);
            let (middle, right) = rest.split_at_mut(inside.len() * channels);
            left.fill(outside);
            right.fill(outside);
            let place = |tap: usize| {
                row * layer.strides.row + (x * w.stride[1] + tap * w.dilation[1] - w.before[1]) * layer.strides.column
            };
            if dense && !inside.is_empty() {
                copy(middle, &input[place(inside.start)..]);
                continue;
            }
            for (tap, pixel) in inside.clone().zip(middle.chunks_exact_mut(channels)) {
                let from = &input[place(tap)..];
                match layer.strides.channel {
                    1 => copy(pixel, from),
                    step => {
                        let from = from.iter().step_by(step);
                        pixel.iter_mut().zip(from).for_each(|(to, from)| *to = F::of(*from, zero));
                    }
                }
            }
        }
    }
}

/// Copies as many values as `to` holds. A few of them, as in windows over the picture itself, are copied by instructions
/// rather than by a call.
#[inline(always)]
fn copy(to: &mut [f32], from: &[f32]) {
    fn some<const N: usize>(to: &mut [f32], from: &[f32]) -> Option<()> {
        *to.first_chunk_mut::<N>()? = *from.first_chunk::<N>()?;
        Some(())
    }
    let done = match to.len() {
        6 => some::<6>(to, from),
        9 => some::<9>(to, from),
        15 => some::<15>(to, from),
        21 => some::<21>(to, from),
        _ => None,
    };
    if done.is_none() {
        to.copy_from_slice(&from[..to.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::noise;
    use proptest::prelude::*;

    fn check(window: Window, channels: usize, first: bool, limits: bool, seed: u64) {
        let [h, w] = window.input;
        let strides = match first {
            true => Strides { row: w, column: 1, channel: h * w },
            false => Strides { row: w * channels, column: channels, channel: 1 },
        };
        let read = if limits { [-0.25, 0.5] } else { [f32::NEG_INFINITY, f32::INFINITY] };
        let layer = Im2col { window, channels, strides, read };
        let input = noise(seed, h * w * channels);
        let all = window.positions();
        for positions in [0..all, all / 3..all - all / 4] {
            let mut out = vec![f32::NAN; positions.len() * layer.k()];
            layer.run(&input, positions.clone(), &mut out);
            let mut wanted = vec![];
            for at in positions {
                let (y, x) = (at / window.output[1], at % window.output[1]);
                for (i, j) in (0..window.kernel[0]).flat_map(|i| (0..window.kernel[1]).map(move |j| (i, j))) {
                    let source = window.source(0, y, i).zip(window.source(1, x, j));
                    wanted.extend((0..channels).map(|c| {
                        source.map_or(0.0, |(r, q)| {
                            let at = r * strides.row + q * strides.column + c * strides.channel;
                            input[at].max(read[0]).min(read[1])
                        })
                    }));
                }
            }
            assert_eq!(out, wanted, "{window:?} {channels}");
        }
    }

    fn check_bytes(window: Window, channels: usize, zero: u8, seed: u64) {
        let [h, w] = window.input;
        let strides = Strides { row: w * channels, column: channels, channel: 1 };
        let layer = Im2col { window, channels, strides, read: [f32::NEG_INFINITY, f32::INFINITY] };
        let bytes: Vec<u8> = noise(seed, h * w * channels).iter().map(|v| (v.abs() * 255.0) as u8).collect();
        // What is outside is zero in both.
        let floats: Vec<f32> = bytes.iter().map(|b| f32::from(*b) - f32::from(zero)).collect();
        let (all, k) = (window.positions(), layer.k());
        let (two, four) = (k.next_multiple_of(2), k.next_multiple_of(4));
        let (mut shorts, mut whole, mut wanted) = (vec![7; all * two], vec![7; all * four], vec![f32::NAN; all * k]);
        layer.run(&floats, 0..all, &mut wanted);
        for isa in Isa::available() {
            layer.run_shorts(isa, &bytes, zero, 0..all, &mut shorts);
            layer.run_bytes(isa, &bytes, zero, 0..all, &mut whole);
            for ((shorts, whole), wanted) in shorts.chunks(two).zip(whole.chunks(four)).zip(wanted.chunks(k)) {
                assert!(shorts.iter().zip(wanted).all(|(a, b)| f32::from(*a) == *b), "{isa} {window:?}");
                let real = |byte: u8| f32::from(byte) - f32::from(zero);
                assert!(whole.iter().zip(wanted).all(|(a, b)| real(*a) == *b), "{isa} {window:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn any_window(window in crate::window::any(), channels in 1..20_usize, first: bool, limits: bool, seed in 0..99_u64) {
            check(window, channels, first, limits, seed);
        }

        #[test]
        fn any_window_of_bytes(window in crate::window::any(), channels in 1..20_usize, zero: u8, seed in 0..99_u64) {
            check_bytes(window, channels, zero, seed);
        }
    }
}
