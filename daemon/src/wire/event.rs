//! What happened on a node, as it happens.

use serde::{Deserialize, Serialize};

use super::{HeatLevel, MemoryLevel};

/// A message on `chaski/<node>/event`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct EventMessage {
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// Name of the node.
    pub node: String,
}

/// What happened. No texts are in it: whoever listens need not be who asked.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "event_type", rename_all = "snake_case")]
pub enum Event {
    /// A request was answered.
    Answered(Ended),
    /// A request was given up for its client.
    Cancelled(Ended),
    /// A request got an error.
    Failed {
        /// Its id, if it had one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// [`super::ErrorCode::as_str`].
        error: String,
    },
    /// A model was loaded.
    ModelLoaded {
        /// Its name.
        model: String,
        /// Seconds it took.
        load_seconds: f64,
    },
    /// A model could not be loaded.
    ModelUnavailable,
    /// The node does more or less against heat.
    Heat {
        /// What it does now.
        level: HeatLevel,
        /// Of the processor, where the machine says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        temperature_celsius: Option<f64>,
        /// Whether the supply gives too little voltage, where the machine says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        under_voltage: Option<bool>,
    },
    /// The node does more or less against want of memory.
    Memory {
        /// What it does now.
        level: MemoryLevel,
        /// What the machine can still give, where it says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        available_bytes: Option<u64>,
    },
}

/// A request that came to its end.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Ended {
    /// Its id, or the one that it was given.
    pub id: String,
    /// As in the reply.
    pub finish_reason: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub completion_tokens: usize,
    /// Seconds that it was computed for.
    pub seconds: f64,
}

impl Event {
    /// Every `event_type`.
    pub const TYPES: [&'static str; 7] = [
        "answered",
        "cancelled",
        "failed",
        "model_loaded",
        "model_unavailable",
        "heat",
        "memory",
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_types_are_named() {
        let ended = Ended {
            id: "q".into(),
            finish_reason: "stop".into(),
            prompt_tokens: 1,
            completion_tokens: 2,
            seconds: 0.5,
        };
        let all = [
            Event::Answered(ended.clone()),
            Event::Cancelled(ended),
            Event::Failed {
                id: None,
                error: "expired".into(),
            },
            Event::ModelLoaded {
                model: "m".into(),
                load_seconds: 0.5,
            },
            Event::ModelUnavailable,
            Event::Heat {
                level: HeatLevel::Pauses,
                temperature_celsius: Some(80.5),
                under_voltage: None,
            },
            Event::Memory {
                level: MemoryLevel::Tight,
                available_bytes: Some(1),
            },
        ];
        let types = all.map(|event| {
            let node = "n".to_owned();
            let value = serde_json::to_value(EventMessage { event, node }).unwrap();
            assert_eq!(value["node"], "n");
            value["event_type"].as_str().unwrap().to_owned()
        });
        assert_eq!(types, Event::TYPES);
    }
}
