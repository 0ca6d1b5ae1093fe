//! At least once: which requests are being dealt with, and what they still need.
//!
//! A request with a receipt is kept by the broker until we acknowledge it, which we do
//! once the broker has the last message of its reply, be that an answer or an error.
//! Until then the broker may send the request again, and so may its client.
//!
//! | what happens | unknown | pending: waits or runs | sent: its last message is on its way | answered: in the cache |
//! |---|---|---|---|---|
//! | it comes | pending | stays; keeps the receipt | stays; keeps the receipt | sent: the same message again, for this receipt |
//! | its last message is made | – | sent | – | – |
//! | the broker has it | – | – | acknowledged; an answer is answered, an error unknown | – |
//! | the broker does not want it | – | – | acknowledged, since it would not want it a second time; unknown | – |
//! | it is too large | – | – | stays, with an error in its place; an error too large itself is given up as above | – |
//! | the connection is lost | – | stays without receipts | stays without receipts | stays |
//! | the node goes down | – | unknown, not acknowledged | stays | – |
//!
//! A receipt is worth nothing once its connection is lost: the broker sends the request
//! again, with a new one. "It comes" is meant of the same [`Identity`]. A request without a
//! name is the same only if the broker says that it sends it again, and then each one that
//! comes is counted against one that was there.

use std::time::Instant;

use super::answered::{AnswerCache, Answered};
use super::identity::Identity;
use super::route::Route;
use crate::config::Delivery;
use crate::mqtt::{Message, Receipt, Request};

/// The requests that are pending or sent, and the cache of those answered.
#[derive(Debug)]
pub(super) struct Deliveries {
    live: Vec<Live>,
    cache: AnswerCache,
}

#[derive(Debug)]
struct Live {
    key: u64,
    identity: Identity,
    named: bool,
    /// Whether the broker keeps it, even if a lost connection took its receipts.
    at_least_once: bool,
    receipts: Vec<Receipt>,
    sent: Option<Sent>,
}

impl Live {
    /// Its answer, if it has one and can be known should it come again: one that the broker
    /// does not keep and that has no name cannot.
    fn answered(&self) -> Option<Answered> {
        let sent = self.sent.as_ref()?;
        let again = self.named || self.at_least_once;
        Some(Answered {
            identity: self.identity,
            named: self.named,
            route: sent.route.clone(),
            message: sent.replay.clone().filter(|_| again)?,
        })
    }
}

/// The last message of a reply.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) route: Route,
    /// What to send to one who asks again; `None` for an error, which is not kept: a
    /// client that asks again after `busy` wants to be answered.
    pub(super) replay: Option<Message>,
}

/// What is known of a request that came.
#[derive(Debug, PartialEq)]
pub(super) enum Known {
    /// Nothing: it is to be answered.
    New,
    /// Its answer is under way, and counts for this one too.
    UnderWay,
    /// Its answer, to be sent again.
    Answered(Box<Answered>),
}

/// What is to be done for a message that was too large.
#[derive(Debug)]
pub(super) enum TooLarge {
    /// Send an error there instead.
    Replace(Route),
    /// It was an error: acknowledge the request.
    GiveUp(Vec<Receipt>),
}

impl Deliveries {
    pub(super) fn new(config: &Delivery) -> Self {
        Self {
            live: Vec::new(),
            cache: AnswerCache::new(config),
        }
    }

    /// Other bounds of the cache from now on.
    pub(super) fn configure(&mut self, config: &Delivery) {
        self.cache.configure(config);
    }

    /// A request came: keeps its receipt if its answer is under way.
    pub(super) fn arrived(
        &mut self,
        identity: &Identity,
        request: &Request,
        now: Instant,
    ) -> Known {
        let same = |live: &&mut Live| {
            let again =
                live.named || request.redelivered && live.at_least_once && live.receipts.is_empty();
            live.identity == *identity && again
        };
        if let Some(live) = self.live.iter_mut().find(same) {
            live.receipts.extend(request.receipt);
            live.at_least_once |= request.receipt.is_some();
            return Known::UnderWay;
        }
        match self.cache.take(identity, request.redelivered, now) {
            Some(answered) => Known::Answered(Box::new(answered)),
            None => Known::New,
        }
    }

    /// A request is to be answered.
    pub(super) fn open(
        &mut self,
        key: u64,
        identity: Identity,
        named: bool,
        receipt: Option<Receipt>,
    ) {
        self.live.push(Live {
            key,
            identity,
            named,
            at_least_once: receipt.is_some(),
            receipts: receipt.into_iter().collect(),
            sent: None,
        });
    }

    /// Whether the broker keeps this request.
    pub(super) fn at_least_once(&self, key: u64) -> bool {
        self.live.iter().any(|l| l.key == key && l.at_least_once)
    }

    /// The answer that was made to this request, if it can be known should it come again.
    pub(super) fn answer_to(&self, key: u64) -> Option<Answered> {
        self.live.iter().find(|live| live.key == key)?.answered()
    }

    /// An answer that the broker had at this time, of an earlier run.
    pub(super) fn restore(&mut self, answered: Answered, at: Instant) {
        self.cache.insert(answered, at);
    }

    /// Answers that the broker has, and since when; then those on their way to it.
    pub(super) fn answered(&self, now: Instant) -> impl Iterator<Item = (Instant, Answered)> {
        let sent = self.live.iter().filter_map(Live::answered);
        let had = self
            .cache
            .iter()
            .map(|(at, answered)| (at, answered.clone()));
        had.chain(sent.map(move |answered| (now, answered)))
    }

    /// The last message of its reply was made.
    pub(super) fn sent(&mut self, key: u64, sent: Sent) {
        if let Some(live) = self.live.iter_mut().find(|l| l.key == key) {
            live.sent = Some(sent);
        }
    }

    /// The broker has it. What comes back is to be acknowledged.
    pub(super) fn taken(&mut self, key: u64, now: Instant) -> Vec<Receipt> {
        let Some(live) = self.remove_sent(key) else {
            return Vec::new();
        };
        if let Some(answered) = live.answered() {
            self.cache.insert(answered, now);
        }
        live.receipts
    }

    /// The broker does not want it. What comes back is to be acknowledged.
    pub(super) fn refused(&mut self, key: u64) -> Vec<Receipt> {
        self.remove_sent(key).map_or(Vec::new(), |l| l.receipts)
    }

    /// The broker takes no message of this size.
    pub(super) fn too_large(&mut self, key: u64) -> TooLarge {
        let live = self.live.iter_mut().find(|l| l.key == key);
        if let Some(sent) = live.and_then(|live| live.sent.as_mut())
            && sent.replay.take().is_some()
        {
            return TooLarge::Replace(sent.route.clone());
        }
        TooLarge::GiveUp(self.refused(key))
    }

    /// The connection is lost, and with it all receipts.
    pub(super) fn connection_lost(&mut self) {
        self.live.iter_mut().for_each(|live| live.receipts.clear());
    }

    /// Forgets a request that got no last message which matters.
    pub(super) fn close(&mut self, key: u64) {
        self.live.retain(|live| live.key != key);
    }

    /// Where the replies of those sent and answered go.
    pub(super) fn ended(&self) -> impl Iterator<Item = &Route> {
        let sent = self.live.iter().filter_map(|live| live.sent.as_ref());
        sent.map(|sent| &sent.route).chain(self.cache.routes())
    }

    fn remove_sent(&mut self, key: u64) -> Option<Live> {
        let sent = |l: &Live| l.key == key && l.sent.is_some();
        let place = self.live.iter().position(sent)?;
        Some(self.live.swap_remove(place))
    }
}

#[cfg(test)]
mod tests;
