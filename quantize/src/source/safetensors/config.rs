//! `config.json` of `transformers` to [`Architecture`].

use std::path::Path;

use serde_json::Value;

use super::json::Fields;
use crate::error::{Error, Result};
use chaski_manifest::{Architecture, RopeScaling};

/// Defaults of `transformers`' `LlamaConfig`.
const DEFAULT_CONTEXT: usize = 2048;
const DEFAULT_EPSILON: f64 = 1e-6;
const DEFAULT_THETA: f64 = 10_000.0;

/// Reads the figures of a Llama; refuses every other model by its name.
pub(crate) fn architecture(path: &Path, config: &Value) -> Result<Architecture> {
    let fields = Fields::of_file(path, config)?;
    check_kind(&fields)?;
    let heads = fields.needed_count("num_attention_heads")?;
    let hidden_size = fields.needed_count("hidden_size")?;
    let head_dim = match fields.count("head_dim")? {
        Some(head_dim) => head_dim,
        None => hidden_size
            .checked_div(heads)
            .filter(|head_dim| head_dim * heads == hidden_size)
            .ok_or_else(|| {
                let reason = format!(
                    "hidden_size ({hidden_size}) is not a multiple of num_attention_heads \
                     ({heads}), and there is no head_dim"
                );
                Error::malformed(path, reason)
            })?,
    };
    let (rope_theta, rope_scaling) = rope(&fields)?;
    let architecture = Architecture {
        family: "llama".into(),
        hidden_size,
        intermediate_size: fields.needed_count("intermediate_size")?,
        layers: fields.needed_count("num_hidden_layers")?,
        heads,
        kv_heads: fields.count("num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        vocab_size: fields.needed_count("vocab_size")?,
        context_length: fields
            .count("max_position_embeddings")?
            .unwrap_or(DEFAULT_CONTEXT),
        rms_norm_eps: fields.number("rms_norm_eps")?.unwrap_or(DEFAULT_EPSILON),
        rope_theta,
        rope_scaling,
        tied_embeddings: fields.flag("tie_word_embeddings")?,
        attention_bias: fields.flag("attention_bias")?,
        mlp_bias: fields.flag("mlp_bias")?,
    };
    architecture
        .check()
        .map_err(|invalid| Error::malformed(path, in_keys(&invalid.0)))?;
    Ok(architecture)
}

/// A complaint about the manifest's figures in the words of `config.json`.
fn in_keys(reason: &str) -> String {
    const KEYS: [(&str, &str); 5] = [
        ("layers", "num_hidden_layers"),
        ("heads", "num_attention_heads"),
        ("kv_heads", "num_key_value_heads"),
        ("context_length", "max_position_embeddings"),
        (
            "original_context_length",
            "original_max_position_embeddings",
        ),
    ];
    let key = |word| {
        let found = KEYS.iter().find(|(figure, _)| *figure == word);
        found.map_or(word, |(_, key)| *key)
    };
    reason.split(' ').map(key).collect::<Vec<_>>().join(" ")
}

fn check_kind(fields: &Fields<'_>) -> Result<()> {
    let class = match fields.get("architectures").and_then(Value::as_array) {
        Some(classes) => classes.first().and_then(Value::as_str),
        None => None,
    };
    if let Some(class) = class
        && class != "LlamaForCausalLM"
    {
        return Err(fields.unsupported(format!(
            "{class} is not a Llama; LlamaForCausalLM is what can be converted"
        )));
    }
    match fields.text("model_type")? {
        Some("llama") => {}
        None if class.is_some() => {}
        None => return Err(fields.unsupported("neither model_type nor architectures is told")),
        Some(other) => {
            return Err(fields.unsupported(format!("model_type {other} is not llama")));
        }
    }
    if let Some(quantised) = fields.get("quantization_config") {
        let method = quantised
            .get("quant_method")
            .and_then(Value::as_str)
            .unwrap_or("an unnamed method");
        return Err(fields.unsupported(format!(
            "the weights are already quantised ({method}); take the model it was made of"
        )));
    }
    match fields.text("hidden_act")? {
        None | Some("silu" | "swish") => Ok(()),
        Some(other) => Err(fields.unsupported(format!("hidden_act {other}; a Llama has silu"))),
    }
}

/// Base and scaling of the rotary embedding, from `rope_theta` and `rope_scaling`
/// (transformers 4) or `rope_parameters` (transformers 5).
fn rope(fields: &Fields<'_>) -> Result<(f64, Option<RopeScaling>)> {
    let theta = fields.number("rope_theta")?;
    // In this order transformers 5 reads them, too.
    let parameters = match fields.object("rope_scaling", "rope_scaling.")? {
        Some(scaling) => Some(scaling),
        None => fields.object("rope_parameters", "rope_parameters.")?,
    };
    let Some(parameters) = parameters else {
        return Ok((theta.unwrap_or(DEFAULT_THETA), None));
    };
    let theta = match parameters.number("rope_theta")? {
        Some(theta) => theta,
        None => theta.unwrap_or(DEFAULT_THETA),
    };
    for place in [fields, &parameters] {
        if let Some(partial) = place.number("partial_rotary_factor")?
            && partial != 1.0
        {
            return Err(fields.unsupported(format!("partial_rotary_factor {partial}")));
        }
    }
    let kind = match parameters.text("rope_type")? {
        Some(kind) => kind,
        None => parameters.text("type")?.unwrap_or("default"),
    };
    let scaling = match kind {
        "default" => None,
        "linear" => Some(RopeScaling::Linear {
            factor: parameters.needed_number("factor")?,
        }),
        "llama3" => Some(RopeScaling::Llama3 {
            factor: parameters.needed_number("factor")?,
            low_freq_factor: parameters.needed_number("low_freq_factor")?,
            high_freq_factor: parameters.needed_number("high_freq_factor")?,
            original_context_length: parameters.needed_count("original_max_position_embeddings")?,
        }),
        other => {
            return Err(fields.unsupported(format!(
                "RoPE scaling of type {other}; llama3 and linear can be converted"
            )));
        }
    };
    Ok((theta, scaling))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(change: Value) -> Value {
        let mut config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
            "vocab_size": 128256, "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": true,
            "hidden_act": "silu", "pretraining_tp": 1, "torch_dtype": "bfloat16"
        });
        for (name, value) in change.as_object().unwrap() {
            config[name] = value.clone();
        }
        config
    }

    fn read(change: Value) -> Result<Architecture> {
        architecture(Path::new("config.json"), &config(change))
    }

    fn refused(change: Value) -> String {
        read(change).unwrap_err().to_string()
    }

    const LLAMA_3_2: RopeScaling = RopeScaling::Llama3 {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context_length: 8192,
    };

    #[test]
    fn llama_3_2_of_transformers_4_and_5() {
        let scaling = json!({"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"});
        let four = read(json!({"rope_scaling": scaling})).unwrap();
        assert_eq!(four.rope_scaling, Some(LLAMA_3_2));
        assert_eq!(
            (four.rope_theta, four.head_dim, four.kv_heads),
            (500_000.0, 64, 8)
        );
        let mut parameters = scaling;
        parameters["rope_theta"] = json!(500000.0);
        let five = read(json!({"rope_theta": null, "rope_scaling": null,
            "rope_parameters": parameters, "dtype": "bfloat16"}));
        assert_eq!(five.unwrap(), four);
        let plain = read(json!({"rope_theta": null,
            "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}));
        let plain = plain.unwrap();
        assert_eq!((plain.rope_theta, plain.rope_scaling), (10_000.0, None));
    }

    #[test]
    fn llama_2_has_no_kv_heads_and_no_head_dim() {
        let a = read(
            json!({"num_key_value_heads": null, "head_dim": null, "rope_theta": null,
            "rope_scaling": {"type": "linear", "factor": 2.0}}),
        );
        let a = a.unwrap();
        assert_eq!((a.kv_heads, a.head_dim, a.rope_theta), (32, 64, 10_000.0));
        assert_eq!(a.rope_scaling, Some(RopeScaling::Linear { factor: 2.0 }));
        assert!(refused(json!({"head_dim": null, "num_attention_heads": 31})).contains("head_dim"));
        assert!(refused(json!({"head_dim": null, "num_attention_heads": 0})).contains("(0)"));
    }

    #[test]
    fn others_are_refused_by_name() {
        let cases = [
            (
                json!({"architectures": ["Qwen2ForCausalLM"]}),
                "Qwen2ForCausalLM is not a Llama",
            ),
            (
                json!({"architectures": ["MistralForCausalLM"], "model_type": "mistral"}),
                "Mistral",
            ),
            (
                json!({"architectures": null, "model_type": "mistral"}),
                "mistral is not llama",
            ),
            (
                json!({"architectures": null, "model_type": null}),
                "neither model_type",
            ),
            (
                json!({"quantization_config": {"quant_method": "gptq"}}),
                "gptq",
            ),
            (json!({"hidden_act": "gelu"}), "gelu"),
            (
                json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
                "yarn",
            ),
            (
                json!({"rope_scaling": {"type": "dynamic", "factor": 4.0}}),
                "dynamic",
            ),
            (
                json!({"rope_parameters": {"rope_type": "longrope"}}),
                "longrope",
            ),
            (
                json!({"rope_parameters": {"partial_rotary_factor": 0.5}}),
                "partial_rotary_factor",
            ),
        ];
        for (change, wanted) in cases {
            let message = refused(change);
            assert!(
                message.contains("not supported") && message.contains(wanted),
                "{message}"
            );
        }
    }

    #[test]
    fn bad_fields_are_named() {
        assert!(refused(json!({"hidden_size": "big"})).contains("hidden_size is not a whole"));
        assert!(refused(json!({"num_hidden_layers": 1e30})).contains("num_hidden_layers"));
        assert!(refused(json!({"vocab_size": null})).contains("vocab_size is missing"));
        assert!(refused(json!({"intermediate_size": u64::MAX})).contains("intermediate_size"));
        assert!(refused(json!({"rope_scaling": [1]})).contains("rope_scaling is not an object"));
        assert!(refused(json!({"rope_scaling": {"type": "linear"}})).contains("factor is missing"));
    }
}
