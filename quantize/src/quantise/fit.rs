//! Finds the scale and zero point of one block of 4 bits.
//!
//! The largest weight need not be met exactly: a somewhat smaller or larger
//! scale often leaves a smaller squared error, so a few are tried, each
//! improved by least squares and judged as the f16 it will be stored as.
//! Squares are weighted by how important a column is; see [`super::Importance`].

use half::f16;

use super::{Bits, Fit, round, sum};
use chaski_manifest::BLOCK_SIZE;

const BITS: Bits = Bits::Four;
const BLOCK_BYTES: usize = BITS.block_bytes();

type Weights = [f32; BLOCK_SIZE];

/// Steps between zero and the extreme weight that are tried, for the extreme
/// at the lower end (8 steps away) and at the upper end (7 steps away).
const SYMMETRIC_STEPS: [f32; 14] = [
    -8.0, -7.4, -7.7, -8.3, -8.6, -9.0, -9.5, 7.0, 6.7, 7.3, 7.6, 8.0, 8.4, 8.8,
];
/// Parts of the full range that are tried for each zero point.
const ASYMMETRIC_SHRINKS: [f32; 7] = [1.0, 0.96, 0.92, 0.88, 0.83, 0.78, 1.04];

/// Quantises with the zero point 8. Weights must be finite, importances
/// finite and above 0.
pub fn fit_symmetric(weights: &Weights, importance: &Weights) -> Fit<BLOCK_BYTES> {
    let zero_point = f32::from(BITS.symmetric_zero_point());
    let extreme = weights
        .iter()
        .copied()
        .fold(0.0f32, |a, b| if b.abs() > a.abs() { b } else { a });
    let block = Block {
        weights,
        importance,
    };
    let mut best = Candidate::zero(&block, zero_point);
    for steps in SYMMETRIC_STEPS {
        best.improve(&block, extreme / steps, zero_point);
    }
    best.quantise(weights, extreme.abs() / 8.0)
}

/// Quantises with the best integer zero point, under the same conditions.
pub fn fit_asymmetric(weights: &Weights, importance: &Weights) -> Fit<BLOCK_BYTES> {
    // Zero is among the values that can be had, so it is in the range.
    let low = weights.iter().copied().fold(0.0f32, f32::min);
    let high = weights.iter().copied().fold(0.0f32, f32::max);
    let maximum = f32::from(BITS.max_quant());
    let block = Block {
        weights,
        importance,
    };
    let mut best = Candidate::zero(&block, 0.0);
    // Halved, so that the range of two huge weights does not overflow.
    let step = high / maximum - low / maximum;
    if step > 0.0 {
        let nearest = round(-low / step).clamp(0.0, maximum);
        for zero_point in [nearest, nearest - 1.0, nearest + 1.0] {
            if !(0.0..=maximum).contains(&zero_point) {
                continue;
            }
            let below = if zero_point > 0.0 {
                -low / zero_point
            } else {
                0.0
            };
            let above = if zero_point < maximum {
                high / (maximum - zero_point)
            } else {
                0.0
            };
            let full = below.max(above);
            for shrink in ASYMMETRIC_SHRINKS {
                best.improve(&block, full * shrink, zero_point);
            }
        }
    }
    best.quantise(weights, step)
}

struct Block<'a> {
    weights: &'a Weights,
    importance: &'a Weights,
}

/// A scale (as stored) and zero point with the weighted error they leave.
struct Candidate {
    scale: f32,
    zero_point: f32,
    error: f32,
}

impl Candidate {
    fn zero(block: &Block<'_>, zero_point: f32) -> Self {
        let &Block {
            weights,
            importance,
        } = block;
        Self {
            scale: 0.0,
            zero_point,
            error: sum(|i| importance[i] * weights[i] * weights[i]),
        }
    }

    /// Takes over a scale near `scale` if it leaves a smaller error.
    fn improve(&mut self, block: &Block<'_>, scale: f32, zero_point: f32) {
        let &Block {
            weights,
            importance,
        } = block;
        let inverse = scale.recip();
        if !inverse.is_finite() {
            return;
        }
        let levels = levels(weights, inverse, zero_point);
        let products = sum(|i| importance[i] * weights[i] * levels[i]);
        let squares = sum(|i| importance[i] * levels[i] * levels[i]);
        if squares == 0.0 {
            return;
        }
        let fitted = f16::from_f32(products / squares).to_f32();
        if fitted == 0.0 || !fitted.is_finite() {
            return;
        }
        let levels = self::levels(weights, fitted.recip(), zero_point);
        let error = sum(|i| {
            let difference = weights[i] - levels[i] * fitted;
            importance[i] * difference * difference
        });
        if error < self.error {
            *self = Self {
                scale: fitted,
                zero_point,
                error,
            };
        }
    }

    /// `full_scale` is the scale that just spans the weights.
    fn quantise(&self, weights: &Weights, full_scale: f32) -> Fit<BLOCK_BYTES> {
        let mut quants = [0u8; BLOCK_BYTES];
        let inverse = if self.scale == 0.0 {
            0.0
        } else {
            self.scale.recip()
        };
        let levels = levels(weights, inverse, self.zero_point);
        for (byte, pair) in quants.iter_mut().zip(levels.chunks_exact(2)) {
            // Between 0 and 15 by the clamp in `levels`.
            let [low, high] = [pair[0], pair[1]].map(|level| (level + self.zero_point) as u8);
            *byte = low | (high << 4);
        }
        Fit {
            quants,
            scale: if full_scale > f16::MAX.to_f32() {
                f16::INFINITY
            } else {
                f16::from_f32(self.scale)
            },
            zero_point: self.zero_point as u8,
            squared_error: sum(|i| {
                let difference = weights[i] - levels[i] * self.scale;
                difference * difference
            }),
        }
    }
}

/// The nearest whole steps from zero that 4 bits can say.
fn levels(weights: &Weights, inverse: f32, zero_point: f32) -> Weights {
    let (low, high) = (-zero_point, f32::from(BITS.max_quant()) - zero_point);
    weights.map(|w| round((w * inverse).clamp(low, high)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::weights;

    const ALIKE: Weights = [1.0; BLOCK_SIZE];

    fn symmetric(weights: &Weights) -> Fit<BLOCK_BYTES> {
        fit_symmetric(weights, &ALIKE)
    }

    fn asymmetric(weights: &Weights) -> Fit<BLOCK_BYTES> {
        fit_asymmetric(weights, &ALIKE)
    }

    fn values(fit: &Fit<BLOCK_BYTES>) -> Vec<f32> {
        let scale = fit.scale.to_f32();
        fit.quants
            .iter()
            .flat_map(|&byte| [byte & 15, byte >> 4])
            .map(|quant| (f32::from(quant) - f32::from(fit.zero_point)) * scale)
            .collect()
    }

    fn squared_error(weights: &Weights, values: &[f32]) -> f32 {
        weights
            .iter()
            .zip(values)
            .map(|(w, v)| (w - v).powi(2))
            .sum()
    }

    fn blocks() -> impl Iterator<Item = Weights> {
        (0..200).map(|seed| {
            let block: Weights = weights(BLOCK_SIZE, seed).try_into().unwrap();
            // Some blocks are off centre, some are very small.
            let offset = (seed % 5) as f32 * 0.1;
            block.map(|w| (w + offset) * if seed % 7 == 0 { 1e-4 } else { 1.0 })
        })
    }

    /// What Q4_0 does: the extreme weight is 8 steps from zero.
    fn plain_absmax(weights: &Weights) -> f32 {
        let extreme = weights
            .iter()
            .copied()
            .fold(0.0f32, |a, b| if b.abs() > a.abs() { b } else { a });
        let scale = f16::from_f32(extreme / -8.0).to_f32();
        let values = weights.map(|w| (w / scale).round().clamp(-8.0, 7.0) * scale);
        squared_error(weights, &values)
    }

    #[test]
    fn the_search_beats_the_plain_scale() {
        let (mut searched, mut plain, mut best) = (0.0, 0.0, 0.0);
        for block in blocks() {
            let fit = symmetric(&block);
            assert_eq!(fit.zero_point, 8);
            let error = squared_error(&block, &values(&fit));
            assert!(
                (error - fit.squared_error).abs() <= 1e-4 * error,
                "{error} {fit:?}"
            );
            let absmax = plain_absmax(&block);
            assert!(error <= absmax * 1.0001, "{error} {absmax}");
            searched += error;
            plain += absmax;
            // A dense search over scales of both signs.
            best += (-400..400)
                .map(|step| {
                    let block_of = Block {
                        weights: &block,
                        importance: &ALIKE,
                    };
                    let mut candidate = Candidate::zero(&block_of, 8.0);
                    let extreme = block.iter().fold(0.0f32, |a, w| a.max(w.abs()));
                    candidate.improve(&block_of, extreme / (step as f32 * 0.03 + 0.015), 8.0);
                    candidate.error
                })
                .fold(f32::INFINITY, f32::min);
        }
        assert!(searched < 0.9 * plain, "{searched} {plain}");
        assert!(searched < 1.04 * best, "{searched} {best}");
    }

    #[test]
    fn a_zero_point_never_makes_it_worse_by_much() {
        let (mut without, mut with) = (0.0, 0.0);
        for block in blocks() {
            let fit = asymmetric(&block);
            let error = squared_error(&block, &values(&fit));
            assert!(
                (error - fit.squared_error).abs() <= 1e-4 * error,
                "{error} {fit:?}"
            );
            with += error;
            without += symmetric(&block).squared_error;
        }
        assert!(with < 0.8 * without, "{with} {without}");
    }

    #[test]
    fn errors_stay_below_half_a_step() {
        for block in blocks() {
            let low = block.iter().copied().fold(0.0, f32::min);
            let high = block.iter().copied().fold(0.0, f32::max);
            let range = high - low;
            let fit = asymmetric(&block);
            // Weights may be clipped by the shrunken scale, by a quarter at most.
            for (w, v) in block.iter().zip(values(&fit)) {
                assert!((w - v).abs() <= 0.3 * range, "{w} {v} {range}");
            }
            let rms = (fit.squared_error / 32.0).sqrt();
            assert!(rms <= range / 15.0 / 3.0f32.sqrt(), "{rms} {range}");
        }
    }

    #[test]
    fn what_4_bits_can_say_is_said_exactly() {
        let mut block: Weights = std::array::from_fn(|i| (i % 16) as f32 * 0.25 - 2.0);
        for fit in [symmetric(&block), asymmetric(&block)] {
            assert_eq!(values(&fit), block);
            assert_eq!(fit.squared_error, 0.0);
        }
        // The lower extreme is at the top: the scale is negative.
        block = block.map(|w| -w);
        assert!(symmetric(&block).scale < f16::ZERO);
        assert_eq!(values(&symmetric(&block)), block);
        // All positive: the zero point is at the end.
        block = std::array::from_fn(|i| (i % 16) as f32);
        let fit = asymmetric(&block);
        assert_eq!((fit.zero_point, values(&fit)), (0, block.to_vec()));
        assert_eq!(asymmetric(&block.map(|w| -w)).zero_point, 15);
    }

    #[test]
    fn extremes_of_f16_are_zero_or_infinite() {
        for tiny in [0.0, -0.0, 1e-9, -1e-38, f32::MIN_POSITIVE / 2.0] {
            for fit in [symmetric(&[tiny; 32]), asymmetric(&[tiny; 32])] {
                assert!(values(&fit).iter().all(|v| v.abs() < 1e-7), "{fit:?}");
            }
        }
        for huge in [1.1e6, -1e9, f32::MAX, f32::MIN] {
            let mut block = [0.0; 32];
            block[5] = huge;
            assert_eq!(symmetric(&block).scale, f16::INFINITY, "{huge}");
            assert_eq!(asymmetric(&block).scale, f16::INFINITY, "{huge}");
        }
        let mut block = [1.0; 32];
        block[0] = 4e5;
        let fit = symmetric(&block);
        assert!((values(&fit)[0] / 4e5 - 1.0).abs() < 0.01, "{fit:?}");
    }

    #[test]
    fn important_columns_come_out_closer() {
        let mut importance = ALIKE;
        importance[..4].fill(100.0);
        let (mut alike, mut weighted) = (0.0, 0.0);
        for block in blocks() {
            let first = |fit: Fit<BLOCK_BYTES>| squared_error(&block, &values(&fit)[..4]);
            alike += first(symmetric(&block)) + first(asymmetric(&block));
            weighted += first(fit_symmetric(&block, &importance));
            weighted += first(fit_asymmetric(&block, &importance));
        }
        assert!(weighted < 0.8 * alike, "{weighted} {alike}");
    }
}
