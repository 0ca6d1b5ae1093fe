//! Tiles with AVX-512 VNNI: a lane is a row of W, and `vpdpbusd` takes each word
//! of x from memory for all of them.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{Params, Tile};
use crate::kernels::blocks::BLOCK;
use crate::kernels::f16::finite_f16;
use crate::kernels::int8::Job;
use crate::kernels::int8::encode::{TILE, TILE_BLOCK};
use crate::kernels::int8::tile::{PACKED, SYMMETRIC};
use crate::kernels::linear::Output;

/// Rows of W in a tile.
const ROWS: usize = 16;

/// # Safety
/// AVX-512 VNNI; otherwise as for [`super::products`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma,f16c")]
pub(in crate::kernels::int8) unsafe fn vnni(job: &Job<'_>, rows: Range<usize>, tiles: usize) {
    // SAFETY: this function has the features; the rest by the contract.
    unsafe { super::products::<Vnni, ROWS>(job, rows, tiles) }
}

struct Vnni;

/// Four rows' quants of a block in the quarters of a register.
///
/// # Safety
/// avx512f; 16 readable bytes at each.
#[inline(always)]
unsafe fn quarters(rows: [*const u8; 4]) -> __m512i {
    // SAFETY: by the contract.
    unsafe {
        let all = _mm512_castsi128_si512(_mm_loadu_si128(rows[0].cast()));
        let all = _mm512_inserti32x4::<1>(all, _mm_loadu_si128(rows[1].cast()));
        let all = _mm512_inserti32x4::<2>(all, _mm_loadu_si128(rows[2].cast()));
        _mm512_inserti32x4::<3>(all, _mm_loadu_si128(rows[3].cast()))
    }
}

/// The words of 16 rows' quants, transposed, so that a register holds a word of
/// each row: four of low nibbles, then four of high ones.
///
/// # Safety
/// avx512f, avx512bw; 16 readable bytes at each.
#[inline(always)]
unsafe fn words(q: [*const u8; ROWS]) -> [__m512i; 8] {
    // SAFETY: by the contract.
    unsafe {
        let a = quarters([q[0], q[4], q[8], q[12]]);
        let b = quarters([q[1], q[5], q[9], q[13]]);
        let c = quarters([q[2], q[6], q[10], q[14]]);
        let d = quarters([q[3], q[7], q[11], q[15]]);
        let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
        let (ab_next, cd_next) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
        let words = [
            _mm512_unpacklo_epi64(ab, cd),
            _mm512_unpackhi_epi64(ab, cd),
            _mm512_unpacklo_epi64(ab_next, cd_next),
            _mm512_unpackhi_epi64(ab_next, cd_next),
        ];
        let low = _mm512_set1_epi8(15);
        let mut all = [words[0]; 8];
        for i in 0..4 {
            all[i] = _mm512_and_si512(words[i], low);
            all[4 + i] = _mm512_and_si512(_mm512_srli_epi16::<4>(words[i]), low);
        }
        all
    }
}

/// `sum + w x`, the word at `x` with each word of w.
///
/// # Safety
/// AVX-512 VNNI; a readable word.
#[inline(always)]
unsafe fn dot(sum: __m512i, w: __m512i, x: *const i32) -> __m512i {
    // SAFETY: by the contract.
    unsafe { _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(x.read())) }
}

// SAFETY: used only beneath the entry above.
unsafe impl Tile<ROWS> for Vnni {
    #[inline(always)]
    unsafe fn products<const F: u8>(
        mut quants: [*const u8; ROWS],
        params: &[Params<ROWS>],
        mut x: *const u8,
        y: Output,
    ) {
        // SAFETY: features and places by the contract.
        unsafe {
            let mut totals = [_mm512_setzero_ps(); TILE];
            for of in params {
                let w = words(quants);
                for q in &mut quants {
                    *q = q.add(BLOCK / 2);
                }
                let scales = _mm512_loadu_ps(of.scales.as_ptr());
                macro_rules! rows {
                    ($($t:literal)*) => {$(
                        let from: *const i32 = x.add($t * BLOCK).cast();
                        let of_x = x.add(TILE * BLOCK + 4 * $t);
                        let sums = _mm512_set1_epi32(of_x.add(4 * TILE).cast::<i32>().read());
                        let mut sum = match F {
                            SYMMETRIC => sums,
                            PACKED => {
                                let z = _mm512_loadu_si512(of.ints.as_ptr().cast());
                                _mm512_srai_epi32::<3>(_mm512_mullo_epi32(z, sums))
                            }
                            _ => _mm512_setzero_si512(),
                        };
                        sum = dot(sum, w[0], from.add(0));
                        sum = dot(sum, w[1], from.add(1));
                        sum = dot(sum, w[2], from.add(2));
                        sum = dot(sum, w[3], from.add(3));
                        sum = dot(sum, w[4], from.add(4));
                        sum = dot(sum, w[5], from.add(5));
                        sum = dot(sum, w[6], from.add(6));
                        sum = dot(sum, w[7], from.add(7));
                        let mut product = _mm512_cvtepi32_ps(sum);
                        if F != SYMMETRIC && F != PACKED {
                            let z = _mm512_loadu_ps(of.floats.as_ptr());
                            product = _mm512_fmadd_ps(z, _mm512_cvtepi32_ps(sums), product);
                        }
                        let x_scale = _mm512_set1_ps(of_x.cast::<f32>().read());
                        let scaled = _mm512_mul_ps(product, x_scale);
                        totals[$t] = _mm512_fmadd_ps(scaled, scales, totals[$t]);
                    )*};
                }
                rows!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
                x = x.add(TILE_BLOCK);
            }
            for (t, total) in totals.into_iter().enumerate() {
                let mut values = [0.0; ROWS];
                _mm512_storeu_ps(values.as_mut_ptr(), total);
                y.set_all(t, 0, values);
            }
        }
    }

    #[inline(always)]
    unsafe fn scales(rows: [&[u16]; ROWS], params: &mut [Params<ROWS>]) {
        let blocks = params.len();
        for (i, row) in rows.into_iter().enumerate() {
            let mut block = 0;
            let row = &row[..blocks];
            let (eights, rest) = row.as_chunks::<8>();
            for halves in eights {
                let mut wide = [0.0; 8];
                // SAFETY: f16c by the contract; eight values both.
                unsafe {
                    let halves = _mm_loadu_si128(halves.as_ptr().cast());
                    _mm256_storeu_ps(wide.as_mut_ptr(), _mm256_cvtph_ps(halves));
                }
                for (of, wide) in params[block..block + 8].iter_mut().zip(wide) {
                    of.scales[i] = wide;
                }
                block += 8;
            }
            for (of, &half) in params[block..].iter_mut().zip(rest) {
                of.scales[i] = finite_f16(half);
            }
        }
    }
}
