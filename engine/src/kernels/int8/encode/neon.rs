//! Quantises blocks with NEON: four of them share what is computed once for a block.

use std::arch::aarch64::*;
use std::arch::asm;

use super::quantise::{Slot, ZERO};
use crate::kernels::blocks::{BLOCK, Bits};

/// As [`super::quantise::quantise`], of up to four blocks; writes four scales and sums, of
/// which those of other blocks mean nothing.
///
/// # Safety
/// `N` times 32 readable values and four slots.
#[inline(always)]
pub(in crate::kernels) unsafe fn quantise<const N: usize>(from: *const f32, bits: Bits, to: Slot) {
    const { assert!(N <= 4) }
    // SAFETY: NEON is always there; the places by the contract.
    unsafe {
        let mut largest = [vdupq_n_f32(0.0); 4];
        for (i, largest) in largest.iter_mut().enumerate().take(N) {
            *largest = magnitude(from.add(i * BLOCK));
        }
        let [a, b, c, d] = largest;
        let largest = vpmaxq_f32(vpmaxq_f32(a, b), vpmaxq_f32(c, d));
        let whole = vdupq_n_f32(127.0);
        // False of a NaN.
        let inverses = vandq_u32(
            vreinterpretq_u32_f32(vdivq_f32(whole, largest)),
            vcgtq_f32(largest, vdupq_n_f32(ZERO)),
        );
        let inverses = vreinterpretq_f32_u32(inverses);
        vst1q_f32(to.scale, vdivq_f32(largest, whole));
        let from = again(from);
        let mut sums = [vdupq_n_s16(0); 4];
        // Written out: a lane's number is part of the instruction.
        sums[0] = block::<0>(from, inverses, bits, to);
        if N > 1 {
            sums[1] = block::<1>(from, inverses, bits, to);
        }
        if N > 2 {
            sums[2] = block::<2>(from, inverses, bits, to);
        }
        if N > 3 {
            sums[3] = block::<3>(from, inverses, bits, to);
        }
        let [a, b, c, d] = sums;
        let sums = vpaddlq_s16(vpaddq_s16(vpaddq_s16(a, b), vpaddq_s16(c, d)));
        vst1q_s32(to.sum, vmulq_n_s32(sums, -8));
    }
}

/// The same place, of which the compiler does not know it: what was read there is
/// read again instead of being kept on the stack, as there are more values than
/// registers.
///
/// # Safety
/// None.
#[inline(always)]
unsafe fn again(mut from: *const f32) -> *const f32 {
    // SAFETY: no instruction at all.
    unsafe {
        asm!(
            "/* {from} */",
            from = inlateout(reg) from,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    from
}

/// The largest magnitude in each of four lanes of a block, NaN if there is one.
///
/// # Safety
/// 32 readable values.
#[inline(always)]
unsafe fn magnitude(from: *const f32) -> float32x4_t {
    // SAFETY: NEON is always there; the values by the contract.
    unsafe {
        let (a, b) = (vld1q_f32_x4(from), vld1q_f32_x4(from.add(16)));
        let max = |x, y| vmaxq_f32(vabsq_f32(x), vabsq_f32(y));
        let first = vmaxq_f32(max(a.0, a.1), max(a.2, a.3));
        vmaxq_f32(first, vmaxq_f32(max(b.0, b.1), max(b.2, b.3)))
    }
}

/// Writes the `I`th block's values times the `I`th inverse, rounded, and gives
/// their sums by fours.
///
/// # Safety
/// The block's 32 readable values and its slot.
#[inline(always)]
unsafe fn block<const I: i32>(
    from: *const f32,
    inverses: float32x4_t,
    bits: Bits,
    to: Slot,
) -> int16x8_t {
    // SAFETY: NEON is always there; the places by the contract.
    unsafe {
        let from = from.add(I as usize * BLOCK);
        let (a, b) = (vld1q_f32_x4(from), vld1q_f32_x4(from.add(16)));
        let round = |v| {
            let rounded = vcvtnq_s32_f32(vmulq_laneq_f32::<I>(v, inverses));
            vreinterpretq_s16_s32(rounded)
        };
        // Values are within a byte: the lowest ones are all there is.
        let narrow = |v: float32x4x4_t| {
            let low = vuzp1q_s16(round(v.0), round(v.1));
            let high = vuzp1q_s16(round(v.2), round(v.3));
            vuzp1q_s8(vreinterpretq_s8_s16(low), vreinterpretq_s8_s16(high))
        };
        let (first, second) = (narrow(a), narrow(b));
        let sums = vpadalq_s8(vpaddlq_s8(first), second);
        let halves = match bits {
            Bits::Four => (vuzp1q_s8(first, second), vuzp2q_s8(first, second)),
            Bits::Eight => (first, second),
        };
        let to: *mut i8 = to.words.add(I as usize).cast();
        vst1q_s8(to, halves.0);
        vst1q_s8(to.add(16), halves.1);
        sums
    }
}
