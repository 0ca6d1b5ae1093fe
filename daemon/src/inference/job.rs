//! What the inference thread is given.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chaski_engine::SamplingOptions;
use serde_json::Value;

use crate::config::{Generation, Stream};

/// One request, checked and ready to compute.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Names the job in events.
    pub key: u64,
    /// What to answer.
    pub prompt: Prompt,
    /// How to choose tokens; what is not set comes from the model.
    pub sampling: SamplingOverrides,
    /// Most tokens of the answer.
    pub max_tokens: usize,
    /// The answer ends before any of these.
    pub stop: Vec<String>,
    /// Whether to send the text as it comes.
    pub stream: bool,
    /// How to put it together then.
    pub chunking: Chunking,
    /// Whether the end of a streamed answer is to bring the whole text again.
    pub include_text: bool,
    /// Ends the job early.
    pub cancel: Cancel,
}

/// When text of a streamed answer is sent: as soon as one of these is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunking {
    /// Time since the text before it.
    pub interval: Duration,
    /// Bytes put together.
    pub bytes: usize,
}

impl From<&Stream> for Chunking {
    fn from(config: &Stream) -> Self {
        Self {
            interval: Duration::from_millis(config.chunk_ms),
            bytes: config.chunk_bytes,
        }
    }
}

/// The text of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// A user message alone. A model without chat template gets it as it is.
    Text {
        /// The message.
        text: String,
        /// A system message before it.
        system: Option<String>,
    },
    /// A conversation for the chat template.
    Chat {
        /// A list of objects with `role` and `content`.
        messages: Value,
        /// A list of tool descriptions.
        tools: Option<Value>,
    },
}

/// A flag between the service and a running job.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks the job to end.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl PartialEq for Cancel {
    /// Two flags are the same when setting one sets the other.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Sampling settings that were given, by a request or by the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplingOverrides {
    /// See [`SamplingOptions::temperature`].
    pub temperature: Option<f32>,
    /// See [`SamplingOptions::top_k`].
    pub top_k: Option<usize>,
    /// See [`SamplingOptions::top_p`].
    pub top_p: Option<f32>,
    /// See [`SamplingOptions::min_p`].
    pub min_p: Option<f32>,
    /// See [`SamplingOptions::repetition_penalty`].
    pub repetition_penalty: Option<f32>,
    /// See [`SamplingOptions::seed`].
    pub seed: Option<u64>,
}

impl SamplingOverrides {
    /// These, and where there is none, the other's.
    pub fn or(self, other: Self) -> Self {
        Self {
            temperature: self.temperature.or(other.temperature),
            top_k: self.top_k.or(other.top_k),
            top_p: self.top_p.or(other.top_p),
            min_p: self.min_p.or(other.min_p),
            repetition_penalty: self.repetition_penalty.or(other.repetition_penalty),
            seed: self.seed.or(other.seed),
        }
    }

    /// These, and where there is none, the model's.
    pub fn over(self, model: SamplingOptions) -> SamplingOptions {
        SamplingOptions {
            temperature: self.temperature.unwrap_or(model.temperature),
            top_k: self.top_k.unwrap_or(model.top_k),
            top_p: self.top_p.unwrap_or(model.top_p),
            min_p: self.min_p.unwrap_or(model.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(model.repetition_penalty),
            seed: self.seed.or(model.seed),
        }
    }
}

impl From<&Generation> for SamplingOverrides {
    fn from(config: &Generation) -> Self {
        Self {
            temperature: config.temperature,
            top_k: config.top_k,
            top_p: config.top_p,
            min_p: config.min_p,
            repetition_penalty: config.repetition_penalty,
            seed: config.seed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_wins_over_the_configuration_over_the_model() {
        let request = SamplingOverrides {
            temperature: Some(0.1),
            ..Default::default()
        };
        let config = SamplingOverrides {
            temperature: Some(0.2),
            top_k: Some(7),
            ..Default::default()
        };
        let model = SamplingOptions {
            temperature: 0.3,
            top_k: 9,
            top_p: 0.5,
            ..Default::default()
        };
        let merged = request.or(config).over(model);
        assert_eq!(
            (merged.temperature, merged.top_k, merged.top_p),
            (0.1, 7, 0.5)
        );
    }

    #[test]
    fn a_clone_of_a_flag_is_the_same_flag() {
        let flag = Cancel::default();
        let clone = flag.clone();
        clone.set();
        assert!(flag.is_set());
        assert_eq!(flag, clone);
        assert_ne!(flag, Cancel::default());
    }
}
