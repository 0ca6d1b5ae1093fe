//! AVX2 and AVX-512.

use super::{Bits, Slot, Vector};
use crate::kernels::int8::encode::avx2;
use std::arch::x86_64::*;

// SAFETY: used only beneath entries with avx2 and fma.
unsafe impl Vector for __m256 {
    const LANES: usize = 8;
    type Four = *const f32;

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
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: avx2 by the contract.
        unsafe { _mm256_add_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: avx2 by the contract.
        unsafe { _mm256_sub_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: avx2 by the contract.
        unsafe { _mm256_mul_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: fma by the contract.
        unsafe { _mm256_fmadd_ps(self, b, c) }
    }
    #[inline(always)]
    unsafe fn four(from: *const f32) -> Self::Four {
        from
    }
    #[inline(always)]
    unsafe fn mul_add_nth<const N: i32>(self, b: Self::Four, c: Self) -> Self {
        // SAFETY: the features, and four readable values, by the contract.
        unsafe { self.mul_add(Self::splat(*b.add(N as usize)), c) }
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
    unsafe fn largest(self) -> f32 {
        // SAFETY: avx2 by the contract.
        unsafe {
            let half = _mm_max_ps(
                _mm256_castps256_ps128(self),
                _mm256_extractf128_ps::<1>(self),
            );
            let quarter = _mm_max_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_max_ss(quarter, _mm_movehdup_ps(quarter)))
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
    #[inline(always)]
    unsafe fn halves(from: *const u16) -> Self {
        // SAFETY: f16c, and eight readable values by the contract.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn signed(from: *const i8) -> Self {
        // SAFETY: avx2, and eight readable bytes by the contract.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn to_halves(self, to: *mut u16) {
        // SAFETY: the features, and as many writable values as lanes, by the contract.
        unsafe {
            let halves = _mm256_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(self);
            _mm_storeu_si128(to.cast(), halves);
        }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: avx2 by the contract.
        unsafe { _mm256_min_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: avx2 by the contract.
        unsafe { _mm256_max_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: avx2 by the contract.
        unsafe { _mm256_div_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn scale_by_pow2(self, sum: Self) -> Self {
        // SAFETY: avx2 by the contract.
        unsafe {
            let n = _mm256_slli_epi32::<23>(_mm256_castps_si256(sum));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(self), n))
        }
    }
    #[inline(always)]
    unsafe fn quantise<const N: usize>(from: *const f32, bits: Bits, to: Slot) {
        // SAFETY: avx2, the values and the slots by the contract.
        unsafe { avx2::quantise::<N>(from, bits, to) }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        // SAFETY: SSE is always there; a prefetch cannot fault.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) };
    }
}

// SAFETY: used only beneath entries with avx512f.
unsafe impl Vector for __m512 {
    const LANES: usize = 16;
    type Four = *const f32;

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
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: avx512f by the contract.
        unsafe { _mm512_add_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: avx512f by the contract.
        unsafe { _mm512_sub_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: avx512f by the contract.
        unsafe { _mm512_mul_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: avx512f by the contract.
        unsafe { _mm512_fmadd_ps(self, b, c) }
    }
    #[inline(always)]
    unsafe fn four(from: *const f32) -> Self::Four {
        from
    }
    #[inline(always)]
    unsafe fn mul_add_nth<const N: i32>(self, b: Self::Four, c: Self) -> Self {
        // SAFETY: the features, and four readable values, by the contract.
        unsafe { self.mul_add(Self::splat(*b.add(N as usize)), c) }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: avx512f by the contract.
        unsafe { _mm512_reduce_add_ps(self) }
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        // SAFETY: avx512f by the contract.
        unsafe { _mm512_reduce_max_ps(self) }
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
    #[inline(always)]
    unsafe fn halves(from: *const u16) -> Self {
        // SAFETY: avx512f, and sixteen readable values by the contract.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn signed(from: *const i8) -> Self {
        // SAFETY: avx512f, and sixteen readable bytes by the contract.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn to_halves(self, to: *mut u16) {
        // SAFETY: the features, and as many writable values as lanes, by the contract.
        unsafe {
            let halves = _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(self);
            _mm256_storeu_si256(to.cast(), halves);
        }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: avx512f by the contract.
        unsafe { _mm512_min_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: avx512f by the contract.
        unsafe { _mm512_max_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: avx512f by the contract.
        unsafe { _mm512_div_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn scale_by_pow2(self, sum: Self) -> Self {
        // SAFETY: avx512f by the contract.
        unsafe {
            let n = _mm512_slli_epi32::<23>(_mm512_castps_si512(sum));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(self), n))
        }
    }
    #[inline(always)]
    unsafe fn quantise<const N: usize>(from: *const f32, bits: Bits, to: Slot) {
        // SAFETY: avx2, the values and the slots by the contract.
        unsafe { avx2::quantise::<N>(from, bits, to) }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        // SAFETY: SSE is always there; a prefetch cannot fault.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) };
    }
}
