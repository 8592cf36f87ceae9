//! Depthwise convolution on bytes, two products at a time: `pmaddwd` on AVX2, where there is no [`crate::fours`]. Vectors run over
//! 16 channels, in 16-bit factors; how filters and pixels are laid out says [`crate::interleaved`]. Exact: a sum of 49 products
//! of nine bits fits.

use crate::interleaved::{Interleaved, Tap};
use crate::{Isa, Window};
use std::ops::Range;

/// A depthwise convolution on bytes, by twos.
pub(crate) type Twos = Interleaved<i16>;

impl Tap for i16 {
    const GROUP: usize = 2;
    const CHUNK: usize = 16;
    /// Wider vectors go as fast in float32.
    #[cfg(target_arch = "x86_64")]
    fn able(isa: Isa) -> bool {
        isa.kind() == crate::isa::Kind::Avx2
    }
    #[cfg(not(target_arch = "x86_64"))]
    fn able(_: Isa) -> bool {
        false
    }
    fn of(value: f32) -> Option<i16> {
        Some(value as i16).filter(|whole| f32::from(*whole) == value && whole.abs() <= 255)
    }
    fn channel(place: usize) -> usize {
        place / 8 * 4 + place % 8 / 4 * 8 + place % 4
    }
}

impl Twos {
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
    use super::Twos;
    use crate::interleaved::{NO_PIXELS, Pixels, Tap, look};
    use crate::{Buffer, Window};
    use std::arch::x86_64::*;
    use std::ops::Range;

    const CHUNK: usize = <i16 as Tap>::CHUNK;

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
