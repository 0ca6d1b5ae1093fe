//! What is counted and told: tokens, speed, and what happened to each request.

use super::{Service, render};
use crate::inference::Completed;
use crate::wire::{Event, SpeedMetrics, TokenMetrics};

/// Events that nobody fetched yet; later ones are lost.
pub(super) const EVENTS: usize = 32;

/// What the requests took that were computed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Tokens since the daemon started.
    pub tokens: TokenMetrics,
    /// Speed of the last answer.
    pub speed: Option<SpeedMetrics>,
}

impl Figures {
    /// A request was computed.
    pub(super) fn computed(&mut self, completed: &Completed) {
        let timings = &completed.generated.timings;
        let tokens = &mut self.tokens;
        tokens.prompt += completed.prompt_tokens as u64;
        tokens.cached += timings.cached_tokens as u64;
        tokens.completion += completed.generated.tokens.len() as u64;
        tokens.prefix_cache_hits += u64::from(timings.cached_tokens > 0);
        self.speed = Some(render::speed(timings));
    }
}

impl Service {
    /// What the requests took that were computed.
    pub fn figures(&self) -> Figures {
        self.figures
    }

    /// What happened and was not told of yet, the first of it.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(super) fn tell(&mut self, event: Event) {
        // Where so much happens at once, nobody misses the rest: it is counted.
        let _ = self.events.push_back(event);
    }
}
