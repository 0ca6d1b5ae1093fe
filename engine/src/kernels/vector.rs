//! The vector trait that the kernels are written over.

use super::blocks::Bits;
use super::int8::encode::{WORDS, quantise};

/// A register of f32 lanes.
///
/// # Safety
/// Every method may use instructions of the implementing backend: they are
/// called only beneath an entry function that has its target features. The
/// methods that take pointers read or write `LANES` values there.
pub(crate) unsafe trait Vector: Copy {
    /// Lanes in a register: a divisor of 16.
    const LANES: usize;

    /// All lanes `value`.
    unsafe fn splat(value: f32) -> Self;
    /// Reads `LANES` values.
    unsafe fn load(from: *const f32) -> Self;
    /// Writes `LANES` values.
    unsafe fn store(self, to: *mut f32);
    /// `self * b + c`, lane by lane.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// The sum of all lanes.
    unsafe fn sum(self) -> f32;
    /// Reads `LANES` bytes and widens their low and their high nibbles.
    unsafe fn nibbles(from: *const u8) -> (Self, Self);
    /// Reads `LANES` bytes and widens them.
    unsafe fn bytes(from: *const u8) -> Self;

    /// Quantises 32 values to int8, see [`quantise`].
    #[inline(always)]
    unsafe fn quantise(from: *const f32, bits: Bits) -> ([u32; WORDS], f32, i32) {
        // SAFETY: 32 readable values by the contract.
        quantise(unsafe { &*from.cast() }, bits)
    }
}

/// One lane: the reference.
// SAFETY: needs no target feature; the pointers are the caller's promise.
unsafe impl Vector for f32 {
    const LANES: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        value
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises one readable value.
        unsafe { from.read() }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises one writable value.
        unsafe { to.write(self) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // Not f32::mul_add: without the fma feature that is a library call.
        self * b + c
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        self
    }
    #[inline(always)]
    unsafe fn nibbles(from: *const u8) -> (Self, Self) {
        // SAFETY: the caller promises one readable byte.
        let byte = unsafe { from.read() };
        (f32::from(byte & 15), f32::from(byte >> 4))
    }
    #[inline(always)]
    unsafe fn bytes(from: *const u8) -> Self {
        // SAFETY: the caller promises one readable byte.
        f32::from(unsafe { from.read() })
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;

    // SAFETY: used only beneath entries with avx2 and fma.
    unsafe impl Vector for __m256 {
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: avx2 by the trait's contract.
            unsafe { _mm256_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: avx2, and eight readable values by the contract.
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: avx2, and eight writable values by the contract.
            unsafe { _mm256_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: fma by the contract.
            unsafe { _mm256_fmadd_ps(self, b, c) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: avx2 by the contract.
            unsafe {
                let half = _mm_add_ps(
                    _mm256_castps256_ps128(self),
                    _mm256_extractf128_ps::<1>(self),
                );
                let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
                _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)))
            }
        }
        #[inline(always)]
        unsafe fn nibbles(from: *const u8) -> (Self, Self) {
            // SAFETY: avx2, and eight readable bytes by the contract.
            unsafe {
                let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()));
                let low = _mm256_and_si256(bytes, _mm256_set1_epi32(15));
                let high = _mm256_srli_epi32::<4>(bytes);
                (_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
            }
        }
        #[inline(always)]
        unsafe fn bytes(from: *const u8) -> Self {
            // SAFETY: avx2, and eight readable bytes by the contract.
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()))) }
        }
    }

    // SAFETY: used only beneath entries with avx512f.
    unsafe impl Vector for __m512 {
        const LANES: usize = 16;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: avx512f by the contract.
            unsafe { _mm512_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: avx512f, and sixteen readable values by the contract.
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: avx512f, and sixteen writable values by the contract.
            unsafe { _mm512_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: avx512f by the contract.
            unsafe { _mm512_fmadd_ps(self, b, c) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: avx512f by the contract.
            unsafe { _mm512_reduce_add_ps(self) }
        }
        #[inline(always)]
        unsafe fn nibbles(from: *const u8) -> (Self, Self) {
            // SAFETY: avx512f, and sixteen readable bytes by the contract.
            unsafe {
                let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()));
                let low = _mm512_and_si512(bytes, _mm512_set1_epi32(15));
                let high = _mm512_srli_epi32::<4>(bytes);
                (_mm512_cvtepi32_ps(low), _mm512_cvtepi32_ps(high))
            }
        }
        #[inline(always)]
        unsafe fn bytes(from: *const u8) -> Self {
            // SAFETY: avx512f, and sixteen readable bytes by the contract.
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))) }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::{Bits, Vector, WORDS};
    use std::arch::aarch64::*;

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
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            // SAFETY: NEON is always there.
            unsafe { vfmaq_f32(c, self, b) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: NEON is always there.
            unsafe { vaddvq_f32(self) }
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
        unsafe fn quantise(from: *const f32, bits: Bits) -> ([u32; WORDS], f32, i32) {
            // SAFETY: 32 readable values by the contract.
            unsafe {
                let a = vld1q_f32_x4(from);
                let b = vld1q_f32_x4(from.add(16));
                let v = [a.0, a.1, a.2, a.3, b.0, b.1, b.2, b.3];
                let mut largest = vabsq_f32(v[0]);
                for v in &v[1..] {
                    largest = vmaxq_f32(largest, vabsq_f32(*v));
                }
                let largest = vmaxvq_f32(largest);
                let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
                let mut ints = [vdupq_n_s32(0); 8];
                for (i, v) in ints.iter_mut().zip(v) {
                    *i = vcvtnq_s32_f32(vmulq_n_f32(v, inverse));
                }
                let narrow = |i: usize| {
                    // Values are within a byte: the low halves are all there is.
                    let low = vuzp1q_s16(
                        vreinterpretq_s16_s32(ints[i]),
                        vreinterpretq_s16_s32(ints[i + 1]),
                    );
                    let high = vuzp1q_s16(
                        vreinterpretq_s16_s32(ints[i + 2]),
                        vreinterpretq_s16_s32(ints[i + 3]),
                    );
                    vuzp1q_s8(vreinterpretq_s8_s16(low), vreinterpretq_s8_s16(high))
                };
                let (first, second) = (narrow(0), narrow(4));
                let sum = vaddlvq_s16(vpadalq_s8(vpaddlq_s8(first), second));
                let (first, second) = match bits {
                    Bits::Four => (vuzp1q_s8(first, second), vuzp2q_s8(first, second)),
                    Bits::Eight => (first, second),
                };
                let mut words = [0; WORDS];
                vst1q_s8(words.as_mut_ptr().cast(), first);
                vst1q_s8(words.as_mut_ptr().add(WORDS / 2).cast(), second);
                (words, largest / 127.0, sum)
            }
        }
    }
}
