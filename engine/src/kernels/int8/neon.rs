//! NEON: `sdot` where there is one, otherwise products of bytes summed in i16
//! as long as they fit.

use std::arch::aarch64::*;
use std::arch::asm;

use super::encode::RECORD;
use super::group::{Group, spread_nibbles};
use super::strided;
use super::tile::Unit;
use crate::kernels::vector::neon::widen_halves;

/// Groups of 4 or of 8 bits by `smull` and `smlal`, for every aarch64: Cortex-A53,
/// A57, A72, Carmel.
#[derive(Clone, Copy)]
pub(crate) struct Neon<const BITS: usize>;

/// Groups of 4 or of 8 bits by `sdot` (Cortex-A55, A76, A78, ...).
///
/// A product of `sdot` sums four neighbouring bytes. `ld4` deals the words of a
/// group to four registers in such a way that one register holds a word of each
/// block, so that each lane sums a block by itself and nothing has to be added
/// across lanes.
#[derive(Clone, Copy)]
pub(crate) struct NeonDotprod<const BITS: usize>;

/// `sum + a b`, four bytes to a lane. (The intrinsic is not stable yet.)
///
/// # Safety
/// dotprod.
#[inline(always)]
unsafe fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: dotprod by the contract; only the named registers are touched.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inlateout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// The low and the high nibbles.
///
/// # Safety
/// NEON.
#[inline(always)]
unsafe fn nibbles(v: uint8x16_t) -> (int8x16_t, int8x16_t) {
    // SAFETY: NEON by the contract.
    unsafe {
        (
            vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15))),
            vreinterpretq_s8_u8(vshrq_n_u8::<4>(v)),
        )
    }
}

/// Bytes with 128 subtracted.
///
/// # Safety
/// NEON.
#[inline(always)]
unsafe fn signed(v: uint8x16_t) -> int8x16_t {
    // SAFETY: NEON by the contract.
    unsafe { vreinterpretq_s8_u8(veorq_u8(v, vdupq_n_u8(128))) }
}

/// `sum + w x` over a register, in i16: two products to a lane.
///
/// # Safety
/// NEON; the products fit.
#[inline(always)]
unsafe fn mul_add_i16(sum: int16x8_t, w: int8x16_t, x: int8x16_t) -> int16x8_t {
    // SAFETY: NEON by the contract.
    unsafe { vmlal_high_s8(vmlal_s8(sum, vget_low_s8(w), vget_low_s8(x)), w, x) }
}

/// `w x` over a register, in i16: two products to a lane.
///
/// # Safety
/// NEON; the products fit.
#[inline(always)]
unsafe fn mul_i16(w: int8x16_t, x: int8x16_t) -> int16x8_t {
    // SAFETY: NEON by the contract.
    unsafe { vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(x)), w, x) }
}

/// An instruction of two registers that the compiler would take apart into several, or
/// would do only after the loops that follow, with both registers kept for it.
macro_rules! named {
    ($instruction:literal, $a:expr, $b:expr) => {{
        let out: float32x4_t;
        asm!(
            $instruction,
            o = lateout(vreg) out,
            a = in(vreg) $a,
            b = in(vreg) $b,
            options(nomem, nostack, preserves_flags),
        );
        out
    }};
}

/// The methods that do not depend on how products are formed.
macro_rules! common {
    () => {
        /// Quants of 8 bits are made signed.
        const BIAS: f32 = if BITS == 4 { 0.0 } else { 128.0 };
        const RECORD: usize = RECORD;

        type Weights = [int8x16_t; 8];
        type Activations = [int8x16_t; 8];
        type Ints = int32x4_t;
        type Lanes = float32x4_t;

        #[inline(always)]
        unsafe fn activations(from: *const i8) -> Self::Activations {
            // SAFETY: 128 readable values by the contract.
            unsafe {
                [
                    vld1q_s8(from),
                    vld1q_s8(from.add(16)),
                    vld1q_s8(from.add(32)),
                    vld1q_s8(from.add(48)),
                    vld1q_s8(from.add(64)),
                    vld1q_s8(from.add(80)),
                    vld1q_s8(from.add(96)),
                    vld1q_s8(from.add(112)),
                ]
            }
        }

        #[inline(always)]
        unsafe fn f16s(from: *const u16) -> Self::Lanes {
            // SAFETY: four readable values by the contract.
            unsafe { widen_halves(vld1_u16(from)) }
        }

        #[inline(always)]
        unsafe fn f32s(from: *const f32) -> Self::Lanes {
            // SAFETY: four readable values by the contract.
            unsafe { vld1q_f32(from) }
        }

        #[inline(always)]
        unsafe fn ints(from: *const i32) -> Self::Ints {
            // SAFETY: four readable values by the contract.
            unsafe { vld1q_s32(from) }
        }

        #[inline(always)]
        unsafe fn zero() -> Self::Ints {
            // SAFETY: NEON is always there.
            unsafe { vdupq_n_s32(0) }
        }

        #[inline(always)]
        unsafe fn zero_points(from: *const u8) -> Self::Ints {
            // SAFETY: a group's zero points are readable by the contract.
            unsafe {
                let bytes = if BITS == 4 {
                    spread_nibbles(from.cast::<u16>().read_unaligned()).cast_unsigned()
                } else {
                    from.cast::<u32>().read_unaligned()
                };
                let wide = vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(u64::from(bytes)))));
                let bias = if BITS == 4 { 0 } else { 128 };
                vsubq_s32(vreinterpretq_s32_u32(wide), vdupq_n_s32(bias))
            }
        }

        #[inline(always)]
        unsafe fn mul_ints_by_eighth(a: Self::Ints, b: Self::Ints) -> Self::Ints {
            // SAFETY: NEON is always there.
            unsafe { vshrq_n_s32::<3>(vmulq_s32(a, b)) }
        }

        #[inline(always)]
        unsafe fn to_lanes(ints: Self::Ints) -> Self::Lanes {
            // SAFETY: NEON is always there.
            unsafe { vcvtq_f32_s32(ints) }
        }

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self::Lanes {
            // SAFETY: NEON is always there.
            unsafe { vdupq_n_f32(value) }
        }

        #[inline(always)]
        unsafe fn mul(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
            // SAFETY: NEON is always there.
            unsafe { vmulq_f32(a, b) }
        }

        #[inline(always)]
        unsafe fn mul_add(a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
            // SAFETY: NEON is always there.
            unsafe { vfmaq_f32(c, a, b) }
        }

        #[inline(always)]
        unsafe fn halves(lanes: Self::Lanes) -> (Self::Lanes, Self::Lanes) {
            // SAFETY: NEON is always there.
            unsafe {
                let zero = vdup_n_f32(0.0);
                (
                    vcombine_f32(vget_low_f32(lanes), zero),
                    vcombine_f32(zero, vget_high_f32(lanes)),
                )
            }
        }

        #[inline(always)]
        unsafe fn add(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
            // SAFETY: NEON is always there.
            unsafe { vaddq_f32(a, b) }
        }

        #[inline(always)]
        unsafe fn sums(lanes: [Self::Lanes; 4]) -> [f32; 4] {
            let mut sums = [0.0; 4];
            // SAFETY: NEON is always there.
            unsafe {
                let (ab, cd) = (
                    vpaddq_f32(lanes[0], lanes[1]),
                    vpaddq_f32(lanes[2], lanes[3]),
                );
                vst1q_f32(sums.as_mut_ptr(), vpaddq_f32(ab, cd));
            }
            sums
        }

        #[inline(always)]
        unsafe fn fold(lanes: Self::Lanes) -> Self::Lanes {
            // SAFETY: NEON is always there.
            unsafe { named!("faddp {o:v}.4s, {a:v}.4s, {b:v}.4s", lanes, vdupq_n_f32(0.0)) }
        }

        #[inline(always)]
        unsafe fn pack(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
            // SAFETY: NEON is always there.
            unsafe { named!("zip1 {o:v}.2d, {a:v}.2d, {b:v}.2d", a, b) }
        }

        #[inline(always)]
        unsafe fn upper(lanes: Self::Lanes) -> Self::Lanes {
            // SAFETY: NEON is always there.
            unsafe {
                let doubles = vreinterpretq_u64_f32(lanes);
                vreinterpretq_f32_u64(vsetq_lane_u64::<0>(0, doubles))
            }
        }

        #[inline(always)]
        unsafe fn sums_between(packed: Self::Lanes, lanes: [Self::Lanes; 2]) -> [f32; 4] {
            let mut sums = [0.0; 4];
            // SAFETY: NEON is always there.
            unsafe {
                let others = vpaddq_f32(lanes[0], lanes[1]);
                let first = named!("zip1 {o:v}.2d, {a:v}.2d, {b:v}.2d", packed, others);
                let second = named!("zip2 {o:v}.2d, {a:v}.2d, {b:v}.2d", packed, others);
                vst1q_f32(sums.as_mut_ptr(), vpaddq_f32(first, second));
            }
            sums
        }

        #[inline(always)]
        unsafe fn after<T>(mut pointer: *const T, lanes: Self::Lanes) -> *const T {
            // SAFETY: no instruction at all: the pointer seems to depend on the lanes.
            unsafe {
                asm!(
                    "/* {pointer} {lanes:v} */",
                    pointer = inlateout(reg) pointer,
                    lanes = in(vreg) lanes,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            pointer
        }
    };
}

// SAFETY: NEON is part of the aarch64 baseline.
unsafe impl<const BITS: usize> Group for Neon<BITS> {
    common!();

    /// Of 4 bits: the low nibbles of the four blocks, then the high ones; of 8
    /// bits: two registers a block.
    #[inline(always)]
    unsafe fn weights(from: *const u8) -> Self::Weights {
        // SAFETY: a group's bytes are readable by the contract.
        unsafe {
            if BITS == 4 {
                let (a, e) = nibbles(vld1q_u8(from));
                let (b, f) = nibbles(vld1q_u8(from.add(16)));
                let (c, g) = nibbles(vld1q_u8(from.add(32)));
                let (d, h) = nibbles(vld1q_u8(from.add(48)));
                [a, b, c, d, e, f, g, h]
            } else {
                [
                    signed(vld1q_u8(from)),
                    signed(vld1q_u8(from.add(16))),
                    signed(vld1q_u8(from.add(32))),
                    signed(vld1q_u8(from.add(48))),
                    signed(vld1q_u8(from.add(64))),
                    signed(vld1q_u8(from.add(80))),
                    signed(vld1q_u8(from.add(96))),
                    signed(vld1q_u8(from.add(112))),
                ]
            }
        }
    }

    #[inline(always)]
    unsafe fn dot(w: Self::Weights, x: Self::Activations, start: Self::Ints) -> Self::Lanes {
        // SAFETY: NEON is always there. Of 4 bits, a lane of i16 takes 4 products
        // of at most 15 * 127, and four lanes are added: 30,480. Of 8 bits it
        // takes two of at most 128 * 127: 32,512.
        unsafe {
            let sums = if BITS == 4 {
                let a = mul_add_i16(mul_i16(w[0], x[0]), w[4], x[4]);
                let b = mul_add_i16(mul_i16(w[1], x[1]), w[5], x[5]);
                let c = mul_add_i16(mul_i16(w[2], x[2]), w[6], x[6]);
                let d = mul_add_i16(mul_i16(w[3], x[3]), w[7], x[7]);
                vpadalq_s16(start, vpaddq_s16(vpaddq_s16(a, b), vpaddq_s16(c, d)))
            } else {
                let a = vpadalq_s16(vpaddlq_s16(mul_i16(w[0], x[0])), mul_i16(w[1], x[1]));
                let b = vpadalq_s16(vpaddlq_s16(mul_i16(w[2], x[2])), mul_i16(w[3], x[3]));
                let c = vpadalq_s16(vpaddlq_s16(mul_i16(w[4], x[4])), mul_i16(w[5], x[5]));
                let d = vpadalq_s16(vpaddlq_s16(mul_i16(w[6], x[6])), mul_i16(w[7], x[7]));
                vaddq_s32(start, vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)))
            };
            vcvtq_f32_s32(sums)
        }
    }
}

// SAFETY: used only beneath entries with dotprod.
unsafe impl<const BITS: usize> Group for NeonDotprod<BITS> {
    common!();

    const STRIDED: usize = if BITS == 4 { strided::UNITS } else { 0 };

    #[inline(always)]
    unsafe fn strided<const R: usize, const T: usize>(
        groups: usize,
        unit: &mut Unit,
        strides: [usize; 2],
        x: &mut *const u8,
        totals: &mut [[Self::Lanes; T]; R],
    ) {
        let mut all = [totals[0][0]; strided::UNITS];
        for (one, total) in all.iter_mut().zip(totals.iter()) {
            *one = total[0];
        }
        // SAFETY: by the contract.
        unsafe { strided::groups(groups, unit, strides, x, &mut all) }
        for (one, total) in all.iter().zip(totals) {
            total[0] = *one;
        }
    }

    /// The words of the group, dealt by `ld4`: of 4 bits, the low nibbles of the
    /// four registers, then the high ones; of 8 bits, two blocks, then two.
    #[inline(always)]
    unsafe fn weights(from: *const u8) -> Self::Weights {
        // SAFETY: a group's bytes are readable by the contract.
        unsafe {
            let words = vld4q_u32(from.cast());
            let bytes = |v| vreinterpretq_u8_u32(v);
            if BITS == 4 {
                let (a, e) = nibbles(bytes(words.0));
                let (b, f) = nibbles(bytes(words.1));
                let (c, g) = nibbles(bytes(words.2));
                let (d, h) = nibbles(bytes(words.3));
                [a, b, c, d, e, f, g, h]
            } else {
                let more = vld4q_u32(from.add(64).cast());
                [
                    signed(bytes(words.0)),
                    signed(bytes(words.1)),
                    signed(bytes(words.2)),
                    signed(bytes(words.3)),
                    signed(bytes(more.0)),
                    signed(bytes(more.1)),
                    signed(bytes(more.2)),
                    signed(bytes(more.3)),
                ]
            }
        }
    }

    #[inline(always)]
    unsafe fn dot(w: Self::Weights, x: Self::Activations, start: Self::Ints) -> Self::Lanes {
        // SAFETY: dotprod by the contract.
        unsafe {
            let zero = vdupq_n_s32(0);
            let mut first = if BITS == 4 { start } else { zero };
            first = sdot(first, w[0], x[0]);
            first = sdot(first, w[1], x[1]);
            first = sdot(first, w[2], x[2]);
            first = sdot(first, w[3], x[3]);
            let mut second = if BITS == 4 { first } else { zero };
            second = sdot(second, w[4], x[4]);
            second = sdot(second, w[5], x[5]);
            second = sdot(second, w[6], x[6]);
            second = sdot(second, w[7], x[7]);
            vcvtq_f32_s32(if BITS == 4 {
                second
            } else {
                // Two lanes each of two blocks, and of two more.
                vaddq_s32(start, vpaddq_s32(first, second))
            })
        }
    }
}
