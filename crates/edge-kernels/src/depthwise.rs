//! Depthwise convolution, (H,W,C): a filter per channel, in float32 or on bytes.
//!
//! Vectors run over channels. Four positions of a row are computed together, so that each filter value is loaded once for
//! four results and each pixel of a 3×3 window with stride 1 for up to three; what of them is outside the picture is left
//! out. Where fewer than four are left of a row, the last four are computed. It writes whichever positions it is asked for,
//! so that a convolution that follows can have them strip by strip, still in the second-level cache.

use crate::fours::Fours;
use crate::gemm8::{Scale, Sink};
use crate::simd::{Simd, kernel};
use crate::twos::Twos;
use crate::{Buffer, Isa, Window};
use std::ops::Range;

/// What four positions may see of a picture, in bytes, so that the next ones find it in the first-level cache.
const FIRST_LEVEL: usize = 24 << 10;
/// Channels at a time where it is more.
const CHUNK: usize = 128;

/// A depthwise convolution.
#[derive(Clone)]
pub struct Depthwise {
    pub(crate) isa: Isa,
    window: Window,
    /// Channels, padded to whole vectors.
    channels: usize,
    /// (channels / lanes, taps, lanes): those that are read together lie together.
    filter: Buffer,
    bias: Buffer,
    /// Limits of what is read: a rectifier that stands before.
    read: [f32; 2],
    /// Limits of what is written.
    written: [f32; 2],
    /// For bytes: what a sum is multiplied with, per channel; the bias is added after that.
    factor: Buffer,
    /// For bytes: the zero points of what is read and of what is written.
    pub(crate) zeros: [i32; 2],
    /// For bytes: where the machine multiplies them by fours.
    fours: Option<Fours>,
    /// For bytes: where it multiplies them by twos.
    twos: Option<Twos>,
    /// For bytes: the filter in whole numbers, where it multiplies those one by one.
    #[cfg(target_arch = "aarch64")]
    pub(crate) whole: Buffer<i16>,
}

/// Where a value of a filter lies.
#[inline(always)]
fn place(lanes: usize, taps: usize, tap: usize, channel: usize) -> usize {
    (channel / lanes * taps + tap) * lanes + channel % lanes
}

impl Depthwise {
    /// `filter(tap, channel)` with taps row by row, `bias(channel)`. `read` and `written` are the limits of what is
    /// read and written; infinities for none. Padding is zero after the limits of what is read.
    pub fn new(
        isa: Isa,
        window: Window,
        channels: usize,
        filter: impl Fn(usize, usize) -> f32,
        bias: impl Fn(usize) -> f32,
        read: [f32; 2],
        written: [f32; 2],
    ) -> Depthwise {
        let padded = isa.padded(channels);
        let taps = window.kernel[0] * window.kernel[1];
        let (mut filters, mut biases) = (Buffer::new(taps * padded), Buffer::new(padded));
        let lanes = isa.lanes();
        for channel in 0..channels {
            biases[channel] = bias(channel);
            for tap in 0..taps {
                filters[place(lanes, taps, tap, channel)] = filter(tap, channel);
            }
        }
        Depthwise {
            isa,
            window,
            channels: padded,
            filter: filters,
            bias: biases,
            read,
            written,
            factor: Buffer::default(),
            zeros: [0; 2],
            fours: None,
            twos: None,
            #[cfg(target_arch = "aarch64")]
            whole: Buffer::default(),
        }
    }

    /// The same on bytes: `zeros` are taken off what is read and added to what is written; in between a sum of whole numbers,
    /// exact in float32, becomes limits(sum · factor + bias), rounded half to even. The filter holds whole numbers.
    pub fn on_bytes(mut self, factor: impl Fn(usize) -> f32, zeros: [i32; 2]) -> Depthwise {
        self.factor = Buffer::new(self.channels);
        self.factor.iter_mut().enumerate().for_each(|(c, f)| *f = factor(c));
        self.zeros = zeros;
        let scale = Scale { factor: &self.factor, offset: &self.bias, limits: self.written, zero: zeros[1] };
        let (lanes, taps) = (self.isa.lanes(), self.window.kernel[0] * self.window.kernel[1]);
        let filter = |tap: usize, channel: usize| self.filter[place(lanes, taps, tap, channel)];
        let read = u8::try_from(zeros[0]).ok();
        self.fours = read.and_then(|z| Fours::pack(self.isa, &self.window, self.channels, filter, z, &scale));
        self.twos = read.and_then(|z| Twos::pack(self.isa, &self.window, self.channels, filter, z, &scale));
        #[cfg(target_arch = "aarch64")]
        if self.isa != Isa::PORTABLE
            && self.fours.is_none()
            && read.is_some()
            && self.read == [f32::NEG_INFINITY, f32::INFINITY]
        {
            self.whole = crate::neon::whole_filter(&self.filter).unwrap_or_default();
        }
        self
    }

    /// The window.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Channels, padded to whole vectors.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Values of the picture that it reads.
    pub fn input_len(&self) -> usize {
        self.window.input[0] * self.window.input[1] * self.channels
    }

    /// Computes the positions of a range, counted row by row. `out` has [`Depthwise::channels`] values for each.
    ///
    /// # Panics
    /// Where the lengths do not belong together.
    pub fn run(&self, input: &[f32], positions: Range<usize>, out: &mut [f32]) {
        self.check(input.len(), &positions, out.len());
        // SAFETY: input, filter, bias and output have the lengths that the loops count to.
        unsafe { floats(self.isa, self, input, positions, out) }
    }

    /// Computes bytes from bytes.
    ///
    /// # Panics
    /// Where the lengths do not belong together, or the layer is not one on bytes.
    pub fn run_bytes(&self, input: &[u8], positions: Range<usize>, out: &mut [u8]) {
        self.check(input.len(), &positions, out.len());
        assert_eq!(self.factor.len(), self.channels);
        #[cfg(target_arch = "aarch64")]
        if !self.whole.is_empty() {
            // SAFETY: as above; the factors are there, and the filter in whole numbers.
            return unsafe { crate::neon::depthwise_whole(self, input, positions, out) };
        }
        // SAFETY: as above; the factors are there.
        unsafe {
            match (&self.fours, &self.twos) {
                (Some(fours), _) => fours.run(&self.window, input, positions, out),
                (None, Some(twos)) => twos.run(&self.window, input, positions, out),
                (None, None) => bytes(self.isa, self, input, positions, out),
            }
        }
    }

    /// As [`Depthwise::run_bytes`], the zero point of what is written taken off: rows of a matrix product.
    ///
    /// # Panics
    /// Where the lengths do not belong together, or the layer is not one on bytes.
    pub fn run_strip(&self, input: &[u8], positions: Range<usize>, out: &mut [i16]) {
        self.check(input.len(), &positions, out.len());
        assert_eq!(self.factor.len(), self.channels);
        #[cfg(target_arch = "aarch64")]
        if !self.whole.is_empty() {
            // SAFETY: as above; the factors are there, and the filter in whole numbers.
            return unsafe { crate::neon::depthwise_whole(self, input, positions, out) };
        }
        // SAFETY: as above; the factors are there.
        unsafe {
            match &self.twos {
                Some(twos) => twos.run_strip(&self.window, input, positions, out),
                None => strip(self.isa, self, input, positions, out),
            }
        }
    }

    fn check(&self, input: usize, positions: &Range<usize>, out: usize) {
        assert_eq!(input, self.input_len());
        assert_eq!(out, positions.len() * self.channels);
        assert!(positions.end <= self.window.positions());
    }
}

kernel! {
    fn floats(layer: &Depthwise, input: &[f32], positions: Range<usize>, out: &mut [f32]) = body
}
kernel! {
    fn bytes(layer: &Depthwise, input: &[u8], positions: Range<usize>, out: &mut [u8]) = body
}
kernel! {
    fn strip(layer: &Depthwise, input: &[u8], positions: Range<usize>, out: &mut [i16]) = body
}

/// What is read, and the arithmetic of its sums.
pub(crate) trait Source<S: Simd>: Copy {
    /// Whether it has a zero point.
    const BYTES: bool;
    /// A vector of it, its zero point taken off.
    type Pixel: Copy;
    /// A vector of the filter.
    type Tap: Copy;
    /// Sums.
    type Sum: Copy;
    /// The zero point.
    type Zero: Copy;
    /// The layer's zero point.
    fn zero(s: S, layer: &Depthwise) -> Self::Zero;
    /// A vector of it.
    ///
    /// # Safety
    /// `p` points to so many.
    unsafe fn load(s: S, p: *const Self, zero: Self::Zero) -> Self::Pixel;
    /// A vector of the filter, from where it begins.
    ///
    /// # Safety
    /// The values are there.
    unsafe fn tap(s: S, layer: &Depthwise, at: usize) -> Self::Tap;
    /// Within limits.
    fn limit(s: S, pixel: Self::Pixel, read: [S::V; 2]) -> Self::Pixel;
    /// sum + pixel · tap.
    fn add(s: S, pixel: Self::Pixel, tap: Self::Tap, sum: Self::Sum) -> Self::Sum;
    /// [`Simd::window`] of what has such a loop.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn window<const K: usize, const STRIDE: usize>(
        _: S,
        _first: *const Self,
        _apart: [usize; 2],
        _outside: [usize; 2],
        _filter: *const f32,
        _rows: usize,
        _sums: &mut [Self::Sum; 4],
    ) -> bool {
        false
    }
    /// Where sums begin.
    ///
    /// # Safety
    /// The channel is one of the layer's.
    unsafe fn begin(s: S, layer: &Depthwise, channel: usize) -> Self::Sum;
    /// As float32.
    fn float(s: S, sum: Self::Sum) -> S::V;
}

macro_rules! source {
    ($type:ident, $bytes:literal, $load:ident) => {
        impl<S: Simd> Source<S> for $type {
            const BYTES: bool = $bytes;
            type Pixel = S::V;
            type Tap = S::V;
            type Sum = S::V;
            type Zero = S::V;
            #[inline(always)]
            fn zero(s: S, layer: &Depthwise) -> S::V {
                s.splat(-layer.zeros[0] as f32)
            }
            #[inline(always)]
            unsafe fn load(s: S, p: *const $type, zero: S::V) -> S::V {
                // SAFETY: the caller's promise.
                let pixel = unsafe { s.$load(p) };
                if $bytes { s.add(pixel, zero) } else { pixel }
            }
            #[inline(always)]
            unsafe fn tap(s: S, layer: &Depthwise, at: usize) -> S::V {
                // SAFETY: the caller's promise.
                unsafe { s.load(layer.filter.as_ptr().add(at)) }
            }
            #[inline(always)]
            fn limit(s: S, pixel: S::V, read: [S::V; 2]) -> S::V {
                s.min(read[1], s.max(read[0], pixel))
            }
            #[inline(always)]
            fn add(s: S, pixel: S::V, tap: S::V, sum: S::V) -> S::V {
                s.fma(pixel, tap, sum)
            }
            #[inline(always)]
            unsafe fn window<const K: usize, const STRIDE: usize>(
                s: S,
                first: *const $type,
                apart: [usize; 2],
                outside: [usize; 2],
                filter: *const f32,
                rows: usize,
                sums: &mut [S::V; 4],
            ) -> bool {
                // SAFETY: the caller's promise.
                !$bytes && unsafe { s.window::<K, STRIDE>(first.cast(), apart, outside, filter, rows, sums) }
            }
            #[inline(always)]
            unsafe fn begin(s: S, layer: &Depthwise, channel: usize) -> S::V {
                // SAFETY: the caller's promise.
                if $bytes { s.splat(0.0) } else { unsafe { s.load(layer.bias.as_ptr().add(channel)) } }
            }
            #[inline(always)]
            fn float(_: S, sum: S::V) -> S::V {
                sum
            }
        }
    };
}

source!(f32, false, load_apart);
source!(u8, true, load_u8);

/// Ends sums: what they are multiplied with, added to and limited to, and where they go.
///
/// # Safety
/// The channel is one of the layer's; `to` points to room for a vector.
#[inline(always)]
unsafe fn end<S: Simd, I: Source<S>, O: Sink>(s: S, layer: &Depthwise, sum: I::Sum, channel: usize, to: *mut O) {
    let written = s.splats(layer.written);
    // SAFETY: the caller's promise.
    unsafe {
        let mut sum = I::float(s, sum);
        if I::BYTES {
            let factor = s.load(layer.factor.as_ptr().add(channel));
            sum = s.scale(sum, factor, s.load(layer.bias.as_ptr().add(channel)));
        }
        O::store(s, to, s.min(written[1], s.max(written[0], sum)), layer.zeros[1]);
    }
}

/// Computes the positions of a range.
///
/// # Safety
/// The lengths are those that the loops count to.
#[inline(always)]
pub(crate) unsafe fn body<S: Simd, I: Source<S>, O: Sink>(
    s: S,
    layer: &Depthwise,
    input: &[I],
    positions: Range<usize>,
    out: &mut [O],
) {
    let window = &layer.window;
    let width = window.output[1];
    let whole = window.whole(1);
    let limited = layer.read != [f32::NEG_INFINITY, f32::INFINITY];
    let square = (window.kernel[0] == window.kernel[1] && window.dilation == [1, 1]).then_some(window.kernel[0]);
    let size = square.filter(|k| matches!(k, 3 | 5 | 7) && window.stride[1] <= 2).unwrap_or(0);
    // As many channels at a time as leave what neighbouring positions share in the first-level cache.
    let seen = window.kernel[0] * (window.kernel[1] + 3) * layer.channels * size_of::<I>();
    let some = if seen > FIRST_LEVEL { CHUNK } else { layer.channels };
    for first in (0..layer.channels).step_by(some) {
        let channels = first..(first + some).min(layer.channels);
        let mut at = positions.start;
        let out = out.as_mut_ptr();
        while at < positions.end {
            let (y, x) = (at / width, at % width);
            let left = (positions.end - at).min(width - x);
            let channels = channels.clone();
            macro_rules! blocks {
                ($count:literal, $size:literal) => {
                    // The last ones may have been computed before, and are the same again.
                    for x in (0..left).step_by($count).map(|done| x + done.min(left - $count)) {
                        let inside = whole.contains(&x) && x + $count <= whole.end;
                        let (channels, first) = (channels.clone(), at - at % width + x - positions.start);
                        // SAFETY: `run` asserted the lengths; so many positions are in the row and in the range.
                        unsafe {
                            let out = out.add(first * layer.channels);
                            blocks!(@ $count, $size, inside, x, channels, out);
                        }
                    }
                };
                (@ $count:literal, $size:literal, $inside:ident, $x:ident, $channels:ident, $out:ident) => {
                    match (limited, window.stride[1], $inside) {
                        (false, 1, true) => blocks!(# $count, $size, 1, false, true, $x, $channels, $out),
                        (false, 1, false) => blocks!(# $count, $size, 1, false, false, $x, $channels, $out),
                        (true, 1, true) => blocks!(# $count, $size, 1, true, true, $x, $channels, $out),
                        (true, 1, false) => blocks!(# $count, $size, 1, true, false, $x, $channels, $out),
                        (false, _, true) => blocks!(# $count, $size, 2, false, true, $x, $channels, $out),
                        (false, _, false) => blocks!(# $count, $size, 2, false, false, $x, $channels, $out),
                        (true, _, true) => blocks!(# $count, $size, 2, true, true, $x, $channels, $out),
                        (true, _, false) => blocks!(# $count, $size, 2, true, false, $x, $channels, $out),
                    }
                };
                (# $count:literal, $size:literal, $stride:literal, $limited:literal, $inside:literal, $x:ident, $channels:ident,
                 $out:ident) => {
                    block::<S, I, O, $count, $size, $stride, $limited, $inside>(s, layer, input, y, $x, $channels, $out)
                };
            }
            match (left, size) {
                (4.., 3) => blocks!(4, 3),
                (2.., 3) => blocks!(2, 3),
                (4.., 5) => blocks!(4, 5),
                (2.., 5) => blocks!(2, 5),
                (4.., 7) => blocks!(4, 7),
                _ => {
                    for x in x..x + left {
                        let first = at - at % width + x - positions.start;
                        // SAFETY: `run` asserted the lengths.
                        unsafe { single(s, layer, input, y, x, channels.clone(), out.add(first * layer.channels)) }
                    }
                }
            }
            at += left;
        }
    }
}

/// `P` positions of a row, `STRIDE` pixels apart, with a K×K window. `INSIDE` says that its columns are inside the picture.
#[inline(always)]
unsafe fn block<
    S: Simd,
    I: Source<S>,
    O: Sink,
    const P: usize,
    const K: usize,
    const STRIDE: usize,
    const LIMITED: bool,
    const INSIDE: bool,
>(
    s: S,
    layer: &Depthwise,
    input: &[I],
    y: usize,
    x: usize,
    range: Range<usize>,
    out: *mut O,
) {
    let window = &layer.window;
    let channels = layer.channels;
    let rows = window.inside(0, y);
    let left = (x * STRIDE).wrapping_sub(window.before[1]);
    // Pixels beyond the left border and beyond the right one.
    let border = window.before[1] + window.input[1];
    let outside = [window.before[1].saturating_sub(x * STRIDE), ((x + P - 1) * STRIDE + K).saturating_sub(border)];
    let outside = if INSIDE { [0; 2] } else { outside };
    let (read, zero) = (s.splats(layer.read), I::zero(s, layer));
    // SAFETY: the caller's promise: the pixels that are read lie inside the picture.
    unsafe {
        // Rows outside are not read; beyond the upper border and the left one numbers are large.
        let from = (y * window.stride[0] + rows.start).wrapping_sub(window.before[0]);
        let line = window.input[1] * channels;
        let first = input.as_ptr().wrapping_add(from.wrapping_mul(line).wrapping_add(left.wrapping_mul(channels)));
        let last = first.wrapping_add(rows.len().saturating_sub(1) * line);
        for channel in range.step_by(S::LANES) {
            // The lowest row is the one that has not been read for the positions above.
            for p in 0..P {
                s.fetch(last.wrapping_add((P * STRIDE + K - 1 + p) * channels + channel));
            }
            let mut sums = [I::begin(s, layer, channel); P];
            let mut row = first.wrapping_add(channel);
            let mut at = place(S::LANES, K * K, rows.start * K, channel);
            let own = P == 4 && !LIMITED && {
                let (filter, sums) = (layer.filter.as_ptr().add(at), (&raw mut sums).cast::<[I::Sum; 4]>());
                I::window::<K, STRIDE>(s, row, [channels, line], outside, filter, rows.len(), &mut *sums)
            };
            if !own {
                for _ in rows.clone() {
                    let filter: [I::Tap; K] = std::array::from_fn(|t| I::tap(s, layer, at + t * S::LANES));
                    let mut pixel = row;
                    // Not all of these exist for every P and STRIDE; the compiler unrolls and drops the others.
                    for column in 0..(P - 1) * STRIDE + K {
                        let here = pixel;
                        pixel = pixel.wrapping_add(channels);
                        if !INSIDE && left.wrapping_add(column) >= window.input[1] {
                            continue;
                        }
                        let mut pixel = I::load(s, here, zero);
                        if LIMITED {
                            pixel = I::limit(s, pixel, read);
                        }
                        for (p, sum) in sums.iter_mut().enumerate() {
                            if column >= p * STRIDE && column - p * STRIDE < K {
                                *sum = I::add(s, pixel, filter[column - p * STRIDE], *sum);
                            }
                        }
                    }
                    row = row.wrapping_add(line);
                    at += K * S::LANES;
                }
            }
            for (p, sum) in sums.into_iter().enumerate() {
                end::<S, I, O>(s, layer, sum, channel, out.add(p * channels + channel));
            }
        }
    }
}

/// One position, any window.
#[inline(always)]
unsafe fn single<S: Simd, I: Source<S>, O: Sink>(
    s: S,
    layer: &Depthwise,
    input: &[I],
    y: usize,
    x: usize,
    channels: Range<usize>,
    out: *mut O,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let several = channels.start + channels.len() / (4 * S::LANES) * (4 * S::LANES);
        for channel in (channels.start..several).step_by(4 * S::LANES) {
            vectors::<S, I, O, 4>(s, layer, input, y, x, channel, out);
        }
        for channel in (several..channels.end).step_by(S::LANES) {
            vectors::<S, I, O, 1>(s, layer, input, y, x, channel, out);
        }
    }
}

/// `V` vectors of one position: several, so that their sums do not wait for each other.
#[inline(always)]
unsafe fn vectors<S: Simd, I: Source<S>, O: Sink, const V: usize>(
    s: S,
    layer: &Depthwise,
    input: &[I],
    y: usize,
    x: usize,
    channel: usize,
    out: *mut O,
) {
    let window = &layer.window;
    let channels = layer.channels;
    let (read, zero) = (s.splats(layer.read), I::zero(s, layer));
    let (rows, columns) = (window.inside(0, y), window.inside(1, x));
    let taps = window.kernel[0] * window.kernel[1];
    // SAFETY: the taps inside the picture have a source there; filter, bias and output have `channels` values each.
    unsafe {
        let mut sums: [I::Sum; V] = std::array::from_fn(|v| I::begin(s, layer, channel + v * S::LANES));
        for row in rows {
            let from = y * window.stride[0] + row * window.dilation[0] - window.before[0];
            for column in columns.clone() {
                let at = x * window.stride[1] + column * window.dilation[1] - window.before[1];
                let pixel = input.as_ptr().add((from * window.input[1] + at) * channels + channel);
                let tap = row * window.kernel[1] + column;
                for (v, sum) in sums.iter_mut().enumerate() {
                    let pixel = I::limit(s, I::load(s, pixel.add(v * S::LANES), zero), read);
                    let at = place(S::LANES, taps, tap, channel + v * S::LANES);
                    *sum = I::add(s, pixel, I::tap(s, layer, at), *sum);
                }
            }
        }
        for (v, sum) in sums.into_iter().enumerate() {
            let channel = channel + v * S::LANES;
            end::<S, I, O>(s, layer, sum, channel, out.add(channel));
        }
    }
}

#[cfg(test)]
mod tests;
