//! Where a reply goes and in which form.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::render;
use crate::config::Limits;
use crate::mqtt::{ContentType, Message, Request};
use crate::refusal::{Refusal, whole_seconds};
use crate::wire::{
    ErrorCode, FINISH_REASON_PROPERTY, NODE_PROPERTY, RETRY_AFTER_PROPERTY, STATUS_PROPERTY,
    Topics, check_response_topic,
};

/// The address of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    topic: String,
    correlation: Option<Bytes>,
    content_type: ContentType,
    id: Option<String>,
    node: String,
}

/// What of a route is not the node's own, for a file.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct Address {
    topic: String,
    /// In hexadecimal digits.
    correlation: Option<String>,
    json: bool,
    id: Option<String>,
}

/// A request that gets an error, and where that goes. Boxed: it is large and rare.
pub(super) type Refused = Box<(Route, Refusal)>;

/// Where replies to one request may go.
struct Candidates {
    content_type: ContentType,
    id: Option<String>,
    /// Without a response topic.
    fallback: Option<String>,
    /// Without a response topic that can be used.
    errors: String,
}

impl Route {
    /// For a prompt on the `ask` topic.
    pub(super) fn for_ask(
        request: &Request,
        topics: &Topics,
        limits: &Limits,
    ) -> Result<Self, Refused> {
        let candidates = Candidates {
            content_type: ContentType::Text,
            id: None,
            fallback: Some(topics.answer()),
            errors: topics.answer(),
        };
        Self::new(request, topics, limits, candidates)
    }

    /// For a request on the `chat` topic whose id, if it has one, can be part of a topic.
    pub(super) fn for_chat(
        request: &Request,
        topics: &Topics,
        limits: &Limits,
        id: Option<String>,
    ) -> Result<Self, Refused> {
        let by_id = id.as_deref().map(|id| topics.reply(id));
        let candidates = Candidates {
            content_type: ContentType::Json,
            id,
            errors: by_id.clone().unwrap_or_else(|| topics.reply_unknown()),
            fallback: by_id,
        };
        Self::new(request, topics, limits, candidates)
    }

    /// For errors of a request on the `chat` or `cancel` topic that cannot be read far
    /// enough to know its id.
    pub(super) fn for_unreadable(request: &Request, topics: &Topics, limits: &Limits) -> Self {
        match Self::for_chat(request, topics, limits, None) {
            Ok(route) => route,
            Err(refused) => refused.0,
        }
    }

    /// For the answer to a request to cancel another one, of this id or of the
    /// correlation data that it came with.
    pub(super) fn for_cancel(
        request: &Request,
        topics: &Topics,
        limits: &Limits,
        id: Option<String>,
    ) -> Result<Self, Refused> {
        let candidates = Candidates {
            content_type: ContentType::Json,
            id,
            // It is not sent there: nobody asked for it.
            fallback: Some(topics.reply_unknown()),
            errors: topics.reply_unknown(),
        };
        Self::new(request, topics, limits, candidates)
    }

    fn new(
        request: &Request,
        topics: &Topics,
        limits: &Limits,
        candidates: Candidates,
    ) -> Result<Self, Refused> {
        let fits = |data: &Bytes| data.len() <= limits.max_correlation_bytes;
        let route = |topic: String| Self {
            topic,
            correlation: request.correlation.clone().filter(fits),
            content_type: candidates.content_type,
            id: candidates.id,
            node: topics.node().to_owned(),
        };
        let refused = |route, code, message| Err(Box::new((route, Refusal::new(code, message))));
        let topic = match (&request.response_topic, candidates.fallback) {
            (Some(topic), _) => match usable(topic, limits) {
                Ok(()) => topic.clone(),
                Err(problem) => {
                    let route = route(candidates.errors);
                    return refused(route, ErrorCode::InvalidResponseTopic, problem);
                }
            },
            (None, Some(topic)) => topic,
            (None, None) => {
                return refused(
                    route(candidates.errors),
                    ErrorCode::NoReplyAddress,
                    "give an MQTT 5 response topic or, in the JSON, an `id`".to_owned(),
                );
            }
        };
        match request.correlation.as_ref().filter(|data| !fits(data)) {
            None => Ok(route(topic)),
            Some(data) => refused(
                route(topic),
                ErrorCode::InvalidRequest,
                format!(
                    "the correlation data has {} bytes, at most {} are allowed",
                    data.len(),
                    limits.max_correlation_bytes
                ),
            ),
        }
    }

    /// For a file.
    pub(super) fn address(&self) -> Address {
        Address {
            topic: self.topic.clone(),
            correlation: self.correlation.as_ref().map(hex::encode),
            json: self.is_json(),
            id: self.id.clone(),
        }
    }

    /// From a file, at a node.
    pub(super) fn from_address(address: Address, node: &str) -> Self {
        Self {
            topic: address.topic,
            // Digits that are none are of a file that others wrote in.
            correlation: (address.correlation)
                .and_then(|digits| hex::decode(digits).ok())
                .map(Bytes::from),
            content_type: match address.json {
                true => ContentType::Json,
                false => ContentType::Text,
            },
            id: address.id,
            node: node.to_owned(),
        }
    }

    /// The topic.
    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    /// The correlation data of the request.
    pub(super) fn correlation(&self) -> Option<&Bytes> {
        self.correlation.as_ref()
    }

    /// The id of the request.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Who answers.
    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// The id of the request, or this one from now on.
    pub(super) fn id_or(&mut self, make: impl FnOnce() -> String) -> String {
        self.id.get_or_insert_with(make).clone()
    }

    /// Whether replies are JSON.
    pub(super) fn is_json(&self) -> bool {
        self.content_type == ContentType::Json
    }

    /// A part of an answer.
    pub(super) fn chunk(&self, payload: impl Into<Bytes>) -> Message {
        self.message(payload.into(), "chunk")
    }

    /// An answer, or the last part of it, which ended for this reason.
    pub(super) fn done(&self, payload: impl Into<Bytes>, finish_reason: &str) -> Message {
        let status = match finish_reason {
            "cancelled" => "cancelled",
            _ => "done",
        };
        let mut message = self.message(payload.into(), status);
        let reason = (FINISH_REASON_PROPERTY, finish_reason.to_owned());
        message.user.push(reason);
        message
    }

    /// The answer to something that is no question.
    pub(super) fn confirmation(&self, payload: impl Into<Bytes>) -> Message {
        self.message(payload.into(), "done")
    }

    /// An error.
    pub(super) fn error(&self, refusal: &Refusal) -> Message {
        let mut message = self.message(render::error(self, refusal).into(), "error");
        message.error = Some(refusal.code);
        if let Some(time) = refusal.retry_after {
            let seconds = whole_seconds(time).to_string();
            message.user.push((RETRY_AFTER_PROPERTY, seconds));
        }
        message
    }

    fn message(&self, payload: Bytes, status: &str) -> Message {
        Message {
            topic: self.topic.clone(),
            payload,
            retain: false,
            content_type: self.content_type,
            correlation: self.correlation.clone(),
            error: None,
            user: vec![
                (NODE_PROPERTY, self.node.clone()),
                (STATUS_PROPERTY, status.to_owned()),
            ],
            expiry: None,
            droppable: false,
        }
    }
}

fn usable(topic: &str, limits: &Limits) -> Result<(), String> {
    check_response_topic(topic).map_err(|e| format!("the response topic {e}"))?;
    let prefixes = &limits.response_prefixes;
    if prefixes.is_empty() || prefixes.iter().any(|p| topic.starts_with(p)) {
        return Ok(());
    }
    let allowed = prefixes.join("`, `");
    Err(format!(
        "the response topic is not allowed on this node: begin it with `{allowed}`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(response_topic: Option<&str>, correlation: usize) -> Request {
        Request {
            response_topic: response_topic.map(str::to_owned),
            correlation: (correlation > 0).then(|| vec![7; correlation].into()),
            ..Request::default()
        }
    }

    fn route(request: &Request, limits: &Limits) -> Result<Route, Refused> {
        Route::for_chat(request, &Topics::new("n"), limits, Some("q".into()))
    }

    #[test]
    fn only_allowed_prefixes() {
        let limits = Limits {
            response_prefixes: vec!["home/".into(), "chaski/".into()],
            ..Limits::default()
        };
        for good in ["home/me", "chaski/n/reply/me"] {
            let route = route(&request(Some(good), 0), &limits).unwrap();
            assert_eq!(route.topic(), good);
        }
        for bad in ["me", "hom", "chaski/n/ask"] {
            let refused = route(&request(Some(bad), 0), &limits).unwrap_err();
            assert_eq!(refused.1.code, ErrorCode::InvalidResponseTopic, "{bad}");
            assert_eq!(refused.0.topic(), "chaski/n/reply/q");
        }
        let message = route(&request(Some("me"), 0), &limits)
            .unwrap_err()
            .1
            .message;
        assert!(message.contains("`home/`, `chaski/`"), "{message}");
        // Where replies go that name no topic is ours to say.
        assert!(route(&request(None, 0), &limits).is_ok());
    }

    #[test]
    fn correlation_data_is_bounded_and_not_sent_back_beyond() {
        let limits = Limits {
            max_correlation_bytes: 8,
            ..Limits::default()
        };
        let fits = route(&request(Some("me"), 8), &limits).unwrap();
        assert_eq!(fits.correlation().map(|c| c.len()), Some(8));
        let (route, refusal) = *route(&request(Some("me"), 9), &limits).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::InvalidRequest);
        assert!(refusal.message.contains("9 bytes, at most 8"), "{refusal}");
        assert_eq!((route.topic(), route.correlation()), ("me", None));
    }
}
