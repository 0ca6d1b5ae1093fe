//! The answer as it grows: tokens to text, up to a stop string.

use super::{FinishReason, GenerateOptions, Generated, Piece, Sink, Timings};
use crate::error::EngineError;
use crate::model::Loaded;
use crate::text::{Detokeniser, StopMatcher};

/// Bytes of text reserved for each token; four is usual. The memory is the
/// system's until it is written to.
const RESERVED_BYTES: usize = 16;
/// Bytes reserved for the text of one token: above the longest of any Llama.
const RESERVED_PIECE: usize = 1024;

/// What follows a token.
pub(super) enum Next {
    Go,
    End(FinishReason),
}

/// The answer as it grows.
pub(super) struct Answer<'a> {
    detokeniser: Detokeniser<'a>,
    stops: StopMatcher,
    pub(super) tokens: Vec<u32>,
    text: String,
    /// Scratch: text of the last token before stop strings are sought.
    fresh: String,
}

impl<'a> Answer<'a> {
    /// An answer of at most `most` tokens.
    pub(super) fn new(model: &'a Loaded, options: &GenerateOptions, most: usize) -> Self {
        Self {
            detokeniser: Detokeniser::new(&model.codec, true, true),
            stops: StopMatcher::new(&options.stop),
            tokens: Vec::with_capacity(most),
            text: String::with_capacity(most.saturating_mul(RESERVED_BYTES)),
            fresh: String::with_capacity(RESERVED_PIECE),
        }
    }

    /// Takes the next token, and hands the text it makes final to the sink.
    pub(super) fn push(&mut self, token: u32, sink: &mut dyn Sink) -> Result<Next, EngineError> {
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
    pub(super) fn finish(
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
