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
//! - int8: `pmaddwd` 62 to 70 GMAC/s. The sums' additions compete with the multiplications for two of four ports. `pmaddubsw` has
//!   fewer of them, 85, but saturates. Moving the sign from A to W (`psignb`), after which nothing saturates, made it 60. What it
//!   takes to be exact all the same is in `narrow.rs`.
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
//! - AVX2 alone, in int8 (`narrow.rs`): fours of weights as they are 115 GMAC/s, couples of them 138, those of 16 bits 80; `pmaddwd` 91.
//!   Bringing A into another order for each column (`pshufb`), so that pairs fit, made it 78 and is gone. Xception 96 to 83 ms.
//!   In registers the sums stayed only where the function that adds writes them, too.
//! - Strips of 256 rows where a core has a second-level cache of 1 MB or more, of 120 elsewhere; those of 48 where weights have less than
//!   4 MB, which once kept what they make near, cost EfficientNet-Lite0 4 to 10 % and Xception 3 % by now.
//! - [`Winograd`] F(2×2, 3×3) where there are 49 tiles and 32 channels or more: VGG16 318 to 166 ms, InceptionV3 122 to 95,
//!   ResNet50 79 to 62, DenseNet121 56 to 46. Results stay within 4e-6 of the largest, where the product of sums is within 9e-7.
//!
//! # aarch64: counted, not timed
//!
//! No Arm machine was at hand. What can be known without one is how many instructions the inner loops have, and how many of them
//! multiply: a core multiplies no faster than it has pipes for, and whatever it starts beside that costs nothing as long as it
//! can start all of a turn in the time that the multiplications take. `cargo xtask test --only "kernels of aarch64"` counts these
//! loops in a disassembly and fails where one has grown.
//!
//! | kernel | set | tile | instructions a turn | multiply–accumulates | instructions for each | if nothing but multiplications |
//! |---|---|---|---|---|---|---|
//! | float32 matrix | `neon` and up | 6 × 16, rows laid together | 206 | 768 | 0.268 | 0.250 (`fmla`) |
//! | the last 8 columns of it | `neon` and up | 6 × 8 | 106 | 384 | 0.276 | 0.250 |
//! | float32 matrix of up to 16 columns | `neon` and up | 6 × 16 | 113 | 384 | 0.294 | 0.250 |
//! | float32 matrix | `neon-inorder` | 6 × 16 | 164 | 384 | 0.427 | 0.250, and one beside each |
//! | float16 matrix, where a processor has it | `dotprod`, `i8mm` | 6 × 16 | 111 | 768 | 0.145 | 0.125 (`fmla` of eight lanes) |
//! | int8 matrix | `neon` | 4 × 16 | 120 | 512 | 0.234 | 0.188 (`smull`, `smlal2`, `sadalp`) |
//! | int8 matrix | `neon-inorder` | 4 × 16 | 138 | 512 | 0.270 | 0.188, and one beside each |
//! | int8 matrix with weights of -128 | both | 4 × 16 | 160 | 512 | 0.313 | 0.250 |
//! | int8 matrix | `dotprod` | 6 × 16 | 120 | 1536 | 0.078 | 0.063 (`sdot`) |
//! | int8 matrix | `i8mm` | 6 × 16 | 71 | 1536 | 0.046 | 0.031 (`usmmla`) |
//! | depthwise 3×3, stride 1, a row of the window | `neon` and up | 4 positions × 8 | 35 | 96 | 0.365 | 0.250 (`fmla`) |
//! | the same | `neon-inorder` | 4 positions × 8 | 46 | 96 | 0.479 | 0.250 |
//! | the same on bytes | `neon`, `neon-inorder` | 4 × 8 | 49 | 96 | 0.510 | 0.250 (`smlal`) |
//! | the same on bytes | `dotprod`, `i8mm` | 4 × 16 | 56 | 192 | 0.292 | 0.083 (`sdot`: one of four products is with zero) |
//!
//! Of a whole EfficientNet-Lite0 in float32, 129 million instructions, 88 million are those of that matrix loop, 15 million end tiles
//! or are for fewer rows, 4 million make float16 weights float32, 2 million lay rows together, and 18 million are depthwise. What
//! brought it there from 152: rows laid together, pair by pair, so that one instruction loads three registers of A and one four of W
//! (a turn of 384 products took 124 instructions, then 113 in assembly); one load that moves on to the next pixel of a depthwise
//! window; sums that begin at the bias, and end without limits where there are none; filters that lie as they are read; borders in
//! the four-position kernel. With float16 weights it had been 195: `fcvtl`, and longer strips where weights are decoded for each.
//!
//! By core. Arm's own optimization guides were not at hand; each figure is that of who is named, who looked at the guide or at a
//! board:
//!
//! - Cortex-A72 (Raspberry Pi 4) starts three instructions a cycle and one `fmla` of four lanes: the float32 turn needs 192 cycles
//!   for its multiplications and 69 to start. `smull` and `smlal2` have one pipe, `sadalp`, `tbl` and `eor` the other: 64 cycles, 40 to
//!   start, so 8 products a cycle, twice as many as in float32. (LLVM's model of the Cortex-A57, AArch64SchedA57.td, which LLVM
//!   takes for the A72 as well: 3 a cycle; `fmla` of four lanes takes both pipes, `smull` and `smlal` the first, `sadalp` the other.
//!   That `tbl` takes three of its steps there was not counted.)
//! - Cortex-A76 and A78 (Raspberry Pi 5, Orin) start four a cycle and two `fmla` or `sdot`: 96 cycles for 206 instructions of the
//!   float32 turn, 52 to start; 48 for 120 of `sdot`, 30 to start; 7 of those (`eor`, `movi`) take its pipes, too, 7 %. `fmla` of
//!   eight lanes is as fast as one of four: 48 cycles for 111 instructions and twice the products. Every 64 values of k the sums
//!   go to float32 in up to 119 more, 48 of them in those pipes, 6 %: 0.164 instructions for each product in all. (`fmla`:
//!   AArch64SchedNeoverseN1.td, the A76 for servers, either of two pipes. `sdot`: the table of NumKong's neonsdot.h, two a cycle.
//!   The A78 is taken to be no worse.)
//! - Cortex-A53 (Raspberry Pi 3, Zero 2 W) starts two a cycle in their order, of which one may multiply and one load 64 bits. So
//!   what is loaded comes in halves, each beside a multiplication: 96 cycles, and some 9 for what begins a turn, where loads of
//!   128 bits between multiplications would make it 140. (Two a cycle: AArch64SchedA53.td; a multiplication of four lanes each
//!   cycle: measured by daniestevez/qsdr; what goes beside one: ncnn's arm-a53-a55-dual-issue.md, by which a load into a general
//!   register does and one of 64 bits into a vector register takes a cycle of its own. If so, a turn takes 16 cycles more.)

mod adam;
mod among;
mod buffer;
mod cache;
mod depthwise;
mod fours;
mod functions;
mod gemm;
mod gemm8;
mod halves;
mod im2col;
mod import;
mod interleaved;
mod isa;
#[cfg(target_arch = "x86_64")]
mod narrow;
#[cfg(target_arch = "aarch64")]
mod neon;
mod peak;
mod pooling;
mod portable;
mod products;
mod quads;
mod quantized;
mod simd;
mod threads;
mod twos;
mod window;
mod winograd;

pub use adam::{Adam, adam};
pub use among::Among;
pub use buffer::{Buffer, Plain};
pub use cache::second_level_cache;
pub use depthwise::Depthwise;
pub use functions::{Function, Ramp, apply, multiply, scale_rows};
pub use gemm::{Epilogue, Places, Small, Weights, column_step, gemm, gemm_among, gemv, row_step, run_fits};
pub use gemm8::{Scale, Weights8, gemm8, gemm8_float};
pub use halves::Float16;
pub use im2col::{Im2col, Strides};
pub use import::Import;
pub use isa::{ENVIRONMENT, Isa};
pub use peak::{peak, peak_bytes};
pub use pooling::{Counted, add, average, max_pool, mean_pool};
pub use products::add_products;
pub use quads::Quads;
pub use quantized::{Affine, dequantize, max_pool_bytes, quantize, requantize, sum_bytes};
pub use threads::Threads;
pub use window::Window;
pub use winograd::Winograd;

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

    /// Channels among others: alone, and with some before and after them.
    pub fn amongs(isa: crate::Isa, channels: usize) -> [crate::Among; 2] {
        let (pitch, first) = (channels + 3 * isa.lanes(), 2 * isa.lanes());
        [crate::Among::alone(channels), crate::Among { pitch, first, channels }]
    }

    /// The channels that lie among others, which nobody wrote to.
    pub fn taken(among: crate::Among, wide: &[f32]) -> Vec<f32> {
        let mut own = vec![];
        for pixel in wide.chunks_exact(among.pitch) {
            let (before, rest) = pixel.split_at(among.first);
            let (channels, after) = rest.split_at(among.channels);
            assert!(before.iter().chain(after).all(|v| v.is_nan()), "written beside {among:?}");
            own.extend(channels);
        }
        own
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
