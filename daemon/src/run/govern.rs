//! Has the daemon do what the governor decides.

use std::time::Instant;

use super::Daemon;
use crate::wire::MemoryLevel;

impl Daemon {
    /// When to look at the machine.
    pub(super) fn govern_due(&self) -> Option<Instant> {
        self.governor.due(!self.service.is_idle())
    }

    /// Takes over another configuration.
    pub(super) fn configure_governor(&mut self) {
        self.governor.configure(&self.config);
        // One that is switched off holds nothing back any more.
        self.host.set_effort(self.governor.effort());
        self.service
            .set_strain(self.governor.strain(Instant::now()));
    }

    /// Looks at the machine, and does what is to be done.
    pub(super) fn govern(&mut self) {
        let now = Instant::now();
        let events = self.governor.look(now);
        // The estimate when to ask again changes with every look.
        self.service.set_strain(self.governor.strain(now));
        if events.is_empty() {
            return;
        }
        self.host.set_effort(self.governor.effort());
        if self.governor.memory_level() > MemoryLevel::Normal {
            self.host.release();
        }
        for event in events {
            self.tell(event);
        }
        self.report();
        self.tell_status();
    }
}
