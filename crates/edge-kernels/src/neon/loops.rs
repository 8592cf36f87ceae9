//! The loops that nearly all time goes into, instruction by instruction.
//!
//! The compiler keeps the sums of a full tile in registers, too, but moves them about between single instructions of inline assembly,
//! and orders instructions for processors that order them themselves. Cortex-A53 does not: beside each multiplication it can
//! start one load of 64 bits, so there vectors come in halves, each beside a multiplication and long before it is used.
//!
//! Registers: sums from v0 on, row by row; then what is read of A; W last. Addresses of A are those of the ends of rows, and `at`
//! counts up to zero.

use std::arch::aarch64::*;
use std::arch::asm;

/// Sums of six rows and two vectors of two registers.
type Six<T> = [[[T; 2]; 2]; 6];

/// Assembly on the sums of six rows.
macro_rules! six {
    ($sums:ident, $a:ident, [$($text:expr),* $(,)?], $($operands:tt)*) => {
        asm!(
            $($text,)*
            inout("v0") $sums[0][0][0], inout("v1") $sums[0][0][1], inout("v2") $sums[0][1][0], inout("v3") $sums[0][1][1],
            inout("v4") $sums[1][0][0], inout("v5") $sums[1][0][1], inout("v6") $sums[1][1][0], inout("v7") $sums[1][1][1],
            inout("v8") $sums[2][0][0], inout("v9") $sums[2][0][1], inout("v10") $sums[2][1][0], inout("v11") $sums[2][1][1],
            inout("v12") $sums[3][0][0], inout("v13") $sums[3][0][1], inout("v14") $sums[3][1][0], inout("v15") $sums[3][1][1],
            inout("v16") $sums[4][0][0], inout("v17") $sums[4][0][1], inout("v18") $sums[4][1][0], inout("v19") $sums[4][1][1],
            inout("v20") $sums[5][0][0], inout("v21") $sums[5][0][1], inout("v22") $sums[5][1][0], inout("v23") $sums[5][1][1],
            out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            a0 = in(reg) $a[0], a1 = in(reg) $a[1], a2 = in(reg) $a[2], a3 = in(reg) $a[3], a4 = in(reg) $a[4],
            a5 = in(reg) $a[5], $($operands)* options(nostack, readonly),
        )
    };
}

/// Multiplies a register of W with a lane of six rows; `$sums` are the registers of its sums.
macro_rules! column {
    ($op:literal, $w:literal, $of:literal, $lane:literal, $s0:literal $s1:literal $s2:literal $s3:literal $s4:literal $s5:literal) => {
        concat!(
            $op, " v", $s0, ".4s, v", $w, $of, ", v24.", $lane, "\n", $op, " v", $s1, ".4s, v", $w, $of, ", v25.",
            $lane, "\n", $op, " v", $s2, ".4s, v", $w, $of, ", v26.", $lane, "\n", $op, " v", $s3, ".4s, v", $w, $of,
            ", v27.", $lane, "\n", $op, " v", $s4, ".4s, v", $w, $of, ", v28.", $lane, "\n", $op, " v", $s5, ".4s, v",
            $w, $of, ", v29.", $lane, "\n",
        )
    };
}

/// Reads a register of each of six rows.
macro_rules! rows {
    () => {
        "ldr q24, [{a0}, {at}]
         ldr q25, [{a1}, {at}]
         ldr q26, [{a2}, {at}]
         ldr q27, [{a3}, {at}]
         ldr q28, [{a4}, {at}]
         ldr q29, [{a5}, {at}]"
    };
}

/// Multiplies a lane of six rows with four registers of W, of which pairs lie at `$first` and `$second`.
macro_rules! lane {
    ($op:literal, $of:literal, $lane:literal, $first:literal, $second:literal) => {
        concat!(
            "ldp q30, q31, [{w}, #", $first, "]\n",
            column!($op, "30", $of, $lane, "0" "4" "8" "12" "16" "20"),
            column!($op, "31", $of, $lane, "1" "5" "9" "13" "17" "21"),
            "ldp q30, q31, [{w}, #", $second, "]\n",
            column!($op, "30", $of, $lane, "2" "6" "10" "14" "18" "22"),
            column!($op, "31", $of, $lane, "3" "7" "11" "15" "19" "23"),
        )
    };
}

/// Adds the products of `16 · count` bytes of six rows, whose ends `a` are, with four columns of fours in each register of W.
///
/// # Safety
/// The machine has `sdot`; so many values are there; `count` is not zero.
#[inline(always)]
pub(super) unsafe fn dot(a: [*const u8; 6], count: usize, panel: *const i8, sums: &mut Six<int32x4_t>) -> *const i8 {
    let mut panel = panel;
    // SAFETY: the caller's promise.
    unsafe {
        six!(sums, a, [
            "2:",
            "movi v30.16b, #128",
            rows!(),
            "eor v24.16b, v24.16b, v30.16b",
            "eor v25.16b, v25.16b, v30.16b",
            "eor v26.16b, v26.16b, v30.16b",
            "eor v27.16b, v27.16b, v30.16b",
            "eor v28.16b, v28.16b, v30.16b",
            "eor v29.16b, v29.16b, v30.16b",
            lane!("sdot", ".16b", "4b[0]", "0", "32"),
            lane!("sdot", ".16b", "4b[1]", "64", "96"),
            lane!("sdot", ".16b", "4b[2]", "128", "160"),
            lane!("sdot", ".16b", "4b[3]", "192", "224"),
            "add {w}, {w}, #256",
            "adds {at}, {at}, #16",
            "b.ne 2b",
        ], w = inout(reg) panel, at = inout(reg) -16 * count as isize => _,);
    }
    panel
}

/// Adds the products of `16 · count` bytes of six rows, whose ends `a` are, with two columns of eights in each register of W, to
/// sums of pairs of rows: of two columns each, eight registers for each pair.
///
/// # Safety
/// The machine has `usmmla`; so many values are there; `count` is not zero.
#[inline(always)]
pub(super) unsafe fn i8mm(a: [*const u8; 6], count: usize, panel: *const i8, sums: &mut Six<int32x4_t>) -> *const i8 {
    let mut panel = panel;
    macro_rules! columns {
        ($x0:literal $x1:literal $x2:literal, $first:literal, $s0:literal $s1:literal $s2:literal $t0:literal $t1:literal $t2:literal) => {
            concat!(
                "ldp q28, q31, [{w}, #",
                $first,
                "]\n",
                "usmmla v",
                $s0,
                ".4s, v",
                $x0,
                ".16b, v28.16b\n",
                "usmmla v",
                $s1,
                ".4s, v",
                $x1,
                ".16b, v28.16b\n",
                "usmmla v",
                $s2,
                ".4s, v",
                $x2,
                ".16b, v28.16b\n",
                "usmmla v",
                $t0,
                ".4s, v",
                $x0,
                ".16b, v31.16b\n",
                "usmmla v",
                $t1,
                ".4s, v",
                $x1,
                ".16b, v31.16b\n",
                "usmmla v",
                $t2,
                ".4s, v",
                $x2,
                ".16b, v31.16b\n",
            )
        };
    }
    // SAFETY: the caller's promise.
    unsafe {
        six!(sums, a, [
            "2:",
            rows!(),
            "zip1 v30.2d, v24.2d, v25.2d",
            "zip2 v25.2d, v24.2d, v25.2d",
            "zip1 v24.2d, v26.2d, v27.2d",
            "zip2 v27.2d, v26.2d, v27.2d",
            "zip1 v26.2d, v28.2d, v29.2d",
            "zip2 v29.2d, v28.2d, v29.2d",
            columns!("30" "24" "26", "0", "0" "8" "16" "1" "9" "17"),
            columns!("30" "24" "26", "32", "2" "10" "18" "3" "11" "19"),
            columns!("30" "24" "26", "64", "4" "12" "20" "5" "13" "21"),
            columns!("30" "24" "26", "96", "6" "14" "22" "7" "15" "23"),
            columns!("25" "27" "29", "128", "0" "8" "16" "1" "9" "17"),
            columns!("25" "27" "29", "160", "2" "10" "18" "3" "11" "19"),
            columns!("25" "27" "29", "192", "4" "12" "20" "5" "13" "21"),
            columns!("25" "27" "29", "224", "6" "14" "22" "7" "15" "23"),
            "add {w}, {w}, #256",
            "adds {at}, {at}, #16",
            "b.ne 2b",
        ], w = inout(reg) panel, at = inout(reg) -16 * count as isize => _,);
    }
    panel
}

/// Adds the products of `4 · count` values of six rows, whose ends `a` are.
///
/// # Safety
/// So many values are there; `count` is not zero.
#[inline(always)]
pub(super) unsafe fn floats(
    a: [*const f32; 6],
    count: usize,
    panel: *const f32,
    sums: &mut Six<float32x4_t>,
) -> *const f32 {
    let mut panel = panel;
    // SAFETY: the caller's promise.
    unsafe {
        six!(sums, a, [
            "2:",
            rows!(),
            lane!("fmla", ".4s", "s[0]", "0", "32"),
            lane!("fmla", ".4s", "s[1]", "64", "96"),
            lane!("fmla", ".4s", "s[2]", "128", "160"),
            lane!("fmla", ".4s", "s[3]", "192", "224"),
            "add {w}, {w}, #256",
            "adds {at}, {at}, #16",
            "b.ne 2b",
        ], w = inout(reg) panel, at = inout(reg) -16 * count as isize => _,);
    }
    panel
}

/// The same for processors that start instructions in their order: registers of W come in halves, the second through a general
/// register, while the one before is multiplied; so do the third and fourth value of each row.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn floats_in_order(
    a: [*const f32; 6],
    count: usize,
    panel: *const f32,
    sums: &mut Six<float32x4_t>,
) -> *const f32 {
    let mut panel = panel;
    // Multiplies one register while the next is loaded from `$low` and `$high`; something of A may be loaded and put in its place.
    macro_rules! vector {
        ($w:literal $next:literal, $low:literal $high:literal, $lane:literal, $s0:literal $s1:literal $s2:literal $s3:literal $s4:literal
         $s5:literal $(, $load:literal, $early:literal, $late:literal)?) => {
            vector!(@ concat!("ldr d", $next, ", [{w}, #", $low, "]"), concat!("ldr {half}, [{w}, #", $high, "]"),
                concat!("mov v", $next, ".d[1], {half}"), $w, $lane, $s0 $s1 $s2 $s3 $s4 $s5, concat!($($load)?), concat!($($early)?),
                concat!($($late)?))
        };
        (@ $b0:expr, $b1:expr, $b4:expr, $w:literal, $lane:literal, $s0:literal $s1:literal $s2:literal $s3:literal $s4:literal
         $s5:literal, $b2:expr, $b3:expr, $b5:expr) => {
            concat!(
                "fmla v", $s0, ".4s, v", $w, ".4s, v24.s[", $lane, "]\n", $b0, "\n",
                "fmla v", $s1, ".4s, v", $w, ".4s, v25.s[", $lane, "]\n", $b1, "\n",
                "fmla v", $s2, ".4s, v", $w, ".4s, v26.s[", $lane, "]\n", $b2, "\n",
                "fmla v", $s3, ".4s, v", $w, ".4s, v27.s[", $lane, "]\n", $b3, "\n",
                "fmla v", $s4, ".4s, v", $w, ".4s, v28.s[", $lane, "]\n", $b4, "\n",
                "fmla v", $s5, ".4s, v", $w, ".4s, v29.s[", $lane, "]\n", $b5, "\n",
            )
        };
    }
    // SAFETY: the caller's promise.
    unsafe {
        six!(sums, a, [
            "2:",
            "ldr q30, [{w}]",
            "ldr d24, [{a0}, {at}]",
            "ldr d25, [{a1}, {at}]",
            "ldr d26, [{a2}, {at}]",
            "ldr d27, [{a3}, {at}]",
            "ldr d28, [{a4}, {at}]",
            "ldr d29, [{a5}, {at}]",
            // From here on the third values of rows.
            "add {at}, {at}, #8",
            vector!("30" "31", "16" "24", "0", "0" "4" "8" "12" "16" "20", "ldr {x}, [{a0}, {at}]", "", ""),
            vector!("31" "30", "32" "40", "0", "1" "5" "9" "13" "17" "21", "ldr {y}, [{a1}, {at}]", "mov v24.d[1], {x}", ""),
            vector!("30" "31", "48" "56", "0", "2" "6" "10" "14" "18" "22", "ldr {x}, [{a2}, {at}]", "mov v25.d[1], {y}", ""),
            vector!("31" "30", "64" "72", "0", "3" "7" "11" "15" "19" "23", "ldr {y}, [{a3}, {at}]", "mov v26.d[1], {x}", ""),
            vector!("30" "31", "80" "88", "1", "0" "4" "8" "12" "16" "20", "ldr {x}, [{a4}, {at}]", "", "mov v27.d[1], {y}"),
            vector!("31" "30", "96" "104", "1", "1" "5" "9" "13" "17" "21", "ldr {y}, [{a5}, {at}]", "", "mov v28.d[1], {x}"),
            vector!("30" "31", "112" "120", "1", "2" "6" "10" "14" "18" "22", "", "", "mov v29.d[1], {y}"),
            vector!("31" "30", "128" "136", "1", "3" "7" "11" "15" "19" "23"),
            vector!("30" "31", "144" "152", "2", "0" "4" "8" "12" "16" "20"),
            vector!("31" "30", "160" "168", "2", "1" "5" "9" "13" "17" "21"),
            vector!("30" "31", "176" "184", "2", "2" "6" "10" "14" "18" "22"),
            vector!("31" "30", "192" "200", "2", "3" "7" "11" "15" "19" "23"),
            vector!("30" "31", "208" "216", "3", "0" "4" "8" "12" "16" "20"),
            vector!("31" "30", "224" "232", "3", "1" "5" "9" "13" "17" "21"),
            vector!("30" "31", "240" "248", "3", "2" "6" "10" "14" "18" "22"),
            column!("fmla", "31", ".4s", "s[3]", "3" "7" "11" "15" "19" "23"),
            "add {w}, {w}, #256",
            "adds {at}, {at}, #8",
            "b.ne 2b",
        ], w = inout(reg) panel, at = inout(reg) -16 * count as isize => _, half = out(reg) _, x = out(reg) _, y = out(reg) _,);
    }
    panel
}

/// Multiplies two registers of W with a lane of six rows, in float16. A lane's register is one of the first sixteen.
macro_rules! halves {
    ($w0:literal $w1:literal, $at:literal, $lane:literal) => {
        concat!(
            "ldp q", $w0, ", q", $w1, ", [{w}, #", $at, "]\n",
            halves!(@ $w0, $lane, "8" "10" "12" "14" "16" "18"),
            halves!(@ $w1, $lane, "9" "11" "13" "15" "17" "19"),
        )
    };
    (@ $w:literal, $lane:literal, $s0:literal $s1:literal $s2:literal $s3:literal $s4:literal $s5:literal) => {
        concat!(
            "fmla v", $s0, ".8h, v", $w, ".8h, v0.h[", $lane, "]\n",
            "fmla v", $s1, ".8h, v", $w, ".8h, v1.h[", $lane, "]\n",
            "fmla v", $s2, ".8h, v", $w, ".8h, v2.h[", $lane, "]\n",
            "fmla v", $s3, ".8h, v", $w, ".8h, v3.h[", $lane, "]\n",
            "fmla v", $s4, ".8h, v", $w, ".8h, v4.h[", $lane, "]\n",
            "fmla v", $s5, ".8h, v", $w, ".8h, v5.h[", $lane, "]\n",
        )
    };
}

/// Adds the products of `8 · count` float16 values of six rows, which lie by eights beside each other, with two vectors of W.
///
/// # Safety
/// The machine multiplies float16 numbers; so many values are there; `count` is not zero.
#[inline(always)]
pub(super) unsafe fn halves(a: *const u16, count: usize, panel: *const u16, sums: &mut [[uint16x8_t; 2]; 6]) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "2:",
            "ldp q0, q1, [{a}]",
            "ldp q2, q3, [{a}, #32]",
            "ldp q4, q5, [{a}, #64]",
            halves!("20" "21", "0", "0"),
            halves!("22" "23", "32", "1"),
            halves!("20" "21", "64", "2"),
            halves!("22" "23", "96", "3"),
            halves!("20" "21", "128", "4"),
            halves!("22" "23", "160", "5"),
            halves!("20" "21", "192", "6"),
            halves!("22" "23", "224", "7"),
            "add {a}, {a}, #96",
            "add {w}, {w}, #256",
            "subs {turns}, {turns}, #1",
            "b.ne 2b",
            inout("v8") sums[0][0], inout("v9") sums[0][1], inout("v10") sums[1][0], inout("v11") sums[1][1],
            inout("v12") sums[2][0], inout("v13") sums[2][1], inout("v14") sums[3][0], inout("v15") sums[3][1],
            inout("v16") sums[4][0], inout("v17") sums[4][1], inout("v18") sums[5][0], inout("v19") sums[5][1],
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            a = inout(reg) a => _, w = inout(reg) panel => _, turns = inout(reg) count => _,
            options(nostack, readonly),
        );
    }
}

/// Four rows, a register of W of two rows of pairs in four columns: two products in 16 bits, one more of two, and their addition. The
/// four rows take turns, so that none waits for what it made before.
macro_rules! pairs {
    ($w:literal, $x:literal $y:literal $z:literal $u:literal, $s0:literal $s1:literal $s2:literal $s3:literal, $b0:expr, $b1:expr,
     $b2:expr) => {
        concat!(
            "smull v24.8h, v",
            $w,
            ".8b, v",
            $x,
            ".8b\n",
            $b0,
            "\n",
            "smull v25.8h, v",
            $w,
            ".8b, v",
            $y,
            ".8b\n",
            $b1,
            "\n",
            "smull v26.8h, v",
            $w,
            ".8b, v",
            $z,
            ".8b\n",
            "smull v27.8h, v",
            $w,
            ".8b, v",
            $u,
            ".8b\n",
            "smlal2 v24.8h, v",
            $w,
            ".16b, v",
            $x,
            ".16b\n",
            "smlal2 v25.8h, v",
            $w,
            ".16b, v",
            $y,
            ".16b\n",
            $b2,
            "\n",
            "smlal2 v26.8h, v",
            $w,
            ".16b, v",
            $z,
            ".16b\n",
            "smlal2 v27.8h, v",
            $w,
            ".16b, v",
            $u,
            ".16b\n",
            "sadalp v",
            $s0,
            ".4s, v24.8h\n",
            "sadalp v",
            $s1,
            ".4s, v25.8h\n",
            "sadalp v",
            $s2,
            ".4s, v26.8h\n",
            "sadalp v",
            $s3,
            ".4s, v27.8h\n",
        )
    };
}

/// The beginning of a turn of [`twos`]: eight bytes of each row, 128 taken off.
macro_rules! eights {
    () => {
        concat!(
            "2:\n",
            "movi v28.16b, #128\n",
            "ldr d16, [{a0}, {at}]\n",
            "ldr d17, [{a1}, {at}]\n",
            "ldr d18, [{a2}, {at}]\n",
            "ldr d19, [{a3}, {at}]\n",
            "eor v16.8b, v16.8b, v28.8b\n",
            "eor v17.8b, v17.8b, v28.8b\n",
            "eor v18.8b, v18.8b, v28.8b\n",
            "eor v19.8b, v19.8b, v28.8b\n",
        )
    };
}

/// Four bytes of each row become two rows of pairs, four times over.
macro_rules! spread {
    ($index:literal) => {
        concat!(
            "tbl v20.16b, {{v16.16b}}, v",
            $index,
            ".16b\n",
            "tbl v21.16b, {{v17.16b}}, v",
            $index,
            ".16b\n",
            "tbl v22.16b, {{v18.16b}}, v",
            $index,
            ".16b\n",
            "tbl v23.16b, {{v19.16b}}, v",
            $index,
            ".16b\n",
        )
    };
}

/// Adds the products of `8 · count` bytes of four rows, whose ends `a` are, with two rows of pairs in four columns in each register of
/// W; `spread` says where those find their bytes. `IN_ORDER` is for processors that start instructions in their order.
///
/// # Safety
/// So many values are there; no value of W is -128; `count` is not zero.
#[inline(always)]
pub(super) unsafe fn twos<const IN_ORDER: bool>(
    a: [*const u8; 4],
    count: usize,
    panel: *const i8,
    spread: [uint8x16_t; 2],
    sums: &mut [[[int32x4_t; 2]; 2]; 4],
) -> *const i8 {
    let mut panel = panel;
    macro_rules! four {
        ([$($text:expr),* $(,)?], $($operands:tt)*) => {
            asm!(
                $($text,)*
                inout("v0") sums[0][0][0], inout("v1") sums[0][0][1], inout("v2") sums[0][1][0], inout("v3") sums[0][1][1],
                inout("v4") sums[1][0][0], inout("v5") sums[1][0][1], inout("v6") sums[1][1][0], inout("v7") sums[1][1][1],
                inout("v8") sums[2][0][0], inout("v9") sums[2][0][1], inout("v10") sums[2][1][0], inout("v11") sums[2][1][1],
                inout("v12") sums[3][0][0], inout("v13") sums[3][0][1], inout("v14") sums[3][1][0], inout("v15") sums[3][1][1],
                out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
                out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _, in("v30") spread[0],
                in("v31") spread[1], a0 = in(reg) a[0], a1 = in(reg) a[1], a2 = in(reg) a[2], a3 = in(reg) a[3],
                w = inout(reg) panel, at = inout(reg) -8 * count as isize => _, $($operands)* options(nostack, readonly),
            )
        };
    }
    macro_rules! plain {
        ($first:literal, $second:literal) => {
            concat!(
                "ldp q28, q29, [{w}, #", $first, "]\n",
                pairs!("28", "20" "21" "22" "23", "0" "4" "8" "12", "", "", ""),
                pairs!("29", "20" "21" "22" "23", "1" "5" "9" "13", "", "", ""),
                "ldp q28, q29, [{w}, #", $second, "]\n",
                pairs!("28", "20" "21" "22" "23", "2" "6" "10" "14", "", "", ""),
                pairs!("29", "20" "21" "22" "23", "3" "7" "11" "15", "", "", ""),
            )
        };
    }
    // One register while the next is loaded in halves.
    macro_rules! halves {
        ($w:literal $next:literal, $low:literal $high:literal, $s0:literal $s1:literal $s2:literal $s3:literal) => {
            pairs!($w, "20" "21" "22" "23", $s0 $s1 $s2 $s3, concat!("ldr d", $next, ", [{w}, #", $low, "]"),
                concat!("ldr {half}, [{w}, #", $high, "]"), concat!("mov v", $next, ".d[1], {half}"))
        };
    }
    // SAFETY: the caller's promise.
    unsafe {
        if IN_ORDER {
            four!([
                eights!(),
                "ldr q28, [{w}]",
                spread!("30"),
                halves!("28" "29", "16" "24", "0" "4" "8" "12"),
                halves!("29" "28", "32" "40", "1" "5" "9" "13"),
                halves!("28" "29", "48" "56", "2" "6" "10" "14"),
                halves!("29" "28", "64" "72", "3" "7" "11" "15"),
                spread!("31"),
                halves!("28" "29", "80" "88", "0" "4" "8" "12"),
                halves!("29" "28", "96" "104", "1" "5" "9" "13"),
                halves!("28" "29", "112" "120", "2" "6" "10" "14"),
                pairs!("29", "20" "21" "22" "23", "3" "7" "11" "15", "", "", ""),
                "add {w}, {w}, #128",
                "adds {at}, {at}, #8",
                "b.ne 2b",
            ], half = out(reg) _,);
        } else {
            four!([
                eights!(),
                spread!("30"),
                plain!("0", "32"),
                spread!("31"),
                plain!("64", "96"),
                "add {w}, {w}, #128",
                "adds {at}, {at}, #8",
                "b.ne 2b",
            ],);
        }
    }
    panel
}
