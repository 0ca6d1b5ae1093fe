//! What goes over MQTT: topic names and JSON message types.
//!
//! Types here are wire types only; the service turns a [`ChatRequest`] into a job
//! and a job's events into replies. Field names are those of the OpenAI chat
//! completions API. `docs/mqtt.md` shows every message.

use serde::Serialize;
use tracing::error;

mod cancel;
mod control;
mod error;
mod event;
mod info;
mod metrics;
mod reply;
mod request;
mod schema;
mod strain;
mod topics;

pub use cancel::{CancelReply, CancelRequest};
pub use control::{ControlReply, ControlRequest};
pub use error::{ErrorBody, ErrorCode, ErrorReply};
pub use event::{Ended, Event, EventMessage};
pub use info::{BoardInfo, Info, InsteadOfInfo, LimitsInfo, LoadedInfo, ModelInfo, TopicsInfo};
pub use metrics::{
    MemoryMetrics, Metrics, QueueMetrics, RequestMetrics, SpeedMetrics, ThrottlingMetrics,
    TokenMetrics,
};
pub use reply::{
    ChatChunk, ChatCompletion, Choice, ChunkChoice, Delta, Reply, ReplyMessage, ReplyTimings, Usage,
};
pub use request::{ChatRequest, Message, Priority, Stop, StreamOptions};
pub use schema::chat_request_schema;
pub use strain::{HeatLevel, MemoryLevel, StrainMetrics, ThreadMetrics};
pub use topics::{TopicError, Topics, check_id, check_node_name, check_response_topic};

/// A message as JSON.
pub(crate) fn to_json(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).unwrap_or_else(|e| {
        // Strings and numbers alone cannot fail; should they, the message is an empty one.
        error!(%e, "a message cannot be written as JSON");
        Vec::new()
    })
}

/// Payload of the status topic while the daemon answers.
pub const STATUS_ONLINE: &str = "online";
/// Payload of the status topic while the daemon ends what it has and takes nothing new.
pub const STATUS_DRAINING: &str = "draining";
/// Payload of the status topic after the daemon went, and its last will.
pub const STATUS_OFFLINE: &str = "offline";
/// MQTT 5 content type of JSON messages.
pub const CONTENT_TYPE_JSON: &str = "application/json";
/// MQTT 5 content type of plain text messages.
pub const CONTENT_TYPE_TEXT: &str = "text/plain; charset=utf-8";
/// MQTT 5 user property that carries the code of an error.
pub const ERROR_PROPERTY: &str = "error";
/// MQTT 5 user property that carries the name of the node, in every reply.
pub const NODE_PROPERTY: &str = "node";
/// MQTT 5 user property that says what a reply is: `chunk`, `done`, `cancelled` or `error`.
pub const STATUS_PROPERTY: &str = "status";
/// MQTT 5 user property that says why an answer ended, as `finish_reason` does.
pub const FINISH_REASON_PROPERTY: &str = "finish-reason";
/// MQTT 5 user property that carries whole seconds, as `retry_after_seconds` does.
pub const RETRY_AFTER_PROPERTY: &str = "retry-after";
/// MQTT 5 user property of a prompt on the `ask` topic that carries its [`Priority`].
pub const PRIORITY_PROPERTY: &str = "priority";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::{Deserialize, Serialize};
    use serde_json::Value;

    use super::*;

    const DOCS: &str = include_str!("../../../docs/mqtt.md");

    fn json_blocks() -> impl Iterator<Item = &'static str> {
        let blocks = DOCS.split("```json\n").skip(1);
        blocks.map(|rest| rest.split("```").next().unwrap_or_default())
    }

    /// Reads an example as the type it shows, names that, and writes it again.
    fn round_trip(block: &str) -> (&'static str, Value) {
        fn again<T: Serialize + for<'a> Deserialize<'a>>(block: &str) -> Value {
            let read: T = serde_json::from_str(block).unwrap();
            serde_json::to_value(read).unwrap()
        }
        let value: Value = serde_json::from_str(block).unwrap();
        let has = |key| value.get(key).is_some();
        if has("limits") {
            ("info", again::<Info>(block))
        } else if has("requests") {
            ("metrics", again::<Metrics>(block))
        } else if has("event_type") {
            ("event", again::<EventMessage>(block))
        } else if has("command") && has("node") {
            ("control reply", again::<ControlReply>(block))
        } else if has("command") {
            ("control request", again::<ControlRequest>(block))
        } else if has("cancelled") {
            ("cancel reply", again::<CancelReply>(block))
        } else if has("messages") {
            ("request", again::<ChatRequest>(block))
        } else if has("error") {
            ("error", again::<ErrorReply>(block))
        } else if has("choices") {
            match Reply::parse(block.as_bytes()).unwrap() {
                Reply::Completion(_) => ("completion", again::<ChatCompletion>(block)),
                Reply::Chunk(_) => ("chunk", again::<ChatChunk>(block)),
                Reply::Error(_) => ("error", again::<ErrorReply>(block)),
            }
        } else if has("id") {
            ("cancel request", again::<CancelRequest>(block))
        } else {
            panic!("an example of no known kind:\n{block}")
        }
    }

    #[test]
    fn the_examples_of_the_documentation_are_what_we_send() {
        let mut seen = BTreeSet::new();
        for block in json_blocks() {
            let (kind, written) = round_trip(block);
            let expected: Value = serde_json::from_str(block).unwrap();
            assert_eq!(written, expected);
            seen.insert(kind);
        }
        let shown = [
            "cancel reply",
            "cancel request",
            "chunk",
            "completion",
            "control reply",
            "control request",
            "error",
            "event",
            "info",
            "metrics",
        ];
        for kind in shown {
            assert!(seen.contains(kind), "no example of: {kind}");
        }
    }

    #[test]
    fn the_documentation_lists_every_error() {
        for code in ErrorCode::ALL {
            let row = format!("| `{}` | `{}` |", code.as_str(), code.kind());
            assert!(DOCS.contains(&row), "{row}");
        }
    }
}
