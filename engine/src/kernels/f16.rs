//! f16 to f32 without a library call, so that it vectorises everywhere.

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

#[cfg(test)]
mod tests {
    use super::*;

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
