//! How Home Assistant comes to know of this node: one retained message that describes it
//! as a device with its entities.
//!
//! The format is that of the "device discovery payload" in the documentation of Home
//! Assistant's MQTT integration; `docs/home-assistant.md` shows what comes of it.

mod entities;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::config::{Config, Control};
use crate::mqtt::{ContentType, Message, Request};
use crate::wire::{Info, Topics, to_json};
use entities::Entity;

/// What Home Assistant publishes on [`birth_topic`] when it has started.
const BIRTH: &[u8] = b"online";
const PROJECT: &str = "Chaski";

/// Where Home Assistant says that it has started; `None` if that does not matter to us.
pub(crate) fn birth_topic(config: &Config) -> Option<String> {
    let wanted = &config.home_assistant;
    wanted
        .discovery
        .then(|| format!("{}/status", wanted.prefix))
}

/// What it is told, and where.
#[derive(Debug)]
pub(super) struct HomeAssistant {
    topics: Topics,
    /// Of the description.
    topic: String,
    /// `None`: it is not to know of us.
    birth_topic: Option<String>,
    control: Control,
    has_metrics: bool,
}

impl HomeAssistant {
    pub(super) fn new(config: &Config) -> Self {
        let object = object_id(&config.node.name);
        Self {
            topics: config.topics(),
            topic: format!("{}/device/{object}/config", config.home_assistant.prefix),
            birth_topic: birth_topic(config),
            control: config.control.clone(),
            has_metrics: config.metrics.interval().is_some(),
        }
    }

    /// Describes the node; where it is not to be known, takes back what was said before,
    /// by another run too.
    pub(super) fn discovery(&self, info: &Info) -> Message {
        let known = self.birth_topic.is_some();
        let payload = match known {
            true => to_json(&self.device(info)),
            false => Vec::new(),
        };
        Message {
            // A broker whose access rules know nothing of Home Assistant may have its way.
            droppable: !known,
            ..Message::retained(self.topic.clone(), payload, ContentType::Json)
        }
    }

    /// Whether a message says that it has started.
    pub(super) fn is_birth(&self, request: &Request) -> bool {
        self.birth_topic.as_ref() == Some(&request.topic) && request.payload == BIRTH
    }

    fn device(&self, info: &Info) -> Value {
        let components: Map<String, Value> = (self.entities().iter())
            .map(|entity| (entity.key.to_owned(), self.component(entity)))
            .collect();
        json!({
            "device": {
                "identifiers": [self.unique_id()],
                "name": format!("{PROJECT} {}", info.node),
                "manufacturer": PROJECT,
                "model": info.model.name,
                "sw_version": info.version,
            },
            "origin": {"name": PROJECT, "sw_version": info.version},
            // One that drains is still there.
            "availability": [{
                "topic": self.topics.status(),
                "value_template": "{{ 'offline' if value == 'offline' else 'online' }}",
            }],
            "qos": 1,
            "components": components,
        })
    }

    fn component(&self, entity: &Entity) -> Value {
        let mut component = Map::new();
        component.insert("platform".to_owned(), entity.platform.into());
        // With a platform and nothing else it is taken away, if it was there before.
        let Some(options) = &entity.options else {
            return component.into();
        };
        let names = json!({
            "name": entity.name,
            "unique_id": format!("{}_{}", self.unique_id(), entity.key),
            "default_entity_id": format!("{}.{}_{}", entity.platform, self.slug(), entity.key),
        });
        for part in [names, options.clone()] {
            if let Value::Object(part) = part {
                component.extend(part);
            }
        }
        component.into()
    }

    fn unique_id(&self) -> String {
        format!("chaski_{}", self.topics.node())
    }

    fn slug(&self) -> String {
        slug(&self.unique_id()).to_lowercase()
    }
}

/// A level of the discovery topic for a node: letters, digits, `_` and `-` alone. The
/// names of two nodes never have the same.
fn object_id(node: &str) -> String {
    let plain = slug(node);
    if plain == node {
        return format!("chaski_{node}");
    }
    let hash = Sha256::digest(node);
    let short: String = hash.iter().take(4).map(|b| format!("{b:02x}")).collect();
    format!("chaski_{plain}-{short}")
}

/// With `_` for all that is no ASCII letter or digit.
fn slug(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests;
