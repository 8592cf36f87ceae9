//! How fast this machine multiplies and adds, to hold kernels against.

use crate::Isa;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::isa::Kind;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Dot4, Four};
use crate::simd::{Simd, kernel};
use std::hint::black_box;
use std::time::Instant;

/// Sums that do not wait for each other: enough for any machine's latency.
pub(crate) const SUMS: usize = 12;
/// Additions to each of them in a measurement.
const TURNS: usize = if cfg!(test) { 20_000 } else { 1_000_000 };

/// Fused multiply-adds in float32 per second of one thread with `isa`, in units of 10^9: the best of a few measurements of some
/// milliseconds each.
pub fn peak(isa: Isa) -> f64 {
    best(isa.lanes(), || {
        let mut sum = 0.0;
        // SAFETY: nothing is read but what is handed over.
        unsafe { floats(isa, black_box(TURNS), black_box(0.999), &mut sum) };
        black_box(sum);
    })
}

/// The same in whole numbers, as [`crate::Quads`] multiplies them where the machine has fours, else as [`crate::Weights8`].
pub fn peak_bytes(isa: Isa) -> f64 {
    let (mut sum, factor) = (0.0, black_box([3, 5]));
    match isa.kind() {
        #[cfg(target_arch = "aarch64")]
        Kind::InOrder | Kind::Neon | Kind::Dot | Kind::I8mm => best(crate::neon::products(isa), || {
            // SAFETY: an Isa is of this machine.
            unsafe { crate::neon::multiply(isa, black_box(TURNS), black_box([3; 16]), &mut sum) };
            black_box(sum);
        }),
        #[cfg(target_arch = "x86_64")]
        Kind::Vnni => best(4 * isa.lanes(), || {
            // SAFETY: an Isa is of this machine.
            unsafe { fours(black_box(TURNS), black_box(&[3, 5, 7, 9]), &mut sum) };
            black_box(sum);
        }),
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => best(4 * isa.lanes(), || {
            // SAFETY: an Isa is of this machine.
            black_box(unsafe { crate::narrow::repeated::<SUMS>(black_box(TURNS), black_box([3, 5, 7, 9])) });
        }),
        _ => best(2 * isa.lanes(), || {
            // SAFETY: as above.
            unsafe { pairs(isa, black_box(TURNS), &factor, &mut sum) };
            black_box(sum);
        }),
    }
}

fn best(products: usize, mut run: impl FnMut()) -> f64 {
    let measure = |_| {
        let start = Instant::now();
        run();
        (TURNS * SUMS * products) as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    (0..5).map(measure).fold(0.0, f64::max)
}

kernel! {
    fn floats(turns: usize, factor: f32, sum: &mut f32) = floats_body
}
kernel! {
    fn pairs(turns: usize, factor: &[i16; 2], sum: &mut f32) = pairs_body
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma")]
unsafe fn fours(turns: usize, factor: &[u8; 4], sum: &mut f32) {
    // SAFETY: the features are enabled here; the rest is the caller's promise.
    unsafe {
        let d = crate::simd::Vnni::new();
        let x = d.quad(factor.as_ptr());
        let mut sums = [d.set().zero(); SUMS];
        for _ in 0..turns {
            for sum in &mut sums {
                *sum = d.dot4(x, x, *sum);
            }
        }
        *sum = total(d.set(), sums.map(|s| d.set().float(s)));
    }
}

#[inline(always)]
unsafe fn pairs_body<S: Simd>(s: S, turns: usize, factor: &[i16; 2], sum: &mut f32) {
    // SAFETY: there are two values.
    let x = unsafe { s.pair(factor.as_ptr()) };
    // Of the sums themselves: products that never change would be made once.
    let mut sums = [s.zero(); SUMS];
    for _ in 0..turns {
        for sum in &mut sums {
            *sum = s.dot(*sum, x, *sum);
        }
    }
    *sum = total(s, sums.map(|sum| s.float(sum)));
}

#[inline(always)]
unsafe fn floats_body<S: Simd>(s: S, turns: usize, factor: f32, sum: &mut f32) {
    let (a, b) = (s.splat(factor), s.splat(1.0 - factor));
    let mut sums = [s.splat(1.0); SUMS];
    for _ in 0..turns {
        for x in &mut sums {
            *x = s.fma(*x, a, b);
        }
    }
    *sum = total(s, sums);
}

#[inline(always)]
fn total<S: Simd>(s: S, sums: [S::V; SUMS]) -> f32 {
    let total = sums.into_iter().fold(s.splat(0.0), |t, x| s.add(t, x));
    let mut lanes = [0.0; 16];
    // SAFETY: no vector is wider.
    unsafe { s.store(lanes.as_mut_ptr(), total) };
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg_attr(miri, ignore = "a hundred thousand turns")]
    fn every_set_has_a_peak() {
        for isa in crate::Isa::available() {
            let peaks = [super::peak(isa), super::peak_bytes(isa)];
            assert!(peaks.iter().all(|p| *p > 0.0 && p.is_finite()), "{isa}: {peaks:?}");
        }
    }
}
