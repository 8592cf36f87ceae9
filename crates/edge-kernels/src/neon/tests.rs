//! That bytes are, bit for bit, those of plain Rust: an accuracy measured on one machine is then the accuracy of every board.

use crate::test::noise;
use crate::{
    Affine, Depthwise, Isa, Places, Quads, Scale, Weights8, dequantize, gemm8, gemm8_float, quantize, requantize,
};
use proptest::prelude::*;

/// Whole numbers from `low` to `high`.
fn whole(seed: u64, len: usize, low: f32, high: f32) -> Vec<i16> {
    noise(seed, len).into_iter().map(|v| (low + (v + 1.0) / 2.0 * (high - low + 0.99)).floor() as i16).collect()
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    whole(seed, len, 0.0, 255.0).into_iter().map(|v| v as u8).collect()
}

/// What every set makes of the same, which is what the first, plain Rust, makes of it.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, make: impl Fn(Isa) -> T) {
    let wanted = make(Isa::PORTABLE);
    for isa in Isa::available() {
        assert!(make(isa) == wanted, "{what}: {isa} makes other values than plain Rust");
    }
}

/// Bits, so that NaN is compared, too.
fn bits(values: Vec<f32>) -> Vec<u32> {
    values.into_iter().map(f32::to_bits).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn products_of_matrices(m in 1..30_usize, k in 1..90_usize, n in 1..50_usize, zeros: [u8; 2], rails: bool, seed in 0..999_u64) {
        let stride = Isa::PORTABLE.padded(n);
        let w = whole(seed, k * n, if rails { -128.0 } else { -127.0 }, 127.0);
        let factor: Vec<f32> = noise(seed + 1, stride).iter().map(|v| v / (k as f32).sqrt() / 100.0).collect();
        let offset: Vec<f32> = noise(seed + 2, stride).iter().map(|v| v * 20.0).collect();
        let zero = i32::from(zeros[1]);
        let scale = Scale { factor: &factor, offset: &offset, limits: [-zero as f32, (255 - zero) as f32], zero };
        let (fours, twos) = (k.next_multiple_of(4), k.next_multiple_of(2));
        let a = bytes(seed + 3, m * fours);
        let starts: Vec<u32> = (0..m).map(|i| (i * fours) as u32).collect();
        let shorts: Vec<i16> = (0..m * twos).map(|at| i16::from(a[at]) - i16::from(zeros[0])).collect();
        same("fours", |isa| {
            let weights = Quads::pack(isa, k, n, 1, zeros[0], |k, j| w[k * n + j]).unwrap();
            let (mut bytes, mut floats) = (vec![7; m * stride], vec![f32::NAN; m * stride]);
            let rows = Places { starts: &starts, pitch: 0 };
            weights.multiply(&a, rows, &scale, &mut bytes);
            weights.multiply_float(&a, rows, &scale, &mut floats);
            (bytes, bits(floats))
        });
        same("pairs", |isa| {
            let weights = Weights8::pack(isa, k, n, |k, j| w[k * n + j]).unwrap();
            let (mut bytes, mut floats) = (vec![7; m * stride], vec![f32::NAN; m * stride]);
            gemm8(&shorts, &weights, &scale, &mut bytes);
            gemm8_float(&shorts, &weights, &scale, &mut floats);
            (bytes, bits(floats))
        });
    }

    #[test]
    fn depthwise(window in crate::window::any(), channels in 1..70_usize, zeros: [u8; 2], most in prop::sample::select(vec![127.0, 128.0, 255.0]), seed in 0..999_u64) {
        let padded = Isa::PORTABLE.padded(channels);
        let taps = window.kernel[0] * window.kernel[1];
        let filter = whole(seed, taps * channels, -most, (most - 1.0).max(127.0));
        let (bias, factor) = (noise(seed + 1, channels), noise(seed + 2, channels));
        let input = bytes(seed + 3, window.input[0] * window.input[1] * padded);
        let zeros = zeros.map(i32::from);
        same("depthwise", |isa| {
            let open = [f32::NEG_INFINITY, f32::INFINITY];
            let written = [-zeros[1] as f32, (255 - zeros[1]) as f32];
            let filter = |t: usize, c: usize| f32::from(filter[t * channels + c]);
            let layer = Depthwise::new(isa, window, channels, filter, |c| bias[c] * 30.0, open, written);
            let layer = layer.on_bytes(|c| factor.get(c).map_or(0.0, |f| f / 300.0), zeros);
            let (mut bytes, mut strip) = (vec![7; window.positions() * padded], vec![7; window.positions() * padded]);
            layer.run_bytes(&input, 0..window.positions(), &mut bytes);
            layer.run_strip(&input, 0..window.positions(), &mut strip);
            // What pads the channels is read by nobody.
            let kept = |at: &usize| at % padded < channels;
            let bytes: Vec<u8> = (0..bytes.len()).filter(kept).map(|at| bytes[at]).collect();
            (bytes, (0..strip.len()).filter(kept).map(|at| strip[at]).collect::<Vec<i16>>())
        });
    }

    #[test]
    fn changes_of_scale(vectors in 1..9_usize, zero in 0..256_i32, factors in [-1.0..1.0_f32, -1.0..1.0_f32], offset in -200.0..200.0_f32, seed in 0..999_u64) {
        let len = vectors * 8;
        let (a, b) = (bytes(seed, len), bytes(seed + 1, len));
        let mut floats: Vec<f32> = noise(seed + 2, len).iter().map(|v| v * 400.0).collect();
        floats[..4].copy_from_slice(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30]);
        let affine = Affine { factors, offset, limits: [-zero as f32, (255 - zero) as f32], zero };
        same("scales", |isa| {
            let (mut one, mut two, mut three) = (vec![7; len], vec![7; len], vec![7; len]);
            requantize(isa, &affine, &a, None, &mut one);
            requantize(isa, &affine, &a, Some(&b), &mut two);
            quantize(isa, &affine, &floats, &mut three);
            let mut real = vec![f32::NAN; len];
            dequantize(isa, &affine, &a, Some(&b), &mut real);
            (one, two, three, bits(real))
        });
    }
}

#[test]
fn filters_that_are_no_whole_numbers_are_not_taken_for_such() {
    assert!(super::whole_filter(&[1.0, -255.0, 0.0]).is_some());
    for value in [0.5, 256.0, -256.0, f32::NAN, f32::INFINITY, 1e9] {
        assert!(super::whole_filter(&[1.0, value]).is_none(), "{value}");
    }
}
