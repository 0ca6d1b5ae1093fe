//! Blocks of 8 bits: the weight farthest from zero decides on the scale.
//!
//! A step is then 1/127 of that weight, so fine that the search for a better
//! one that 4 bits need is not worth its time.

use half::f16;

use super::{Bits, Fit, round, sum};
use chaski_manifest::BLOCK_SIZE;

const BITS: Bits = Bits::Eight;
const BLOCK_BYTES: usize = BITS.block_bytes();
/// Steps between zero and the farthest weight: as many on either side.
const STEPS: f32 = 127.0;

/// Quantises with the zero point 128. Weights must be finite; none moves by
/// more than half the scale.
pub fn fit_absmax(weights: &[f32; BLOCK_SIZE]) -> Fit<BLOCK_BYTES> {
    let farthest = weights.iter().fold(0.0f32, |most, w| most.max(w.abs()));
    let scale = stored_scale(farthest);
    let step = scale.to_f32();
    let zero_point = BITS.symmetric_zero_point();
    let levels = if step == 0.0 {
        [0.0; BLOCK_SIZE]
    } else {
        weights.map(|weight| round((weight / step).clamp(-STEPS, STEPS)))
    };
    Fit {
        // Between 1 and 255 by the clamp.
        quants: levels.map(|level| (level + f32::from(zero_point)) as u8),
        scale,
        zero_point,
        squared_error: sum(|i| {
            let difference = weights[i] - levels[i] * step;
            difference * difference
        }),
    }
}

/// The scale as it is stored, so that levels are counted in steps of that very
/// size.
fn stored_scale(farthest: f32) -> f16 {
    let scale = f16::from_f32(farthest / STEPS);
    // Below its normal numbers f16 may round down so far that the farthest
    // weight would be cut off: with the next number it is not.
    if scale.to_f32() * (STEPS + 0.5) < farthest {
        f16::from_bits(scale.to_bits() + 1)
    } else {
        scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::weights;

    fn values(fit: &Fit<BLOCK_BYTES>) -> [f32; BLOCK_SIZE] {
        let zero_point = f32::from(fit.zero_point);
        fit.quants
            .map(|quant| (f32::from(quant) - zero_point) * fit.scale.to_f32())
    }

    #[test]
    fn no_weight_moves_by_more_than_half_a_step() {
        for seed in 0..300 {
            let block: [f32; BLOCK_SIZE] = weights(BLOCK_SIZE, seed).try_into().unwrap();
            // From hundreds down to where f16 has few bits left, and none.
            let block = block.map(|w| w * 10.0f32.powi(2 - (seed % 12) as i32));
            let fit = fit_absmax(&block);
            let step = fit.scale.to_f32();
            assert!(step > 0.0 && fit.zero_point == 128);
            assert!(!fit.quants.contains(&0));
            let mut squares = 0.0;
            for (w, v) in block.iter().zip(values(&fit)) {
                assert!((w - v).abs() <= step * 0.50001, "{seed}: {w} {v} {step}");
                squares += (w - v).powi(2);
            }
            assert!((squares - fit.squared_error).abs() <= 1e-4 * squares);
            let farthest = block.iter().fold(0.0f32, |a, w| a.max(w.abs()));
            if step >= f16::MIN_POSITIVE.to_f32() {
                assert!((step * 127.0 / farthest - 1.0).abs() < 1.0 / 2047.0);
            }
        }
    }

    #[test]
    fn what_8_bits_can_say_is_said_exactly() {
        let mut block: [f32; BLOCK_SIZE] = std::array::from_fn(|i| (i as f32 - 16.0) * 0.25);
        block[0] = -127.0 * 0.25;
        let fit = fit_absmax(&block);
        assert_eq!((fit.scale.to_f32(), fit.squared_error), (0.25, 0.0));
        assert_eq!(values(&fit), block);
        assert_eq!((fit.quants[0], fit.quants[16]), (1, 128));
    }

    #[test]
    fn extremes_of_f16_are_zero_or_infinite() {
        assert_eq!(fit_absmax(&[-0.0; BLOCK_SIZE]).scale, f16::ZERO);
        assert_eq!(values(&fit_absmax(&[0.0; BLOCK_SIZE])), [0.0; BLOCK_SIZE]);
        for tiny in [1e-9, -1e-38, f32::MIN_POSITIVE / 2.0] {
            let values = values(&fit_absmax(&[tiny; BLOCK_SIZE]));
            assert!(values.iter().all(|v| v.abs() < 1e-7), "{values:?}");
        }
        let mut block = [1.0; BLOCK_SIZE];
        for huge in [8.4e6, -1e9, f32::MAX, f32::MIN] {
            block[5] = huge;
            assert_eq!(fit_absmax(&block).scale, f16::INFINITY, "{huge}");
        }
        block[5] = -8.3e6;
        let fit = fit_absmax(&block);
        assert!((values(&fit)[5] / -8.3e6 - 1.0).abs() < 0.01, "{fit:?}");
    }
}
