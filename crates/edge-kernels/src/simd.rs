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
    /// The same of two values. A closure over an array may be left as a function that lacks the set's instructions.
    #[inline(always)]
    fn splats(self, [first, second]: [f32; 2]) -> [Self::V; 2] {
        [self.splat(first), self.splat(second)]
    }
    /// `LANES` values from `p`, which need not be aligned.
    ///
    /// # Safety
    /// `p` points to that many values.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// The same far from whatever else is loaded, so that no other address helps to find it.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn load_apart(self, p: *const f32) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { self.load(p) }
    }
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
    /// a · b + c as bytes are made from sums: as every set of the architecture does it, so that they make the same bytes. Sets of
    /// x86-64 round once; on aarch64 plain Rust rounds twice, and so do the others.
    #[inline(always)]
    fn scale(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        self.fma(a, b, c)
    }
    /// The larger of each; NaN where `b` is. A NaN in `a` may give way to `b`.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller of each; NaN where `b` is. A NaN in `a` may give way to `b`.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// Asks for the cache line of `p`, which need not be valid.
    fn fetch<T>(self, p: *const T);

    /// A vector of `LANES` int32, or of as many pairs of int16.
    type I: Copy;
    /// All lanes zero.
    fn zero(self) -> Self::I;
    /// All lanes the pair of int16 at `p`.
    ///
    /// # Safety
    /// `p` points to two values.
    unsafe fn pair(self, p: *const i16) -> Self::I;
    /// `LANES` pairs of int16 from `p`.
    ///
    /// # Safety
    /// `p` points to that many.
    unsafe fn pairs(self, p: *const i16) -> Self::I;
    /// sum + the products of the pairs of `a` and `b`, added; exact but for an overflow of the sum.
    fn dot(self, a: Self::I, b: Self::I, sum: Self::I) -> Self::I;
    /// int32 to float32, rounded to nearest.
    fn float(self, i: Self::I) -> Self::V;
    /// `LANES` bytes from `p`, as float32.
    ///
    /// # Safety
    /// `p` points to that many.
    unsafe fn load_u8(self, p: *const u8) -> Self::V;
    /// `LANES` finite float16 numbers from `p`, as float32.
    ///
    /// # Safety
    /// `p` points to that many.
    unsafe fn load_half(self, p: *const u16) -> Self::V;
    /// Rounds half to even, adds `zero`, and writes bytes, limited to 0…255.
    ///
    /// # Safety
    /// `p` points to room for `LANES` bytes.
    unsafe fn store_u8(self, p: *mut u8, v: Self::V, zero: i32);
    /// The same with some vectors, one after the other.
    ///
    /// # Safety
    /// `p` points to room for all of them.
    #[inline(always)]
    unsafe fn stores_u8<const N: usize>(self, p: *mut u8, v: [Self::V; N], zero: i32) {
        for (j, v) in v.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { self.store_u8(p.add(j * Self::LANES), v, zero) }
        }
    }
    /// Rounds half to even and writes int16, limited to what fits.
    ///
    /// # Safety
    /// `p` points to room for `LANES` values.
    unsafe fn store_i16(self, p: *mut i16, v: Self::V);

    /// Adds the products of `M` rows of A and a panel of `N` vectors of W to sums: the loop that the time of a float32 model goes
    /// into, which a set may have its own of.
    ///
    /// # Safety
    /// There are so many rows, runs and vectors.
    #[inline(always)]
    unsafe fn products<const M: usize, const N: usize>(
        self,
        a: [*const f32; M],
        runs: Runs,
        panel: *const f32,
        sums: [[Self::V; N]; M],
    ) -> [[Self::V; N]; M] {
        // SAFETY: the caller's promise.
        unsafe { crate::gemm::products(self, a, runs, panel, sums) }
    }

    /// Adds the products of `rows` rows of a depthwise window of K × K for four positions, `STRIDE` pixels apart, to sums. Pixels are
    /// `[pixel, line]` values apart, of a row and from row to row; the filter's vectors follow each other. Of the pixels that the
    /// positions see in a row, some first and some last ones may be outside of the picture. False where a set has no loop of its own
    /// for that.
    ///
    /// # Safety
    /// All of that is there.
    #[inline(always)]
    unsafe fn window<const K: usize, const STRIDE: usize>(
        self,
        _first: *const f32,
        _apart: [usize; 2],
        _outside: [usize; 2],
        _filter: *const f32,
        _rows: usize,
        _sums: &mut [Self::V; 4],
    ) -> bool {
        false
    }
    /// Whether six rows of A that meet several panels are laid together first.
    #[inline(always)]
    fn lays(self) -> bool {
        false
    }
    /// Lays six rows together.
    ///
    /// # Safety
    /// [`Self::lays`]; the rows are there, and room for six times as many values as one has, rounded up to pairs.
    unsafe fn lay(self, _: [*const f32; 6], _: Runs, _: *mut f32) {}
    /// Adds the products of `k` values of six rows that were laid together and a panel of `N` vectors of W to sums.
    ///
    /// # Safety
    /// [`Self::lays`]; so many values are there.
    unsafe fn laid_products<const N: usize>(self, _: *const f32, _: usize, _: *const f32, _: &mut [[Self::V; N]; 6]) {}
}

/// The runs of a row of A.
#[derive(Clone, Copy)]
pub(crate) struct Runs {
    /// How many.
    pub count: usize,
    /// Values from one to the next.
    pub pitch: usize,
    /// Values in one.
    pub k: usize,
}

/// Sets that multiply unsigned bytes with signed ones.
pub(crate) trait Dot4: Copy {
    /// The set's other instructions.
    type Set: Simd;
    /// Rows in a tile at most.
    const ROWS: usize;
    /// Those.
    fn set(self) -> Self::Set;
    /// A vector of int32 from `p`.
    ///
    /// # Safety
    /// `p` points to that many.
    unsafe fn sums(self, p: *const i32) -> <Self::Set as Simd>::I;
    /// Adds the products of `M` rows of A and `N` vectors of a panel of W, whose fours of k are `step` bytes apart, to sums;
    /// exact but for an overflow of the sum.
    ///
    /// # Safety
    /// There are so many rows, runs of whole fours, and vectors.
    unsafe fn products<const M: usize, const N: usize>(
        self,
        a: [*const u8; M],
        runs: Runs,
        panel: *const i8,
        step: usize,
        sums: [[<Self::Set as Simd>::I; N]; M],
    ) -> [[<Self::Set as Simd>::I; N]; M];
}

/// Sets that multiply four and add them to a sum in one instruction, every one of a vector with its own four.
pub(crate) trait Four: Dot4 {
    /// All lanes the four bytes at `p`.
    ///
    /// # Safety
    /// `p` points to four values.
    unsafe fn quad(self, p: *const u8) -> <Self::Set as Simd>::I;
    /// A vector of fours from `p`.
    ///
    /// # Safety
    /// `p` points to that many.
    unsafe fn quads(self, p: *const i8) -> <Self::Set as Simd>::I;
    /// sum + the products of the fours of `a`, unsigned, and `b`, signed, added; exact but for an overflow of the sum.
    fn dot4(
        self,
        a: <Self::Set as Simd>::I,
        b: <Self::Set as Simd>::I,
        sum: <Self::Set as Simd>::I,
    ) -> <Self::Set as Simd>::I;
}

/// [`Dot4::products`] of sets that do it in one instruction.
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn fours<D: Four, const M: usize, const N: usize>(
    d: D,
    a: [*const u8; M],
    runs: Runs,
    mut panel: *const i8,
    step: usize,
    mut sums: [[<D::Set as Simd>::I; N]; M],
) -> [[<D::Set as Simd>::I; N]; M] {
    // SAFETY: the caller's promise.
    unsafe {
        for first in (0..runs.count).map(|r| r * runs.pitch) {
            for k in (first..first + runs.k).step_by(4) {
                let w: [_; N] = std::array::from_fn(|j| d.quads(panel.add(j * 4 * D::Set::LANES)));
                for i in 0..M {
                    let x = d.quad(a[i].add(k));
                    for j in 0..N {
                        sums[i][j] = d.dot4(x, w[j], sums[i][j]);
                    }
                }
                panel = panel.add(step);
            }
        }
    }
    sums
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Dot4, Four, Runs, Simd, fours};
    use std::arch::x86_64::*;

    /// AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(());
    /// AVX-512F.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(());

    /// AVX-512-VNNI on top.
    #[derive(Clone, Copy)]
    pub(crate) struct Vnni(Avx512);

    impl Vnni {
        /// The set's vectors.
        ///
        /// # Safety
        /// The machine has the instructions.
        #[inline(always)]
        pub(crate) unsafe fn new() -> Vnni {
            Vnni(Avx512(()))
        }
    }

    impl Dot4 for Vnni {
        type Set = Avx512;
        const ROWS: usize = 12;
        #[inline(always)]
        fn set(self) -> Avx512 {
            self.0
        }
        #[inline(always)]
        unsafe fn sums(self, p: *const i32) -> __m512i {
            // SAFETY: the value of this type proves that the machine has the instructions; `p` by the caller's promise.
            unsafe { _mm512_loadu_si512(p.cast()) }
        }
        #[inline(always)]
        unsafe fn products<const M: usize, const N: usize>(
            self,
            a: [*const u8; M],
            runs: Runs,
            panel: *const i8,
            step: usize,
            sums: [[__m512i; N]; M],
        ) -> [[__m512i; N]; M] {
            // SAFETY: the caller's promise.
            unsafe { fours(self, a, runs, panel, step, sums) }
        }
    }

    impl Four for Vnni {
        #[inline(always)]
        unsafe fn quad(self, p: *const u8) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
        }
        #[inline(always)]
        unsafe fn quads(self, p: *const i8) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_loadu_si512(p.cast()) }
        }
        #[inline(always)]
        fn dot4(self, a: __m512i, b: __m512i, sum: __m512i) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_dpbusd_epi32(sum, a, b) }
        }
    }

    macro_rules! x86 {
        ($name:ident, $vector:ty, $lanes:expr, $splat:ident $load:ident $store:ident $fma:ident $add:ident $mul:ident
         $max:ident $min:ident, $int:ty, { $($ints:item)* }) => {
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
                fn fetch<T>(self, p: *const T) {
                    // SAFETY: a hint; it reads nothing.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
                }
                type I = $int;
                $($ints)*
            }
        };
    }

    // SAFETY of all that follows: as in `splat`; pointers by the caller's promise.
    x86!(Avx2, __m256, 8, _mm256_set1_ps _mm256_loadu_ps _mm256_storeu_ps _mm256_fmadd_ps _mm256_add_ps _mm256_mul_ps
         _mm256_max_ps _mm256_min_ps, __m256i, {
        #[inline(always)]
        fn zero(self) -> __m256i {
            // SAFETY: see above.
            unsafe { _mm256_setzero_si256() }
        }
        #[inline(always)]
        unsafe fn pair(self, p: *const i16) -> __m256i {
            // SAFETY: see above.
            unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
        }
        #[inline(always)]
        unsafe fn pairs(self, p: *const i16) -> __m256i {
            // SAFETY: see above.
            unsafe { _mm256_loadu_si256(p.cast()) }
        }
        #[inline(always)]
        fn dot(self, a: __m256i, b: __m256i, sum: __m256i) -> __m256i {
            // SAFETY: see above.
            unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)) }
        }
        #[inline(always)]
        fn float(self, i: __m256i) -> __m256 {
            // SAFETY: see above.
            unsafe { _mm256_cvtepi32_ps(i) }
        }
        #[inline(always)]
        unsafe fn load_u8(self, p: *const u8) -> __m256 {
            // SAFETY: see above.
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()))) }
        }
        /// As [`crate::gemm::half`]: not every machine with AVX2 need have the instruction.
        #[inline(always)]
        unsafe fn load_half(self, p: *const u16) -> __m256 {
            // SAFETY: see above.
            unsafe {
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
                let magnitude = _mm256_slli_epi32::<13>(_mm256_and_si256(bits, _mm256_set1_epi32(0x7fff)));
                let magnitude =
                    _mm256_mul_ps(_mm256_castsi256_ps(magnitude), _mm256_castsi256_ps(_mm256_set1_epi32(239 << 23)));
                let sign = _mm256_slli_epi32::<16>(_mm256_and_si256(bits, _mm256_set1_epi32(0x8000)));
                _mm256_or_ps(magnitude, _mm256_castsi256_ps(sign))
            }
        }
        #[inline(always)]
        unsafe fn store_u8(self, p: *mut u8, v: __m256, zero: i32) {
            // SAFETY: see above.
            unsafe {
                let i = _mm256_add_epi32(_mm256_cvtps_epi32(v), _mm256_set1_epi32(zero));
                let i = _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256::<1>(i));
                _mm_storel_epi64(p.cast(), _mm_packus_epi16(i, i));
            }
        }
        /// Two become bytes together.
        #[inline(always)]
        unsafe fn stores_u8<const N: usize>(self, p: *mut u8, v: [__m256; N], zero: i32) {
            let zeros = zero.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
            for j in (0..N).step_by(2) {
                // SAFETY: see above.
                unsafe {
                    let p = p.add(j * 8);
                    if j + 1 == N {
                        return self.store_u8(p, v[j], zero);
                    }
                    let i = _mm256_packs_epi32(_mm256_cvtps_epi32(v[j]), _mm256_cvtps_epi32(v[j + 1]));
                    let i = _mm256_adds_epi16(i, _mm256_set1_epi16(zeros));
                    // Each half has the bytes of its halves of both vectors.
                    let bytes = _mm256_packus_epi16(i, i);
                    let (low, high) = (_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
                    _mm_storeu_si128(p.cast(), _mm_unpacklo_epi32(low, high));
                }
            }
        }
        #[inline(always)]
        unsafe fn store_i16(self, p: *mut i16, v: __m256) {
            // SAFETY: see above.
            unsafe {
                let i = _mm256_cvtps_epi32(v);
                let i = _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256::<1>(i));
                _mm_storeu_si128(p.cast(), i);
            }
        }
    });
    x86!(Avx512, __m512, 16, _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_fmadd_ps _mm512_add_ps _mm512_mul_ps
         _mm512_max_ps _mm512_min_ps, __m512i, {
        #[inline(always)]
        fn zero(self) -> __m512i {
            // SAFETY: see above.
            unsafe { _mm512_setzero_si512() }
        }
        #[inline(always)]
        unsafe fn pair(self, p: *const i16) -> __m512i {
            // SAFETY: see above.
            unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
        }
        #[inline(always)]
        unsafe fn pairs(self, p: *const i16) -> __m512i {
            // SAFETY: see above.
            unsafe { _mm512_loadu_si512(p.cast()) }
        }
        #[inline(always)]
        fn dot(self, a: __m512i, b: __m512i, sum: __m512i) -> __m512i {
            // SAFETY: see above.
            unsafe { _mm512_add_epi32(sum, _mm512_madd_epi16(a, b)) }
        }
        #[inline(always)]
        fn float(self, i: __m512i) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_cvtepi32_ps(i) }
        }
        #[inline(always)]
        unsafe fn load_u8(self, p: *const u8) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()))) }
        }
        #[inline(always)]
        unsafe fn load_half(self, p: *const u16) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
        }
        #[inline(always)]
        unsafe fn store_u8(self, p: *mut u8, v: __m512, zero: i32) {
            // SAFETY: see above.
            unsafe {
                let i = _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(zero));
                let i = _mm512_max_epi32(i, _mm512_setzero_si512());
                _mm_storeu_si128(p.cast(), _mm512_cvtusepi32_epi8(i));
            }
        }
        #[inline(always)]
        unsafe fn store_i16(self, p: *mut i16, v: __m512) {
            // SAFETY: see above.
            unsafe { _mm256_storeu_si256(p.cast(), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(v))) }
        }
    });
}

pub(crate) use crate::portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512, Vnni};

#[cfg(target_arch = "aarch64")]
pub(crate) use crate::neon::Neon;

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
            #[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx512($($arg: $type),*) {
                // SAFETY: the features are enabled here; the rest is the caller's promise.
                unsafe { $body($crate::simd::Avx512::new(), $($arg),*) }
            }
            // A function of its own, so that a disassembly tells it from plain Rust.
            #[cfg(target_arch = "aarch64")]
            #[inline(never)]
            #[allow(clippy::too_many_arguments)]
            unsafe fn neon(isa: $crate::Isa, $($arg: $type),*) {
                // SAFETY: the caller's promise.
                unsafe { $body($crate::simd::Neon::new(isa), $($arg),*) }
            }
            // SAFETY: an Isa is of this machine; the rest is the caller's promise.
            unsafe {
                match isa.kind() {
                    $crate::isa::Kind::Portable => $body($crate::simd::Portable, $($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::isa::Kind::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::isa::Kind::Avx512 | $crate::isa::Kind::Vnni => avx512($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    _ => neon(isa, $($arg),*),
                }
            }
        }
    };
}
pub(crate) use kernel;
