//! Decode with `sdot` over units at a stride: 8 rows (or pairs of rows) of symmetric
//! weights of 4 bits with one row of x, two groups at a time.
//!
//! By name, as every register is taken and the compiler, with one to spare for its
//! own order, would spill. Against [`super::tile`]'s way with intrinsics it widens the
//! scales of two groups from one load, and one pointer serves all units, as a load may
//! step by a register. That is 22.5 instructions for the 128 weights of a group, the
//! least there can be with `sdot`: its load, 8 to unpack, 8 products, the start of the
//! sum, and 4.5 for the scales.
//!
//! | registers | |
//! |---|---|
//! | v0 to v5 | quants; low nibbles; the sum, and its products with scales |
//! | v6, v7 | the mask of the low nibbles; the scales of x |
//! | v8 to v15 | the group's activations: of even elements, then of odd ones |
//! | v16 to v23 | the totals of the 8 units |
//! | v24 to v31 | their scales in f16, of two groups |

use std::arch::aarch64::float32x4_t;
use std::arch::asm;

use super::encode::RECORD;
use super::group::GROUP;
use super::tile::Unit;

/// Bytes of a group's quants.
const GROUP_BYTES: usize = 64;
/// Units at a time.
pub(super) const UNITS: usize = 8;

/// Loads a group's activations and scales from `$at` on in its record.
macro_rules! activations {
    ($at:literal) => {
        concat!(
            "ldp q8, q9, [{x}, #",
            $at,
            "]\n",
            "ldp q10, q11, [{x}, #",
            $at,
            " + 32]\n",
            "ldp q12, q13, [{x}, #",
            $at,
            " + 64]\n",
            "ldp q14, q15, [{x}, #",
            $at,
            " + 96]\n",
            "ldr q7, [{x}, #",
            $at,
            " + 128]\n",
        )
    };
}

/// A group of a unit. `$load` reads its scales, unless the group before it has;
/// `$widen` widens them to v4.
macro_rules! unit {
    ($at:literal, $total:literal, $load:expr, $widen:expr) => {
        concat!(
            "ld4 {{v0.4s, v1.4s, v2.4s, v3.4s}}, [{q}], {quants}\n",
            // Minus eight times the sums of x.
            "ldr q5, [{x}, #",
            $at,
            " + 144]\n",
            $load,
            "and v4.16b, v0.16b, v6.16b\n",
            "ushr v0.16b, v0.16b, #4\n",
            "sdot v5.4s, v4.16b, v8.16b\n",
            "and v4.16b, v1.16b, v6.16b\n",
            "ushr v1.16b, v1.16b, #4\n",
            "sdot v5.4s, v0.16b, v12.16b\n",
            "and v0.16b, v2.16b, v6.16b\n",
            "sdot v5.4s, v4.16b, v9.16b\n",
            "ushr v2.16b, v2.16b, #4\n",
            "sdot v5.4s, v1.16b, v13.16b\n",
            "and v1.16b, v3.16b, v6.16b\n",
            "sdot v5.4s, v0.16b, v10.16b\n",
            "ushr v3.16b, v3.16b, #4\n",
            "sdot v5.4s, v2.16b, v14.16b\n",
            $widen,
            "sdot v5.4s, v1.16b, v11.16b\n",
            "fmul v4.4s, v4.4s, v7.4s\n",
            "sdot v5.4s, v3.16b, v15.16b\n",
            "scvtf v5.4s, v5.4s\n",
            "fmla ",
            $total,
            ".4s, v5.4s, v4.4s\n",
        )
    };
}

/// The first of two groups.
macro_rules! first {
    ($total:literal, $scales:literal) => {
        unit!(
            "0",
            $total,
            concat!("ld1 {{", $scales, ".8h}}, [{s}], {scales}\n"),
            concat!("fcvtl v4.4s, ", $scales, ".4h\n")
        )
    };
}

/// The second of two groups.
macro_rules! second {
    ($total:literal, $scales:literal) => {
        unit!(
            "160",
            $total,
            "",
            concat!("fcvtl2 v4.4s, ", $scales, ".8h\n")
        )
    };
}

/// A group by itself.
macro_rules! single {
    ($total:literal) => {
        unit!(
            "0",
            $total,
            "ld1 {{v24.4h}}, [{s}], {scales}\n",
            "fcvtl v4.4s, v24.4h\n"
        )
    };
}

/// Runs the lines with the registers as above. `q` and `s` step by a register from unit
/// to unit, and by `q_on` and `s_on` from the last unit to the first one's next group.
macro_rules! run {
    (
        $totals:ident, $unit:ident, $x:ident, $strides:ident, $groups:literal,
        [$($operand:tt)*], $($line:expr,)*
    ) => {
        asm!(
            "movi v6.16b, #15",
            $($line,)*
            $($operand)*
            q = inout(reg) $unit.quants,
            s = inout(reg) $unit.scales,
            x = inout(reg) *$x,
            quants = in(reg) $strides[0],
            scales = in(reg) $strides[1],
            q_on = in(reg) GROUP_BYTES.wrapping_sub(UNITS * $strides[0]),
            s_on = in(reg) ($groups * GROUP * 2usize).wrapping_sub(UNITS * $strides[1]),
            inout("v16") $totals[0],
            inout("v17") $totals[1],
            inout("v18") $totals[2],
            inout("v19") $totals[3],
            inout("v20") $totals[4],
            inout("v21") $totals[5],
            inout("v22") $totals[6],
            inout("v23") $totals[7],
            out("v0") _, out("v1") _, out("v2") _, out("v3") _,
            out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _,
            out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            out("v24") _, out("v25") _, out("v26") _, out("v27") _,
            out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            options(nostack, readonly),
        )
    };
}

/// Adds the products of `count` groups of [`UNITS`] units to `totals`, see
/// [`super::group::Group::strided`].
///
/// # Safety
/// dotprod; so many groups are left in x and in the units, which lie `strides` apart.
#[inline(always)]
pub(super) unsafe fn groups(
    count: usize,
    unit: &mut Unit,
    strides: [usize; 2],
    x: &mut *const u8,
    totals: &mut [float32x4_t; UNITS],
) {
    const { assert!(RECORD == 160) };
    let pairs = count / 2;
    // SAFETY: dotprod, and what is read, by the contract; the registers are named.
    unsafe {
        if pairs > 0 {
            run!(
                totals, unit, x, strides, 2,
                [pairs = inout(reg) pairs => _,],
                "2:",
                activations!("0"),
                first!("v16", "v24"),
                first!("v17", "v25"),
                first!("v18", "v26"),
                first!("v19", "v27"),
                first!("v20", "v28"),
                first!("v21", "v29"),
                first!("v22", "v30"),
                first!("v23", "v31"),
                "add {q}, {q}, {q_on}",
                activations!("160"),
                second!("v16", "v24"),
                second!("v17", "v25"),
                second!("v18", "v26"),
                second!("v19", "v27"),
                second!("v20", "v28"),
                second!("v21", "v29"),
                second!("v22", "v30"),
                second!("v23", "v31"),
                "add {q}, {q}, {q_on}",
                "add {s}, {s}, {s_on}",
                "add {x}, {x}, #320",
                "subs {pairs}, {pairs}, #1",
                "b.ne 2b",
            );
        }
        if !count.is_multiple_of(2) {
            run!(
                totals,
                unit,
                x,
                strides,
                1,
                [],
                activations!("0"),
                single!("v16"),
                single!("v17"),
                single!("v18"),
                single!("v19"),
                single!("v20"),
                single!("v21"),
                single!("v22"),
                single!("v23"),
                "add {q}, {q}, {q_on}",
                "add {s}, {s}, {s_on}",
                "add {x}, {x}, #160",
            );
        }
    }
}
