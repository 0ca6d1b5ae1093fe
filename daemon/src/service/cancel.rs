//! Requests to give up another request.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::route::Route;
use crate::config::Limits;
use crate::mqtt::Request;
use crate::refusal::Refusal;
use crate::wire::{CancelRequest, ErrorCode, check_id};

/// Cancels that found nothing and are remembered.
const TOMBSTONES: usize = 64;
/// For how long.
const TOMBSTONE_TIME: Duration = Duration::from_secs(600);

/// Which requests to give up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    name: Name,
    /// Only those whose replies go there.
    response_topic: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Id(String),
    Correlation(Bytes),
}

impl Wanted {
    /// Reads `{"id": "q1"}`, the id alone, or nothing with correlation data.
    pub(super) fn parse(request: &Request, limits: &Limits) -> Result<Self, Refusal> {
        Ok(Self {
            name: name(request, limits)?,
            response_topic: request.response_topic.clone(),
        })
    }

    /// The id, if it is that by which the request is named.
    pub(super) fn id(&self) -> Option<&str> {
        match &self.name {
            Name::Id(id) => Some(id),
            Name::Correlation(_) => None,
        }
    }

    /// Whether a request with this address is meant.
    pub(super) fn means(&self, route: &Route) -> bool {
        let named = match &self.name {
            Name::Id(id) => route.id() == Some(id),
            Name::Correlation(data) => route.correlation() == Some(data),
        };
        let topic = self.response_topic.as_deref();
        named && topic.is_none_or(|topic| topic == route.topic())
    }
}

fn name(request: &Request, limits: &Limits) -> Result<Name, Refusal> {
    if request.payload.len() > limits.max_payload_bytes {
        return Err(Refusal::new(
            ErrorCode::PayloadTooLarge,
            "the payload has more bytes than a request may have: give an id alone",
        ));
    }
    let text = std::str::from_utf8(&request.payload)
        .map_err(|_| Refusal::new(ErrorCode::InvalidUtf8, "the payload is not UTF-8"))?
        .trim_end_matches(['\r', '\n']);
    let id = if text.is_empty() {
        let data = request.correlation.clone().filter(|data| !data.is_empty());
        return data.map(Name::Correlation).ok_or_else(|| {
            Refusal::invalid(
                "name the request to cancel, by its id or by the MQTT 5 correlation data",
            )
        });
    } else if text.starts_with('{') {
        let wanted: CancelRequest = serde_json::from_str(text)
            .map_err(|e| Refusal::invalid(format!("not of the form {{\"id\": \"…\"}}: {e}")))?;
        wanted.id
    } else {
        text.to_owned()
    };
    match check_id(&id) {
        Ok(()) => Ok(Name::Id(id)),
        Err(e) => Err(Refusal::invalid(format!("id: {e}"))),
    }
}

/// Cancels that came before their requests, which another QoS makes possible.
#[derive(Debug, Default)]
pub(super) struct Tombstones(VecDeque<(Instant, Wanted)>);

impl Tombstones {
    /// Remembers a cancel, in place of the oldest if there are many.
    pub(super) fn put(&mut self, wanted: Wanted, now: Instant) {
        self.forget_old(now);
        if self.0.len() >= TOMBSTONES {
            self.0.pop_front();
        }
        self.0.push_back((now, wanted));
    }

    /// Whether a request was cancelled before it came. A cancel counts once.
    pub(super) fn take(&mut self, route: &Route, now: Instant) -> bool {
        self.forget_old(now);
        let place = self.0.iter().position(|(_, wanted)| wanted.means(route));
        place.and_then(|place| self.0.remove(place)).is_some()
    }

    fn forget_old(&mut self, now: Instant) {
        let old = |at: Instant| now.saturating_duration_since(at) >= TOMBSTONE_TIME;
        while self.0.front().is_some_and(|&(at, _)| old(at)) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Topics;

    fn request(payload: &'static [u8], topic: Option<&str>, data: Option<&'static str>) -> Request {
        Request {
            payload: payload.into(),
            response_topic: topic.map(str::to_owned),
            correlation: data.map(Bytes::from),
            ..Request::default()
        }
    }

    fn wanted(payload: &'static [u8], topic: Option<&str>, data: Option<&'static str>) -> Wanted {
        Wanted::parse(&request(payload, topic, data), &Limits::default()).unwrap()
    }

    fn route(id: &str, topic: Option<&str>, data: Option<&'static str>) -> Route {
        let request = request(b"", topic, data);
        let id = Some(id.to_owned());
        Route::for_chat(&request, &Topics::new("n"), &Limits::default(), id).unwrap()
    }

    #[test]
    fn three_ways_to_name_a_request() {
        for payload in [&b"{\"id\": \"q1\"}"[..], b"q1", b"q1\n"] {
            let wanted = wanted(payload, None, Some("own"));
            assert_eq!(wanted.id(), Some("q1"));
            assert!(wanted.means(&route("q1", None, None)));
            assert!(wanted.means(&route("q1", Some("me"), None)));
            assert!(!wanted.means(&route("q2", None, Some("own"))));
        }
        let by_data = wanted(b"", None, Some("7"));
        assert_eq!(by_data.id(), None);
        assert!(by_data.means(&route("q1", Some("me"), Some("7"))));
        assert!(!by_data.means(&route("7", Some("me"), None)));
    }

    #[test]
    fn a_response_topic_keeps_to_ones_own() {
        let wanted = wanted(b"q1", Some("me"), None);
        assert!(wanted.means(&route("q1", Some("me"), None)));
        assert!(!wanted.means(&route("q1", Some("you"), None)));
        assert!(!wanted.means(&route("q1", None, None)));
    }

    #[test]
    fn what_names_no_request() {
        let code = |payload| {
            let refused = Wanted::parse(&request(payload, None, None), &Limits::default());
            refused.unwrap_err().code
        };
        assert_eq!(code(b""), ErrorCode::InvalidRequest);
        assert_eq!(code(b"{}"), ErrorCode::InvalidRequest);
        assert_eq!(code(b"{\"id\": 1}"), ErrorCode::InvalidRequest);
        assert_eq!(code(b"a/b"), ErrorCode::InvalidRequest);
        assert_eq!(code(b"\xff"), ErrorCode::InvalidUtf8);
        assert_eq!(code(&[b'x'; 300_000]), ErrorCode::PayloadTooLarge);
    }

    #[test]
    fn a_tombstone_counts_once_and_for_a_while() {
        let mut tombstones = Tombstones::default();
        let now = Instant::now();
        let route = route("q1", None, None);
        assert!(!tombstones.take(&route, now));
        tombstones.put(wanted(b"q1", None, None), now);
        assert!(tombstones.take(&route, now));
        assert!(!tombstones.take(&route, now));
        tombstones.put(wanted(b"q1", None, None), now);
        assert!(!tombstones.take(&route, now + TOMBSTONE_TIME));
    }

    #[test]
    fn the_oldest_tombstone_makes_room() {
        let mut tombstones = Tombstones::default();
        let now = Instant::now();
        tombstones.put(wanted(b"q1", None, None), now);
        for _ in 0..TOMBSTONES {
            tombstones.put(wanted(b"q2", None, None), now);
        }
        assert_eq!(tombstones.0.len(), TOMBSTONES);
        assert!(!tombstones.take(&route("q1", None, None), now));
    }
}
