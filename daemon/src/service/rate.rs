//! How often a client may ask.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Clients whose pace is remembered.
const CLIENTS: usize = 256;

/// A token bucket for each client of late.
///
/// A client that is forgotten, since 256 others came after it, begins anew.
#[derive(Debug)]
pub(super) struct Buckets {
    per_second: f64,
    burst: f64,
    /// The one used last at the end.
    buckets: VecDeque<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    client: u64,
    tokens: f64,
    filled: Instant,
}

impl Buckets {
    /// So many requests a minute in the long run, 0 for any number, and so many at once.
    pub(super) fn new(per_minute: usize, burst: usize) -> Self {
        Self {
            per_second: per_minute as f64 / 60.0,
            burst: burst as f64,
            buckets: VecDeque::new(),
        }
    }

    /// Another pace from now on; who has used up how much is not forgotten.
    pub(super) fn set_pace(&mut self, per_minute: usize, burst: usize) {
        self.per_second = per_minute as f64 / 60.0;
        self.burst = burst as f64;
    }

    /// Counts a request, or says when the next one is allowed.
    pub(super) fn take(&mut self, client: u64, now: Instant) -> Result<(), Duration> {
        if self.per_second == 0.0 {
            return Ok(());
        }
        let known = self.buckets.iter().position(|b| b.client == client);
        let mut bucket = match known.and_then(|i| self.buckets.remove(i)) {
            Some(bucket) => self.filled(bucket, now),
            None => Bucket {
                client,
                tokens: self.burst,
                filled: now,
            },
        };
        let missing = 1.0 - bucket.tokens;
        let allowed = missing <= 0.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        if self.buckets.len() >= CLIENTS {
            self.buckets.pop_front();
        }
        self.buckets.push_back(bucket);
        if allowed {
            Ok(())
        } else {
            Err(Duration::from_secs_f64(missing / self.per_second))
        }
    }

    fn filled(&self, bucket: Bucket, now: Instant) -> Bucket {
        let passed = now.saturating_duration_since(bucket.filled).as_secs_f64();
        Bucket {
            tokens: (bucket.tokens + passed * self.per_second).min(self.burst),
            filled: now,
            ..bucket
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_a_pace() {
        let mut buckets = Buckets::new(60, 3);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs_f64(seconds);
        assert!((0..3).all(|_| buckets.take(1, start).is_ok()));
        assert_eq!(buckets.take(1, start), Err(Duration::from_secs(1)));
        // What was refused is not counted.
        assert_eq!(buckets.take(1, at(0.5)), Err(Duration::from_millis(500)));
        assert_eq!(buckets.take(1, at(1.0)), Ok(()));
        assert!(buckets.take(1, at(1.0)).is_err());
        // A long pause gives no more than the burst.
        assert!((0..3).all(|_| buckets.take(1, at(1000.0)).is_ok()));
        assert!(buckets.take(1, at(1000.0)).is_err());
    }

    #[test]
    fn each_client_has_its_own() {
        let mut buckets = Buckets::new(60, 1);
        let now = Instant::now();
        assert_eq!(buckets.take(1, now), Ok(()));
        assert_eq!(buckets.take(2, now), Ok(()));
        assert!(buckets.take(1, now).is_err());
    }

    #[test]
    fn the_one_not_seen_for_longest_is_forgotten() {
        let mut buckets = Buckets::new(60, 1);
        let now = Instant::now();
        for client in 0..CLIENTS as u64 {
            assert_eq!(buckets.take(client, now), Ok(()));
        }
        assert!(buckets.take(0, now).is_err(), "known, and the last one now");
        assert_eq!(buckets.take(1000, now), Ok(()));
        assert_eq!(buckets.buckets.len(), CLIENTS);
        assert!(buckets.take(0, now).is_err());
        assert_eq!(buckets.take(1, now), Ok(()), "forgotten");
    }

    #[test]
    fn no_pace_at_all() {
        let mut buckets = Buckets::new(0, 1);
        let now = Instant::now();
        assert!((0..1000).all(|_| buckets.take(1, now).is_ok()));
    }
}
