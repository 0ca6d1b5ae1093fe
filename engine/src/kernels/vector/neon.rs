//! NEON.

use super::{Bits, Slot, Vector, WORDS};
use crate::kernels::int8::encode::neon;
use std::arch::aarch64::*;
use std::arch::asm;

/// f16 to f32. (The type of a vector of f16 is not stable yet, hence the
/// instruction by name.)
///
/// # Safety
/// None beyond NEON, which is always there.
#[inline(always)]
pub(in crate::kernels) unsafe fn widen_halves(bits: uint16x4_t) -> float32x4_t {
    let lanes: float32x4_t;
    // SAFETY: NEON is always there; only the named registers are touched.
    unsafe {
        asm!(
            "fcvtl {lanes:v}.4s, {bits:v}.4h",
            lanes = lateout(vreg) lanes,
            bits = in(vreg) bits,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    lanes
}

/// The last four f16 to f32.
///
/// # Safety
/// None beyond NEON, which is always there.
#[inline(always)]
pub(in crate::kernels) unsafe fn widen_high_halves(bits: uint16x8_t) -> float32x4_t {
    let lanes: float32x4_t;
    // SAFETY: NEON is always there; only the named registers are touched.
    unsafe {
        asm!(
            "fcvtl2 {lanes:v}.4s, {bits:v}.8h",
            lanes = lateout(vreg) lanes,
            bits = in(vreg) bits,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    lanes
}

/// Reads four bytes into the low half of a register.
///
/// # Safety
/// Four readable bytes.
#[inline(always)]
unsafe fn load_word(from: *const u8) -> uint8x8_t {
    // SAFETY: four readable bytes by the contract.
    let word = unsafe { from.cast::<u32>().read_unaligned() };
    // SAFETY: NEON is always there.
    unsafe { vcreate_u8(u64::from(word)) }
}

/// The low four bytes as f32.
///
/// # Safety
/// None beyond NEON, which is always there.
#[inline(always)]
unsafe fn widen(bytes: uint8x8_t) -> float32x4_t {
    // SAFETY: NEON is always there.
    unsafe { vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes)))) }
}

// SAFETY: NEON is part of the aarch64 baseline.
unsafe impl Vector for float32x4_t {
    const LANES: usize = 4;
    type Four = float32x4_t;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: NEON is always there.
        unsafe { vdupq_n_f32(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: four readable values by the contract.
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: four writable values by the contract.
        unsafe { vst1q_f32(to, self) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: NEON is always there.
        unsafe { vaddq_f32(self, other) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: NEON is always there.
        unsafe { vsubq_f32(self, other) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: NEON is always there.
        unsafe { vmulq_f32(self, other) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: NEON is always there.
        unsafe { vfmaq_f32(c, self, b) }
    }
    #[inline(always)]
    unsafe fn four(from: *const f32) -> Self::Four {
        // SAFETY: four readable values by the contract.
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn mul_add_nth<const N: i32>(self, b: Self::Four, c: Self) -> Self {
        // SAFETY: NEON is always there.
        unsafe { vfmaq_laneq_f32::<N>(c, self, b) }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: NEON is always there.
        unsafe { vaddvq_f32(self) }
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        // SAFETY: NEON is always there.
        unsafe { vmaxvq_f32(self) }
    }
    #[inline(always)]
    unsafe fn nibbles(from: *const u8) -> (Self, Self) {
        // SAFETY: four readable bytes by the contract.
        unsafe {
            let bytes = load_word(from);
            let low = vand_u8(bytes, vdup_n_u8(15));
            let high = vshr_n_u8::<4>(bytes);
            (widen(low), widen(high))
        }
    }
    #[inline(always)]
    unsafe fn bytes(from: *const u8) -> Self {
        // SAFETY: four readable bytes by the contract.
        unsafe { widen(load_word(from)) }
    }
    #[inline(always)]
    unsafe fn halves(from: *const u16) -> Self {
        // SAFETY: four readable values by the contract.
        unsafe { widen_halves(vld1_u16(from)) }
    }
    #[inline(always)]
    unsafe fn halves_each<const N: usize>(from: *const u16) -> [Self; N] {
        // SAFETY: NEON is always there; so many readable values by the contract.
        unsafe {
            let mut all = [vdupq_n_f32(0.0); N];
            for (i, two) in all.chunks_mut(2).enumerate() {
                let from = from.add(i * 8);
                if let [a, b] = two {
                    // Both from one load.
                    let bits = vld1q_u16(from);
                    (*a, *b) = (widen_halves(vget_low_u16(bits)), widen_high_halves(bits));
                } else {
                    two[0] = Self::halves(from);
                }
            }
            all
        }
    }
    #[inline(always)]
    unsafe fn signed_each<const N: usize>(from: *const i8) -> [Self; N] {
        // SAFETY: NEON is always there; so many readable values by the contract.
        unsafe {
            let mut all = [vdupq_n_f32(0.0); N];
            for (i, four) in all.chunks_mut(4).enumerate() {
                let from = from.add(i * 16);
                if let [a, b, c, d] = four {
                    // All from one load.
                    let bytes = vld1q_s8(from);
                    let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
                    *a = vcvtq_f32_s32(vmovl_s16(vget_low_s16(low)));
                    *b = vcvtq_f32_s32(vmovl_high_s16(low));
                    *c = vcvtq_f32_s32(vmovl_s16(vget_low_s16(high)));
                    *d = vcvtq_f32_s32(vmovl_high_s16(high));
                } else {
                    for (j, one) in four.iter_mut().enumerate() {
                        *one = Self::signed(from.add(j * 4));
                    }
                }
            }
            all
        }
    }
    #[inline(always)]
    unsafe fn signed(from: *const i8) -> Self {
        // SAFETY: four readable bytes by the contract.
        unsafe {
            let bytes = vreinterpret_s8_u8(load_word(from.cast()));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
        }
    }
    #[inline(always)]
    unsafe fn to_halves(self, to: *mut u16) {
        let bits: uint16x4_t;
        // SAFETY: NEON is always there; four writable values by the contract. (The
        // intrinsic is not stable yet.)
        unsafe {
            asm!(
                "fcvtn {bits:v}.4h, {lanes:v}.4s",
                bits = lateout(vreg) bits,
                lanes = in(vreg) self,
                options(pure, nomem, nostack, preserves_flags),
            );
            vst1_u16(to, bits);
        }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: NEON is always there.
        unsafe { vminq_f32(self, other) }
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: NEON is always there.
        unsafe { vmaxq_f32(self, other) }
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: NEON is always there.
        unsafe { vdivq_f32(self, other) }
    }
    #[inline(always)]
    unsafe fn scale_by_pow2(self, sum: Self) -> Self {
        // SAFETY: NEON is always there.
        unsafe {
            let n = vshlq_n_s32::<23>(vreinterpretq_s32_f32(sum));
            vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(self), n))
        }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        // SAFETY: a prefetch cannot fault. (The intrinsic is not stable yet.)
        unsafe {
            asm!(
                "prfm pldl1keep, [{from}]",
                from = in(reg) from,
                options(nostack, preserves_flags, readonly),
            );
        }
    }

    #[inline(always)]
    unsafe fn quantise<const N: usize>(from: *const f32, bits: Bits, to: Slot) {
        // SAFETY: the values and the slots by the contract.
        unsafe { neon::quantise::<N>(from, bits, to) }
    }
    #[inline(always)]
    unsafe fn deal(from: [*const [u32; WORDS / 2]; 4], to: *mut [u32; 4]) {
        // SAFETY: all readable and writable by the contract.
        unsafe {
            let [a, b, c, d] = from;
            let words = uint32x4x4_t(
                vld1q_u32(a.cast()),
                vld1q_u32(b.cast()),
                vld1q_u32(c.cast()),
                vld1q_u32(d.cast()),
            );
            vst4q_u32(to.cast(), words);
        }
    }
}
