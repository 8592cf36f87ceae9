//! Vectors of float32, the same interface for every instruction set.
//!
//! A kernel is written once, generic over [`Simd`], and compiled once for each set inside a function that enables its
//! features ([`kernel!`]). A value of a type here exists only inside such a function.

/// A vector of float32.
pub(crate) trait Simd: Copy {
    /// The vector.
    type V: Copy;
    /// Values in it.
    const LANES: usize;
    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::V;
    /// `LANES` values from `p`, which need not be aligned.
    ///
    /// # Safety
    /// `p` points to that many values.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// Writes `LANES` values to `p`, which need not be aligned.
    ///
    /// # Safety
    /// `p` points to room for that many values, which nobody else reads or writes.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// a · b + c, rounded once where the set can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// a + b.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a · b.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// The larger of each; `b` where `a` is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller of each; `b` where `a` is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// Asks for the cache line of `p`, which need not be valid.
    fn fetch(self, p: *const f32);
}

/// Eight lanes of plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Simd for Portable {
    type V = [f32; 8];
    const LANES: usize = 8;
    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 8] {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> [f32; 8] {
        // SAFETY: the caller's promise; an array of f32 needs no other alignment than f32.
        unsafe { p.cast::<[f32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: [f32; 8]) {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(v) }
    }
    #[inline(always)]
    fn fma(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn add(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn mul(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn max(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn fetch(self, _: *const f32) {}
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Simd;
    use std::arch::x86_64::*;

    /// AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(());
    /// AVX-512F.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(());

    macro_rules! x86 {
        ($name:ident, $vector:ty, $lanes:expr, $splat:ident $load:ident $store:ident $fma:ident $add:ident $mul:ident
         $max:ident $min:ident) => {
            impl $name {
                /// The set's vectors.
                ///
                /// # Safety
                /// The machine has the instructions.
                #[inline(always)]
                pub(crate) unsafe fn new() -> $name {
                    $name(())
                }
            }

            impl Simd for $name {
                type V = $vector;
                const LANES: usize = $lanes;
                #[inline(always)]
                fn splat(self, x: f32) -> $vector {
                    // SAFETY: the value of this type proves that the machine has the instructions.
                    unsafe { $splat(x) }
                }
                #[inline(always)]
                unsafe fn load(self, p: *const f32) -> $vector {
                    // SAFETY: as above; `p` by the caller's promise.
                    unsafe { $load(p) }
                }
                #[inline(always)]
                unsafe fn store(self, p: *mut f32, v: $vector) {
                    // SAFETY: as above; `p` by the caller's promise.
                    unsafe { $store(p, v) }
                }
                #[inline(always)]
                fn fma(self, a: $vector, b: $vector, c: $vector) -> $vector {
                    // SAFETY: as in `splat`.
                    unsafe { $fma(a, b, c) }
                }
                #[inline(always)]
                fn add(self, a: $vector, b: $vector) -> $vector {
                    // SAFETY: as in `splat`.
                    unsafe { $add(a, b) }
                }
                #[inline(always)]
                fn mul(self, a: $vector, b: $vector) -> $vector {
                    // SAFETY: as in `splat`.
                    unsafe { $mul(a, b) }
                }
                #[inline(always)]
                fn max(self, a: $vector, b: $vector) -> $vector {
                    // SAFETY: as in `splat`.
                    unsafe { $max(a, b) }
                }
                #[inline(always)]
                fn min(self, a: $vector, b: $vector) -> $vector {
                    // SAFETY: as in `splat`.
                    unsafe { $min(a, b) }
                }
                #[inline(always)]
                fn fetch(self, p: *const f32) {
                    // SAFETY: a hint; it reads nothing.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
                }
            }
        };
    }

    x86!(Avx2, __m256, 8, _mm256_set1_ps _mm256_loadu_ps _mm256_storeu_ps _mm256_fmadd_ps _mm256_add_ps _mm256_mul_ps
         _mm256_max_ps _mm256_min_ps);
    x86!(Avx512, __m512, 16, _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_fmadd_ps _mm512_add_ps _mm512_mul_ps
         _mm512_max_ps _mm512_min_ps);
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// Compiles a generic function for every instruction set: `kernel!(fn name(arg: Type, …) -> T = body);` makes
/// `unsafe fn name(isa: Isa, arg: Type, …) -> T`, which calls `body(vectors, arg, …)` with the vectors of `isa`.
macro_rules! kernel {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        unsafe fn $name(isa: $crate::Isa, $($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx2($($arg: $type),*) {
                // SAFETY: the features are enabled here; the rest is the caller's promise.
                unsafe { $body($crate::simd::Avx2::new(), $($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx512($($arg: $type),*) {
                // SAFETY: the features are enabled here; the rest is the caller's promise.
                unsafe { $body($crate::simd::Avx512::new(), $($arg),*) }
            }
            // SAFETY: an Isa is of this machine; the rest is the caller's promise.
            unsafe {
                match isa.kind() {
                    $crate::isa::Kind::Portable => $body($crate::simd::Portable, $($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::isa::Kind::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::isa::Kind::Avx512 => avx512($($arg),*),
                }
            }
        }
    };
}
pub(crate) use kernel;
