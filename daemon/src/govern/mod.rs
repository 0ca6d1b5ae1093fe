//! Heat and memory: what the node does before the machine throttles or runs out.
//!
//! [`heat`] and [`pressure`] decide, from readings and without a clock of their own;
//! [`budget`] says beforehand whether a model fits; [`readings`] reads.

mod budget;
mod heat;
mod ladder;
mod machine;
mod pressure;
mod readings;

use std::time::{Duration, Instant};

use chaski_engine::{LoadOptions, Manifest};
use tracing::{info, warn};

pub use budget::{Fit, human};
pub use machine::Machine;

use crate::config::Config;
use crate::inference::Effort;
use crate::service::{Refusing, Strain};
use crate::wire::{ErrorCode, Event, HeatLevel, MemoryLevel};
use heat::Heat;
use pressure::Pressure;
use readings::{HeatReading, MemoryReading};

/// From one look to the next while something is computed or held back.
const SOON: Duration = Duration::from_secs(2);
/// And while nothing is.
const IDLE: Duration = Duration::from_secs(30);

/// The memory that a node may take, as the configuration and the machine have it.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    config: crate::config::Memory,
    machine: Machine,
}

impl Budget {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            config: config.memory.clone(),
            machine: Machine::new(config),
        }
    }

    /// The options by which a model fits what there is (without `now`: what there would be
    /// if nothing else ran); an error says what would fit. `wish`: the context to take where
    /// the options leave it open.
    pub(crate) fn fit(
        &self,
        manifest: &Manifest,
        options: LoadOptions,
        wish: Option<usize>,
        now: bool,
    ) -> Result<Fit, String> {
        let mut there = self.machine.memory_there();
        there.available = there.available.filter(|_| now);
        // Where nothing is known anything may fit.
        let budget = budget::budget(&self.config, &there).unwrap_or(u64::MAX);
        budget::fit(manifest, options, wish, budget)
    }
}

/// Looks at the machine and decides.
#[derive(Debug)]
pub(crate) struct Governor {
    machine: Machine,
    /// `None`: switched off.
    heat: Option<Heat>,
    memory: Option<Pressure>,
    /// When it last looked,
    looked: Instant,
    /// unless it is to look at once.
    at_once: bool,
}

impl Governor {
    /// Has not looked yet, and is to soon.
    pub(crate) fn new(config: &Config, now: Instant) -> Self {
        let machine = Machine::new(config);
        let there = machine.memory_there();
        let memory = config.memory.control.then(|| {
            let reserve = |total| budget::reserve(&config.memory, total);
            let limits = pressure::Limits {
                reserve: there.total.map(reserve),
                budget: budget::budget(&config.memory, &there),
            };
            Pressure::new(limits, config.memory.recover())
        });
        let mut governor = Self {
            machine,
            heat: None,
            memory,
            looked: now,
            at_once: true,
        };
        governor.configure(config);
        governor
    }

    /// Takes over `[heat]`. `[memory]` needs a restart.
    pub(crate) fn configure(&mut self, config: &Config) {
        self.machine = Machine::new(config);
        self.at_once = true;
        if !config.heat.control {
            self.heat = None;
            return;
        }
        let raspberry_pi = self.machine.firmware().is_some();
        let limits = heat::Limits::new(&config.heat, &self.machine.trips(), raspberry_pi);
        match &mut self.heat {
            Some(heat) => heat.configure(limits, config.heat.recover()),
            None => {
                info!(
                    ease_off = limits.ease_off,
                    refuse = limits.refuse,
                    "°C from which on less is done"
                );
                self.heat = Some(Heat::new(limits, config.heat.recover()));
            }
        }
    }

    /// When to look again; `None`: never.
    pub(crate) fn due(&self, computing: bool) -> Option<Instant> {
        if self.heat.is_none() && self.memory.is_none() {
            return None;
        }
        let strained = self.heat_level() > HeatLevel::Normal;
        let strained = strained || self.memory_level() > MemoryLevel::Normal;
        let interval = match computing || strained {
            _ if self.at_once => Duration::ZERO,
            true => SOON,
            false => IDLE,
        };
        self.looked.checked_add(interval)
    }

    /// Looks; what has changed.
    pub(crate) fn look(&mut self, now: Instant) -> Vec<Event> {
        self.looked = now;
        self.at_once = false;
        let mut events = Vec::new();
        if let Some(heat) = &mut self.heat {
            let reading = self.machine.heat();
            let before = heat.level();
            if heat.look(&reading, now) {
                tell_heat(before, heat.level(), &reading);
                let known = reading.under_voltage || self.machine.firmware().is_some();
                events.push(Event::Heat {
                    level: heat.level(),
                    temperature_celsius: reading.celsius,
                    under_voltage: known.then_some(reading.under_voltage),
                });
            }
        }
        if let Some(memory) = &mut self.memory {
            let reading = self.machine.pressure();
            let before = memory.level();
            if memory.look(&reading, now) {
                tell_memory(before, memory.level(), &reading);
                events.push(Event::Memory {
                    level: memory.level(),
                    available_bytes: reading.available,
                });
            }
        }
        events
    }

    pub(crate) fn heat_level(&self) -> HeatLevel {
        self.heat.as_ref().map(Heat::level).unwrap_or_default()
    }

    pub(crate) fn memory_level(&self) -> MemoryLevel {
        self.memory
            .as_ref()
            .map(Pressure::level)
            .unwrap_or_default()
    }

    /// How hard the inference thread may work.
    pub(crate) fn effort(&self) -> Effort {
        let full = Effort {
            keeps_cache: self.memory_level() == MemoryLevel::Normal,
            ..Effort::default()
        };
        match self.heat_level() {
            HeatLevel::Normal => full,
            HeatLevel::FewerThreads => Effort {
                halvings: 1,
                ..full
            },
            HeatLevel::Pauses => Effort {
                halvings: 1,
                pause_percent: 100,
                ..full
            },
            HeatLevel::Refusing => Effort {
                halvings: 2,
                pause_percent: 300,
                ..full
            },
        }
    }

    /// What the service is to know.
    pub(crate) fn strain(&self, now: Instant) -> Strain {
        let heat = self.heat.as_ref();
        let heat = heat.filter(|heat| heat.level() == HeatLevel::Refusing);
        let memory = self.memory.as_ref();
        let memory = memory.filter(|memory| memory.level() == MemoryLevel::Refusing);
        let refusing = match (heat, memory) {
            (Some(heat), _) => Some((ErrorCode::Overheated, heat.wait(now))),
            (None, Some(memory)) => Some((ErrorCode::LowMemory, memory.wait(now))),
            (None, None) => None,
        };
        Strain {
            heat: self.heat_level(),
            refusing: refusing.map(|(code, wait)| Refusing {
                code,
                until: now.checked_add(wait).unwrap_or(now),
            }),
        }
    }

    /// For people; `None` while nothing is held back.
    pub(crate) fn status(&self) -> Option<String> {
        let heat = match self.heat_level() {
            HeatLevel::Normal => None,
            HeatLevel::FewerThreads => Some("hot: with fewer threads"),
            HeatLevel::Pauses => Some("hot: with pauses"),
            HeatLevel::Refusing => Some("too hot: takes nothing new"),
        };
        let memory = match self.memory_level() {
            MemoryLevel::Normal => None,
            MemoryLevel::Tight => Some("little memory"),
            MemoryLevel::Refusing => Some("too little memory: takes nothing new"),
        };
        let all: Vec<&str> = heat.into_iter().chain(memory).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }
}

fn tell_heat(before: HeatLevel, level: HeatLevel, reading: &HeatReading) {
    let HeatReading {
        celsius,
        throttled,
        under_voltage,
    } = reading;
    let (before, name) = (before.as_str(), level.as_str());
    match level {
        HeatLevel::Normal => info!(before, ?celsius, "the machine has cooled down"),
        _ => warn!(
            level = name,
            before,
            ?celsius,
            throttled,
            under_voltage,
            "less is done against heat or a weak supply"
        ),
    }
}

fn tell_memory(before: MemoryLevel, level: MemoryLevel, reading: &MemoryReading) {
    let MemoryReading {
        available,
        resident,
        some,
        full,
    } = reading;
    let (before, name) = (before.as_str(), level.as_str());
    let available = available.map(human);
    let resident = resident.map(human);
    match level {
        MemoryLevel::Normal => info!(before, ?available, ?resident, "there is memory again"),
        _ => warn!(
            level = name,
            before,
            ?available,
            ?resident,
            ?some,
            ?full,
            "the machine is short of memory"
        ),
    }
}

#[cfg(test)]
mod tests;
