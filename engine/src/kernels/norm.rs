//! RMSNorm (Zhang and Sennrich 2019), with the residual added before it.

use super::backend::kernel_entry;
use super::vector::Vector;

kernel_entry! {
    /// `out = sum / sqrt(mean(sum²) + epsilon) * weight`, all of one length.
    fn rms_norm(sum: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) = rms_norm_body
}

kernel_entry! {
    /// `sum = x + delta`, all of one length.
    fn add(x: &[f32], delta: &[f32], sum: &mut [f32]) = add_body
}

/// # Safety
/// The vector's target features.
#[inline(always)]
unsafe fn rms_norm_body<V: Vector>(sum: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    assert!(sum.len() == weight.len() && sum.len() == out.len());
    let whole = sum.len() - sum.len() % V::LANES;
    // SAFETY: features by the contract; all reads and writes are below `whole`.
    unsafe {
        let mut squares = V::splat(0.0);
        let mut i = 0;
        while i < whole {
            let x = V::load(sum.as_ptr().add(i));
            squares = x.mul_add(x, squares);
            i += V::LANES;
        }
        let mut total = squares.sum();
        for x in &sum[whole..] {
            total += x * x;
        }
        let scale = 1.0 / (total / sum.len() as f32 + epsilon).sqrt();
        let scales = V::splat(scale);
        let mut i = 0;
        while i < whole {
            let x = V::load(sum.as_ptr().add(i)).mul_add(scales, V::splat(0.0));
            let weight = V::load(weight.as_ptr().add(i));
            x.mul_add(weight, V::splat(0.0))
                .store(out.as_mut_ptr().add(i));
            i += V::LANES;
        }
        for i in whole..sum.len() {
            out[i] = sum[i] * scale * weight[i];
        }
    }
}

/// # Safety
/// The vector's target features.
#[inline(always)]
unsafe fn add_body<V: Vector>(x: &[f32], delta: &[f32], sum: &mut [f32]) {
    assert!(sum.len() == x.len() && sum.len() == delta.len());
    let whole = sum.len() - sum.len() % V::LANES;
    // SAFETY: features by the contract; all reads and writes are below `whole`.
    unsafe {
        let mut i = 0;
        while i < whole {
            V::load(x.as_ptr().add(i))
                .mul_add(V::splat(1.0), V::load(delta.as_ptr().add(i)))
                .store(sum.as_mut_ptr().add(i));
            i += V::LANES;
        }
    }
    for i in whole..sum.len() {
        sum[i] = x[i] + delta[i];
    }
}

#[cfg(test)]
mod tests {
    use super::super::Backend;
    use super::super::blocks::tests::Lcg;
    use super::*;

    #[test]
    fn every_backend_agrees_with_the_reference() {
        println!("backends run: {:?}", Backend::available());
        for n in [1, 7, 16, 33, 576, 2048] {
            let mut rng = Lcg(n as u64);
            let (x, delta, weight) = (rng.units(n), rng.units(n), rng.units(n));
            let sums: Vec<f64> = x
                .iter()
                .zip(&delta)
                .map(|(&a, &b)| f64::from(a + b))
                .collect();
            let mean = sums.iter().map(|s| s * s).sum::<f64>() / n as f64;
            for backend in Backend::available() {
                let (mut sum, mut out) = (vec![f32::NAN; n], vec![f32::NAN; n]);
                add(backend, &x, &delta, &mut sum);
                rms_norm(backend, &sum, &weight, 1e-5, &mut out);
                for i in 0..n {
                    assert_eq!(f64::from(sum[i]), sums[i], "{backend:?}");
                    let want = sums[i] / (mean + 1e-5).sqrt() * f64::from(weight[i]);
                    assert!((f64::from(out[i]) - want).abs() < 1e-5, "{backend:?} {n}");
                }
            }
        }
    }
}
