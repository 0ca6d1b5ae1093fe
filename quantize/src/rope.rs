//! The tables of the rotary embedding, with RoPE scaling inside.

use std::f64::consts::TAU;

use chaski_manifest::{Architecture, RopeScaling};

/// Angle per position of each pair of a head's dimensions.
pub fn inverse_frequencies(a: &Architecture) -> Vec<f64> {
    (0..a.head_dim / 2)
        .map(|pair| {
            let plain = a.rope_theta.powf(-((2 * pair) as f64) / a.head_dim as f64);
            match a.rope_scaling {
                None => plain,
                Some(RopeScaling::Linear { factor }) => plain / factor,
                Some(RopeScaling::Llama3 {
                    factor,
                    low_freq_factor,
                    high_freq_factor,
                    original_context_length,
                }) => {
                    let turns = original_context_length as f64 * plain / TAU;
                    // 0 where fewer turns fit into the original context than
                    // `low_freq_factor`, 1 from `high_freq_factor` on.
                    let smooth = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor))
                        .clamp(0.0, 1.0);
                    (1.0 - smooth) * plain / factor + smooth * plain
                }
            }
        })
        .collect()
}

/// Cosines or sines of the positions `first..first + count`, row by row.
pub fn table(
    frequencies: &[f64],
    first: usize,
    count: usize,
    function: fn(f64) -> f64,
) -> Vec<f32> {
    (first..first.saturating_add(count))
        .flat_map(|position| {
            frequencies
                .iter()
                .map(move |frequency| function(position as f64 * frequency) as f32)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama(rope_scaling: Option<RopeScaling>) -> Architecture {
        Architecture {
            family: "llama".into(),
            hidden_size: 2048,
            intermediate_size: 8192,
            layers: 16,
            heads: 32,
            kv_heads: 8,
            head_dim: 64,
            vocab_size: 128_256,
            context_length: 131_072,
            rms_norm_eps: 1e-5,
            rope_theta: 500_000.0,
            rope_scaling,
            tied_embeddings: true,
            attention_bias: false,
            mlp_bias: false,
        }
    }

    #[test]
    fn llama3_scaling_leaves_high_and_divides_low_frequencies() {
        let plain = inverse_frequencies(&llama(None));
        let scaled = inverse_frequencies(&llama(Some(RopeScaling::Llama3 {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context_length: 8192,
        })));
        assert_eq!(plain[0], 1.0);
        // Wavelength of pair 10 is 380 positions: high. Pair 31: 2 million: low.
        assert_eq!(scaled[10], plain[10]);
        assert!((scaled[31] * 32.0 / plain[31] - 1.0).abs() < 1e-12);
        // Pair 17, as transformers' _compute_llama3_parameters gives it in f32.
        let between = (8192.0 * plain[17] / TAU - 1.0) / 3.0;
        assert!((0.0..1.0).contains(&between));
        let expected = (1.0 - between) * plain[17] / 32.0 + between * plain[17];
        assert!((scaled[17] / expected - 1.0).abs() < 1e-12);
        assert!(scaled.windows(2).all(|pair| pair[0] > pair[1]));
    }

    #[test]
    fn linear_scaling_divides_all() {
        let plain = inverse_frequencies(&llama(None));
        let scaled = inverse_frequencies(&llama(Some(RopeScaling::Linear { factor: 4.0 })));
        for (plain, scaled) in plain.iter().zip(&scaled) {
            assert_eq!(plain / 4.0, *scaled);
        }
    }

    #[test]
    fn tables_continue_at_a_position() {
        let frequencies = [1.0, 0.5];
        let whole = table(&frequencies, 0, 5, f64::cos);
        assert_eq!(whole.len(), 10);
        assert_eq!(whole[..2], [1.0, 1.0]);
        assert_eq!(whole[6..], table(&frequencies, 3, 2, f64::cos)[..]);
        assert_eq!(whole[7], (1.5f64).cos() as f32);
    }
}
