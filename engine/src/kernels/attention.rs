//! Attention of one query over the KV cache of its head, and RoPE.

use super::backend::kernel_entry;
use super::dense::{add_scaled, dot};
use super::vector::Vector;

/// Rotates a head in place (RoPE, Su et al. 2021, in the half-split form of
/// Hugging Face's Llama): `x[i]` and `x[i + half]` turn by the angle whose
/// cosine and sine are given, `half` of each.
pub(crate) fn rotate(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = x.split_at_mut(cos.len());
    for ((a, b), (c, s)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
        (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
    }
}

kernel_entry! {
    /// `out = softmax(scale * q Kᵀ) V` of one query.
    ///
    /// `q` and `out` are `[head_dim]`, `keys` and `values` `[positions, head_dim]`
    /// row by row; `scores` is scratch, `[positions]`.
    fn attend(
        q: &[f32],
        keys: &[f32],
        values: &[f32],
        scale: f32,
        scores: &mut [f32],
        out: &mut [f32],
    ) = attend_body
}

/// # Safety
/// The vector's target features.
#[inline(always)]
unsafe fn attend_body<V: Vector>(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    scale: f32,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let head_dim = q.len();
    assert!(out.len() == head_dim && keys.len() == values.len());
    let mut max = f32::NEG_INFINITY;
    for (score, key) in scores.iter_mut().zip(keys.chunks_exact(head_dim)) {
        // SAFETY: features by the contract; both have head_dim values.
        *score = scale * unsafe { dot::<V>(q, key) };
        max = max.max(*score);
    }
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - max).exp();
        sum += *score;
    }
    out.fill(0.0);
    for (score, value) in scores.iter().zip(values.chunks_exact(head_dim)) {
        // SAFETY: features by the contract; both have head_dim values.
        unsafe { add_scaled::<V>(out, *score / sum, value) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::Backend;
    use super::super::blocks::tests::Lcg;
    use super::*;

    fn reference(q: &[f32], keys: &[f32], values: &[f32], scale: f32) -> Vec<f64> {
        let n = q.len();
        let scores: Vec<f64> = keys
            .chunks_exact(n)
            .map(|k| {
                let dot: f64 = q
                    .iter()
                    .zip(k)
                    .map(|(&a, &b)| f64::from(a) * f64::from(b))
                    .sum();
                dot * f64::from(scale)
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        (0..n)
            .map(|i| {
                let weigh = |(s, v): (&f64, &[f32])| (s - max).exp() / sum * f64::from(v[i]);
                scores.iter().zip(values.chunks_exact(n)).map(weigh).sum()
            })
            .collect()
    }

    #[test]
    fn every_backend_agrees_with_the_reference() {
        println!("backends run: {:?}", Backend::available());
        for head_dim in [2, 10, 24, 64, 80, 128] {
            for positions in [1, 2, 7, 33, 300] {
                let mut rng = Lcg((head_dim * positions) as u64);
                // The last scale makes the softmax all but one-hot.
                for scale in [0.125, 1.0, 40.0] {
                    let q = rng.units(head_dim);
                    let keys = rng.units(head_dim * positions);
                    let values = rng.units(head_dim * positions);
                    let expected = reference(&q, &keys, &values, scale);
                    for backend in Backend::available() {
                        let mut scores = vec![f32::NAN; positions];
                        let mut out = vec![f32::NAN; head_dim];
                        attend(backend, &q, &keys, &values, scale, &mut scores, &mut out);
                        for (got, want) in out.iter().zip(&expected) {
                            let error = (f64::from(*got) - want).abs();
                            assert!(error < 1e-4, "{backend:?} {head_dim} {positions}: {error}");
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
