//! Quantises blocks with AVX2: four of them share what is computed once for a block.

use std::arch::x86_64::*;

use super::quantise::{Slot, ZERO};
use crate::kernels::blocks::{BLOCK, Bits};

/// As [`super::quantise::quantise`], of up to four blocks; writes four scales and sums, of
/// which those of other blocks mean nothing.
///
/// # Safety
/// avx2; `N` times 32 readable values and four slots.
#[inline(always)]
pub(in crate::kernels) unsafe fn quantise<const N: usize>(from: *const f32, bits: Bits, to: Slot) {
    const { assert!(N <= 4) }
    // SAFETY: avx2 and the places by the contract.
    unsafe {
        let mut largest = [_mm256_setzero_si256(); 4];
        for (i, largest) in largest.iter_mut().enumerate().take(N) {
            *largest = magnitude(from.add(i * BLOCK));
        }
        let largest = _mm_castsi128_ps(across(largest));
        let whole = _mm_set1_ps(127.0);
        // False of a NaN.
        let some = _mm_cmpgt_ps(largest, _mm_set1_ps(ZERO));
        let inverses = _mm_and_ps(_mm_div_ps(whole, largest), some);
        _mm_storeu_ps(to.scale, _mm_div_ps(largest, whole));
        let mut of_block = [0.0; 4];
        _mm_storeu_ps(of_block.as_mut_ptr(), inverses);
        let mut sums = [_mm256_setzero_si256(); 4];
        for (i, sum) in sums.iter_mut().enumerate().take(N) {
            let inverse = _mm256_set1_ps(of_block[i]);
            let bytes = bytes(from.add(i * BLOCK), inverse, bits);
            _mm256_storeu_si256(to.words.add(i).cast(), bytes);
            let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
            *sum = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
        }
        let [a, b, c, d] = sums;
        let sums = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
        let sums = _mm_add_epi32(
            _mm256_castsi256_si128(sums),
            _mm256_extracti128_si256::<1>(sums),
        );
        let eighths = _mm_sub_epi32(_mm_setzero_si128(), _mm_slli_epi32::<3>(sums));
        _mm_storeu_si128(to.sum.cast(), eighths);
    }
}

/// The largest magnitude in each of eight lanes of a block, as integers: a NaN
/// is then the largest.
///
/// # Safety
/// avx2; 32 readable values.
#[inline(always)]
unsafe fn magnitude(from: *const f32) -> __m256i {
    // SAFETY: avx2 and the values by the contract.
    unsafe {
        let mask = _mm256_set1_epi32(i32::MAX);
        let mut largest = _mm256_setzero_si256();
        for i in 0..4 {
            let v = _mm256_loadu_si256(from.add(8 * i).cast());
            largest = _mm256_max_epi32(largest, _mm256_and_si256(v, mask));
        }
        largest
    }
}

/// The largest lane of each.
///
/// # Safety
/// avx2.
#[inline(always)]
unsafe fn across([a, b, c, d]: [__m256i; 4]) -> __m128i {
    // SAFETY: avx2 by the contract.
    unsafe {
        let ab = _mm256_max_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let cd = _mm256_max_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        let all = _mm256_max_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
        _mm_max_epi32(
            _mm256_castsi256_si128(all),
            _mm256_extracti128_si256::<1>(all),
        )
    }
}

/// A block's values times `inverse`, rounded, in order.
///
/// # Safety
/// avx2; 32 readable values.
#[inline(always)]
unsafe fn bytes(from: *const f32, inverse: __m256, bits: Bits) -> __m256i {
    // SAFETY: avx2 and the values by the contract.
    unsafe {
        let mut ints = [_mm256_setzero_si256(); 4];
        for (i, ints) in ints.iter_mut().enumerate() {
            let v = _mm256_loadu_ps(from.add(8 * i));
            *ints = _mm256_cvtps_epi32(_mm256_mul_ps(v, inverse));
        }
        let [a, b, c, d] = ints;
        // The halves of the registers are packed apart: words 0, 2, 4, 6, 1, ...
        let packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        let bytes = _mm256_permutevar8x32_epi32(packed, order);
        match bits {
            Bits::Four => {
                let even_odd = _mm256_broadcastsi128_si256(_mm_setr_epi8(
                    0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15,
                ));
                let apart = _mm256_shuffle_epi8(bytes, even_odd);
                _mm256_permute4x64_epi64::<0b11_01_10_00>(apart)
            }
            Bits::Eight => bytes,
        }
    }
}
