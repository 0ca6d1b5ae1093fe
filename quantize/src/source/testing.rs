//! Tiny models for unit tests, built byte by byte.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::llama::expected_tensors;
use chaski_manifest::Architecture;

/// Two layers, four query and two key heads of 16.
pub(crate) fn tiny_architecture() -> Architecture {
    Architecture {
        family: "llama".into(),
        hidden_size: 64,
        intermediate_size: 96,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        vocab_size: 40,
        context_length: 128,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        tied_embeddings: true,
        attention_bias: false,
        mlp_bias: false,
    }
}

/// The `config.json` of an architecture without RoPE scaling.
pub(crate) fn config_json(a: &Architecture) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_size": a.hidden_size, "intermediate_size": a.intermediate_size,
        "num_hidden_layers": a.layers, "num_attention_heads": a.heads,
        "num_key_value_heads": a.kv_heads, "head_dim": a.head_dim,
        "vocab_size": a.vocab_size, "max_position_embeddings": a.context_length,
        "rms_norm_eps": a.rms_norm_eps, "rope_theta": a.rope_theta,
        "tie_word_embeddings": a.tied_embeddings, "attention_bias": a.attention_bias,
        "mlp_bias": a.mlp_bias, "bos_token_id": 1, "eos_token_id": 2
    })
}

/// A named tensor of f32 values: shape outermost first.
pub(crate) struct TestTensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// Every tensor of the architecture; element i of tensor t is `1000 t + i`.
pub(crate) fn tensors(a: &Architecture) -> Vec<TestTensor> {
    expected_tensors(a)
        .enumerate()
        .map(|(t, expected)| TestTensor {
            shape: expected.shape().iter().map(|&size| size as usize).collect(),
            values: (0..expected.rows * expected.columns)
                .map(|i| (1000 * t + i) as f32)
                .collect(),
            name: expected.name,
        })
        .collect()
}

/// A safetensors file of F32 tensors.
pub(crate) fn safetensors(tensors: &[&TestTensor]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for tensor in tensors {
        let start = data.len();
        data.extend(tensor.values.iter().flat_map(|value| value.to_le_bytes()));
        let info =
            json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": [start, data.len()]});
        header.insert(tensor.name.clone(), info);
    }
    let header = Value::from(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

/// A GGUF file to be, whose parts can be spoilt before it is built.
#[derive(Clone)]
pub(crate) struct GgufBuilder {
    pub(crate) version: u32,
    /// Key and the bytes of type code and value.
    pub(crate) metadata: Vec<(String, Vec<u8>)>,
    /// Name, dimensions innermost first, type code, data.
    pub(crate) tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

/// A string as GGUF stores it.
pub(crate) fn gguf_string(text: &[u8]) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    bytes
}

impl GgufBuilder {
    pub(crate) fn new() -> Self {
        Self {
            version: 3,
            metadata: Vec::new(),
            tensors: Vec::new(),
        }
    }

    /// Sets (or sets anew) raw metadata.
    pub(crate) fn raw(&mut self, key: &str, kind: u32, value: &[u8]) -> &mut Self {
        self.remove(key);
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend(value);
        self.metadata.push((key.into(), bytes));
        self
    }

    pub(crate) fn remove(&mut self, key: &str) -> &mut Self {
        self.metadata.retain(|(other, _)| other != key);
        self
    }

    pub(crate) fn count(&mut self, key: &str, value: usize) -> &mut Self {
        self.raw(key, 4, &(value as u32).to_le_bytes())
    }

    pub(crate) fn float(&mut self, key: &str, value: f32) -> &mut Self {
        self.raw(key, 6, &value.to_le_bytes())
    }

    pub(crate) fn flag(&mut self, key: &str, value: bool) -> &mut Self {
        self.raw(key, 7, &[value.into()])
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.raw(key, 8, &gguf_string(value.as_bytes()))
    }

    fn array(&mut self, key: &str, kind: u32, count: usize, elements: &[u8]) -> &mut Self {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend((count as u64).to_le_bytes());
        bytes.extend(elements);
        self.raw(key, 9, &bytes)
    }

    pub(crate) fn texts(&mut self, key: &str, values: &[&str]) -> &mut Self {
        let elements: Vec<u8> = values
            .iter()
            .flat_map(|text| gguf_string(text.as_bytes()))
            .collect();
        self.array(key, 8, values.len(), &elements)
    }

    pub(crate) fn integers(&mut self, key: &str, values: &[i32]) -> &mut Self {
        let elements: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.array(key, 5, values.len(), &elements)
    }

    pub(crate) fn floats(&mut self, key: &str, values: &[f32]) -> &mut Self {
        let elements: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.array(key, 6, values.len(), &elements)
    }

    /// Adds a tensor of f32.
    pub(crate) fn f32s(&mut self, name: &str, shape: &[usize], values: &[f32]) -> &mut Self {
        let dimensions = shape.iter().rev().map(|&size| size as u64).collect();
        let data = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.tensors.push((name.into(), dimensions, 0, data));
        self
    }

    /// Writes the file into a folder that lasts as long as the first of the two.
    pub(crate) fn write(&self) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, self.build()).unwrap();
        (folder, path)
    }

    /// The file.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            file.extend(gguf_string(key.as_bytes()));
            file.extend(value);
        }
        let mut offset = 0u64;
        for (name, dimensions, kind, data) in &self.tensors {
            file.extend(gguf_string(name.as_bytes()));
            file.extend((dimensions.len() as u32).to_le_bytes());
            file.extend(dimensions.iter().flat_map(|size| size.to_le_bytes()));
            file.extend(kind.to_le_bytes());
            file.extend(offset.to_le_bytes());
            offset += (data.len() as u64).next_multiple_of(32);
        }
        for (.., data) in &self.tensors {
            file.resize(file.len().next_multiple_of(32), 0);
            file.extend(data);
        }
        file
    }
}
