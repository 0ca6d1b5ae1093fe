//! What the types cannot say: every problem of a configuration at once.
//!
//! Nothing here touches a disk or a network.

use chaski_engine::GenerateOptions;
use thiserror::Error;

use super::Config;
use crate::wire::check_node_name;

/// rumqttc refuses less, and a broker drops a client after one and a half of it.
const MIN_KEEP_ALIVE: u16 = 5;
/// One more would mean for ever: nobody would tidy up after a node that is gone.
const MAX_SESSION_EXPIRY: u32 = u32::MAX - 1;
/// A client id this long is refused by no broker we know.
const MAX_CLIENT_ID_BYTES: usize = 128;
const MAX_THREADS: usize = 1024;
/// Linux numbers no more cores in a thread's mask.
const MAX_CORES: usize = 1024;
const MAX_PREFILL_CHUNK: usize = 65_536;

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{key}: {message}")]
pub struct Problem {
    /// The key, with its section.
    pub key: &'static str,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Config {
    /// Every problem there is; none means that the configuration can be used.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Problems::default();
        self.check_node_and_broker(&mut found);
        self.board.check(&mut found);
        self.check_model(&mut found);
        self.limits.check(&mut found);
        self.delivery.check(&mut found);
        self.check_generation(&mut found);
        self.stream.check(&mut found);
        self.control.check(&mut found);
        self.metrics.check(&mut found);
        self.heat.check(&mut found);
        self.memory.check(&mut found);
        self.home_assistant.check(&mut found);
        found.0
    }

    fn check_node_and_broker(&self, found: &mut Problems) {
        if let Err(e) = check_node_name(&self.node.name) {
            found.add("node.name", e);
        }
        if let Some(group) = &self.node.group {
            match check_node_name(group) {
                Err(e) => found.add("node.group", e),
                Ok(()) if *group == self.node.name => {
                    found.add(
                        "node.group",
                        "is the node's own name; give the group another",
                    );
                }
                Ok(()) => {}
            }
        }
        let broker = &self.broker;
        let host_bad = |c: char| c.is_whitespace() || c.is_control() || c == '/';
        if broker.host.is_empty() {
            found.add("broker.host", "is empty; give a name or an address");
        } else if broker.host.contains(host_bad) {
            found.add(
                "broker.host",
                "give a name or an address alone, without scheme or path",
            );
        }
        if broker.port == Some(0) {
            found.add(
                "broker.port",
                "is 0; brokers usually listen on 1883, with TLS on 8883",
            );
        }
        if broker.keep_alive < MIN_KEEP_ALIVE {
            found.add(
                "broker.keep-alive",
                format!("is {} s; give at least {MIN_KEEP_ALIVE}", broker.keep_alive),
            );
        }
        if broker.session_expiry > MAX_SESSION_EXPIRY {
            found.add(
                "broker.session-expiry",
                format!(
                    "is {} s; give at most {MAX_SESSION_EXPIRY}, or 0 for no session",
                    broker.session_expiry
                ),
            );
        }
        broker.check_credentials(found);
        broker.check_tls(found);
        let id_bad = |id: &String| {
            id.is_empty() || id.len() > MAX_CLIENT_ID_BYTES || id.contains(char::is_control)
        };
        if broker.client_id.as_ref().is_some_and(id_bad) {
            found.add(
                "broker.client-id",
                format!("give 1 to {MAX_CLIENT_ID_BYTES} bytes without control characters"),
            );
        }
    }

    fn check_model(&self, found: &mut Problems) {
        let model = &self.model;
        if model.folder.as_os_str().is_empty() {
            found.add(
                "model.folder",
                "is empty; give the folder that chaski-quantize wrote",
            );
        }
        if model.context_length == Some(0) {
            found.add("model.context-length", "is 0; leave it out for the default");
        }
        if let Some(threads) = model.threads {
            found.range("model.threads", threads, 1, MAX_THREADS);
        }
        if let Some(decode) = model.decode_threads {
            // How many there are without a word about it is the engine's to say.
            let most = model.threads.unwrap_or(MAX_THREADS);
            found.range("model.decode-threads", decode, 1, most);
        }
        // Which of them there are is the engine's to say, when it loads.
        if let Some(cores) = &model.cores {
            match cores.iter().max() {
                None => found.add("model.cores", "is empty; leave it out to pin no thread"),
                Some(&core) => found.range("model.cores", core, 0, MAX_CORES - 1),
            }
        }
        if model.backend.as_ref().is_some_and(String::is_empty) {
            found.add("model.backend", "is empty; leave it out for the fastest");
        }
        if let Some(chunk) = model.prefill_chunk {
            found.range("model.prefill-chunk", chunk, 1, MAX_PREFILL_CHUNK);
        }
        found.range(
            "model.prompt-lookup",
            model.prompt_lookup,
            0,
            GenerateOptions::MOST_DRAFTED,
        );
    }

    fn check_generation(&self, found: &mut Problems) {
        let generation = &self.generation;
        found.float(
            "generation.temperature",
            generation.temperature,
            "0 to 2",
            |x| (0.0..=2.0).contains(&x),
        );
        found.float(
            "generation.top-p",
            generation.top_p,
            "above 0, up to 1",
            |x| x > 0.0 && x <= 1.0,
        );
        found.float("generation.min-p", generation.min_p, "0 to below 1", |x| {
            (0.0..1.0).contains(&x)
        });
        found.float(
            "generation.repetition-penalty",
            generation.repetition_penalty,
            "above 0, up to 10",
            |x| x > 0.0 && x <= 10.0,
        );
        if let Some(prompt) = &generation.system_prompt {
            found.range(
                "generation.system-prompt",
                prompt.len(),
                0,
                self.limits.max_prompt_bytes,
            );
        }
    }
}

/// Problems found so far.
#[derive(Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, key: &'static str, message: impl ToString) {
        self.0.push(Problem {
            key,
            message: message.to_string(),
        });
    }

    pub(super) fn range(&mut self, key: &'static str, value: usize, min: usize, max: usize) {
        if value < min {
            self.add(key, format!("is {value}; give at least {min}"));
        } else if value > max {
            self.add(key, format!("is {value}; give at most {max}"));
        }
    }

    fn float(
        &mut self,
        key: &'static str,
        value: Option<f32>,
        wanted: &str,
        ok: impl Fn(f32) -> bool,
    ) {
        // A NaN fails every comparison, so it is refused too.
        if let Some(x) = value.filter(|x| !ok(*x)) {
            self.add(key, format!("is {x}; give {wanted}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::BACKLOG_CAPACITY;

    fn keys(config: &Config) -> Vec<&'static str> {
        config.problems().iter().map(|p| p.key).collect()
    }

    #[test]
    fn the_defaults_have_no_problem() {
        assert_eq!(Config::for_model("m").problems(), vec![]);
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let mut config = Config::for_model("");
        config.node.name = "a/b".into();
        config.node.group = Some("$share".into());
        config.control.models_folder = Some("".into());
        config.broker.host = "mqtt://pi".into();
        config.broker.port = Some(0);
        config.broker.keep_alive = 4;
        config.broker.session_expiry = u32::MAX;
        config.broker.client_key_file = Some("key".into());
        config.model.threads = Some(0);
        config.model.cores = Some(vec![0, MAX_CORES]);
        config.model.backend = Some(String::new());
        config.model.prompt_lookup = GenerateOptions::MOST_DRAFTED + 1;
        config.limits.queue_depth = BACKLOG_CAPACITY + 1;
        config.generation.temperature = Some(f32::NAN);
        assert_eq!(
            keys(&config),
            [
                "node.name",
                "node.group",
                "broker.host",
                "broker.port",
                "broker.keep-alive",
                "broker.session-expiry",
                "broker.client-key-file",
                "broker.client-cert-file",
                "model.folder",
                "model.threads",
                "model.cores",
                "model.backend",
                "model.prompt-lookup",
                "limits.queue-depth",
                "generation.temperature",
                "control.models-folder",
            ]
        );
    }

    #[test]
    fn a_group_is_not_the_node() {
        let mut config = Config::for_model("m");
        config.node.group = Some("house".into());
        assert_eq!(keys(&config), [""; 0]);
        config.node.group = Some(config.node.name.clone());
        assert_eq!(keys(&config), ["node.group"]);
    }

    #[test]
    fn those_who_decode_are_some_of_the_threads() {
        let mut config = Config::for_model("m");
        config.model.decode_threads = Some(3);
        assert_eq!(keys(&config), [""; 0]);
        config.model.threads = Some(2);
        assert_eq!(keys(&config), ["model.decode-threads"]);
    }

    #[test]
    fn no_cores_are_no_list() {
        let mut config = Config::for_model("m");
        config.model.cores = Some(vec![]);
        assert_eq!(keys(&config), ["model.cores"]);
        config.model.cores = Some(vec![2, 3]);
        assert_eq!(keys(&config), [""; 0]);
    }

    #[test]
    fn messages_name_the_remedy() {
        let mut config = Config::for_model("m");
        config.broker.keep_alive = 1;
        assert_eq!(
            config.problems()[0].to_string(),
            "broker.keep-alive: is 1 s; give at least 5"
        );
    }
}
