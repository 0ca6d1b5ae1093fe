//! The generation loop: prefill, then sample and decode until an end.

use std::ops::ControlFlow;
use std::time::Instant;

use super::answer::{Answer, Next};
use super::lookup::Lookup;
use super::{FinishReason, GenerateOptions, Generated, Sink, Timings};
use crate::error::EngineError;
use crate::sampling::Sampler;
use crate::session::Session;

impl Session {
    /// Computes `prompt` (but for the longest prefix of it that is still in the
    /// KV cache) and generates from it.
    ///
    /// Afterwards the cache holds the prompt and the answer, so that the next
    /// turn of the conversation pays only for what is new.
    ///
    /// # Errors
    /// An empty or too long prompt, unknown tokens, options out of range. The
    /// session stays usable.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        sink: &mut dyn Sink,
    ) -> Result<Generated, EngineError> {
        let start = Instant::now();
        let model = std::sync::Arc::clone(&self.model);
        let sampler = Sampler::new(&options.sampling, model.vocab_size())?;
        if options.prompt_lookup > GenerateOptions::MOST_DRAFTED {
            return Err(EngineError::Option(format!(
                "prompt lookup of {} tokens: give at most {}, or 0 for none",
                options.prompt_lookup,
                GenerateOptions::MOST_DRAFTED
            )));
        }
        if prompt.len() >= self.context_length() {
            // One position at least must be left for the answer.
            return Err(EngineError::ContextOverflow {
                needed: prompt.len() + 1,
                context_length: self.context_length(),
            });
        }
        let room = self.context_length() - prompt.len();
        let most = options.max_tokens.unwrap_or(room).min(room);
        let mut timings = Timings {
            cached_tokens: self.reuse(prompt),
            ..Timings::default()
        };
        self.check(&prompt[timings.cached_tokens..])?;
        timings.prefill_tokens = prompt.len() - timings.cached_tokens;
        let mut answer = Answer::new(&model, options, most);
        if self
            .prefill_with(&prompt[timings.cached_tokens..], sink)?
            .is_break()
        {
            timings.prefill = start.elapsed();
            return Ok(answer.finish(FinishReason::Cancelled, timings, sink));
        }
        timings.prefill = start.elapsed();

        let decode_start = Instant::now();
        let mut decoding = Decoding::new(sampler, options, prompt, most);
        let end = decoding.run(self, &mut answer, &mut timings, sink);
        // A draft may have gone further than the answer.
        if self.position() > decoding.computed {
            self.truncate(decoding.computed);
        }
        timings.decode = decode_start.elapsed();
        Ok(answer.finish(end?, timings, sink))
    }

    /// Cuts the cache back to what it shares with `prompt`; returns how much
    /// that is. The prompt's last token is always computed, for its logits.
    fn reuse(&mut self, prompt: &[u32]) -> usize {
        let shared = self
            .tokens
            .iter()
            .zip(prompt)
            .take_while(|(a, b)| a == b)
            .count();
        let shared = shared.min(prompt.len().saturating_sub(1));
        self.truncate(shared);
        shared
    }

    /// Prefill that can be cancelled between chunks; what is computed stays.
    fn prefill_with(
        &mut self,
        ids: &[u32],
        sink: &mut dyn Sink,
    ) -> Result<ControlFlow<()>, EngineError> {
        let mut done = 0;
        for chunk in ids.chunks(self.model.prefill_chunk) {
            self.step(chunk, 1)?;
            done += chunk.len();
            if sink.prefill_progress(done, ids.len()).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The logits after the `row`th token of the last step, `[vocab_size]`.
    fn logits_after(&self, row: usize) -> &[f32] {
        let vocab_size = self.model.vocab_size();
        // Without the row the sampler refuses the length.
        self.logits()
            .chunks_exact(vocab_size)
            .nth(row)
            .unwrap_or_default()
    }
}

/// What the decode loop works with, allocated before the first token.
struct Decoding<'a> {
    options: &'a GenerateOptions,
    sampler: Sampler,
    /// Most tokens of the answer.
    most: usize,
    /// The prompt and the answer so far.
    history: Vec<u32>,
    lookup: Option<Lookup>,
    /// What the last step took: a token of the answer, and a draft of those
    /// after it.
    batch: Vec<u32>,
    /// Positions of the cache that belong to the text: what a draft has put
    /// after them is not known to stand.
    computed: usize,
}

impl<'a> Decoding<'a> {
    fn new(sampler: Sampler, options: &'a GenerateOptions, prompt: &[u32], most: usize) -> Self {
        let mut history = Vec::with_capacity(prompt.len() + most);
        history.extend_from_slice(prompt);
        let lookup = (options.prompt_lookup > 0).then(|| {
            let mut lookup = Lookup::new(prompt.len() + most);
            lookup.read(prompt);
            lookup
        });
        Self {
            options,
            sampler,
            most,
            history,
            lookup,
            batch: Vec::with_capacity(1 + options.prompt_lookup),
            computed: prompt.len(),
        }
    }

    /// Samples and decodes until an end. Every token is sampled once and in
    /// order, from the logits after the text before it: a draft decides only
    /// whether those are computed already.
    fn run(
        &mut self,
        session: &mut Session,
        answer: &mut Answer<'_>,
        timings: &mut Timings,
        sink: &mut dyn Sink,
    ) -> Result<FinishReason, EngineError> {
        let mut row = 0;
        while answer.tokens.len() < self.most {
            self.computed = self.history.len();
            let id = self
                .sampler
                .sample(session.logits_after(row), &self.history)?;
            timings.decode_tokens += 1;
            let drafted = self.batch.get(row + 1) == Some(&id);
            timings.accepted_tokens += usize::from(drafted);
            if !self.options.ignore_eos && session.model.codec.is_eos(id) {
                return Ok(FinishReason::Stop);
            }
            self.history.push(id);
            if let Some(lookup) = &mut self.lookup {
                lookup.advance(&self.history);
            }
            if let Next::End(reason) = answer.push(id, sink)? {
                return Ok(reason);
            }
            if drafted {
                row += 1;
            } else if answer.tokens.len() < self.most {
                if session.position() > self.computed {
                    session.truncate(self.computed);
                }
                self.next_batch(id, session, self.most - answer.tokens.len() - 1);
                timings.drafted_tokens += self.batch.len() - 1;
                session.step(&self.batch, self.batch.len())?;
                row = 0;
            }
        }
        Ok(FinishReason::Length)
    }

    /// The token and a draft of up to `most` after it. Where the text is likely
    /// to end there is nothing to compute.
    fn next_batch(&mut self, id: u32, session: &Session, most: usize) {
        self.batch.clear();
        self.batch.push(id);
        let Some(lookup) = &self.lookup else {
            return;
        };
        let most = most.min(self.options.prompt_lookup);
        lookup.draft(&self.history, most, &mut self.batch);
        if !self.options.ignore_eos {
            let end = self
                .batch
                .iter()
                .position(|&id| session.model.codec.is_eos(id));
            self.batch.truncate(end.unwrap_or(self.batch.len()));
        }
    }
}
