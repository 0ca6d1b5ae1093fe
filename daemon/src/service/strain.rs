//! Heat and want of memory, as far as they are the service's matter: who is refused, and
//! what replies say of it.

use std::time::{Duration, Instant};

use super::{Arrival, Service};
use crate::refusal::Refusal;
use crate::wire::{ErrorCode, HeatLevel};

/// Sooner need nobody ask again.
const LEAST_WAIT: Duration = Duration::from_secs(1);

/// What the machine's state asks of the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strain {
    /// What is done against heat.
    pub heat: HeatLevel,
    /// Whether nothing new is taken.
    pub refusing: Option<Refusing>,
}

/// Why nothing new is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusing {
    /// [`ErrorCode::Overheated`] or [`ErrorCode::LowMemory`].
    pub code: ErrorCode,
    /// When it may be different: an estimate.
    pub until: Instant,
}

impl Service {
    /// Takes over what the machine's state asks for, from now on. What waits and what runs
    /// gets its answer all the same.
    pub fn set_strain(&mut self, strain: Strain) {
        self.strain = strain;
        if let Some(running) = &mut self.running {
            running.slow_down(strain.heat);
        }
    }

    /// Whether nothing new is taken for want of coolness or memory.
    pub fn is_refusing(&self) -> bool {
        self.strain.refusing.is_some()
    }

    /// Refuses what is new, if nothing is to be taken. Not what was taken before: what the
    /// broker sends again, and what waited in here for room.
    pub(super) fn bear(&self, arrival: &Arrival<'_>) -> Result<(), Refusal> {
        let had = arrival.waited || arrival.request.redelivered;
        match self.strain.refusing.filter(|_| !had) {
            None => Ok(()),
            Some(Refusing { code, until }) => {
                let problem = match code {
                    ErrorCode::Overheated => "this node is too hot to take anything new",
                    _ => "this node has too little memory to take anything new",
                };
                let wait = until.saturating_duration_since(arrival.now);
                Err(Refusal::for_now(code, problem, wait.max(LEAST_WAIT)))
            }
        }
    }
}
