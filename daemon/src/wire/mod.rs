//! What goes over MQTT: topic names and JSON message types.
//!
//! Types here are wire types only; the service turns a [`ChatRequest`] into a job
//! and a job's events into replies. Field names are those of the OpenAI chat
//! completions API. `docs/mqtt.md` shows every message.

mod error;
mod info;
mod reply;
mod request;
mod topics;

pub use error::{ErrorBody, ErrorCode, ErrorReply};
pub use info::{Info, LimitsInfo, ModelInfo};
pub use reply::{
    ChatChunk, ChatCompletion, Choice, ChunkChoice, Delta, Reply, ReplyMessage, ReplyTimings, Usage,
};
pub use request::{ChatRequest, Message, Stop, StreamOptions};
pub use topics::{TopicError, Topics, check_id, check_node_name, check_response_topic};

/// Payload of the status topic while the daemon answers.
pub const STATUS_ONLINE: &str = "online";
/// Payload of the status topic after the daemon went, and its last will.
pub const STATUS_OFFLINE: &str = "offline";
/// MQTT 5 content type of JSON messages.
pub const CONTENT_TYPE_JSON: &str = "application/json";
/// MQTT 5 content type of plain text messages.
pub const CONTENT_TYPE_TEXT: &str = "text/plain; charset=utf-8";
/// MQTT 5 user property that carries the code of an error.
pub const ERROR_PROPERTY: &str = "error";

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const DOCS: &str = include_str!("../../../docs/mqtt.md");

    fn json_blocks() -> impl Iterator<Item = &'static str> {
        let blocks = DOCS.split("```json\n").skip(1);
        blocks.map(|rest| rest.split("```").next().unwrap_or_default())
    }

    #[test]
    fn the_examples_of_the_documentation_are_what_we_send() {
        let mut seen = [0; 4];
        for block in json_blocks() {
            let expected: Value = serde_json::from_str(block).unwrap();
            let (kind, written) = if expected.get("limits").is_some() {
                let info: Info = serde_json::from_str(block).unwrap();
                (0, serde_json::to_value(info))
            } else {
                match Reply::parse(block.as_bytes()).unwrap() {
                    Reply::Completion(reply) => (1, serde_json::to_value(reply)),
                    Reply::Chunk(reply) => (2, serde_json::to_value(reply)),
                    Reply::Error(reply) => (3, serde_json::to_value(reply)),
                }
            };
            assert_eq!(written.unwrap(), expected);
            seen[kind] += 1;
        }
        assert_eq!(seen, [1, 1, 3, 1]);
    }

    #[test]
    fn the_documentation_lists_every_error() {
        for code in ErrorCode::ALL {
            let row = format!("| `{}` | `{}` |", code.as_str(), code.kind());
            assert!(DOCS.contains(&row), "{row}");
        }
    }
}
