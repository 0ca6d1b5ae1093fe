//! A whole tiny Llama as a GGUF, for the unit tests of this format.

use super::names::gguf_name;
use crate::source::testing::{GgufBuilder, TestTensor, tensors};
use chaski_manifest::Architecture;

/// Rows (or bias values) of Q and K as llama.cpp's converter writes them.
fn permuted(tensor: &TestTensor, head_dim: usize) -> Vec<f32> {
    let rows = tensor.shape[0];
    let width = tensor.values.len() / rows;
    let row = |row: usize| &tensor.values[row * width..(row + 1) * width];
    let mut values = Vec::new();
    for head in 0..rows / head_dim {
        for pair in 0..head_dim / 2 {
            for half in 0..2 {
                values.extend_from_slice(row(head * head_dim + half * head_dim / 2 + pair));
            }
        }
    }
    values
}

/// The metadata of the architecture, with a byte-level vocabulary of numbered tokens.
pub(super) fn metadata(a: &Architecture) -> GgufBuilder {
    let mut gguf = GgufBuilder::new();
    gguf.text("general.architecture", "llama")
        .count("llama.block_count", a.layers)
        .count("llama.context_length", a.context_length)
        .count("llama.embedding_length", a.hidden_size)
        .count("llama.feed_forward_length", a.intermediate_size)
        .count("llama.attention.head_count", a.heads)
        .count("llama.attention.head_count_kv", a.kv_heads)
        .count("llama.attention.key_length", a.head_dim)
        .count("llama.rope.dimension_count", a.head_dim)
        .float("llama.rope.freq_base", a.rope_theta as f32)
        .float(
            "llama.attention.layer_norm_rms_epsilon",
            a.rms_norm_eps as f32,
        );
    let tokens: Vec<String> = (0..a.vocab_size).map(|id| format!("t{id}")).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    gguf.text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", "gpt-2")
        .texts("tokenizer.ggml.tokens", &tokens)
        .texts("tokenizer.ggml.merges", &[])
        .count("tokenizer.ggml.eos_token_id", 2);
    gguf
}

/// The whole model in f32.
pub(super) fn model(a: &Architecture) -> GgufBuilder {
    let mut gguf = metadata(a);
    for tensor in tensors(a) {
        let rotated = tensor.name.contains("q_proj") || tensor.name.contains("k_proj");
        let values = if rotated {
            permuted(&tensor, a.head_dim)
        } else {
            tensor.values
        };
        gguf.f32s(&gguf_name(&tensor.name).unwrap(), &tensor.shape, &values);
    }
    gguf
}
