//! What a node says about itself, kept by the broker for whoever comes later.

use crate::config::Config;
use crate::inference::Description;
use crate::mqtt::{ContentType, Message};
use crate::wire::{Info, LimitsInfo, STATUS_OFFLINE, STATUS_ONLINE};

/// The retained messages about this node.
#[derive(Debug)]
pub(crate) struct Presence {
    status_topic: String,
    info_topic: String,
    info: Vec<u8>,
}

impl Presence {
    pub(crate) fn new(config: &Config, description: Description) -> Self {
        let info = Info {
            node: config.node.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: description.model,
            context_length: description.context_length,
            backend: description.backend,
            threads: description.threads,
            load_seconds: description.load_seconds,
            limits: LimitsInfo {
                queue_depth: config.limits.queue_depth,
                max_payload_bytes: config.limits.max_payload_bytes,
                max_prompt_bytes: config.limits.max_prompt_bytes,
                max_tokens: config.limits.max_tokens,
            },
        };
        let topics = config.topics();
        Self {
            status_topic: topics.status(),
            info_topic: topics.info(),
            // Strings and numbers alone: this cannot fail.
            info: serde_json::to_vec(&info).unwrap_or_default(),
        }
    }

    /// What is published whenever a connection is there.
    pub(crate) fn online(&self) -> impl DoubleEndedIterator<Item = Message> + use<> {
        [
            Message::retained(
                self.info_topic.clone(),
                self.info.clone(),
                ContentType::Json,
            ),
            Message::retained(self.status_topic.clone(), STATUS_ONLINE, ContentType::Text),
        ]
        .into_iter()
    }

    /// What is published last.
    pub(crate) fn offline(&self) -> Message {
        Message::retained(self.status_topic.clone(), STATUS_OFFLINE, ContentType::Text)
    }
}
