//! The real generator: `chaski-engine` behind our trait.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use chaski_engine::{
    Backend, ChatInput, EngineError, GenerateOptions, KvFormat, LoadOptions, Manifest,
    MemoryNeeded, Model, Piece, Precision, Session, Sink, Threads,
};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{
    Completed, Description, Generator, Job, LoadError, Loader, Models, Prompt, ThreadSetter,
};
use crate::config;
use crate::config::Config;
use crate::govern::{Budget, Fit, human};
use crate::refusal::Refusal;
use crate::wire::{ErrorCode, LoadedInfo, ModelInfo};

/// Models by `chaski-engine`.
#[derive(Clone, Debug)]
pub struct Engine {
    budget: Budget,
}

impl Engine {
    /// As the configuration has it.
    pub fn new(config: &Config) -> Self {
        Self {
            budget: Budget::new(config),
        }
    }

    /// How a model fits into the memory that there is `now`, or would be if nothing else ran.
    ///
    /// # Errors
    /// It is no model, a setting is none, or it does not fit: says what would.
    pub fn fit(&self, settings: &config::Model, now: bool) -> Result<Fit, LoadError> {
        let manifest = Model::look(&settings.folder)?;
        let options = load_options(settings)?;
        let wish = settings.context_wish;
        Ok(self.budget.fit(&manifest, options, wish, now)?)
    }
}

impl Models for Engine {
    fn look(&self, settings: &config::Model) -> Result<ModelInfo, LoadError> {
        let manifest = Model::look(&settings.folder)?;
        Ok(model_info(&settings.folder, &manifest))
    }

    fn loader(&self, settings: &config::Model) -> Loader {
        let (engine, settings) = (self.clone(), settings.clone());
        Box::new(move || {
            // Here, where the model before is gone.
            let Fit {
                options,
                needed,
                instead_of,
            } = engine.fit(&settings, true)?;
            let config::Model {
                folder,
                prompt_lookup,
                ..
            } = settings;
            tell_fit(&options, needed, instead_of);
            // The thread's core is pinned with those of the others.
            let model = Model::load(&folder, &options)?;
            let session = model.session()?;
            Ok(Box::new(EngineGenerator {
                folder,
                threads: model.threads_in_use(),
                model,
                session,
                prompt_lookup,
            }))
        })
    }
}

fn tell_fit(options: &LoadOptions, needed: MemoryNeeded, instead_of: Option<usize>) {
    info!(
        weights = human(needed.weights),
        kv_cache = human(needed.kv_cache),
        all_else = human(needed.scratch),
        "memory that the model takes at most"
    );
    if let (Some(wanted), Some(context_length)) = (instead_of, options.context_length) {
        warn!(
            context_length,
            "there is no memory for a context of {wanted}: this is the longest that fits"
        );
    }
}

fn load_options(settings: &config::Model) -> Result<LoadOptions, EngineError> {
    let defaults = LoadOptions::default();
    Ok(LoadOptions {
        threads: settings.threads,
        decode_threads: settings.decode_threads,
        cores: settings.cores.clone(),
        context_length: settings.context_length,
        prefill_chunk: settings.prefill_chunk.unwrap_or(defaults.prefill_chunk),
        backend: settings.backend.as_deref().map(backend).transpose()?,
        precision: match settings.activations {
            config::Activations::Int8 => Precision::Int8,
            config::Activations::F32 => Precision::Float,
        },
        kv_cache: match settings.kv_cache {
            None => defaults.kv_cache,
            Some(config::KvCache::F16) => KvFormat::F16,
            Some(config::KvCache::Int8) => KvFormat::Int8,
            Some(config::KvCache::F32) => KvFormat::F32,
        },
    })
}

fn backend(name: &str) -> Result<Backend, EngineError> {
    Backend::by_name(name).ok_or_else(|| {
        let names: Vec<_> = Backend::available().iter().map(|b| b.name()).collect();
        let names = names.join(", ");
        EngineError::Option(format!(
            "model.backend {name:?}: this processor has {names}"
        ))
    })
}

/// One model and the one KV cache all requests share, one after the other: a
/// prompt that begins as the one before it is computed only from where they part.
struct EngineGenerator {
    folder: PathBuf,
    model: Model,
    session: Session,
    prompt_lookup: usize,
    /// That compute when nothing is held back.
    threads: Threads,
}

impl Generator for EngineGenerator {
    fn description(&self) -> Description {
        Description {
            model: model_info(&self.folder, self.model.manifest()),
            loaded: LoadedInfo {
                context_length: self.model.context_length(),
                backend: self.model.kernel_backend().to_owned(),
                threads: self.model.threads(),
                load_seconds: self.model.load_time().as_secs_f64(),
            },
        }
    }

    /// One token reads all weights, and a fault in any of them is in all logits.
    fn try_out(&mut self) -> Result<(), LoadError> {
        let logits = self.session.prefill(&[0])?;
        let is_whole = logits.iter().all(|logit| logit.is_finite());
        self.session.truncate(0);
        match is_whole {
            true => Ok(()),
            false => Err("it computes what is no number: its weights are damaged".into()),
        }
    }

    fn generate(
        &mut self,
        job: &Job,
        emit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Completed, Refusal> {
        let prompt = self.encode(&job.prompt)?;
        check_context(prompt.len(), self.model.context_length())?;
        let options = GenerateOptions {
            max_tokens: Some(job.max_tokens),
            sampling: job.sampling.over(self.model.sampling_defaults()),
            stop: job.stop.clone(),
            prompt_lookup: self.prompt_lookup,
            ..GenerateOptions::default()
        };
        let generated = self
            .session
            .generate(&prompt, &options, &mut Emit(emit))
            .map_err(refusal)?;
        Ok(Completed {
            prompt_tokens: prompt.len(),
            generated,
        })
    }

    fn thread_setter(&self) -> ThreadSetter {
        let (model, all) = (self.model.clone(), self.threads);
        Box::new(move |effort| {
            model.set_threads(effort.of(all));
            model.threads_in_use()
        })
    }

    fn release(&mut self) {
        // A new KV cache takes no memory until it is written to; the old one's goes back.
        match self.model.session() {
            Ok(session) => self.session = session,
            Err(e) => warn!(%e, "the KV cache is kept"),
        }
    }
}

impl EngineGenerator {
    fn encode(&self, prompt: &Prompt) -> Result<Vec<u32>, Refusal> {
        let chat = match prompt {
            Prompt::Text { text, system } if self.model.has_chat_template() => ChatInput {
                messages: text_messages(text, system.as_deref()),
                tools: None,
                add_generation_prompt: true,
            },
            // A base model: the prompt is the beginning of a text.
            Prompt::Text { text, .. } => return self.model.encode(text, true).map_err(refusal),
            Prompt::Chat { messages, tools } => ChatInput {
                messages: messages.clone(),
                tools: tools.clone(),
                add_generation_prompt: true,
            },
        };
        let rendered = self.model.chat_prompt(&chat).map_err(refusal)?;
        self.model.encode(&rendered, false).map_err(refusal)
    }
}

/// Hands pieces on, and asks between prefill chunks whether to go on.
struct Emit<'a>(&'a mut dyn FnMut(&str) -> ControlFlow<()>);

impl Sink for Emit<'_> {
    fn piece(&mut self, piece: Piece<'_>) -> ControlFlow<()> {
        (self.0)(piece.text)
    }

    fn prefill_progress(&mut self, _done: usize, _total: usize) -> ControlFlow<()> {
        (self.0)("")
    }
}

fn text_messages(text: &str, system: Option<&str>) -> Value {
    let user = json!({"role": "user", "content": text});
    match system {
        Some(system) => json!([{"role": "system", "content": system}, user]),
        None => json!([user]),
    }
}

/// A prompt must leave room for one token of the answer.
fn check_context(prompt_tokens: usize, context_length: usize) -> Result<(), Refusal> {
    if prompt_tokens < context_length {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::ContextLengthExceeded,
        format!(
            "the prompt has {prompt_tokens} tokens, the context has {context_length} for prompt and answer \
             together: shorten the messages"
        ),
    ))
}

fn refusal(error: EngineError) -> Refusal {
    let code = match error {
        EngineError::Template(_) => ErrorCode::TemplateRefused,
        EngineError::ContextOverflow { .. } => ErrorCode::ContextLengthExceeded,
        EngineError::EmptyPrompt => ErrorCode::EmptyPrompt,
        EngineError::Option(_) => ErrorCode::InvalidRequest,
        _ => ErrorCode::Internal,
    };
    Refusal::new(code, error.to_string())
}

fn model_info(folder: &Path, manifest: &Manifest) -> ModelInfo {
    let architecture = &manifest.architecture;
    let name = folder
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    ModelInfo {
        name: name.unwrap_or_else(|| "model".to_owned()),
        family: architecture.family.clone(),
        layers: architecture.layers,
        hidden_size: architecture.hidden_size,
        heads: architecture.heads,
        kv_heads: architecture.kv_heads,
        vocab_size: architecture.vocab_size,
        context_length: architecture.context_length,
        file_bytes: manifest
            .files
            .values()
            .map(|file| file.bytes)
            .fold(0, u64::saturating_add),
        created_by: manifest.created_by.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_leaves_room_for_an_answer() {
        assert_eq!(check_context(99, 100), Ok(()));
        let refused = check_context(100, 100).unwrap_err();
        assert_eq!(refused.code, ErrorCode::ContextLengthExceeded);
        assert!(refused.message.contains("100 tokens"), "{refused}");
    }

    #[test]
    fn settings_reach_the_engine() {
        let mut settings = config::Model::new("m");
        assert_eq!(load_options(&settings).unwrap(), LoadOptions::default());
        settings.cores = Some(vec![1]);
        settings.backend = Some("scalar".into());
        settings.activations = config::Activations::F32;
        settings.kv_cache = Some(config::KvCache::Int8);
        settings.prefill_chunk = Some(7);
        let options = load_options(&settings).unwrap();
        assert_eq!(options.cores, Some(vec![1]));
        assert_eq!(options.backend, Some(Backend::SCALAR));
        assert_eq!(options.precision, Precision::Float);
        assert_eq!(options.kv_cache, KvFormat::Int8);
        assert_eq!(options.prefill_chunk, 7);
        settings.backend = Some("abacus".into());
        let error = load_options(&settings).unwrap_err().to_string();
        assert!(
            error.contains("abacus") && error.contains("scalar"),
            "{error}"
        );
    }

    #[test]
    fn a_system_prompt_goes_first() {
        let roles = |value: Value| -> Vec<Value> {
            value
                .as_array()
                .unwrap()
                .iter()
                .map(|m| m["role"].clone())
                .collect()
        };
        assert_eq!(roles(text_messages("hi", None)), ["user"]);
        assert_eq!(
            roles(text_messages("hi", Some("be brief"))),
            ["system", "user"]
        );
    }
}
