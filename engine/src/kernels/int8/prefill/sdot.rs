//! Tiles with `sdot`: a lane is a row of W, and the instruction itself picks a word
//! of x out of its register. One load of activations serves 128 products instead
//! of 32.

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
/// dotprod; otherwise as for [`super::products`].
#[target_feature(enable = "neon,dotprod")]
pub(in crate::kernels::int8) unsafe fn sdot(job: &Job<'_>, rows: Range<usize>, tiles: usize) {
    // SAFETY: this function has the features; the rest by the contract.
    unsafe { super::products::<Sdot, ROWS>(job, rows, tiles) }
}

struct Sdot;

/// `sum + w x[J]`, a word of x with each word of w. (The intrinsic is not stable
/// yet.)
///
/// # Safety
/// dotprod.
#[inline(always)]
unsafe fn multiply<const J: usize>(mut sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: dotprod by the contract; only the named registers are touched.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {w:v}.16b, {x:v}.4b[{j}]",
            sum = inlateout(vreg) sum,
            w = in(vreg) w,
            x = in(vreg) x,
            j = const J,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Transposes the words of four rows, so that a register holds a word of each
/// row, and unpacks the low and the high nibbles.
///
/// # Safety
/// NEON.
#[inline(always)]
unsafe fn words(raw: [int32x4_t; ROWS]) -> ([int8x16_t; 4], [int8x16_t; 4]) {
    // SAFETY: NEON by the contract.
    unsafe {
        let wide = |v| vreinterpretq_s64_s32(v);
        let a = wide(vtrn1q_s32(raw[0], raw[1]));
        let b = wide(vtrn2q_s32(raw[0], raw[1]));
        let c = wide(vtrn1q_s32(raw[2], raw[3]));
        let d = wide(vtrn2q_s32(raw[2], raw[3]));
        let words = [
            vtrn1q_s64(a, c),
            vtrn1q_s64(b, d),
            vtrn2q_s64(a, c),
            vtrn2q_s64(b, d),
        ];
        let mut low = [vdupq_n_s8(0); 4];
        let mut high = low;
        for i in 0..4 {
            let v = vreinterpretq_u8_s64(words[i]);
            low[i] = vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15)));
            high[i] = vreinterpretq_s8_u8(vshrq_n_u8::<4>(v));
        }
        (low, high)
    }
}

// SAFETY: used only beneath the entry above.
unsafe impl Tile<ROWS> for Sdot {
    #[inline(always)]
    unsafe fn products<const F: u8>(
        mut quants: [*const u8; ROWS],
        params: &[Params<ROWS>],
        mut x: *const u8,
        y: Output,
    ) {
        // SAFETY: features and places by the contract.
        unsafe {
            let mut totals = [vdupq_n_f32(0.0); TILE];
            let mut sums_at = x.add(TILE * (BLOCK + 4));
            for of in params {
                let raw = [
                    vreinterpretq_s32_u8(vld1q_u8(quants[0])),
                    vreinterpretq_s32_u8(vld1q_u8(quants[1])),
                    vreinterpretq_s32_u8(vld1q_u8(quants[2])),
                    vreinterpretq_s32_u8(vld1q_u8(quants[3])),
                ];
                for q in &mut quants {
                    *q = q.add(BLOCK / 2);
                }
                let (w, high) = words(raw);
                let scales = vld1q_f32(of.scales.as_ptr());
                macro_rules! token {
                ($t:expr, $scales:ident, $i:literal) => {
                    let low_x = vld1q_s8(x.add($t * BLOCK).cast());
                    let high_x = vld1q_s8(x.add($t * BLOCK + BLOCK / 2).cast());
                    let sums: int32x4_t;
                    // By name: the compiler would add up each address by itself.
                    asm!(
                        "ld1r {{{sums:v}.4s}}, [{at}], #4",
                        sums = lateout(vreg) sums,
                        at = inout(reg) sums_at,
                        options(pure, readonly, nostack, preserves_flags),
                    );
                    let mut sum = match F {
                        SYMMETRIC => sums,
                        PACKED => {
                            let z = vld1q_s32(of.ints.as_ptr());
                            vshrq_n_s32::<3>(vmulq_s32(z, sums))
                        }
                        _ => vdupq_n_s32(0),
                    };
                    sum = multiply::<0>(sum, w[0], low_x);
                    sum = multiply::<1>(sum, w[1], low_x);
                    sum = multiply::<2>(sum, w[2], low_x);
                    sum = multiply::<3>(sum, w[3], low_x);
                    sum = multiply::<0>(sum, high[0], high_x);
                    sum = multiply::<1>(sum, high[1], high_x);
                    sum = multiply::<2>(sum, high[2], high_x);
                    sum = multiply::<3>(sum, high[3], high_x);
                    let mut product = vcvtq_f32_s32(sum);
                    if F != SYMMETRIC && F != PACKED {
                        let z = vld1q_f32(of.floats.as_ptr());
                        product = vfmaq_f32(product, z, vcvtq_f32_s32(sums));
                    }
                    let scale = vmulq_laneq_f32::<$i>(scales, $scales);
                    totals[$t] = vfmaq_f32(totals[$t], product, scale);
                    // Keeps the compiler from reading on before this row of x is
                    // done: it would run out of registers.
                    asm!(
                        "/* {x} {total:v} */",
                        x = inlateout(reg) x,
                        total = in(vreg) totals[$t],
                        options(pure, nomem, nostack, preserves_flags),
                    );
                };
            }
                macro_rules! four {
                    ($q:literal) => {
                        let scales_x = vld1q_f32(x.add(TILE * BLOCK + $q * 16).cast());
                        token!(4 * $q, scales_x, 0);
                        token!(4 * $q + 1, scales_x, 1);
                        token!(4 * $q + 2, scales_x, 2);
                        token!(4 * $q + 3, scales_x, 3);
                    };
                }
                four!(0);
                four!(1);
                four!(2);
                four!(3);
                x = x.add(TILE_BLOCK);
                sums_at = sums_at.add(TILE_BLOCK - TILE * 4);
            }
            for (t, total) in totals.into_iter().enumerate() {
                let mut values = [0.0; ROWS];
                vst1q_f32(values.as_mut_ptr(), total);
                y.set_all(t, 0, values);
            }
        }
    }

    #[inline(always)]
    unsafe fn scales(rows: [&[u16]; ROWS], params: &mut [Params<ROWS>]) {
        // SAFETY: NEON by the contract.
        unsafe { neon::scales(rows, params) }
    }
}
