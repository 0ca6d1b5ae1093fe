//! What a node tells of itself now and then.

use serde::{Deserialize, Serialize};

use super::StrainMetrics;

/// What `chaski/<node>/metrics` says. Counts are since the daemon started.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Metrics {
    /// Name of the node.
    pub node: String,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// Requests that are here now.
    pub queue: QueueMetrics,
    /// What became of requests.
    pub requests: RequestMetrics,
    /// Tokens of the requests that were computed.
    pub tokens: TokenMetrics,
    /// Speed of the last answer; `None` before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<SpeedMetrics>,
    /// Memory.
    pub memory: MemoryMetrics,
    /// Of the processor; `None` where the machine does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_celsius: Option<f64>,
    /// Whether the machine goes slower than it can; `None` where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttling: Option<ThrottlingMetrics>,
    /// What the node does against heat and want of memory; older ones do not say.
    #[serde(default)]
    pub strain: StrainMetrics,
}

/// Requests that are here now.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct QueueMetrics {
    /// Requests that wait.
    pub waiting: usize,
    /// Most that may wait.
    pub depth: usize,
    /// Whether one is computed.
    pub running: bool,
}

/// What became of requests.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct RequestMetrics {
    /// Computed to their end.
    pub answered: u64,
    /// Given up for their client.
    pub cancelled: u64,
    /// Answered with an error, whatever it was.
    pub refused: u64,
    /// Those of them that found no room to wait.
    pub busy: u64,
    /// Those of them that waited too long.
    pub expired: u64,
    /// Came again, and were not computed for that.
    pub repeated: u64,
    /// Replies that the broker did not want.
    pub undelivered: u64,
}

/// Tokens of the requests that were computed.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct TokenMetrics {
    /// Of their prompts.
    pub prompt: u64,
    /// Those of them found in the KV cache, where they were left by a request before.
    pub cached: u64,
    /// Of their answers.
    pub completion: u64,
    /// Requests whose prompt began in the KV cache.
    pub prefix_cache_hits: u64,
}

/// How fast an answer was computed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
pub struct SpeedMetrics {
    /// Prefill; 0 where it cannot be told.
    pub prefill_tokens_per_second: f64,
    /// Decode; 0 where it cannot be told.
    pub decode_tokens_per_second: f64,
}

/// Memory, in bytes; `None` where the system does not say.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct MemoryMetrics {
    /// Of this process, the weights that are in memory included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
    /// What the machine can still give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
}

/// Whether the machine goes slower than it can, and why.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct ThrottlingMetrics {
    /// Whether it does so now.
    pub throttled: bool,
    /// Whether it did since it was switched on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_since_boot: Option<bool>,
    /// Whether its supply gives too little voltage now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under_voltage: Option<bool>,
    /// Whether it did since it was switched on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under_voltage_since_boot: Option<bool>,
}
