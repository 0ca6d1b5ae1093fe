//! Errors as a client sees them.

use serde::{Deserialize, Serialize};

/// What went wrong; the string form is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The payload is not UTF-8.
    InvalidUtf8,
    /// The payload is not JSON.
    InvalidJson,
    /// The JSON is not a chat request, or a value is out of range.
    InvalidRequest,
    /// A field asks for something this server does not do.
    Unsupported,
    /// A prompt without text.
    EmptyPrompt,
    /// The payload is over `max-payload-bytes`.
    PayloadTooLarge,
    /// The text is over `max-prompt-bytes`.
    PromptTooLarge,
    /// The prompt has more tokens than the context.
    ContextLengthExceeded,
    /// The queue is full.
    Busy,
    /// The machine is too hot to take anything new.
    Overheated,
    /// The machine has too little memory to take anything new.
    LowMemory,
    /// The response topic cannot be used.
    InvalidResponseTopic,
    /// Neither response topic nor id: there is no place for a reply.
    NoReplyAddress,
    /// The chat template of the model refuses the messages.
    TemplateRefused,
    /// Its client asks too often.
    RateLimited,
    /// Its message expiry interval ended while it waited.
    Expired,
    /// The broker takes no message of the reply's size.
    ReplyTooLarge,
    /// There is no such request to cancel.
    NotFound,
    /// The daemon is going down.
    ShuttingDown,
    /// The node takes nothing new until it is told to resume.
    Draining,
    /// The model cannot be loaded.
    ModelUnavailable,
    /// The configuration file cannot be used.
    InvalidConfig,
    /// A fault of the daemon.
    Internal,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 23] = [
        Self::InvalidUtf8,
        Self::InvalidJson,
        Self::InvalidRequest,
        Self::Unsupported,
        Self::EmptyPrompt,
        Self::PayloadTooLarge,
        Self::PromptTooLarge,
        Self::ContextLengthExceeded,
        Self::Busy,
        Self::Overheated,
        Self::LowMemory,
        Self::InvalidResponseTopic,
        Self::NoReplyAddress,
        Self::TemplateRefused,
        Self::RateLimited,
        Self::Expired,
        Self::ReplyTooLarge,
        Self::NotFound,
        Self::ShuttingDown,
        Self::Draining,
        Self::ModelUnavailable,
        Self::InvalidConfig,
        Self::Internal,
    ];

    /// The stable name, as sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidUtf8 => "invalid_utf8",
            Self::InvalidJson => "invalid_json",
            Self::InvalidRequest => "invalid_request",
            Self::Unsupported => "unsupported",
            Self::EmptyPrompt => "empty_prompt",
            Self::PayloadTooLarge => "payload_too_large",
            Self::PromptTooLarge => "prompt_too_large",
            Self::ContextLengthExceeded => "context_length_exceeded",
            Self::Busy => "busy",
            Self::Overheated => "overheated",
            Self::LowMemory => "low_memory",
            Self::InvalidResponseTopic => "invalid_response_topic",
            Self::NoReplyAddress => "no_reply_address",
            Self::TemplateRefused => "template_refused",
            Self::RateLimited => "rate_limited",
            Self::Expired => "expired",
            Self::ReplyTooLarge => "reply_too_large",
            Self::NotFound => "not_found",
            Self::ShuttingDown => "shutting_down",
            Self::Draining => "draining",
            Self::ModelUnavailable => "model_unavailable",
            Self::InvalidConfig => "invalid_config",
            Self::Internal => "internal_error",
        }
    }

    /// OpenAI's coarser class: whose fault it is.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Busy
            | Self::Overheated
            | Self::LowMemory
            | Self::RateLimited
            | Self::Expired
            | Self::ShuttingDown
            | Self::Draining => "overloaded_error",
            Self::ReplyTooLarge | Self::ModelUnavailable | Self::InvalidConfig | Self::Internal => {
                "server_error"
            }
            _ => "invalid_request_error",
        }
    }
}

/// The inner object of an error.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ErrorBody {
    /// [`ErrorCode::as_str`].
    pub code: String,
    /// What happened and what to do.
    pub message: String,
    /// [`ErrorCode::kind`].
    #[serde(rename = "type")]
    pub kind: String,
    /// After which time the request may find its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<f64>,
}

/// A JSON error message.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ErrorReply {
    /// The id of the request, where it was readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The node that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What went wrong.
    pub error: ErrorBody,
}

impl ErrorReply {
    /// An error of this code.
    pub fn new(id: Option<String>, code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            id,
            node: None,
            error: ErrorBody {
                code: code.as_str().to_owned(),
                message: message.into(),
                kind: code.kind().to_owned(),
                retry_after_seconds: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn error_json() {
        let reply = ErrorReply::new(Some("q1".into()), ErrorCode::Busy, "try again");
        assert_eq!(
            serde_json::to_value(&reply).unwrap(),
            serde_json::json!({
                "id": "q1",
                "error": {"code": "busy", "message": "try again", "type": "overloaded_error"}
            })
        );
        let anonymous = ErrorReply::new(None, ErrorCode::InvalidJson, "x");
        assert!(
            serde_json::to_value(&anonymous)
                .unwrap()
                .get("id")
                .is_none()
        );
    }

    #[test]
    fn codes_are_distinct() {
        let names: BTreeSet<_> = ErrorCode::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
    }
}
