//! How fast this machine multiplies and adds, to hold kernels against.

use crate::Isa;
use crate::simd::{Simd, kernel};
use std::time::Instant;

/// Sums that do not wait for each other: enough for any machine's latency.
const SUMS: usize = 12;

/// Fused multiply-adds per second of one thread with `isa`, in units of 10^9: the best of a few measurements of some
/// milliseconds each.
pub fn peak(isa: Isa) -> f64 {
    let turns = 1_000_000;
    let measure = |_| {
        let start = Instant::now();
        let mut sum = 0.0;
        // SAFETY: nothing is read but what is handed over.
        unsafe { run(isa, std::hint::black_box(turns), std::hint::black_box(0.999), &mut sum) };
        std::hint::black_box(sum);
        (turns * SUMS * isa.lanes()) as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    (0..5).map(measure).fold(0.0, f64::max)
}

kernel! {
    fn run(turns: usize, factor: f32, sum: &mut f32) = body
}

#[inline(always)]
unsafe fn body<S: Simd>(s: S, turns: usize, factor: f32, sum: &mut f32) {
    let (a, b) = (s.splat(factor), s.splat(1.0 - factor));
    let mut sums = [s.splat(1.0); SUMS];
    for _ in 0..turns {
        for x in &mut sums {
            *x = s.fma(*x, a, b);
        }
    }
    let total = sums.into_iter().fold(s.splat(0.0), |t, x| s.add(t, x));
    let mut lanes = [0.0; 16];
    // SAFETY: no vector is wider.
    unsafe { s.store(lanes.as_mut_ptr(), total) };
    *sum = lanes.iter().sum();
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg_attr(miri, ignore = "a million turns")]
    fn every_set_has_a_peak() {
        for isa in crate::Isa::available() {
            assert!(super::peak(isa) > 0.01);
        }
    }
}
