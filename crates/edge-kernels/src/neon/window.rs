//! Depthwise convolution in float32, four positions of a row: one instruction loads a vector of a pixel and moves on to the next.
//!
//! Registers: two for the sums of each position from v0 on; what is read of the picture from v16 on, by turns; a row of the filter,
//! two for each tap, from v22 on.

use super::vectors::Floats;
use std::arch::asm;

/// Multiplies a vector of the next pixel for some positions: registers of the pixel; then of each one's sum, and of its tap.
macro_rules! pixel {
    ($x:literal $y:literal $(, $s:literal $t:literal * $f:literal $g:literal)*) => {
        concat!(
            "ld1 {{v", $x, ".4s, v", $y, ".4s}}, [{p}], {pixel}\n",
            $("fmla v", $s, ".4s, v", $x, ".4s, v", $f, ".4s\nfmla v", $t, ".4s, v", $y, ".4s, v", $g, ".4s\n",)*
        )
    };
}

/// Adds the products of `rows` rows of a window of K × K for four positions, `STRIDE` pixels apart. Pixels are `pixel` values apart,
/// rows `line`; the filter's rows follow each other. Of the pixels that the positions see in a row, some first and some last ones may
/// be `outside` of the picture. False where there is no such loop.
///
/// # Safety
/// All of that is there.
#[inline(always)]
pub(super) unsafe fn window<const K: usize, const STRIDE: usize>(
    first: *const f32,
    [pixel, line]: [usize; 2],
    outside: [usize; 2],
    filter: *const f32,
    rows: usize,
    sums: &mut [Floats; 4],
) -> bool {
    if rows == 0 {
        return true;
    }
    let first = first.wrapping_add(outside[0] * pixel);
    // From behind a row's last pixel to the next row's first.
    let back = line.wrapping_add((outside[0] + outside[1]) * pixel).wrapping_sub((3 * STRIDE + K) * pixel);
    macro_rules! run {
        ($($text:expr),* $(,)?) => {
            asm!(
                "2:",
                $($text,)*
                "add {p}, {p}, {back}",
                "subs {rows}, {rows}, #1",
                "b.ne 2b",
                p = inout(reg) first => _, f = inout(reg) filter => _, rows = inout(reg) rows => _, pixel = in(reg) 4 * pixel,
                back = in(reg) back.wrapping_mul(4),
                inout("v0") sums[0][0], inout("v1") sums[0][1], inout("v2") sums[1][0], inout("v3") sums[1][1],
                inout("v4") sums[2][0], inout("v5") sums[2][1], inout("v6") sums[3][0], inout("v7") sums[3][1],
                out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
                out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _, out("v30") _, out("v31") _,
                options(nostack, readonly),
            )
        };
    }
    macro_rules! three {
        () => {
            "ld1 {{v22.4s-v25.4s}}, [{f}], #64
             ld1 {{v26.4s-v27.4s}}, [{f}], #32"
        };
    }
    macro_rules! five {
        () => {
            "ld1 {{v22.4s-v25.4s}}, [{f}], #64
             ld1 {{v26.4s-v29.4s}}, [{f}], #64
             ld1 {{v30.4s-v31.4s}}, [{f}], #32"
        };
    }
    // Of stride 1: the pixels that a border may cut off, and those between.
    macro_rules! three_by_three {
        (first) => {
            concat!(
                pixel!("16" "17", "0" "1" * "22" "23"),
            )
        };
        (middle) => {
            concat!(
                pixel!("18" "19", "0" "1" * "24" "25", "2" "3" * "22" "23"),
                pixel!("20" "21", "0" "1" * "26" "27", "2" "3" * "24" "25", "4" "5" * "22" "23"),
                pixel!("16" "17", "2" "3" * "26" "27", "4" "5" * "24" "25", "6" "7" * "22" "23"),
                pixel!("18" "19", "4" "5" * "26" "27", "6" "7" * "24" "25"),
            )
        };
        (last) => {
            concat!(
                pixel!("20" "21", "6" "7" * "26" "27"),
            )
        };
    }
    // Of stride 1: the pixels that a border may cut off, and those between.
    macro_rules! five_by_five {
        (first) => {
            concat!(
                pixel!("16" "17", "0" "1" * "22" "23"),
                pixel!("18" "19", "0" "1" * "24" "25", "2" "3" * "22" "23"),
            )
        };
        (middle) => {
            concat!(
                pixel!("20" "21", "0" "1" * "26" "27", "2" "3" * "24" "25", "4" "5" * "22" "23"),
                pixel!("16" "17", "0" "1" * "28" "29", "2" "3" * "26" "27", "4" "5" * "24" "25", "6" "7" * "22" "23"),
                pixel!("18" "19", "0" "1" * "30" "31", "2" "3" * "28" "29", "4" "5" * "26" "27", "6" "7" * "24" "25"),
                pixel!("20" "21", "2" "3" * "30" "31", "4" "5" * "28" "29", "6" "7" * "26" "27"),
            )
        };
        (last) => {
            concat!(
                pixel!("16" "17", "4" "5" * "30" "31", "6" "7" * "28" "29"),
                pixel!("18" "19", "6" "7" * "30" "31"),
            )
        };
    }
    // SAFETY: the caller's promise.
    unsafe {
        match (K, STRIDE, outside) {
            (3, 1, [0, 0]) => run!(three!(), three_by_three!(first), three_by_three!(middle), three_by_three!(last)),
            (3, 1, [1, 0]) => run!(three!(), three_by_three!(middle), three_by_three!(last)),
            (3, 1, [0, 1]) => run!(three!(), three_by_three!(first), three_by_three!(middle)),
            (3, 2, [0, 0]) => run!(
                three!(),
                pixel!("16" "17", "0" "1" * "22" "23"),
                pixel!("18" "19", "0" "1" * "24" "25"),
                pixel!("20" "21", "0" "1" * "26" "27", "2" "3" * "22" "23"),
                pixel!("16" "17", "2" "3" * "24" "25"),
                pixel!("18" "19", "2" "3" * "26" "27", "4" "5" * "22" "23"),
                pixel!("20" "21", "4" "5" * "24" "25"),
                pixel!("16" "17", "4" "5" * "26" "27", "6" "7" * "22" "23"),
                pixel!("18" "19", "6" "7" * "24" "25"),
                pixel!("20" "21", "6" "7" * "26" "27"),
            ),
            (5, 1, [0, 0]) => run!(five!(), five_by_five!(first), five_by_five!(middle), five_by_five!(last)),
            (5, 1, [2, 0]) => run!(five!(), five_by_five!(middle), five_by_five!(last)),
            (5, 1, [0, 2]) => run!(five!(), five_by_five!(first), five_by_five!(middle)),
            (5, 2, [0, 0]) => run!(
                five!(),
                pixel!("16" "17", "0" "1" * "22" "23"),
                pixel!("18" "19", "0" "1" * "24" "25"),
                pixel!("20" "21", "0" "1" * "26" "27", "2" "3" * "22" "23"),
                pixel!("16" "17", "0" "1" * "28" "29", "2" "3" * "24" "25"),
                pixel!("18" "19", "0" "1" * "30" "31", "2" "3" * "26" "27", "4" "5" * "22" "23"),
                pixel!("20" "21", "2" "3" * "28" "29", "4" "5" * "24" "25"),
                pixel!("16" "17", "2" "3" * "30" "31", "4" "5" * "26" "27", "6" "7" * "22" "23"),
                pixel!("18" "19", "4" "5" * "28" "29", "6" "7" * "24" "25"),
                pixel!("20" "21", "4" "5" * "30" "31", "6" "7" * "26" "27"),
                pixel!("16" "17", "6" "7" * "28" "29"),
                pixel!("18" "19", "6" "7" * "30" "31"),
            ),
            _ => return false,
        }
    }
    true
}
