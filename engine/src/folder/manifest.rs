//! `chaski.json`: what the folder holds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::error::EngineError;

const NAME: &str = "chaski.json";
/// A manifest has some kilobytes.
const MOST_BYTES: u64 = 1 << 20;
const FORMAT_VERSION: u32 = 1;

/// The manifest of a model folder.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always `chaski-model`.
    pub format: String,
    /// Always 1.
    pub format_version: u32,
    /// The program that wrote the folder.
    pub created_by: String,
    /// The model's figures.
    pub architecture: Architecture,
    /// How the weights are stored.
    pub quantisation: Quantisation,
    /// Every file of the folder but the manifest, by name.
    pub files: BTreeMap<String, FileEntry>,
    /// What the folder was made from.
    pub source: SourceInfo,
}

/// The figures of a Llama.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// `llama`.
    pub family: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads (GQA when fewer than `heads`).
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Tokens the embedding and the head know.
    pub vocab_size: usize,
    /// The longest context the folder's RoPE tables serve.
    pub context_length: usize,
    /// Epsilon of the RMS norms.
    pub rms_norm_eps: f64,
    /// Base of RoPE's frequencies.
    pub rope_theta: f64,
    /// How they are stretched.
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the head's weights are the embedding's.
    pub tied_embeddings: bool,
    /// Whether Q, K, V and O have biases.
    pub attention_bias: bool,
    /// Whether gate, up and down have biases.
    pub mlp_bias: bool,
}

/// How RoPE is stretched beyond the trained context (applied in the folder's
/// tables already).
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
#[allow(missing_docs)]
pub enum RopeScaling {
    /// Llama 3.1's, by wavelength.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_context_length: usize,
    },
    /// Positions divided by a factor.
    Linear { factor: f64 },
}

/// How the weights are stored.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Quantisation {
    /// Bits a weight: 4.
    pub bits: u32,
    /// Bits a weight of the embedding and the head: 4 or 8.
    pub embedding_bits: u32,
    /// Weights that share a scale: 32.
    pub block_size: usize,
    /// `auto`, `symmetric` or `asymmetric`, as the quantiser was told.
    pub scheme: String,
}

/// Size and hash of a file.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// What the folder was made from.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct SourceInfo {
    /// `gguf` or `safetensors`.
    pub kind: String,
    /// The files read, by name.
    pub files: BTreeMap<String, FileEntry>,
}

impl Manifest {
    pub(super) fn read(folder: &Path) -> Result<Self, EngineError> {
        let path = folder.join(NAME);
        let file = File::open(&path).map_err(|e| {
            if e.kind() == std::io::ErrorKind::NotFound {
                let problem = "not found: give a model folder that chaski-quantize wrote";
                EngineError::folder(&path, problem)
            } else {
                EngineError::io(&path)(e)
            }
        })?;
        let mut text = String::new();
        file.take(MOST_BYTES)
            .read_to_string(&mut text)
            .map_err(EngineError::io(&path))?;
        let fail = |problem: String| Err(EngineError::folder(&path, problem));
        let manifest: Manifest = match serde_json::from_str(&text) {
            Ok(m) => m,
            Err(e) => return fail(format!("{e}: not a manifest of a Chaski model folder")),
        };
        if manifest.format != "chaski-model" || manifest.format_version != FORMAT_VERSION {
            return fail(format!(
                "format {} version {}, but this engine reads chaski-model version \
                 {FORMAT_VERSION}: quantise the model again",
                manifest.format, manifest.format_version
            ));
        }
        if let Some(name) = manifest.files.keys().find(|name| !is_plain(name)) {
            return fail(format!("file name {name:?} leads out of the folder"));
        }
        if let Some(problem) = manifest.problem() {
            return fail(problem);
        }
        Ok(manifest)
    }

    /// What the engine cannot run.
    fn problem(&self) -> Option<String> {
        let a = &self.architecture;
        let sizes = [
            ("hidden_size", a.hidden_size),
            ("intermediate_size", a.intermediate_size),
            ("layers", a.layers),
            ("heads", a.heads),
            ("kv_heads", a.kv_heads),
            ("head_dim", a.head_dim),
            ("vocab_size", a.vocab_size),
            ("context_length", a.context_length),
        ];
        // Far above any Llama, far below what could overflow a product of two.
        let absurd = sizes.iter().find(|(_, v)| *v == 0 || *v > 1 << 24);
        if let Some((name, value)) = absurd {
            return Some(format!("architecture.{name} is {value}"));
        }
        if a.family != "llama" {
            return Some(format!("architecture.family is {:?}, not llama", a.family));
        }
        if !a.heads.is_multiple_of(a.kv_heads) {
            let (heads, kv_heads) = (a.heads, a.kv_heads);
            return Some(format!("{heads} heads cannot share {kv_heads} KV heads"));
        }
        let q = &self.quantisation;
        if q.bits != 4 || q.block_size != 32 {
            return Some(format!(
                "{} bits in blocks of {}: this engine runs 4 bits in blocks of 32",
                q.bits, q.block_size
            ));
        }
        for name in [super::GRAPH, super::DATA, "tokenizer.json"] {
            if !self.files.contains_key(name) {
                return Some(format!("files does not list {name}"));
            }
        }
        None
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

pub(super) fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    let mut text = String::with_capacity(64);
    for byte in hash.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
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

    fn read(value: &serde_json::Value) -> Result<Manifest, EngineError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(NAME), value.to_string()).unwrap();
        Manifest::read(folder.path())
    }

    #[test]
    fn a_good_manifest_reads() {
        assert_eq!(read(&manifest()).unwrap().architecture.head_dim, 16);
    }

    #[test]
    fn bad_ones_say_what_is_wrong() {
        let cases = [
            ("/format_version", serde_json::json!(9), "version 9"),
            ("/architecture/family", serde_json::json!("qwen2"), "qwen2"),
            ("/architecture/layers", serde_json::json!(0), "layers is 0"),
            (
                "/architecture/vocab_size",
                serde_json::json!(1u64 << 40),
                "vocab_size",
            ),
            (
                "/architecture/kv_heads",
                serde_json::json!(3),
                "cannot share 3",
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
            let error = read(&bad).unwrap_err().to_string();
            assert!(
                error.contains(expected) || error.contains("invalid type"),
                "{place}: {error}"
            );
            assert!(error.contains("chaski.json"), "{error}");
        }
    }

    #[test]
    fn a_missing_manifest_says_what_to_give() {
        let folder = tempfile::tempdir().unwrap();
        let error = Manifest::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("chaski-quantize"), "{error}");
    }
}
