//! Depthwise convolution on bytes, four products at a time: `vpdpbusd` over 64 channels, or `sdot` over 16, where a machine has it.
//! How filters and pixels are laid out says [`crate::interleaved`].

use crate::interleaved::{Interleaved, Tap};
use crate::{Isa, Window};
use std::ops::Range;

/// A depthwise convolution on bytes, by fours.
pub(crate) type Fours = Interleaved<i8>;

impl Tap for i8 {
    const GROUP: usize = 4;
    const CHUNK: usize = if cfg!(target_arch = "aarch64") { 16 } else { 64 };
    #[cfg(target_arch = "aarch64")]
    fn able(isa: Isa) -> bool {
        matches!(isa.kind(), crate::isa::Kind::Dot | crate::isa::Kind::I8mm)
    }
    #[cfg(target_arch = "x86_64")]
    fn able(isa: Isa) -> bool {
        isa.kind() == crate::isa::Kind::Vnni
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn able(_: Isa) -> bool {
        false
    }
    fn of(value: f32) -> Option<i8> {
        Some(value as i8).filter(|whole| f32::from(*whole) == value)
    }
    /// `sdot` is for signed bytes only.
    const SHIFT: i32 = if cfg!(target_arch = "aarch64") { 128 } else { 0 };
    fn channel(place: usize) -> usize {
        if cfg!(target_arch = "aarch64") { place } else { place % 16 / 4 * 16 + place / 16 * 4 + place % 4 }
    }
}

impl Fours {
    /// Computes the positions of a range, counted row by row.
    ///
    /// # Safety
    /// `window` is the one that was packed for; `input` holds its picture, `out` room for the positions, which are the
    /// window's.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    pub unsafe fn run(&self, window: &Window, input: &[u8], positions: Range<usize>, out: &mut [u8]) {
        // SAFETY: packed only where the machine has the instructions; the rest is the caller's promise.
        unsafe { run(self, window, input.as_ptr(), positions, out.as_mut_ptr()) }
    }

    /// Nothing can be packed for this machine.
    ///
    /// # Safety
    /// None is needed.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub unsafe fn run(&self, _: &Window, _: &[u8], _: Range<usize>, _: &mut [u8]) {}
}

#[cfg(target_arch = "aarch64")]
use crate::neon::depthwise_fours as run;
#[cfg(target_arch = "x86_64")]
use x86::run;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Fours;
    use crate::interleaved::{MOST_HALVES, Pixels, Tap, walk_fours};
    use crate::{Buffer, Window};
    use std::arch::x86_64::*;
    use std::ops::Range;

    const CHUNK: usize = <i8 as Tap>::CHUNK;

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub unsafe fn run(layer: &Fours, w: &Window, input: *const u8, positions: Range<usize>, out: *mut u8) {
        walk_fours!(layer, w, input, positions, out, block);
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
        let [low, high] = layer.limits.map(|l| _mm512_set1_epi8((l + layer.zero) as i8));
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
