//! The configuration file: its sections, their defaults, and how it is read.
//!
//! `chaskid.example.toml` beside the sources explains every key; a test keeps it
//! equal to the defaults here.

mod board;
mod check;
mod control;
mod credentials;
mod delivery;
pub(crate) mod heat;
mod home_assistant;
mod limits;
mod memory;
mod metrics;
mod read;
mod reload;
mod secret;
mod stream;
mod tls;

use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use board::Board;
pub use check::Problem;
pub use control::Control;
pub use delivery::Delivery;
pub use heat::Heat;
pub use home_assistant::HomeAssistant;
pub use limits::Limits;
pub use memory::Memory;
pub use metrics::Metrics;
pub use read::ConfigError;
pub(crate) use read::read_bytes;
pub use secret::Secret;
pub use stream::Stream;

use crate::wire::Topics;

/// The record of good models in a state directory.
const LAST_GOOD: &str = "last-good-models.json";

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
    /// Which board this is.
    #[serde(default)]
    pub board: Board,
    /// Which model to load, and how.
    pub model: Model,
    /// What a request may ask for.
    #[serde(default)]
    pub limits: Limits,
    /// How requests that come again are known.
    #[serde(default)]
    pub delivery: Delivery,
    /// Settings for requests that do not bring their own.
    #[serde(default)]
    pub generation: Generation,
    /// How the text of a streamed answer is put into messages.
    #[serde(default)]
    pub stream: Stream,
    /// What the node may be told over MQTT.
    #[serde(default)]
    pub control: Control,
    /// What it tells of itself now and then.
    #[serde(default)]
    pub metrics: Metrics,
    /// What it does against heat.
    #[serde(default)]
    pub heat: Heat,
    /// How much memory it may take.
    #[serde(default)]
    pub memory: Memory,
    /// How Home Assistant comes to know of it.
    #[serde(default)]
    pub home_assistant: HomeAssistant,
    /// What the log may hold.
    #[serde(default)]
    pub log: Log,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Node {
    /// Second level of every topic.
    pub name: String,
    /// The group whose questions it answers too, in turn with the others of it.
    pub group: Option<String>,
}

/// `[log]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Log {
    /// Whether prompts and answers are in it.
    pub prompts: bool,
}

/// `[broker]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Broker {
    /// Name or address.
    pub host: String,
    /// TCP port; `None`: 1883, with TLS 8883.
    pub port: Option<u16>,
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
    /// Username and password, in a file.
    pub credentials_file: Option<PathBuf>,
    /// Whether to encrypt, and to check that it is the broker.
    pub tls: bool,
    /// Certificates of those who may have signed the broker's; `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate, if the broker wants one.
    pub client_cert_file: Option<PathBuf>,
    /// Its private key.
    pub client_key_file: Option<PathBuf>,
    /// Protocols to offer by ALPN; none: not to use it.
    pub alpn: Vec<String>,
}

/// `[model]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Model {
    /// The folder `chaski-quantize` wrote.
    pub folder: PathBuf,
    /// When it is loaded.
    #[serde(default)]
    pub load: Load,
    /// Tokens of prompt and answer together; `None`: the board's, or the engine's default.
    #[serde(default)]
    pub context_length: Option<usize>,
    /// What the board has for it where `context_length` is not set: so much, or what there is
    /// memory for.
    #[serde(skip)]
    pub context_wish: Option<usize>,
    /// Threads that compute; `None`: one for each of `cores`, or the board's, or the engine's
    /// default.
    #[serde(default)]
    pub threads: Option<usize>,
    /// How many of them decode; `None`: all.
    #[serde(default)]
    pub decode_threads: Option<usize>,
    /// Cores they are pinned to; `None`: the board's, or none.
    #[serde(default)]
    pub cores: Option<Vec<usize>>,
    /// Name of the kernels; `None`: the fastest.
    #[serde(default)]
    pub backend: Option<String>,
    /// What activations are computed with.
    #[serde(default)]
    pub activations: Activations,
    /// What the KV cache is kept in; `None`: the board's, or f16.
    #[serde(default)]
    pub kv_cache: Option<KvCache>,
    /// Prompt tokens computed at a time; `None`: the board's, or the engine's default.
    #[serde(default)]
    pub prefill_chunk: Option<usize>,
    /// Most tokens of an answer to draft from the text before them; 0: none.
    #[serde(default)]
    pub prompt_lookup: usize,
    /// Where it is written down which models came up; `None`: nowhere, and there is no way
    /// back from one that does not.
    #[serde(default)]
    pub last_good_file: Option<PathBuf>,
}

/// `model.load`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// Before the node is online.
    #[default]
    Start,
    /// When the first request comes.
    FirstRequest,
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

impl KvCache {
    /// As it is written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::F32 => "f32",
        }
    }
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

impl Default for Node {
    fn default() -> Self {
        Self {
            name: "board".to_owned(),
            group: None,
        }
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: None,
            username: None,
            password: None,
            password_file: None,
            client_id: None,
            keep_alive: 30,
            session_expiry: 24 * 60 * 60,
            credentials_file: None,
            tls: false,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            alpn: Vec::new(),
        }
    }
}

impl Model {
    /// This folder, loaded with the defaults.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            load: Load::default(),
            context_length: None,
            context_wish: None,
            threads: None,
            decode_threads: None,
            cores: None,
            backend: None,
            activations: Activations::default(),
            kv_cache: None,
            prefill_chunk: None,
            prompt_lookup: 0,
            last_good_file: None,
        }
    }
}

impl Model {
    /// Where good models are written down if the file does not say.
    fn settle(&mut self, state_directory: Option<&Path>) {
        if self.last_good_file.is_none() {
            self.last_good_file = state_directory.map(|folder| folder.join(LAST_GOOD));
        }
    }
}

impl Config {
    /// The defaults, with the model in this folder.
    pub fn for_model(folder: impl Into<PathBuf>) -> Self {
        Self {
            node: Node::default(),
            broker: Broker::default(),
            board: Board::default(),
            model: Model::new(folder),
            limits: Limits::default(),
            delivery: Delivery::default(),
            generation: Generation::default(),
            stream: Stream::default(),
            control: Control::default(),
            metrics: Metrics::default(),
            heat: Heat::default(),
            memory: Memory::default(),
            home_assistant: HomeAssistant::default(),
            log: Log::default(),
        }
    }

    /// The topics of this node.
    pub fn topics(&self) -> Topics {
        Topics::new(&self.node.name)
    }

    /// Those of its group, if it is in one.
    pub fn group_topics(&self) -> Option<Topics> {
        let group = self.node.group.as_ref()?;
        Some(Topics::of_group(group, &self.node.name))
    }

    /// The MQTT client id.
    pub fn client_id(&self) -> String {
        match &self.broker.client_id {
            Some(id) => id.clone(),
            None => format!("chaski-{}", self.node.name),
        }
    }
}
