//! The model: whether it is there, and fits into the memory with its context.

use std::path::Path;

use chaski_daemon::config::Config;
use chaski_daemon::inference::{Engine, LoadError};
use chaski_daemon::{Fit, human};
use chaski_engine::{LoadOptions, Manifest, Model};

use super::report::Check;

const NAME: &str = "model";
const MEMORY: &str = "memory";

/// What a folder says of itself, or why it says nothing.
pub(super) fn look(folder: &Path) -> Result<Manifest, String> {
    Model::look(folder).map_err(|error| error.to_string())
}

pub(super) fn unusable(problem: &str) -> Check {
    let remedy = "set model.folder to a folder that chaski-quantize wrote";
    Check::problem(NAME, problem, remedy)
}

/// There it is.
pub(super) fn folder(folder: &Path, manifest: &Manifest) -> Check {
    let sizes = manifest.files.values().map(|file| file.bytes);
    let finding = format!(
        "{} is there, {} (chaski verify compares its checksums)",
        folder.display(),
        human(sizes.fold(0, u64::saturating_add))
    );
    Check::ok(NAME, finding)
}

/// Whether it fits, as the daemon finds out before it loads it. Puts the context that it
/// then has into the settings.
pub(super) fn memory(config: &mut Config, manifest: &Manifest) -> Vec<Check> {
    let mut checks = Vec::new();
    let limit = manifest.architecture.context_length;
    if let Some(context) = config.model.context_length.filter(|&tokens| tokens > limit) {
        let finding = format!("context-length is {context}; this model takes {limit}");
        let remedy = "correct model.context-length, or leave it out";
        checks.push(Check::problem(NAME, finding, remedy));
    }
    let engine = Engine::new(config);
    checks.push(match engine.fit(&config.model, false) {
        Ok(fit) => {
            let context = fit.options.context_length;
            let tokens = context.unwrap_or(LoadOptions::DEFAULT_CONTEXT.min(limit));
            let check = fits(&fit, tokens, engine.fit(&config.model, true));
            config.model.context_length = config.model.context_length.or(context);
            check
        }
        Err(problem) => Check::problem(
            MEMORY,
            problem,
            "change the settings as it says, or take a smaller model",
        ),
    });
    checks
}

/// It would fit if nothing else ran; `now`: and beside what does?
fn fits(fit: &Fit, tokens: usize, now: Result<Fit, LoadError>) -> Check {
    let needed = fit.needed;
    let sum = format!(
        "with a context of {tokens} tokens the model takes {} at most (weights {}, KV cache {}, all else {})",
        human(needed.total()),
        human(needed.weights),
        human(needed.kv_cache),
        human(needed.scratch)
    );
    let others = "end other programs, a desktop first of all";
    match now {
        Ok(now) if now.options == fit.options => match fit.instead_of {
            None => Check::ok(MEMORY, sum),
            Some(wanted) => {
                let finding = format!("{sum}: there is no room for a context of {wanted}");
                Check::ok(MEMORY, finding)
            }
        },
        Ok(now) => {
            let context = now.options.context_length.unwrap_or_default();
            let finding = format!("{sum}; with what is free now its context would be {context}");
            Check::warning(MEMORY, finding, others)
        }
        Err(_) => {
            let finding = format!("{sum}, which is not free now, if it does not run already");
            Check::warning(MEMORY, finding, others)
        }
    }
}
