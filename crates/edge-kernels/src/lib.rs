//! Kernels: the loops that the time of a classifier goes into, and the threads that share them.
//!
//! Each is written once over vectors of any width, compiled for every instruction set, and chosen by an [`Isa`], which
//! exists only for sets that the machine has. The interfaces are safe: lengths are checked once per call. Each file has
//! the kernel, its naive reference and their comparison on every set of the machine. Pictures are (H,W,C), channels
//! padded to whole vectors ([`Isa::padded`]); what pads is zero or finite and never read by anyone.
//!
//! No dependencies but std; all `unsafe` of the workspace's arithmetic is here.
//!
//! # What was tried, and what it bought
//!
//! Measured on Xception 299 and EfficientNet-Lite0 224, one thread of a Zen 3 core (AVX2; 48.9 GMAC/s in float32).
//!
//! - A tile of 6 rows × 16 columns reaches 44 GMAC/s where all is in the cache; 4 × 24 spills registers and reaches 27.
//! - k in blocks of 384 outermost instead of innermost, and strips of up to 120 rows: the weights come from the cache beyond once
//!   per strip. 100×1536×2048 went from 29 to 42 GMAC/s.
//! - Asking for the lines of C when a tile begins: 21609×128×128 from 31 to 36 GMAC/s; it is bound by memory.
//! - Depthwise: rows outside the picture skipped inside the four-position kernel, single positions four vectors at a time,
//!   the next pixels asked for: 19×19×728 from 14 to 19 GMAC/s. 5×5 and 7×7 windows in the same kernel: EfficientNet-Lite0
//!   from 18.0 to 13.0 ms.
//! - int8: `pmaddwd` 67 GMAC/s. The sums' additions compete with the multiplications for two of four ports; `pmaddubsw`
//!   would have fewer of them, but saturates.
//!
//! On one thread of a Zen 4 core (AVX-512, 58.8 GMAC/s in float32, 235 in int8 by fours):
//!
//! - 12 rows × 2 vectors with AVX-512: 56 to 57 GMAC/s where all is in the cache, against 54 to 56 with AVX2. Both have the same
//!   peak there; strips of 48 to 192 rows make no difference.
//! - [`Quads`], 12 × 2: 224 GMAC/s, against 84 by pairs: EfficientNet-Lite0 in int8 7.1 to 4.0 ms, Xception to 45 ms.
//! - Depthwise by fours ([`Depthwise::on_bytes`]): 26 to 57 GMAC/s. Two positions share an interleaved four of pixels, two pairs of
//!   them each interleaved two. A first version lost half of that to sums that the compiler kept in memory: loops over constant
//!   bounds are unrolled, iterator chains were not.
//! - The picture laid out once as the first convolution wants it (4 bytes a pixel, zeros around it), and rows of A as runs of
//!   values, instead of im2col: EfficientNet-Lite0 in int8 3.8 to 2.8 ms, in float32 9.2 to 8.5; the first layer of either goes
//!   from 25 % of the peak to 80 %.
//! - Depthwise in float32 over 728 channels, 128 at a time: 26 to 33 GMAC/s.
//! - Depthwise on bytes by twos on AVX2: 18 to 25 GMAC/s; with AVX-512 without VNNI it brought nothing.

mod adam;
mod buffer;
mod depthwise;
mod fours;
mod gemm;
mod gemm8;
mod im2col;
mod import;
mod interleaved;
mod isa;
mod peak;
mod pooling;
mod products;
mod quads;
mod quantized;
mod simd;
mod threads;
mod twos;
mod window;

pub use adam::{Adam, adam};
pub use buffer::{Buffer, Plain};
pub use depthwise::Depthwise;
pub use gemm::{Epilogue, Places, Weights, column_step, gemm, gemv, row_step, run_fits};
pub use gemm8::{Scale, Weights8, gemm8, gemm8_float};
pub use im2col::{Im2col, Strides};
pub use import::Import;
pub use isa::{ENVIRONMENT, Isa};
pub use peak::{peak, peak_bytes};
pub use pooling::{add, average, max_pool};
pub use products::add_products;
pub use quads::Quads;
pub use quantized::{Affine, dequantize, max_pool_bytes, quantize, requantize, sum_bytes};
pub use threads::Threads;
pub use window::Window;

#[cfg(test)]
mod test {
    /// Values of -1…1 from a seed.
    pub fn noise(seed: u64, len: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    /// That what was made of an exact `sum` in a column, as float32 and as a byte, is what its scale says. A byte is the float32
    /// rounded; only how that came about may differ in the last place.
    pub fn scaled(sum: i32, scale: &crate::Scale<'_>, column: usize, (float, byte): (f32, u8), what: &str) {
        let exact = f64::from(sum) * f64::from(scale.factor[column]) + f64::from(scale.offset[column]);
        let exact = exact.clamp(f64::from(scale.limits[0]), f64::from(scale.limits[1]));
        assert!((f64::from(float) - exact).abs() < 1e-4, "{what}: {float} for {exact}");
        let byte = f64::from(i32::from(byte) - scale.zero);
        assert!((byte - exact).abs() <= 0.5001, "{what}: {byte} for {exact}");
    }

    /// That sums of `terms` products of values up to one are what they should be, but for rounding.
    pub fn close(found: &[f32], wanted: &[f64], terms: usize, what: &str) {
        assert_eq!(found.len(), wanted.len(), "{what}");
        let allowed = 1e-6 * (2.0 + terms as f64).sqrt() * 4.0;
        for (i, (f, w)) in found.iter().zip(wanted).enumerate() {
            assert!((f64::from(*f) - w).abs() <= allowed, "{what}: {f} for {w} at {i}");
        }
    }
}
