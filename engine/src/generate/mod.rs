//! One generation: options in, pieces of text and timings out.

mod answer;
mod lookup;
mod run;

use std::ops::ControlFlow;
use std::time::Duration;

use crate::kernels::EXACT_ROWS;
use crate::sampling::SamplingOptions;

/// What a caller asks of one generation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerateOptions {
    /// Most tokens to produce; `None`: as many as the context holds.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub sampling: SamplingOptions,
    /// Generation ends before the first of these strings; it is not part of the text.
    pub stop: Vec<String>,
    /// Go on past end-of-sequence tokens (benchmarks).
    pub ignore_eos: bool,
    /// Prompt lookup decoding: most tokens to draft from the text so far and to
    /// verify in one step, up to [`Self::MOST_DRAFTED`]; 0 drafts none.
    ///
    /// The tokens are those without it, whatever the sampling, because each is
    /// sampled from the model's own logits; only an answer that repeats parts of
    /// its prompt or of itself comes faster. With [`Precision::Int8`] this holds
    /// to the bit, since the logits of a position do not depend on how many are
    /// computed together; with [`Precision::Float`] up to the rounding of sums,
    /// which may turn one draw in some hundred thousand.
    ///
    /// [`Precision::Int8`]: crate::Precision::Int8
    /// [`Precision::Float`]: crate::Precision::Float
    pub prompt_lookup: usize,
}

impl GenerateOptions {
    /// Most tokens that [`Self::prompt_lookup`] may ask for: a step of more would
    /// be computed by kernels for prompts, whose sums differ in the last bit.
    pub const MOST_DRAFTED: usize = EXACT_ROWS - 1;
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end-of-sequence token or a stop string.
    Stop,
    /// `max_tokens` or the context length was reached.
    Length,
    /// The caller's sink asked to end.
    Cancelled,
}

/// Part of the answer, as it comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Piece<'a> {
    /// The token just produced (at the very end once more, with text that was
    /// held back).
    pub token: u32,
    /// Text that became final with it: whole characters, possibly none.
    pub text: &'a str,
}

/// Counts and durations of the two phases.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Prompt tokens computed (those found in the KV cache are not).
    pub prefill_tokens: usize,
    /// Prompt tokens that were still in the KV cache.
    pub cached_tokens: usize,
    /// Seconds from the start to the first logits.
    pub prefill: Duration,
    /// Tokens produced.
    pub decode_tokens: usize,
    /// Seconds after the first logits.
    pub decode: Duration,
    /// Tokens drafted by prompt lookup.
    pub drafted_tokens: usize,
    /// Of these, the ones that the sampler chose too.
    pub accepted_tokens: usize,
}

/// A finished generation.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The whole text: the pieces put together.
    pub text: String,
    /// The tokens, without the end-of-sequence token.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// How long it took.
    pub timings: Timings,
}

/// Who takes the answer as it comes. A closure over [`Piece`] is one.
pub trait Sink {
    /// Takes a piece; `Break` ends the generation (cancelled).
    fn piece(&mut self, piece: Piece<'_>) -> ControlFlow<()>;

    /// Told after each chunk of the prompt; `Break` ends the generation.
    fn prefill_progress(&mut self, done: usize, total: usize) -> ControlFlow<()> {
        let _ = (done, total);
        ControlFlow::Continue(())
    }
}

impl<F: FnMut(Piece<'_>) -> ControlFlow<()>> Sink for F {
    fn piece(&mut self, piece: Piece<'_>) -> ControlFlow<()> {
        self(piece)
    }
}
