//! What the types cannot say: every problem of a profile at once.
//!
//! Nothing here touches a disk.

use std::ops::RangeInclusive;

use thiserror::Error;

use crate::models::{self, Needs};
use crate::profile::{Basis, ByMemory, KvCache, Model, Profile};

/// The engine's kernels, by name.
const KERNELS: [&str; 7] = [
    "scalar",
    "avx2",
    "avx512",
    "avx512-vnni",
    "neon",
    "neon-dotprod",
    "neon-i8mm",
];
/// Linux numbers no more cores in a thread's mask.
const MAX_CORES: usize = 1024;
/// A limit below is reached in a warm room, one above is beyond every processor.
const CELSIUS: RangeInclusive<f64> = 40.0..=110.0;
const MAX_RAM_MIB: u64 = 1 << 24;
const MAX_CONTEXT: usize = 1 << 20;
const MAX_PREFILL_CHUNK: usize = 65_536;
/// The share of the memory's speed that decode reaches: `docs/performance.md`.
pub(crate) const SHARE: f64 = 0.85;
/// How far an estimate may be from what its formula gives: figures are rounded.
const ROUNDING: f64 = 0.05;

/// One thing wrong with a profile.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{key}: {message}")]
pub struct Problem {
    /// The key, with its section.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem {
            key: key.into(),
            message: message.into(),
        });
    }

    fn range<T: PartialOrd + std::fmt::Display>(
        &mut self,
        key: impl Into<String>,
        value: Option<T>,
        allowed: RangeInclusive<T>,
    ) {
        if let Some(value) = value.filter(|value| !allowed.contains(value)) {
            let (least, most) = (allowed.start(), allowed.end());
            self.add(key, format!("is {value}; give {least} to {most}"));
        }
    }
}

impl Profile {
    /// Every problem there is; none means that the profile can be used.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Problems::default();
        self.check_names(&mut found);
        self.check_processor(&mut found);
        self.check_memory(&mut found);
        self.check_heat(&mut found);
        for (index, model) in self.models.iter().enumerate() {
            self.check_model(&format!("models[{index}]"), model, &mut found);
        }
        found.0
    }

    fn check_names(&self, found: &mut Problems) {
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !(1..=64).contains(&self.name.len()) || !self.name.chars().all(letter) {
            found.add("name", "give 1 to 64 of a-z, 0-9 and -");
        }
        if self.title.trim().is_empty() || self.title.chars().any(char::is_control) {
            found.add(
                "title",
                "is empty or has control characters; give a name for people",
            );
        }
        for (index, name) in self.compatible.iter().enumerate() {
            let key = format!("compatible[{index}]");
            // "vendor,model", as the specification of device trees has it.
            let parts = name.split_once(',').map(|(vendor, model)| [vendor, model]);
            let printable = name.chars().all(|c| c.is_ascii_graphic());
            if !printable || !parts.is_some_and(|parts| parts.iter().all(|part| !part.is_empty())) {
                found.add(&key, "give vendor,model as in /proc/device-tree/compatible");
            }
            if self.compatible[..index].contains(name) {
                found.add(key, format!("{name} is there twice"));
            }
        }
    }

    fn check_processor(&self, found: &mut Problems) {
        let processor = &self.processor;
        let count = processor.count;
        found.range("processor.count", count, 1..=MAX_CORES);
        let most = count.unwrap_or(MAX_CORES).max(1);
        for (key, threads) in [
            ("processor.prefill-threads", processor.prefill_threads),
            ("processor.decode-threads", processor.decode_threads),
        ] {
            found.range(key, threads, 1..=most);
        }
        if let Some(cores) = &processor.cores {
            let key = "processor.cores";
            if cores.is_empty() {
                found.add(key, "is empty; leave it out to pin no thread");
            }
            if let Some(core) = cores.iter().find(|core| **core >= most) {
                found.add(
                    key,
                    format!("{core} is none of the {most} cores, 0 to {}", most - 1),
                );
            }
            let twice = |(index, core): (usize, &usize)| cores[..index].contains(core);
            if cores.iter().enumerate().any(twice) {
                found.add(key, "has a core twice");
            }
            let threads = processor.prefill_threads.max(processor.decode_threads);
            if threads.is_some_and(|threads| threads > cores.len()) {
                found.add(key, "are fewer than there are threads to pin to them");
            }
        }
        if let Some(kernels) = &processor.kernels
            && !KERNELS.contains(&kernels.as_str())
        {
            let known = KERNELS.join(", ");
            found.add(
                "processor.kernels",
                format!("is {kernels:?}; give one of {known}"),
            );
        }
    }

    fn check_memory(&self, found: &mut Problems) {
        let memory = &self.memory;
        found.range("memory.visible-percent", memory.visible_percent, 50..=100);
        for size in &memory.sizes_mib {
            found.range("memory.sizes-mib", Some(*size), 128..=MAX_RAM_MIB);
        }
        let least = memory.sizes_mib.iter().min().copied();
        let least = least.unwrap_or(MAX_RAM_MIB);
        found.range("memory.reserve-mib", memory.reserve_mib, 0..=least / 2);
        if let Some(bandwidth) = &memory.bandwidth {
            let key = "memory.bandwidth.gb-per-second";
            found.range(key, Some(bandwidth.gb_per_second), 0.1..=10_000.0);
            if bandwidth.source.trim().is_empty() {
                found.add(
                    "memory.bandwidth.source",
                    "is empty; say where the figure is from",
                );
            }
        }
        let mut before = None;
        for (index, rule) in self.by_memory.iter().enumerate() {
            let key = |name: &str| format!("by-memory[{index}].{name}");
            found.range(key("ram-mib"), Some(rule.ram_mib), 128..=MAX_RAM_MIB);
            if before.is_some_and(|before| before >= rule.ram_mib) {
                found.add(
                    key("ram-mib"),
                    "is not more than the one before; order them by it",
                );
            }
            before = Some(rule.ram_mib);
            found.range(key("context-length"), rule.context_length, 1..=MAX_CONTEXT);
            found.range(
                key("prefill-chunk"),
                rule.prefill_chunk,
                1..=MAX_PREFILL_CHUNK,
            );
        }
    }

    fn check_heat(&self, found: &mut Problems) {
        let Some(heat) = &self.heat else {
            return;
        };
        if heat.zones.is_empty() || heat.zones.iter().any(|zone| zone.trim().is_empty()) {
            found.add(
                "heat.zones",
                "give types as in /sys/class/thermal/thermal_zone*/type",
            );
        }
        found.range("heat.ease-off", Some(heat.ease_off), CELSIUS);
        found.range("heat.refuse", Some(heat.refuse), CELSIUS);
        if heat.ease_off >= heat.refuse {
            found.add(
                "heat.refuse",
                "is not above ease-off; it is the last resort",
            );
        }
    }

    fn check_model(&self, key: &str, model: &Model, found: &mut Problems) {
        let Some(shape) = models::shape(&model.model) else {
            let known: Vec<_> = models::shapes().iter().map(|shape| shape.name).collect();
            let message = format!("is {:?}; give one of {}", model.model, known.join(", "));
            found.add(format!("{key}.model"), message);
            return;
        };
        let most = shape.context_length;
        found.range(
            format!("{key}.context-length"),
            Some(model.context_length),
            1..=most,
        );
        found.range(
            format!("{key}.decode"),
            Some(model.decode),
            0.01..=100_000.0,
        );
        if model.source.trim().is_empty() {
            found.add(
                format!("{key}.source"),
                "is empty; say where the figure is from",
            );
        }
        if !self.memory.sizes_mib.contains(&model.ram_mib) {
            found.add(format!("{key}.ram-mib"), "is none of memory.sizes-mib");
        }
        let rule = self.rule(model.ram_mib);
        let kv_cache = rule.and_then(|rule| rule.kv_cache).unwrap_or(KvCache::F16);
        let chunk = rule.and_then(|rule| rule.prefill_chunk).unwrap_or(128);
        let needs = Needs::of(shape, kv_cache, model.context_length, chunk).mib();
        let room = self.room_mib(model.ram_mib);
        if needs > room {
            let message = format!(
                "{} takes {needs} MiB, but {} MiB leave it {room}: give it more memory or less context",
                model.model, model.ram_mib
            );
            found.add(format!("{key}.ram-mib"), message);
        }
        if model.basis == Basis::Estimate {
            let Some(bandwidth) = &self.memory.bandwidth else {
                found.add(format!("{key}.basis"), "an estimate needs memory.bandwidth");
                return;
            };
            let estimate = bandwidth.gb_per_second * SHARE * 1e9 / shape.read_bytes() as f64;
            if (model.decode / estimate - 1.0).abs() > ROUNDING {
                let message = format!(
                    "is {}, but {} of {} GB/s and {} MB a token make {estimate:.1}",
                    model.decode,
                    SHARE,
                    bandwidth.gb_per_second,
                    shape.read_bytes() / 1_000_000
                );
                found.add(format!("{key}.decode"), message);
            }
        }
    }

    /// What a model may take on a board with so much memory.
    fn room_mib(&self, ram_mib: u64) -> u64 {
        let visible = self.memory.visible_percent.unwrap_or(100);
        let reserve = self.memory.reserve_mib.unwrap_or(0);
        (ram_mib.saturating_mul(visible) / 100).saturating_sub(reserve)
    }

    /// What applies to boards of that size.
    pub(crate) fn rule(&self, ram_mib: u64) -> Option<&ByMemory> {
        self.by_memory
            .iter()
            .rev()
            .find(|rule| rule.ram_mib <= ram_mib)
    }
}

#[cfg(test)]
mod tests;
