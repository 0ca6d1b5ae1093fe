//! AVX-512 with VNNI: products of bytes by `vpdpbusd`.

use std::arch::x86_64::*;

use super::avx2::sums_of;
use super::encode::RECORD;
use super::group::{Group, spread_nibbles};

/// Groups of 4 or of 8 bits. Of 4 bits, a register holds a group: the lanes 0 to
/// 3 sum the first block, 4 to 7 the second, and so on.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const BITS: usize>;

/// The first lane of each block.
const FIRST: __mmask16 = 0b0001_0001_0001_0001;

/// Spreads four values over the lanes of their blocks.
///
/// # Safety
/// avx512f.
#[inline(always)]
unsafe fn spread(v: __m128) -> __m512 {
    // SAFETY: avx512f by the contract.
    unsafe {
        let index = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        _mm512_permutexvar_ps(index, _mm512_castps128_ps512(v))
    }
}

/// Puts four integers into the first lane of their blocks.
///
/// # Safety
/// avx512f.
#[inline(always)]
unsafe fn place(v: __m128i) -> __m512i {
    // SAFETY: avx512f by the contract.
    unsafe { _mm512_maskz_expand_epi32(FIRST, _mm512_castsi128_si512(v)) }
}

// SAFETY: used only beneath entries with avx512f, avx512bw, avx512vnni and f16c.
unsafe impl<const BITS: usize> Group for Avx512<BITS> {
    const BIAS: f32 = 0.0;
    const RECORD: usize = RECORD;

    /// Of 4 bits: the low nibbles, the high ones. Of 8 bits: two and two blocks.
    type Weights = [__m512i; 2];
    type Activations = [__m512i; 2];
    type Ints = __m512i;
    type Lanes = __m512;

    #[inline(always)]
    unsafe fn weights(from: *const u8) -> Self::Weights {
        // SAFETY: the features, and a group's bytes are readable, by the contract.
        unsafe {
            let a = _mm512_loadu_si512(from.cast());
            if BITS == 4 {
                let low = _mm512_set1_epi8(15);
                [
                    _mm512_and_si512(a, low),
                    _mm512_and_si512(_mm512_srli_epi16::<4>(a), low),
                ]
            } else {
                [a, _mm512_loadu_si512(from.add(64).cast())]
            }
        }
    }

    #[inline(always)]
    unsafe fn activations(from: *const i8) -> Self::Activations {
        // SAFETY: the features, and 128 readable values, by the contract.
        unsafe {
            [
                _mm512_loadu_si512(from.cast()),
                _mm512_loadu_si512(from.add(64).cast()),
            ]
        }
    }

    #[inline(always)]
    unsafe fn f16s(from: *const u16) -> Self::Lanes {
        // SAFETY: the features, and four readable values, by the contract.
        unsafe { spread(_mm_cvtph_ps(_mm_loadl_epi64(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn f32s(from: *const f32) -> Self::Lanes {
        // SAFETY: the features, and four readable values, by the contract.
        unsafe { spread(_mm_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn ints(from: *const i32) -> Self::Ints {
        // SAFETY: the features, and four readable values, by the contract.
        unsafe { place(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn zero() -> Self::Ints {
        // SAFETY: the features by the contract.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn zero_points(from: *const u8) -> Self::Ints {
        // SAFETY: the features, and a group's zero points are readable, by the contract.
        unsafe {
            let bytes = if BITS == 4 {
                spread_nibbles(from.cast::<u16>().read_unaligned())
            } else {
                from.cast::<i32>().read_unaligned()
            };
            place(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(bytes)))
        }
    }

    #[inline(always)]
    unsafe fn mul_ints_by_eighth(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        // SAFETY: the features by the contract.
        unsafe { _mm512_srai_epi32::<3>(_mm512_mullo_epi32(a, b)) }
    }

    #[inline(always)]
    unsafe fn to_lanes(ints: Self::Ints) -> Self::Lanes {
        // SAFETY: the features by the contract.
        unsafe { _mm512_cvtepi32_ps(ints) }
    }

    #[inline(always)]
    unsafe fn dot(w: Self::Weights, x: Self::Activations, start: Self::Ints) -> Self::Lanes {
        // SAFETY: the features by the contract.
        unsafe {
            if BITS == 4 {
                let sums = _mm512_dpbusd_epi32(start, w[0], x[0]);
                _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(sums, w[1], x[1]))
            } else {
                // A register holds two blocks of 8 lanes: their halves are added,
                // so that each block has 4 lanes.
                let zero = _mm512_setzero_si512();
                let a = _mm512_dpbusd_epi32(zero, w[0], x[0]);
                let b = _mm512_dpbusd_epi32(zero, w[1], x[1]);
                let even = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
                let odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b);
                let sums = _mm512_add_epi32(even, odd);
                _mm512_cvtepi32_ps(_mm512_add_epi32(sums, start))
            }
        }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Lanes {
        // SAFETY: the features by the contract.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        // SAFETY: the features by the contract.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul_add(a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
        // SAFETY: the features by the contract.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        // SAFETY: a hint, which faults nowhere.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) };
    }

    #[inline(always)]
    unsafe fn halves(lanes: Self::Lanes) -> (Self::Lanes, Self::Lanes) {
        // SAFETY: the features by the contract.
        unsafe {
            (
                _mm512_maskz_mov_ps(0x00ff, lanes),
                _mm512_maskz_mov_ps(0xff00, lanes),
            )
        }
    }

    #[inline(always)]
    unsafe fn fold(lanes: Self::Lanes) -> Self::Lanes {
        // SAFETY: the features by the contract.
        unsafe { _mm512_zextps256_ps512(half(lanes)) }
    }

    #[inline(always)]
    unsafe fn pack(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        // SAFETY: the features by the contract.
        unsafe { _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b) }
    }

    #[inline(always)]
    unsafe fn add(a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        // SAFETY: the features by the contract.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn sums(lanes: [Self::Lanes; 4]) -> [f32; 4] {
        // SAFETY: the features by the contract.
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

/// Not `_mm512_reduce_add_ps`, which leaves the order of the additions open.
///
/// # Safety
/// avx512f.
#[inline(always)]
unsafe fn quarter(lanes: __m512) -> __m128 {
    // SAFETY: avx512f by the contract.
    unsafe {
        let both = half(lanes);
        _mm_add_ps(
            _mm256_castps256_ps128(both),
            _mm256_extractf128_ps::<1>(both),
        )
    }
}

/// The upper half added to the lower one.
///
/// # Safety
/// avx512f.
#[inline(always)]
unsafe fn half(lanes: __m512) -> __m256 {
    // SAFETY: avx512f by the contract.
    unsafe {
        _mm256_add_ps(
            _mm512_castps512_ps256(lanes),
            _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(lanes))),
        )
    }
}
