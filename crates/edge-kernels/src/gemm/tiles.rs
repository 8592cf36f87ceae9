//! How rows of A are multiplied with panels of W: block of k by block, panel by panel, tile by tile.

use super::{BLOCK, Epilogue, Places, WIDTH, Weights};
use crate::simd::{Runs, Simd};
use std::mem::MaybeUninit;

/// One tile's part of the epilogue.
#[derive(Clone, Copy)]
pub(crate) struct End {
    pub residual: *const f32,
    pub low: f32,
    pub high: f32,
}

/// Where a tile reads and writes.
#[derive(Clone, Copy)]
struct Place {
    a: *const f32,
    rows: *const u32,
    /// Full tiles of rows laid together; null where they are not.
    laid: *const f32,
    panel: *const f32,
    c: *mut f32,
    /// Values from one row of C to the next.
    stride: usize,
    /// What of a row is in this block.
    runs: Runs,
    /// Where sums begin; null where they go on from what C holds.
    bias: *const f32,
    /// How they end, where this is the last block.
    end: Option<End>,
}

/// Rows that are laid together for a set that wants them so: a strip's.
const TOGETHER: usize = 120;
/// Rows of a tile of those.
pub(crate) const SIX: usize = 6;

/// Computes rows of C.
///
/// # Safety
/// Every row of A lies within `a`; C, the residual, the bias and the panels have the lengths that are counted to.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn body<S: Simd>(
    s: S,
    a: &[f32],
    rows: Places<'_>,
    w: &Weights,
    first: usize,
    columns: usize,
    epilogue: &Epilogue<'_>,
    stride: usize,
    c: &mut [f32],
) {
    let step = WIDTH * S::LANES;
    let residual = epilogue.residual.map_or(std::ptr::null(), <[f32]>::as_ptr);
    let mut room = MaybeUninit::<[f32; BLOCK * WIDTH * 16]>::uninit();
    let mut room_laid = MaybeUninit::<[f32; TOGETHER * BLOCK]>::uninit();
    // Rows are laid together for several panels only.
    let lays = s.lays() && columns > step;
    let count = rows.starts.len();
    for block in (0..w.k).step_by(w.block) {
        let k = (w.k - block).min(w.block);
        // A block is a part of one run, or some whole runs.
        let run = if w.runs == 1 { k } else { w.k / w.runs };
        let from = if w.runs == 1 { block } else { block / run * rows.pitch };
        let last = block + k == w.k;
        let runs = Runs { count: k / run, pitch: rows.pitch, k: run };
        for row in (0..count).step_by(if lays { TOGETHER } else { count.max(1) }) {
            let rows = &rows.starts[row..if lays { count.min(row + TOGETHER) } else { count }];
            // SAFETY: the caller's promise for rows of A; there is room for so many rows of a block.
            let laid = unsafe {
                if lays {
                    lay(s, a.as_ptr().add(from), rows, runs, room_laid.as_mut_ptr().cast())
                } else {
                    std::ptr::null()
                }
            };
            for column in (0..columns).step_by(step) {
                let wide = (columns - column).min(step);
                // SAFETY: the caller's promise: columns are whole vectors within C, W and the bias.
                unsafe {
                    let at = first + column;
                    let residual = if residual.is_null() { residual } else { residual.add(row * stride + column) };
                    let place = Place {
                        a: a.as_ptr().add(from),
                        rows: rows.as_ptr(),
                        laid,
                        panel: w.panels.floats(s, block * w.n + at * k, k * wide, at, wide, room.as_mut_ptr().cast()),
                        c: c.as_mut_ptr().add(row * stride + column),
                        stride,
                        runs,
                        bias: if block == 0 { epilogue.bias.as_ptr().add(at) } else { std::ptr::null() },
                        end: last.then_some(End { residual, low: epilogue.low, high: epilogue.high }),
                    };
                    match wide > S::LANES {
                        true => tiles::<S, 2>(s, rows.len(), place),
                        false => tiles::<S, 1>(s, rows.len(), place),
                    }
                }
            }
        }
    }
}

/// Lays full tiles of rows together, those of one after those of the other; there they are.
///
/// # Safety
/// The rows are there, and room for them, rounded up to pairs of values.
#[inline(always)]
unsafe fn lay<S: Simd>(s: S, a: *const f32, rows: &[u32], runs: Runs, to: *mut f32) -> *const f32 {
    for (tile, rows) in rows.chunks_exact(SIX).enumerate() {
        // SAFETY: the caller's promise.
        unsafe { s.lay(std::array::from_fn(|i| a.add(rows[i] as usize)), runs, to.add(tile * laid_len(runs))) };
    }
    to
}

/// Values that a tile of rows takes which are laid together.
#[inline(always)]
fn laid_len(runs: Runs) -> usize {
    SIX * (runs.count * runs.k).next_multiple_of(2)
}

impl Place {
    /// Goes on by some rows.
    #[inline(always)]
    fn advance(&mut self, rows: usize) {
        self.rows = self.rows.wrapping_add(rows);
        self.c = self.c.wrapping_add(rows * self.stride);
        if let Some(End { residual, .. }) = &mut self.end
            && !residual.is_null()
        {
            *residual = residual.wrapping_add(rows * self.stride);
        }
    }
}

/// All rows of a panel, as many at a time as there are registers for.
#[inline(always)]
unsafe fn tiles<S: Simd, const V: usize>(s: S, rows: usize, place: Place) {
    let (mut left, mut place) = (rows, place);
    if !place.laid.is_null() {
        let step = laid_len(place.runs);
        while left >= SIX {
            // SAFETY: the rows are there, laid together.
            unsafe { laid_tile::<S, V>(s, place) };
            place.laid = place.laid.wrapping_add(step);
            place.advance(SIX);
            left -= SIX;
        }
    }
    macro_rules! take {
        ($($height:literal)*) => {
            $(while left >= $height {
                // SAFETY: the rows are there.
                unsafe { tile::<S, $height, V>(s, place) };
                place.advance($height);
                left -= $height;
            })*
        };
    }
    if S::LANES == 16 {
        take!(12);
    }
    take!(6 4 2 1);
}

/// Asks for the lines that M rows of V vectors lie in.
///
/// # Safety
/// They are there.
#[inline(always)]
unsafe fn fetch<S: Simd, const M: usize, const V: usize>(s: S, from: *const f32, stride: usize) {
    for i in 0..M {
        // A line of 64 bytes is one vector of AVX-512, two of the others.
        for j in (0..V).filter(|j| j * S::LANES % 16 == 0) {
            // SAFETY: the caller's promise.
            s.fetch(unsafe { from.add(i * stride + j * S::LANES) });
        }
    }
}

/// M rows where they lie.
#[inline(always)]
unsafe fn tile<S: Simd, const M: usize, const V: usize>(s: S, place: Place) {
    // SAFETY: the caller's promise: M rows of A with `k` values, M × V vectors of C, and the panel's rows are there.
    unsafe {
        let a: [*const f32; M] = std::array::from_fn(|i| place.a.add(*place.rows.add(i) as usize));
        let sums = s.products(a, place.runs, place.panel, open::<S, M, V>(s, &place));
        finish(s, place.c, place.stride, place.end, sums);
    }
}

/// Six rows that are laid together.
#[inline(always)]
unsafe fn laid_tile<S: Simd, const V: usize>(s: S, place: Place) {
    // SAFETY: as for [`tile`].
    unsafe {
        let mut sums = open::<S, SIX, V>(s, &place);
        s.laid_products(place.laid, place.runs.count * place.runs.k, place.panel, &mut sums);
        finish(s, place.c, place.stride, place.end, sums);
    }
}

/// Asks for what M rows will be written to, and begins their sums.
#[inline(always)]
unsafe fn open<S: Simd, const M: usize, const V: usize>(s: S, place: &Place) -> [[S::V; V]; M] {
    // SAFETY: the caller's promise: M × V vectors of C are there.
    unsafe {
        fetch::<S, M, V>(s, place.c, place.stride);
        if let Some(end) = place.end.filter(|e| !e.residual.is_null()) {
            fetch::<S, M, V>(s, end.residual, place.stride);
        }
        begin(s, place.c, place.stride, place.bias)
    }
}

/// Where the sums of M rows begin: at the bias, or at what C holds where that is null.
///
/// # Safety
/// M × V vectors are there in C, V in the bias.
#[inline(always)]
pub(crate) unsafe fn begin<S: Simd, const M: usize, const V: usize>(
    s: S,
    c: *const f32,
    stride: usize,
    bias: *const f32,
) -> [[S::V; V]; M] {
    // SAFETY: the caller's promise.
    unsafe {
        let line = |from: *const f32| std::array::from_fn(|j| s.load(from.add(j * S::LANES)));
        match bias.is_null() {
            true => std::array::from_fn(|i| line(c.add(i * stride))),
            false => [line(bias); M],
        }
    }
}

/// Writes the sums of a block of k of M rows to C, ended where they are the last.
///
/// # Safety
/// M × V vectors are there in C and the residual.
#[inline(always)]
pub(crate) unsafe fn finish<S: Simd, const M: usize, const V: usize>(
    s: S,
    to: *mut f32,
    stride: usize,
    end: Option<End>,
    mut sums: [[S::V; V]; M],
) {
    // SAFETY: the caller's promise.
    unsafe {
        if let Some(end) = end {
            if !end.residual.is_null() {
                for (i, sums) in sums.iter_mut().enumerate() {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum = s.add(*sum, s.load(end.residual.add(i * stride + j * S::LANES)));
                    }
                }
            }
            if end.low != f32::NEG_INFINITY || end.high != f32::INFINITY {
                let (low, high) = (s.splat(end.low), s.splat(end.high));
                // NaN stays NaN: the second operand is what x86 gives then.
                for sums in &mut sums {
                    for sum in sums {
                        *sum = s.min(high, s.max(low, *sum));
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                s.store(to.add(i * stride + j * S::LANES), *sum);
            }
        }
    }
}

/// [`Simd::products`] of sets that multiply with one value broadcast.
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn products<S: Simd, const M: usize, const V: usize>(
    s: S,
    a: [*const f32; M],
    runs: Runs,
    mut panel: *const f32,
    mut sums: [[S::V; V]; M],
) -> [[S::V; V]; M] {
    // SAFETY: the caller's promise.
    unsafe {
        macro_rules! multiply {
            ($k:expr) => {
                let w: [S::V; V] = std::array::from_fn(|j| s.load(panel.add(j * S::LANES)));
                for i in 0..M {
                    let x = s.splat(*a[i].add($k));
                    for j in 0..V {
                        sums[i][j] = s.fma(x, w[j], sums[i][j]);
                    }
                }
                panel = panel.add(V * S::LANES);
            };
        }
        for run in 0..runs.count {
            let first = run * runs.pitch;
            let mut k = first;
            while k + 2 <= first + runs.k {
                multiply!(k);
                multiply!(k + 1);
                k += 2;
            }
            if k < first + runs.k {
                multiply!(k);
            }
        }
        let _ = panel;
    }
    sums
}
