//! A loaded model.

use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cores;
use crate::error::EngineError;
use chaski_manifest::Manifest;

use crate::folder::{DATA, Folder, Mapping};
use crate::graph::{self, Plan};
use crate::kernels::{Backend, KvFormat, Precision};
use crate::memory::{self, MemoryNeeded};
use crate::ops::{Pool, Runtime, Widths, prepare_thread};
use crate::sampling::SamplingOptions;
use crate::session::Session;
use crate::text::{ChatInput, Codec};
use crate::threads::Team;

/// How a model is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Threads to compute with; `None`: one for each of `cores`, or of the machine's.
    pub threads: Option<usize>,
    /// How many of them decode; `None`: all. Decode is bound by the memory's speed, which
    /// fewer threads may use up as well.
    pub decode_threads: Option<usize>,
    /// Cores that the threads are pinned to, one after the other and again from the
    /// first; `None`: the system puts them where it likes. The thread that calls
    /// [`Model::load`] is the first, as it is the one that computes: load the model
    /// on the thread that its sessions run on. It stays pinned, and threads that it
    /// starts later inherit that.
    pub cores: Option<Vec<usize>>,
    /// Tokens a session's KV cache holds; `None`: the model's limit, at most 4096.
    pub context_length: Option<usize>,
    /// Prompt tokens computed in one step: more is faster and takes more memory.
    pub prefill_chunk: usize,
    /// Kernels to compute with; `None`: the fastest that this processor has.
    pub backend: Option<Backend>,
    /// What activations are computed with.
    pub precision: Precision,
    /// What the KV cache is kept in.
    pub kv_cache: KvFormat,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            threads: None,
            decode_threads: None,
            cores: None,
            context_length: None,
            prefill_chunk: 128,
            backend: None,
            precision: Precision::Int8,
            kv_cache: KvFormat::default(),
        }
    }
}

/// How many threads compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads {
    /// In steps of many tokens.
    pub prefill: usize,
    /// In steps of one, or of one with its draft.
    pub decode: usize,
}

/// A model folder, loaded: the weights mapped, the graph planned, the tokenizer
/// and chat template ready. A clone is another handle on the same model; each
/// conversation takes a [`Session`] of its own.
#[derive(Clone)]
pub struct Model(Arc<Loaded>);

impl Loaded {
    pub(crate) fn vocab_size(&self) -> usize {
        self.manifest.architecture.vocab_size
    }
}

/// What the handles and sessions of a model share.
pub(crate) struct Loaded {
    manifest: Manifest,
    pub(crate) codec: Codec,
    pub(crate) plan: Plan,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) prefill_chunk: usize,
    weight_bytes: u64,
    load_time: Duration,
}

impl Model {
    /// Reads what a model folder says of itself, and checks that its files are there.
    ///
    /// # Errors
    /// Says which file of the folder is missing or wrong.
    pub fn look(folder: &Path) -> Result<Manifest, EngineError> {
        Folder::open(folder).map(|folder| folder.manifest().clone())
    }

    /// What a model takes of memory when it is loaded with these options and its context
    /// is full; see [`MemoryNeeded`]. Nothing is loaded for that.
    pub fn memory_needed(manifest: &Manifest, options: &LoadOptions) -> MemoryNeeded {
        memory::needed(manifest, options)
    }

    /// Loads a model folder.
    ///
    /// # Errors
    /// Says which file of the folder is missing or wrong, or which option is
    /// out of range.
    pub fn load(folder: &Path, options: &LoadOptions) -> Result<Self, EngineError> {
        let start = Instant::now();
        let folder = Folder::open(folder)?;
        let architecture = &folder.manifest().architecture;
        let limit = architecture.context_length;
        let context_length = memory::context_length(architecture, options);
        if context_length == 0 || context_length > limit {
            return Err(EngineError::Option(format!(
                "context length {context_length}: this model takes 1 to {limit}"
            )));
        }
        if options.prefill_chunk == 0 {
            return Err(EngineError::Option(
                "prefill chunk 0: give at least 1".into(),
            ));
        }
        let cores = options.cores.as_deref();
        cores.map_or(Ok(()), cores::check)?;
        let cores = cores.unwrap_or_default();
        let threads = memory::threads(options);
        if threads == 0 || threads > 256 {
            return Err(EngineError::Option(format!(
                "{threads} threads: give 1 to 256, best the number of fast cores"
            )));
        }
        let decode_threads = options.decode_threads.unwrap_or(threads);
        if decode_threads == 0 || decode_threads > threads {
            return Err(EngineError::Option(format!(
                "{decode_threads} threads to decode: give 1 to {threads}, which there are"
            )));
        }
        let team = Team::new(threads, cores, prepare_thread)
            .map_err(|e| EngineError::Option(format!("{threads} threads cannot start: {e}")))?;
        let backend = options.backend.unwrap_or_else(Backend::detect);
        let runtime = Arc::new(Runtime {
            mapping: Mapping::open(&folder.file(DATA))?,
            team,
            widths: Widths::new(Threads {
                prefill: threads,
                decode: decode_threads,
            }),
            backend,
            precision: options.precision,
            kv_format: options.kv_cache,
            context_length,
            pool: Pool::default(),
        });
        // The tokenizer takes longer than the graph; neither needs the other.
        let (codec, plan) = std::thread::scope(|scope| {
            let codec = scope.spawn(|| Codec::load(folder.path()));
            let plan = graph::load(&folder, &runtime);
            let codec = codec.join();
            (codec.unwrap_or_else(|panic| resume_unwind(panic)), plan)
        });
        let (codec, (plan, weight_bytes)) = (codec?, plan?);
        // Not before, as the tokenizer's thread would have shared the core.
        cores::of_member(cores, 0).into_iter().for_each(cores::pin);
        let load_time = start.elapsed();
        tracing::info!(
            folder = %folder.path().display(),
            backend = backend.name(),
            precision = ?options.precision,
            kv_cache = ?options.kv_cache,
            threads,
            ?cores,
            context_length,
            seconds = load_time.as_secs_f64(),
            "model loaded"
        );
        Ok(Self(Arc::new(Loaded {
            manifest: folder.manifest().clone(),
            codec,
            plan,
            runtime,
            prefill_chunk: options.prefill_chunk,
            weight_bytes,
            load_time,
        })))
    }

    /// What the folder says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// Tokens that a session's KV cache holds.
    pub fn context_length(&self) -> usize {
        self.0.runtime.context_length
    }

    /// Bytes that a token takes in a session's KV cache, all layers together.
    pub fn kv_bytes_per_token(&self) -> usize {
        let Loaded {
            manifest, runtime, ..
        } = &*self.0;
        let shape = &manifest.architecture;
        let format = runtime.kv_format;
        shape.layers * format.position_bytes(shape.kv_heads, shape.head_dim)
    }

    /// How long [`Self::load`] took.
    pub fn load_time(&self) -> Duration {
        self.0.load_time
    }

    /// Threads that compute, the caller's included.
    pub fn threads(&self) -> usize {
        self.0.runtime.team.size()
    }

    /// Threads that compute now.
    pub fn threads_in_use(&self) -> Threads {
        self.0.runtime.widths.get()
    }

    /// Has the next steps computed with so many threads: at least one, at most
    /// [`Self::threads`]. May be called at any time, from any thread, also while an answer
    /// is generated, which stays the same: a board that gets hot cools down with fewer.
    pub fn set_threads(&self, threads: Threads) {
        let most = self.threads();
        self.0.runtime.widths.set(Threads {
            prefill: threads.prefill.clamp(1, most),
            decode: threads.decode.clamp(1, most),
        });
    }

    /// Bytes of weights that a decoded token reads: every matrix once, with its
    /// scales and zero points. An embedding counts if it is the head as well; of one
    /// that is not, a token reads a row, which does not count, nor do the norms.
    pub fn weight_bytes_per_token(&self) -> u64 {
        self.0.weight_bytes
    }

    /// The kernels in use.
    pub fn kernel_backend(&self) -> &'static str {
        self.0.runtime.backend.name()
    }

    /// How the model's makers would sample, from `generation_config.json`.
    pub fn sampling_defaults(&self) -> SamplingOptions {
        self.0.codec.sampling_defaults().clone()
    }

    /// Text to token ids; `add_special_tokens` adds what the tokenizer puts
    /// around a text (not wanted for a rendered chat prompt).
    ///
    /// # Errors
    /// What the tokenizer says.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, EngineError> {
        Ok(self.0.codec.encode(text, add_special_tokens)?)
    }

    /// Token ids to text.
    ///
    /// # Errors
    /// What the tokenizer says.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, EngineError> {
        Ok(self.0.codec.decode(ids, skip_special_tokens)?)
    }

    /// Whether the model came with a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.0.codec.has_chat_template()
    }

    /// Renders messages by the model's own chat template. Encode the result
    /// without special tokens: the template writes them.
    ///
    /// # Errors
    /// No template, or what it says of the messages.
    pub fn chat_prompt(&self, chat: &ChatInput) -> Result<String, EngineError> {
        Ok(self.0.codec.chat_prompt(chat)?)
    }

    /// Begins a conversation: an empty KV cache.
    ///
    /// # Errors
    /// What tract says.
    pub fn session(&self) -> Result<Session, EngineError> {
        Session::new(Arc::clone(&self.0))
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("architecture", &self.0.manifest.architecture)
            .field("backend", &self.0.runtime.backend)
            .finish_non_exhaustive()
    }
}
