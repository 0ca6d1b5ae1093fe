//! Random models through the whole conversion.

use std::fs;

use serde_json::json;

use super::*;
use crate::convert::{Options, RandomOptions, quantise_random};
use crate::progress::Silent;
use chaski_manifest::{Manifest, Scheme};

fn config(change: Value) -> Value {
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300,
        "max_position_embeddings": 128, "tie_word_embeddings": false, "attention_bias": true,
        "bos_token_id": 1, "eos_token_id": 2,
    });
    for (name, value) in change.as_object().unwrap() {
        config[name] = value.clone();
    }
    config
}

fn source(change: Value, bits: Bits) -> Random {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    fs::write(&path, config(change).to_string()).unwrap();
    Random::open(&path, None, bits, 3).unwrap()
}

#[test]
fn rows_mean_what_the_blocks_say() {
    let source = source(json!({}), Bits::Eight);
    for (name, encoding) in [
        (EMBEDDING, Encoding::Q8_0),
        (HEAD, Encoding::Q8_0),
        ("model.layers.1.mlp.down_proj.weight", Encoding::Q4_0),
    ] {
        let info = source.tensor(name).unwrap();
        assert_eq!(info.encoding, encoding);
        let (mut q4, mut q8) = (Q4Blocks::default(), Q8Blocks::default());
        let is_q4 = source.read_q4_rows(name, 1..3, &mut q4).unwrap();
        let is_q8 = source.read_q8_rows(name, 1..3, &mut q8).unwrap();
        assert_eq!(
            (is_q4, is_q8),
            (encoding == Encoding::Q4_0, encoding == Encoding::Q8_0)
        );
        let mut values = vec![0.0; 2 * info.columns];
        source.read_rows(name, 1..3, &mut values).unwrap();
        for (i, value) in values.iter().enumerate() {
            let wanted = if is_q4 {
                crate::testing::q4_value(&q4, i)
            } else {
                (f32::from(q8.quants[i]) - 128.0) * q8.scales[i / 32].to_f32()
            };
            assert_eq!(*value, wanted, "{name} {i}");
        }
    }
    let mut values = [0.0; 64];
    source
        .read_rows("model.norm.weight", 0..1, &mut values)
        .unwrap();
    assert_eq!(values, [1.0; 64]);
    source
        .read_rows("model.layers.0.self_attn.q_proj.bias", 0..1, &mut values)
        .unwrap();
    assert!(values.iter().any(|&bias| bias != values[0]));
}

#[test]
fn what_is_not_there_is_refused() {
    let source = source(json!({}), Bits::Four);
    let mut out = Q4Blocks::default();
    let error = source
        .read_q4_rows("model.norm", 0..1, &mut out)
        .unwrap_err();
    assert!(error.to_string().contains("model.norm"), "{error}");
    let error = source.read_q4_rows(HEAD, 299..301, &mut out).unwrap_err();
    assert!(error.to_string().contains("300 rows"), "{error}");
    assert!(source.read_rows(HEAD, 0..2, &mut [0.0; 64]).is_err());
    assert!(source.tensor("model.layers.2.mlp.up_proj.weight").is_none());
}

/// The manifest of a folder made of that config.
fn converted(change: Value, seed: u64, bits: Bits) -> Result<Manifest> {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("config.json");
    fs::write(&path, config(change).to_string()).unwrap();
    let output = home.path().join("model");
    let options = Options {
        embedding_bits: bits,
        ..Options::default()
    };
    let random = RandomOptions {
        seed,
        tokenizer: None,
    };
    quantise_random(&path, &output, &random, &options, &mut Silent)?;
    Ok(serde_json::from_slice(&fs::read(output.join("chaski.json")).unwrap()).unwrap())
}

#[test]
fn a_folder_depends_on_its_seed_alone() {
    for bits in [Bits::Four, Bits::Eight] {
        let made = |seed| converted(json!({}), seed, bits).unwrap();
        let first = made(5);
        assert_eq!(first.quantisation.scheme, Scheme::Symmetric);
        assert_eq!(first.quantisation.embedding_bits, bits.count());
        assert_eq!(first.source.kind, "random");
        assert!(first.source.files.contains_key("config.json"));
        assert_eq!(made(5), first);
        let (other, data) = (made(6), "model.onnx.data");
        assert_ne!(other.files[data].sha256, first.files[data].sha256);
        assert_eq!(other.files[data].bytes, first.files[data].bytes);
        assert_eq!(other.files["model.onnx"], first.files["model.onnx"]);
    }
}

#[test]
fn hostile_figures_are_named_by_their_key() {
    for (change, wanted) in [
        (json!({"num_hidden_layers": 0}), "num_hidden_layers (0)"),
        (
            json!({"num_hidden_layers": 1u64 << 40}),
            "num_hidden_layers (1099511627776)",
        ),
        (json!({"num_key_value_heads": 3}), "num_key_value_heads (3)"),
        (
            json!({"num_attention_heads": 0, "head_dim": 16}),
            "num_attention_heads (0)",
        ),
        (json!({"num_attention_heads": 5}), "num_attention_heads (5)"),
        (json!({"hidden_size": 80}), "hidden_size (80)"),
        (
            json!({"hidden_size": -64}),
            "hidden_size is not a whole number",
        ),
        (json!({"intermediate_size": u64::MAX}), "intermediate_size"),
        (json!({"vocab_size": 1u64 << 62}), "vocab_size"),
        (json!({"vocab_size": 200}), "vocab_size (200)"),
        (
            json!({"max_position_embeddings": 0}),
            "max_position_embeddings (0)",
        ),
        (
            json!({"rms_norm_eps": "small"}),
            "rms_norm_eps is not a number",
        ),
        (json!({"rope_theta": -1.0}), "rope_theta (-1)"),
        (
            json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 0}}),
            "original_max_position_embeddings (0)",
        ),
        (json!({"eos_token_id": 300}), "eos_token_id 300"),
        (
            json!({"model_type": "mistral", "architectures": null}),
            "model_type mistral",
        ),
    ] {
        let message = converted(change, 0, Bits::Four).unwrap_err().to_string();
        assert!(
            message.contains(wanted) && message.contains("config.json"),
            "{message}"
        );
    }
}
