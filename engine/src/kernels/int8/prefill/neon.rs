//! What the tiles of both NEON backends share.

use std::arch::aarch64::*;

use super::Params;
use crate::kernels::f16::finite_f16;
use crate::kernels::vector::neon::{widen_halves, widen_high_halves};

/// Rows of W in a tile.
pub(super) const ROWS: usize = 4;

/// Blocks whose scales are read together.
const AT_ONCE: usize = 8;

/// Widens the scales of four rows: eight blocks at a time, transposed.
///
/// # Safety
/// NEON.
#[inline(always)]
pub(super) unsafe fn scales(rows: [&[u16]; ROWS], params: &mut [Params<ROWS>]) {
    let blocks = params.len();
    assert!(rows.iter().all(|row| row.len() == blocks));
    if blocks < AT_ONCE {
        for (b, of) in params.iter_mut().enumerate() {
            for (scale, row) in of.scales.iter_mut().zip(rows) {
                *scale = finite_f16(row[b]);
            }
        }
        return;
    }
    for block in (0..blocks).step_by(AT_ONCE) {
        // The last eight are read together, some of them again.
        let at = block.min(blocks - AT_ONCE);
        // SAFETY: NEON; eight scales of each row from `at` on, and as many params.
        unsafe {
            let [a, b, c, d] = rows.map(|row| vld1q_u16(row.as_ptr().add(at)));
            let (ac, bd) = (vzip1q_u16(a, c), vzip1q_u16(b, d));
            let (ac_next, bd_next) = (vzip2q_u16(a, c), vzip2q_u16(b, d));
            // Of two blocks each.
            let bits = [
                vzip1q_u16(ac, bd),
                vzip2q_u16(ac, bd),
                vzip1q_u16(ac_next, bd_next),
                vzip2q_u16(ac_next, bd_next),
            ];
            let to = params.as_mut_ptr().add(at);
            for (i, bits) in bits.into_iter().enumerate() {
                let (first, second) = (to.add(2 * i), to.add(2 * i + 1));
                let low = widen_halves(vget_low_u16(bits));
                vst1q_f32((&raw mut (*first).scales).cast(), low);
                vst1q_f32((&raw mut (*second).scales).cast(), widen_high_halves(bits));
            }
        }
    }
}
