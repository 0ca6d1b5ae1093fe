//! Dequantisation of stored rows: what a run of bytes means as f32.

mod float;
mod k_quants;
mod legacy;
mod nibbles;

pub(crate) use legacy::append_q8;
pub(crate) use nibbles::append_q4;

use super::Encoding;

impl Encoding {
    /// Elements of a block; a row is a whole number of blocks.
    pub(crate) const fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub(crate) const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => legacy::Q8_0_BYTES,
            Self::Q4_0 => legacy::Q4_0_BYTES,
            Self::Q4_1 => legacy::Q4_1_BYTES,
            Self::Q5_0 => legacy::Q5_0_BYTES,
            Self::Q5_1 => legacy::Q5_1_BYTES,
            Self::Q4K => k_quants::Q4K_BYTES,
            Self::Q5K => k_quants::Q5K_BYTES,
            Self::Q6K => k_quants::Q6K_BYTES,
        }
    }

    /// Bytes of a row of so many columns; `None` if that is no whole number of
    /// blocks or overflows.
    pub(crate) fn row_bytes(self, columns: usize) -> Option<usize> {
        if !columns.is_multiple_of(self.block_elements()) {
            return None;
        }
        (columns / self.block_elements()).checked_mul(self.block_bytes())
    }
}

/// Dequantises whole blocks; stops at the shorter of the two.
pub(crate) fn dequantise(encoding: Encoding, bytes: &[u8], out: &mut [f32]) {
    match encoding {
        Encoding::F32 => float::f32s(bytes, out),
        Encoding::F16 => float::f16s(bytes, out),
        Encoding::Bf16 => float::bf16s(bytes, out),
        Encoding::Q8_0 => legacy::q8_0(bytes, out),
        Encoding::Q4_0 => legacy::q4_0(bytes, out),
        Encoding::Q4_1 => legacy::q4_1(bytes, out),
        Encoding::Q5_0 => legacy::q5_0(bytes, out),
        Encoding::Q5_1 => legacy::q5_1(bytes, out),
        Encoding::Q4K => k_quants::q4_k(bytes, out),
        Encoding::Q5K => k_quants::q5_k(bytes, out),
        Encoding::Q6K => k_quants::q6_k(bytes, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_whole_blocks() {
        assert_eq!(Encoding::Bf16.row_bytes(3), Some(6));
        assert_eq!(Encoding::Q4_1.row_bytes(576), Some(360));
        assert_eq!(Encoding::Q4_1.row_bytes(577), None);
        assert_eq!(Encoding::Q6K.row_bytes(512), Some(420));
        assert_eq!(Encoding::Q4K.row_bytes(576), None);
        assert_eq!(Encoding::F32.row_bytes(usize::MAX), None);
    }

    /// Blocks of random bytes and their values as the `gguf` package of llama.cpp
    /// dequantises them; written by tests/tools/make_dequantised.py.
    #[test]
    fn agrees_with_ggml() {
        let data: &[u8] = include_bytes!("testdata/dequantised.bin");
        let mut rest = data;
        let encodings = [
            Encoding::F16,
            Encoding::Bf16,
            Encoding::Q8_0,
            Encoding::Q4_0,
            Encoding::Q4_1,
            Encoding::Q5_0,
            Encoding::Q5_1,
            Encoding::Q4K,
            Encoding::Q5K,
            Encoding::Q6K,
        ];
        for encoding in encodings {
            let (stored, after) = rest.split_at(encoding.row_bytes(512).unwrap());
            let (expected, after) = after.split_at(512 * 4);
            rest = after;
            let mut wanted = [0.0; 512];
            float::f32s(expected, &mut wanted);
            let mut values = [0.0; 512];
            dequantise(encoding, stored, &mut values);
            for (index, (value, wanted)) in values.iter().zip(wanted).enumerate() {
                let tolerance = 1e-6 * wanted.abs().max(1e-3);
                assert!(
                    (value - wanted).abs() <= tolerance,
                    "{encoding:?} {index}: {value} != {wanted}"
                );
            }
        }
        assert!(rest.is_empty());
    }
}
