//! The models that profiles name, and how much memory a model takes.

use crate::MIB;
use crate::profile::KvCache;

/// Bytes of 32 weights at 4 bits: their quants and a scale in f16.
const BLOCK: (u64, u64) = (18, 32);
/// What the program, its threads and its queues take.
const PROGRAM: u64 = 12 * MIB;
/// Of a token of the vocabulary: its text, its place in the tables, its logit.
const PER_TOKEN: u64 = 160;

/// The figures of a Llama that decide how large and how fast it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Its name in profiles.
    pub name: &'static str,
    /// Width of the residual stream.
    pub hidden_size: u64,
    /// Width of the feed-forward layer.
    pub intermediate_size: u64,
    /// Decoder layers.
    pub layers: u64,
    /// Query heads.
    pub heads: u64,
    /// Key and value heads.
    pub kv_heads: u64,
    /// Width of a head.
    pub head_dim: u64,
    /// Tokens in the vocabulary.
    pub vocab_size: u64,
    /// Tokens that it was made for.
    pub context_length: usize,
    /// Whether the head is the embedding.
    pub tied: bool,
}

/// As the models' own `config.json` have them.
const SHAPES: [Shape; 7] = [
    llama(
        "smollm2-135m",
        [576, 1536, 30, 9, 3, 64, 49_152],
        8192,
        true,
    ),
    llama(
        "smollm2-360m",
        [960, 2560, 32, 15, 5, 64, 49_152],
        8192,
        true,
    ),
    llama(
        "tinyllama-1.1b",
        [2048, 5632, 22, 32, 4, 64, 32_000],
        2048,
        false,
    ),
    llama(
        "llama-3.2-1b",
        [2048, 8192, 16, 32, 8, 64, 128_256],
        131_072,
        true,
    ),
    llama(
        "smollm2-1.7b",
        [2048, 8192, 24, 32, 32, 64, 49_152],
        8192,
        true,
    ),
    llama(
        "llama-3.2-3b",
        [3072, 8192, 28, 24, 8, 128, 128_256],
        131_072,
        true,
    ),
    llama(
        "llama-3.1-8b",
        [4096, 14_336, 32, 32, 8, 128, 128_256],
        131_072,
        false,
    ),
];

const fn llama(name: &'static str, figures: [u64; 7], context_length: usize, tied: bool) -> Shape {
    let [
        hidden_size,
        intermediate_size,
        layers,
        heads,
        kv_heads,
        head_dim,
        vocab_size,
    ] = figures;
    Shape {
        name,
        hidden_size,
        intermediate_size,
        layers,
        heads,
        kv_heads,
        head_dim,
        vocab_size,
        context_length,
        tied,
    }
}

/// All that profiles may name, the smallest first.
pub fn shapes() -> &'static [Shape] {
    &SHAPES
}

/// The one of that name.
pub fn shape(name: &str) -> Option<&'static Shape> {
    SHAPES.iter().find(|shape| shape.name == name)
}

impl Shape {
    /// Bytes of weights that a token reads: every matrix once, the head too.
    pub fn read_bytes(&self) -> u64 {
        let (query, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let attention = 2 * self.hidden_size * (query + kv);
        let feed_forward = 3 * self.hidden_size * self.intermediate_size;
        let weights = self.layers * (attention + feed_forward) + self.vocab_size * self.hidden_size;
        weights * BLOCK.0 / BLOCK.1
    }

    /// Bytes of all weights.
    pub fn weight_bytes(&self) -> u64 {
        let embedding = match self.tied {
            true => 0,
            false => self.vocab_size * self.hidden_size * BLOCK.0 / BLOCK.1,
        };
        self.read_bytes() + embedding
    }
}

/// The memory that a model takes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Its weights: mapped from a file, but slow unless all of them stay in memory.
    pub weights: u64,
    /// Its KV cache when it is full.
    pub kv_cache: u64,
    /// Tokenizer, activations and the program itself: more than was ever seen.
    pub other: u64,
}

impl Needs {
    /// Those of a model that is known by name.
    pub fn of(shape: &Shape, format: KvCache, context_length: usize, prefill_chunk: usize) -> Self {
        let weights = shape.weight_bytes();
        Self::of_folder(shape, weights, format, context_length, prefill_chunk)
    }

    /// Those of a model folder, whose files have so many bytes.
    pub fn of_folder(
        shape: &Shape,
        file_bytes: u64,
        format: KvCache,
        context_length: usize,
        prefill_chunk: usize,
    ) -> Self {
        Self {
            weights: file_bytes,
            kv_cache: (context_length as u64).saturating_mul(kv_bytes(shape, format)),
            other: other(shape, prefill_chunk),
        }
    }

    /// All together.
    pub fn bytes(&self) -> u64 {
        self.weights
            .saturating_add(self.kv_cache)
            .saturating_add(self.other)
    }

    /// All together, in MiB.
    pub fn mib(&self) -> u64 {
        self.bytes().div_ceil(MIB)
    }
}

/// Bytes of a token in the KV cache, all layers together.
pub(crate) fn kv_bytes(shape: &Shape, format: KvCache) -> u64 {
    let head = match format {
        KvCache::F32 => shape.head_dim.saturating_mul(4),
        KvCache::F16 => shape.head_dim.saturating_mul(2),
        // A scale for each head.
        KvCache::Int8 => shape.head_dim.saturating_add(4),
    };
    let heads = shape.layers.saturating_mul(shape.kv_heads);
    heads.saturating_mul(2).saturating_mul(head)
}

fn other(shape: &Shape, prefill_chunk: usize) -> u64 {
    let row = (shape.hidden_size.saturating_mul(4))
        .saturating_add(shape.intermediate_size.saturating_mul(3));
    let activations = row.saturating_mul(4).saturating_mul(prefill_chunk as u64);
    PROGRAM
        .saturating_add(shape.vocab_size.saturating_mul(PER_TOKEN))
        .saturating_add(activations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_as_large_as_was_measured() {
        // The weights of docs/performance.md, in MB: what a token reads.
        for (name, megabytes) in [
            ("smollm2-135m", 76),
            ("llama-3.2-1b", 695),
            ("llama-3.2-3b", 1807),
            ("llama-3.1-8b", 4221),
        ] {
            let read = shape(name).unwrap().read_bytes() as f64 / 1e6;
            assert!((read - f64::from(megabytes)).abs() < 1.0, "{name}: {read}");
        }
        assert_eq!(shape("llama-4"), None);
    }

    #[test]
    fn an_embedding_of_its_own_is_not_read_but_there() {
        let of = |name| shape(name).unwrap();
        let tied = of("llama-3.2-1b");
        assert_eq!(tied.weight_bytes(), tied.read_bytes());
        let untied = of("tinyllama-1.1b");
        let embedding = 32_000 * 2048 * 18 / 32;
        assert_eq!(untied.weight_bytes(), untied.read_bytes() + embedding);
    }

    #[test]
    fn needs_cover_what_was_measured() {
        let shape = shape("llama-3.2-1b").unwrap();
        let needs = Needs::of(shape, KvCache::F16, 512, 128);
        // 16.8 MB of KV cache and at most 29 MB beyond it.
        assert_eq!(needs.kv_cache, 16_777_216);
        assert!((29_000_000..60_000_000).contains(&needs.other), "{needs:?}");
        let int8 = Needs::of(shape, KvCache::Int8, 512, 128);
        assert!(int8.kv_cache * 2 > needs.kv_cache && int8.kv_cache < needs.kv_cache * 6 / 10);
        assert_eq!(
            Needs::of_folder(shape, 7, KvCache::F16, 512, 128).weights,
            7
        );
    }

    #[test]
    fn absurd_figures_do_not_overflow() {
        let shape = llama("x", [u64::MAX; 7], usize::MAX, true);
        let needs = Needs::of_folder(&shape, u64::MAX, KvCache::F32, usize::MAX, usize::MAX);
        assert_eq!(needs.bytes(), u64::MAX);
    }
}
