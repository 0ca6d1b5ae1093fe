//! Giving up a request.

use serde::{Deserialize, Serialize};

/// A request on `chaski/<node>/cancel`, where it is JSON.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct CancelRequest {
    /// The `id` of the request to give up.
    pub id: String,
}

/// The answer to it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct CancelReply {
    /// The `id` that was given, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Requests that were given up, at least 1.
    pub cancelled: usize,
}
