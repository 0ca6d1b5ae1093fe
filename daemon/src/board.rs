//! The board that the daemon is on, and what its profile sets where the user has not.

use std::path::Path;
use std::thread::available_parallelism;

use chaski_boards::{Detected, ProfileError, Settings, detect};
use tracing::info;

use crate::config::{Config, KvCache, Model};
use crate::wire::BoardInfo;

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
            for threads in [&mut settings.threads, &mut settings.decode_threads] {
                *threads = threads.map(|threads| threads.min(most));
            }
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

    /// The configuration by which the node is run here: what the user says, and where there
    /// is nothing, what the profile does.
    pub fn fill(&self, user: &Config) -> Config {
        let profile = &self.detected.profile;
        let mut filled = user.clone();
        filled.model = self.fill_model(&user.model);
        if let Some(heat) = &profile.heat {
            let (zones, limits) = (&heat.zones, &mut filled.heat);
            limits.zones = limits.zones.take().or_else(|| Some(zones.clone()));
            // Limits go together: one of the user's may be beyond the other of the profile's.
            if limits.ease_off.is_none() && limits.refuse.is_none() {
                limits.ease_off = Some(heat.ease_off);
                limits.refuse = Some(heat.refuse);
            }
        }
        let reserve = &mut filled.memory.reserve_mib;
        *reserve = reserve.or(profile.memory.reserve_mib);
        filled
    }

    /// The settings by which a model is loaded here.
    fn fill_model(&self, user: &Model) -> Model {
        let own = &self.settings;
        // A user who names cores has decided on the threads as well, and the other way round.
        let placed = user.threads.is_some() || user.cores.is_some();
        let mut filled = user.clone();
        if !placed {
            filled.threads = own.threads;
            filled.cores.clone_from(&own.cores);
            filled.decode_threads = user.decode_threads.or(own.decode_threads);
        }
        filled.kv_cache = user.kv_cache.or(own.kv_cache.map(kv_cache));
        filled.prefill_chunk = user.prefill_chunk.or(own.prefill_chunk);
        filled.context_wish = own.context_length;
        filled
    }

    /// Says once which board this is, and what that changes.
    pub(crate) fn log(&self, user: &Config, filled: &Config) {
        let Detected { profile, by, .. } = &self.detected;
        let mut set = Vec::new();
        let mut note = |name: &str, user: Option<String>, filled: Option<String>| {
            let news = filled.filter(|_| user.is_none());
            set.extend(news.map(|value| format!("{name} = {value}")));
        };
        let (from, to) = (&user.model, &filled.model);
        let cores = |model: &Model| model.cores.as_ref().map(|cores| format!("{cores:?}"));
        let kv_cache = |model: &Model| model.kv_cache.map(|format| format!("{:?}", format.name()));
        note("threads", text(from.threads), text(to.threads));
        note(
            "decode-threads",
            text(from.decode_threads),
            text(to.decode_threads),
        );
        note("cores", cores(from), cores(to));
        note("kv-cache", kv_cache(from), kv_cache(to));
        note(
            "context-length",
            text(from.context_length),
            text(to.context_wish),
        );
        note(
            "prefill-chunk",
            text(from.prefill_chunk),
            text(to.prefill_chunk),
        );
        note(
            "ease-off",
            text(user.heat.ease_off),
            text(filled.heat.ease_off),
        );
        note("refuse", text(user.heat.refuse), text(filled.heat.refuse));
        let reserve = |config: &Config| text(config.memory.reserve_mib);
        note("reserve-mib", reserve(user), reserve(filled));
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

fn text(value: Option<impl ToString>) -> Option<String> {
    value.map(|value| value.to_string())
}

fn kv_cache(format: chaski_boards::KvCache) -> KvCache {
    match format {
        chaski_boards::KvCache::F16 => KvCache::F16,
        chaski_boards::KvCache::Int8 => KvCache::Int8,
        chaski_boards::KvCache::F32 => KvCache::F32,
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

    #[test]
    fn a_small_board_gets_what_suits_it() {
        let board = Board::find(&config("raspberry-pi-3b-plus")).unwrap();
        assert_eq!(board.info().profile, "raspberry-pi-3b-plus");
        let user = Model::new("m");
        let filled = board.fill_model(&user);
        assert_eq!(filled.threads, Some(4));
        assert_eq!(filled.cores, None);
        assert_eq!(filled.kv_cache, Some(KvCache::Int8));
        assert_eq!(filled.context_wish, Some(1024));
        assert_eq!(filled.context_length, None);
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
        let filled = board.fill_model(&user);
        let wish = filled.context_wish;
        assert_eq!(
            filled,
            Model {
                context_wish: wish,
                ..user
            }
        );
        let mut cores = Model::new("m");
        cores.cores = Some(vec![3]);
        let filled = board.fill_model(&cores);
        // As many as there are cores named: the engine's rule.
        assert_eq!((filled.cores, filled.threads), (Some(vec![3]), None));
    }

    #[test]
    fn heat_and_memory_have_the_limits_of_the_board() {
        let mut config = config("raspberry-pi-5");
        let board = Board::find(&config).unwrap();
        let filled = board.fill(&config);
        assert_eq!(filled.heat.zones(), ["cpu-thermal"]);
        assert_eq!(filled.heat.ease_off, Some(78.0));
        assert_eq!(filled.heat.refuse, Some(83.0));
        assert_eq!(filled.memory.reserve_mib, Some(256));
        assert_eq!(filled.model.decode_threads, Some(3));
        config.heat.zones = Some(vec!["mine".to_owned()]);
        config.heat.refuse = Some(70.0);
        config.memory.reserve_mib = Some(1);
        let filled = board.fill(&config);
        assert_eq!((filled.heat, filled.memory), (config.heat, config.memory));
    }

    #[test]
    fn machines_without_a_profile_stay_as_they_are() {
        for name in ["generic-arm64", "generic-x86-64", "hostile-unknown-board"] {
            let board = Board::find(&config(name)).unwrap();
            assert!(board.info().profile.starts_with("generic-"));
            let user = config(name);
            let filled = board.fill(&user);
            assert_eq!(filled, user, "{name}");
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
