//! Replies to chat requests.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ErrorReply, HeatLevel};

/// The whole answer in one message.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ChatCompletion {
    /// The id of the request, or one made up for it.
    pub id: String,
    /// `chat.completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Name of the model that answered.
    pub model: String,
    /// The node that answered; older ones do not say.
    #[serde(default)]
    pub node: String,
    /// One choice.
    pub choices: Vec<Choice>,
    /// Token counts.
    pub usage: Usage,
    /// Durations.
    pub timings: ReplyTimings,
}

impl ChatCompletion {
    /// Value of `object`.
    pub const OBJECT: &str = "chat.completion";
}

/// The answer of a [`ChatCompletion`].
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Choice {
    /// Always 0.
    pub index: u32,
    /// The answer.
    pub message: ReplyMessage,
    /// `stop`, `length` or `cancelled`.
    pub finish_reason: String,
}

/// The answer's text and role.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ReplyMessage {
    /// `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

/// One message of a streamed answer.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ChatChunk {
    /// The id of the request, or one made up for it.
    pub id: String,
    /// `chat.completion.chunk`.
    pub object: String,
    /// Seconds since 1970, the same in all chunks.
    pub created: u64,
    /// Name of the model that answers.
    pub model: String,
    /// The node that answers; older ones do not say.
    #[serde(default)]
    pub node: String,
    /// 0, 1, 2, … without a gap.
    pub sequence: u64,
    /// One choice.
    pub choices: Vec<ChunkChoice>,
    /// Token counts, in the last chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Durations, in the last chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timings: Option<ReplyTimings>,
}

impl ChatChunk {
    /// Value of `object`.
    pub const OBJECT: &str = "chat.completion.chunk";
}

/// The part of the answer in a [`ChatChunk`].
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct ChunkChoice {
    /// Always 0.
    pub index: u32,
    /// What is new.
    pub delta: Delta,
    /// The whole text, in the last chunk of a request that wants it there or came again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<ReplyMessage>,
    /// `null` but in the last chunk.
    pub finish_reason: Option<String>,
}

/// What a chunk adds.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Delta {
    /// `assistant`, in the first chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Text to append.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// Token counts of one request.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the rendered prompt.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub completion_tokens: usize,
    /// Their sum.
    pub total_tokens: usize,
}

/// Where the time of one request went.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct ReplyTimings {
    /// Seconds from arrival to the start of the computation.
    pub queue_seconds: f64,
    /// Prompt tokens computed.
    pub prefill_tokens: usize,
    /// Prompt tokens found in the KV cache.
    pub cached_tokens: usize,
    /// Seconds until the first logits.
    pub prefill_seconds: f64,
    /// Tokens produced.
    pub decode_tokens: usize,
    /// Seconds from the first logits to the end.
    pub decode_seconds: f64,
    /// Prefill speed; 0 where it cannot be told.
    pub prefill_tokens_per_second: f64,
    /// Decode speed; 0 where it cannot be told.
    pub decode_tokens_per_second: f64,
    /// What the node did against heat meanwhile, at most; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowed: Option<HeatLevel>,
}

/// Any message on a reply topic, for clients.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The whole answer.
    Completion(ChatCompletion),
    /// Part of a streamed answer.
    Chunk(ChatChunk),
    /// There will be no (further) answer.
    Error(ErrorReply),
}

impl Reply {
    /// Reads a reply, telling the kinds apart by `object` and `error`.
    pub fn parse(payload: &[u8]) -> Result<Self, serde_json::Error> {
        let value: Value = serde_json::from_slice(payload)?;
        if value.get("error").is_some() {
            return serde_json::from_value(value).map(Self::Error);
        }
        match value.get("object").and_then(Value::as_str) {
            Some(ChatChunk::OBJECT) => serde_json::from_value(value).map(Self::Chunk),
            _ => serde_json::from_value(value).map(Self::Completion),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ErrorCode;

    #[test]
    fn a_chunk_in_the_middle_has_no_usage() {
        let chunk = ChatChunk {
            id: "a".into(),
            object: ChatChunk::OBJECT.into(),
            created: 1,
            model: "m".into(),
            node: "n".into(),
            sequence: 3,
            choices: vec![ChunkChoice {
                index: 0,
                delta: Delta {
                    role: None,
                    content: Some("hé".into()),
                },
                message: None,
                finish_reason: None,
            }],
            usage: None,
            timings: None,
        };
        let value = serde_json::to_value(&chunk).unwrap();
        assert_eq!(
            value,
            serde_json::json!({
                "id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m", "node": "n",
                "sequence": 3,
                "choices": [{"index": 0, "delta": {"content": "hé"}, "finish_reason": null}]
            })
        );
        let read = Reply::parse(value.to_string().as_bytes()).unwrap();
        assert_eq!(read, Reply::Chunk(chunk));
    }

    #[test]
    fn errors_and_completions_are_told_apart() {
        let error = ErrorReply::new(None, ErrorCode::Internal, "x");
        let bytes = serde_json::to_vec(&error).unwrap();
        assert_eq!(Reply::parse(&bytes).unwrap(), Reply::Error(error));

        let completion = ChatCompletion {
            id: "b".into(),
            object: ChatCompletion::OBJECT.into(),
            created: 2,
            model: "m".into(),
            node: "n".into(),
            choices: vec![Choice {
                index: 0,
                message: ReplyMessage {
                    role: "assistant".into(),
                    content: "yes".into(),
                },
                finish_reason: "stop".into(),
            }],
            usage: Usage {
                prompt_tokens: 1,
                completion_tokens: 2,
                total_tokens: 3,
            },
            timings: ReplyTimings::default(),
        };
        let bytes = serde_json::to_vec(&completion).unwrap();
        assert_eq!(Reply::parse(&bytes).unwrap(), Reply::Completion(completion));
        assert!(Reply::parse(b"{}").is_err());
    }
}
