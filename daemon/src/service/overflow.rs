//! Requests that the broker sends although it was asked to hold them back.
//!
//! A node asks for no more than it can let wait, by MQTT 5's *receive maximum*. Mosquitto
//! 2.0.11, Debian 12's, counts from the place of the request that is acknowledged: with each
//! acknowledgement it sends as many again, until its queue is empty. These wait here as they
//! came, unread, until there is room. They are the broker's still, so nothing is lost with
//! them.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Output, Service};
use crate::mqtt::Request;

/// Most of them: what Mosquitto keeps for a client at most, unless told otherwise.
const MOST: usize = 1024;
/// Most bytes of them.
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// What each takes beside its payload, at least.
const REQUEST_BYTES: usize = 256;

/// In the order they came.
#[derive(Debug, Default)]
pub(super) struct Overflow {
    waiting: VecDeque<(Instant, Request)>,
    bytes: usize,
}

impl Overflow {
    /// Whether there was room for it.
    fn push(&mut self, request: &Request, now: Instant) -> bool {
        let size = size(request);
        if self.waiting.len() >= MOST || self.bytes + size > MOST_BYTES {
            return false;
        }
        self.bytes += size;
        let mut request = request.clone();
        // A copy: the payload is a slice of what was read with it.
        request.payload = bytes::Bytes::copy_from_slice(&request.payload);
        self.waiting.push_back((now, request));
        true
    }

    fn pop(&mut self) -> Option<(Instant, Request)> {
        let (arrived, request) = self.waiting.pop_front()?;
        self.bytes -= size(&request);
        Some((arrived, request))
    }

    /// Forgets all of them: the broker sends them again.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn size(request: &Request) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let user = request.user.iter();
    request.payload.len()
        + request.correlation.as_ref().map_or(0, |c| c.len())
        + text(&request.response_topic)
        + user
            .map(|(name, value)| name.len() + value.len())
            .sum::<usize>()
        + REQUEST_BYTES
}

impl Service {
    /// Lets a request wait here that there is no room for, if the broker keeps it.
    pub(super) fn overflows(&mut self, request: &Request, now: Instant) -> bool {
        let kept = self.has_session && request.receipt.is_some();
        if !kept || self.stopping || self.draining {
            return false;
        }
        let behind = !self.overflow.waiting.is_empty() || self.backlog.len() >= self.depth();
        behind && self.overflow.push(request, now)
    }

    /// Takes those for which there is room now.
    pub(super) fn take_overflow(&mut self, now: Instant, out: &mut Vec<Output>) {
        while self.backlog.len() < self.depth() {
            let Some((arrived, mut request)) = self.overflow.pop() else {
                return;
            };
            let waited = now.saturating_duration_since(arrived);
            request.expires = request.expires.map(|time| time.saturating_sub(waited));
            if let Some(chat) = self.is_chat(&request.topic) {
                self.take_question(chat, &request, true, now, out);
            }
        }
    }
}
