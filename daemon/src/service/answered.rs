//! Answers that are kept for those who ask the same again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::identity::Identity;
use super::route::Route;
use crate::config::Delivery;
use crate::mqtt::Message;
use crate::wire::FINISH_REASON_PROPERTY;

/// What an entry takes beside its message and its route.
const ENTRY_BYTES: usize = 512;

/// An answer that the broker has.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answered {
    pub(super) identity: Identity,
    /// Whether its request has a name, so that it cannot be another one with the same text.
    pub(super) named: bool,
    pub(super) route: Route,
    /// The whole of it in one message.
    pub(super) message: Message,
}

impl Answered {
    /// As its message says.
    pub(super) fn finish_reason(&self) -> Option<&str> {
        let mut properties = self.message.user.iter();
        let found = properties.find(|(name, _)| *name == FINISH_REASON_PROPERTY);
        found.map(|(_, value)| value.as_str())
    }
}

/// Answers of late: bounded in time, number and bytes, the oldest first.
#[derive(Debug)]
pub(super) struct AnswerCache {
    entries: VecDeque<(Instant, usize, Answered)>,
    bytes: usize,
    most_time: Duration,
    most_entries: usize,
    most_bytes: usize,
}

impl AnswerCache {
    pub(super) fn new(config: &Delivery) -> Self {
        let mut cache = Self {
            entries: VecDeque::new(),
            bytes: 0,
            most_time: Duration::ZERO,
            most_entries: 0,
            most_bytes: 0,
        };
        cache.configure(config);
        cache
    }

    /// Other bounds from now on.
    pub(super) fn configure(&mut self, config: &Delivery) {
        self.most_time = config.dedup_time();
        self.most_entries = config.dedup_entries;
        self.most_bytes = config.dedup_bytes;
        while self.entries.len() > self.most_entries || self.bytes > self.most_bytes {
            self.forget_oldest();
        }
    }

    /// Keeps an answer, if there can be room for it.
    pub(super) fn insert(&mut self, answered: Answered, now: Instant) {
        let size = size(&answered);
        if self.most_time.is_zero() || self.most_entries == 0 || size > self.most_bytes {
            return;
        }
        self.forget_old(now);
        while self.entries.len() >= self.most_entries || self.bytes + size > self.most_bytes {
            self.forget_oldest();
        }
        self.bytes += size;
        self.entries.push_back((now, size, answered));
    }

    /// Takes out the answer to a request of this identity. One without a name is found
    /// only if the broker sends it again: else it is another one with the same text.
    pub(super) fn take(
        &mut self,
        identity: &Identity,
        redelivered: bool,
        now: Instant,
    ) -> Option<Answered> {
        self.forget_old(now);
        let place = self
            .entries
            .iter()
            .position(|(.., a)| a.identity == *identity && (a.named || redelivered))?;
        let (_, size, answered) = self.entries.remove(place)?;
        self.bytes -= size;
        Some(answered)
    }

    /// All of them, and when the broker had them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Instant, &Answered)> {
        self.entries.iter().map(|(at, _, answered)| (*at, answered))
    }

    /// Where the answers went.
    pub(super) fn routes(&self) -> impl Iterator<Item = &Route> {
        self.entries.iter().map(|(.., answered)| &answered.route)
    }

    fn forget_old(&mut self, now: Instant) {
        let most = self.most_time;
        let old = |at: Instant| now.saturating_duration_since(at) >= most;
        while self.entries.front().is_some_and(|&(at, ..)| old(at)) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, size, _)) = self.entries.pop_front() {
            self.bytes -= size;
        }
    }
}

fn size(answered: &Answered) -> usize {
    let message = &answered.message;
    let correlation = message.correlation.as_ref().map_or(0, |c| c.len());
    // The topic and the rest of the address are in the route as well; the correlation
    // data is shared.
    message.payload.len() + correlation + 2 * message.topic.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::mqtt::Request;

    fn answered(name: &str, named: bool) -> Answered {
        let request = Request {
            payload: name.to_owned().into(),
            ..Request::default()
        };
        let config = Config::for_model("m");
        let route = Route::for_ask(&request, &config.topics(), &config.limits).unwrap();
        Answered {
            identity: Identity::of(&request),
            named,
            message: route.done("x".repeat(1000), "stop"),
            route,
        }
    }

    fn cache(seconds: u64, entries: usize, bytes: usize) -> AnswerCache {
        AnswerCache::new(&Delivery {
            dedup_seconds: seconds,
            dedup_entries: entries,
            dedup_bytes: bytes,
            ..Delivery::default()
        })
    }

    /// Which of `names` are found, each looked up with a clone of its own.
    fn kept(cache: &mut AnswerCache, names: &[&'static str], now: Instant) -> Vec<&'static str> {
        let found = |name: &&&str| {
            let identity = answered(name, true).identity;
            cache.take(&identity, false, now).is_some()
        };
        names.iter().filter(found).copied().collect()
    }

    #[test]
    fn found_once_and_for_a_while() {
        let mut cache = cache(10, 8, 1 << 20);
        let now = Instant::now();
        let a = answered("a", true);
        cache.insert(a.clone(), now);
        assert_eq!(cache.take(&answered("b", true).identity, true, now), None);
        assert_eq!(cache.take(&a.identity, false, now), Some(a.clone()));
        assert_eq!(cache.take(&a.identity, false, now), None);
        assert_eq!(cache.bytes, 0);
        cache.insert(a.clone(), now);
        let later = now + Duration::from_secs(10);
        assert_eq!(cache.take(&a.identity, false, later), None);
        assert_eq!(cache.bytes, 0);
    }

    #[test]
    fn one_without_a_name_must_be_sent_by_the_broker() {
        let mut cache = cache(10, 8, 1 << 20);
        let now = Instant::now();
        let a = answered("a", false);
        cache.insert(a.clone(), now);
        assert_eq!(cache.take(&a.identity, false, now), None);
        assert_eq!(cache.take(&a.identity, true, now), Some(a));
    }

    #[test]
    fn bounded_in_number_and_bytes() {
        let now = Instant::now();
        let names = ["a", "b", "c"];
        let one = size(&answered("a", true));
        for (mut cache, expected) in [
            (cache(10, 2, 1 << 20), &names[1..]),
            (cache(10, 8, 2 * one), &names[1..]),
            (cache(10, 8, one - 1), &[]),
            (cache(10, 0, 1 << 20), &[]),
            (cache(0, 8, 1 << 20), &[]),
        ] {
            for name in names {
                cache.insert(answered(name, true), now);
            }
            assert!(cache.bytes <= cache.most_bytes);
            assert_eq!(kept(&mut cache, &names, now), expected);
        }
    }
}
