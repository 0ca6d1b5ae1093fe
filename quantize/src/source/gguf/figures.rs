//! [`Architecture`] from GGUF metadata and tensors.

use super::file::File;
use super::rope;
use crate::error::{Error, Result};
use chaski_manifest::Architecture;

const DEFAULT_THETA: f64 = 10_000.0;
const TOKENS: &str = "tokenizer.ggml.tokens";

/// Reads the figures of a Llama; refuses every other model by its name.
pub(super) fn architecture(file: &File) -> Result<Architecture> {
    check_kind(file)?;
    let heads = file.needed_count("llama.attention.head_count")?;
    let hidden_size = file.needed_count("llama.embedding_length")?;
    let head_dim = head_dim(file, hidden_size, heads)?;
    let rope_theta = file
        .number("llama.rope.freq_base")?
        .unwrap_or(DEFAULT_THETA);
    let mut architecture = Architecture {
        family: "llama".into(),
        hidden_size,
        intermediate_size: file.needed_count("llama.feed_forward_length")?,
        layers: file.needed_count("llama.block_count")?,
        heads,
        kv_heads: file
            .count("llama.attention.head_count_kv")?
            .unwrap_or(heads),
        head_dim,
        vocab_size: vocabulary(file)?,
        context_length: file.needed_count("llama.context_length")?,
        rms_norm_eps: file
            .number("llama.attention.layer_norm_rms_epsilon")?
            .ok_or_else(|| {
                file.malformed("metadata llama.attention.layer_norm_rms_epsilon is missing")
            })?,
        rope_theta,
        rope_scaling: None,
        tied_embeddings: !file.tensors.contains_key("output.weight"),
        attention_bias: any_bias(file, &["attn_q", "attn_k", "attn_v", "attn_output"])?,
        mlp_bias: any_bias(file, &["ffn_gate", "ffn_up", "ffn_down"])?,
    };
    // Before the scaling, whose search allocates by head_dim.
    architecture.check()?;
    architecture.rope_scaling = rope::scaling(file, head_dim, rope_theta)?;
    architecture.check()?;
    Ok(architecture)
}

fn check_kind(file: &File) -> Result<()> {
    match file.text("general.architecture")? {
        Some("llama") => {}
        Some(other) => {
            return Err(file.unsupported(format!("architecture {other} is not llama")));
        }
        None => return Err(file.malformed("metadata general.architecture is missing")),
    }
    if let Some(kind) = file.text("general.type")?
        && kind != "model"
    {
        return Err(file.unsupported(format!("a GGUF of type {kind} is no model")));
    }
    if let Some(experts @ 1..) = file.count("llama.expert_count")? {
        return Err(file.unsupported(format!("a mixture of {experts} experts")));
    }
    // What Granite and others put into files of this architecture.
    for key in [
        "llama.logit_scale",
        "llama.residual_scale",
        "llama.embedding_scale",
        "llama.attention.scale",
        "llama.attention.sliding_window",
    ] {
        if file.has(key) {
            return Err(file.unsupported(format!("{key}, which a Llama has not")));
        }
    }
    Ok(())
}

fn head_dim(file: &File, hidden_size: usize, heads: usize) -> Result<usize> {
    let head_dim = match file.count("llama.attention.key_length")? {
        Some(head_dim) => head_dim,
        None => hidden_size
            .checked_div(heads)
            .ok_or_else(|| Error::Architecture("llama.attention.head_count is 0".into()))?,
    };
    for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
        if let Some(other) = file.count(key)?
            && other != head_dim
        {
            return Err(file.unsupported(format!("{key} {other} is not the head's {head_dim}")));
        }
    }
    Ok(head_dim)
}

/// Rows of the embedding: as many as there are tokens.
fn vocabulary(file: &File) -> Result<usize> {
    let embedding = file
        .tensors
        .get("token_embd.weight")
        .ok_or_else(|| Error::MissingTensor {
            path: file.path().to_path_buf(),
            name: "token_embd.weight".into(),
        })?;
    let rows = embedding.stored.rows;
    if let Some(tokens) = file.array_length(TOKENS)
        && tokens != rows
    {
        return Err(file.malformed(format!(
            "{TOKENS} has {tokens} entries, token_embd.weight {rows} rows"
        )));
    }
    Ok(rows)
}

/// Whether the first layer has any of these biases. A model has all of them or none,
/// which the check of all tensors then holds it to.
fn any_bias(file: &File, parts: &[&str]) -> Result<bool> {
    let (with, without): (Vec<&str>, Vec<&str>) = parts
        .iter()
        .partition(|part| file.tensors.contains_key(&format!("blk.0.{part}.bias")));
    if with.is_empty() || without.is_empty() {
        return Ok(!with.is_empty());
    }
    Err(file.unsupported(format!(
        "biases of {} without those of {}",
        with.join(", "),
        without.join(", ")
    )))
}
