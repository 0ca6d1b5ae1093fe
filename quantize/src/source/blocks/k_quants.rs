//! ggml's super-blocks of 256: sub-blocks whose scales are themselves quantised.

use half::f16;

pub(super) const Q4K_BYTES: usize = 144;
pub(super) const Q5K_BYTES: usize = 176;
pub(super) const Q6K_BYTES: usize = 210;

const ELEMENTS: usize = 256;

fn half(low: u8, high: u8) -> f32 {
    f16::from_le_bytes([low, high]).to_f32()
}

/// The 6-bit scale and minimum of sub-block `index` (0 to 7) out of 12 packed bytes:
/// the first four plainly, the last four in nibbles with their upper two bits
/// in the top of the first eight bytes.
fn scale_and_min(packed: &[u8; 12], index: usize) -> (f32, f32) {
    let at = |place: usize| packed.get(place).copied().unwrap_or_default();
    let (scale, min) = if index < 4 {
        (at(index) & 63, at(index + 4) & 63)
    } else {
        (
            at(index + 4) & 0x0f | (at(index - 4) >> 6) << 4,
            at(index + 4) >> 4 | (at(index) >> 6) << 4,
        )
    };
    (f32::from(scale), f32::from(min))
}

/// f16 scale, f16 minimum, 12 bytes of sub-scales, `high_bits` (for Q5_K) and 128 bytes
/// of nibbles: each 32 bytes hold one sub-block of 32 in the low and the next in the
/// high nibbles.
fn scaled_nibbles(
    header: &[u8; 16],
    high_bits: Option<&[u8; 32]>,
    quants: &[u8],
    out: &mut [f32; ELEMENTS],
) {
    let [d0, d1, m0, m1, packed @ ..] = header;
    let (scale, min) = (half(*d0, *d1), half(*m0, *m1));
    let pairs = out.as_chunks_mut::<64>().0.iter_mut();
    for (pair, (out, quants)) in pairs.zip(quants.as_chunks::<32>().0).enumerate() {
        let (low, high) = out.split_at_mut(32);
        for (half, out) in [low, high].into_iter().enumerate() {
            let sub_block = 2 * pair + half;
            let (sub_scale, sub_min) = scale_and_min(packed, sub_block);
            let (scale, min) = (scale * sub_scale, min * sub_min);
            for (i, (out, byte)) in out.iter_mut().zip(quants).enumerate() {
                let nibble = (byte >> (4 * half)) & 0x0f;
                let fifth = high_bits
                    .and_then(|bits| bits.get(i))
                    .map_or(0, |bits| (bits >> sub_block & 1) << 4);
                *out = scale * f32::from(nibble | fifth) - min;
            }
        }
    }
}

/// 4 bits, sub-blocks of 32 with scale and minimum.
pub(super) fn q4_k(bytes: &[u8], out: &mut [f32]) {
    let blocks = bytes.as_chunks::<Q4K_BYTES>().0;
    for (block, out) in blocks.iter().zip(out.as_chunks_mut().0) {
        if let Some((header, quants)) = block.split_first_chunk() {
            scaled_nibbles(header, None, quants, out);
        }
    }
}

/// 5 bits, sub-blocks of 32 with scale and minimum.
pub(super) fn q5_k(bytes: &[u8], out: &mut [f32]) {
    let blocks = bytes.as_chunks::<Q5K_BYTES>().0;
    for (block, out) in blocks.iter().zip(out.as_chunks_mut().0) {
        if let Some((header, rest)) = block.split_first_chunk()
            && let Some((high_bits, quants)) = rest.split_first_chunk()
        {
            scaled_nibbles(header, Some(high_bits), quants, out);
        }
    }
}

/// 6 bits, sub-blocks of 16 with a signed 8-bit scale; zero point 32.
///
/// 128 bytes of low nibbles, 64 of upper bit pairs, 16 scales, the f16 scale.
pub(super) fn q6_k(bytes: &[u8], out: &mut [f32]) {
    let blocks = bytes.as_chunks::<Q6K_BYTES>().0;
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<ELEMENTS>().0) {
        let (low, rest) = block.split_at(128);
        let (high, rest) = rest.split_at(64);
        let (scales, scale) = rest.split_at(16);
        let &[d0, d1] = scale else { continue };
        let scale = half(d0, d1);
        for (i, out) in out.iter_mut().enumerate() {
            // Each half of the block: 64 bytes of nibbles, low for its first 64
            // elements and high for the others; 32 bytes with four bit pairs each.
            let (part, place) = (i / 128, i % 128);
            let nibble = low[64 * part + place % 64] >> (4 * (place / 64)) & 0x0f;
            let pair = high[32 * part + place % 32] >> (2 * (place / 32)) & 3;
            let quant = i16::from(nibble | pair << 4) - 32;
            *out = scale * f32::from(scales[i / 16].cast_signed()) * f32::from(quant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // f16: 1.0 is 0x3c00, 0.5 is 0x3800.

    #[test]
    fn packed_scales() {
        let mut packed = [0u8; 12];
        packed[1] = 0b11_000101; // scale 1 is 5; upper bits of scale 5 are 3
        packed[5] = 0b10_000111; // min 1 is 7; upper bits of min 5 are 2
        packed[9] = 0x3a; // scale 5 is 0xa, min 5 is 3, below those bits
        assert_eq!(scale_and_min(&packed, 1), (5.0, 7.0));
        assert_eq!(scale_and_min(&packed, 5), (58.0, 35.0));
        assert_eq!(scale_and_min(&packed, 0), (0.0, 0.0));
    }

    #[test]
    fn q4_k_by_hand() {
        let mut block = [0u8; Q4K_BYTES];
        block[..4].copy_from_slice(&[0x00, 0x3c, 0x00, 0x38]);
        block[4] = 2; // scale of sub-block 0
        block[5] = 3; // scale of sub-block 1
        block[8] = 4; // min of sub-block 0
        block[16] = 0x5f; // element 0 is 15, element 32 is 5
        let mut out = [9.0; 256];
        q4_k(&block, &mut out);
        assert_eq!((out[0], out[1], out[32], out[33]), (28.0, -2.0, 15.0, 0.0));
        assert!(out[64..].iter().all(|&v| v == 0.0));
    }

    #[test]
    fn q5_k_by_hand() {
        let mut block = [0u8; Q5K_BYTES];
        block[..4].copy_from_slice(&[0x00, 0x3c, 0x00, 0x38]);
        block[4] = 2;
        block[5] = 1;
        block[8] = 4;
        block[16] = 0b10; // fifth bit of element 32
        block[17] = 0b01; // fifth bit of element 1
        block[48] = 0x5f;
        let mut out = [9.0; 256];
        q5_k(&block, &mut out);
        assert_eq!((out[0], out[1], out[32], out[33]), (28.0, 30.0, 21.0, 0.0));
    }

    #[test]
    fn q6_k_by_hand() {
        let mut block = [0u8; Q6K_BYTES];
        block[192] = 1; // scale of elements 0 to 15
        block[194] = 0xfe; // -2: of elements 32 to 47
        block[196] = 3; // of elements 64 to 79
        block[206] = 1; // of elements 224 to 239
        block[208..].copy_from_slice(&[0x00, 0x38]);
        block[0] = 0xa5; // element 0: low nibble 5, element 64: high nibble 10
        block[128] = 0b00_01_10_11; // pairs of elements 0, 32, 64, 96
        block[96] = 0x70; // element 224 = 128 + 96: high nibble of byte 64 + 32
        block[160] = 0b11_00_00_00;
        let mut out = [9.0; 256];
        q6_k(&block, &mut out);
        assert_eq!(out[0], 0.5 * (5.0 + 48.0 - 32.0));
        assert_eq!(out[1], 0.5 * -32.0);
        assert_eq!(out[32], 0.5 * -2.0 * (32.0 - 32.0));
        assert_eq!(out[33], 0.5 * -2.0 * -32.0);
        assert_eq!(out[64], 0.5 * 3.0 * (10.0 + 16.0 - 32.0));
        assert_eq!(out[224], 0.5 * (7.0 + 48.0 - 32.0));
    }
}
