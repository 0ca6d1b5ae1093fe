//! What a profile sets on a machine: pure arithmetic over what was found there.

use crate::MIB;
use crate::facts::Facts;
use crate::profile::{KvCache, Profile};

/// Boards are sold with so much memory times a power of two.
const SMALLEST_MIB: u64 = 256;

/// What a profile sets; `None`: what it leaves alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Threads that compute.
    pub threads: Option<usize>,
    /// How many of them decode.
    pub decode_threads: Option<usize>,
    /// Cores they are pinned to.
    pub cores: Option<Vec<usize>>,
    /// What the KV cache is kept in.
    pub kv_cache: Option<KvCache>,
    /// Tokens of prompt and answer together, if there is memory for them.
    pub context_length: Option<usize>,
    /// Prompt tokens computed at a time.
    pub prefill_chunk: Option<usize>,
}

impl Profile {
    /// What it sets on a machine.
    pub fn settings(&self, facts: &Facts) -> Settings {
        let processor = &self.processor;
        // Cores that a power mode turned off cannot be pinned to, and the others then have
        // to do without a plan.
        let on = |cores: &&Vec<usize>| cores.iter().all(|core| facts.cores.contains(core));
        let cores = processor.cores.as_ref().filter(on).cloned();
        let threads = processor.prefill_threads.max(processor.decode_threads);
        let most = match &cores {
            Some(cores) => cores.len(),
            None if facts.cores.is_empty() => usize::MAX,
            None => facts.cores.len(),
        };
        let rule = facts
            .memory_bytes
            .and_then(|bytes| self.rule(nominal_mib(bytes)));
        Settings {
            threads: threads.map(|threads| threads.min(most)),
            decode_threads: processor.decode_threads.map(|threads| threads.min(most)),
            cores,
            kv_cache: rule.and_then(|rule| rule.kv_cache),
            context_length: rule.and_then(|rule| rule.context_length),
            prefill_chunk: rule.and_then(|rule| rule.prefill_chunk),
        }
    }
}

/// The size of memory that a board is sold with, by what Linux shows of it: firmware, kernel
/// and graphics have the rest.
pub fn nominal_mib(memory_bytes: u64) -> u64 {
    let mut size = SMALLEST_MIB;
    while size.saturating_mul(MIB) < memory_bytes && size < u64::MAX / 2 / MIB {
        size *= 2;
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin::by_name;

    fn facts(mib: u64, cores: usize) -> Facts {
        Facts {
            memory_bytes: Some(mib * MIB),
            cores: (0..cores).collect(),
            ..Facts::default()
        }
    }

    #[test]
    fn sizes_as_boards_show_them() {
        for (shown, sold) in [
            (416, 512),
            (512, 512),
            (906, 1024),
            (1849, 2048),
            (3793, 4096),
            (6400, 8192),
            (7812, 8192),
            (16_218, 16_384),
            (63_000, 65_536),
        ] {
            assert_eq!(nominal_mib(shown * MIB), sold, "{shown}");
        }
        assert_eq!(nominal_mib(0), SMALLEST_MIB);
        assert!(nominal_mib(u64::MAX) > 1 << 40);
    }

    #[test]
    fn less_memory_means_a_smaller_cache() {
        let pi = by_name("raspberry-pi-4b").unwrap();
        let (small, large) = (pi.settings(&facts(906, 4)), pi.settings(&facts(7812, 4)));
        assert_eq!(small.kv_cache, Some(KvCache::Int8));
        assert!(small.context_length < large.context_length);
        // The engine's own chunk is larger.
        assert_eq!((small.prefill_chunk, large.prefill_chunk), (Some(64), None));
        let unknown = pi.settings(&Facts::default());
        assert_eq!((unknown.context_length, unknown.threads), (None, Some(4)));
    }

    #[test]
    fn threads_have_cores_to_run_on() {
        let orin = by_name("jetson-orin-nano").unwrap();
        let all = orin.settings(&facts(7600, 6));
        assert_eq!((all.threads, all.decode_threads), (Some(6), Some(4)));
        // Its power mode of 7 W has four cores on.
        assert_eq!(orin.settings(&facts(7600, 4)).threads, Some(4));
    }

    #[test]
    fn cores_that_are_off_are_not_pinned_to() {
        let text = "name = \"m\"\ntitle = \"M\"\n[processor]\ncount = 6\ncores = [4, 5]\n\
            prefill-threads = 2\ndecode-threads = 1\n";
        let profile = Profile::parse(text).unwrap();
        assert_eq!(profile.problems(), []);
        let on = profile.settings(&facts(1024, 6));
        assert_eq!((on.cores, on.threads), (Some(vec![4, 5]), Some(2)));
        let off = profile.settings(&facts(1024, 4));
        assert_eq!((off.cores, off.threads), (None, Some(2)));
    }
}
