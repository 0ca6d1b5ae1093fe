//! Q4_0 and Q4_1 blocks taken over bit by bit, their nibbles in ONNX's order.

use half::f16;

use crate::source::{Encoding, Q4Blocks};

/// ggml pairs element i with i + 16 in a byte, ONNX 2i with 2i + 1.
fn reorder(ggml: &[u8; 16]) -> [u8; 16] {
    let mut onnx = [0; 16];
    let (first, second) = onnx.split_at_mut(8);
    for (pair, (first, second)) in ggml
        .as_chunks::<2>()
        .0
        .iter()
        .zip(first.iter_mut().zip(second))
    {
        let [even, odd] = *pair;
        *first = even & 0x0f | odd << 4;
        *second = even >> 4 | odd & 0xf0;
    }
    onnx
}

/// Appends the blocks of a row of Q4_0 or Q4_1; nothing of another encoding.
pub(crate) fn append_q4(encoding: Encoding, bytes: &[u8], out: &mut Q4Blocks) {
    match encoding {
        Encoding::Q4_0 => {
            for [s0, s1, quants @ ..] in bytes.as_chunks::<18>().0 {
                out.scales.push(f16::from_le_bytes([*s0, *s1]));
                out.quants.extend_from_slice(&reorder(quants));
            }
        }
        Encoding::Q4_1 => {
            for [s0, s1, m0, m1, quants @ ..] in bytes.as_chunks::<20>().0 {
                out.scales.push(f16::from_le_bytes([*s0, *s1]));
                out.mins.push(f16::from_le_bytes([*m0, *m1]));
                out.quants.extend_from_slice(&reorder(quants));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::blocks::dequantise;

    fn element(quants: &[u8], index: usize) -> u8 {
        quants[index / 2] >> (4 * (index % 2)) & 0x0f
    }

    #[test]
    fn elements_keep_their_places() {
        // Byte i: element i is i, element i + 16 is 15 - i.
        let mut ggml = [0u8; 16];
        for (i, byte) in ggml.iter_mut().enumerate() {
            *byte = (i | (15 - i) << 4) as u8;
        }
        let onnx = reorder(&ggml);
        for i in 0..16 {
            assert_eq!(element(&onnx, i), i as u8);
            assert_eq!(element(&onnx, i + 16), 15 - i as u8);
        }
    }

    #[test]
    fn blocks_mean_the_same_values() {
        let mut bytes = Vec::new();
        for block in 0..3u8 {
            bytes.extend([0x00, 0x38, 0x00, 0xbc]);
            bytes.extend((0..16u8).map(|i| i.wrapping_mul(37).wrapping_add(block * 11)));
        }
        let mut values = [0.0; 96];
        dequantise(Encoding::Q4_1, &bytes, &mut values);
        let mut blocks = Q4Blocks::default();
        append_q4(Encoding::Q4_1, &bytes, &mut blocks);
        assert_eq!((blocks.scales.len(), blocks.mins.len()), (3, 3));
        for (i, value) in values.iter().enumerate() {
            let block = i / 32;
            let quant = element(&blocks.quants[16 * block..], i % 32);
            let meant =
                blocks.scales[block].to_f32() * f32::from(quant) + blocks.mins[block].to_f32();
            assert_eq!(*value, meant);
        }
        let mut symmetric = Q4Blocks::default();
        append_q4(Encoding::Q4_0, &bytes[..18], &mut symmetric);
        assert_eq!((symmetric.scales.len(), symmetric.mins.len()), (1, 0));
        assert_eq!(symmetric.quants.len(), 16);
    }
}
