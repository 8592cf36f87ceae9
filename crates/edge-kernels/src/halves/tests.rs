use super::*;
use crate::test::noise;
use crate::{Epilogue, Small, gemm, run_fits};
use proptest::prelude::*;

/// A float16 number as so many times its smallest, 2⁻²⁴.
type Exact = i64;

fn exact(bits: u16) -> Exact {
    (f64::from(half(bits)) * f64::from(1 << 24)) as Exact
}

/// Rounds so many times 2⁻⁴⁸ to float16, half to even.
fn nearest(value: i128) -> Exact {
    let magnitude = value.unsigned_abs();
    // Eleven bits, none of them below the smallest number's.
    let shift = (128 - magnitude.leading_zeros()).saturating_sub(11).max(24);
    let (whole, rest) = (magnitude >> shift, magnitude & ((1 << shift) - 1));
    let up = rest > 1 << (shift - 1) || (rest == 1 << (shift - 1) && whole & 1 == 1);
    let made = ((whole + u128::from(up)) << (shift - 24)) as Exact;
    assert!(made <= 65504 << 24, "an overflow");
    if value < 0 { -made } else { made }
}

/// The power of two that a row's block is scaled with, by the rule of the module's description.
fn scale(top: i32, values: &[f32]) -> f64 {
    let largest = values.iter().fold(0.0, |m: f64, v| m.max(f64::from(v.abs())));
    let mut scale = 1.0;
    while largest > 0.0 && largest * scale < 2f64.powi(top - 1) {
        scale *= 2.0;
    }
    while largest * scale >= 2f64.powi(top) {
        scale /= 2.0;
    }
    scale
}

/// One sum, one value after the other.
fn naive(top: i32, block: usize, row: &[f32], w: &[u16], factor: f32) -> f32 {
    let mut total = 0_f32;
    for (row, w) in row.chunks(block).zip(w.chunks(block)) {
        let scale = scale(top, row);
        let mut sum = 0_f32;
        for (row, w) in row.chunks(SHORT).zip(w.chunks(SHORT)) {
            let mut short: Exact = 0;
            for (x, w) in row.iter().zip(w) {
                let x = f64::from(*x) * scale * 2f64.powi(48);
                // What lies below may still decide between two.
                let x = x.trunc() as i128 | i128::from(x.fract() != 0.0);
                short = nearest(i128::from(nearest(x)) * i128::from(exact(*w)) + (i128::from(short) << 24));
            }
            sum += (short as f64 / f64::from(1 << 24)) as f32;
        }
        total = (sum * (1.0 / scale) as f32).mul_add(factor, total);
    }
    total
}

/// A product to compute.
#[derive(Debug, Clone, Copy)]
struct Case {
    m: usize,
    k: usize,
    n: usize,
    runs: usize,
    /// Of a row's and a weight's magnitude, powers of two.
    size: [i32; 2],
    /// How far magnitudes within a row are apart.
    spread: f32,
    seed: u64,
}

impl Case {
    fn a(&self) -> Vec<f32> {
        let sizes = noise(self.seed + 1, self.m * self.k);
        let sized = |(v, s): (f32, f32)| v * 2f32.powf(s * self.spread + self.size[0] as f32);
        noise(self.seed, self.m * self.k).into_iter().zip(sizes).map(sized).collect()
    }

    fn w(&self) -> Vec<u16> {
        let bits = |v: f32| {
            let magnitude = (f64::from(v.abs()) * 2f64.powi(self.size[1])).min(65504.0);
            let units = nearest((magnitude * 2f64.powi(48)) as i128);
            // Its bits are found by halving.
            let at = (0..0x7c00_u16).collect::<Vec<_>>().partition_point(|b| exact(*b) < units) as u16;
            at | u16::from(v < 0.0) << 15
        };
        noise(self.seed + 2, self.k * self.n).into_iter().map(bits).collect()
    }

    /// What a set makes of it in some arithmetic, and the scale's power, if it is in float16.
    fn run(&self, isa: Isa, a: &[f32], w: &[u16], factor: &[f32], float16: Float16) -> (Vec<f32>, Option<i32>) {
        let Case { m, k, n, runs, .. } = *self;
        let value = |row: usize, column: usize| w[row * n + column];
        let packed = Weights::pack_small(isa, k, factor, runs, Small::Halves(&value)).in_float16(float16);
        let starts: Vec<u32> = (0..m).map(|i| (i * k) as u32).collect();
        let bias = vec![0.0; packed.n()];
        let epilogue = Epilogue { bias: &bias, residual: None, low: f32::NEG_INFINITY, high: f32::INFINITY };
        let mut c = vec![f32::NAN; m * packed.n()];
        gemm(a, Places { starts: &starts, pitch: k / runs }, &packed, &epilogue, &mut c);
        let stride = packed.n();
        let kept = (0..m * stride).filter(|at| at % stride < n).map(|at| c[at]).collect();
        (kept, packed.halving.map(|h| h.top))
    }
}

/// That each set's result is within what the module's description allows; of real float16 arithmetic, each bit.
fn check(case: Case) {
    let Case { k, n, runs, .. } = case;
    let (a, w) = (case.a(), case.w());
    let factor: Vec<f32> = noise(case.seed + 3, n).iter().map(|f| 1.0 + f / 2.0).collect();
    let block = if runs == 1 { BLOCK } else { BLOCK / (k / runs) * (k / runs) };
    for isa in Isa::available() {
        for float16 in [Float16::Native, Float16::Simulated] {
            let (found, Some(top)) = case.run(isa, &a, &w, &factor, float16) else {
                assert!(float16 == Float16::Native && !isa.has_float16());
                continue;
            };
            for (at, found) in found.into_iter().enumerate() {
                let (row, j) = (&a[at / n * k..][..k], at % n);
                let column: Vec<u16> = (0..k).map(|i| w[i * n + j]).collect();
                let products = || row.iter().zip(&column).map(|(x, w)| f64::from(*x) * f64::from(half(*w)));
                let (sum, size): (f64, f64) = (products().sum(), products().map(f64::abs).sum());
                // Of the largest value of a row, what float16 keeps of the smallest.
                let largest = row.iter().fold(0.0, |m: f64, x| m.max(f64::from(x.abs())));
                let lost = largest
                    * 2f64.powi(-top)
                    * 2f64.powi(-23)
                    * (k as f64)
                    * (1.0 + f64::from(half(column.iter().map(|b| b & 0x7fff).max().unwrap())));
                let f = f64::from(factor[j]);
                let allowed = f * ((SHORT as f64 + 1.0) * 2f64.powi(-11) * 1.02 * size + lost) + 1e-5 * f * size;
                let off = (f64::from(found) - f * sum).abs();
                assert!(off <= allowed, "{isa}, {float16:?}: {found} for {} at {at}, {off} > {allowed}", f * sum);
                if float16 == Float16::Native {
                    let wanted = naive(top, block, row, &column, factor[j]);
                    assert_eq!(found.to_bits(), wanted.to_bits(), "{isa}: {found} for {wanted} at {at} of {case:?}");
                }
            }
        }
    }
}

#[test]
fn shapes_that_straddle_tiles_and_blocks() {
    let case = Case { m: 7, k: 19, n: 24, runs: 1, size: [0, 0], spread: 1.0, seed: 1 };
    let sizes: &[usize] = if cfg!(miri) { &[13] } else { &[1, 2, 3, 5, 6, 11, 12, 13, 25, 48, 49, 60, 61] };
    for m in sizes {
        check(Case { m: *m, seed: *m as u64, ..case });
    }
    let sizes: &[usize] = if cfg!(miri) { &[17] } else { &[1, 7, 8, 9, 16, 17, 32, 33, 40, 100] };
    for n in sizes {
        check(Case { n: *n, seed: *n as u64, ..case });
    }
    let sizes: &[usize] =
        if cfg!(miri) { &[33] } else { &[1, 7, 8, 9, 31, 32, 33, 40, 64, 100, 383, 384, 385, 500, 769] };
    for k in sizes {
        check(Case { k: *k, seed: *k as u64, ..case });
    }
    for (k, runs) in [(27, 3), (36, 3), (180, 3), (900, 3), (25, 5), (1000, 5)] {
        assert!(run_fits(k / runs));
        check(Case { k, runs, seed: k as u64, ..case });
    }
}

/// Sums far beyond what float16 holds, and far below.
#[test]
fn nothing_overflows() {
    for size in [[16, 16], [99, 15], [40, 0], [0, 16], [-40, 0], [-90, -10], [20, -20]] {
        for k in [8, 40, 700] {
            check(Case { m: 8, k, n: 20, runs: 1, size, spread: 0.0, seed: 5 });
        }
    }
    // All of one sign, so that sums are as large as they can be.
    let case = Case { m: 6, k: 64, n: 16, runs: 1, size: [0, 0], spread: 0.0, seed: 0 };
    for isa in Isa::available() {
        let (a, w, factor) = (vec![3e5; 6 * 64], vec![0x7bff; 64 * 16], vec![1.0; 16]);
        for float16 in [Float16::Native, Float16::Simulated] {
            let (found, _) = case.run(isa, &a, &w, &factor, float16);
            let wanted = 64.0 * 3e5 * 65504.0;
            assert!(found.iter().all(|v| (v / wanted - 1.0).abs() < (SHORT as f32 + 1.0) / 2048.0), "{isa}: {found:?}");
        }
    }
}

#[test]
fn what_cannot_be_scaled_is_computed_in_float32() {
    let case = Case { m: 50, k: 400, n: 17, runs: 1, size: [0, 0], spread: 1.0, seed: 9 };
    let (w, factor) = (case.w(), vec![1.5; 17]);
    for isa in Isa::available() {
        // In the last row of the last block.
        for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN, 1e35, -1e35, f32::MAX] {
            let mut a = case.a();
            a[50 * 400 - 1] = bad;
            let bits =
                |float16| case.run(isa, &a, &w, &factor, float16).0.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let wanted = bits(Float16::Never);
            assert!(bits(Float16::Native) == wanted && bits(Float16::Simulated) == wanted, "{isa}: {bad}");
        }
        // Values that are too small, and none.
        let mut a = case.a();
        a[..400].fill(1e-39);
        a[400..800].fill(0.0);
        let [small, wanted] = [Float16::Simulated, Float16::Never].map(|f| case.run(isa, &a, &w, &factor, f).0);
        assert!(small == wanted, "{isa}");
        a[..400].fill(0.0);
        let none = case.run(isa, &a, &w, &factor, Float16::Simulated).0;
        assert!(none[..34].iter().all(|v| *v == 0.0), "{isa}");
    }
}

#[test]
fn only_float16_weights_on_a_processor_that_has_it() {
    let mut found = vec![];
    for isa in Isa::available() {
        let halves = Weights::pack_small(isa, 8, &[1.0; 8], 1, Small::Halves(&|_, _| 0x3c00));
        let bytes = Weights::pack_small(isa, 8, &[1.0; 8], 1, Small::Bytes(&|_, _| 1));
        let floats = Weights::pack(isa, 8, 8, 1, |_, _| 1.0);
        assert!(!halves.clone().in_float16(Float16::Never).is_in_float16());
        assert!(!bytes.in_float16(Float16::Simulated).is_in_float16());
        assert!(!floats.in_float16(Float16::Simulated).is_in_float16());
        assert_eq!(halves.in_float16(Float16::Native).is_in_float16(), isa.has_float16());
        if isa.has_float16() {
            found.push(isa.name());
        }
    }
    // For whoever runs this on a known processor.
    println!("float16 arithmetic: {}", if found.is_empty() { "none".into() } else { found.join(", ") });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 24 }))]
    #[test]
    fn any_shape(
        m in 1..20_usize, k in 1..120_usize, n in 1..40_usize, sizes in [-60..60_i32, -12..17_i32], spread in 0.0..30.0_f32,
        seed in 0..999_u64,
    ) {
        check(Case { m, k, n, runs: 1, size: sizes, spread, seed });
    }
}
