//! Vectors of plain Rust, which the compiler makes of whatever the machine has.

use crate::simd::{Dot4, Four, Runs, Simd, fours};

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
    fn fetch<T>(self, _: *const T) {}
    type I = [i32; 8];
    #[inline(always)]
    fn zero(self) -> [i32; 8] {
        [0; 8]
    }
    #[inline(always)]
    unsafe fn pair(self, p: *const i16) -> [i32; 8] {
        // SAFETY: the caller's promise.
        [unsafe { p.cast::<i32>().read_unaligned() }; 8]
    }
    #[inline(always)]
    unsafe fn pairs(self, p: *const i16) -> [i32; 8] {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[i32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    fn dot(self, a: [i32; 8], b: [i32; 8], sum: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| {
            let low = i32::from(a[i] as i16) * i32::from(b[i] as i16);
            sum[i].wrapping_add(low).wrapping_add((a[i] >> 16).wrapping_mul(b[i] >> 16))
        })
    }
    #[inline(always)]
    fn float(self, i: [i32; 8]) -> [f32; 8] {
        i.map(|i| i as f32)
    }
    #[inline(always)]
    unsafe fn load_half(self, p: *const u16) -> [f32; 8] {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[u16; 8]>().read_unaligned() }.map(crate::gemm::half)
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> [f32; 8] {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[u8; 8]>().read_unaligned() }.map(f32::from)
    }
    #[inline(always)]
    unsafe fn store_u8(self, p: *mut u8, v: [f32; 8], zero: i32) {
        let bytes = v.map(|v| (v.round_ties_even() as i32).saturating_add(zero).clamp(0, 255) as u8);
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[u8; 8]>().write_unaligned(bytes) }
    }
    #[inline(always)]
    unsafe fn store_i16(self, p: *mut i16, v: [f32; 8]) {
        // A cast from float to integer saturates.
        let values = v.map(|v| v.round_ties_even() as i16);
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[i16; 8]>().write_unaligned(values) }
    }
}

impl Dot4 for Portable {
    type Set = Portable;
    const ROWS: usize = 6;
    #[inline(always)]
    fn set(self) -> Portable {
        self
    }
    #[inline(always)]
    unsafe fn sums(self, p: *const i32) -> [i32; 8] {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[i32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn products<const M: usize, const N: usize>(
        self,
        a: [*const u8; M],
        runs: Runs,
        panel: *const i8,
        step: usize,
        sums: [[[i32; 8]; N]; M],
    ) -> [[[i32; 8]; N]; M] {
        // SAFETY: the caller's promise.
        unsafe { fours(self, a, runs, panel, step, sums) }
    }
}

impl Four for Portable {
    #[inline(always)]
    unsafe fn quad(self, p: *const u8) -> [i32; 8] {
        // SAFETY: the caller's promise.
        [unsafe { p.cast::<i32>().read_unaligned() }; 8]
    }
    #[inline(always)]
    unsafe fn quads(self, p: *const i8) -> [i32; 8] {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[i32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    fn dot4(self, a: [i32; 8], b: [i32; 8], sum: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| {
            let products = a[i].to_ne_bytes().into_iter().zip(b[i].to_ne_bytes());
            products.fold(sum[i], |sum, (a, b)| sum.wrapping_add(i32::from(a) * i32::from(b as i8)))
        })
    }
}
