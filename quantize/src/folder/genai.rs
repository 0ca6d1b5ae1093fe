//! `genai_config.json`, as ONNX Runtime GenAI's own model builder writes it.

use serde_json::{Value, json};

use super::MODEL;
use chaski_manifest::Architecture;

/// Describes the graph and the default search to ONNX Runtime GenAI.
/// `generation` is the model's `generation_config.json`.
pub fn genai_config(a: &Architecture, generation: &Value) -> Value {
    let setting = |name: &str, default: Value| match generation.get(name) {
        None | Some(Value::Null) => default,
        Some(value) => value.clone(),
    };
    let eos = setting("eos_token_id", Value::Null);
    let first_eos = match &eos {
        Value::Array(ids) => ids.first().cloned().unwrap_or(Value::Null),
        id => id.clone(),
    };
    json!({
        "model": {
            "bos_token_id": setting("bos_token_id", first_eos.clone()),
            "context_length": a.context_length,
            "decoder": {
                "session_options": { "log_id": "onnxruntime-genai", "provider_options": [] },
                "filename": MODEL,
                "head_size": a.head_dim,
                "hidden_size": a.hidden_size,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
                "num_attention_heads": a.heads,
                "num_hidden_layers": a.layers,
                "num_key_value_heads": a.kv_heads,
            },
            "eos_token_id": eos,
            "pad_token_id": setting("pad_token_id", first_eos),
            "type": "llama",
            "vocab_size": a.vocab_size,
        },
        "search": {
            "diversity_penalty": 0.0,
            "do_sample": setting("do_sample", json!(false)),
            "early_stopping": true,
            "length_penalty": 1.0,
            "max_length": a.context_length,
            "min_length": 0,
            "no_repeat_ngram_size": 0,
            "num_beams": 1,
            "num_return_sequences": 1,
            "past_present_share_buffer": true,
            "repetition_penalty": setting("repetition_penalty", json!(1.0)),
            "temperature": setting("temperature", json!(1.0)),
            "top_k": setting("top_k", json!(50)),
            "top_p": setting("top_p", json!(1.0)),
        },
    })
}
