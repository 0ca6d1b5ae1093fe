//! What happened on a node, as it happens.

use serde::{Deserialize, Serialize};

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
    pub const TYPES: [&'static str; 5] = [
        "answered",
        "cancelled",
        "failed",
        "model_loaded",
        "model_unavailable",
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
