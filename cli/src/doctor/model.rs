//! The model: whether it is there, and fits into the memory with its context.

use std::path::Path;

use chaski_boards::{KvCache, MIB, Needs, Shape, fitting_context, shapes};
use chaski_daemon::config::{self, Config};
use chaski_daemon::inference::{Engine, Models};
use chaski_daemon::{Board, Machine};
use chaski_engine::{Architecture, LoadOptions, Manifest, Model};

use super::report::Check;
use crate::bench::human;

const NAME: &str = "model";
const MEMORY: &str = "memory";
/// What the engine takes where nobody says a word.
const DEFAULT_CONTEXT: usize = 4096;
/// A context that is too small for a conversation is no remedy.
const SMALL_CONTEXT: usize = 1024;

/// What a folder says of itself, or why it says nothing.
pub(super) fn look(folder: &Path) -> Result<Manifest, String> {
    Model::look(folder).map_err(|error| error.to_string())
}

/// The settings that the daemon would load the model with.
pub(super) fn filled(
    board: &Board,
    config: &Config,
    looked: Option<&Result<Manifest, String>>,
) -> config::Model {
    let there = looked.is_some_and(Result::is_ok);
    let info = there.then(|| Engine.look(&config.model).ok()).flatten();
    board.fill(&config.model, info.as_ref())
}

pub(super) fn unusable(problem: &str) -> Check {
    let remedy = "set model.folder to a folder that chaski-quantize wrote";
    Check::problem(NAME, problem, remedy)
}

/// There it is.
pub(super) fn folder(folder: &Path, manifest: &Manifest) -> Check {
    let finding = format!(
        "{} is there, {} (chaski verify compares its checksums)",
        folder.display(),
        human(file_bytes(manifest))
    );
    Check::ok(NAME, finding)
}

/// Whether it fits; nothing where the machine does not tell its memory.
pub(super) fn memory(
    board: &Board,
    root: &Path,
    manifest: &Manifest,
    filled: &config::Model,
) -> Vec<Check> {
    let detected = board.detected();
    let limit = manifest.architecture.context_length;
    let mut checks = Vec::new();
    if let Some(context) = filled.context_length.filter(|context| *context > limit) {
        let finding = format!("context-length is {context}; this model takes {limit}");
        checks.push(Check::problem(
            NAME,
            finding,
            "correct model.context-length, or leave it out",
        ));
    }
    let (Some(total), Some(room)) = (
        detected.facts.memory_bytes,
        detected.profile.room_bytes(&detected.facts),
    ) else {
        return checks;
    };
    let request = Request {
        shape: shape(&manifest.architecture),
        file_bytes: file_bytes(manifest),
        kv_cache: format(filled.kv_cache),
        chunk: filled
            .prefill_chunk
            .unwrap_or(LoadOptions::default().prefill_chunk),
        context: filled.context_length.unwrap_or(DEFAULT_CONTEXT).min(limit),
    };
    let available = Machine::new(root).memory().available_bytes;
    checks.push(request.judge(total, room, available));
    checks
}

/// A model and how it is to be loaded.
struct Request {
    shape: Shape,
    file_bytes: u64,
    kv_cache: KvCache,
    chunk: usize,
    context: usize,
}

impl Request {
    fn judge(&self, total: u64, room: u64, available: Option<u64>) -> Check {
        let Self {
            shape,
            file_bytes,
            kv_cache,
            chunk,
            context,
        } = self;
        let needs = Needs::of_folder(shape, *file_bytes, *kv_cache, *context, *chunk);
        let sum = format!(
            "{} (weights {}, KV cache of {context} tokens {}, other {})",
            human(needs.bytes()),
            human(needs.weights),
            human(needs.kv_cache),
            human(needs.other)
        );
        if needs.bytes() > room {
            let finding = format!(
                "the model takes {sum}, but {} of {} are there for it: it would be read from disk again \
                 for every token, or be killed",
                human(room),
                human(total)
            );
            return Check::problem(MEMORY, finding, self.remedy(room));
        }
        // What the page cache holds counts as available.
        if let Some(available) = available.filter(|bytes| *bytes < needs.bytes()) {
            let finding = format!(
                "the model takes {sum}, but only {} are free now, if it does not run already",
                human(available)
            );
            return Check::warning(
                MEMORY,
                finding,
                "end other programs, a desktop first of all",
            );
        }
        Check::ok(MEMORY, format!("the model takes {sum} of {}", human(room)))
    }

    /// What would fit.
    fn remedy(&self, room: u64) -> String {
        let Self {
            shape,
            file_bytes,
            kv_cache,
            chunk,
            context,
        } = self;
        for (format, key) in [
            (*kv_cache, ""),
            (KvCache::Int8, "model.kv-cache = \"int8\" and "),
        ] {
            let fits = |tokens| {
                let needs = Needs::of_folder(shape, *file_bytes, format, tokens, *chunk);
                needs.bytes() <= room
            };
            let tokens = fitting_context(shape, *file_bytes, format, *chunk, *context, room);
            if fits(tokens) && tokens >= SMALL_CONTEXT.min(*context) {
                return format!("set {key}model.context-length = {tokens}");
            }
        }
        let largest = shapes().iter().rev().find(|shape| {
            let context = SMALL_CONTEXT.min(shape.context_length);
            Needs::of(shape, KvCache::Int8, context, *chunk).bytes() <= room
        });
        match largest {
            Some(shape) => format!(
                "take a smaller model: {} would fit, at 4 bits {}",
                shape.name,
                human(shape.weight_bytes())
            ),
            None => format!(
                "no model fits into {}; free some of the memory",
                human(room / MIB * MIB)
            ),
        }
    }
}

fn file_bytes(manifest: &Manifest) -> u64 {
    let sizes = manifest.files.values().map(|file| file.bytes);
    sizes.fold(0, u64::saturating_add)
}

fn format(kv_cache: Option<config::KvCache>) -> KvCache {
    match kv_cache.unwrap_or_default() {
        config::KvCache::F16 => KvCache::F16,
        config::KvCache::Int8 => KvCache::Int8,
        config::KvCache::F32 => KvCache::F32,
    }
}

fn shape(architecture: &Architecture) -> Shape {
    let of = |n: usize| n as u64;
    Shape {
        name: "",
        hidden_size: of(architecture.hidden_size),
        intermediate_size: of(architecture.intermediate_size),
        layers: of(architecture.layers),
        heads: of(architecture.heads),
        kv_heads: of(architecture.kv_heads),
        head_dim: of(architecture.head_dim),
        vocab_size: of(architecture.vocab_size),
        context_length: architecture.context_length,
        tied: architecture.tied_embeddings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Verdict;

    fn request(name: &str, context: usize, kv_cache: KvCache) -> Request {
        let shape = *chaski_boards::shape(name).unwrap();
        Request {
            shape,
            file_bytes: shape.weight_bytes(),
            kv_cache,
            chunk: 128,
            context,
        }
    }

    #[test]
    fn what_does_not_fit_gets_the_remedy_that_helps() {
        let judge = |request: &Request, mib: u64| {
            let check = request.judge(mib * 2 * MIB, mib * MIB, None);
            (check.verdict, check.remedy)
        };
        let small = request("llama-3.2-1b", 4096, KvCache::F16);
        assert_eq!(judge(&small, 2000), (Verdict::Ok, String::new()));
        let (verdict, remedy) = judge(&small, 800);
        assert_eq!(verdict, Verdict::Problem);
        assert_eq!(remedy, "set model.context-length = 2816");
        let (_, remedy) = judge(&small, 740);
        assert!(remedy.starts_with("set model.kv-cache = \"int8\" and model.context-length = "));
        let (_, remedy) = judge(&small, 400);
        assert!(remedy.contains("smollm2-360m would fit"), "{remedy}");
        let (_, remedy) = judge(&small, 10);
        assert!(remedy.starts_with("no model fits"), "{remedy}");
    }

    #[test]
    fn memory_that_others_hold_is_a_warning() {
        let small = request("smollm2-135m", 1024, KvCache::F16);
        let check = small.judge(1000 * MIB, 900 * MIB, Some(50 * MIB));
        assert_eq!(check.verdict, Verdict::Warning);
        let check = small.judge(1000 * MIB, 900 * MIB, Some(500 * MIB));
        assert_eq!(check.verdict, Verdict::Ok);
    }
}
