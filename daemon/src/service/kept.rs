//! Answers as they survive a restart, so that nobody is answered twice with two texts.
//!
//! A request that has to be computed once more has the same seed, but not the same text for
//! sure: what the KV cache still has of a prompt is not computed again, and the rest is then
//! summed in another order.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::answered::Answered;
use super::identity::Identity;
use super::route::{Address, Route};
use super::{Output, Service, unix_time};

/// An answer, to be written to a file before it is sent, and read from there by the next
/// run of the daemon.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Kept {
    /// When it was made, in seconds since 1970.
    at: u64,
    identity: Identity,
    named: bool,
    address: Address,
    finish_reason: String,
    /// The whole of it in one message.
    payload: String,
}

impl Kept {
    fn new(answered: &Answered, at: u64) -> Option<Self> {
        Some(Self {
            at,
            identity: answered.identity,
            named: answered.named,
            address: answered.route.address(),
            finish_reason: answered.finish_reason()?.to_owned(),
            payload: String::from_utf8(answered.message.payload.to_vec()).ok()?,
        })
    }

    fn into_answered(self, node: &str) -> Answered {
        let route = Route::from_address(self.address, node);
        Answered {
            identity: self.identity,
            named: self.named,
            message: route.done(self.payload, &self.finish_reason),
            route,
        }
    }
}

impl Service {
    /// Takes back the answers of an earlier run, the oldest first.
    pub fn restore(&mut self, kept: impl IntoIterator<Item = Kept>, now: Instant) {
        for kept in kept {
            // A board without a clock may have gone back in time: such an answer is new.
            let age = Duration::from_secs(unix_time().saturating_sub(kept.at));
            let at = now.checked_sub(age).unwrap_or(now);
            let answered = kept.into_answered(self.topics.node());
            self.deliveries.restore(answered, at);
        }
    }

    /// All answers that are kept or on their way, the oldest first.
    pub fn kept(&self, now: Instant) -> impl Iterator<Item = Kept> {
        let unix = unix_time();
        let answered = self.deliveries.answered(now);
        answered.filter_map(move |(at, answered)| {
            let age = now.saturating_duration_since(at).as_secs();
            Kept::new(&answered, unix.saturating_sub(age))
        })
    }

    /// Has the answer to a request written down, if answers are and if it may come again.
    pub(super) fn keep(&self, key: u64, out: &mut Vec<Output>) {
        if self.keeps_answers
            && let Some(answered) = self.deliveries.answer_to(key)
        {
            let kept = Kept::new(&answered, unix_time());
            out.extend(kept.map(|kept| Output::Keep(Box::new(kept))));
        }
    }
}
