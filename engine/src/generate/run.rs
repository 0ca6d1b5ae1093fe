//! The generation loop: prefill, then sample and decode until an end.

use std::ops::ControlFlow;
use std::time::Instant;

use super::{FinishReason, GenerateOptions, Generated, Piece, Sink, Timings};
use crate::error::EngineError;
use crate::sampling::Sampler;
use crate::session::Session;
use crate::text::{Detokeniser, StopMatcher};

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
        let mut sampler = Sampler::new(&options.sampling, model.vocab_size())?;
        if prompt.len() >= self.context_length() {
            // One position at least must be left for the answer.
            return Err(EngineError::ContextOverflow {
                needed: prompt.len() + 1,
                context_length: self.context_length(),
            });
        }
        let mut timings = Timings {
            cached_tokens: self.reuse(prompt),
            ..Timings::default()
        };
        self.check(&prompt[timings.cached_tokens..])?;
        timings.prefill_tokens = prompt.len() - timings.cached_tokens;
        let mut answer = Answer::new(&model, options);
        if self
            .prefill_with(&prompt[timings.cached_tokens..], sink)?
            .is_break()
        {
            timings.prefill = start.elapsed();
            return Ok(answer.finish(FinishReason::Cancelled, timings, sink));
        }
        timings.prefill = start.elapsed();

        let decode_start = Instant::now();
        let room = self.context_length() - prompt.len();
        let most = options.max_tokens.unwrap_or(room).min(room);
        let mut history = prompt.to_vec();
        let mut reason = FinishReason::Length;
        while answer.tokens.len() < most {
            let id = sampler.sample(self.logits(), &history)?;
            timings.decode_tokens += 1;
            if !options.ignore_eos && model.codec.is_eos(id) {
                reason = FinishReason::Stop;
                break;
            }
            history.push(id);
            match answer.push(id, sink)? {
                Next::Go => {}
                Next::End(end) => {
                    reason = end;
                    break;
                }
            }
            if answer.tokens.len() < most {
                self.step(&[id], 1)?;
            }
        }
        timings.decode = decode_start.elapsed();
        Ok(answer.finish(reason, timings, sink))
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
}

/// What follows a token.
enum Next {
    Go,
    End(FinishReason),
}

/// The answer as it grows.
struct Answer<'a> {
    detokeniser: Detokeniser<'a>,
    stops: StopMatcher,
    tokens: Vec<u32>,
    text: String,
    /// Scratch: text of the last token before stop strings are sought.
    fresh: String,
}

impl<'a> Answer<'a> {
    fn new(model: &'a crate::model::Loaded, options: &GenerateOptions) -> Self {
        Self {
            detokeniser: Detokeniser::new(&model.codec, true, true),
            stops: StopMatcher::new(&options.stop),
            tokens: Vec::new(),
            text: String::new(),
            fresh: String::new(),
        }
    }

    fn push(&mut self, token: u32, sink: &mut dyn Sink) -> Result<Next, EngineError> {
        self.tokens.push(token);
        self.fresh.clear();
        self.detokeniser.push(token, &mut self.fresh)?;
        let emitted = self.text.len();
        let stopped = self.stops.push(&self.fresh, &mut self.text);
        let text = &self.text[emitted..];
        let wants = sink.piece(Piece { token, text });
        Ok(if stopped {
            Next::End(FinishReason::Stop)
        } else if wants.is_break() {
            Next::End(FinishReason::Cancelled)
        } else {
            Next::Go
        })
    }

    /// Releases what was held back for want of the rest of a character or of a
    /// stop string.
    fn finish(
        mut self,
        finish_reason: FinishReason,
        timings: Timings,
        sink: &mut dyn Sink,
    ) -> Generated {
        let emitted = self.text.len();
        if !self.stops.stopped() {
            self.fresh.clear();
            self.detokeniser.finish(&mut self.fresh);
            if !self.stops.push(&self.fresh, &mut self.text) {
                self.stops.finish(&mut self.text);
            }
        }
        if emitted < self.text.len()
            && let Some(&token) = self.tokens.last()
        {
            let text = &self.text[emitted..];
            // The answer ends here, whatever the sink says.
            let _ = sink.piece(Piece { token, text });
        }
        Generated {
            text: self.text,
            tokens: self.tokens,
            finish_reason,
            timings,
        }
    }
}
