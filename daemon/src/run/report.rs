//! What the node tells without being asked: figures now and then, and what happens.

use std::time::{Duration, Instant};

use super::Daemon;
use crate::wire::{Event, StrainMetrics};

/// When the figures are to be told next.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Option<Duration>,
    due: Option<Instant>,
}

impl Pace {
    /// So long from one time to the next; `None`: never.
    pub(super) fn new(interval: Option<Duration>) -> Self {
        let mut pace = Self {
            interval: None,
            due: None,
        };
        pace.set(interval);
        pace
    }

    /// Another interval, from now on.
    pub(super) fn set(&mut self, interval: Option<Duration>) {
        if self.interval != interval {
            self.interval = interval;
            self.told();
        }
    }

    /// When they are to be told; `None`: never.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    fn told(&mut self) {
        // An interval beyond all time is as good as none.
        self.due = (self.interval).and_then(|interval| Instant::now().checked_add(interval));
    }
}

impl Daemon {
    /// Tells systemd what `systemctl status` is to show.
    pub(super) fn tell_status(&mut self) {
        let counts = self.service.counts();
        let connection = match (self.link.is_up(), self.service.is_draining()) {
            (false, _) => "no connection to the broker",
            (true, true) => "draining",
            (true, false) => "online",
        };
        let strain = self.governor.status();
        let strain = strain.map_or(String::new(), |strain| format!("; {strain}"));
        self.systemd.status(format!(
            "{connection}; {} wait, {} answered, {} refused{strain}{}",
            self.service.waiting(),
            counts.answered,
            counts.refused,
            match self.presence.instead_of() {
                Some(wanted) => format!("; in place of {}: {}", wanted.model, wanted.reason),
                None => String::new(),
            }
        ));
    }

    /// Tells systemd that the daemon lives, if the running request goes on. One that waits
    /// for the connection to take its text does not.
    pub(super) fn give_sign(&mut self) {
        let computes = !self.service.is_idle() && self.link.outbox.has_room();
        let pulse = self.host.pulse().filter(|_| computes);
        self.systemd.look(pulse);
        self.tell_status();
    }

    /// Tells the figures of this moment, if there is somebody to tell them to.
    pub(super) fn report(&mut self) {
        if self.pace.due().is_none() {
            return;
        }
        self.pace.told();
        if self.link.is_up() {
            let strain = StrainMetrics {
                heat: self.governor.heat_level(),
                memory: self.governor.memory_level(),
                threads: self.host.threads(),
            };
            let metrics = self.presence.metrics(&self.service, strain);
            self.link.outbox.push(metrics);
        }
    }

    /// Tells what became of requests since the last time.
    pub(super) fn tell_events(&mut self) {
        while let Some(event) = self.service.next_event() {
            self.tell(event);
        }
    }

    /// Tells what happened. Nobody hears of it later: it is no history.
    pub(super) fn tell(&mut self, event: Event) {
        if self.link.is_up() {
            self.link.outbox.push(self.presence.event(event));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_due_after_their_interval_or_never() {
        let mut pace = Pace::new(None);
        assert_eq!(pace.due(), None);
        let before = Instant::now();
        pace.set(Some(Duration::from_secs(9)));
        let first = pace.due().unwrap();
        assert!(first >= before + Duration::from_secs(9));
        // The same again does not put it off.
        pace.set(Some(Duration::from_secs(9)));
        assert_eq!(pace.due(), Some(first));
        pace.told();
        assert!(pace.due().unwrap() >= first);
        pace.set(None);
        assert_eq!(pace.due(), None);
    }
}
