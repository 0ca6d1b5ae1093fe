//! f16 to f32 and back without a library call, so that it vectorises everywhere.

use super::backend::kernel_entry;
use super::vector::Vector;

/// The value of a finite f16 given by its bits (subnormals included).
///
/// The exponent is moved into place and scaled by 2^112, the difference of the
/// two biases; infinities and NaN come out as large finite numbers, which is
/// why the quantiser writes none.
#[inline(always)]
pub(crate) fn finite_f16(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13);
    f32::from_bits((magnitude * f32::from_bits(0x7780_0000)).to_bits() | sign)
}

/// The largest number in f16.
const MOST: f32 = 65504.0;

kernel_entry! {
    /// Narrows to f16, both of one length. Numbers beyond f16 become its largest.
    fn narrow(x: &[f32], out: &mut [u16]) = narrow_body
}

/// # Safety
/// The vector's target features.
#[inline(always)]
unsafe fn narrow_body<V: Vector>(x: &[f32], out: &mut [u16]) {
    assert_eq!(x.len(), out.len());
    let whole = x.len() - x.len() % V::LANES;
    // SAFETY: features by the contract; all reads and writes are below `whole`, one
    // value at a time beyond it.
    unsafe {
        let mut i = 0;
        while i < whole {
            step::<V>(x.as_ptr().add(i), out.as_mut_ptr().add(i));
            i += V::LANES;
        }
        while i < x.len() {
            step::<f32>(x.as_ptr().add(i), out.as_mut_ptr().add(i));
            i += 1;
        }
    }
}

/// # Safety
/// The vector's target features; its lanes at both places.
#[inline(always)]
unsafe fn step<V: Vector>(x: *const f32, out: *mut u16) {
    // In this order what is no number stays so.
    // SAFETY: by the contract.
    unsafe {
        let x = V::splat(-MOST).max(V::load(x));
        V::splat(MOST).min(x).to_halves(out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Backend;
    use super::super::blocks::tests::Lcg;
    use super::*;

    #[test]
    fn every_backend_narrows_as_the_library() {
        println!("backends run: {:?}", Backend::available());
        for n in [1, 5, 16, 64, 77] {
            for scale in [1e-8, 1.0, 300.0, 1e6] {
                let mut x: Vec<f32> = Lcg(n as u64).units(n).iter().map(|v| v * scale).collect();
                x[n / 2] = f32::NAN;
                for backend in Backend::available() {
                    let mut out = vec![0; n];
                    narrow(backend, &x, &mut out);
                    for (&x, bits) in x.iter().zip(out) {
                        let got = half::f16::from_bits(bits);
                        let want = half::f16::from_f32(x.clamp(-MOST, MOST));
                        assert!(
                            got == want || got.is_nan() && x.is_nan(),
                            "{backend:?}: {got} for {x}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_finite_f16_is_exact() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits);
            if expected.is_finite() {
                assert_eq!(finite_f16(bits).to_bits(), expected.to_f32().to_bits());
            }
        }
    }
}
