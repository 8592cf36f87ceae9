//! Functions of each value, and rows scaled by channel: what stands between convolutions besides limits.

use crate::simd::{Simd, kernel};
use crate::{Among, Isa};

/// A function of each value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Function {
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// x / (1 + e^-x), also called swish.
    Silu,
    /// A straight line between limits, such as ONNX' HardSigmoid.
    Ramp(Ramp),
    /// x times that, such as ONNX' HardSwish.
    TimesRamp(Ramp),
}

/// slope · x + offset, within limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ramp {
    /// Factor.
    pub slope: f32,
    /// Offset.
    pub offset: f32,
    /// Limits of the result.
    pub limits: [f32; 2],
}

impl Ramp {
    #[inline(always)]
    fn of(&self, x: f32) -> f32 {
        within(self.slope * x + self.offset, self.limits)
    }
}

/// A value within limits; NaN stays.
#[inline(always)]
fn within(x: f32, [low, high]: [f32; 2]) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// e^x to two units in the last place, without a branch, so that compilers make vectors of it. Beyond what float32 can hold
/// the result stays at the nearest that is normal; NaN stays. The polynomial is Cephes' `expf`
/// (<https://www.netlib.org/cephes/>).
#[inline(always)]
fn exp(x: f32) -> f32 {
    let x = within(x, [-87.3, 88.3]);
    // Adding this leaves no bits for a fraction, so the sum is rounded to a whole number, which its last bits are.
    const WHOLE: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + WHOLE;
    let n = shifted - WHOLE;
    // ln 2 in two parts, the first of few bits, so that its product with n is exact.
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 5e-1;
    let p = p * (r * r) + r + 1.0;
    // 2^n: the exponent's bits.
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1_f32.to_bits()))
}

/// Applies a function to each value.
pub fn apply(isa: Isa, function: Function, values: &mut [f32]) {
    // SAFETY: nothing is asked of the caller; an Isa is of this machine.
    unsafe { apply_run(isa, function, values) }
}

kernel! {
    fn apply_run(function: Function, values: &mut [f32]) = apply_body
}

#[inline(always)]
unsafe fn apply_body<S: Simd>(_: S, function: Function, values: &mut [f32]) {
    match function {
        Function::Sigmoid => values.iter_mut().for_each(|v| *v = 1.0 / (1.0 + exp(-*v))),
        Function::Silu => values.iter_mut().for_each(|v| *v /= 1.0 + exp(-*v)),
        Function::Ramp(ramp) => values.iter_mut().for_each(|v| *v = ramp.of(*v)),
        Function::TimesRamp(ramp) => values.iter_mut().for_each(|v| *v *= ramp.of(*v)),
    }
}

/// out = limits(rows · mul + add), pixel by pixel with one factor and one offset per channel; without `add` there are no
/// limits either. Only in `rows` the channels may lie among others.
///
/// # Panics
/// Where the lengths do not belong together.
pub fn scale_rows(
    isa: Isa,
    among: Among,
    rows: &[f32],
    mul: &[f32],
    add: Option<&[f32]>,
    limits: [f32; 2],
    out: &mut [f32],
) {
    let channels = among.channels;
    assert!(channels.is_multiple_of(isa.lanes()) && mul.len() == channels && add.is_none_or(|a| a.len() == channels));
    among.check(out.len() / channels, rows.len());
    assert!(out.len().is_multiple_of(channels));
    // SAFETY: the lengths are those that the loops count to.
    unsafe { scale_run(isa, among, rows, mul, add, limits, out) }
}

kernel! {
    fn scale_run(
        among: Among, rows: &[f32], mul: &[f32], add: Option<&[f32]>, limits: [f32; 2], out: &mut [f32],
    ) = scale_body
}

#[inline(always)]
unsafe fn scale_body<S: Simd>(
    s: S,
    among: Among,
    rows: &[f32],
    mul: &[f32],
    add: Option<&[f32]>,
    limits: [f32; 2],
    out: &mut [f32],
) {
    let [low, high] = s.splats(limits);
    let channels = among.channels;
    for (row, out) in rows.chunks_exact(among.pitch).zip(out.chunks_exact_mut(channels)) {
        for at in (0..channels).step_by(S::LANES) {
            // SAFETY: `scale_rows` asserted the lengths.
            unsafe {
                let (value, factor) = (s.load(row.as_ptr().add(among.first + at)), s.load(mul.as_ptr().add(at)));
                let scaled = match add {
                    None => s.mul(value, factor),
                    Some(add) => {
                        let scaled = s.fma(value, factor, s.load(add.as_ptr().add(at)));
                        s.min(high, s.max(low, scaled))
                    }
                };
                s.store(out.as_mut_ptr().add(at), scaled);
            }
        }
    }
}

/// out = a · b, value by value.
///
/// # Panics
/// Where the lengths differ or are not whole vectors.
pub fn multiply(isa: Isa, a: &[f32], b: &[f32], out: &mut [f32]) {
    assert!(a.len() == out.len() && b.len() == a.len() && a.len().is_multiple_of(isa.lanes()));
    // SAFETY: the lengths are those that the loops count to.
    unsafe { multiply_run(isa, a, b, out) }
}

kernel! {
    fn multiply_run(a: &[f32], b: &[f32], out: &mut [f32]) = multiply_body
}

#[inline(always)]
unsafe fn multiply_body<S: Simd>(s: S, a: &[f32], b: &[f32], out: &mut [f32]) {
    for at in (0..a.len()).step_by(S::LANES) {
        // SAFETY: `multiply` asserted the lengths.
        unsafe { s.store(out.as_mut_ptr().add(at), s.mul(s.load(a.as_ptr().add(at)), s.load(b.as_ptr().add(at)))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::{amongs, noise};
    use proptest::prelude::*;

    fn exact(function: Function, x: f64) -> f64 {
        let ramp = |r: Ramp| {
            (f64::from(r.slope) * x + f64::from(r.offset)).clamp(f64::from(r.limits[0]), f64::from(r.limits[1]))
        };
        match function {
            Function::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Function::Silu => x / (1.0 + (-x).exp()),
            Function::Ramp(r) => ramp(r),
            Function::TimesRamp(r) => x * ramp(r),
        }
    }

    #[test]
    fn every_set_has_the_functions() {
        let hard = Ramp { slope: 1.0 / 6.0, offset: 0.5, limits: [0.0, 1.0] };
        let values: Vec<f32> = (-4000..4000).map(|i| i as f32 * 0.03).chain([-1e30, 1e30, 0.0, -0.0]).collect();
        for isa in Isa::available() {
            for function in [Function::Sigmoid, Function::Silu, Function::Ramp(hard), Function::TimesRamp(hard)] {
                let mut found = values.clone();
                apply(isa, function, &mut found);
                for (x, found) in values.iter().zip(&found) {
                    let wanted = exact(function, f64::from(*x));
                    // Of a sum that is near zero, only the terms are exact; what float32 does not hold with all its bits
                    // nobody counts.
                    let term = match function {
                        Function::Sigmoid | Function::Silu => 1e-35 * f64::from(x.abs().max(1.0)),
                        Function::Ramp(_) => 1e-7,
                        Function::TimesRamp(_) => 1e-7 * f64::from(x.abs()),
                    };
                    let allowed = wanted.abs() * 6e-7 + term;
                    assert!((f64::from(*found) - wanted).abs() <= allowed, "{function:?} of {x}: {found} for {wanted}");
                }
                let mut not = [f32::NAN; 19];
                apply(isa, function, &mut not);
                assert!(not.iter().all(|v| v.is_nan()), "{function:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 128 }))]
        #[test]
        fn rows_are_scaled_by_channel(pixels in 1..30_usize, vectors in 1..4_usize, seed in 0..99_u64) {
            for isa in Isa::available() {
                let channels = vectors * isa.lanes();
                let among = amongs(isa, channels)[(seed % 2) as usize];
                let lie = noise(seed, pixels * among.pitch);
                let own = |pixel: &[f32]| pixel[among.first..][..channels].to_vec();
                let rows: Vec<f32> = lie.chunks_exact(among.pitch).flat_map(own).collect();
                let (mul, add) = (noise(seed + 1, channels), noise(seed + 2, channels));
                let mut out = vec![f32::NAN; rows.len()];
                scale_rows(isa, among, &lie, &mul, Some(&add), [-0.5, 0.5], &mut out);
                for (at, (row, out)) in rows.iter().zip(&out).enumerate() {
                    let wanted = (row * mul[at % channels] + add[at % channels]).clamp(-0.5, 0.5);
                    prop_assert!((wanted - out).abs() <= 3e-7, "{wanted} {out}");
                }
                scale_rows(isa, among, &lie, &mul, None, [0.0; 2], &mut out);
                prop_assert!(rows.iter().zip(&out).enumerate().all(|(at, (row, out))| row * mul[at % channels] == *out));
                let other = noise(seed + 3, rows.len());
                multiply(isa, &rows, &other, &mut out);
                prop_assert!(rows.iter().zip(&other).zip(&out).all(|((a, b), out)| a * b == *out));
            }
        }
    }
}
