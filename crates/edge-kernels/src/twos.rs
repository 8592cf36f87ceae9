//! Depthwise convolution on bytes, two products at a time: `pmaddwd` on AVX2, where there is no [`crate::fours`].
//!
//! The same in 16-bit factors: vectors run over 16 channels, two neighbouring pixels of a row are interleaved, and two
//! neighbouring positions share them, each with the filter shifted to its place. Exact: a sum of 49 products of nine bits fits.

use crate::fours::{MOST_QUADS, MOST_ROWS};
use crate::gemm8::Scale;
#[cfg(target_arch = "x86_64")]
use crate::isa::Kind;
use crate::{Buffer, Isa, Window};
use std::ops::Range;

/// Channels in a chunk.
const CHUNK: usize = 16;

/// A depthwise convolution on bytes.
#[derive(Clone)]
pub(crate) struct Twos {
    /// Channels in memory.
    channels: usize,
    /// Fours of pixels in a row of the window.
    quads: usize,
    /// (chunk, row, pair of pixels, position of a pair, channel, tap).
    filter: Buffer<i16>,
    /// (chunk, channel), as all that follow.
    begin: Buffer<i32>,
    factor: Buffer,
    offset: Buffer,
    /// A pixel outside the picture.
    outside: Buffer<u8>,
    /// Limits of what is written, its zero point taken off.
    limits: [i16; 2],
    zero: i16,
}

/// The channel of a chunk whose sum lies at a place.
fn channel(place: usize) -> usize {
    place / 8 * 4 + place % 8 / 4 * 8 + place % 4
}

impl Twos {
    /// Packs `filter(tap, channel)`, taps row by row, for bytes whose zero point is `zero`. `None` where the machine has no
    /// such instructions, or the window or a value is none of theirs.
    pub fn pack(
        isa: Isa,
        window: &Window,
        channels: usize,
        filter: impl Fn(usize, usize) -> f32,
        zero: u8,
        scale: &Scale<'_>,
    ) -> Option<Twos> {
        let ([rows, columns], stride) = (window.kernel, window.stride[1]);
        let quads = (columns + stride).div_ceil(4);
        // Wider vectors go as fast in float32.
        #[cfg(target_arch = "x86_64")]
        let able = matches!(isa.kind(), Kind::Avx2);
        #[cfg(not(target_arch = "x86_64"))]
        let able = false;
        if !able || window.dilation != [1, 1] || stride > 2 || quads > MOST_QUADS || rows > MOST_ROWS {
            return None;
        }
        let chunks = channels.div_ceil(CHUNK);
        let block = rows * 2 * quads * 2 * 2 * CHUNK;
        let limit = |l: f32| (l.round_ties_even() as i32).clamp(-scale.zero, 255 - scale.zero) as i16;
        let mut made = Twos {
            channels,
            quads,
            filter: Buffer::new(chunks * block),
            begin: Buffer::new(chunks * CHUNK),
            factor: Buffer::new(chunks * CHUNK),
            offset: Buffer::new(chunks * CHUNK),
            outside: Buffer::new(chunks * CHUNK),
            limits: scale.limits.map(limit),
            zero: i16::try_from(scale.zero).ok().filter(|z| (0..=255).contains(z))?,
        };
        made.outside.fill(zero);
        for (at, (chunk, place)) in (0..chunks).flat_map(|c| (0..CHUNK).map(move |p| (c, p))).enumerate() {
            let channel = chunk * CHUNK + channel(place);
            let (Some(factor), Some(offset)) = (scale.factor.get(channel), scale.offset.get(channel)) else { continue };
            let (mut sum, mut most) = (0, 0);
            for tap in 0..rows * columns {
                let value = filter(tap, channel);
                // What is no whole number of this range is not ours.
                let whole = value as i16;
                if f32::from(whole) != value || whole.abs() > 255 {
                    return None;
                }
                (sum, most) = (sum + i32::from(whole), most + 255 * i32::from(whole).abs());
                let (row, column) = (tap / columns, tap % columns);
                for shift in 0..2 {
                    let pixel = column + shift * stride;
                    let vector = ((row * 2 * quads + pixel / 2) * 2 + shift) * 2 * CHUNK;
                    made.filter[chunk * block + vector + place * 2 + pixel % 2] = whole;
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

    /// Computes the positions of a range, counted row by row, as bytes.
    ///
    /// # Safety
    /// `window` is the one that was packed for; `input` holds its picture, `out` room for the positions, which are the
    /// window's.
    #[cfg(target_arch = "x86_64")]
    pub unsafe fn run(&self, window: &Window, input: &[u8], positions: Range<usize>, out: &mut [u8]) {
        // SAFETY: packed only where the machine has the instructions; the rest is the caller's promise.
        unsafe { x86::run(self, window, input.as_ptr(), positions, out.as_mut_ptr()) }
    }

    /// As [`Twos::run`], the zero point taken off.
    ///
    /// # Safety
    /// As there.
    #[cfg(target_arch = "x86_64")]
    pub unsafe fn run_strip(&self, window: &Window, input: &[u8], positions: Range<usize>, out: &mut [i16]) {
        // SAFETY: as above.
        unsafe { x86::run(self, window, input.as_ptr(), positions, out.as_mut_ptr()) }
    }

    /// Nothing can be packed for this machine.
    ///
    /// # Safety
    /// None is needed.
    #[cfg(not(target_arch = "x86_64"))]
    pub unsafe fn run(&self, _: &Window, _: &[u8], _: Range<usize>, _: &mut [u8]) {}

    /// Nothing can be packed for this machine.
    ///
    /// # Safety
    /// None is needed.
    #[cfg(not(target_arch = "x86_64"))]
    pub unsafe fn run_strip(&self, _: &Window, _: &[u8], _: Range<usize>, _: &mut [i16]) {}
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use crate::fours::{NO_PIXELS, Pixels, look};
    use std::arch::x86_64::*;

    /// What is written.
    pub trait Out: Copy {
        /// Writes 16 values of `v`, or the first 8.
        ///
        /// # Safety
        /// The machine has AVX2; `to` points to room for them.
        unsafe fn write(to: *mut Self, v: __m256i, zero: i16, all: bool);
    }

    impl Out for i16 {
        #[inline(always)]
        unsafe fn write(to: *mut i16, v: __m256i, _: i16, all: bool) {
            // SAFETY: the caller's promise.
            unsafe {
                match all {
                    true => _mm256_storeu_si256(to.cast(), v),
                    false => _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(v)),
                }
            }
        }
    }

    impl Out for u8 {
        #[inline(always)]
        unsafe fn write(to: *mut u8, v: __m256i, zero: i16, all: bool) {
            // SAFETY: the caller's promise.
            unsafe {
                let v = _mm256_add_epi16(v, _mm256_set1_epi16(zero));
                let (low, high) = (_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
                let bytes = _mm_packus_epi16(low, high);
                match all {
                    true => _mm_storeu_si128(to.cast(), bytes),
                    false => _mm_storel_epi64(to.cast(), bytes),
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn run<O: Out>(layer: &Twos, w: &Window, input: *const u8, positions: Range<usize>, out: *mut O) {
        let mut pixels: Pixels = NO_PIXELS;
        let (mut at, mut out) = (positions.start, out);
        while at < positions.end {
            let count = (positions.end - at).min(w.output[1] - at % w.output[1]).min(2);
            // SAFETY: the caller's promise; the pixels are those of two positions, and there is room for every position.
            unsafe {
                look(w, layer.channels, input, layer.outside.as_ptr(), at, 4 * layer.quads, &mut pixels);
                match layer.quads {
                    1 => pair::<O, 2>(layer, w.kernel[0], &pixels, count, out),
                    _ => pair::<O, 4>(layer, w.kernel[0], &pixels, count, out),
                }
                out = out.add(count * layer.channels);
            }
            at += count;
        }
    }

    /// One or two neighbouring positions, `H` pairs of pixels in each row of the window. Loops go over constant bounds, so
    /// that all is unrolled and the sums stay in registers.
    #[inline]
    #[expect(clippy::needless_range_loop)]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn pair<O: Out, const H: usize>(layer: &Twos, rows: usize, pixels: &Pixels, count: usize, out: *mut O) {
        let [low, high] = layer.limits.map(|l| _mm256_set1_epi16(l));
        let mut filter = layer.filter.as_ptr();
        for first in (0..layer.channels).step_by(CHUNK) {
            let all = layer.channels - first >= CHUNK;
            // SAFETY: pixels have as many channels as are read; everything packed has whole chunks.
            unsafe {
                let vector = |v: usize| _mm256_loadu_si256(layer.begin.as_ptr().add(first + v * 8).cast());
                let begin = [vector(0), vector(1)];
                let mut sums = [begin; 2];
                for row in &pixels[..rows] {
                    for h in 0..H {
                        let load = |i: usize| {
                            let p = row[2 * h + i].add(first).cast();
                            _mm256_cvtepu8_epi16(if all { _mm_loadu_si128(p) } else { _mm_loadl_epi64(p) })
                        };
                        let (a, b) = (load(0), load(1));
                        let seen = [_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)];
                        for shift in 0..2 {
                            for v in 0..2 {
                                let taps = _mm256_loadu_si256(filter.add((shift * 2 + v) * CHUNK).cast());
                                let products = _mm256_madd_epi16(seen[v], taps);
                                sums[shift][v] = _mm256_add_epi32(sums[shift][v], products);
                            }
                        }
                        filter = filter.add(4 * CHUNK);
                    }
                }
                let real = |b: &Buffer, v: usize| _mm256_loadu_ps(b.as_ptr().add(first + v * 8));
                for at in 0..2 {
                    let whole = |v: usize| {
                        let value = _mm256_cvtepi32_ps(sums[at][v]);
                        _mm256_cvtps_epi32(_mm256_fmadd_ps(value, real(&layer.factor, v), real(&layer.offset, v)))
                    };
                    let half = _mm256_packs_epi32(whole(0), whole(1));
                    let half = _mm256_min_epi16(high, _mm256_max_epi16(low, half));
                    if at < count {
                        O::write(out.add(at * layer.channels + first), half, layer.zero, all);
                    }
                }
            }
        }
    }
}
