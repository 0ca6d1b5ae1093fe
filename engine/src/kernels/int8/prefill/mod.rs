//! Prefill: 16 rows of x against a few rows of W, of 4 bits.
//!
//! In decode a lane sums a block, and the activations of each block fill whole
//! registers. With many rows of x it is the other way round: the words of some
//! rows of W are transposed, so that a lane is a row (or a row of W and one of x),
//! and words of x come one by one. The scales of a block are then applied once
//! for several rows, and a load of activations serves more products.
//!
//! The rows of x are encoded in tiles for it (see [`super::encode`]). The sums run
//! over the blocks in one lane: they are not those of [`super::tile`] to the bit.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod sdot;
#[cfg(target_arch = "aarch64")]
mod smmla;
#[cfg(target_arch = "x86_64")]
mod vnni;

use std::ops::Range;

use super::Job;
use super::encode::TILE;
use super::tile::{OTHER, PACKED, SYMMETRIC};
use crate::kernels::blocks::{Bits, Floats};
use crate::kernels::linear::Output;

#[cfg(target_arch = "x86_64")]
pub(super) use vnni::vnni;
#[cfg(target_arch = "aarch64")]
pub(super) use {sdot::sdot, smmla::smmla};

/// Rows of W that pass while a tile of x stays in the first cache.
const STRIPE: usize = 16;

/// Most rows of W in a tile.
const MOST_ROWS: usize = STRIPE;

/// Some rows' scales of a block, and their zero points: as integers, or an eighth
/// of them as floats, for the sums of x, which are times eight.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Params<const ROWS: usize> {
    scales: [f32; ROWS],
    ints: [i32; ROWS],
    floats: [f32; ROWS],
}

/// The products of [`TILE`] rows of x with `ROWS` rows of W on one backend.
///
/// # Safety
/// Every method may use instructions of the implementing backend: they are called
/// only beneath an entry function that has its target features.
unsafe trait Tile<const ROWS: usize> {
    /// The products of form `F`: of each row of x with each row of W, to the first
    /// rows and columns of `y`.
    ///
    /// # Safety
    /// A row's quants at each of `quants`, `params` for its blocks, and a tile of as
    /// many blocks at `x`, in the order that the backend asks for; the places in `y`
    /// are this thread's.
    unsafe fn products<const F: u8>(
        quants: [*const u8; ROWS],
        params: &[Params<ROWS>],
        x: *const u8,
        y: Output,
    );

    /// Widens the scales of some rows, of as many blocks as `params`.
    ///
    /// # Safety
    /// The backend's features.
    unsafe fn scales(rows: [&[u16]; ROWS], params: &mut [Params<ROWS>]);
}

/// Computes the columns `rows` of the first `tiles * 16` rows of `y`.
///
/// # Safety
/// The backend's features; `job` as for [`super::linear`], with weights of 4 bits
/// and so many rows of x encoded in tiles.
#[inline(always)]
unsafe fn products<B: Tile<ROWS>, const ROWS: usize>(
    job: &Job<'_>,
    rows: Range<usize>,
    tiles: usize,
) {
    // SAFETY: by the contract.
    unsafe {
        match super::form(job.w) {
            SYMMETRIC => products_of::<B, ROWS, SYMMETRIC>(job, rows, tiles),
            PACKED => products_of::<B, ROWS, PACKED>(job, rows, tiles),
            _ => products_of::<B, ROWS, OTHER>(job, rows, tiles),
        }
    }
}

/// # Safety
/// As for [`products`], with weights of the form `F`.
#[inline(always)]
unsafe fn products_of<B: Tile<ROWS>, const ROWS: usize, const F: u8>(
    job: &Job<'_>,
    rows: Range<usize>,
    tiles: usize,
) {
    const { assert!(STRIPE.is_multiple_of(ROWS)) };
    debug_assert_eq!(job.w.bits(), Bits::Four);
    let blocks = job.w.blocks();
    let (quants, row_bytes) = (job.w.parts().0.as_ptr(), blocks * Bits::Four.block_bytes());
    let zero = Params {
        scales: [0.0; ROWS],
        ints: [0; ROWS],
        floats: [0.0; ROWS],
    };
    let mut params = vec![zero; blocks * (STRIPE / ROWS)];
    for stripe in rows.clone().step_by(STRIPE) {
        let end = (stripe + STRIPE).min(rows.end);
        // The last rows may be fewer: the last one is computed again then.
        let strip = |first: usize| -> [usize; ROWS] {
            let mut rows = [0; ROWS];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = (first + i).min(end - 1);
            }
            rows
        };
        let firsts = (stripe..end).step_by(ROWS);
        for (first, params) in firsts.clone().zip(params.chunks_exact_mut(blocks)) {
            // SAFETY: the features by the contract.
            unsafe { read_params::<B, ROWS, F>(job, strip(first), params) };
        }
        for tile in 0..tiles {
            let x = job.x.wrapping_add(tile * TILE * job.x_stride);
            for (first, params) in firsts.clone().zip(params.chunks_exact(blocks)) {
                let quants = strip(first).map(|row| quants.wrapping_add(row * row_bytes));
                let y = job.y.at(tile * TILE, first);
                let count = ROWS.min(end - first);
                // SAFETY: the features, a tile of x, rows of W, and these rows and
                // columns of y by the contract.
                unsafe {
                    if count == ROWS {
                        B::products::<F>(quants, params, x, y);
                    } else {
                        let mut all = [0.0; MOST_ROWS * TILE];
                        B::products::<F>(quants, params, x, Output::new(&mut all, ROWS, 0));
                        for (t, values) in all.chunks_exact(ROWS).enumerate().take(TILE) {
                            for (i, &value) in values.iter().enumerate().take(count) {
                                y.set(t, i, value);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Reads the scales and zero points of all blocks of some rows.
///
/// # Safety
/// The backend's features.
#[inline(always)]
unsafe fn read_params<B: Tile<ROWS>, const ROWS: usize, const F: u8>(
    job: &Job<'_>,
    rows: [usize; ROWS],
    params: &mut [Params<ROWS>],
) {
    let blocks = params.len();
    if let Floats::F16(scales) = job.w.parts().1 {
        let of_rows = rows.map(|row| &scales[row * blocks..][..blocks]);
        // SAFETY: the features by the contract.
        unsafe { B::scales(of_rows, params) };
    }
    if F == SYMMETRIC {
        return;
    }
    let f32_scales = matches!(job.w.parts().1, Floats::F32(_));
    for (b, of) in params.iter_mut().enumerate() {
        for (i, &row) in rows.iter().enumerate() {
            let (scale, zero_point) = job.w.scale_and_zero_point(row, b);
            if f32_scales {
                of.scales[i] = scale;
            }
            of.ints[i] = zero_point as i32;
            of.floats[i] = zero_point / 8.0;
        }
    }
}
