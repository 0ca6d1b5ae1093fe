//! ggml's blocks of 32 with one scale (and one minimum) each.
//!
//! In a 4-bit block, byte i holds element i in its low and element i + 16 in its
//! high nibble; the fifth bits of a 5-bit block are one little-endian u32.

use half::f16;

use crate::source::Q8Blocks;

pub(super) const Q8_0_BYTES: usize = 34;
pub(super) const Q4_0_BYTES: usize = 18;
pub(super) const Q4_1_BYTES: usize = 20;
pub(super) const Q5_0_BYTES: usize = 22;
pub(super) const Q5_1_BYTES: usize = 24;

const ELEMENTS: usize = 32;

/// A half at a place of a block.
fn half_at(block: &[u8], place: usize) -> f32 {
    match block.get(place..place + 2) {
        Some(&[low, high]) => f16::from_le_bytes([low, high]).to_f32(),
        _ => f32::NAN,
    }
}

/// Runs over the blocks of a row.
fn each_block<const BYTES: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; ELEMENTS]),
) {
    let blocks = bytes.as_chunks::<BYTES>().0;
    let outs = out.as_chunks_mut::<ELEMENTS>().0;
    for (block, out) in blocks.iter().zip(outs) {
        decode(block, out);
    }
}

/// Splits nibbles, adds the fifth bits and maps the integers.
fn nibbles(quants: &[u8], fifth_bits: u32, out: &mut [f32; ELEMENTS], value: impl Fn(u8) -> f32) {
    let (first, second) = out.split_at_mut(ELEMENTS / 2);
    for (i, (byte, (low, high))) in quants.iter().zip(first.iter_mut().zip(second)).enumerate() {
        let low_fifth = ((fifth_bits >> i) as u8 & 1) << 4;
        let high_fifth = ((fifth_bits >> (i + 16)) as u8 & 1) << 4;
        *low = value(byte & 0x0f | low_fifth);
        *high = value(byte >> 4 | high_fifth);
    }
}

/// f16 scale, 32 signed bytes.
pub(super) fn q8_0(bytes: &[u8], out: &mut [f32]) {
    each_block::<Q8_0_BYTES>(bytes, out, |block, out| {
        let scale = half_at(block, 0);
        for (out, quant) in out.iter_mut().zip(&block[2..]) {
            *out = scale * f32::from(quant.cast_signed());
        }
    });
}

/// Appends the blocks of a row of Q8_0 bit by bit: adding 128 to a signed byte
/// is flipping its highest bit.
pub(crate) fn append_q8(bytes: &[u8], out: &mut Q8Blocks) {
    for [s0, s1, quants @ ..] in bytes.as_chunks::<Q8_0_BYTES>().0 {
        out.scales.push(f16::from_le_bytes([*s0, *s1]));
        out.quants.extend(quants.iter().map(|quant| quant ^ 0x80));
    }
}

/// f16 scale, 16 bytes of nibbles; zero point 8.
pub(super) fn q4_0(bytes: &[u8], out: &mut [f32]) {
    each_block::<Q4_0_BYTES>(bytes, out, |block, out| {
        let scale = half_at(block, 0);
        nibbles(&block[2..], 0, out, |quant| {
            scale * (f32::from(quant) - 8.0)
        });
    });
}

/// f16 scale, f16 minimum, 16 bytes of nibbles.
pub(super) fn q4_1(bytes: &[u8], out: &mut [f32]) {
    each_block::<Q4_1_BYTES>(bytes, out, |block, out| {
        let (scale, min) = (half_at(block, 0), half_at(block, 2));
        nibbles(&block[4..], 0, out, |quant| scale * f32::from(quant) + min);
    });
}

/// f16 scale, the fifth bits, 16 bytes of nibbles; zero point 16.
pub(super) fn q5_0(bytes: &[u8], out: &mut [f32]) {
    each_block::<Q5_0_BYTES>(bytes, out, |block, out| {
        let scale = half_at(block, 0);
        let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
        nibbles(&block[6..], fifth, out, |quant| {
            scale * (f32::from(quant) - 16.0)
        });
    });
}

/// f16 scale, f16 minimum, the fifth bits, 16 bytes of nibbles.
pub(super) fn q5_1(bytes: &[u8], out: &mut [f32]) {
    each_block::<Q5_1_BYTES>(bytes, out, |block, out| {
        let (scale, min) = (half_at(block, 0), half_at(block, 2));
        let fifth = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
        nibbles(&block[8..], fifth, out, |quant| {
            scale * f32::from(quant) + min
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    // f16: 0.5 is 0x3800, 2.0 is 0x4000, -1.0 is 0xbc00.

    #[test]
    fn q8_0_scales_signed_bytes() {
        let mut block = [0u8; Q8_0_BYTES];
        block[..2].copy_from_slice(&[0x00, 0x38]);
        block[2] = 0x80;
        block[3] = 0x7f;
        block[33] = 0xff;
        let mut out = [9.0; 32];
        q8_0(&block, &mut out);
        assert_eq!((out[0], out[1], out[2], out[31]), (-64.0, 63.5, 0.0, -0.5));
    }

    #[test]
    fn q8_0_blocks_mean_the_same_values() {
        // Every signed byte, -128 among them, in eight blocks of unlike scales.
        let mut bytes = Vec::new();
        for block in 0..8u8 {
            bytes.extend([block * 31, 0x38 ^ block << 5]);
            bytes.extend((0..32).map(|i| block * 32 + i));
        }
        let mut values = [0.0; 256];
        q8_0(&bytes, &mut values);
        let mut blocks = Q8Blocks::default();
        append_q8(&bytes, &mut blocks);
        assert_eq!((blocks.scales.len(), blocks.quants.len()), (8, 256));
        for (i, value) in values.iter().enumerate() {
            let level = f32::from(blocks.quants[i]) - 128.0;
            assert_eq!(*value, level * blocks.scales[i / 32].to_f32());
        }
        assert_eq!((blocks.quants[0x80], blocks.quants[0x7f]), (0, 255));
    }

    #[test]
    fn q4_0_takes_eight_from_each_nibble() {
        let mut block = [0x88u8; Q4_0_BYTES];
        block[..2].copy_from_slice(&[0x00, 0x40]);
        block[2] = 0xf0;
        block[17] = 0x19;
        let mut out = [9.0; 32];
        q4_0(&block, &mut out);
        assert_eq!((out[0], out[16]), (-16.0, 14.0));
        assert_eq!((out[15], out[31]), (2.0, -14.0));
        assert!(out[1..15].iter().chain(&out[17..31]).all(|&v| v == 0.0));
    }

    #[test]
    fn q4_1_adds_the_minimum() {
        let mut block = [0u8; Q4_1_BYTES];
        block[..4].copy_from_slice(&[0x00, 0x38, 0x00, 0xbc]);
        block[4] = 0xf3;
        let mut out = [9.0; 32];
        q4_1(&block, &mut out);
        assert_eq!((out[0], out[16], out[1]), (0.5, 6.5, -1.0));
    }

    #[test]
    fn q5_0_has_fifth_bits_of_both_halves() {
        let mut block = [0u8; Q5_0_BYTES];
        block[..2].copy_from_slice(&[0x00, 0x38]);
        block[2..6].copy_from_slice(&(1u32 | 1 << 31).to_le_bytes());
        block[6] = 0x0f;
        let mut out = [9.0; 32];
        q5_0(&block, &mut out);
        // 0x0f | 0x10 = 31; the last is 0x10 = 16; all others 0.
        assert_eq!((out[0], out[31], out[16], out[1]), (7.5, 0.0, -8.0, -8.0));
    }

    #[test]
    fn q5_1_has_fifth_bits_and_a_minimum() {
        let mut block = [0u8; Q5_1_BYTES];
        block[..4].copy_from_slice(&[0x00, 0x40, 0x00, 0xbc]);
        block[4..8].copy_from_slice(&(1u32 << 17).to_le_bytes());
        block[9] = 0x21;
        let mut out = [9.0; 32];
        q5_1(&block, &mut out);
        // Element 1 is 1, element 17 is 2 | 16 = 18.
        assert_eq!((out[1], out[17], out[0]), (1.0, 35.0, -1.0));
    }
}
