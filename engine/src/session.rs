//! One conversation's KV cache and the two steps that fill it.

use std::sync::Arc;

use tract_onnx::prelude::TractError;

use crate::error::EngineError;
use crate::folder::GRAPH;
use crate::graph::State;
use crate::model::Loaded;
use crate::ops::prepare_thread;

/// A KV cache on a [`Model`](crate::Model): tokens go in, logits come out.
///
/// It remembers the tokens that are in the cache, so that [`Self::generate`]
/// computes only what a prompt does not share with what came before.
pub struct Session {
    pub(crate) model: Arc<Loaded>,
    state: State,
    /// Tokens whose keys and values are in the cache.
    pub(crate) tokens: Vec<u32>,
}

impl Session {
    pub(crate) fn new(model: Arc<Loaded>) -> Result<Self, EngineError> {
        let state = State::new(&model.plan, model.vocab_size()).map_err(graph_error)?;
        let tokens = Vec::with_capacity(model.runtime.context_length);
        Ok(Self {
            model,
            state,
            tokens,
        })
    }

    /// Tokens the KV cache can hold.
    pub fn context_length(&self) -> usize {
        self.model.runtime.context_length
    }

    /// Tokens in the KV cache.
    pub fn position(&self) -> usize {
        self.tokens.len()
    }

    /// Forgets all tokens from `len` on; no copy, no cost.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.state.truncate(len);
    }

    /// Appends tokens, in chunks, and returns the logits after the last one,
    /// `[vocab_size]`.
    ///
    /// # Errors
    /// No tokens, unknown ones, or more than the context holds; the cache is
    /// then as before.
    pub fn prefill(&mut self, ids: &[u32]) -> Result<&[f32], EngineError> {
        self.check(ids)?;
        let before = self.position();
        let chunk = self.model.prefill_chunk;
        for ids in ids.chunks(chunk) {
            if let Err(e) = self.step(ids, 1) {
                self.truncate(before);
                return Err(e);
            }
        }
        Ok(self.logits())
    }

    /// Appends one token and returns the logits after it, `[vocab_size]`.
    ///
    /// # Errors
    /// As for [`Self::prefill`].
    pub fn decode(&mut self, id: u32) -> Result<&[f32], EngineError> {
        self.prefill(&[id])
    }

    /// Appends tokens in one step, however many, and returns the logits after
    /// each of them, `[ids.len(), vocab_size]`.
    ///
    /// A draft is verified so: a step reads all weights however many tokens it
    /// takes, and they are the logits that [`Self::decode`] gives token by
    /// token: with [`Precision::Int8`](crate::Precision::Int8) and up to 15 tokens
    /// to the bit, otherwise but for the rounding of sums.
    ///
    /// # Errors
    /// As for [`Self::prefill`].
    pub fn score(&mut self, ids: &[u32]) -> Result<&[f32], EngineError> {
        self.check(ids)?;
        self.step(ids, ids.len())?;
        Ok(self.logits())
    }

    /// Logits of the last step, `[keep, vocab_size]`; empty before the first.
    pub(crate) fn logits(&self) -> &[f32] {
        self.state.logits()
    }

    /// Whether these tokens can be appended.
    pub(crate) fn check(&self, ids: &[u32]) -> Result<(), EngineError> {
        if ids.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        let vocab_size = self.model.vocab_size();
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(EngineError::UnknownToken { id, vocab_size });
        }
        let (needed, context_length) = (self.position() + ids.len(), self.context_length());
        if needed > context_length {
            return Err(EngineError::ContextOverflow {
                needed,
                context_length,
            });
        }
        Ok(())
    }

    /// Runs the graph once, for the logits of the last `keep` positions. After
    /// an error the layers may hold different positions: the caches are cut
    /// back to the last good one.
    pub(crate) fn step(&mut self, ids: &[u32], keep: usize) -> Result<(), EngineError> {
        prepare_thread();
        self.model.runtime.begin(ids.len());
        let result = self.state.run(ids, keep);
        match result {
            Ok(()) => self.tokens.extend_from_slice(ids),
            Err(_) => self.truncate(self.tokens.len()),
        }
        result.map_err(graph_error)
    }
}

fn graph_error(error: TractError) -> EngineError {
    EngineError::Graph {
        path: GRAPH.into(),
        problem: format!("{error:#}"),
    }
}
