//! Attention of queries over the KV cache of their head, and RoPE.
//!
//! One pass over blocks of positions with the softmax kept up to date (online
//! softmax: Milakov and Gimelshein 2018; FlashAttention: Dao et al. 2022). A key
//! or value is read once for up to four queries of the heads that share it.
//!
//! What comes out for a query is the same, to the bit, whatever other queries are
//! computed with it: blocks and spans of positions are cut at fixed places.

mod products;

use self::products::{scores, values};
use super::backend::{Backend, kernel_entry};
use super::kv_cache::{Element, HeadView, TILE, View};
use super::vector::Vector;

/// Positions between two looks at the softmax's maximum.
const BLOCK: usize = 64;
/// Positions whose part of the softmax is computed by itself, so that threads can
/// share a long context; the parts are then merged in order.
pub(crate) const SPAN: usize = 512;
/// Queries that share the loads of keys and values.
const ROWS: usize = 4;

/// Rotates a head in place (RoPE, Su et al. 2021, in the half-split form of
/// Hugging Face's Llama): `x[i]` and `x[i + half]` turn by the angle whose
/// cosine and sine are given, `half` of each.
pub(crate) fn rotate(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = x.split_at_mut(cos.len());
    for ((a, b), (c, s)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
        (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
    }
}

/// f32 of a query's partial result: what the values sum up to, `head_dim`, the
/// maximum and the sum of the softmax.
pub(crate) const fn partial_len(head_dim: usize) -> usize {
    head_dim + 2
}

/// Attention of queries over one span of positions, before it is divided by the
/// softmax's sum.
///
/// `q` is `[queries, head_dim]`, rotated and scaled; query `i` sees the first
/// `seen(i)` positions; `partials` is `[queries, partial_len(head_dim)]`.
pub(crate) fn attend_span(
    backend: Backend,
    cache: &View<'_>,
    span: usize,
    q: &[f32],
    seen: Seen,
    partials: &mut [f32],
) {
    match cache {
        View::F32(view) => attend_f32(backend, view, span, q, seen, partials),
        View::F16(view) => attend_f16(backend, view, span, q, seen, partials),
        View::Int8(view) => attend_int8(backend, view, span, q, seen, partials),
    }
}

/// How many positions the queries see: `group` queries at a time one more.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    /// Positions that the first queries see.
    pub(crate) first: usize,
    /// Queries of one position: the heads that share the cache.
    pub(crate) group: usize,
}

impl Seen {
    #[inline(always)]
    fn of(self, query: usize) -> usize {
        self.first + query / self.group
    }
}

/// Puts a span's partial results to those of the spans before it.
pub(crate) fn merge(head_dim: usize, total: &mut [f32], partial: &[f32]) {
    let len = partial_len(head_dim);
    for (total, partial) in total.chunks_exact_mut(len).zip(partial.chunks_exact(len)) {
        let (values, [max, sum]) = split(total);
        let (more, &[more_max, more_sum]) = partial.split_last_chunk().unwrap_or((&[], &[0.0; 2]));
        let largest = if *max > more_max { *max } else { more_max };
        let (scale, more_scale) = (libm::expf(*max - largest), libm::expf(more_max - largest));
        for (value, more) in values.iter_mut().zip(more) {
            *value = *value * scale + more * more_scale;
        }
        *sum = *sum * scale + more_sum * more_scale;
        *max = largest;
    }
}

/// Writes the attention of a query, `head_dim` values.
pub(crate) fn finish(partial: &[f32], out: &mut [f32]) {
    let sum = partial[partial.len() - 1];
    for (out, value) in out.iter_mut().zip(partial) {
        *out = value / sum;
    }
}

fn split(partial: &mut [f32]) -> (&mut [f32], [&mut f32; 2]) {
    let at = partial.len() - 2;
    let (values, rest) = partial.split_at_mut(at);
    let (max, sum) = rest.split_at_mut(1);
    (values, [&mut max[0], &mut sum[0]])
}

kernel_entry! {
    /// [`attend_span`] over f32.
    fn attend_f32(cache: &HeadView<'_, f32>, span: usize, q: &[f32], seen: Seen, partials: &mut [f32]) = attend_body<f32>
}

kernel_entry! {
    /// [`attend_span`] over f16.
    fn attend_f16(cache: &HeadView<'_, u16>, span: usize, q: &[f32], seen: Seen, partials: &mut [f32]) = attend_body<u16>
}

kernel_entry! {
    /// [`attend_span`] over int8.
    fn attend_int8(cache: &HeadView<'_, i8>, span: usize, q: &[f32], seen: Seen, partials: &mut [f32]) = attend_body<i8>
}

/// # Safety
/// The vector's target features.
#[inline(always)]
unsafe fn attend_body<V: Vector, E: Element>(
    cache: &HeadView<'_, E>,
    span: usize,
    q: &[f32],
    seen: Seen,
    partials: &mut [f32],
) {
    let head_dim = cache.head_dim;
    let queries = q.len() / head_dim;
    assert!(queries > 0 && partials.len() == queries * partial_len(head_dim));
    assert!(seen.of(queries - 1) <= cache.positions());
    let mut first = 0;
    while first < queries {
        let count = (queries - first).min(ROWS);
        let q = &q[first * head_dim..][..count * head_dim];
        let out = &mut partials[first * partial_len(head_dim)..][..count * partial_len(head_dim)];
        let mut limits = [0; ROWS];
        for (i, limit) in limits.iter_mut().enumerate().take(count) {
            *limit = seen.of(first + i);
        }
        // Queries that are alone wait for the memory, more find it in the cache.
        let alone = queries <= ROWS;
        // SAFETY: features by the contract; `count` queries, partials and limits.
        unsafe {
            match (count, alone) {
                (1, true) => rows::<V, E, 1, true>(cache, span, q, &limits, out),
                (2, true) => rows::<V, E, 2, true>(cache, span, q, &limits, out),
                (3, true) => rows::<V, E, 3, true>(cache, span, q, &limits, out),
                (_, true) => rows::<V, E, ROWS, true>(cache, span, q, &limits, out),
                (1, false) => rows::<V, E, 1, false>(cache, span, q, &limits, out),
                (2, false) => rows::<V, E, 2, false>(cache, span, q, &limits, out),
                (3, false) => rows::<V, E, 3, false>(cache, span, q, &limits, out),
                (_, false) => rows::<V, E, ROWS, false>(cache, span, q, &limits, out),
            }
        }
        first += count;
    }
}

/// `R` queries over a span. `AHEAD`: asks for the values of a block while its keys
/// are read, and for the next block's keys meanwhile.
///
/// # Safety
/// The vector's target features; `R` queries and partials; the limits are at most
/// the cache's positions and do not fall.
#[inline(always)]
unsafe fn rows<V: Vector, E: Element, const R: usize, const AHEAD: bool>(
    cache: &HeadView<'_, E>,
    span: usize,
    q: &[f32],
    limits: &[usize; ROWS],
    partials: &mut [f32],
) {
    let head_dim = cache.head_dim;
    let stride = partial_len(head_dim);
    let start = span * SPAN;
    let end = limits[R - 1].min(start + SPAN);
    let mut max = [f32::NEG_INFINITY; R];
    // SAFETY: features by the contract.
    let mut sum = [unsafe { V::splat(0.0) }; R];
    for partial in partials.chunks_exact_mut(stride) {
        partial[..head_dim].fill(0.0);
    }
    let mut weights = [[0.0f32; BLOCK]; R];
    let mut block = start;
    while block < end {
        let len = BLOCK.min(end - block);
        // SAFETY: features by the contract; positions below the cache's.
        unsafe {
            scores::<V, E, R, AHEAD>(cache, block, len, q, &mut weights);
            for r in 0..R {
                let valid = limits[r].saturating_sub(block).min(len);
                let values = &mut partials[r * stride..][..head_dim];
                softmax::<V>(&mut weights[r], valid, &mut max[r], &mut sum[r], values);
                if E::SCALED {
                    let scales = &cache.value_scales[block..block + valid];
                    for (weight, scale) in weights[r].iter_mut().zip(scales) {
                        *weight *= scale;
                    }
                }
            }
            values::<V, E, R, AHEAD>(cache, block, len, &weights, partials);
        }
        block += len;
    }
    for r in 0..R {
        let (_, [to_max, to_sum]) = split(&mut partials[r * stride..][..stride]);
        // SAFETY: features by the contract.
        (*to_max, *to_sum) = (max[r], unsafe { sum[r].sum() });
    }
}

/// Turns a block's first `valid` scores into weights, the others into 0, and
/// brings the maximum, the lanes of the sum and the values so far up to date.
///
/// # Safety
/// The vector's target features.
#[inline(always)]
unsafe fn softmax<V: Vector>(
    scores: &mut [f32; BLOCK],
    valid: usize,
    max: &mut f32,
    sum: &mut V,
    values: &mut [f32],
) {
    if valid == 0 {
        scores.fill(0.0);
        return;
    }
    // What fills the last vector weighs next to nothing in the sum, of which the
    // largest score's part is 1.
    let filled = valid.next_multiple_of(V::LANES);
    scores[valid..filled].fill(f32::NEG_INFINITY);
    // SAFETY: features by the contract; the lanes divide a block.
    unsafe {
        let at = scores.as_mut_ptr();
        let mut lanes = V::splat(*max);
        for i in (0..filled).step_by(V::LANES) {
            lanes = V::load(at.add(i)).max(lanes);
        }
        let largest = lanes.largest();
        if largest > *max {
            let mut scale = [0.0f32; TILE];
            if *max > f32::NEG_INFINITY {
                V::splat(*max - largest).exp().store(scale.as_mut_ptr());
            }
            let scale = scale[0];
            for value in values.iter_mut() {
                *value *= scale;
            }
            *sum = sum.mul(V::splat(scale));
            *max = largest;
        }
        // Most blocks raise it no more: the processor foresees that, and need not
        // wait for the largest lane.
        let minus_max = V::splat(-*max);
        let mut total = *sum;
        for i in (0..filled).step_by(V::LANES) {
            let weights = V::load(at.add(i)).add(minus_max).exp();
            weights.store(at.add(i));
            total = total.add(weights);
        }
        *sum = total;
    }
    scores[valid..].fill(0.0);
}

#[cfg(test)]
mod tests {
    use super::super::blocks::tests::Lcg;
    use super::super::kv_cache::{KvCache, KvFormat};
    use super::*;

    const FORMATS: [KvFormat; 3] = [KvFormat::F32, KvFormat::F16, KvFormat::Int8];

    fn reference(q: &[f32], keys: &[f32], values: &[f32]) -> Vec<f64> {
        let n = q.len();
        let dot = |k: &[f32]| -> f64 {
            q.iter()
                .zip(k)
                .map(|(&a, &b)| f64::from(a) * f64::from(b))
                .sum()
        };
        let scores: Vec<f64> = keys.chunks_exact(n).map(dot).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        (0..n)
            .map(|i| {
                let weigh = |(s, v): (&f64, &[f32])| (s - max).exp() / sum * f64::from(v[i]);
                scores.iter().zip(values.chunks_exact(n)).map(weigh).sum()
            })
            .collect()
    }

    fn attend(backend: Backend, view: &View<'_>, q: &[f32], seen: Seen, n: usize) -> Vec<f32> {
        let queries = q.len() / n;
        let last = seen.of(queries - 1);
        let mut total = vec![f32::NAN; queries * partial_len(n)];
        let mut partial = total.clone();
        attend_span(backend, view, 0, q, seen, &mut total);
        for span in 1..last.div_ceil(SPAN) {
            attend_span(backend, view, span, q, seen, &mut partial);
            merge(n, &mut total, &partial);
        }
        let mut out = vec![f32::NAN; q.len()];
        for (partial, out) in total
            .chunks_exact(partial_len(n))
            .zip(out.chunks_exact_mut(n))
        {
            finish(partial, out);
        }
        out
    }

    /// A cache of one head, filled, and what it stands for.
    fn filled(format: KvFormat, n: usize, positions: usize) -> (KvCache, Vec<f32>, Vec<f32>) {
        let mut rng = Lcg((n * positions) as u64);
        let mut cache = KvCache::new(Backend::detect(), format, 1, n, positions + 5).unwrap();
        for _ in 0..positions {
            let (k, v) = (rng.units(n), rng.units(n));
            cache.write(0, cache.len(), &k, &v);
            cache.grow(1);
        }
        let (keys, values) = cache.read(0);
        (cache, keys, values)
    }

    #[test]
    fn every_backend_and_format_agrees_with_the_reference() {
        println!("backends run: {:?}", Backend::available());
        for n in [2, 10, 24, 64, 80, 96, 128] {
            for positions in [1, 2, 7, 16, 33, 65, 300, 1100] {
                for format in FORMATS {
                    let (cache, keys, values) = filled(format, n, positions);
                    // The last scale makes the softmax all but one-hot.
                    for scale in [0.125, 1.0, 40.0] {
                        let q: Vec<f32> = Lcg(5).units(3 * n).iter().map(|q| q * scale).collect();
                        let expected: Vec<f64> = q
                            .chunks_exact(n)
                            .flat_map(|q| reference(q, &keys, &values))
                            .collect();
                        let seen = Seen {
                            first: positions,
                            group: 3,
                        };
                        for backend in Backend::available() {
                            let out = attend(backend, &cache.view(0), &q, seen, n);
                            for (got, want) in out.iter().zip(&expected) {
                                let error = (f64::from(*got) - want).abs();
                                assert!(
                                    error < 1e-4,
                                    "{backend:?} {format:?} {n} {positions}: {error}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_query_does_not_depend_on_those_beside_it() {
        for (n, group, positions, new) in [(64, 3, 40, 9), (24, 1, 530, 6), (80, 4, 1030, 12)] {
            for format in FORMATS {
                let (cache, keys, values) = filled(format, n, positions);
                let q = Lcg(3).units(new * group * n);
                let first = positions - new + 1;
                for backend in Backend::available() {
                    let view = cache.view(0);
                    let together = attend(backend, &view, &q, Seen { first, group }, n);
                    for i in 0..new {
                        let part = i * group * n..(i + 1) * group * n;
                        let seen = Seen {
                            first: first + i,
                            group,
                        };
                        let alone = attend(backend, &view, &q[part.clone()], seen, n);
                        assert_eq!(together[part.clone()], alone, "{backend:?} {format:?}");
                        // And it sees what it may, nothing more.
                        let end = (first + i) * n;
                        let want = reference(&q[part.start..][..n], &keys[..end], &values[..end]);
                        for (got, want) in alone.iter().zip(want) {
                            assert!((f64::from(*got) - want).abs() < 1e-4);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rotation_keeps_length_and_turns_by_the_angle() {
        let angle = 0.7f32;
        let mut x = [1.0, 0.0, 0.0, 2.0];
        rotate(&mut x, &[angle.cos(); 2], &[angle.sin(); 2]);
        let expected = [
            angle.cos(),
            -2.0 * angle.sin(),
            angle.sin(),
            2.0 * angle.cos(),
        ];
        for (got, want) in x.iter().zip(expected) {
            assert!((got - want).abs() < 1e-6);
        }
    }
}
