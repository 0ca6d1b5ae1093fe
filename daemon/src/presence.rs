//! What a node says about itself, kept by the broker for whoever comes later.

use crate::config::Config;
use crate::inference::Description;
use crate::mqtt::{ContentType, Message};
use crate::wire::{
    Info, LimitsInfo, ModelInfo, STATUS_DRAINING, STATUS_OFFLINE, STATUS_ONLINE, Topics,
};

/// The retained messages about this node.
#[derive(Debug)]
pub(crate) struct Presence {
    topics: Topics,
    info: Info,
    draining: bool,
}

impl Presence {
    /// A node whose model is not loaded.
    pub(crate) fn new(config: &Config, model: ModelInfo) -> Self {
        Self {
            topics: config.topics(),
            info: Info {
                node: config.node.name.clone(),
                group: config.node.group.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                model,
                loaded: None,
                limits: limits(config),
            },
            draining: false,
        }
    }

    /// The model is loaded.
    pub(crate) fn loaded(&mut self, description: Description) {
        self.info.model = description.model;
        self.info.loaded = Some(description.loaded);
    }

    /// The model is not there any more.
    pub(crate) fn unloaded(&mut self) {
        self.info.loaded = None;
    }

    /// Other limits.
    pub(crate) fn configure(&mut self, config: &Config) {
        self.info.limits = limits(config);
    }

    /// Whether the node takes nothing new; true if that is news.
    pub(crate) fn set_draining(&mut self, draining: bool) -> bool {
        std::mem::replace(&mut self.draining, draining) != draining
    }

    /// What is published whenever a connection is there, and when it changes.
    pub(crate) fn now(&self) -> impl DoubleEndedIterator<Item = Message> + use<> {
        // Strings and numbers alone: this cannot fail.
        let info = serde_json::to_vec(&self.info).unwrap_or_default();
        [
            Message::retained(self.topics.info(), info, ContentType::Json),
            self.status(match self.draining {
                true => STATUS_DRAINING,
                false => STATUS_ONLINE,
            }),
        ]
        .into_iter()
    }

    /// What is published last.
    pub(crate) fn offline(&self) -> Message {
        self.status(STATUS_OFFLINE)
    }

    fn status(&self, status: &'static str) -> Message {
        Message::retained(self.topics.status(), status, ContentType::Text)
    }
}

fn limits(config: &Config) -> LimitsInfo {
    LimitsInfo {
        queue_depth: config.limits.queue_depth,
        max_payload_bytes: config.limits.max_payload_bytes,
        max_prompt_bytes: config.limits.max_prompt_bytes,
        max_tokens: config.limits.max_tokens,
    }
}
