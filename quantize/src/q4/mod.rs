//! Weights in 4 bits: blocks of 32 along a row, each with an f16 scale and a
//! zero point. A weight is `(q - zero_point) * scale`.

mod fit;
mod import;
mod rows;

pub use fit::{Fit, fit_asymmetric, fit_symmetric};
pub use import::{FractionalZeroPoints, ImportedRows, MAX_F16_DEVIATION, import_rows};
pub use rows::{QuantisedRows, check_finite, quantise_rows, rows_per_task};

use crate::architecture::BLOCK_SIZE;

/// Largest 4-bit value.
pub const MAX_QUANT: u8 = 15;
/// The zero point of symmetric blocks.
pub const SYMMETRIC_ZERO_POINT: u8 = 8;
/// Bytes of a block's quants.
pub const BLOCK_BYTES: usize = BLOCK_SIZE / 2;

/// Which zero points a quantised tensor gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symmetry {
    /// 8 for all, not stored.
    Symmetric,
    /// An integer per block.
    Asymmetric,
}

/// Sums over a tensor from which its relative error follows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ErrorSums {
    /// Of the squared differences from the source.
    pub squared_error: f64,
    /// Of the squared weights of the source.
    pub squared_weights: f64,
}

impl ErrorSums {
    /// Adds the sums of another part.
    pub fn add(&mut self, other: Self) {
        self.squared_error += other.squared_error;
        self.squared_weights += other.squared_weights;
    }

    /// Root mean square of the error over that of the weights.
    pub fn relative(&self) -> f64 {
        if self.squared_weights > 0.0 {
            (self.squared_error / self.squared_weights).sqrt()
        } else {
            0.0
        }
    }
}

/// Packs values of 4 bits two to a byte, the first in the low nibble; an odd
/// last one leaves the high nibble 0.
pub fn pack_nibbles(values: &[u8], out: &mut Vec<u8>) {
    out.extend(values.chunks(2).map(|pair| match *pair {
        [low, high] => low | (high << 4),
        [low] => low,
        _ => 0,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_two_is_in_the_low_nibble() {
        let mut packed = Vec::new();
        pack_nibbles(&[1, 2, 3], &mut packed);
        assert_eq!(packed, [0x21, 0x03]);
    }
}
