//! How much an error in a column of a matrix matters.
//!
//! A column is multiplied by one channel of the activations. Where these come
//! out of an RMS norm, they are of like size but for the norm's weight, so an
//! error counts by the square of that: known without running the model.

use chaski_manifest::BLOCK_SIZE;

/// Factors of the columns' squared errors, 1 on average.
#[derive(Clone, Debug, PartialEq)]
pub struct Importance(Vec<[f32; BLOCK_SIZE]>);

/// No column counts for less or more, lest the others of its block be ruined.
const BOUNDS: (f64, f64) = (1e-2, 1e2);

impl Importance {
    /// All of that many columns alike.
    pub fn alike(columns: usize) -> Self {
        Self(vec![[1.0; BLOCK_SIZE]; columns / BLOCK_SIZE])
    }

    /// From the (finite) weights of the norm before.
    pub fn of_norm(weights: &[f32]) -> Self {
        let square = |weight: &f32| f64::from(*weight) * f64::from(*weight);
        let mean = weights.iter().map(square).sum::<f64>() / weights.len().max(1) as f64;
        if mean <= 0.0 {
            return Self::alike(weights.len());
        }
        let (blocks, _) = weights.as_chunks::<BLOCK_SIZE>();
        let factor = |weight: &f32| (square(weight) / mean).clamp(BOUNDS.0, BOUNDS.1) as f32;
        Self(
            blocks
                .iter()
                .map(|block| block.each_ref().map(factor))
                .collect(),
        )
    }

    /// The factors of each block of a row.
    pub fn blocks(&self) -> &[[f32; BLOCK_SIZE]] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_squares_about_one() {
        let mut weights = [2.0f32; 64];
        weights[40..].fill(-2.0);
        assert_eq!(Importance::of_norm(&weights), Importance::alike(64));
        weights[3] = 1.0;
        weights[4] = 0.0;
        weights[5] = 1e19;
        let importance = Importance::of_norm(&weights);
        let first = importance.blocks()[0];
        assert_eq!((first[4], first[5]), (0.01, 64.0));
        weights[5] = 2.0;
        let first = Importance::of_norm(&weights).blocks()[0];
        assert!((first[3] * 4.0 / first[0] - 1.0).abs() < 1e-6);
        assert_eq!(Importance::of_norm(&[0.0; 32]), Importance::alike(32));
    }
}
