//! Tiles with `smmla` (Cortex-A78AE and later, Neoverse V1 and later): an
//! instruction multiplies two rows of W with two rows of x, eight values each.
//!
//! A register of x holds eight values of a row and eight of the next, so the rows
//! are encoded in pairs. A lane of a total is a row of W and a row of x.

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

use super::neon::{self, ROWS};
use super::{Params, Tile};
use crate::kernels::blocks::BLOCK;
use crate::kernels::int8::Job;
use crate::kernels::int8::encode::{TILE, TILE_BLOCK};
use crate::kernels::int8::tile::{PACKED, SYMMETRIC};
use crate::kernels::linear::Output;

/// # Safety
/// i8mm; otherwise as for [`super::products`].
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(in crate::kernels::int8) unsafe fn smmla(job: &Job<'_>, rows: Range<usize>, tiles: usize) {
    // SAFETY: this function has the features; the rest by the contract.
    unsafe { super::products::<Smmla, ROWS>(job, rows, tiles) }
}

struct Smmla;

/// `sum + w xᵀ` of two rows and two rows. (The intrinsic is not stable yet.)
///
/// # Safety
/// i8mm.
#[inline(always)]
unsafe fn multiply(mut sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: i8mm by the contract; only the named registers are touched.
    unsafe {
        asm!(
            "smmla {sum:v}.4s, {w:v}.16b, {x:v}.16b",
            sum = inlateout(vreg) sum,
            w = in(vreg) w,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Two rows' quants in the order of a pair of rows of x: eight even elements of
/// each, the other even ones, then the odd ones.
///
/// # Safety
/// NEON; 16 readable bytes at both.
#[inline(always)]
unsafe fn pair(a: *const u8, b: *const u8) -> [int8x16_t; 4] {
    // SAFETY: by the contract.
    unsafe {
        let a = vreinterpretq_u64_u8(vld1q_u8(a));
        let b = vreinterpretq_u64_u8(vld1q_u8(b));
        let first = vreinterpretq_u8_u64(vzip1q_u64(a, b));
        let second = vreinterpretq_u8_u64(vzip2q_u64(a, b));
        let low = vdupq_n_u8(15);
        [
            vreinterpretq_s8_u8(vandq_u8(first, low)),
            vreinterpretq_s8_u8(vandq_u8(second, low)),
            vreinterpretq_s8_u8(vshrq_n_u8::<4>(first)),
            vreinterpretq_s8_u8(vshrq_n_u8::<4>(second)),
        ]
    }
}

// SAFETY: used only beneath the entry above.
unsafe impl Tile<ROWS> for Smmla {
    #[inline(always)]
    unsafe fn products<const F: u8>(
        quants: [*const u8; ROWS],
        params: &[Params<ROWS>],
        x: *const u8,
        y: Output,
    ) {
        // In two halves: more totals would not stay in the registers.
        // SAFETY: features and places by the contract.
        unsafe {
            half::<F>(quants, params, x, 0, y);
            half::<F>(quants, params, x, 1, y.at(TILE / 2, 0));
        }
    }

    #[inline(always)]
    unsafe fn scales(rows: [&[u16]; ROWS], params: &mut [Params<ROWS>]) {
        // SAFETY: NEON by the contract.
        unsafe { neon::scales(rows, params) }
    }
}

/// Half `index` of the rows of x.
///
/// # Safety
/// As for [`Tile::products`].
#[inline(always)]
unsafe fn half<const F: u8>(
    mut quants: [*const u8; ROWS],
    params: &[Params<ROWS>],
    mut x: *const u8,
    index: usize,
    y: Output,
) {
    // SAFETY: features and places by the contract.
    unsafe {
        let to_scales = TILE * BLOCK - index * (TILE / 2) * (BLOCK - 4);
        x = x.add(index * TILE / 2 * BLOCK);
        // Of each pair of rows of x: two rows of W, then the other two.
        let mut totals = [[vdupq_n_f32(0.0); 2]; TILE / 4];
        for of in params {
            let w = [pair(quants[0], quants[1]), pair(quants[2], quants[3])];
            for q in &mut quants {
                *q = q.add(BLOCK / 2);
            }
            let scales = vld1q_f32(of.scales.as_ptr());
            let scales = [vzip1q_f32(scales, scales), vzip2q_f32(scales, scales)];
            let of_x = x.add(to_scales);
            macro_rules! rows {
                ($t:literal, $r:literal, $x:ident, $x_scales:ident, $sums:ident) => {
                    let mut sum = match F {
                        SYMMETRIC => $sums,
                        PACKED => {
                            let z = vld1q_s32(of.ints.as_ptr());
                            let z = [vzip1q_s32(z, z), vzip2q_s32(z, z)][$r];
                            vshrq_n_s32::<3>(vmulq_s32(z, $sums))
                        }
                        _ => vdupq_n_s32(0),
                    };
                    sum = multiply(sum, w[$r][0], $x[0]);
                    sum = multiply(sum, w[$r][1], $x[1]);
                    sum = multiply(sum, w[$r][2], $x[2]);
                    sum = multiply(sum, w[$r][3], $x[3]);
                    let mut product = vcvtq_f32_s32(sum);
                    if F != SYMMETRIC && F != PACKED {
                        let z = vld1q_f32(of.floats.as_ptr());
                        let z = [vzip1q_f32(z, z), vzip2q_f32(z, z)][$r];
                        product = vfmaq_f32(product, z, vcvtq_f32_s32($sums));
                    }
                    let scale = vmulq_f32(scales[$r], $x_scales);
                    totals[$t][$r] = vfmaq_f32(totals[$t][$r], product, scale);
                };
            }
            macro_rules! pairs {
                    ($($t:literal)*) => {$(
                        let from: *const i8 = x.add($t * 2 * BLOCK).cast();
                        let values = [
                            vld1q_s8(from),
                            vld1q_s8(from.add(16)),
                            vld1q_s8(from.add(32)),
                            vld1q_s8(from.add(48)),
                        ];
                        let x_scales =
                            vreinterpretq_f32_s64(vld1q_dup_s64(of_x.add($t * 8).cast()));
                        let sums = of_x.add(TILE * 4 + $t * 8);
                        let sums = vreinterpretq_s32_s64(vld1q_dup_s64(sums.cast()));
                        rows!($t, 0, values, x_scales, sums);
                        rows!($t, 1, values, x_scales, sums);
                        // Keeps the compiler from reading on before these rows of x
                        // are done: it would run out of registers.
                        asm!(
                            "/* {x} {total:v} */",
                            x = inlateout(reg) x,
                            total = in(vreg) totals[$t][1],
                            options(pure, nomem, nostack, preserves_flags),
                        );
                    )*};
                }
            pairs!(0 1 2 3);
            x = x.add(TILE_BLOCK);
        }
        for (t, [a, b]) in totals.into_iter().enumerate() {
            let mut values = [0.0; ROWS];
            vst1q_f32(values.as_mut_ptr(), vuzp1q_f32(a, b));
            y.set_all(2 * t, 0, values);
            vst1q_f32(values.as_mut_ptr(), vuzp2q_f32(a, b));
            y.set_all(2 * t + 1, 0, values);
        }
    }
}
