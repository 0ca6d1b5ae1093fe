//! `y = x Wᵀ` with 4- or 8-bit weights and f32 activations: the reference for
//! quality.
//!
//! Decode (few rows of `x`) is bound by reading the weights: the `gemv`s
//! convert quants in registers. Prefill uses each weight many times: the `gemm`s
//! dequantise a few rows of W once and multiply them with all rows of `x`.

use std::ops::Range;

use super::backend::{Backend, kernel_entry};
use super::blocks::{BLOCK, Bits, BlockMatrix, Bytes, HALF, Layout, Nibbles};
use super::dense::dot;
use super::encoding::Encoded;
use super::linear::Output;
use super::vector::Vector;

/// Rows of W computed together: they share the loads of `x`.
const ROWS: usize = 4;
/// Rows of `x` from which dequantising a row of W first pays.
const GEMM_FROM: usize = 4;

/// Computes the columns `rows` (rows of `w`) of `y`.
///
/// # Safety
/// As for [`super::linear::linear`].
pub(super) unsafe fn linear(
    backend: Backend,
    w: &BlockMatrix<'_>,
    x: &Encoded<'_>,
    rows: Range<usize>,
    y: Output,
) {
    match (w.bits(), x.rows() < GEMM_FROM) {
        (Bits::Four, true) => gemv4(backend, w, x, rows, y),
        (Bits::Four, false) => gemm4(backend, w, x, rows, y),
        (Bits::Eight, true) => gemv8(backend, w, x, rows, y),
        (Bits::Eight, false) => gemm8(backend, w, x, rows, y),
    }
}

kernel_entry! {
    /// Decode, 4-bit: each row of W against each row of `x`.
    fn gemv4(w: &BlockMatrix<'_>, x: &Encoded<'_>, rows: Range<usize>, y: Output) = gemv_body<Nibbles>
}

kernel_entry! {
    /// Prefill, 4-bit: rows of W are dequantised once, then used for all of `x`.
    fn gemm4(w: &BlockMatrix<'_>, x: &Encoded<'_>, rows: Range<usize>, y: Output) = gemm_body<Nibbles>
}

kernel_entry! {
    /// Decode, 8-bit: each row of W against each row of `x`.
    fn gemv8(w: &BlockMatrix<'_>, x: &Encoded<'_>, rows: Range<usize>, y: Output) = gemv_body<Bytes>
}

kernel_entry! {
    /// Prefill, 8-bit: rows of W are dequantised once, then used for all of `x`.
    fn gemm8(w: &BlockMatrix<'_>, x: &Encoded<'_>, rows: Range<usize>, y: Output) = gemm_body<Bytes>
}

/// # Safety
/// The vector's target features; `y` as for [`linear`].
#[inline(always)]
unsafe fn gemv_body<V: Vector, L: Layout>(
    w: &BlockMatrix<'_>,
    x: &Encoded<'_>,
    rows: Range<usize>,
    y: Output,
) {
    let blocks = w.blocks();
    let mut scales = vec![0.0; ROWS * blocks];
    let mut offsets = vec![0.0; ROWS * blocks];
    let mut row = rows.start;
    while row < rows.end {
        let count = ROWS.min(rows.end - row);
        // A last, partial group computes its last row again and drops it.
        let group: [usize; ROWS] = std::array::from_fn(|i| row + i.min(count - 1));
        for (i, &r) in group.iter().enumerate() {
            let part = i * blocks..(i + 1) * blocks;
            w.scales_and_offsets(r, &mut scales[part.clone()], &mut offsets[part]);
        }
        for m in 0..x.rows() {
            // SAFETY: features by our own contract; the slices have the lengths
            // that `group_dot` asks for by construction of `w` and `x`.
            let products = unsafe {
                let quants = group.map(|r| w.quants(r).as_ptr());
                group_dot::<V, L>(quants, &scales, x.floats(m).0.as_ptr(), blocks)
            };
            for (i, product) in products.into_iter().enumerate().take(count) {
                let offsets = &offsets[i * blocks..(i + 1) * blocks];
                // SAFETY: features by our own contract; `blocks` values both.
                let offset = unsafe { dot::<V>(offsets, x.floats(m).1) };
                // SAFETY: m < x.rows and row + i < rows.end, by the loops.
                unsafe { y.set(m, row + i, product - offset) };
            }
        }
        row += count;
    }
}

/// `sum(scale * sum(quant * x))` for [`ROWS`] rows.
///
/// # Safety
/// The vector's target features; `blocks` blocks at each of `quants`,
/// `ROWS * blocks` scales, `blocks * 32` values at `x`.
#[inline(always)]
unsafe fn group_dot<V: Vector, L: Layout>(
    quants: [*const u8; ROWS],
    scales: &[f32],
    x: *const f32,
    blocks: usize,
) -> [f32; ROWS] {
    // SAFETY: features and lengths by the contract; `part` stays below 16.
    unsafe {
        let mut sums = [V::splat(0.0); ROWS];
        let bytes = const { L::BITS.block_bytes() };
        for block in 0..blocks {
            let mut part = 0;
            while part < HALF {
                let first = V::load(x.add(block * BLOCK + part));
                let second = V::load(x.add(block * BLOCK + HALF + part));
                for i in 0..ROWS {
                    let (a, b) = L::pair::<V>(quants[i].add(block * bytes), part);
                    let product = a.mul_add(first, b.mul(second));
                    let scale = V::splat(*scales.get_unchecked(i * blocks + block));
                    sums[i] = product.mul_add(scale, sums[i]);
                }
                part += V::LANES;
            }
        }
        // Not `sums.map`: a closure has no target features of its own, so the
        // sums would be calls.
        let mut products = [0.0; ROWS];
        for i in 0..ROWS {
            products[i] = sums[i].sum();
        }
        products
    }
}

/// # Safety
/// The vector's target features; `y` as for [`linear`].
#[inline(always)]
unsafe fn gemm_body<V: Vector, L: Layout>(
    w: &BlockMatrix<'_>,
    x: &Encoded<'_>,
    rows: Range<usize>,
    y: Output,
) {
    let (blocks, columns) = (w.blocks(), w.columns());
    let mut scales = vec![0.0; blocks];
    let mut offsets = vec![0.0; blocks];
    let mut weights = vec![0.0; ROWS * columns];
    let mut row = rows.start;
    while row < rows.end {
        let count = ROWS.min(rows.end - row);
        for (i, weights) in weights.chunks_exact_mut(columns).enumerate().take(count) {
            w.scales_and_offsets(row + i, &mut scales, &mut offsets);
            // SAFETY: features by our own contract; all of `columns` or `blocks` length.
            unsafe { dequantise::<V, L>(w.quants(row + i), &scales, &offsets, weights) };
        }
        let mut m = 0;
        while m < x.rows() {
            let tile = ROWS.min(x.rows() - m);
            let x_rows: [*const f32; ROWS] =
                std::array::from_fn(|j| x.floats(m + j.min(tile - 1)).0.as_ptr());
            // SAFETY: features by our own contract; every row has `columns` values.
            let products = unsafe { tile_dot::<V>(&weights, &x_rows, columns) };
            for (j, products) in products.into_iter().enumerate().take(tile) {
                for (i, product) in products.into_iter().enumerate().take(count) {
                    // SAFETY: m + j < x.rows and row + i < rows.end.
                    unsafe { y.set(m + j, row + i, product) };
                }
            }
            m += tile;
        }
        row += count;
    }
}

/// Dequantises a row in the order of the [`Activations`].
///
/// # Safety
/// The vector's target features; `quants` a block's bytes and `out` 32 values
/// per scale.
#[inline(always)]
unsafe fn dequantise<V: Vector, L: Layout>(
    quants: &[u8],
    scales: &[f32],
    offsets: &[f32],
    out: &mut [f32],
) {
    let blocks = quants
        .chunks_exact(L::BITS.block_bytes())
        .zip(out.chunks_exact_mut(BLOCK));
    for ((quants, out), (scale, offset)) in blocks.zip(scales.iter().zip(offsets)) {
        // SAFETY: features by the contract; chunks have a whole block, and the
        // lanes divide its half.
        unsafe {
            let (scale, offset) = (V::splat(*scale), V::splat(-*offset));
            let mut part = 0;
            while part < HALF {
                let (a, b) = L::pair::<V>(quants.as_ptr(), part);
                a.mul_add(scale, offset).store(out.as_mut_ptr().add(part));
                b.mul_add(scale, offset)
                    .store(out.as_mut_ptr().add(HALF + part));
                part += V::LANES;
            }
        }
    }
}

/// All products of [`ROWS`] rows of `x` with [`ROWS`] dequantised rows of W.
///
/// # Safety
/// The vector's target features; `ROWS * columns` weights and `columns` values
/// behind each of `x`; `columns` a multiple of 32.
#[inline(always)]
unsafe fn tile_dot<V: Vector>(
    weights: &[f32],
    x: &[*const f32; ROWS],
    columns: usize,
) -> [[f32; ROWS]; ROWS] {
    // SAFETY: features and lengths by the contract; the lanes divide 32.
    unsafe {
        let w = weights.as_ptr();
        let mut sums = [[V::splat(0.0); ROWS]; ROWS];
        let mut k = 0;
        while k < columns {
            let w: [V; ROWS] = [
                V::load(w.add(k)),
                V::load(w.add(columns + k)),
                V::load(w.add(2 * columns + k)),
                V::load(w.add(3 * columns + k)),
            ];
            for j in 0..ROWS {
                let x = V::load(x[j].add(k));
                for i in 0..ROWS {
                    sums[j][i] = w[i].mul_add(x, sums[j][i]);
                }
            }
            k += V::LANES;
        }
        let mut products = [[0.0; ROWS]; ROWS];
        for j in 0..ROWS {
            for i in 0..ROWS {
                products[j][i] = sums[j][i].sum();
            }
        }
        products
    }
}
