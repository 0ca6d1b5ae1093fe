//! The configuration file: its sections, their defaults, and how it is read.
//!
//! `chaskid.example.toml` beside the sources explains every key; a test keeps it
//! equal to the defaults here.

mod check;
mod read;
mod secret;

use std::path::PathBuf;

use serde::Deserialize;

pub use check::Problem;
pub use read::ConfigError;
pub use secret::Secret;

use crate::wire::Topics;

/// Everything the daemon can be told.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Who this is.
    #[serde(default)]
    pub node: Node,
    /// Where the broker is.
    #[serde(default)]
    pub broker: Broker,
    /// Which model to load, and how.
    pub model: Model,
    /// What a request may ask for.
    #[serde(default)]
    pub limits: Limits,
    /// Settings for requests that do not bring their own.
    #[serde(default)]
    pub generation: Generation,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Node {
    /// Second level of every topic.
    pub name: String,
}

/// `[broker]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Broker {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Account at the broker.
    pub username: Option<String>,
    /// Its password, in the configuration itself.
    pub password: Option<Secret>,
    /// Its password, alone in a file; a line end after it is dropped.
    pub password_file: Option<PathBuf>,
    /// MQTT client id; `None`: `chaski-<node>`.
    pub client_id: Option<String>,
    /// Seconds between signs of life.
    pub keep_alive: u16,
    /// Seconds for which the broker keeps requests while the node is away; 0: not at all.
    pub session_expiry: u32,
    /// Not supported yet: kept to say so.
    pub tls: bool,
}

/// `[model]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Model {
    /// The folder `chaski-quantize` wrote.
    pub folder: PathBuf,
    /// Tokens of prompt and answer together; `None`: the engine's default.
    #[serde(default)]
    pub context_length: Option<usize>,
    /// Threads that compute; `None`: one for each of `cores`, or the engine's default.
    #[serde(default)]
    pub threads: Option<usize>,
    /// Cores they are pinned to; `None`: none.
    #[serde(default)]
    pub cores: Option<Vec<usize>>,
    /// Name of the kernels; `None`: the fastest.
    #[serde(default)]
    pub backend: Option<String>,
    /// What activations are computed with.
    #[serde(default)]
    pub activations: Activations,
    /// What the KV cache is kept in.
    #[serde(default)]
    pub kv_cache: KvCache,
    /// Prompt tokens computed at a time.
    #[serde(default = "default_prefill_chunk")]
    pub prefill_chunk: usize,
    /// Most tokens of an answer to draft from the text before them; 0: none.
    #[serde(default)]
    pub prompt_lookup: usize,
}

/// `model.activations`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activations {
    /// Blocks of int8.
    #[default]
    Int8,
    /// f32: the reference.
    F32,
}

/// `model.kv-cache`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvCache {
    /// f16.
    #[default]
    F16,
    /// int8 with scales.
    Int8,
    /// f32: the reference.
    F32,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// Requests that may wait behind the running one.
    pub queue_depth: usize,
    /// Largest text of a request, all messages together.
    pub max_prompt_bytes: usize,
    /// Largest payload of a request.
    pub max_payload_bytes: usize,
    /// Most messages of a chat request.
    pub max_messages: usize,
    /// Most tokens of an answer.
    pub max_tokens: usize,
}

/// `[generation]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Generation {
    /// 0 is greedy.
    pub temperature: Option<f32>,
    /// Nucleus sampling.
    pub top_p: Option<f32>,
    /// Keep the k most probable tokens; 0 keeps all.
    pub top_k: Option<usize>,
    /// Drop tokens below this share of the most probable.
    pub min_p: Option<f32>,
    /// 1 is off.
    pub repetition_penalty: Option<f32>,
    /// Makes sampling repeatable.
    pub seed: Option<u64>,
    /// System message put before a prompt on the `ask` topic.
    pub system_prompt: Option<String>,
}

fn default_prefill_chunk() -> usize {
    128
}

impl Default for Node {
    fn default() -> Self {
        Self {
            name: "board".to_owned(),
        }
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 1883,
            username: None,
            password: None,
            password_file: None,
            client_id: None,
            keep_alive: 30,
            session_expiry: 24 * 60 * 60,
            tls: false,
        }
    }
}

impl Model {
    /// This folder, loaded with the defaults.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            context_length: None,
            threads: None,
            cores: None,
            backend: None,
            activations: Activations::default(),
            kv_cache: KvCache::default(),
            prefill_chunk: default_prefill_chunk(),
            prompt_lookup: 0,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_depth: 8,
            max_prompt_bytes: 64 * 1024,
            max_payload_bytes: 256 * 1024,
            max_messages: 256,
            max_tokens: 512,
        }
    }
}

impl Config {
    /// The defaults, with the model in this folder.
    pub fn for_model(folder: impl Into<PathBuf>) -> Self {
        Self {
            node: Node::default(),
            broker: Broker::default(),
            model: Model::new(folder),
            limits: Limits::default(),
            generation: Generation::default(),
        }
    }

    /// The topics of this node.
    pub fn topics(&self) -> Topics {
        Topics::new(&self.node.name)
    }

    /// The MQTT client id.
    pub fn client_id(&self) -> String {
        match &self.broker.client_id {
            Some(id) => id.clone(),
            None => format!("chaski-{}", self.node.name),
        }
    }
}
