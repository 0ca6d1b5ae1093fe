//! AVX2: products of bytes by `pmaddubsw`.

use std::arch::x86_64::*;

use super::encode::RECORD;
use super::group::{Group, spread_nibbles};

/// Groups of 4 or of 8 bits. Two blocks in a register.
#[derive(Clone, Copy)]
pub(crate) struct Avx2<const BITS: usize>;

/// Sums pairs of products `u8 * i8` to i32. No pair may pass i16: quants of 4
/// bits are at most 15, and of 8 bits their magnitude at most 128.
///
/// # Safety
/// avx2.
#[inline(always)]
unsafe fn products(unsigned: __m256i, signed: __m256i) -> __m256i {
    // SAFETY: avx2 by the contract.
    unsafe { _mm256_madd_epi16(_mm256_maddubs_epi16(unsigned, signed), _mm256_set1_epi16(1)) }
}

/// Spreads four values over the lanes of their blocks.
///
/// # Safety
/// avx2.
#[inline(always)]
unsafe fn spread(v: __m128) -> [__m256; 2] {
    // SAFETY: avx2 by the contract.
    unsafe {
        let both = _mm256_castps128_ps256(v);
        [
            _mm256_permutevar8x32_ps(both, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1)),
            _mm256_permutevar8x32_ps(both, _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3)),
        ]
    }
}

/// Puts four integers into the first lane of their blocks.
///
/// # Safety
/// avx2.
#[inline(always)]
unsafe fn place(v: __m128i) -> [__m256i; 2] {
    // SAFETY: avx2 by the contract.
    unsafe {
        let both = _mm256_castsi128_si256(v);
        let mask = _mm256_setr_epi32(-1, 0, 0, 0, -1, 0, 0, 0);
        let first = _mm256_permutevar8x32_epi32(both, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
        let second = _mm256_permutevar8x32_epi32(both, _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3));
        [
            _mm256_and_si256(first, mask),
            _mm256_and_si256(second, mask),
        ]
    }
}

// SAFETY: used only beneath entries with avx2, fma and f16c.
unsafe impl<const BITS: usize> Group for Avx2<BITS> {
    /// Quants of 8 bits are made signed, or a pair of products would pass i16.
    const BIAS: f32 = if BITS == 4 { 0.0 } else { 128.0 };
    const RECORD: usize = RECORD;

    /// Of 4 bits: the low nibbles of two and two blocks, then the high ones.
    type Weights = [__m256i; 4];
    type Activations = [__m256i; 4];
    type Ints = [__m256i; 2];
    type Lanes = [__m256; 2];

    #[inline(always)]
    unsafe fn weights(from: *const u8) -> Self::Weights {
        // SAFETY: avx2, and a group's bytes are readable, by the contract.
        unsafe {
            let from: *const __m256i = from.cast();
            let (a, b) = (_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1)));
            if BITS == 4 {
                let low = _mm256_set1_epi8(15);
                [
                    _mm256_and_si256(a, low),
                    _mm256_and_si256(b, low),
                    _mm256_and_si256(_mm256_srli_epi16::<4>(a), low),
                    _mm256_and_si256(_mm256_srli_epi16::<4>(b), low),
                ]
            } else {
                let middle = _mm256_set1_epi8(-128);
                [
                    _mm256_xor_si256(a, middle),
                    _mm256_xor_si256(b, middle),
                    _mm256_xor_si256(_mm256_loadu_si256(from.add(2)), middle),
                    _mm256_xor_si256(_mm256_loadu_si256(from.add(3)), middle),
                ]
            }
        }
    }

    #[inline(always)]
    unsafe fn activations(from: *const i8) -> Self::Activations {
        // SAFETY: avx2, and 128 readable values, by the contract.
        unsafe {
            let from: *const __m256i = from.cast();
            [
                _mm256_loadu_si256(from),
                _mm256_loadu_si256(from.add(1)),
                _mm256_loadu_si256(from.add(2)),
                _mm256_loadu_si256(from.add(3)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn f16s(from: *const u16) -> Self::Lanes {
        // SAFETY: avx2 and f16c, and four readable values, by the contract.
        unsafe { spread(_mm_cvtph_ps(_mm_loadl_epi64(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn f32s(from: *const f32) -> Self::Lanes {
        // SAFETY: avx2, and four readable values, by the contract.
        unsafe { spread(_mm_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn ints(from: *const i32) -> Self::Ints {
        // SAFETY: avx2, and four readable values, by the contract.
        unsafe { place(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn zero() -> Self::Ints {
        // SAFETY: avx2 by the contract.
        unsafe { [_mm256_setzero_si256(); 2] }
    }

    #[inline(always)]
    unsafe fn zero_points(from: *const u8) -> Self::Ints {
        // SAFETY: avx2, and a group's zero points are readable, by the contract.
        unsafe {
            if BITS == 4 {
                let nibbles = spread_nibbles(from.cast::<u16>().read_unaligned());
                place(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(nibbles)))
            } else {
                let bytes = _mm_cvtsi32_si128(from.cast::<i32>().read_unaligned());
                let signed = _mm_sub_epi32(_mm_cvtepu8_epi32(bytes), _mm_set1_epi32(128));
                place(signed)
            }
        }
    }

    #[inline(always)]
    unsafe fn mul_ints_by_eighth(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        // SAFETY: avx2 by the contract.
        unsafe {
            [
                _mm256_srai_epi32::<3>(_mm256_mullo_epi32(a[0], b[0])),
                _mm256_srai_epi32::<3>(_mm256_mullo_epi32(a[1], b[1])),
            ]
        }
    }

    #[inline(always)]
    unsafe fn to_lanes(ints: Self::Ints) -> Self::Lanes {
        // SAFETY: avx2 by the contract.
        unsafe { [_mm256_cvtepi32_ps(ints[0]), _mm256_cvtepi32_ps(ints[1])] }
    }

    #[inline(always)]
    unsafe fn dot(w: Self::Weights, x: Self::Activations, start: Self::Ints) -> Self::Lanes {
        // SAFETY: avx2 by the contract.
        unsafe {
            if BITS == 4 {
                let a = _mm256_add_epi32(products(w[0], x[0]), products(w[2], x[2]));
                let b = _mm256_add_epi32(products(w[1], x[1]), products(w[3], x[3]));
                [
                    _mm256_cvtepi32_ps(_mm256_add_epi32(a, start[0])),
                    _mm256_cvtepi32_ps(_mm256_add_epi32(b, start[1])),
                ]
            } else {
                // A register is a block: |w| times x with the sign of w.
                let mut sums = [_mm256_setzero_si256(); 4];
                let mut i = 0;
                while i < 4 {
                    sums[i] = products(_mm256_abs_epi8(w[i]), _mm256_sign_epi8(x[i], w[i]));
                    i += 1;
                }
                // The two halves of each block are added: lanes 0 to 3 are then
                // the first block's, 4 to 7 the second's.
                let a = _mm256_add_epi32(
                    _mm256_permute2x128_si256::<0x20>(sums[0], sums[1]),
                    _mm256_permute2x128_si256::<0x31>(sums[0], sums[1]),
                );
                let b = _mm256_add_epi32(
                    _mm256_permute2x128_si256::<0x20>(sums[2], sums[3]),
                    _mm256_permute2x128_si256::<0x31>(sums[2], sums[3]),
                );
                [
                    _mm256_cvtepi32_ps(_mm256_add_epi32(a, start[0])),
                    _mm256_cvtepi32_ps(_mm256_add_epi32(b, start[1])),
                ]
            }
        }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Lanes {
        // SAFETY: avx2 by the contract.
        unsafe { [_mm256_set1_ps(value); 2] }
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        // SAFETY: avx2 by the contract.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn mul_add(a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
        // SAFETY: fma by the contract.
        unsafe {
            [
                _mm256_fmadd_ps(a[0], b[0], c[0]),
                _mm256_fmadd_ps(a[1], b[1], c[1]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        // SAFETY: a hint, which faults nowhere.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) };
    }

    #[inline(always)]
    unsafe fn halves(lanes: Self::Lanes) -> (Self::Lanes, Self::Lanes) {
        // SAFETY: avx2 by the contract.
        unsafe {
            let zero = _mm256_setzero_ps();
            ([lanes[0], zero], [zero, lanes[1]])
        }
    }

    #[inline(always)]
    unsafe fn fold(lanes: Self::Lanes) -> Self::Lanes {
        // SAFETY: avx2 by the contract.
        unsafe { [_mm256_add_ps(lanes[0], lanes[1]), _mm256_setzero_ps()] }
    }

    #[inline(always)]
    unsafe fn pack(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        [a[0], b[0]]
    }

    #[inline(always)]
    unsafe fn add(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        // SAFETY: avx2 by the contract.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn sums(lanes: [Self::Lanes; 4]) -> [f32; 4] {
        // SAFETY: avx2 by the contract.
        unsafe {
            sums_of(
                quarter(lanes[0]),
                quarter(lanes[1]),
                quarter(lanes[2]),
                quarter(lanes[3]),
            )
        }
    }
}

/// # Safety
/// avx2.
#[inline(always)]
unsafe fn quarter(lanes: [__m256; 2]) -> __m128 {
    // SAFETY: avx2 by the contract.
    unsafe {
        let both = _mm256_add_ps(lanes[0], lanes[1]);
        _mm_add_ps(
            _mm256_castps256_ps128(both),
            _mm256_extractf128_ps::<1>(both),
        )
    }
}

/// The sums of four vectors, each `(v0 + v2) + (v1 + v3)`.
///
/// # Safety
/// avx.
#[inline(always)]
pub(super) unsafe fn sums_of(a: __m128, b: __m128, c: __m128, d: __m128) -> [f32; 4] {
    // SAFETY: avx by the contract.
    unsafe {
        let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
        let (first, second) = (_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
        let (ab, cd) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
        let (third, fourth) = (_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
        let mut sums = [0.0; 4];
        let all = _mm_add_ps(_mm_add_ps(first, third), _mm_add_ps(second, fourth));
        _mm_storeu_ps(sums.as_mut_ptr(), all);
        sums
    }
}
