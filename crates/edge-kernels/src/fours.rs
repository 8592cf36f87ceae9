//! Depthwise convolution on bytes, four products at a time: `vpdpbusd`, where a machine has it.
//!
//! Vectors run over 64 channels. Four neighbouring pixels of a row are interleaved, so that the bytes of a channel lie
//! together and a filter's row of three or four taps is one instruction; of two neighbouring positions, which see the same four
//! pixels or most of them, each has the filter shifted to its place. Where the window leaves the picture it reads a pixel
//! of zero points, so borders cost nothing of their own. What the zero point adds to a channel is the same for every
//! position, so sums begin with its negative: whole numbers, exact.
//!
//! Interleaving leaves the sums of 64 channels in an order that the instructions which narrow them to bytes undo; filter,
//! factors and offsets are packed in that order.

use crate::gemm8::Scale;
use crate::{Buffer, Isa, Window};
use std::ops::Range;

/// Channels in a chunk.
const CHUNK: usize = 64;
/// Pixels that a row of the window spans at most, for two positions, in fours.
pub(crate) const MOST_QUADS: usize = 2;
/// Rows of a window at most.
pub(crate) const MOST_ROWS: usize = 7;
/// Positions computed together, in pairs.
const PAIRS: usize = 2;
/// Pairs of pixels in a row that they see at most: two fours, and two pairs of positions two pixels apart.
const MOST_HALVES: usize = 2 * MOST_QUADS + (PAIRS - 1) * 2;

/// A depthwise convolution on bytes.
#[derive(Clone)]
pub(crate) struct Fours {
    /// Channels in memory.
    channels: usize,
    /// Fours of pixels in a row of the window.
    quads: usize,
    /// (chunk, row, four of pixels, position of a pair, channel, tap).
    filter: Buffer<i8>,
    /// (chunk, channel), as all that follow.
    begin: Buffer<i32>,
    factor: Buffer,
    offset: Buffer,
    /// A pixel outside the picture.
    outside: Buffer<u8>,
    /// Limits of what is written.
    limits: [u8; 2],
    zero: i16,
}

/// The channel of a chunk whose sum lies at a place.
fn channel(place: usize) -> usize {
    place % 16 / 4 * 16 + place / 16 * 4 + place % 4
}

impl Fours {
    /// Packs `filter(tap, channel)`, taps row by row, for bytes whose zero point is `zero`. `None` where the machine has no
    /// such instructions, or the window or a value is none of theirs.
    pub fn pack(
        isa: Isa,
        window: &Window,
        channels: usize,
        filter: impl Fn(usize, usize) -> f32,
        zero: u8,
        scale: &Scale<'_>,
    ) -> Option<Fours> {
        let ([rows, columns], stride) = (window.kernel, window.stride[1]);
        let quads = (columns + stride).div_ceil(4);
        if !isa.has_quads() || window.dilation != [1, 1] || stride > 2 || quads > MOST_QUADS || rows > MOST_ROWS {
            return None;
        }
        let chunks = channels.div_ceil(CHUNK);
        let block = rows * quads * 2 * 4 * CHUNK;
        let mut made = Fours {
            channels,
            quads,
            filter: Buffer::new(chunks * block),
            begin: Buffer::new(chunks * CHUNK),
            factor: Buffer::new(chunks * CHUNK),
            offset: Buffer::new(chunks * CHUNK),
            outside: Buffer::new(chunks * CHUNK),
            limits: scale.limits.map(|l| (l.round_ties_even() as i32).saturating_add(scale.zero).clamp(0, 255) as u8),
            zero: i16::try_from(scale.zero).ok()?,
        };
        made.outside.fill(zero);
        for (at, (chunk, place)) in (0..chunks).flat_map(|c| (0..CHUNK).map(move |p| (c, p))).enumerate() {
            let channel = chunk * CHUNK + channel(place);
            let (Some(factor), Some(offset)) = (scale.factor.get(channel), scale.offset.get(channel)) else { continue };
            let (mut sum, mut most) = (0, 0);
            for tap in 0..rows * columns {
                let value = filter(tap, channel);
                // What is no whole number of this range is not ours.
                let byte = value as i8;
                if f32::from(byte) != value {
                    return None;
                }
                (sum, most) = (sum + i32::from(byte), most + 255 * i32::from(byte).abs());
                let (row, column) = (tap / columns, tap % columns);
                for shift in 0..2 {
                    let pixel = column + shift * stride;
                    let vector = ((row * quads + pixel / 4) * 2 + shift) * 4 * CHUNK;
                    made.filter[chunk * block + vector + place * 4 + pixel % 4] = byte;
                }
            }
            // So that nothing is lost on the way to int32.
            let largest = most as f32 * factor.abs() + offset.abs();
            if largest.is_nan() || largest > 1e9 {
                return None;
            }
            (made.begin[at], made.factor[at], made.offset[at]) = (-i32::from(zero) * sum, *factor, *offset);
        }
        Some(made)
    }

    /// Computes the positions of a range, counted row by row.
    ///
    /// # Safety
    /// `window` is the one that was packed for; `input` holds its picture, `out` room for the positions, which are the
    /// window's.
    #[cfg(target_arch = "x86_64")]
    pub unsafe fn run(&self, window: &Window, input: &[u8], positions: Range<usize>, out: &mut [u8]) {
        // SAFETY: packed only where the machine has the instructions; the rest is the caller's promise.
        unsafe { x86::run(self, window, input.as_ptr(), positions, out.as_mut_ptr()) }
    }

    /// Nothing can be packed for this machine.
    ///
    /// # Safety
    /// None is needed.
    #[cfg(not(target_arch = "x86_64"))]
    pub unsafe fn run(&self, _: &Window, _: &[u8], _: Range<usize>, _: &mut [u8]) {}
}

/// For each row of a window the pixels that some neighbouring positions see.
pub(crate) type Pixels = [[*const u8; 2 * MOST_HALVES]; MOST_ROWS];
/// None yet.
pub(crate) const NO_PIXELS: Pixels = [[std::ptr::null(); 2 * MOST_HALVES]; MOST_ROWS];

/// Finds the first `seen` pixels of each row of the window at position `at`; `outside` is one that lies outside the picture.
///
/// # Safety
/// `input` holds the window's picture of so many channels; there are no more rows and pixels than there is room for.
#[inline(always)]
pub(crate) unsafe fn look(
    w: &Window,
    channels: usize,
    input: *const u8,
    outside: *const u8,
    at: usize,
    seen: usize,
    pixels: &mut Pixels,
) {
    let (y, x) = (at / w.output[1], at % w.output[1]);
    let left = (x * w.stride[1]).wrapping_sub(w.before[1]);
    for (row, pixels) in pixels[..w.kernel[0]].iter_mut().enumerate() {
        let from = w.source(0, y, row);
        for (column, pixel) in pixels[..seen].iter_mut().enumerate() {
            let column = left.wrapping_add(column);
            *pixel = match from {
                // SAFETY: a pixel of the picture, by the caller's promise.
                Some(row) if column < w.input[1] => unsafe { input.add((row * w.input[1] + column) * channels) },
                _ => outside,
            };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub unsafe fn run(layer: &Fours, w: &Window, input: *const u8, positions: Range<usize>, out: *mut u8) {
        let (width, stride) = (w.output[1], w.stride[1]);
        let mut pixels: Pixels = NO_PIXELS;
        let (mut at, mut out) = (positions.start, out);
        while at < positions.end {
            let count = (positions.end - at).min(width - at % width).min(2 * PAIRS);
            let pairs = count.div_ceil(2);
            let seen = 4 * layer.quads + 2 * (pairs - 1) * stride;
            // SAFETY: the caller's promise.
            unsafe { look(w, layer.channels, input, layer.outside.as_ptr(), at, seen, &mut pixels) };
            macro_rules! block {
                ($quads:literal, $stride:literal) => {
                    match pairs {
                        1 => block::<1, $quads, $stride>(layer, w.kernel[0], &pixels, count, out),
                        _ => block::<2, $quads, $stride>(layer, w.kernel[0], &pixels, count, out),
                    }
                };
            }
            // SAFETY: the pixels are those of so many pairs; there is room for every position.
            unsafe {
                match (layer.quads, stride) {
                    (1, 1) => block!(1, 1),
                    (_, 1) => block!(2, 1),
                    (1, _) => block!(1, 2),
                    (_, _) => block!(2, 2),
                }
                out = out.add(count * layer.channels);
            }
            at += count;
        }
    }

    /// `count` positions of `P` pairs, `S` pixels apart, in each row of the window `Q` fours of pixels for a pair.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn block<const P: usize, const Q: usize, const S: usize>(
        layer: &Fours,
        rows: usize,
        pixels: &Pixels,
        count: usize,
        out: *mut u8,
    ) {
        let zero = _mm512_set1_epi16(layer.zero);
        let [low, high] = layer.limits.map(|l| _mm512_set1_epi8(l as i8));
        let mut filter = layer.filter.as_ptr();
        for first in (0..layer.channels).step_by(CHUNK) {
            let here = (layer.channels - first).min(CHUNK);
            let mask = u64::MAX >> (CHUNK - here);
            // SAFETY: pixels have as many channels as are not masked; everything packed has whole chunks.
            unsafe {
                let vector = |b: *const i32, v: usize| _mm512_loadu_si512(b.add(first + v * 16).cast());
                let begin: [__m512i; 4] = std::array::from_fn(|v| vector(layer.begin.as_ptr(), v));
                let mut sums = [[begin; 2]; P];
                for row in &pixels[..rows] {
                    // Two pixels interleaved: the pairs of a block share them.
                    let halves: [[__m512i; 2]; MOST_HALVES] = std::array::from_fn(|h| {
                        if h >= 2 * Q + (P - 1) * S {
                            return [_mm512_setzero_si512(); 2];
                        }
                        let load = |i: usize| _mm512_maskz_loadu_epi8(mask, row[i].add(first).cast());
                        let (a, b) = (load(2 * h), load(2 * h + 1));
                        [_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b)]
                    });
                    for q in 0..Q {
                        for v in 0..4 {
                            let taps = |s: usize| _mm512_loadu_si512(filter.add((s * 4 + v) * CHUNK).cast());
                            let taps = [taps(0), taps(1)];
                            for p in 0..P {
                                let (ab, cd) = (halves[p * S + 2 * q][v / 2], halves[p * S + 2 * q + 1][v / 2]);
                                let seen = match v % 2 {
                                    0 => _mm512_unpacklo_epi16(ab, cd),
                                    _ => _mm512_unpackhi_epi16(ab, cd),
                                };
                                sums[p][0][v] = _mm512_dpbusd_epi32(sums[p][0][v], seen, taps[0]);
                                sums[p][1][v] = _mm512_dpbusd_epi32(sums[p][1][v], seen, taps[1]);
                            }
                        }
                        filter = filter.add(8 * CHUNK);
                    }
                }
                let real = |b: &Buffer, v: usize| _mm512_loadu_ps(b.as_ptr().add(first + v * 16));
                let scales: [(__m512, __m512); 4] =
                    std::array::from_fn(|v| (real(&layer.factor, v), real(&layer.offset, v)));
                // Over constant bounds, so that all is unrolled and the sums stay in registers.
                #[expect(clippy::needless_range_loop)]
                for p in 0..P {
                    for i in 0..2 {
                        let whole = |v: usize| {
                            let (factor, offset) = scales[v];
                            _mm512_cvtps_epi32(_mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[p][i][v]), factor, offset))
                        };
                        let half = |v: usize| _mm512_adds_epi16(_mm512_packs_epi32(whole(v), whole(v + 1)), zero);
                        let bytes = _mm512_packus_epi16(half(0), half(2));
                        let bytes = _mm512_min_epu8(high, _mm512_max_epu8(low, bytes));
                        let to = out.add((2 * p + i) * layer.channels + first);
                        if 2 * p + i >= count {
                            break;
                        }
                        match here == CHUNK {
                            true => _mm512_storeu_si512(to.cast(), bytes),
                            false => _mm512_mask_storeu_epi8(to.cast(), mask, bytes),
                        }
                    }
                }
            }
        }
    }
}
