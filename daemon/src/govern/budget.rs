//! Whether a model fits the memory that the node may take, before it is loaded.

use chaski_engine::{KvFormat, LoadOptions, Manifest, MemoryNeeded, Model};

use super::readings::MemoryThere;
use crate::config;

const MIB: u64 = 1 << 20;
/// Left to others where the configuration does not say: this share of the machine's,
const RESERVED_SHARE: u64 = 16;
/// but not less, as a small system needs as much,
const LEAST_RESERVE: u64 = 48 * MIB;
/// nor more.
const MOST_RESERVE: u64 = 512 * MIB;
/// Contexts that are proposed are multiples of this.
const CONTEXT_STEP: usize = 128;
/// A shorter one than this is of no use as a default.
const LEAST_CONTEXT: usize = 256;

/// What is left to others, of a machine of this size.
pub(super) fn reserve(config: &config::Memory, total: u64) -> u64 {
    match config.reserve_mib {
        Some(mib) => mib.saturating_mul(MIB),
        None => (total / RESERVED_SHARE).clamp(LEAST_RESERVE, MOST_RESERVE),
    }
}

/// What the node may take; `None` where neither the configuration nor the machine says.
pub(super) fn budget(config: &config::Memory, there: &MemoryThere) -> Option<u64> {
    let own = match config.budget_mib {
        Some(mib) => Some(mib.saturating_mul(MIB)),
        None => there.total.map(|total| {
            let available = there
                .available
                .map_or(total, |a| a.saturating_add(there.own));
            available.min(total).saturating_sub(reserve(config, total))
        }),
    };
    own.into_iter().chain(there.cgroup).min()
}

/// How a model fits into memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// With the context length that fits, where the configuration does not say.
    pub options: LoadOptions,
    /// The memory that it takes at most.
    pub needed: MemoryNeeded,
    /// The context length in place of this one, which would not have fit.
    pub instead_of: Option<usize>,
}

/// Finds the options by which a model fits a budget: those that are given or, without a
/// context length, with the longest that fits, up to `wish` or the engine's default. An error
/// says what would fit.
pub(super) fn fit(
    manifest: &Manifest,
    options: LoadOptions,
    wish: Option<usize>,
    budget: u64,
) -> Result<Fit, String> {
    let of = |context: usize, kv_cache: KvFormat| {
        let options = LoadOptions {
            context_length: Some(context),
            kv_cache,
            ..options.clone()
        };
        (Model::memory_needed(manifest, &options), options)
    };
    let wanted = wanted_context(manifest, &options, wish);
    let (needed, wanted_options) = match (options.context_length, wish) {
        (None, Some(_)) => of(wanted, options.kv_cache),
        // One that the model does not take is for the engine to refuse.
        _ => (Model::memory_needed(manifest, &options), options.clone()),
    };
    if needed.total() <= budget {
        return Ok(Fit {
            options: wanted_options,
            needed,
            instead_of: None,
        });
    }
    let longest = longest(wanted, |context| {
        of(context, options.kv_cache).0.total() <= budget
    });
    if let (None, Some(context)) = (options.context_length, longest) {
        let (needed, options) = of(context, options.kv_cache);
        return Ok(Fit {
            options,
            needed,
            instead_of: Some(wanted),
        });
    }
    // Without a word about it the shortest context of use was tried as well.
    let least = LEAST_CONTEXT.min(wanted);
    let tried = options.context_length.map_or(least, |_| wanted);
    let needed = of(tried, options.kv_cache).0;
    let mut ways = Vec::new();
    ways.extend(longest.map(|context| format!("context-length = {context} would fit")));
    if options.kv_cache != KvFormat::Int8 && of(tried, KvFormat::Int8).0.total() <= budget {
        ways.push("kv-cache = \"int8\" would fit".to_owned());
    }
    let room = |needed: MemoryNeeded| {
        let others = needed.kv_cache.saturating_add(needed.scratch);
        Some(budget.saturating_sub(others)).filter(|&room| room >= MIB)
    };
    if let Some(room) = room(needed) {
        ways.push(format!("a model of at most {} would fit", human(room)));
    } else if let Some(room) = room(of(least, options.kv_cache).0) {
        let room = human(room);
        ways.push(format!(
            "a model of at most {room} with context-length = {least} would fit"
        ));
    }
    let ways = match ways.is_empty() {
        true => "no model fits; give it more by budget-mib or reserve-mib in [memory]".to_owned(),
        false => ways.join(", or "),
    };
    Err(format!(
        "context-length = {tried} needs {} (weights {}, KV cache {}, all else {}), the memory \
         budget is {}: {ways}",
        human(needed.total()),
        human(needed.weights),
        human(needed.kv_cache),
        human(needed.scratch),
        human(budget)
    ))
}

fn wanted_context(manifest: &Manifest, options: &LoadOptions, wish: Option<usize>) -> usize {
    let most = manifest.architecture.context_length;
    let wanted = options.context_length.or(wish);
    wanted.unwrap_or(LoadOptions::DEFAULT_CONTEXT).min(most)
}

/// The longest context shorter than `wanted` that fits, if one that is of use does.
fn longest(wanted: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
    let steps = wanted.saturating_sub(1) / CONTEXT_STEP;
    let least = LEAST_CONTEXT / CONTEXT_STEP;
    // A longer context never needs less: those that fit come first.
    let (mut fit, mut beyond) = (least.saturating_sub(1), steps + 1);
    while fit + 1 < beyond {
        let middle = usize::midpoint(fit, beyond);
        match fits(middle * CONTEXT_STEP) {
            true => fit = middle,
            false => beyond = middle,
        }
    }
    (fit >= least).then_some(fit * CONTEXT_STEP)
}

/// Bytes for people: `1.9 GiB`, `112 MiB`.
pub fn human(bytes: u64) -> String {
    let mib = bytes as f64 / MIB as f64;
    match mib {
        mib if mib >= 1000.0 => format!("{:.1} GiB", mib / 1024.0),
        mib if mib >= 10.0 => format!("{mib:.0} MiB"),
        mib => format!("{mib:.1} MiB"),
    }
}

#[cfg(test)]
mod tests;
