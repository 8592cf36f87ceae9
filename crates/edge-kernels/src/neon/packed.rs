//! Rows of A laid together: the tile of float32 that is read through two addresses instead of seven.
//!
//! A pair of values of each of six rows fills three registers, which one instruction loads, and one more loads the four registers of
//! W of a value of k; both move their address on. What a row's pair costs to lay is one instruction, and saves ten of 113 in every
//! panel.

use super::vectors::Floats;
use crate::gemm::SIX as ROWS;
use crate::simd::Runs;
use std::arch::asm;

/// Where the values of two k of row i lie: beside each other, after those of the rows before.
const PAIR: usize = 2 * ROWS;

/// Lays six rows together, pair by pair; an odd last value is the first of a pair.
///
/// # Safety
/// The rows are there, and room for `ROWS` times as many values as one has, rounded up to pairs.
pub(super) unsafe fn pack(a: [*const f32; ROWS], runs: Runs, to: *mut f32) {
    let mut k = 0;
    for run in 0..runs.count {
        let first = run * runs.pitch;
        let mut at = 0;
        while at < runs.k {
            let left = runs.k - at;
            // SAFETY: the caller's promise.
            unsafe {
                let a = a.map(|row| row.add(first + at));
                let pair = to.add(k / 2 * PAIR);
                let taken = match (k % 2, left) {
                    (0, 8..) => eights(a, left / 8, pair),
                    (0, 2..) => {
                        for (i, row) in a.into_iter().enumerate() {
                            pair.add(2 * i).cast::<u64>().write_unaligned(row.cast::<u64>().read_unaligned());
                        }
                        2
                    }
                    (odd, _) => {
                        for (i, row) in a.into_iter().enumerate() {
                            pair.add(2 * i + odd).write(*row);
                        }
                        1
                    }
                };
                (k, at) = (k + taken, at + taken);
            }
        }
    }
}

/// Lays `8 · count` values of six rows.
///
/// # Safety
/// They are there, and the room; `count` is not zero.
#[inline(always)]
unsafe fn eights(a: [*const f32; ROWS], count: usize, to: *mut f32) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "2:",
            "ldp q0, q1, [{a0}], #32",
            "ldp q2, q3, [{a1}], #32",
            "ldp q4, q5, [{a2}], #32",
            "ldp q6, q7, [{a3}], #32",
            "ldp q16, q17, [{a4}], #32",
            "ldp q18, q19, [{a5}], #32",
            "zip1 v20.2d, v0.2d, v2.2d",
            "zip1 v21.2d, v4.2d, v6.2d",
            "zip1 v22.2d, v16.2d, v18.2d",
            "zip2 v23.2d, v0.2d, v2.2d",
            "zip2 v24.2d, v4.2d, v6.2d",
            "zip2 v25.2d, v16.2d, v18.2d",
            "zip1 v26.2d, v1.2d, v3.2d",
            "zip1 v27.2d, v5.2d, v7.2d",
            "zip1 v28.2d, v17.2d, v19.2d",
            "zip2 v29.2d, v1.2d, v3.2d",
            "zip2 v30.2d, v5.2d, v7.2d",
            "zip2 v31.2d, v17.2d, v19.2d",
            "st1 {{v20.4s-v23.4s}}, [{to}], #64",
            "st1 {{v24.4s-v27.4s}}, [{to}], #64",
            "st1 {{v28.4s-v31.4s}}, [{to}], #64",
            "subs {turns}, {turns}, #1",
            "b.ne 2b",
            a0 = inout(reg) a[0] => _, a1 = inout(reg) a[1] => _, a2 = inout(reg) a[2] => _, a3 = inout(reg) a[3] => _,
            a4 = inout(reg) a[4] => _, a5 = inout(reg) a[5] => _, to = inout(reg) to => _, turns = inout(reg) count => _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            options(nostack),
        );
    }
    8 * count
}

/// Multiplies registers of W, from v27 on, with a value of each row: lanes `$x` of those whose pair comes first in a register, `$y`
/// of the others.
macro_rules! column {
    (four, $x:literal, $y:literal) => {
        concat!(
            column!("27", $x, $y, "0" "4" "8" "12" "16" "20"),
            column!("28", $x, $y, "1" "5" "9" "13" "17" "21"),
            column!("29", $x, $y, "2" "6" "10" "14" "18" "22"),
            column!("30", $x, $y, "3" "7" "11" "15" "19" "23"),
        )
    };
    (two, $w:literal $v:literal, $x:literal, $y:literal) => {
        concat!(column!($w, $x, $y, "0" "2" "4" "6" "8" "10"), column!($v, $x, $y, "1" "3" "5" "7" "9" "11"))
    };
    ($w:literal, $x:literal, $y:literal, $s0:literal $s1:literal $s2:literal $s3:literal $s4:literal $s5:literal) => {
        concat!(
            "fmla v", $s0, ".4s, v", $w, ".4s, v24.s[", $x, "]\n", "fmla v", $s1, ".4s, v", $w, ".4s, v24.s[", $y, "]\n",
            "fmla v", $s2, ".4s, v", $w, ".4s, v25.s[", $x, "]\n", "fmla v", $s3, ".4s, v", $w, ".4s, v25.s[", $y, "]\n",
            "fmla v", $s4, ".4s, v", $w, ".4s, v26.s[", $x, "]\n", "fmla v", $s5, ".4s, v", $w, ".4s, v26.s[", $y, "]\n",
        )
    };
}

/// Multiplies a pair of values of each row, or the first of it alone, with a panel of four registers or of two.
macro_rules! pair {
    (four) => {
        concat!(pair!(four alone), "ld1 {{v27.4s-v30.4s}}, [{w}], #64\n", column!(four, "1", "3"))
    };
    (four alone) => {
        concat!(pair!(rows), "ld1 {{v27.4s-v30.4s}}, [{w}], #64\n", column!(four, "0", "2"))
    };
    (two) => {
        concat!(
            pair!(rows),
            "ld1 {{v27.4s-v30.4s}}, [{w}], #64\n",
            column!(two, "27" "28", "0", "2"),
            column!(two, "29" "30", "1", "3")
        )
    };
    (two alone) => {
        concat!(pair!(rows), "ld1 {{v27.4s-v28.4s}}, [{w}], #32\n", column!(two, "27" "28", "0", "2"))
    };
    (rows) => {
        "ld1 {{v24.4s-v26.4s}}, [{a}], #48\n"
    };
}

/// Eight values at a time, then pairs, then one.
macro_rules! run {
    ($width:tt, $a:ident, $k:ident, $panel:ident, $($operands:tt)*) => {
        asm!(
            "cbz {turns}, 3f",
            "2:",
            pair!($width),
            pair!($width),
            pair!($width),
            pair!($width),
            "subs {turns}, {turns}, #1",
            "b.ne 2b",
            "3:",
            "cbz {pairs}, 5f",
            "4:",
            pair!($width),
            "subs {pairs}, {pairs}, #1",
            "b.ne 4b",
            "5:",
            "cbz {odd}, 6f",
            pair!($width alone),
            "6:",
            a = inout(reg) $a => _, w = inout(reg) $panel => _, turns = inout(reg) $k / 8 => _,
            pairs = inout(reg) $k % 8 / 2 => _, odd = in(reg) $k % 2, $($operands)*
            out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _, out("v30") _,
            options(nostack, readonly),
        )
    };
}

/// Adds the products of `k` values of six rows that [`pack`] has laid together and a panel of two vectors to sums.
///
/// # Safety
/// So many values are there.
#[inline(always)]
pub(super) unsafe fn wide(a: *const f32, k: usize, panel: *const f32, sums: &mut [[Floats; 2]; ROWS]) {
    // SAFETY: the caller's promise.
    unsafe {
        run!(four, a, k, panel,
            inout("v0") sums[0][0][0], inout("v1") sums[0][0][1], inout("v2") sums[0][1][0], inout("v3") sums[0][1][1],
            inout("v4") sums[1][0][0], inout("v5") sums[1][0][1], inout("v6") sums[1][1][0], inout("v7") sums[1][1][1],
            inout("v8") sums[2][0][0], inout("v9") sums[2][0][1], inout("v10") sums[2][1][0], inout("v11") sums[2][1][1],
            inout("v12") sums[3][0][0], inout("v13") sums[3][0][1], inout("v14") sums[3][1][0], inout("v15") sums[3][1][1],
            inout("v16") sums[4][0][0], inout("v17") sums[4][0][1], inout("v18") sums[4][1][0], inout("v19") sums[4][1][1],
            inout("v20") sums[5][0][0], inout("v21") sums[5][0][1], inout("v22") sums[5][1][0], inout("v23") sums[5][1][1],
        );
    }
}

/// The same with a panel of one vector.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn narrow(a: *const f32, k: usize, panel: *const f32, sums: &mut [[Floats; 1]; ROWS]) {
    // SAFETY: the caller's promise.
    unsafe {
        run!(two, a, k, panel,
            inout("v0") sums[0][0][0], inout("v1") sums[0][0][1], inout("v2") sums[1][0][0], inout("v3") sums[1][0][1],
            inout("v4") sums[2][0][0], inout("v5") sums[2][0][1], inout("v6") sums[3][0][0], inout("v7") sums[3][0][1],
            inout("v8") sums[4][0][0], inout("v9") sums[4][0][1], inout("v10") sums[5][0][0], inout("v11") sums[5][0][1],
        );
    }
}
