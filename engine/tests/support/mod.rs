//! A small Llama of random weights, written as a model folder by the quantiser.

use std::ops::Range;
use std::path::PathBuf;

use chaski_quantize::convert::{Options, quantise_source};
use chaski_quantize::error::Result;
use chaski_quantize::manifest::Architecture;
use chaski_quantize::plan;
use chaski_quantize::progress::Silent;
use chaski_quantize::source::{Encoding, Q4Blocks, Source, TensorInfo, TextFiles};
use serde_json::json;

/// Tokens 0 and 1 are special, then come the 256 bytes.
pub const VOCAB_SIZE: usize = 258;
pub const EOS: u32 = 1;
pub const CONTEXT: usize = 64;

/// A model folder that goes with the value.
pub struct Folder {
    holder: tempfile::TempDir,
}

impl Folder {
    /// One of many models.
    pub fn random(seed: u64) -> Self {
        Self::of(&RandomLlama::new(seed))
    }

    fn of(source: &RandomLlama) -> Self {
        let holder = tempfile::tempdir().expect("a temporary folder");
        let output = holder.path().join("model");
        quantise_source(source, &output, &Options::default(), &mut Silent).expect("a folder");
        Self { holder }
    }

    /// One of 20 MB, with a KV cache of 128 KiB for a token in f16.
    #[allow(dead_code, reason = "not every file of tests needs it")]
    pub fn large() -> Self {
        let mut source = RandomLlama::new(0);
        let shape = &mut source.0;
        (shape.hidden_size, shape.intermediate_size) = (512, 1024);
        (shape.layers, shape.heads, shape.kv_heads, shape.head_dim) = (16, 32, 32, 64);
        shape.context_length = 2048;
        Self::of(&source)
    }

    pub fn path(&self) -> PathBuf {
        self.holder.path().join("model")
    }
}

struct RandomLlama(Architecture, u64);

impl RandomLlama {
    fn new(seed: u64) -> Self {
        let architecture = Architecture {
            family: "llama".into(),
            hidden_size: 64,
            intermediate_size: 96,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            vocab_size: VOCAB_SIZE,
            context_length: CONTEXT,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: None,
            tied_embeddings: true,
            attention_bias: false,
            mlp_bias: false,
        };
        Self(architecture, seed)
    }
}

impl Source for RandomLlama {
    fn kind(&self) -> &'static str {
        "safetensors"
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![]
    }

    fn architecture(&self) -> &Architecture {
        &self.0
    }

    fn tensor(&self, name: &str) -> Option<TensorInfo> {
        let found = plan::tensors(&self.0)
            .into_iter()
            .find(|t| t.name == name)?;
        Some(TensorInfo {
            name: found.name,
            rows: found.rows,
            columns: found.columns,
            encoding: Encoding::F32,
            bytes: (found.rows * found.columns * 4) as u64,
        })
    }

    fn tensor_names(&self) -> Vec<String> {
        plan::tensors(&self.0).into_iter().map(|t| t.name).collect()
    }

    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let columns = out.len() / rows.len();
        let seed = self.1 * 0x1_0000 + name.bytes().map(u64::from).sum::<u64>();
        for (i, out) in out.iter_mut().enumerate() {
            let place = (rows.start * columns + i) as u64;
            // splitmix64 of the weight's place: any row can be read on its own.
            let mut x = (place + (seed << 32)).wrapping_add(0x9e37_79b9_7f4a_7c15);
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let unit = (x >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            *out = if name.contains("norm") {
                1.0
            } else {
                unit * 0.3
            };
        }
        Ok(())
    }

    fn read_q4_rows(&self, _: &str, _: Range<usize>, _: &mut Q4Blocks) -> Result<bool> {
        Ok(false)
    }

    fn text_files(&self) -> Result<TextFiles> {
        // GPT-2's byte alphabet: printable bytes are themselves, the others
        // take the code points from 256 on.
        let printable = |b: &u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
        let others = (0..256).filter(|b| !printable(b)).count() as u32;
        let letters = (0..256).filter(printable).chain(256..256 + others);
        let mut vocab = serde_json::Map::new();
        vocab.insert("<s>".into(), json!(0));
        vocab.insert("</s>".into(), json!(EOS));
        for letter in letters.filter_map(char::from_u32) {
            vocab.insert(letter.into(), json!(vocab.len()));
        }
        let special = |id: u32, content: &str| {
            json!({"id": id, "content": content, "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false})
        };
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false,
            "trim_offsets": true, "use_regex": false});
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [special(0, "<s>"), special(EOS, "</s>")],
            "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null,
            "decoder": byte_level,
            "model": {"type": "BPE", "dropout": null, "unk_token": null,
                "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []},
        });
        Ok(TextFiles {
            tokenizer: tokenizer.to_string().into_bytes(),
            tokenizer_config: json!({"eos_token": "</s>", "chat_template":
                "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"}),
            generation_config: json!({"bos_token_id": 0, "eos_token_id": EOS}),
        })
    }
}
