//! What a model takes of memory, told before it is loaded.
//!
//! Weights are mapped from a file: the system can drop their pages, but a decoded token
//! reads all of them, so that a machine without room for them all reads them from its SD
//! card for each token. They count like the rest.

use chaski_manifest::{Architecture, Manifest};

use crate::folder::DATA;
use crate::kernels::Backend;
use crate::kernels::attention::{SPAN, partial_len};
use crate::kernels::blocks::Bits;
use crate::kernels::encoding::Encoding;
use crate::model::LoadOptions;
use crate::ops::SPLIT_POSITIONS;

impl LoadOptions {
    /// The longest context of a model loaded without a word about it: its KV cache fits
    /// most boards, while a model's own limit may take gigabytes.
    pub const DEFAULT_CONTEXT: usize = 4096;
}

/// The program, tract and what the allocator does not give back.
const PROGRAM: u64 = 6 << 20;
/// Of the graph, with the operators' states.
const LAYER: u64 = 64 << 10;
/// Of a vocabulary: texts, hash tables and merges.
const TOKEN: u64 = 96;
/// Of a thread: its scratch and its stack.
const THREAD: u64 = 640 << 10;

/// Memory that a model takes, in bytes, when its context is full: an estimate, within a
/// tenth and 8 MiB of what a load and an answer were seen to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryNeeded {
    /// What a token reads of the mapped file. An embedding that is not the head as well is
    /// not in it: a token reads one row of it.
    pub weights: u64,
    /// Keys and values of a session, the context full.
    pub kv_cache: u64,
    /// All else: activations of a prefill chunk, attention over the context, logits,
    /// tokenizer, graph, threads and program.
    pub scratch: u64,
}

impl MemoryNeeded {
    /// All of it.
    pub fn total(&self) -> u64 {
        let rest = self.kv_cache.saturating_add(self.scratch);
        self.weights.saturating_add(rest)
    }
}

/// Tokens of the context that is loaded.
pub(crate) fn context_length(architecture: &Architecture, options: &LoadOptions) -> usize {
    let default = LoadOptions::DEFAULT_CONTEXT.min(architecture.context_length);
    options.context_length.unwrap_or(default)
}

/// Threads that are started.
pub(crate) fn threads(options: &LoadOptions) -> usize {
    let cores = options.cores.as_ref().map_or(0, Vec::len);
    options.threads.unwrap_or_else(|| match cores {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        named => named,
    })
}

/// See [`crate::Model::memory_needed`]. The figures of a manifest are bounded, so that no
/// product here overflows.
pub(crate) fn needed(manifest: &Manifest, options: &LoadOptions) -> MemoryNeeded {
    let shape = &manifest.architecture;
    let context = context_length(shape, options).min(shape.context_length);
    let position = options
        .kv_cache
        .position_bytes(shape.kv_heads, shape.head_dim);
    MemoryNeeded {
        weights: weights(manifest, context),
        kv_cache: product([shape.layers, position, context]),
        scratch: scratch(shape, options, context),
    }
}

fn product<const N: usize>(factors: [usize; N]) -> u64 {
    (factors.iter()).fold(1, |product, &factor| product.saturating_mul(factor as u64))
}

fn weights(manifest: &Manifest, context: usize) -> u64 {
    let shape = &manifest.architecture;
    let file = manifest.files.get(DATA).map_or(0, |file| file.bytes);
    // Cosines and sines of positions that do not occur.
    let beyond = shape.context_length - context;
    let tables = product([beyond, shape.head_dim, size_of::<f32>()]);
    let embedding = match shape.tied_embeddings {
        true => 0,
        false => {
            let quants = shape.hidden_size * manifest.quantisation.embedding_bits as usize / 8;
            let scales = shape.hidden_size / manifest.quantisation.block_size * 2;
            product([shape.vocab_size, quants + scales])
        }
    };
    file.saturating_sub(tables).saturating_sub(embedding)
}

fn scratch(shape: &Architecture, options: &LoadOptions, context: usize) -> u64 {
    let chunk = options.prefill_chunk.min(context);
    let (queries, hidden) = (shape.query_size(), shape.hidden_size);
    // The residual stream, what is added to it and their sum; Q, K and V, and attention
    // before it is encoded.
    let floats = 3 * hidden + 2 * queries + 2 * shape.kv_size();
    let encoded = |columns| {
        let precision = options.precision;
        Encoding::new(Backend::SCALAR, precision, Bits::Four, columns).row_bytes()
    };
    let rows = encoded(hidden) + encoded(queries) + encoded(shape.intermediate_size);
    let activations = product([chunk, floats * size_of::<f32>() + rows]);
    let spans = context.div_ceil(SPAN);
    let partials = spans * SPLIT_POSITIONS * shape.heads * partial_len(shape.head_dim);
    let attention = product([shape.layers, partials, size_of::<f32>()]);
    // In one step and the next.
    let logits = product([2, shape.vocab_size, size_of::<f32>()]);
    let vocabulary = (shape.vocab_size as u64).saturating_mul(TOKEN);
    let fixed = PROGRAM + LAYER * shape.layers as u64 + THREAD * threads(options) as u64;
    [activations, attention, logits, vocabulary, fixed]
        .into_iter()
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{KvFormat, Precision};

    fn llama_3_2_1b(tied: bool) -> Manifest {
        let file = |bytes: u64| serde_json::json!({"bytes": bytes, "sha256": "00"});
        let manifest = serde_json::json!({
            "format": "chaski-model", "format_version": 1, "created_by": "test",
            "architecture": {
                "family": "llama", "hidden_size": 2048, "intermediate_size": 8192, "layers": 16,
                "heads": 32, "kv_heads": 8, "head_dim": 64, "vocab_size": 128_256,
                "context_length": 131_072, "rms_norm_eps": 1e-5, "rope_theta": 5e5,
                "rope_scaling": null, "tied_embeddings": tied,
                "attention_bias": false, "mlp_bias": false
            },
            "quantisation": {"bits": 4, "embedding_bits": 4, "block_size": 32, "scheme": "auto"},
            "files": {DATA: file(1 << 30)},
            "source": {"kind": "gguf", "files": {}}
        });
        serde_json::from_value(manifest).unwrap()
    }

    fn options(context: Option<usize>) -> LoadOptions {
        LoadOptions {
            threads: Some(4),
            context_length: context,
            ..LoadOptions::default()
        }
    }

    #[test]
    fn the_kv_cache_grows_with_the_context_and_shrinks_with_its_format() {
        let manifest = llama_3_2_1b(true);
        let needed = |options| needed(&manifest, &options);
        // 16 layers, keys and values of 8 heads of 64, two bytes each.
        let of_4096 = needed(options(None));
        assert_eq!(of_4096.kv_cache, 16 * 2 * 8 * 64 * 2 * 4096);
        assert_eq!(needed(options(Some(2048))).kv_cache, of_4096.kv_cache / 2);
        let int8 = needed(LoadOptions {
            kv_cache: KvFormat::Int8,
            ..options(None)
        });
        assert_eq!(int8.kv_cache, 16 * 2 * 8 * (64 + 4) * 4096);
        assert_eq!(int8.weights, of_4096.weights);
        let sum = int8.weights + int8.kv_cache + int8.scratch;
        assert_eq!(int8.total(), sum);
    }

    #[test]
    fn what_no_token_reads_is_not_counted() {
        let (tied, untied) = (llama_3_2_1b(true), llama_3_2_1b(false));
        let weights = |manifest, context| needed(manifest, &options(Some(context))).weights;
        assert_eq!(weights(&tied, 131_072), 1 << 30);
        // The table of the embedding, 4 bits and a scale of two bytes for 32 of them.
        let table = 128_256 * (2048 / 2 + 2048 / 32 * 2);
        assert_eq!(weights(&tied, 4096) - weights(&untied, 4096), table);
        // Two numbers of four bytes for each of 32 pairs.
        assert_eq!((1 << 30) - weights(&tied, 4096), (131_072 - 4096) * 32 * 8);
    }

    #[test]
    fn a_larger_chunk_takes_more() {
        let manifest = llama_3_2_1b(true);
        let scratch = |prefill_chunk, precision| {
            let options = LoadOptions {
                prefill_chunk,
                precision,
                ..options(None)
            };
            needed(&manifest, &options).scratch
        };
        let (small, large) = (scratch(128, Precision::Int8), scratch(512, Precision::Int8));
        // 16 KiB of the residual stream alone.
        assert!(large - small > 384 * (3 * 2048 * 4), "{small} {large}");
        assert!(scratch(512, Precision::Float) > large);
    }

    #[test]
    fn no_figures_overflow() {
        let mut manifest = llama_3_2_1b(false);
        let shape = &mut manifest.architecture;
        (shape.layers, shape.kv_heads, shape.heads) = (1024, 1024, 1024);
        (shape.hidden_size, shape.intermediate_size) = (1 << 17, 1 << 19);
        (shape.head_dim, shape.vocab_size) = (1024, 1 << 21);
        shape.context_length = 1 << 20;
        let huge = LoadOptions {
            prefill_chunk: usize::MAX,
            kv_cache: KvFormat::F32,
            ..options(Some(usize::MAX))
        };
        assert!(needed(&manifest, &huge).total() > 1 << 50);
    }
}
