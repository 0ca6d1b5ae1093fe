//! Whole models: what is read back, and what is refused.

use super::*;
use crate::source::testing::{GgufBuilder, tensors, tiny_architecture};
use chaski_manifest::RopeScaling;

/// Makes something right wrong.
type Spoil = fn(&mut GgufBuilder);

fn open(gguf: &GgufBuilder) -> Result<Gguf> {
    let (_folder, path) = gguf.write();
    // The mapping outlives the name of the file.
    Gguf::open(&path)
}

fn refused(gguf: &GgufBuilder) -> String {
    match open(gguf) {
        Ok(_) => panic!("was not refused"),
        Err(error) => error.to_string(),
    }
}

/// Everything a Llama can have: GQA, an untied head, a head_dim of its own, biases.
fn rich_architecture() -> Architecture {
    Architecture {
        head_dim: 32,
        tied_embeddings: false,
        attention_bias: true,
        mlp_bias: true,
        ..tiny_architecture()
    }
}

#[test]
fn every_row_comes_back_in_hugging_faces_order() {
    for a in [tiny_architecture(), rich_architecture()] {
        let gguf = open(&testing::model(&a)).unwrap();
        assert_eq!(*gguf.architecture(), a);
        let expected = tensors(&a);
        assert_eq!(gguf.tensor_names().len(), expected.len());
        for tensor in expected {
            let info = gguf.tensor(&tensor.name).unwrap();
            assert_eq!(info.rows * info.columns, tensor.values.len());
            let mut values = vec![0.0; tensor.values.len()];
            gguf.read_rows(&tensor.name, 0..info.rows, &mut values)
                .unwrap();
            assert_eq!(values, tensor.values, "{}", tensor.name);
            let last = info.rows - 1;
            let mut row = vec![0.0; info.columns];
            gguf.read_rows(&tensor.name, last..info.rows, &mut row)
                .unwrap();
            assert_eq!(row, tensor.values[last * info.columns..]);
        }
    }
}

#[test]
fn q4_rows_are_taken_over_in_hugging_faces_order() {
    let a = tiny_architecture();
    let mut builder = testing::model(&a);
    let name = "blk.0.attn_k.weight";
    let (.., kind, data) = builder
        .tensors
        .iter_mut()
        .find(|(other, ..)| other == name)
        .unwrap();
    *kind = 3;
    // 32 rows of two Q4_1 blocks; the minimum tells the row: f16 of small whole numbers.
    *data = (0..32u8)
        .flat_map(|row| {
            let min = half::f16::from_f32(row.into()).to_le_bytes();
            let mut block = vec![0, 0x3c, min[0], min[1]];
            block.extend([row; 16]);
            block.repeat(2)
        })
        .collect();
    let gguf = open(&builder).unwrap();
    let name = "model.layers.0.self_attn.k_proj.weight";
    let mut blocks = Q4Blocks::default();
    assert!(gguf.read_q4_rows(name, 1..17, &mut blocks).unwrap());
    // Rows 1 to 15 of the first head, row 0 of the second: interleaved halves of 8.
    let stored: Vec<f32> = (1..8)
        .map(|i| 2.0 * i as f32)
        .chain((0..8).map(|i| 2.0 * i as f32 + 1.0))
        .chain([16.0])
        .collect();
    let mins: Vec<f32> = blocks
        .mins
        .iter()
        .step_by(2)
        .map(|min| min.to_f32())
        .collect();
    assert_eq!(mins, stored);
    assert_eq!((blocks.scales.len(), blocks.quants.len()), (32, 32 * 16));
    let mut values = vec![0.0; 16 * 64];
    gguf.read_rows(name, 1..17, &mut values).unwrap();
    for (row, stored) in values.chunks(64).zip(stored) {
        let nibbles = [(stored as u8) & 15, (stored as u8) >> 4];
        assert_eq!(row[0], stored + f32::from(nibbles[0]));
        assert_eq!(row[16], stored + f32::from(nibbles[1]));
    }
    assert!(
        !gguf
            .read_q4_rows("model.norm.weight", 0..1, &mut blocks)
            .unwrap()
    );
    assert!(gguf.read_q4_rows(name, 0..33, &mut blocks).is_err());
    assert!(gguf.read_q4_rows("nothing", 0..1, &mut blocks).is_err());
}

#[test]
fn q8_rows_mean_what_read_rows_says() {
    let a = tiny_architecture();
    let mut builder = testing::model(&a);
    // Q and K are permuted in the file, the embedding is not.
    for name in ["token_embd.weight", "blk.1.attn_q.weight"] {
        let (_, dimensions, kind, data) = builder
            .tensors
            .iter_mut()
            .find(|(other, ..)| other == name)
            .unwrap();
        *kind = 8;
        let blocks = dimensions.iter().product::<u64>() / 32;
        *data = (0..blocks)
            .flat_map(|block| {
                let scale = half::f16::from_f32(1.0 + block as f32).to_le_bytes();
                scale
                    .into_iter()
                    .chain((0..32).map(move |i| (block * 7 + i * 11) as u8))
            })
            .collect();
    }
    let gguf = open(&builder).unwrap();
    for name in [
        "model.embed_tokens.weight",
        "model.layers.1.self_attn.q_proj.weight",
    ] {
        let mut blocks = Q8Blocks::default();
        assert!(gguf.read_q8_rows(name, 3..30, &mut blocks).unwrap());
        assert_eq!(
            (blocks.scales.len(), blocks.quants.len()),
            (27 * 2, 27 * 64)
        );
        let mut values = vec![0.0; 27 * 64];
        gguf.read_rows(name, 3..30, &mut values).unwrap();
        for (i, value) in values.iter().enumerate() {
            let level = f32::from(blocks.quants[i]) - 128.0;
            assert_eq!(*value, level * blocks.scales[i / 32].to_f32());
        }
        assert!(gguf.read_q8_rows(name, 0..999, &mut blocks).is_err());
        assert!(
            !gguf
                .read_q4_rows(name, 0..1, &mut Q4Blocks::default())
                .unwrap()
        );
    }
    let mut blocks = Q8Blocks::default();
    assert!(
        !gguf
            .read_q8_rows("model.norm.weight", 0..1, &mut blocks)
            .unwrap()
    );
    assert!(blocks.quants.is_empty());
}

#[test]
fn rope_scaling_is_recovered() {
    let a = Architecture {
        head_dim: 64,
        rope_theta: 500_000.0,
        ..tiny_architecture()
    };
    // Llama 3.2's own divisors for a head of 64, to six digits.
    let mut divisors = [32.0f32; 32];
    divisors[..15].fill(1.0);
    divisors[15..18].copy_from_slice(&[1.651_329, 3.292_262, 9.666_729]);
    let mut builder = testing::model(&a);
    builder.f32s("rope_freqs.weight", &[32], &divisors);
    let found = open(&builder).map(|gguf| gguf.architecture().rope_scaling);
    let wanted = RopeScaling::Llama3 {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context_length: 8192,
    };
    assert_eq!(found.unwrap(), Some(wanted));
    builder.float("llama.rope.scaling.factor", 2.0);
    assert!(refused(&builder).contains("both"));
    let mut linear = testing::model(&a);
    linear
        .text("llama.rope.scaling.type", "linear")
        .float("llama.rope.scaling.factor", 4.0);
    let found = open(&linear).unwrap().architecture().rope_scaling;
    assert_eq!(found, Some(RopeScaling::Linear { factor: 4.0 }));
    linear.text("llama.rope.scaling.type", "yarn");
    assert!(refused(&linear).contains("yarn"));
    let mut odd = testing::model(&a);
    odd.f32s("rope_freqs.weight", &[32], &[3.0; 32]);
    assert!(refused(&odd).contains("rope_freqs.weight is none"));
    let mut short = testing::model(&a);
    short.f32s("rope_freqs.weight", &[31], &[1.0; 31]);
    assert!(refused(&short).contains("shape [31], expected [32]"));
}

#[test]
fn other_models_are_refused_by_name() {
    let base = testing::model(&tiny_architecture());
    let changed = |change: fn(&mut GgufBuilder)| {
        let mut gguf = base.clone();
        change(&mut gguf);
        refused(&gguf)
    };
    let cases: [(Spoil, &str); 14] = [
        (
            |g| _ = g.text("general.architecture", "qwen2"),
            "qwen2 is not llama",
        ),
        (
            |g| _ = g.remove("general.architecture"),
            "general.architecture is missing",
        ),
        (|g| _ = g.count("llama.expert_count", 8), "8 experts"),
        (
            |g| _ = g.count("llama.rope.dimension_count", 8),
            "dimension_count 8",
        ),
        (|g| _ = g.float("llama.logit_scale", 8.0), "logit_scale"),
        (|g| _ = g.count("split.count", 3), "3 parts of a split GGUF"),
        (
            |g| _ = g.count("llama.block_count", 3),
            "blk.2.attn_norm.weight is missing",
        ),
        (|g| _ = g.count("llama.block_count", 1 << 30), "layers"),
        (
            |g| _ = g.count("llama.attention.head_count", 0),
            "heads (0)",
        ),
        (
            |g| _ = g.text("llama.embedding_length", "64"),
            "not a whole number",
        ),
        (
            |g| _ = g.count("llama.feed_forward_length", 64),
            "shape [96, 64], expected [64, 64]",
        ),
        (
            |g| _ = g.f32s("blk.0.attn_q_norm.weight", &[16], &[1.0; 16]),
            "attn_q_norm",
        ),
        (
            |g| _ = g.f32s("blk.0.attn_q.bias", &[64], &[1.0; 64]),
            "biases of attn_q without",
        ),
        (
            |g| _ = g.texts("tokenizer.ggml.tokens", &["a"]),
            "1 entries, token_embd.weight 40",
        ),
    ];
    for (change, wanted) in cases {
        let message = changed(change);
        assert!(message.contains(wanted), "{wanted}: {message}");
    }
}
