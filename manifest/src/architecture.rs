//! The figures of a Llama, as the manifest's `architecture` holds them.

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// Weights are quantised in blocks of this many along the input dimension.
pub const BLOCK_SIZE: usize = 32;

/// What a Llama consists of; see docs/model-folder.md.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// Always "llama".
    pub family: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head; need not be `hidden_size / heads`.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Positions the model was made for.
    pub context_length: usize,
    /// Epsilon of the RMS norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are stretched, if they are.
    pub rope_scaling: Option<RopeScaling>,
    /// The output head is the embedding.
    pub tied_embeddings: bool,
    /// Q, K, V and O projections have biases.
    pub attention_bias: bool,
    /// Gate, up and down projections have biases.
    pub mlp_bias: bool,
}

/// Stretching of the rotary embedding beyond the length of pre-training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum RopeScaling {
    /// Llama 3.1's: low frequencies divided, a smooth passage between.
    #[serde(rename = "llama3")]
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths longer than `original_context_length / low_freq_factor` are low.
        low_freq_factor: f64,
        /// Wavelengths shorter than `original_context_length / high_freq_factor` stay.
        high_freq_factor: f64,
        /// Context length before the stretching.
        original_context_length: usize,
    },
    /// All frequencies divided by one factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
}

// Bounds several times beyond Llama 3.1 405B (hidden 16384, intermediate 53248,
// 126 layers, 128 heads, vocabulary 128256), so that hostile figures cannot make
// a product overflow or an allocation explode.
const MAX_HIDDEN: usize = 1 << 17;
const MAX_INTERMEDIATE: usize = 1 << 19;
const MAX_LAYERS: usize = 1024;
const MAX_HEADS: usize = 1024;
const MAX_HEAD_DIM: usize = 1024;
const MAX_VOCABULARY: usize = 1 << 21;
const MAX_CONTEXT: usize = 1 << 20;

impl Architecture {
    /// Width of all query heads together.
    pub fn query_size(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn kv_size(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Refuses figures that are zero, contradictory or implausible.
    ///
    /// # Errors
    /// The first such figure, by its name in the manifest.
    pub fn check(&self) -> Result<(), Invalid> {
        if self.family != "llama" {
            return fail(format!("family \"{}\" is not \"llama\"", self.family));
        }
        within("hidden_size", self.hidden_size, MAX_HIDDEN)?;
        within(
            "intermediate_size",
            self.intermediate_size,
            MAX_INTERMEDIATE,
        )?;
        within("layers", self.layers, MAX_LAYERS)?;
        within("heads", self.heads, MAX_HEADS)?;
        within("kv_heads", self.kv_heads, MAX_HEADS)?;
        within("head_dim", self.head_dim, MAX_HEAD_DIM)?;
        within("vocab_size", self.vocab_size, MAX_VOCABULARY)?;
        within("context_length", self.context_length, MAX_CONTEXT)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            return fail(format!(
                "heads ({}) is not a multiple of kv_heads ({})",
                self.heads, self.kv_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return fail(format!(
                "head_dim ({}) is odd: rotary embedding pairs it",
                self.head_dim
            ));
        }
        for (name, size) in [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("heads * head_dim", self.query_size()),
        ] {
            if !size.is_multiple_of(BLOCK_SIZE) {
                return fail(format!(
                    "{name} ({size}) is not a multiple of the block size {BLOCK_SIZE}"
                ));
            }
        }
        if !(self.rms_norm_eps > 0.0 && self.rms_norm_eps < 1.0) {
            return fail(format!(
                "rms_norm_eps ({}) is not between 0 and 1",
                self.rms_norm_eps
            ));
        }
        if !(self.rope_theta >= 1.0 && self.rope_theta <= 1e12) {
            return fail(format!(
                "rope_theta ({}) is not between 1 and 1e12",
                self.rope_theta
            ));
        }
        self.rope_scaling
            .as_ref()
            .map_or(Ok(()), RopeScaling::check)
    }
}

impl RopeScaling {
    fn check(&self) -> Result<(), Invalid> {
        match *self {
            Self::Linear { factor } => positive("rope_scaling factor", factor),
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_context_length,
            } => {
                positive("rope_scaling factor", factor)?;
                positive("rope_scaling low_freq_factor", low_freq_factor)?;
                positive("rope_scaling high_freq_factor", high_freq_factor)?;
                within(
                    "rope_scaling original_context_length",
                    original_context_length,
                    MAX_CONTEXT,
                )?;
                if high_freq_factor <= low_freq_factor {
                    return fail(format!(
                        "rope_scaling high_freq_factor ({high_freq_factor}) is not above \
                         low_freq_factor ({low_freq_factor})"
                    ));
                }
                Ok(())
            }
        }
    }
}

fn fail<T>(reason: String) -> Result<T, Invalid> {
    Err(Invalid(reason))
}

fn within(name: &str, value: usize, maximum: usize) -> Result<(), Invalid> {
    if value == 0 || value > maximum {
        return fail(format!("{name} ({value}) is not between 1 and {maximum}"));
    }
    Ok(())
}

fn positive(name: &str, value: f64) -> Result<(), Invalid> {
    if !(value > 0.0 && value <= 1e6) {
        return fail(format!("{name} ({value}) is not between 0 and 1e6"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Spoil = fn(&mut Architecture);

    fn smollm2() -> Architecture {
        Architecture {
            family: "llama".into(),
            hidden_size: 576,
            intermediate_size: 1536,
            layers: 30,
            heads: 9,
            kv_heads: 3,
            head_dim: 64,
            vocab_size: 49152,
            context_length: 8192,
            rms_norm_eps: 1e-5,
            rope_theta: 100_000.0,
            rope_scaling: None,
            tied_embeddings: true,
            attention_bias: false,
            mlp_bias: false,
        }
    }

    #[test]
    fn real_figures_pass() {
        smollm2().check().unwrap();
    }

    #[test]
    fn bad_figures_are_named() {
        let cases: [(Spoil, &str); 9] = [
            (|a| a.layers = 0, "layers (0)"),
            (|a| a.kv_heads = 2, "not a multiple of kv_heads (2)"),
            (|a| a.kv_heads = 0, "kv_heads (0)"),
            (|a| a.head_dim = 63, "head_dim (63) is odd"),
            (|a| a.intermediate_size = 1537, "block size 32"),
            (|a| a.vocab_size = usize::MAX, "vocab_size"),
            (|a| a.rms_norm_eps = f64::NAN, "rms_norm_eps"),
            (|a| a.rope_theta = f64::INFINITY, "rope_theta"),
            (
                |a| a.rope_scaling = Some(RopeScaling::Linear { factor: -1.0 }),
                "rope_scaling factor (-1)",
            ),
        ];
        for (spoil, wanted) in cases {
            let mut figures = smollm2();
            spoil(&mut figures);
            let message = figures.check().unwrap_err().to_string();
            assert!(message.contains(wanted), "{message}");
        }
    }

    #[test]
    fn rope_scaling_is_tagged_by_type() {
        let scaling = RopeScaling::Llama3 {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context_length: 8192,
        };
        let json = serde_json::to_value(scaling).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_context_length": 8192})
        );
        assert_eq!(
            serde_json::from_value::<RopeScaling>(json).unwrap(),
            scaling
        );
        let linear = serde_json::json!({"type": "linear", "factor": 2.0});
        assert_eq!(
            serde_json::from_value::<RopeScaling>(linear).unwrap(),
            RopeScaling::Linear { factor: 2.0 }
        );
    }
}
