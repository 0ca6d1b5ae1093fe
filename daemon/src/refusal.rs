//! Why a request gets no answer.

use std::time::Duration;

use crate::wire::ErrorCode;

/// An error on its way to a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct Refusal {
    /// The stable code.
    pub code: ErrorCode,
    /// What happened and what to do.
    pub message: String,
    /// When to try again, where that can be told.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal with this code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after: None,
        }
    }

    /// A refusal that a later try may not meet.
    pub fn for_now(code: ErrorCode, problem: &str, retry_after: Duration) -> Self {
        let seconds = whole_seconds(retry_after);
        Self {
            retry_after: Some(retry_after),
            ..Self::new(code, format!("{problem}: try again in about {seconds} s"))
        }
    }

    /// A value of the request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }
}

/// Rounded up: one who waits that long waits long enough.
pub fn whole_seconds(time: Duration) -> u64 {
    time.as_secs()
        .saturating_add(u64::from(time.subsec_nanos() > 0))
}
