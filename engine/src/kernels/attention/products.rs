//! The products of attention: queries with a block of keys, weights with a block of
//! values, both for a few queries at a time.

use super::{BLOCK, partial_len};
use crate::kernels::kv_cache::{Element, HeadView, TILE};
use crate::kernels::vector::Vector;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Runs the body with `$n` as 0 to 3.
macro_rules! nth {
    ($n:ident, $body:block) => {
        nth!(@ $n $body 0 1 2 3)
    };
    (@ $n:ident $body:block $($value:literal)*) => {
        $({
            const $n: i32 = $value;
            $body
        })*
    };
}

/// `q k` for `len` positions from `block` on; what follows them in the last tile
/// is of no meaning.
///
/// # Safety
/// The vector's target features; the positions are in the cache.
#[inline(always)]
pub(super) unsafe fn scores<V: Vector, E: Element, const R: usize, const AHEAD: bool>(
    cache: &HeadView<'_, E>,
    block: usize,
    len: usize,
    q: &[f32],
    scores: &mut [[f32; BLOCK]; R],
) {
    // SAFETY: by the contract; so many vectors are a tile.
    unsafe {
        match V::LANES {
            // Two tiles, as one's sums would not keep the multipliers busy.
            16 => tiles::<V, E, R, 1, 2, AHEAD>(cache, block, len, q, scores),
            8 => tiles::<V, E, R, 2, 1, AHEAD>(cache, block, len, q, scores),
            4 => tiles::<V, E, R, 4, 1, AHEAD>(cache, block, len, q, scores),
            _ => tiles::<V, E, R, TILE, 1, AHEAD>(cache, block, len, q, scores),
        }
    }
}

/// [`scores`], `TILES` tiles of `N` vectors at a time.
///
/// # Safety
/// As for [`scores`]; `N` vectors are a tile.
#[inline(always)]
unsafe fn tiles<
    V: Vector,
    E: Element,
    const R: usize,
    const N: usize,
    const TILES: usize,
    const AHEAD: bool,
>(
    cache: &HeadView<'_, E>,
    block: usize,
    len: usize,
    q: &[f32],
    scores: &mut [[f32; BLOCK]; R],
) {
    let head_dim = cache.head_dim;
    for first in (0..len).step_by(TILES * TILE) {
        // SAFETY: features by the contract; tiles of keys, of which the cache has whole
        // ones; `R` queries.
        unsafe {
            let from = (block + first) * head_dim;
            let keys = cache.keys.as_ptr().add(from);
            let ahead = cache.values.as_ptr().wrapping_add(from);
            // A second tile that is none any more is the first one again.
            let second = if first + TILE < len {
                TILE * head_dim
            } else {
                0
            };
            let mut sums = [[[V::splat(0.0); N]; R]; TILES];
            let whole = head_dim - head_dim % 4;
            for d in (0..whole).step_by(4) {
                if AHEAD {
                    for tile in 0..TILES {
                        let ahead = ahead.wrapping_add((tile * head_dim + d) * TILE);
                        ask::<V, E>(ahead, 4 * TILE);
                    }
                }
                let mut four = [V::four(q.as_ptr().add(d)); R];
                for (r, four) in four.iter_mut().enumerate().skip(1) {
                    *four = V::four(q.as_ptr().add(r * head_dim + d));
                }
                for (tile, sums) in sums.iter_mut().enumerate() {
                    let keys = keys.add(tile * second + d * TILE);
                    nth!(J, {
                        let keys = E::load_each::<V, N>(keys.add(J as usize * TILE));
                        for (sums, four) in sums.iter_mut().zip(four) {
                            for (sum, key) in sums.iter_mut().zip(keys) {
                                *sum = key.mul_add_nth::<J>(four, *sum);
                            }
                        }
                    });
                }
            }
            for d in whole..head_dim {
                for (tile, sums) in sums.iter_mut().enumerate() {
                    let keys = E::load_each::<V, N>(keys.add(tile * second + d * TILE));
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let q = V::splat(q[r * head_dim + d]);
                        for (sum, key) in sums.iter_mut().zip(keys) {
                            *sum = key.mul_add(q, *sum);
                        }
                    }
                }
            }
            for (tile, sums) in sums.into_iter().enumerate() {
                for (sums, scores) in sums.into_iter().zip(&mut *scores) {
                    for (v, mut sum) in sums.into_iter().enumerate() {
                        let at = first + tile * TILE + v * V::LANES;
                        if E::SCALED && at < len {
                            let scales = V::load(cache.key_scales.as_ptr().add(block + at));
                            sum = sum.mul(scales);
                        }
                        sum.store(scores.as_mut_ptr().add(at));
                    }
                }
            }
        }
    }
}

/// Asks for `count` elements' cache lines.
///
/// # Safety
/// The vector's target features.
#[inline(always)]
unsafe fn ask<V: Vector, E: Element>(from: *const E, count: usize) {
    for line in (0..count).step_by(LINE / size_of::<E>()) {
        // SAFETY: features by the contract.
        unsafe { V::prefetch(from.wrapping_add(line).cast()) };
    }
}

/// Adds the weighted values of `len` positions from `block` on.
///
/// # Safety
/// The vector's target features; the positions are in the cache.
#[inline(always)]
pub(super) unsafe fn values<V: Vector, E: Element, const R: usize, const AHEAD: bool>(
    cache: &HeadView<'_, E>,
    block: usize,
    len: usize,
    weights: &[[f32; BLOCK]; R],
    partials: &mut [f32],
) {
    let head_dim = cache.head_dim;
    let stride = partial_len(head_dim);
    // SAFETY: features by the contract; columns below head_dim of the positions.
    unsafe {
        let from = cache.values.as_ptr().add(block * head_dim);
        // The next block's keys.
        let ahead = cache.keys.as_ptr().wrapping_add((block + len) * head_dim);
        let to = partials.as_mut_ptr();
        let mut d = 0;
        while d + 4 * V::LANES <= head_dim {
            let (from, to) = (from.add(d), to.add(d));
            // Each line once.
            let line = AHEAD && (d * size_of::<E>()).is_multiple_of(LINE);
            let ahead = line.then(|| ahead.wrapping_add(d));
            columns::<V, E, R, 4>(from, ahead, head_dim, len, weights, to, stride);
            d += 4 * V::LANES;
        }
        while d + V::LANES <= head_dim {
            let (from, to) = (from.add(d), to.add(d));
            columns::<V, E, R, 1>(from, None, head_dim, len, weights, to, stride);
            d += V::LANES;
        }
        while d < head_dim {
            let (from, to) = (from.add(d), to.add(d));
            columns::<f32, E, R, 1>(from, None, head_dim, len, weights, to, stride);
            d += 1;
        }
    }
}

/// Adds `C` vectors' columns of the weighted values; asks for as much, or a line of
/// each position, from `ahead` on.
///
/// # Safety
/// The vector's target features; the columns are there.
#[inline(always)]
unsafe fn columns<V: Vector, E: Element, const R: usize, const C: usize>(
    from: *const E,
    ahead: Option<*const E>,
    head_dim: usize,
    len: usize,
    weights: &[[f32; BLOCK]; R],
    to: *mut f32,
    stride: usize,
) {
    // SAFETY: features and places by the contract; `len` is at most a block.
    unsafe {
        let mut sums = [[V::splat(0.0); C]; R];
        for (r, sums) in sums.iter_mut().enumerate() {
            for (c, sum) in sums.iter_mut().enumerate() {
                *sum = V::load(to.add(r * stride + c * V::LANES));
            }
        }
        let whole = len - len % 4;
        for p in (0..whole).step_by(4) {
            let row = from.add(p * head_dim);
            if let Some(ahead) = ahead {
                for p in p..p + 4 {
                    ask::<V, E>(ahead.wrapping_add(p * head_dim), C * V::LANES);
                }
            }
            let mut four = [V::four(weights[0].as_ptr().add(p)); R];
            for (four, weights) in four.iter_mut().zip(weights) {
                *four = V::four(weights.as_ptr().add(p));
            }
            nth!(J, {
                let values = E::load_each::<V, C>(row.add(J as usize * head_dim));
                for (sums, four) in sums.iter_mut().zip(four) {
                    for (sum, value) in sums.iter_mut().zip(values) {
                        *sum = value.mul_add_nth::<J>(four, *sum);
                    }
                }
            });
        }
        for p in whole..len {
            let values = E::load_each::<V, C>(from.add(p * head_dim));
            for (sums, weights) in sums.iter_mut().zip(weights) {
                let weight = V::splat(weights[p]);
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = value.mul_add(weight, *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (c, sum) in sums.iter().enumerate() {
                sum.store(to.add(r * stride + c * V::LANES));
            }
        }
    }
}
