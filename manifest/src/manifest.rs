//! `chaski.json`: what the folder holds and where it came from.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::architecture::{Architecture, BLOCK_SIZE};
use crate::{Invalid, MODEL, MODEL_DATA, TOKENIZER};

/// Value of `format`.
pub const FORMAT: &str = "chaski-model";
/// Value of `format_version`.
pub const FORMAT_VERSION: u32 = 1;

/// How zero points are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// Q4_0 and Q4_1 tensors are taken over as they are. Of the others the
    /// embedding and the head get integer zero points (on SmolLM2-135M they
    /// bring the distribution of answers a third closer to the source for
    /// 0.5 % of the size), the rest is symmetric.
    #[default]
    Auto,
    /// 8 for every block: the smallest and fastest.
    Symmetric,
    /// An integer per block: a little larger and closer to the source.
    Asymmetric,
}

/// Size and hash of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

/// How the weights were quantised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantisation {
    /// Bits of a weight of the layers.
    pub bits: u32,
    /// Bits of a weight of the embedding and the output head: 4 or 8.
    pub embedding_bits: u32,
    /// Weights that share a scale.
    pub block_size: usize,
    /// The scheme that was asked for.
    pub scheme: Scheme,
}

/// Where the weights came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceEntry {
    /// `gguf` or `safetensors`.
    pub kind: String,
    /// By file name.
    pub files: BTreeMap<String, FileEntry>,
}

/// The whole manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`FORMAT`].
    pub format: String,
    /// Changes when a reader of the old one could go wrong.
    pub format_version: u32,
    /// Program and version.
    pub created_by: String,
    /// The model's figures.
    pub architecture: Architecture,
    /// How the weights were quantised.
    pub quantisation: Quantisation,
    /// Every file of the folder but this one.
    pub files: BTreeMap<String, FileEntry>,
    /// Where the weights came from.
    pub source: SourceEntry,
}

impl Manifest {
    /// Refuses what no engine of this format can run, or what would lead out of
    /// the folder.
    ///
    /// # Errors
    /// The first problem, with the remedy where there is one.
    pub fn check(&self) -> Result<(), Invalid> {
        let fail = |problem: String| Err(Invalid(problem));
        if self.format != FORMAT || self.format_version != FORMAT_VERSION {
            return fail(format!(
                "format {} version {} where {FORMAT} version {FORMAT_VERSION} is due: quantise \
                 the model again",
                self.format, self.format_version
            ));
        }
        self.architecture.check()?;
        let q = &self.quantisation;
        if q.bits != 4 || !matches!(q.embedding_bits, 4 | 8) || q.block_size != BLOCK_SIZE {
            return fail(format!(
                "{} bits (embedding {}) in blocks of {}: 4 bits (embedding 4 or 8) in blocks of \
                 {BLOCK_SIZE} are due",
                q.bits, q.embedding_bits, q.block_size
            ));
        }
        if let Some(name) = self.files.keys().find(|name| !is_plain(name)) {
            return fail(format!("file name {name:?} leads out of the folder"));
        }
        for name in [MODEL, MODEL_DATA, TOKENIZER] {
            if !self.files.contains_key(name) {
                return fail(format!("files does not list {name}"));
            }
        }
        Ok(())
    }
}

/// Whether a name is one plain component, so that it stays in the folder.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> serde_json::Value {
        let file = serde_json::json!({"bytes": 1, "sha256": "00"});
        serde_json::json!({
            "format": "chaski-model", "format_version": 1, "created_by": "test",
            "architecture": {
                "family": "llama", "hidden_size": 64, "intermediate_size": 128, "layers": 2,
                "heads": 4, "kv_heads": 2, "head_dim": 16, "vocab_size": 256,
                "context_length": 512, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
                "rope_scaling": {"type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0, "original_context_length": 64},
                "tied_embeddings": true, "attention_bias": false, "mlp_bias": false
            },
            "quantisation": {"bits": 4, "embedding_bits": 8, "block_size": 32, "scheme": "auto"},
            "files": {"model.onnx": file, "model.onnx.data": file, "tokenizer.json": file},
            "source": {"kind": "gguf", "files": {}}
        })
    }

    fn read(value: &serde_json::Value) -> Result<(), String> {
        let manifest: Manifest =
            serde_json::from_value(value.clone()).map_err(|e| e.to_string())?;
        manifest.check().map_err(|e| e.to_string())
    }

    #[test]
    fn a_good_manifest_passes() {
        assert_eq!(read(&manifest()), Ok(()));
    }

    #[test]
    fn bad_ones_say_what_is_wrong() {
        let cases = [
            ("/format_version", serde_json::json!(9), "version 9"),
            ("/architecture/family", serde_json::json!("qwen2"), "qwen2"),
            ("/architecture/layers", serde_json::json!(0), "layers (0)"),
            (
                "/architecture/vocab_size",
                serde_json::json!(1u64 << 40),
                "vocab_size",
            ),
            (
                "/architecture/kv_heads",
                serde_json::json!(3),
                "kv_heads (3)",
            ),
            ("/quantisation/bits", serde_json::json!(8), "8 bits"),
            ("/files", serde_json::json!({}), "does not list model.onnx"),
            (
                "/files",
                serde_json::json!({"../x": {"bytes": 1, "sha256": ""}}),
                "../x",
            ),
            ("/source", serde_json::json!({"kind": 3}), "kind"),
        ];
        for (place, value, expected) in cases {
            let mut bad = manifest();
            *bad.pointer_mut(place).unwrap() = value;
            let error = read(&bad).unwrap_err();
            assert!(
                error.contains(expected) || error.contains("invalid type"),
                "{place}: {error}"
            );
        }
    }
}
