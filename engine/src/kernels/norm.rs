//! RMSNorm (Zhang and Sennrich 2019), with the residual added before it.

use super::backend::kernel_entry;
use super::vector::Vector;

/// Vectors in a pass of the loops: loads and stores pair, and what the loop itself
/// costs is shared.
const AT_ONCE: usize = 8;
/// Sums of squares side by side, so that a product need not wait for the last one.
const SUMS: usize = 4;

kernel_entry! {
    /// `out = x / sqrt(mean(x²) + epsilon) * weight`, all of one length.
    fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) = rms_norm_body
}

kernel_entry! {
    /// `sum = x + delta` and `out = sum / sqrt(mean(sum²) + epsilon) * weight`, all of
    /// one length.
    fn add_rms_norm(
        x: &[f32],
        delta: &[f32],
        weight: &[f32],
        epsilon: f32,
        sum: &mut [f32],
        out: &mut [f32],
    ) = add_rms_norm_body
}

/// # Safety
/// The vector's target features.
#[inline(always)]
unsafe fn rms_norm_body<V: Vector>(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let len = x.len();
    assert!(weight.len() == len && out.len() == len);
    // SAFETY: features by the contract; all of one length.
    unsafe {
        let squares = sum_squares::<V>(len, x.as_ptr(), None);
        let scale = scale(squares, len, epsilon);
        scaled::<V>(len, x.as_ptr(), scale, weight.as_ptr(), out.as_mut_ptr());
    }
}

/// # Safety
/// The vector's target features.
#[inline(always)]
unsafe fn add_rms_norm_body<V: Vector>(
    x: &[f32],
    delta: &[f32],
    weight: &[f32],
    epsilon: f32,
    sum: &mut [f32],
    out: &mut [f32],
) {
    let len = x.len();
    assert!([delta.len(), weight.len(), sum.len(), out.len()] == [len; 4]);
    // SAFETY: features by the contract; all of one length.
    unsafe {
        let residual = Some((delta.as_ptr(), sum.as_mut_ptr()));
        let squares = sum_squares::<V>(len, x.as_ptr(), residual);
        let scale = scale(squares, len, epsilon);
        scaled::<V>(len, sum.as_ptr(), scale, weight.as_ptr(), out.as_mut_ptr());
    }
}

/// What the numbers are multiplied with, given the sum of their squares.
#[inline(always)]
fn scale(squares: f32, len: usize, epsilon: f32) -> f32 {
    1.0 / (squares / len as f32 + epsilon).sqrt()
}

/// The sum of the squares of the numbers at `x`, or of their sums with those at the
/// residual's first place, which go to its second.
///
/// # Safety
/// The vector's target features; `len` numbers at each place.
#[inline(always)]
unsafe fn sum_squares<V: Vector>(
    len: usize,
    x: *const f32,
    residual: Option<(*const f32, *mut f32)>,
) -> f32 {
    // SAFETY: by the contract.
    unsafe {
        let mut sums = [V::splat(0.0); SUMS];
        let mut i = 0;
        while i + AT_ONCE * V::LANES <= len {
            squares_of::<V, AT_ONCE>(i, x, residual, &mut sums);
            i += AT_ONCE * V::LANES;
        }
        while i + V::LANES <= len {
            squares_of::<V, 1>(i, x, residual, &mut sums);
            i += V::LANES;
        }
        let mut rest = [0.0; SUMS];
        while i < len {
            squares_of::<f32, 1>(i, x, residual, &mut rest);
            i += 1;
        }
        let [a, b, c, d] = sums;
        a.add(b).add(c.add(d)).sum() + rest[0]
    }
}

/// Adds the squares of `N` vectors from the `at`th number on to `sums`.
///
/// # Safety
/// As for [`sum_squares`]; so many numbers are left.
#[inline(always)]
unsafe fn squares_of<V: Vector, const N: usize>(
    at: usize,
    x: *const f32,
    residual: Option<(*const f32, *mut f32)>,
    sums: &mut [V; SUMS],
) {
    // SAFETY: by the contract.
    unsafe {
        let mut values = [V::splat(0.0); N];
        for (i, value) in values.iter_mut().enumerate() {
            *value = V::load(x.add(at + i * V::LANES));
            if let Some((delta, _)) = residual {
                *value = value.add(V::load(delta.add(at + i * V::LANES)));
            }
        }
        for (i, value) in values.into_iter().enumerate() {
            if let Some((_, sum)) = residual {
                value.store(sum.add(at + i * V::LANES));
            }
            sums[i % SUMS] = value.mul_add(value, sums[i % SUMS]);
        }
    }
}

/// `out = x * scale * weight`.
///
/// # Safety
/// The vector's target features; `len` numbers at each place.
#[inline(always)]
unsafe fn scaled<V: Vector>(
    len: usize,
    x: *const f32,
    scale: f32,
    weight: *const f32,
    out: *mut f32,
) {
    // SAFETY: by the contract.
    unsafe {
        let mut i = 0;
        while i + AT_ONCE * V::LANES <= len {
            scaled_of::<V, AT_ONCE>(i, x, scale, weight, out);
            i += AT_ONCE * V::LANES;
        }
        while i + V::LANES <= len {
            scaled_of::<V, 1>(i, x, scale, weight, out);
            i += V::LANES;
        }
        while i < len {
            scaled_of::<f32, 1>(i, x, scale, weight, out);
            i += 1;
        }
    }
}

/// [`scaled`] for `N` vectors from the `at`th number on.
///
/// # Safety
/// As for [`scaled`]; so many numbers are left.
#[inline(always)]
unsafe fn scaled_of<V: Vector, const N: usize>(
    at: usize,
    x: *const f32,
    scale: f32,
    weight: *const f32,
    out: *mut f32,
) {
    // SAFETY: by the contract.
    unsafe {
        let mut values = [V::splat(scale); N];
        for (i, value) in values.iter_mut().enumerate() {
            let x = V::load(x.add(at + i * V::LANES));
            let weight = V::load(weight.add(at + i * V::LANES));
            *value = x.mul(*value).mul(weight);
        }
        for (i, value) in values.into_iter().enumerate() {
            value.store(out.add(at + i * V::LANES));
        }
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
        for n in [1, 7, 16, 33, 151, 576, 2048] {
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
                add_rms_norm(backend, &x, &delta, &weight, 1e-5, &mut sum, &mut out);
                let mut plain = vec![f32::NAN; n];
                rms_norm(backend, &sum, &weight, 1e-5, &mut plain);
                assert_eq!(plain, out, "{backend:?}");
                for i in 0..n {
                    assert_eq!(f64::from(sum[i]), sums[i], "{backend:?}");
                    let want = sums[i] / (mean + 1e-5).sqrt() * f64::from(weight[i]);
                    assert!((f64::from(out[i]) - want).abs() < 1e-5, "{backend:?} {n}");
                }
            }
        }
    }
}
