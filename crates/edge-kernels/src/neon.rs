//! The kernels of aarch64: vectors of NEON, and what they do otherwise than those of x86-64.
//!
//! A vector is two registers of four, so that what is packed for plain Rust, channels by eights, is right for them, too. There are
//! 32 registers: a tile of 6 rows × 2 vectors has 24 accumulators, and 8 registers are left for A and W. An instruction multiplies a
//! register with one lane of another, so that rows of A are read four values (float32) or sixteen (bytes) at a time, and a
//! broadcast costs nothing.

mod bytes;
mod fours;
mod halves;
mod loops;
mod packed;
mod peak;
#[cfg(test)]
mod tests;
mod vectors;
mod whole;
mod window;

pub(crate) use bytes::{Dot, I8mm, Rails, Twos};
pub(crate) use fours::depthwise_fours;
pub(crate) use halves::gemm_halves;
pub(crate) use peak::{multiply, products};
pub(crate) use vectors::Neon;
pub(crate) use whole::{depthwise_whole, whole_filter};
