//! The board that the daemon is on, and what its profile sets where the user has not.

use std::path::Path;
use std::thread::available_parallelism;

use chaski_boards::{Detected, ProfileError, Settings, Shape, detect, fitting_context};
use tracing::info;

use crate::config::{Config, KvCache, Model};
use crate::wire::{BoardInfo, ModelInfo};

/// A board, and what its profile says.
#[derive(Clone, Debug)]
pub struct Board {
    detected: Detected,
    settings: Settings,
}

impl Board {
    /// Looks at the machine, unless the configuration says which board it is.
    ///
    /// # Errors
    /// The configuration names a profile that there is not, or that is none.
    pub fn find(config: &Config) -> Result<Self, ProfileError> {
        let detected = detect(&config.metrics.system_root);
        let detected = match &config.board.profile {
            Some(wish) => detected.with_profile(wish)?,
            None => detected,
        };
        let mut settings = detected.profile.settings(&detected.facts);
        // A container may have fewer than the machine.
        let most = available_parallelism().map_or(usize::MAX, usize::from);
        if config.metrics.system_root == Path::new("/") {
            settings.threads = settings.threads.map(|threads| threads.min(most));
        }
        Ok(Self { detected, settings })
    }

    /// What was found, and how.
    pub fn detected(&self) -> &Detected {
        &self.detected
    }

    /// What the profile sets on this machine, before a user has a say.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The settings by which a model is loaded here: those of the user, and where there are
    /// none, the profile's. `model`: what is known of the model before it is loaded.
    pub fn fill(&self, user: &Model, model: Option<&ModelInfo>) -> Model {
        let own = &self.settings;
        // A user who names cores has decided on the threads as well, and the other way round.
        let placed = user.threads.is_some() || user.cores.is_some();
        let mut filled = user.clone();
        if !placed {
            filled.threads = own.threads;
            filled.cores.clone_from(&own.cores);
        }
        filled.kv_cache = user.kv_cache.or(own.kv_cache.map(kv_cache));
        filled.prefill_chunk = user.prefill_chunk.or(own.prefill_chunk);
        if user.context_length.is_none() {
            filled.context_length = self.context(&filled, model);
        }
        filled
    }

    /// The profile's context, or as much of it as the model takes and the memory holds.
    fn context(&self, filled: &Model, model: Option<&ModelInfo>) -> Option<usize> {
        let wish = self.settings.context_length?;
        // One that cannot be looked at will not load either.
        let model = model?;
        let Detected { profile, facts, .. } = &self.detected;
        let Some(room) = profile.room_bytes(facts) else {
            return Some(wish.min(model.context_length));
        };
        Some(fitting_context(
            &shape(model),
            model.file_bytes,
            format(filled.kv_cache.unwrap_or_default()),
            filled.prefill_chunk.unwrap_or(DEFAULT_CHUNK),
            wish,
            room,
        ))
    }

    /// Says once which board this is, and what that changes.
    pub(crate) fn log(&self, user: &Model, filled: &Model) {
        let Detected { profile, by, .. } = &self.detected;
        let mut set = Vec::new();
        let mut note = |name: &str, value: Option<String>| {
            set.extend(value.map(|value| format!("{name} = {value}")));
        };
        let news = |user: Option<usize>, filled: Option<usize>| {
            filled.filter(|_| user.is_none()).map(|n| n.to_string())
        };
        note("threads", news(user.threads, filled.threads));
        let cores = filled.cores.as_ref().filter(|_| user.cores.is_none());
        note("cores", cores.map(|cores| format!("{cores:?}")));
        let kv_cache = filled.kv_cache.filter(|_| user.kv_cache.is_none());
        note(
            "kv-cache",
            kv_cache.map(|kv_cache| format!("{:?}", kv_cache.name())),
        );
        note(
            "context-length",
            news(user.context_length, filled.context_length),
        );
        note(
            "prefill-chunk",
            news(user.prefill_chunk, filled.prefill_chunk),
        );
        let set = match set.is_empty() {
            true => "nothing".to_owned(),
            false => set.join(", "),
        };
        info!(board = profile.name, recognised_by = %by, %set, "the board is known");
    }

    /// What `info` says of it.
    pub(crate) fn info(&self) -> BoardInfo {
        BoardInfo {
            profile: self.detected.profile.name.clone(),
            model: self.detected.model.clone(),
        }
    }
}

/// The engine's own.
const DEFAULT_CHUNK: usize = 128;

/// The figures of a model that its memory depends on.
fn shape(model: &ModelInfo) -> Shape {
    let of = |n: usize| n as u64;
    Shape {
        name: "",
        hidden_size: of(model.hidden_size),
        // `info` does not have it. Llamas have up to four times the hidden size.
        intermediate_size: of(model.hidden_size).saturating_mul(4),
        layers: of(model.layers),
        heads: of(model.heads),
        kv_heads: of(model.kv_heads),
        head_dim: of(model.hidden_size / model.heads.max(1)),
        vocab_size: of(model.vocab_size),
        context_length: model.context_length,
        tied: true,
    }
}

fn kv_cache(format: chaski_boards::KvCache) -> KvCache {
    match format {
        chaski_boards::KvCache::F16 => KvCache::F16,
        chaski_boards::KvCache::Int8 => KvCache::Int8,
        chaski_boards::KvCache::F32 => KvCache::F32,
    }
}

fn format(kv_cache: KvCache) -> chaski_boards::KvCache {
    match kv_cache {
        KvCache::F16 => chaski_boards::KvCache::F16,
        KvCache::Int8 => chaski_boards::KvCache::Int8,
        KvCache::F32 => chaski_boards::KvCache::F32,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn config(board: &str) -> Config {
        let boards = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/boards");
        let mut config = Config::for_model("m");
        config.metrics.system_root = PathBuf::from(boards).join(board);
        config
    }

    fn model(file_bytes: u64, context_length: usize) -> ModelInfo {
        ModelInfo {
            name: "m".into(),
            family: "llama".into(),
            layers: 16,
            hidden_size: 2048,
            heads: 32,
            kv_heads: 8,
            vocab_size: 128_256,
            context_length,
            file_bytes,
            created_by: "x".into(),
        }
    }

    const LLAMA_1B: u64 = 705_000_000;

    #[test]
    fn a_small_board_gets_what_suits_it() {
        let board = Board::find(&config("raspberry-pi-3b-plus")).unwrap();
        assert_eq!(board.info().profile, "raspberry-pi-3b-plus");
        let user = Model::new("m");
        let filled = board.fill(&user, Some(&model(100_000_000, 8192)));
        assert_eq!(filled.threads, Some(4));
        assert_eq!(filled.cores, None);
        assert_eq!(filled.kv_cache, Some(KvCache::Int8));
        assert_eq!(filled.context_length, Some(1024));
        assert_eq!(filled.prefill_chunk, Some(64));
        // All else stays.
        assert_eq!(filled.folder, user.folder);
        assert_eq!((filled.backend, filled.prompt_lookup), (None, 0));
    }

    #[test]
    fn the_user_always_wins() {
        let board = Board::find(&config("raspberry-pi-zero-2-w")).unwrap();
        let mut user = Model::new("m");
        user.threads = Some(2);
        user.kv_cache = Some(KvCache::F32);
        user.context_length = Some(9999);
        user.prefill_chunk = Some(1);
        assert_eq!(board.fill(&user, Some(&model(LLAMA_1B, 8192))), user);
        let mut cores = Model::new("m");
        cores.cores = Some(vec![3]);
        let filled = board.fill(&cores, None);
        // As many as there are cores named: the engine's rule.
        assert_eq!((filled.cores, filled.threads), (Some(vec![3]), None));
    }

    #[test]
    fn the_context_fits_model_and_memory() {
        let board = Board::find(&config("raspberry-pi-4b")).unwrap();
        let context = |model: &ModelInfo| board.fill(&Model::new("m"), Some(model)).context_length;
        let wish = board.settings().context_length.unwrap();
        assert_eq!(context(&model(LLAMA_1B, 131_072)), Some(wish));
        assert_eq!(context(&model(LLAMA_1B, 2048)), Some(2048));
        let large = context(&model(3_600_000_000, 131_072)).unwrap();
        assert!(large < wish, "{large}");
        assert_eq!(board.fill(&Model::new("m"), None).context_length, None);
    }

    #[test]
    fn machines_without_a_profile_stay_as_they_are() {
        for name in ["generic-arm64", "generic-x86-64", "hostile-unknown-board"] {
            let board = Board::find(&config(name)).unwrap();
            assert!(board.info().profile.starts_with("generic-"));
            let user = Model::new("m");
            assert_eq!(
                board.fill(&user, Some(&model(LLAMA_1B, 131_072))),
                user,
                "{name}"
            );
        }
    }

    #[test]
    fn a_profile_can_be_named() {
        let mut config = config("generic-x86-64");
        config.board.profile = Some("raspberry-pi-5".into());
        let board = Board::find(&config).unwrap();
        assert_eq!(board.info().profile, "raspberry-pi-5");
        config.board.profile = Some("no/such.toml".into());
        let error = Board::find(&config).unwrap_err().to_string();
        assert!(error.contains("no/such.toml"), "{error}");
    }
}
