//! Requests that wait for the running one: bounded, by priority, and fair to their clients.

use std::time::{Duration, Instant};

use heapless::Deque;

use crate::wire::Priority;

/// Most requests that can wait, whatever the configuration says.
pub const BACKLOG_CAPACITY: usize = 64;

/// How a request is put among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Whose it is.
    pub client: u64,
    /// How urgent it is at first.
    pub priority: Priority,
    /// When it came.
    pub arrived: Instant,
    /// Whether the broker sends it again. It had its place before, so its client's share
    /// does not count: else an answer that was on its way when the node lost its power, and
    /// is computed once more, would take the place of a request that waited.
    pub again: bool,
}

/// How much may wait, and for how long at the same level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Requests in all, at most [`BACKLOG_CAPACITY`].
    pub depth: usize,
    /// Requests of one client.
    pub per_client: usize,
    /// A request that waited this long counts as one level more urgent.
    pub aging: Duration,
}

/// Why a request cannot wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Too many wait.
    Depth,
    /// Too many of its client wait.
    Share,
}

/// The waiting requests.
///
/// The next one is of the most urgent level that there is; of those, of the client
/// that was served longest ago; of those, the one that came first.
///
/// It belongs to the service, not to the inference thread, so that a request can
/// be looked at, dropped or answered while it waits.
#[derive(Debug)]
pub struct Backlog<T> {
    /// In the order they came.
    waiting: Vec<(Tag, T)>,
    bounds: Bounds,
    /// Clients that were served, the last one at the end. Those that have nothing
    /// waiting are kept too: else a client that asks one at a time would be new each
    /// time, and go before those who queue.
    served: Deque<u64, BACKLOG_CAPACITY>,
}

impl<T> Backlog<T> {
    /// An empty backlog.
    pub fn new(bounds: Bounds) -> Self {
        let mut backlog = Self {
            waiting: Vec::new(),
            bounds,
            served: Deque::new(),
        };
        backlog.set_bounds(bounds);
        backlog
    }

    /// Other bounds from now on; what waits stays.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        let depth = bounds.depth.min(BACKLOG_CAPACITY);
        self.bounds = Bounds { depth, ..bounds };
        let more = depth.saturating_sub(self.waiting.len());
        self.waiting.reserve_exact(more);
    }

    /// Whether a request of this client could wait; see [`Tag::again`].
    pub fn room(&self, client: u64, again: bool) -> Result<(), Full> {
        if self.waiting.len() >= self.bounds.depth {
            return Err(Full::Depth);
        }
        let of_client = self.waiting.iter().filter(|(tag, _)| tag.client == client);
        if !again && of_client.count() >= self.bounds.per_client {
            return Err(Full::Share);
        }
        Ok(())
    }

    /// Lets a request wait; it comes back if it cannot.
    pub fn push(&mut self, tag: Tag, request: T) -> Result<(), (Full, T)> {
        match self.room(tag.client, tag.again) {
            Ok(()) => {
                self.waiting.push((tag, request));
                Ok(())
            }
            Err(full) => Err((full, request)),
        }
    }

    /// Takes the request whose turn it is.
    pub fn pop(&mut self, now: Instant) -> Option<(Tag, T)> {
        let turn = |(i, (tag, _)): (usize, &(Tag, T))| {
            let level = self.level(tag, now);
            (std::cmp::Reverse(level), self.last_turn(tag.client), i)
        };
        let (.., next) = self.waiting.iter().enumerate().map(turn).min()?;
        let (tag, request) = self.waiting.remove(next);
        self.serve(tag.client);
        Some((tag, request))
    }

    /// Takes out all that are not to wait any longer.
    pub fn take_if(&mut self, mut leaves: impl FnMut(&T) -> bool) -> Vec<T> {
        self.waiting
            .extract_if(.., |(_, request)| leaves(request))
            .map(|(_, request)| request)
            .collect()
    }

    /// The waiting requests, in the order they came.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.waiting.iter().map(|(_, request)| request)
    }

    /// Number of waiting requests.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn level(&self, tag: &Tag, now: Instant) -> u128 {
        let waited = now.saturating_duration_since(tag.arrived).as_millis();
        let aging = self.bounds.aging.as_millis().max(1);
        (tag.priority as u128 + waited / aging).min(Priority::High as u128)
    }

    /// 0 for a client that was not served lately, and more for one served later.
    fn last_turn(&self, client: u64) -> usize {
        let place = self.served.iter().position(|&c| c == client);
        place.map_or(0, |place| place + 1)
    }

    fn serve(&mut self, client: u64) {
        self.served.retain(|&c| c != client);
        if self.served.is_full() {
            self.served.pop_front();
        }
        // There is room now.
        let _ = self.served.push_back(client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGING: Duration = Duration::from_secs(30);

    fn backlog(depth: usize, per_client: usize) -> (Backlog<&'static str>, Instant) {
        let bounds = Bounds {
            depth,
            per_client,
            aging: AGING,
        };
        (Backlog::new(bounds), Instant::now())
    }

    fn tag(client: u64, priority: Priority, arrived: Instant) -> Tag {
        Tag {
            client,
            priority,
            arrived,
            again: false,
        }
    }

    fn all(backlog: &mut Backlog<&'static str>, now: Instant) -> Vec<&'static str> {
        std::iter::from_fn(|| backlog.pop(now).map(|(_, name)| name)).collect()
    }

    #[test]
    fn in_order_and_bounded() {
        let (mut backlog, now) = backlog(2, 2);
        let tag = tag(1, Priority::Normal, now);
        assert_eq!(backlog.push(tag, "a"), Ok(()));
        assert_eq!(backlog.push(tag, "b"), Ok(()));
        assert_eq!(backlog.push(tag, "c"), Err((Full::Depth, "c")));
        assert_eq!(backlog.pop(now), Some((tag, "a")));
        assert_eq!(backlog.push(tag, "d"), Ok(()));
        assert_eq!(all(&mut backlog, now), ["b", "d"]);
        assert!(backlog.is_empty());
    }

    #[test]
    fn depth_never_exceeds_the_capacity() {
        let (mut backlog, now) = backlog(usize::MAX, usize::MAX);
        let tag = tag(1, Priority::Normal, now);
        assert!((0..BACKLOG_CAPACITY).all(|_| backlog.push(tag, "a").is_ok()));
        assert_eq!(backlog.push(tag, "b"), Err((Full::Depth, "b")));
    }

    #[test]
    fn one_client_cannot_take_all_places() {
        let (mut backlog, now) = backlog(4, 2);
        let of = |client| tag(client, Priority::Normal, now);
        backlog.push(of(1), "a1").unwrap();
        backlog.push(of(1), "a2").unwrap();
        assert_eq!(backlog.push(of(1), "a3"), Err((Full::Share, "a3")));
        assert_eq!(backlog.push(of(2), "b1"), Ok(()));
        let again = Tag {
            again: true,
            ..of(1)
        };
        assert_eq!(backlog.push(again, "a0"), Ok(()));
        assert_eq!(backlog.push(again, "a4"), Err((Full::Depth, "a4")));
    }

    #[test]
    fn clients_take_turns() {
        let (mut backlog, now) = backlog(8, 8);
        let of = |client| tag(client, Priority::Normal, now);
        for (client, name) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (2, "b2")] {
            backlog.push(of(client), name).unwrap();
        }
        assert_eq!(all(&mut backlog, now), ["a1", "b1", "a2", "b2", "a3"]);
    }

    #[test]
    fn a_client_that_asks_one_at_a_time_is_not_new_each_time() {
        let (mut backlog, now) = backlog(8, 8);
        let of = |client| tag(client, Priority::Normal, now);
        backlog.push(of(2), "b1").unwrap();
        backlog.push(of(2), "b2").unwrap();
        backlog.push(of(2), "b3").unwrap();
        let mut order = Vec::new();
        for _ in 0..3 {
            backlog.push(of(1), "a").unwrap();
            order.push(backlog.pop(now).unwrap().1);
            order.push(backlog.pop(now).unwrap().1);
        }
        assert_eq!(order, ["b1", "a", "b2", "a", "b3", "a"]);
    }

    #[test]
    fn the_most_urgent_first_and_the_rest_in_time() {
        let (mut backlog, start) = backlog(8, 8);
        let at = |priority, seconds| tag(1, priority, start + Duration::from_secs(seconds));
        backlog.push(at(Priority::Low, 0), "low").unwrap();
        backlog.push(at(Priority::Normal, 1), "normal").unwrap();
        backlog.push(at(Priority::High, 2), "high").unwrap();
        let now = start + Duration::from_secs(2);
        assert_eq!(all(&mut backlog, now), ["high", "normal", "low"]);

        // After two levels' time the low one is as urgent as any, and came first.
        backlog.push(at(Priority::Low, 0), "low").unwrap();
        backlog.push(at(Priority::High, 1), "high").unwrap();
        let almost = start + AGING * 2 - Duration::from_millis(1);
        assert_eq!(backlog.pop(almost).unwrap().1, "high");
        backlog.push(at(Priority::High, 1), "high").unwrap();
        assert_eq!(all(&mut backlog, start + AGING * 2), ["low", "high"]);
    }

    #[test]
    fn some_leave_early() {
        let (mut backlog, now) = backlog(8, 8);
        for name in ["a", "b", "c"] {
            backlog.push(tag(1, Priority::Normal, now), name).unwrap();
        }
        assert_eq!(backlog.take_if(|name| *name != "b"), ["a", "c"]);
        assert_eq!(backlog.iter().collect::<Vec<_>>(), [&"b"]);
        assert_eq!(backlog.len(), 1);
    }
}
