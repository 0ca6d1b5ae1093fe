//! What to do when the machine runs out of memory: readings in, a level out.
//!
//! What the kernel tells of stalls (PSI) says best whether memory is short: the weights are
//! mapped, and so among what is "available" until they are missed. Where the kernel does
//! not tell, as by default on Raspberry Pi OS, it is what is available.

use std::time::{Duration, Instant};

use super::ladder::{Ladder, Level};
use super::readings::MemoryReading;
use crate::wire::MemoryLevel;

/// Share of the last ten seconds, in percent, that some task waited for memory.
const TIGHT_SOME: f64 = 10.0;
const REFUSE_SOME: f64 = 40.0;
/// That all tasks waited.
const REFUSE_FULL: f64 = 10.0;
/// A level is held by this share of what it takes to get there,
const HELD: f64 = 0.5;
/// or until this many times the memory is available.
const RELIEF: u64 = 5;
const RELIEF_OF: u64 = 4;
/// Beyond the budget by this share and by so much something must have grown: what is
/// resident has pages of the program in it that the estimate does not count.
const OVER_SHARE: u64 = 8;
const OVER: u64 = 32 << 20;
/// To ask again after, at least and for what cannot be told.
const LEAST_WAIT: Duration = Duration::from_secs(10);
const USUAL_WAIT: Duration = Duration::from_secs(30);

/// What the level depends on, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// What is left to others; half of it left is too little to go on.
    pub(crate) reserve: Option<u64>,
    /// What this process may take.
    pub(crate) budget: Option<u64>,
}

impl Level for MemoryLevel {
    fn below(self) -> Self {
        match self {
            Self::Normal | Self::Tight => Self::Normal,
            Self::Refusing => Self::Tight,
        }
    }
}

/// The level, and what it comes from.
#[derive(Debug)]
pub(super) struct Pressure {
    limits: Limits,
    ladder: Ladder<MemoryLevel>,
}

impl Pressure {
    pub(super) fn new(limits: Limits, patience: Duration) -> Self {
        Self {
            limits,
            ladder: Ladder::new(MemoryLevel::Normal, patience),
        }
    }

    pub(super) fn level(&self) -> MemoryLevel {
        self.ladder.level()
    }

    /// Takes a reading; whether the level is another one now.
    pub(super) fn look(&mut self, reading: &MemoryReading, now: Instant) -> bool {
        let raised = self.limits.level(reading, 1.0, (1, 1));
        let held = self.limits.level(reading, HELD, (RELIEF, RELIEF_OF));
        self.ladder.settle(raised, held, now)
    }

    /// When something new may be taken again: an estimate.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        // It depends on other programs.
        let calm = self.ladder.left_in(now);
        calm.max(LEAST_WAIT).min(USUAL_WAIT.max(calm))
    }
}

impl Limits {
    /// The level that a reading speaks for, with limits of stalls times `stalls` and of
    /// what is available times a fraction.
    fn level(&self, reading: &MemoryReading, stalls: f64, available: (u64, u64)) -> MemoryLevel {
        let above = |value: Option<f64>, limit: f64| value.is_some_and(|v| v >= limit * stalls);
        let short_of = |limit: Option<u64>| {
            let limit = limit.map(|limit| limit.saturating_mul(available.0) / available.1);
            matches!((reading.available, limit), (Some(left), Some(limit)) if left < limit)
        };
        let most = self
            .budget
            .map(|budget| budget.saturating_add(budget / OVER_SHARE + OVER));
        let over = matches!((reading.resident, most), (Some(own), Some(most)) if own > most);
        let half = self.reserve.map(|reserve| reserve / 2);
        if above(reading.some, REFUSE_SOME) || above(reading.full, REFUSE_FULL) || short_of(half) {
            MemoryLevel::Refusing
        } else if above(reading.some, TIGHT_SOME) || short_of(self.reserve) || over {
            MemoryLevel::Tight
        } else {
            MemoryLevel::Normal
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);
    const MIB: u64 = 1 << 20;

    struct Machine {
        pressure: Pressure,
        now: Instant,
    }

    impl Machine {
        fn new() -> Self {
            let limits = Limits {
                reserve: Some(100 * MIB),
                budget: Some(500 * MIB),
            };
            Self {
                pressure: Pressure::new(limits, PATIENCE),
                now: Instant::now(),
            }
        }

        /// The level after so many seconds of this, with a reading every two.
        fn after(&mut self, reading: MemoryReading, seconds: u64) -> MemoryLevel {
            for _ in 0..seconds / 2 {
                self.now += Duration::from_secs(2);
                self.pressure.look(&reading, self.now);
            }
            self.pressure.level()
        }
    }

    fn available(mib: u64) -> MemoryReading {
        MemoryReading {
            available: Some(mib * MIB),
            resident: Some(200 * MIB),
            some: None,
            full: None,
        }
    }

    fn stalls(some: f64, full: f64) -> MemoryReading {
        MemoryReading {
            some: Some(some),
            full: Some(full),
            ..available(400)
        }
    }

    #[test]
    fn levels_by_what_is_available() {
        use MemoryLevel::{Normal, Refusing, Tight};
        let mut machine = Machine::new();
        assert_eq!(machine.after(available(100), 60), Normal);
        assert_eq!(machine.after(available(99), 2), Tight);
        assert_eq!(machine.after(available(50), 60), Tight);
        assert_eq!(machine.after(available(49), 2), Refusing);
        // A quarter more than where it began, for a while.
        assert_eq!(machine.after(available(62), 600), Refusing);
        assert_eq!(machine.after(available(63), 20), Refusing);
        assert_eq!(machine.after(available(63), 2), Tight);
        assert_eq!(machine.after(available(124), 600), Tight);
        assert_eq!(machine.after(available(125), 22), Normal);
    }

    #[test]
    fn levels_by_stalls() {
        use MemoryLevel::{Normal, Refusing, Tight};
        let mut machine = Machine::new();
        assert_eq!(machine.after(stalls(9.9, 0.0), 60), Normal);
        assert_eq!(machine.after(stalls(10.0, 0.0), 2), Tight);
        assert_eq!(machine.after(stalls(39.0, 9.9), 60), Tight);
        assert_eq!(machine.after(stalls(12.0, 10.0), 2), Refusing);
        assert_eq!(machine.after(stalls(12.0, 5.0), 600), Refusing);
        assert_eq!(machine.after(stalls(12.0, 4.9), 22), Tight);
        assert_eq!(machine.after(stalls(5.0, 0.0), 600), Tight);
        assert_eq!(machine.after(stalls(4.9, 0.0), 22), Normal);
        assert_eq!(machine.after(stalls(40.0, 0.0), 2), Refusing);
        assert_eq!(machine.after(stalls(0.0, 0.0), 42), Normal);
    }

    #[test]
    fn far_beyond_its_budget_it_keeps_less() {
        let mut machine = Machine::new();
        let own = |mib: u64| MemoryReading {
            resident: Some(mib * MIB),
            ..available(400)
        };
        assert_eq!(machine.after(own(594), 60), MemoryLevel::Normal);
        assert_eq!(machine.after(own(595), 60), MemoryLevel::Tight);
        assert_eq!(machine.after(own(450), 22), MemoryLevel::Normal);
    }

    #[test]
    fn a_machine_that_says_nothing_is_not_short() {
        let mut machine = Machine::new();
        let nothing = MemoryReading::default();
        assert_eq!(machine.after(nothing, 60), MemoryLevel::Normal);
    }

    #[test]
    fn whoever_is_refused_is_told_to_wait() {
        let mut machine = Machine::new();
        machine.after(available(10), 2);
        assert_eq!(machine.pressure.wait(machine.now), PATIENCE);
        machine.after(available(400), 16);
        assert_eq!(machine.pressure.wait(machine.now), LEAST_WAIT);
    }
}
