//! Levels that go up at once and down slowly.

use std::time::{Duration, Instant};

/// The levels of something, the least first.
pub(super) trait Level: Copy + Ord {
    /// The one below; the least is below itself.
    fn below(self) -> Self;
}

/// The level at which we are. It goes up as soon as there is reason to, and down one at a
/// time, each when nothing has spoken for it for a while: it does not flap.
#[derive(Debug)]
pub(super) struct Ladder<L> {
    level: L,
    /// How long nothing must speak for a level before it is left.
    patience: Duration,
    /// Since when nothing does.
    calm: Option<Instant>,
}

impl<L: Level> Ladder<L> {
    pub(super) fn new(level: L, patience: Duration) -> Self {
        Self {
            level,
            patience,
            calm: None,
        }
    }

    pub(super) fn level(&self) -> L {
        self.level
    }

    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// `raised`: the level that there is reason to go up to. `held`: the level that there
    /// is reason to stay at, if we are there. Whether it is another level now.
    pub(super) fn settle(&mut self, raised: L, held: L, now: Instant) -> bool {
        if raised > self.level {
            self.level = raised;
            self.calm = None;
            return true;
        }
        if held >= self.level {
            self.calm = None;
            return false;
        }
        let calm = *self.calm.get_or_insert(now);
        if now.saturating_duration_since(calm) < self.patience {
            return false;
        }
        self.level = self.level.below();
        self.calm = Some(now);
        true
    }

    /// The least time until the level is left.
    pub(super) fn left_in(&self, now: Instant) -> Duration {
        let calm = self.calm.unwrap_or(now);
        let waited = now.saturating_duration_since(calm);
        self.patience.saturating_sub(waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Level for u8 {
        fn below(self) -> Self {
            self.saturating_sub(1)
        }
    }

    #[test]
    fn up_at_once_and_down_one_at_a_time() {
        let patience = Duration::from_secs(10);
        let mut ladder = Ladder::new(0u8, patience);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!ladder.settle(0, 0, at(0)));
        assert!(ladder.settle(3, 3, at(1)));
        assert_eq!(ladder.level(), 3);
        // Below what it takes to get there, but not by much.
        assert!(!ladder.settle(2, 3, at(100)));
        assert_eq!(ladder.left_in(at(100)), patience);
        // Then there is less reason: 10 seconds for each level.
        assert!(!ladder.settle(0, 0, at(101)));
        assert_eq!(ladder.left_in(at(107)), Duration::from_secs(4));
        assert!(!ladder.settle(0, 0, at(110)));
        assert!(ladder.settle(0, 0, at(111)));
        assert!(!ladder.settle(0, 0, at(120)));
        // A moment that speaks for the level starts the time anew.
        assert!(!ladder.settle(0, 2, at(121)));
        assert!(!ladder.settle(0, 0, at(122)));
        assert!(!ladder.settle(0, 0, at(131)));
        assert!(ladder.settle(0, 0, at(132)));
        assert_eq!(ladder.level(), 1);
        // Up again, from the middle.
        assert!(ladder.settle(2, 2, at(133)));
        for (seconds, level) in [(134, 2), (144, 1), (154, 0), (164, 0)] {
            ladder.settle(0, 0, at(seconds));
            assert_eq!(ladder.level(), level, "{seconds}");
        }
    }
}
