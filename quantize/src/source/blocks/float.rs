//! Plain floating-point rows, little-endian and of any alignment.

use half::{bf16, f16};

/// IEEE single precision.
pub(super) fn f32s(bytes: &[u8], out: &mut [f32]) {
    for (value, out) in bytes.as_chunks().0.iter().zip(out) {
        *out = f32::from_le_bytes(*value);
    }
}

/// IEEE half precision.
pub(super) fn f16s(bytes: &[u8], out: &mut [f32]) {
    for (value, out) in bytes.as_chunks().0.iter().zip(out) {
        *out = f16::from_le_bytes(*value).to_f32();
    }
}

/// The upper half of single precision.
pub(super) fn bf16s(bytes: &[u8], out: &mut [f32]) {
    for (value, out) in bytes.as_chunks().0.iter().zip(out) {
        *out = bf16::from_le_bytes(*value).to_f32();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let mut out = [0.0; 2];
        f32s(&[0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0], &mut out);
        assert_eq!(out, [1.0, -2.0]);
        f16s(&[0x00, 0x3c, 0x00, 0xc0], &mut out);
        assert_eq!(out, [1.0, -2.0]);
        bf16s(&[0x80, 0x3f, 0x00, 0xc0], &mut out);
        assert_eq!(out, [1.0, -2.0]);
    }
}
