//! Where a reply goes and in which form.

use bytes::Bytes;

use crate::mqtt::{ContentType, Message, Request};
use crate::refusal::Refusal;
use crate::wire::{ErrorCode, Topics, check_response_topic};

/// The address of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    topic: String,
    correlation: Option<Bytes>,
    content_type: ContentType,
    id: Option<String>,
}

/// A request that gets an error, and where that goes. Boxed: it is large and rare.
pub(super) type Refused = Box<(Route, Refusal)>;

impl Route {
    /// For a prompt on the `ask` topic.
    pub(super) fn for_ask(request: &Request, topics: &Topics) -> Result<Self, Refused> {
        Self::new(
            request,
            ContentType::Text,
            None,
            Some(topics.answer()),
            topics.answer(),
        )
    }

    /// For a request on the `chat` topic whose id, if it has one, can be part of a topic.
    pub(super) fn for_chat(
        request: &Request,
        topics: &Topics,
        id: Option<String>,
    ) -> Result<Self, Refused> {
        let by_id = id.as_deref().map(|id| topics.reply(id));
        let for_errors = by_id.clone().unwrap_or_else(|| topics.reply_unknown());
        Self::new(request, ContentType::Json, id, by_id, for_errors)
    }

    /// For errors of a request on the `chat` topic that cannot be read far enough
    /// to know its id.
    pub(super) fn for_unreadable_chat(request: &Request, topics: &Topics) -> Self {
        match Self::for_chat(request, topics, None) {
            Ok(route) => route,
            Err(refused) => refused.0,
        }
    }

    fn new(
        request: &Request,
        content_type: ContentType,
        id: Option<String>,
        fallback: Option<String>,
        for_errors: String,
    ) -> Result<Self, Refused> {
        let route = |topic: String| Self {
            topic,
            correlation: request.correlation.clone(),
            content_type,
            id: id.clone(),
        };
        let refused =
            |code, message: String| Err(Box::new((route(for_errors), Refusal::new(code, message))));
        match (&request.response_topic, fallback) {
            (Some(topic), _) => match check_response_topic(topic) {
                Ok(()) => Ok(route(topic.clone())),
                Err(e) => refused(
                    ErrorCode::InvalidResponseTopic,
                    format!("the response topic {e}"),
                ),
            },
            (None, Some(topic)) => Ok(route(topic)),
            (None, None) => refused(
                ErrorCode::NoReplyAddress,
                "give an MQTT 5 response topic or, in the JSON, an `id`".to_owned(),
            ),
        }
    }

    /// The id of the request.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The id of the request, or this one from now on.
    pub(super) fn id_or(&mut self, make: impl FnOnce() -> String) -> String {
        self.id.get_or_insert_with(make).clone()
    }

    /// Whether replies are JSON.
    pub(super) fn is_json(&self) -> bool {
        self.content_type == ContentType::Json
    }

    /// A reply.
    pub(super) fn message(&self, payload: impl Into<Bytes>, error: Option<ErrorCode>) -> Message {
        Message {
            topic: self.topic.clone(),
            payload: payload.into(),
            retain: false,
            content_type: self.content_type,
            correlation: self.correlation.clone(),
            error,
            user: Vec::new(),
            expiry: None,
            droppable: false,
        }
    }
}
