//! Activations in the order in which the kernels read weights.

use super::blocks::{BLOCK, Bits, HALF};

/// Rows of activations in the order of the weights' quants. For 4 bits they are
/// permuted block by block: 16 values of even index, then the 16 of odd index.
/// Done once here, so that the weights are used as they lie in the file.
#[derive(Clone, Debug)]
pub(crate) struct Activations {
    rows: usize,
    columns: usize,
    bits: Bits,
    values: Vec<f32>,
    /// The sum of each block: what zero points are multiplied with.
    sums: Vec<f32>,
}

impl Activations {
    /// Takes `x`, `[rows, columns]`, for weights of `bits`; `columns` is a
    /// multiple of 32.
    pub(crate) fn new(x: &[f32], columns: usize, bits: Bits) -> Self {
        let mut values = vec![0.0; x.len()];
        let mut sums = vec![0.0; x.len() / BLOCK];
        let blocks = x.chunks_exact(BLOCK).zip(values.chunks_exact_mut(BLOCK));
        for ((x, v), sum) in blocks.zip(&mut sums) {
            match bits {
                Bits::Four => {
                    let (even, odd) = v.split_at_mut(HALF);
                    for ((pair, e), o) in x.chunks_exact(2).zip(even).zip(odd) {
                        *e = pair[0];
                        *o = pair[1];
                    }
                }
                Bits::Eight => v.copy_from_slice(x),
            }
            *sum = x.iter().sum();
        }
        Self {
            rows: x.len() / columns,
            columns,
            bits,
            values,
            sums,
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The weights these are for.
    pub(crate) fn bits(&self) -> Bits {
        self.bits
    }

    /// A row, in the order of the quants.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..][..self.columns]
    }

    /// The block sums of a row.
    #[inline(always)]
    pub(crate) fn sums(&self, row: usize) -> &[f32] {
        let blocks = self.columns / BLOCK;
        &self.sums[row * blocks..][..blocks]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evens_then_odds_and_the_sum() {
        let x: Vec<f32> = (0..64).map(|i| i as f32).collect();
        let a = Activations::new(&x, 64, Bits::Four);
        assert_eq!((a.rows(), a.columns()), (1, 64));
        assert_eq!(&a.row(0)[..3], &[0.0, 2.0, 4.0]);
        assert_eq!(&a.row(0)[16..19], &[1.0, 3.0, 5.0]);
        assert_eq!(&a.row(0)[32..34], &[32.0, 34.0]);
        assert_eq!(a.sums(0), &[496.0, 1520.0]);
        let a = Activations::new(&x, 64, Bits::Eight);
        assert_eq!(a.row(0), x);
        assert_eq!(a.sums(0), &[496.0, 1520.0]);
    }
}
