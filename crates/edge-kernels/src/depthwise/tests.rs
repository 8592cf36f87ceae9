//! Float32 and bytes beside their naive references.

use super::*;
use crate::test::{close, noise};
use proptest::prelude::*;

fn naive(layer: &Depthwise, input: &[f32], positions: Range<usize>) -> Vec<f64> {
    let (w, channels) = (&layer.window, layer.channels);
    let taps = w.kernel[0] * w.kernel[1];
    let mut out = vec![];
    for at in positions {
        let (y, x) = (at / w.output[1], at % w.output[1]);
        for c in 0..channels {
            let mut sum = f64::from(layer.bias[c]);
            for (i, j) in (0..w.kernel[0]).flat_map(|i| (0..w.kernel[1]).map(move |j| (i, j))) {
                if let (Some(row), Some(column)) = (w.source(0, y, i), w.source(1, x, j)) {
                    let pixel = input[(row * w.input[1] + column) * channels + c];
                    let pixel = pixel.max(layer.read[0]).min(layer.read[1]);
                    sum += f64::from(pixel)
                        * f64::from(layer.filter[place(layer.isa.lanes(), taps, i * w.kernel[1] + j, c)]);
                }
            }
            out.push(sum.max(f64::from(layer.written[0])).min(f64::from(layer.written[1])));
        }
    }
    out
}

fn check(window: Window, channels: usize, limits: bool, seed: u64) {
    let taps = window.kernel[0] * window.kernel[1];
    let (filter, bias) = (noise(seed, taps * channels), noise(seed + 1, channels));
    let open = [f32::NEG_INFINITY, f32::INFINITY];
    let (read, written) = if limits { ([0.0, f32::INFINITY], [-0.5, 0.5]) } else { (open, open) };
    for isa in Isa::available() {
        let layer = Depthwise::new(isa, window, channels, |t, c| filter[t * channels + c], |c| bias[c], read, written);
        let input = noise(seed + 2, window.input[0] * window.input[1] * layer.channels());
        let all = window.positions();
        for positions in [0..all, all / 3..all - all / 4, all / 2..all / 2] {
            let mut out = vec![f32::NAN; positions.len() * layer.channels()];
            layer.run(&input, positions.clone(), &mut out);
            close(&out, &naive(&layer, &input, positions), taps, &format!("{isa} {window:?} {channels}"));
        }
    }
}

/// With filters of `most` at most: those beyond 127 are not bytes.
fn check_bytes(window: Window, channels: usize, most: f32, zeros: [i32; 2], seed: u64) {
    let taps = window.kernel[0] * window.kernel[1];
    let whole = |seed, len, most: f32| noise(seed, len).into_iter().map(move |v| (v * most).trunc());
    let filter: Vec<f32> = whole(seed, taps * channels, most).collect();
    let (bias, factor) = (noise(seed + 1, channels), noise(seed + 3, channels));
    let limits = [-zeros[1] as f32, (255 - zeros[1]) as f32];
    for isa in Isa::available() {
        let layer = Depthwise::new(
            isa,
            window,
            channels,
            |t, c| filter[t * channels + c],
            |c| bias[c] * 30.0,
            [f32::NEG_INFINITY, f32::INFINITY],
            limits,
        );
        let padded = layer.channels();
        let layer = layer.on_bytes(|c| factor.get(c).map_or(0.0, |f| f / 300.0), zeros);
        let input: Vec<u8> = whole(seed + 2, layer.input_len(), 255.0).map(|v| v.abs() as u8).collect();
        let all = window.positions();
        for positions in [0..all, all / 3..all - all / 4] {
            let mut out = vec![7_u8; positions.len() * padded];
            let mut strip = vec![7_i16; positions.len() * padded];
            layer.run_bytes(&input, positions.clone(), &mut out);
            layer.run_strip(&input, positions.clone(), &mut strip);
            for (at, position) in positions.enumerate() {
                for c in 0..channels {
                    let (y, x) = (position / window.output[1], position % window.output[1]);
                    let mut sum = 0_i32;
                    for (i, j) in (0..window.kernel[0]).flat_map(|i| (0..window.kernel[1]).map(move |j| (i, j))) {
                        if let (Some(row), Some(column)) = (window.source(0, y, i), window.source(1, x, j)) {
                            let pixel = i32::from(input[(row * window.input[1] + column) * padded + c]) - zeros[0];
                            sum += pixel * filter[(i * window.kernel[1] + j) * channels + c] as i32;
                        }
                    }
                    let exact = f64::from(sum) * f64::from(factor[c] / 300.0) + f64::from(bias[c] * 30.0);
                    let exact = exact.clamp(f64::from(limits[0]), f64::from(limits[1]));
                    let found = i32::from(out[at * padded + c]) - zeros[1];
                    assert!((f64::from(found) - exact).abs() <= 0.5001, "{isa} {window:?}: {found} for {exact}");
                    assert_eq!(i32::from(strip[at * padded + c]), found);
                }
            }
        }
    }
}

#[test]
fn usual_windows() {
    let sides: &[usize] = if cfg!(miri) { &[5] } else { &[1, 2, 3, 4, 5, 7, 8, 10, 19, 37] };
    for &side in sides {
        for (kernel, stride, before, after) in
            [(3, 1, 1, 1), (3, 2, 0, 1), (3, 2, 1, 1), (5, 1, 2, 2), (5, 2, 1, 2), (1, 1, 0, 0), (7, 1, 3, 3)]
        {
            let window = Window::new([side; 2], [kernel; 2], [stride; 2], [1; 2], [before; 2], [after; 2]);
            for (channels, limits) in [(8, false), (20, true)] {
                window.iter().for_each(|w| check(*w, channels, limits, side as u64));
                window.iter().for_each(|w| check_bytes(*w, channels, 255.0, [128, 3], side as u64));
                window.iter().for_each(|w| check_bytes(*w, channels + 70, 127.9, [128, 3], side as u64));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 128 }))]
    #[test]
    fn any_window(window in crate::window::any(), channels in 1..40_usize, limits: bool, seed in 0..99_u64) {
        check(window, channels, limits, seed);
    }

    #[test]
    fn any_window_of_bytes(window in crate::window::any(), channels in 1..150_usize, small: bool, a in 0..256_i32, b in 0..256_i32, seed in 0..99_u64) {
        check_bytes(window, channels, if small { 127.9 } else { 255.9 }, [a, b], seed);
    }
}
