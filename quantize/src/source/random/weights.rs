//! Random rows of a tensor, directly as blocks.

use std::ops::Range;

use half::f16;

use super::stream::Stream;
use crate::quantise::Bits;
use crate::source::{Q4Blocks, Q8Blocks};
use chaski_manifest::BLOCK_SIZE;

/// Largest bias.
const MAX_BIAS: f32 = 0.1;

/// The rows of one tensor.
pub(super) struct Weights<'a> {
    seed: u64,
    tensor: &'a str,
    columns: usize,
}

impl<'a> Weights<'a> {
    /// Those of a tensor with so many columns.
    pub(super) fn new(seed: u64, tensor: &'a str, columns: usize) -> Self {
        Self {
            seed,
            tensor,
            columns,
        }
    }

    /// Appends rows as Q4_0.
    pub(super) fn q4_rows(&self, rows: Range<usize>, out: &mut Q4Blocks) {
        self.rows(rows, Bits::Four, &mut out.quants, &mut out.scales);
    }

    /// Appends rows as Q8_0.
    pub(super) fn q8_rows(&self, rows: Range<usize>, out: &mut Q8Blocks) {
        self.rows(rows, Bits::Eight, &mut out.quants, &mut out.scales);
    }

    /// Fills a vector with numbers between plus and minus [`MAX_BIAS`].
    pub(super) fn biases(&self, out: &mut [f32]) {
        let mut stream = Stream::of_row(self.seed, self.tensor, 0);
        out.fill_with(|| (2.0 * fraction(stream.next()) - 1.0) * MAX_BIAS);
    }

    fn rows(&self, rows: Range<usize>, bits: Bits, quants: &mut Vec<u8>, scales: &mut Vec<f16>) {
        let blocks = self.columns / BLOCK_SIZE;
        let scale = mean_scale(self.columns, bits);
        quants.reserve(rows.len() * blocks * bits.block_bytes());
        scales.reserve(rows.len() * blocks);
        for row in rows {
            let mut stream = Stream::of_row(self.seed, self.tensor, row);
            for _ in 0..blocks {
                scales.push(random_scale(scale, stream.next()));
                for _ in (0..bits.block_bytes()).step_by(8) {
                    quants.extend(stream.next().to_le_bytes());
                }
            }
        }
    }
}

/// The scale with which weights have a standard deviation of one over the root
/// of `columns`: the product with as many inputs of size 1 has size 1 again.
fn mean_scale(columns: usize, bits: Bits) -> f32 {
    // Of a uniform integer of n values from -n/2 on: the variance (n² - 1) / 12,
    // and the square of its mean, -1/2.
    let values = f32::from(bits.max_quant()) + 1.0;
    let quant_square = (values * values - 1.0) / 12.0 + 0.25;
    // Of a factor that is uniform between 1/2 and 3/2.
    let factor_square = 13.0 / 12.0;
    (columns as f32 * quant_square * factor_square)
        .sqrt()
        .recip()
}

/// Half to one and a half times `mean`, of either sign: otherwise all weights
/// would share the mean of -1/2 quants, which layer upon layer adds up.
fn random_scale(mean: f32, random: u64) -> f16 {
    let sign = if random & 1 == 0 { 1.0 } else { -1.0 };
    f16::from_f32(sign * mean * (0.5 + fraction(random)))
}

/// The upper 24 bits as a number from 0 to below 1.
fn fraction(random: u64) -> f32 {
    (random >> 40) as f32 / (1u32 << 24) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(columns: usize, bits: Bits) -> Vec<f32> {
        let (mut quants, mut scales) = (Vec::new(), Vec::new());
        Weights::new(7, "m", columns).rows(0..64, bits, &mut quants, &mut scales);
        assert_eq!(scales.len(), 64 * columns / BLOCK_SIZE);
        let quants: Vec<u8> = match bits {
            Bits::Four => quants.iter().flat_map(|q| [q & 15, q >> 4]).collect(),
            Bits::Eight => quants,
        };
        assert_eq!(quants.len(), 64 * columns);
        let zero = f32::from(bits.symmetric_zero_point());
        quants
            .iter()
            .enumerate()
            .map(|(i, &quant)| (f32::from(quant) - zero) * scales[i / BLOCK_SIZE].to_f32())
            .collect()
    }

    #[test]
    fn weights_keep_the_size_of_what_they_multiply() {
        for bits in [Bits::Four, Bits::Eight] {
            for columns in [64, 2048] {
                let values = values(columns, bits);
                let count = values.len() as f32;
                let mean = values.iter().sum::<f32>() / count;
                let square = values.iter().map(|v| v * v).sum::<f32>() / count;
                let deviation = (square * columns as f32).sqrt();
                assert!((0.95..1.05).contains(&deviation), "{bits:?} {deviation}");
                assert!(mean.abs() < 0.05 * square.sqrt(), "{bits:?} {mean}");
            }
        }
    }

    #[test]
    fn rows_do_not_depend_on_the_portion_they_are_read_in() {
        let weights = Weights::new(7, "m", 96);
        let (mut whole, mut tail) = (Q4Blocks::default(), Q4Blocks::default());
        weights.q4_rows(0..10, &mut whole);
        weights.q4_rows(4..10, &mut tail);
        assert_eq!(whole.quants[4 * 48..], tail.quants);
        assert_eq!(whole.scales[4 * 3..], tail.scales);
        assert_ne!(whole.quants[..48], whole.quants[48..96]);
    }

    #[test]
    fn biases_are_small_and_of_either_sign() {
        let mut biases = [0.0; 100];
        Weights::new(7, "m.bias", 100).biases(&mut biases);
        assert!(biases.iter().all(|bias| bias.abs() <= MAX_BIAS));
        assert!(biases.iter().any(|&bias| bias > 0.05));
        assert!(biases.iter().any(|&bias| bias < -0.05));
    }
}
