//! Every kernel at the sizes of real networks, on every set of instructions of the machine, beside sums of products in float64 and in
//! whole numbers: what small shapes do not reach, as blocks of k, strips of rows and offsets of many megabytes.
//!
//! Of a large result some hundred values are compared, those of its edges among them. `cargo xtask test --long` runs this, and under
//! qemu-user on the boards' processors.

use edge_kernels::{
    Among, Counted, Depthwise, Epilogue, Im2col, Isa, Places, Quads, Scale, Small, Strides, Weights, Weights8, Window,
    Winograd, gemm, gemm_among, gemm8, gemm8_float, max_pool, mean_pool,
};

/// The set that EDGE_ISA names, or every one of the machine.
fn sets() -> Vec<Isa> {
    match std::env::var_os(edge_kernels::ENVIRONMENT) {
        Some(_) => vec![Isa::chosen().unwrap()],
        None => Isa::available(),
    }
}

/// Values of -1…1 from a seed.
fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Some of 0…count, the first and the last among them.
fn some(count: usize, most: usize) -> impl Iterator<Item = usize> + Clone {
    let step = count.div_ceil(most).max(1);
    (0..count).step_by(step).chain([count - 1])
}

/// That a sum of so many products of values up to one is what it should be, but for rounding.
fn close(found: f32, wanted: f64, terms: usize, what: &str) {
    let allowed = 4e-6 * (2.0 + terms as f64).sqrt();
    assert!((f64::from(found) - wanted).abs() <= allowed, "{what}: {found} for {wanted}");
}

const OPEN: [f32; 2] = [f32::NEG_INFINITY, f32::INFINITY];

/// Rows, k and columns: pointwise convolutions of Xception and ResNet50, VGG16's dense layers, and sizes that are none of any tile.
const PRODUCTS: [[usize; 3]; 6] =
    [[100, 1536, 2048], [121, 2048, 2048], [361, 728, 728], [37, 1537, 2049], [1, 25_088, 1000], [3, 9_999, 77]];

#[test]
#[ignore = "long"]
fn products_of_float32() {
    for [m, k, n] in PRODUCTS {
        let (a, w) = (noise(1, m * k + 5), noise(2, k * n));
        let starts: Vec<u32> = (0..m).map(|i| (i * k) as u32).collect();
        let rows = Places { starts: &starts, pitch: 0 };
        for isa in sets() {
            let packed = Weights::pack(isa, k, n, 1, |k, j| w[k * n + j]);
            let bias = noise(3, packed.n());
            let residual = noise(4, m * packed.n());
            let epilogue = Epilogue { bias: &bias, residual: Some(&residual), low: -1e3, high: 1e3 };
            let mut c = vec![f32::NAN; m * packed.n()];
            gemm(&a, rows, &packed, &epilogue, &mut c);
            let among = Among { pitch: 2 * packed.n(), first: packed.n(), channels: packed.n() };
            let mut wide = vec![0.0; m * among.pitch];
            gemm_among(&a, rows, &packed, &Epilogue { residual: None, ..epilogue }, among, &mut wide);
            for (i, j) in some(m, 20).flat_map(|i| some(n, 30).map(move |j| (i, j))) {
                let sum: f64 = (0..k).map(|k0| f64::from(a[i * k + k0]) * f64::from(w[k0 * n + j])).sum();
                let (sum, added) = (sum + f64::from(bias[j]), f64::from(residual[i * packed.n() + j]));
                close(c[i * packed.n() + j], sum + added, k, &format!("{isa} {m}x{k}x{n}"));
                close(wide[i * among.pitch + among.first + j], sum, k, &format!("{isa} {m}x{k}x{n} among others"));
            }
        }
    }
}

#[test]
#[ignore = "long"]
fn products_of_small_weights() {
    for [m, k, n] in PRODUCTS {
        let a = noise(1, m * k);
        let starts: Vec<u32> = (0..m).map(|i| (i * k) as u32).collect();
        let factor: Vec<f32> = (0..n).map(|j| 0.5 + (j % 7) as f32 / 14.0).collect();
        let byte = |k: usize, j: usize| ((k * 31 + j * 17) % 255) as u8 as i8;
        // 2^-8…2^-1 of either sign.
        let half = |k: usize, j: usize| (((k * 31 + j * 17) % 0x1c00 + 0x1c00) | (j % 2) << 15) as u16;
        let value = |bits: u16| {
            let magnitude = (1.0 + f64::from(bits & 0x3ff) / 1024.0) * 2f64.powi(i32::from(bits >> 10 & 31) - 15);
            if bits & 0x8000 == 0 { magnitude } else { -magnitude }
        };
        for isa in sets() {
            let scaled: Vec<f32> = factor.iter().map(|f| f / 128.0).collect();
            let weights = [
                Weights::pack_small(isa, k, &scaled, 1, Small::Bytes(&byte)),
                Weights::pack_small(isa, k, &factor, 1, Small::Halves(&half)),
            ];
            for (kind, packed) in weights.iter().enumerate() {
                let bias = vec![0.0; packed.n()];
                let epilogue = Epilogue { bias: &bias, residual: None, low: OPEN[0], high: OPEN[1] };
                let mut c = vec![f32::NAN; m * packed.n()];
                gemm(&a, Places { starts: &starts, pitch: 0 }, packed, &epilogue, &mut c);
                for (i, j) in some(m, 10).flat_map(|i| some(n, 20).map(move |j| (i, j))) {
                    let w = |k: usize| match kind {
                        0 => f64::from(byte(k, j)) * f64::from(scaled[j]),
                        _ => value(half(k, j)) * f64::from(factor[j]),
                    };
                    let sum: f64 = (0..k).map(|k0| f64::from(a[i * k + k0]) * w(k0)).sum();
                    close(c[i * packed.n() + j], sum, k, &format!("{isa} {m}x{k}x{n}, kind {kind}"));
                }
            }
        }
    }
}

/// That what was made of an exact sum, as float32 and as a byte, is what its scale says.
fn scaled(sum: i64, scale: &Scale<'_>, column: usize, float: f32, byte: u8, what: &str) {
    let exact = sum as f64 * f64::from(scale.factor[column]) + f64::from(scale.offset[column]);
    let exact = exact.clamp(f64::from(scale.limits[0]), f64::from(scale.limits[1]));
    assert!((f64::from(float) - exact).abs() < 1e-4, "{what}: {float} for {exact}");
    assert!((f64::from(i32::from(byte) - scale.zero) - exact).abs() <= 0.5001, "{what}: {byte} for {exact}");
}

#[test]
#[ignore = "long"]
fn products_of_bytes() {
    for [m, k, n] in PRODUCTS {
        let w: Vec<i16> = noise(2, k * n).iter().map(|v| (v * 128.9) as i16).map(|v| v.min(127)).collect();
        let pixels: Vec<u8> = noise(1, m * k + 8).iter().map(|v| (v.abs() * 255.9) as u8).collect();
        let (even, four) = (k.next_multiple_of(2), k.next_multiple_of(4));
        let zero = 131_u8;
        let mut shorts = vec![0; m * even];
        let mut bytes = vec![0; m * four];
        for i in 0..m {
            for at in 0..k {
                shorts[i * even + at] = i16::from(pixels[i * k + at]) - i16::from(zero);
                bytes[i * four + at] = pixels[i * k + at];
            }
        }
        let starts: Vec<u32> = (0..m).map(|i| (i * four) as u32).collect();
        let sum = |i: usize, j: usize| -> i64 {
            (0..k).map(|at| (i64::from(pixels[i * k + at]) - i64::from(zero)) * i64::from(w[at * n + j])).sum()
        };
        for isa in sets() {
            let pairs = Weights8::pack(isa, k, n, |k, j| w[k * n + j]).unwrap();
            let quads = Quads::pack(isa, k, n, 1, zero, |k, j| w[k * n + j]).unwrap();
            let factor = vec![1.0 / (k as f32).sqrt() / 100.0; pairs.n()];
            let offset: Vec<f32> = noise(5, pairs.n()).iter().map(|v| v * 20.0).collect();
            let scale = Scale { factor: &factor, offset: &offset, limits: [-128.0, 127.0], zero: 128 };
            let rows = Places { starts: &starts, pitch: 0 };
            let mut made = [vec![0; m * pairs.n()], vec![0; m * pairs.n()]];
            let mut floats = [vec![f32::NAN; m * pairs.n()], vec![f32::NAN; m * pairs.n()]];
            gemm8(&shorts, &pairs, &scale, &mut made[0]);
            gemm8_float(&shorts, &pairs, &scale, &mut floats[0]);
            quads.multiply(&bytes, rows, &scale, &mut made[1]);
            quads.multiply_float(&bytes, rows, &scale, &mut floats[1]);
            for (i, j) in some(m, 10).flat_map(|i| some(n, 30).map(move |j| (i, j))) {
                let (sum, at) = (sum(i, j), i * pairs.n() + j);
                for (made, floats) in made.iter().zip(&floats) {
                    scaled(sum, &scale, j, floats[at], made[at], &format!("{isa} {m}x{k}x{n}"));
                }
            }
        }
    }
}

/// Side, channels, window, stride: Xception's and EfficientNet's depthwise layers, and odd ones.
const DEPTHWISE: [[usize; 4]; 7] = [
    [299, 24, 3, 1],
    [299, 24, 3, 2],
    [147, 128, 3, 1],
    [37, 728, 3, 1],
    [75, 144, 5, 2],
    [56, 96, 7, 1],
    [13, 1537, 5, 1],
];

fn window([side, kernel, stride]: [usize; 3]) -> Window {
    Window::new([side; 2], [kernel; 2], [stride; 2], [1; 2], [kernel / 2; 2], [kernel / 2; 2]).unwrap()
}

/// The taps of a window at a position that lie in the picture, and the pixels under them.
fn taps(w: &Window, at: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
    let all = (0..w.kernel[0]).flat_map(|i| (0..w.kernel[1]).map(move |j| (i, j)));
    all.filter_map(move |(i, j)| {
        let (y, x) = (w.source(0, at / w.output[1], i)?, w.source(1, at % w.output[1], j)?);
        Some((i * w.kernel[1] + j, y * w.input[1] + x))
    })
}

#[test]
#[ignore = "long"]
fn depthwise_convolutions() {
    for [side, channels, kernel, stride] in DEPTHWISE {
        let w = window([side, kernel, stride]);
        let filter: Vec<f32> = noise(1, kernel * kernel * channels).iter().map(|v| (v * 127.0).round()).collect();
        let tap = |t: usize, c: usize| filter[t * channels + c];
        let values = noise(2, side * side * channels);
        for isa in sets() {
            let what = format!("{isa} {side}x{side}x{channels}, {kernel}x{kernel} stride {stride}");
            let layer = Depthwise::new(isa, w, channels, |t, c| tap(t, c) / 127.0, |c| c as f32 / 5e3, OPEN, OPEN);
            let (padded, all) = (layer.channels(), 0..w.positions());
            let mut input = vec![0.0; layer.input_len()];
            for (pixel, from) in input.chunks_exact_mut(padded).zip(values.chunks_exact(channels)) {
                pixel[..channels].copy_from_slice(from);
            }
            let mut out = vec![f32::NAN; w.positions() * padded];
            layer.run(&input, all.clone(), &mut out);
            let zero = 9;
            let whole: Vec<u8> = input.iter().map(|v| (v.abs() * 255.0) as u8).collect();
            let factor = 255.0 / (127.0 * 255.0 * kernel as f32);
            let eight = Depthwise::new(isa, w, channels, tap, |_| 3.0, OPEN, [-100.0, 155.0]);
            let eight = eight.on_bytes(|_| factor, [zero, 100]);
            let (mut bytes, mut strip) = (vec![7; out.len()], vec![7; out.len()]);
            eight.run_bytes(&whole, all.clone(), &mut bytes);
            eight.run_strip(&whole, all, &mut strip);
            for (at, c) in some(w.positions(), 200).flat_map(|at| some(channels, 20).map(move |c| (at, c))) {
                let products =
                    taps(&w, at).map(|(t, p)| f64::from(tap(t, c) / 127.0) * f64::from(input[p * padded + c]));
                close(out[at * padded + c], products.sum::<f64>() + c as f64 / 5e3, kernel * kernel, &what);
                let seen = |p: usize| i64::from(whole[p * padded + c]) - i64::from(zero);
                let sum: i64 = taps(&w, at).map(|(t, p)| tap(t, c) as i64 * seen(p)).sum();
                let exact = (sum as f64 * f64::from(factor) + 3.0).clamp(-100.0, 155.0);
                assert!((f64::from(bytes[at * padded + c]) - 100.0 - exact).abs() <= 0.5001, "{what}: bytes");
                assert!((f64::from(strip[at * padded + c]) - exact).abs() <= 0.5001, "{what}: strip");
            }
        }
    }
}

#[test]
#[ignore = "long"]
fn stems() {
    // 7x7 of stride 2 as in ResNet50, 3x3 of stride 2 as in Xception.
    for (side, kernel, outputs) in [(224, 7, 64), (299, 7, 33), (299, 3, 32)] {
        let w = window([side, kernel, 2]);
        let strides = Strides { row: 3 * side, column: 3, channel: 1 };
        let layer = Im2col { window: w, channels: 3, strides, read: OPEN };
        let (input, filter) = (noise(1, 3 * side * side), noise(2, layer.k() * outputs));
        let count = w.positions();
        let mut rows = vec![f32::NAN; count * layer.k()];
        layer.run(&input, 0..count, &mut rows);
        let starts: Vec<u32> = (0..count).map(|i| (i * layer.k()) as u32).collect();
        for isa in sets() {
            let packed = Weights::pack(isa, layer.k(), outputs, 1, |k, j| filter[k * outputs + j]);
            let bias = vec![0.0; packed.n()];
            let epilogue = Epilogue { bias: &bias, residual: None, low: OPEN[0], high: OPEN[1] };
            let mut c = vec![f32::NAN; count * packed.n()];
            gemm(&rows, Places { starts: &starts, pitch: 0 }, &packed, &epilogue, &mut c);
            for (at, o) in some(count, 200).flat_map(|at| some(outputs, 8).map(move |o| (at, o))) {
                let product = |(t, p): (usize, usize), c: usize| {
                    f64::from(input[3 * p + c]) * f64::from(filter[(3 * t + c) * outputs + o])
                };
                let sum: f64 = taps(&w, at).flat_map(|tap| (0..3).map(move |c| product(tap, c))).sum();
                close(c[at * packed.n() + o], sum, layer.k(), &format!("{isa} {side} {kernel}x{kernel}"));
            }
        }
    }
}

#[test]
#[ignore = "long"]
fn convolutions_by_winograd() {
    for (size, inputs, outputs) in
        [([224, 224], 64, 64), ([14, 14], 512, 512), ([55, 57], 96, 130), ([149, 147], 32, 33)]
    {
        let w = Window::new(size, [3, 3], [1, 1], [1, 1], [1, 1], [1, 1]).unwrap();
        let filter = noise(1, 9 * inputs * outputs);
        let values = noise(2, size[0] * size[1] * inputs);
        for isa in sets() {
            let layer = Winograd::new(isa, w, inputs, outputs, |o, i, t| filter[(t * inputs + i) * outputs + o]);
            let (padded, n, rows) = (layer.channels(), layer.n(), layer.rows(1));
            let mut input = vec![0.0; w.positions() * padded];
            for (pixel, from) in input.chunks_exact_mut(padded).zip(values.chunks_exact(inputs)) {
                pixel[..inputs].copy_from_slice(from);
            }
            let (bias, mut scratch) = (vec![0.25; n], vec![f32::NAN; layer.scratch(rows)]);
            let epilogue = Epilogue { bias: &bias, residual: None, low: OPEN[0], high: OPEN[1] };
            let mut out = vec![f32::NAN; w.positions() * n];
            for (at, out) in out.chunks_mut(2 * rows * size[1] * n).enumerate() {
                let some = at * rows..((at + 1) * rows).min(size[0].div_ceil(2));
                layer.run(&input, some, &epilogue, &mut scratch, Among::alone(n), out);
            }
            for (at, o) in some(w.positions(), 100).flat_map(|at| some(outputs, 8).map(move |o| (at, o))) {
                let product = |(t, p): (usize, usize), i: usize| {
                    f64::from(input[p * padded + i]) * f64::from(filter[(t * inputs + i) * outputs + o])
                };
                let sum: f64 = taps(&w, at).flat_map(|tap| (0..inputs).map(move |i| product(tap, i))).sum();
                let (found, wanted) = (f64::from(out[at * n + o]), sum + 0.25);
                // Results stay within a few millionths of the largest, which is about four times a typical one.
                let allowed = 4e-6 * 4.0 * (9.0 * inputs as f64 / 9.0).sqrt();
                assert!((found - wanted).abs() <= allowed, "{isa} {size:?} {inputs} {outputs}: {found} for {wanted}");
            }
        }
    }
}

#[test]
#[ignore = "long"]
fn poolings() {
    for (side, channels, kernel, stride) in [(147, 128, 3, 2), (112, 64, 3, 2), (35, 288, 3, 1), (56, 512, 2, 2)] {
        let w = window([side, kernel, stride]);
        for isa in sets() {
            let padded = isa.padded(channels);
            let (input, all) = (noise(1, side * side * padded), 0..w.positions());
            let among = Among { pitch: 2 * padded, first: padded, channels: padded };
            let (mut most, mut mean) = (vec![0.0; w.positions() * among.pitch], vec![0.0; w.positions() * among.pitch]);
            max_pool(isa, &w, among, &input, all.clone(), &mut most);
            mean_pool(isa, &w, Counted::Inside, among, &input, all, &mut mean);
            for (at, c) in some(w.positions(), 300).flat_map(|at| some(padded, 20).map(move |c| (at, c))) {
                let values: Vec<f32> = taps(&w, at).map(|(_, p)| input[p * padded + c]).collect();
                let place = at * among.pitch + among.first + c;
                assert_eq!(most[place], values.iter().copied().fold(f32::NEG_INFINITY, f32::max), "{isa} {side}");
                let wanted = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
                close(mean[place], wanted, kernel * kernel, &format!("{isa} {side} mean"));
            }
        }
    }
}
