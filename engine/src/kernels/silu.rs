//! The gate of Llama's MLP: SiLU (Elfwing et al. 2017) times the other half
//! (SwiGLU, Shazeer 2020).

use super::backend::kernel_entry;
use super::vector::Vector;

/// Vectors whose long chains of products run side by side, and whose loads and
/// stores pair.
const AT_ONCE: usize = 2;

kernel_entry! {
    /// `gate = gate / (1 + e^-gate) * up`, both of one length.
    fn silu_mul(gate: &mut [f32], up: &[f32]) = silu_mul_body
}

/// # Safety
/// The vector's target features.
#[inline(always)]
unsafe fn silu_mul_body<V: Vector>(gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len());
    let (len, gate, up) = (gate.len(), gate.as_mut_ptr(), up.as_ptr());
    // SAFETY: features by the contract; all reads and writes are below `len`.
    unsafe {
        let mut i = 0;
        while i + AT_ONCE * V::LANES <= len {
            step::<V, AT_ONCE>(gate.add(i), up.add(i));
            i += AT_ONCE * V::LANES;
        }
        while i + V::LANES <= len {
            step::<V, 1>(gate.add(i), up.add(i));
            i += V::LANES;
        }
        while i < len {
            step::<f32, 1>(gate.add(i), up.add(i));
            i += 1;
        }
    }
}

/// `N` vectors.
///
/// # Safety
/// The vector's target features; that many lanes at both places.
#[inline(always)]
unsafe fn step<V: Vector, const N: usize>(gate: *mut f32, up: *const f32) {
    // SAFETY: by the contract.
    unsafe {
        let mut out = [V::splat(0.0); N];
        for (i, out) in out.iter_mut().enumerate() {
            let g = V::load(gate.add(i * V::LANES));
            // Below -87 the exponential would pass f32; SiLU is 0 there.
            let e = V::splat(0.0).sub(g.max(V::splat(-87.0))).exp();
            let product = g.mul(V::load(up.add(i * V::LANES)));
            *out = product.div(e.add(V::splat(1.0)));
        }
        for (i, out) in out.into_iter().enumerate() {
            out.store(gate.add(i * V::LANES));
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
        for n in [1, 5, 16, 33, 60, 160] {
            let mut rng = Lcg(n as u64);
            let up = rng.units(n);
            for scale in [0.1, 1.0, 12.0, 1000.0] {
                let gate: Vec<f32> = rng.units(n).iter().map(|g| g * scale).collect();
                for backend in Backend::available() {
                    let mut out = gate.clone();
                    silu_mul(backend, &mut out, &up);
                    for i in 0..n {
                        let (g, u) = (f64::from(gate[i]), f64::from(up[i]));
                        let want = g / (1.0 + (-g).exp()) * u;
                        let error = (f64::from(out[i]) - want).abs();
                        assert!(error <= 1e-6 * want.abs() + 1e-30, "{backend:?}: {g}");
                    }
                }
            }
        }
    }
}
