//! Weights in blocks of 32 along a row, each with an f16 scale and a zero
//! point. A weight is `(q - zero_point) * scale`, `q` having 4 or 8 bits.

mod absmax;
mod fit;
mod import;
mod importance;
mod rows;

use half::f16;

pub use absmax::fit_absmax;
pub use fit::{fit_asymmetric, fit_symmetric};
pub use import::{FractionalZeroPoints, ImportedRows, MAX_F16_DEVIATION, import_rows};
pub use importance::Importance;
pub use rows::{QuantisedRows, check_finite, quantise_rows, rows_per_task};

use chaski_manifest::BLOCK_SIZE;

/// Bits of a quantised weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bits {
    /// Two weights to a byte, the first in the low nibble.
    #[default]
    Four,
    /// A byte each.
    Eight,
}

impl Bits {
    /// How many.
    pub const fn count(self) -> u32 {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// Largest value.
    pub const fn max_quant(self) -> u8 {
        match self {
            Self::Four => 15,
            Self::Eight => u8::MAX,
        }
    }

    /// The zero point of blocks that store none.
    pub const fn symmetric_zero_point(self) -> u8 {
        match self {
            Self::Four => 8,
            Self::Eight => 128,
        }
    }

    /// Bytes of a block's quants.
    pub const fn block_bytes(self) -> usize {
        BLOCK_SIZE * self.count() as usize / 8
    }
}

/// The blocks that a tensor is quantised to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// 4 bits, zero point 8 for all.
    Symmetric4,
    /// 4 bits, an integer zero point per block.
    Asymmetric4,
    /// 8 bits, zero point 128 for all: finer steps make zero points of the
    /// blocks' own superfluous.
    Symmetric8,
}

impl Form {
    /// Bits of a weight.
    pub const fn bits(self) -> Bits {
        match self {
            Self::Symmetric4 | Self::Asymmetric4 => Bits::Four,
            Self::Symmetric8 => Bits::Eight,
        }
    }

    /// Whether zero points are stored.
    pub const fn has_zero_points(self) -> bool {
        matches!(self, Self::Asymmetric4)
    }
}

/// A block of weights in so many bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit<const BYTES: usize> {
    /// Laid out as [`Bits`] says.
    pub quants: [u8; BYTES],
    /// Distance between neighbouring values; may be negative. Infinite where
    /// the weights are too large for f16.
    pub scale: f16,
    /// The value that stands for 0.
    pub zero_point: u8,
    /// Sum of the squared differences from the weights, all weighted alike.
    pub squared_error: f32,
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

/// The nearest integer, halves to even, for numbers well below 2²²: adding
/// 1.5 · 2²³ leaves no bits for a fraction. Unlike `f32::round` it vectorises
/// everywhere.
fn round(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (x + MAGIC) - MAGIC
}

/// Sums a term of each weight of a block in eight lanes, then the lanes
/// pairwise: the result is the same on every processor.
fn sum(term: impl Fn(usize) -> f32) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0.0f32; LANES];
    for first in (0..BLOCK_SIZE).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += term(first + lane);
        }
    }
    let [s0, s1, s2, s3, s4, s5, s6, s7] = sums;
    ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7))
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

    #[test]
    fn blocks_have_the_bytes_of_their_bits() {
        assert_eq!(Bits::Four.block_bytes(), 16);
        assert_eq!(Bits::Eight.block_bytes(), 32);
        for bits in [Bits::Four, Bits::Eight] {
            assert_eq!(u32::from(bits.max_quant()), (1 << bits.count()) - 1);
            assert_eq!(bits.symmetric_zero_point(), bits.max_quant() / 2 + 1);
        }
    }
}
