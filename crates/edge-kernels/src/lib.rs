//! Kernels: the loops that the time of a classifier goes into, and the threads that share them.
//!
//! Each is written once over vectors of any width, compiled for every instruction set, and chosen by an [`Isa`], which
//! exists only for sets that the machine has. The interfaces are safe: lengths are checked once per call. Each file has
//! the kernel, its naive reference and their comparison on every set of the machine. Pictures are (H,W,C), channels
//! padded to whole vectors ([`Isa::padded`]); what pads is zero or finite and never read by anyone.
//!
//! No dependencies but std; all `unsafe` of the workspace's arithmetic is here.

mod buffer;
mod depthwise;
mod gemm;
mod gemm8;
mod im2col;
mod isa;
mod peak;
mod pooling;
mod quantized;
mod simd;
mod threads;
mod window;

pub use buffer::{Buffer, Plain};
pub use depthwise::Depthwise;
pub use gemm::{Epilogue, Weights, column_step, gemm, gemv};
pub use gemm8::{Scale, Weights8, gemm8, gemm8_float};
pub use im2col::{Im2col, Strides};
pub use isa::{ENVIRONMENT, Isa};
pub use peak::peak;
pub use pooling::{add, average, max_pool};
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

    /// That sums of `terms` products of values up to one are what they should be, but for rounding.
    pub fn close(found: &[f32], wanted: &[f64], terms: usize, what: &str) {
        assert_eq!(found.len(), wanted.len(), "{what}");
        let allowed = 1e-6 * (2.0 + terms as f64).sqrt() * 4.0;
        for (i, (f, w)) in found.iter().zip(wanted).enumerate() {
            assert!((f64::from(*f) - w).abs() <= allowed, "{what}: {f} for {w} at {i}");
        }
    }
}
