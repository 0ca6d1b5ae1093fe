//! The retained description of a node.

use serde::{Deserialize, Serialize};

/// What `chaski/<node>/info` says.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Info {
    /// Name of the node.
    pub node: String,
    /// The group whose questions it answers too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Version of the daemon.
    pub version: String,
    /// The board it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub board: Option<BoardInfo>,
    /// The model it answers with.
    pub model: ModelInfo,
    /// What is known once it is loaded.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<LoadedInfo>,
    /// The configured model, where this one runs because that one did not come up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<InsteadOfInfo>,
    /// What a request may ask for.
    pub limits: LimitsInfo,
    /// What it can do, by names that do not change; see `docs/mqtt.md`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Where to ask, and what it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topics: Option<TopicsInfo>,
}

/// A model that does not run.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct InsteadOfInfo {
    /// Name of its folder.
    pub model: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What a node is on.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct BoardInfo {
    /// Name of its profile.
    pub profile: String,
    /// What the machine calls itself, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// Topics of a node.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct TopicsInfo {
    /// Prompts, plain text.
    pub ask: String,
    /// Chat requests, JSON.
    pub chat: String,
    /// The JSON Schema of a chat request, retained.
    pub schema: String,
    /// Ids of requests to give up.
    pub cancel: String,
    /// Commands, if it takes any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// Retained: `online`, `draining` or `offline`.
    pub status: String,
    /// Figures now and then, if it tells any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// What happens.
    pub event: String,
}

/// Figures of a model that is loaded.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct LoadedInfo {
    /// Tokens of prompt and answer together.
    pub context_length: usize,
    /// Kernels in use: `scalar`, `neon`, `avx2`, …
    pub backend: String,
    /// Threads that compute.
    pub threads: usize,
    /// Seconds it took to load the model.
    pub load_seconds: f64,
}

/// Figures of a model.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct ModelInfo {
    /// Name of its folder.
    pub name: String,
    /// Family, such as `llama`.
    pub family: String,
    /// Transformer blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Attention heads.
    pub heads: usize,
    /// Heads of K and V.
    pub kv_heads: usize,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Context length it was made for.
    pub context_length: usize,
    /// Bytes of its files.
    pub file_bytes: u64,
    /// The program that wrote the folder.
    pub created_by: String,
}

/// Limits of a node.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct LimitsInfo {
    /// Requests that may wait behind the running one.
    pub queue_depth: usize,
    /// Largest payload of a request.
    pub max_payload_bytes: usize,
    /// Largest text of a request.
    pub max_prompt_bytes: usize,
    /// Most tokens of an answer.
    pub max_tokens: usize,
}
