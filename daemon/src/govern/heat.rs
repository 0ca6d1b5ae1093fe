//! What to do against heat: readings in, a level out.
//!
//! The firmware of a Raspberry Pi takes away clock from 80 °C on, the kernel of a Jetson at
//! a passive trip point. Both do it by leaps, to keep the chip whole. Before it comes to that,
//! we have it produce less heat, by what costs least first.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::ladder::{Ladder, Level};
use super::readings::{HeatReading, Trip, TripKind};
use crate::config;
use crate::config::heat::LEAST_APART;
use crate::wire::HeatLevel;

/// Where neither the configuration nor the machine says more: below the 80 °C at which a
/// Raspberry Pi takes away clock, and the 85 °C at which it takes away a lot.
const SAFE: Limits = Limits {
    ease_off: 75.0,
    refuse: 83.0,
};
/// Of the defaults, between the two.
const APART: f64 = 8.0;
/// Below the trip point at which the kernel takes away clock.
const BELOW_PASSIVE: f64 = 3.0;
/// Below the trip point at which it switches the machine off.
const BELOW_CRITICAL: f64 = 7.0;
/// Trip points beyond these are not meant: some zones have 0 or -274 °C.
const PLAUSIBLE_TRIPS: std::ops::RangeInclusive<f64> = 50.0..=125.0;
/// Most °C below a level's temperature at which it is left.
const MOST_HYSTERESIS: f64 = 5.0;
/// The temperatures of so long tell how fast it falls.
const TREND: Duration = Duration::from_secs(30);
const TREND_READINGS: usize = 16;
/// To ask again after, at least and at most.
const LEAST_WAIT: Duration = Duration::from_secs(5);
const MOST_WAIT: Duration = Duration::from_secs(300);
/// Where nothing tells how long it takes.
const USUAL_WAIT: Duration = Duration::from_secs(60);

/// Temperatures in °C at which something is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    /// From here on with fewer threads.
    pub(crate) ease_off: f64,
    /// From here on nothing new.
    pub(crate) refuse: f64,
}

impl Limits {
    /// As the configuration has them, and what it does not have by the trip points of the
    /// zones. `raspberry_pi`: its firmware acts at temperatures that no trip point tells.
    pub(crate) fn new(config: &config::Heat, trips: &[Trip], raspberry_pi: bool) -> Self {
        let lowest = |wanted: &dyn Fn(TripKind) -> bool| {
            let trips = trips.iter().filter(|trip| wanted(trip.kind));
            let celsius = trips.map(|trip| trip.celsius);
            celsius
                .filter(|celsius| PLAUSIBLE_TRIPS.contains(celsius))
                .reduce(f64::min)
        };
        let slower = lowest(&|kind| kind != TripKind::Critical).filter(|_| !raspberry_pi);
        let usual = slower.map_or(SAFE.refuse, |passive| passive - BELOW_PASSIVE);
        let off = lowest(&|kind| kind == TripKind::Critical);
        let default = usual.min(off.map_or(f64::MAX, |critical| critical - BELOW_CRITICAL));
        let limits = match (config.ease_off, config.refuse) {
            (Some(ease_off), Some(refuse)) => Self { ease_off, refuse },
            (Some(ease_off), None) => Self {
                ease_off,
                refuse: default.max(ease_off + LEAST_APART),
            },
            (None, Some(refuse)) => Self {
                ease_off: (default.min(refuse) - APART),
                refuse,
            },
            (None, None) => Self {
                ease_off: default - APART,
                refuse: default,
            },
        };
        debug_assert!(limits.refuse - limits.ease_off >= LEAST_APART);
        limits
    }

    /// Where a level begins.
    fn begin(&self, level: HeatLevel) -> f64 {
        match level {
            HeatLevel::Normal => f64::NEG_INFINITY,
            HeatLevel::FewerThreads => self.ease_off,
            HeatLevel::Pauses => f64::midpoint(self.ease_off, self.refuse),
            HeatLevel::Refusing => self.refuse,
        }
    }

    /// How far below its beginning a level is left.
    fn hysteresis(&self) -> f64 {
        let step = (self.refuse - self.ease_off) / 2.0;
        step.clamp(1.0, MOST_HYSTERESIS)
    }

    /// The highest level that begins at or below a temperature.
    fn level(&self, celsius: f64) -> HeatLevel {
        let reached = |level: &&HeatLevel| celsius >= self.begin(**level);
        let highest = HeatLevel::ALL.iter().rfind(reached);
        highest.copied().unwrap_or_default()
    }
}

impl Level for HeatLevel {
    fn below(self) -> Self {
        match self {
            Self::Normal | Self::FewerThreads => Self::Normal,
            Self::Pauses => Self::FewerThreads,
            Self::Refusing => Self::Pauses,
        }
    }
}

/// The level, and what it comes from.
#[derive(Debug)]
pub(super) struct Heat {
    limits: Limits,
    ladder: Ladder<HeatLevel>,
    /// The last temperatures, the newest last.
    trend: VecDeque<(Instant, f64)>,
}

impl Heat {
    pub(super) fn new(limits: Limits, patience: Duration) -> Self {
        Self {
            limits,
            ladder: Ladder::new(HeatLevel::Normal, patience),
            trend: VecDeque::with_capacity(TREND_READINGS),
        }
    }

    /// Other limits; the level stays until the next reading.
    pub(super) fn configure(&mut self, limits: Limits, patience: Duration) {
        self.limits = limits;
        self.ladder.set_patience(patience);
    }

    pub(super) fn level(&self) -> HeatLevel {
        self.ladder.level()
    }

    /// Takes a reading; whether the level is another one now.
    pub(super) fn look(&mut self, reading: &HeatReading, now: Instant) -> bool {
        // A supply that is too weak, or a machine that is slowed down already: less load
        // helps, but it need not be as hot as that.
        let slower = reading.throttled || reading.under_voltage;
        let floor = match slower {
            true => HeatLevel::FewerThreads,
            false => HeatLevel::Normal,
        };
        let Some(celsius) = reading.celsius else {
            // Without a temperature nothing speaks for heat; the firmware looks for itself.
            return self.ladder.settle(floor, floor, now);
        };
        if self.trend.len() == TREND_READINGS {
            self.trend.pop_front();
        }
        self.trend.push_back((now, celsius));
        let raised = self.limits.level(celsius).max(floor);
        let held = self.limits.level(celsius + self.limits.hysteresis());
        self.ladder.settle(raised, held.max(floor), now)
    }

    /// When something new may be taken again: an estimate.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let calm = self.ladder.left_in(now);
        let target = self.limits.refuse - self.limits.hysteresis();
        let cooling = match self.trend.back() {
            Some(&(_, celsius)) if celsius >= target => {
                self.falls_in(celsius - target, now).unwrap_or(USUAL_WAIT)
            }
            _ => Duration::ZERO,
        };
        (cooling.saturating_add(calm)).clamp(LEAST_WAIT, MOST_WAIT)
    }

    /// How long it takes to fall by so many degrees, going on as it did; `None` if it does
    /// not fall.
    fn falls_in(&self, degrees: f64, now: Instant) -> Option<Duration> {
        let recent = |(at, _): &&(Instant, f64)| now.saturating_duration_since(*at) <= TREND;
        let (first, then) = self.trend.iter().find(recent)?;
        let (last, celsius) = self.trend.back()?;
        let seconds = last.saturating_duration_since(*first).as_secs_f64();
        let per_second = (then - celsius) / seconds;
        // A NaN, of one reading, is not positive.
        (per_second > 0.0)
            .then(|| Duration::try_from_secs_f64(degrees / per_second).unwrap_or(MOST_WAIT))
    }
}

#[cfg(test)]
mod tests;
