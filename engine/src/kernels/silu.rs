//! The gate of Llama's MLP: SiLU (Elfwing et al. 2017) times the other half
//! (SwiGLU, Shazeer 2020).

use super::backend::kernel_entry;
use super::vector::Vector;

kernel_entry! {
    /// `gate = gate / (1 + e^-gate) * up`, both of one length.
    fn silu_mul(gate: &mut [f32], up: &[f32]) = silu_mul_body
}

/// # Safety
/// The vector's target features.
#[inline(always)]
unsafe fn silu_mul_body<V: Vector>(gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len());
    let whole = gate.len() - gate.len() % V::LANES;
    // SAFETY: features by the contract; all reads and writes are below `whole`,
    // one value at a time beyond it.
    unsafe {
        let mut i = 0;
        while i < whole {
            step::<V>(gate.as_mut_ptr().add(i), up.as_ptr().add(i));
            i += V::LANES;
        }
        while i < gate.len() {
            step::<f32>(gate.as_mut_ptr().add(i), up.as_ptr().add(i));
            i += 1;
        }
    }
}

/// # Safety
/// The vector's target features; its lanes at both places.
#[inline(always)]
unsafe fn step<V: Vector>(gate: *mut f32, up: *const f32) {
    // SAFETY: by the contract.
    unsafe {
        let (g, zero) = (V::load(gate), V::splat(0.0));
        // Below -87 the exponential would pass f32; SiLU is 0 there.
        let bounded = g.max(V::splat(-87.0));
        let e = bounded.mul_add(V::splat(-1.0), zero).exp();
        let product = g.mul_add(V::load(up), zero);
        product
            .div(e.mul_add(V::splat(1.0), V::splat(1.0)))
            .store(gate);
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
        for n in [1, 5, 16, 33, 160] {
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
