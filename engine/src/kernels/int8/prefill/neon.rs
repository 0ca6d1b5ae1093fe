//! What the tiles of both NEON backends share.

use std::arch::aarch64::*;

use super::Params;
use crate::kernels::f16::finite_f16;
use crate::kernels::vector::neon::widen_halves;

/// Rows of W in a tile.
pub(super) const ROWS: usize = 4;

/// Widens the scales of four rows: four blocks at a time, transposed.
///
/// # Safety
/// NEON.
#[inline(always)]
pub(super) unsafe fn scales(rows: [&[u16]; ROWS], params: &mut [Params<ROWS>]) {
    let blocks = params.len();
    assert!(rows.iter().all(|row| row.len() == blocks));
    if blocks < 4 {
        for (b, of) in params.iter_mut().enumerate() {
            for (scale, row) in of.scales.iter_mut().zip(rows) {
                *scale = finite_f16(row[b]);
            }
        }
        return;
    }
    for block in (0..blocks).step_by(4) {
        // The last four are read together, some of them again.
        let at = block.min(blocks - 4);
        // SAFETY: NEON; four scales of each row from `at` on.
        unsafe {
            let a = vld1_u16(rows[0].as_ptr().add(at));
            let b = vld1_u16(rows[1].as_ptr().add(at));
            let c = vld1_u16(rows[2].as_ptr().add(at));
            let d = vld1_u16(rows[3].as_ptr().add(at));
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
    }
}
