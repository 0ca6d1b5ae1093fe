//! What a node says about itself: retained, for whoever comes later, and now and then.

mod home_assistant;

use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use tracing::warn;

use crate::board::Board;
use crate::config::Config;
use crate::govern::Machine;
use crate::inference::Description;
use crate::last_good::InsteadOf;
use crate::mqtt::{ContentType, Message, Request};
use crate::service::Service;
use crate::wire::{
    Event, EventMessage, Info, InsteadOfInfo, LimitsInfo, Metrics, ModelInfo, QueueMetrics,
    STATUS_DRAINING, STATUS_OFFLINE, STATUS_ONLINE, StrainMetrics, ThrottlingMetrics, Topics,
    TopicsInfo, chat_request_schema, to_json,
};
use home_assistant::HomeAssistant;
pub(crate) use home_assistant::birth_topic;

/// What is known of this node.
#[derive(Debug)]
pub(crate) struct Presence {
    topics: Topics,
    info: Info,
    draining: bool,
    schema: Bytes,
    home_assistant: HomeAssistant,
    machine: Machine,
    started: Instant,
    /// When it was last asked.
    throttling: Option<ThrottlingMetrics>,
}

impl Presence {
    /// A node whose model is not loaded.
    pub(crate) fn new(config: &Config, board: &Board, model: ModelInfo) -> Self {
        Self {
            topics: config.topics(),
            info: Info {
                node: config.node.name.clone(),
                group: config.node.group.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                board: Some(board.info()),
                model,
                loaded: None,
                instead_of: None,
                limits: limits(config),
                capabilities: capabilities(config),
                topics: Some(topics(config)),
            },
            draining: false,
            schema: to_json(&chat_request_schema()).into(),
            home_assistant: HomeAssistant::new(config),
            machine: Machine::new(config),
            started: Instant::now(),
            throttling: None,
        }
    }

    /// The model is loaded.
    pub(crate) fn loaded(&mut self, description: Description, instead_of: Option<InsteadOf>) {
        self.info.model = description.model;
        self.info.loaded = Some(description.loaded);
        self.info.instead_of = instead_of.map(|wanted| InsteadOfInfo {
            model: file_name(&wanted.folder),
            reason: wanted.reason,
        });
    }

    /// The model that runs in place of the configured one, if it is another.
    pub(crate) fn instead_of(&self) -> Option<&InsteadOfInfo> {
        self.info.instead_of.as_ref()
    }

    /// The model is not there any more.
    pub(crate) fn unloaded(&mut self) {
        self.info.loaded = None;
    }

    /// Another configuration.
    pub(crate) fn configure(&mut self, config: &Config) {
        self.info.limits = limits(config);
        self.info.capabilities = capabilities(config);
        self.info.topics = Some(topics(config));
        self.home_assistant = HomeAssistant::new(config);
        self.machine = Machine::new(config);
    }

    /// Whether the node takes nothing new; true if that is news.
    pub(crate) fn set_draining(&mut self, draining: bool) -> bool {
        std::mem::replace(&mut self.draining, draining) != draining
    }

    /// What is published whenever a connection is there, and when it changes: `online`
    /// last, when all the rest can be found.
    pub(crate) fn now(&self) -> impl DoubleEndedIterator<Item = Message> + use<> {
        let retained = |topic, payload: Bytes| Message::retained(topic, payload, ContentType::Json);
        [
            retained(self.topics.info(), to_json(&self.info).into()),
            retained(self.topics.schema(), self.schema.clone()),
            self.home_assistant.discovery(&self.info),
            self.status(match self.draining {
                true => STATUS_DRAINING,
                false => STATUS_ONLINE,
            }),
        ]
        .into_iter()
    }

    /// Whether a message says that Home Assistant has started, and forgot us.
    pub(crate) fn is_birth(&self, request: &Request) -> bool {
        self.home_assistant.is_birth(request)
    }

    /// What is published last.
    pub(crate) fn offline(&self) -> Message {
        self.status(STATUS_OFFLINE)
    }

    /// Something that happened.
    pub(crate) fn event(&self, event: Event) -> Message {
        let node = self.info.node.clone();
        passing(self.topics.event(), to_json(&EventMessage { event, node }))
    }

    /// The figures of this moment.
    pub(crate) fn metrics(&mut self, service: &Service, strain: StrainMetrics) -> Message {
        let figures = service.figures();
        let metrics = Metrics {
            node: self.info.node.clone(),
            uptime_seconds: self.started.elapsed().as_secs(),
            queue: QueueMetrics {
                waiting: service.waiting(),
                depth: service.depth(),
                running: !service.is_idle(),
            },
            requests: service.counts(),
            tokens: figures.tokens,
            speed: figures.speed,
            memory: self.machine.memory(),
            temperature_celsius: self.machine.temperature(),
            throttling: self.look_at_throttling(),
            strain,
        };
        passing(self.topics.metrics(), to_json(&metrics))
    }

    fn look_at_throttling(&mut self) -> Option<ThrottlingMetrics> {
        let now = self.machine.throttling();
        let is = |state: Option<ThrottlingMetrics>| state.unwrap_or_default();
        let before = std::mem::replace(&mut self.throttling, now);
        if is(now).throttled && !is(before).throttled {
            warn!("the machine is throttled: answers take longer; see to its cooling and supply");
        }
        if is(now).under_voltage == Some(true) && is(before).under_voltage != Some(true) {
            warn!("the supply gives too little voltage");
        }
        now
    }

    fn status(&self, status: &'static str) -> Message {
        Message::retained(self.topics.status(), status, ContentType::Text)
    }
}

/// A message for whoever is there now.
fn passing(topic: String, payload: Vec<u8>) -> Message {
    Message {
        retain: false,
        droppable: true,
        ..Message::retained(topic, payload, ContentType::Json)
    }
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

fn limits(config: &Config) -> LimitsInfo {
    LimitsInfo {
        queue_depth: config.limits.queue_depth,
        max_payload_bytes: config.limits.max_payload_bytes,
        max_prompt_bytes: config.limits.max_prompt_bytes,
        max_tokens: config.limits.max_tokens,
    }
}

/// What this version does, and what the configuration allows.
fn capabilities(config: &Config) -> Vec<String> {
    let control = &config.control;
    [
        ("ask", true),
        ("chat", true),
        ("stream", true),
        ("stream.include_text", true),
        ("tools", true),
        ("seed", true),
        ("priority", true),
        ("expiry", true),
        ("cancel", true),
        ("prefix-cache", true),
        ("redelivery", config.delivery.dedup_seconds > 0),
        ("session", config.broker.session_expiry > 0),
        ("group", config.node.group.is_some()),
        ("control.drain", control.drain),
        ("control.reload", control.reload),
        ("control.model", control.models_folder.is_some()),
    ]
    .into_iter()
    .filter(|(_, has)| *has)
    .map(|(name, _)| name.to_owned())
    .collect()
}

fn topics(config: &Config) -> TopicsInfo {
    let topics = config.topics();
    TopicsInfo {
        ask: topics.ask(),
        chat: topics.chat(),
        schema: topics.schema(),
        cancel: topics.cancel(),
        control: config.control.is_enabled().then(|| topics.control()),
        status: topics.status(),
        metrics: config.metrics.interval().map(|_| topics.metrics()),
        event: topics.event(),
    }
}
