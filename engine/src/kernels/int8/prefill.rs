//! Prefill with `sdot`: 16 rows of x against four rows of W.
//!
//! In decode a lane sums a block and the activations of each block fill whole
//! registers. With many rows of x it is the other way round: the words of four
//! rows of W are transposed once, so that a lane is a row, and a word of x is
//! picked out of its register by the instruction itself. One load of activations
//! then serves 128 products instead of 32.
//!
//! The rows of x are encoded in tiles for it ([`super::encode::tile_block`]). The
//! sums run over the blocks in one lane: they are not those of [`super::tile`] to
//! the bit.

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

use super::Job;
use super::encode::{TILE, TILE_BLOCK};
use super::tile::{PACKED, SYMMETRIC};
use crate::kernels::blocks::{BLOCK, Bits, Floats};
use crate::kernels::vector::neon::widen_halves;

/// Rows of W in a tile.
const ROWS: usize = 4;

/// Four rows' scale of a block, and their zero point: times 8 as an integer for
/// the sums of symmetric and packed weights, or a float.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Params {
    scales: [f32; ROWS],
    ints: [i32; ROWS],
    floats: [f32; ROWS],
}

/// `sum + w x[J]`, a word of x with each word of w. (The intrinsic is not stable
/// yet.)
///
/// # Safety
/// dotprod.
#[inline(always)]
unsafe fn sdot<const J: usize>(mut sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
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

/// Computes the columns `rows` of the first `tiles * 16` rows of `y`, for weights
/// of 4 bits and form `F`.
///
/// # Safety
/// dotprod; `job` as for [`super::linear`], with as many rows of x encoded in tiles.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn products<const F: u8>(job: &Job<'_>, rows: Range<usize>, tiles: usize) {
    debug_assert_eq!(job.w.bits(), Bits::Four);
    let blocks = job.w.blocks();
    let zero = Params {
        scales: [0.0; ROWS],
        ints: [0; ROWS],
        floats: [0.0; ROWS],
    };
    let mut params = vec![zero; blocks];
    for first in rows.clone().step_by(ROWS) {
        // The last rows may be fewer: the last one is computed again then.
        let row = |i: usize| (first + i).min(rows.end - 1);
        // SAFETY: NEON by our own features.
        unsafe { read_params::<F>(job, [row(0), row(1), row(2), row(3)], &mut params) };
        for tile in 0..tiles {
            let quants = [row(0), row(1), row(2), row(3)].map(|r| job.w.quants(r).as_ptr());
            let x = job.x.wrapping_add(tile * TILE * job.x_stride);
            // SAFETY: dotprod by our own features; a tile of x and four rows of W.
            let totals = unsafe { tile_products::<F>(quants, &params, x) };
            let whole = first + ROWS <= rows.end;
            for (t, total) in totals.into_iter().enumerate() {
                let mut values = [0.0; ROWS];
                // SAFETY: four values; the places are in y by the contract.
                unsafe {
                    vst1q_f32(values.as_mut_ptr(), total);
                    if whole {
                        job.y.set4(tile * TILE + t, first, values);
                    } else {
                        for (i, &value) in values.iter().enumerate().take(rows.end - first) {
                            job.y.set(tile * TILE + t, first + i, value);
                        }
                    }
                }
            }
        }
    }
}

/// Reads the scales and zero points of all blocks of four rows.
///
/// # Safety
/// NEON.
#[inline(always)]
unsafe fn read_params<const F: u8>(job: &Job<'_>, rows: [usize; ROWS], params: &mut [Params]) {
    let blocks = params.len();
    let mut block = 0;
    if let Floats::F16(scales) = job.w.parts().1 {
        let scales = rows.map(|row| &scales[row * blocks..][..blocks]);
        let last = blocks.wrapping_sub(4);
        while block < blocks && blocks >= 4 {
            // The last four are read together, some of them again.
            let at = block.min(last);
            // SAFETY: NEON; four scales of each row from `at` on.
            unsafe {
                let a = vld1_u16(scales[0].as_ptr().add(at));
                let b = vld1_u16(scales[1].as_ptr().add(at));
                let c = vld1_u16(scales[2].as_ptr().add(at));
                let d = vld1_u16(scales[3].as_ptr().add(at));
                let (even, odd) = (vzip1_u16(a, c), vzip1_u16(b, d));
                let (even_next, odd_next) = (vzip2_u16(a, c), vzip2_u16(b, d));
                let bits = [
                    vzip1_u16(even, odd),
                    vzip2_u16(even, odd),
                    vzip1_u16(even_next, odd_next),
                    vzip2_u16(even_next, odd_next),
                ];
                for (i, bits) in bits.into_iter().enumerate() {
                    vst1q_f32(params[at + i].scales.as_mut_ptr(), widen_halves(bits));
                }
            }
            block += 4;
        }
    }
    if block >= blocks && F == SYMMETRIC {
        return;
    }
    for (b, of) in params.iter_mut().enumerate() {
        for (i, &row) in rows.iter().enumerate() {
            let (scale, zero_point) = job.w.scale_and_zero_point(row, b);
            of.scales[i] = scale;
            of.ints[i] = zero_point as i32;
            of.floats[i] = zero_point / 8.0;
        }
    }
}

/// # Safety
/// dotprod; a row's quants at each of `quants`, `params` for its blocks, and a tile
/// of as many blocks at `x`.
#[inline(always)]
unsafe fn tile_products<const F: u8>(
    mut quants: [*const u8; ROWS],
    params: &[Params],
    mut x: *const u8,
) -> [float32x4_t; TILE] {
    // SAFETY: features and places by the contract.
    unsafe {
        let mut totals = [vdupq_n_f32(0.0); TILE];
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
                ($t:expr, $scales:ident, $sums:ident, $i:literal) => {
                    let low_x = vld1q_s8(x.add($t * BLOCK).cast());
                    let high_x = vld1q_s8(x.add($t * BLOCK + BLOCK / 2).cast());
                    let sums = vdupq_laneq_s32::<$i>($sums);
                    let mut sum = match F {
                        SYMMETRIC => sums,
                        PACKED => {
                            let z = vld1q_s32(of.ints.as_ptr());
                            vshrq_n_s32::<3>(vmulq_s32(z, sums))
                        }
                        _ => vdupq_n_s32(0),
                    };
                    sum = sdot::<0>(sum, w[0], low_x);
                    sum = sdot::<1>(sum, w[1], low_x);
                    sum = sdot::<2>(sum, w[2], low_x);
                    sum = sdot::<3>(sum, w[3], low_x);
                    sum = sdot::<0>(sum, high[0], high_x);
                    sum = sdot::<1>(sum, high[1], high_x);
                    sum = sdot::<2>(sum, high[2], high_x);
                    sum = sdot::<3>(sum, high[3], high_x);
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
                    let sums_x = vld1q_s32(x.add(TILE * (BLOCK + 4) + $q * 16).cast());
                    token!(4 * $q, scales_x, sums_x, 0);
                    token!(4 * $q + 1, scales_x, sums_x, 1);
                    token!(4 * $q + 2, scales_x, sums_x, 2);
                    token!(4 * $q + 3, scales_x, sums_x, 3);
                };
            }
            four!(0);
            four!(1);
            four!(2);
            four!(3);
            x = x.add(TILE_BLOCK);
        }
        totals
    }
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
