//! From the engine's results to payloads.

use std::time::Duration;

use chaski_engine::{FinishReason, Timings};

use super::route::Route;
use crate::inference::{Completed, Job};
use crate::refusal::Refusal;
use crate::wire::{
    ChatChunk, ChatCompletion, Choice, ChunkChoice, Delta, ErrorReply, HeatLevel, ReplyMessage,
    ReplyTimings, SpeedMetrics, Usage, to_json,
};

const ASSISTANT: &str = "assistant";

/// The reply to one running request, in the form it asked for.
#[derive(Debug)]
pub(super) struct Answer {
    form: Form,
    id: String,
    node: String,
    model: String,
    created: u64,
    waited: Duration,
    /// What was done against heat meanwhile, at most.
    slowed: HeatLevel,
}

#[derive(Debug)]
enum Form {
    Text,
    Json,
    Chunks {
        /// Sequence number of the next one.
        next: u64,
        /// Whether the last one brings the whole text.
        include_text: bool,
    },
}

impl Answer {
    pub(super) fn new(
        route: &Route,
        model: String,
        created: u64,
        waited: Duration,
        job: &Job,
    ) -> Self {
        Self {
            form: match (route.is_json(), job.stream) {
                (false, _) => Form::Text,
                (true, false) => Form::Json,
                (true, true) => Form::Chunks {
                    next: 0,
                    include_text: job.include_text,
                },
            },
            id: route.id().unwrap_or_default().to_owned(),
            node: route.node().to_owned(),
            model,
            created,
            waited,
            slowed: HeatLevel::Normal,
        }
    }

    /// The request is computed with less effort.
    pub(super) fn slow_down(&mut self, heat: HeatLevel) {
        self.slowed = self.slowed.max(heat);
    }

    /// A streamed piece.
    pub(super) fn piece(&mut self, text: String) -> Vec<u8> {
        to_json(&self.chunk(Some(text), None))
    }

    /// The last chunk of a streamed answer with the whole text, for one who asks again.
    /// Nobody keeps the other chunks. An answer that is whole anyway needs no such thing.
    pub(super) fn replay(&self, completed: &Completed) -> Option<Vec<u8>> {
        let Form::Chunks {
            next,
            include_text: false,
        } = self.form
        else {
            return None;
        };
        let form = Form::Chunks {
            next,
            include_text: true,
        };
        let whole = Self {
            form,
            id: self.id.clone(),
            node: self.node.clone(),
            model: self.model.clone(),
            ..*self
        };
        Some(whole.finish(completed))
    }

    /// The whole answer, or the last chunk of it.
    pub(super) fn finish(mut self, completed: &Completed) -> Vec<u8> {
        let generated = &completed.generated;
        let finish_reason = finish_reason(generated.finish_reason).to_owned();
        let usage = usage(completed);
        let timings = ReplyTimings {
            slowed: Some(self.slowed).filter(|&level| level > HeatLevel::Normal),
            ..timings(&generated.timings, self.waited)
        };
        match self.form {
            Form::Text => generated.text.clone().into_bytes(),
            Form::Json => to_json(&ChatCompletion {
                id: self.id,
                object: ChatCompletion::OBJECT.to_owned(),
                created: self.created,
                model: self.model,
                node: self.node,
                choices: vec![Choice {
                    index: 0,
                    message: message(&generated.text),
                    finish_reason,
                }],
                usage,
                timings,
            }),
            Form::Chunks { include_text, .. } => {
                let mut last = self.chunk(None, Some(finish_reason));
                if include_text {
                    for choice in &mut last.choices {
                        choice.message = Some(message(&generated.text));
                    }
                }
                to_json(&ChatChunk {
                    usage: Some(usage),
                    timings: Some(timings),
                    ..last
                })
            }
        }
    }

    fn chunk(&mut self, content: Option<String>, finish_reason: Option<String>) -> ChatChunk {
        let mut sequence = 0;
        if let Form::Chunks { next, .. } = &mut self.form {
            sequence = *next;
            *next += 1;
        }
        ChatChunk {
            id: self.id.clone(),
            object: ChatChunk::OBJECT.to_owned(),
            created: self.created,
            model: self.model.clone(),
            node: self.node.clone(),
            sequence,
            choices: vec![ChunkChoice {
                index: 0,
                delta: Delta {
                    role: (sequence == 0).then(|| ASSISTANT.to_owned()),
                    content,
                },
                message: None,
                finish_reason,
            }],
            usage: None,
            timings: None,
        }
    }
}

fn message(text: &str) -> ReplyMessage {
    ReplyMessage {
        role: ASSISTANT.to_owned(),
        content: text.to_owned(),
    }
}

/// An error in the form of its route.
pub(super) fn error(route: &Route, refusal: &Refusal) -> Vec<u8> {
    if route.is_json() {
        let id = route.id().map(str::to_owned);
        let mut reply = ErrorReply::new(id, refusal.code, &refusal.message);
        reply.node = Some(route.node().to_owned());
        // One digit after the point: more would feign what an estimate is not.
        let seconds = |time: Duration| (time.as_secs_f64() * 10.0).ceil() / 10.0;
        reply.error.retry_after_seconds = refusal.retry_after.map(seconds);
        to_json(&reply)
    } else {
        format!("error: {}", refusal.message).into_bytes()
    }
}

/// The name of it, on the wire.
pub(super) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Cancelled => "cancelled",
    }
}

fn usage(completed: &Completed) -> Usage {
    let completion_tokens = completed.generated.tokens.len();
    Usage {
        prompt_tokens: completed.prompt_tokens,
        completion_tokens,
        total_tokens: completed.prompt_tokens + completion_tokens,
    }
}

fn timings(timings: &Timings, waited: Duration) -> ReplyTimings {
    let speed = speed(timings);
    ReplyTimings {
        queue_seconds: waited.as_secs_f64(),
        prefill_tokens: timings.prefill_tokens,
        cached_tokens: timings.cached_tokens,
        prefill_seconds: timings.prefill.as_secs_f64(),
        decode_tokens: timings.decode_tokens,
        decode_seconds: timings.decode.as_secs_f64(),
        prefill_tokens_per_second: speed.prefill_tokens_per_second,
        decode_tokens_per_second: speed.decode_tokens_per_second,
        slowed: None,
    }
}

/// How fast an answer was computed.
pub(super) fn speed(timings: &Timings) -> SpeedMetrics {
    SpeedMetrics {
        prefill_tokens_per_second: per_second(timings.prefill_tokens, timings.prefill),
        // The first token comes with the first logits: its time is in prefill.
        decode_tokens_per_second: per_second(
            timings.decode_tokens.saturating_sub(1),
            timings.decode,
        ),
    }
}

fn per_second(tokens: usize, time: Duration) -> f64 {
    if time.is_zero() {
        0.0
    } else {
        tokens as f64 / time.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_finite() {
        assert_eq!(per_second(3, Duration::ZERO), 0.0);
        assert_eq!(per_second(3, Duration::from_millis(500)), 6.0);
        let one_token = Timings {
            decode_tokens: 1,
            decode: Duration::from_secs(1),
            ..Timings::default()
        };
        assert_eq!(
            timings(&one_token, Duration::ZERO).decode_tokens_per_second,
            0.0
        );
    }
}
