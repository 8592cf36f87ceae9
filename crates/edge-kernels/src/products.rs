//! Products of values in the same place, added to sums: what a depthwise convolution is made of, forward and back.

use crate::Isa;
use crate::simd::{Simd, kernel};

/// sums += a · b, place by place.
///
/// # Panics
/// Where the lengths differ.
#[inline]
pub fn add_products(isa: Isa, a: &[f32], b: &[f32], sums: &mut [f32]) {
    assert!(a.len() == sums.len() && b.len() == sums.len());
    // SAFETY: all are as long as each other.
    unsafe { run(isa, a, b, sums) }
}

kernel! {
    fn run(a: &[f32], b: &[f32], sums: &mut [f32]) = body
}

#[inline(always)]
unsafe fn body<S: Simd>(s: S, a: &[f32], b: &[f32], sums: &mut [f32]) {
    let mut at = 0;
    while sums.len() - at >= S::LANES {
        // SAFETY: as many values are left.
        unsafe {
            let sum = s.fma(s.load(a.as_ptr().add(at)), s.load(b.as_ptr().add(at)), s.load(sums.as_ptr().add(at)));
            s.store(sums.as_mut_ptr().add(at), sum);
        }
        at += S::LANES;
    }
    for ((sum, a), b) in sums[at..].iter_mut().zip(&a[at..]).zip(&b[at..]) {
        *sum += a * b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::{close, noise};

    #[test]
    fn every_set_adds_the_products() {
        for len in [0, 1, 7, 16, 33, 100] {
            let (a, b, start) = (noise(1, len), noise(2, len), noise(3, len));
            let product = |((a, b), c): ((&f32, &f32), &f32)| f64::from(*a) * f64::from(*b) + f64::from(*c);
            let wanted: Vec<f64> = a.iter().zip(&b).zip(&start).map(product).collect();
            for isa in Isa::available() {
                let mut sums = start.clone();
                add_products(isa, &a, &b, &mut sums);
                close(&sums, &wanted, 2, &isa.to_string());
            }
        }
    }
}
